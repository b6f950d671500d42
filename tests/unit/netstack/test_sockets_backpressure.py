"""Sockets on a way out that is slower than they are: whoever sends waits, and nobody is left out."""

from __future__ import annotations

import errno
import socket as stdlib
from collections.abc import AsyncIterator

import pytest
import trio
import trio.testing
from trio.testing import MockClock
from two_stacks import FAR, FAR6, NEAR, NEAR6, SMALL, Host, connect, make_host, start

from minivpn_trio.errors import DropReason
from minivpn_trio.items import Burst
from minivpn_trio.netstack.worker import move_down, move_up
from minivpn_trio.testing.link import LinkConditions, MemoryTransport, memory_link

#: Seconds that a packet takes on the way out of the near host.
PACE = 0.001


class Narrow:
    """The edge down of a tunnel: always full, and emptied at a pace."""

    def __init__(self, link: MemoryTransport) -> None:
        self.link = link
        self.open = trio.Event()
        self.open.set()

    def send_nowait(self, burst: Burst) -> None:
        raise trio.WouldBlock

    async def send(self, burst: Burst) -> None:
        await self.open.wait()
        await trio.sleep(len(burst) * PACE)
        self.link.send_nowait(burst)


@pytest.fixture
async def narrow() -> AsyncIterator[tuple[Host, Host, Narrow]]:
    near_link, far_link = memory_link(LinkConditions(delay=0.01), seed=1)
    near = make_host(NEAR, NEAR6, near_link, settings=SMALL, seed=1)
    far = make_host(FAR, FAR6, far_link, settings=SMALL, seed=2)
    edge = Narrow(near_link)

    async def up() -> None:
        await move_up(near.stack, inlet=near_link, pump=near.pump)

    async def down() -> None:
        await move_down(near.stack, outlet=edge, pump=near.pump)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(up)
        nursery.start_soon(down)
        start(nursery, far)
        yield near, far, edge
        nursery.cancel_scope.cancel()


async def flood(near: Host, sent: list[int], port: int = 53) -> None:
    with near.socket(type=stdlib.SOCK_DGRAM) as socket:
        while True:
            await socket.sendto(bytes(1300), (FAR, port))
            sent.append(port)


async def test_a_sender_of_datagrams_waits(autojump_clock: MockClock, narrow: tuple[Host, Host, Narrow]) -> None:
    near, _, _ = narrow
    sent: list[int] = []
    with trio.move_on_after(10):
        await flood(near, sent)
    assert not near.stack.drops[DropReason.QUEUE_FULL]
    assert 9_000 < len(sent) < 11_000, "as many as the way out takes"


async def test_a_flood_of_datagrams_beside_a_stream(
    autojump_clock: MockClock, narrow: tuple[Host, Host, Narrow]
) -> None:
    near, far, _ = narrow
    sent: list[int] = []
    received = 0
    async with trio.open_nursery() as nursery:
        nursery.start_soon(flood, near, sent)
        await trio.sleep(1)
        # Its SYN finds room too.
        ours, theirs = await connect(near, far)

        async def upload() -> None:
            while True:
                await ours.send(bytes(16_000))

        nursery.start_soon(upload)
        before = len(sent)
        with trio.move_on_after(10):
            while True:
                received += len(await theirs.recv(65536))
        nursery.cancel_scope.cancel()
    datagrams = len(sent) - before
    # The stream's small buffers let it have no more than 24 segments in flight: 0.22 s a round trip, 120 a second.
    assert received > 60 * 10 * 1348, received
    assert datagrams > 5_000
    assert not near.stack.drops[DropReason.QUEUE_FULL]


async def test_two_floods_share(autojump_clock: MockClock, narrow: tuple[Host, Host, Narrow]) -> None:
    near, _, _ = narrow
    sent: list[int] = []
    with trio.move_on_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(flood, near, sent, 53)
            nursery.start_soon(flood, near, sent, 54)
    assert 0.8 < sent.count(53) / sent.count(54) < 1.25


async def clog(near: Host, edge: Narrow) -> None:
    """Stop the way out and fill the queue."""
    edge.open = trio.Event()
    with trio.move_on_after(1):
        await flood(near, [])


async def test_a_cancelled_sendto_sent_nothing(autojump_clock: MockClock, narrow: tuple[Host, Host, Narrow]) -> None:
    near, far, edge = narrow
    theirs = far.socket(type=stdlib.SOCK_DGRAM)
    await theirs.bind(("", 99))
    await clog(near, edge)
    ours = near.socket(type=stdlib.SOCK_DGRAM)
    # A new socket may say a little past the queue.
    said = 0
    while True:
        with trio.move_on_after(1) as scope:
            await ours.sendto(b"word", (FAR, 99))
            said += 1
        if scope.cancelled_caught:
            break
    assert 0 < said < 100
    with trio.move_on_after(1) as scope:
        await ours.wait_writable()
    assert scope.cancelled_caught
    edge.open.set()
    await ours.wait_writable()
    heard = 0
    with trio.move_on_after(10):
        while True:
            assert await theirs.recv(100) == b"word"
            heard += 1
    assert heard == said


async def test_what_wakes_a_waiting_sender(autojump_clock: MockClock, narrow: tuple[Host, Host, Narrow]) -> None:
    near, _, edge = narrow
    await clog(near, edge)
    closed, shut = (near.socket(type=stdlib.SOCK_DGRAM) for _ in range(2))
    await shut.connect((FAR, 99))
    ended: list[object] = []

    async def send(socket: trio.socket.SocketType) -> None:
        try:
            while True:
                await socket.sendto(bytes(100), (FAR, 99))
        except OSError as exc:
            ended.append(exc.errno)
        except trio.ClosedResourceError:
            ended.append("closed")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send, closed)
        nursery.start_soon(send, shut)
        await trio.sleep(1)
        closed.close()
        await trio.sleep(1)
        shut.shutdown(stdlib.SHUT_WR)
        await trio.sleep(1)
        assert ended == ["closed", errno.EPIPE]
        fresh = near.socket(type=stdlib.SOCK_DGRAM)
        nursery.start_soon(send, fresh)
        await trio.sleep(1)
        near.pump.fail()
    assert ended[2:] == [errno.ENETDOWN]
