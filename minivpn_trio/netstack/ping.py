"""PingEndpoint: what is behind a ping socket, ``socket(AF_INET, SOCK_DGRAM, IPPROTO_ICMP)``. Sans-IO.

As Linux has them (icmp(7), ping_group_range): what is sent must be an echo request,
whose identifier and checksum are replaced by ours; what is received are the
replies, from the ICMP header on. The "port" of the socket is the identifier.
An ICMP error about a request is reported once, if the socket is connected.

An endpoint has the face of a UdpEndpoint, so that a socket need not know which one it has.
"""

from __future__ import annotations

import errno
import os
from collections import deque
from collections.abc import Callable
from struct import Struct

from .icmp import IcmpEndpoint, IcmpStack
from .packets import Address
from .udp import Remote

__all__ = ["PingEndpoint"]

#: Type, code, checksum, identifier, sequence.
_ECHO = Struct("!BBHHH")
_REQUEST, _REPLY = {4: 8, 16: 128}, {4: 0, 16: 129}


class PingEndpoint:
    """One echo identifier, bound by construction: ``local``'s port, 0 to have one chosen; its address is not used."""

    def __init__(
        self,
        stack: IcmpStack,
        local: tuple[Address | None, int],
        remote: Remote | None = None,
    ) -> None:
        self._icmp = IcmpEndpoint(stack, local[1] or None)
        self._width = 16 if local[0] is None or len(local[0]) == 16 else 4
        self._pending: OSError | None = None
        self._peeked: deque[tuple[bytes, Remote]] = deque(maxlen=1)
        self.local: tuple[Address | None, int] = (local[0], self._icmp.identifier)
        self.remote = remote
        self.ttl = 64

    @property
    def on_change(self) -> Callable[[], None] | None:
        """Called when the endpoint becomes readable or fails."""
        return self._icmp.on_change

    @on_change.setter
    def on_change(self, callback: Callable[[], None] | None) -> None:
        self._icmp.on_change = callback

    @property
    def error(self) -> OSError | None:
        """What the next call will raise, if anything."""
        self._take_errors()
        return self._icmp.error or self._pending

    @property
    def readable(self) -> bool:
        """Whether receiving would give a reply or an error at once."""
        return self.peek() is not None or self.error is not None or self._icmp.closed

    @property
    def writable(self) -> bool:
        """True: nobody sends so many pings."""
        return True

    def wait_turn(self) -> None:
        """Never called, since the endpoint is always ``writable``."""

    def connect(self, remote: Remote | None) -> None:
        """Hear only ``remote`` from now on, and its errors; None undoes it. The port means nothing."""
        self.remote = remote

    def sendto(self, message: bytes, remote: Remote | None = None) -> int:
        """Send an echo request, its ICMP header included; the number of bytes.

        Raises OSError: EINVAL (no echo request), EDESTADDRREQ, EAFNOSUPPORT, EMSGSIZE, ENETUNREACH, EBADF, or a
        pending error.
        """
        self.raise_pending()
        remote = remote or self.remote
        if remote is None:
            raise _os_error(errno.EDESTADDRREQ)
        if len(remote[0]) != self._width:
            raise _os_error(errno.EAFNOSUPPORT)
        if len(message) < _ECHO.size or message[0] != _REQUEST[self._width] or message[1]:
            raise _os_error(errno.EINVAL)
        sequence = _ECHO.unpack_from(message)[4]
        self._icmp.send_echo(remote[0], sequence, message[_ECHO.size :], ttl=self.ttl)
        return len(message)

    def recvfrom(self) -> tuple[bytes, Remote] | None:
        """The oldest reply and its sender, or None. Raises OSError if an error is pending."""
        if self.peek() is not None:
            return self._peeked.popleft()
        self.raise_pending()
        return None

    def peek(self) -> tuple[bytes, Remote] | None:
        """The oldest reply and its sender, which stays queued."""
        while not self._peeked and (reply := self._icmp.take_reply()) is not None:
            if len(reply.src) != self._width or (self.remote is not None and reply.src != self.remote[0]):
                continue
            header = _ECHO.pack(_REPLY[self._width], 0, 0, self._icmp.identifier, reply.sequence)
            total = _sum(header + reply.payload) if self._width == 4 else 65535
            checksum = -total % 65535 if total else 65535
            message = header[:2] + checksum.to_bytes(2, "big") + header[4:] + reply.payload
            self._peeked.append((message, (reply.src, 0)))
        return self._peeked[0] if self._peeked else None

    def raise_pending(self) -> None:
        """Raise the pending error, if any, and forget it unless it is for good."""
        self._icmp.raise_failure()
        self._take_errors()
        error, self._pending = self._pending, None
        if error is not None:
            raise error

    def close(self) -> None:
        """Release the identifier. Idempotent."""
        self._icmp.close()

    def _take_errors(self) -> None:
        while (found := self._icmp.take_error()) is not None:
            if self.remote is not None and found.dst == self.remote[0]:
                self._pending = found.error


def _sum(data: bytes) -> int:
    return int.from_bytes(data + b"\0" if len(data) & 1 else data, "big")


def _os_error(number: int) -> OSError:
    return OSError(number, os.strerror(number))
