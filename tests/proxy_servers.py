"""Proxies that the tests run in their own process: HTTP CONNECT (h11) and SOCKS 5, as Trio servers.

Each knows ``names``: hosts that nobody else can resolve. What was asked of it is in ``asked``.
"""

from __future__ import annotations

import base64
import hashlib
import ipaddress
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from functools import partial
from urllib.request import parse_http_list, parse_keqv_list

import h11
import trio

__all__ = ["HTTPProxyServer", "SocksServer"]


async def pump(source: trio.abc.ReceiveStream, sink: trio.abc.HalfCloseableStream) -> None:
    try:
        async for data in source:
            await sink.send_all(data)
        await sink.send_eof()
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        pass


async def join(one: trio.SocketStream, other: trio.SocketStream) -> None:
    async with one, other, trio.open_nursery() as nursery:
        nursery.start_soon(pump, one, other)
        await pump(other, one)


class _Server:
    def __init__(self, names: Mapping[str, str] | None = None) -> None:
        self.names = dict(names or {})
        self.asked: list[object] = []
        self.port = 0

    def upstream(self, host: str) -> str:
        """The address for ``host``; a name that is not in ``names`` has none."""
        if host in self.names:
            return self.names[host]
        ipaddress.ip_address(host)
        return host

    async def handle(self, stream: trio.SocketStream) -> None:
        raise NotImplementedError

    async def _serve(self, stream: trio.SocketStream) -> None:
        try:
            async with stream:
                await self.handle(stream)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass

    @asynccontextmanager
    async def listening(self, host: str = "127.0.0.1") -> AsyncIterator[int]:
        """Serve inside the block; the port."""
        async with trio.open_nursery() as nursery:
            listeners = await nursery.start(partial(trio.serve_tcp, self._serve, 0, host=host))
            self.port = listeners[0].socket.getsockname()[1]
            yield self.port
            nursery.cancel_scope.cancel()


class HTTPProxyServer(_Server):
    """``check`` gets the Proxy-Authorization (None: there was none) and says whether it will do."""

    def __init__(
        self,
        names: Mapping[str, str] | None = None,
        *,
        check: Callable[[str | None], bool] = lambda value: True,
        challenges: tuple[str, ...] = (),
        status: int = 200,
        first_bytes: bytes = b"",
    ) -> None:
        super().__init__(names)
        self.check = check
        self.challenges = challenges
        self.status = status
        #: Sent in one piece with the answer, as if the server had spoken at once.
        self.first_bytes = first_bytes
        self.authorizations: list[str | None] = []
        self.headers: list[dict[str, str]] = []

    async def handle(self, stream: trio.SocketStream) -> None:
        connection = h11.Connection(h11.SERVER)
        event: object = h11.NEED_DATA
        while event is h11.NEED_DATA:
            connection.receive_data(await stream.receive_some())
            event = connection.next_event()
        assert isinstance(event, h11.Request)
        assert event.method == b"CONNECT"
        target = event.target.decode()
        headers = {name.decode(): value.decode() for name, value in event.headers}
        self.asked.append(target)
        self.headers.append(headers)
        self.authorizations.append(headers.get("proxy-authorization"))
        if not self.check(headers.get("proxy-authorization")):
            fields = [("Proxy-Authenticate", each) for each in self.challenges]
            answer = h11.Response(status_code=407, headers=[*fields, ("Content-Length", "4"), ("Connection", "close")])
            await stream.send_all(connection.send(answer) + b"no!\n")
            return
        if self.status != 200:
            answer = h11.Response(status_code=self.status, headers=[("Content-Length", "0")])
            await stream.send_all(connection.send(answer))
            return
        host, _, port = target.rpartition(":")
        onward = await trio.open_tcp_stream(self.upstream(host.strip("[]")), int(port))
        reply = connection.send(h11.Response(status_code=200, headers=[("Via", "1.1 test")]))
        await stream.send_all(reply + self.first_bytes)
        await join(stream, onward)


def basic_check(username: str, password: str) -> Callable[[str | None], bool]:
    wanted = "Basic " + base64.b64encode(f"{username}:{password}".encode()).decode()
    return lambda value: value == wanted


