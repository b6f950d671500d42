"""Our own addresses: what is sent to them stays here, whoever else claims to have them is not heard; wildcards."""

from __future__ import annotations

import errno
import socket as stdlib
from collections.abc import AsyncIterator
from ipaddress import ip_address

import pytest
import trio
from trio.testing import MockClock
from two_stacks import FAR, NEAR, NEAR6, Host, connect, receive_exactly, send_all, two_stacks

from minivpn_trio.errors import DropReason
from minivpn_trio.netstack import scapy_wire
from minivpn_trio.netstack.packets import ACK, RST, IcmpMessage, TcpSegment, UdpDatagram
from minivpn_trio.netstack.stack import Limits, Stack
from minivpn_trio.netstack.udp import build_udp

BOTH = [("127.0.0.1", stdlib.AF_INET), (NEAR, stdlib.AF_INET), ("::1", stdlib.AF_INET6), (NEAR6, stdlib.AF_INET6)]


def raises(number: int) -> pytest.RaisesExc[OSError]:
    return pytest.RaisesExc(OSError, check=lambda exc: exc.errno == number)


@pytest.fixture
async def hosts() -> AsyncIterator[tuple[Host, Host]]:
    async with two_stacks() as pair:
        yield pair


@pytest.mark.parametrize(("address", "family"), BOTH)
async def test_a_stream_to_oneself(
    autojump_clock: MockClock, hosts: tuple[Host, Host], address: str, family: int
) -> None:
    near, _ = hosts
    data = bytes(range(256)) * 2000
    before = near.stack.stats().packets_out
    with await near.listen(80, family) as listener:
        ours = near.socket(family)
        await ours.connect((address, 80))
        theirs, peer = await listener.accept()
    assert peer[0] == ours.getsockname()[0] == address
    async with trio.open_nursery() as nursery:
        nursery.start_soon(send_all, ours, data)
        assert await receive_exactly(theirs, len(data)) == data
    ours.close()
    assert await theirs.recv(1) == b""
    theirs.close()
    await trio.sleep(300)
    assert near.stack.stats().packets_out == before, "something left"
    assert near.stack.stats().tcp_connections == 0
    assert not near.stack._fast_local


@pytest.mark.parametrize(("address", "family"), BOTH)
async def test_datagrams_and_errors_to_oneself(
    autojump_clock: MockClock, hosts: tuple[Host, Host], address: str, family: int
) -> None:
    near, _ = hosts
    with near.socket(family, stdlib.SOCK_DGRAM) as server, near.socket(family, stdlib.SOCK_DGRAM) as client:
        await server.bind(("", 53))
        await client.sendto(bytes(4000), (address, 53))
        data, sender = await server.recvfrom(65535)
        assert (data, sender[0]) == (bytes(4000), address)
        await client.connect((address, 54))
        await client.send(b"anybody?")
        with raises(errno.ECONNREFUSED):
            await client.recv(1)
        with raises(errno.ECONNREFUSED):
            await near.socket(family).connect((address, 81))


async def test_loopback_ends_at_the_tunnel(autojump_clock: MockClock, hosts: tuple[Host, Host]) -> None:
    near, _ = hosts
    for kind in (stdlib.SOCK_STREAM, stdlib.SOCK_DGRAM):
        with near.socket(type=kind) as socket:
            await socket.bind(("127.0.0.1", 0))
            with raises(errno.EINVAL):
                await (socket.connect((FAR, 80)) if kind == stdlib.SOCK_STREAM else socket.sendto(b"", (FAR, 80)))


async def test_nobody_outside_is_us(autojump_clock: MockClock, hosts: tuple[Host, Host]) -> None:
    """A server in the middle knows both ends of a local connection, and still cannot touch it."""
    near, _ = hosts
    now = trio.current_time
    ours, theirs = await connect(near, near)
    await trio.sleep(1)
    connection = theirs._connection
    assert connection is not None
    own, port, other = ip_address(NEAR).packed, ours.getsockname()[1], connection.receiver.nxt & 0xFFFFFFFF
    forged = TcpSegment(own, own, port, 80, other, 0, RST, 0)
    data = TcpSegment(own, own, port, 80, other, 0, ACK, 1000, b"forged")
    quote = scapy_wire.build_tcp(TcpSegment(own, own, port, 80, other, 0, ACK, 0))
    unreachable = IcmpMessage(ip_address(FAR).packed, own, 3, 3, 0, quote)
    burst = [scapy_wire.build_tcp(forged), scapy_wire.build_tcp(data), scapy_wire.build_icmp(unreachable)]
    near.pump.run(near.stack.handle_packets, burst, now())
    local = ip_address("127.0.0.1").packed
    with near.socket(type=stdlib.SOCK_DGRAM) as socket:
        await socket.bind(("", 53))
        for src, dst in ((local, own), (own, own), (ip_address(FAR).packed, local)):
            packet = build_udp(UdpDatagram(src, dst, 9, 53, b"forged"))
            near.pump.run(near.stack.handle_packets, [packet], now())
        assert not socket.is_readable()
    assert near.stack.drops[DropReason.BAD_ADDRESS] == 6
    await ours.send(b"genuine")
    assert await theirs.recv(100) == b"genuine"


