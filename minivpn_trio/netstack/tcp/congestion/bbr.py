"""BBR: congestion control by a model of the path, not by its losses (draft-cardwell-iccrg-bbr-congestion-control-00).

Two figures describe a path: the rate at which it delivers, and its round trip when no queue stands in it. Their product
is what fits; the rate is what data is paced with. Both are measured all the time, by now and then sending a
little faster than the path delivered, a little slower afterwards, and every ten seconds next to
nothing for a fifth of a second. A loss is no sign of congestion here, so paths that lose for other reasons
stay fast, where CUBIC keeps to 1.2 segments a round trip over the root of the loss rate.

What BBR's first version is known for holds: it takes more than its share beside CUBIC where queues are short.
"""

from __future__ import annotations

from collections import deque
from enum import Enum
from math import inf, log

from ..delivery_rate import RateSample

__all__ = ["Bbr"]

#: Doubling the rate in a round trip needs 2 / ln 2; draining what that queued its inverse.
_HIGH_GAIN = 2 / log(2)
_CYCLE = (1.25, 0.75, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0)
_WINDOW_GAIN = 2.0
#: Rounds for which the largest rate is remembered; growth, and rounds without it, that mean that the pipe is full.
_RATE_ROUNDS = 10
_FULL_GROWTH, _FULL_ROUNDS = 1.25, 3
#: Seconds for which the shortest round trip is believed, and for which it is then looked for.
_RTT_AGE, _RTT_PROBE = 10.0, 0.2
_LEAST_SEGMENTS = 4
#: The share of a round, and the number of segments, whose loss is no longer the path's own: a queue overflows. At the
#: beginning the pipe is full then; later the window is cut to so much of itself, and grows again with each probing.
_OVERFLOW, _OVERFLOW_SEGMENTS = 0.08, 8
_CUT = 0.85
#: A little below the measured rate, so that a queue drains in the long run (as Linux does).
_MARGIN = 0.99
#: What a timer releases at once (pacing.py) comes on top of the window: seconds.
_TRAIN_TIME = 0.002
_CEILING = 1 << 30


class _Mode(Enum):
    STARTUP = 0
    DRAIN = 1
    PROBE_RATE = 2
    PROBE_RTT = 3


