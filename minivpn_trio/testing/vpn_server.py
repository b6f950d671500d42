"""An OpenVPN server inside the test process, over loopback sockets or memory links.

    async with open_vpn_server() as server:
        async with open_tun_dialer(server.client_config()) as dialer:
            stream = await dialer.open_tcp_stream(server.address, 80)

``server.host`` opens listeners and sockets on the far side of the tunnel. No
root, no network beyond 127.0.0.1, and none at all with ``memory_dialer``.
"""

from __future__ import annotations

import math
import os
import socket
import time
from collections.abc import AsyncIterator, Callable, Hashable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, Literal

import trio

from ..background import in_background
from ..config.model import Remote, TunnelConfig
from ..errors import ProtocolError
from ..items import Burst
from ..netstack import scapy_wire
from ..netstack.stack import Stack
from ..netstack.worker import Pump
from ..networkio.dial import DialerContext
from ..networkio.transports import MAX_BURST, StreamTransport, Transport
from ..packet.ids import RandomBytes
from .link import LinkConditions, memory_link
from .server import ServerCore, ServerSettings
from .services import ServiceHost

__all__ = ["VPNServer", "open_vpn_server"]

#: Outgoing bursts that a slow stream's client may have waiting before more are dropped.
MAX_BACKLOG = 256


class _ToClients:
    """The server's stack sees its clients as the sending end of an edge."""

    def __init__(self, server: VPNServer) -> None:
        self._server = server

    async def send(self, item: Burst) -> None:
        self.send_nowait(item)
        await trio.lowlevel.checkpoint()

    def send_nowait(self, item: Burst) -> None:
        self._server.core.send_packets(item, trio.current_time())
        self._server._flush()


