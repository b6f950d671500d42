"""What may go out now: first what was lost, then what is new, as far as both windows, recovery and pacing let it."""

from __future__ import annotations

from math import inf

from ...sequence import Position
from ..sent_segment import SentSegment
from .acknowledgements import Acknowledgements
from .state import Timer

__all__ = ["Sender"]

#: A train is what the window lets out in this time, so that it does not fill a short queue at once.
_TRAIN_TIME = 0.002


class Sender(Acknowledgements):
    """Positions are unwrapped sequence numbers, sizes bytes, times seconds."""

    __slots__ = ()

    deadline: float
    fin_sent: bool
    nxt: Position
    probe: SentSegment | None
    probe_size: int
    retransmissions: int
    stalled_since: float

    def take_segments(self, limit: int, now: float) -> list[SentSegment]:
        """Up to ``limit`` segments to send now: first what was lost, then what is new. They count as sent."""
        board = self.board
        segments: list[SentSegment] = []
        if self._tail_due:
            self._probe_tail(segments, now)
            if segments:
                return segments
        pacer = self.pacer
        congestion = self.congestion
        control = self._rate_control
        if self._settings.pacing:
            if control is None:
                pacer.set_window(congestion.window, congestion.window < congestion.threshold, self.rto.srtt)
            else:
                pacer.set_rate(control.pacing_rate, self.rto.srtt)
        limit = min(limit, pacer.allowance(self.mss, now))
        if not limit:
            return segments
        recovering = self._recovery_point is not None
        budget = self.congestion.window - board.pipe
        if not self.sack:
            # Each duplicate acknowledgement says that a segment has left the network (RFC 3042, RFC 5681).
            budget += self._duplicates * self.mss
        elif recovering and not self._slow and control is None:
            budget = self._prr.budget
        lost = board.next_lost()
        if lost is not None:
            if self._retransmit_now:
                budget = max(budget, self.mss)
            while lost is not None and len(segments) < limit:
                size = lost.end - lost.start
                if budget < size and board.pipe:
                    break
                board.resend(lost, now, self._departing(now))
                segments.append(lost)
                budget -= size
                lost = board.next_lost()
            self._retransmit_now = False
            if segments:
                self.retransmissions += len(segments)
                self._undo.resent(len(segments), now)
        if lost is None and len(segments) < limit and (self.buffered or (self.fin and not self.fin_sent)):
            self._take_new(segments, limit - len(segments), budget, now)
        if recovering and not segments and not self._rescued and not self._slow and budget >= self.mss and self.sack:
            self._rescue(segments, now)
        if segments:
            self.last_sent = now
            size = sum([segment.end - segment.start for segment in segments])
            if recovering:
                self._prr.sent(size)
            pacer.sent(size)
            if self._delivery is not None and not self.buffered and board.pipe < congestion.window:
                self._delivery.starved(board.pipe)
            if self.deadline == inf or self._timer is Timer.PERSIST:
                if self.una == segments[0].start:
                    self.stalled_since = now
                self._arm(now, 0.0)
        elif self.deadline == inf and self.una == self.nxt and (self.buffered or (self.fin and not self.fin_sent)):
            # The peer's window holds us back: ask again, lest its update got lost (RFC 9293, 3.8.6.1).
            self._timer = Timer.PERSIST
            self.stalled_since = now
            self.deadline = now + self.rto.value
        return segments

    def _may_probe(self, size: int) -> bool:
        """Whether the first of ``size`` bytes may be a larger segment than others."""
        # What is behind it shows its loss, by three duplicates without SACK. By itself that would take a timeout, and
        # count as one (RFC 4821, 7.3).
        behind = self.mss if self.sack else 3 * self.mss
        # Where a model of the path decides, losses do not slow it down: on a lossy path it recovers all the time.
        calm = self._recovery_point is None or (self._rate_control is not None and not self._slow)
        return calm and self.probe_size + behind <= size

    def _take_new(self, segments: list[SentSegment], limit: int, budget: int, now: float) -> None:
        in_flight = self.nxt - self.una
        if not in_flight and self.last_sent and now - self.last_sent > self.rto.value:
            self.congestion.handle_idle(now)
            budget = self.congestion.window
        mss = self.mss
        usable = min(budget, self.window - in_flight)
        waiting = self.buffered
        if not self.nodelay and in_flight and not self.fin:
            # Nagle's algorithm (RFC 9293, 3.7.4): whole segments only.
            waiting -= waiting % mss
        if usable < waiting:
            # Not all may go. Wait for room for a train, but for no more than a third of the window.
            window = min(self.congestion.window, self.window)
            train = min(self._settings.train_min_segments * mss, window // 3, waiting)
            if train > 2 * mss and self.rto.srtt > 0.003:
                train = max(min(train, int(window * _TRAIN_TIME / self.rto.srtt)), 2 * mss)
            if (
                in_flight
                and usable < train
                and self._recovery_point is None
                and not (self.board.sacked or self._duplicates)
            ):
                return
            if usable < mss and not self._override and (in_flight or usable < self.max_window // 2):
                return
        count = min(-(-min(usable, waiting) // mss), limit) if waiting and usable > 0 else 0
        if mss <= usable < waiting:
            # Whole segments only: a fragment of one would be a silly window.
            count = min(usable // mss, limit)
        self._override = False
        if count > 0:
            size = min(count * mss, usable, waiting)
            if self.probe_size and self._may_probe(size):
                self._cut(segments, self.probe_size, self.probe_size, now)
                self.probe = segments[-1]
                size -= self.probe_size
                self.probe_size = 0
            if size:
                self._cut(segments, size, mss, now)
        if self.fin and not self.buffered and not self.fin_sent and count < limit and self.window > self.nxt - self.una:
            # A FIN takes a position, and needs a window that is open: a peer may ignore it otherwise.
            segment = SentSegment(self.nxt, self.nxt + 1, b"", now)
            self.board.extend([segment], 1)
            segments.append(segment)
            self.nxt += 1
            self.fin_sent = True
