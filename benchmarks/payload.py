"""What a measured transfer carries, and whether it came: outside the clock, for ours and for the C client alike.

Downloads are the pattern that the laboratory's web server sends, uploads the same pattern, over and over. Each byte
of it depends on its position, so a lost, doubled or moved piece shows. What arrives is kept and compared when the
clock has stopped; uploads are kept by the sink, which tells their count first and their CRC-32 when it is asked.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable
from functools import lru_cache

__all__ = [
    "HTTP_PORT", "KEEP_PORT", "PATTERN", "QUESTION", "READ", "Corrupted", "Memory",
    "body_start", "check_body", "check_crc", "piece_at", "request", "upload_head",
]  # fmt: skip

#: The laboratory's services (tests/interop/lab/services.py).
HTTP_PORT, KEEP_PORT = 80, 22
#: As services.PATTERN: a prime number of words, so that no power of two is a multiple of its length.
PATTERN = struct.pack(">65521I", *range(65_521))
_TWICE = PATTERN * 2
_VIEW = memoryview(_TWICE)
#: The most bytes asked for at once.
READ = 1 << 18
#: What asks the sink for the CRC-32.
QUESTION = b"?"


class Corrupted(Exception):
    """Other bytes arrived than were sent."""


class Memory:
    """Where downloads are kept until they are compared: taken before the clock runs, given back after, and used again.
    Fresh memory would cost page faults, half a second for a gigabyte, in the midst of what is timed."""

    def __init__(self) -> None:
        self._unused: list[bytearray] = []

    def take(self, size: int) -> bytearray:
        """``size`` bytes, of what was given back if that has the size."""
        while self._unused:
            memory = self._unused.pop()
            if len(memory) == size:
                return memory
        return bytearray(size)

    def give_back(self, memory: bytearray) -> None:
        """For the next download."""
        if memory:
            self._unused.append(memory)


def request(host: str, size: int) -> bytes:
    """A GET of ``size`` bytes."""
    return f"GET /bytes/{size} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode()


def body_start(head: bytes) -> int:
    """Where the body begins in the first bytes of a response; -1: further on."""
    end = head.find(b"\r\n\r\n")
    return -1 if end < 0 else end + 4


def upload_head(size: int) -> bytes:
    """What precedes an upload of ``size`` bytes."""
    return size.to_bytes(8, "big")


def piece_at(position: int, most: int) -> memoryview:
    """What is sent from ``position`` on: a pattern's length of it, or ``most`` bytes. Nothing is copied."""
    start = position % len(PATTERN)
    return _VIEW[start : start + min(most, len(PATTERN))]


def check_body(chunks: Iterable[bytes | bytearray | memoryview], size: int) -> None:
    """``chunks``, one behind the other, are the first ``size`` bytes of the pattern for ever; else Corrupted."""
    position = 0
    for chunk in chunks:
        view = memoryview(chunk)
        for start in range(0, len(view), len(PATTERN)):
            piece = bytes(view[start : start + len(PATTERN)])
            at = position % len(PATTERN)
            wanted = _TWICE[at : at + len(piece)]
            if piece != wanted:
                n = next(n for n, pair in enumerate(zip(piece, wanted, strict=True)) if pair[0] != pair[1])
                raise Corrupted(f"byte {position + n} of a download is {piece[n]:#04x}, not {wanted[n]:#04x}")
            position += len(piece)
    if position != size:
        raise Corrupted(f"{position} bytes of a download of {size} are here")


@lru_cache(8)
def crc(size: int) -> int:
    """CRC-32 of the first ``size`` bytes of the pattern for ever."""
    whole, rest = divmod(size, len(PATTERN))
    value = 0
    for _ in range(whole):
        value = zlib.crc32(PATTERN, value)
    return zlib.crc32(PATTERN[:rest], value)


def check_crc(answer: bytes, size: int) -> None:
    """``answer`` is what the sink says of an upload of ``size`` bytes; Corrupted when it is not what it should say."""
    wanted = b"%08x\n" % crc(size)
    if answer != wanted:
        raise Corrupted(f"of an upload of {size} bytes the sink says {answer!r}, not {wanted!r}")
