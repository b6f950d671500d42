"""Losses found, repaired, and taken back.

With SACK they are found by RACK (rack.py), and what is sent meanwhile is
measured by PRR (prr.py); without it three duplicate acknowledgements are a loss, and
each partial acknowledgement after them the next one (RFC 6582).
"""

from __future__ import annotations

from ...sequence import Position
from ..sent_segment import SentSegment
from .segmentation import Segmentation

__all__ = ["Recovery"]


class Recovery(Segmentation):
    """The layer that knows what is lost."""

    __slots__ = ()

    retransmissions: int

    def _detect_losses(self, acked: int, outstanding: int, now: float) -> tuple[bool, float]:
        """Whether something new is lost; when to look again (0.0: no need). ``outstanding`` is what was neither
        acknowledged nor SACKed before the present acknowledgement, which moved ``una`` by ``acked`` bytes."""
        board = self.board
        recovering = self._recovery_point is not None
        waiting = 0.0
        if self.sack:
            rack, rto = self.rack, self.rto
            tolerance = rack.rtt + rack.tolerance(recovering, board.sacked, rto.min_rtt, rto.srtt)
            known = self.probe is not None and self.probe.lost
            lost, waiting = board.detect_losses(rack.sent_at, rack.end, now - tolerance)
            if waiting:
                waiting += tolerance + 0.0005
            if lost and self.probe is not None and self.probe.lost:
                if not known:
                    lost -= self.probe.end - self.probe.start
                self._drop_probe()
                self._retransmit_now = True
            found = lost > 0
            if self._delivery is not None and lost > 0:
                self._delivery.losing(lost, not recovering)
        elif not recovering:
            found = self._duplicates == 3 and board.lose_first()
            if found and self.probe is not None and self.probe.lost:
                self._drop_probe()
                self._retransmit_now = True
                found = False
        else:
            # RFC 6582: a partial acknowledgement names the next hole, which goes out at once.
            found = acked > 0 and board.lose_first()
            if found and self.probe is not None and self.probe.lost:
                self._drop_probe()
            self._retransmit_now = self._retransmit_now or found
        if found and not recovering:
            self._begin_recovery(acked, outstanding, now)
        return found, waiting

    def _begin_recovery(self, acked: int, outstanding: int, now: float) -> None:
        in_flight = self.nxt - self.una
        self._recovery_point = self.nxt
        self._slow = False
        self._retransmit_now = True
        self._rescued = False
        self._tail_end = None
        self._undo.begin(self.una)
        # A model of the path counts what is under way; the others, what was when it was lost.
        flight = in_flight if self._rate_control is None else self.board.pipe
        self.congestion.handle_loss(flight + acked, now)
        self._prr.begin(outstanding)

    def _advance_recovering(self, acked: int, in_flight: int, rtt: float, now: float) -> None:
        """``una`` moved in recovery: leave it, or grow the window after a timeout."""
        point = self._recovery_point
        assert point is not None
        if self.una >= point:
            self._recovery_point = None
            self._slow = False
            self._undo.over()
            self.rack.recovered()
            self.congestion.handle_recovered(self.board.pipe, now)
        elif self._slow and self.congestion.window < self.congestion.threshold:
            # After a timeout: slow start, while the holes are filled.
            self.congestion.handle_ack(acked, max(in_flight, self.congestion.window), rtt, now)

    def _rescue(self, segments: list[SentSegment], now: float) -> None:
        """RFC 6675, NextSeg 4: nothing else to send, once a recovery the last segment, lest the tail be lost too.
        Only if it is overdue: RACK hears of it anyway, a little later, when a retransmission is acknowledged."""
        last = self.board.last_pending
        if last is None or now - last.sent_at < self.rto.srtt + self.rto.min_rtt / 4:
            return
        self._rescued = True
        self.board.resend(last, now)
        self.retransmissions += 1
        self._undo.resent(1, now)
        segments.append(last)

    def _take_blocks(self, blocks: tuple[tuple[Position, Position], ...], ack: Position, now: float) -> bool:
        """SACK, in a segment that acknowledges ``ack``. True: the first block is a DSACK (RFC 2883)."""
        board, una, nxt = self.board, self.una, self.nxt
        highest = max(board.highest, una)
        start, end = blocks[0]
        duplicate = una - max(self.max_window, 0xFFFF) < start < end and (
            # Not una: in what was overtaken a block may lie below that and be no duplicate.
            end <= ack or (len(blocks) > 1 and blocks[1][0] <= start and end <= blocks[1][1])
        )
        if duplicate:
            self.rack.duplicate(una, nxt)
            if self._undo.active and self._undo.duplicate(start, -(-(end - start) // self.mss)):
                self._take_back(now)
        for start, end in blocks:
            # Blocks below una are DSACKs, or old; those beyond nxt are lies.
            if end <= una or end > nxt or start >= end:
                continue
            first = board.sack(max(start, una), end)
            if first is not None and first < highest:
                self.rack.reordering = True
        return duplicate

    def _take_back(self, now: float) -> None:
        """The reduction was for nothing (RFC 4015)."""
        if not self._slow:
            self.rack.reordering = True
        if self._delivery is not None:
            self._delivery.forgive()
        self.congestion.handle_undo(now)
        self.board.find_all()
        self._recovery_point = None
        self._slow = self._retransmit_now = False
