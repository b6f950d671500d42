"""The receiving half of a connection: reassembly, the advertised window, and what to report by SACK.

What arrives in order goes to a queue of chunks. What arrives too early is
kept by the position where it starts, without overlaps, next to a sorted list
of merged ranges: so taking a segment, closing a hole and naming SACK blocks
cost a bisection, however much is waiting.

The window follows the reader (dynamic right-sizing): it grows to twice of what
was read in one round trip, up to six times while that grows. Its right edge never moves left.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import deque

from ..inbound import UNLIMITED
from ..memory import FLOOR, FREE, MemoryBudget
from ..sequence import Position

__all__ = ["Receiver"]

#: Pieces kept out of order at most. 8 MiB of full segments are 6,000.
_MAX_PIECES = 16384
#: What a piece takes besides its bytes: the object, its position and its place in the table. Measured.
_PIECE_COST = 160
#: How much more than the bytes of all of them that may be.
_MAX_OVERHEAD = 256 * 1024
#: Chunks smaller than this are joined while they queue, so that one-byte segments cost no more than others.
_SMALL = 256
_JOINED = 4096
#: Duplicates reported after one burst: each takes an acknowledgement of its own.
_MAX_DUPLICATES = 32


class Receiver:
    """Positions are unwrapped sequence numbers, sizes bytes."""

    __slots__ = (
        "_copied",
        "_copied_before",
        "_duplicates",
        "_ends",
        "_measured_at",
        "_memory",
        "_news",
        "_pieces",
        "_reported",
        "_starts",
        "capacity",
        "capacity_max",
        "chunks",
        "early",
        "edge",
        "fin",
        "finished",
        "flight",
        "mss",
        "nxt",
        "queued",
        "scale",
    )

    def __init__(
        self,
        nxt: Position,
        *,
        capacity: int,
        capacity_max: int,
        scale: int,
        mss: int,
        memory: MemoryBudget,
        now: float,
    ) -> None:
        #: The next position expected in order, FIN included.
        self.nxt: Position = nxt
        #: The right edge of the window as advertised: what we must accept.
        self.edge: Position = nxt
        self.capacity: int = capacity
        self.capacity_max: int = capacity_max
        #: How far the edge may be ahead of ``nxt``, whatever room there is (inbound.py).
        self.flight: int = UNLIMITED
        self.scale: int = scale
        self.mss: int = mss
        self.chunks: deque[bytes] = deque()
        #: Bytes in ``chunks``.
        self.queued: int = 0
        #: Bytes kept out of order.
        self.early: int = 0
        #: Position of the peer's FIN, once it is known.
        self.fin: Position | None = None
        #: The FIN is in order: nothing will follow.
        self.finished: bool = False
        self._starts: list[Position] = []
        self._ends: list[Position] = []
        self._pieces: dict[Position, bytes] = {}
        #: Where early segments arrived since the last acknowledgement, oldest first.
        self._news: list[Position] = []
        #: Ranges reported last, by a position in them, newest first.
        self._reported: list[Position] = []
        #: What arrived twice since the last acknowledgement.
        self._duplicates: list[tuple[Position, Position]] = []
        #: What was read in this round trip and in the last one.
        self._copied = self._copied_before = 0
        self._measured_at = now
        self._memory = memory

    @property
    def has_holes(self) -> bool:
        """Whether data is waiting behind something missing."""
        return bool(self._starts)

    @property
    def has_report(self) -> bool:
        """Whether the next acknowledgement has SACK blocks to carry, so that no data can stand in for it."""
        return bool(self._starts or self._duplicates)

    @property
    def held(self) -> int:
        """What the memory budget is charged with: the bytes, and what small pieces take besides theirs."""
        return self.queued + self.early + _PIECE_COST * len(self._pieces)

    # --- arrival ---

    def insert(self, start: Position, payload: bytes) -> bool:
        """Take a segment wherever it lies. False: nothing of it was new, or it lies outside of the window."""
        end = start + len(payload)
        if start < self.nxt:
            # RFC 2883: tell the sender what came twice.
            self._note_duplicate(start, min(end, self.nxt))
            if end <= self.nxt:
                return False
            payload = payload[self.nxt - start :]
            start = self.nxt
        limit = self.edge if self.fin is None else min(self.edge, self.fin)
        if end > limit:
            payload = payload[: max(limit - start, 0)]
            end = start + len(payload)
        if not payload:
            return False
        if start > self.nxt:
            return self._keep(start, end, payload)
        starts, ends = self._starts, self._ends
        while starts and starts[0] <= end:
            first, position = starts.pop(0), ends.pop(0)
            if first > start:
                self._append(payload[: first - start])
            self._absorb(first, position)
            if position >= end:
                payload = b""
                break
            payload = payload[position - start :]
            start = position
        if payload:
            self._append(payload)
        if not starts:
            # Perhaps data of ours speaks for all of it, and no acknowledgement takes them.
            self._news.clear()
        self._check_fin()
        return True

    def handle_fin(self, position: Position) -> bool:
        """The peer's stream ends at ``position``. False: it contradicts what is known, or lies outside of the
        window."""
        if self.fin is not None:
            return self.fin == position
        if position < self.nxt or position > self.edge or (self._ends and position < self._ends[-1]):
            return False
        self.fin = position
        self._check_fin()
        return True

    def _check_fin(self) -> None:
        if self.fin == self.nxt and not self.finished:
            self.finished = True
            self.nxt += 1
            self.edge = max(self.edge, self.nxt)

    def _append(self, payload: bytes) -> None:
        chunks = self.chunks
        if len(payload) < _SMALL and chunks and len(chunks[-1]) < _JOINED:
            chunks[-1] += payload
        else:
            chunks.append(payload)
        self.queued += len(payload)
        self.nxt += len(payload)

    def _absorb(self, position: Position, end: Position) -> None:
        """Queue the pieces of a range that is no longer early."""
        pop = self._pieces.pop
        while position < end:
            piece = pop(position)
            self._append(piece)
            self.early -= len(piece)
            position += len(piece)

    def _keep(self, start: Position, end: Position, payload: bytes) -> bool:
        """Store an early segment: only those parts that are not there yet."""
        starts, ends, pieces = self._starts, self._ends, self._pieces
        count = len(pieces)
        if count >= _MAX_PIECES or count * _PIECE_COST > self.early + _MAX_OVERHEAD or self._memory.level != FREE:
            return False
        if ends and start == ends[-1]:
            # By far the most common: the next segment after the same hole.
            ends[-1] = end
            pieces[start] = payload
            self.early += end - start
            if not self._news or self._news[-1] < starts[-1]:
                self._news.append(start)
            return True
        self._news.append(start)
        low = bisect_left(ends, start)
        high = bisect_right(starts, end)
        if low == high:
            starts.insert(low, start)
            ends.insert(low, end)
            pieces[start] = payload
            self.early += end - start
            return True
        position, new = start, 0
        for at in range(low, high):
            if position < starts[at]:
                pieces[position] = payload[position - start : starts[at] - start]
                new += starts[at] - position
            position = max(position, ends[at])
        if position < end:
            pieces[position] = payload[position - start :]
            new += end - position
        starts[low:high] = [min(start, starts[low])]
        ends[low:high] = [max(end, ends[high - 1])]
        self.early += new
        if not new:
            self._note_duplicate(start, end)
        return new > 0

    def _note_duplicate(self, start: Position, end: Position) -> None:
        duplicates = self._duplicates
        if duplicates and duplicates[-1][1] == start:
            duplicates[-1] = (duplicates[-1][0], end)
        elif len(duplicates) < _MAX_DUPLICATES:
            duplicates.append((start, end))

    # --- what to tell the sender ---

    def drop_report(self) -> None:
        """An acknowledgement goes to a peer without SACK, who cannot be told what it was about."""
        self._news.clear()
        self._duplicates.clear()

    def take_sack_blocks(self, most: int) -> list[list[tuple[Position, Position]]]:
        """The SACK blocks of each acknowledgement due now, at most ``most`` in one (RFC 2018, 4).

        Usually one acknowledgement. If a burst touched more ranges than fit into one, several, so that each
        range is reported at least once. A duplicate is the first block of all (RFC 2883), and each is
        reported once.
        """
        if self._duplicates:
            duplicates, self._duplicates = self._duplicates, []
            latest = duplicates.pop()
            return [[duplicate] for duplicate in duplicates] + self._take_sack_blocks(most, latest)
        return self._take_sack_blocks(most, None)

    def _take_sack_blocks(
        self, most: int, duplicate: tuple[Position, Position] | None
    ) -> list[list[tuple[Position, Position]]]:
        starts = self._starts
        if not starts:
            self._news.clear()
            self._reported.clear()
            return [[duplicate] if duplicate else []]
        blocks: list[tuple[Position, Position]] = []
        seen: set[int] = set()
        for point in reversed(self._news):
            self._name(point, blocks, seen)
        fresh = len(blocks) + (duplicate is not None)
        for point in self._reported:
            self._name(point, blocks, seen)
        for at in range(min(len(starts), most)):
            self._name(starts[at], blocks, seen)
        self._news.clear()
        self._reported = [start for start, _ in blocks[: most + 1]]
        if duplicate:
            blocks.insert(0, duplicate)
        # The newest go out last, to be the last word.
        count = max(1, -(-fresh // most))
        return [blocks[at * most : (at + 1) * most] for at in reversed(range(count))]

    def _name(self, point: Position, blocks: list[tuple[Position, Position]], seen: set[int]) -> None:
        """Append the range that holds ``point``, unless it is there already or no longer early."""
        at = bisect_right(self._starts, point) - 1
        if at >= 0 and at not in seen and point < self._ends[at]:
            seen.add(at)
            blocks.append((self._starts[at], self._ends[at]))

    def _rightmost(self) -> Position:
        """Where the right edge of the window might be."""
        base = self.nxt - self.queued
        if self._memory.level == FREE:
            return min(base + self.capacity, self.nxt + self.flight)
        return max(self.edge, base + min(self.capacity, FLOOR))

    def take_window(self) -> int:
        """The window field, scaled, for a segment sent now. Moves ``edge``.

        Silly-window avoidance (RFC 9293, 3.8.6.2.2): the edge moves by a segment or half of the buffer, or not at all.
        """
        target = self._rightmost()
        if target - self.edge < min(self.mss, self.capacity // 2):
            target = self.edge
        field = max(target - self.nxt, 0) >> self.scale
        field = min(field, 0xFFFF)
        self.edge = max(self.edge, self.nxt + (field << self.scale))
        return field

    @property
    def update_due(self) -> bool:
        """Whether the reader freed so much that the sender should hear of it without being asked: two segments
        if the window had become small, half of it otherwise."""
        opened = self._rightmost() - self.edge
        left = self.edge - self.nxt
        return opened >= min(2 * self.mss, self.capacity // 2) and (left < 2 * self.mss or opened >= left)

    # --- the reader ---

    def peek(self, most: int) -> bytes:
        """Up to ``most`` bytes, which stay."""
        taken: list[bytes] = []
        for chunk in self.chunks:
            if most <= 0:
                break
            taken.append(chunk[:most])
            most -= len(chunk)
        return b"".join(taken)

    def read(self, most: int, now: float, rtt: float) -> bytes:
        """Up to ``most`` bytes. ``rtt`` (seconds, 0.0: unknown) paces the growth of the window."""
        chunks = self.chunks
        if self.queued <= most:
            data = chunks[0] if len(chunks) == 1 else b"".join(chunks)
            chunks.clear()
        else:
            taken: list[bytes] = []
            left = most
            while left:
                chunk = chunks.popleft()
                if len(chunk) > left:
                    # Chunks are a segment long, or little more: what is copied again is small.
                    chunks.appendleft(chunk[left:])
                    chunk = chunk[:left]
                taken.append(chunk)
                left -= len(chunk)
            data = b"".join(taken)
        self.queued -= len(data)
        self._copied += len(data)
        if rtt and now - self._measured_at >= rtt:
            copied, before = self._copied, self._copied_before
            wanted = 2 * copied + 16 * self.mss
            if copied > before > 0:
                # The sender is in slow start: keep ahead of it, and of what it sends while it repairs a loss.
                wanted += 2 * wanted * min(copied - before, before) // before
            self.capacity = max(self.capacity, min(wanted, self.capacity_max))
            self._copied, self._copied_before = 0, copied
            self._measured_at = now
        return data

    def discard(self) -> None:
        """Forget everything that was kept."""
        self.chunks.clear()
        self.queued = 0
        self.discard_early()

    def discard_early(self) -> None:
        """Forget what waits for something that will never come."""
        self.early = 0
        self._starts.clear()
        self._ends.clear()
        self._pieces.clear()
        self._news.clear()
        self._reported.clear()
