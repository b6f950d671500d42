"""TunDialer over a link, without a tunnel: names, streams, TLS, datagrams, pings, and what happens when it ends."""

from __future__ import annotations

import errno
import socket as stdlib
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Interface, IPv6Interface, ip_address
from random import Random

import dns.message
import dns.rcode
import dns.rrset
import pytest
import trio
import trio.testing
import trustme
from trio.testing import MockClock
from two_stacks import FAR, FAR6, NEAR, Host, make_host, start

from minivpn_trio.config.tunnel_info import TunnelInfo
from minivpn_trio.dialer import TunDialer
from minivpn_trio.happy_eyeballs import connect_first, taking_turns
from minivpn_trio.netstack.resolver import AddressInfo
from minivpn_trio.netstack.sockets import TunSocket
from minivpn_trio.stats import DataStats, TunnelStats
from minivpn_trio.testing.link import LinkConditions, MemoryTransport, memory_link

INFO = TunnelInfo(
    ipv4=IPv4Interface(f"{NEAR}/24"), ipv6=IPv6Interface("fd00::2/64"), mtu=1400, dns=(IPv4Address(FAR),),
    gateway=IPv4Address(FAR), mss_ipv4=1300,
)  # fmt: skip


@dataclass
class Tunnel:
    """A PacketTunnel."""

    link: MemoryTransport
    tunnel_info: TunnelInfo = INFO
    listeners: list[Callable[[TunnelInfo], None]] = field(default_factory=list)

    @property
    def inbound(self) -> MemoryTransport:
        return self.link

    @property
    def outbound(self) -> MemoryTransport:
        return self.link

    def stats(self) -> TunnelStats:
        return TunnelStats(data=DataStats(packets_in=5))

    def on_tunnel_info(self, listener: Callable[[TunnelInfo], None]) -> None:
        self.listeners.append(listener)


def raises(number: int) -> pytest.RaisesExc[OSError]:
    return pytest.RaisesExc(OSError, check=lambda exc: exc.errno == number)


async def echo(stream: trio.abc.Stream) -> None:
    async for chunk in stream:
        await stream.send_all(chunk)


async def serve_names(host: Host, nursery: trio.Nursery) -> None:
    """two.example has an address where nothing listens, and one where something does."""

    async def later(socket: TunSocket, wire: bytes, asker: object, delay: float) -> None:
        await trio.sleep(delay)
        await socket.sendto(wire, asker)

    with host.socket(type=stdlib.SOCK_DGRAM) as socket:
        await socket.bind(("", 53))
        while True:
            wire, asker = await socket.recvfrom(4096)
            query = dns.message.from_wire(wire)
            response = dns.message.make_response(query)
            name, kind = query.question[0].name.to_text(), query.question[0].rdtype.name
            known = {
                ("two.example.", "A"): "10.8.0.77", ("two.example.", "AAAA"): FAR6, ("six.example.", "AAAA"): FAR6,
                ("web.example.", "A"): FAR, ("both.example.", "A"): FAR, ("both.example.", "AAAA"): FAR6,
                ("late.example.", "A"): "10.8.0.78", ("late.example.", "AAAA"): FAR6,
                ("soon.example.", "A"): "10.8.0.78", ("soon.example.", "AAAA"): FAR6,
                ("slow.example.", "A"): FAR, ("slow.example.", "AAAA"): FAR6,
            }  # fmt: skip
            if (name, kind) in known:
                response.answer.append(dns.rrset.from_text(name, 60, "IN", kind, known[name, kind]))
            elif not any(name == other for other, _ in known):
                response.set_rcode(dns.rcode.NXDOMAIN)
            delays = {"soon.example.": 0.1, "late.example.": 0.5, "slow.example.": 0.5}
            if kind == "AAAA" and name in delays:
                nursery.start_soon(later, socket, response.to_wire(), asker, delays[name])
            else:
                await socket.sendto(response.to_wire(), asker)


