"""The stack (skeleton of the public face; the body follows)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Protocol

from ..config.tunnel_info import TunnelInfo
from ..errors import DropReason
from ..items import Burst
from ..packet.ids import RandomBytes
from ..stats import NetstackStats
from .packets import Address, IcmpMessage, UdpDatagram
from .tcp.connection import TcpConnection
from .tcp.settings import TcpSettings

if TYPE_CHECKING:
    from .icmp import IcmpEndpoint
    from .tcp.listener import TcpListener
    from .udp import UdpEndpoint

__all__ = ["IcmpHandler", "Stack", "UdpHandler"]


class UdpHandler(Protocol):
    """What the stack calls for a bound UDP port."""

    def handle_datagram(self, datagram: UdpDatagram) -> None:
        """A datagram for this port (already checked; from the connected remote only, if there is one)."""
        ...

    def handle_error(self, error: OSError) -> None:
        """An ICMP error quoting a datagram of ours (ECONNREFUSED, EHOSTUNREACH, EMSGSIZE...), or the tunnel went."""
        ...


class IcmpHandler(Protocol):
    """What the stack calls for a registered echo identifier."""

    def handle_message(self, message: IcmpMessage) -> None:
        """An echo reply with our identifier, or an ICMP error that quotes an echo request of ours."""
        ...

    def handle_error(self, error: OSError) -> None:
        """The tunnel went."""
        ...


class Stack:
    """A TCP/IP stack with one interface, the tunnel."""

    drops: Counter[DropReason]
    #: MTU of the tunnel.
    mtu: int
    #: Called when output appeared or ``next_timeout`` moved earlier, from whatever method; the worker's wake-up.
    on_work: Callable[[], None] | None

    def __init__(
        self, *, addresses: Iterable[Address], mtu: int, rng: RandomBytes, now: float,
        mss_ipv4: int | None = None, mss_ipv6: int | None = None, settings: TcpSettings | None = None,
    ) -> None:
        raise NotImplementedError

    # the worker's side
    def handle_packets(self, burst: Burst, now: float) -> None: ...
    def take_output(self, max_packets: int = 64) -> Burst: raise NotImplementedError
    @property
    def has_output(self) -> bool: raise NotImplementedError
    def next_timeout(self) -> float | None: ...
    def handle_timeout(self, now: float) -> None: ...
    def reconfigure(self, info: TunnelInfo, now: float) -> None: ...
    def fail(self, error: OSError) -> None:
        """Every connection and endpoint gets ``error``; later ones are refused with it until ``reconfigure``."""

    # the sockets' side
    def connect_tcp(
        self, remote: tuple[Address, int], now: float, local: tuple[Address, int] | None = None
    ) -> TcpConnection:
        """SYN now; watch ``connection.on_change`` until ``connected`` or ``error``. A local port of 0 is chosen.
        Raises OSError: ENETUNREACH (no address of that family), EADDRNOTAVAIL, EADDRINUSE, or what ``fail`` said."""
        raise NotImplementedError

    def listen_tcp(self, local: tuple[Address | None, int], now: float, backlog: int = 128) -> TcpListener:
        """Passive open. TcpListener: .local, .on_change, .acceptable, accept() -> TcpConnection | None, close(now)."""
        raise NotImplementedError

    def open_udp(
        self, local: tuple[Address | None, int] | None = None, remote: tuple[Address, int] | None = None
    ) -> UdpEndpoint:
        """``UdpEndpoint(self, local, remote)``, which binds itself by ``bind_udp``."""
        raise NotImplementedError

    def open_icmp(self) -> IcmpEndpoint:
        """``IcmpEndpoint(self)``, which binds itself by ``bind_icmp``."""
        raise NotImplementedError

    # the endpoints' side
    def bind_udp(
        self, handler: UdpHandler, local: tuple[Address | None, int] | None = None,
        remote: tuple[Address, int] | None = None,
    ) -> tuple[Address | None, int]:
        """Register; the bound (address or None for any, port). Raises EADDRINUSE, EADDRNOTAVAIL, EMFILE-like limits."""
        raise NotImplementedError

    def release_udp(self, handler: UdpHandler) -> None: ...
    def bind_icmp(self, handler: IcmpHandler, identifier: int | None = None) -> int:
        """Register an echo identifier (random when None); returns it."""
        raise NotImplementedError

    def release_icmp(self, handler: IcmpHandler) -> None: ...
    def source_for(self, remote: Address) -> Address:
        """Our address for talking to ``remote``. Raises OSError(ENETUNREACH)."""
        raise NotImplementedError

    def mtu_to(self, remote: Address) -> int:
        """Path MTU as known, bytes of IP packet."""
        raise NotImplementedError

    def next_ident(self) -> int:
        """An IP identification for a packet that may be fragmented."""
        raise NotImplementedError

    def send_ip(self, packet: bytes) -> bool:
        """Queue a complete IP packet; False (counted) when the output queue is full."""
        raise NotImplementedError

    def stats(self) -> NetstackStats: raise NotImplementedError
