"""dnspython over a tunnel.

``TunnelBackend`` is what dnspython's async functions take as ``backend``, for
UDP, TCP and TLS:

    answer = await dns.asyncresolver.resolve("web.internal", "A", backend=TunnelBackend(dialer))

``TunnelResolver`` is a resolver that asks the servers which the tunnel's server
pushed; DNS over HTTPS, which has no such hook, goes through the tunnel too:

    resolver = TunnelResolver(dialer)
    resolver.nameservers = ["https://10.8.0.1/dns-query"]
    answer = await resolver.resolve("web.internal", "AAAA")

A name in such an address is itself looked up by dnspython through what the machine's resolv.conf says (but inside
the tunnel): give an address, or a ``dns.nameserver.DoHNameserver`` with ``bootstrap_address``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import dns.asyncbackend
import dns.asyncresolver
import dns.name
import dns.resolver

if TYPE_CHECKING:
    from ..dialer import TunDialer

__all__ = ["TunnelBackend", "TunnelResolver"]


class TunnelBackend(dns.asyncbackend.Backend):  # type: ignore[name-defined, misc]
    """dnspython's Trio backend, where Trio's sockets are the tunnel's."""

    def __init__(self, dialer: TunDialer) -> None:
        self._dialer = dialer
        self._trio: Any = dns.asyncbackend.get_backend("trio")

    def name(self) -> str:
        """``trio``: what runs the coroutines."""
        return str(self._trio.name())

    async def make_socket(self, *args: Any, **kwargs: Any) -> Any:
        """A datagram or stream socket of dnspython's. Raises OSError, dns.exception.Timeout."""
        with self._dialer.as_trio_sockets():
            return await self._trio.make_socket(*args, **kwargs)

    def datagram_connection_required(self) -> bool:
        """Whether datagram sockets need a destination to begin with."""
        return bool(self._trio.datagram_connection_required())

    async def sleep(self, interval: float) -> None:
        """Wait, in seconds."""
        await self._trio.sleep(interval)

    async def wait_for(self, awaitable: Any, timeout: float | None) -> Any:  # noqa: ASYNC109
        """``awaitable``'s result. Raises dns.exception.Timeout after ``timeout`` seconds."""
        return await self._trio.wait_for(awaitable, timeout)

    def get_transport_class(self) -> Any:
        """Trio's. dnspython asks its default backend for this, never us."""
        return self._trio.get_transport_class()


class TunnelResolver(dns.asyncresolver.Resolver):
    """dnspython's resolver, with the servers and search domains that were pushed, asking inside the tunnel."""

    def __init__(self, dialer: TunDialer) -> None:
        super().__init__(configure=False)
        info = dialer.tunnel_info
        self._dialer = dialer
        self.nameservers = [str(address) for address in info.dns]
        self.search: list[dns.name.Name] = [dns.name.from_text(domain) for domain in info.search_domains]
        self.use_search_by_default = True

    async def resolve(self, *args: Any, **kwargs: Any) -> dns.resolver.Answer:
        """As ``dns.asyncresolver.Resolver.resolve``."""
        with self._dialer.as_trio_sockets():
            return await super().resolve(*args, **kwargs)
