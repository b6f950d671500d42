"""The sending half of a connection: the send buffer, what may go out, loss recovery, and the retransmission timer.

Bytes wait in chunks as they were written, become segments when they may be
sent, and stay in the scoreboard until they are acknowledged. Loss is
found by RACK (rack.py) and repaired at the pace of PRR (prr.py); without SACK by three duplicate
acknowledgements (RFC 6582); and at last by the timer, after which everything unacknowledged
counts as lost and goes again from the first byte, in slow start. A probe after two round trips
of silence (TLP, RFC 8985) saves most of those timeouts. undo.py finds out what was for nothing.

The order of business for the owner: ``handle_ack`` for acknowledgements,
``handle_timeout`` when ``deadline`` has passed, then ``take_segments`` until it
returns nothing.
"""

from __future__ import annotations

from collections import deque
from enum import Enum
from math import inf
from typing import cast

from ..sequence import Position
from .congestion import CongestionControl, RateControl
from .delivery_rate import DeliveryRate, Departure
from .pacing import Pacer
from .prr import ProportionalRateReduction
from .rack import Rack
from .rto import RetransmissionTimeout
from .scoreboard import Scoreboard, SentSegment
from .settings import TcpSettings
from .undo import Undo

__all__ = ["Sender"]

#: RFC 8985, 7.2: for a single segment in flight, the peer's delayed acknowledgement; and no probe sooner than this,
#: for a process that the system did not run meanwhile has acknowledgements waiting that it did not see yet.
_PEERS_DELAY, _LEAST_PROBE = 0.2, 0.03
#: A train is what the window lets out in this time, so that it does not fill a short queue at once.
_TRAIN_TIME = 0.002


class _Timer(Enum):
    """What ``deadline`` is for."""

    RETRANSMIT = 0
    #: The tail loss probe.
    TAIL = 1
    #: It was too early to call a segment lost.
    REORDER = 2
    #: The peer's window holds us back.
    PERSIST = 3


