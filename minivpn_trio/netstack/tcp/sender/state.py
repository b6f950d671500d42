"""What the sending half of a connection holds."""

from __future__ import annotations

from collections import deque
from enum import Enum
from math import inf
from typing import cast

from ...sequence import Position
from ..congestion import CongestionControl, RateControl
from ..delivery_rate import DeliveryRate
from ..pacing import Pacer
from ..prr import ProportionalRateReduction
from ..rack import Rack
from ..rto import RetransmissionTimeout
from ..scoreboard import Scoreboard
from ..sent_segment import SentSegment
from ..settings import TcpSettings
from ..undo import Undo

__all__ = ["SEGMENT_COST", "SenderState", "Timer"]

#: What a segment in flight takes besides its bytes: the objects, and its position. Measured.
SEGMENT_COST = 192


class Timer(Enum):
    """What ``deadline`` is for."""

    RETRANSMIT = 0
    #: The tail loss probe.
    TAIL = 1
    #: It was too early to call a segment lost.
    REORDER = 2
    #: The peer's window holds us back.
    PERSIST = 3


class SenderState:
    """The state of a sender, and what can be asked about it."""

    __slots__ = (
        "_buffer",
        "_delivery",
        "_duplicates",
        "_head_offset",
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
        "last_sent",
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
        self._timer = Timer.RETRANSMIT
        #: ``nxt`` when the tail loss probe went out, until it is answered; whether it was a retransmission.
        self._tail_end: Position | None = None
        self._tail_resent = self._tail_due = False
        self._override = False
        #: When something was sent last; 0.0: never.
        self.last_sent: float = 0.0

    def set_congestion(self, congestion: CongestionControl) -> None:
        """From now on this algorithm decides. What is in flight tells it nothing."""
        for segment in self.board:
            segment.departure = None
        self.congestion = congestion
        # A protocol's own isinstance takes 50 us.
        self._rate_control = cast("RateControl", congestion) if hasattr(congestion, "handle_rate") else None
        self._delivery = None if self._rate_control is None else DeliveryRate()

    @property
    def rate_based(self) -> bool:
        """Whether the congestion control goes by the rate of delivery."""
        return self._rate_control is not None

    @property
    def unacknowledged(self) -> int:
        """Bytes that the send buffer holds, sent or not."""
        return self.nxt - self.una + self.buffered

    @property
    def flight_cost(self) -> int:
        """What the memory budget is charged with for what is in flight: peers choose how small segments are."""
        return self.nxt - self.una + SEGMENT_COST * len(self.board)

    @property
    def buffered_cost(self) -> int:
        """The same for what is not sent yet: what it will be as segments, so that sending them needs no more."""
        return self.buffered + SEGMENT_COST * (self.buffered // self.mss)

    @property
    def done(self) -> bool:
        """Everything, FIN included, was acknowledged."""
        return self.fin_sent and self.una == self.nxt

    @property
    def in_recovery(self) -> bool:
        """A loss was detected and is not yet repaired."""
        return self._recovery_point is not None
