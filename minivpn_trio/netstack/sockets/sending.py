"""Sending: bytes of a stream, as many as there is room for, or one datagram."""

from __future__ import annotations

import errno
import socket as stdlib
from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

import trio

from ..ping import PingEndpoint
from ..tcp.network import os_error
from ..udp import UdpEndpoint
from .receiving import Receiving
from .state import afresh

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from ..packets import Address

__all__ = ["Sending"]

#: Flags that ask for what happens anyway, or for nothing that would be noticed.
_SEND_FLAGS = sum(getattr(stdlib, name, 0) for name in ("MSG_NOSIGNAL", "MSG_DONTWAIT", "MSG_MORE", "MSG_EOR"))


class Sending(Receiving):
    """The layer with all that sends."""

    async def send(self, bytes: Buffer, flags: int = 0, /) -> int:
        """Hand over as much as there is room for, at least one byte; a datagram goes whole. How much it was.

        Checkpoints; cancel-safe: a cancelled call sent nothing. Raises OSError: EPIPE after the end was
        sent, ECONNRESET, ETIMEDOUT, ENETDOWN, ENOTCONN, EMSGSIZE, EBADF, ...
        """
        if flags & ~_SEND_FLAGS:
            raise os_error(errno.EOPNOTSUPP)
        if self._type == stdlib.SOCK_DGRAM:
            return await self._send_datagram(bytes, None)
        with self._sending, memoryview(bytes).cast("B") as view:
            return await self._when(self._writers, partial(self._put, view))

    def _put(self, view: memoryview) -> int | None:
        """How much of ``view`` the stream took; None: it has no room."""
        self._check_open()
        connection = self._connected()
        if self._shut_write:
            raise os_error(errno.EPIPE)
        if connection.writable:
            sent = self._pump.run(afresh, connection.write, view, trio.current_time())
            if sent or not len(view):
                return sent
        return None

    async def sendto(self, *args: Any) -> int:
        """``sendto(data, address)`` or ``sendto(data, flags, address)``. Checkpoints; cancel-safe.

        Waits while the way out is the bottleneck, as a full socket buffer of the kernel makes it wait.
        """
        if len(args) not in (2, 3):
            raise TypeError(f"sendto() takes 2 or 3 arguments ({len(args)} given)")
        if len(args) == 3 and args[1] & ~_SEND_FLAGS:
            raise os_error(errno.EOPNOTSUPP)
        if self._type == stdlib.SOCK_STREAM:
            return await self.send(args[0])
        host, port = await self._numeric(args[-1], local=False)
        assert host is not None
        return await self._send_datagram(args[0], (host, port))

    async def sendmsg(
        self,
        buffers: Iterable[Buffer],
        ancdata: Iterable[tuple[int, int, Buffer]] = (),
        flags: int = 0,
        address: Any = None,
        /,
    ) -> int:
        """``send`` or ``sendto`` for several buffers. Ancillary data is not supported (OSError, EOPNOTSUPP)."""
        if list(ancdata):
            raise os_error(errno.EOPNOTSUPP)
        data = b"".join(bytes(buffer) for buffer in buffers)
        return await (self.send(data, flags) if address is None else self.sendto(data, flags, address))

    async def wait_writable(self) -> None:
        """Wait until ``send`` would not block, or would raise. Checkpoints; cancel-safe."""
        with self._sending:
            await trio.lowlevel.checkpoint()
            self._check_open()
            if self._type == stdlib.SOCK_DGRAM:
                await self._wait_turn(self._open_endpoint())
                return
            connection = self._connected()
            while not (connection.writable or self._shut_write):
                await self._wait(self._writers)

    async def _send_datagram(self, data: Buffer, remote: tuple[Address, int] | None) -> int:
        with self._sending:
            await trio.lowlevel.checkpoint_if_cancelled()
            try:
                self._check_open()
                endpoint = self._open_endpoint()
                if not endpoint.writable:
                    await self._wait_turn(endpoint)
                if self._shut_write:
                    raise os_error(errno.EPIPE)
                return self._pump.run(endpoint.sendto, bytes(data), remote)
            finally:
                await trio.lowlevel.cancel_shielded_checkpoint()

    async def _wait_turn(self, endpoint: UdpEndpoint | PingEndpoint) -> None:
        """Wait until there is room for a datagram, or sending it would raise."""
        while not (endpoint.writable or self._shut_write):
            endpoint.wait_turn()
            await self._wait(self._writers)
