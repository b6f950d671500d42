"""Trio's libraries, unmodified, through the real server to the kernel behind it; and nothing leaves beside the tunnel.

``Watch`` sees every packet of every interface of our namespace. What is not the
tunnel's outer connection, or the link's own housekeeping (ARP, neighbour
discovery), is a leak.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import ssl
import struct
from collections.abc import Iterator

import anyio
import dns.asyncquery
import dns.asyncresolver
import dns.message
import dns.nameserver
import dns.resolver
import httpcore
import httpcore2
import httpx
import httpx2
import hypercorn
import pytest
import quart_trio
import trio
from quart import request
from trio_websocket import open_websocket, serve_websocket

from minivpn_trio.integrations.dnspython import TunnelResolver
from minivpn_trio.integrations.httpcore import TunnelBackend, TunnelTransport
from minivpn_trio.integrations.httpcore2 import TunnelBackend as TunnelBackend2
from minivpn_trio.integrations.hypercorn import serve
from tests.interop.exchanges import open_tunnel
from tests.interop.lab.lab import TUN_IPV4, TUN_IPV6
from tests.interop.lab.services import PATTERN

ETH_P_ALL, ETH_P_IP, ETH_P_IPV6, ETH_P_ARP = 0x0003, 0x0800, 0x86DD, 0x0806
ICMP, UDP, ICMPV6 = 1, 17, 58


class Watch:
    """A packet socket on all interfaces of the current namespace."""

    def __init__(self, server: str, port: int) -> None:
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_ALL))
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 << 20)
        self._socket.setblocking(False)
        self._server = socket.inet_aton(server) + port.to_bytes(2, "big")
        self.tunnel = 0
        self.leaks: list[str] = []

    def read(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                self._sort(*self._socket.recvfrom(65535))

    def close(self) -> None:
        self._socket.close()

    def _sort(self, packet: bytes, origin: tuple) -> None:  # type: ignore[type-arg]
        kind = origin[1]
        if kind == ETH_P_ARP or (kind == ETH_P_IPV6 and (packet[6] in (0, ICMPV6))):
            return
        if kind == ETH_P_IP and packet[9] == UDP:
            head = (packet[0] & 15) * 4
            ends = (packet[12:16] + packet[head : head + 2], packet[16:20] + packet[head + 2 : head + 4])
            # Later fragments have no ports; the addresses say enough.
            later = struct.unpack_from("!H", packet, 6)[0] & 0x1FFF
            if self._server in ends or (later and self._server[:4] in (packet[12:16], packet[16:20])):
                self.tunnel += 1
                return
        if kind == ETH_P_IP and packet[9] == ICMP:
            # The kernel's "port unreachable" about a last datagram of the server to a tunnel that was closed before.
            head = (packet[0] & 15) * 4
            if packet[head : head + 2] == b"\x03\x03" and packet[head + 20 : head + 24] == self._server[:4]:
                return
        self.leaks.append(f"{origin[0]} {kind:#06x} {packet[:48].hex()}")


@contextlib.contextmanager
def watching(server) -> Iterator[Watch]:
    watch = Watch(server.host, server.options.port)
    try:
        yield watch
        watch.read()
        assert watch.tunnel > 10
        assert watch.leaks == []
    finally:
        watch.close()


async def test_the_watch_sees_a_leak(start_server) -> None:
    """Otherwise the test below proves nothing."""
    server = start_server()
    watch = Watch(server.host, server.options.port)
    async with open_tunnel(server.profile_file()):
        for address in ((server.host, 53), ("127.0.0.1", 53)):
            leak = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            leak.sendto(b"a question", address)
            leak.close()
        await trio.sleep(0.1)
    watch.read()
    watch.close()
    assert len(watch.leaks) >= 2
    assert any(b"a question".hex() in leak for leak in watch.leaks)


async def http(lab) -> None:
    context = ssl.create_default_context(cadata=lab.credentials.ca.pem)
    for module in (httpx, httpx2):
        async with module.AsyncClient(verify=context) as client:
            for url in ("http://web.lab/bytes/100000", "https://web.lab/bytes/100000", f"http://{TUN_IPV4}/bytes/9"):
                for _ in range(2):
                    response = await client.get(url)
                    assert response.content == PATTERN[: len(response.content)]
            with pytest.raises(module.ConnectError):
                await client.get("http://nowhere.lab/")
            with pytest.raises(module.ConnectError):
                await client.get("http://web.lab:4444/")


async def names() -> None:
    assert len(await trio.socket.getaddrinfo("big.lab", 80, type=socket.SOCK_STREAM)) == 400
    for name in ("none.lab", "none.example.org", "localhost.lab"):
        with pytest.raises(socket.gaierror):
            await trio.socket.getaddrinfo(name, 80)
    assert (await anyio.getaddrinfo("web.lab", 80))[0][4][0] == TUN_IPV4
    resolver = dns.asyncresolver.Resolver(configure=False)
    resolver.nameservers = [TUN_IPV4]
    assert len(await resolver.resolve("big.lab.", "TXT")) == 12
    assert len(await resolver.resolve("web.lab.", "A", tcp=True)) == 1
    with pytest.raises(dns.resolver.NXDOMAIN):
        await resolver.resolve("none.lab.", "A")


async def names_over_https(dialer, context: ssl.SSLContext) -> None:
    """What asks is another library each time: dnspython's own client, its resolver, and ours."""
    url = "https://web.lab/dns-query"
    query = dns.message.make_query("big.lab.", "A")
    response = await dns.asyncquery.https(query, url, 10, bootstrap_address=TUN_IPV4, verify=context)
    assert len(response.answer[0]) == 400
    async with httpx2.AsyncClient(verify=context) as client:
        response = await dns.asyncquery.https(query, url, 10, client=client)
    assert len(response.answer[0]) == 400
    for resolver in (dns.asyncresolver.Resolver(configure=False), TunnelResolver(dialer)):
        resolver.nameservers = [dns.nameserver.DoHNameserver(url, bootstrap_address=TUN_IPV4, verify=context)]
        assert [record.address for record in await resolver.resolve("web.lab.", "A")] == [TUN_IPV4]


