"""TunDialer: streams, datagrams, pings and names through a tunnel.

A dialer puts a TCP/IP stack on top of a client's channel of raw packets. Its
streams are real ``trio.SocketStream`` objects, so libraries that insist on
one are content; ``integrations`` has what httpx and others need.

Nothing falls back to the machine's own network: a name is asked for inside
the tunnel, and when the tunnel is gone every stream fails at once
(BrokenResourceError caused by OSError ENETDOWN).
"""

from __future__ import annotations

import dataclasses
import errno
import ipaddress
import os
import socket as stdlib
import ssl
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Protocol, Self

import trio

from .ambient import entered
from .background import in_background
from .client import open_client
from .config.model import Credentials, TunnelConfig
from .config.tunnel_info import TunnelInfo
from .events import Event
from .happy_eyeballs import connect_first
from .items import Burst
from .netstack import scapy_wire, sums
from .netstack.icmp import EchoError, EchoReply, IcmpEndpoint
from .netstack.resolver import AddressInfo, TunResolver
from .netstack.sockets import TunSocket
from .netstack.stack import Stack
from .netstack.tcp.congestion import ALGORITHMS
from .netstack.tcp.settings import TcpSettings
from .netstack.worker import Pump, move_down, move_up
from .networkio.dial import DialerContext
from .packet.ids import RandomBytes
from .ports import Inlet, WaitingOutlet
from .stats import TunnelStats
from .tlssession.login import OnChallenge
from .tracing import Tracer

__all__ = ["PacketTunnel", "TunDialer", "open_tun_dialer"]

#: Ping's own: 56 bytes of payload make a packet of 84.
_PING_PAYLOAD = 56
#: Longest time that leaving the block waits for streams to deliver what they accepted, and how often it looks, seconds.
LINGER = 2.0
LINGER_STEP = 0.005
#: What a tunnel goes over is long, and loses for reasons other than congestion.
DEFAULT_CONGESTION = "bbr"
#: More turns of the scheduler than there are workers between a socket and the network.
PIPELINE_STEPS = 8


class PacketTunnel(Protocol):
    """What a dialer needs of a client."""

    @property
    def tunnel_info(self) -> TunnelInfo:
        """Addresses, MTU, resolvers."""
        ...

    @property
    def inbound(self) -> Inlet[Burst]:
        """Packets from the tunnel; it ends when the tunnel does."""
        ...

    @property
    def outbound(self) -> WaitingOutlet[Burst]:
        """Packets into the tunnel."""
        ...

    def stats(self) -> TunnelStats:
        """Counters of everything below the stack."""
        ...

    def on_tunnel_info(self, listener: Callable[[TunnelInfo], None]) -> None:
        """Call ``listener`` when the tunnel came up again, with what was pushed."""
        ...


