"""What names meant lately: a small cache that keeps answers no longer than their time to live.

Sans-IO, bounded; when it is full, the oldest entry goes. Times are seconds of one monotonic clock.

Sources: RFC 1035 (3.2.1), RFC 2181 (8), RFC 2308 (negative answers), RFC 8767 (which caps to choose).
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

__all__ = ["NameCache"]

T = TypeVar("T")


class NameCache(Generic[T]):
    """Answers by question."""

    def __init__(self, *, most: int = 512, longest: float = 3600.0) -> None:
        self._most = most
        self._longest = longest
        self._entries: dict[Hashable, tuple[T, float]] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, question: Hashable, now: float) -> T | None:
        """The answer to ``question``, or None if there is none any more."""
        entry = self._entries.get(question)
        if entry is None:
            return None
        if entry[1] <= now:
            del self._entries[question]
            return None
        return entry[0]

    def put(self, question: Hashable, answer: T, ttl: float, now: float) -> None:
        """Keep ``answer`` for ``ttl`` seconds, an hour at most; 0 and less: not at all."""
        self._entries.pop(question, None)
        if ttl <= 0:
            return
        if len(self._entries) >= self._most:
            del self._entries[next(iter(self._entries))]
        self._entries[question] = (answer, now + min(ttl, self._longest))

    def clear(self) -> None:
        """Forget everything: there are other servers now."""
        self._entries.clear()
