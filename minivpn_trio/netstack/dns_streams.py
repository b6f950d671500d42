"""Connections to servers of DNS over TLS, kept for a while after an answer: the next question needs no handshake.

Two idle ones a server at most, for A and AAAA are asked at the same time. There is no task that closes
them in time: whoever asks next does, and the end of the tunnel. Until then a server that sends without having been
asked fills a receive window and no more; its connection is not used again.

Closing never waits: TCP's end is sent in the background, TLS's is not sent, since nobody would wait for more.

Sources: RFC 7858 (3.4: connection reuse), RFC 7766 (6.2.1, 6.2.3: the same, of TCP).
"""

from __future__ import annotations

import errno
import socket as stdlib
import ssl
from collections.abc import Callable
from typing import Self

import trio

from .name_servers import NameServer
from .sockets import TunSocket

__all__ = ["IDLE_TIMEOUT", "TlsStream", "TlsStreams"]

#: How long a connection is kept for the next question, seconds.
IDLE_TIMEOUT = 10.0
_MAX_IDLE = 2


class TlsStream:
    """A connection to one server, lent for one question: ``with`` it ask and have the answer read.

    An exception in the block, a Cancelled too, closes it: the answer may still come, and would be taken for the next
    question's. Otherwise it is kept.
    """

    def __init__(
        self, owner: TlsStreams, server: NameServer, socket: TunSocket, stream: trio.SSLStream[trio.SocketStream]
    ) -> None:
        self.server: NameServer = server
        self.stream: trio.SSLStream[trio.SocketStream] = stream
        self.idle_since: float = 0.0
        self._owner = owner
        self._socket = socket
        #: The one of the tunnel that it was opened in.
        self.generation: int | None = owner.generation

    def __enter__(self) -> Self:
        return self

    def __exit__(self, exc_type: object, *_: object) -> None:
        if exc_type is None:
            self._owner.keep(self)
        else:
            self.close()

    @property
    def is_quiet(self) -> bool:
        """Whether nothing has come that nobody asked for: bytes, an end, an error."""
        return not (self._socket.is_readable() or self.stream.pending())

    def close(self) -> None:
        """Let go. Idempotent, never blocks."""
        self._socket.close()


class TlsStreams:
    """The connections of one tunnel. ``open_socket(family, type)`` makes the sockets."""

    def __init__(self, open_socket: Callable[[int, int], TunSocket]) -> None:
        self._open_socket = open_socket
        self._context: ssl.SSLContext | None = None
        #: The longest idle first.
        self._idle: list[TlsStream] = []
        #: Of the tunnel: connections of an earlier one are not kept. None: it is gone, and none is.
        self.generation: int | None = 0

    async def connect(self, server: NameServer) -> TlsStream:
        """A new connection to ``server``, its certificate verified. Checkpoints; a cancelled call leaves nothing
        behind. Raises OSError, trio.BrokenResourceError."""
        if self._context is None:
            self._context = ssl.create_default_context()
        socket = self._open_socket(stdlib.AF_INET6 if ":" in server.address else stdlib.AF_INET, stdlib.SOCK_STREAM)
        try:
            await socket.connect((server.address, server.port))
            try:
                stream = trio.SSLStream(trio.SocketStream(socket), self._context, server_hostname=server.tls_name)
            except (ValueError, TypeError) as exc:
                # UnicodeError among them: what ssl says of an empty label, a leading dot, a zero octet.
                raise OSError(errno.EINVAL, "its name is none that a certificate could have") from exc
            await stream.do_handshake()
        except BaseException:
            socket.close()
            raise
        return TlsStream(self, server, socket, stream)

    def take(self, server: NameServer) -> TlsStream | None:
        """The idle connection to ``server`` that was used last, None if there is none. What is idle for too long, or
        closed by whatever server, is closed."""
        since = trio.current_time() - IDLE_TIMEOUT
        self._retain(lambda each: each.idle_since > since and each.is_quiet)
        for index in reversed(range(len(self._idle))):
            if self._idle[index].server == server:
                return self._idle.pop(index)
        return None

    def keep(self, stream: TlsStream) -> None:
        """``stream`` is idle, and has answered what it was asked. Closes one where there are enough."""
        if self.generation is None or stream.generation != self.generation or not stream.is_quiet:
            stream.close()
            return
        same = [each for each in self._idle if each.server == stream.server]
        if len(same) >= _MAX_IDLE:
            self._retain(lambda each: each is not same[0])
        stream.idle_since = trio.current_time()
        self._idle.append(stream)

    def distrust(self, server: NameServer) -> None:
        """``server`` was silent: idle connections to it may be dead, too."""
        self._retain(lambda each: each.server != server)

    def forget(self) -> None:
        """The tunnel changed: close what is idle, and do not keep what is in use."""
        if self.generation is not None:
            self.generation += 1
        self._retain(lambda each: False)

    def close(self) -> None:
        """The tunnel is gone: like ``forget``, and keep nothing from now on."""
        self.generation = None
        self._retain(lambda each: False)

    def _retain(self, wanted: Callable[[TlsStream], bool]) -> None:
        before, self._idle = self._idle, []
        for each in before:
            if wanted(each):
                self._idle.append(each)
            else:
                each.close()
