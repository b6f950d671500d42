"""The whole socket: it makes others of its kind, and says what it cannot do."""

from __future__ import annotations

import errno
import socket as stdlib
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import trio

from ..tcp.network import os_error
from .sending import Sending

if TYPE_CHECKING:
    import builtins

__all__ = ["TunSocket"]


class TunSocket(Sending):
    """A TCP (SOCK_STREAM), UDP or ping (SOCK_DGRAM) socket inside the tunnel, AF_INET or AF_INET6.

    A ping socket has ``proto`` IPPROTO_ICMP or IPPROTO_ICMPV6; see ``PingEndpoint``. Made by a dialer.
    ``resolve`` is asked for hosts that are not numeric; without it they are an error (gaierror).
    """

    def listen(self, backlog: int = 128) -> None:
        """Accept connections from inside the tunnel. Raises OSError: EOPNOTSUPP, EINVAL, EADDRINUSE."""
        self._check_open()
        if self._type != stdlib.SOCK_STREAM:
            raise os_error(errno.EOPNOTSUPP)
        if self._connection is not None:
            raise os_error(errno.EINVAL)
        if self._listener is None:
            host, port = self._bound or (None, 0)
            stack = self._pump.stack
            self._release()
            self._listener = self._pump.run(
                stack.listen_tcp, (self._any(host), port), trio.current_time(), min(max(backlog, 1), 128)
            )
            self._listener.on_change = self._weakly()

    async def accept(self) -> tuple[trio.socket.SocketType, Any]:
        """The next connection and its peer's address. Checkpoints; cancel-safe: a cancelled call loses none.

        Raises OSError: EINVAL, EBADF, and ENETRESET when the tunnel is gone. (trio.SocketListener takes
        ENETDOWN for a connection that was lost before it was accepted, and would ask again for ever.)
        """
        with self._receiving:
            await trio.lowlevel.checkpoint()
            self._check_open()
            if self._listener is None:
                raise os_error(errno.EINVAL)
            while True:
                try:
                    connection = self._listener.accept()
                except OSError as exc:
                    if exc.errno == errno.ENETDOWN:
                        raise OSError(errno.ENETRESET, "Network is down: the tunnel has ended") from None
                    raise
                if connection is not None:
                    break
                await self._wait(self._readers)
        accepted = TunSocket(self._pump, self._family, self._type, self._proto, resolve=self._resolve)
        # Before ``_adopt``, which makes the connection obey them (socket(7): a new socket has its listener's).
        accepted._options = dict(self._options)
        accepted._congestion, accepted._linger_zero = self._congestion, self._linger_zero
        accepted._adopt(connection)
        return accepted, self._sockaddr(connection.remote)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: builtins.type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    # --- what there is not ---

    def detach(self) -> int:
        """Raises OSError(EOPNOTSUPP): there is no descriptor."""
        raise os_error(errno.EOPNOTSUPP)

    def dup(self) -> trio.socket.SocketType:
        """Raises OSError(EOPNOTSUPP): there is no descriptor."""
        raise os_error(errno.EOPNOTSUPP)

    def get_inheritable(self) -> bool:
        """False: there is nothing to inherit."""
        return False

    def set_inheritable(self, inheritable: bool) -> None:
        """Raises OSError(EOPNOTSUPP) if asked for what cannot be."""
        if inheritable:
            raise os_error(errno.EOPNOTSUPP)
