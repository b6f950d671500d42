"""SYNs, RSTs and other segments without payload, after models that scapy makes once for each layout of options.

scapy takes a third of a millisecond for one, which is most of what opening a connection costs; a hundred streams at
once would wait for it. What differs between two segments of one layout are numbers at known places, and both checksums.
"""

from __future__ import annotations

from struct import Struct

from . import scapy_wire
from .packets import TcpSegment

__all__ = ["SegmentTemplates"]

_TCP = 6
_PORTS_AND_NUMBERS = Struct("!HHII")
_FLAGS_AND_WINDOW = Struct("!BHH")
_TIMESTAMPS = Struct("!II")
_KIND_MSS, _KIND_WINDOW_SCALE, _KIND_TIMESTAMPS, _NOP = 2, 3, 8, 1

_Layout = tuple[int, bool, bool, bool, bool]


class _Template:
    """A packet, and where in it the options begin that have values."""

    __slots__ = ("mss", "packet", "timestamps", "window_scale")

    def __init__(self, packet: bytes) -> None:
        self.packet: bytes = packet
        self.mss = self.window_scale = self.timestamps = 0
        at = (20 if packet[0] >> 4 == 4 else 40) + 20
        while at < len(packet):
            kind = packet[at]
            if kind == _NOP:
                at += 1
                continue
            if kind == _KIND_MSS:
                self.mss = at + 2
            elif kind == _KIND_WINDOW_SCALE:
                self.window_scale = at + 2
            elif kind == _KIND_TIMESTAMPS:
                self.timestamps = at + 2
            at += packet[at + 1]


class SegmentTemplates:
    """The templates of one stack; at most 32."""

    __slots__ = ("_templates",)

    def __init__(self) -> None:
        self._templates: dict[_Layout, _Template] = {}

    def build(self, segment: TcpSegment) -> bytes:
        """As ``scapy_wire.build_tcp``, to the bit. Raises ValueError if more than 40 bytes of options are asked for."""
        if segment.payload or segment.sack_blocks:
            return scapy_wire.build_tcp(segment)
        layout = (
            len(segment.src), segment.mss is None, segment.window_scale is None, segment.sack_permitted,
            segment.timestamps is None,
        )  # fmt: skip
        template = self._templates.get(layout)
        if template is None:
            template = self._templates[layout] = _Template(scapy_wire.build_tcp(segment))
        packet = bytearray(template.packet)
        size = len(packet)
        if len(segment.src) == 4:
            start = 20
            packet[12:16], packet[16:20] = segment.src, segment.dst
            packet[10:12] = b"\0\0"
            packet[10:12] = (-int.from_bytes(packet[:20]) % 65535).to_bytes(2)
            pseudo = int.from_bytes(packet[12:20])
        else:
            start = 40
            packet[8:24], packet[24:40] = segment.src, segment.dst
            pseudo = int.from_bytes(packet[8:40])
        _PORTS_AND_NUMBERS.pack_into(packet, start, segment.sport, segment.dport, segment.seq, segment.ack)
        _FLAGS_AND_WINDOW.pack_into(packet, start + 13, segment.flags, segment.window, 0)
        if segment.mss is not None:
            packet[template.mss : template.mss + 2] = segment.mss.to_bytes(2)
        if segment.window_scale is not None:
            packet[template.window_scale] = segment.window_scale
        if segment.timestamps is not None:
            _TIMESTAMPS.pack_into(packet, template.timestamps, *segment.timestamps)
        # The TCP header is a multiple of 32 bits.
        total = pseudo + _TCP + size - start + int.from_bytes(packet[start:])
        packet[start + 16 : start + 18] = (-total % 65535).to_bytes(2)
        return bytes(packet)
