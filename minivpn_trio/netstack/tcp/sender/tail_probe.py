"""The tail loss probe (TLP, RFC 8985, 7).

The last segments of a burst have nothing behind them by whose arrival their loss
could be seen. After two round trips of silence one more segment asks, which
saves most timeouts.
"""

from __future__ import annotations

from ...sequence import Position
from ..sent_segment import SentSegment
from .recovery import Recovery

__all__ = ["TailProbe"]


class TailProbe(Recovery):
    """The layer that sends a probe, and judges what came of it; timers.py says when."""

    __slots__ = ()

    retransmissions: int
    tail_probes: int

    def _probe_tail(self, segments: list[SentSegment], now: float) -> None:
        """RFC 8985, 7.3: a new segment, even beyond the congestion window, or else the last one again."""
        self._tail_due = False
        size = min(self.mss, self.buffered)
        if size and self.window - (self.nxt - self.una) >= size:
            self._tail_resent = False
            self._cut(segments, size, self.mss, now)
        else:
            if self.probe is not None:
                self._drop_probe()
            last = self.board.last_pending
            if last is None:
                self._tail_end = None
                return
            self._tail_resent = True
            self.board.resend(last, now)
            self.tail_probes += 1
            segments.append(last)
        self.last_sent = now
        self._tail_end = self.nxt

    def _judge_probe(
        self, ack: Position, acked: int, blocks: bool, duplicate: bool, empty: bool, in_flight: int, now: float
    ) -> None:
        """Whether the probe is answered, and whether it repaired a loss (RFC 8985, 7.4.2)."""
        end = self._tail_end
        assert end is not None
        if ack < end:
            return
        if not self._tail_resent or duplicate or (ack == end and not acked and not blocks and empty):
            # Original and probe have both arrived, or it was new data.
            self._tail_end = None
        elif ack > end:
            # Only one of the two: the original was lost, and the probe was what sent it again.
            self._tail_end = None
            self.tail_probes -= 1
            self.retransmissions += 1
            if self._recovery_point is None:
                # What a DSACK says of the last episode would take this one's reduction back.
                self._undo.active = False
                self.congestion.handle_loss(in_flight, now)
                self.congestion.handle_recovered(self.board.pipe, now)
