"""RACK (RFC 8985): a segment is lost when one sent sufficiently later has arrived.

Time decides, not the number of duplicates: so retransmissions are found lost like
anything else, the last segments of a flight too (the tail loss probe makes something later arrive),
and reordering within a quarter of a round trip costs nothing.

The scoreboard holds the segments and walks them; here is what was learnt from those that arrived.
"""

from __future__ import annotations

from ..sequence import Position
from .sent_segment import SentSegment

__all__ = ["Rack"]

#: RFC 8985, 6.2, step 4: recoveries for which a wider reordering window is kept.
_PERSISTENCE = 16
#: RFC 6675's DupThresh: without reordering seen, so many segments SACKed need no waiting.
_DUPLICATE_THRESHOLD = 3


class Rack:
    """Times are seconds, positions unwrapped."""

    __slots__ = ("_multiplier", "_persist", "_round_end", "end", "reordering", "rtt", "sent_at")

    def __init__(self) -> None:
        #: Of the segment sent last among those that arrived: when it was sent, its end, and its round trip.
        self.sent_at: float = 0.0
        self.end: Position = 0
        self.rtt: float = 0.0
        #: Something sent once arrived after what was sent behind it.
        self.reordering: bool = False
        self._multiplier = 1
        self._persist = _PERSISTENCE
        self._round_end: Position | None = None

    def delivered(self, segment: SentSegment, now: float) -> None:
        """``segment``, as it was sent last, arrived."""
        sent_at = segment.sent_at
        if sent_at > self.sent_at or (sent_at == self.sent_at and segment.end > self.end):
            self.sent_at, self.end, self.rtt = sent_at, segment.end, now - sent_at

    def duplicate(self, una: Position, nxt: Position) -> None:
        """A DSACK came: we retransmitted too early. Once a round the window widens."""
        if self._round_end is None or una >= self._round_end:
            self._round_end = nxt
            self._multiplier = min(self._multiplier + 1, 64)
            self._persist = _PERSISTENCE

    def recovered(self) -> None:
        """A recovery is over."""
        self._persist -= 1
        if self._persist <= 0:
            self._multiplier, self._persist = 1, _PERSISTENCE

    def tolerance(self, recovering: bool, sacked: int, min_rtt: float, srtt: float) -> float:
        """How much later than expected a segment may be (RACK_update_reo_wnd), with ``sacked`` segments SACKed."""
        if not self.reordering and (recovering or sacked >= _DUPLICATE_THRESHOLD):
            return 0.0
        return min(self._multiplier * min_rtt / 4, srtt)