@asynccontextmanager
async def dialling(conditions: LinkConditions | None = None) -> AsyncIterator[tuple[TunDialer, Tunnel, Host]]:
    near, far_link = memory_link(conditions)
    far = make_host(FAR, FAR6, far_link, settings=None, seed=9)
    tunnel = Tunnel(near)
    async with trio.open_nursery() as nursery:
        start(nursery, far)
        for family in (stdlib.AF_INET, stdlib.AF_INET6):
            nursery.start_soon(trio.serve_listeners, echo, [trio.SocketListener(await far.listen(7, family))])
        nursery.start_soon(serve_names, far, nursery)
        dialer = TunDialer(tunnel, rng=Random(3).randbytes)  # type: ignore[arg-type]
        await nursery.start(dialer.run)
        yield dialer, tunnel, far
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("host", [FAR, FAR6, "six.example", "web.example", b"web.example"])
async def test_a_stream(autojump_clock: MockClock, host: str | bytes) -> None:
    async with dialling(LinkConditions(delay=0.01)) as (dialer, _, _), await dialer.open_tcp_stream(host, 7) as stream:
        assert type(stream) is trio.SocketStream
        with trio.testing.assert_checkpoints():
            await stream.send_all(b"hello")
        assert await stream.receive_some() == b"hello"
        await stream.send_eof()
        assert await stream.receive_some() == b""


async def test_the_next_address_is_tried(autojump_clock: MockClock) -> None:
    async with dialling() as (dialer, _, _):
        found = await dialer.getaddrinfo("two.example", 7, type=stdlib.SOCK_STREAM)
        assert [info[4][0] for info in found] == ["10.8.0.77", FAR6]
        start = trio.current_time()
        stream = await dialer.open_tcp_stream("two.example", 7)
        assert stream.socket.getpeername()[0] == FAR6
        assert 0.25 <= trio.current_time() - start < 0.3
        await trio.sleep(1)
        assert dialer.stack.stats().tcp_connections == 1, "the loser is still there"


async def test_a_refusal_is_not_waited_out(autojump_clock: MockClock) -> None:
    async with dialling() as (dialer, _, far):
        far.socket()
        start = trio.current_time()
        with raises(errno.ECONNREFUSED) as caught:
            await dialer.open_tcp_stream("both.example", 8)
        assert trio.current_time() - start < 0.2
        assert "tried before: " in caught.value.__notes__[0]
        stream = await dialer.open_tcp_stream("both.example", 7)
        assert stream.socket.getpeername()[0] == FAR


async def test_an_answer_that_comes_late_is_used_where_nothing_else_is_left(autojump_clock: MockClock) -> None:
    """A has a dead address at once, AAAA a live one after half a second."""
    async with dialling() as (dialer, _, _):
        stream = await dialer.open_tcp_stream("late.example", 7)
        assert stream.socket.getpeername()[0] == FAR6
        # What is alive is not held up by what is late.
        start = trio.current_time()
        await dialer.open_tcp_stream("slow.example", 7)
        assert trio.current_time() - start < 0.1


async def test_an_answer_that_comes_late_joins_the_race(autojump_clock: MockClock) -> None:
    """A has an address where nobody answers, not even to refuse; AAAA a live one after a tenth of a second."""
    async with dialling() as (dialer, _, _):
        start = trio.current_time()
        stream = await dialer.open_tcp_stream("soon.example", 7)
        assert stream.socket.getpeername()[0] == FAR6
        assert trio.current_time() - start < 0.5
        await trio.sleep(1)
        assert dialer.stack.stats().tcp_connections == 1, "the loser is still there"


async def test_an_answer_that_comes_too_late_changes_nothing(autojump_clock: MockClock) -> None:
    async with dialling() as (dialer, _, _):
        start = trio.current_time()
        with raises(errno.ECONNREFUSED) as caught:
            await dialer.open_tcp_stream("slow.example", 8)
        assert 0.5 < trio.current_time() - start < 1
        assert len(caught.value.__notes__) == 1


