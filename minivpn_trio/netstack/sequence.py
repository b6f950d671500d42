"""Sequence numbers.

On the wire they have 32 bits and wrap. Inside, every position in a stream is
a plain ``int`` that never wraps: the initial sequence number plus the number
of octets since. ``unwrap`` is the only way in and ``wrap`` the only way out,
so comparisons elsewhere are ordinary comparisons.
"""

from __future__ import annotations

from typing import NewType

__all__ = ["MASK", "Position", "WireSequence", "later_timestamp", "unwrap", "wrap"]

#: A 32-bit sequence or acknowledgement number as it travels.
WireSequence = NewType("WireSequence", int)
#: A position in a stream, unwrapped.
Position = int

MASK = 0xFFFFFFFF
_HALF = 0x80000000


def wrap(position: Position) -> WireSequence:
    """The 32 bits that stand for ``position``."""
    return WireSequence(position & MASK)


def unwrap(number: int, near: Position) -> Position:
    """The position that ``number`` stands for: the one closest to ``near`` (which must not be
    farther than 2**31 away from it for the answer to be right)."""
    distance = (number - near) & MASK
    return near + distance - (distance & _HALF) * 2


def later_timestamp(value: int, than: int) -> bool:
    """Whether a 32-bit timestamp is strictly newer than another (RFC 7323, 5.2)."""
    return 0 < ((value - than) & MASK) < _HALF
