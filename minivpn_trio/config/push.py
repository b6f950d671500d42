"""The profile and the push, merged into the tunnel that both describe.

The server decides addresses, routes, names and timers within bounds. What it
may not decide: who we trust, what we run, and a cipher that we did not offer.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv4Interface, IPv6Address
from typing import TypeVar

from ..errors import ConnectError, Stage
from .model import AEAD_CIPHERS, SMALL_BLOCK_CIPHERS, SMALL_BLOCK_RENEG_BYTES, TunnelConfig
from .mss import Encapsulation, follows_path, fragment_limit, mss_limits
from .pull_filter import filter_push
from .push_update import Updated, apply_update
from .pushed import PushAssembler, PushedOptions, parse_parameters, parse_push
from .tunnel_info import Route, TunnelInfo

__all__ = [
    "NegotiatedTunnel",
    "PushAssembler",
    "PushedOptions",
    "Updated",
    "apply_update",
    "choose_cipher",
    "filter_push",
    "merge",
    "negotiate",
    "parse_push",
]

_T = TypeVar("_T")

#: A packet may be this many times the MTU once it is decompressed; more is a bomb. The server's MTU may be
#: larger than ours.
MAX_INFLATION = 10
#: Smallest MTU of a link with IPv6 (RFC 8200, 5).
MIN_MTU_IPV6 = 1280
#: IP knows no longer ones.
MAX_PACKET = 65_535


@dataclass(frozen=True, slots=True, kw_only=True)
class NegotiatedTunnel:
    """Everything that holds once the push is in. Times are seconds, sizes bytes."""

    info: TunnelInfo
    #: OpenVPN's name, upper case.
    cipher: str
    #: Digest for CBC ciphers.
    auth: str
    #: ``prf`` or ``tls-ekm``.
    key_derivation: str
    #: ``none``, ``comp-lzo-no``, ``stub`` or ``stub-v2``.
    compression: str
    peer_id: int | None
    ping: float
    ping_restart: float
    ping_exit: float
    inactive: float
    inactive_bytes: int
    session_timeout: float
    reneg_sec: float
    explicit_exit_notify: int
    #: Largest datagram payload; None: no fragment header.
    fragment: int | None
    #: A new key after this many bytes; 0: no such limit.
    reneg_bytes: int = 0
    #: Largest packet to decompress; 0: none is.
    decompress: int = 0
    protocol_flags: frozenset[str] = frozenset()
    auth_token: str | None = field(default=None, repr=False)
    auth_token_user: str | None = field(default=None, repr=False)
    #: What surrounds the packets, so that they can be made to fit the path; None: they are not to be.
    encapsulation: Encapsulation | None = None
    #: What the user should hear of: nonsense in the push, refused options.
    warnings: tuple[str, ...] = ()

    @property
    def cc_exit(self) -> bool:
        """Leaving is announced on the control channel (``EXIT``)."""
        return "cc-exit" in self.protocol_flags

    @property
    def dynamic_tls_crypt(self) -> bool:
        """Control packets of later keys are wrapped with a key of this session."""
        return "dyn-tls-crypt" in self.protocol_flags

    @property
    def epoch(self) -> bool:
        """AEAD packets are in the epoch format."""
        return "aead-epoch" in self.protocol_flags


def choose_cipher(config: TunnelConfig, pushed: PushedOptions, occ_cipher: str | None) -> str:
    """The data channel's cipher (reference: ssl_ncp.c, check_pull_client_ncp).

    A pushed one must be among those that we offered. Without one, the cipher
    of the server's options string counts if we offered it; an old server that
    names none gets ``data-ciphers-fallback``. Raises ConnectError.
    """
    offered = ":".join(config.data_ciphers)
    if pushed.cipher is not None:
        if pushed.cipher in config.data_ciphers:
            return pushed.cipher
        raise ConnectError(
            f"the server chose cipher {_shown(pushed.cipher)}, which was not offered ({offered})",
            stage=Stage.PUSH,
            remedy="add it to data-ciphers if it is a supported one",
        )
    fallback = config.data_ciphers_fallback
    if occ_cipher is not None:
        name = occ_cipher.upper()
        if name in config.data_ciphers or name == fallback:
            return name
        raise ConnectError(
            f"the server negotiates no cipher and uses {_shown(name)}, which was not offered ({offered})",
            stage=Stage.PUSH,
            remedy="add it to data-ciphers if it is a supported one",
        )
    if fallback is not None:
        return fallback
    raise ConnectError(
        "the server names no cipher, neither pushed nor in its options string",
        stage=Stage.PUSH,
        remedy="set data-ciphers-fallback to the cipher that the server uses",
    )


def merge(config: TunnelConfig, pushed: PushedOptions) -> PushedOptions:
    """The profile's own options of the push grammar, overridden or extended by the push.

    Single values: the push wins. Lists: the profile's come first. With
    ``route-nopull`` the server's routes and DNS settings do not count.
    """
    local = parse_parameters(config.local_options)
    if config.route_nopull:
        pushed = replace(
            pushed,
            routes=(),
            routes_ipv6=(),
            route_table=(),
            redirect_gateway=(),
            redirect_private=(),
            block_flags=(),
            dns=(),
            dns_servers=(),
            dhcp_dns=(),
            search_domains=(),
        )
    pushed_address = pushed.ifconfig if pushed.ifconfig is not None else local.ifconfig
    has_ipv6 = pushed.ifconfig_ipv6 is not None
    return replace(
        pushed,
        ifconfig=pushed_address,
        ifconfig_ipv6=pushed.ifconfig_ipv6 if has_ipv6 else local.ifconfig_ipv6,
        ifconfig_ipv6_remote=pushed.ifconfig_ipv6_remote if has_ipv6 else local.ifconfig_ipv6_remote,
        topology=pushed.topology or local.topology,
        route_gateway=pushed.route_gateway or local.route_gateway,
        route_ipv6_gateway=pushed.route_ipv6_gateway or local.route_ipv6_gateway,
        routes=_joined(local.routes, pushed.routes),
        routes_ipv6=_joined(local.routes_ipv6, pushed.routes_ipv6),
        route_table=_joined(local.route_table, pushed.route_table),
        route_metric=pushed.route_metric if pushed.route_metric is not None else local.route_metric,
        redirect_gateway=_joined(local.redirect_gateway, pushed.redirect_gateway),
        redirect_private=_joined(local.redirect_private, pushed.redirect_private),
        dns_servers=_joined(local.dns_servers, pushed.dns_servers),
        block_flags=_joined(local.block_flags, pushed.block_flags),
        dns=_joined(local.dns, pushed.dns),
        dhcp_dns=_joined(local.dhcp_dns, pushed.dhcp_dns),
        search_domains=_joined(local.search_domains, pushed.search_domains),
    )


def negotiate(
    config: TunnelConfig,
    pushed: PushedOptions,
    *,
    transport: str,
    remote_address: str | None,
    occ_cipher: str | None,
    tls_version: str,
) -> NegotiatedTunnel:
    """All that the profile and the push together say.

    ``transport`` is ``udp`` or ``tcp``; ``remote_address`` the server's numeric address, with or
    without its port; ``occ_cipher`` the ``cipher`` of the server's options string, if it names
    one. Raises ConnectError (stage PUSH) where no tunnel can come of it.
    """
    if config.pull_filters:
        pushed = parse_push(filter_push(config, pushed.raw))
    merged = merge(config, pushed)
    warnings = list(merged.warnings)

    cipher = choose_cipher(config, merged, occ_cipher)
    epoch = "aead-epoch" in merged.protocol_flags
    if epoch and (cipher not in AEAD_CIPHERS or merged.peer_id is None):
        # Leaving it out is no way: the server will send nothing else (reference: init.c, do_deferred_options).
        raise ConnectError(
            "the server wants data packets in epochs without an AEAD cipher or without a peer id", stage=Stage.PUSH
        )
    reneg_bytes = config.reneg_bytes
    if reneg_bytes is None:
        reneg_bytes = SMALL_BLOCK_RENEG_BYTES if cipher in SMALL_BLOCK_CIPHERS else 0
    if cipher in SMALL_BLOCK_CIPHERS:
        warnings.append(f"{cipher} has blocks of 64 bits: what it encrypts does not stay secret for long")
    ekm = merged.key_derivation == "tls-ekm" or "tls-ekm" in merged.protocol_flags
    compression = merged.compression if merged.compression is not None else config.compression
    if merged.compresses and not config.receive_compressed:
        warnings.append("the server pushed a compression: packets that it really compresses will be dropped")
    mtu = merged.tun_mtu if merged.tun_mtu is not None else config.tun_mtu
    if mtu < MIN_MTU_IPV6 and merged.ifconfig_ipv6 is not None:
        if merged.ifconfig is not None:
            # As a system does with an interface of such an MTU (RFC 8200, 5).
            warnings.append(f"an MTU below {MIN_MTU_IPV6} is too small for IPv6: the tunnel has no IPv6 address")
            merged = replace(merged, ifconfig_ipv6=None, ifconfig_ipv6_remote=None)
        else:
            warnings.append(f"an MTU below {MIN_MTU_IPV6} is too small for IPv6: {MIN_MTU_IPV6} is taken")
            mtu = MIN_MTU_IPV6
    around = Encapsulation(
        cipher=cipher,
        auth=config.auth,
        transport="udp" if transport.startswith("udp") else "tcp",
        outer_ipv6=remote_address is not None and remote_address.count(":") > 1,
        has_peer_id=merged.peer_id is not None,
        compression=compression,
        has_fragment=config.fragment is not None,
        epoch=epoch,
    )
    counted = config
    form = merged.mssfix_form
    if form is not None:
        counted = replace(config, mssfix=merged.mssfix, mssfix_mtu=form == "mtu", mssfix_fixed=form == "fixed")
    mss_ipv4, mss_ipv6 = mss_limits(counted, around, tun_mtu=mtu)
    topology, ipv4, gateway = _ipv4_ends(merged, warnings)
    if ipv4 is None and merged.ifconfig_ipv6 is None:
        warnings.append("the server gave this end of the tunnel no address")
    ping_restart, ping_exit = _peer_silence(config, merged)
    exit_notify = config.explicit_exit_notify
    if merged.explicit_exit_notify is not None:
        exit_notify = merged.explicit_exit_notify
    if around.transport == "tcp":
        exit_notify = 0  # the end of the stream says it
    ping = merged.ping if merged.ping is not None else config.ping

    info = TunnelInfo(
        ipv4=ipv4,
        ipv6=merged.ifconfig_ipv6,
        gateway=gateway,
        gateway_ipv6=_gateway_ipv6(merged),
        topology=topology,
        mtu=mtu,
        mss_ipv4=mss_ipv4,
        mss_ipv6=mss_ipv6,
        dns=merged.dns,
        search_domains=merged.search_domains,
        routes=merged.routes,
        routes_ipv6=merged.routes_ipv6,
        dns_servers=merged.dns_servers,
        dhcp_dns=merged.dhcp_dns,
        route_table=_with_metric(merged),
        redirect_gateway=merged.redirect_gateway,
        redirect_private=merged.redirect_private,
        block_flags=merged.block_flags,
        peer_id=merged.peer_id,
        cipher=cipher,
        auth=config.auth,
        key_derivation="tls-ekm" if ekm else "prf",
        compression=compression,
        ping=ping,
        ping_restart=ping_restart,
        transport=around.transport,
        remote_address=remote_address,
        tls_version=tls_version,
        ignored_options=merged.ignored,
    )
    return NegotiatedTunnel(
        info=info,
        cipher=cipher,
        auth=config.auth,
        key_derivation=info.key_derivation,
        compression=compression,
        peer_id=merged.peer_id,
        ping=ping,
        ping_restart=ping_restart,
        ping_exit=ping_exit,
        inactive=merged.inactive if merged.inactive is not None else config.inactive,
        inactive_bytes=merged.inactive_bytes if merged.inactive is not None else config.inactive_bytes,
        session_timeout=merged.session_timeout if merged.session_timeout is not None else config.session_timeout,
        reneg_sec=merged.reneg_sec if merged.reneg_sec is not None else config.reneg_sec,
        explicit_exit_notify=exit_notify,
        fragment=fragment_limit(config, around),
        reneg_bytes=reneg_bytes,
        decompress=min(mtu * MAX_INFLATION, MAX_PACKET) if config.receive_compressed else 0,
        protocol_flags=merged.protocol_flags,
        auth_token=merged.auth_token,
        auth_token_user=merged.auth_token_user,
        encapsulation=around if follows_path(counted) else None,
        warnings=tuple(warnings),
    )


def _ipv4_ends(options: PushedOptions, warnings: list[str]) -> tuple[str, IPv4Interface | None, IPv4Address | None]:
    """Topology, our IPv4 address with its prefix, and the gateway."""
    # openvpn 2.6 takes an unnamed topology for net30.
    topology = options.topology or "net30"
    if options.ifconfig is None:
        return topology, None, options.route_gateway
    local, second = options.ifconfig
    looks_like_mask = int(second) >= 0xFF000000
    if topology != "subnet" and looks_like_mask:
        warnings.append(f"topology {topology} came with a netmask; subnet is assumed")
        topology = "subnet"
    if topology != "subnet":
        return topology, IPv4Interface((local, 32)), options.route_gateway or second
    try:
        return topology, IPv4Interface(f"{local}/{second}"), options.route_gateway
    except ValueError:
        warnings.append("topology subnet came with something that is no netmask; a single address is assumed")
        return topology, IPv4Interface((local, 32)), options.route_gateway or second


def _with_metric(options: PushedOptions) -> tuple[Route, ...]:
    """The routes; those without a metric of their own get that of route-metric."""
    metric = options.route_metric
    return tuple(route if route.metric is not None else replace(route, metric=metric) for route in options.route_table)


def _gateway_ipv6(options: PushedOptions) -> IPv6Address | None:
    gateway = options.route_ipv6_gateway or options.ifconfig_ipv6_remote
    return None if gateway is None or gateway.is_unspecified else gateway


def _peer_silence(config: TunnelConfig, options: PushedOptions) -> tuple[float, float]:
    """ping-restart and ping-exit: each replaces the other (reference: options.c), a push both."""
    if options.ping_restart is None and options.ping_exit is None:
        return config.ping_restart, config.ping_exit
    return options.ping_restart or 0.0, options.ping_exit or 0.0


def _joined(first: tuple[_T, ...], second: tuple[_T, ...]) -> tuple[_T, ...]:
    return tuple(dict.fromkeys((*first, *second)))


def _shown(name: str) -> str:
    """A cipher's name from the network, fit for an error text."""
    return name if name.isascii() and name.replace("-", "").isalnum() and len(name) <= 32 else "of another kind"
