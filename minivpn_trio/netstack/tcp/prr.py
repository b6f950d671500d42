"""Proportional Rate Reduction (RFC 9937): how much may go out in fast recovery, acknowledgement by acknowledgement.

While more than the new window is in the network, as much goes out as arrives times the reduction;
below that, what arrived and a segment more, until the window is full again (the slow start
reduction bound). So the flight shrinks evenly over one round trip, whatever was lost, and never stops.

What one acknowledgement allows and nobody sent before the next one came stays allowed: they come in bursts, and the
RFC, which counts anew with each, takes for granted that something goes out in between.
"""

from __future__ import annotations

__all__ = ["ProportionalRateReduction"]


class ProportionalRateReduction:
    """Sizes are bytes."""

    __slots__ = ("_delivered", "_flight", "_out", "budget")

    def __init__(self) -> None:
        #: What may go out now.
        self.budget: int = 0
        self._flight = 1
        self._delivered = 0
        self._out = 0

    def begin(self, flight: int) -> None:
        """A loss was detected with ``flight`` under way, that is, neither acknowledged nor SACKed before (RFC 9937,
        5, RecoverFS)."""
        self._flight = max(flight, 1)
        self._delivered = self._out = self.budget = 0

    def acknowledged(self, delivered: int, pipe: int, threshold: int, good: bool, mss: int) -> None:
        """``delivered`` bytes arrived. ``good``: ``una`` moved, and no more loss came to light."""
        self._delivered += delivered
        if pipe > threshold:
            budget = -(-self._delivered * min(threshold, self._flight) // self._flight) - self._out
        else:
            # Conservation of packets, and a segment more if all goes well; no more than what arrived, lest a peer that
            # acknowledges byte by byte make it a burst.
            unused = max(self.budget, 0)
            limit = max(self._delivered - self._out, unused + delivered) + (min(mss, delivered) if good else 0)
            budget = min(threshold - pipe, limit)
        self.budget = max(budget, 0 if self._out else mss)

    def sent(self, size: int) -> None:
        """``size`` bytes went out."""
        self._out += size
        self.budget -= size
