"""Compression framings and fragment headers, byte by byte."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest

from minivpn_trio.datachannel.compress import FRAMINGS, Framing
from minivpn_trio.datachannel.fragment import (
    FRAGMENT_TTL,
    MAX_FRAGMENTS,
    MAX_PARTIAL,
    Fragmenter,
    FragmentHeader,
    Reassembler,
    parse_fragment_header_untrusted,
)
from minivpn_trio.errors import DropReason, ProtocolError
from tests.unit.datachannel.data_keys import ipv4, make_pair


def framing(name: str) -> Framing:
    found = FRAMINGS[name]
    assert found is not None
    return found


# Layouts as recorded from openvpn 2.6.14 (the ping's 2A, 18 .. C7, 48).
@pytest.mark.parametrize(
    ("name", "packet", "text"),
    [
        ("comp-lzo-no", b"\x2a\x18\xc7\x48", b"\xfa\x2a\x18\xc7\x48"),
        ("stub", b"\x2a\x18\xc7\x48", b"\xfb\x18\xc7\x48\x2a"),
        ("stub", b"\x45", b"\xfb\x45"),
        ("stub-v2", b"\x2a\x18\xc7\x48", b"\x2a\x18\xc7\x48"),
        ("stub-v2", b"\x50\x18", b"\x50\x00\x50\x18"),
    ],
)
def test_framings(name: str, packet: bytes, text: bytes) -> None:
    assert framing(name).encode(packet) == text
    assert framing(name).decode_untrusted(text) == packet


@pytest.mark.parametrize("name", ["comp-lzo-no", "stub"])
def test_either_first_byte_is_understood(name: str) -> None:
    decode = framing(name).decode_untrusted
    assert decode(b"\xfa\x45\x00\x01") == decode(b"\xfb\x00\x01\x45") == b"\x45\x00\x01"


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("comp-lzo-no", b"", DropReason.TOO_SHORT),
        ("comp-lzo-no", b"\x66\x00\x00\x11\x00\x00", DropReason.COMPRESSED),
        ("stub", b"\x69\x00", DropReason.COMPRESSED),
        ("stub", b"\x45\x00", DropReason.MALFORMED),
        ("stub-v2", b"\x50", DropReason.TOO_SHORT),
        ("stub-v2", b"\x50\x01\x00", DropReason.COMPRESSED),
    ],
)
def test_what_is_compressed_or_broken_is_counted(name: str, text: bytes, reason: DropReason) -> None:
    drops: Counter[DropReason] = Counter()
    good = framing(name).encode(b"\x45")
    assert framing(name).decode_burst_untrusted([good, text, good], drops) == [b"\x45", b"\x45"]
    assert drops == {reason: 1}


@pytest.mark.parametrize("name", ["comp-lzo-no", "stub", "stub-v2"])
def test_an_empty_packet_inside_a_framing_is_dropped(name: str) -> None:
    client, server = make_pair(compression="none")
    _, framed = make_pair(compression=name)
    empty = {"comp-lzo-no": b"\xfa", "stub": b"\xfb", "stub-v2": b"\x50\x00"}[name]
    assert framed.decrypt_burst(client.encrypt_burst([empty], 0.0), 0.0) == []
    assert framed.drops == {DropReason.TOO_SHORT: 1}
    assert not server.drops


# Bit positions from fragment.h: kind at 0, sequence at 2, number at 10, size / 4 at 15.
@pytest.mark.parametrize(
    ("header", "wire"),
    [
        (FragmentHeader(0, 0, 0, 0), "00000000"),
        (FragmentHeader(1, 0xFF, 0, 0), "000003fd"),
        (FragmentHeader(1, 1, 31, 0), "00007c05"),
        (FragmentHeader(2, 1, 1, 1400), "00af0406"),
        (FragmentHeader(2, 0, 0, 4 * 0x3FFF), "1fff8002"),
    ],
)
def test_fragment_headers(header: FragmentHeader, wire: str) -> None:
    assert header.serialize().hex() == wire
    assert parse_fragment_header_untrusted(bytes.fromhex(wire)) == header


@pytest.mark.parametrize(
    ("wire", "reason"),
    [
        ("", DropReason.TOO_SHORT),
        ("000000", DropReason.TOO_SHORT),
        ("00000003", DropReason.FRAGMENT),
        ("00000004", DropReason.FRAGMENT),
        ("00000400", DropReason.FRAGMENT),
        # NOT_LAST with a length that is no multiple of 4, or without data.
        ("00000001454545", DropReason.FRAGMENT),
        ("00000001", DropReason.FRAGMENT),
        # LAST longer than the ones before it, or of size 0.
        ("0000800a4545454545", DropReason.FRAGMENT),
        ("0000000a45", DropReason.FRAGMENT),
        # The 32nd of 32 fragments with 16383 * 4 bytes.
        ("1fff fc02 45", DropReason.TOO_LONG),
    ],
)
def test_impossible_fragments_are_refused(wire: str, reason: DropReason) -> None:
    reassembler = Reassembler()
    with pytest.raises(ProtocolError) as caught:
        reassembler.join_untrusted(bytes.fromhex(wire), 0.0)
    assert caught.value.reason is reason
    assert len(reassembler) == 0


def test_a_short_packet_goes_whole() -> None:
    assert Fragmenter().split(b"abcd", 8) == [b"\0\0\0\0abcd"]


def test_a_long_packet_is_split_evenly() -> None:
    pieces = Fragmenter(first_sequence=255).split(bytes(1401), 1404)
    assert [len(piece) for piece in pieces] == [4 + 704, 4 + 697]
    headers = [parse_fragment_header_untrusted(piece) for piece in pieces]
    assert headers == [FragmentHeader(1, 0, 0, 0), FragmentHeader(2, 0, 1, 704)]


def test_more_than_32_fragments_are_too_many() -> None:
    fragmenter = Fragmenter()
    assert len(fragmenter.split(bytes(32 * 64), 68)) == MAX_FRAGMENTS
    with pytest.raises(ProtocolError) as caught:
        fragmenter.split(bytes(32 * 64 + 1), 68)
    assert caught.value.reason is DropReason.TOO_LONG


def test_a_packet_too_long_to_split_does_not_harm_the_others() -> None:
    client, server = make_pair(fragment=100)
    packets = [ipv4(bytes(50)), ipv4(bytes(5000)), ipv4(bytes(200))]
    assert server.decrypt_burst(client.encrypt_burst(packets, 0.0), 0.0) == [packets[0], packets[2]]
    assert client.drops == {DropReason.TOO_LONG: 1}


@pytest.mark.parametrize("cipher", ["AES-256-GCM", "AES-128-CBC"])
@pytest.mark.parametrize("peer_id", [None, 5])
def test_no_datagram_is_longer_than_fragment_says(cipher: str, peer_id: int | None) -> None:
    for limit in range(200, 240):
        client, server = make_pair(cipher=cipher, fragment=limit, peer_id=peer_id)
        packets = [ipv4(bytes(size)) for size in range(90, 300)]
        datagrams = client.encrypt_burst(packets, 0.0)
        assert limit - 16 <= max(map(len, datagrams)) <= limit
        assert server.decrypt_burst(datagrams, 0.0) == packets


def test_fragments_join_in_any_order() -> None:
    for order in itertools.permutations(range(4)):
        reassembler = Reassembler()
        packet = bytes(range(200))
        pieces = Fragmenter().split(packet, 60)
        joined = [reassembler.join_untrusted(pieces[index], 0.0) for index in order]
        assert joined == [None, None, None, packet]
        assert len(reassembler) == 0


def test_a_fragment_that_never_comes_is_given_up() -> None:
    client, server = make_pair(fragment=700)
    first, second = client.encrypt_burst([ipv4(bytes(1000))], 0.0)
    assert server.decrypt_burst([first], 5.0) == []
    assert server.next_timeout() == 5.0 + FRAGMENT_TTL
    server.handle_timeout(5.0 + FRAGMENT_TTL)
    assert server.next_timeout() is None
    assert server.decrypt_burst([second], 20.0) == []


def test_reassembly_is_bounded() -> None:
    reassembler = Reassembler()
    fragmenter = Fragmenter()
    heads = []
    for _ in range(300):
        head, tail = fragmenter.split(bytes(100), 60)
        heads.append((head, tail))
        reassembler.join_untrusted(head, 0.0)
        assert len(reassembler) <= MAX_PARTIAL
    assert reassembler.given_up == 300 - MAX_PARTIAL
    assert reassembler.join_untrusted(heads[-MAX_PARTIAL][1], 0.0) == bytes(100)
    assert reassembler.join_untrusted(heads[-1][1], 0.0) == bytes(100)


def test_a_peer_that_starts_over_is_followed() -> None:
    reassembler = Reassembler()
    reassembler.join_untrusted(Fragmenter(first_sequence=9).split(bytes(100), 60)[0], 0.0)
    pieces = Fragmenter(first_sequence=140).split(bytes(100), 60)
    assert [reassembler.join_untrusted(piece, 0.0) for piece in pieces] == [None, bytes(100)]
    assert len(reassembler) == 0


def test_another_packet_under_the_same_number_replaces_the_first() -> None:
    reassembler = Reassembler()
    reassembler.join_untrusted(Fragmenter().split(bytes(100), 60)[0], 0.0)
    pieces = Fragmenter().split(b"\1" * 120, 68)
    assert [reassembler.join_untrusted(piece, 0.0) for piece in pieces] == [None, b"\1" * 120]
    assert reassembler.given_up == 1


@pytest.mark.parametrize("first_sequence", [0, 100, 130, 229, 250])
def test_the_first_number_seen_may_be_any(first_sequence: int) -> None:
    """And reordering around it loses nothing."""
    reassembler = Reassembler()
    fragmenter = Fragmenter(first_sequence)
    early, late = [fragmenter.split(bytes([number]) * 100, 60) for number in range(4)][::3]
    assert reassembler.join_untrusted(late[0], 0.0) is None
    assert reassembler.join_untrusted(early[1], 0.0) is None
    assert reassembler.join_untrusted(late[1], 0.0) == bytes([3]) * 100
    assert reassembler.join_untrusted(early[0], 0.0) == bytes(100)
