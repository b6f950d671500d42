"""Numbers that nobody off the path may guess: initial sequence numbers, ephemeral ports, timestamp offsets, IP
identifications.

RFC 6528: ISN = M + F(addresses, ports, secret), M a clock of 4 microseconds.
RFC 6056, algorithm 4, for TCP: a counter of its own for each of some buckets of
destinations, offset by a keyed hash, so that ports do not repeat soon and do
not tell one destination about another. UDP has no sequence numbers: its ports
are what an off-path answer must guess (RFC 5452), and random (algorithm 1).
RFC 7739, 5.3: identifications like TCP's ports, so that none repeats while pieces of the last one are on the way.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2s

from ..packet.ids import RandomBytes
from .packets import Address
from .sequence import MASK

__all__ = ["EPHEMERAL_PORTS", "Numbering"]

#: Dynamic ports (RFC 6335).
EPHEMERAL_PORTS = range(49152, 65536)
_BUCKETS = 64
#: How often a random port is tried before the neighbours of one are.
_THROWS = 16


class Numbering:
    """One stack's secrets."""

    def __init__(self, rng: RandomBytes) -> None:
        self._rng = rng
        self._secret = rng(32)
        self._counters = [int.from_bytes(rng(2), "big") for _ in range(_BUCKETS)]
        self._idents = [int.from_bytes(rng(4), "big") for _ in range(_BUCKETS)]

    def _hash(self, purpose: bytes, *parts: bytes) -> int:
        return int.from_bytes(blake2s(b"".join(parts), key=self._secret, person=purpose, digest_size=8).digest(), "big")

    def initial_sequence(self, key: bytes, now: float) -> int:
        """The ISN for a connection whose addresses and ports are ``key``."""
        return (int(now * 250_000) + self._hash(b"isn", key)) & MASK

    def timestamp_offset(self, key: bytes) -> int:
        """What to add to the clock for TSval (RFC 7323, 5.4): the same again for the same four-tuple."""
        return self._hash(b"ts", key) & MASK

    def port(self, local: Address, remote: Address, remote_port: int, usable: Callable[[int], bool]) -> int | None:
        """An ephemeral port that is ``usable``, or None if none is."""
        destination = remote + local + remote_port.to_bytes(2, "big")
        offset = self._hash(b"port", destination)
        bucket = self._hash(b"bucket", destination) % _BUCKETS
        for _ in EPHEMERAL_PORTS:
            self._counters[bucket] += 1
            port = EPHEMERAL_PORTS[(offset + self._counters[bucket]) % len(EPHEMERAL_PORTS)]
            if usable(port):
                return port
        return None

    def random_port(self, usable: Callable[[int], bool]) -> int | None:
        """An ephemeral port that is ``usable`` and that the ones before do not tell, or None if none is."""
        first = int.from_bytes(self._rng(2), "big") % len(EPHEMERAL_PORTS)
        for step in range(len(EPHEMERAL_PORTS)):
            # A few more throws of the dice; where most ports are taken, the next one that is free.
            if step < _THROWS:
                first = int.from_bytes(self._rng(2), "big") % len(EPHEMERAL_PORTS)
            port = EPHEMERAL_PORTS[(first + step) % len(EPHEMERAL_PORTS)]
            if usable(port):
                return port
        return None

    def identification(self, remote: Address) -> int:
        """For the fragments of a datagram to ``remote``: 32 bits, of which IPv4 takes the low 16."""
        offset = self._hash(b"ident", remote)
        bucket = offset % _BUCKETS
        self._idents[bucket] += 1
        return ((offset >> 16) + self._idents[bucket]) & MASK
