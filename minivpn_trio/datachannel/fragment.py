"""The ``fragment`` option: packets too long for the path go in several datagrams.

Where both sides configured it, each plaintext begins with 32 bits, big-endian
(reference: fragment.h)::

    bits 0-1     WHOLE 0, NOT_LAST 1, LAST 2
    bits 2-9     sequence number of the packet, of 256
    bits 10-14   number of this fragment, of 32
    bits 15-28   LAST only: size of the fragments before it, in units of 4 bytes

All fragments of a packet but the last have one size, so each knows its place
by its number.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ..errors import DropReason, ProtocolError

__all__ = [
    "FRAGMENT_TTL",
    "HEADER_SIZE",
    "MAX_FRAGMENTS",
    "MAX_PACKET",
    "MAX_PARTIAL",
    "FragmentHeader",
    "Fragmenter",
    "Reassembler",
    "parse_fragment_header_untrusted",
]

Buffer = bytes | bytearray | memoryview

WHOLE, NOT_LAST, LAST = range(3)

HEADER_SIZE = 4
MAX_FRAGMENTS = 32
#: Packets in reassembly at a time; older ones are given up.
MAX_PARTIAL = 25
#: Seconds without a new fragment after which a packet is given up.
FRAGMENT_TTL = 10.0
#: Longest packet that is put together, bytes: the longest that IP knows.
MAX_PACKET = 65_535

SEQUENCES = 256
#: Fragment sizes are multiples of this.
UNIT = 4
WHOLE_HEADER = bytes(HEADER_SIZE)


class FragmentHeader(NamedTuple):
    """The 32 bits, taken apart. ``size`` in bytes, 0 unless ``kind`` is LAST."""

    kind: int
    sequence: int
    number: int
    size: int

    def serialize(self) -> bytes:
        """The 4 bytes on the wire."""
        bits = self.kind | self.sequence << 2 | self.number << 10 | (self.size // UNIT) << 15
        return bits.to_bytes(HEADER_SIZE, "big")


def parse_fragment_header_untrusted(text: bytes) -> FragmentHeader:
    """The header at the start of ``text``. Raises ProtocolError."""
    if len(text) < HEADER_SIZE:
        raise ProtocolError(DropReason.TOO_SHORT, "no fragment header")
    bits = int.from_bytes(text[:HEADER_SIZE], "big")
    kind = bits & 3
    sequence = bits >> 2 & 0xFF
    number = bits >> 10 & 0x1F
    if kind > LAST:
        raise ProtocolError(DropReason.FRAGMENT, "unknown kind")
    if kind == WHOLE and (sequence or number):
        raise ProtocolError(DropReason.FRAGMENT, "a whole packet with a fragment's numbers")
    return FragmentHeader(kind, sequence, number, (bits >> 15 & 0x3FFF) * UNIT if kind == LAST else 0)


class Fragmenter:
    """Puts fragment headers on packets and splits the long ones.

    ``first_sequence`` should be random, so that the packets of two connections do not mix.
    """

    __slots__ = ("_sequence",)

    def __init__(self, first_sequence: int = 0) -> None:
        self._sequence = first_sequence % SEQUENCES

    def split(self, packet: Buffer, limit: int) -> list[bytes]:
        """``packet`` as plaintexts of at most ``limit`` bytes each, header included.

        ProtocolError (TOO_LONG): it would take more than 32. ``limit`` is at least 8.
        """
        length = len(packet)
        if length <= limit - HEADER_SIZE:
            return [WHOLE_HEADER + packet]
        largest = limit - HEADER_SIZE
        largest -= largest % UNIT
        count = -(-length // largest)
        if count > MAX_FRAGMENTS:
            raise ProtocolError(DropReason.TOO_LONG, "too many fragments")
        # As many as needed, but of even sizes: a tiny last one costs as much to send as a full one.
        size = -(-length // count)
        size += -size % UNIT
        self._sequence = (self._sequence + 1) % SEQUENCES
        pieces = []
        for number in range(count):
            last = number == count - 1
            header = FragmentHeader(LAST if last else NOT_LAST, self._sequence, number, size if last else 0)
            pieces.append(header.serialize() + packet[number * size : (number + 1) * size])
        return pieces


class _Partial:
    """A packet that is being put together."""

    __slots__ = ("deadline", "last", "pieces", "size")

    def __init__(self, size: int) -> None:
        self.size = size
        self.pieces: dict[int, bytes] = {}
        self.last: int | None = None
        self.deadline = 0.0


class Reassembler:
    """Puts fragments together, in whatever order they arrive.

    Bounded: at most 25 packets of at most 65535 bytes. Only authenticated
    fragments get here, so what is kept is the peer's, not an attacker's.
    """

    __slots__ = ("_newest", "_partials", "given_up")

    def __init__(self) -> None:
        self._partials: dict[int, _Partial] = {}
        # The newest number seen; before the first fragment, which may have any, there is none.
        self._newest: int | None = None
        #: Packets of which not all fragments came in time.
        self.given_up: int = 0

    def __len__(self) -> int:
        return len(self._partials)

    def join_untrusted(self, text: bytes, now: float) -> bytes | None:
        """The packet that the fragment ``text`` is or completes; None while pieces are missing.

        Raises ProtocolError for a fragment that cannot be, or belongs to a packet given up.
        """
        if text[:HEADER_SIZE] == WHOLE_HEADER:
            return text[HEADER_SIZE:]
        header = parse_fragment_header_untrusted(text)
        payload = text[HEADER_SIZE:]
        if header.kind == WHOLE:
            return payload
        size = header.size if header.kind == LAST else len(payload)
        if not payload or not size or size % UNIT or len(payload) > size:
            raise ProtocolError(DropReason.FRAGMENT, "impossible size")
        if header.number * size + len(payload) > MAX_PACKET:
            raise ProtocolError(DropReason.TOO_LONG, "reassembled packet too long")
        partial = self._partial(header.sequence, size)
        partial.deadline = now + FRAGMENT_TTL
        if header.kind == LAST:
            partial.last = header.number
        partial.pieces[header.number] = payload
        return self._finish(header.sequence, partial)

    def _partial(self, sequence: int, size: int) -> _Partial:
        """The packet ``sequence`` with fragments of ``size``; a different size means a new packet
        under an old number."""
        newest = sequence if self._newest is None else self._newest
        ahead = (sequence - newest + SEQUENCES // 2) % SEQUENCES - SEQUENCES // 2
        if abs(ahead) >= MAX_PARTIAL:
            # Either very late or a peer that started over: there is no telling, so start over too.
            self._give_up(list(self._partials))
            self._newest = sequence
        elif ahead > 0 or self._newest is None:
            self._newest = sequence
            self._give_up([old for old in self._partials if (sequence - old) % SEQUENCES >= MAX_PARTIAL])
        partial = self._partials.get(sequence)
        if partial is not None and partial.size != size:
            self._give_up([sequence])
            partial = None
        if partial is None:
            partial = self._partials[sequence] = _Partial(size)
        return partial

    def _finish(self, sequence: int, partial: _Partial) -> bytes | None:
        last = partial.last
        if last is None or len(partial.pieces) <= last:
            return None
        numbers = range(last + 1)
        if any(number not in partial.pieces for number in numbers):
            # A fragment beyond the last one: two packets under one number. Wait for the rest or the end.
            return None
        del self._partials[sequence]
        return b"".join([partial.pieces[number] for number in numbers])

    def next_timeout(self) -> float | None:
        """When the oldest unfinished packet is given up."""
        return min((partial.deadline for partial in self._partials.values()), default=None)

    def handle_timeout(self, now: float) -> None:
        """Give up what waited too long."""
        self._give_up([number for number, partial in self._partials.items() if partial.deadline <= now])

    def _give_up(self, sequences: Sequence[int]) -> None:
        for sequence in sequences:
            del self._partials[sequence]
        self.given_up += len(sequences)