async def test_a_single_address_needs_no_race(autojump_clock: MockClock) -> None:
    """Where the tunnel has one family only: connected by the caller's own task, and nothing is left when that fails."""
    async with dialling(LinkConditions(delay=0.05)) as (dialer, _, _):

        async def connect(host: str, port: int) -> TunSocket:
            async def find(patience: float) -> list[AddressInfo]:
                return await dialer.getaddrinfo(host, port, type=stdlib.SOCK_STREAM)

            return await connect_first(find, dialer.socket, both_families=lambda: False)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(connect, "10.8.0.77", 7)
            await trio.sleep(0.2)
            (task,) = nursery.child_tasks
            assert not task.child_nurseries
            assert dialer.stack.stats().tcp_connections == 1
            nursery.cancel_scope.cancel()
        assert dialer.stack.stats().tcp_connections == 0
        with raises(errno.ECONNREFUSED) as caught:
            await connect(FAR, 8)
        assert not hasattr(caught.value, "__notes__")
        with await connect(FAR, 7) as socket:
            assert socket.getpeername()[:2] == (FAR, 7)
        await trio.sleep(200)
        assert dialer.stack.stats().tcp_connections == 0


async def test_cancelled_on_the_way(autojump_clock: MockClock) -> None:
    async with dialling(LinkConditions(delay=0.05)) as (dialer, _, _):
        for patience in range(1, 50):
            with trio.move_on_after(patience * 0.01):
                await (await dialer.open_tcp_stream("two.example", 7)).aclose()
        await trio.sleep(200)
        assert dialer.stack.stats().tcp_connections == 0


def test_taking_turns() -> None:
    def entry(family: int, number: int) -> AddressInfo:
        return stdlib.AddressFamily(family), stdlib.SOCK_STREAM, 6, "", (number,)

    six, four = [entry(stdlib.AF_INET6, n) for n in range(3)], [entry(stdlib.AF_INET, n) for n in range(2)]
    assert taking_turns([*six, *four]) == [six[0], four[0], six[1], four[1], six[2]]
    assert taking_turns([*four, *six]) == [four[0], six[0], four[1], six[1], six[2]]
    assert taking_turns([]) == []


async def test_dialling_that_fails(autojump_clock: MockClock) -> None:
    async with dialling() as (dialer, _, _):
        with raises(errno.ECONNREFUSED):
            await dialer.open_tcp_stream(FAR, 8)
        with pytest.raises(OSError, match="connecting to") as caught:
            await dialer.open_tcp_stream("web.example", 8)
        assert caught.value.errno == errno.ECONNREFUSED
        with pytest.raises(stdlib.gaierror):
            await dialer.open_tcp_stream("nowhere.example", 7)
        with pytest.raises(ValueError, match="empty"):
            await dialer.open_tcp_stream("", 7)
        with pytest.raises(TypeError):
            await dialer.open_tcp_stream(FAR, "7")  # type: ignore[arg-type]
        with trio.move_on_after(1) as scope:
            await dialer.open_tcp_stream("10.8.0.77", 7)
        assert scope.cancelled_caught
        await trio.sleep(100)
        assert dialer.stack.stats().tcp_connections == 0


async def test_tls(autojump_clock: MockClock) -> None:
    authority = trustme.CA()
    ours, theirs = ssl.create_default_context(), ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.configure_trust(ours)
    authority.issue_cert("web.example").configure_cert(theirs)
    async with dialling() as (dialer, _, far), trio.open_nursery() as nursery:

        async def serve(stream: trio.SocketStream) -> None:
            await echo(trio.SSLStream(stream, theirs, server_side=True, https_compatible=True))

        nursery.start_soon(trio.serve_listeners, serve, [trio.SocketListener(await far.listen(443))])
        stream = await dialer.open_ssl_over_tcp_stream("web.example", 443, ssl_context=ours, https_compatible=True)
        await stream.send_all(b"secret")
        assert await stream.receive_some() == b"secret"
        await stream.aclose()
        nursery.cancel_scope.cancel()


async def test_datagrams(autojump_clock: MockClock) -> None:
    async with dialling() as (dialer, _, far):
        server = far.socket(type=stdlib.SOCK_DGRAM)
        await server.bind(("", 99))
        with dialer.open_udp_socket() as socket:
            await socket.sendto(b"to a name", ("web.example", 99))
            data, sender = await server.recvfrom(100)
            assert (data, sender[0]) == (b"to a name", NEAR)
            await server.sendto(b"back", sender)
            assert await socket.recvfrom(100) == (b"back", (FAR, 99))


