"""What a socket inside the tunnel is, and how its tasks wait.

Readiness is level-triggered: one question, asked of the connection, decides
both whether a call may proceed and whether a blocked one is woken.
"""

from __future__ import annotations

import contextlib
import errno
import socket as stdlib
import warnings
import weakref
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Self, TypeVar

import trio

from ..tcp.connection import TcpConnection
from ..tcp.network import os_error

if TYPE_CHECKING:
    from ..packets import Address
    from ..ping import PingEndpoint
    from ..tcp.listener import TcpListener
    from ..udp import UdpEndpoint
    from ..worker import Pump

__all__ = ["Exclusive", "Resolve", "SocketState", "afresh", "let_go"]

T = TypeVar("T")

#: ``getaddrinfo`` of the tunnel's resolver: (host, port, family, type, proto, flags).
Resolve = Callable[..., Awaitable[list[tuple[Any, Any, int, str, Any]]]]

#: What ``fileno`` says while the socket is open: positive, and higher than any descriptor.
_NO_DESCRIPTOR = 0x7FFFFFFF


class Exclusive:
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


class SocketState(trio.socket.SocketType):
    """The state of a socket, what can be asked about it, and waiting for it to change."""

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
            raise os_error(errno.EAFNOSUPPORT)
        # Linux lets these flags be or-ed in; Trio's sockets never block and are never inherited anyway.
        type &= ~(getattr(stdlib, "SOCK_NONBLOCK", 0) | getattr(stdlib, "SOCK_CLOEXEC", 0))
        echo = stdlib.IPPROTO_ICMP if family == stdlib.AF_INET else stdlib.IPPROTO_ICMPV6
        protocols: dict[int, tuple[int, ...]] = {
            stdlib.SOCK_STREAM: (stdlib.IPPROTO_TCP,),
            stdlib.SOCK_DGRAM: (stdlib.IPPROTO_UDP, echo),
        }
        if type not in protocols or proto not in (0, *protocols[type]):
            raise os_error(errno.EPROTONOSUPPORT)
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
        #: What was asked for; None: nothing.
        self._congestion: str | None = None
        self._linger_zero = False
        self._receiving = Exclusive("receiving from")
        self._sending = Exclusive("sending on")
        self._readers = trio.lowlevel.ParkingLot()
        self._writers = trio.lowlevel.ParkingLot()
        #: Of the run in which it got something to let go of.
        self._token: trio.lowlevel.TrioToken | None = None

    def __del__(self) -> None:
        # Forgotten without being closed. As with the kernel's sockets that closes it, and is worth a warning. It may be
        # at any moment and in any thread: what is to be done is left to the run, which is over if it refuses.
        token = getattr(self, "_token", None)
        if token is None or self._closed:
            return
        message, self._closed = f"unclosed {self!r}", True
        with contextlib.suppress(trio.RunFinishedError):
            token.run_sync_soon(
                _let_go_of_forgotten, self._pump, self._connection, self._linger_zero, self._listener, self._endpoint,
                self._reservation,
            )  # fmt: skip
            warnings.warn(message, ResourceWarning, stacklevel=2, source=self)

    # --- what it is ---

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
    def _sock(self) -> Self:
        # anyio reads family, names and options from the private ``_sock`` of Trio's own sockets.
        return self

    def __repr__(self) -> str:
        state = "closed" if self._closed else "connected" if self._connection else "open"
        return f"<minivpn_trio.TunSocket {self._family.name} {self._type.name} {state}>"

    def fileno(self) -> int:
        """-1 once closed; until then a number that no descriptor can have."""
        return -1 if self._closed else _NO_DESCRIPTOR

    def is_readable(self) -> bool:
        """Whether a receive, or accept, would return or raise at once."""
        if self._closed or self._shut_read:
            return True
        if self._connection is not None:
            return self._connection.readable
        if self._listener is not None:
            return self._listener.acceptable
        return self._endpoint is not None and self._endpoint.readable

    # --- inside ---

    def _weakly(self) -> Callable[[], None]:
        """``_on_change`` for the stack, which must not keep alive what everybody else forgot."""
        self._token = trio.lowlevel.current_trio_token()
        reference = weakref.ref(self)

        def changed() -> None:
            if (socket := reference()) is not None:
                socket._on_change()

        return changed

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
        # Who waits for the handshake is among them: what is connected is writable.
        if self._writers and (connection.writable or connection.error is not None):
            self._writers.unpark_all()

    async def _when(self, lot: trio.lowlevel.ParkingLot, attempt: Callable[[], T | None]) -> T:
        """What ``attempt`` returns, once that is not None: after each change that ``lot`` is woken for.

        One checkpoint in any case, also where it raises: whoever waited has had his, and two turns of the scheduler a
        read were a tenth of the time that a hundred streams took. Where nobody waited it comes after the attempt, which
        has sent by then what there was to send. Cancel-safe: a cancelled call attempted nothing that succeeded.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        waited = False
        try:
            while (result := attempt()) is None:
                await self._wait(lot)
                waited = True
            return result
        finally:
            if not waited:
                await trio.lowlevel.cancel_shielded_checkpoint()

    async def _wait(self, lot: trio.lowlevel.ParkingLot) -> None:
        await lot.park()
        if self._closed:
            raise trio.ClosedResourceError("another task closed this socket")

    def _check_open(self) -> None:
        if self._closed:
            raise os_error(errno.EBADF)

    def _connected(self) -> TcpConnection:
        connection = self._connection
        if connection is None or not (connection.connected or connection.error is not None):
            raise os_error(errno.ENOTCONN)
        return connection


def let_go(
    pump: Pump,
    connection: TcpConnection | None,
    linger_zero: bool,
    listener: TcpListener | None,
    endpoint: UdpEndpoint | PingEndpoint | None,
    reservation: tuple[Address | None, int] | None,
) -> None:
    """Close what a socket had. Does not raise."""
    now = trio.current_time()
    if reservation is not None:
        pump.stack.release_tcp(reservation)
    if connection is not None:
        connection.on_change = None
        pump.run(connection.abort if linger_zero else connection.close, now)
    if listener is not None:
        listener.on_change = None
        pump.run(listener.close, now)
    if endpoint is not None:
        endpoint.on_change = None
        endpoint.close()


def afresh(call: Callable[..., T], *args: Any) -> T:
    """Call a connection's method; a connection keeps its one error object, each caller gets an own copy."""
    try:
        return call(*args)
    except OSError as exc:
        raise os_error(exc.errno or errno.ECONNABORTED) from None


def _let_go_of_forgotten(pump: Pump, *had: Any) -> None:
    """``let_go``, where nobody is there to hear of a defect of ours and Trio would end the program for it."""
    try:
        let_go(pump, *had)
    except Exception as fault:
        pump.stack.contain(fault)
