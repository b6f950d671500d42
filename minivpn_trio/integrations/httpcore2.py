"""httpcore2 and httpx2 over a tunnel.

``TunnelBackend`` and ``TunnelTransport`` are what ``integrations.httpcore`` has for httpcore and httpx:

    async with httpx2.AsyncClient(transport=TunnelTransport(dialer)) as client:
        response = await client.get("https://intranet.example/")
"""

from __future__ import annotations

import ssl
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import httpcore2
import httpx2

from .causes import root_cause

if TYPE_CHECKING:
    from ..dialer import TunDialer

__all__ = ["TunnelBackend", "TunnelTransport"]


class TunnelBackend(httpcore2.TrioBackend):
    """httpcore2's way to connect, through ``dialer``."""

    def __init__(self, dialer: TunDialer) -> None:
        self._dialer = dialer

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        """A TCP connection inside the tunnel. Raises httpcore2.ConnectError, httpcore2.ConnectTimeout."""
        with self._dialer.as_trio_sockets():
            try:
                return await super().connect_tcp(host, port, timeout, local_address, socket_options)
            except httpcore2.ConnectError as exc:
                raise httpcore2.ConnectError(root_cause(exc)) from exc

    async def connect_unix_socket(self, *args: Any, **kwargs: Any) -> httpcore2.AsyncNetworkStream:
        """There are no Unix sockets in a tunnel: raises httpcore2.UnsupportedProtocol."""
        raise httpcore2.UnsupportedProtocol("a tunnel has no Unix sockets")


class TunnelTransport(httpx2.AsyncHTTPTransport):
    """httpx2's transport through ``dialer``.

    Keyword arguments are ``httpx2.AsyncHTTPTransport``'s (``http2``, ``limits``, ``retries``, ``proxy`` ...).
    Certificates are checked against ``ssl_context``, by default Python's.
    """

    def __init__(self, dialer: TunDialer, *, ssl_context: ssl.SSLContext | None = None, **options: Any) -> None:
        options.setdefault("verify", ssl_context or ssl.create_default_context())
        super().__init__(**options)
        self._dialer = dialer

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send one request. Raises httpx2's own exceptions."""
        with self._dialer.as_trio_sockets():
            try:
                return await super().handle_async_request(request)
            except httpx2.ConnectError as exc:
                raise httpx2.ConnectError(root_cause(exc), request=request) from exc