@pytest.mark.parametrize("host", [FAR, FAR6, "web.example"])
@pytest.mark.parametrize("size", [0, 56, 1000])
async def test_ping(autojump_clock: MockClock, host: str, size: int) -> None:
    async with dialling(LinkConditions(delay=0.025)) as (dialer, _, _):
        assert await dialer.ping(host, size=size) == pytest.approx(0.05, abs=0.005)
        assert await dialer.ping(host, size=size, count=3) == pytest.approx(0.05, abs=0.005)


async def test_pings_that_fail(autojump_clock: MockClock) -> None:
    async with dialling() as (dialer, tunnel, _):
        with raises(errno.EMSGSIZE):
            await dialer.ping(FAR, size=1373)
        with pytest.raises(ValueError, match="count"):
            await dialer.ping(FAR, count=0)
        with trio.move_on_after(5) as scope:
            await dialer.ping("10.8.0.77")
        assert scope.cancelled_caught
        async with trio.open_nursery() as nursery:

            async def expect_the_end() -> None:
                with raises(errno.ENETDOWN):
                    await dialer.ping("10.8.0.77")

            nursery.start_soon(expect_the_end)
            await trio.testing.wait_all_tasks_blocked()
            await tunnel.link.aclose()


async def test_pings_at_the_same_time_are_told_apart(autojump_clock: MockClock) -> None:
    times: list[float] = []

    async with dialling(LinkConditions(delay=0.025, jitter=0.02)) as (dialer, _, _):

        async def one() -> None:
            times.append(await dialer.ping(FAR))

        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(one)
    assert len(times) == 20
    assert all(0.05 <= time < 0.1 for time in times)
    assert len(set(times)) > 10


async def test_what_it_says_of_itself(autojump_clock: MockClock) -> None:
    async with dialling() as (dialer, _, _):
        await dialer.ping(FAR)
        stats = dialer.stats()
        assert stats.data.packets_in == 5
        assert stats.netstack is not None
        assert stats.netstack.packets_in >= 1
        assert dialer.tunnel_info is INFO
        assert dialer.stack.mss_to(ip_address(FAR).packed) == 1300


async def test_the_end_of_the_tunnel_fails_every_stream_at_once(autojump_clock: MockClock) -> None:
    async with dialling() as (dialer, tunnel, _):
        stream = await dialer.open_tcp_stream(FAR, 7)
        async with trio.open_nursery() as nursery:

            async def expect_the_end() -> None:
                with pytest.raises(trio.BrokenResourceError) as caught:
                    await stream.receive_some()
                assert isinstance(caught.value.__cause__, OSError)
                assert caught.value.__cause__.errno == errno.ENETDOWN

            nursery.start_soon(expect_the_end)
            await trio.testing.wait_all_tasks_blocked()
            await tunnel.link.aclose()
        with raises(errno.ENETDOWN):
            await dialer.open_tcp_stream(FAR, 7)


async def test_leaving_fails_what_is_left_open(autojump_clock: MockClock) -> None:
    async with dialling() as (dialer, _, _):
        stream = await dialer.open_tcp_stream(FAR, 7)
    with pytest.raises(trio.BrokenResourceError):
        await stream.send_all(b"x")
    await stream.aclose()


async def test_a_reconnection_with_the_same_address_keeps_streams(autojump_clock: MockClock) -> None:
    async with dialling() as (dialer, tunnel, _):
        stream = await dialer.open_tcp_stream(FAR, 7)
        for listener in tunnel.listeners:
            listener(INFO)
        await stream.send_all(b"still here")
        assert await stream.receive_some() == b"still here"


async def test_a_reconnection_with_another_address_fails_them(autojump_clock: MockClock) -> None:
    async with dialling() as (dialer, tunnel, _):
        stream = await dialer.open_tcp_stream(FAR, 7)
        tunnel.tunnel_info = TunnelInfo(ipv4=IPv4Interface("10.8.0.3/24"), mtu=1400)
        for listener in tunnel.listeners:
            listener(tunnel.tunnel_info)
        with pytest.raises(trio.BrokenResourceError):
            await stream.send_all(b"x")
        again = await dialer.open_tcp_stream(FAR, 7)
        assert again.socket.getsockname()[0] == "10.8.0.3"
        await again.send_all(b"x")
        assert await again.receive_some() == b"x"
