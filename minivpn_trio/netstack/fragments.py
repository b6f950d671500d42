"""Reassembly of fragmented IP datagrams, in bounded memory; and the making of fragments.

Whoever can send fragments can ask us to keep them, so every quantity has a
cap: how long a datagram may take (30 s), how many pieces it may have, how
many datagrams are being assembled, and how many bytes they hold together.
When a total would be exceeded, the oldest unfinished datagram goes.

Two pieces that overlap never mean well (RFC 5722): the whole datagram is
dropped, with the pieces of it that are still to come. An exact duplicate is
the network's doing and is ignored.

Sources: RFC 791 (3.2), RFC 8200 (4.5), RFC 5722, RFC 6946.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, deque
from struct import Struct

from ..errors import DropReason
from .packets import Address, Fragment, IpPayload

__all__ = ["FragmentTable", "split"]

_Key = tuple[Address, Address, int, int]

#: What one kept piece costs besides its bytes: objects, list entries.
_PIECE_OVERHEAD = 200

_U16 = Struct("!H")
_IPV6_FRAGMENT = Struct("!BxHI")
_FRAGMENT_PROTOCOL = 44
_MORE = 0x2000


class _Assembly:
    """The pieces of one datagram so far, sorted and without overlap."""

    __slots__ = ("cost", "end", "first_seen", "have", "offsets", "pieces", "poisoned", "protocol")

    def __init__(self, first_seen: float) -> None:
        self.first_seen = first_seen
        self.offsets: list[int] = []
        self.pieces: list[bytes] = []
        #: Payload bytes so far, and what they are charged as.
        self.have = 0
        self.cost = _PIECE_OVERHEAD
        #: Length of the datagram's payload, once the last piece said so.
        self.end: int | None = None
        self.protocol = 0
        #: Pieces of this datagram contradicted each other: all that still come are dropped.
        self.poisoned = False

    def poison(self) -> None:
        self.poisoned = True
        self.offsets.clear()
        self.pieces.clear()
        self.have, self.cost = 0, _PIECE_OVERHEAD

    def add(self, fragment: Fragment) -> bool:
        """Keep ``fragment``; False if it contradicts what is known."""
        start, end = fragment.offset, fragment.offset + len(fragment.payload)
        if not fragment.more:
            if self.end is not None and self.end != end:
                return False
            if self.offsets and self.offsets[-1] + len(self.pieces[-1]) > end:
                return False
            self.end = end
        elif self.end is not None and end > self.end:
            return False
        at = bisect_left(self.offsets, start)
        if at < len(self.offsets) and self.offsets[at] < end:
            # Overlap, unless it is the same piece again.
            return self.offsets[at] == start and self.pieces[at] == fragment.payload
        if at and self.offsets[at - 1] + len(self.pieces[at - 1]) > start:
            return False
        self.offsets.insert(at, start)
        self.pieces.insert(at, bytes(fragment.payload))
        self.have += end - start
        self.cost += end - start + _PIECE_OVERHEAD
        if start == 0:
            self.protocol = fragment.protocol
        return True


class FragmentTable:
    """All datagrams that are being assembled.

    ``timeout`` is in seconds from a datagram's first piece. Drops are counted
    in ``drops``: FRAGMENT for contradictions and datagrams that never became
    whole, LIMIT for what a cap pushed out.
    """

    def __init__(
        self,
        *,
        timeout: float = 30.0,
        max_datagrams: int = 256,
        max_pieces: int = 128,
        max_bytes: int = 1 << 20,
    ) -> None:
        self.timeout = timeout
        self.max_datagrams = max_datagrams
        self.max_pieces = max_pieces
        self.max_bytes = max_bytes
        self.drops: Counter[DropReason] = Counter()
        #: Bytes charged at present; never more than ``max_bytes``.
        self.cost: int = 0
        #: The beginnings of datagrams whose rest did not come in time, to be told to their senders.
        self.expired: deque[Fragment] = deque(maxlen=64)
        # In order of first_seen, since entries are only appended.
        self._assemblies: dict[_Key, _Assembly] = {}

    def __len__(self) -> int:
        return len(self._assemblies)

    def handle_fragment(self, fragment: Fragment, now: float) -> IpPayload | None:
        """Take a piece; the whole datagram's payload if that was the last one missing."""
        self.handle_timeout(now)
        # IPv6 pieces may differ in their next header; the first one's counts (RFC 8200, 4.5).
        protocol = fragment.protocol if len(fragment.src) == 4 else 0
        key = (fragment.src, fragment.dst, protocol, fragment.ident)
        assembly = self._assemblies.get(key)
        if assembly is None:
            if len(self._assemblies) >= self.max_datagrams:
                self._drop(next(iter(self._assemblies)), DropReason.LIMIT)
            assembly = self._assemblies[key] = _Assembly(now)
            self.cost += assembly.cost
        if assembly.poisoned:
            self.drops[DropReason.FRAGMENT] += 1
            return None
        before = assembly.cost
        consistent = assembly.add(fragment)
        if not consistent or len(assembly.pieces) > self.max_pieces:
            assembly.poison()
            self.drops[DropReason.LIMIT if consistent else DropReason.FRAGMENT] += 1
        self.cost += assembly.cost - before
        while self.cost > self.max_bytes:
            oldest = next(iter(self._assemblies))
            self._drop(oldest, DropReason.LIMIT)
            if oldest == key:
                return None
        if assembly.have != assembly.end:
            return None
        self._forget(key)
        return IpPayload(fragment.src, fragment.dst, assembly.protocol, b"".join(assembly.pieces))

    def next_timeout(self) -> float | None:
        """When the oldest unfinished datagram is given up; None if there is none."""
        oldest = next(iter(self._assemblies.values()), None)
        return None if oldest is None else oldest.first_seen + self.timeout

    def handle_timeout(self, now: float) -> None:
        """Give up the datagrams whose time is over."""
        while self._assemblies:
            key, assembly = next(iter(self._assemblies.items()))
            if assembly.first_seen + self.timeout > now:
                return
            if assembly.poisoned:
                self._forget(key)
            else:
                if assembly.offsets[0] == 0:
                    src, dst, _, ident = key
                    self.expired.append(Fragment(src, dst, assembly.protocol, ident, 0, True, assembly.pieces[0]))
                self._drop(key, DropReason.FRAGMENT)

    def _forget(self, key: _Key) -> None:
        self.cost -= self._assemblies.pop(key).cost

    def _drop(self, key: _Key, reason: DropReason) -> None:
        self._forget(key)
        self.drops[reason] += 1


