"""How soon to send again: the round trip to the peer, measured, and what follows from it.

The reference waits 2 s (``tls-timeout``) before it repeats a message, then
twice as long each time. That is one round trip's work for forty: over a
path that loses a fifth of its packets each way half of all handshakes take
more than 4 s that way. The peer does not mind to get a message early: a duplicate is
acknowledged and forgotten. So where packets can get lost we wait as TCP does
(RFC 6298): for the smoothed round trip and four times its deviation.

It stays a trickle all the same. At most a send window is in flight, no
interval is shorter than ``FLOOR``, and each expiry makes it half as long
again, up to twice ``tls-timeout``: about 16 packets a minute to a peer that
never answers.
"""

from __future__ import annotations

__all__ = ["BACKOFF", "FLOOR", "RoundTrip"]

#: Shortest interval, seconds: a server that checks a password may be busy for a moment.
FLOOR = 0.25
#: How much longer each interval is than the one before.
BACKOFF = 1.5


class RoundTrip:
    """The estimate, shared by all conversations of a session.

    ``tls_timeout`` is the directive, seconds: half of it is the first interval while nothing was
    measured, twice of it the longest.
    """

    __slots__ = ("_deviation", "_longest", "_smoothed", "_unknown")

    def __init__(self, tls_timeout: float) -> None:
        self._unknown = tls_timeout / 2
        self._longest = 2 * tls_timeout
        self._smoothed: float | None = None
        self._deviation = 0.0

    @property
    def smoothed(self) -> float | None:
        """The smoothed round trip, seconds; None: nothing was measured yet."""
        return self._smoothed

    def measured(self, seconds: float) -> None:
        """A message that was sent once was acknowledged after ``seconds`` (RFC 6298, 2; Karn's rule)."""
        if self._smoothed is None:
            self._smoothed, self._deviation = seconds, seconds / 2
            return
        self._deviation += (abs(self._smoothed - seconds) - self._deviation) / 4
        self._smoothed += (seconds - self._smoothed) / 8

    def interval(self, expiries: int) -> float:
        """Seconds to wait for an answer when so many waits were in vain already."""
        base = self._unknown if self._smoothed is None else self._smoothed + 4 * self._deviation
        base = max(base, min(FLOOR, self._unknown))
        # 1.5 to the 32nd is more than any of these need, and no overflow.
        return min(base * BACKOFF ** min(expiries, 32), self._longest)
