"""How a socket begins and ends: bind, connect, shutdown, close."""

from __future__ import annotations

import errno
import os
import socket as stdlib
from typing import TYPE_CHECKING, Any

import trio

from ..ping import PingEndpoint
from ..tcp.connection import TcpConnection
from ..tcp.network import os_error
from ..udp import UdpEndpoint
from .names import Names
from .state import afresh, let_go

if TYPE_CHECKING:
    from ..packets import Address

__all__ = ["Lifecycle"]


class Lifecycle(Names):
    """The layer that gets a socket its connection or endpoint, and lets go of it."""

    # --- opening ---

    async def bind(self, address: Any) -> None:
        """Choose our end; with port 0 a port is chosen, and kept from others until it is used. Checkpoints.

        Raises OSError: EINVAL (bound already), EADDRNOTAVAIL, EADDRINUSE.
        """
        local = await self._numeric(address, local=True)
        await trio.lowlevel.checkpoint()
        self._check_open()
        if self._bound is not None or self._connection is not None or self._endpoint is not None:
            raise os_error(errno.EINVAL)
        if self._type == stdlib.SOCK_DGRAM:
            self._open_endpoint((self._any(local[0]), local[1]))
        else:
            stack = self._pump.stack
            if local[0] is not None and not stack.is_own(local[0]):
                raise os_error(errno.EADDRNOTAVAIL)
            # Whether a certain port is free shows when it is used, which SO_REUSEADDR makes the usual way.
            if not local[1]:
                self._reservation = stack.reserve_tcp((self._any(local[0]), local[1]))
                self._token = trio.lowlevel.current_trio_token()
                local = local[0], self._reservation[1]
        self._bound = local

    async def connect(self, address: Any) -> None:
        """Connect; for a datagram socket, choose the one peer. Checkpoints. A cancelled call closes the socket.

        Raises OSError with the kernel's errno: ECONNREFUSED, ETIMEDOUT, EHOSTUNREACH, ENETUNREACH, ENETDOWN,
        EADDRNOTAVAIL, EISCONN, ...; socket.gaierror for a name that does not resolve.
        """
        try:
            with self._sending:
                await self._connect(address)
        except trio.Cancelled:
            self.close()
            raise

    async def _connect(self, address: Any) -> None:
        host, port = await self._numeric(address, local=False)
        await trio.lowlevel.checkpoint()
        self._check_open()
        if self._type == stdlib.SOCK_DGRAM:
            self._open_endpoint(None, None if host is None else (host, port)).connect(
                None if host is None else (host, port)
            )
            return
        if self._connection is not None or self._listener is not None:
            raise os_error(errno.EISCONN if self._connection is not None else errno.EINVAL)
        assert host is not None
        local = None
        if self._bound is not None:
            own, own_port = self._bound
            local = (own or b"", own_port)
            self._release()
        try:
            connection = self._pump.run(self._pump.stack.connect_tcp, (host, port), trio.current_time(), local)
            self._adopt(connection)
            while not connection.connected:
                if connection.error is not None:
                    raise connection.error
                await self._wait(self._writers)
        except OSError as exc:
            self._connection = None
            number = exc.errno or errno.ECONNABORTED
            raise OSError(number, f"connecting to {address!r}: {os.strerror(number)}") from None

    def _adopt(self, connection: TcpConnection) -> None:
        self._connection = connection
        connection.on_change = self._weakly()
        if self._congestion is not None:
            connection.set_congestion(self._congestion)
        self._apply_keepalive()
        self._apply_user_timeout()
        self._apply_nodelay()

    def _release(self) -> None:
        """Give back the port that ``bind`` reserved: to the connection or listener that is about to have it."""
        if self._reservation is not None:
            self._pump.stack.release_tcp(self._reservation)
            self._reservation = None

    def _open_endpoint(
        self, local: tuple[Address | None, int] | None = None, remote: tuple[Address, int] | None = None
    ) -> UdpEndpoint | PingEndpoint:
        if self._endpoint is None:
            local = local or (self._any(None), 0)
            if self._protocol == stdlib.IPPROTO_UDP:
                self._endpoint = self._pump.stack.open_udp(local, remote)
            else:
                self._endpoint = PingEndpoint(self._pump.stack, local, remote)
            self._endpoint.on_change = self._weakly()
            self._apply_to_endpoint()
        return self._endpoint

    # --- closing ---

    def close(self) -> None:
        """Let go. What was sent is still delivered in the background. Tasks blocked on this socket get
        trio.ClosedResourceError. Idempotent, never blocks."""
        if self._closed:
            return
        self._closed = True
        reservation, self._reservation = self._reservation, None
        let_go(self._pump, self._connection, self._linger_zero, self._listener, self._endpoint, reservation)
        self._readers.unpark_all()
        self._writers.unpark_all()

    def shutdown(self, flag: int) -> None:
        """Half close: SHUT_WR ends our side of the stream, SHUT_RD makes receives return the end, after what has
        arrived.

        Raises OSError: ENOTCONN, EINVAL, EBADF.
        """
        self._check_open()
        if flag not in (stdlib.SHUT_RD, stdlib.SHUT_WR, stdlib.SHUT_RDWR):
            raise os_error(errno.EINVAL)
        if self._type == stdlib.SOCK_STREAM:
            connection = self._connected()
            if flag != stdlib.SHUT_RD:
                self._pump.run(afresh, connection.shutdown_write, trio.current_time())
        elif self._endpoint is None or self._endpoint.remote is None:
            raise os_error(errno.ENOTCONN)
        if flag != stdlib.SHUT_RD:
            self._shut_write = True
            self._writers.unpark_all()
        if flag != stdlib.SHUT_WR:
            self._shut_read = True
            self._readers.unpark_all()
