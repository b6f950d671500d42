"""How fast data arrives at the other end, for rate-based control (draft-cheng-iccrg-delivery-rate-estimation).

What leaves together carries a note of how much had been delivered by then. When it is acknowledged, what was delivered
since, over the time that took at either end, whichever was longer, is a sample of the path's rate.
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["DeliveryRate", "Departure", "RateSample"]


class Departure(NamedTuple):
    """The state of things when a train left. Sizes are bytes, times seconds."""

    #: What had been delivered, and when the last of it was acknowledged.
    delivered: int
    delivered_at: float
    #: When the segment left that was the newest one acknowledged by then.
    first_sent_at: float
    #: The application had nothing more to send, so the rate would say nothing of the path.
    limited: bool


class RateSample(NamedTuple):
    """What one acknowledgement says."""

    #: Bytes a second; 0.0: too short to tell.
    rate: float
    limited: bool
    #: What had been delivered when the acknowledged segment left.
    prior_delivered: int
    #: Bytes that were deemed lost since the beginning.
    lost: int


class DeliveryRate:
    """Counts what arrives, of one connection."""

    __slots__ = ("_delivered_at", "_first_sent_at", "_limited_until", "_lost_before", "delivered", "lost")

    def __init__(self) -> None:
        #: Bytes acknowledged or SACKed since the beginning.
        self.delivered: int = 0
        #: Bytes deemed lost since then, each time anew.
        self.lost: int = 0
        self._lost_before = 0
        self._delivered_at = 0.0
        self._first_sent_at = 0.0
        self._limited_until = 0

    def departing(self, in_flight: int, now: float) -> Departure:
        """The note for what leaves now, with ``in_flight`` bytes under way before it."""
        if not in_flight:
            self._first_sent_at = self._delivered_at = now
        return Departure(self.delivered, self._delivered_at, self._first_sent_at, self._limited_until > self.delivered)

    def losing(self, size: int, first: bool) -> None:
        """``size`` bytes are deemed lost, ``first`` in this recovery."""
        if first:
            self._lost_before = self.lost
        self.lost += size

    def forgive(self) -> None:
        """Nothing was lost in this recovery."""
        self.lost = self._lost_before

    def starved(self, in_flight: int) -> None:
        """The windows would take more than there is to send."""
        self._limited_until = max(self.delivered + in_flight, 1)

    def arrived(
        self, size: int, departure: Departure | None, sent_at: float, min_rtt: float, now: float
    ) -> RateSample | None:
        """``size`` more bytes arrived; ``departure`` is the note of the one among them that was sent last, at
        ``sent_at``. None: there is no note."""
        self.delivered += size
        self._delivered_at = now
        if departure is None or departure.delivered > self.delivered:
            return None
        self._first_sent_at = max(self._first_sent_at, sent_at)
        interval = max(sent_at - departure.first_sent_at, now - departure.delivered_at)
        # Shorter than any round trip: acknowledgements that were held back, not a fast path.
        rate = (self.delivered - departure.delivered) / interval if interval > 0 and interval >= min_rtt else 0.0
        return RateSample(rate, departure.limited, departure.delivered, self.lost)
