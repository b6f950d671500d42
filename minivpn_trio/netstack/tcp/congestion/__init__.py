"""Congestion control: how much may be in flight.

One small interface, so that algorithms can be exchanged by name. Loss
detection and retransmission are not here; they tell the algorithm what
happened and obey ``window``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from ..delivery_rate import RateSample
from .bbr import Bbr
from .cubic import Cubic
from .newreno import NewReno

__all__ = ["ALGORITHMS", "Bbr", "CongestionControl", "Cubic", "NewReno", "RateControl"]


class CongestionControl(Protocol):
    """What the sender needs. Sizes are bytes; ``now`` is seconds."""

    #: Bytes that may be in flight.
    window: int
    #: Where slow start ends. The owner may lower it before anything was sent.
    threshold: int

    def handle_ack(self, acked: int, in_flight: int, rtt: float, now: float) -> None:
        """``acked`` new bytes, cumulatively, outside recovery; ``in_flight`` as it was before."""
        ...

    def handle_loss(self, in_flight: int, now: float) -> None:
        """Loss was detected by acknowledgements; once per window (RFC 6675, 5)."""
        ...

    def handle_timeout(self, in_flight: int, now: float) -> None:
        """The retransmission timer went off; ``in_flight`` as it was before, 0 when it had gone off already."""
        ...

    def handle_recovered(self, in_flight: int, now: float) -> None:
        """Everything that was in flight when the loss was detected is acknowledged; ``in_flight`` is left."""
        ...

    def handle_undo(self, now: float) -> None:
        """The last loss or timeout was none: everything had only been late (RFC 4015, RFC 3708)."""
        ...

    def handle_idle(self, now: float) -> None:
        """Nothing was sent for longer than a retransmission timeout (RFC 5681, 4.1)."""
        ...

    def handle_mss(self, mss: int) -> None:
        """The segment size changed."""
        ...


class RateControl(CongestionControl, Protocol):
    """One that knows at which rate to send, and keeps to ``window`` in recovery, too."""

    #: Bytes a second; 0.0: not known yet.
    pacing_rate: float

    def handle_rate(
        self, sample: RateSample | None, delivered: int, size: int, in_flight: int, rtt: float, now: float
    ) -> None:
        """``size`` bytes arrived, SACKed ones included, ``delivered`` since the beginning; ``in_flight`` are left.
        ``rtt`` 0.0: no sample."""
        ...


#: name -> (mss, initial window in segments) -> algorithm
ALGORITHMS: dict[str, Callable[[int, int], CongestionControl]] = {"newreno": NewReno, "cubic": Cubic, "bbr": Bbr}
