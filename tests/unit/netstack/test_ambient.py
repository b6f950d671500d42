"""``with dialer.as_trio_sockets()``: Trio's own functions through a tunnel, and nothing changed outside of it."""

from __future__ import annotations

import errno
import socket as stdlib
import ssl
from typing import Any

import pytest
import trio
import trio.socket
import trio.testing
import trustme
from test_tun_dialer import Tunnel, dialling, echo
from trio.testing import MockClock
from two_stacks import FAR, NEAR

from minivpn_trio.config.tunnel_info import TunnelInfo
from minivpn_trio.dialer import TunDialer
from minivpn_trio.netstack.sockets import TunSocket


async def test_streams_of_trio(autojump_clock: MockClock) -> None:
    async with dialling() as (dialer, _, _):
        with dialer.as_trio_sockets() as same:
            assert same is dialer
            for host in (FAR, "web.example", "six.example"):
                async with await trio.open_tcp_stream(host, 7) as stream:
                    assert isinstance(stream.socket, TunSocket)
                    await stream.send_all(b"hello")
                    assert await stream.receive_some() == b"hello"
            stream = await trio.open_tcp_stream(FAR, 7, local_address=NEAR)
            assert stream.socket.getsockname()[0] == NEAR
            await stream.aclose()
            with pytest.raises(OSError, match="all attempts to connect"):
                await trio.open_tcp_stream(FAR, 8)
            with pytest.raises(stdlib.gaierror):
                await trio.open_tcp_stream("nowhere.example", 7)


async def test_tls_of_trio(autojump_clock: MockClock) -> None:
    authority = trustme.CA()
    ours, theirs = ssl.create_default_context(), ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.configure_trust(ours)
    authority.issue_cert("web.example").configure_cert(theirs)
    async with dialling() as (dialer, _, far), trio.open_nursery() as nursery:

        async def serve(stream: trio.SocketStream) -> None:
            await echo(trio.SSLStream(stream, theirs, server_side=True, https_compatible=True))

        nursery.start_soon(trio.serve_listeners, serve, [trio.SocketListener(await far.listen(443))])
        with dialer.as_trio_sockets():
            stream = await trio.open_ssl_over_tcp_stream("web.example", 443, ssl_context=ours, https_compatible=True)
            await stream.send_all(b"secret")
            assert await stream.receive_some() == b"secret"
            await stream.aclose()
        nursery.cancel_scope.cancel()


async def test_serving_inside(autojump_clock: MockClock) -> None:
    """trio.serve_tcp on all addresses: the far end reaches it, and so do we, by either family."""
    async with dialling() as (dialer, _, far), trio.open_nursery() as nursery:
        with dialer.as_trio_sockets():
            listeners: list[trio.SocketListener] = await nursery.start(trio.serve_tcp, echo, 80)
            assert {listener.socket.family for listener in listeners} == {stdlib.AF_INET, stdlib.AF_INET6}
            assert all(isinstance(listener.socket, TunSocket) for listener in listeners)
            for host in ("localhost", "127.0.0.1", "::1", NEAR):
                async with await trio.open_tcp_stream(host, 80) as stream:
                    await stream.send_all(b"to myself")
                    assert await stream.receive_some() == b"to myself"
        socket = far.socket()
        await socket.connect((NEAR, 80))
        async with trio.SocketStream(socket) as stream:
            await stream.send_all(b"from there")
            assert await stream.receive_some() == b"from there"
        nursery.cancel_scope.cancel()


async def test_datagrams_and_names(autojump_clock: MockClock) -> None:
    async with dialling() as (dialer, _, far):
        server = far.socket(type=stdlib.SOCK_DGRAM)
        await server.bind(("", 99))
        with dialer.as_trio_sockets(), trio.socket.socket(type=stdlib.SOCK_DGRAM) as socket:
            found = await trio.socket.getaddrinfo("web.example", 99, type=stdlib.SOCK_DGRAM)
            assert [info[4] for info in found] == [(FAR, 99)]
            await socket.sendto(b"x", found[0][4])
            assert (await server.recvfrom(9))[0] == b"x"
            assert await trio.socket.getnameinfo((FAR, 80), stdlib.NI_NUMERICHOST) == (FAR, "80")
            with pytest.raises(OSError) as caught:
                trio.socket.socket(stdlib.AF_PACKET, stdlib.SOCK_RAW)
            assert caught.value.errno == errno.EAFNOSUPPORT


