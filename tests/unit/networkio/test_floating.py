"""A UDP socket whose server may be elsewhere: who is heard, and where we send."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest
import trio

from minivpn_trio.config.model import Remote, TunnelConfig
from minivpn_trio.config.proxy import Scramble
from minivpn_trio.errors import DropReason
from minivpn_trio.items import ForeignBurst
from minivpn_trio.networkio.dial import Endpoint, dial, resolve
from minivpn_trio.networkio.floating import FloatingUDPTransport
from minivpn_trio.networkio.transport import FloatingTransport
from minivpn_trio.networkio.udp import UDPTransport

SETTINGS = TunnelConfig(remotes=(), floating=True)


class End:
    """A socket on an address of this machine's."""

    def __init__(self, host: str) -> None:
        self.socket = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind((host, 0))
        self.socket.settimeout(2)
        self.address: Any = self.socket.getsockname()


@pytest.fixture(params=[("127.0.0.1", "127.0.0.2"), ("::1", "::1")])
def ends(request: pytest.FixtureRequest) -> Iterator[list[End]]:
    made = [End(host) for host in (*request.param, request.param[0])]
    yield made
    for end in made:
        end.socket.close()


async def to(end: End, **more: Any) -> FloatingUDPTransport:
    host, port = end.address[:2]
    (endpoint,) = await resolve(Remote(host, port, "udp", **more))
    transport = await dial(endpoint, SETTINGS)
    return transport  # type: ignore[return-value]


async def test_strangers_are_marked_until_one_of_them_is_the_server(ends: list[End]) -> None:
    known, moved, stranger = ends
    transport = await to(known)
    assert isinstance(transport, FloatingTransport)
    await transport.send([b"hello" * 20] * 3 + [b"x"])
    received = [known.socket.recvfrom(2000) for _ in range(4)]
    assert [data for data, _ in received] == [b"hello" * 20] * 3 + [b"x"]
    us = received[0][1]
    for end, data in ((known, b"1"), (known, b"2"), (stranger, b"3"), (moved, b"4"), (moved, b"5"), (known, b"6")):
        end.socket.sendto(data, us)
    with trio.fail_after(2):
        bursts = [await transport.receive() for _ in range(4)]
    assert bursts == [[b"1", b"2"], [b"3"], [b"4", b"5"], [b"6"]]
    assert [getattr(burst, "source", None) for burst in bursts] == [None, stranger.address, moved.address, None]
    assert transport.peer == known.address[0]

    transport.adopt(bursts[2].source)  # type: ignore[attr-defined]
    assert transport.peer == moved.address[0]
    transport.send_nowait([b"there"])
    assert moved.socket.recv(2000) == b"there"
    for end, data in ((moved, b"7"), (known, b"8")):
        end.socket.sendto(data, us)
    with trio.fail_after(2):
        now, before = await transport.receive(), await transport.receive()
    assert (now, type(now), before, type(before)) == ([b"7"], list, [b"8"], ForeignBurst)
    assert transport.stats().packets_in == 8
    await transport.aclose()


async def test_what_waits_while_its_source_is_adopted_is_the_server_s(ends: list[End]) -> None:
    known, moved, stranger = ends
    transport = await to(known)
    await transport.send([b"x"])
    _, us = known.socket.recvfrom(2000)
    for end in (moved, stranger, moved):
        end.socket.sendto(b"y", us)
    with trio.fail_after(2):
        first = await transport.receive()
        transport.adopt(first.source)  # type: ignore[attr-defined]
        assert [type(await transport.receive()) for _ in range(2)] == [ForeignBurst, list]
    await transport.aclose()


async def test_cancelled_and_closed(ends: list[End]) -> None:
    transport = await to(ends[0])
    with trio.move_on_after(0.05) as scope:
        await transport.receive()
    assert scope.cancelled_caught
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def wait() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await transport.receive()

        await trio.testing.wait_all_tasks_blocked()
        await transport.aclose()
        await transport.aclose()


async def test_disguised(ends: list[End]) -> None:
    known, moved, _ = ends
    transport = await to(known, scramble=Scramble("reverse"))
    assert isinstance(transport, FloatingTransport)
    await transport.send([b"abcd"])
    data, us = known.socket.recvfrom(2000)
    assert data == b"adcb"
    moved.socket.sendto(b"adcb", us)
    with trio.fail_after(2):
        burst = await transport.receive()
    assert (burst, burst.source) == ([b"abcd"], moved.address)  # type: ignore[attr-defined]
    transport.adopt(burst.source)  # type: ignore[attr-defined]
    await transport.send([b"efgh"])
    assert moved.socket.recv(2000) == b"ehgf"
    await transport.aclose()


async def test_without_float_the_kernel_keeps_strangers_away(ends: list[End]) -> None:
    known, moved, _ = ends
    host, port = known.address[:2]
    (endpoint,) = await resolve(Remote(host, port))
    transport = await dial(endpoint, TunnelConfig(remotes=()))
    assert type(transport) is UDPTransport
    await transport.send([b"x"])
    _, us = known.socket.recvfrom(2000)
    moved.socket.sendto(b"y", us)
    with trio.move_on_after(0.1) as scope:
        await transport.receive()
    assert scope.cancelled_caught
    await transport.aclose()


async def test_a_stream_has_one_peer() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    address = listener.getsockname()
    endpoint = Endpoint(Remote(*address, "tcp"), socket.AF_INET, address)
    transport = await dial(endpoint, SETTINGS)
    assert not isinstance(transport, FloatingTransport)
    await transport.aclose()
    listener.close()


async def test_nobody_is_at_port_0(ends: list[End], monkeypatch: pytest.MonkeyPatch) -> None:
    known, moved, _ = ends
    transport = await to(known)
    await transport.send([b"x"])
    _, us = known.socket.recvfrom(2000)
    real = transport._addressed.recvfrom

    def nowhere(size: int) -> tuple[bytes, Any]:
        data, source = real(size)
        return data, (source[0], 0, *source[2:]) if data == b"0" else source

    monkeypatch.setattr(transport._addressed, "recvfrom", nowhere)
    for data in (b"0", b"1"):
        moved.socket.sendto(data, us)
    with trio.fail_after(2):
        assert await transport.receive() == [b"1"]
    assert transport.drops == {DropReason.BAD_ADDRESS: 1}
    await transport.aclose()


async def test_an_adopted_address_that_nothing_can_be_sent_to() -> None:
    """A broadcast address, which the kernel refuses with EACCES. It is a loss like any other: the server may come
    back."""
    known = End("127.0.0.1")
    transport = await to(known)
    await transport.send([b"x"])
    known.socket.recv(2000)
    transport.adopt(("255.255.255.255", 9))
    with pytest.raises(PermissionError):
        await transport.send([b"y"])
    transport.established()
    await transport.send([b"y"] * 3)
    assert transport.drops == {DropReason.NOT_READY: 3}
    transport.adopt(known.address)
    await transport.send([b"z"])
    assert known.socket.recv(2000) == b"z"
    await transport.aclose()
    known.socket.close()


async def test_an_address_that_was_dialled_and_cannot_be_sent_to_is_an_error() -> None:
    endpoint = Endpoint(Remote("255.255.255.255", 9), socket.AF_INET, ("255.255.255.255", 9))
    transport = await dial(endpoint, SETTINGS)
    transport.established()
    with pytest.raises(PermissionError):
        await transport.send([b"y"])
    await transport.aclose()
