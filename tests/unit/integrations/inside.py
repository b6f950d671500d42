"""A tunnel to the in-process server over a memory link, without a socket of the machine's, and services behind it."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import hypercorn
import trio
import trustme

from minivpn_trio.dialer import TunDialer, open_tun_dialer
from minivpn_trio.integrations.hypercorn import serve
from minivpn_trio.testing import ServerSettings, VPNServer, open_vpn_server

#: What the server is called inside.
NAME = "web.internal"


@dataclass
class Inside:
    """The dialer, the server at the other end, and a nursery that ends with the tunnel."""

    dialer: TunDialer
    server: VPNServer
    nursery: trio.Nursery
    authority: trustme.CA

    @property
    def address(self) -> str:
        return self.server.address

    @property
    def client_tls(self) -> ssl.SSLContext:
        context = ssl.create_default_context()
        self.authority.configure_trust(context)
        return context

    def server_tls(self, *alpn: str) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self.authority.issue_cert(NAME, self.address).configure_cert(context)
        context.set_alpn_protocols(list(alpn))
        return context

    async def listener(self, port: int) -> trio.SocketListener:
        """At the far end of the tunnel."""
        socket = self.server.host.socket()
        await socket.bind((self.address, port))
        socket.listen(100)
        return trio.SocketListener(socket)

    async def serve_asgi(self, app: object, port: int, *alpn: str) -> None:
        """At the far end; over TLS if there is an ``alpn``."""
        listener: trio.abc.Listener[trio.abc.Stream] = await self.listener(port)
        if alpn:
            listener = trio.SSLListener(listener, self.server_tls(*alpn), https_compatible=True)  # type: ignore[arg-type]
        await self.nursery.start(serve, app, hypercorn.Config(), [listener])


@asynccontextmanager
async def inside() -> AsyncIterator[Inside]:
    """``web.internal`` is the server; DNS knows nothing else."""
    settings = ServerSettings(push=("dhcp-option DNS 10.8.0.1", "dhcp-option DOMAIN internal"))
    async with open_vpn_server(settings, listen=False) as server, trio.open_nursery() as nursery:
        zone = {NAME: server.address}
        await nursery.start(server.host.serve_dns, zone)
        async with open_tun_dialer(server.client_config(), server.memory_dialer()) as dialer:
            with trio.fail_after(30):
                yield Inside(dialer, server, nursery, trustme.CA())
        nursery.cancel_scope.cancel()
