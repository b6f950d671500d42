"""The struct fast path held against scapy, field by field; and scapy's own lenience held in check.

What the fast path builds, scapy must read as the same segment, with every
checksum right; what it verifies and reads, scapy must read alike; and whatever
the bytes, the slow path raises nothing but ProtocolError.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from minivpn_trio.errors import DropReason, ProtocolError
from minivpn_trio.netstack import scapy_wire, wire
from minivpn_trio.netstack.packets import ACK, FIN, PSH, SYN, Fragment, IcmpMessage, IpPayload, TcpSegment, UdpDatagram
from minivpn_trio.netstack.scapy_wire.headers import checksum, pseudo_header
from minivpn_trio.netstack.tcp.options import TIMESTAMP_PREFIX, parse_options_untrusted, sack_option

A4, B4 = bytes([10, 8, 0, 6]), bytes([10, 8, 0, 1])
A6, B6 = bytes.fromhex("fd00" + "0" * 27 + "6"), bytes.fromhex("fd00" + "0" * 27 + "1")

ends = st.sampled_from([(A4, B4), (A6, B6)])
ports, u16, u32 = st.integers(1, 65535), st.integers(0, 0xFFFF), st.integers(0, 0xFFFFFFFF)
#: All ones and all zeros are where ones' complement arithmetic goes wrong.
payloads = st.one_of(
    st.binary(max_size=100),
    st.integers(0, 1500).map(lambda n: b"\xff" * n),
    st.integers(0, 1500).map(bytes),
    st.tuples(st.binary(min_size=1, max_size=7), st.integers(1, 200)).map(lambda t: t[0] * t[1]),
)
blocks = st.lists(st.tuples(u32, u32), min_size=1, max_size=3).map(tuple)


any_flags = st.integers(0, 0x3F)


@st.composite
def segments(draw: st.DrawFn, flags: st.SearchStrategy[int] = any_flags) -> TcpSegment:
    """Any segment whose options fit."""
    src, dst = draw(ends)
    numbers = [draw(strategy) for strategy in (ports, ports, u32, u32, flags, u16)]
    segment = TcpSegment(src, dst, *numbers, draw(payloads))
    segment.timestamps = draw(st.none() | st.tuples(u32, u32))
    if segment.flags & SYN:
        segment.mss = draw(st.none() | u16)
        segment.window_scale = draw(st.none() | st.integers(0, 255))
        segment.sack_permitted = draw(st.booleans())
    else:
        segment.sack_blocks = draw(st.just(()) | blocks)
    return segment


established = segments(flags=st.sampled_from([ACK, ACK | PSH, ACK | FIN, ACK | PSH | FIN]))


def builder_for(segment: TcpSegment) -> wire.SegmentBuilder:
    """Modelled after a SYN of the same connection, as the stack does it."""
    timestamps = (7, 8) if segment.timestamps is not None else None
    syn = TcpSegment(
        segment.src, segment.dst, segment.sport, segment.dport, 99, 0, SYN, 1000, mss=1360, window_scale=7,
        sack_permitted=True, timestamps=timestamps,
    )  # fmt: skip
    return wire.SegmentBuilder(scapy_wire.build_tcp(syn), timestamps=timestamps is not None)


def build_fast(builder: wire.SegmentBuilder, segment: TcpSegment) -> bytes:
    tsval, tsecr = segment.timestamps or (0, 0)
    options = sack_option(segment.sack_blocks) if segment.sack_blocks else b""
    return builder.build(
        segment.seq, segment.ack, segment.flags, segment.window, tsval, tsecr, segment.payload, options
    )


# --- building --------------------------------------------------------------------------------------------------------


@given(segments())
def test_scapy_there_and_back(segment: TcpSegment) -> None:
    assert scapy_wire.parse_untrusted(scapy_wire.build_tcp(segment)) == segment


@given(established)
def test_the_fast_path_builds_what_scapy_builds(segment: TcpSegment) -> None:
    """Byte for byte, both checksums included."""
    built = build_fast(builder_for(segment), segment)
    expected = scapy_wire.build_tcp(segment)
    assert scapy_wire.parse_untrusted(built) == segment
    assert built == expected


@given(established, st.lists(st.tuples(u32, payloads), min_size=1, max_size=8))
def test_a_train_is_its_segments(segment: TcpSegment, pieces: list[tuple[int, bytes]]) -> None:
    segment.sack_blocks = ()
    builder = builder_for(segment)
    tsval, tsecr = segment.timestamps or (0, 0)
    positions, contents = [seq + (7 << 32) for seq, _ in pieces], [payload for _, payload in pieces]
    train = builder.build_train(positions, contents, segment.ack, segment.flags, segment.window, tsval, tsecr)
    for (seq, payload), packet in zip(pieces, train, strict=True):
        segment.seq, segment.payload = seq, payload
        assert packet == scapy_wire.build_tcp(segment)


# --- parsing ---------------------------------------------------------------------------------------------------------


def read_fast(packet: bytes) -> TcpSegment | None:
    """What the fast path's tables say of ``packet``; None where it leaves the packet to scapy."""
    ipv4 = packet[0] >> 4 == 4
    if ipv4:
        first, length, fragment, protocol = wire.IPV4_START.unpack_from(packet)
        if first != 0x45 or length != len(packet) or fragment & 0x3FFF or protocol != 6:
            return None
        key, at, src_size = packet[wire.KEY4], wire.SEQUENCE_AT4, 4
    else:
        if packet[6] != 6 or int.from_bytes(packet[4:6], "big") + 40 != len(packet):
            return None
        key, at, src_size = packet[wire.KEY6], wire.SEQUENCE_AT6, 16
    header_end = at - 4 + (packet[at + 8] >> 4) * 4
    if not at + 16 <= header_end <= len(packet):
        return None
    padded = packet + bytes(16)
    seq, ack, offset_and_flags, window, prefix, tsval, tsecr = wire.TCP_FIELDS.unpack_from(padded, at)
    sport, dport = int.from_bytes(key[-4:-2], "big"), int.from_bytes(key[-2:], "big")
    segment = TcpSegment(
        key[:src_size], key[src_size:-4], sport, dport, seq, ack, offset_and_flags & 0x3F, window, packet[header_end:]
    )
    if segment.flags & SYN:
        return None
    if header_end == at + 28 and prefix == TIMESTAMP_PREFIX:
        segment.timestamps = (tsval, tsecr)
    else:
        segment.timestamps, segment.sack_blocks = parse_options_untrusted(packet[at + 16 : header_end])
    return segment


