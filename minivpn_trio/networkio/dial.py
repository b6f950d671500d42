"""Reaching the server: name resolution and the outer socket.

The name is resolved once, outside the tunnel of course, and every address is
tried in turn. Numeric hosts never touch a resolver.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import trio

from ..config.model import Remote, TunnelConfig
from ..errors import Stage, TransportError
from .transports import StreamTransport, Transport, UDPTransport

__all__ = ["DialerContext", "Endpoint", "dial", "resolve"]

#: An application's own way to reach a server. Returns a Transport, or a byte stream that will
#: carry framed packets. What it raises ends the attempt.
DialerContext = Callable[[Remote], Awaitable[Transport | trio.abc.Stream]]

#: What we ask of the kernel where the profile says nothing: a burst that arrives while Python is
#: busy elsewhere has to wait somewhere. The kernel grants what its limits allow.
DEFAULT_SOCKET_BUFFER = 4 * 1024 * 1024

FAMILIES = {"udp": 0, "tcp": 0, "udp4": socket.AF_INET, "tcp4": socket.AF_INET,
            "udp6": socket.AF_INET6, "tcp6": socket.AF_INET6}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One address of one remote. ``address`` is what socket.connect takes; None: the application dials."""

    remote: Remote
    family: int = 0
    address: Any = None

    @property
    def host(self) -> str:
        """The numeric address, or the remote's name where the application dials."""
        return str(self.address[0]) if self.address else self.remote.host


async def resolve(remote: Remote) -> list[Endpoint]:
    """All addresses of ``remote``, in the system's order of preference.

    Raises TransportError (stage RESOLVE). Checkpoints, cancel-safe.
    """
    kind = socket.SOCK_STREAM if remote.is_tcp else socket.SOCK_DGRAM
    family = FAMILIES[remote.proto]
    try:
        found = socket.getaddrinfo(remote.host, remote.port, family, kind, 0, socket.AI_NUMERICHOST)
        await trio.lowlevel.checkpoint()
    except socket.gaierror:
        try:
            # The standard library's resolver, in a thread: trio.socket.getaddrinfo may have been
            # replaced by one that asks inside a tunnel.
            found = await trio.to_thread.run_sync(
                socket.getaddrinfo, remote.host, remote.port, family, kind, abandon_on_cancel=True
            )
        except (OSError, UnicodeError) as exc:
            text = getattr(exc, "strerror", None) or str(exc)
            raise TransportError(
                f"no address for {remote.host}: {text}",
                stage=Stage.RESOLVE,
                remedy="check the name in the profile's remote line and this machine's resolver",
            ) from exc
    seen: dict[Any, Endpoint] = {}
    for family_, _, _, _, address in found:
        seen.setdefault(address, Endpoint(remote, int(family_), address))
    return list(seen.values())


async def dial(endpoint: Endpoint, config: TunnelConfig) -> Transport:
    """Open the outer socket to ``endpoint``.

    Raises TransportError (stage DIAL), with the OSError as its cause. The
    caller bounds the time. Checkpoints; cancelled, it leaves no socket behind.
    """
    kind = socket.SOCK_STREAM if endpoint.remote.is_tcp else socket.SOCK_DGRAM
    sock = socket.socket(endpoint.family, kind)
    try:
        sock.setblocking(False)
        _tune(sock, config)
        if config.local_host is not None or config.local_port:
            host = config.local_host or ("::" if endpoint.family == socket.AF_INET6 else "0.0.0.0")
            sock.bind((host, config.local_port))
        if endpoint.remote.is_tcp:
            trio_sock = trio.socket.from_stdlib_socket(sock)
            await trio_sock.connect(endpoint.address)
            return StreamTransport(trio.SocketStream(trio_sock), endpoint.host)
        sock.connect(endpoint.address)
        await trio.lowlevel.checkpoint()
        return UDPTransport(sock, endpoint.host)
    except OSError as exc:
        sock.close()
        reason = os.strerror(exc.errno) if exc.errno else str(exc)
        raise TransportError(
            f"{endpoint.remote.proto} to {endpoint.host} port {endpoint.remote.port}: {reason}",
            stage=Stage.DIAL,
            remedy="check that the server runs and that nothing on the way blocks it",
        ) from exc
    except BaseException:
        sock.close()
        raise


def _tune(sock: socket.socket, config: TunnelConfig) -> None:
    if sock.type != socket.SOCK_STREAM:
        # TCP sizes its own buffers, and better than a constant would.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, config.rcvbuf or DEFAULT_SOCKET_BUFFER)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, config.sndbuf or DEFAULT_SOCKET_BUFFER)
        return
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if config.rcvbuf:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, config.rcvbuf)
    if config.sndbuf:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, config.sndbuf)
