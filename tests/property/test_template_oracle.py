"""Segments built after a template are what scapy builds."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from minivpn_trio.netstack import scapy_wire
from minivpn_trio.netstack.packets import TcpSegment
from minivpn_trio.netstack.templates import SegmentTemplates

NUMBERS = st.integers(0, 0xFFFFFFFF)
PORTS = st.integers(0, 0xFFFF)


@st.composite
def bare_segments(draw: st.DrawFn) -> TcpSegment:
    size = draw(st.sampled_from([4, 16]))
    addresses = st.binary(min_size=size, max_size=size)
    return TcpSegment(
        draw(addresses), draw(addresses), draw(PORTS), draw(PORTS), draw(NUMBERS), draw(NUMBERS),
        draw(st.integers(0, 0x3F)), draw(PORTS),
        mss=draw(st.none() | PORTS),
        window_scale=draw(st.none() | st.integers(0, 255)),
        sack_permitted=draw(st.booleans()),
        timestamps=draw(st.none() | st.tuples(NUMBERS, NUMBERS)),
    )  # fmt: skip


@given(st.lists(bare_segments(), min_size=1, max_size=6))
def test_same_bytes(segments: list[TcpSegment]) -> None:
    """One set of templates for all: nothing of one segment is left in the next."""
    templates = SegmentTemplates()
    for segment in segments:
        assert templates.build(segment) == scapy_wire.build_tcp(segment)
