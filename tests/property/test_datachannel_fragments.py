"""Fragments that are lost, repeated and reordered."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from minivpn_trio.datachannel.fragment import FRAGMENT_TTL, MAX_PACKET, MAX_PARTIAL, Fragmenter, Reassembler
from minivpn_trio.errors import ProtocolError


@given(
    sizes=st.lists(st.integers(1, 1500), min_size=1, max_size=12),
    limit=st.integers(80, 800),
    sequence=st.integers(0, 255),
    data=st.data(),
)
def test_packets_come_out_whole_or_not_at_all(sizes: list[int], limit: int, sequence: int, data: st.DataObject) -> None:
    """At most 25 packets under way: each of which every fragment arrives comes out, exactly once, and
    nothing that was not sent comes out."""
    fragmenter = Fragmenter(first_sequence=sequence)
    # The first bytes say which packet, so no two are equal.
    packets = [bytes([number]) * size for number, size in enumerate(sizes)]
    pieces = [(number, piece) for number, packet in enumerate(packets) for piece in fragmenter.split(packet, limit)]
    assert all(len(piece) <= limit for _, piece in pieces)
    lost = data.draw(st.sets(st.integers(0, len(pieces) - 1)))
    arriving = data.draw(st.permutations([index for index in range(len(pieces)) if index not in lost]))
    reassembler = Reassembler()
    joined = []
    for index in arriving:
        packet = reassembler.join_untrusted(pieces[index][1], 0.0)
        if packet is not None:
            joined.append(packet)
    incomplete = {pieces[index][0] for index in lost}
    assert sorted(joined) == [packet for number, packet in enumerate(packets) if number not in incomplete]
    reassembler.handle_timeout(FRAGMENT_TTL)
    assert len(reassembler) == 0


@given(texts=st.lists(st.tuples(st.binary(max_size=40), st.floats(0.0, 5.0)), max_size=60))
def test_any_plaintext_is_bounded(texts: list[tuple[bytes, float]]) -> None:
    reassembler = Reassembler()
    now = 0.0
    for text, pause in texts:
        now += pause
        try:
            packet = reassembler.join_untrusted(text, now)
        except ProtocolError:
            continue
        assert packet is None or len(packet) <= MAX_PACKET
        assert len(reassembler) <= MAX_PARTIAL
    reassembler.handle_timeout(now + FRAGMENT_TTL)
    assert len(reassembler) == 0
    assert reassembler.next_timeout() is None
