"""What connections to one host share."""

from __future__ import annotations

from math import inf

import pytest

from minivpn_trio.netstack.paths import Paths
from minivpn_trio.netstack.turns import Waiter

HOST = bytes((10, 0, 0, 1))
MSS = 1400


class Waiting:
    """Somebody who sends ``size`` bytes when his turn comes."""

    def __init__(self, paths: Paths, size: int) -> None:
        self.paths, self.size = paths, size
        self.path = paths.to(HOST, 1.0)
        self.turns = self.flying = 0
        self.busy = False

    def flush(self, now: float) -> None:
        self.turns += 1
        self.flying += self.size
        self.paths.change(self.path, self.size)
        if self.size:
            self.paths.sent(self, now)

    def drain(self, now: float) -> bool:
        if self.busy:
            return False
        self.paths.change(self.path, -self.flying)
        self.flying = 0
        return True


def test_the_room_is_what_the_queue_holds_or_the_path() -> None:
    path = Paths().to(HOST, 1.0)
    assert path.room > 10_000
    path.rtt, path.mss = 0.0003, MSS
    assert path.room == 90
    path.rtt = 0.02
    assert path.room == 2_500_000 // MSS


def test_little_room_is_none() -> None:
    paths = Paths()
    path = paths.to(HOST, 1.0)
    path.rtt, path.mss = 0.0003, MSS
    paths.change(path, 80 * MSS)
    assert path.room == 10
    paths.change(path, 1)
    assert path.room == 0


def test_turns_come_when_something_arrived_and_each_once() -> None:
    paths = Paths()
    path = paths.to(HOST, 1.0)
    path.rtt, path.mss = 0.0003, MSS
    paths.change(path, 90 * MSS)
    waiters = [Waiting(paths, 15 * MSS) for _ in range(5)]
    for waiter in waiters:
        paths.join(path, waiter, few=False)
    paths.change(path, -5 * MSS)
    assert not paths.due
    paths.change(path, -30 * MSS)
    assert paths.due
    paths.serve(1.0, lambda waiter, now: waiter.flush(now))
    assert [waiter.turns for waiter in waiters] == [1, 1, 0, 0, 0]
    assert not paths.due
    paths.change(path, -path.flying)
    paths.serve(1.0, lambda waiter, now: waiter.flush(now))
    assert [waiter.turns for waiter in waiters] == [1, 1, 1, 1, 1]
    paths.change(path, -path.flying)
    assert not paths.due


def test_room_that_is_left_goes_round_again() -> None:
    """Nobody waits for an acknowledgement where there is room for more than a train of each."""
    paths = Paths()
    path = paths.to(HOST, 1.0)
    path.rtt, path.mss = 0.02, MSS
    paths.change(path, 2_500_000)
    left = {Waiting(paths, 44 * MSS): 10 for _ in range(3)}
    for waiter in left:
        paths.join(path, waiter, few=False)
    paths.change(path, -2_500_000)

    def flush(waiter: Waiter, now: float) -> None:
        assert isinstance(waiter, Waiting)
        waiter.flush(now)
        left[waiter] -= 1
        if left[waiter]:
            paths.join(path, waiter, few=False)

    paths.serve(1.0, flush)
    assert set(left.values()) == {0}


def test_a_turn_that_nobody_uses_is_offered_once() -> None:
    paths = Paths()
    path = paths.to(HOST, 1.0)
    path.rtt, path.mss = 0.0003, MSS
    waiters = [Waiting(paths, 0) for _ in range(3)]

    def flush(waiter: Waiter, now: float) -> None:
        waiter.flush(now)
        paths.join(path, waiter, few=False)

    for waiter in waiters:
        paths.join(path, waiter, few=False)
    paths.serve(1.0, flush)
    assert [waiter.turns for waiter in waiters] == [1, 1, 1]


def test_who_cuts_small_segments_finds_room_when_the_others_do() -> None:
    path = Paths().to(HOST, 1.0)
    path.rtt, path.mss = 0.0003, MSS
    path.flying = 40 * MSS
    assert path.room == 50


def test_those_with_little_to_say_come_first_but_not_for_ever() -> None:
    paths = Paths()
    path = paths.to(HOST, 1.0)
    path.rtt, path.mss = 0.0003, MSS
    many = Waiting(paths, MSS)
    paths.join(path, many, few=False)
    small = [Waiting(paths, MSS) for _ in range(20)]
    for waiter in small:
        paths.join(path, waiter, few=True)
    order: list[object] = []
    paths.serve(1.0, lambda waiter, now: order.append(waiter))
    assert order[:8] == small[:8]
    assert order[8] is many


def test_what_was_sent_a_while_ago_is_in_no_queue() -> None:
    paths = Paths()
    path = paths.to(HOST, 1.0)
    path.rtt, path.mss = 0.001, MSS
    early, late, waiter = Waiting(paths, 40 * MSS), Waiting(paths, 45 * MSS), Waiting(paths, MSS)
    early.flush(1.0)
    late.flush(1.005)
    assert paths.next_timeout() == inf
    assert paths.join(path, waiter, few=True)
    assert paths.next_timeout() == pytest.approx(1.011)
    early.busy = True
    paths.handle_timeout(1.012)
    assert not paths.due
    assert paths.next_timeout() == pytest.approx(1.016)
    early.busy, late.busy = False, True
    paths.handle_timeout(1.022)
    assert not paths.due
    paths.handle_timeout(1.024)
    assert paths.due
    assert path.flying == 45 * MSS
    paths.serve(1.024, lambda waiter, now: waiter.flush(now))
    assert waiter.turns == 1
    assert paths.next_timeout() == inf


def test_whoever_is_gone_leaves_nothing_behind() -> None:
    paths = Paths()
    path = paths.to(HOST, 1.0)
    path.rtt, path.mss = 0.001, MSS
    first, second = Waiting(paths, 90 * MSS), Waiting(paths, MSS)
    first.flush(1.0)
    for waiter in (first, second):
        paths.join(path, waiter, few=False)
    paths.forget(first)
    assert paths.due
    assert path.flying == first.flying == 0
    paths.forget(second)
    assert not path.waiting
    assert not path.recent
    assert not paths._held


def test_the_same_host_the_same_path_for_a_while() -> None:
    paths = Paths()
    path = paths.to(HOST, 1.0)
    assert paths.to(HOST, 600.0) is path
    assert paths.to(HOST, 602.0) is not path


def test_hosts_are_forgotten_rather_than_piled_up() -> None:
    paths = Paths()
    first = paths.to(HOST, 1.0)
    for number in range(5000):
        paths.to(number.to_bytes(4, "big"), 1.0)
    assert len(paths._known) == 1024
    assert paths.to(HOST, 1.0) is not first


def test_another_tunnel_has_other_paths() -> None:
    paths = Paths()
    path = paths.to(HOST, 1.0)
    path.rtt, path.mss = 0.0003, MSS
    paths.change(path, 1000)
    paths.join(path, Waiting(paths, MSS), few=False)
    paths.clear()
    assert paths.due
    assert path.rtt == inf
    assert path.flying == 1000
