"""Compression framings: how a packet says whether it is compressed.

Nothing is ever compressed here, and nothing compressed is accepted unless it
was asked for: traffic that shares a compression context with an attacker's
bytes leaks (VORACLE), and decompressors eat memory at a peer's will. But peers
that were configured for compression put a byte before, or in place of, a
packet's first one, and expect ours to have it too (reference: comp.h,
comp-lz4.c, lzo.c)::

                   as it is                                      compressed
    none           packet
    comp-lzo-no    FA packet                                     66 LZO
    stub           FB packet[1:] packet[0]                       69 LZ4[1:] LZ4[0]
    stub-v2        packet, or 50 00 packet if it begins with 50  50 01 LZ4

The framings with one byte are told apart by it, so all are accepted where
either was agreed on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

from ..errors import DropReason, ProtocolError
from .decompress import inflate_lz4_untrusted, inflate_lzo_untrusted

__all__ = ["FRAMINGS", "Framing", "make_framing"]

Buffer = bytes | bytearray | memoryview

NO_COMPRESS = b"\xfa"
NO_COMPRESS_SWAP = b"\xfb"
#: LZO, LZ4 and Snappy, plain and with the first byte swapped.
COMPRESSED = frozenset(b"\x66\x67\x68\x69\x6a")
V2_INDICATOR = b"\x50"
V2_UNCOMPRESSED = b"\x50\x00"
LZO = b"\x66"
LZ4_SWAP = b"\x69"
V2_LZ4 = b"\x50\x01"


class Framing(NamedTuple):
    """One way to say "not compressed". ``encode`` takes a non-empty packet; ``decode_untrusted``
    raises ProtocolError."""

    encode: Callable[[Buffer], bytes]
    decode_untrusted: Callable[[bytes], bytes]

    def decode_burst_untrusted(self, texts: Sequence[bytes], drops: Counter[DropReason]) -> list[bytes]:
        """What is inside ``texts``; those that are compressed or broken are counted in ``drops``."""
        decode = self.decode_untrusted
        packets: list[bytes] = []
        for text in texts:
            try:
                packets.append(decode(text))
            except ProtocolError as exc:
                drops[exc.reason] += 1
        return packets


def _encode_prefix(packet: Buffer) -> bytes:
    return NO_COMPRESS + packet


def _encode_swap(packet: Buffer) -> bytes:
    return b"".join((NO_COMPRESS_SWAP, packet[1:], packet[:1]))


def _decode_v1_untrusted(text: bytes) -> bytes:
    head = text[:1]
    if head == NO_COMPRESS:
        return text[1:]
    if head == NO_COMPRESS_SWAP:
        # Alone, the byte has nothing at its tail: an empty packet.
        return text[-1:] + text[1:-1] if len(text) > 1 else b""
    if not head:
        raise ProtocolError(DropReason.TOO_SHORT, "no compression byte")
    if head[0] in COMPRESSED:
        raise ProtocolError(DropReason.COMPRESSED)
    raise ProtocolError(DropReason.MALFORMED, "unknown compression byte")


def _encode_v2(packet: Buffer) -> bytes:
    if packet[:1] == V2_INDICATOR:
        return V2_UNCOMPRESSED + packet
    return bytes(packet)


def _decode_v2_untrusted(text: bytes) -> bytes:
    if text[:1] != V2_INDICATOR:
        return text
    if text[:2] == V2_UNCOMPRESSED:
        return text[2:]
    if len(text) == 1:
        raise ProtocolError(DropReason.TOO_SHORT, "no compression algorithm")
    raise ProtocolError(DropReason.COMPRESSED)


#: Name in DataChannelKey.compression -> framing; None: packets as they are.
FRAMINGS: dict[str, Framing | None] = {
    "none": None,
    "comp-lzo-no": Framing(_encode_prefix, _decode_v1_untrusted),
    "stub": Framing(_encode_swap, _decode_v1_untrusted),
    "stub-v2": Framing(_encode_v2, _decode_v2_untrusted),
}


def _inflate_v1_untrusted(text: bytes, limit: int) -> bytes:
    head = text[:1]
    if head == LZO:
        return inflate_lzo_untrusted(text[1:], limit)
    if head == LZ4_SWAP:
        return inflate_lz4_untrusted(text[-1:] + text[1:-1] if len(text) > 1 else b"", limit)
    return _decode_v1_untrusted(text)


def _inflate_v2_untrusted(text: bytes, limit: int) -> bytes:
    return inflate_lz4_untrusted(text[2:], limit) if text[:2] == V2_LZ4 else _decode_v2_untrusted(text)


_INFLATING = {"comp-lzo-no": _inflate_v1_untrusted, "stub": _inflate_v1_untrusted, "stub-v2": _inflate_v2_untrusted}


def make_framing(name: str, decompress: int) -> Framing | None:
    """The framing ``name``; None: packets as they are. Packets that come compressed are decompressed to at most
    ``decompress`` bytes, and dropped if that is 0. ValueError: there is no such framing."""
    try:
        framing = FRAMINGS[name]
    except KeyError:
        raise ValueError(f"compression framing {name} is not supported") from None
    if framing is None or not decompress:
        return framing
    return Framing(framing.encode, partial(_INFLATING[name], limit=decompress))
