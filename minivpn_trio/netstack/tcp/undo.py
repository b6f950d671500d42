"""Finding out that a reduction was for nothing: Eifel (RFC 3522) by timestamps, DSACK (RFC 3708) without.

After a spurious retransmission the first acknowledgement that moves ``una`` was caused by the original, which
its echoed timestamp tells; or every retransmission of the episode is reported as a
duplicate. What was sent once, is deemed lost and arrives before anything was sent again, as it happens when
acknowledgements come in bursts, can only be the original. A peer without timestamps but with SACK that names what
was deemed lost by the timer and never sent again, but not everything, says the same (F-RTO, RFC 5682, whose second
acknowledgement is left to RACK: a hole behind the first one shows up in it as a loss of its own). The answer is RFC
4015's: back to what was.
"""

from __future__ import annotations

from math import inf

from ..sequence import Position

__all__ = ["Undo"]


class Undo:
    """One episode of loss. Times are seconds."""

    __slots__ = ("_duplicates_due", "_first_at", "_judged", "_since", "active")

    def __init__(self) -> None:
        #: An episode is on, and nothing has shown it to be real.
        self.active: bool = False
        self._since: Position = 0
        self._first_at = inf
        self._duplicates_due = 0
        self._judged = False

    def begin(self, una: Position) -> None:
        """A loss was detected."""
        self.active = True
        self._since = una
        self._first_at = inf
        self._duplicates_due = 0
        self._judged = False

    def resent(self, count: int, now: float) -> None:
        """``count`` segments went out again."""
        self._duplicates_due += count
        self._first_at = min(self._first_at, now)

    def advanced(self, echoed: float, late: int, everything: bool, sack: bool) -> bool:
        """``una`` moved, by a segment that echoes what we sent at ``echoed`` (-1.0: not known); ``late`` segments,
        deemed lost and never sent again, arrived. ``everything``: it moved past all that was in flight when the
        episode began. True: the episode is over, it was for nothing."""
        if self._judged or not self.active:
            return False
        if self._first_at == inf:
            # Without SACK a part says nothing about the rest, which only this recovery would find (RFC 6582).
            spurious = late > 0 and (sack or everything)
        else:
            self._judged = True
            # Timestamps count milliseconds. An acknowledgement of everything proves nothing without them: a lost
            # segment that came again explains it as well (RFC 5682, 2.1, step 2a).
            spurious = echoed < self._first_at - 0.0015 if echoed >= 0 else sack and late > 0 and not everything
        if spurious:
            self.active = False
        return spurious

    def over(self) -> None:
        """The losses are repaired. A DSACK may still come for what was sent again."""
        if self._first_at == inf:
            self.active = False

    def duplicate(self, start: Position, segments: int) -> bool:
        """A DSACK named ``segments`` segments from ``start``. True: all that was sent again had arrived before."""
        if not self.active or start < self._since or not self._duplicates_due:
            return False
        self._duplicates_due -= min(segments, self._duplicates_due)
        if self._duplicates_due:
            return False
        self.active = False
        return True
