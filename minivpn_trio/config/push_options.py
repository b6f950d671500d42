"""The options of a push, one by one: what each may say, within which bounds.

A handler takes the values of one option and notes them in a ``PushDraft``, or
raises ``Nonsense``. Options that this client has no use for, and those that no
server may decide, are listed at the end.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Interface, IPv6Network

from .framing import framing_of
from .tunnel_info import DNSServer, Route

__all__ = ["HANDLERS", "MAX_ROUTES", "REFUSED", "UNUSED", "Nonsense", "PushDraft"]

#: Routes, IPv4 and IPv6 together.
MAX_ROUTES = 2048
#: DNS servers and search domains, each.
MAX_NAMES = 32
#: No timer that a server pushes may be longer than a day, seconds.
MAX_TIMER = 86400
#: Smallest MTUs of RFC 791 and our announced largest one (IV_MTU).
MIN_MTU, MAX_MTU = 68, 1600
MAX_PEER_ID = 0xFFFFFF
#: Shortest renegotiation interval that a server may ask for, seconds.
MIN_RENEG = 10

_TOPOLOGIES = ("net30", "p2p", "subnet")
_KEYWORD_HOSTS = ("vpn_gateway", "net_gateway", "remote_host", "default")
_PROTOCOL_FLAGS = ("cc-exit", "tls-ekm", "dyn-tls-crypt", "aead-epoch")


class Nonsense(ValueError):
    """An option cannot be used; the text says why, without its value."""


class PushDraft:
    """What has been pushed so far, while the options are gone through."""

    def __init__(self) -> None:
        #: Fields of PushedOptions that hold one value.
        self.values: dict[str, object] = {}
        self.routes: list[IPv4Network] = []
        self.routes_ipv6: list[IPv6Network] = []
        self.route_table: list[Route] = []
        self.redirect: list[str] = []
        self.redirect_private: list[str] = []
        self.block: list[str] = []
        self.dns_servers: dict[int, DNSServer] = {}
        self.dhcp_dns: list[IPv4Address | IPv6Address] = []
        self.domains: list[str] = []
        self.dhcp_domains: list[str] = []
        self.flags: set[str] = set()
        self.ignored: dict[str, None] = {}
        self.warnings: dict[str, None] = {}
        #: Something could not be used.
        self.unusable = False

    def warn(self, text: str) -> None:
        """Note something that the user should hear of, once."""
        self.warnings.setdefault(text)


# -- values ----------------------------------------------------------------------------------


def _only(values: Sequence[str]) -> str:
    if len(values) != 1:
        raise Nonsense("one value is wanted")
    return values[0]


def _number(text: str, low: int, high: int) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 10 and low <= int(text) <= high):
        raise Nonsense(f"a number from {low} to {high} is wanted")
    return int(text)


def _host(text: str) -> IPv4Address | IPv6Address:
    """An address in the spellings of ``dns server``: brackets and a port may come with it."""
    return _host_and_port(text)[0]


def _host_and_port(text: str) -> tuple[IPv4Address | IPv6Address, int | None]:
    if text.startswith("["):
        inside, bracket, port = text[1:].partition("]")
        if not bracket or (port and not port.startswith(":")):
            raise Nonsense("not an address")
        return _ipv6(inside), _port(port[1:]) if port else None
    if text.count(":") > 1:
        return _ipv6(text), None
    host, colon, port = text.partition(":")
    return IPv4Address(host), _port(port) if colon else None


def _fit_for_a_host(address: IPv4Address | IPv6Address) -> bool:
    """Whether somebody in a network can have this address: not this machine, not many, not nobody."""
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    broadcast = address == IPv4Address("255.255.255.255")
    return not (address.is_loopback or address.is_multicast or address.is_unspecified or broadcast)


def _port(text: str) -> int:
    return _number(text, 1, 65535)


def _ipv6(text: str) -> IPv6Address:
    if "%" in text:
        raise Nonsense("a zone has no meaning in a tunnel")
    return IPv6Address(text)


def _domain(text: str) -> str:
    """A name as DNS and TLS can carry it: labels of 1 to 63 octets, 253 with the dots (RFC 1035, 2.3.4). One dot at
    either end means nothing."""
    name = text.removesuffix(".").removeprefix(".").lower()
    labels_ok = all(0 < len(label) <= 63 for label in name.split("."))
    if len(name) > 253 or not labels_ok or not name.isascii() or not all(c.isalnum() or c in "-_." for c in name):
        raise Nonsense("not a domain name")
    return name


def _append(into: list[str], text: str) -> None:
    if len(into) >= MAX_NAMES:
        raise Nonsense("too many of them")
    into.append(_domain(text))


# -- handlers, by option ---------------------------------------------------------------------

_Handler = Callable[[PushDraft, list[str]], None]


def _seconds(key: str, *, low: int = 0) -> _Handler:
    def handle(draft: PushDraft, values: list[str]) -> None:
        draft.values[key] = float(_number(values[0] if values else "", low, MAX_TIMER))

    return handle


def _ifconfig(draft: PushDraft, values: list[str]) -> None:
    if len(values) != 2:
        raise Nonsense("two addresses are wanted")
    local = IPv4Address(values[0])
    if not _fit_for_a_host(local):
        raise Nonsense("no address for a host")
    draft.values["ifconfig"] = (local, IPv4Address(values[1]))


def _ifconfig_ipv6(draft: PushDraft, values: list[str]) -> None:
    if len(values) not in (1, 2):
        raise Nonsense("two addresses are wanted")
    try:
        interface = IPv6Interface(values[0])
        remote = _ipv6(values[1]) if len(values) == 2 else None
    except ValueError:
        raise Nonsense("not an address") from None
    if "%" in values[0]:
        raise Nonsense("a zone has no meaning in a tunnel")
    if not _fit_for_a_host(interface.ip):
        raise Nonsense("no address for a host")
    draft.values["ifconfig_ipv6"] = interface
    draft.values["ifconfig_ipv6_remote"] = remote


def _topology(draft: PushDraft, values: list[str]) -> None:
    topology = _only(values)
    if topology not in _TOPOLOGIES:
        raise Nonsense("net30, p2p or subnet is wanted")
    draft.values["topology"] = topology


def _route_gateway(draft: PushDraft, values: list[str]) -> None:
    gateway = _only(values)
    if gateway == "dhcp":
        raise Nonsense("there is no DHCP in a tun tunnel")
    draft.values["route_gateway"] = IPv4Address(gateway)


def _route_ipv6_gateway(draft: PushDraft, values: list[str]) -> None:
    draft.values["route_ipv6_gateway"] = _ipv6(_only(values))


def _room_for_route(draft: PushDraft) -> None:
    if len(draft.routes) + len(draft.routes_ipv6) >= MAX_ROUTES:
        raise Nonsense("too many of them")


def _route(draft: PushDraft, values: list[str]) -> None:
    _room_for_route(draft)
    if not values:
        raise Nonsense("a network is wanted")
    if values[0] in _KEYWORD_HOSTS or (len(values) > 2 and values[2] == "net_gateway"):
        # A way around the tunnel: there is none for a program inside of it.
        draft.ignored.setdefault("route")
        return
    mask = values[1] if len(values) > 1 and values[1] != "default" else "255.255.255.255"
    network = IPv4Network(f"{IPv4Address(values[0])}/{_prefix(mask)}", strict=False)
    gateway = _gateway(values[2:3])
    route = Route(network, None if gateway is None else IPv4Address(gateway), _metric(values[3:4]))
    draft.routes.append(network)
    draft.route_table.append(route)


def _gateway(values: list[str]) -> str | None:
    return None if not values or values[0] in ("vpn_gateway", "default", "remote_host") else values[0]


def _metric(values: list[str]) -> int | None:
    return None if not values or values[0] == "default" else _number(values[0], 0, 0xFFFFFFFF)


def _route_metric(draft: PushDraft, values: list[str]) -> None:
    draft.values["route_metric"] = _metric([_only(values)])


def _prefix(mask: str) -> int:
    """Prefix length of a netmask; IPv4Network would take host masks too, so it is counted here."""
    bits = f"{int(IPv4Address(mask)):032b}"
    if "01" in bits:
        raise Nonsense("not a netmask")
    return bits.count("1")


def _route_ipv6(draft: PushDraft, values: list[str]) -> None:
    _room_for_route(draft)
    if not values:
        raise Nonsense("a network is wanted")
    if values[1:2] == ["net_gateway"]:
        draft.ignored.setdefault("route-ipv6")
        return
    try:
        network = IPv6Network(values[0], strict=False)
    except ValueError:
        raise Nonsense("not a network") from None
    gateway = _gateway(values[1:2])
    route = Route(network, None if gateway is None else _ipv6(gateway), _metric(values[2:3]))
    draft.routes_ipv6.append(network)
    draft.route_table.append(route)


def _redirect_flags(values: list[str]) -> list[str]:
    known = {"local", "autolocal", "def1", "bypass-dhcp", "bypass-dns", "block-local", "ipv6", "!ipv4"}
    if set(values) - known:
        raise Nonsense("a flag is not known")
    return values or [""]


def _redirect_gateway(draft: PushDraft, values: list[str]) -> None:
    draft.redirect.extend(_redirect_flags(values))


def _redirect_private(draft: PushDraft, values: list[str]) -> None:
    draft.redirect_private.extend(_redirect_flags(values))


def _block(flag: str) -> _Handler:
    def handle(draft: PushDraft, values: list[str]) -> None:
        draft.block.append(flag)

    return handle


def _dhcp_option(draft: PushDraft, values: list[str]) -> None:
    if not values:
        raise Nonsense("a type is wanted")
    kind, *rest = values
    if kind in ("DNS", "DNS6"):
        if len(draft.dhcp_dns) >= MAX_NAMES:
            raise Nonsense("too many of them")
        address = _host(_only(rest))
        if not _fit_for_a_host(address):
            raise Nonsense("no address for a server")
        draft.dhcp_dns.append(address)
    elif kind in ("DOMAIN", "DOMAIN-SEARCH", "ADAPTER_DOMAIN_SUFFIX"):
        for name in rest:
            _append(draft.dhcp_domains, name)
    else:
        draft.ignored.setdefault("dhcp-option")


def _dns(draft: PushDraft, values: list[str]) -> None:
    match values:
        case ["search-domains", _, *_]:
            for name in values[1:]:
                _append(draft.domains, name)
        case ["server", priority, kind, _, *_]:
            _dns_server(draft, priority, kind, values[3:])
        case _:
            raise Nonsense("not a form of dns that is known")


def _dns_server(draft: PushDraft, text: str, kind: str, values: list[str]) -> None:
    """``dns server PRIORITY KIND VALUES`` (reference: dns.c). Pushed priorities are 0 to 127; a profile's may be
    negative, which puts it first."""
    sign, digits = (-1, text[1:]) if text.startswith("-") else (1, text)
    priority = sign * _number(digits, 0, 128)
    server = draft.dns_servers.get(priority, DNSServer(priority=priority, addresses=()))
    if priority not in draft.dns_servers and len(draft.dns_servers) >= MAX_NAMES:
        raise Nonsense("too many of them")
    match kind:
        case "address":
            known = (*server.addresses, *map(_host_and_port, values))
            if not all(_fit_for_a_host(address) for address, _ in known):
                raise Nonsense("no address for a server")
            if len(known) > MAX_NAMES:
                raise Nonsense("too many of them")
            server = replace(server, addresses=known)
        case "resolve-domains":
            # A single dot is the root: all names.
            domains = (*server.resolve_domains, *("" if value == "." else _domain(value) for value in values))
            if len(domains) > MAX_NAMES:
                raise Nonsense("too many of them")
            server = replace(server, resolve_domains=domains)
        case "dnssec":
            server = replace(server, dnssec=_one_of(values, "yes", "optional", "no"))
        case "transport":
            server = replace(server, transport=_one_of(values, "plain", "DoT", "DoH"))
            if server.transport == "DoH":
                draft.warn("a pushed DNS server speaks DNS over HTTPS, which this client does not; it is not asked")
        case "sni":
            server = replace(server, sni=_domain(_only(values)))
        case _:
            raise Nonsense("not a form of dns that is known")
    draft.dns_servers[priority] = server


def _one_of(values: list[str], *words: str) -> str:
    word = _only(values)
    if word not in words:
        raise Nonsense("a word is not known")
    return word


def _tun_mtu(draft: PushDraft, values: list[str]) -> None:
    draft.values["tun_mtu"] = _number(values[0] if values else "", MIN_MTU, MAX_MTU)


def _mssfix(draft: PushDraft, values: list[str]) -> None:
    """``mssfix [SIZE [mtu|fixed]]``, as in a profile; by itself: as if nobody had said anything."""
    if not values:
        draft.values.update(mssfix=None, mssfix_form="default")
        return
    size = _number(values[0], 0, 65535)
    draft.values.update(mssfix=size, mssfix_form=_one_of(values[1:], "mtu", "fixed") if values[1:] else "plain")


def _explicit_exit_notify(draft: PushDraft, values: list[str]) -> None:
    draft.values["explicit_exit_notify"] = _number(values[0], 0, 10) if values else 1


def _ping_restart(draft: PushDraft, values: list[str]) -> None:
    # There is one timeout, and what it leads to: the last of the two counts (reference: options.c).
    _seconds("ping_restart")(draft, values)
    draft.values.pop("ping_exit", None)


def _ping_exit(draft: PushDraft, values: list[str]) -> None:
    _seconds("ping_exit")(draft, values)
    draft.values.pop("ping_restart", None)


def _keepalive(draft: PushDraft, values: list[str]) -> None:
    if len(values) != 2:
        raise Nonsense("two numbers are wanted")
    draft.values["ping"] = float(_number(values[0], 1, MAX_TIMER))
    draft.values["ping_restart"] = float(_number(values[1], 1, MAX_TIMER))
    draft.values.pop("ping_exit", None)


def _inactive(draft: PushDraft, values: list[str]) -> None:
    draft.values["inactive"] = float(_number(values[0] if values else "", 0, MAX_TIMER))
    draft.values["inactive_bytes"] = _number(values[1], 0, 2**63 - 1) if len(values) > 1 else 0


def _reneg_sec(draft: PushDraft, values: list[str]) -> None:
    seconds = _number(values[0] if values else "", 0, MAX_TIMER)
    draft.values["reneg_sec"] = float(max(seconds, MIN_RENEG) if seconds else 0)


def _peer_id(draft: PushDraft, values: list[str]) -> None:
    draft.values["peer_id"] = _number(_only(values), 0, MAX_PEER_ID)


def _cipher(draft: PushDraft, values: list[str]) -> None:
    name = _only(values)
    if not (name.isascii() and name.isprintable()) or len(name) > 64:
        raise Nonsense("not the name of a cipher")
    draft.values["cipher"] = name.upper()


def _key_derivation(draft: PushDraft, values: list[str]) -> None:
    if _only(values) != "tls-ekm":
        raise Nonsense("tls-ekm is wanted")
    draft.values["key_derivation"] = "tls-ekm"


def _protocol_flags(draft: PushDraft, values: list[str]) -> None:
    draft.flags.update(value for value in values if value in _PROTOCOL_FLAGS)
    if set(values) - set(_PROTOCOL_FLAGS):
        draft.warn("protocol-flags names a feature that this client does not know")


def _compression(name: str) -> _Handler:
    def handle(draft: PushDraft, values: list[str]) -> None:
        framing = framing_of(name, values)
        if framing is None:
            raise Nonsense("not a compression that is known")
        draft.values["compression"] = framing.name
        draft.values["compresses"] = framing.compresses

    return handle


def _auth_token(draft: PushDraft, values: list[str]) -> None:
    draft.values["auth_token"] = _only(values)


def _auth_token_user(draft: PushDraft, values: list[str]) -> None:
    try:
        decoded = base64.b64decode(_only(values), validate=True).decode()
    except ValueError:  # not ASCII, not base64, not UTF-8
        raise Nonsense("not base64") from None
    if not decoded.isprintable():
        raise Nonsense("not printable")
    draft.values["auth_token_user"] = decoded


HANDLERS: dict[str, _Handler] = {
    "ifconfig": _ifconfig,
    "ifconfig-ipv6": _ifconfig_ipv6,
    "topology": _topology,
    "route-gateway": _route_gateway,
    "route-ipv6-gateway": _route_ipv6_gateway,
    "route": _route,
    "route-metric": _route_metric,
    "route-ipv6": _route_ipv6,
    "redirect-gateway": _redirect_gateway,
    "redirect-private": _redirect_private,
    "block-ipv6": _block("block-ipv6"),
    "block-ipv4": _block("block-ipv4"),
    "block-outside-dns": _block("block-outside-dns"),
    "dhcp-option": _dhcp_option,
    "dns": _dns,
    "tun-mtu": _tun_mtu,
    "mssfix": _mssfix,
    "ping": _seconds("ping"),
    "ping-restart": _ping_restart,
    "ping-exit": _ping_exit,
    "keepalive": _keepalive,
    "inactive": _inactive,
    "session-timeout": _seconds("session_timeout"),
    "reneg-sec": _reneg_sec,
    "explicit-exit-notify": _explicit_exit_notify,
    "peer-id": _peer_id,
    "cipher": _cipher,
    "key-derivation": _key_derivation,
    "protocol-flags": _protocol_flags,
    "compress": _compression("compress"),
    "comp-lzo": _compression("comp-lzo"),
    "auth-token": _auth_token,
    "auth-token-user": _auth_token_user,
}

#: openvpn honours these; a tunnel without an operating system's interface has no use for them.
UNUSED = frozenset(
    {
        "comp-noadapt", "dhcp-pre-release", "dhcp-release", "dhcp-renew", "echo", "ifconfig-noexec",
        "ifconfig-nowarn", "ip-win32", "lladdr", "max-routes", "mute", "parameter", "persist-key",
        "persist-local-ip", "persist-remote-ip", "persist-tun", "ping-timer-rem", "push-continuation",
        "rcvbuf", "register-dns", "route-delay", "route-method",
        "setenv-safe", "shaper", "sndbuf", "socket-flags", "tap-sleep", "tun-ipv6", "verb",
    }
)  # fmt: skip

#: Programs, files, and what was settled before the push.
REFUSED = frozenset(
    {
        "auth", "auth-user-pass-verify", "ca", "cert", "client-connect", "client-disconnect", "config",
        "data-ciphers", "data-ciphers-fallback", "dev", "down", "fragment", "iproute", "ipchange", "key",
        "learn-address", "link-mtu", "local", "log", "log-append", "management", "ncp-ciphers", "pkcs12",
        "plugin", "port", "proto", "remote", "route-pre-down", "route-up", "script-security", "secret",
        "setenv", "status", "tls-auth", "tls-crypt", "tls-verify", "tmp-dir", "up", "writepid",
    }
)  # fmt: skip
