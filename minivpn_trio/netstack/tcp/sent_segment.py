"""A segment in flight, as the scoreboard keeps it until it is acknowledged."""

from __future__ import annotations

from ..sequence import Position
from .delivery_rate import Departure

__all__ = ["SentSegment"]


class SentSegment:
    """A segment in flight: positions ``start`` to ``end``; a FIN is one position without payload."""

    __slots__ = ("departure", "end", "lost", "payload", "resent", "sacked", "sent_at", "start", "transmissions")

    def __init__(
        self, start: Position, end: Position, payload: bytes, sent_at: float, departure: Departure | None = None
    ) -> None:
        self.start: Position = start
        self.end: Position = end
        self.payload: bytes = payload
        #: When it was sent last.
        self.sent_at: float = sent_at
        #: For congestion control that asks for it.
        self.departure: Departure | None = departure
        self.transmissions: int = 1
        self.sacked: bool = False
        self.lost: bool = False
        #: Deemed lost, and sent again since.
        self.resent: bool = False

    @property
    def is_fin(self) -> bool:
        """Whether this is the FIN."""
        return not self.payload