async def tls_streams(context: ssl.SSLContext) -> None:
    stream = await trio.open_ssl_over_tcp_stream("web.lab", 443, ssl_context=context, https_compatible=True)
    async with stream:
        await stream.send_all(b"GET /bytes/50000 HTTP/1.1\r\nHost: web.lab\r\nConnection: close\r\n\r\n")
        body = b"".join([part async for part in stream]).partition(b"\r\n\r\n")[2]
    assert body == PATTERN[:50000]
    with pytest.raises(OSError, match=r"all attempts|resolution|not known"):
        await trio.open_ssl_over_tcp_stream("nowhere.lab", 443, ssl_context=context)


async def pools(dialer, context: ssl.SSLContext) -> None:
    """httpcore's, with our backend, outside of ``as_trio_sockets``."""
    for module, backend in ((httpcore, TunnelBackend(dialer)), (httpcore2, TunnelBackend2(dialer))):
        async with module.AsyncConnectionPool(ssl_context=context, network_backend=backend) as pool:
            for url in ("http://web.lab/bytes/1000", "https://web.lab/bytes/1000"):
                for _ in range(2):
                    assert (await pool.request("GET", url)).content == PATTERN[:1000]
            with pytest.raises(module.ConnectError):
                await pool.request("GET", "http://nowhere.lab/")


async def applications(nursery: trio.Nursery, own: str, outside: socket.socket) -> None:
    """quart on hypercorn, asked by the kernel at the other end of the tunnel, and by ourselves."""
    app = quart_trio.QuartTrio(__name__)

    @app.route("/")
    async def index() -> str:
        return f"hello {request.remote_addr}"

    await nursery.start(serve, app, hypercorn.Config(), await trio.open_tcp_listeners(8082))
    peer = trio.socket.from_stdlib_socket(outside)
    await peer.connect((own, 8082))
    async with trio.SocketStream(peer) as stream:
        await stream.send_all(b"GET / HTTP/1.1\r\nHost: us.lab\r\n\r\n")
        received = b""
        while not received.endswith(b"hello " + TUN_IPV4.encode()):
            part = await stream.receive_some()
            assert part, received
            received += part
    async with httpx.AsyncClient() as client:
        assert (await client.get(f"http://{own}:8082/")).text == f"hello {own}"


async def streams() -> None:
    for connect in (trio.open_tcp_stream, anyio.connect_tcp):
        stream = await connect("web.lab", 7)
        async with stream:
            await (stream.send_all(b"x" * 1000) if isinstance(stream, trio.SocketStream) else stream.send(b"x" * 1000))
            receive = stream.receive_some if isinstance(stream, trio.SocketStream) else stream.receive
            assert set(await receive()) == {ord("x")}
    async with await anyio.create_connected_udp_socket(TUN_IPV4, 7) as datagrams:
        await datagrams.send(b"datagram")
        assert await datagrams.receive() == b"datagram"


