"""Data packets that overtook their key.

A peer may send with a new key as soon as it has made it. Its packets take the
short way through us, the last words of the key exchange the long one, or they
are lost and repeated: so for a moment there are packets that only the next key
will open. They wait here, a few and not for long, since nobody knows yet
whether they are the peer's at all.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["MAX_EARLY_PACKETS", "MAX_EARLY_SIZE", "MAX_EARLY_TIME", "EarlyPackets"]

MAX_EARLY_PACKETS = 256
#: Bytes of them all.
MAX_EARLY_SIZE = 512 * 1024
#: Seconds after the first of them; a key exchange that takes longer has lost packets and is repeated anyhow.
MAX_EARLY_TIME = 3.0


class EarlyPackets:
    """What came for one key that is not there yet. They all begin with the byte ``first``."""

    __slots__ = ("_packets", "_since", "_size", "first")

    def __init__(self) -> None:
        self._packets: list[bytes] = []
        self._size = 0
        self._since = 0.0
        self.first: bytes = b""

    def __len__(self) -> int:
        return len(self._packets)

    def hold(self, first: bytes, packets: Sequence[bytes], now: float) -> int:
        """Keep ``packets``, as many as there is room for; how many were dropped, or dropped for them."""
        dropped = 0
        if first != self.first or now - self._since > MAX_EARLY_TIME:
            dropped = len(self.take())
            self.first, self._since = first, now
        room = MAX_EARLY_PACKETS - len(self._packets)
        for packet in packets[:room]:
            if self._size + len(packet) > MAX_EARLY_SIZE:
                break
            self._packets.append(packet)
            self._size += len(packet)
            dropped -= 1
        return dropped + len(packets)

    def is_stale(self, now: float) -> bool:
        """Whether they waited too long."""
        return bool(self._packets) and now - self._since > MAX_EARLY_TIME

    def take(self) -> list[bytes]:
        """All of them, in the order in which they came."""
        taken, self._packets, self._size = self._packets, [], 0
        return taken
