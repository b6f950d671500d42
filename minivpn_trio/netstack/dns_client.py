"""One question to DNS servers inside the tunnel: over UDP, TCP or TLS, until one of them says yes or no.

dnspython makes and reads the messages; the sockets are ``TunSocket``. A server is asked over UDP with EDNS (1232
bytes), from a fresh random port and with a random id; over TCP when the answer was truncated, and when nobody
answered over UDP. A server of DNS over TLS is asked over nothing else, and its certificate is held against the
CAs of the system; ``SSL_CERT_FILE`` names others, as for all programs that use OpenSSL. Connections to it are kept
between questions: dns_streams.py.

Letters of a question are not mixed in case to make it harder to guess ("0x20"): it travels inside the
tunnel's encryption, with a random port and id, and some servers do not give the letters back.

Sources: RFC 1035, RFC 5452 (what makes an answer believable), RFC 6891 (EDNS), RFC 7766 (TCP), RFC 7858 (TLS).
"""

from __future__ import annotations

import socket as stdlib
import ssl
from collections.abc import Callable, Sequence
from contextlib import suppress
from struct import Struct
from typing import TYPE_CHECKING

import trio

from ..packet.ids import RandomBytes
from .dns_streams import TlsStream, TlsStreams
from .name_servers import NameServer
from .sockets import TunSocket

if TYPE_CHECKING:
    import dns.exception
    import dns.flags
    import dns.message
    import dns.name
    import dns.rcode
    import dns.rdatatype

__all__ = ["DNSClient", "NobodyAnswered"]

#: Rounds over all servers, and how long each server has in each, seconds.
_UDP_TIMEOUTS = (1.5, 3.0)
#: For one question over TCP, and over TLS, its handshake included, seconds.
_STREAM_TIMEOUT = 5.0
_EDNS_PAYLOAD = 1232
_LENGTH = Struct("!H")


def _need_dnspython() -> None:
    """Import what only names need; see resolver.py."""
    global dns
    import dns.exception
    import dns.flags
    import dns.message
    import dns.rcode


class NobodyAnswered(Exception):
    """No server was of use. The notes say of those over TLS why."""


class _NoAnswer(Exception):
    """A server is of no use now: silent, unreachable, or answering with an error."""


class DNSClient:
    """Asks servers. ``open_socket(family, type)`` makes the sockets."""

    def __init__(self, open_socket: Callable[[int, int], TunSocket], rng: RandomBytes) -> None:
        self._open_socket = open_socket
        self._rng = rng
        self._streams = TlsStreams(open_socket)

    async def ask(
        self, servers: Sequence[NameServer], name: dns.name.Name, kind: dns.rdatatype.RdataType
    ) -> dns.message.QueryMessage:
        """The first usable response of any of ``servers``. Checkpoints; cancel-safe. Raises NobodyAnswered."""
        _need_dnspython()
        failure = NobodyAnswered()
        for patience in _UDP_TIMEOUTS:
            for server in servers:
                try:
                    if server.tls_name is not None:
                        return await self._ask_tls(server, self._query(name, kind))
                    return await self._ask_plainly(server, name, kind, patience)
                except _NoAnswer as exc:
                    if exc.args and patience == _UDP_TIMEOUTS[0]:
                        failure.add_note(f"{server}: {exc}")
        for server in servers:
            with suppress(_NoAnswer):
                # UDP port 53 may be blocked where TCP is not.
                if server.tls_name is None:
                    return await self._ask_tcp(server, self._query(name, kind))
        raise failure

    def forget_streams(self) -> None:
        """The tunnel, or who is asked, changed: connections to servers are not used again."""
        self._streams.forget()

    def close(self) -> None:
        """The tunnel is gone: close the connections, and keep none that is still in use. Idempotent, never blocks."""
        self._streams.close()

    async def _ask_plainly(
        self, server: NameServer, name: dns.name.Name, kind: dns.rdatatype.RdataType, patience: float
    ) -> dns.message.QueryMessage:
        response = await self._ask_udp(server, self._query(name, kind), patience)
        if response.rcode() in (dns.rcode.FORMERR, dns.rcode.NOTIMP, dns.rcode.BADVERS):
            # A server from before EDNS (RFC 6891, 6.2.2).
            response = await self._ask_udp(server, self._query(name, kind, edns=False), patience)
        if response.flags & dns.flags.TC:
            response = await self._ask_tcp(server, self._query(name, kind))
        return _usable(response)

    def _query(
        self, name: dns.name.Name, kind: dns.rdatatype.RdataType, *, edns: bool = True
    ) -> dns.message.QueryMessage:
        ident = int.from_bytes(self._rng(2), "big")
        if edns:
            return dns.message.make_query(name, kind, id=ident, use_edns=0, payload=_EDNS_PAYLOAD)
        return dns.message.make_query(name, kind, id=ident, use_edns=False)

    async def _ask_udp(
        self, server: NameServer, query: dns.message.QueryMessage, patience: float
    ) -> dns.message.QueryMessage:
        with self._socket(server, stdlib.SOCK_DGRAM) as socket, trio.move_on_after(patience):
            try:
                # Connected: datagrams of others never reach us, and ICMP errors do.
                await socket.connect((server.address, server.port))
                await socket.send(query.to_wire())
                while True:
                    response = _response_untrusted(query, await socket.recv(65535), truncation=True)
                    if response is not None:
                        return response
            except OSError as exc:
                raise _NoAnswer from exc
        raise _NoAnswer

    async def _ask_tcp(self, server: NameServer, query: dns.message.QueryMessage) -> dns.message.QueryMessage:
        with self._socket(server, stdlib.SOCK_STREAM) as socket, trio.move_on_after(_STREAM_TIMEOUT):
            try:
                await socket.connect((server.address, server.port))
                return _usable(await _ask_over(trio.SocketStream(socket), query))
            except (OSError, trio.BrokenResourceError) as exc:
                raise _NoAnswer from exc
        raise _NoAnswer

    async def _ask_tls(self, server: NameServer, query: dns.message.QueryMessage) -> dns.message.QueryMessage:
        with trio.move_on_after(_STREAM_TIMEOUT):
            response = None
            kept = self._streams.take(server)
            if kept is not None:
                # It may have been closed while the question was on its way: that says nothing of the server.
                with suppress(OSError, trio.BrokenResourceError, _NoAnswer):
                    response = await _ask_once(kept, query)
            if response is None:
                try:
                    response = await _ask_once(await self._streams.connect(server), query)
                except (OSError, trio.BrokenResourceError) as exc:
                    raise _NoAnswer(_tls_reason(exc)) from exc
            return _usable(response)
        self._streams.distrust(server)
        raise _NoAnswer("no answer over TLS")

    def _socket(self, server: NameServer, kind: int) -> TunSocket:
        try:
            return self._open_socket(stdlib.AF_INET6 if ":" in server.address else stdlib.AF_INET, kind)
        except OSError as exc:
            raise _NoAnswer from exc