class Bbr:
    """Sizes are bytes, times seconds, rates bytes a second."""

    __slots__ = (
        "_before_cut",
        "_bound",
        "_conserving",
        "_cycle_at",
        "_cycle_index",
        "_delivered",
        "_delivered_before",
        "_full",
        "_full_rate",
        "_full_rounds",
        "_initial_segments",
        "_lost",
        "_lost_before",
        "_min_rtt",
        "_min_rtt_at",
        "_mode",
        "_mss",
        "_next_round",
        "_overflowed",
        "_prior_window",
        "_probe_done_at",
        "_rates",
        "_round",
        "_round_start",
        "_was_idle",
        "pacing_rate",
        "threshold",
        "window",
    )

    def __init__(self, mss: int, initial_segments: int = 10) -> None:
        self._mss = mss
        self._initial_segments = initial_segments
        self.window: int = initial_segments * mss
        self.threshold: int = _CEILING
        #: 0.0: not known yet.
        self.pacing_rate: float = 0.0
        self._mode = _Mode.STARTUP
        #: The largest rates of the last rounds: (round, rate), falling.
        self._rates: deque[tuple[int, float]] = deque()
        self._round = self._next_round = 0
        self._round_start = False
        self._delivered = 0
        self._min_rtt, self._min_rtt_at = inf, 0.0
        self._full = False
        self._full_rate = 0.0
        self._full_rounds = 0
        self._cycle_index, self._cycle_at = 0, 0.0
        #: When the search for the round trip may end; 0.0: it waits for the flight to shrink.
        self._probe_done_at = 0.0
        self._prior_window = 0
        #: The round number until which recovery sends no more than what arrives; 0: none.
        self._conserving = 0
        self._lost = self._overflowed = False
        #: No more than this in flight, since a queue overflowed.
        self._bound = _CEILING
        #: Bound and fullness before the cuts of this recovery, should it be taken back.
        self._before_cut: tuple[int, bool] | None = None
        #: Nothing was sent for long: the first sample says what looking for the round trip would.
        self._was_idle = False
        #: What was delivered, and lost, when this round began.
        self._delivered_before = self._lost_before = 0

    @property
    def _rate(self) -> float:
        return self._rates[0][1] if self._rates else 0.0

    def _fitting(self, gain: float = 1.0) -> int:
        """What fits into the path, times ``gain``."""
        if self._min_rtt == inf or not self._rates:
            return self._initial_segments * self._mss
        return int(gain * self._rate * self._min_rtt)

    # --- what the sender tells ---

    def handle_rate(
        self, sample: RateSample | None, delivered: int, size: int, in_flight: int, rtt: float, now: float
    ) -> None:
        """``size`` bytes arrived, ``delivered`` in all, ``in_flight`` are left; ``rtt`` 0.0: no sample."""
        self._delivered = delivered
        self._round_start = False
        if sample is not None:
            self._count_round(sample)
            self._measure(sample)
            self._judge_losses(sample)
        self._judge_startup(sample, in_flight, now)
        if self._mode is _Mode.PROBE_RATE:
            self._cycle(in_flight, now)
        self._measure_rtt(rtt, in_flight, now)
        self._set_rate(rtt)
        self._set_window(size, in_flight)
        self._lost = False

    def _count_round(self, sample: RateSample) -> None:
        if sample.prior_delivered >= self._next_round:
            self._next_round = self._delivered
            self._round += 1
            self._round_start = True
            if self._conserving and self._round > self._conserving:
                self._conserving = 0

    def _measure(self, sample: RateSample) -> None:
        rate, rates = sample.rate, self._rates
        if rate and (not sample.limited or rate >= self._rate):
            while rates and rates[-1][1] <= rate:
                rates.pop()
            rates.append((self._round, rate))
        while len(rates) > 1 and rates[0][0] <= self._round - _RATE_ROUNDS:
            rates.popleft()

    def _judge_losses(self, sample: RateSample) -> None:
        # Less than before, if what was lost turned out not to be.
        self._lost_before = min(self._lost_before, sample.lost)
        lost = sample.lost - self._lost_before
        most = max(_OVERFLOW_SEGMENTS * self._mss, _OVERFLOW * (self._delivered - self._delivered_before + lost))
        if lost > most and not self._overflowed:
            self._overflowed = True
            if self._before_cut is None:
                self._before_cut = (self._bound, self._full)
            self._full = True
            self._bound = max(int(min(self.window, self._bound) * _CUT), self._fitting())
        if self._round_start:
            self._overflowed = False
            self._lost_before, self._delivered_before = sample.lost, self._delivered

    def _judge_startup(self, sample: RateSample | None, in_flight: int, now: float) -> None:
        if not self._full and self._round_start and sample is not None and not sample.limited:
            if self._rate >= self._full_rate * _FULL_GROWTH:
                self._full_rate, self._full_rounds = self._rate, 0
            else:
                self._full_rounds += 1
                self._full = self._full_rounds >= _FULL_ROUNDS
        if self._mode is _Mode.STARTUP and self._full:
            self._mode = _Mode.DRAIN
        if self._mode is _Mode.DRAIN and in_flight <= self._fitting():
            self._enter_probe_rate(now)

    def _enter_probe_rate(self, now: float) -> None:
        self._mode = _Mode.PROBE_RATE
        # Any phase but the slow one.
        self._cycle_index, self._cycle_at = 2 + self._round % 6, now

    def _cycle(self, in_flight: int, now: float) -> None:
        gain = _CYCLE[self._cycle_index]
        full_length = now - self._cycle_at > self._min_rtt
        if gain > 1:
            # Where the bound keeps the flight below what is looked for, time is up all the same: it has to grow again.
            full = in_flight >= self._fitting(gain) or self.window >= self._bound
            over = full_length and (self._lost or full)
        elif gain < 1:
            over = full_length or in_flight <= self._fitting()
        else:
            over = full_length
        if over:
            if gain > 1 and not self._overflowed:
                self._bound = min(int(self._bound * gain), _CEILING)
            self._cycle_index = (self._cycle_index + 1) % len(_CYCLE)
            self._cycle_at = now

    def _measure_rtt(self, rtt: float, in_flight: int, now: float) -> None:
        expired = self._min_rtt_at and now > self._min_rtt_at + _RTT_AGE
        if rtt and (rtt <= self._min_rtt or expired):
            self._min_rtt, self._min_rtt_at = rtt, now
        if expired and self._mode is not _Mode.PROBE_RTT and not self._was_idle:
            self._mode = _Mode.PROBE_RTT
            self._prior_window = max(self._prior_window, self.window)
            self._probe_done_at = 0.0
        if rtt:
            self._was_idle = False
        if self._mode is _Mode.PROBE_RTT:
            if not self._probe_done_at:
                if in_flight <= _LEAST_SEGMENTS * self._mss:
                    self._probe_done_at = now + max(_RTT_PROBE, self._min_rtt)
            elif now > self._probe_done_at:
                self._min_rtt_at = now
                self.window = max(self.window, self._prior_window)
                self._prior_window = 0
                if self._full:
                    self._enter_probe_rate(now)
                else:
                    self._mode = _Mode.STARTUP

    def _set_rate(self, rtt: float) -> None:
        if not self._rates:
            if rtt and not self.pacing_rate:
                self.pacing_rate = _HIGH_GAIN * self.window / max(rtt, 0.001)
            return
        if self._mode is _Mode.STARTUP:
            gain = _HIGH_GAIN
        elif self._mode is _Mode.DRAIN:
            gain = 1 / _HIGH_GAIN
        else:
            gain = _CYCLE[self._cycle_index] if self._mode is _Mode.PROBE_RATE else 1.0
        rate = gain * self._rate * _MARGIN
        if self._full or rate > self.pacing_rate:
            self.pacing_rate = rate

    def _set_window(self, size: int, in_flight: int) -> None:
        least = _LEAST_SEGMENTS * self._mss
        if self._mode is _Mode.PROBE_RTT:
            self.window = min(self.window, least)
            return
        gain = _WINDOW_GAIN if self._full else _HIGH_GAIN
        target = self._fitting(gain) + int(self._rate * _TRAIN_TIME) + 3 * self._mss
        window = self.window
        if self._conserving:
            window = max(window, in_flight + size)
        elif self._full:
            window = min(window + size, target)
        elif window < target or self._delivered < self._initial_segments * self._mss:
            window += size
        self.window = max(min(window, self._bound), least)

    def handle_ack(self, acked: int, in_flight: int, rtt: float, now: float) -> None:
        """Nothing: ``handle_rate`` hears of more."""

    def handle_loss(self, in_flight: int, now: float) -> None:
        """For one round no more goes out than arrives; then the model rules again. While the rate is still looked
        for, few losses would only hide it."""
        self._lost = True
        if not self._full:
            return
        self._prior_window = max(self._prior_window, self.window)
        self._conserving = self._round + 1
        self._next_round = self._delivered
        self.window = max(min(self.window, in_flight), _LEAST_SEGMENTS * self._mss)

    def handle_timeout(self, in_flight: int, now: float) -> None:
        """One segment, as the path may be gone; what comes back restores the window."""
        if in_flight:
            self._prior_window = max(self._prior_window, self.window)
        self._full_rate, self._full_rounds = 0.0, 0
        self._conserving = 0
        self.window = self._mss

    def handle_recovered(self, in_flight: int, now: float) -> None:
        """As before the loss."""
        self._conserving = 0
        self._before_cut = None
        if self._mode is not _Mode.PROBE_RTT:
            self.window = max(self.window, self._prior_window)
            self._prior_window = 0

    def handle_undo(self, now: float) -> None:
        """As if nothing had been lost."""
        self._full_rate, self._full_rounds = 0.0, 0
        if self._before_cut is not None:
            bound, self._full = self._before_cut
            self._bound = max(self._bound, bound)
            self._overflowed = False
            if not self._full and self._mode is not _Mode.PROBE_RTT:
                self._mode = _Mode.STARTUP
        self.handle_recovered(0, now)

    def handle_idle(self, now: float) -> None:
        """The model stays; the rate keeps the first burst in bounds."""
        self._was_idle = True
        if self._mode is _Mode.PROBE_RATE and self._rates:
            self.pacing_rate = self._rate

    def handle_mss(self, mss: int) -> None:
        """The segment size changed."""
        self._mss = mss
