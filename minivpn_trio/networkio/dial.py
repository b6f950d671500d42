"""Reaching the server: name resolution and the outer socket.

The name is resolved once, outside the tunnel of course, and every address is
tried in turn. Numeric hosts never touch a resolver. Where a remote is reached
through a proxy (proxies.py, obfs4.py), its name is the proxy's to resolve, and
nothing here ever dials it directly.

The sockets are made from the standard library's, so they never go through a
socket factory that a program installed for its traffic inside the tunnel.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

import trio

from ..config.model import Remote, TunnelConfig
from ..config.proxy import Obfs4Bridge
from ..errors import Stage, TransportError
from .floating import FloatingUDPTransport
from .framing import max_frame_of
from .scramble import Scrambler
from .scrambled import ScrambledTransport
from .stream import StreamTransport
from .transport import Transport
from .udp import UDPTransport

__all__ = [
    "DialerContext",
    "Endpoint",
    "LocalAddressError",
    "dial",
    "first_to_connect",
    "in_words",
    "is_numeric",
    "lookup",
    "open_socket",
    "over_stream",
    "remedy_for",
    "resolve",
]

#: An application's own way to reach a server. Returns a Transport, or a byte stream that will
#: carry framed packets. What it raises ends the attempt.
DialerContext = Callable[[Remote], Awaitable[Transport | trio.abc.Stream]]

#: What we ask of the kernel where the profile says nothing: a burst that arrives while Python is
#: busy elsewhere has to wait somewhere. The kernel grants what its limits allow.
DEFAULT_SOCKET_BUFFER = 4 * 1024 * 1024

#: ``struct linger``: on, and for no time, so that ``close`` sends a RST and keeps no state (socket(7)).
ABORT_ON_CLOSE = struct.pack("HH" if os.name == "nt" else "ii", 1, 0)

#: Until the next address of a proxy is tried as well, seconds.
ATTEMPT_DELAY = 0.25

FAMILIES: dict[str, int] = {"udp": 0, "tcp": 0, "udp4": socket.AF_INET, "tcp4": socket.AF_INET,
            "udp6": socket.AF_INET6, "tcp6": socket.AF_INET6}  # fmt: skip



class LocalAddressError(OSError):
    """The socket does not go where the profile wants it on this machine; ``strerror`` names the directive."""


def in_words(exc: OSError) -> str:
    """What went wrong. Trio's own texts repeat the address, and a resolver's numbers are no errnos."""
    if isinstance(exc, socket.gaierror | LocalAddressError) or not exc.errno:
        return exc.strerror or str(exc)
    return os.strerror(exc.errno)


def remedy_for(exc: OSError, otherwise: str) -> str:
    """What to do about it: ``otherwise``, unless the fault lies on this machine."""
    return "check that directive of the profile, or leave it out" if isinstance(exc, LocalAddressError) else otherwise


class Endpoint(NamedTuple):
    """One address of one remote. ``address`` is what socket.connect takes; None: the application
    dials, or a proxy does.
    """

    remote: Remote
    family: int = 0
    address: Any = None

    @property
    def host(self) -> str:
        """The numeric address, or the remote's name where the application or a proxy dials."""
        return str(self.address[0]) if self.address else self.remote.host

    @property
    def way(self) -> str:
        """How it is reached, for errors: protocol, host, port, and what is in between."""
        direct = f"{self.remote.proto} to {self.host} port {self.remote.port}"
        return direct if self.remote.proxy is None else f"{direct} through {self.remote.proxy}"

    @property
    def remedy(self) -> str:
        """What to do when nothing answers."""
        if isinstance(self.remote.proxy, Obfs4Bridge):
            return "check the bridge's address and cert: to a wrong cert a bridge says nothing"
        if self.remote.proxy is not None:
            return "check that the proxy runs and can reach the server"
        return "check the address, or try another remote or protocol"


