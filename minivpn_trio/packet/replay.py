"""The sliding window that tells a fresh packet from a replayed one, for control and data packets.

The window remembers which of the last ``size`` packet ids it has seen, as the
bits of one integer: bit 0 is the highest id so far. Ids above it move the
window; ids inside it are accepted once; ids below it are refused.

Reordering is a matter of milliseconds, so the window closes by time as well:
once an id has been known for longer than ``time`` seconds, an unseen id below
it is too old to be a late packet. Instead of a time for each id the window
keeps a few marks, "at time t the highest id was n"; the newest mark that is
old enough is the floor.

In-order packets, nearly all there are, only lengthen a run, which is folded
into the bits when the next packet is out of order.

Only authenticated ids may be given to a window: an attacker who could move it
would shut out the real peer.
"""

from __future__ import annotations

from collections import deque

__all__ = ["DEFAULT_REPLAY_TIME", "DEFAULT_REPLAY_WINDOW", "ReplayWindow"]

#: Ids. The reference's 64 (packet_id.h, DEFAULT_SEQ_BACKTRACK) are less than arrives in 5 ms at 150 Mbit/s: where a
#: path reorders by that much, what is late would be thrown away as if it were a replay. A window refuses every replay,
#: whatever its size; this one takes 256 bytes for each key, or twice that.
DEFAULT_REPLAY_WINDOW = 2048
#: Seconds (reference: packet_id.h, DEFAULT_TIME_BACKTRACK).
DEFAULT_REPLAY_TIME = 15.0

#: How many marks cover ``time``; the window may close late by one of these parts.
MARKS = 16


class ReplayWindow:
    """Which packet ids were seen, within the last ``size`` ids and ``time`` seconds.

    ``size`` 0 accepts strictly rising ids only; ``time`` 0 sets no time limit.
    Ids may have any width (32 bits, or the 64 of epoch data packets).
    """

    __slots__ = ("_bits", "_highest", "_latest", "_mark_at", "_marks", "_run", "_size", "_time", "_timestamp")

    def __init__(self, size: int = DEFAULT_REPLAY_WINDOW, time: float = DEFAULT_REPLAY_TIME) -> None:
        if size < 0 or time < 0:
            raise ValueError("a replay window cannot be negative")
        self._size = size
        self._time = time
        self._timestamp = 0
        self._highest = 0
        # When an id last moved the window.
        self._latest = float("-inf")
        # Bit n: highest - run - n was seen. The ids of the run were all seen and are not in the bits yet.
        self._bits = 0
        self._run = 0
        self._marks: deque[tuple[float, int]] = deque()
        self._mark_at = float("-inf")

    @property
    def highest(self) -> int:
        """The highest id accepted so far, of the current timestamp; 0: none yet."""
        return self._highest

    def check_and_update(self, packet_id: int, now: float, timestamp: int = 0) -> bool:
        """Whether ``packet_id`` is new; if so, it is remembered.

        False is a replay, an id too old to tell, or the invalid id 0. ``now``
        is monotonic seconds. ``timestamp`` is the net_time that control packets
        carry beside the id: a later one starts a new series of ids, an earlier
        one is refused (reference: packet_id.c, packet_id_test).
        """
        if packet_id == self._highest + 1 and timestamp == self._timestamp:
            if now >= self._mark_at:
                self._mark(now)
            self._highest = packet_id
            self._run += 1
            self._latest = now
            return True
        if packet_id <= 0 or timestamp < self._timestamp:
            return False
        if timestamp > self._timestamp:
            self._timestamp = timestamp
            self._start(packet_id, now)
            return True
        self._fold()
        ahead = packet_id - self._highest
        if ahead > 0:
            # Shifting by more than the window would build a huge integer to throw it away.
            self._bits = (self._bits << ahead | 1) & self._mask if ahead < self._size else 1
            if now >= self._mark_at:
                self._mark(now)
            self._highest = packet_id
            self._latest = now
            return True
        if -ahead >= self._size or packet_id <= self._floor(now):
            return False
        bit = 1 << -ahead
        if self._bits & bit:
            return False
        self._bits |= bit
        return True

    def accept_run(self, first: int, count: int, now: float) -> bool:
        """Take ``count`` consecutive ids at once, if ``first`` is just the next one in order.

        False: it is not, and nothing was changed; ask ``check_and_update`` for each. Only for
        series without timestamps.
        """
        if first != self._highest + 1 or self._timestamp:
            return False
        if now >= self._mark_at:
            self._mark(now)
        self._highest += count
        self._run += count
        self._latest = now
        return True

    @property
    def _mask(self) -> int:
        return (1 << self._size) - 1

    def _start(self, packet_id: int, now: float) -> None:
        """Begin a series of ids."""
        self._highest = packet_id
        self._bits = 1
        self._run = 0
        self._latest = now
        self._marks.clear()
        self._mark(now)

    def _fold(self) -> None:
        """Move the run into the bits."""
        run = min(self._run, self._size)
        if run:
            self._bits = (self._bits << run | (1 << run) - 1) & self._mask
        self._run = 0

    def _mark(self, now: float) -> None:
        """Before an id that comes at ``now``: note what was the highest when the window last moved.

        Marks that a newer one has outdated go.
        """
        if not self._time:
            self._mark_at = float("inf")
            return
        self._forget(now)
        if self._highest:
            self._marks.append((self._latest, self._highest))
        self._mark_at = now + self._time / MARKS

    def _forget(self, now: float) -> None:
        """Drop all marks before the newest that is old enough to count."""
        marks = self._marks
        while len(marks) > 1 and marks[1][0] < now - self._time:
            marks.popleft()

    def _floor(self, now: float) -> int:
        """The highest id that has been known for longer than the window's time; 0: none."""
        if not self._time:
            return 0
        if self._latest < now - self._time:
            return self._highest
        if not self._marks:
            return 0
        self._forget(now)
        when, highest = self._marks[0]
        return highest if when < now - self._time else 0
