"""Reaching the server through a proxy: HTTP CONNECT, SOCKS 5 for TCP and for UDP.

The server's name goes to the proxy as it is; only the proxy's own name is
looked up here. Whatever fails is a TransportError that names the proxy and
says what to do, never a password and never what the proxy wrote. There is no
way past a proxy that was asked for.
"""

from __future__ import annotations

import errno
import math
import socket
from contextlib import suppress
from typing import Any

import trio
from python_socks import ProxyError, ProxyType
from python_socks.async_.trio import Proxy as PythonSocks

from ..config.credentials import Credentials
from ..config.model import Remote, TunnelConfig
from ..config.proxy import HTTPProxy, Obfs4Bridge, Proxy, SocksProxy, is_numeric
from ..errors import ProtocolError, Stage, TransportError
from ..items import Burst
from .dial import first_to_connect, in_words, lookup, open_socket, remedy_for
from .framing import max_frame_of
from .http_connect import HTTPConnect, answer_challenge, authority, basic
from .socks5 import AssociateRefused, UDPAssociate, datagram_header, strip_header_untrusted
from .stream import StreamTransport
from .transport import Transport
from .udp import UDPTransport

__all__ = ["SocksUDPTransport", "connect_to", "dial_through", "failure", "socks_connect"]

REACH = "check that the proxy runs, and its address in the profile"
GIVE_CREDENTIALS = "give it a user name and a password, in a file or a block named http-proxy-user-pass"
GIVE_SOCKS_CREDENTIALS = "give it a user name and a password: socks-proxy HOST PORT FILE"
#: Bytes of one read while talking to a proxy.
PIECE = 4096


def failure(proxy: Proxy, reason: str, remedy: str) -> TransportError:
    """The error for everything that goes wrong on the way through ``proxy``."""
    return TransportError(f"{proxy}: {reason}", stage=Stage.DIAL, remedy=remedy)


async def dial_through(proxy: Proxy, remote: Remote, config: TunnelConfig) -> Transport:
    """A transport to ``remote`` through ``proxy``.

    Raises TransportError (stage DIAL). Checkpoints; cancelled, it leaves neither socket nor process.
    """
    if isinstance(proxy, Obfs4Bridge):
        from .obfs4 import dial_obfs4

        return await dial_obfs4(proxy, config)
    if isinstance(proxy, HTTPProxy):
        return await _dial_http(proxy, remote, config)
    return await (_dial_socks(proxy, remote, config) if remote.is_tcp else _dial_socks_udp(proxy, remote, config))


async def connect_to(proxy: HTTPProxy | SocksProxy, config: TunnelConfig) -> socket.socket:
    """A TCP connection to the proxy itself, at whichever of its addresses answers first."""
    try:
        found = await lookup(proxy.host, proxy.port, socket.SOCK_STREAM)
    except (OSError, UnicodeError) as exc:
        text = getattr(exc, "strerror", None) or "this is no name"
        raise failure(proxy, f"no address for it: {text}", REACH) from exc
    try:
        return await first_to_connect(found, config)
    except OSError as exc:
        raise failure(proxy, in_words(exc), remedy_for(exc, REACH)) from exc


def _stream(sock: socket.socket, remote: Remote, config: TunnelConfig, received: bytes = b"") -> StreamTransport:
    peer = remote.host if is_numeric(remote.host) else None
    stream = trio.SocketStream(trio.socket.from_stdlib_socket(sock))
    return StreamTransport(stream, peer, max_frame=max_frame_of(config.tun_mtu), received=received)


# -- HTTP --------------------------------------------------------------------------------------


