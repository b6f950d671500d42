"""The link that loses, delays, reorders, repeats and corrupts."""

from __future__ import annotations

import doctest

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from minivpn_trio.networkio.transport import Transport
from minivpn_trio.testing import LinkConditions, LinkModel, link, memory_link
from minivpn_trio.testing.strategies import link_conditions


def test_the_example_in_the_docs() -> None:
    assert doctest.testmod(link).attempted >= 4
    assert doctest.testmod(link).failed == 0


def drain(model: LinkModel, now: float = 1e12) -> list[bytes]:
    arrived = []
    while burst := model.deliver(now):
        assert len(burst) <= 64
        arrived += burst
    return arrived


@given(link_conditions(limited=True), st.integers(0, 2**32), st.lists(st.binary(max_size=50), max_size=100))
def test_what_happens_to_packets_is_counted_and_can_be_repeated(
    conditions: LinkConditions, seed: int, packets: list[bytes]
) -> None:
    def run() -> tuple[list[bytes], tuple[int, ...]]:
        model = LinkModel(conditions, seed)
        for number, packet in enumerate(packets):
            model.send(packet, number * 0.01)
        due = model.next_timeout()
        assert due is None or due >= conditions.delay
        if due is not None:
            assert model.deliver(due - 1e-9 * max(due, 1)) == []
        return drain(model), (model.sent, model.lost, model.corrupted, model.duplicated)

    arrived, counts = run()
    assert run() == (arrived, counts)
    sent, lost, corrupted, duplicated = counts
    assert sent == len(packets)
    assert len(arrived) == sent - lost + duplicated
    undamaged = list(arrived)
    strangers = 0
    for packet in undamaged:
        strangers += packet not in packets
    assert strangers <= corrupted


@pytest.mark.parametrize(
    ("conditions", "counter"),
    [
        (LinkConditions(loss=0.2), "lost"),
        (LinkConditions(duplication=0.2), "duplicated"),
        (LinkConditions(corruption=0.2), "corrupted"),
    ],
)
def test_probabilities_are_what_they_say(conditions: LinkConditions, counter: str) -> None:
    model = LinkModel(conditions, 1)
    for _ in range(5000):
        model.send(b"packet", 0.0)
    assert 900 <= getattr(model, counter) <= 1100


def test_damage_is_one_bit() -> None:
    model = LinkModel(LinkConditions(corruption=1.0), 1)
    model.send(bytes(100), 0.0)
    (packet,) = drain(model)
    assert sum(byte.bit_count() for byte in packet) == 1


def test_an_even_link_keeps_the_order_and_a_jittery_one_does_not() -> None:
    packets = [bytes([number]) for number in range(100)]
    for jitter, ordered in ((0.0, True), (0.5, False)):
        model = LinkModel(LinkConditions(delay=0.1, jitter=jitter), 1)
        for number, packet in enumerate(packets):
            model.send(packet, number / 1000)
        arrived = drain(model)
        assert sorted(arrived) == packets
        assert (arrived == packets) is ordered


def test_a_rate_spaces_packets_and_its_queue_overflows() -> None:
    model = LinkModel(LinkConditions(rate=8000.0, queue=2), 1)
    for _ in range(100):
        model.send(bytes(1000), 0.0)
    assert model.deliver(0.99) == []
    assert len(model.deliver(1.0)) == 1
    assert len(model.deliver(3.0)) == 2
    # 3000 bytes may wait, and the one that finds exactly so many
    assert model.lost == 96
    model.send(bytes(1000), 100.0)
    assert model.next_timeout() is not None
    drain(model, 50.0)
    assert model.next_timeout() == 101.0


# as transports


def test_its_ends_are_transports() -> None:
    near, far = memory_link()
    assert isinstance(near, Transport)
    assert not near.is_stream
    assert near.outgoing is far.incoming
    assert near.incoming is far.outgoing


async def test_bursts_arrive_when_they_are_due(autojump_clock: MockClock) -> None:
    near, far = memory_link(LinkConditions(delay=1.5), LinkConditions(delay=0.5))
    began = trio.current_time()
    await near.send([b"1", b"2"])
    assert await far.receive() == [b"1", b"2"]
    assert trio.current_time() - began == 1.5
    await far.send([b"3"])
    assert await near.receive() == [b"3"]
    assert trio.current_time() - began == 2.0
    stats = near.stats()
    assert (stats.packets_out, stats.bytes_out, stats.packets_in, stats.bytes_in) == (2, 2, 1, 1)


async def test_receive_is_cancel_safe_and_wakes_for_what_comes_later(autojump_clock: MockClock) -> None:
    near, far = memory_link(LinkConditions(delay=1.0))
    with trio.move_on_after(0.5):
        await far.receive()
    async with trio.open_nursery() as nursery:
        got = []

        async def receive() -> None:
            got.append(await far.receive())

        nursery.start_soon(receive)
        await trio.sleep(10)
        near.send_nowait([b"late"])
    assert got == [[b"late"]]


async def test_closing(autojump_clock: MockClock) -> None:
    near, far = memory_link()
    async with trio.open_nursery() as nursery:

        async def receive() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await near.receive()

        nursery.start_soon(receive)
        await trio.testing.wait_all_tasks_blocked()
        await near.aclose()
    await near.aclose()
    assert near.closed
    assert not far.closed
    with pytest.raises(trio.ClosedResourceError):
        await near.send([b"x"])
    near.send_nowait([b"x"])
    # nobody tells the other end of a datagram link
    await far.send([b"into the void"])
    with trio.move_on_after(100) as scope:
        await far.receive()
    assert scope.cancelled_caught


async def test_closing_a_stream_is_seen_after_the_last_packet(autojump_clock: MockClock) -> None:
    near, far = memory_link(LinkConditions(delay=1.0), is_stream=True)
    await near.send([b"last words"])
    await near.aclose()
    assert await far.receive() == [b"last words"]
    with pytest.raises(trio.EndOfChannel):
        await far.receive()
    with pytest.raises(trio.BrokenResourceError):
        await far.send([b"too late"])


async def test_conditions_can_change_while_it_is_in_use(autojump_clock: MockClock) -> None:
    near, far = memory_link()
    near.outgoing.conditions = LinkConditions(loss=1.0)
    await near.send([b"lost"])
    near.outgoing.conditions = LinkConditions()
    await near.send([b"found"])
    assert await far.receive() == [b"found"]
    assert near.outgoing.lost == 1
