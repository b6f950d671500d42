"""Which of a name's addresses to try first: RFC 6724's destination address selection, for the addresses of a tunnel.

Rules 3, 4 and 7 (deprecated and home addresses, encapsulation) have nothing to
tell apart here: one interface, one address of each family. Ties keep the order of
the name server's answer (rule 10).
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, IPv6Network

__all__ = ["ordered"]

Ip = IPv4Address | IPv6Address

#: RFC 6724, 2.1: prefix, precedence, label; longest prefix first.
_POLICY = tuple(
    (IPv6Network(prefix), precedence, label)
    for prefix, precedence, label in [
        ("::1/128", 50, 0), ("::ffff:0:0/96", 35, 4), ("::/96", 1, 3), ("2001::/32", 5, 5), ("2002::/16", 30, 2),
        ("3ffe::/16", 1, 12), ("fec0::/10", 1, 11), ("fc00::/7", 3, 13), ("::/0", 40, 1),
    ]
)  # fmt: skip
_LINK_LOCAL, _SITE_LOCAL, _GLOBAL = 2, 5, 14


def ordered(destinations: Iterable[Ip], sources: Iterable[Ip]) -> list[Ip]:
    """``destinations``, best first, for somebody whose own addresses are ``sources``."""
    own = {source.version: source for source in sources}
    return sorted(destinations, key=lambda destination: _rank(destination, own.get(destination.version)))


def _rank(destination: Ip, source: Ip | None) -> tuple[int, ...]:
    """Smaller is better."""
    precedence, label = _policy(destination)
    if source is None:
        return (1, 0, 0, -precedence, _scope(destination), 0)
    return (
        0,  # rule 1: there is a source address
        _scope(destination) != _scope(source),  # rule 2
        label != _policy(source)[1],  # rule 5
        -precedence,  # rule 6
        _scope(destination),  # rule 8
        # Rule 9. Not among IPv4 addresses, where it defeats the name server's shuffling (as in Linux).
        -_common_bits(destination, source) if destination.version == 6 else 0,
    )


def _as_ipv6(ip: Ip) -> IPv6Address:
    return ip if isinstance(ip, IPv6Address) else IPv6Address((0xFFFF << 32) | int(ip))


def _policy(ip: Ip) -> tuple[int, int]:
    mapped = _as_ipv6(ip)
    return next((precedence, label) for prefix, precedence, label in _POLICY if mapped in prefix)


def _scope(ip: Ip) -> int:
    """RFC 6724, 3.1 and 3.2: private IPv4 addresses count as global."""
    if isinstance(ip, IPv6Address) and ip.is_multicast:
        return ip.packed[1] & 15
    if ip.is_link_local or ip.is_loopback:
        return _LINK_LOCAL
    return _SITE_LOCAL if isinstance(ip, IPv6Address) and ip.is_site_local else _GLOBAL


def _common_bits(one: Ip, other: Ip) -> int:
    """Of the first 64 (RFC 6724, 2.2)."""
    return min(64, 128 - (int(one) ^ int(other)).bit_length())