async def _dial_http(proxy: HTTPProxy, remote: Remote, config: TunnelConfig) -> StreamTransport:
    credentials = proxy.credentials
    authorization = basic(credentials) if credentials is not None and proxy.auth == "basic" else None
    try:
        target = authority(remote.host, remote.port)
    except UnicodeError:
        raise failure(proxy, "the server's name is not one", "check the profile's remote line") from None
    # The first answer may say how the proxy wants to be asked; then once more, with that.
    for _ in range(2):
        sock = await connect_to(proxy, config)
        try:
            dialogue = await _ask(proxy, sock, HTTPConnect(proxy, target, authorization))
        except BaseException:
            sock.close()
            raise
        status = dialogue.status or 0
        if 200 <= status < 300:
            return _stream(sock, remote, config, dialogue.trailing)
        sock.close()
        if status != 407:
            raise failure(
                proxy, f"it answered {status} for {target}", "ask whoever runs it whether it may reach the server"
            )
        if credentials is None:
            raise failure(proxy, "it asks for a user name and a password (407)", GIVE_CREDENTIALS)
        if authorization is not None and not _offers(dialogue, "digest"):
            break
        again = answer_challenge(dialogue.challenges, credentials, target, clear_text=proxy.auth != "digest")
        if again is None:
            only_basic = proxy.auth == "digest" and _offers(dialogue, "basic")
            remedy = (
                "auto-nct forbids to send the password in the clear; write auto if it may be"
                if only_basic
                else "basic and digest (MD5, SHA-1, SHA-2) are what is supported"
            )
            raise failure(proxy, "it asks for a way to log in that we have not (407)", remedy)
        if authorization is not None and authorization.startswith("Digest"):
            break
        authorization = again
    raise failure(proxy, "it refused the user name or the password (407)", "check them, and the profile's http-proxy")


def _offers(dialogue: HTTPConnect, scheme: str) -> bool:
    return any(challenge.partition(" ")[0].lower() == scheme for challenge in dialogue.challenges)


async def _ask(proxy: HTTPProxy, sock: socket.socket, dialogue: HTTPConnect) -> HTTPConnect:
    try:
        await _send(sock, dialogue.request())
        while dialogue.status is None:
            dialogue.handle_data_untrusted(await _receive(sock, PIECE))
    except ProtocolError as exc:
        raise failure(proxy, exc.detail, REACH) from exc
    except OSError as exc:
        raise failure(proxy, in_words(exc), remedy_for(exc, REACH)) from exc
    return dialogue


async def _send(sock: socket.socket, data: bytes) -> None:
    while data:
        await trio.lowlevel.wait_writable(sock)
        data = data[sock.send(data) :]


async def _receive(sock: socket.socket, size: int) -> bytes:
    while True:
        await trio.lowlevel.wait_readable(sock)
        with suppress(BlockingIOError):
            return sock.recv(size)


# -- SOCKS, TCP --------------------------------------------------------------------------------


class _Connected(PythonSocks):
    """What python-socks takes for the way to its proxy: a socket that we connected ourselves.

    Its own would go through trio.socket, and so through a socket factory or a resolver that the
    program installed for its traffic inside the tunnel.
    """

    def __init__(self, sock: trio.socket.SocketType) -> None:
        super().__init__(ProxyType.SOCKS5, "", 0)
        self._connected = sock

    async def connect(
        self,
        dest_host: str,
        dest_port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - the signature is python-socks'
        **kwargs: Any,
    ) -> trio.socket.SocketType:
        """The socket, whatever is asked for."""
        await trio.lowlevel.checkpoint()
        return self._connected


async def socks_connect(sock: socket.socket, host: str, port: int, credentials: Credentials | None) -> None:
    """Ask the SOCKS 5 proxy behind ``sock`` for a connection. Closes ``sock`` when it fails.

    Raises ProxyError (its ``error_code`` of RFC 1928), OSError, ValueError. Checkpoints.
    """
    ours = trio.socket.from_stdlib_socket(sock)
    name, password = (credentials.username, credentials.password) if credentials is not None else (None, None)
    proxy = PythonSocks(ProxyType.SOCKS5, "", 0, name, password, rdns=True, forward=_Connected(ours))
    await proxy.connect(host, port, timeout=math.inf)


async def _dial_socks(proxy: SocksProxy, remote: Remote, config: TunnelConfig) -> StreamTransport:
    sock = await connect_to(proxy, config)
    try:
        await socks_connect(sock, remote.host, remote.port, proxy.credentials)
    except ProxyError as exc:
        if exc.error_code is not None:
            raise failure(
                proxy, f"{exc} (for {remote.host} port {remote.port})", "check the profile's remote line"
            ) from None
        remedy = GIVE_SOCKS_CREDENTIALS if "uthentication" in str(exc) else REACH
        raise failure(proxy, str(exc), remedy) from None
    except OSError as exc:
        raise failure(proxy, in_words(exc), remedy_for(exc, REACH)) from exc
    except ValueError:
        # Also UnicodeError, whose text would hold the password.
        raise failure(proxy, "a name or a password that SOCKS cannot carry", "up to 255 ASCII characters fit") from None
    return _stream(sock, remote, config)


# -- SOCKS, UDP --------------------------------------------------------------------------------


