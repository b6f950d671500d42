"""httpcore and httpx over a tunnel.

``TunnelBackend`` is httpcore's network backend, for anything built on a
connection pool; ``TunnelTransport`` is the transport that ``httpx.AsyncClient``
takes:

    async with httpx.AsyncClient(transport=TunnelTransport(dialer)) as client:
        response = await client.get("https://intranet.example/")

Both are the libraries' own, run where Trio's sockets are the tunnel's, so
HTTP/2, pools, retries and proxies are theirs too. Names are resolved inside the
tunnel. For httpx2 and httpcore2 see ``integrations.httpcore2``.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import httpcore
import httpx

from .causes import root_cause

if TYPE_CHECKING:
    from ..dialer import TunDialer

__all__ = ["TunnelBackend", "TunnelTransport"]


class TunnelBackend(httpcore.TrioBackend):
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
        """A TCP connection inside the tunnel. Raises httpcore.ConnectError, httpcore.ConnectTimeout."""
        with self._dialer.as_trio_sockets():
            try:
                return await super().connect_tcp(host, port, timeout, local_address, socket_options)
            except httpcore.ConnectError as exc:
                raise httpcore.ConnectError(root_cause(exc)) from exc

    async def connect_unix_socket(self, *args: Any, **kwargs: Any) -> httpcore.AsyncNetworkStream:
        """There are no Unix sockets in a tunnel: raises httpcore.UnsupportedProtocol."""
        raise httpcore.UnsupportedProtocol("a tunnel has no Unix sockets")


class TunnelTransport(httpx.AsyncHTTPTransport):
    """httpx's transport through ``dialer``.

    Keyword arguments are ``httpx.AsyncHTTPTransport``'s (``http2``, ``limits``, ``retries``, ``proxy`` ...).
    Certificates are checked against ``ssl_context``, by default Python's.
    """

    def __init__(self, dialer: TunDialer, *, ssl_context: ssl.SSLContext | None = None, **options: Any) -> None:
        options.setdefault("verify", ssl_context or ssl.create_default_context())
        super().__init__(**options)
        self._dialer = dialer

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send one request. Raises httpx's own exceptions."""
        with self._dialer.as_trio_sockets():
            try:
                return await super().handle_async_request(request)
            except httpx.ConnectError as exc:
                raise httpx.ConnectError(root_cause(exc), request=request) from exc
