"""What an acknowledgement says: bytes that arrived, the round-trip time, the rate of delivery, the peer's window."""

from __future__ import annotations

from math import inf

from ...sequence import Position
from .state import Timer
from .timers import Timers

__all__ = ["Acknowledgements"]


class Acknowledgements(Timers):
    """The layer that takes acknowledgements."""

    __slots__ = ()

    deadline: float
    max_window: int
    retries: int
    stalled_since: float
    una: Position
    window: int
    wl1: int
    wl2: int

    def handle_ack(
        self,
        ack: Position,
        window: int,
        seq: Position,
        blocks: tuple[tuple[Position, Position], ...],
        empty: bool,
        now: float,
        echoed: float = -1.0,
    ) -> int:
        """An acceptable acknowledgement (una - max_window <= ack <= nxt) in a segment at ``seq`` that was
        ``empty`` or not.

        ``window`` is scaled to bytes; ``blocks`` are unwrapped SACK blocks; ``echoed`` is when we sent what
        its timestamp echoes, -1.0 if unknown. Returns the number of newly acknowledged bytes.
        """
        same_window = window == self.window
        opened = self._update_window(ack, window, seq, now)
        acked = ack - self.una
        board = self.board
        in_flight = self.nxt - self.una
        outstanding = in_flight - board.sacked_bytes
        if acked > 0:
            self.una = ack
            if board.sacked and board.fills(ack):
                self.rack.reordering = True
            board.acknowledge(ack)
            self._duplicates = 0
        else:
            board.sample = board.resent = None
            board.late = 0
        # Karn: who knows which of the two was acknowledged.
        ambiguous = board.resent is not None
        duplicate = bool(blocks) and self._take_blocks(blocks, ack, now)
        sample = board.sample
        rtt = 0.0
        if sample is not None:
            if not ambiguous:
                rtt = now - sample.sent_at
                self.rto.sample(rtt)
            self.rack.delivered(sample, now)
        resent = board.resent
        if resent is not None and (
            echoed >= resent.sent_at - 0.0015 if echoed >= 0 else now - resent.sent_at >= self.rto.min_rtt
        ):
            # Surely the retransmission, not the original.
            self.rack.delivered(resent, now)
        if acked > 0:
            self.retries = 0
            self.rto.progress()
            self.stalled_since = now
            if self._undo.active:
                everything = self._recovery_point is not None and ack >= self._recovery_point
                if self._undo.advanced(echoed, board.late, everything, self.sack):
                    self._take_back(now)
            if self._recovery_point is None:
                self.congestion.handle_ack(acked, in_flight, rtt, now)
            else:
                self._advance_recovering(acked, in_flight, rtt, now)
        elif not self.sack and acked == 0 and empty and same_window and in_flight:
            self._duplicates += 1
        if self._tail_end is not None:
            self._judge_probe(ack, acked, bool(blocks), duplicate, empty, in_flight, now)
        found, waiting = False, 0.0
        if (board.sacked or self._recovery_point is not None or self._duplicates) and self.una < self.nxt:
            found, waiting = self._detect_losses(acked, outstanding, now)
            if self._recovery_point is not None and not self._slow and self._rate_control is None:
                delivered = outstanding - (self.nxt - self.una - board.sacked_bytes)
                if delivered or found:
                    self._prr.acknowledged(
                        delivered, board.pipe, self.congestion.threshold, acked > 0 and not found, self.mss
                    )
        if self._rate_control is not None:
            self._measure_rate(outstanding - (self.nxt - self.una - board.sacked_bytes), rtt, now)
        if opened and self.una < self.nxt:
            # Whatever was sent against a closed window was thrown away: at once again, not when the timer says so.
            self._retransmit_now = board.lose_first() or self._retransmit_now
            self._arm(now, 0.0)
        elif acked > 0 or waiting or found:
            self._arm(now, waiting)
        return max(acked, 0)

    def _measure_rate(self, size: int, rtt: float, now: float) -> None:
        """``size`` bytes have arrived: tell the congestion control how fast."""
        control, delivery, board = self._rate_control, self._delivery, self.board
        if size <= 0 or control is None or delivery is None:
            return
        newest, resent = board.sample, board.resent
        if newest is None or (resent is not None and resent.sent_at > newest.sent_at):
            newest = resent
        departure, sent_at = (None, 0.0) if newest is None else (newest.departure, newest.sent_at)
        sample = delivery.arrived(size, departure, sent_at, self.rto.min_rtt, now)
        control.handle_rate(sample, delivery.delivered, size, board.pipe, rtt, now)

    def _update_window(self, ack: Position, window: int, seq: Position, now: float) -> bool:
        """True: the window was closed, and opens."""
        opened = False
        una = self.una
        # News is what acknowledges more, also in a segment that was sent again; otherwise what has a later number
        # (RFC 9293, 3.10.7.4). Without the former a window would stay as large as it was and move along with una.
        if ack > una or (ack == una and (self.wl1 < seq or (self.wl1 == seq and self.wl2 <= ack))):
            if self._timer is Timer.PERSIST or not (window and self.window):
                # Any answer shows that the peer lives (RFC 9293, 3.8.6.1).
                self.retries = 0
                if window:
                    self.rto.progress()
                    if self._timer is Timer.PERSIST and window != self.window:
                        # The same small window again is no reason to wait anew (RFC 9293, 3.8.6.2.1: the override).
                        self._timer = Timer.RETRANSMIT
                        self.deadline = inf
            opened = window > 0 and not self.window
            self.window = window
            self.wl1, self.wl2 = seq, ack
            self.max_window = max(self.max_window, window)
        return opened
