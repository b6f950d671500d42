"""When to acknowledge: at once, with the next data, or after a while.

At once for everything irregular (RFC 5681, 4.2), for two segments' worth of
data, by the size of those that come, and at the beginning, when the peer is in slow start. Otherwise 40 ms
later, unless data of ours carries it. One flush sends one, but after a loss.

What arrives behind a hole is told at once three times, which is what the peer waits for to repair it, and then
once a millisecond, as Linux does (ip-sysctl, tcp_comp_sack_delay_ns). Each of these makes a peer in recovery send, and
by PRR a segment more than arrived: with one for every packet Linux overflows the queue again that has just overflowed.

Where segments are lost acknowledgements are, too, and a short flight whose only one is lost stands still for ten
milliseconds, until the peer's probe. So after a loss a burst is acknowledged as the end of it would have been if it had
come segment by segment, at every second one (RFC 5681, 4.2): by its last acknowledgement, and the one before that. More
of them make the server busier, and nothing faster.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import inf

from ..sequence import Position

__all__ = ["AckSchedule"]

#: Acknowledgements that are not delayed, from the beginning of a connection.
_QUICK = 16
#: The least that counts as a whole segment (RFC 9293, 3.7.1: the default MSS).
_WHOLE = 536
#: Of what arrives behind one hole: acknowledgements at once, and later ones that an acknowledgement may speak for.
_DUPLICATES, _COMPRESSED = 3, 44
#: For so long, seconds, where that is little beside the round trip: a twentieth of it or less.
_COMPRESSION, _COMPRESSION_SHARE = 0.001, 20
#: For so many bytes after a loss, segments of Ethernet's size, there is one before a burst's last one.
_CAREFUL = 128 * 1400
#: No position.
_NOWHERE = -1


class AckSchedule:
    """What is owed to the peer. ``delay`` and ``challenge_interval`` are seconds."""

    __slots__ = (
        "_careful",
        "_challenge_interval",
        "_challenged_at",
        "_delay",
        "_held",
        "_hole",
        "_odd",
        "_quick",
        "_stop",
        "_stop_before",
        "_told",
        "_unacked",
        "_whole",
        "deadline",
        "due",
        "early",
        "last",
    )

    def __init__(self, *, delay: float, challenge_interval: float) -> None:
        #: One must go out with the next flush.
        self.due: bool = False
        #: One must go out then; inf: never.
        self.deadline: float = inf
        #: Segments that arrived out of order since the last one: without SACK each is told by a duplicate.
        self.early: int = 0
        #: What was acknowledged last (RFC 7323, Last.ACK.sent).
        self.last: Position = 0
        #: The last two places where what has arrived in order would have been acknowledged if it had come segment by
        #: segment; up to where there are such; whether a segment came since the last one.
        self._stop = self._stop_before = _NOWHERE
        self._careful: Position = 0
        self._odd = False
        #: The largest segment seen, which is what the peer sends where it can; bytes that are not acknowledged.
        self._whole = _WHOLE
        self._unacked = 0
        self._quick = _QUICK
        #: Where the hole is, how often it was told at once, and how many segments behind it wait to be told.
        self._hole: Position = 0
        self._told = self._held = 0
        self._delay = delay
        self._challenge_interval = challenge_interval
        self._challenged_at = -inf

    def received(self, size: int, segment: int) -> None:
        """``size`` bytes arrived in order, in segments of which one had the size ``segment``."""
        self._unacked += size
        if segment > self._whole:
            self._whole = segment

    def lossy(self, position: Position) -> None:
        """Something was lost, or came twice, when everything up to ``position`` had arrived."""
        self._careful = position + _CAREFUL

    def arriving(self, position: Position, sizes: Iterable[int]) -> None:
        """Segments of these ``sizes`` that begin at ``position`` arrived in order."""
        if position >= self._careful:
            return
        for size in sizes:
            position += size
            if self._odd:
                self._stop_before, self._stop = self._stop, position
            self._odd = not self._odd

    def stop(self, position: Position) -> Position | None:
        """Where what has arrived should be acknowledged before it is up to ``position``; None: nowhere."""
        # The last place may be the end.
        stop = self._stop if self._stop < position else self._stop_before
        return None if stop == _NOWHERE else stop

    def carried(self) -> None:
        """Data says how far everything has arrived, or an acknowledgement does."""
        self._odd = False
        self._stop = self._stop_before = _NOWHERE

    def behind_hole(self, hole: Position, rtt: float, now: float) -> None:
        """Something arrived behind the ``hole``; ``rtt`` (seconds) 0.0: not known."""
        if self._hole != hole:
            self._hole, self._told = hole, 0
        if self.due:
            return
        short = rtt < _COMPRESSION * _COMPRESSION_SHARE
        if short or self._told < _DUPLICATES or self._held >= _COMPRESSED or self.deadline <= now:
            self._told += 1
            self.due = True
            return
        self._held += 1
        self.deadline = min(self.deadline, now + _COMPRESSION)

    def challenge(self, now: float) -> None:
        """An answer that only the real peer can use, and rarely (RFC 5961, 7)."""
        if now - self._challenged_at >= self._challenge_interval:
            self._challenged_at = now
            self.due = True

    def expire(self, now: float) -> None:
        """Time has passed. A peer that made us wait sends small pieces: no hurry from now on."""
        if self.deadline <= now:
            self.due = True
            if not self._held:
                self._quick = 0

    def decide(self, mss: int, now: float) -> bool:
        """Whether one goes out now. If so, ``sent`` must follow."""
        if not self.due and self._unacked:
            if self._unacked >= 2 * min(mss, self._whole) or self._quick:
                self.due = True
            elif self.deadline == inf:
                self.deadline = now + self._delay
        if self.due and self._quick:
            self._quick -= 1
        return self.due

    def sent(self, position: Position) -> None:
        """Everything up to ``position`` is acknowledged by what goes out now."""
        self.due = False
        self.deadline = inf
        self.early = self._held = 0
        self.last = position
        self._unacked = 0
        self.carried()
