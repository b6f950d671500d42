"""The sending half of a connection: the send buffer, what may go out, loss recovery, and the retransmission timer.

Bytes wait in chunks as they were written, become segments when they may be
sent, and stay in the scoreboard until they are acknowledged. Loss is
found by SACK (RFC 6675), without SACK by three duplicate acknowledgements
(RFC 6582), and at last by the timer, after which everything unacknowledged
counts as lost and goes again from the first byte, in slow start.

The order of business for the owner: ``handle_ack`` for acknowledgements,
``handle_timeout`` when ``deadline`` has passed, then ``take_segments`` until it
returns nothing.
"""

from __future__ import annotations

from collections import deque
from math import inf

from ..sequence import Position
from .congestion import CongestionControl
from .rto import RetransmissionTimeout
from .scoreboard import Scoreboard, SentSegment
from .settings import TcpSettings

__all__ = ["Sender"]

#: Segments that may follow each other in recovery, beyond two for each one delivered.
_BURST = 32


class Sender:
    """Positions are unwrapped sequence numbers, sizes bytes, times seconds."""

    __slots__ = (
        "_allowance",
        "_buffer",
        "_duplicates",
        "_head_offset",
        "_last_sent",
        "_override",
        "_probing",
        "_recovery_point",
        "_retransmit_now",
        "_settings",
        "board",
        "buffered",
        "congestion",
        "deadline",
        "fin",
        "fin_sent",
        "max_window",
        "mss",
        "nxt",
        "retransmissions",
        "retries",
        "rto",
        "sack",
        "timeouts",
        "una",
        "window",
        "wl1",
        "wl2",
    )

    def __init__(
        self,
        iss: Position,
        *,
        mss: int,
        settings: TcpSettings,
        congestion: CongestionControl,
        rto: RetransmissionTimeout,
        sack: bool,
    ) -> None:
        #: The first unacknowledged position, and the next one to send.
        self.una = self.nxt = iss
        #: Payload of a full segment.
        self.mss = mss
        self.sack = sack
        self.congestion = congestion
        self.rto = rto
        self.board = Scoreboard()
        #: The peer's window, from ``una``; its largest so far; the segment that set it (RFC 9293, SND.WL1, SND.WL2).
        self.window = self.max_window = 0
        self.wl1 = self.wl2 = 0
        #: When ``handle_timeout`` is due; inf: never.
        self.deadline = inf
        #: Timeouts, or probes, in a row that brought nothing.
        self.retries = 0
        #: Bytes accepted and not sent.
        self.buffered = 0
        #: A FIN follows what is buffered; it was sent.
        self.fin = self.fin_sent = False
        self.retransmissions = 0
        self.timeouts = 0
        self._settings = settings
        self._buffer: deque[bytes] = deque()
        self._head_offset = 0
        #: End of what was in flight when a loss was detected; None outside of recovery.
        self._recovery_point: Position | None = None
        self._retransmit_now = False
        self._duplicates = 0
        #: What may go out at once in recovery.
        self._allowance = 0
        self._probing = False
        self._override = False
        self._last_sent = 0.0

    # --- the writer ---

    @property
    def unacknowledged(self) -> int:
        """Bytes that the send buffer holds, sent or not."""
        return self.nxt - self.una + self.buffered

    @property
    def done(self) -> bool:
        """Everything, FIN included, was acknowledged."""
        return self.fin_sent and self.una == self.nxt

    @property
    def in_recovery(self) -> bool:
        """A loss was detected and is not yet repaired."""
        return self._recovery_point is not None

    def write(self, data: bytes) -> None:
        """Queue ``data``, all of it."""
        self._buffer.append(data)
        self.buffered += len(data)

    # --- acknowledgements ---

    def handle_ack(
        self,
        ack: Position,
        window: int,
        seq: Position,
        blocks: tuple[tuple[Position, Position], ...],
        empty: bool,
        now: float,
    ) -> int:
        """An acceptable acknowledgement (una - max_window <= ack <= nxt) in a segment at ``seq`` that was
        ``empty`` or not.

        ``window`` is scaled to bytes; ``blocks`` are unwrapped SACK blocks. Returns the number of newly acknowledged
        bytes.
        """
        same_window = window == self.window
        self._update_window(ack, window, seq, now)
        acked = ack - self.una
        board = self.board
        in_flight = self.nxt - self.una
        outstanding = in_flight - board.sacked_bytes
        sampled: SentSegment | None = None
        ambiguous = False
        if acked > 0:
            self.una = ack
            sampled, ambiguous = board.acknowledge(ack)
            self._duplicates = 0
        news = False
        for start, end in blocks:
            # Blocks below una are DSACKs, or old; those beyond nxt are lies.
            if end <= self.una or end > self.nxt or start >= end:
                continue
            before = board.sacked_bytes
            newest = board.sack(max(start, self.una), end)
            news = news or board.sacked_bytes > before
            if newest is not None and not ambiguous:
                sampled = newest
        rtt = 0.0
        if sampled is not None and not ambiguous:
            rtt = now - sampled.sent_at
            self.rto.sample(rtt)
        delivered = outstanding - (self.nxt - self.una - board.sacked_bytes)
        self._allowance = min(self._allowance, _BURST * self.mss) + 2 * delivered
        if acked > 0:
            self.retries = 0
            self.rto.progress()
            self._probing = False
            self.deadline = now + self.rto.value if self.una < self.nxt else inf
            self._advance(acked, in_flight, rtt, now)
        elif acked == 0 and empty and same_window and in_flight and not blocks:
            self._duplicates += 1
        if self.una < self.nxt:
            self._detect_losses(acked, in_flight, news, now)
        return max(acked, 0)

    def _update_window(self, ack: Position, window: int, seq: Position, now: float) -> None:
        if self.wl1 < seq or (self.wl1 == seq and self.wl2 <= ack):
            if self._probing:
                # Any answer shows that the peer lives.
                self.retries = 0
                if window:
                    self.rto.progress()
                    self._probing = False
                    self.deadline = inf
            self.window = window
            self.wl1, self.wl2 = seq, ack
            self.max_window = max(self.max_window, window)

    def _advance(self, acked: int, in_flight: int, rtt: float, now: float) -> None:
        """``una`` moved: leave recovery, or grow the window."""
        point = self._recovery_point
        if point is None:
            self.congestion.handle_ack(acked, in_flight, rtt, now)
        elif self.una >= point:
            self._recovery_point = None
            self.congestion.handle_recovered(self.board.pipe, now)
        elif self.congestion.window < self.congestion.threshold:
            # After a timeout: slow start, while the holes are filled.
            self.congestion.handle_ack(acked, max(in_flight, self.congestion.window), rtt, now)

    def _detect_losses(self, acked: int, in_flight: int, news: bool, now: float) -> None:
        board = self.board
        if self.sack:
            if not news:
                return
            found = board.detect_losses(self.mss)
        elif self._recovery_point is None:
            found = self._duplicates == 3 and board.lose_first()
        else:
            # RFC 6582: a partial acknowledgement names the next hole, which goes out at once.
            found = acked > 0 and board.lose_first()
            self._retransmit_now = self._retransmit_now or found
        if found and self._recovery_point is None:
            self._recovery_point = self.nxt
            self._retransmit_now = True
            self.congestion.handle_loss(in_flight, now)

    # --- what goes out ---

    def take_segments(self, limit: int, now: float) -> list[SentSegment]:
        """Up to ``limit`` segments to send now: first what was lost, then what is new. They count as sent."""
        board = self.board
        segments: list[SentSegment] = []
        budget = self.congestion.window - board.pipe
        if not self.sack:
            # Each duplicate acknowledgement says that a segment has left the network.
            budget += self._duplicates * self.mss
        if self._recovery_point is not None and board.pipe:
            # A hole that is filled frees much of the window at once; what it frees goes out as it would have.
            budget = min(budget, self._allowance)
        lost = board.next_lost()
        if lost is not None:
            if self._retransmit_now:
                budget = max(budget, self.mss)
            while lost is not None and len(segments) < limit:
                size = lost.end - lost.start
                if budget < size and board.pipe:
                    break
                board.resend(lost, now)
                segments.append(lost)
                self.retransmissions += 1
                budget -= size
                lost = board.next_lost()
            self._retransmit_now = False
        if lost is None and len(segments) < limit and (self.buffered or (self.fin and not self.fin_sent)):
            self._take_new(segments, limit - len(segments), budget, now)
        if segments:
            self._last_sent = now
            self._allowance -= sum(segment.end - segment.start for segment in segments)
            if self.deadline == inf or self._probing:
                self._probing = False
                self.deadline = now + self.rto.value
        elif self.deadline == inf and self.una == self.nxt and (self.buffered or (self.fin and not self.fin_sent)):
            # The peer's window holds us back: ask again, lest its update got lost (RFC 9293, 3.8.6.1).
            self._probing = True
            self.deadline = now + self.rto.value
        return segments

    def _take_new(self, segments: list[SentSegment], limit: int, budget: int, now: float) -> None:
        in_flight = self.nxt - self.una
        if not in_flight and self._last_sent and now - self._last_sent > self.rto.value:
            self.congestion.handle_idle(now)
            budget = self.congestion.window
        mss = self.mss
        usable = min(budget, self.window - in_flight)
        waiting = self.buffered
        if usable < waiting:
            # Not all may go. Wait for room for a train, but for no more than a third of the window.
            window = min(self.congestion.window, self.window)
            train = min(self._settings.train_min_segments * mss, window // 3, waiting)
            if in_flight and usable < train and self._recovery_point is None:
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
            self._cut(segments, size, now)
        if self.fin and not self.buffered and not self.fin_sent and count < limit:
            # A FIN takes a position, yet no room worth speaking of.
            segment = SentSegment(self.nxt, self.nxt + 1, b"", now)
            self.board.extend([segment], 1)
            segments.append(segment)
            self.nxt += 1
            self.fin_sent = True

    def _cut(self, segments: list[SentSegment], size: int, now: float) -> None:
        """Make ``size`` bytes of the buffer into segments."""
        mss, buffer, offset, position = self.mss, self._buffer, self._head_offset, self.nxt
        new: list[SentSegment] = []
        append = new.append
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
            append(SentSegment(position, end, payload, now))
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

    # --- the timer ---

    def handle_timeout(self, now: float) -> bool:
        """``deadline`` has passed. True: ask the peer for its window, with an old sequence number and no data."""
        self.retries += 1
        in_flight = self.nxt - self.una
        self.rto.expire()
        if not in_flight:
            self.deadline = now + self.rto.value
            # A window that stays small is used at last (RFC 9293, 3.8.6.2.1).
            self._override = self.window > 0
            return True
        self.timeouts += 1
        board = self.board
        first = board.first
        # The first segment SACKed and yet not acknowledged: the peer changed its mind.
        board.lose_all(forget_sacks=(first is not None and first.sacked) or self.retries > 1)
        self.congestion.handle_timeout(in_flight if self.retries == 1 else 0, now)
        self._recovery_point = self.nxt
        self._retransmit_now = True
        self._duplicates = 0
        self.deadline = now + self.rto.value
        return False

    def set_mss(self, mss: int) -> None:
        """Segments are at most ``mss`` from now on, those in flight included if they are sent again."""
        if mss < self.mss:
            self.board.resegment(mss)
        self.mss = mss
        self.congestion.handle_mss(mss)

    def discard(self) -> None:
        """Forget everything: the connection is gone."""
        self._buffer.clear()
        self.buffered = self._head_offset = 0
        self.board = Scoreboard()
        self.deadline = inf
