"""TunnelInfo: what the server gave us, as data."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
)

__all__ = ["DNSServer", "Route", "TunnelInfo"]


@dataclass(frozen=True, slots=True)
class Route:
    """A network that is to be reached through the tunnel.

    ``gateway`` None: the tunnel's own (``TunnelInfo.gateway``, ``gateway_ipv6``). ``metric`` None: not said.
    """

    network: IPv4Network | IPv6Network
    gateway: IPv4Address | IPv6Address | None = None
    metric: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DNSServer:
    """A server of the ``dns`` syntax, as it was pushed. ``priority``: lower ones are asked first.

    The resolver of the tunnel goes by addresses, ports, domains, ``plain`` and ``DoT``. It asks no server by ``DoH``,
    and leaves ``dnssec`` to the servers.
    """

    priority: int
    #: With the port, None where none was said.
    addresses: tuple[tuple[IPv4Address | IPv6Address, int | None], ...]
    #: It is asked for names in these domains, and nobody else is; empty: for what belongs to no other server.
    resolve_domains: tuple[str, ...] = ()
    #: ``yes``, ``optional``, ``no``, or None: not said.
    dnssec: str | None = None
    #: ``plain``, ``DoT`` or ``DoH``.
    transport: str = "plain"
    #: The name in its certificate; None: it holds the address.
    sni: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TunnelInfo:
    """The tunnel as PUSH_REPLY (and the profile) described it.

    ``ipv4`` and ``ipv6`` are our addresses inside the tunnel with their prefix
    lengths (/32 in a point-to-point topology); ``gateway`` is where pushed
    routes point and what answers a ping by default.
    """

    ipv4: IPv4Interface | None = None
    ipv6: IPv6Interface | None = None
    gateway: IPv4Address | None = None
    gateway_ipv6: IPv6Address | None = None
    #: ``subnet``, ``net30`` or ``p2p``.
    topology: str = "subnet"
    #: MTU of the tunnel's IP packets, bytes.
    mtu: int = 1500
    #: Largest TCP payload that keeps the outer datagram whole (mssfix), before IP/TCP options;
    #: None: only the MTU limits.
    mss_ipv4: int | None = None
    mss_ipv6: int | None = None
    #: Of both syntaxes, ``dns`` and ``dhcp-option``, the one to ask first first. Some may be meant for some names only,
    #: or speak only over TLS: ``dns_servers`` says so.
    dns: tuple[IPv4Address | IPv6Address, ...] = ()
    #: Those of the ``dns`` syntax with all that was said of them, by priority.
    dns_servers: tuple[DNSServer, ...] = ()
    #: Those of ``dhcp-option`` alone, which are plain ones for all names.
    dhcp_dns: tuple[IPv4Address | IPv6Address, ...] = ()
    search_domains: tuple[str, ...] = ()
    routes: tuple[IPv4Network, ...] = ()
    routes_ipv6: tuple[IPv6Network, ...] = ()
    #: The same routes with their gateways and metrics.
    route_table: tuple[Route, ...] = ()
    #: Flags of redirect-gateway; a bare one is ``("",)`` so that it can be told from none.
    redirect_gateway: tuple[str, ...] = ()
    redirect_private: tuple[str, ...] = ()
    #: ``block-ipv6``, ``block-ipv4``, ``block-outside-dns``.
    block_flags: tuple[str, ...] = ()
    peer_id: int | None = None
    cipher: str = ""
    auth: str = ""
    #: ``prf`` or ``tls-ekm``.
    key_derivation: str = "prf"
    compression: str = "none"
    #: Seconds; 0: off.
    ping: float = 0.0
    ping_restart: float = 0.0
    #: ``udp`` or ``tcp`` and the server's numeric address and port, as dialled.
    transport: str = ""
    remote_address: str | None = None
    tls_version: str = ""
    #: Options of the push that this client does not know or does not use, without values.
    ignored_options: tuple[str, ...] = ()
