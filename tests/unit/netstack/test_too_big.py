"""Packets that are too large: for a router on the way, which says so, or for a tunnel that came back narrower."""

from __future__ import annotations

import errno
import random
import socket as stdlib
from ipaddress import ip_interface

import pytest
import trio.testing
from tcp_script import PEER, US, Script
from trio.testing import MockClock
from two_stacks import FAR, FAR6, two_stacks

from minivpn_trio.config.tunnel_info import TunnelInfo
from minivpn_trio.netstack import scapy_wire
from minivpn_trio.netstack.packets import ACK, SYN, IcmpMessage, TcpSegment
from minivpn_trio.netstack.stack import Stack

A6, B6 = bytes.fromhex("fd00" + "00" * 13 + "02"), bytes.fromhex("20010db8" + "00" * 11 + "01")


def refuse(stack: Stack, packet: bytes, mtu: int, now: float) -> None:
    """What a router says to ``packet``."""
    ipv4 = packet[0] >> 4 == 4
    us, router = (packet[12:16], packet[16:20]) if ipv4 else (packet[8:24], packet[24:40])
    kind = (3, 4) if ipv4 else (2, 0)
    stack.handle_packets([scapy_wire.build_icmp(IcmpMessage(router, us, *kind, mtu, packet[:100]))], now)


def largest(stack: Stack) -> int:
    return max(map(len, stack.take_output(1000)), default=0)


def test_a_segment_is_sent_again_shorter() -> None:
    script = Script()
    connection = script.connect()
    connection.write(bytes(10_000), script.now)
    packets = script.stack.take_output()
    assert max(map(len, packets)) == 1500
    refuse(script.stack, packets[0], 1300, script.now)
    assert largest(script.stack) <= 1300
    assert script.stack.mtu_to(PEER) == 1300
    assert connection.sender.congestion.window >= 10_000, "that was no sign of congestion"


def test_ipv6() -> None:
    now = 1000.0
    stack = Stack(addresses=[A6], mtu=1500, rng=random.Random(1).randbytes, now=now)
    connection = stack.connect_tcp((B6, 80), now)
    (packet,) = stack.take_output()
    syn = scapy_wire.parse_untrusted(packet)
    assert isinstance(syn, TcpSegment) and syn.timestamps is not None
    answer = TcpSegment(B6, A6, 80, syn.sport, 7, syn.seq + 1, SYN | ACK, 60_000, mss=1440)
    answer.timestamps = (5, syn.timestamps[0])
    stack.handle_packets([scapy_wire.build_tcp(answer)], now)
    stack.take_output()
    connection.write(bytes(5000), now)
    packets = stack.take_output()
    assert max(map(len, packets)) == 1500
    refuse(stack, packets[0], 1280, now)
    assert largest(stack) <= 1280


@pytest.mark.parametrize(("mtu", "size"), [(1200, 1400), (500, 520)])
def test_what_is_in_the_queue_when_the_tunnel_narrows(mtu: int, size: int) -> None:
    script = Script()
    connection = script.connect()
    fragmenting, strict = (script.stack.open_udp((None, 0), (PEER, 53)) for _ in range(2))
    strict.dont_fragment = True
    connection.write(bytes(10_000), script.now)
    fragmenting.sendto(bytes(size))
    strict.sendto(bytes(size))
    script.stack.reconfigure(TunnelInfo(ipv4=ip_interface("10.8.0.2/24"), mtu=mtu), script.now)
    packets = script.stack.take_output(1000)
    for _ in range(10):
        script.wait(0.01)
        packets += script.stack.take_output(1000)
    assert max(map(len, packets)) <= mtu
    sent = {packet[24:28]: len(packet) - 52 for packet in packets if packet[9] == 6 and packet[12:16] == US}
    assert sum(sent.values()) == 10_000
    assert sum(packet[9] == 17 for packet in packets) == 0, "a datagram that is too large is lost, once"
    assert fragmenting.error is None
    assert strict.error is not None and strict.error.errno == errno.EMSGSIZE


def test_somebody_elses_packet_is_none_of_ours() -> None:
    script = Script()
    connection = script.connect()
    connection.write(bytes(3000), script.now)
    (packet, *_) = script.stack.take_output()
    for forged in (packet[:24] + b"\0\1\0\2" + packet[28:], packet[:20], bytes(60)):
        refuse(script.stack, forged, 600, script.now)
    assert script.stack.mtu_to(PEER) == 1500


@pytest.mark.parametrize(("family", "far", "level", "option"), [
    (stdlib.AF_INET, FAR, stdlib.IPPROTO_IP, 10), (stdlib.AF_INET6, FAR6, stdlib.IPPROTO_IPV6, 23),
])  # fmt: skip
async def test_a_datagram(autojump_clock: MockClock, family: int, far: str, level: int, option: int) -> None:
    async with two_stacks() as (near, other):
        theirs = other.socket(family, stdlib.SOCK_DGRAM)
        await theirs.bind(("", 9))
        packets: list[bytes] = []
        take = near.stack.take_output

        def tap(max_packets: int = 64, now: float | None = None) -> list[bytes]:
            burst = take(max_packets, now)
            packets.extend(burst)
            return burst

        near.stack.take_output = tap  # type: ignore[method-assign]
        fragmenting, strict = (near.socket(family, stdlib.SOCK_DGRAM) for _ in range(2))
        assert strict.getsockopt(level, option) == 1
        strict.setsockopt(level, option, 2)
        for socket in (fragmenting, strict):
            await socket.connect((far, 9))
            await socket.send(bytes(1330))
        for packet in packets[:2]:
            refuse(near.stack, packet, 1300, trio.current_time())
        assert fragmenting.getsockopt(stdlib.SOL_SOCKET, stdlib.SO_ERROR) == 0
        assert strict.getsockopt(stdlib.SOL_SOCKET, stdlib.SO_ERROR) == errno.EMSGSIZE
        packets.clear()
        assert await fragmenting.send(bytes(1330)) == 1330
        assert len(packets) == 2
        with pytest.raises(OSError) as caught:
            await strict.send(bytes(1330))
        assert caught.value.errno == errno.EMSGSIZE
        strict.setsockopt(level, option, 0)
        await strict.send(bytes(1330))
