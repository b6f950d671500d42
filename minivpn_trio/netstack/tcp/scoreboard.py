"""What was sent and is not acknowledged: the retransmission queue and the SACK scoreboard.

Segments lie in one list in the order of their positions; what is acknowledged
leaves at its head. SACK information is kept twice: as merged ranges, which
tell quickly what of a block is new, and as a mark on each segment. So the cost
of an acknowledgement depends on what is new in it, not on what is in flight.

``pipe`` is RFC 6675's estimate of what is in the network, kept up to date with
each change: a segment counts once if it is neither SACKed nor deemed lost,
and once more if its retransmission is under way.

What is lost is RACK's decision (rack.py), found by two walks that start where the last one
ended: over what was sent once, which lies in the order of time as well as of positions, and over the
retransmissions in the order in which they went out.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Iterator
from operator import attrgetter

from ..sequence import Position
from .delivery_rate import Departure
from .sent_segment import SentSegment

__all__ = ["Scoreboard"]

#: Acknowledged segments at the head of the list that are left there until cutting them off pays.
_SLACK = 256
#: With an MTU of 68, the least there is, so many bytes are left after IPv4, TCP and timestamps. Whatever size somebody
#: comes to name, memory and time for what is in flight stay within bounds.
_LEAST_PIECE = 16

_start_of, _end_of = attrgetter("start"), attrgetter("end")


class Scoreboard:
    """Positions are unwrapped, sizes bytes, times seconds."""

    __slots__ = (
        "_ends",
        "_head",
        "_lost",
        "_marked",
        "_resent",
        "_scanned",
        "_segments",
        "_starts",
        "late",
        "pipe",
        "resent",
        "sacked",
        "sacked_bytes",
        "sample",
    )

    sacked: int
    sacked_bytes: int

    def __init__(self) -> None:
        self._segments: list[SentSegment] = []
        self._head = 0
        #: Merged SACKed ranges.
        self._starts: list[Position] = []
        self._ends: list[Position] = []
        #: Those that wait for retransmission. A deque takes 600 bytes, of which most connections have no need: made
        #: at the first loss.
        self._lost: deque[SentSegment] | None = None
        #: Retransmissions in the order of time, each with when it went out.
        self._resent: deque[tuple[float, SentSegment]] | None = None
        #: No segment at or behind this position was SACKed, deemed lost or sent again.
        self._marked: Position = 0
        #: Up to here segments were examined for loss.
        self._scanned: Position = 0
        self.pipe: int = 0
        #: Sum and number of the SACKed segments.
        self.sacked_bytes = self.sacked = 0
        #: What the last ``acknowledge`` and ``sack`` found newly arrived: the newest that was sent once, the one
        #: sent last among the retransmitted, and how many that were deemed lost but never sent again.
        self.sample: SentSegment | None = None
        self.resent: SentSegment | None = None
        self.late: int = 0

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

    def acknowledge(self, position: Position) -> None:
        """Everything before ``position`` arrived. Sets ``sample``, ``resent`` and ``late``."""
        segments, head = self._segments, self._head
        count = len(segments)
        if head < count and segments[head].start >= self._marked:
            self._acknowledge_unmarked(position)
            return
        sample: SentSegment | None = None
        resent: SentSegment | None = None
        late = 0
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
                self.sacked -= 1
            else:
                if not segment.lost or segment.resent:
                    pipe -= size
                elif segment.transmissions == 1:
                    late += 1
                if segment.transmissions == 1:
                    sample = segment
                elif resent is None or segment.sent_at > resent.sent_at:
                    resent = segment
            head += 1
        self.pipe = pipe
        self.sample, self.resent, self.late = sample, resent, late
        self._advance(head)
        starts, ends = self._starts, self._ends
        if starts and starts[0] < position:
            passed = bisect_right(ends, position)
            del starts[:passed], ends[:passed]
            if starts and starts[0] < position:
                starts[0] = position

    def _acknowledge_unmarked(self, position: Position) -> None:
        """``acknowledge`` where nothing was SACKed, deemed lost or sent again, as is the rule: without looking at each
        segment."""
        segments, head = self._segments, self._head
        first = segments[head].start
        at = bisect_right(segments, position, lo=head, key=_end_of)
        if at < len(segments):
            segment = segments[at]
            cut = position - segment.start
            if cut > 0:
                # A part of it: a middlebox, or a peer that takes what its window holds.
                segment.payload = segment.payload[cut:]
                segment.start = position
        self.pipe -= position - first
        self.sample, self.resent, self.late = segments[at - 1] if at > head else None, None, 0
        self._advance(at)

    def _advance(self, head: int) -> None:
        """The first segment that is not acknowledged is at ``head``."""
        segments = self._segments
        count = len(segments)
        if head == count or (head > _SLACK and head * 2 > count):
            # Nothing is kept of what arrived by a connection that falls silent.
            del segments[:head]
            head = 0
        self._head = head

    def fills(self, position: Position) -> bool:
        """Whether acknowledging ``position`` names something for the first time that was sent once, below what
        was SACKed: the network reorders."""
        segments, at, count = self._segments, self._head, len(self._segments)
        highest = self._ends[-1]
        while at < count:
            segment = segments[at]
            if segment.end > position or segment.end >= highest:
                return False
            if segment.transmissions == 1 and not segment.sacked:
                return True
            at += 1
        return False

    @property
    def highest(self) -> Position:
        """The end of the highest SACKed range; 0: there is none."""
        return self._ends[-1] if self._ends else 0

    def sack(self, start: Position, end: Position) -> Position | None:
        """One SACK block, within what is in flight. Adds to ``sample``, ``resent`` and ``late``. Returns the end of
        the first segment that it names for the first time and that was sent once, or None.

        A block counts as far as it covers whole segments, so there are never more ranges than segments, whatever a
        peer makes up. What holds a part of one reports the whole when it has it.
        """
        starts, ends = self._starts, self._ends
        low = bisect_left(ends, start)
        if low < len(starts) and starts[low] <= start and end <= ends[low]:
            return None
        start, end = self._whole(start, end)
        if start >= end:
            return None
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

    def _whole(self, start: Position, end: Position) -> tuple[Position, Position]:
        """The part of a block that covers whole segments."""
        segments = self._segments
        at = bisect_left(segments, start, lo=self._head, key=_start_of)
        if at == len(segments):
            return end, end
        start = segments[at].start
        last = bisect_right(segments, end, lo=self._head, key=_start_of) - 1
        if segments[last].end > end:
            end = segments[last].start
        return start, end

    def _mark(self, new: Position, until: Position, left: Position, right: Position) -> Position | None:
        segments = self._segments
        at = max(bisect_right(segments, new, lo=self._head, key=_start_of) - 1, self._head)
        first: Position | None = None
        sample, resent = self.sample, self.resent
        self._marked = max(self._marked, right)
        while at < len(segments) and segments[at].start < until:
            segment = segments[at]
            at += 1
            if segment.sacked or segment.start < left or segment.end > right:
                continue
            size = segment.end - segment.start
            segment.sacked = True
            self.sacked_bytes += size
            self.sacked += 1
            self.pipe -= size * ((not segment.lost) + segment.resent)
            if segment.transmissions == 1:
                self.late += segment.lost
                if first is None:
                    first = segment.end
                if sample is None or segment.end > sample.end:
                    sample = segment
            elif resent is None or segment.sent_at > resent.sent_at:
                resent = segment
        self.sample, self.resent = sample, resent
        return first

    # --- loss ---

    @property
    def _waiting(self) -> deque[SentSegment]:
        """``_lost``, to add to."""
        if self._lost is None:
            self._lost = deque()
        return self._lost

    def detect_losses(self, sent_at: float, end: Position, deadline: float) -> tuple[int, float]:
        """Deem lost what was sent before a segment that has arrived (sent at ``sent_at``, ending at ``end``),
        and not later than ``deadline``. Returns how many bytes were lost, and when the first was sent of
        those for which it is too early to say (0.0: none)."""
        lost, waiting = 0, 0.0
        resent = self._resent
        first = self.first
        una = self._segments[-1].end if first is None else first.start
        while resent:
            time, segment = resent[0]
            if not segment.resent or segment.sacked or segment.sent_at != time or segment.start < una:
                resent.popleft()
                continue
            if time > sent_at or (time == sent_at and segment.end >= end):
                break
            if time > deadline:
                waiting = time
                break
            resent.popleft()
            segment.resent = False
            size = segment.end - segment.start
            self.pipe -= size
            lost += size
            queue = self._waiting
            if queue and segment.start < queue[0].start:
                queue.appendleft(segment)
            else:
                queue.append(segment)
        segments = self._segments
        at = bisect_left(segments, self._scanned, lo=self._head, key=_start_of)
        count = len(segments)
        while at < count:
            segment = segments[at]
            if not (segment.sacked or segment.lost):
                time = segment.sent_at
                if time > sent_at or (time == sent_at and segment.end >= end):
                    break
                if time > deadline:
                    waiting = min(waiting, time) if waiting else time
                    break
                segment.lost = True
                self._marked = max(self._marked, segment.end)
                size = segment.end - segment.start
                self.pipe -= size
                lost += size
                self._waiting.append(segment)
            at += 1
        if at < count:
            self._scanned = segments[at].start
        elif count:
            self._scanned = segments[-1].end
        return lost, waiting

    def lose_first(self) -> bool:
        """Deem the first segment lost (three duplicate acknowledgements, or a partial one, without SACK)."""
        first = self.first
        if first is None or first.sacked or (first.lost and not first.resent):
            return False
        self.pipe -= (first.end - first.start) * ((not first.lost) + first.resent)
        first.lost, first.resent = True, False
        self._marked = max(self._marked, first.end)
        self._waiting.appendleft(first)
        return True

    def lose_all(self, *, forget_sacks: bool) -> None:
        """The retransmission timer went off: go back to the first unacknowledged byte.

        ``forget_sacks`` is for a peer that may have dropped what it SACKed (RFC 2018, 8).
        """
        if forget_sacks:
            self._starts.clear()
            self._ends.clear()
            self.sacked_bytes = self.sacked = 0
        self._lost = self._resent = None
        self.pipe = 0
        for segment in self._segments[self._head :]:
            if forget_sacks:
                segment.sacked = False
            if not segment.sacked:
                segment.lost, segment.resent = True, False
                self._waiting.append(segment)
        if self._segments:
            self._scanned = self._marked = self._segments[-1].end

    def lose_larger(self, size: int) -> None:
        """What is larger than ``size`` did not fit the path; the rest is on its way."""
        for segment in self._segments[self._head :]:
            whole = segment.end - segment.start
            if whole > size and not segment.sacked:
                self.pipe -= whole * ((not segment.lost) + segment.resent)
                segment.lost, segment.resent = True, False
                self._marked = max(self._marked, segment.end)
        self._queue_again()

    def find_all(self) -> None:
        """Nothing was lost after all: what is deemed lost and was not sent again counts as under way."""
        for segment in self._segments[self._head :]:
            if segment.lost and not segment.resent:
                segment.lost = False
                if not segment.sacked:
                    self.pipe += segment.end - segment.start
        self._lost = None
        first = self.first
        if first is not None:
            self._scanned = first.start

    @property
    def last_pending(self) -> SentSegment | None:
        """The last segment, if it is neither SACKed nor deemed lost."""
        last = self._segments[-1] if self._head < len(self._segments) else None
        return None if last is None or last.sacked or last.lost else last

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

    def resend(self, segment: SentSegment, now: float, departure: Departure | None = None) -> None:
        """``segment``, from ``next_lost`` or ``last_pending``, goes out again."""
        size = segment.end - segment.start
        if not segment.lost:
            segment.lost = True
            self.pipe -= size
        segment.resent = True
        self._marked = max(self._marked, segment.end)
        segment.transmissions += 1
        segment.sent_at = now
        segment.departure = departure
        if self._resent is None:
            self._resent = deque()
        self._resent.append((now, segment))
        self.pipe += size

    def resegment(self, mss: int) -> None:
        """Cut what is in flight into pieces of at most ``mss``, but of no less than the smallest tunnel takes; pieces
        keep the marks of the whole."""
        mss = max(mss, _LEAST_PIECE)
        pieces: list[SentSegment] = []
        for segment in self._segments[self._head :]:
            if len(segment.payload) <= mss:
                pieces.append(segment)
                continue
            for offset in range(0, len(segment.payload), mss):
                payload = segment.payload[offset : offset + mss]
                start = segment.start + offset
                piece = SentSegment(start, start + len(payload), payload, segment.sent_at, segment.departure)
                piece.transmissions = segment.transmissions
                piece.sacked, piece.lost, piece.resent = segment.sacked, segment.lost, segment.resent
                pieces.append(piece)
        self._segments = pieces
        self._head = 0
        self.sacked = sum(piece.sacked for piece in pieces)
        self._queue_again()

    def _queue_again(self) -> None:
        """Make the queues anew from the marks of the segments."""
        flying = self._segments[self._head :]
        resent = [(segment.sent_at, segment) for segment in flying if segment.resent]
        resent.sort(key=lambda entry: entry[0])
        lost = [segment for segment in flying if segment.lost and not segment.sacked and not segment.resent]
        self._resent = deque(resent) if resent else None
        self._lost = deque(lost) if lost else None
