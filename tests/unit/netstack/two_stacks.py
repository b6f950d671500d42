"""Two stacks joined by a link, each with its workers: a world for sockets."""

from __future__ import annotations

import socket as stdlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from random import Random
from typing import Any

import trio

from minivpn_trio.netstack.sockets import TunSocket
from minivpn_trio.netstack.stack import Stack
from minivpn_trio.netstack.tcp.settings import TcpSettings
from minivpn_trio.netstack.worker import Pump, move_down, move_up
from minivpn_trio.testing.link import LinkConditions, MemoryTransport, memory_link

NEAR, FAR = "10.8.0.2", "10.8.0.1"
NEAR6, FAR6 = "fd00::2", "fd00::1"
#: Small buffers, so that a stream is clogged soon.
SMALL = TcpSettings(receive_buffer=32_768, receive_buffer_max=65_536, send_buffer=32_768)


@dataclass
class Host:
    """A stack at one end of the link."""

    address: str
    address6: str
    stack: Stack
    pump: Pump
    link: MemoryTransport

    def socket(self, family: int = stdlib.AF_INET, type: int = stdlib.SOCK_STREAM, **options: Any) -> TunSocket:
        return TunSocket(self.pump, family, type, **options)

    async def listen(self, port: int = 80, family: int = stdlib.AF_INET) -> TunSocket:
        socket = self.socket(family)
        await socket.bind(("", port))
        socket.listen()
        return socket


def make_host(address: str, address6: str, link: MemoryTransport, *, settings: TcpSettings | None, seed: int) -> Host:
    addresses = [ip_address(text).packed for text in (address, address6)]
    now, rng = trio.current_time(), Random(seed).randbytes
    stack = Stack(addresses=addresses, mtu=1400, rng=rng, now=now, settings=settings)
    return Host(address, address6, stack, Pump(stack), link)


@asynccontextmanager
async def two_stacks(
    conditions: LinkConditions | None = None, *, settings: TcpSettings | None = SMALL, seed: int = 1
) -> AsyncIterator[tuple[Host, Host]]:
    """The near and the far host, running."""
    near_link, far_link = memory_link(conditions, seed=seed)
    near = make_host(NEAR, NEAR6, near_link, settings=settings, seed=seed)
    far = make_host(FAR, FAR6, far_link, settings=settings, seed=seed + 1)
    async with trio.open_nursery() as nursery:
        for host in (near, far):
            start(nursery, host)
        yield near, far
        nursery.cancel_scope.cancel()


def start(nursery: trio.Nursery, host: Host) -> None:
    async def up() -> None:
        await move_up(host.stack, inlet=host.link, pump=host.pump)

    async def down() -> None:
        await move_down(host.stack, outlet=host.link, pump=host.pump)

    nursery.start_soon(up)
    nursery.start_soon(down)


async def connect(near: Host, far: Host, family: int = stdlib.AF_INET, port: int = 80) -> tuple[TunSocket, TunSocket]:
    """A connected pair, near end first."""
    ours = near.socket(family)
    with await far.listen(port, family) as listener:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ours.connect, (far.address if family == stdlib.AF_INET else far.address6, port))
            theirs, _ = await listener.accept()
    assert isinstance(theirs, TunSocket)
    return ours, theirs


async def send_all(socket: trio.socket.SocketType, data: bytes) -> None:
    sent = 0
    while sent < len(data):
        sent += await socket.send(data[sent:])


async def receive_exactly(socket: trio.socket.SocketType, count: int) -> bytes:
    data = b""
    while len(data) < count:
        more = await socket.recv(count - len(data))
        assert more, f"the end after {len(data)} of {count} bytes"
        data += more
    return data


async def fill(socket: TunSocket) -> int:
    """Send until nothing more goes; how much went."""
    total = 0
    while True:
        # The virtual clock jumps, so a pause on the way is told from the end.
        with trio.move_on_after(30) as scope:
            total += await socket.send(bytes(1000))
        if scope.cancelled_caught:
            return total
