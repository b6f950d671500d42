"""Small servers that live behind the VPN server: HTTP, echo, discard, chargen and DNS.

They run on the server's own TCP/IP stack through the same sockets that an
application gets, so a test that talks to them exercises both stacks.
"""

from __future__ import annotations

import functools
import socket
from collections.abc import Awaitable, Callable, Mapping

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset
import h11
import trio

from ..netstack.sockets import TunSocket
from ..netstack.worker import Pump

__all__ = ["ServiceHost", "chargen", "discard", "echo", "http_handler", "pattern"]

Handler = Callable[[trio.SocketStream], Awaitable[None]]

#: Longest request line and headers together, bytes.
MAX_REQUEST = 16 * 1024
CHUNK = 64 * 1024


#: Bytes of the pattern of which only the first two of each four are the same everywhere.
BLOCK = 4 << 16


def pattern(size: int, start: int = 0) -> bytes:
    """``size`` bytes of a sequence in which every position shows: what is lost, moved or doubled is seen.

    The sequence is 0, 1, 2, ... as 32-bit big-endian numbers; it repeats after 16 GiB.
    """
    number, offset = divmod(start, BLOCK)
    pieces = []
    while size > 0:
        piece = _block(number & 0xFFFF)[offset : offset + size]
        pieces.append(piece)
        size -= len(piece)
        number, offset = number + 1, 0
    return b"".join(pieces)


@functools.lru_cache(maxsize=8)
def _block(number: int) -> bytes:
    """65,536 numbers of the pattern, those whose upper half is ``number``."""
    block = bytearray(BLOCK)
    block[0::4] = bytes([number >> 8]) * 65536
    block[1::4] = bytes([number & 0xFF]) * 65536
    block[2::4] = b"".join(bytes([high]) * 256 for high in range(256))
    block[3::4] = bytes(range(256)) * 256
    return bytes(block)


class ServiceHost:
    """The host that the VPN server is inside its tunnel: opens sockets on its stack."""

    def __init__(self, pump: Pump, address: str) -> None:
        self._pump = pump
        self.address = address

    def socket(self, kind: int = socket.SOCK_STREAM) -> TunSocket:
        """A socket on the server's stack."""
        return TunSocket(self._pump, socket.AF_INET, kind)

    async def serve_tcp(
        self, handler: Handler, port: int, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Serve ``handler`` on ``port`` until cancelled. Its stream's errors end that stream only."""
        listening = self.socket()
        await listening.bind((self.address, port))
        listening.listen(128)

        async def guarded(stream: trio.SocketStream) -> None:
            try:
                async with stream:
                    await handler(stream)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                pass

        task_status.started()
        await trio.serve_listeners(guarded, [trio.SocketListener(listening)])

    async def serve_udp_echo(
        self, port: int, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Send every datagram back."""
        with self.socket(socket.SOCK_DGRAM) as sock:
            await sock.bind((self.address, port))
            task_status.started()
            while True:
                data, sender = await sock.recvfrom(65535)
                await sock.sendto(data, sender)

    async def serve_dns(
        self,
        zone: Mapping[str, str],
        port: int = 53,
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Answer A queries for the names of ``zone`` (name to IPv4 address), NXDOMAIN for all others."""
        with self.socket(socket.SOCK_DGRAM) as sock:
            await sock.bind((self.address, port))
            task_status.started()
            while True:
                query, sender = await sock.recvfrom(4096)
                answer = dns_answer(query, zone)
                if answer is not None:
                    await sock.sendto(answer, sender)


def dns_answer(query: bytes, zone: Mapping[str, str]) -> bytes | None:
    """The response to one query; None for what is no query."""
    try:
        request = dns.message.from_wire(query)
    except dns.exception.DNSException:
        return None
    if len(request.question) != 1 or request.flags & dns.flags.QR:
        return None
    question = request.question[0]
    response = dns.message.make_response(request, recursion_available=True)
    address = zone.get(question.name.to_text(omit_final_dot=True).lower())
    if address is None:
        response.set_rcode(dns.rcode.NXDOMAIN)
    elif question.rdtype == dns.rdatatype.A:
        response.answer.append(dns.rrset.from_text(question.name, 60, "IN", "A", address))
    return response.to_wire()


async def echo(stream: trio.SocketStream) -> None:
    """Send everything back, until the client's end of file."""
    async for chunk in stream:
        await stream.send_all(chunk)
    await stream.send_eof()


async def discard(stream: trio.SocketStream) -> None:
    """Read everything and answer with the number of bytes, in decimal."""
    total = 0
    async for chunk in stream:
        total += len(chunk)
    await stream.send_all(str(total).encode())


async def chargen(stream: trio.SocketStream) -> None:
    """Send ``pattern`` for ever."""
    position = 0
    while True:
        await stream.send_all(pattern(CHUNK, position))
        position += CHUNK


def http_handler(pages: Mapping[str, bytes]) -> Handler:
    """An HTTP/1.1 server of fixed pages; ``/bytes/N`` is N bytes of ``pattern``."""

    async def handle(stream: trio.SocketStream) -> None:
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_REQUEST)
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                connection.receive_data(await stream.receive_some())
            elif isinstance(event, h11.Request):
                await answer(stream, connection, event)
            elif event is h11.PAUSED:
                connection.start_next_cycle()
            elif isinstance(event, h11.ConnectionClosed):
                return
            if connection.our_state is h11.MUST_CLOSE:
                return

    async def answer(stream: trio.SocketStream, connection: h11.Connection, request: h11.Request) -> None:
        target = request.target.decode("ascii", "replace").partition("?")[0]
        status, body = 200, pages.get(target)
        size = target.removeprefix("/bytes/")
        if body is None and size.isdigit() and target != size:
            length = int(size)
        else:
            if body is None:
                status, body = 404, b"not found\n"
            length = len(body)
        headers = [("Content-Length", str(length)), ("Content-Type", "application/octet-stream")]
        await stream.send_all(connection.send(h11.Response(status_code=status, headers=headers)) or b"")
        if request.method != b"HEAD":
            for start in range(0, length, CHUNK):
                count = min(CHUNK, length - start)
                piece = pattern(count, start) if body is None else body[start : start + count]
                await stream.send_all(connection.send(h11.Data(data=piece)) or b"")
        await stream.send_all(connection.send(h11.EndOfMessage()) or b"")

    async def guarded(stream: trio.SocketStream) -> None:
        try:
            await handle(stream)
        except h11.RemoteProtocolError:
            return

    return guarded
