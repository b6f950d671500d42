"""The struct path for UDP held against scapy in both directions: what either reads, and what either builds."""

from __future__ import annotations

from contextlib import suppress
from struct import pack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minivpn_trio.errors import ProtocolError
from minivpn_trio.netstack import scapy_wire
from minivpn_trio.netstack.packets import ACK, TcpSegment, UdpDatagram
from minivpn_trio.netstack.udp import build_udp, read_udp_untrusted

A4, B4 = bytes([10, 8, 0, 6]), bytes([10, 8, 0, 1])
A6, B6 = bytes.fromhex("fd00" + "0" * 27 + "6"), bytes.fromhex("fd00" + "0" * 27 + "1")

#: All ones and all zeros are where ones' complement arithmetic goes wrong.
payloads = st.one_of(
    st.binary(max_size=100),
    st.integers(0, 1500).map(lambda n: b"\xff" * n),
    st.integers(0, 1500).map(bytes),
)
datagrams = st.builds(
    lambda ends, sport, dport, payload: UdpDatagram(*ends, sport, dport, payload),
    st.sampled_from([(A4, B4), (A6, B6)]), st.integers(0, 65535), st.integers(0, 65535), payloads,
)  # fmt: skip


def read_slowly(packet: bytes) -> object:
    try:
        return scapy_wire.parse_untrusted(packet)
    except ProtocolError:
        return None


@given(datagrams, st.integers(1, 255), st.integers(0, 65535))
def test_what_one_builds_the_other_reads(datagram: UdpDatagram, ttl: int, ident: int) -> None:
    fast, slow = build_udp(datagram, ttl=ttl, ident=ident), scapy_wire.build_udp(datagram, ttl=ttl, ident=ident)
    assert fast == slow
    assert read_udp_untrusted(slow) == scapy_wire.parse_untrusted(fast) == datagram


@given(datagrams, st.lists(st.tuples(st.integers(0, 1600), st.integers(0, 255)), min_size=1, max_size=4))
def test_damage_is_left_to_scapy_or_read_alike(datagram: UdpDatagram, damage: list[tuple[int, int]]) -> None:
    packet = bytearray(build_udp(datagram))
    for at, octet in damage:
        packet[at % len(packet)] = octet
    fast = read_udp_untrusted(bytes(packet))
    if fast is not None:
        assert fast == read_slowly(bytes(packet))


@given(datagrams, st.integers(0, 60), st.binary(max_size=9))
def test_other_lengths_are_left_to_scapy(datagram: UdpDatagram, cut: int, padding: bytes) -> None:
    packet = build_udp(datagram)
    if padding:
        assert read_udp_untrusted(packet + padding) is None
    if cut:
        assert read_udp_untrusted(packet[: -cut or None]) is None


@given(st.one_of(st.binary(max_size=80), st.binary(max_size=80).map(lambda tail: b"E\0" + tail)))
def test_random_octets(packet: bytes) -> None:
    with suppress(ProtocolError):
        fast = read_udp_untrusted(packet)
        assert fast is None or fast == scapy_wire.parse_untrusted(packet)


@given(datagrams, st.integers(0, 15))
def test_every_field_is_looked_at(datagram: UdpDatagram, bit: int) -> None:
    """One bit anywhere, with the IPv4 header's checksum repaired behind it."""
    plain = build_udp(datagram)
    for at in range(min(len(plain), 48)):
        packet = bytearray(plain)
        packet[at] ^= 1 << bit % 8
        if len(datagram.src) == 4 and at < 20:
            packet[10:12] = b"\0\0"
            packet[10:12] = pack("!H", 65535 - int.from_bytes(packet[:20], "big") % 65535)
        fast = read_udp_untrusted(bytes(packet))
        assert fast is None or fast == read_slowly(bytes(packet)), at


@pytest.mark.parametrize("ends", [(A4, B4), (A6, B6)])
def test_what_is_not_plain(ends: tuple[bytes, bytes]) -> None:
    segment = scapy_wire.build_tcp(TcpSegment(*ends, 1, 2, 3, 4, ACK, 5))
    assert read_udp_untrusted(segment) is None
    packet = build_udp(UdpDatagram(*ends, 1, 2, b"x"))
    start = 20 if len(ends[0]) == 4 else 40
    unsummed = packet[: start + 6] + b"\0\0" + packet[start + 8 :]
    # No checksum: allowed over IPv4 (RFC 768), forbidden over IPv6 (RFC 8200, 8.1).
    assert (read_udp_untrusted(unsummed) is not None) == (start == 20)
    assert read_udp_untrusted(unsummed) == read_slowly(unsummed)


def test_fragments_are_no_datagrams() -> None:
    packet = bytearray(build_udp(UdpDatagram(A4, B4, 1, 2, b"x" * 8)))
    for flags in (0x2000, 0x0001, 0x00FF, 0x1F00):
        packet[6:8] = pack("!H", flags)
        packet[10:12] = b"\0\0"
        packet[10:12] = pack("!H", 65535 - int.from_bytes(packet[:20], "big") % 65535)
        assert read_udp_untrusted(bytes(packet)) is None
