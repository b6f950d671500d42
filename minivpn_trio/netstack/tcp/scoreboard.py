"""What was sent and is not acknowledged: the retransmission queue and the SACK scoreboard (RFC 6675).

Segments lie in one list in the order of their positions; what is acknowledged
leaves at its head. SACK information is kept twice: as merged ranges, which
tell quickly what of a block is new, and as a mark on each segment. So the cost
of an acknowledgement depends on what is new in it, not on what is in flight.

``pipe`` is RFC 6675's estimate of what is in the network, kept up to date with
each change: a segment counts once if it is neither SACKed nor deemed lost,
and once more if its retransmission is under way.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Iterator
from operator import attrgetter

from ..sequence import Position

__all__ = ["Scoreboard", "SentSegment"]

#: RFC 6675's DupThresh.
_DUPLICATE_THRESHOLD = 3
#: Acknowledged segments at the head of the list that are left there until cutting them off pays.
_SLACK = 256

_start_of = attrgetter("start")


class SentSegment:
    """A segment in flight: positions ``start`` to ``end``; a FIN is one position without payload."""

    __slots__ = ("end", "lost", "payload", "resent", "sacked", "sent_at", "start", "transmissions")

    def __init__(self, start: Position, end: Position, payload: bytes, sent_at: float) -> None:
        self.start = start
        self.end = end
        self.payload = payload
        #: When it was sent last.
        self.sent_at = sent_at
        self.transmissions = 1
        self.sacked = False
        self.lost = False
        #: Deemed lost, and sent again since.
        self.resent = False

    @property
    def is_fin(self) -> bool:
        """Whether this is the FIN."""
        return not self.payload


class Scoreboard:
    """Positions are unwrapped, sizes bytes, times seconds."""

    __slots__ = ("_ends", "_head", "_lost", "_scanned", "_segments", "_starts", "pipe", "sacked_bytes")

    def __init__(self) -> None:
        self._segments: list[SentSegment] = []
        self._head = 0
        #: Merged SACKed ranges.
        self._starts: list[Position] = []
        self._ends: list[Position] = []
        self._lost: deque[SentSegment] = deque()
        #: Up to here segments were examined for loss.
        self._scanned: Position = 0
        self.pipe = 0
        #: Sum of the SACKed segments.
        self.sacked_bytes = 0

    def __len__(self) -> int:
        return len(self._segments) - self._head

    def __iter__(self) -> Iterator[SentSegment]:
        return iter(self._segments[self._head :])

    @property
    def first(self) -> SentSegment | None:
        """The oldest segment that is not acknowledged."""
        return self._segments[self._head] if self._head < len(self._segments) else None

    def extend(self, segments: list[SentSegment], size: int) -> None:
        """``segments``, ``size`` bytes together, were sent for the first time, after all others."""
        self._segments += segments
        self.pipe += size

    # --- acknowledgements ---

    def acknowledge(self, position: Position) -> tuple[SentSegment | None, bool]:
        """Everything before ``position`` arrived.

        Returns the newest of these segments that was sent once and not
        SACKed before (its age is a round-trip time), or None; and whether one of them was sent more than once.
        """
        segments, head = self._segments, self._head
        count = len(segments)
        sample: SentSegment | None = None
        resent = False
        pipe = self.pipe
        while head < count:
            segment = segments[head]
            size = segment.end - segment.start
            if segment.end > position:
                cut = position - segment.start
                if cut > 0:
                    # A part of it: a middlebox, or a peer that takes what its window holds.
                    if segment.sacked:
                        self.sacked_bytes -= cut
                    else:
                        pipe -= cut * ((not segment.lost) + segment.resent)
                    segment.payload = segment.payload[cut:]
                    segment.start = position
                break
            if segment.sacked:
                self.sacked_bytes -= size
            elif segment.lost:
                if segment.resent:
                    pipe -= size
            else:
                pipe -= size
            if segment.transmissions > 1:
                resent = True
            elif not segment.sacked:
                sample = segment
            head += 1
        self.pipe = pipe
        if head > _SLACK and head * 2 > count:
            del segments[:head]
            head = 0
        self._head = head
        starts, ends = self._starts, self._ends
        while starts and starts[0] < position:
            if ends[0] <= position:
                del starts[0], ends[0]
            else:
                starts[0] = position
        return sample, resent

    def sack(self, start: Position, end: Position) -> SentSegment | None:
        """One SACK block, within what is in flight. Returns the newest segment that it names for the first time
        and that was sent once, or None."""
        starts, ends = self._starts, self._ends
        low = bisect_left(ends, start)
        high = bisect_right(starts, end)
        if low < high:
            if starts[low] <= start and end <= ends[low]:
                return None
            # Only the part behind what is known, if the block extends a range, which is what blocks do.
            new = ends[low] if starts[low] <= start and high == low + 1 else start
            merged = (min(start, starts[low]), max(end, ends[high - 1]))
        else:
            new = start
            merged = (start, end)
        starts[low:high] = [merged[0]]
        ends[low:high] = [merged[1]]
        return self._mark(new, end, *merged)

    def _mark(self, new: Position, until: Position, left: Position, right: Position) -> SentSegment | None:
        segments = self._segments
        at = max(bisect_right(segments, new, lo=self._head, key=_start_of) - 1, self._head)
        sample: SentSegment | None = None
        while at < len(segments) and segments[at].start < until:
            segment = segments[at]
            at += 1
            if segment.sacked or segment.start < left or segment.end > right:
                continue
            size = segment.end - segment.start
            segment.sacked = True
            self.sacked_bytes += size
            self.pipe -= size * ((not segment.lost) + segment.resent)
            if segment.transmissions == 1:
                sample = segment
        return sample

    # --- loss ---

    def detect_losses(self, mss: int) -> bool:
        """Deem lost what has enough SACKed data behind it (RFC 6675, IsLost). True: something new was lost."""
        starts, ends = self._starts, self._ends
        behind = 0
        at = len(starts) - 1
        while at >= 0:
            behind += ends[at] - starts[at]
            if behind > (_DUPLICATE_THRESHOLD - 1) * mss or len(starts) - at >= _DUPLICATE_THRESHOLD:
                break
            at -= 1
        if at < 0:
            return False
        edge = starts[at]
        if edge <= self._scanned:
            return False
        return self._lose_between(self._scanned, edge)

    def lose_first(self) -> bool:
        """Deem the first segment lost (three duplicate acknowledgements, or a partial one, without SACK)."""
        first = self.first
        if first is None or first.sacked or (first.lost and not first.resent):
            return False
        self.pipe -= (first.end - first.start) * ((not first.lost) + first.resent)
        first.lost, first.resent = True, False
        self._lost.appendleft(first)
        return True

    def _lose_between(self, start: Position, edge: Position) -> bool:
        segments = self._segments
        at = bisect_left(segments, start, lo=self._head, key=_start_of)
        found = False
        while at < len(segments):
            segment = segments[at]
            if segment.start >= edge:
                break
            if not segment.sacked and not segment.lost:
                segment.lost = found = True
                self.pipe -= segment.end - segment.start
                self._lost.append(segment)
            at += 1
        self._scanned = edge
        return found

    def lose_all(self, *, forget_sacks: bool) -> None:
        """The retransmission timer went off: go back to the first unacknowledged byte.

        ``forget_sacks`` is for a peer that may have dropped what it SACKed (RFC 2018, 8).
        """
        if forget_sacks:
            self._starts.clear()
            self._ends.clear()
            self.sacked_bytes = 0
        self._lost.clear()
        self.pipe = 0
        for segment in self._segments[self._head :]:
            if forget_sacks:
                segment.sacked = False
            if not segment.sacked:
                segment.lost, segment.resent = True, False
                self._lost.append(segment)
        if self._segments:
            self._scanned = self._segments[-1].end

    def next_lost(self) -> SentSegment | None:
        """The first segment that waits for retransmission."""
        lost = self._lost
        first = self.first
        while lost:
            segment = lost[0]
            if first is None or segment.start < first.start or segment.sacked or segment.resent:
                lost.popleft()
                continue
            return segment
        return None

    def resend(self, segment: SentSegment, now: float) -> None:
        """``segment``, from ``next_lost``, goes out again."""
        segment.resent = True
        segment.transmissions += 1
        segment.sent_at = now
        self.pipe += segment.end - segment.start

    def resegment(self, mss: int) -> None:
        """Cut what is in flight into pieces of at most ``mss``; pieces keep the marks of the whole."""
        pieces: list[SentSegment] = []
        for segment in self._segments[self._head :]:
            if len(segment.payload) <= mss:
                pieces.append(segment)
                continue
            for offset in range(0, len(segment.payload), mss):
                payload = segment.payload[offset : offset + mss]
                start = segment.start + offset
                piece = SentSegment(start, start + len(payload), payload, segment.sent_at)
                piece.transmissions = segment.transmissions
                piece.sacked, piece.lost, piece.resent = segment.sacked, segment.lost, segment.resent
                pieces.append(piece)
        self._segments = pieces
        self._head = 0
        self._lost = deque(piece for piece in pieces if piece.lost and not piece.sacked and not piece.resent)
