"""TCP options of segments on established connections, read and written with struct.

Nearly every segment carries exactly the timestamps, padded in front to twelve
octets, which fastpath.py reads without coming here. This file reads any
other layout: SACK blocks, odd padding, options unknown to us. SYNs, with their
MSS and window scale, go through ``scapy_wire``.

    kind 0          end of list
    kind 1          padding
    kind 5, 2+8n    SACK blocks (RFC 2018)
    kind 8, 10      TSval, TSecr (RFC 7323)
"""

from __future__ import annotations

from struct import Struct

__all__ = ["SACK_ROOM", "TIMESTAMP_PREFIX", "parse_options_untrusted", "sack_option"]

#: NOP NOP kind 8 length 10: what comes before TSval and TSecr in the usual layout.
TIMESTAMP_PREFIX = 0x0101080A
#: SACK blocks that fit beside timestamps.
SACK_ROOM = 3

_PAIR = Struct("!II")
_SACK = [Struct(f"!{2 * count}I") for count in range(5)]
_SACK_HEADS = [bytes((1, 1, 5, 2 + 8 * count)) for count in range(5)]

SackBlocks = tuple[tuple[int, int], ...]


def parse_options_untrusted(options: bytes) -> tuple[tuple[int, int] | None, SackBlocks]:
    """``(TSval, TSecr)`` or None, and the SACK blocks as on the wire. Never raises: options of unknown kinds are
    skipped, and a length that cannot be right ends the list (RFC 9293, 3.1: be prepared for it), as in ``scapy_wire``
    and with Linux; what stands before it counts, and so does the segment."""
    timestamps: tuple[int, int] | None = None
    blocks: SackBlocks = ()
    at, end = 0, len(options)
    while at < end:
        kind = options[at]
        if kind == 1:
            at += 1
            continue
        if kind == 0:
            break
        length = options[at + 1] if at + 1 < end else 0
        if length < 2 or at + length > end:
            break
        if kind == 8 and length == 10:
            timestamps = _PAIR.unpack_from(options, at + 2)
        elif kind == 5 and length in (10, 18, 26, 34):
            edges = _SACK[length >> 3].unpack_from(options, at + 2)
            blocks = tuple(zip(edges[::2], edges[1::2], strict=True))
        at += length
    return timestamps, blocks


def sack_option(blocks: SackBlocks) -> bytes:
    """The SACK option with two octets of padding in front, a multiple of four octets (RFC 2018, 3)."""
    flat = [edge for block in blocks for edge in block]
    return _SACK_HEADS[len(blocks)] + _SACK[len(blocks)].pack(*flat)
