"""What went over the wire, for whoever wants to watch: the Tracer protocol and its records.

The sinks are in the ``trace_sinks`` package. A tracer must not raise and must
not block; it is called from the workers, in order. Records hold sizes, ids and
opcodes, never payloads, except for ``payload`` of control packets, which is
what a TLS observer on the path sees anyway.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, Protocol

from .errors import DropReason
from .events import Event, SessionState
from .packet.opcodes import Opcode

__all__ = ["BurstTraced", "EventTraced", "PacketTraced", "StateTraced", "TraceRecord", "Tracer"]

Direction = Literal["in", "out", "dropped"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceRecord:
    """Base of all records. ``time`` is Trio's clock, ``stage`` the session's state then."""

    time: float
    stage: SessionState


@dataclass(frozen=True, slots=True, kw_only=True)
class StateTraced(TraceRecord):
    """The session entered ``stage``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PacketTraced(TraceRecord):
    """One control packet (or a dropped packet of any kind)."""

    direction: Direction
    opcode: Opcode | None
    key_id: int | None = None
    packet_id: int | None = None
    acks: tuple[int, ...] = ()
    #: Bytes of the datagram as it is on the wire.
    size: int = 0
    #: Bytes inside the reliability layer's packet.
    payload_size: int = 0
    #: 1 for a first transmission; None on the way in.
    attempt: int | None = None
    drop_reason: DropReason | None = None
    #: The TLS ciphertext of a control packet.
    payload: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class BurstTraced(TraceRecord):
    """A burst of data packets, already or still encrypted: one record for all of it."""

    direction: Direction
    packets: int
    size: int
    drop_reason: DropReason | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EventTraced(TraceRecord):
    """An event of ``events.py``, so one sink sees everything in order."""

    event: Event


class Tracer(Protocol):
    """Anything with this method can watch a tunnel."""

    def trace(self, record: TraceRecord) -> None:
        """Take one record. Must return quickly and must not raise."""
        ...
