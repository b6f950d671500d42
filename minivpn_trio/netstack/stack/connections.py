"""The life of connections as the stack sees it, and the end of one that a defect of ours has met.

With addressing.py below it and output.py above it this is what a connection
asks of its stack (``tcp.network.Network``).
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from contextlib import suppress
from typing import ClassVar, ParamSpec

from ...errors import DropReason, ProtocolError
from .. import scapy_wire
from ..packets import TcpSegment
from ..sequence import MASK
from ..tcp.connection import TcpConnection
from ..tcp.network import os_error
from ..tcp.timewait import TimeWait
from ..turns import Waiter
from .addressing import Addressing

__all__ = ["Connections"]

P = ParamSpec("P")


class Connections(Addressing):
    """The layer that takes connections along and lets go of them."""

    #: Whether an unexpected exception ends only the connection where it happened, and is counted (DropReason.FAULT).
    #: Tests turn it off.
    contains_faults: ClassVar[bool] = True

    # --- the connections' side (tcp.network.Network) ---

    def established(self, connection: TcpConnection) -> None:
        """The fast path may be taken; whoever listens hears of it."""
        fast = self._fast_local if self.is_own(connection.remote[0]) else self._fast
        fast[connection.key] = connection
        listener = self._embryos.pop(connection, None)
        if listener is not None:
            listener.handle_established(connection)

    def forget(self, connection: TcpConnection) -> None:
        """``connection`` is over."""
        self._connections.pop(connection.key, None)
        self._fast.pop(connection.key, None)
        self._fast_local.pop(connection.key, None)
        listener = self._embryos.pop(connection, None)
        if listener is not None:
            listener.half_open.pop(connection, None)
        self._retransmissions += connection.sender.retransmissions
        self._tail_probes += connection.sender.tail_probes
        self._timeouts += connection.sender.timeouts
        self._timers.retire(connection)
        self._turns.leave(connection)
        self.paths.forget(connection)

    def time_wait(self, connection: TcpConnection) -> None:
        """``connection`` ended in order: its four-tuple rests."""
        self.forget(connection)
        receiver = connection.receiver
        window = min((receiver.edge - receiver.nxt) >> receiver.scale, 0xFFFF)
        self._time_wait.add(
            connection.key,
            TimeWait(
                connection.sender.nxt & MASK,
                receiver.nxt & MASK,
                window,
                connection.timestamp_offset,
                connection.timestamp_recent,
                self._now + self.settings.time_wait,
            ),
        )

    def arm(self, connection: TcpConnection) -> None:
        """``connection.deadline`` may have moved."""
        if self._timers.arm(connection) and self.on_work is not None:
            self.on_work()

    def may_reset(self, now: float) -> bool:
        """Whether one more answer to a segment that fits nowhere may go out."""
        return self._resets.take(now)

    def drop(self, reason: DropReason) -> None:
        """Count a packet that was not used."""
        self.drops[reason] += 1

    def build(self, segment: TcpSegment) -> bytes:
        """A packet by scapy, or after its model."""
        return self._templates.build(segment)

    def parse(self, packet: bytes) -> TcpSegment | None:
        """A segment by scapy; None: malformed, counted."""
        self._slow += 1
        try:
            parsed = scapy_wire.parse_untrusted(packet)
        except ProtocolError as exc:
            self.drops[exc.reason] += 1
            return None
        return parsed if isinstance(parsed, TcpSegment) else None

    # --- defects of ours ---

    def contain(self, fault: Exception) -> None:
        """``fault`` is a defect of ours, where nobody else would hear of it: counted."""
        self._contain(fault, None, self._now)

    def _contain(self, fault: Exception, connection: TcpConnection | None, now: float) -> None:
        """``fault`` is a defect of ours: it ends one connection, not the tunnel."""
        if not self.contains_faults:
            raise fault
        self.drops[DropReason.FAULT] += 1
        if connection is None:
            return
        # Whatever state it is in, let go of it.
        connection.inbox = []
        error = os_error(errno.ECONNABORTED)
        try:
            connection.break_off(error, now)
        except Exception:
            # Perhaps it was the RST.
            with suppress(Exception):
                connection.fail(error)
            if self._connections.get(connection.key) is connection:
                self.forget(connection)
            connection.write_off(error)
        # Its owner hears of it in any case, also where this was its turn, and no packet or timer of it.
        self._broken.append(connection)
        if self.on_work is not None:
            self.on_work()

    def _flush(self, waiter: Waiter, now: float) -> None:
        try:
            waiter.flush(now)
        except Exception as fault:
            self._contain(fault, waiter if isinstance(waiter, TcpConnection) else None, now)

    def _fence(self, step: Callable[P, None], *args: P.args, **kwargs: P.kwargs) -> None:
        """A step that is no connection's: a defect in it costs what it would have done, and nothing else."""
        try:
            step(*args, **kwargs)
        except Exception as fault:
            self._contain(fault, None, self._now)
