"""How a connection ends: FIN from either side, RST, closing by the owner, errors (RFC 9293, 3.6 and 3.10)."""

from __future__ import annotations

import errno
from collections.abc import Callable
from math import inf

from ..sequence import Position
from .network import os_error
from .output import Output
from .state import HANDSHAKE, TcpState

__all__ = ["Teardown"]


class Teardown(Output):
    """The layer that knows the states after ESTABLISHED."""

    __slots__ = ()

    on_change: Callable[[], None] | None
    state: TcpState
    deadline: float

    # --- commands ---

    def shutdown_write(self, now: float) -> None:
        """FIN after everything queued. Idempotent. Raises OSError: ENOTCONN before the handshake, or ``error``."""
        if self.error is not None:
            raise self._fresh_error()
        if self.state in HANDSHAKE or not self.connected:
            raise os_error(errno.ENOTCONN)
        self._queue_fin()
        self.flush(now)

    def close(self, now: float) -> None:
        """The owner lets go: what is queued, then FIN, are delivered in the background. If unread data is
        thrown away, the peer gets RST instead (RFC 2525, 2.17). Never raises; idempotent."""
        if self._closed_by_owner:
            return
        self._closed_by_owner = True
        self.on_change = None
        unread = self.receiver.queued
        self.receiver.discard()
        if self.state is TcpState.CLOSED:
            self._account()
            return
        if self.state is TcpState.SYN_SENT:
            self._end(None)
        elif unread:
            self._send_reset(now)
            self._end(None)
        else:
            self._queue_fin()
            if self.state is TcpState.FIN_WAIT_2:
                self._linger_deadline = now + self._settings.fin_wait_2
            self.flush(now)

    def abort(self, now: float) -> None:
        """RST at once; what is queued is dropped, ``error`` becomes ECONNABORTED. Never raises; idempotent."""
        self.on_change = None
        self._closed_by_owner = True
        self.receiver.discard()
        if self.state is TcpState.CLOSED:
            self._account()
            return
        if self.state is not TcpState.SYN_SENT:
            self._send_reset(now)
        self._end(os_error(errno.ECONNABORTED))

    def break_off(self, error: OSError, now: float) -> None:
        """RST at once, and ``error`` for the owner, who did not ask for it. Never raises; idempotent."""
        if self.state is not TcpState.CLOSED:
            if self.connected:
                self._send_reset(now)
            self._end(error)

    def fail(self, error: OSError) -> None:
        """The world took the connection away: no packet, only the error."""
        if self.state is not TcpState.CLOSED:
            self._end(error)

    def write_off(self, error: OSError) -> None:
        """What ``fail`` leaves if it breaks in the middle: it is over. What it still holds goes with the object."""
        self.state, self.error, self.deadline = TcpState.CLOSED, error, inf
        self._changed = True

    # --- what the peer says ---

    def _handle_fin(self, now: float) -> None:
        if self.state is TcpState.ESTABLISHED:
            self.state = TcpState.CLOSE_WAIT
        elif self.state is TcpState.FIN_WAIT_1:
            self.state = TcpState.CLOSING
            if self.sender.done:
                self._enter_time_wait(now)
        elif self.state is TcpState.FIN_WAIT_2:
            self._enter_time_wait(now)

    def _after_acknowledgement(self, now: float) -> None:
        """``una`` moved: is our FIN acknowledged?"""
        if not self.sender.done:
            return
        if self.state is TcpState.FIN_WAIT_1:
            self.state = TcpState.FIN_WAIT_2
            if self._closed_by_owner:
                self._linger_deadline = now + self._settings.fin_wait_2
        elif self.state is TcpState.CLOSING:
            self._enter_time_wait(now)
        elif self.state is TcpState.LAST_ACK:
            self._end(None)

    def _handle_reset(self, seq: Position, now: float) -> None:
        """RFC 5961, 3.2: only the exact position resets."""
        if seq != self.receiver.nxt:
            self._acks.challenge(now)
            return
        if self.state is TcpState.SYN_RECEIVED:
            self._end(os_error(errno.ECONNREFUSED if self.active else errno.ECONNRESET))
        elif self.state in (TcpState.LAST_ACK, TcpState.CLOSING) and self.sender.buffered == 0:
            # Everything was said on both sides; the peer only did not wait for the end of the ceremony.
            self._end(None)
        else:
            # What arrived in order stays readable; then comes the error.
            self._end(os_error(errno.ECONNRESET))

    # --- steps ---

    def _queue_fin(self) -> None:
        if self.sender.fin:
            return
        self.sender.fin = True
        if self.state is TcpState.ESTABLISHED:
            self.state = TcpState.FIN_WAIT_1
        elif self.state is TcpState.CLOSE_WAIT:
            self.state = TcpState.LAST_ACK

    def _enter_time_wait(self, now: float) -> None:
        if self._acks.due:
            self._send_ack(now)
        self._network.time_wait(self)
        self._finish()

    def _end(self, error: OSError | None) -> None:
        self.error = error
        self._network.forget(self)
        self.sender.discard()
        self._finish()

    def _finish(self) -> None:
        self.state = TcpState.CLOSED
        self.sender.deadline = self.sender.pacer.due = inf
        self._acks.deadline = self._handshake_deadline = self._linger_deadline = self._keepalive_deadline = inf
        self._path_probe_at = inf
        self.deadline = inf
        self.receiver.discard_early()
        self._account()
        self._changed = True
