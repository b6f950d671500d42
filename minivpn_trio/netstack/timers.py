"""One heap of deadlines for all connections.

Lazy: a deadline that moves later, as the retransmission timer does with each
acknowledgement, leaves its entry where it is; when the entry comes up, it is
put back at the right time. So only deadlines that move earlier cost a push, and
leave an entry behind that counts for nothing. Those go at the latest when half of the heap is such.
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
        #: Entries that no item goes by any more.
        self._stale = 0

    def __len__(self) -> int:
        return len(self._entries)

    def arm(self, item: T) -> bool:
        """``item.deadline`` may have moved. True: ``next_timeout`` moved earlier."""
        deadline = item.deadline
        if deadline >= item.scheduled:
            return False
        earliest = self._entries[0][0] if self._entries else inf
        self._forget(item)
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
                self._stale -= 1
                continue
            item.scheduled = inf
            if item.deadline <= now:
                due.append(item)
            else:
                self.arm(item)
        return due

    def retire(self, item: T) -> None:
        """``item`` will not be armed again: let go of it."""
        item.deadline = inf
        self._forget(item)

    def _forget(self, item: T) -> None:
        """``item`` no longer goes by the entry that it has, if any."""
        if item.scheduled == inf:
            return
        item.scheduled = inf
        self._stale += 1
        if self._stale * 2 > len(self._entries):
            # An item may have two entries for one time, of which it went by the later one.
            current = {id(entry[2]): entry for entry in self._entries if entry[0] == entry[2].scheduled}
            self._entries[:] = current.values()
            heapify(self._entries)
            self._stale = 0
