"""Passive open: a listening port and the queue of connections waiting to be accepted.

Bounded by ``backlog`` twice: connections in the handshake, and connections not
accepted yet. A SYN beyond that is dropped; the peer sends it again. But of those in the handshake the oldest gives way
when it has taken longer than usual, so that SYNs of nobody do not keep everybody out.
"""

from __future__ import annotations

import errno
import os
from collections import deque
from collections.abc import Callable

from ..packets import Address
from .connection import TcpConnection

__all__ = ["TcpListener"]

#: Seconds that a handshake may take, undisturbed by others: most paths are shorter, and a SYN comes again after one.
_PATIENCE = 0.5


class TcpListener:
    """A listening port. Made by ``Stack.listen_tcp``."""

    def __init__(
        self, local: tuple[Address | None, int], *, backlog: int, on_close: Callable[[TcpListener, float], None]
    ) -> None:
        #: (address or None for all of ours, port).
        self.local = local
        self.backlog: int = max(backlog, 1)
        #: The tunnel is gone, or None.
        self.error: OSError | None = None
        #: Called when a connection became acceptable, or the listener failed.
        self.on_change: Callable[[], None] | None = None
        self.closed: bool = False
        #: In the handshake, and since when; the oldest first.
        self.half_open: dict[TcpConnection, float] = {}
        self._ready: deque[TcpConnection] = deque()
        self._on_close = on_close

    @property
    def crowded(self) -> bool:
        """Whether another connection in the handshake needs one to give way."""
        return len(self.half_open) >= self.backlog

    def has_room(self, now: float) -> bool:
        """Whether another SYN may be answered."""
        if len(self._ready) >= self.backlog:
            return False
        # Not the youngest: of many who come at once each would reset another, and none needs to try again.
        return not self.crowded or now - next(iter(self.half_open.values())) >= _PATIENCE

    @property
    def acceptable(self) -> bool:
        """``accept`` has a connection, or would raise. Level-triggered."""
        return bool(self._ready) or self.error is not None or self.closed

    def accept(self) -> TcpConnection | None:
        """The connection that waits longest, or None. Raises OSError: EBADF after closing, or ``error``.

        A connection that was reset while it waited is handed out all the same: it is the stream that fails, not the
        listener.
        """
        if self.closed:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        if self._ready:
            return self._ready.popleft()
        if self.error is not None:
            raise OSError(self.error.errno, self.error.strerror)
        return None

    def handle_established(self, connection: TcpConnection) -> None:
        """A handshake is complete."""
        self.half_open.pop(connection, None)
        self._ready.append(connection)
        if self.on_change is not None:
            self.on_change()

    def fail(self, error: OSError) -> None:
        """The tunnel is gone."""
        self.error = error
        if self.on_change is not None:
            self.on_change()

    def close(self, now: float) -> None:
        """Stop listening; connections that nobody accepted are reset. Idempotent."""
        if self.closed:
            return
        self.closed = True
        self._on_close(self, now)
        for connection in [*self.half_open, *self._ready]:
            connection.abort(now)
        self.half_open.clear()
        self._ready.clear()