async def test_the_end_of_the_tunnel_is_the_end_of_loopback(
    autojump_clock: MockClock, hosts: tuple[Host, Host]
) -> None:
    near, _ = hosts
    ours, _ = await connect(near, near)
    near.pump.fail()
    with raises(errno.ENETDOWN):
        await ours.recv(1)


async def test_who_gets_a_wildcard(autojump_clock: MockClock, hosts: tuple[Host, Host]) -> None:
    near, far = hosts
    with await near.listen(80) as everything:
        assert everything.getsockname() == ("0.0.0.0", 80)
        with await near.listen(80, stdlib.AF_INET6) as six:
            assert six.getsockname() == ("::", 80, 0, 0)
        for address in (NEAR, "127.0.0.1", ""):
            taken = near.socket()
            await taken.bind((address, 80))
            with raises(errno.EADDRINUSE):
                taken.listen()
        await far.socket().connect((NEAR, 80))
        accepted, _ = await everything.accept()
        assert accepted.getsockname() == (NEAR, 80)
    with raises(errno.EADDRNOTAVAIL):
        await near.socket().bind((FAR, 80))


async def test_one_socket_for_both_families(autojump_clock: MockClock, hosts: tuple[Host, Host]) -> None:
    near, far = hosts
    with near.socket(stdlib.AF_INET6) as listener:
        listener.setsockopt(stdlib.IPPROTO_IPV6, stdlib.IPV6_V6ONLY, 0)
        await listener.bind(("::", 80))
        listener.listen()
        with raises(errno.EADDRINUSE):
            await near.listen(80)
        await far.socket().connect((NEAR, 80))
        accepted, peer = await listener.accept()
    assert peer[0] == f"::ffff:{FAR}"
    assert accepted.getsockname()[:2] == (f"::ffff:{NEAR}", 80)
    with near.socket(stdlib.AF_INET6, stdlib.SOCK_DGRAM) as mapped, far.socket(type=stdlib.SOCK_DGRAM) as plain:
        await plain.bind(("", 9))
        with raises(errno.ENETUNREACH):
            await mapped.sendto(b"x", (f"::ffff:{FAR}", 9))
        mapped.setsockopt(stdlib.IPPROTO_IPV6, stdlib.IPV6_V6ONLY, 0)
        await mapped.sendto(b"x", (f"::ffff:{FAR}", 9))
        assert (await plain.recvfrom(9))[1][0] == NEAR


def test_datagrams_have_one_budget() -> None:
    own, far = ip_address(NEAR).packed, ip_address(FAR).packed
    stack = Stack(addresses=[own], mtu=1400, rng=bytes, now=0.0, limits=Limits(datagrams=50_000))
    endpoints = [stack.open_udp((own, port)) for port in range(1, 11)]
    packets = [build_udp(UdpDatagram(far, own, 9, port, bytes(1000))) for port in range(1, 11) for _ in range(20)]
    stack.handle_packets(packets, 0.0)
    assert stack._queued_datagrams <= 50_000
    assert sum(endpoint.drops[DropReason.QUEUE_FULL] for endpoint in endpoints) == 200 - 50_000 // 1200
    for endpoint in endpoints[:5]:
        while endpoint.recvfrom():
            pass
    for endpoint in endpoints:
        endpoint.close()
    assert stack._queued_datagrams == 0


def test_packet_too_big_makes_the_next_datagram_fragments() -> None:
    own, far = ip_address(NEAR).packed, ip_address(FAR).packed
    stack = Stack(addresses=[own], mtu=1400, rng=bytes, now=0.0)
    endpoint = stack.open_udp(None, (far, 9))
    endpoint.sendto(bytes(1300))
    (sent,) = stack.take_output()
    router = ip_address("10.8.0.254").packed
    too_big = IcmpMessage(router, own, 3, 4, 600, sent[:28])
    elsewhere = build_udp(UdpDatagram(own, far, endpoint.local[1] ^ 1, 9, bytes(100)))
    stack.handle_packets([scapy_wire.build_icmp(IcmpMessage(router, own, 3, 4, 600, elsewhere[:28]))], 0.0)
    assert stack.mtu_to(far) == 1400
    stack.handle_packets([scapy_wire.build_icmp(too_big)], 0.0)
    assert stack.mtu_to(far) == 600
    assert endpoint.sendto(bytes(1300)) == 1300
    assert [len(packet) <= 600 for packet in stack.take_output()] == [True] * 3
