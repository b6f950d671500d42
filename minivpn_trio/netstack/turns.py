"""Whose turn it is to put data into a stack's output queue, when the way out is slower than those who send.

Each turn is worth one train of segments, or a like number of datagrams;
whoever wants more goes to the end of the line (round robin, as fair queueing
in a router, RFC 8290, but between connections and by trains). Those with
little to say, a request beside uploads, have a line of their own, which is
served first, as long as the room left is more than what the others are due;
where there is less room, they have so many turns in a row for one of the others.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

__all__ = ["Turns", "Waiter"]


class Waiter(Protocol):
    """A connection or an endpoint with something to send."""

    def flush(self, now: float) -> None:
        """It is your turn: send."""
        ...


class Turns:
    """Two lines of those who wait. Who waits is in one of them, once."""

    __slots__ = ("_few", "_many", "_served", "few_in_a_row")

    def __init__(self) -> None:
        self._few: dict[Waiter, None] = {}
        self._many: dict[Waiter, None] = {}
        self._served: Waiter | None = None
        #: How many turns of those with few segments there were since the last one of the others.
        self.few_in_a_row: int = 0

    def __len__(self) -> int:
        return len(self._few) + len(self._many)

    def join(self, waiter: Waiter, few: bool) -> None:
        """Wait at the end of the line, of those with ``few`` segments to send or of the others. Whoever waits keeps
        his place."""
        if waiter not in self._many and waiter not in self._few:
            (self._few if few else self._many)[waiter] = None

    def take(self, waiter: Waiter) -> bool:
        """Whether it is ``waiter``'s turn: true once a turn."""
        if self._served is not waiter:
            return False
        self._served = None
        return True

    def serving(self, waiter: Waiter) -> bool:
        """Whether it is ``waiter``'s turn, which goes on."""
        return self._served is waiter

    def serve(self, now: float, few: bool, flush: Callable[[Waiter, float], None]) -> None:
        """Let the first in line send, by ``flush``: of the line of the ``few`` if so and if there is one."""
        line = self._few if self._few and (few or not self._many) else self._many
        self.few_in_a_row = self.few_in_a_row + 1 if line is self._few else 0
        waiter = next(iter(line))
        del line[waiter]
        self._served = waiter
        flush(waiter, now)
        self._served = None

    def leave(self, waiter: Waiter) -> None:
        """Wait no longer."""
        self._few.pop(waiter, None)
        self._many.pop(waiter, None)

    def clear(self) -> None:
        """Send everybody away."""
        self._few.clear()
        self._many.clear()
