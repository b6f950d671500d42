"""TCP framing: chunking never matters, arbitrary bytes never hurt."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from minivpn_trio.errors import ProtocolError
from minivpn_trio.networkio.framing import FrameReader, frame_burst

PACKETS = st.lists(st.binary(min_size=1, max_size=100), max_size=20)
CUTS = st.lists(st.integers(min_value=0, max_value=2000), max_size=30)


def pieces(stream: bytes, cuts: list[int]) -> list[bytes]:
    edges = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
    return [stream[start:end] for start, end in pairwise(edges)]


def read(stream: bytes, cuts: list[int], max_frame: int) -> tuple[list[bytes], bool]:
    """All packets of a stream, and whether it broke."""
    reader = FrameReader(max_frame)
    packets: list[bytes] = []
    try:
        for piece in [*pieces(stream, cuts), b""]:
            packets += reader.feed_untrusted(piece)
            assert reader.pending <= max_frame + 1
    except ProtocolError:
        return packets, True
    return packets, False


@given(packets=PACKETS, cuts=CUTS)
def test_framing_round_trip(packets: list[bytes], cuts: list[int]) -> None:
    assert read(frame_burst(packets), cuts, 100) == (packets, False)


@given(stream=st.binary(max_size=300), cuts=CUTS, max_frame=st.integers(min_value=1, max_value=400))
def test_any_bytes_in_any_pieces_give_the_same(stream: bytes, cuts: list[int], max_frame: int) -> None:
    packets, broke = read(stream, cuts, max_frame)
    assert (packets, broke) == read(stream, [], max_frame)
    assert all(1 <= len(packet) <= max_frame for packet in packets)
    assert stream.startswith(frame_burst(packets))
