"""Which of the pushed DNS servers is asked for a name.

``dns server N resolve-domains`` gives some names to some servers alone (split DNS): a name belongs to the longest
domain that it ends in, and is asked of nobody else, whether they answer or not, so that names of the inside are not
told to others, neither as they are nor with a search domain behind them. What belongs to no domain is for the servers
that have none, those of ``dhcp-option DNS`` among them.
DNS over HTTPS is not spoken: such a server is left out, but its domains stay its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ..config.tunnel_info import DNSServer, TunnelInfo

__all__ = ["DNS_PORT", "DOT_PORT", "NameServer", "NameServers"]

DNS_PORT = 53
#: RFC 7858, 3.1.
DOT_PORT = 853

#: Of a domain or a name, lower case, from the left.
Labels = tuple[bytes, ...]


class NameServer(NamedTuple):
    """One endpoint: over UDP and TCP, or over TLS with ``tls_name`` in its certificate."""

    address: str
    port: int = DNS_PORT
    tls_name: str | None = None

    def __str__(self) -> str:
        return f"{self.address} port {self.port}"


class NameServers:
    """The servers of one push."""

    def __init__(self, info: TunnelInfo) -> None:
        groups: dict[Labels, list[NameServer]] = {(): []}
        for server in info.dns_servers:
            for domain in server.resolve_domains or ("",):
                group = groups.setdefault(_labels(domain), [])
                group += [each for each in endpoints(server) if each not in group]
        general = [NameServer(str(address)) for address in (info.dhcp_dns if info.dns_servers else info.dns)]
        groups[()] += [each for each in general if each not in groups[()]]
        self._groups = {domain: tuple(servers) for domain, servers in groups.items()}

    def for_name(self, labels: Sequence[bytes]) -> tuple[NameServer, ...]:
        """Whom to ask for the name of these labels (without the root's empty one), the best first."""
        return self._groups[self._domain(labels)]

    def has_own(self, labels: Sequence[bytes]) -> bool:
        """Whether the name belongs to some servers alone. Then no other name may be made of it: that might belong to
        others, who would learn it."""
        return bool(self._domain(labels))

    def _domain(self, labels: Sequence[bytes]) -> Labels:
        """The longest domain that the name belongs to; empty: none."""
        name = tuple(label.lower() for label in labels)
        for start in range(len(name)):
            if name[start:] in self._groups:
                return name[start:]
        return ()

    @property
    def most(self) -> int:
        """Of how many servers the largest group is."""
        return max(map(len, self._groups.values()))


def endpoints(server: DNSServer) -> list[NameServer]:
    """``server``'s addresses, as far as we speak its language."""
    if server.transport == "DoH":
        return []
    if server.transport == "DoT":
        return [
            NameServer(str(address), port or DOT_PORT, server.sni or str(address))
            for address, port in server.addresses
        ]
    return [NameServer(str(address), port or DNS_PORT) for address, port in server.addresses]


def _labels(domain: str) -> Labels:
    return tuple(domain.lower().encode().split(b".")) if domain else ()
