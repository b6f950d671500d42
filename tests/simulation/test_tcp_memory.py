"""What many connections hold together has a bound, whatever peers send, readers leave and writers write."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from tcp_world import B4, Link, Transfer, World

from minivpn_trio.netstack.memory import FLOOR, FREE, FULL, MemoryBudget
from minivpn_trio.netstack.stack import Limits, Stack
from minivpn_trio.netstack.tcp.connection import TcpConnection
from minivpn_trio.netstack.tcp.settings import TcpSettings

Pairs = list[tuple[TcpConnection, TcpConnection]]
BURST = 64 * 1400


def connections(world: World, count: int) -> Pairs:
    listener = world.b.listen_tcp((None, 80), world.now, backlog=2000)
    ours = {world.a.connect_tcp((B4, 80), world.now) for _ in range(count)}
    world.run(lambda: all(one.connected for one in ours) and not world.b._embryos)
    theirs = [listener.accept() for _ in range(count)]
    by_port = {one.local[1]: one for one in ours}
    return [(by_port[one.remote[1]], one) for one in theirs if one is not None]


def held(ends: Iterable[TcpConnection]) -> int:
    """Bytes, and what pieces and segments take besides theirs."""
    total = 0
    for end in ends:
        receiver, sender = end.receiver, end.sender
        total += receiver.queued + sum(map(len, receiver._pieces.values())) + 160 * len(receiver._pieces)
        total += sender.unacknowledged + 192 * (len(list(sender.board)) + sender.buffered // sender.mss)
    return total


def test_a_thousand_connections_that_nobody_reads_from() -> None:
    budget = 16 << 20
    link = Link(delay=0.001, loss=0.01)
    limits, limits_b = Limits(tcp_memory=1 << 30), Limits(tcp_memory=budget)
    world = World(up=link, down=Link(delay=0.001), limits=limits, limits_b=limits_b)
    pairs = connections(world, 1000)
    peak = 0
    for _ in range(12):
        for ours, _ in pairs:
            ours.write(bytes(40_000), world.now)
        world.idle(0.05)
        peak = max(peak, held(theirs for _, theirs in pairs))
        assert peak <= budget * 5 / 4 + 1000 * FLOOR + BURST
    assert peak >= budget
    # The counter tells the truth, and nobody failed.
    assert world.b.memory.held == held(theirs for _, theirs in pairs)
    assert all(end.error is None for pair in pairs for end in pair)
    # Everything is there, and it all ends at nothing.
    total = 0

    def drained() -> bool:
        nonlocal total
        for _, theirs in pairs:
            total += len(theirs.read(1 << 20, world.now))
        return not any(ours.sender.unacknowledged for ours, _ in pairs)

    world.run(drained)
    for _, theirs in pairs:
        total += len(theirs.read(1 << 20, world.now))
    assert total > 1000 * 40_000
    assert (world.a.memory.held, world.b.memory.held, world.b.memory.level) == (0, 0, FREE)


def test_writers_wait_for_memory_and_are_told_when_there_is() -> None:
    budget = 1 << 20
    world = World(limits=Limits(tcp_memory=budget), limits_b=Limits())
    pairs = connections(world, 100)
    world.links["a"].loss = 1.0
    told: list[TcpConnection] = []
    for ours, _ in pairs:
        while ours.writable and ours.write(bytes(100_000), world.now):
            pass
        ours.on_change = lambda ours=ours: told.append(ours)  # type: ignore[misc]
    # What was accepted last, of those last bytes, makes segments too.
    most = budget + 100 * (FLOOR + 192 * (FLOOR // 1300 + 1))
    assert budget <= world.a.memory.held == held(ours for ours, _ in pairs) <= most
    assert not any(ours.writable for ours, _ in pairs)
    first, last = pairs[0][0], pairs[-1][0]
    # The others give back what they hold; it is told at once, without anything from outside.
    for ours, _ in pairs[:90]:
        ours.abort(world.now)
    timeout = world.a.next_timeout()
    assert timeout is not None and timeout <= world.now
    world.a.handle_timeout(world.now)
    assert last in told and first not in told
    assert last.writable and last.write(bytes(100_000), world.now) == 100_000


def test_a_reader_goes_on_while_others_hold_everything() -> None:
    world = World(limits=Limits(), limits_b=Limits(tcp_memory=1 << 20))
    pairs = connections(world, 11)
    for ours, _ in pairs[1:]:
        ours.write(bytes(250_000), world.now)
    world.idle(2)
    assert world.b.memory.level != FREE
    transfer = Transfer(world, *pairs[0], bytes(700_000), finish=False)
    world.run(transfer.pump, 30)
    # What was granted before is used up, and no more than the least is granted again.
    receiver = pairs[0][1].receiver
    assert receiver.edge - receiver.nxt <= FLOOR
    assert any(ours.sender.unacknowledged for ours, _ in pairs[1:])
    # Who reads as long as it is tight does not open his window; when there is memory again it opens without him.
    _, theirs = pairs[1]
    edge = theirs.receiver.edge
    assert theirs.receivable > 100_000
    theirs.read(theirs.receivable - 50_000, world.now)
    world.idle(0.1)
    assert world.b.memory.level != FREE
    assert theirs.receiver.edge == edge
    for _, other in pairs[2:]:
        other.close(world.now)
    world.run(lambda: theirs.receiver.edge > edge, 1)
    assert world.b.memory.level == FREE


@pytest.mark.parametrize("way", ["read", "close", "abort", "forgotten", "reset"])
def test_nothing_is_held_at_the_end(way: str) -> None:
    world = World()
    ((ours, theirs),) = connections(world, 1)
    world.links["a"].filter = lambda packet, seen=[]: len(packet) < 500 or seen.append(1) or len(seen) != 5  # type: ignore[misc,func-returns-value]
    ours.write(bytes(100_000), world.now)
    theirs.write(bytes(50_000), world.now)
    world.idle(0.0105)
    assert held([theirs]) == world.b.memory.held > 0
    world.idle(5)
    assert held([theirs]) == world.b.memory.held > 0
    if way == "read":
        for end in (ours, theirs):
            while end.receivable:
                end.read(1 << 20, world.now)
            end.shutdown_write(world.now)
    elif way == "forgotten":
        ours.abort(world.now)
        world.idle(1)
        assert world.b.memory.held == theirs.receivable > 0
        del theirs
    elif way == "reset":
        ours.abort(world.now)
        world.idle(1)
        # What arrived in order can still be read, and counts for so long.
        assert world.b.memory.held == theirs.receivable > 0
        theirs.read(10_000, world.now)
        assert world.b.memory.held == theirs.receivable > 0
        theirs.close(world.now)
    else:
        for end in (ours, theirs):
            getattr(end, way)(world.now)
    world.idle(200)
    assert world.a.memory.held == world.b.memory.held == 0


def test_crumbs_out_of_order_are_charged_for_what_they_take() -> None:
    """Peers that leave out every other byte: the budget is used up, and then nothing more of it is kept."""
    budget = 1 << 20
    world = World(limits=Limits(tcp_memory=1 << 30), limits_b=Limits(tcp_memory=budget))
    pairs = connections(world, 20)
    for _, theirs in pairs:
        receiver = theirs.receiver
        for start in range(receiver.nxt + 1, receiver.edge - 8, 8):
            receiver.insert(start, b"crumb")
        theirs.flush(world.now)
    pieces = sum(len(theirs.receiver._pieces) for _, theirs in pairs)
    assert budget <= world.b.memory.held == held(theirs for _, theirs in pairs) < budget * 5 / 4
    assert world.b.memory.level != FREE
    assert pieces * 160 < budget * 5 / 4
    # One connection alone does not use it up.
    assert len({bool(theirs.receiver._pieces) for _, theirs in pairs}) == 2
    assert max(len(theirs.receiver._pieces) for _, theirs in pairs) * 160 < budget / 3
    for _, theirs in pairs:
        theirs.abort(world.now)
    assert world.b.memory.held == 0


def test_small_segments_are_charged_for_what_they_take() -> None:
    """To peers with the smallest segments that are believed: no more is written than fits, sent or not."""
    budget = 4 << 20
    settings = TcpSettings(initial_window_segments=2000, initial_ssthresh_segments=None, pacing=False)
    world = World(mtu=1400, limits=Limits(tcp_memory=budget), limits_b=Limits(), settings_a=settings)
    pairs = connections(world, 40)
    world.links["a"].loss = 1.0
    for ours, _ in pairs:
        ours.set_path_mss(88)
        while ours.writable and ours.write(bytes(100_000), world.now):
            pass
    world.idle(0.3)
    ends = [ours for ours, _ in pairs]
    assert world.a.memory.held == held(ends)
    segments = sum(len(end.sender.board) for end in ends)
    size = sum(end.sender.unacknowledged for end in ends)
    assert segments > 5000
    # FLOOR for each, which is more where segments are small.
    assert size + 192 * segments <= world.a.memory.held <= budget + 40 * FLOOR * (1 + 192 / 76)


def test_those_that_nobody_holds_any_more_give_their_memory_back() -> None:
    """Reset while unread, then forgotten by their owner: the last that is left is told, at the next timeout."""
    budget = 1 << 20
    world = World(limits=Limits(), limits_b=Limits(tcp_memory=budget))
    pairs = connections(world, 40)
    for ours, _ in pairs[1:]:
        ours.write(bytes(60_000), world.now)
    world.idle(2)
    for ours, _ in pairs[1:]:
        ours.abort(world.now)
    world.idle(1)
    memory, (_, last) = world.b.memory, pairs[0]
    assert memory.level != FREE and world.b.stats().tcp_connections == 1
    told: list[int] = []
    last.on_change = lambda: told.append(1)
    woken: list[int] = []
    world.b.on_work = lambda: woken.append(1)
    del ours, _, pairs[1:]
    assert memory.held == 0 and memory.level == FREE
    assert not woken, "that may be in any thread"
    assert world.b.next_timeout() is not None and not told
    world.b.handle_timeout(world.now)
    assert told == [1]


def test_levels() -> None:
    relieved: list[int] = []
    memory = MemoryBudget(1000, lambda: relieved.append(1))
    for change, level in ((999, 0), (1, 1), (249, 1), (1, 2), (-1, 1), (-200, 1), (-173, 1), (-1, 0), (1, 0), (500, 2)):
        memory.change(change)
        assert memory.level == level, memory.held
    assert relieved == [1] and memory.level == FULL and memory.left == 1000 - memory.held


def test_the_budget_is_per_stack() -> None:
    stacks = [Stack(addresses=[B4], mtu=1400, rng=bytes, now=0.0, limits=Limits(tcp_memory=size)) for size in (5, 7)]
    assert [stack.memory.limit for stack in stacks] == [5, 7]
