"""Compression framings: how a packet says that it is not compressed.

Nothing is ever compressed here, and nothing compressed is accepted: traffic
that shares a compression context with an attacker's bytes leaks (VORACLE), and
decompressors eat memory at a peer's will. But peers that were configured for
compression put a byte before, or in place of, a packet's first one, and expect
ours to have it too (reference: comp.h, compstub.c)::

    none           packet
    comp-lzo-no    FA packet
    stub           FB packet[1:] packet[0]
    stub-v2        packet, or 50 00 packet if it begins with 50

The two framings with one byte are told apart by it, so both are accepted where
either was agreed on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..errors import DropReason, ProtocolError

__all__ = ["FRAMINGS", "Framing"]

Buffer = bytes | bytearray | memoryview

NO_COMPRESS = b"\xfa"
NO_COMPRESS_SWAP = b"\xfb"
#: LZO, LZ4 and Snappy, plain and with the first byte swapped.
COMPRESSED = frozenset(b"\x66\x67\x68\x69\x6a")
V2_INDICATOR = b"\x50"
V2_UNCOMPRESSED = b"\x50\x00"


@dataclass(frozen=True, slots=True)
class Framing:
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
