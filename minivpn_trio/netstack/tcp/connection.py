"""One TCP connection (skeleton of the public face; the body follows)."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum

from ..packets import Address

__all__ = ["TcpConnection", "TcpState"]


class TcpState(Enum):
    """RFC 9293, 3.3.2, without LISTEN (listener.py) and TIME_WAIT (timewait.py)."""

    SYN_SENT = "SYN-SENT"
    SYN_RECEIVED = "SYN-RECEIVED"
    ESTABLISHED = "ESTABLISHED"
    FIN_WAIT_1 = "FIN-WAIT-1"
    FIN_WAIT_2 = "FIN-WAIT-2"
    CLOSE_WAIT = "CLOSE-WAIT"
    CLOSING = "CLOSING"
    LAST_ACK = "LAST-ACK"
    CLOSED = "CLOSED"


class TcpConnection:
    """One TCP connection. Made by ``Stack.connect_tcp`` or handed out by a listener."""

    state: TcpState
    #: (address, port) of both ends.
    local: tuple[Address, int]
    remote: tuple[Address, int]
    #: Why the connection is unusable: OSError with errno (ECONNREFUSED, ECONNRESET, ETIMEDOUT, EHOSTUNREACH,
    #: ENETUNREACH, ENETDOWN, ECONNABORTED); None as long as it works or was closed in order.
    error: OSError | None
    #: Called when any of the properties below may have changed: once a burst, once a timeout.
    #: Never called from within write/read/close/... themselves (a command's caller knows).
    on_change: Callable[[], None] | None

    @property
    def connected(self) -> bool:
        """The handshake is complete (stays True when the peer or we have half closed)."""
        raise NotImplementedError

    @property
    def readable(self) -> bool:
        """``read`` has something to say: bytes, the end, or an error. Level-triggered."""
        raise NotImplementedError

    @property
    def writable(self) -> bool:
        """``write`` would accept something (the send buffer is at most half full), or would raise. Level-triggered,
        and the one level for entering and for waking: ``write`` accepts 0 bytes when this is False."""
        raise NotImplementedError

    @property
    def eof(self) -> bool:
        """The peer's FIN arrived and everything before it was read."""
        raise NotImplementedError

    def write(self, data: bytes | bytearray | memoryview, now: float) -> int:
        """Queue ``data``; how many of its bytes were accepted (0: not writable). Raises ``error`` if there is one,
        OSError(ENOTCONN) before the handshake, OSError(EPIPE) after shutdown_write or close."""
        raise NotImplementedError

    def read(self, max_bytes: int, now: float) -> bytes:
        """Take up to ``max_bytes``; b"" when nothing is there (``eof`` tells the end from a pause).
        Raises ``error`` when there is one and nothing is left to read."""
        raise NotImplementedError

    def shutdown_write(self, now: float) -> None:
        """FIN after everything queued (half close). Idempotent. Raises OSError(ENOTCONN) before the handshake."""
        raise NotImplementedError

    def close(self, now: float) -> None:
        """The owner lets go: queued data and FIN are delivered in the background, or RST if unread
        data was thrown away. Never raises; idempotent."""
        raise NotImplementedError

    def abort(self, now: float) -> None:
        """RST at once, everything queued is dropped. Never raises; idempotent. ``error`` becomes ECONNABORTED."""
        raise NotImplementedError
