"""UDP to a server that may answer, or go on, from another address (``float``).

The socket is not connected, so datagrams of strangers arrive. Each burst is of one source; those that are not from
where the server is known to be are marked (``items.ForeignBurst``), and it is for the stages above to find out whether
the server made them: by its answer to our session id (packetmuxer), or by a data packet that authenticates and is no
replay (datachannel). Then they call ``adopt``, and from then on that is where we send.

The kernel reports no ICMP errors on such a socket: a port where nobody listens is a silent one.
"""

from __future__ import annotations

import errno
import socket
from collections import deque
from typing import Any, cast

import trio

from ..errors import DropReason
from ..items import Burst, ForeignBurst
from .transport import MAX_BURST, RECEIVE_SIZE
from .udp import MAX_ERRORS_IN_A_ROW, TRANSIENT_ERRNOS, UDPTransport

__all__ = ["FloatingUDPTransport"]


class FloatingUDPTransport(UDPTransport):
    """A UDP socket and the address where the peer is. Owns the socket."""

    packets_in: int
    bursts_in: int
    bytes_in: int

    def __init__(self, sock: socket.socket, address: Any, peer: str | None = None) -> None:
        self._addressed = _Addressed(sock, address)
        super().__init__(cast(socket.socket, self._addressed), peer)
        self._adopted = False
        #: Received; each of one source, in the order of arrival.
        self._arrived: deque[Burst] = deque()

    def adopt(self, source: Any) -> None:
        """The peer is at ``source``, that of a ForeignBurst: it has proved it."""
        self._addressed.address = source
        self._adopted = True
        self._peer = str(source[0])

    async def receive(self) -> Burst:
        """1 to 64 datagrams of one source. Cancel-safe. Raises OSError as the connected transport does."""
        while not self._arrived:
            await trio.lowlevel.wait_readable(self._sock)
            self._drain_sources()
        burst = self._arrived.popleft()
        if isinstance(burst, ForeignBurst) and self._addressed.is_from_peer(burst.source):
            burst = list(burst)  # adopted while it waited
        self.packets_in += len(burst)
        self.bursts_in += 1
        self.bytes_in += sum(map(len, burst))
        return burst

    def _lost(self, exc: OSError, count: int) -> None:
        # Where a peer says it is may be where the kernel sends nothing; it may come back.
        if self._established and self._adopted and exc.errno in (errno.EINVAL, errno.EACCES):
            self.drops[DropReason.NOT_READY] += count
        else:
            super()._lost(exc, count)

    def _drain_sources(self) -> None:
        """Read until the socket is empty, or 64 datagrams are there."""
        errors = 0
        for _ in range(MAX_BURST):
            try:
                data, source = self._addressed.recvfrom(RECEIVE_SIZE)
            except BlockingIOError:
                return
            except OSError as exc:
                if not self._established or exc.errno not in TRANSIENT_ERRNOS:
                    if self._arrived:
                        return  # what came before comes first
                    raise
                self.drops[DropReason.NOT_READY] += 1
                errors += 1
                if errors >= MAX_ERRORS_IN_A_ROW:
                    return
                continue
            if not source[1]:
                # Nobody can be answered there.
                self.drops[DropReason.BAD_ADDRESS] += 1
                continue
            last = self._arrived[-1] if self._arrived else None
            if self._addressed.is_from_peer(source):
                if last is None or isinstance(last, ForeignBurst):
                    self._arrived.append([data])
                else:
                    last.append(data)
            elif isinstance(last, ForeignBurst) and last.source == source:
                last.append(data)
            else:
                self._arrived.append(ForeignBurst(source, [data]))


class _Addressed:
    """What UDPTransport uses of a connected socket, of one that is not."""

    def __init__(self, sock: socket.socket, address: Any) -> None:
        self._sock = sock
        self.address = address
        self.recvfrom = sock.recvfrom
        self.fileno, self.close, self.setblocking = sock.fileno, sock.close, sock.setblocking
        # The kernel knows the path of a connected socket only.
        self.family, self.getsockopt = sock.family, sock.getsockopt

    def is_from_peer(self, source: Any) -> bool:
        """Whether it is where the peer is. Flow labels do not count."""
        known = self.address
        return bool(source[:2] == known[:2] and source[3:] == known[3:])

    def send(self, data: bytes) -> int:
        return self._sock.sendto(data, self.address)

    def sendmsg(self, buffers: list[bytes], ancillary: list[tuple[int, int, bytes]]) -> int:
        return self._sock.sendmsg(buffers, ancillary, 0, self.address)
