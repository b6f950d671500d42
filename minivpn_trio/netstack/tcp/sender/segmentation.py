"""The bytes written, and the segments made of them when they may be sent."""

from __future__ import annotations

from math import inf

from ...sequence import Position
from ..delivery_rate import Departure
from ..scoreboard import Scoreboard
from ..sent_segment import SentSegment
from .state import SenderState

__all__ = ["Segmentation"]

#: What is written in smaller pieces than this is joined while it waits, so that bytes cost bytes.
_SMALL = 256
_JOINED = 4096


class Segmentation(SenderState):
    """The layer of the send buffer and of the size of segments."""

    __slots__ = ()

    board: Scoreboard
    buffered: int
    deadline: float
    mss: int
    nxt: Position
    probe: SentSegment | None
    probe_size: int

    def write(self, data: bytes) -> None:
        """Queue ``data``, all of it."""
        buffer = self._buffer
        if len(data) < _SMALL and buffer and len(buffer[-1]) < _JOINED:
            buffer[-1] += data
        else:
            buffer.append(data)
        self.buffered += len(data)

    def discard(self) -> None:
        """Forget everything: the connection is gone."""
        self._buffer.clear()
        self.buffered = self._head_offset = 0
        self.board = Scoreboard()
        self.deadline = inf

    def _cut(self, segments: list[SentSegment], size: int, mss: int, now: float) -> None:
        """Make ``size`` bytes of the buffer into segments of ``mss``."""
        buffer, offset, position = self._buffer, self._head_offset, self.nxt
        new: list[SentSegment] = []
        append = new.append
        departure = None if self._delivery is None else self._departing(now)
        left = size
        chunk = buffer[0]
        available = len(chunk) - offset
        while left:
            want = mss if left > mss else left
            if available >= want:
                end = offset + want
                payload = chunk[offset:end]
                offset = end
                available -= want
            else:
                pieces = [chunk[offset:]]
                missing = want - available
                while missing:
                    buffer.popleft()
                    chunk = buffer[0]
                    offset = min(missing, len(chunk))
                    pieces.append(chunk[:offset])
                    missing -= offset
                available = len(chunk) - offset
                payload = b"".join(pieces)
            end = position + want
            append(SentSegment(position, end, payload, now, departure))
            position = end
            left -= want
        if not available:
            buffer.popleft()
            offset = 0
        self._head_offset = offset
        self.buffered -= size
        self.nxt = position
        self.board.extend(new, size)
        segments += new

    def _departing(self, now: float) -> Departure | None:
        delivery = self._delivery
        return None if delivery is None else delivery.departing(self.nxt - self.una - self.board.sacked_bytes, now)

    def set_mss(self, mss: int) -> None:
        """Segments are at most ``mss`` from now on, those in flight included if they are sent again."""
        if mss < self.mss:
            self.board.resegment(mss)
        self.mss = mss
        self.congestion.handle_mss(mss)

    def forget_probe(self) -> None:
        """A larger segment is to be tried no more, or has arrived. One in flight goes in pieces if it is sent again."""
        self.probe_size = 0
        if self.probe is not None:
            self._drop_probe()

    def _drop_probe(self) -> None:
        """The larger segment did not get through: no sign of congestion, only of its size."""
        self.probe = None
        self.board.resegment(self.mss)
