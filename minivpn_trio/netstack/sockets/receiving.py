"""Receiving: bytes of a stream, or one datagram."""

from __future__ import annotations

import errno
import operator
import socket as stdlib
from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

import trio

from ..tcp.network import os_error
from .lifecycle import Lifecycle
from .state import afresh

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from ..packets import Address

__all__ = ["Receiving"]

#: Flags that ask for what happens anyway, or for nothing that would be noticed.
_RECEIVE_FLAGS = sum(getattr(stdlib, name, 0) for name in ("MSG_DONTWAIT", "MSG_WAITALL", "MSG_CMSG_CLOEXEC"))


class Receiving(Lifecycle):
    """The layer with all that receives."""

    async def recv(self, buflen: int, flags: int = 0, /) -> bytes:
        """Up to ``buflen`` bytes, or one datagram cut to that size; b"" at the end of a stream.

        Of ``flags`` MSG_PEEK leaves the bytes to be received again; MSG_DONTWAIT and MSG_WAITALL change nothing, as
        with all of Trio's sockets.

        Checkpoints; cancel-safe. Raises OSError: ECONNRESET, ETIMEDOUT, ENETDOWN, ENOTCONN, EBADF, ...
        """
        size = operator.index(buflen)
        if size < 0:
            raise ValueError("negative buffersize in recv")
        peek = _peeks(flags)
        if self._type == stdlib.SOCK_DGRAM:
            return (await self._next_datagram(peek))[0][:size]
        with self._receiving:
            return await self._when(self._readers, partial(self._take, size, peek))

    def _take(self, size: int, peek: bool) -> bytes | None:
        """Bytes of the stream, b"" at its end; None: there are none yet."""
        self._check_open()
        connection = self._connected()
        if not size or (self._shut_read and not connection.readable):
            return b""
        if not connection.readable:
            return None
        if peek and connection.receiver.queued:
            return connection.receiver.peek(size)
        return self._pump.run_quietly(afresh, connection.read, size, trio.current_time())

    async def recv_into(self, buffer: Buffer, nbytes: int = 0, flags: int = 0) -> int:
        """Like ``recv``, into ``buffer``; the number of bytes."""
        with memoryview(buffer).cast("B") as view:
            data = await self.recv(nbytes or len(view), flags)
            view[: len(data)] = data
        return len(data)

    async def recvfrom(self, bufsize: int, flags: int = 0, /) -> tuple[bytes, Any]:
        """Like ``recv``, with the sender's address (None for a stream)."""
        if self._type == stdlib.SOCK_STREAM:
            return await self.recv(bufsize, flags), None
        size = operator.index(bufsize)
        if size < 0:
            raise ValueError("negative buffersize in recvfrom")
        payload, remote = await self._next_datagram(_peeks(flags))
        return payload[:size], self._sockaddr(remote)

    async def recvfrom_into(self, buffer: Buffer, nbytes: int = 0, flags: int = 0) -> tuple[int, Any]:
        """Like ``recvfrom``, into ``buffer``."""
        with memoryview(buffer).cast("B") as view:
            data, sender = await self.recvfrom(nbytes or len(view), flags)
            view[: len(data)] = data
        return len(data), sender

    async def recvmsg(self, bufsize: int, ancbufsize: int = 0, flags: int = 0, /) -> tuple[bytes, list[Any], int, Any]:
        """Like ``recvfrom``, with no ancillary data ever, and MSG_TRUNC if a datagram did not fit."""
        buffer = bytearray(operator.index(bufsize))
        size, ancillary, reported, sender = await self.recvmsg_into([buffer], ancbufsize, flags)
        return bytes(buffer[:size]), ancillary, reported, sender

    async def recvmsg_into(
        self, buffers: Iterable[Buffer], ancbufsize: int = 0, flags: int = 0, /
    ) -> tuple[int, list[Any], int, Any]:
        """Like ``recvmsg``, into ``buffers``, one after the other."""
        views = [memoryview(buffer).cast("B") for buffer in buffers]
        room = sum(map(len, views))
        peek = _peeks(flags)
        sender, reported = None, 0
        if self._type == stdlib.SOCK_STREAM:
            data = await self.recv(room, flags)
        else:
            data, remote = await self._next_datagram(peek)
            sender = self._sockaddr(remote)
            reported = stdlib.MSG_TRUNC if len(data) > room else 0
        size = min(len(data), room)
        at = 0
        for view in views:
            piece = data[at : min(at + len(view), size)]
            view[: len(piece)] = piece
            at += len(piece)
        return size, [], reported, sender

    async def _next_datagram(self, peek: bool) -> tuple[bytes, tuple[Address, int]]:
        with self._receiving:
            return await self._when(self._readers, partial(self._take_datagram, peek))

    def _take_datagram(self, peek: bool) -> tuple[bytes, tuple[Address, int]] | None:
        self._check_open()
        endpoint = self._open_endpoint()
        item = (endpoint.peek() if peek else None) or endpoint.recvfrom()
        if item is None and self._shut_read:
            raise os_error(errno.ESHUTDOWN)
        return item


def _peeks(flags: int) -> bool:
    """Whether ``flags`` of a receive have MSG_PEEK. Raises OSError(EOPNOTSUPP) for those that cannot be obeyed."""
    if not flags:
        # Arithmetic of flags that are an enum takes 2 us.
        return False
    if flags & ~(_RECEIVE_FLAGS | stdlib.MSG_PEEK):
        raise os_error(errno.EOPNOTSUPP)
    return bool(flags & stdlib.MSG_PEEK)
