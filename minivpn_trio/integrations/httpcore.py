"""httpcore and httpx over a tunnel.

``TunnelBackend`` is httpcore's network backend, for anything built on a
connection pool; ``TunnelTransport`` is the transport that ``httpx.AsyncClient``
takes:

    async with httpx.AsyncClient(transport=TunnelTransport(dialer)) as client:
        response = await client.get("https://intranet.example/")

Names are resolved inside the tunnel.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Iterable
from typing import TYPE_CHECKING, Any

import httpcore
import httpx
import trio

if TYPE_CHECKING:
    from ..dialer import TunDialer

__all__ = ["TunnelBackend", "TunnelTransport"]

#: httpcore's exception for each of httpx's that means the same; the rest go out as NetworkError.
_ERRORS: tuple[tuple[type[Exception], type[httpx.TransportError]], ...] = (
    (httpcore.ConnectTimeout, httpx.ConnectTimeout),
    (httpcore.ReadTimeout, httpx.ReadTimeout),
    (httpcore.WriteTimeout, httpx.WriteTimeout),
    (httpcore.PoolTimeout, httpx.PoolTimeout),
    (httpcore.ConnectError, httpx.ConnectError),
    (httpcore.ReadError, httpx.ReadError),
    (httpcore.WriteError, httpx.WriteError),
    (httpcore.RemoteProtocolError, httpx.RemoteProtocolError),
    (httpcore.LocalProtocolError, httpx.LocalProtocolError),
    (httpcore.UnsupportedProtocol, httpx.UnsupportedProtocol),
    (httpcore.NetworkError, httpx.NetworkError),
    (httpcore.TimeoutException, httpx.ReadTimeout),
)


class _TunnelStream(httpcore.AsyncNetworkStream):
    """A trio stream as httpcore wants to see it."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109
        with _translated(httpcore.ReadError):
            with trio.move_on_after(_forever(timeout)):
                return bytes(await self._stream.receive_some(max_bytes))
            raise httpcore.ReadTimeout(f"nothing to read for {timeout} s")

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109
        with _translated(httpcore.WriteError):
            with trio.move_on_after(_forever(timeout)) as scope:
                await self._stream.send_all(buffer)
            if scope.cancelled_caught:
                raise httpcore.WriteTimeout(f"no room to write for {timeout} s")

    async def aclose(self) -> None:
        await self._stream.aclose()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109
    ) -> httpcore.AsyncNetworkStream:
        stream = trio.SSLStream(self._stream, ssl_context, server_hostname=server_hostname, https_compatible=True)
        with _translated(httpcore.ConnectError):
            with trio.move_on_after(_forever(timeout)):
                await stream.do_handshake()
                return _TunnelStream(stream)
            await trio.aclose_forcefully(stream)
            raise httpcore.ConnectTimeout(f"no TLS handshake within {timeout} s")

    def get_extra_info(self, info: str) -> Any:
        if info == "ssl_object" and isinstance(self._stream, trio.SSLStream):
            # The members that httpcore asks for (selected_alpn_protocol) are SSLStream's own.
            return self._stream
        return None


class TunnelBackend(httpcore.AsyncNetworkBackend):
    """httpcore's way to connect, through ``dialer``."""

    def __init__(self, dialer: TunDialer) -> None:
        self._dialer = dialer

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """A TCP connection inside the tunnel. ``local_address`` and ``socket_options`` mean nothing there."""
        with _translated(httpcore.ConnectError):
            with trio.move_on_after(_forever(timeout)):
                return _TunnelStream(await self._dialer.open_tcp_stream(host, port))
            raise httpcore.ConnectTimeout(f"no connection to {host} port {port} within {timeout} s")

    async def connect_unix_socket(self, *args: Any, **kwargs: Any) -> httpcore.AsyncNetworkStream:
        """There are no Unix sockets in a tunnel: raises httpcore.UnsupportedProtocol."""
        await trio.lowlevel.checkpoint()
        raise httpcore.UnsupportedProtocol("a tunnel has no Unix sockets")

    async def sleep(self, seconds: float) -> None:
        """Sleep between a pool's attempts."""
        await trio.sleep(seconds)


class TunnelTransport(httpx.AsyncBaseTransport):
    """httpx's transport through ``dialer``. Keyword arguments go to httpcore.AsyncConnectionPool."""

    def __init__(self, dialer: TunDialer, *, ssl_context: ssl.SSLContext | None = None, **pool: Any) -> None:
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=ssl_context or ssl.create_default_context(), network_backend=TunnelBackend(dialer), **pool
        )

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send one request. Raises httpx's own exceptions."""
        assert isinstance(request.stream, httpx.AsyncByteStream)
        url = httpcore.URL(
            scheme=request.url.raw_scheme, host=request.url.raw_host, port=request.url.port, target=request.url.raw_path
        )
        inner = httpcore.Request(
            method=request.method,
            url=url,
            headers=request.headers.raw,
            content=request.stream,
            extensions=request.extensions,
        )
        with _to_httpx(request):
            response = await self._pool.handle_async_request(inner)
        assert isinstance(response.stream, AsyncIterator) or hasattr(response.stream, "__aiter__")
        return httpx.Response(
            status_code=response.status,
            headers=response.headers,
            stream=_ResponseStream(response, request),
            extensions=response.extensions,
        )

    async def aclose(self) -> None:
        """Close every pooled connection."""
        await self._pool.aclose()


class _ResponseStream(httpx.AsyncByteStream):
    """A response's body, with httpx's exceptions."""

    def __init__(self, response: httpcore.Response, request: httpx.Request) -> None:
        self._response = response
        self._request = request

    async def __aiter__(self) -> AsyncIterator[bytes]:
        with _to_httpx(self._request):
            async for chunk in self._response.aiter_stream():
                yield chunk

    async def aclose(self) -> None:
        await self._response.aclose()


def _forever(timeout: float | None) -> float:
    return float("inf") if timeout is None else timeout


class _translated:
    """Trio's and the socket's exceptions as one of httpcore's."""

    def __init__(self, kind: type[Exception]) -> None:
        self._kind = kind

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, traceback: object) -> None:
        if isinstance(exc, OSError | trio.BrokenResourceError | trio.ClosedResourceError):
            raise self._kind(str(exc.__cause__ or exc)) from exc


class _to_httpx:
    """httpcore's exceptions as httpx's."""

    def __init__(self, request: httpx.Request) -> None:
        self._request = request

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, traceback: object) -> None:
        for inner, outer in _ERRORS:
            if isinstance(exc, inner):
                raise outer(str(exc), request=self._request) from exc