@given(established)
def test_both_paths_read_alike(segment: TcpSegment) -> None:
    packet = scapy_wire.build_tcp(segment)
    assert wire.intact([packet]) == [packet]
    assert read_fast(packet) == segment == scapy_wire.parse_untrusted(packet)


@given(established, st.data())
def test_both_paths_read_damaged_packets_alike(segment: TcpSegment, data: st.DataObject) -> None:
    """What the fast path accepts after damage, which its checksum may not have seen (16 bits), scapy reads alike."""
    packet = bytearray(scapy_wire.build_tcp(segment))
    for _ in range(data.draw(st.integers(1, 4))):
        packet[data.draw(st.integers(0, len(packet) - 1))] = data.draw(st.integers(0, 255))
    damaged = bytes(packet)
    if not damaged or damaged[0] >> 4 not in (4, 6) or len(damaged) < (40 if damaged[0] >> 4 == 4 else 60):
        return
    fast = read_fast(damaged)
    if fast is None or not wire.intact([damaged]):
        return
    try:
        slow = scapy_wire.parse_untrusted(damaged)
    except ProtocolError as exc:
        # The fast path sums IP header and segment together, so errors in both may cancel out.
        assert exc.reason is DropReason.BAD_CHECKSUM  # noqa: PT017
        return
    assert fast == slow