class VPNServer:
    """A running server. Made by ``open_vpn_server``."""

    def __init__(
        self,
        settings: ServerSettings,
        proto: Literal["udp", "tcp"],
        *,
        rng: RandomBytes,
        unix_time: Callable[[], float],
    ) -> None:
        self.settings = settings
        self.proto = proto
        self.core = ServerCore(
            settings, rng=rng, deliver=self._deliver, unix_time=unix_time, is_stream=proto == "tcp"
        )
        #: The server's address inside the tunnel.
        self.address = str(self.core.address)
        self.stack = Stack(
            addresses=[self.core.address.packed], mtu=settings.tun_mtu, rng=rng, now=trio.current_time()
        )
        self._pump = Pump(self.stack)
        #: Opens sockets and serves on the far side of the tunnel.
        self.host = ServiceHost(self._pump, self.address)
        #: The outer port, once it listens; 0 while only memory links are used.
        self.port = 0
        self._senders: dict[Hashable, Callable[[Burst], None]] = {}
        self._wake = trio.Event()
        self._nursery: trio.Nursery | None = None

    def client_config(self, username: str | None = None, password: str = "") -> TunnelConfig:
        """A configuration that connects to this server, with a fresh certificate."""
        config = replace(
            self.core.client_config(), remotes=(Remote("127.0.0.1", self.port, "udp4" if self.proto == "udp" else "tcp4"),)
        )
        return config if username is None else config.with_credentials(username, password)

    def memory_dialer(
        self,
        up: LinkConditions | None = None,
        down: LinkConditions | None = None,
        *,
        seed: int = 0,
    ) -> DialerContext:
        """A ``connect=`` for ``open_tun_dialer`` that reaches this server over a fresh memory link each time."""
        dials = 0

        async def connect(remote: Remote) -> Transport:
            nonlocal dials
            dials += 1
            near, far = memory_link(up, down, seed=seed + 1000 * dials, is_stream=self.proto == "tcp")
            assert self._nursery is not None
            self._nursery.start_soon(self.serve_transport, far)
            await trio.lowlevel.checkpoint()
            return near

        return connect

    async def serve_transport(self, transport: Transport) -> None:
        """Serve one client over ``transport`` until it breaks or ends. Checkpoints."""
        peer = object()
        backlog: list[Burst] = []
        more = trio.Event()

        def sender(burst: Burst) -> None:
            if len(backlog) < MAX_BACKLOG:
                backlog.append(burst)
                more.set()

        async def write() -> None:
            nonlocal more
            while True:
                while backlog:
                    await transport.send(backlog.pop(0))
                more = trio.Event()
                await more.wait()

        self._senders[peer] = sender
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(write)
                while True:
                    self._take(peer, await transport.receive())
        except* (OSError, trio.EndOfChannel, trio.BrokenResourceError, trio.ClosedResourceError, ProtocolError):
            pass
        finally:
            del self._senders[peer]
            self.core.forget(peer)
            with trio.CancelScope(shield=True):
                await transport.aclose()

    # inside

    def _take(self, peer: Hashable, burst: Burst) -> None:
        self.core.handle_datagrams(peer, burst, trio.current_time())
        self._flush()

    def _deliver(self, burst: Burst) -> None:
        self._pump.run(self.stack.handle_packets, burst, trio.current_time())

    def _flush(self) -> None:
        for peer, burst in self.core.take_datagrams():
            sender = self._senders.get(peer)
            if sender is not None:
                sender(burst)
        self._wake.set()

    async def _timers(self) -> None:
        while True:
            due = self.core.next_timeout()
            self._wake = trio.Event()
            with trio.move_on_at(math.inf if due is None else due):
                await self._wake.wait()
            now = trio.current_time()
            if due is not None and due <= now:
                self.core.handle_timeout(now)
                self._flush()

    async def _serve_udp(self, sock: socket.socket) -> None:
        """Receive for every client; peers are socket addresses."""
        known = self._senders
        while True:
            await trio.lowlevel.wait_readable(sock)
            bursts: dict[Hashable, Burst] = {}
            try:
                for _ in range(MAX_BURST):
                    data, address = sock.recvfrom(65536)
                    bursts.setdefault(address, []).append(data)
            except OSError:
                pass  # empty, or an ICMP error about somebody who left
            for peer, burst in bursts.items():
                if peer not in known:
                    known[peer] = self._udp_sender(sock, peer)
                self._take(peer, burst)
                if peer not in self.core.clients:
                    del known[peer]

    @staticmethod
    def _udp_sender(sock: socket.socket, address: Any) -> Callable[[Burst], None]:
        def send(burst: Burst) -> None:
            try:
                for datagram in burst:
                    sock.sendto(datagram, address)
            except OSError:
                pass  # the kernel's buffer is full: the rest is lost, as on any network

        return send

    async def _run(self, sock: socket.socket | None, *, task_status: trio.TaskStatus[None]) -> None:
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            nursery.start_soon(self._timers)
            nursery.start_soon(self._pump._drive, _ToClients(self))
            # The slow path's scapy: imported before anybody waits for it.
            await trio.to_thread.run_sync(scapy_wire.preload)
            if sock is not None and self.proto == "udp":
                nursery.start_soon(self._serve_udp, sock)
            elif sock is not None:
                listener = trio.SocketListener(trio.socket.from_stdlib_socket(sock))

                async def serve(stream: trio.SocketStream) -> None:
                    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    await self.serve_transport(StreamTransport(stream))

                nursery.start_soon(trio.serve_listeners, serve, [listener])
            task_status.started()


@asynccontextmanager
async def open_vpn_server(
    settings: ServerSettings | None = None,
    *,
    proto: Literal["udp", "tcp"] = "udp",
    listen: bool = True,
    rng: RandomBytes = os.urandom,
    unix_time: Callable[[], float] = time.time,
) -> AsyncIterator[VPNServer]:
    """A server for the length of the block, on a free port of 127.0.0.1.

    With ``listen=False`` it opens no socket: reach it through ``memory_dialer``, on any clock.
    """
    server = VPNServer(settings or ServerSettings(), proto, rng=rng, unix_time=unix_time)
    sock = None
    try:
        if listen:
            sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM if proto == "udp" else socket.SOCK_STREAM)
            sock.setblocking(False)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
            sock.bind(("127.0.0.1", 0))
            if proto == "tcp":
                sock.listen(64)
            server.port = sock.getsockname()[1]
        async with in_background(lambda *, task_status: server._run(sock, task_status=task_status)):
            yield server
    finally:
        if sock is not None:
            sock.close()
