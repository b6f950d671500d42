"""TunSocket: a ``trio.socket.SocketType`` whose network is a stack, not the kernel.

Trio's own ``SocketStream`` and everything built on it check only that they
are given a SocketType, so an application gets a real ``trio.SocketStream``.
There is no file descriptor behind it: ``fileno()`` is a number that none can have.

Behaviour is the kernel's as Trio shows it: ``send`` may be partial, errors are
OSErrors with the kernel's errno, a closed socket raises EBADF, closing wakes
blocked tasks with ClosedResourceError, a second receiver or sender gets
BusyResourceError. All async methods checkpoint and are cancel-safe: bytes are
taken or handed over after the last checkpoint, so a cancelled call did
nothing. Only a cancelled ``connect`` closes the socket. Nothing here has a
timeout: that is the caller's cancel scope.

Readiness is level-triggered: one question, asked of the connection, decides
both whether a call may proceed and whether a blocked one is woken.

The file is long because SocketType is wide; each member is short.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import operator
import os
import socket as stdlib
import struct
import sys
from collections.abc import Awaitable, Callable, Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

import trio

from .ping import PingEndpoint
from .tcp.congestion import ALGORITHMS
from .tcp.connection import TcpConnection
from .tcp.info import tcp_info
from .udp import UdpEndpoint

if TYPE_CHECKING:
    import builtins

    from typing_extensions import Buffer

    from .packets import Address
    from .tcp.listener import TcpListener
    from .worker import Pump

__all__ = ["Resolve", "TunSocket"]

T = TypeVar("T")

#: ``getaddrinfo`` of the tunnel's resolver: (host, port, family, type, proto, flags).
Resolve = Callable[..., Awaitable[list[tuple[Any, Any, int, str, Any]]]]

#: What ``fileno`` says while the socket is open: positive, and higher than any descriptor.
_NO_DESCRIPTOR = 0x7FFFFFFF

_LEVEL_TCP = stdlib.IPPROTO_TCP

_V6ONLY = (stdlib.IPPROTO_IPV6, stdlib.IPV6_V6ONLY)
_KEEPALIVE = (stdlib.SOL_SOCKET, stdlib.SO_KEEPALIVE)
_KEEPIDLE = (_LEVEL_TCP, getattr(stdlib, "TCP_KEEPIDLE", 4))
_KEEPALIVE_PACE = (getattr(stdlib, "TCP_KEEPINTVL", 5), getattr(stdlib, "TCP_KEEPCNT", 6))
#: In milliseconds; 0: none.
_USER_TIMEOUT = (_LEVEL_TCP, getattr(stdlib, "TCP_USER_TIMEOUT", 18))
_NODELAY = (_LEVEL_TCP, stdlib.TCP_NODELAY)
_RCVBUF, _MAX_RCVBUF = (stdlib.SOL_SOCKET, stdlib.SO_RCVBUF), 8 << 20
_MAXSEG = (_LEVEL_TCP, stdlib.TCP_MAXSEG)
#: A name in ``ALGORITHMS``, as bytes; as much of it as Linux returns (TCP_CA_NAME_MAX).
_CONGESTION, _CONGESTION_SIZE = (_LEVEL_TCP, getattr(stdlib, "TCP_CONGESTION", 13)), 16
_INFO = (_LEVEL_TCP, getattr(stdlib, "TCP_INFO", 11))
#: IP_MTU and IPV6_MTU: what is known of the path to where the socket is connected. Not in every Python's socket module.
_MTU = ((stdlib.IPPROTO_IP, 14), (stdlib.IPPROTO_IPV6, 24))
#: IP_MTU_DISCOVER and IPV6_MTU_DISCOVER, and the two values of them that forbid fragments: DO and PROBE.
_MTU_DISCOVER = ((stdlib.IPPROTO_IP, 10), (stdlib.IPPROTO_IPV6, 23))
_NO_FRAGMENTS = (2, 3)
#: Flags that ask for what happens anyway, or for nothing that would be noticed.
_SEND_FLAGS = sum(getattr(stdlib, name, 0) for name in ("MSG_NOSIGNAL", "MSG_DONTWAIT", "MSG_MORE", "MSG_EOR"))
_RECEIVE_FLAGS = sum(getattr(stdlib, name, 0) for name in ("MSG_DONTWAIT", "MSG_WAITALL", "MSG_CMSG_CLOEXEC"))
#: Seconds, as Linux has it (tcp(7)).
_DEFAULT_KEEPIDLE = 7200

#: Options that are accepted and remembered, with their values before anybody set them. Most have no effect.
#: TCP_NODELAY is on unless it is turned off.
_DEFAULTS: dict[tuple[int, int], int] = {
    (stdlib.SOL_SOCKET, stdlib.SO_REUSEADDR): 0,
    (stdlib.SOL_SOCKET, stdlib.SO_KEEPALIVE): 0,
    (stdlib.SOL_SOCKET, stdlib.SO_BROADCAST): 0,
    (stdlib.SOL_SOCKET, stdlib.SO_SNDBUF): 212_992,
    (stdlib.SOL_SOCKET, stdlib.SO_RCVBUF): 212_992,
    _NODELAY: 1,
    (stdlib.IPPROTO_IP, stdlib.IP_TTL): 64,
    (stdlib.IPPROTO_IP, stdlib.IP_TOS): 0,
    _V6ONLY: 1,
    (stdlib.IPPROTO_IPV6, stdlib.IPV6_UNICAST_HOPS): 64,
}
for _name in ("TCP_NOTSENT_LOWAT", "TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT", "TCP_USER_TIMEOUT", "TCP_QUICKACK"):
    if hasattr(stdlib, _name):
        _DEFAULTS[_LEVEL_TCP, getattr(stdlib, _name)] = 0
if hasattr(stdlib, "SO_REUSEPORT"):
    _DEFAULTS[stdlib.SOL_SOCKET, stdlib.SO_REUSEPORT] = 0
_DEFAULTS.update(dict.fromkeys(_MTU_DISCOVER, 1))
# Not in every Python's socket module; asyncio, trio and anyio use the number too.
_DEFAULTS[stdlib.IPPROTO_IP, 24] = 0  # IP_BIND_ADDRESS_NO_PORT


class _Exclusive:
    """A ``with`` block that one task at a time may be in; the next gets trio.BusyResourceError."""

    __slots__ = ("_busy", "_what")

    def __init__(self, what: str) -> None:
        self._busy = False
        self._what = what

    def __enter__(self) -> None:
        if self._busy:
            raise trio.BusyResourceError(f"another task is already {self._what} this socket")
        self._busy = True

    def __exit__(self, *exc_info: object) -> None:
        self._busy = False


class TunSocket(trio.socket.SocketType):
    """A TCP (SOCK_STREAM), UDP or ping (SOCK_DGRAM) socket inside the tunnel, AF_INET or AF_INET6.

    A ping socket has ``proto`` IPPROTO_ICMP or IPPROTO_ICMPV6; see ``PingEndpoint``. Made by a dialer.
    ``resolve`` is asked for hosts that are not numeric; without it they are an error (gaierror).
    """

    def __init__(
        self,
        pump: Pump,
        family: int = stdlib.AF_INET,
        type: int = stdlib.SOCK_STREAM,
        proto: int = 0,
        *,
        resolve: Resolve | None = None,
    ) -> None:
        super().__init__()
        if family not in (stdlib.AF_INET, stdlib.AF_INET6):
            raise _os_error(errno.EAFNOSUPPORT)
        # Linux lets these flags be or-ed in; Trio's sockets never block and are never inherited anyway.
        type &= ~(getattr(stdlib, "SOCK_NONBLOCK", 0) | getattr(stdlib, "SOCK_CLOEXEC", 0))
        echo = stdlib.IPPROTO_ICMP if family == stdlib.AF_INET else stdlib.IPPROTO_ICMPV6
        protocols: dict[int, tuple[int, ...]] = {
            stdlib.SOCK_STREAM: (stdlib.IPPROTO_TCP,),
            stdlib.SOCK_DGRAM: (stdlib.IPPROTO_UDP, echo),
        }
        if type not in protocols or proto not in (0, *protocols[type]):
            raise _os_error(errno.EPROTONOSUPPORT)
        #: What 0 stands for said in full.
        self._protocol = proto or protocols[type][0]
        self._pump = pump
        self._resolve = resolve
        self._family = stdlib.AddressFamily(family)
        self._type = stdlib.SocketKind(type)
        self._proto = proto
        self._connection: TcpConnection | None = None
        self._listener: TcpListener | None = None
        self._endpoint: UdpEndpoint | PingEndpoint | None = None
        self._bound: tuple[Address | None, int] | None = None
        self._reservation: tuple[Address | None, int] | None = None
        self._closed = False
        self._shut_read = self._shut_write = False
        self._options: dict[tuple[int, int], int] = {}
        self._congestion = pump.stack.settings.congestion
        self._linger_zero = False
        self._receiving = _Exclusive("receiving from")
        self._sending = _Exclusive("sending on")
        self._readers = trio.lowlevel.ParkingLot()
        self._writers = trio.lowlevel.ParkingLot()

    # --- what it is --------------------------------------------------------------------------------------------------

    @property
    def family(self) -> stdlib.AddressFamily:
        """AF_INET or AF_INET6."""
        return self._family

    @property
    def type(self) -> stdlib.SocketKind:
        """SOCK_STREAM or SOCK_DGRAM."""
        return self._type

    @property
    def proto(self) -> int:
        """The protocol number given at construction."""
        return self._proto

    @property
    def did_shutdown_SHUT_WR(self) -> bool:
        """Whether we have sent the end of the stream."""
        return self._shut_write

    @property
    def _sock(self) -> TunSocket:
        # anyio reads family, names and options from the private ``_sock`` of Trio's own sockets.
        return self

    def __repr__(self) -> str:
        state = "closed" if self._closed else "connected" if self._connection else "open"
        return f"<minivpn_trio.TunSocket {self._family.name} {self._type.name} {state}>"

    def fileno(self) -> int:
        """-1 once closed; until then a number that no descriptor can have."""
        return -1 if self._closed else _NO_DESCRIPTOR

    def getsockname(self) -> Any:
        """Our end, (host, port) or with two zeros more for IPv6."""
        self._check_open()
        local: tuple[Address | None, int]
        if self._connection is not None:
            local = self._connection.local
        elif self._listener is not None:
            local = self._listener.local
        elif self._endpoint is not None:
            local = self._endpoint.local
        else:
            local = self._bound or (None, 0)
        return self._sockaddr(local)

    def getpeername(self) -> Any:
        """The other end. Raises OSError(ENOTCONN)."""
        self._check_open()
        if self._connection is not None:
            return self._sockaddr(self._connection.remote)
        if self._endpoint is not None and self._endpoint.remote is not None:
            return self._sockaddr(self._endpoint.remote)
        raise _os_error(errno.ENOTCONN)

    def is_readable(self) -> bool:
        """Whether a receive, or accept, would return or raise at once."""
        if self._closed or self._shut_read:
            return True
        if self._connection is not None:
            return self._connection.readable
        if self._listener is not None:
            return self._listener.acceptable
        return self._endpoint is not None and self._endpoint.readable

    # --- options -----------------------------------------------------------------------------------------------------

    def getsockopt(self, level: int, optname: int, buflen: int | None = None) -> Any:
        """As ``socket.socket.getsockopt``; OSError(ENOPROTOOPT) for options that are not known.

        TCP_INFO is Linux's structure as far as its ``tcpi_total_retrans``.
        """
        self._check_open()
        key = (level, optname)
        if key == (stdlib.SOL_SOCKET, stdlib.SO_ERROR):
            value = self._take_error()
        elif key == (stdlib.SOL_SOCKET, stdlib.SO_TYPE):
            value = int(self._type)
        elif key == (stdlib.SOL_SOCKET, stdlib.SO_ACCEPTCONN):
            value = int(self._listener is not None)
        elif key == (stdlib.SOL_SOCKET, getattr(stdlib, "SO_DOMAIN", -1)):
            value = int(self._family)
        elif key == (stdlib.SOL_SOCKET, getattr(stdlib, "SO_PROTOCOL", -1)):
            value = self._protocol
        elif key in _MTU:
            value = self._path_mtu()
        elif key == _MAXSEG and self._type == stdlib.SOCK_STREAM:
            value = 536 if self._connection is None else self._pump.stack.mss_to(self._connection.remote[0])
        elif key == _CONGESTION and self._type == stdlib.SOCK_STREAM:
            name = self._congestion.encode().ljust(_CONGESTION_SIZE, b"\0")
            return int.from_bytes(name[:4], sys.byteorder) if buflen is None else name[:buflen]
        elif key == _INFO and self._type == stdlib.SOCK_STREAM:
            if buflen is None:
                raise _os_error(errno.EINVAL)
            connection = self._connected()
            return tcp_info(connection, self._pump.stack.mtu_to(connection.remote[0]))[:buflen]
        elif key == (stdlib.SOL_SOCKET, stdlib.SO_LINGER):
            return struct.pack("ii", int(self._linger_zero), 0)
        elif key in _DEFAULTS:
            value = self._options.get(key, _DEFAULTS[key])
        else:
            raise _os_error(errno.ENOPROTOOPT)
        return value if buflen is None else struct.pack("i", value)[:buflen]

    def setsockopt(self, level: int, optname: int, value: int | Buffer | None, optlen: int | None = None) -> None:
        """As ``socket.socket.setsockopt``; OSError(ENOPROTOOPT) for options that are not known.

        SO_LINGER with a time of 0 makes ``close`` reset the connection; SO_KEEPALIVE with TCP_KEEPIDLE,
        TCP_KEEPINTVL and TCP_KEEPCNT, TCP_USER_TIMEOUT, TCP_NODELAY (on by default) and TCP_CONGESTION (ENOENT for an
        algorithm that there is not) are obeyed, and for datagrams the time to
        live, SO_RCVBUF and IP_MTU_DISCOVER. The rest is remembered.
        """
        self._check_open()
        if value is None:
            raise TypeError("an option without a value is not supported")
        if (level, optname) == (stdlib.SOL_SOCKET, stdlib.SO_LINGER):
            if isinstance(value, int):
                raise _os_error(errno.EINVAL)
            on, seconds = struct.unpack("ii", value)
            self._linger_zero = bool(on) and seconds == 0
            return
        if (level, optname) == _CONGESTION and self._type == stdlib.SOCK_STREAM:
            if isinstance(value, int):
                raise _os_error(errno.EINVAL)
            name = bytes(value)[: _CONGESTION_SIZE - 1].partition(b"\0")[0].decode("ascii", "replace")
            if name not in ALGORITHMS:
                raise _os_error(errno.ENOENT)
            self._congestion = name
            if self._connection is not None:
                self._connection.set_congestion(name)
            return
        if (level, optname) not in _DEFAULTS:
            raise _os_error(errno.ENOPROTOOPT)
        number = int(value) if isinstance(value, int) else int.from_bytes(bytes(value)[:4], "little")
        self._options[level, optname] = number
        self._apply_keepalive()
        self._apply_user_timeout()
        self._apply_nodelay()
        self._apply_to_endpoint()

    def _apply_to_endpoint(self) -> None:
        if self._endpoint is None:
            return
        self._endpoint.ttl = self._ttl()
        if not isinstance(self._endpoint, UdpEndpoint):
            return
        discover = _MTU_DISCOVER[self._family != stdlib.AF_INET]
        self._endpoint.dont_fragment = self._options.get(discover) in _NO_FRAGMENTS
        if _RCVBUF in self._options:
            # Twice what is asked for, as Linux does (socket(7)), within reason.
            self._endpoint.max_queued_bytes = max(2048, min(2 * self._options[_RCVBUF], _MAX_RCVBUF))

    def _apply_keepalive(self) -> None:
        if self._connection is None or not self._options.get(_KEEPALIVE):
            if self._connection is not None and _KEEPALIVE in self._options:
                self._pump.run(self._connection.set_keepalive, None, trio.current_time())
            return
        idle = self._options.get(_KEEPIDLE) or _DEFAULT_KEEPIDLE
        interval, probes = (self._options.get((_LEVEL_TCP, option)) for option in _KEEPALIVE_PACE)
        self._pump.run(
            self._connection.set_keepalive, float(idle), trio.current_time(), interval or None, probes or None
        )

    def _apply_user_timeout(self) -> None:
        if self._connection is not None and _USER_TIMEOUT in self._options:
            seconds = self._options[_USER_TIMEOUT] / 1000 or None
            self._pump.run(self._connection.set_user_timeout, seconds, trio.current_time())

    def _apply_nodelay(self) -> None:
        if self._connection is not None and _NODELAY in self._options:
            self._pump.run(self._connection.set_nodelay, bool(self._options[_NODELAY]), trio.current_time())

    def _path_mtu(self) -> int:
        """Raises OSError(ENOTCONN) where there is no path."""
        remote = self._connection.remote if self._connection is not None else None
        if self._endpoint is not None:
            remote = self._endpoint.remote
        if remote is None:
            raise _os_error(errno.ENOTCONN)
        return self._pump.stack.mtu_to(remote[0])

    def _ttl(self) -> int:
        if self._family == stdlib.AF_INET:
            ttl = self._options.get((stdlib.IPPROTO_IP, stdlib.IP_TTL), 64)
        else:
            ttl = self._options.get((stdlib.IPPROTO_IPV6, stdlib.IPV6_UNICAST_HOPS), 64)
        return ttl if 0 < ttl < 256 else 64

    def get_inheritable(self) -> bool:
        """False: there is nothing to inherit."""
        return False

    def set_inheritable(self, inheritable: bool) -> None:
        """Raises OSError(EOPNOTSUPP) if asked for what cannot be."""
        if inheritable:
            raise _os_error(errno.EOPNOTSUPP)

    # --- opening -----------------------------------------------------------------------------------------------------

    async def bind(self, address: Any) -> None:
        """Choose our end; with port 0 a port is chosen, and kept from others until it is used. Checkpoints.

        Raises OSError: EINVAL (bound already), EADDRNOTAVAIL, EADDRINUSE.
        """
        local = await self._numeric(address, local=True)
        await trio.lowlevel.checkpoint()
        self._check_open()
        if self._bound is not None or self._connection is not None or self._endpoint is not None:
            raise _os_error(errno.EINVAL)
        if self._type == stdlib.SOCK_DGRAM:
            self._open_endpoint((self._any(local[0]), local[1]))
        else:
            stack = self._pump.stack
            if local[0] is not None and not stack.is_own(local[0]):
                raise _os_error(errno.EADDRNOTAVAIL)
            # Whether a certain port is free shows when it is used, which SO_REUSEADDR makes the usual way.
            if not local[1]:
                self._reservation = stack.reserve_tcp((self._any(local[0]), local[1]))
                local = local[0], self._reservation[1]
        self._bound = local

    def listen(self, backlog: int = 128) -> None:
        """Accept connections from inside the tunnel. Raises OSError: EOPNOTSUPP, EINVAL, EADDRINUSE."""
        self._check_open()
        if self._type != stdlib.SOCK_STREAM:
            raise _os_error(errno.EOPNOTSUPP)
        if self._connection is not None:
            raise _os_error(errno.EINVAL)
        if self._listener is None:
            host, port = self._bound or (None, 0)
            stack = self._pump.stack
            self._release()
            self._listener = self._pump.run(
                stack.listen_tcp, (self._any(host), port), trio.current_time(), min(max(backlog, 1), 128)
            )
            self._listener.on_change = self._on_change

    async def accept(self) -> tuple[trio.socket.SocketType, Any]:
        """The next connection and its peer's address. Checkpoints; cancel-safe: a cancelled call loses none.

        Raises OSError: EINVAL, EBADF, and ENETRESET when the tunnel is gone. (trio.SocketListener takes
        ENETDOWN for a connection that was lost before it was accepted, and would ask again for ever.)
        """
        with self._receiving:
            await trio.lowlevel.checkpoint()
            self._check_open()
            if self._listener is None:
                raise _os_error(errno.EINVAL)
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
            raise _os_error(errno.EISCONN if self._connection is not None else errno.EINVAL)
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
        connection.on_change = self._on_change
        if self._congestion != connection.congestion_name:
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
            self._endpoint.on_change = self._on_change
            self._apply_to_endpoint()
        return self._endpoint

    # --- closing -----------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Let go. What was sent is still delivered in the background. Tasks blocked on this socket get
        trio.ClosedResourceError. Idempotent, never blocks."""
        if self._closed:
            return
        self._closed = True
        self._release()
        now = trio.current_time()
        if self._connection is not None:
            self._connection.on_change = None
            self._pump.run(self._connection.abort if self._linger_zero else self._connection.close, now)
        if self._listener is not None:
            self._listener.on_change = None
            self._pump.run(self._listener.close, now)
        if self._endpoint is not None:
            self._endpoint.on_change = None
            self._endpoint.close()
        self._readers.unpark_all()
        self._writers.unpark_all()

    def shutdown(self, flag: int) -> None:
        """Half close: SHUT_WR ends our side of the stream, SHUT_RD makes receives return the end, after what has
        arrived.

        Raises OSError: ENOTCONN, EINVAL, EBADF.
        """
        self._check_open()
        if flag not in (stdlib.SHUT_RD, stdlib.SHUT_WR, stdlib.SHUT_RDWR):
            raise _os_error(errno.EINVAL)
        if self._type == stdlib.SOCK_STREAM:
            connection = self._connected()
            if flag != stdlib.SHUT_RD:
                self._pump.run(_afresh, connection.shutdown_write, trio.current_time())
        elif self._endpoint is None or self._endpoint.remote is None:
            raise _os_error(errno.ENOTCONN)
        if flag != stdlib.SHUT_RD:
            self._shut_write = True
            self._writers.unpark_all()
        if flag != stdlib.SHUT_WR:
            self._shut_read = True
            self._readers.unpark_all()

    def detach(self) -> int:
        """Raises OSError(EOPNOTSUPP): there is no descriptor."""
        raise _os_error(errno.EOPNOTSUPP)

    def dup(self) -> trio.socket.SocketType:
        """Raises OSError(EOPNOTSUPP): there is no descriptor."""
        raise _os_error(errno.EOPNOTSUPP)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: builtins.type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    # --- receiving ---------------------------------------------------------------------------------------------------

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
            await trio.lowlevel.checkpoint()
            self._check_open()
            connection = self._connected()
            while size:
                if connection.readable:
                    if peek and connection.receiver.queued:
                        return connection.receiver.peek(size)
                    return self._pump.run(_afresh, connection.read, size, trio.current_time())
                if self._shut_read:
                    break
                await self._wait(self._readers)
            return b""

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
            await trio.lowlevel.checkpoint()
            self._check_open()
            endpoint = self._open_endpoint()
            while True:
                item = (endpoint.peek() if peek else None) or endpoint.recvfrom()
                if item is not None:
                    return item
                if self._shut_read:
                    raise _os_error(errno.ESHUTDOWN)
                await self._wait(self._readers)

    # --- sending -----------------------------------------------------------------------------------------------------

    async def send(self, bytes: Buffer, flags: int = 0, /) -> int:
        """Hand over as much as there is room for, at least one byte; a datagram goes whole. How much it was.

        Checkpoints; cancel-safe: a cancelled call sent nothing. Raises OSError: EPIPE after the end was
        sent, ECONNRESET, ETIMEDOUT, ENETDOWN, ENOTCONN, EMSGSIZE, EBADF, ...
        """
        if flags & ~_SEND_FLAGS:
            raise _os_error(errno.EOPNOTSUPP)
        if self._type == stdlib.SOCK_DGRAM:
            return await self._send_datagram(bytes, None)
        with self._sending, memoryview(bytes).cast("B") as view:
            await trio.lowlevel.checkpoint_if_cancelled()
            try:
                self._check_open()
                connection = self._connected()
                while True:
                    if self._shut_write:
                        raise _os_error(errno.EPIPE)
                    if connection.writable:
                        sent = self._pump.run(_afresh, connection.write, view, trio.current_time())
                        if sent or not len(view):
                            return sent
                    await self._wait(self._writers)
            finally:
                # After the bytes are on their way: they need not wait for a turn of the scheduler.
                await trio.lowlevel.cancel_shielded_checkpoint()

    async def sendto(self, *args: Any) -> int:
        """``sendto(data, address)`` or ``sendto(data, flags, address)``. Checkpoints; cancel-safe.

        Waits while the way out is the bottleneck, as a full socket buffer of the kernel makes it wait.
        """
        if len(args) not in (2, 3):
            raise TypeError(f"sendto() takes 2 or 3 arguments ({len(args)} given)")
        if len(args) == 3 and args[1] & ~_SEND_FLAGS:
            raise _os_error(errno.EOPNOTSUPP)
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
            raise _os_error(errno.EOPNOTSUPP)
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
                    raise _os_error(errno.EPIPE)
                return self._pump.run(endpoint.sendto, bytes(data), remote)
            finally:
                await trio.lowlevel.cancel_shielded_checkpoint()

    async def _wait_turn(self, endpoint: UdpEndpoint | PingEndpoint) -> None:
        """Wait until there is room for a datagram, or sending it would raise."""
        while not (endpoint.writable or self._shut_write):
            endpoint.wait_turn()
            await self._wait(self._writers)

    # --- inside ------------------------------------------------------------------------------------------------------

    def _on_change(self) -> None:
        """The stack says that something may have changed: wake whoever may now proceed."""
        connection = self._connection
        if connection is None:
            self._readers.unpark_all()
            if self._writers:
                self._writers.unpark_all()
            return
        if self._readers and connection.readable:
            self._readers.unpark_all()
        if self._writers and (connection.writable or connection.connected or connection.error is not None):
            self._writers.unpark_all()

    async def _wait(self, lot: trio.lowlevel.ParkingLot) -> None:
        await lot.park()
        if self._closed:
            raise trio.ClosedResourceError("another task closed this socket")

    def _check_open(self) -> None:
        if self._closed:
            raise _os_error(errno.EBADF)

    def _connected(self) -> TcpConnection:
        connection = self._connection
        if connection is None or not (connection.connected or connection.error is not None):
            raise _os_error(errno.ENOTCONN)
        return connection

    def _any(self, address: Address | None) -> Address | None:
        """``address``, or what stands for all of ours: zeros of our family, None where IPv6 takes IPv4 along."""
        if address is not None:
            return address
        if self._family == stdlib.AF_INET:
            return bytes(4)
        return bytes(16) if self._options.get(_V6ONLY, 1) else None

    def _take_error(self) -> int:
        source = self._connection or self._endpoint
        if source is None or source.error is None:
            return 0
        number = source.error.errno or 0
        if not isinstance(source, TcpConnection):
            with contextlib.suppress(OSError):
                source.raise_pending()
        return number

    def _sockaddr(self, end: tuple[Address | None, int]) -> Any:
        address, port = end
        if self._family == stdlib.AF_INET:
            return str(ipaddress.IPv4Address(address or 0)), port
        if address is not None and len(address) == 4:
            return f"::ffff:{ipaddress.IPv4Address(address)}", port, 0, 0
        return str(ipaddress.IPv6Address(address or 0)), port, 0, 0

    async def _numeric(self, address: Any, *, local: bool) -> tuple[Address | None, int]:
        """(packed host, port) of a socket address. A name is looked up inside the tunnel."""
        ipv4 = self._family == stdlib.AF_INET
        if not isinstance(address, tuple) or not 2 <= len(address) <= (2 if ipv4 else 4):
            raise ValueError(f"a tuple of (host, port{'' if ipv4 else '[, flowinfo[, scopeid]]'}) was expected")
        host, port = address[0], operator.index(address[1])
        if not 0 <= port <= 65535:
            raise OverflowError("port must be 0-65535.")
        if isinstance(host, bytes):
            host = host.decode("ascii")
        if host in ("", None):
            if local:
                return None, port
            raise _os_error(errno.EADDRNOTAVAIL)
        try:
            ip = ipaddress.ip_address(host.partition("%")[0])
        except ValueError:
            if self._resolve is None:
                raise stdlib.gaierror(stdlib.EAI_NONAME, os.strerror(errno.ENOENT)) from None
            found = await self._resolve(host, port, self._family, self._type)
            ip = ipaddress.ip_address(found[0][4][0])
        if ip.version != (4 if ipv4 else 6):
            raise _os_error(errno.EAFNOSUPPORT)
        if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
            if self._options.get(_V6ONLY, 1):
                raise _os_error(errno.ENETUNREACH)
            ip = ip.ipv4_mapped
        if local and ip.is_unspecified:
            return None, port
        return ip.packed, port


def _os_error(number: int) -> OSError:
    return OSError(number, os.strerror(number))


def _peeks(flags: int) -> bool:
    """Whether ``flags`` of a receive have MSG_PEEK. Raises OSError(EOPNOTSUPP) for those that cannot be obeyed."""
    if flags & ~(_RECEIVE_FLAGS | stdlib.MSG_PEEK):
        raise _os_error(errno.EOPNOTSUPP)
    return bool(flags & stdlib.MSG_PEEK)


def _afresh(call: Callable[..., T], *args: Any) -> T:
    """Call a connection's method; a connection keeps its one error object, each caller gets an own copy."""
    try:
        return call(*args)
    except OSError as exc:
        raise _os_error(exc.errno or errno.ECONNABORTED) from None