def digest_check(
    username: str, password: str, *, nonce: str, realm: str, algorithm: str = "MD5"
) -> Callable[[str | None], bool]:
    """RFC 7616, 3.4, written out for one user and qop=auth."""
    name = algorithm.upper().removesuffix("-SESS")
    make = {"MD5": hashlib.md5, "SHA-256": hashlib.sha256}[name]

    def digest(text: str) -> str:
        return make(text.encode()).hexdigest()

    def check(value: str | None) -> bool:
        if value is None or not value.startswith("Digest "):
            return False
        fields = parse_keqv_list(parse_http_list(value.removeprefix("Digest ")))
        secret = digest(f"{username}:{realm}:{password}")
        if algorithm.upper().endswith("-SESS"):
            secret = digest(f"{secret}:{nonce}:{fields['cnonce']}")
        what = digest(f"CONNECT:{fields['uri']}")
        wanted = digest(f"{secret}:{nonce}:{fields['nc']}:{fields['cnonce']}:auth:{what}")
        return (fields["username"], fields["nonce"], fields["response"]) == (username, nonce, wanted)

    return check


class SocksServer(_Server):
    """SOCKS 5 (RFC 1928, 1929): CONNECT and UDP ASSOCIATE. ``login`` is a user name and a password."""

    def __init__(
        self,
        names: Mapping[str, str] | None = None,
        *,
        login: tuple[str, str] | None = None,
        reply: int = 0,
        relay_host: str = "127.0.0.1",
        announce: str | None = None,
    ) -> None:
        super().__init__(names)
        self.login = login
        self.reply = reply
        self.relay_host = relay_host
        #: The relay's address as told to the client; None: the real one.
        self.announce = announce
        self.relayed = 0
        self.control: trio.SocketStream | None = None

    async def handle(self, stream: trio.SocketStream) -> None:
        async def exactly(size: int) -> bytes:
            data = bytearray()
            while len(data) < size:
                more = await stream.receive_some(size - len(data))
                if not more:
                    raise trio.BrokenResourceError
                data += more
            return bytes(data)

        _, count = await exactly(2)
        methods = await exactly(count)
        method = 2 if self.login is not None else 0
        if method not in methods:
            await stream.send_all(b"\x05\xff")
            return
        await stream.send_all(bytes([5, method]))
        if self.login is not None:
            _, size = await exactly(2)
            name = (await exactly(size)).decode()
            password = (await exactly((await exactly(1))[0])).decode()
            good = (name, password) == self.login
            await stream.send_all(bytes([1, 0 if good else 1]))
            if not good:
                return
        _, command, _, kind = await exactly(4)
        size = {1: 4, 4: 16}.get(kind) or (await exactly(1))[0]
        raw = await exactly(size)
        host = raw.decode() if kind == 3 else str(ipaddress.ip_address(raw))
        port = int.from_bytes(await exactly(2), "big")
        self.asked.append((command, host, port))
        if self.reply:
            await stream.send_all(bytes([5, self.reply, 0, 1]) + bytes(6))
        elif command == 1:
            onward = await trio.open_tcp_stream(self.upstream(host), port)
            await stream.send_all(b"\x05\x00\x00\x01" + bytes(6))
            await join(stream, onward)
        else:
            self.control = stream
            await self._relay(stream)

    async def _relay(self, stream: trio.SocketStream) -> None:
        with trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_DGRAM) as sock:
            await sock.bind((self.relay_host, 0))
            host, port = sock.getsockname()
            address = ipaddress.ip_address(self.announce or host)
            await stream.send_all(b"\x05\x00\x00\x01" + address.packed + port.to_bytes(2, "big"))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._forward, sock)
                with suppress(trio.ClosedResourceError, trio.BrokenResourceError):
                    while await stream.receive_some():
                        pass
                nursery.cancel_scope.cancel()

    async def _forward(self, sock: trio.socket.SocketType) -> None:
        """Both directions over one socket: what comes from the client has a header."""
        client: tuple[str, int] | None = None
        while True:
            try:
                data, source = await sock.recvfrom(65536)
            except OSError:
                continue  # an ICMP error of the last datagram
            self.relayed += 1
            if client is None or source == client:
                client = source
                kind = data[3]
                start = 4 if kind != 3 else 5
                end = start + ({1: 4, 4: 16}.get(kind) or data[4])
                raw = data[start:end]
                host = raw.decode() if kind == 3 else str(ipaddress.ip_address(raw))
                port = int.from_bytes(data[end : end + 2], "big")
                if host not in self.asked:
                    self.asked.append(host)
                await sock.sendto(data[end + 2 :], (self.upstream(host), port))
            else:
                head = b"\0\0\0\x01" + ipaddress.ip_address(source[0]).packed + source[1].to_bytes(2, "big")
                await sock.sendto(head + data, client)