async def _ask_once(lent: TlsStream, query: dns.message.QueryMessage) -> dns.message.QueryMessage:
    """Like ``_ask_over``; the connection is kept if it gave the answer."""
    with lent:
        return await _ask_over(lent.stream, query)


async def _ask_over(stream: trio.abc.Stream, query: dns.message.QueryMessage) -> dns.message.QueryMessage:
    """One question and its answer, with lengths before them. Raises _NoAnswer, OSError, trio.BrokenResourceError."""
    wire = query.to_wire()
    await stream.send_all(_LENGTH.pack(len(wire)) + wire)
    (length,) = _LENGTH.unpack(await _receive_exactly(stream, 2))
    response = _response_untrusted(query, await _receive_exactly(stream, length), truncation=False)
    if response is None:
        raise _NoAnswer
    return response


async def _receive_exactly(stream: trio.abc.ReceiveStream, count: int) -> bytes:
    data = b""
    while len(data) < count:
        more = await stream.receive_some(count - len(data))
        if not more:
            raise _NoAnswer
        data += more
    return data


def _tls_reason(exc: BaseException) -> str:
    """What is wrong with a server of DNS over TLS, in words; nothing of what it sent."""
    cause = exc.__cause__ if isinstance(exc, trio.BrokenResourceError) else exc
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"its certificate is not to be trusted: {cause.verify_message}"
    if isinstance(cause, OSError) and not isinstance(cause, ssl.SSLError):
        return cause.strerror or str(cause)
    return "it does not speak TLS as it should"


def _response_untrusted(
    query: dns.message.QueryMessage, wire: bytes, *, truncation: bool
) -> dns.message.QueryMessage | None:
    """``wire`` as the response to ``query``, or None if it is not: another id, another question, garbage."""
    try:
        response = dns.message.from_wire(wire, ignore_trailing=True, raise_on_truncation=False)
    except dns.exception.DNSException:
        # The cut may go through a record; the header is enough to go on by TCP.
        if not (truncation and len(wire) >= 12 and wire[:2] == query.id.to_bytes(2, "big") and wire[2] & 0x82 == 0x82):
            return None
        response = dns.message.make_response(query)
        response.flags |= dns.flags.TC
    except Exception:  # whatever a parser of hostile bytes may raise, the answer is the same
        return None
    if not isinstance(response, dns.message.QueryMessage) or not query.is_response(response):
        return None
    return response


def _usable(response: dns.message.QueryMessage) -> dns.message.QueryMessage:
    """``response``, if it says yes or no; _NoAnswer if the server could not say (SERVFAIL, REFUSED ...)."""
    if response.rcode() not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
        raise _NoAnswer
    return response
