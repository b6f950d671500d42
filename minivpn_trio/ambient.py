"""Which network ``trio.socket`` means here: a tunnel's, for the tasks that were put inside it.

Trio lets one socket factory and one resolver stand in for its own, for a whole
run. Ours look at a context variable: in tasks where a dialer was chosen, and
in those that they start, sockets and names are the tunnel's; everywhere else
they are what they were before, also where somebody else's stand-ins were
installed first.

The stand-ins stay until the run ends. A task may outlive the block that it was started
in; its next socket must then fail with the tunnel, and not be the machine's.

What Trio makes without asking (``from_stdlib_socket``, ``socketpair``,
``fileno=``) is the machine's everywhere; a tunnel's own outer socket is made so.
"""

from __future__ import annotations

import socket as stdlib
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Protocol

import trio

__all__ = ["Network", "entered"]


class Network(Protocol):
    """What stands in for the machine's: a TunDialer."""

    def socket(self, family: int, type: int, proto: int) -> trio.socket.SocketType:
        """As ``socket.socket``. Raises OSError."""
        ...

    async def getaddrinfo(
        self, host: Any, port: Any, family: int = 0, type: int = 0, proto: int = 0, flags: int = 0
    ) -> list[Any]:
        """As ``socket.getaddrinfo``. Checkpoints. Raises socket.gaierror."""
        ...

    async def getnameinfo(self, sockaddr: Any, flags: int) -> tuple[str, str]:
        """As ``socket.getnameinfo``. Checkpoints. Raises socket.gaierror."""
        ...


_current: ContextVar[Network | None] = ContextVar("minivpn_trio_network", default=None)


@contextmanager
def entered(network: Network) -> Iterator[None]:
    """``network`` is the current task's, and that of tasks it starts, for the length of the block. May be nested."""
    _install()
    token = _current.set(network)
    try:
        yield
    finally:
        _current.reset(token)


def _install() -> None:
    """Make Trio ask us, unless it does already. Another's stand-in found there is asked by ours."""
    factory = _Factory()
    factory.before = trio.socket.set_custom_socket_factory(factory)
    if isinstance(factory.before, _Factory):
        trio.socket.set_custom_socket_factory(factory.before)
    resolver = _Resolver()
    resolver.before = trio.socket.set_custom_hostname_resolver(resolver)
    if isinstance(resolver.before, _Resolver):
        trio.socket.set_custom_hostname_resolver(resolver.before)


class _Factory(trio.abc.SocketFactory):
    """Makes the sockets of ``trio.socket.socket``."""

    before: trio.abc.SocketFactory | None = None

    def socket(
        self, family: int = stdlib.AF_INET, type: int = stdlib.SOCK_STREAM, proto: int = 0
    ) -> trio.socket.SocketType:
        network = _current.get()
        # A Unix socket reaches nobody but this machine. All other families are the network's to take or refuse.
        if network is not None and family != getattr(stdlib, "AF_UNIX", None):
            return network.socket(family, type, proto)
        if self.before is not None:
            return self.before.socket(family, type, proto)
        return trio.socket.from_stdlib_socket(stdlib.socket(family, type, proto))


class _Resolver(trio.abc.HostnameResolver):
    """Answers ``trio.socket.getaddrinfo`` and ``getnameinfo``, for what is not numeric."""

    before: trio.abc.HostnameResolver | None = None

    async def getaddrinfo(
        self,
        host: bytes | None,
        port: bytes | str | int | None,
        family: int = 0,
        type: int = 0,
        proto: int = 0,
        flags: int = 0,
    ) -> list[Any]:
        network = _current.get()
        if network is not None:
            return await network.getaddrinfo(host, port, family, type, proto, flags)
        if self.before is not None:
            return await self.before.getaddrinfo(host, port, family, type, proto, flags)
        return await trio.to_thread.run_sync(
            stdlib.getaddrinfo, host, port, family, type, proto, flags, abandon_on_cancel=True
        )

    async def getnameinfo(
        self, sockaddr: tuple[str, int] | tuple[str, int, int, int], flags: int
    ) -> tuple[str, str]:
        network = _current.get()
        if network is not None:
            return await network.getnameinfo(sockaddr, flags)
        if self.before is not None:
            return await self.before.getnameinfo(sockaddr, flags)
        return await trio.to_thread.run_sync(stdlib.getnameinfo, sockaddr, flags, abandon_on_cancel=True)