class Sender:
    """Positions are unwrapped sequence numbers, sizes bytes, times seconds."""

    __slots__ = (
        "_buffer",
        "_delivery",
        "_duplicates",
        "_head_offset",
        "_last_sent",
        "_override",
        "_prr",
        "_rate_control",
        "_recovery_point",
        "_rescued",
        "_retransmit_now",
        "_settings",
        "_slow",
        "_tail_due",
        "_tail_end",
        "_tail_resent",
        "_timer",
        "_undo",
        "board",
        "buffered",
        "congestion",
        "deadline",
        "fin",
        "fin_sent",
        "max_window",
        "mss",
        "nodelay",
        "nxt",
        "pacer",
        "probe",
        "probe_size",
        "rack",
        "retransmissions",
        "retries",
        "rto",
        "sack",
        "stalled_since",
        "tail_probes",
        "timeouts",
        "una",
        "user_timeout",
        "window",
        "wl1",
        "wl2",
    )

    fin: bool
    fin_sent: bool
    max_window: int
    nxt: Position
    una: Position
    window: int
    wl1: int
    wl2: int

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
        self.mss: int = mss
        self.sack: bool = sack
        self.congestion: CongestionControl = congestion
        self._delivery: DeliveryRate | None = None
        self._rate_control: RateControl | None = None
        self.rto: RetransmissionTimeout = rto
        self.board: Scoreboard = Scoreboard()
        self.rack: Rack = Rack()
        self.pacer: Pacer = Pacer()
        self.set_congestion(congestion)
        #: The peer's window, from ``una``; its largest so far; the segment that set it (RFC 9293, SND.WL1, SND.WL2).
        self.window = self.max_window = 0
        self.wl1 = self.wl2 = 0
        #: When ``handle_timeout`` is due; inf: never.
        self.deadline: float = inf
        #: Timeouts, or probes, in a row that brought nothing.
        self.retries: int = 0
        #: Bytes accepted and not sent.
        self.buffered: int = 0
        #: A FIN follows what is buffered; it was sent.
        self.fin = self.fin_sent = False
        #: Segments sent again because they counted as lost.
        self.retransmissions: int = 0
        #: Segments sent again to ask whether they were.
        self.tail_probes: int = 0
        self.timeouts: int = 0
        #: Less than a segment does not wait for an acknowledgement of what is in flight.
        self.nodelay: bool = True
        #: Since when what was written waits for any progress; and how long it may, None: for all retries.
        self.stalled_since: float = 0.0
        self.user_timeout: float | None = settings.user_timeout
        #: Size of one segment, larger than ``mss``, to try the path with; and that segment, once it was sent.
        self.probe_size: int = 0
        self.probe: SentSegment | None = None
        self._settings = settings
        self._buffer: deque[bytes] = deque()
        self._head_offset = 0
        #: End of what was in flight when a loss was detected; None outside of recovery.
        self._recovery_point: Position | None = None
        #: Recovery is from a timeout: slow start, not proportional reduction.
        self._slow = False
        self._retransmit_now = False
        self._rescued = False
        self._duplicates = 0
        self._prr = ProportionalRateReduction()
        self._undo = Undo()
        self._timer = _Timer.RETRANSMIT
        #: ``nxt`` when the tail loss probe went out, until it is answered; whether it was a retransmission.
        self._tail_end: Position | None = None
        self._tail_resent = self._tail_due = False
        self._override = False
        self._last_sent = 0.0

    @property
    def rate_based(self) -> bool:
        """Whether the congestion control goes by the rate of delivery."""
        return self._rate_control is not None

    def set_congestion(self, congestion: CongestionControl) -> None:
        """From now on this algorithm decides. What is in flight tells it nothing."""
        for segment in self.board:
            segment.departure = None
        self.congestion = congestion
        # A protocol's own isinstance takes 50 us.
        self._rate_control = cast("RateControl", congestion) if hasattr(congestion, "handle_rate") else None
        self._delivery = None if self._rate_control is None else DeliveryRate()

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
        duplicate = bool(blocks) and self._take_blocks(blocks, now)
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
            # An acknowledgement of everything proves nothing: a lost segment that came again explains it as well
            # (RFC 5682, 2.1, step 2a).
            late = board.late if self._recovery_point is None or ack < self._recovery_point else 0
            if self._undo.active and self._undo.advanced(echoed, late, self.sack):
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
            found, waiting = self._detect_losses(acked, now)
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

    def _take_blocks(self, blocks: tuple[tuple[Position, Position], ...], now: float) -> bool:
        """SACK. True: the first block is a DSACK (RFC 2883)."""
        board, una, nxt = self.board, self.una, self.nxt
        highest = max(board.highest, una)
        start, end = blocks[0]
        duplicate = una - max(self.max_window, 0xFFFF) < start < end and (
            end <= una or (len(blocks) > 1 and blocks[1][0] <= start and end <= blocks[1][1])
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

    def _update_window(self, ack: Position, window: int, seq: Position, now: float) -> bool:
        """True: the window was closed, and opens."""
        opened = False
        if self.wl1 < seq or (self.wl1 == seq and self.wl2 <= ack):
            if self._timer is _Timer.PERSIST or not (window and self.window):
                # Any answer shows that the peer lives (RFC 9293, 3.8.6.1).
                self.retries = 0
                if window:
                    self.rto.progress()
                    if self._timer is _Timer.PERSIST:
                        self._timer = _Timer.RETRANSMIT
                        self.deadline = inf
            opened = window > 0 and not self.window
            self.window = window
            self.wl1, self.wl2 = seq, ack
            self.max_window = max(self.max_window, window)
        return opened

    def _advance_recovering(self, acked: int, in_flight: int, rtt: float, now: float) -> None:
        """``una`` moved in recovery: leave it, or grow the window after a timeout."""
        point = self._recovery_point
        assert point is not None
        if self.una >= point:
            self._recovery_point = None
            self._slow = False
            self.rack.recovered()
            self.congestion.handle_recovered(self.board.pipe, now)
        elif self._slow and self.congestion.window < self.congestion.threshold:
            # After a timeout: slow start, while the holes are filled.
            self.congestion.handle_ack(acked, max(in_flight, self.congestion.window), rtt, now)

    def _detect_losses(self, acked: int, now: float) -> tuple[bool, float]:
        """Whether something new is lost; when to look again (0.0: no need)."""
        board = self.board
        recovering = self._recovery_point is not None
        waiting = 0.0
        if self.sack:
            rack, rto = self.rack, self.rto
            tolerance = rack.rtt + rack.tolerance(recovering, board.sacked, rto.min_rtt, rto.srtt)
            lost, waiting = board.detect_losses(rack.sent_at, rack.end, now - tolerance)
            if waiting:
                waiting += tolerance + 0.0005
            if lost and self.probe is not None and self.probe.lost:
                lost -= self.probe.end - self.probe.start
                self._drop_probe()
                self._retransmit_now = True
            found = lost > 0
            if self._delivery is not None and lost > 0:
                self._delivery.losing(lost, not recovering)
        elif not recovering:
            found = self._duplicates == 3 and board.lose_first()
        else:
            # RFC 6582: a partial acknowledgement names the next hole, which goes out at once.
            found = acked > 0 and board.lose_first()
            self._retransmit_now = self._retransmit_now or found
        if found and not recovering:
            self._begin_recovery(acked, now)
        return found, waiting

    def _begin_recovery(self, acked: int, now: float) -> None:
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
        self._prr.begin(in_flight, self.mss)

    def _drop_probe(self) -> None:
        """The larger segment did not get through: no sign of congestion, only of its size."""
        self.probe = None
        self.board.resegment(self.mss)

    # --- the tail loss probe ---

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
        self._last_sent = now
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
                self.congestion.handle_loss(in_flight, now)
                self.congestion.handle_recovered(self.board.pipe, now)

    def _arm(self, now: float, waiting: float) -> None:
        """Choose the timer: ``waiting`` is when to look for losses again, 0.0 if there is no need."""
        if self.una == self.nxt:
            self.deadline = inf
            self._timer = _Timer.RETRANSMIT
            return
        rto = self.rto
        delay = rto.value
        self._timer = _Timer.RETRANSMIT
        if waiting:
            self.deadline = max(waiting, now)
            self._timer = _Timer.REORDER
            return
        if self.sack and self._recovery_point is None and self._tail_end is None and rto.srtt and not self.board.sacked:
            probe = max(2 * rto.srtt + (_PEERS_DELAY if len(self.board) == 1 else 0.0), _LEAST_PROBE)
            if probe < delay:
                delay = probe
                self._timer = _Timer.TAIL
        self.deadline = now + delay
        if self.user_timeout is not None:
            self.deadline = min(self.deadline, max(self.stalled_since + self.user_timeout, now))

    # --- what goes out ---

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
                pacer.set_rate(control.pacing_rate)
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
            self._last_sent = now
            size = sum([segment.end - segment.start for segment in segments])
            if recovering:
                self._prr.sent(size)
            pacer.sent(size)
            if self._delivery is not None and not self.buffered and board.pipe < congestion.window:
                self._delivery.starved(board.pipe)
            if self.deadline == inf or self._timer is _Timer.PERSIST:
                if self.una == segments[0].start:
                    self.stalled_since = now
                self._arm(now, 0.0)
        elif self.deadline == inf and self.una == self.nxt and (self.buffered or (self.fin and not self.fin_sent)):
            # The peer's window holds us back: ask again, lest its update got lost (RFC 9293, 3.8.6.1).
            self._timer = _Timer.PERSIST
            self.stalled_since = now
            self.deadline = now + self.rto.value
        return segments

    def _departing(self, now: float) -> Departure | None:
        delivery = self._delivery
        return None if delivery is None else delivery.departing(self.nxt - self.una - self.board.sacked_bytes, now)

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

    def _take_new(self, segments: list[SentSegment], limit: int, budget: int, now: float) -> None:
        in_flight = self.nxt - self.una
        if not in_flight and self._last_sent and now - self._last_sent > self.rto.value:
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
            if self.probe_size and self.probe_size <= size and self._recovery_point is None:
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

    # --- the timer ---

    def resume(self, now: float) -> None:
        """The path is there again. What the timer went off for meanwhile, in vain, need not wait for its next time,
        which may be two minutes away."""
        if self.rto.backoff and self.deadline < inf:
            self.retries = 0
            self.rto.progress()
            if self.una < self.nxt:
                self._timer = _Timer.RETRANSMIT
            self.deadline = now

    def set_user_timeout(self, seconds: float | None, now: float) -> None:
        """How long what was written may wait for progress."""
        self.user_timeout = seconds
        if self.deadline < inf and seconds is not None:
            self.deadline = min(self.deadline, max(self.stalled_since + seconds, now))

    def expired(self, now: float, most: int) -> bool:
        """Whether it is time to give up: ``most`` timeouts in a row, or the user's patience is over."""
        if self.user_timeout is not None and (self.una < self.nxt or self.buffered):
            return now - self.stalled_since >= self.user_timeout
        return self.retries >= most and self._timer in (_Timer.RETRANSMIT, _Timer.PERSIST)

    def handle_timeout(self, now: float) -> bool:
        """``deadline`` has passed. True: ask the peer for its window, with an old sequence number and no data."""
        timer = self._timer
        if timer is _Timer.REORDER:
            _, waiting = self._detect_losses(0, now)
            self._arm(now, waiting)
            return False
        if timer is _Timer.TAIL:
            self._tail_due = True
            self._tail_end = self.nxt
            self._arm(now, 0.0)
            return False
        self.retries += 1
        in_flight = self.nxt - self.una
        self.rto.expire()
        if not in_flight:
            self.deadline = now + self.rto.value
            if self.user_timeout is not None:
                self.deadline = min(self.deadline, max(self.stalled_since + self.user_timeout, now))
            # A window that stays small is used at last (RFC 9293, 3.8.6.2.1).
            self._override = self.window > 0
            return True
        self.timeouts += 1
        board = self.board
        flight = board.pipe if self._slow else in_flight
        if self.probe is not None:
            self._drop_probe()
        first = board.first
        # The first segment SACKed and yet not acknowledged: the peer changed its mind.
        board.lose_all(forget_sacks=(first is not None and first.sacked) or self.retries > 1)
        # A peer that took its window back throws away what comes: not a sign of congestion either.
        self.congestion.handle_timeout(max(flight, 1) if self.retries == 1 and self.window else 0, now)
        if self.retries == 1 and self.window:
            self._undo.begin(self.una)
        self._recovery_point = self.nxt
        self._slow = True
        self._tail_end = None
        self._tail_due = False
        self._retransmit_now = True
        self._duplicates = 0
        self._arm(now, 0.0)
        return False

    def set_mss(self, mss: int) -> None:
        """Segments are at most ``mss`` from now on, those in flight included if they are sent again."""
        if mss < self.mss:
            self.board.resegment(mss)
        self.probe = None
        self.probe_size = 0
        self.mss = mss
        self.congestion.handle_mss(mss)

    def discard(self) -> None:
        """Forget everything: the connection is gone."""
        self._buffer.clear()
        self.buffered = self._head_offset = 0
        self.board = Scoreboard()
        self.deadline = inf
