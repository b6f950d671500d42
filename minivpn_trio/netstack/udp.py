"""UdpEndpoint: one UDP port of the stack.

An endpoint is bound to a local address and port, and may be connected to one
remote, from which alone it then hears. Its receive queue is bounded in
datagrams and bytes and drops the newest when full, as a kernel's does.

Errors that arrive by ICMP are reported once, by the next call (as SO_ERROR
is), and only if the endpoint is connected; the loss of the tunnel is reported by
every call.

Sources: RFC 768, RFC 1122 (4.1), udp(7).
"""

from __future__ import annotations

import errno
import os
from collections import Counter, deque
from collections.abc import Callable

from ..errors import DropReason
from .packets import Address, UdpDatagram

__all__ = ["Remote", "UdpEndpoint"]

#: A packed address and a port.
Remote = tuple[Address, int]

#: What one queued datagram costs besides its payload.
_OVERHEAD = 200


class UdpEndpoint:
    """One UDP port.

    ``send`` hands a datagram to the stack, ``on_close`` releases the port;
    both are the stack's. ``max_payload`` is the largest payload the tunnel carries in one packet, asked anew
    for each datagram, in bytes. ``on_change``, if set, is called by the stack once a burst
    after something became readable or failed.
    """

    def __init__(
        self,
        *,
        local: Remote,
        send: Callable[[UdpDatagram], None],
        max_payload: Callable[[], int],
        on_close: Callable[[UdpEndpoint], None] | None = None,
        max_queued_bytes: int = 212_992,
        max_queued: int = 512,
    ) -> None:
        self.local = local
        self.remote: Remote | None = None
        self.on_change: Callable[[], None] | None = None
        self.closed = False
        self.drops: Counter[DropReason] = Counter()
        self._send = send
        self._max_payload = max_payload
        self._on_close = on_close
        self._max_queued_bytes = max_queued_bytes
        self._max_queued = max_queued
        self._queue: deque[tuple[bytes, Remote]] = deque()
        self._queued_bytes = 0
        self._pending: OSError | None = None
        self._failure: OSError | None = None

    @property
    def error(self) -> OSError | None:
        """What the next call will raise, if anything. Reading it does not clear it."""
        return self._failure or self._pending

    @property
    def readable(self) -> bool:
        """Whether receiving would give a datagram or an error at once."""
        return bool(self._queue) or self._failure is not None or self._pending is not None or self.closed

    def connect(self, remote: Remote | None) -> None:
        """Hear only ``remote`` from now on, and send there by default; None undoes it."""
        self.remote = remote
        if remote is not None:
            kept = [item for item in self._queue if item[1] == remote]
            self._queue = deque(kept)
            self._queued_bytes = sum(len(payload) + _OVERHEAD for payload, _ in kept)

    def sendto(self, payload: bytes, remote: Remote | None = None) -> int:
        """Send one datagram to ``remote``, by default the connected one; the number of payload bytes.

        Raises OSError: EDESTADDRREQ, EMSGSIZE (larger than one packet of the
        tunnel), EINVAL (a port that cannot be), EAFNOSUPPORT, EBADF after closing, or a pending error.
        """
        self.raise_pending()
        remote = remote or self.remote
        if remote is None:
            raise _os_error(errno.EDESTADDRREQ)
        address, port = remote
        if len(address) != len(self.local[0]):
            raise _os_error(errno.EAFNOSUPPORT)
        if not 0 < port <= 65535:
            raise _os_error(errno.EINVAL)
        if len(payload) > self._max_payload():
            raise _os_error(errno.EMSGSIZE)
        self._send(UdpDatagram(self.local[0], address, self.local[1], port, payload))
        return len(payload)

    def recvfrom(self) -> tuple[bytes, Remote] | None:
        """The oldest queued datagram and its sender, or None. Raises OSError if an error is pending."""
        if self._queue:
            payload, remote = self._queue.popleft()
            self._queued_bytes -= len(payload) + _OVERHEAD
            return payload, remote
        self.raise_pending()
        return None

    def raise_pending(self) -> None:
        """Raise the pending error, if any, and forget it unless it is for good."""
        if self.closed:
            raise _os_error(errno.EBADF)
        if self._failure is not None:
            raise _os_error(self._failure.errno or errno.ENETDOWN)
        error, self._pending = self._pending, None
        if error is not None:
            raise error

    def accepts(self, remote: Remote) -> bool:
        """Whether a datagram from ``remote`` is for this endpoint."""
        return self.remote is None or self.remote == remote

    def handle_datagram(self, datagram: UdpDatagram) -> bool:
        """Queue an arrived datagram; False, counted, if it is not for us or there is no room."""
        remote = (datagram.src, datagram.sport)
        if self.closed or not self.accepts(remote):
            self.drops[DropReason.NO_SOCKET] += 1
            return False
        cost = len(datagram.payload) + _OVERHEAD
        if len(self._queue) >= self._max_queued or self._queued_bytes + cost > self._max_queued_bytes:
            self.drops[DropReason.QUEUE_FULL] += 1
            return False
        self._queue.append((bytes(datagram.payload), remote))
        self._queued_bytes += cost
        return True

    def handle_icmp_error(self, error: OSError, remote: Remote) -> bool:
        """Note an ICMP error about a datagram sent to ``remote``; True if somebody should be woken."""
        if self.closed or self.remote != remote:
            return False
        self._pending = error
        return True

    def fail(self, error: OSError) -> None:
        """The tunnel is gone: every call from now on raises ``error``'s errno."""
        self._failure = error

    def close(self) -> None:
        """Release the port and forget what is queued. Idempotent."""
        if self.closed:
            return
        self.closed = True
        self._queue.clear()
        self._queued_bytes = 0
        if self._on_close is not None:
            self._on_close(self)


def _os_error(number: int) -> OSError:
    return OSError(number, os.strerror(number))
