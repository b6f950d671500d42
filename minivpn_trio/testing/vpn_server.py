"""An OpenVPN server inside the test process, over loopback sockets or memory links.

    async with open_vpn_server() as server:
        async with open_tun_dialer(server.client_config()) as dialer:
            stream = await dialer.open_tcp_stream(server.address, 80)

``server.host`` opens listeners and sockets on the far side of the tunnel. No
root, no network beyond 127.0.0.1, and none at all with ``memory_dialer``:

    async with open_vpn_server(listen=False) as server:
        dial = server.memory_dialer(LinkConditions(loss=0.1, delay=0.05), seed=7)
        async with open_tun_dialer(server.client_config(), dial) as dialer:
            ...
            dial.change(LinkConditions(loss=1.0))   # the network is gone

Under ``trio.testing.MockClock`` with autojump an hour of that takes seconds.
"""

from __future__ import annotations

import errno
import math
import os
import socket
import time
from collections import deque
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
from ..networkio.stream import StreamTransport
from ..networkio.transport import MAX_BURST, Transport
from ..networkio.udp import segmentation, train_end
from ..packet.ids import RandomBytes
from .link import LinkConditions, MemoryTransport, memory_link
from .server import ServerCore, is_data
from .server_settings import ServerSettings
from .services import ServiceHost

__all__ = ["MemoryDialer", "VPNServer", "open_vpn_server"]

#: Outgoing bursts that a slow stream's client may have waiting before more are dropped.
MAX_BACKLOG = 256
#: How long a stream's last messages may take to leave, seconds.
LAST_WORDS = 1.0
#: What the kernel says when it, the device or the path's MTU cannot cut a train into datagrams.
NO_SEGMENTATION = frozenset({errno.EINVAL, errno.EIO, errno.EMSGSIZE, errno.ENOPROTOOPT})


class _ToClients:
    """The server's stack sees its clients as the sending end of an edge."""

    def __init__(self, server: VPNServer) -> None:
        self._server = server

    async def send(self, item: Burst) -> None:
        self.send_nowait(item)
        await trio.lowlevel.checkpoint()

    def send_nowait(self, item: Burst) -> None:
        self._server.core.send_packets(item, trio.current_time())
        self._server._send_out()

    def has_room(self) -> bool:
        return True


class MemoryDialer:
    """A ``connect=`` that reaches a server over a fresh memory link each time. Made by ``VPNServer.memory_dialer``."""

    def __init__(self, server: VPNServer, up: LinkConditions, down: LinkConditions, seed: int) -> None:
        self._server = server
        self._up, self._down = up, down
        self._seed = seed
        #: The client's ends, oldest first; closed ones too.
        self.transports: list[MemoryTransport] = []

    async def __call__(self, remote: Remote) -> Transport:
        """A new link with the server at its other end. Checkpoints."""
        await trio.lowlevel.checkpoint()
        seed = self._seed + 1000 * (len(self.transports) + 1)
        near, far = memory_link(self._up, self._down, seed=seed, is_stream=self._server.proto == "tcp")
        self.transports.append(near)
        self._server._serve_soon(far)
        return near

    def change(self, up: LinkConditions, down: LinkConditions | None = None) -> None:
        """From now on all links, those to come too, have these conditions; ``down`` defaults to ``up``."""
        self._up, self._down = up, down or up
        for transport in self.transports:
            transport.outgoing.conditions, transport.incoming.conditions = self._up, self._down