@given(established, st.binary(max_size=40).map(lambda raw: raw[: len(raw) // 4 * 4]))
@example(TcpSegment(A4, B4, 1, 2, 3, 4, ACK, 5), bytes.fromhex("080b000000010000000200ff"))
@example(TcpSegment(A4, B4, 1, 2, 3, 4, ACK, 5), bytes.fromhex("050600000001000001010101"))
def test_both_paths_read_any_options_alike(segment: TcpSegment, options: bytes) -> None:
    """An impossible length ends the list for both."""
    segment.timestamps, segment.sack_blocks = None, ()
    plain = scapy_wire.build_tcp(segment)
    ip_size = 20 if len(segment.src) == 4 else 40
    tcp = plain[ip_size : ip_size + 12] + bytes(((20 + len(options)) // 4 << 4,)) + plain[ip_size + 13 : ip_size + 16]
    tcp += b"\0\0" + plain[ip_size + 18 : ip_size + 20] + options + segment.payload
    datagram = _with_checksum(segment, tcp)
    slow = scapy_wire.parse_transport_untrusted(datagram)
    assert isinstance(slow, TcpSegment)
    assert parse_options_untrusted(options) == (slow.timestamps, slow.sack_blocks)
    assert slow.payload == segment.payload


def _with_checksum(segment: TcpSegment, tcp: bytes) -> Any:
    pseudo = pseudo_header(segment.src, segment.dst, 6, len(tcp))
    tcp = tcp[:16] + checksum(pseudo + tcp).to_bytes(2, "big") + tcp[18:]
    return IpPayload(segment.src, segment.dst, 6, tcp)


@given(st.lists(payloads, min_size=1, max_size=6), st.booleans(), st.data())
def test_a_burst_is_verified_as_its_packets_are(bodies: list[bytes], v6: bool, data: st.DataObject) -> None:
    src, dst = (A6, B6) if v6 else (A4, B4)
    packets = [scapy_wire.build_tcp(TcpSegment(src, dst, 1, 2, 3, 4, ACK, 5, body)) for body in bodies]
    assert wire.intact(packets) == packets
    index = data.draw(st.integers(0, len(packets) - 1))
    at = data.draw(st.integers(24, len(packets[index]) - 1))
    flipped = bytearray(packets[index])
    flipped[at] ^= 1 << data.draw(st.integers(0, 7))
    damaged = [*packets[:index], bytes(flipped), *packets[index + 1 :]]
    assert wire.intact(damaged) == packets[:index] + packets[index + 1 :]


# --- whatever the bytes ----------------------------------------------------------------------------------------------

valid_packets = st.one_of(
    segments().map(scapy_wire.build_tcp),
    st.builds(lambda e, s, d, p: scapy_wire.build_udp(UdpDatagram(*e, s, d, p)), ends, ports, ports, payloads),
    st.builds(
        lambda e, t, c, r, p: scapy_wire.build_icmp(IcmpMessage(*e, t, c, r, p)),
        ends, st.integers(0, 255), st.integers(0, 255), u32, st.binary(max_size=80),
    ),
)  # fmt: skip

headed = st.tuples(
    st.sampled_from([b"\x45\0", b"\x46\0", b"\x4f\0", b"\x60\0"]), st.binary(max_size=120)
).map(b"".join)  # fmt: skip


@given(st.one_of(st.binary(max_size=120), headed))
def test_the_slow_path_raises_only_protocol_errors(packet: bytes) -> None:
    with suppress(ProtocolError):
        parsed = scapy_wire.parse_untrusted(packet)
        assert isinstance(parsed, TcpSegment | UdpDatagram | IcmpMessage | Fragment)


@given(valid_packets, st.data())
def test_damage_is_noticed_or_harmless(packet: bytes, data: st.DataObject) -> None:
    """Also behind repaired checksums, so that scapy's dissection is reached."""
    mutable = bytearray(packet)
    for _ in range(data.draw(st.integers(1, 5))):
        mutable[data.draw(st.integers(0, len(mutable) - 1))] = data.draw(st.integers(0, 255))
    damaged = bytes(mutable)[: data.draw(st.integers(0, len(mutable)))]
    for candidate in (damaged, _repaired(damaged)):
        with suppress(ProtocolError):
            parsed = scapy_wire.parse_untrusted(candidate)
            assert len(parsed.payload) <= len(candidate)


def _repaired(packet: bytes) -> bytes:
    """``packet`` with checksums that hold, as far as it has the shape to hold any."""
    if len(packet) < 40 or packet[0] >> 4 != 4:
        return packet
    size = (packet[0] & 15) * 4
    total = int.from_bytes(packet[2:4], "big")
    if not 20 <= size <= len(packet) or not size <= total <= len(packet):
        return packet
    head = packet[:10] + b"\0\0" + packet[12:size]
    head = head[:10] + checksum(head).to_bytes(2, "big") + head[12:]
    body = packet[size:total]
    at = {6: 16, 17: 6, 1: 2}.get(packet[9])
    if at is not None and len(body) >= at + 2:
        body = body[:at] + b"\0\0" + body[at + 2 :]
        pseudo = b"" if packet[9] == 1 else packet[12:20] + bytes((0, packet[9])) + len(body).to_bytes(2, "big")
        body = body[:at] + checksum(pseudo + body).to_bytes(2, "big") + body[at + 2 :]
    return head + body


@pytest.mark.parametrize("size", [0, 1, 19, 20, 39, 40, 60])
def test_headers_of_zeros(size: int) -> None:
    for version in (b"", b"\x45", b"\x60"):
        with pytest.raises(ProtocolError):
            scapy_wire.parse_untrusted(version + bytes(size))
