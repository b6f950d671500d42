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

__all__ = ["TunnelInfo"]


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
    dns: tuple[IPv4Address | IPv6Address, ...] = ()
    search_domains: tuple[str, ...] = ()
    routes: tuple[IPv4Network, ...] = ()
    routes_ipv6: tuple[IPv6Network, ...] = ()
    redirect_gateway: tuple[str, ...] = ()
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
