"""Packets as an attacker builds them: by struct, with valid checksums where nothing else is said, any field at all."""

from __future__ import annotations

import random
import struct

MASK = 0xFFFFFFFF
TCP = 6


def checksum(data: bytes) -> int:
    if len(data) & 1:
        data += b"\0"
    return 65535 - int.from_bytes(data, "big") % 65535


def tcp(
    src: bytes,
    dst: bytes,
    sport: int,
    dport: int,
    seq: int,
    ack: int,
    flags: int,
    window: int,
    options: bytes = b"",
    payload: bytes = b"",
    *,
    urgent: int = 0,
) -> bytes:
    """The segment alone. ``options`` longer than 40 bytes are cut off, and padded to whole words."""
    options = options[:40]
    options += bytes(-len(options) % 4)
    head = struct.pack(
        "!HHIIHHHH",
        sport, dport, seq & MASK, ack & MASK, (5 + len(options) // 4) << 12 | flags, window, 0, urgent,
    )  # fmt: skip
    pseudo = src + dst + TCP.to_bytes(4, "big") + (len(head) + len(options) + len(payload)).to_bytes(4, "big")
    total = checksum(pseudo + head + options + payload)
    return head[:16] + total.to_bytes(2, "big") + head[18:] + options + payload


def ip(
    src: bytes,
    dst: bytes,
    body: bytes,
    *,
    fragment: int = 0x4000,
    ident: int = 0,
    options: bytes = b"",
    length: int = 0,
) -> bytes:
    """``body`` in a packet of the addresses' family. ``fragment`` is IPv4's flags and offset, ``length`` a lie."""
    if len(src) == 16:
        return struct.pack("!IHBB", 6 << 28, length or len(body), TCP, 64) + src + dst + body
    words = 5 + len(options) // 4
    head = struct.pack(
        "!BBHHHBBH4s4s", 0x40 | words, 0, length or words * 4 + len(body), ident, fragment, 64, TCP, 0, src, dst
    )
    head += options
    return head[:10] + checksum(head).to_bytes(2, "big") + head[12:] + body


def timestamps(value: int, echo: int) -> bytes:
    return struct.pack("!III", 0x0101080A, value & MASK, echo & MASK)


def sack(blocks: list[tuple[int, int]]) -> bytes:
    """As many as there are, even too many."""
    flat = [edge & MASK for block in blocks for edge in block]
    return struct.pack(f"!BBBB{len(flat)}I", 1, 1, 5, (2 + 4 * len(flat)) & 0xFF, *flat)


def fragments(rng: random.Random, src: bytes, dst: bytes, body: bytes) -> list[bytes]:
    """Pieces that lie: overlapping, beyond the end, rarely complete."""
    pieces = []
    for _ in range(rng.randrange(1, 4)):
        offset, ident = rng.choice([0, 1, 2, rng.randrange(8191)]), rng.choice([1, 2, rng.getrandbits(32)])
        more = rng.random() < 0.7
        part = body[: rng.choice([8, 16, 24, 400])]
        if len(src) == 16:
            head = struct.pack("!BBHI", TCP, 0, offset << 3 | more, ident)
            pieces.append(struct.pack("!IHBB", 6 << 28, len(head) + len(part), 44, 64) + src + dst + head + part)
        else:
            pieces.append(ip(src, dst, part, fragment=offset | more << 13, ident=ident & 0xFFFF))
    return pieces


def extended(rng: random.Random, src: bytes, dst: bytes, body: bytes) -> bytes:
    """IPv6 extension headers, or IPv4 options, before ``body``; some of them wrong."""
    if len(src) == 4:
        return ip(src, dst, body, options=rng.choice([bytes(4), b"\1\1\1\0", b"\7\x07\4" + bytes(5), rng.randbytes(8)]))
    kinds = [rng.choice([0, 43, 60]) for _ in range(rng.randrange(1, 4))]
    chain = b""
    for following in [*kinds[1:], TCP]:
        chain += bytes((following, 0)) + rng.choice([b"\1\4" + bytes(4), bytes(6), rng.randbytes(6)])
    return struct.pack("!IHBB", 6 << 28, len(chain) + len(body), kinds[0], 64) + src + dst + chain + body


def mutated(rng: random.Random, packet: bytes, *, repair: bool) -> bytes:
    """A few bytes changed; ``repair``: the checksums fit afterwards, where the packet is still one of TCP."""
    changed = bytearray(packet)
    for _ in range(rng.choice([1, 1, 2, 4])):
        changed[rng.randrange(len(changed))] = rng.choice([0, 0xFF, 0x80, rng.randrange(256)])
    if rng.random() < 0.1:
        del changed[rng.randrange(len(changed)) :]
    if repair:
        if len(changed) >= 40 and changed[0] == 0x45:
            changed[10:12] = bytes(2)
            changed[10:12] = checksum(bytes(changed[:20])).to_bytes(2, "big")
            at, pseudo = 20, bytes(changed[12:20])
        elif len(changed) >= 60 and changed[0] >> 4 == 6:
            at, pseudo = 40, bytes(changed[8:40])
        else:
            return bytes(changed)
        changed[at + 16 : at + 18] = bytes(2)
        pseudo += TCP.to_bytes(4, "big") + (len(changed) - at).to_bytes(4, "big")
        changed[at + 16 : at + 18] = checksum(pseudo + bytes(changed[at:])).to_bytes(2, "big")
    return bytes(changed)
