"""anyio on Trio, unmodified, through a tunnel; and what of it cannot be hooked."""

from __future__ import annotations

import anyio
import anyio.abc
import anyio.streams.tls
import pytest
import trio
from anyio.abc import SocketAttribute
from inside import NAME, inside

from minivpn_trio.netstack.sockets import TunSocket


async def echo(stream: trio.abc.Stream) -> None:
    async for chunk in stream:
        await stream.send_all(chunk)


async def test_streams() -> None:
    async with inside() as world:
        world.nursery.start_soon(trio.serve_listeners, echo, [await world.listener(7)])
        own = world.dialer.tunnel_info.ipv4
        assert own is not None
        with world.dialer.as_trio_sockets():
            for host in (NAME, world.address):
                async with await anyio.connect_tcp(host, 7) as stream:
                    await stream.send(b"x" * 300_000)
                    received = b""
                    while len(received) < 300_000:
                        received += await stream.receive()
                    assert stream.extra(SocketAttribute.remote_address) == (world.address, 7)
                    assert stream.extra(SocketAttribute.remote_port) == 7
                    assert stream.extra(SocketAttribute.local_address)[0] == str(own.ip)
                    assert stream.extra(SocketAttribute.family) == 2
                    assert isinstance(stream.extra(SocketAttribute.raw_socket), TunSocket)
                    await stream.send_eof()
                    with pytest.raises(anyio.EndOfStream):
                        await stream.receive()
            with pytest.raises(OSError, match=r"[Rr]efused|all|failed"):
                await anyio.connect_tcp(world.address, 81)
            async with await anyio.connect_tcp(world.address, 7, local_host=str(own.ip)) as stream:
                with pytest.raises(anyio.WouldBlock), anyio.fail_after(5):
                    with anyio.move_on_after(0.05):
                        await stream.receive()
                    raise anyio.WouldBlock
            await stream.aclose()
            with pytest.raises(anyio.ClosedResourceError):
                await stream.receive()


async def test_tls() -> None:
    async with inside() as world:
        listener = trio.SSLListener(await world.listener(443), world.server_tls("echo"), https_compatible=True)
        world.nursery.start_soon(trio.serve_listeners, echo, [listener])
        with world.dialer.as_trio_sockets():
            async with await anyio.connect_tcp(
                NAME, 443, tls_hostname=NAME, ssl_context=world.client_tls, tls_standard_compatible=False
            ) as stream:
                await stream.send(b"secret")
                assert await stream.receive() == b"secret"
                assert stream.extra(SocketAttribute.remote_port) == 443


async def test_datagrams() -> None:
    async with inside() as world:
        await world.nursery.start(world.server.host.serve_udp_echo, 7)
        own = world.dialer.tunnel_info.ipv4
        assert own is not None
        with world.dialer.as_trio_sockets():
            async with await anyio.create_udp_socket(family=2, local_host=str(own.ip), local_port=4000) as socket:  # type: ignore[arg-type]
                await socket.sendto(b"one", world.address, 7)
                assert await socket.receive() == (b"one", (world.address, 7))
                assert socket.extra(SocketAttribute.local_address) == (str(own.ip), 4000)
            async with await anyio.create_connected_udp_socket(NAME, 7) as connected:
                await connected.send(b"two")
                assert await connected.receive() == b"two"
                assert connected.extra(SocketAttribute.remote_address) == (world.address, 7)
            async with await anyio.create_connected_udp_socket(world.address, 8) as connected:
                await connected.send(b"anybody?")
                with pytest.raises(anyio.BrokenResourceError):
                    await connected.receive()


async def test_names() -> None:
    async with inside() as world:
        with world.dialer.as_trio_sockets():
            found = await anyio.getaddrinfo(NAME, 80, type=1)
            assert [entry[4] for entry in found] == [(world.address, 80)]
            assert (await anyio.getnameinfo((world.address, 80), 1))[0] == world.address


async def test_listeners_cannot_be_hooked() -> None:
    """anyio.create_tcp_listener asks the standard library: it listens on the machine, as the README says."""
    async with inside() as world:
        with world.dialer.as_trio_sockets():
            async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener:
                assert not isinstance(listener.extra(SocketAttribute.raw_socket), TunSocket)