async def resolve(remote: Remote) -> list[Endpoint]:
    """All addresses of ``remote``, in the system's order of preference; behind a proxy, its name alone.

    Raises TransportError (stage RESOLVE). Checkpoints, cancel-safe.
    """
    if remote.proxy is not None:
        await trio.lowlevel.checkpoint()
        return [Endpoint(remote)]
    kind = socket.SOCK_STREAM if remote.is_tcp else socket.SOCK_DGRAM
    try:
        found = await lookup(remote.host, remote.port, kind, FAMILIES[remote.proto])
        if not found:
            raise socket.gaierror(socket.EAI_NONAME, "it has none of the kind that is wanted")
    except (OSError, UnicodeError) as exc:
        text = getattr(exc, "strerror", None) or str(exc)
        raise TransportError(
            f"no address for {remote.host}: {text}",
            stage=Stage.RESOLVE,
            remedy="check the name in the profile's remote line and this machine's resolver",
        ) from exc
    return [Endpoint(remote, family, address) for family, address in found]


def is_numeric(host: str) -> bool:
    """Whether ``host`` is an address and no name, so that nobody need be asked."""
    try:
        socket.getaddrinfo(_ascii(host), None, flags=socket.AI_NUMERICHOST)
    except (OSError, UnicodeError):
        return False
    return True


def _ascii(host: str) -> str | bytes:
    """``host`` for getaddrinfo, as bytes where it can be: for a str Python imports its IDNA codec, half a millisecond
    before the first packet of a process."""
    return host.encode("ascii") if host.isascii() else host


async def lookup(host: str, port: int, kind: socket.SocketKind, family: int = 0) -> list[tuple[int, Any]]:
    """Families and addresses for socket.connect, each once. Raises OSError, UnicodeError. Checkpoints.

    By the standard library's resolver, in a thread: trio.socket.getaddrinfo may have been replaced
    by one that asks inside a tunnel.
    """
    try:
        found = socket.getaddrinfo(_ascii(host), port, family, kind, 0, socket.AI_NUMERICHOST)
        await trio.lowlevel.checkpoint()
    except socket.gaierror:
        found = await trio.to_thread.run_sync(
            socket.getaddrinfo, _ascii(host), port, family, kind, abandon_on_cancel=True
        )
    return list(dict.fromkeys((int(each[0]), each[4]) for each in found))


async def dial(endpoint: Endpoint, config: TunnelConfig) -> Transport:
    """Open a way to ``endpoint``: the outer socket, or a stream or association through its proxy.

    Raises TransportError (stage DIAL), with the OSError as its cause. The
    caller bounds the time. Checkpoints; cancelled, it leaves no socket behind.
    """
    remote = endpoint.remote
    scrambler = Scrambler(remote.scramble) if remote.scramble is not None else None
    if remote.proxy is not None:
        # Only now: not everybody has a proxy.
        from .proxies import dial_through

        transport = await dial_through(remote.proxy, remote, config)
    else:
        transport = await _dial_directly(endpoint, config)
    return transport if scrambler is None else ScrambledTransport(transport, scrambler)


def over_stream(stream: trio.abc.Stream, remote: Remote, config: TunnelConfig) -> Transport:
    """A transport over a stream to ``remote`` that the application opened."""
    transport = StreamTransport(stream, max_frame=max_frame_of(config.tun_mtu))
    return transport if remote.scramble is None else ScrambledTransport(transport, Scrambler(remote.scramble))


async def _dial_directly(endpoint: Endpoint, config: TunnelConfig) -> Transport:
    kind = socket.SOCK_STREAM if endpoint.remote.is_tcp else socket.SOCK_DGRAM
    try:
        floating = config.floating and kind == socket.SOCK_DGRAM
        sock = await open_socket(endpoint.family, None if floating else endpoint.address, kind, config)
    except OSError as exc:
        raise TransportError(
            f"{endpoint.way}: {in_words(exc)}",
            stage=Stage.DIAL,
            remedy=remedy_for(exc, "check that the server runs and that nothing on the way blocks it"),
        ) from exc
    if floating:
        return FloatingUDPTransport(sock, endpoint.address, endpoint.host)
    if kind == socket.SOCK_DGRAM:
        return UDPTransport(sock, endpoint.host)
    stream = trio.SocketStream(trio.socket.from_stdlib_socket(sock))
    return StreamTransport(stream, endpoint.host, max_frame=max_frame_of(config.tun_mtu))


