"""The checksum of a whole burst at once."""

from __future__ import annotations

import random

import pytest
from tcp_script import PEER, US

from minivpn_trio.netstack import scapy_wire
from minivpn_trio.netstack.packets import ACK, TcpSegment
from minivpn_trio.netstack.wire import intact

US6, PEER6 = b"\xfd" + bytes(14) + b"\1", b"\xfd" + bytes(14) + b"\2"


def burst(sizes: list[int], *, ipv6: bool) -> list[bytes]:
    source = random.Random(3)
    src, dst = (PEER6, US6) if ipv6 else (PEER, US)
    return [
        scapy_wire.build_tcp(TcpSegment(src, dst, 80, 5000, 1, 2, ACK, 3, source.randbytes(size), timestamps=(1, 2)))
        for size in sizes
    ]


def flip(packet: bytes, octet: int, bit: int) -> bytes:
    damaged = bytearray(packet)
    damaged[octet] ^= 1 << bit
    return bytes(damaged)


@pytest.mark.parametrize("ipv6", [False, True])
@pytest.mark.parametrize("sizes", [[100] * 5, [101] * 5, [100, 7, 0, 33, 100, 1], [1]])
def test_sound_bursts_pass_as_they_are(sizes: list[int], ipv6: bool) -> None:
    packets = burst(sizes, ipv6=ipv6)
    assert intact(packets) is packets


@pytest.mark.parametrize("ipv6", [False, True])
@pytest.mark.parametrize("sizes", [[100] * 5, [101] * 5, [100, 7, 40, 33, 100, 5]])
def test_only_damaged_packets_go(sizes: list[int], ipv6: bool) -> None:
    packets = burst(sizes, ipv6=ipv6)
    for index in range(len(packets)):
        damaged = list(packets)
        damaged[index] = flip(packets[index], -3, 4)
        assert intact(damaged) == packets[:index] + packets[index + 1 :]


@pytest.mark.parametrize("ipv6", [False, True])
def test_opposite_damage_in_two_packets_does_not_cancel_out(ipv6: bool) -> None:
    """Found by a simulation: the same bit up in one packet and down in another leaves their sum alone."""
    packets = burst([100] * 10, ipv6=ipv6)
    offset = -50
    for bit in range(8):
        ups = [index for index, packet in enumerate(packets) if not packet[offset] >> bit & 1]
        downs = [index for index, packet in enumerate(packets) if packet[offset] >> bit & 1]
        for up in ups:
            for down in downs:
                damaged = list(packets)
                damaged[up], damaged[down] = flip(packets[up], offset, bit), flip(packets[down], offset, bit)
                assert intact(damaged) == [p for index, p in enumerate(packets) if index not in (up, down)]
