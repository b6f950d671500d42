"""Tracers ready to use: a logger, JSON lines, OONI's archival form and a fan-out.

Each is a ``tracing.Tracer``; pass one as ``tracer=`` of ``open_client`` or
``open_tun_dialer``.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from dataclasses import fields
from typing import IO, Any

from .errors import MiniVPNError
from .events import Event
from .tracing import BurstTraced, EventTraced, PacketTraced, StateTraced, Tracer, TraceRecord

__all__ = ["ArchivalTracer", "FencedTracer", "JSONLinesTracer", "LoggingTracer", "TeeTracer"]

#: TLS record type handshake, and the handshake types that DPI boxes look for (RFC 8446, 4).
TLS_HANDSHAKE, CLIENT_HELLO, SERVER_HELLO = 0x16, 1, 2


def tls_tags(payload: bytes) -> list[str]:
    """``client_hello`` or ``server_hello`` where the TLS bytes of a control packet begin with one."""
    if len(payload) > 5 and payload[0] == TLS_HANDSHAKE:
        if payload[5] == CLIENT_HELLO:
            return ["client_hello"]
        if payload[5] == SERVER_HELLO:
            return ["server_hello"]
    return []


class LoggingTracer:
    """Every record as one line of ``logging``, level DEBUG."""

    def __init__(self, logger: logging.Logger | None = None) -> None:
        self._logger = logger or logging.getLogger("minivpn_trio.trace")

    def trace(self, record: TraceRecord) -> None:
        """Log one record."""
        if self._logger.isEnabledFor(logging.DEBUG):
            details = " ".join(f"{key}={value}" for key, value in as_json(record, 0.0).items() if value is not None)
            self._logger.debug("%s", details)


class JSONLinesTracer:
    """Every record as one JSON object a line, flushed by the stream's own rules.

    ``t`` counts seconds from the first record. Bytes of payloads are not written.
    """

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._zero: float | None = None

    def trace(self, record: TraceRecord) -> None:
        """Write one record."""
        if self._zero is None:
            self._zero = record.time
        self._stream.write(json.dumps(as_json(record, self._zero)) + "\n")


class TeeTracer:
    """Several tracers as one."""

    def __init__(self, tracers: Iterable[Tracer]) -> None:
        self._tracers = tuple(tracers)

    def trace(self, record: TraceRecord) -> None:
        """Hand the record to each."""
        for tracer in self._tracers:
            tracer.trace(record)


class FencedTracer:
    """A tracer whose errors harm nobody: the first one is logged, and from then on it gets no more records.

    The client puts one around every tracer that an application gives it.
    """

    def __init__(self, tracer: Tracer) -> None:
        self._tracer: Tracer | None = tracer

    def trace(self, record: TraceRecord) -> None:
        """Hand the record on."""
        if self._tracer is None:
            return
        try:
            self._tracer.trace(record)
        except Exception:
            self._tracer = None
            logging.getLogger("minivpn_trio").exception("a tracer raised, and is not called any more")


class ArchivalTracer:
    """The handshake in the field names of minivpn's tracer, as OONI archives it.

    Reference: ooni/minivpn pkg/tracex/trace.go; ooni/spec ts-040-openvpn. Data
    packets are not part of it. Keeps at most ``limit`` events, so a tunnel that
    stays up does not grow it.
    """

    def __init__(self, transaction_id: int = 0, limit: int = 10_000) -> None:
        self._transaction_id = transaction_id
        self._limit = limit
        self._zero: float | None = None
        self.events: list[dict[str, Any]] = []

    def trace(self, record: TraceRecord) -> None:
        """Keep one record, if it is of a kind that the form has."""
        if self._zero is None:
            self._zero = record.time
        if len(self.events) >= self._limit:
            return
        if isinstance(record, StateTraced):
            self._add("state", record, None, [])
        elif isinstance(record, PacketTraced) and record.opcode is not None:
            self._add(f"packet_{record.direction}", record, self._packet(record), tls_tags(record.payload))

    @staticmethod
    def _packet(record: PacketTraced) -> dict[str, Any]:
        assert record.opcode is not None
        return {
            "operation": "write" if record.direction == "out" else "read",
            "opcode": record.opcode.wire_name,
            "id": record.packet_id or 0,
            "acks": list(record.acks) or None,
            "payload_size": record.payload_size,
            "send_attempts": record.attempt,
        }

    def _add(self, operation: str, record: TraceRecord, packet: dict[str, Any] | None, tags: list[str]) -> None:
        assert self._zero is not None
        self.events.append(
            {
                "operation": operation,
                "stage": record.stage.value,
                "t": round(record.time - self._zero, 6),
                "tags": tags,
                "packet": packet,
                "transaction_id": self._transaction_id,
            }
        )


def as_json(record: TraceRecord, zero: float) -> dict[str, Any]:
    """One record as plain JSON types; a superset of the archival form. ``t`` counts from ``zero``."""
    base: dict[str, Any] = {"t": round(record.time - zero, 6), "stage": record.stage.value}
    if isinstance(record, StateTraced):
        return {"operation": "state", **base}
    if isinstance(record, EventTraced):
        return {"operation": "event", **base, "event": type(record.event).__name__, **event_fields(record.event)}
    if isinstance(record, BurstTraced):
        reason = record.drop_reason.value if record.drop_reason else None
        return {"operation": f"burst_{record.direction}", **base, "packets": record.packets, "size": record.size,
                "drop_reason": reason}  # fmt: skip
    if isinstance(record, PacketTraced):
        return {
            "operation": f"packet_{record.direction}",
            **base,
            "opcode": record.opcode.wire_name if record.opcode is not None else None,
            "key_id": record.key_id,
            "id": record.packet_id,
            "acks": list(record.acks),
            "size": record.size,
            "payload_size": record.payload_size,
            "send_attempts": record.attempt,
            "drop_reason": record.drop_reason.value if record.drop_reason else None,
            "tags": tls_tags(record.payload),
        }
    raise MiniVPNError(f"a trace record of an unknown kind: {type(record).__name__}")


def event_fields(event: Event) -> dict[str, Any]:
    """An event's own fields as plain JSON types, without its time."""
    return {
        f.name: value if isinstance(value := getattr(event, f.name), int | float | str | None) else str(value)
        for f in fields(event)
        if f.name != "time"
    }