async def test_outside_nothing_changes() -> None:
    """On the real clock: with sockets of the machine."""
    async with dialling() as (dialer, _, _), trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, echo, [listener])
        port = listener.socket.getsockname()[1]
        started, finish = trio.Event(), trio.Event()
        seen: dict[str, Any] = {}

        async def bystander() -> None:
            """Started outside, it opens sockets while somebody else is inside."""
            await started.wait()
            async with await trio.open_tcp_stream("localhost", port) as stream:
                seen["bystander"] = stream.socket
            finish.set()

        nursery.start_soon(bystander)
        with dialer.as_trio_sockets():
            started.set()
            await finish.wait()
            inside = trio.socket.socket()
            with pytest.raises(OSError, match="all attempts"):
                await trio.open_tcp_stream("127.0.0.1", port)
            unix = trio.socket.socket(stdlib.AF_UNIX)
        assert isinstance(inside, TunSocket)
        assert not isinstance(seen["bystander"], TunSocket)
        assert not isinstance(unix, TunSocket)
        unix.close()
        async with await trio.open_tcp_stream("localhost", port) as stream:
            assert not isinstance(stream.socket, TunSocket)
            assert (await trio.socket.getnameinfo(("127.0.0.1", 80), stdlib.NI_NUMERICHOST))[0] == "127.0.0.1"
        nursery.cancel_scope.cancel()


async def test_nested_dialers(autojump_clock: MockClock) -> None:
    async with dialling() as (outer, _, _), dialling() as (inner, _, _):
        with outer.as_trio_sockets():
            first = trio.socket.socket()
            with inner.as_trio_sockets():
                second = trio.socket.socket()
            third = trio.socket.socket()
    pumps = [socket._pump for socket in (first, second, third) if isinstance(socket, TunSocket)]
    assert pumps == [outer._pump, inner._pump, outer._pump]


async def test_tasks_that_outlive_the_block_stay_inside(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        leave = trio.Event()
        results: list[object] = []

        async def straggler() -> None:
            await leave.wait()
            assert isinstance(trio.socket.socket(), TunSocket)
            for host in (FAR, "web.example"):
                try:
                    await trio.open_tcp_stream(host, 7)
                except OSError as exc:
                    results.append(exc)

        async with dialling() as (dialer, _, _):
            with dialer.as_trio_sockets():
                nursery.start_soon(straggler)
            with trio.socket.socket() as socket:
                assert not isinstance(socket, TunSocket)
        leave.set()
    assert len(results) == 2


async def test_other_stand_ins_are_asked(autojump_clock: MockClock) -> None:
    """Somebody's own factory and resolver, installed before, still serve outside."""
    asked: list[object] = []

    class Factory(trio.abc.SocketFactory):
        def socket(self, family: int = 2, type: int = 1, proto: int = 0) -> trio.socket.SocketType:
            asked.append(("socket", family, type, proto))
            return trio.socket.from_stdlib_socket(stdlib.socket(family, type, proto))

    class Resolver(trio.abc.HostnameResolver):
        async def getaddrinfo(self, *args: Any, **kwargs: Any) -> Any:
            asked.append(("getaddrinfo", args))
            return []

        async def getnameinfo(self, sockaddr: Any, flags: int) -> tuple[str, str]:
            asked.append(("getnameinfo", sockaddr))
            return "mine", "1"

    async def use() -> None:
        trio.socket.socket(stdlib.AF_INET, stdlib.SOCK_DGRAM).close()
        await trio.socket.getaddrinfo("web.example", 1)
        await trio.socket.getnameinfo((FAR, 1), 0)

    trio.socket.set_custom_socket_factory(Factory())
    trio.socket.set_custom_hostname_resolver(Resolver())
    async with dialling() as (dialer, _, _):
        for _ in range(3):
            with dialer.as_trio_sockets():
                await use()
        assert asked == []
    await use()
    assert [entry[0] for entry in asked] == ["socket", "getaddrinfo", "getnameinfo"]  # type: ignore[index]


async def test_a_tunnel_without_ipv6(autojump_clock: MockClock) -> None:
    async with dialling() as (dialer, tunnel, _):
        assert isinstance(tunnel, Tunnel)
        tunnel.tunnel_info = TunnelInfo(ipv4=tunnel.tunnel_info.ipv4, mtu=1400, dns=tunnel.tunnel_info.dns)
        for listener in tunnel.listeners:
            listener(tunnel.tunnel_info)
        assert isinstance(dialer, TunDialer)
        with dialer.as_trio_sockets():
            for listening in await trio.open_tcp_listeners(80):
                await listening.aclose()
            with pytest.raises(OSError, match="all attempts") as caught:
                await trio.open_tcp_stream("fd00::1", 7)
            assert isinstance(caught.value.__cause__, ExceptionGroup)
            assert [each.errno for each in caught.value.__cause__.exceptions] == [errno.ENETUNREACH]
