"""PeerRenewals: how often the peer may have a new key.

Each renewal costs a TLS handshake, so a peer that wants one after the other gets a few at once and then one an
interval. A wish that comes too soon is not refused: reliable has acknowledged it, and it does not come again.
"""

from __future__ import annotations

import math

from ..packet.ids import KeyID

__all__ = ["MAX_RENEWALS", "RENEWAL_INTERVAL", "PeerRenewals"]

#: So many may the peer begin at once, and one more after each interval of seconds.
MAX_RENEWALS = 16
RENEWAL_INTERVAL = 1.0


class PeerRenewals:
    """The peer's wishes, of which one may be waiting. Times are seconds of the caller's clock."""

    def __init__(self) -> None:
        #: From when on a wish is followed at once, and one that waits for that.
        self._free_at = -math.inf
        self._held: KeyID | None = None

    def admit(self, key_id: KeyID, now: float) -> bool:
        """Whether the wish for ``key_id`` is followed now; otherwise it waits, and ``take_due`` has it later."""
        if now < self._free_at:
            self._held = key_id
            return False
        # Each takes an interval, of which not many may be saved up.
        earliest = now - (MAX_RENEWALS - 1) * RENEWAL_INTERVAL
        self._free_at = max(self._free_at, earliest) + RENEWAL_INTERVAL
        return True

    def next_timeout(self) -> float | None:
        """When ``take_due`` has something; None: nothing waits."""
        return None if self._held is None else self._free_at

    def take_due(self, now: float) -> KeyID | None:
        """The wish that has waited long enough."""
        if self._held is None or now < self._free_at:
            return None
        held, self._held = self._held, None
        return held
