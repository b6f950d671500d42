"""What came over the network or out of a file, made fit for a terminal."""

from __future__ import annotations

__all__ = ["printable"]


def printable(text: str) -> str:
    """``text`` without what would move a terminal's cursor, change its colours or turn the direction of writing."""
    return "".join(char if char.isprintable() else "?" for char in text)
