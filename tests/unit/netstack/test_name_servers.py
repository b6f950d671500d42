"""Which of the pushed DNS servers is asked for a name."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

import dns.name
import pytest

from minivpn_trio.config.pushed import parse_push
from minivpn_trio.config.tunnel_info import TunnelInfo
from minivpn_trio.netstack.name_servers import NameServer, NameServers


def asked(pushed: list[str], name: str) -> list[str]:
    parsed = parse_push(pushed)
    info = TunnelInfo(dns=parsed.dns, dns_servers=parsed.dns_servers, dhcp_dns=parsed.dhcp_dns)
    servers = NameServers(info)
    found = servers.for_name(dns.name.from_text(name).labels[:-1])
    assert len(found) <= servers.most
    return [str(server) for server in found]


SPLIT = [
    "dhcp-option DNS 10.0.0.9",
    "dns server 1 address 10.0.0.1:5353 fd00::1",
    "dns server 1 resolve-domains corp.example Lab.Example.",
    "dns server 2 address 10.0.0.2",
    "dns server 2 resolve-domains deep.corp.example 10.in-addr.arpa",
    "dns server 3 address 10.0.0.1",
]
CORP = ["10.0.0.1 port 5353", "fd00::1 port 53"]
GENERAL = ["10.0.0.1 port 53", "10.0.0.9 port 53"]


@pytest.mark.parametrize(
    ("name", "servers"),
    [
        ("corp.example", CORP),
        ("www.corp.example", CORP),
        ("WWW.Lab.example", CORP),
        ("a.deep.corp.example", ["10.0.0.2 port 53"]),
        ("1.2.3.10.in-addr.arpa", ["10.0.0.2 port 53"]),
        ("example", GENERAL),
        ("www.example.net", GENERAL),
        ("corp.example.net", GENERAL),
        # Another domain whose name ends in the same letters; and one label that holds a dot.
        ("evilcorp.example", GENERAL),
        ("www\\.corp.example", GENERAL),
        (".", GENERAL),
    ],
)
def test_the_longest_domain_counts(name: str, servers: list[str]) -> None:
    assert asked(SPLIT, name) == servers


def test_servers_of_one_domain_go_by_priority() -> None:
    pushed = [
        "dns server 2 address 10.0.0.2", "dns server 2 resolve-domains corp.example",
        "dns server 1 address 10.0.0.1", "dns server 1 resolve-domains corp.example",
    ]  # fmt: skip
    assert asked(pushed, "a.corp.example") == ["10.0.0.1 port 53", "10.0.0.2 port 53"]
    assert asked(pushed, "a.example") == [], "nobody is there for the others"


def test_without_the_newer_syntax() -> None:
    assert asked(["dhcp-option DNS 10.0.0.9", "dhcp-option DNS6 fd00::9"], "a.example") == [
        "10.0.0.9 port 53", "fd00::9 port 53"
    ]  # fmt: skip
    assert asked([], "a.example") == []


def test_over_tls() -> None:
    parsed = parse_push(
        ["dns server 1 address 10.0.0.1 [fd00::1]:8853", "dns server 1 transport DoT", "dns server 1 sni dns.example",
         "dns server 2 address 10.0.0.2", "dns server 2 transport DoT"]
    )  # fmt: skip
    servers = NameServers(TunnelInfo(dns=parsed.dns, dns_servers=parsed.dns_servers))
    assert servers.for_name(()) == (
        NameServer("10.0.0.1", 853, "dns.example"),
        NameServer("fd00::1", 8853, "dns.example"),
        NameServer("10.0.0.2", 853, "10.0.0.2"),
    )


def test_a_server_of_https_keeps_its_names_to_itself() -> None:
    pushed = [
        "dhcp-option DNS 10.0.0.9", "dns server 1 address 10.0.0.1", "dns server 1 transport DoH",
        "dns server 1 resolve-domains corp.example",
    ]  # fmt: skip
    assert asked(pushed, "secret.corp.example") == []
    assert asked(pushed, "www.example") == ["10.0.0.9 port 53"]


def test_addresses_are_as_dnspython_and_sockets_want_them() -> None:
    info = TunnelInfo(dns=(IPv4Address("10.0.0.1"), IPv6Address("fd00::1")))
    assert [server.address for server in NameServers(info).for_name(())] == ["10.0.0.1", "fd00::1"]