class TunDialer:
    """Dials through one tunnel. Made by ``open_tun_dialer``; works while ``run`` does.

    All async methods checkpoint and are cancel-safe; none has a timeout,
    which is the caller's cancel scope:

        with trio.fail_after(10):
            stream = await dialer.open_tcp_stream("10.8.0.1", 80)
    """

    def __init__(
        self,
        tunnel: PacketTunnel,
        *,
        rng: RandomBytes = os.urandom,
        hosts: Mapping[str, Sequence[str]] | None = None,
        congestion: str = DEFAULT_CONGESTION,
    ) -> None:
        self._tunnel = tunnel
        info = tunnel.tunnel_info
        self._addresses = _addresses(info)
        self.stack: Stack = Stack(
            addresses=self._addresses,
            mtu=info.mtu,
            rng=rng,
            now=trio.current_time(),
            mss_ipv4=info.mss_ipv4,
            mss_ipv6=info.mss_ipv6,
            settings=TcpSettings(congestion=congestion),
        )
        self._pump = Pump(self.stack)
        self._resolver = TunResolver(self._socket, lambda: self._tunnel.tunnel_info, rng, hosts)
        tunnel.on_tunnel_info(self._up_again)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Move packets between stack and tunnel until cancelled or the tunnel ends; then every socket has failed."""
        try:
            async with trio.open_nursery() as nursery:
                # scapy is needed for the first packet of each connection: imported here, where nobody waits for it.
                nursery.start_soon(_import_what_is_slow)
                nursery.start_soon(self._move_up, nursery.cancel_scope)
                nursery.start_soon(self._move_down)
                task_status.started()
        finally:
            self._resolver.close()
            self._pump.fail()

    async def _move_up(self, scope: trio.CancelScope) -> None:
        await move_up(self.stack, inlet=self._tunnel.inbound, pump=self._pump)
        scope.cancel()

    async def _move_down(self) -> None:
        await move_down(self.stack, outlet=self._tunnel.outbound, pump=self._pump)

    async def linger(self) -> None:
        """Wait until the peers have what streams accepted, ends of streams included; at most ``LINGER`` seconds.

        What a kernel does for a program that exited, this does for one that leaves the tunnel's block.
        """
        self._resolver.close()
        with trio.move_on_after(LINGER):
            while self.stack.undelivered:  # noqa: ASYNC110  nobody rings when the last byte is acknowledged
                await trio.sleep(LINGER_STEP)
        # Datagrams, and the last acknowledgement, are still in the pipeline.
        for _ in range(PIPELINE_STEPS):
            await trio.lowlevel.checkpoint()

    def _up_again(self, info: TunnelInfo) -> None:
        """The tunnel was re-established, or changed. Connections live on if our addresses are still there."""
        before, self._addresses = self._addresses, _addresses(info)
        if not set(before) <= set(self._addresses):
            self._pump.fail()
        self._pump.run(self.stack.reconfigure, info, trio.current_time())
        self._resolver.forget_streams()

    @property
    def tunnel_info(self) -> TunnelInfo:
        """Addresses, gateway, MTU, resolvers, cipher and the rest, as the server last pushed them."""
        return self._tunnel.tunnel_info

    def stats(self) -> TunnelStats:
        """Counters of all layers, summed over reconnections."""
        return dataclasses.replace(self._tunnel.stats(), netstack=self.stack.stats())

    # --- streams -----------------------------------------------------------------------------------------------------

    async def open_tcp_stream(self, host: str | bytes, port: int) -> trio.SocketStream:
        """Connect to ``host`` (a name, looked up inside the tunnel, or an address) and ``port``.

        With several addresses the next one is tried when the one before failed or was silent for 250 ms,
        families taking turns, and the first that answers wins (Happy Eyeballs, RFC 8305). Addresses of the other family
        that the name server is late with join in. Checkpoints; a cancelled call leaves nothing behind.
        Raises OSError: that of the last address tried, with errno, the earlier ones as notes (ECONNREFUSED,
        ETIMEDOUT after 127 s, EHOSTUNREACH, ENETUNREACH, ENETDOWN ...); socket.gaierror if the name does not resolve.
        """
        if not isinstance(port, int):
            raise TypeError(f"port must be an int, not {type(port).__name__}")
        if host in ("", b"") or host is None:
            raise ValueError("host must not be empty")
        await _scapy_ready()

        async def find(patience: float) -> list[AddressInfo]:
            return await self._resolver.getaddrinfo(host, port, type=stdlib.SOCK_STREAM, straggler_timeout=patience)

        def both_families() -> bool:
            info = self.tunnel_info
            return info.ipv4 is not None and info.ipv6 is not None

        return trio.SocketStream(await connect_first(find, self._socket, both_families=both_families))

    async def open_ssl_over_tcp_stream(
        self,
        host: str | bytes,
        port: int,
        *,
        ssl_context: ssl.SSLContext | None = None,
        https_compatible: bool = False,
    ) -> trio.SSLStream[trio.SocketStream]:
        """Like ``trio.open_ssl_over_tcp_stream``, through the tunnel.

        The handshake happens with the first use of the stream. Checkpoints; raises as ``open_tcp_stream`` does.
        """
        stream = await self.open_tcp_stream(host, port)
        name = host.decode("ascii") if isinstance(host, bytes) else host
        return trio.SSLStream(
            stream,
            ssl_context or ssl.create_default_context(),
            server_hostname=name,
            https_compatible=https_compatible,
        )

    # --- datagrams ---------------------------------------------------------------------------------------------------

    def open_udp_socket(self, family: int | None = None) -> TunSocket:
        """A UDP socket inside the tunnel: ``sendto``, ``recvfrom``, ``connect`` and the rest of ``trio.socket``.

        ``family`` is AF_INET or AF_INET6, by default the one the tunnel has. Use it in a ``with`` block, or close it.
        """
        if family is None:
            family = stdlib.AF_INET if self.tunnel_info.ipv4 is not None else stdlib.AF_INET6
        return self._socket(family, stdlib.SOCK_DGRAM)

    def socket(self, family: int = stdlib.AF_INET, type: int = stdlib.SOCK_STREAM, proto: int = 0) -> TunSocket:
        """What ``trio.socket.socket`` would make, inside the tunnel."""
        return self._socket(family, type, proto)

    def _socket(self, family: int, type: int, proto: int = 0) -> TunSocket:
        return TunSocket(self._pump, family, type, proto, resolve=self.getaddrinfo)

    @contextmanager
    def as_trio_sockets(self) -> Iterator[Self]:
        """Inside the block Trio's own functions work through the tunnel, for code that knows nothing of it.

            with dialer.as_trio_sockets():
                await trio.serve_tcp(handler, 80)             # listens inside the tunnel
                async with httpx.AsyncClient() as client: ... # any library that is built on Trio's sockets

        That is ``trio.socket.socket``, ``getaddrinfo`` and ``getnameinfo``, and so ``trio.open_tcp_stream``,
        ``open_tcp_listeners``, ``serve_tcp`` and ``open_ssl_over_tcp_stream``. It holds for this task and those
        that it starts in the block, for as long as they live; not for other tasks, nor for sockets that somebody makes
        by Python's ``socket`` module. Blocks of several dialers may be nested; the innermost counts. Unix
        sockets stay the machine's. When the tunnel is gone, everything fails; nothing falls back.
        """
        with entered(self):
            yield self

    # --- ping --------------------------------------------------------------------------------------------------------

    async def ping(self, host: str | bytes, *, count: int = 1, size: int = _PING_PAYLOAD) -> float:
        """The round trip to ``host`` in seconds: one echo request of ``size`` payload bytes and its reply.

        With ``count`` > 1 the shortest of so many, one after the other.
        Waits for ever where nobody answers. Checkpoints; cancel-safe. Raises
        OSError if a router reports an error (EHOSTUNREACH ...), if ``size`` does not fit a packet (EMSGSIZE), or if
        the tunnel is gone (ENETDOWN); socket.gaierror if the name does not resolve.
        """
        if count < 1 or size < 0:
            raise ValueError("count must be at least 1, size at least 0")
        found = await self.getaddrinfo(host, 0, type=stdlib.SOCK_DGRAM)
        remote = ipaddress.ip_address(found[0][4][0]).packed
        await _scapy_ready()
        endpoint = self.stack.open_icmp()
        try:
            pinger = _Pinger(endpoint, self._pump)
            return min([await pinger.ping(remote, sequence, size) for sequence in range(1, count + 1)])
        finally:
            endpoint.close()

    # --- names -------------------------------------------------------------------------------------------------------

    async def getaddrinfo(
        self,
        host: str | bytes | None,
        port: str | bytes | int | None,
        family: int = 0,
        type: int = 0,
        proto: int = 0,
        flags: int = 0,
    ) -> list[AddressInfo]:
        """``socket.getaddrinfo`` by the resolvers that the server pushed, inside the tunnel and nowhere else.

        Numeric hosts need no query. Checkpoints; cancel-safe. Raises socket.gaierror.
        """
        return await self._resolver.getaddrinfo(host, port, family, type, proto, flags)

    async def getnameinfo(self, sockaddr: Any, flags: int) -> tuple[str, str]:
        """``socket.getnameinfo`` inside the tunnel. Checkpoints; cancel-safe. Raises socket.gaierror."""
        return await self._resolver.getnameinfo(sockaddr, flags)


async def _scapy_ready() -> None:
    """Wait until the slow path's scapy is imported, rather than import it here and hold everything up."""
    if not scapy_wire.is_loaded():
        await trio.to_thread.run_sync(scapy_wire.preload, abandon_on_cancel=True)


