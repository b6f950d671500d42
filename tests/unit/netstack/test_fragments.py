"""Reassembly: what comes together, what never may, and that memory stays bounded."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minivpn_trio.errors import DropReason
from minivpn_trio.netstack import scapy_wire
from minivpn_trio.netstack.fragments import FragmentTable, split
from minivpn_trio.netstack.packets import Fragment, IpPayload, UdpDatagram

A4, B4 = bytes([10, 8, 0, 6]), bytes([10, 8, 0, 1])
A6, B6 = bytes(15) + b"\6", bytes(15) + b"\1"


def piece(offset: int, payload: bytes, *, more: bool = True, ident: int = 1, src: bytes = A4) -> Fragment:
    return Fragment(src, B4, 17, ident, offset, more, payload)


def test_two_pieces_in_either_order() -> None:
    first, last = piece(0, b"a" * 8), piece(8, b"b" * 3, more=False)
    for order in ((first, last), (last, first)):
        table = FragmentTable()
        assert table.handle_fragment(order[0], 0.0) is None
        assert table.handle_fragment(order[1], 1.0) == IpPayload(A4, B4, 17, b"aaaaaaaabbb")
        assert len(table) == table.cost == 0
        assert table.next_timeout() is None


def test_datagrams_are_told_apart() -> None:
    table = FragmentTable()
    table.handle_fragment(piece(0, b"a" * 8, ident=1), 0.0)
    assert table.handle_fragment(piece(8, b"x", more=False, ident=2), 0.0) is None
    assert table.handle_fragment(piece(8, b"x", more=False, src=b"\1\1\1\1"), 0.0) is None
    assert table.handle_fragment(piece(8, b"b", more=False, ident=1), 0.0) == IpPayload(A4, B4, 17, b"aaaaaaaab")


def test_an_exact_duplicate_is_ignored() -> None:
    table = FragmentTable()
    for _ in range(3):
        assert table.handle_fragment(piece(0, b"a" * 8), 0.0) is None
    assert table.handle_fragment(piece(8, b"b", more=False), 0.0) is not None
    assert not table.drops


@pytest.mark.parametrize("contradiction", [
    piece(8, b"x" * 8),  # other bytes in the same place
    piece(0, b"a" * 16),
    piece(16, b"x" * 8, more=True),  # reaches into the next piece
    piece(32, b"c" * 8),  # beyond the end
    piece(24, b"c" * 4, more=False),  # another end
    piece(8, b"b" * 16, more=True),
])  # fmt: skip
def test_a_contradiction_drops_the_whole_datagram(contradiction: Fragment) -> None:
    """RFC 5722: with the pieces that are still to come."""
    table = FragmentTable()
    known = [piece(0, b"a" * 8), piece(8, b"b" * 8), piece(20, b"c" * 12, more=False)]
    if contradiction.offset == 0:
        known.pop(1)
        known.append(piece(8, b"b" * 8))
    for each in known:
        assert table.handle_fragment(each, 0.0) is None
    assert table.handle_fragment(contradiction, 0.0) is None
    assert table.drops[DropReason.FRAGMENT] == 1
    assert table.handle_fragment(piece(16, b"d" * 4), 1.0) is None
    for each in known:
        assert table.handle_fragment(each, 1.0) is None
    table.handle_timeout(30.0)
    assert len(table) == table.cost == 0


def test_thirty_seconds() -> None:
    table = FragmentTable()
    table.handle_fragment(piece(0, b"a" * 8), 5.0)
    table.handle_fragment(piece(16, b"a" * 8), 34.0)
    assert table.next_timeout() == 35.0
    table.handle_timeout(34.9)
    assert len(table) == 1
    assert table.handle_fragment(piece(8, b"b" * 8), 35.0) is None
    assert table.drops == {DropReason.FRAGMENT: 1}
    assert table.next_timeout() == 65.0


def test_ten_thousand_halves_stay_below_the_cap() -> None:
    table = FragmentTable(max_bytes=100_000)
    for ident in range(10_000):
        table.handle_fragment(piece(0, b"a" * 1400, ident=ident), ident / 1000)
        assert table.cost <= 100_000
    assert 0 < len(table) <= 256
    assert table.drops[DropReason.LIMIT] == 10_000 - len(table)
    # The newest survived.
    assert table.handle_fragment(piece(1400, b"b", more=False, ident=9999), 10.0) is not None


def test_one_datagram_of_many_crumbs_is_dropped() -> None:
    table = FragmentTable(max_pieces=16)
    for index in range(100):
        table.handle_fragment(piece(index * 16, b"a" * 8), 0.0)
    assert table.drops[DropReason.LIMIT] == 1
    assert table.cost < 1000


def test_a_datagram_larger_than_the_table_does_not_fit() -> None:
    table = FragmentTable(max_bytes=5000)
    for index in range(10):
        assert table.handle_fragment(piece(index * 1400, b"a" * 1400), 0.0) is None
        assert table.cost <= 5000


@given(st.data())
def test_any_split_in_any_order_comes_together(data: st.DataObject) -> None:
    payload = bytes(random.Random(1).randbytes(data.draw(st.integers(1, 3000))))
    cuts = data.draw(st.sets(st.integers(1, max(1, (len(payload) - 1) // 8)), max_size=20))
    edges = [0, *sorted(8 * cut for cut in cuts if 8 * cut < len(payload)), len(payload)]
    pieces = [
        piece(start, payload[start:end], more=end < len(payload))
        for start, end in pairwise(edges)
    ]
    order = data.draw(st.permutations(pieces))
    repeated = [each for each in order[:-1] for _ in range(data.draw(st.integers(1, 2)))]
    table = FragmentTable()
    assert all(table.handle_fragment(each, 0.0) is None for each in repeated)
    whole = table.handle_fragment(order[-1], 0.0)
    assert whole == IpPayload(A4, B4, 17, payload)
    assert not table.drops


@given(
    st.lists(
        st.builds(
            Fragment, src=st.sampled_from([A4, A6]), dst=st.just(B4), protocol=st.just(17), ident=st.integers(0, 2),
            offset=st.integers(0, 40).map(lambda n: n * 8), more=st.booleans(),
            payload=st.binary(min_size=1, max_size=64),
        ),
        max_size=60,
    )
)  # fmt: skip
def test_hostile_pieces_never_raise_nor_leak(pieces: list[Fragment]) -> None:
    table = FragmentTable(max_bytes=3000, max_datagrams=3)
    for index, each in enumerate(pieces):
        whole = table.handle_fragment(each, float(index))
        assert whole is None or len(whole.payload) <= 40 * 8 + 64
        assert table.cost <= 3000
        assert len(table) <= 3
    table.handle_timeout(1000.0)
    assert len(table) == table.cost == 0


@pytest.mark.parametrize(("src", "dst"), [(A4, B4), (A6, B6)])
@given(size=st.integers(1300, 9000), mtu=st.integers(68, 1280), ident=st.integers(0, 0xFFFFFFFF))
def test_what_is_split_comes_together(src: bytes, dst: bytes, size: int, mtu: int, ident: int) -> None:
    """The pieces as scapy reads them, checksums included."""
    datagram = UdpDatagram(src, dst, 53, 54, random.Random(2).randbytes(size))
    mtu = max(mtu, 400)
    table = FragmentTable()
    whole = None
    pieces = split(scapy_wire.build_udp(datagram), mtu, ident)
    for each in pieces:
        assert whole is None
        assert len(each) <= mtu
        parsed = scapy_wire.parse_untrusted(each)
        assert isinstance(parsed, Fragment)
        assert parsed.ident == ident & (0xFFFF if len(src) == 4 else 0xFFFFFFFF)
        whole = table.handle_fragment(parsed, 0.0)
    assert whole is not None
    assert scapy_wire.parse_transport_untrusted(whole) == datagram
