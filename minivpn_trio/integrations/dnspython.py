"""dnspython over a tunnel.

``TunnelBackend`` is what dnspython's async functions take as ``backend``, for
UDP, TCP and TLS:

    answer = await dns.asyncresolver.resolve("web.internal", "A", backend=TunnelBackend(dialer))

``TunnelResolver`` is a resolver that asks the servers which the tunnel's server
pushed, each for its own domains, and over TLS if that was said; DNS over HTTPS,
which has no such hook, goes through the tunnel too:

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
import dns.message
import dns.name
import dns.nameserver
import dns.resolver

from ..netstack.name_servers import NameServers

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
        self._servers = NameServers(info)
        if info.dns_servers:
            self.nameservers = [_Pushed(self._servers, rank) for rank in range(self._servers.most)]
        else:
            self.nameservers = [str(address) for address in info.dns]
        self.search: list[dns.name.Name] = [dns.name.from_text(domain) for domain in info.search_domains]
        self.use_search_by_default = True

    async def resolve(self, qname: dns.name.Name | str, *args: Any, **kwargs: Any) -> dns.resolver.Answer:
        """As ``dns.asyncresolver.Resolver.resolve``. A name of a pushed ``resolve-domains`` is not searched for."""
        name = dns.name.from_text(qname, None) if isinstance(qname, str) else qname
        if not name.is_absolute() and self._servers.has_own(name.labels):
            name = name.concatenate(dns.name.root)
        with self._dialer.as_trio_sockets():
            return await super().resolve(name, *args, **kwargs)


class _Pushed(dns.nameserver.Nameserver):
    """Of the servers that are to be asked for a name, the one in this place."""

    def __init__(self, servers: NameServers, rank: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._servers = servers
        self._rank = rank

    def __str__(self) -> str:
        return f"server {self._rank + 1} that was pushed"

    def kind(self) -> str:
        return "pushed"

    def is_always_max_size(self) -> bool:
        return False

    def answer_nameserver(self) -> str:
        return str(self)

    def answer_port(self) -> int:
        return 0

    async def async_query(
        self,
        request: dns.message.QueryMessage,
        timeout: float,  # noqa: ASYNC109 - the signature is dnspython's
        source: str | None,
        source_port: int,
        max_size: bool,
        backend: dns.asyncbackend.Backend,  # type: ignore[name-defined]
        one_rr_per_rrset: bool = False,
        ignore_trailing: bool = False,
    ) -> dns.message.Message:
        servers = self._servers.for_name(request.question[0].name.labels[:-1])
        if self._rank >= len(servers):
            # What dnspython takes for a server that it need not ask again.
            raise OSError("no more servers were pushed for this name")
        server = servers[self._rank]
        chosen = (
            dns.nameserver.Do53Nameserver(server.address, server.port)
            if server.tls_name is None
            else dns.nameserver.DoTNameserver(server.address, server.port, server.tls_name)
        )
        return await chosen.async_query(
            request, timeout, source, source_port, max_size, backend, one_rr_per_rrset, ignore_trailing
        )
