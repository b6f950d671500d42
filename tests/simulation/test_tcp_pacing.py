"""Windows leave over the time that they are for, not at once."""

from __future__ import annotations

from math import inf

import pytest
from tcp_world import Link, Transfer, World

from minivpn_trio.netstack.tcp.pacing import Pacer
from minivpn_trio.netstack.tcp.settings import TcpSettings

MSS = 1400


def test_a_path_without_length_is_not_paced() -> None:
    pacer = Pacer()
    pacer.set_window(100 * MSS, False, 0.0005)
    assert pacer.rate == inf
    for _ in range(10):
        assert pacer.allowance(MSS, 1.0) > 0
        pacer.sent(44 * MSS)
    assert pacer.due == inf


def test_it_begins_with_a_train_whatever_the_clock_says() -> None:
    for now in (0.0, 0.001, 1e6):
        pacer = Pacer()
        pacer.set_rate(100.0, 0.02)
        assert pacer.allowance(MSS, now) == 10


def test_what_was_all_says_when_there_is_more() -> None:
    """Nobody has to ask for a train that is not there; the next one is half of one later, on the shortest path more."""
    for srtt, part in ((0.02, 0.5), (0.0005, 0.75)):
        pacer = Pacer()
        pacer.set_rate(1e6 * MSS, srtt)
        assert pacer.allowance(MSS, 5.0) == 44
        pacer.sent(43 * MSS)
        assert pacer.due == inf
        pacer.sent(MSS)
        assert pacer.due == pytest.approx(5.0 + part * 44 / 1e6)
        assert pacer.allowance(MSS, 5.0) == 0


def test_a_window_takes_its_share_of_the_round_trip() -> None:
    """1.2 windows in a round trip, whatever the timer's steps, as long as they are within a train's time."""
    pacer = Pacer()
    pacer.set_window(400 * MSS, False, 0.1)
    now, sent = 10.0, 0
    while now < 11.0:
        while count := pacer.allowance(MSS, now):
            assert count <= 44
            sent += count
            pacer.sent(count * MSS)
        assert now < pacer.due < now + 0.01
        now = pacer.due
    assert sent == pytest.approx(1.2 * 400 * 10, rel=0.02)


def test_slow_start_leaves_room_for_doubling() -> None:
    pacer = Pacer()
    pacer.set_window(400 * MSS, True, 0.1)
    assert pacer.rate == pytest.approx(2 * 400 * MSS / 0.1)


def test_idle_time_earns_one_train_and_no_more() -> None:
    pacer = Pacer()
    pacer.set_window(20 * MSS, False, 0.1)
    first = pacer.allowance(MSS, 1000.0)
    pacer.sent(first * MSS)
    assert pacer.allowance(MSS, 1000.0) == 0
    assert pacer.allowance(MSS, 2000.0) == first == 10


@pytest.mark.parametrize("congestion", ["cubic", "bbr"])
def test_a_short_queue_at_the_end_of_a_long_path_is_not_overflowed_by_bursts(congestion: str) -> None:
    """The server's socket holds some ninety datagrams and empties fast; unpaced, every window beyond that loses."""

    def retransmissions(pacing: bool) -> float:
        settings = TcpSettings(congestion=congestion, pacing=pacing)
        up, down = Link(delay=0.05, rate=600e6, queue=92 * 1440), Link(delay=0.05)
        world = World(up=up, down=down, settings_a=settings)
        ours, theirs = world.connect()
        transfer = Transfer(world, ours, theirs, bytes(4_000_000), chunk=1 << 18)
        world.run(transfer.pump)
        assert len(transfer.received) == 4_000_000
        return world.a.stats().tcp_retransmissions

    assert retransmissions(True) == 0
    assert retransmissions(False) > 0
