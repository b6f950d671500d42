"""The sums of 16-bit words under the checksums of a burst (RFC 1071), all at once.

A big-endian number is congruent to the sum of its words modulo 65535, as 2**16 is 1. So Python's integers do it, at
1.4 to 2.4 us for a payload of 1,388 octets, nearly all of it spent in making the integer. Where numpy is installed
(the extra ``fast``) a burst takes a tenth of that. The dialer loads it in a thread when the tunnel is up, as its
import takes a while.

numpy adds little-endian words of 32 bits: their sum is congruent to that of the 16-bit words with their octets
swapped, and swapping octets is a multiplication by 256.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import Any

__all__ = ["hold", "is_loaded", "load", "totals", "use"]

_numpy: Any = None
_tried = False
#: For fewer the calls of numpy cost more than they save.
_FEW = 4
#: What numpy has to add up as integers do before it is trusted.
_SAMPLE = [bytes(range(number, number + 99)) for number in range(8)]


def load() -> None:
    """Use numpy from now on if it is installed and works. Imports it: a tenth of a second, for a thread."""
    global _tried  # noqa: PLW0603 - one for the process, like the import
    _tried = True
    try:
        import numpy

        # Before anybody else adds with it: this is another thread than theirs.
        sums = [number * 256 % 65535 for number in _words(numpy, _SAMPLE, _size(_SAMPLE)).tolist()]
        lengths = numpy.fromiter(map(len, _SAMPLE), numpy.uint64, len(_SAMPLE)).tolist()
    except Exception:  # RuntimeError where the processor lacks what it was built for, whatever a broken one raises
        return
    if sums == [number % 65535 for number in _totals(_SAMPLE)] and lengths == [len(piece) for piece in _SAMPLE]:
        use(numpy)


def is_loaded() -> bool:
    """Whether ``load`` has nothing more to do."""
    return _tried


def use(numpy: ModuleType | None) -> ModuleType | None:
    """Add with ``numpy``, or with Python's integers if it is None. Returns what was used before."""
    global _numpy  # noqa: PLW0603 - one for the process, like the import
    before: ModuleType | None = _numpy
    _numpy = numpy
    return before


def totals(pieces: Sequence[bytes]) -> list[int]:
    """For each piece, padded to an even length, a number congruent modulo 65535 to the sum of its words."""
    numpy = _numpy
    if numpy is not None and (size := _size(pieces)):
        sums: list[int] = (_words(numpy, pieces, size) * 256).tolist()
        return sums
    return _totals(pieces)


def hold(pieces: Sequence[bytes], constant: int) -> bool | None:
    """Whether ``constant`` and the length are to the words of each piece what makes 0. None: there is no short way to
    tell."""
    numpy = _numpy
    if numpy is None or not (size := _size(pieces)):
        return None
    lengths = numpy.fromiter(map(len, pieces), numpy.uint64, len(pieces))
    return not ((_words(numpy, pieces, size) * 256 + lengths + constant % 65535) % 65535).any()


def _size(pieces: Sequence[bytes]) -> int:
    """What to fill all of them up to, octets, a multiple of four; 0: they are few, or that would be mostly zeros."""
    count = len(pieces)
    if count <= _FEW:
        return 0
    lengths = list(map(len, pieces))
    size = max(lengths)
    return size + 3 & ~3 if size * count <= 2 * sum(lengths) else 0


def _words(numpy: Any, pieces: Sequence[bytes], size: int) -> Any:
    """The sum of the little-endian words of 32 bits of each, filled up with zeros, which is also what RFC 1071 asks for
    where a length is odd."""
    octets = b"".join(pieces)
    if len(octets) != size * len(pieces):
        octets = b"".join([piece.ljust(size, b"\0") for piece in pieces])
    return numpy.frombuffer(octets, "<u4").reshape(len(pieces), -1).sum(axis=1, dtype=numpy.uint64)


def _totals(pieces: Sequence[bytes]) -> list[int]:
    sums: list[int] = []
    append, number_of = sums.append, int.from_bytes
    size_before, half, quarter, low_half, low_quarter = -1, 0, 0, 0, 0
    for piece in pieces:
        size = len(piece)
        if size != size_before:
            size_before = size
            # Adding is cheaper than dividing: fold, at multiples of 16 bits, and leave the rest to be divided.
            half = (size * 8 + 31) >> 5 << 4
            quarter = (half + 31) >> 5 << 4
            low_half, low_quarter = (1 << half) - 1, (1 << quarter) - 1
        number = number_of(piece)
        if size & 1:
            number <<= 8
        number = (number >> half) + (number & low_half)
        append(((number >> quarter) + (number & low_quarter)) % 65535)
    return sums
