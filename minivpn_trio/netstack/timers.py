"""One heap of deadlines for all connections.

Lazy: a deadline that moves later, as the retransmission timer does with each
acknowledgement, leaves its entry where it is; when the entry comes up, it is
put back at the right time. So only deadlines that move earlier cost a push.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from itertools import count
from math import inf
from typing import Generic, Protocol, TypeVar

__all__ = ["Timed", "TimerHeap"]


class Timed(Protocol):
    """Something with a timer."""

    #: When its timeout is due; inf: never.
    deadline: float
    #: The earliest entry for it in the heap; inf: none. The heap's own.
    scheduled: float


T = TypeVar("T", bound=Timed)


class TimerHeap(Generic[T]):
    """Every ``deadline`` is covered by an entry no later than it. Times are seconds."""

    def __init__(self) -> None:
        self._entries: list[tuple[float, int, T]] = []
        self._order = count()
        self._retired = 0

    def __len__(self) -> int:
        return len(self._entries)

    def arm(self, item: T) -> bool:
        """``item.deadline`` may have moved. True: ``next_timeout`` moved earlier."""
        deadline = item.deadline
        if deadline >= item.scheduled:
            return False
        earliest = self._entries[0][0] if self._entries else inf
        item.scheduled = deadline
        heappush(self._entries, (deadline, next(self._order), item))
        return deadline < earliest

    def next_timeout(self) -> float:
        """When to look again; inf: not before something is armed. May be earlier than any deadline."""
        return self._entries[0][0] if self._entries else inf

    def take_due(self, now: float) -> list[T]:
        """Everything whose deadline has passed, each once. Their deadlines must move, or they are due for ever."""
        due: list[T] = []
        entries = self._entries
        while entries and entries[0][0] <= now:
            time, _, item = heappop(entries)
            if time != item.scheduled:
                # An earlier entry took its place.
                continue
            item.scheduled = inf
            if item.deadline <= now:
                due.append(item)
            else:
                self.arm(item)
        return due

    def retire(self, item: T) -> None:
        """``item`` will not be armed again: let go of it, at the latest when half of the heap is like it."""
        if item.scheduled == inf:
            return
        item.scheduled = item.deadline = inf
        self._retired += 1
        if self._retired * 2 > len(self._entries):
            self._entries = [entry for entry in self._entries if entry[0] == entry[2].scheduled]
            heapify(self._entries)
            self._retired = 0
