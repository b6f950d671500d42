"""HyStart++ against RFC 9406, on a sender whose round trips take what the test says."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain
from math import inf

import pytest

from minivpn_trio.netstack.tcp.congestion import Cubic
from minivpn_trio.netstack.tcp.congestion.hystart import HyStart

MSS = 1000
#: RFC 9406, 4.3.
SAMPLES, GROWTH_DIVISOR, CSS_ROUNDS = 8, 4, 5


def threshold(rtt: float) -> float:
    """RttThresh = max(MIN_RTT_THRESH, min(lastRoundMinRTT / MIN_RTT_DIVISOR, MAX_RTT_THRESH))."""
    return max(0.004, min(rtt / 8, 0.016))


class SlowStart:
    """A sender in slow start, counting rounds itself as RFC 9406, 4.2 does: by SND.NXT when a round begins."""

    def __init__(self, initial: int = 10) -> None:
        self.hystart = HyStart()
        self.window = initial * MSS
        self.una, self.nxt = 0, self.window
        self.round, self.end = 0, MSS
        #: What each acknowledgement made the window grow by, by round.
        self.grown: list[list[int]] = [[]]

    def play(self, rtt: Callable[[int, int], float], until: int = 10) -> None:
        """``rtt`` of (round, acknowledgement of it); ends with a round, or slow start."""
        while self.round < until and not self.hystart.done:
            sample = rtt(self.round, len(self.grown[-1]))
            grown = self.hystart.growth(MSS, self.nxt - self.una, sample)
            self.window += grown
            self.grown[-1].append(grown)
            self.una += MSS
            if self.una >= self.end:
                self.round, self.end = self.round + 1, self.nxt
                self.grown.append([])
            while self.nxt - self.una + MSS <= self.window:
                self.nxt += MSS


@pytest.mark.parametrize("base", [0.005, 0.02, 0.08, 0.5], ids="{:g} s".format)
def test_conservative_phase_begins_at_the_threshold_and_with_eight_samples(base: float) -> None:
    below, above = SlowStart(), SlowStart()
    below.play(lambda number, _: base if number < 3 else base + threshold(base) * 0.99, until=5)
    assert all(grown == MSS for grown in chain(*below.grown))
    above.play(lambda number, _: base if number < 3 else base + threshold(base) * 1.01, until=4)
    assert all(grown == MSS for grown in chain(*above.grown[:3]))
    assert above.grown[3][: SAMPLES - 1] == [MSS] * (SAMPLES - 1)
    assert set(above.grown[3][SAMPLES - 1 :]) == {MSS // GROWTH_DIVISOR}


def test_the_smallest_of_a_round_counts() -> None:
    """Jitter upwards is no rise."""
    start = SlowStart()
    start.play(lambda number, index: 0.04 if number < 3 or index % 5 == 0 else 0.2, until=6)
    assert set(chain(*start.grown)) == {MSS}


def test_the_rise_is_against_the_round_before_only() -> None:
    """A path that gets slower by a little each round is not caught: so says the RFC."""
    start = SlowStart()
    start.play(lambda number, _: 0.04 + 0.0045 * number, until=6)
    assert set(chain(*start.grown)) == {MSS}


def test_slow_start_ends_after_five_conservative_rounds() -> None:
    """RFC 9406, 4.2: the round in which it began counts as one."""
    start = SlowStart()
    start.play(lambda number, _: 0.04 if number < 3 else 0.06, until=30)
    assert start.hystart.done
    assert start.round == 3 + CSS_ROUNDS
    # In each of them a quarter of what slow start would bring: the first has eight at the full pace.
    for number in range(4, 3 + CSS_ROUNDS):
        assert set(start.grown[number]) == {MSS // GROWTH_DIVISOR}


def test_a_passing_rise_resumes_slow_start() -> None:
    """RFC 9406, 4.2: below the baseline again in a round with eight samples: it was spurious."""
    start = SlowStart()
    start.play(lambda number, _: 0.06 if number in (3, 4) else 0.04, until=8)
    assert not start.hystart.done
    assert set(start.grown[4]) == {MSS // GROWTH_DIVISOR}
    assert set(start.grown[5][: SAMPLES - 1]) == {MSS // GROWTH_DIVISOR}
    assert set(start.grown[5][SAMPLES - 1 :]) == {MSS}
    assert set(start.grown[6]) == {MSS}
    # And what rises later is noticed as before.
    start.play(lambda number, _: 0.04 if number < 9 else 0.07, until=11)
    assert set(start.grown[10]) == {MSS // GROWTH_DIVISOR}


def test_without_samples_nothing_happens() -> None:
    start = SlowStart()
    start.play(lambda number, _: 0.0, until=8)
    assert set(chain(*start.grown)) == {MSS}


def test_seven_samples_are_too_few() -> None:
    start = SlowStart()
    start.play(lambda number, index: 0.04 if number < 3 else 0.08 if index < SAMPLES - 1 else 0.0, until=5)
    assert set(chain(*start.grown)) == {MSS}


def test_the_end_is_the_threshold_of_congestion_avoidance() -> None:
    control = Cubic(MSS)
    now, rounds = 100.0, 0
    while control.threshold == Cubic(MSS).threshold:
        rtt = 0.04 if rounds < 3 else 0.06
        flight = control.window // MSS
        for _ in range(flight):
            now += rtt / flight
            control.handle_ack(MSS, flight * MSS, rtt, now)
        rounds += 1
        assert rounds < 20
    assert control.threshold <= control.window < control.threshold * 1.1
    assert control.threshold < inf
