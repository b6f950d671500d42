"""TIME-WAIT: what is left of a connection that ended in order, for one minute.

A record of a few numbers instead of a connection, in a table that drops the
oldest when it is full. It acknowledges the peer's FIN again, ignores RST (RFC
1337), and gives way to a new SYN that is certainly newer (RFC 6191).
"""

from __future__ import annotations

from dataclasses import dataclass

from ..packets import ACK, FIN, RST, SYN, TcpSegment
from ..sequence import MASK, later_timestamp, unwrap

__all__ = ["TimeWait", "TimeWaitTable"]


@dataclass(slots=True)
class TimeWait:
    """The numbers that the last ACK needs, as on the wire."""

    seq: int
    ack: int
    window: int
    #: Added to milliseconds for TSval; -1 without timestamps.
    timestamp_offset: int
    timestamp_recent: int
    expires: float
    answered_at: float = float("-inf")


class TimeWaitTable:
    """All records by the connection's key. ``duration`` in seconds."""

    def __init__(self, *, duration: float = 60.0, most: int = 4096) -> None:
        self.duration = duration
        self.most = most
        # In order of expiry: every record lasts equally long, and restarting one moves it to the end.
        self._records: dict[bytes, TimeWait] = {}

    def __len__(self) -> int:
        return len(self._records)

    def __contains__(self, key: bytes) -> bool:
        return key in self._records

    def add(self, key: bytes, record: TimeWait) -> None:
        """Keep ``record``, in place of the oldest one if the table is full."""
        if len(self._records) >= self.most:
            del self._records[next(iter(self._records))]
        self._records[key] = record

    def discard(self, key: bytes) -> None:
        """Forget a record."""
        self._records.pop(key, None)

    def clear(self) -> None:
        """Forget all."""
        self._records.clear()

    def gives_way(self, key: bytes, syn: TcpSegment) -> bool:
        """Whether ``syn`` starts a new connection between the same ports."""
        record = self._records[key]
        if syn.timestamps is not None and record.timestamp_offset >= 0:
            return later_timestamp(syn.timestamps[0], record.timestamp_recent)
        return unwrap(syn.seq, record.ack) > record.ack

    def handle_segment(self, key: bytes, segment: TcpSegment, now: float) -> TcpSegment | None:
        """The answer to ``segment``, if it deserves one: at most two in a second."""
        record = self._records[key]
        if segment.flags & RST or now - record.answered_at < 0.5:
            return None
        if not segment.flags & (FIN | SYN) and not segment.payload and segment.seq == record.ack:
            return None
        record.answered_at = now
        if segment.flags & FIN:
            # The peer did not get our last ACK; the time starts again.
            del self._records[key]
            record.expires = now + self.duration
            self._records[key] = record
        answer = TcpSegment(
            segment.dst, segment.src, segment.dport, segment.sport, record.seq, record.ack, ACK, record.window
        )
        if record.timestamp_offset >= 0:
            answer.timestamps = ((int(now * 1000) + record.timestamp_offset) & MASK, record.timestamp_recent)
        return answer

    def next_timeout(self) -> float | None:
        """When the first record expires."""
        for record in self._records.values():
            return record.expires
        return None

    def handle_timeout(self, now: float) -> None:
        """Forget what has expired."""
        while self._records:
            key, record = next(iter(self._records.items()))
            if record.expires > now:
                return
            del self._records[key]
