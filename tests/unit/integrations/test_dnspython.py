"""dnspython, unmodified, through a tunnel: UDP, truncation, TCP, TLS, HTTPS; time-outs and failures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import dns.asyncquery
import dns.asyncresolver
import dns.exception
import dns.flags
import dns.message
import dns.rcode
import dns.resolver
import dns.rrset
import httpx2
import pytest
import trio
from inside import NAME, Inside, inside

from minivpn_trio.dialer import TunDialer
from minivpn_trio.integrations.dnspython import TunnelBackend, TunnelResolver
from minivpn_trio.integrations.httpcore2 import TunnelTransport

Resolve = Callable[..., Awaitable[dns.resolver.Answer]]


def answer(wire: bytes, *, udp: bool) -> bytes:
    query = dns.message.from_wire(wire)
    response = dns.message.make_response(query)
    name = query.question[0].name.to_text()
    if name == "big.internal." and udp:
        response.flags |= dns.flags.TC
    elif name in ("big.internal.", "small.internal."):
        count = 200 if name.startswith("big") else 1
        response.answer.append(dns.rrset.from_text(name, 60, "IN", "A", *[f"10.9.{n}.1" for n in range(count)]))
    else:
        response.set_rcode(dns.rcode.NXDOMAIN)
    return response.to_wire(max_size=65535)


class Server:
    """DNS at the far end, port 5353, over everything."""

    def __init__(self, world: Inside) -> None:
        self.world = world
        self.seen: Counter[str] = Counter()

    async def udp(self) -> None:
        with self.world.server.host.socket(2) as socket:
            await socket.bind((self.world.address, 5353))
            while True:
                wire, sender = await socket.recvfrom(4096)
                self.seen["udp"] += 1
                await socket.sendto(answer(wire, udp=True), sender)

    async def stream(self, kind: str, stream: trio.abc.Stream) -> None:
        data = b""
        async for chunk in stream:
            data += chunk
            if len(data) >= 2 and len(data) >= 2 + int.from_bytes(data[:2], "big"):
                self.seen[kind] += 1
                reply = answer(data[2:], udp=False)
                await stream.send_all(len(reply).to_bytes(2, "big") + reply)
                data = b""

    async def tcp(self, stream: trio.abc.Stream) -> None:
        await self.stream("tcp", stream)

    async def tls(self, stream: trio.SocketStream) -> None:
        secure = trio.SSLStream(stream, self.world.server_tls(), server_side=True, https_compatible=True)
        await self.stream("tls", secure)

    async def https(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            raise RuntimeError
        self.seen["https"] += 1
        message = await receive()
        headers = [(b"content-type", b"application/dns-message")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": answer(message["body"], udp=False)})

    async def start(self) -> None:
        nursery = self.world.nursery
        nursery.start_soon(self.udp)
        nursery.start_soon(trio.serve_listeners, self.tcp, [await self.world.listener(5353)])
        nursery.start_soon(trio.serve_listeners, self.tls, [await self.world.listener(853)])
        await self.world.serve_asgi(self.https, 443, "h2", "http/1.1")


def by_backend(dialer: TunDialer, address: str) -> Resolve:
    resolver = dns.asyncresolver.Resolver(configure=False)
    resolver.nameservers, resolver.port = [address], 5353

    async def resolve(*args: Any, **kwargs: Any) -> dns.resolver.Answer:
        return await resolver.resolve(*args, backend=TunnelBackend(dialer), **kwargs)

    return resolve


def by_resolver(dialer: TunDialer, address: str) -> Resolve:
    resolver = TunnelResolver(dialer)
    assert resolver.nameservers == [address]
    assert [domain.to_text() for domain in resolver.search] == ["internal."]
    resolver.port = 5353
    return resolver.resolve


def by_ambient(dialer: TunDialer, address: str) -> Resolve:
    resolver = dns.asyncresolver.Resolver(configure=False)
    resolver.nameservers, resolver.port = [address], 5353

    async def resolve(*args: Any, **kwargs: Any) -> dns.resolver.Answer:
        with dialer.as_trio_sockets():
            return await resolver.resolve(*args, **kwargs)

    return resolve


@pytest.mark.parametrize("make", [by_backend, by_resolver, by_ambient])
async def test_udp_and_tcp(make: Callable[[TunDialer, str], Resolve]) -> None:
    async with inside() as world:
        server = Server(world)
        await server.start()
        resolve = make(world.dialer, world.address)
        assert [record.address for record in await resolve("small.internal", "A")] == ["10.9.0.1"]
        assert server.seen == {"udp": 1}
        assert len(await resolve("big.internal", "A")) == 200
        assert server.seen == {"udp": 2, "tcp": 1}
        assert len(await resolve("small.internal.", "A", tcp=True)) == 1
        assert server.seen == {"udp": 2, "tcp": 2}
        with pytest.raises(dns.resolver.NXDOMAIN):
            await resolve("none.internal.", "A")


async def test_search_domains() -> None:
    async with inside() as world:
        await Server(world).start()
        resolver = TunnelResolver(world.dialer)
        resolver.port = 5353
        assert (await resolver.resolve("small", "A")).canonical_name.to_text() == "small.internal."


async def test_tls() -> None:
    async with inside() as world:
        server = Server(world)
        await server.start()
        query = dns.message.make_query("big.internal", "A")
        response = await dns.asyncquery.tls(
            query, world.address, 5, backend=TunnelBackend(world.dialer), ssl_context=world.client_tls,
            server_hostname=NAME,
        )  # fmt: skip
        assert len(response.answer[0]) == 200
        assert server.seen == {"tls": 1}


async def test_https() -> None:
    async with inside() as world:
        server = Server(world)
        await server.start()
        query = dns.message.make_query("big.internal", "A")
        url = f"https://{NAME}/dns-query"
        transport = TunnelTransport(world.dialer, ssl_context=world.client_tls, http2=True)
        async with httpx2.AsyncClient(transport=transport) as client:
            response = await dns.asyncquery.https(query, url, 5, client=client)
        assert len(response.answer[0]) == 200
        with world.dialer.as_trio_sockets():
            response = await dns.asyncquery.https(
                query, url, 5, bootstrap_address=world.address, verify=world.client_tls
            )
        assert len(response.answer[0]) == 200
        resolver = TunnelResolver(world.dialer)
        resolver.nameservers = [
            dns.nameserver.DoHNameserver(url, bootstrap_address=world.address, verify=world.client_tls)  # type: ignore[arg-type]
        ]
        assert len(await resolver.resolve("big.internal", "A")) == 200
        assert server.seen == {"https": 3}


async def test_silence_and_refusal() -> None:
    async with inside() as world:
        backend = TunnelBackend(world.dialer)
        assert backend.name() == "trio"
        query = dns.message.make_query("small.internal", "A")
        with pytest.raises(dns.exception.Timeout):
            await dns.asyncquery.udp(query, "10.8.0.200", 0.1, backend=backend)
        with pytest.raises(dns.exception.Timeout):
            await dns.asyncquery.tcp(query, "10.8.0.200", 0.1, backend=backend)
        with pytest.raises(ConnectionRefusedError):
            await dns.asyncquery.tcp(query, world.address, 5, port=81, backend=backend)