def split(packet: bytes, mtu: int, ident: int) -> list[bytes]:
    """``packet``, an IPv4 packet without options or an IPv6 packet without extension headers, as fragments of
    at most ``mtu`` bytes (at least 68). ``ident`` has 16 or 32 bits."""
    if packet[0] >> 4 == 4:
        size = (mtu - 20) & ~7
        pieces = []
        for at in range(0, len(packet) - 20, size):
            payload = packet[20 + at : 20 + at + size]
            flags = at // 8 | (_MORE if 20 + at + size < len(packet) else 0)
            head = packet[:2] + b"".join(map(_U16.pack, (20 + len(payload), ident & 0xFFFF, flags))) + packet[8:10]
            checksum = -int.from_bytes(head + b"\0\0" + packet[12:20], "big") % 65535
            pieces.append(head + _U16.pack(checksum) + packet[12:20] + payload)
        return pieces
    size = (mtu - 48) & ~7
    pieces = []
    for at in range(0, len(packet) - 40, size):
        payload = packet[40 + at : 40 + at + size]
        more = 40 + at + size < len(packet)
        head = packet[:4] + _U16.pack(8 + len(payload)) + bytes((_FRAGMENT_PROTOCOL,)) + packet[7:40]
        pieces.append(head + _IPV6_FRAGMENT.pack(packet[6], at | more, ident & 0xFFFFFFFF) + payload)
    return pieces