async def _dial_socks_udp(proxy: SocksProxy, remote: Remote, config: TunnelConfig) -> SocksUDPTransport:
    try:
        header = datagram_header(remote.host, remote.port)
    except UnicodeError:
        raise failure(proxy, "the server's name is not one", "check the profile's remote line") from None
    control = await connect_to(proxy, config)
    try:
        family, address = await _associate(proxy, control)
        sock = await open_socket(family, address, socket.SOCK_DGRAM, config)
    except OSError as exc:
        control.close()
        raise failure(proxy, in_words(exc), remedy_for(exc, REACH)) from exc
    except BaseException:
        control.close()
        raise
    return SocksUDPTransport(sock, control, header, remote.host if is_numeric(remote.host) else None)


async def _associate(proxy: SocksProxy, control: socket.socket) -> tuple[int, Any]:
    dialogue = UDPAssociate(proxy.credentials)
    try:
        while True:
            await _send(control, dialogue.take_output())
            if not dialogue.wanted:
                break
            data = await _receive(control, dialogue.wanted)
            if not data:
                raise failure(proxy, "it closed the connection without an answer", REACH)
            dialogue.handle_data_untrusted(data)
    except ProtocolError as exc:
        raise failure(proxy, exc.detail, REACH) from exc
    except AssociateRefused as exc:
        remedy = GIVE_SOCKS_CREDENTIALS if exc.credentials else "try a remote with proto tcp"
        raise failure(proxy, str(exc), remedy) from None
    assert dialogue.relay is not None
    host, port = dialogue.relay
    if host in ("0.0.0.0", "::"):
        # "Where you reached me": the address of the connection.
        host = control.getpeername()[0]
    ((family, address),) = await lookup(host, port, socket.SOCK_DGRAM)
    return family, address


class SocksUDPTransport(UDPTransport):
    """Datagrams by way of a SOCKS 5 proxy's relay. Owns the socket and the connection to the proxy,
    whose end is the end of the relaying (RFC 1928, 6).
    """

    packets_in: int
    bursts_in: int
    bytes_in: int

    def __init__(self, sock: socket.socket, control: socket.socket, header: bytes, peer: str | None) -> None:
        super().__init__(sock, peer)
        self._control = control
        self._header = header
        self._ended = False

    @property
    def path_mtu(self) -> int | None:
        """What is left of it for IP packets without the relay's header."""
        mtu = super().path_mtu
        return None if mtu is None else mtu - len(self._header)

    async def receive(self) -> Burst:
        """1 to 64 datagrams. Cancel-safe. Raises OSError also when the proxy ended the relaying."""
        while True:
            await self._wait()
            burst = []
            for datagram in self._drain():
                try:
                    burst.append(strip_header_untrusted(datagram))
                except ProtocolError as exc:
                    self.drops[exc.reason] += 1
            if burst:
                self.packets_in += len(burst)
                self.bursts_in += 1
                self.bytes_in += sum(map(len, burst))
                return burst

    async def _wait(self) -> None:
        """Until the socket has something to read. Raises OSError, trio.ClosedResourceError."""
        closed: trio.ClosedResourceError | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch, nursery.cancel_scope)
            try:
                await trio.lowlevel.wait_readable(self._sock)
            except trio.ClosedResourceError as exc:
                closed = exc
            nursery.cancel_scope.cancel()
        if closed is not None:
            raise closed
        if self._ended:
            raise OSError(errno.ECONNRESET, "the SOCKS proxy ended the relaying")

    async def _watch(self, scope: trio.CancelScope) -> None:
        """Cancel ``scope`` when the connection to the proxy ends; it has nothing more to say on it."""
        try:
            while await _receive(self._control, PIECE):
                pass
        except (OSError, trio.ClosedResourceError):
            pass
        self._ended = True
        scope.cancel()

    def send_some(self, burst: Burst) -> int:
        """Send what the kernel takes at once; how many datagrams that was."""
        header = self._header
        return super().send_some([header + datagram for datagram in burst])

    def send_nowait(self, burst: Burst) -> None:
        """Send what the kernel takes at once."""
        header = self._header
        super().send_nowait([header + datagram for datagram in burst])

    async def aclose(self) -> None:
        """Close both, waking whoever waits. Idempotent, checkpoints."""
        if self._control.fileno() >= 0:
            trio.lowlevel.notify_closing(self._control)
            self._control.close()
        await super().aclose()