async def _import_what_is_slow() -> None:
    await _scapy_ready()
    if not sums.is_loaded():
        await trio.to_thread.run_sync(sums.load, abandon_on_cancel=True)


class _Pinger:
    """Echo requests of one identifier, one at a time, timed from the send to the arrival of the reply's burst."""

    def __init__(self, endpoint: IcmpEndpoint, pump: Pump) -> None:
        self._endpoint = endpoint
        self._pump = pump
        self._arrived = trio.Event()
        self._time = 0.0
        endpoint.on_change = self._on_change

    def _on_change(self) -> None:
        self._time = trio.current_time()
        self._arrived.set()

    async def ping(self, remote: bytes, sequence: int, size: int) -> float:
        payload = bytes(index & 0xFF for index in range(size))
        sent = trio.current_time()
        self._pump.run(self._endpoint.send_echo, remote, sequence, payload)
        while True:
            await self._arrived.wait()
            self._arrived = trio.Event()
            self._endpoint.raise_failure()
            while (reply := self._endpoint.take_reply()) is not None:
                if reply == EchoReply(remote, sequence, payload):
                    return self._time - sent
            while (error := self._endpoint.take_error()) is not None:
                if error.sequence == sequence and error.dst == remote:
                    raise _reported(error)


def _reported(error: EchoError) -> OSError:
    number = error.error.errno or errno.EHOSTUNREACH
    return OSError(number, f"{os.strerror(number)}, says {ipaddress.ip_address(error.src)}")