async def websockets(nursery: trio.Nursery) -> None:
    async def echo(request) -> None:
        connection = await request.accept()
        with contextlib.suppress(Exception):
            while True:
                await connection.send_message(await connection.get_message())

    await nursery.start(serve_websocket, echo, None, 8080, None)
    async with open_websocket("localhost", 8080, "/", use_ssl=False) as client:
        await client.send_message("to myself")
        assert await client.get_message() == "to myself"


async def test_nothing_leaves_beside_the_tunnel(start_server, lab) -> None:
    server = start_server()
    context = ssl.create_default_context(cadata=lab.credentials.ca.pem)
    with lab.server_namespace.entered():
        outside = socket.socket()
    with watching(server):
        async with open_tunnel(server.profile_file()) as dialer, trio.open_nursery() as nursery:
            with dialer.as_trio_sockets(), trio.fail_after(60):
                await http(lab)
                await names()
                await names_over_https(dialer, context)
                await streams()
                await tls_streams(context)
                await websockets(nursery)
                await applications(nursery, str(dialer.tunnel_info.ipv4.ip), outside)
            await pools(dialer, context)
            await dialer.ping("web.lab")
            async with httpx.AsyncClient(transport=TunnelTransport(dialer)) as client:
                assert (await client.get("http://web.lab/bytes/1000")).content == PATTERN[:1000]
            assert len(await TunnelResolver(dialer).resolve("web.lab", "AAAA")) == 1
            nursery.cancel_scope.cancel()
        # The tunnel is gone, and who still asks gets nothing, and asks nobody else.
        with dialer.as_trio_sockets(), trio.fail_after(60):
            for host in ("web.lab", "other.lab", TUN_IPV4):
                with pytest.raises(OSError, match=r"all attempts|resolution"):
                    await trio.open_tcp_stream(host, 80)


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6], ids=["v4", "v6"])
async def test_the_kernel_connects_to_what_we_serve(start_server, lab, family) -> None:
    async def echo(stream: trio.SocketStream) -> None:
        async for chunk in stream:
            await stream.send_all(chunk)

    server = start_server()
    async with open_tunnel(server.profile_file()) as dialer, trio.open_nursery() as nursery:
        with dialer.as_trio_sockets():
            await nursery.start(trio.serve_tcp, echo, 8080)
        info = dialer.tunnel_info
        own = str((info.ipv4 if family == socket.AF_INET else info.ipv6).ip)
        with lab.server_namespace.entered():
            plain, refused = (socket.socket(family) for _ in range(2))
        with trio.fail_after(10):
            peer = trio.socket.from_stdlib_socket(plain)
            await peer.connect((own, 8080))
            async with trio.SocketStream(peer) as stream:
                nursery.start_soon(stream.send_all, PATTERN[:200_000])
                received = b""
                while len(received) < 200_000:
                    received += await stream.receive_some()
                assert received == PATTERN[:200_000]
            with pytest.raises(OSError) as caught:
                await trio.socket.from_stdlib_socket(refused).connect((own, 8081))
            assert caught.value.errno == errno.ECONNREFUSED
            refused.close()
        nursery.cancel_scope.cancel()


async def test_ipv6_inside(start_server) -> None:
    server = start_server()
    async with open_tunnel(server.profile_file()) as dialer:
        with dialer.as_trio_sockets(), trio.fail_after(20):
            async with httpx.AsyncClient() as client:
                response = await client.get(f"http://[{TUN_IPV6}]/bytes/300000")
            assert response.content == (PATTERN * 2)[:300_000]
            with dialer.open_udp_socket(socket.AF_INET6) as datagrams:
                for size in (0, 1000, 4000):
                    await datagrams.sendto(PATTERN[:size], (TUN_IPV6, 7))
                    assert await datagrams.recv(65535) == PATTERN[:size]
                await datagrams.connect((TUN_IPV6, 4444))
                await datagrams.send(b"anybody?")
                with pytest.raises(ConnectionRefusedError):
                    await datagrams.recv(100)
            assert 0 < await dialer.ping(TUN_IPV6, size=1000) < 1
            assert 0 < await dialer.ping(TUN_IPV6) < 1
