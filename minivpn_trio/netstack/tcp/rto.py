"""The retransmission timeout (RFC 6298), with Linux's floor of 200 ms on the variance term.

The RFC's floor is one second on the whole; every modern stack goes lower,
because SACK and timestamps made a spurious timeout cheap.
"""

from __future__ import annotations

from math import inf

__all__ = ["RetransmissionTimeout"]


class RetransmissionTimeout:
    """Smoothed round-trip time and what follows from it. All values are seconds."""

    __slots__ = ("_ceiling", "_floor", "_initial", "backoff", "min_rtt", "rttvar", "srtt")

    def __init__(self, *, initial: float, floor: float, ceiling: float) -> None:
        self._initial = initial
        self._floor = floor
        self._ceiling = ceiling
        self.srtt: float = 0.0
        self.rttvar: float = 0.0
        #: The shortest round trip seen; 0.0 before the first sample, inf before the first one on another path.
        self.min_rtt: float = 0.0
        #: Timeouts in a row without progress.
        self.backoff: int = 0

    def sample(self, rtt: float) -> None:
        """One measurement of a segment that was sent once only (Karn), RFC 6298 2.2 and 2.3."""
        rtt = max(rtt, 1e-6)
        if self.srtt == 0.0:
            self.srtt, self.rttvar, self.min_rtt = rtt, rtt / 2, rtt
            return
        self.rttvar += (abs(self.srtt - rtt) - self.rttvar) / 4
        self.srtt += (rtt - self.srtt) / 8
        self.min_rtt = min(self.min_rtt, rtt)

    def forget_shortest(self) -> None:
        """The path is another one: the shortest round trip is that of the next sample."""
        if self.min_rtt:
            self.min_rtt = inf

    def progress(self) -> None:
        """New data was acknowledged: what was backed off starts afresh."""
        self.backoff = 0

    def expire(self) -> None:
        """The timer went off (RFC 6298, 5.5)."""
        self.backoff += 1

    @property
    def value(self) -> float:
        """How long to wait from now for an acknowledgement."""
        base = self.srtt + max(4 * self.rttvar, self._floor) if self.srtt else self._initial
        # 2**30 is beyond any ceiling; the limit keeps the float finite.
        return float(min(base * 2 ** min(self.backoff, 30), self._ceiling))