class VPNServer:
    """A running server. Made by ``open_vpn_server``.

    ``core`` is the server itself, sans-IO: ``core.clients`` and the sessions' counters are there.
    """

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
        self.core: ServerCore = ServerCore(
            settings, rng=rng, deliver=self._deliver, unix_time=unix_time, is_stream=proto == "tcp"
        )
        #: The server's address inside the tunnel.
        self.address: str = str(self.core.address)
        self.stack: Stack = Stack(
            addresses=[self.core.address.packed], mtu=settings.tun_mtu, rng=rng, now=trio.current_time()
        )
        self._pump = Pump(self.stack)
        #: Opens sockets and serves on the far side of the tunnel.
        self.host: ServiceHost = ServiceHost(self._pump, self.address)
        #: The outer port, once it listens; 0 while only memory links are used.
        self.port = 0
        # How to reach a client of a stream or memory link; all others are socket addresses.
        self._senders: dict[Hashable, Callable[[Burst], None]] = {}
        self._endings: dict[Hashable, trio.CancelScope] = {}
        self.core.on_ended = self._ended
        self._sock: socket.socket | None = None
        self._segmentation = hasattr(socket, "SOCK_NONBLOCK")
        self._wake = trio.Event()
        self._sleeping_until = -math.inf
        self._turns = trio.lowlevel.ParkingLot()
        self._nursery: trio.Nursery | None = None

    def client_config(self, username: str | None = None, password: str = "") -> TunnelConfig:
        """A configuration that connects to this server, with a fresh certificate."""
        config = replace(
            self.core.client_config(),
            remotes=(Remote("127.0.0.1", self.port, "udp4" if self.proto == "udp" else "tcp4"),),
        )
        return config if username is None else config.with_credentials(username, password)

    def memory_dialer(
        self,
        up: LinkConditions | None = None,
        down: LinkConditions | None = None,
        *,
        seed: int = 0,
    ) -> MemoryDialer:
        """A ``connect=`` for ``open_tun_dialer`` that needs no network. ``up`` is client to server; ``down``
        defaults to the same."""
        up = up or LinkConditions()
        return MemoryDialer(self, up, down or up, seed)

    def send_message(self, text: str) -> None:
        """Send a control message, such as ``RESTART,maintenance`` or ``HALT``, to every client."""
        for client in list(self.core.clients.values()):
            self.core.send_message(client, text, trio.current_time())
        self._flush()

    def push_update(self, *options: str) -> int:
        """Change options of every live tunnel, such as ``tun-mtu 1300``, ``-route`` or ``?x`` (PUSH_UPDATE, which
        openvpn servers have since 2.7). How many clients were told: those that announce that they understand it.
        """
        now = trio.current_time()
        told = sum(self.core.push_update(client, options, now) for client in list(self.core.clients.values()))
        self._flush()
        return told

    def restart(self, *, goodbye: bool = False) -> None:
        """Forget every session, as a server does that was killed and started again; with ``goodbye`` it says so first.

        The addresses given away last are given away first afterwards.
        """
        if goodbye:
            self.core.goodbye(trio.current_time())
        for peer in list(self.core.clients):
            self.core.forget(peer)
            if self.proto == "tcp":
                self._ended(peer)
        self._flush()

    async def wait_for_clients(self, count: int) -> None:
        """Wait until ``count`` clients have a session; 0: until the last one has left. Checkpoints, cancel-safe."""
        await trio.lowlevel.checkpoint()
        while len(self.core.clients) != count:
            await self._turns.park()

    async def serve_transport(self, transport: Transport) -> None:
        """Serve one client over ``transport`` until it breaks or ends. Checkpoints."""
        peer = object()
        backlog: deque[Burst] = deque()
        more = trio.Event()

        def sender(burst: Burst) -> None:
            if len(backlog) < MAX_BACKLOG:
                backlog.append(burst)
                more.set()

        async def write() -> None:
            nonlocal more
            while True:
                while backlog:
                    await transport.send(backlog.popleft())
                more = trio.Event()
                await more.wait()

        self._senders[peer] = sender
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(write)
                # A stream ends with its session; datagrams may go on to begin another one.
                with trio.CancelScope() as reading:
                    if transport.is_stream:
                        self._endings[peer] = reading
                    while True:
                        self._take(peer, await transport.receive())
                with trio.move_on_after(LAST_WORDS):
                    while backlog:
                        await transport.send(backlog.popleft())
                nursery.cancel_scope.cancel()
        except* (OSError, trio.EndOfChannel, trio.BrokenResourceError, trio.ClosedResourceError, ProtocolError):
            pass
        finally:
            del self._senders[peer]
            self._endings.pop(peer, None)
            self.core.forget(peer)
            self._turns.unpark_all()
            with trio.CancelScope(shield=True):
                await transport.aclose()

    # inside

    def _serve_soon(self, transport: Transport) -> None:
        if self._nursery is None:
            raise RuntimeError("the server does not run (any more)")
        self._nursery.start_soon(self.serve_transport, transport)

    def _ended(self, peer: Hashable) -> None:
        scope = self._endings.get(peer)
        if scope is not None:
            scope.cancel()

    def _take(self, peer: Hashable, burst: Burst) -> None:
        self.core.handle_datagrams(peer, burst, trio.current_time())
        if is_data(burst):
            # Data sets no timer to an earlier time.
            self._send_out()
        else:
            self._flush()

    def _deliver(self, burst: Burst) -> None:
        self._pump.run(self.stack.handle_packets, burst, trio.current_time())

    def _flush(self) -> None:
        """Send what there is, and see to it that the timers are kept."""
        self._send_out()
        due = self.core.next_timeout()
        if due is not None and due < self._sleeping_until:
            self._wake.set()

    def _send_out(self) -> None:
        self._turns.unpark_all()
        for peer, burst in self.core.take_datagrams():
            sender = self._senders.get(peer)
            if sender is not None:
                sender(burst)
            elif self._sock is not None and isinstance(peer, tuple):
                self._send_datagrams(self._sock, peer, burst)

    def _send_datagrams(self, sock: socket.socket, address: tuple[Any, ...], burst: Burst) -> None:
        """Send over UDP, runs of equal sizes in one system call."""
        start = 0
        while start < len(burst):
            end = train_end(burst, start) if self._segmentation else start + 1
            try:
                if end - start > 1:
                    sock.sendmsg(burst[start:end], [segmentation(len(burst[start]))], 0, address)
                else:
                    sock.sendto(burst[start], address)
            except BlockingIOError:
                return  # the kernel's buffer is full: the rest is lost, as on any network
            except OSError as exc:
                if end - start > 1 and exc.errno in NO_SEGMENTATION:
                    self._segmentation = False
                    continue
                # an ICMP error about somebody who left: this train was not sent
            start = end

    async def _timers(self) -> None:
        while True:
            due = self.core.next_timeout()
            self._wake = trio.Event()
            self._sleeping_until = math.inf if due is None else due
            with trio.move_on_at(self._sleeping_until):
                await self._wake.wait()
            self._sleeping_until = -math.inf
            now = trio.current_time()
            if due is not None and due <= now:
                self.core.handle_timeout(now)
                self._send_out()

    async def _serve_udp(self, sock: socket.socket) -> None:
        """Receive for every client; peers are socket addresses."""
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
                self._take(peer, burst)

    async def _run(self, sock: socket.socket | None, *, task_status: trio.TaskStatus[None]) -> None:
        async with trio.open_nursery() as nursery:
            self._nursery, self._sock = nursery, sock if self.proto == "udp" else None
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
            if proto == "udp":
                for buffer in (socket.SO_RCVBUF, socket.SO_SNDBUF):
                    sock.setsockopt(socket.SOL_SOCKET, buffer, 1 << 22)
            sock.bind(("127.0.0.1", 0))
            if proto == "tcp":
                sock.listen(64)
            server.port = sock.getsockname()[1]
        async with in_background(lambda *, task_status: server._run(sock, task_status=task_status)):
            yield server
    finally:
        if sock is not None:
            sock.close()