def _addresses(info: TunnelInfo) -> list[bytes]:
    return [interface.ip.packed for interface in (info.ipv4, info.ipv6) if interface is not None]


@asynccontextmanager
async def open_tun_dialer(
    config: TunnelConfig | str | os.PathLike[str],
    connect: DialerContext | None = None,
    *,
    credentials: Credentials | None = None,
    on_challenge: OnChallenge | None = None,
    on_event: Callable[[Event], None] | None = None,
    tracer: Tracer | None = None,
    rng: RandomBytes = os.urandom,
    unix_time: Callable[[], float] = time.time,
    hosts: Mapping[str, Sequence[str]] | None = None,
    congestion: str = DEFAULT_CONGESTION,
) -> AsyncIterator[TunDialer]:
    """Bring a tunnel up and dial through it, for the length of the block.

        async with open_tun_dialer("client.ovpn") as dialer:
            stream = await dialer.open_tcp_stream("10.8.0.1", 80)

    ``hosts`` are names with their addresses for which no server is asked (``netstack.resolver.parse_hosts`` reads
    them from a hosts file). ``congestion`` is TCP's congestion control: "bbr" keeps to what the path delivers,
    whatever it loses; "cubic" (RFC 9438) and "newreno" (RFC 5681) slow down with each loss. ValueError: another name.
    The other arguments, what is raised on the way in, and how exceptions leave the
    block are ``open_client``'s. A body that ends without an exception waits up
    to 2 s for streams, closed ones too, to deliver what ``send_all`` accepted.
    """
    if congestion not in ALGORITHMS:
        raise ValueError(f"congestion must be one of {', '.join(sorted(ALGORITHMS))}")
    async with open_client(
        config,
        connect,
        credentials=credentials,
        on_challenge=on_challenge,
        on_event=on_event,
        tracer=tracer,
        rng=rng,
        unix_time=unix_time,
    ) as client:
        dialer = TunDialer(client, rng=rng, hosts=hosts, congestion=congestion)
        async with in_background(dialer.run, before_stop=dialer.linger):
            yield dialer