async def open_socket(
    family: int, address: Any, kind: socket.SocketKind, config: TunnelConfig, *, bind: bool = True
) -> socket.socket:
    """A non-blocking socket, connected to ``address`` (None, for UDP: to none), with the profile's buffers and, unless
    told otherwise, its interface, mark and local address. Checkpoints; cancelled, it leaves no socket behind.

    Raises OSError, LocalAddressError among them.
    """
    sock = socket.socket(family, kind)
    try:
        sock.setblocking(False)
        _tune(sock, config)
        if bind:
            _confine(sock, config)
        if bind and (config.local_host is not None or config.local_port):
            await _bind(sock, config)
        if kind == socket.SOCK_STREAM:
            await trio.socket.from_stdlib_socket(sock).connect(address)
        else:
            if address is not None:
                sock.connect(address)
            await trio.lowlevel.checkpoint()
    except BaseException:
        sock.close()
        raise
    return sock


async def first_to_connect(found: list[tuple[int, Any]], config: TunnelConfig) -> socket.socket:
    """A TCP connection to whichever of ``found`` (families and addresses) answers first.

    The next one is tried as well when the one before failed, or was silent for 250 ms (RFC 8305, 5): an address that
    swallows packets does not use up the time of the others. Raises the OSError of the last that failed, with those of
    the others as notes. Checkpoints; cancelled, it leaves no socket behind.
    """
    winner: socket.socket | None = None
    failures: list[OSError] = []

    async def attempt(family: int, address: Any, failed: trio.Event, scope: trio.CancelScope) -> None:
        nonlocal winner
        try:
            sock = await open_socket(family, address, socket.SOCK_STREAM, config)
        except OSError as exc:
            exc.add_note(str(address[0]))
            failures.append(exc)
            failed.set()
            return
        if winner is None:
            winner = sock
            scope.cancel()
        else:
            sock.close()

    try:
        async with trio.open_nursery() as nursery:
            for family, address in found:
                failed = trio.Event()
                nursery.start_soon(attempt, family, address, failed, nursery.cancel_scope)
                with trio.move_on_after(ATTEMPT_DELAY):
                    await failed.wait()
    except BaseException:
        if winner is not None:
            winner.close()
        raise
    if winner is not None:
        return winner
    for earlier in failures[:-1]:
        failures[-1].add_note(f"tried before: {earlier.__notes__[0]}: {in_words(earlier)}")
    raise failures[-1]


def _confine(sock: socket.socket, config: TunnelConfig) -> None:
    """``bind-dev`` and ``mark``, which keep traffic off some interfaces: without them there is no socket.

    Raises LocalAddressError.
    """
    wanted: list[tuple[str, str, int | bytes]] = []
    if config.bind_device is not None:
        wanted.append((f"bind-dev {config.bind_device}", "SO_BINDTODEVICE", config.bind_device.encode()))
    if config.mark is not None:
        wanted.append((f"mark {config.mark}", "SO_MARK", config.mark))
    for what, name, value in wanted:
        option = getattr(socket, name, None)
        if option is None:
            raise LocalAddressError(None, f"{what}: this system has no such thing")
        try:
            sock.setsockopt(socket.SOL_SOCKET, option, _signed(value) if isinstance(value, int) else value)
        except OSError as exc:
            raise LocalAddressError(exc.errno, f"{what}: {in_words(exc)}") from exc


def _signed(value: int) -> int:
    """An unsigned 32-bit number as the C int that ``setsockopt`` takes."""
    return value - (1 << 32) if value >> 31 else value


async def _bind(sock: socket.socket, config: TunnelConfig) -> None:
    """Raises LocalAddressError, also for an address of another family than the server's."""
    host = config.local_host or ("::" if sock.family == socket.AF_INET6 else "0.0.0.0")
    if sock.type == socket.SOCK_STREAM:
        # A fixed port is to be had again at once: what is left of an earlier connection does not keep it from being
        # bound, and ours will leave nothing behind. Closed in order, it would occupy its pair of addresses until the
        # server has acknowledged the end: for minutes, where the server fell silent, which is when we connect anew.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if config.local_port:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ABORT_ON_CLOSE)
    try:
        ((_, address), *_) = await lookup(host, config.local_port, sock.type, sock.family)
        sock.bind(address)
    except (OSError, UnicodeError) as exc:
        what = f"local {config.local_host}" if config.local_host else f"lport {config.local_port}"
        reason = in_words(exc) if isinstance(exc, OSError) else "this is no name"
        raise LocalAddressError(getattr(exc, "errno", None), f"{what}: {reason}") from exc


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
