"""Several senders of one stack, and a way out that is slower than they are."""

from __future__ import annotations

import heapq
from itertools import count

import pytest
from tcp_world import World

from minivpn_trio.netstack.stack import Limits
from minivpn_trio.netstack.tcp.congestion import ALGORITHMS
from minivpn_trio.netstack.tcp.connection import TcpConnection
from minivpn_trio.netstack.tcp.settings import TcpSettings

#: One way, seconds.
DELAY = 0.01


class Narrow(World):
    """The way out of ``a`` takes ``packets`` every ``tick`` seconds; ``b`` and the way back have no limit."""

    def __init__(self, *, packets: int, tick: float, congestion: str = "cubic", output_data: int = 192) -> None:
        super().__init__(settings_a=TcpSettings(congestion=congestion), limits=Limits(output_data=output_data))
        self.packets, self.tick = packets, tick
        self.flying: list[tuple[float, int, str, bytes]] = []
        self.serial = count()

    def pass_tick(self) -> None:
        self.now += self.tick
        for name, stack, most in (("a", self.a, self.packets), ("b", self.b, 10_000)):
            for packet in stack.take_output(most, self.now):
                heapq.heappush(self.flying, (self.now + DELAY, next(self.serial), name, packet))
        arrived: dict[str, list[bytes]] = {"a": [], "b": []}
        while self.flying and self.flying[0][0] <= self.now:
            _, _, name, packet = heapq.heappop(self.flying)
            arrived[name].append(packet)
        for name, stack in (("a", self.b), ("b", self.a)):
            for start in range(0, len(arrived[name]), 64):
                stack.handle_packets(arrived[name][start : start + 64], self.now)
        for stack in (self.a, self.b):
            timeout = stack.next_timeout()
            if timeout is not None and timeout <= self.now:
                stack.handle_timeout(self.now)


def test_those_that_waited_for_room_send_at_the_time_of_now() -> None:
    """What a pause does not move is the time of the last packet: by that a round trip would take half a minute."""
    world = Narrow(packets=64, tick=0.001)
    pairs = [world.connect(port=port) for port in range(1, 31)]
    world.idle(30)
    start, size = world.now, 14_000
    for ours, _ in pairs:
        ours.write(bytes(size), start)
    received = 0
    while received < len(pairs) * size:
        world.pass_tick()
        for ours, theirs in pairs:
            assert all(segment.sent_at >= start for segment in ours.sender.board)
            received += len(theirs.read(1 << 20, world.now))
    assert max(ours.rtt for ours, _ in pairs) < 10 * DELAY
    assert max(ours.sender.rto.value for ours, _ in pairs) < 1


def jain(shares: list[int]) -> float:
    """Jain's fairness index: 1 if all have the same, 1/n if one has everything."""
    return sum(shares) ** 2 / (len(shares) * sum(share * share for share in shares))


@pytest.mark.parametrize("congestion", sorted(ALGORITHMS))
def test_uploads_share_the_way_out(congestion: str) -> None:
    world = Narrow(packets=10, tick=0.001, congestion=congestion)
    pairs = [world.connect(port=port) for port in (1, 2, 3)]
    start, shares = world.now, [0, 0, 0]
    data = bytes(1 << 18)
    while world.now < start + 3:
        world.pass_tick()
        for number, (ours, theirs) in enumerate(pairs):
            # The first had the way for itself.
            if number == 0 or world.now > start + 0.5:
                ours.write(data, world.now)
            received = len(theirs.read(1 << 24, world.now))
            if world.now > start + 1:
                shares[number] += received
    assert sum(shares) > 0.9 * 2 * 10_000 * 1300, "the way out is used"
    assert jain(shares) > 0.9, shares


def request_time(world: Narrow, bulk: list[tuple[TcpConnection, TcpConnection]]) -> float:
    """How long three bytes take beside uploads, once those are under way."""
    ours, theirs = world.connect(port=99)
    data, start, asked = bytes(1 << 18), world.now, 0.0
    while not theirs.receivable:
        world.pass_tick()
        assert world.now < start + 5
        for mine, others in bulk:
            mine.write(data, world.now)
            others.read(1 << 24, world.now)
        if world.now > start + 1 and not asked:
            asked = world.now
            ours.write(b"GET", world.now)
    return world.now - asked


def test_a_request_beside_an_upload_takes_less_than_two_round_trips() -> None:
    world = Narrow(packets=64, tick=0.0064)
    assert request_time(world, [world.connect(port=1)]) < 2 * 2 * DELAY


def test_a_request_beside_many_uploads() -> None:
    world = Narrow(packets=64, tick=0.0064)
    assert request_time(world, [world.connect(port=port) for port in range(1, 9)]) < 2 * 2 * DELAY


@pytest.mark.parametrize(("packets", "output_data"), [(1, 8), (1, 64), (1, 192), (10, 64), (64, 64), (64, 192)])
def test_an_upload_beside_many_with_little_to_say(output_data: int, packets: int) -> None:
    """However small the queue is, neither keeps the other out."""
    world = Narrow(packets=packets, tick=0.0005 * packets, output_data=output_data)
    upload, chatter = world.connect(port=1), [world.connect(port=port) for port in range(2, 60)]
    start, sent, said = world.now, 0, 0
    while world.now < start + 2:
        world.pass_tick()
        upload[0].write(bytes(1 << 18), world.now)
        sent += len(upload[1].read(1 << 24, world.now))
        for ours, theirs in chatter:
            if not ours.sender.buffered:
                ours.write(bytes(1000), world.now)
            said += len(theirs.read(1 << 24, world.now))
    # Packets of 1300 and of 1000 bytes, 4000 in all: a tenth for each at least.
    assert sent > 0.1 * 4000 * 1300 and said > 0.1 * 4000 * 1000, (sent, said)
