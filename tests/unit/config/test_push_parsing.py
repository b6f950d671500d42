"""PUSH_REPLY into data: what is taken, what is bounded, what is refused."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Interface, IPv6Network

import pytest

from minivpn_trio.config.push import PushAssembler, PushedOptions, parse_push
from minivpn_trio.config.push_options import MAX_ROUTES, Nonsense, _domain
from minivpn_trio.config.tunnel_info import DNSServer, Route
from minivpn_trio.errors import ConnectError, Stage


def test_one_message() -> None:
    assembler = PushAssembler()
    assert assembler.add("PUSH_REPLY,ping 10,route 10.0.0.0 255.0.0.0") == ["ping 10", "route 10.0.0.0 255.0.0.0"]
    assert assembler.add("PUSH_REPLY") == []
    assert assembler.add("PUSH_REPLY,auth-token x") == ["auth-token x"]


def test_continued_messages() -> None:
    assembler = PushAssembler()
    assert assembler.add("PUSH_REPLY,ping 10,push-continuation 2") is None
    assert assembler.add("PUSH_REPLY,,ping 11,push-continuation 2") is None
    assert assembler.add("PUSH_REPLY,ping 12,push-continuation 1") == ["ping 10", "ping 11", "ping 12"]
    assert assembler.add("PUSH_REPLY,ping 13") == ["ping 13"]


def test_an_endless_push_is_refused() -> None:
    assembler = PushAssembler()
    piece = "PUSH_REPLY," + ",".join(["route 10.0.0.0 255.255.255.0"] * 30) + ",push-continuation 2"
    with pytest.raises(ConnectError) as raised:
        for _ in range(1000):
            assembler.add(piece)
    assert raised.value.stage is Stage.PUSH
    assert assembler.add("PUSH_REPLY,ping 1") == ["ping 1"]


def test_another_message_is_refused() -> None:
    with pytest.raises(ConnectError):
        PushAssembler().add("PUSH_UPDATE,ping 1")


def test_a_usual_push() -> None:
    # Shape of what openvpn 2.6.14 sends to a client of its own version, topology subnet.
    message = (
        "route-gateway 10.8.0.1,topology subnet,ping 10,ping-restart 60,ifconfig-ipv6 fd00::1000/64 fd00::1,"
        "ifconfig 10.8.0.2 255.255.255.0,peer-id 3,cipher AES-256-GCM,protocol-flags cc-exit tls-ekm dyn-tls-crypt,"
        "tun-mtu 1500,redirect-gateway def1 bypass-dhcp,dhcp-option DNS 10.8.0.1,dhcp-option DNS6 fd00::53,"
        "dhcp-option DOMAIN Example.net,route 192.168.5.0 255.255.255.0 vpn_gateway 5,route 10.9.0.1,"
        "route-ipv6 2000::/3,block-outside-dns,auth-token SESS_ID_x,auth-token-user c29tZWJvZHk=,"
        "explicit-exit-notify 2,inactive 600 10,session-timeout 7,reneg-sec 900,comp-lzo no"
    )
    pushed = parse_push(message.split(","))
    assert pushed == PushedOptions(
        ifconfig=(IPv4Address("10.8.0.2"), IPv4Address("255.255.255.0")),
        ifconfig_ipv6=IPv6Interface("fd00::1000/64"),
        ifconfig_ipv6_remote=IPv6Address("fd00::1"),
        topology="subnet",
        route_gateway=IPv4Address("10.8.0.1"),
        routes=(IPv4Network("192.168.5.0/24"), IPv4Network("10.9.0.1/32")),
        routes_ipv6=(IPv6Network("2000::/3"),),
        route_table=(
            Route(IPv4Network("192.168.5.0/24"), metric=5),
            Route(IPv4Network("10.9.0.1/32")),
            Route(IPv6Network("2000::/3")),
        ),
        redirect_gateway=("def1", "bypass-dhcp"),
        block_flags=("block-outside-dns",),
        dns=(IPv4Address("10.8.0.1"), IPv6Address("fd00::53")),
        dhcp_dns=(IPv4Address("10.8.0.1"), IPv6Address("fd00::53")),
        search_domains=("example.net",),
        tun_mtu=1500,
        ping=10,
        ping_restart=60,
        inactive=600,
        inactive_bytes=10,
        session_timeout=7,
        reneg_sec=900,
        explicit_exit_notify=2,
        peer_id=3,
        cipher="AES-256-GCM",
        protocol_flags=frozenset({"cc-exit", "tls-ekm", "dyn-tls-crypt"}),
        compression="comp-lzo-no",
        auth_token="SESS_ID_x",
        auth_token_user="somebody",
        raw=pushed.raw,
    )
    assert "SESS_ID_x" not in repr(pushed)
    assert "somebody" not in repr(pushed)


def test_dns_servers_by_priority() -> None:
    pushed = parse_push(
        [
            "dhcp-option DNS 10.0.0.9",
            "dns server 2 address 10.0.0.2:5353 [fd00::2]:53",
            "dns server 1 address 10.0.0.1 fd00::1",
            "dns server 1 resolve-domains example.org",
            "dns server 1 dnssec optional",
            "dns search-domains example.com Example.ORG.",
            "dhcp-option DOMAIN-SEARCH example.com",
            "dhcp-option ADAPTER_DOMAIN_SUFFIX example.edu",
        ]
    )
    assert [str(address) for address in pushed.dns] == ["10.0.0.1", "fd00::1", "10.0.0.2", "fd00::2", "10.0.0.9"]
    assert pushed.search_domains == ("example.com", "example.org", "example.edu")
    assert pushed.warnings == ()


@pytest.mark.parametrize(
    "option",
    [
        "ifconfig 10.8.0.2", "ifconfig 10.8.0.300 255.255.255.0", "ifconfig 224.0.0.1 255.0.0.0",
        "ifconfig 0.0.0.0 255.0.0.0", "ifconfig-ipv6 fd00::1/200 fd00::2", "ifconfig-ipv6 :: ::1",
        "ifconfig-ipv6 fe80::1%eth0/64 ::1",
        "dhcp-option DNS6 fe80::1%eth0", "topology ring",
        "route-gateway dhcp", "route-gateway x", "route 10.0.0.0 0.255.0.0", "route 10.0.0.0 255.0.255.0",
        "route example.com", "route", "route-ipv6 10.0.0.0/8", "dhcp-option DNS x", "dhcp-option DNS 0.0.0.0",
        "dhcp-option DOMAIN a/b", "dhcp-option DOMAIN a..b", "dhcp-option DOMAIN .", "dns server 1 sni a..b",
        "dns server 1 sni .", "dns server 1 sni ..a", f"dns server 1 sni {'a' * 64}.example",
        f"dns server 1 resolve-domains {'a' * 64}", "dhcp-option", "dns server 1", "dns server x address 10.0.0.1",
        "dns server 300 address 10.0.0.1", "dns search-domains", "tun-mtu 67", "tun-mtu 1601", "tun-mtu x",
        "tun-mtu -1", "ping 86401", "ping -1", "ping 1e3", "ping", "ping-restart x", "keepalive 10", "peer-id 16777216",
        "peer-id -1", "peer-id", "cipher", "cipher a b", "key-derivation prf2", "compress zip", "comp-lzo maybe",
        "auth-token-user !!", "auth-token", "redirect-gateway fly", "inactive x", "reneg-sec x",
        "explicit-exit-notify 11", "mssfix x", "ping '10", "route 10.0.0.0 " + "2" * 300,
    ],
)  # fmt: skip
def test_nonsense_is_left_out_with_a_warning_that_does_not_repeat_it(option: str) -> None:
    pushed = parse_push([option])
    assert len(pushed.warnings) == 1
    values = option.split()[1:]
    assert all(value not in pushed.warnings[0] for value in values if len(value) > 3)
    assert pushed == PushedOptions(warnings=pushed.warnings, ignored=pushed.ignored, unusable=True, raw=(option,))


@pytest.mark.parametrize(
    "option", ["setenv A b", "up /bin/sh", "remote a 1", "plugin x", "log /etc/passwd", "auth MD5"]
)
def test_what_no_server_may_decide(option: str) -> None:
    pushed = parse_push([option])
    assert pushed.ignored == (option.split(maxsplit=1)[0],)
    assert "no server may decide" in pushed.warnings[0]


def test_unknown_and_unused_options_are_named() -> None:
    pushed = parse_push(
        ["frobnicate 1", "sndbuf 1", "sndbuf 2", "\x7f\x01 x", "echo hello", "dhcp-option WINS 1.2.3.4"]
    )
    assert pushed.ignored == ("frobnicate", "sndbuf", "(unreadable)", "echo", "dhcp-option")
    assert len(pushed.warnings) == 1


def test_the_last_one_counts() -> None:
    pushed = parse_push(["ping 1", "ping 2", "cipher aes-128-gcm", "cipher aes-256-gcm"])
    assert (pushed.ping, pushed.cipher) == (2, "AES-256-GCM")


def test_routes_are_bounded() -> None:
    pushed = parse_push([f"route 10.{i // 250}.{i % 250}.0 255.255.255.0" for i in range(MAX_ROUTES + 50)])
    assert len(pushed.routes) == MAX_ROUTES
    assert "too many" in pushed.warnings[0]


def test_names_are_bounded() -> None:
    pushed = parse_push([f"dhcp-option DOMAIN-SEARCH d{i}.example" for i in range(100)])
    assert len(pushed.search_domains) == 32


def test_ways_around_the_tunnel_are_no_routes() -> None:
    pushed = parse_push(["route remote_host", "route 10.0.0.0 255.0.0.0 net_gateway"])
    assert pushed.routes == ()
    assert pushed.warnings == ()


def test_a_quick_renegotiation_is_slowed_down() -> None:
    assert parse_push(["reneg-sec 1"]).reneg_sec == 10
    assert parse_push(["reneg-sec 0"]).reneg_sec == 0


def test_gateways_and_metrics_of_routes() -> None:
    pushed = parse_push(
        ["route 10.1.0.0 255.255.0.0 10.8.0.9 7", "route 10.2.0.0 255.255.0.0 default default", "route-metric 20",
         "route-ipv6 fd01::/64 fd00::9 3", "route-ipv6 fd02::/64", "route-ipv6 fd03::/64 net_gateway"]
    )  # fmt: skip
    assert pushed.route_table == (
        Route(IPv4Network("10.1.0.0/16"), IPv4Address("10.8.0.9"), 7),
        Route(IPv4Network("10.2.0.0/16")),
        Route(IPv6Network("fd01::/64"), IPv6Address("fd00::9"), 3),
        Route(IPv6Network("fd02::/64")),
    )
    assert (pushed.route_metric, pushed.warnings, pushed.ignored) == (20, (), ("route-ipv6",))


def test_all_that_is_said_of_a_dns_server() -> None:
    pushed = parse_push(
        ["dns server 2 address 10.0.0.2 [fd00::2]:5353", "dns server 1 address 10.0.0.1:853",
         "dns server 1 transport DoT", "dns server 1 sni dns.example", "dns server 3 dnssec yes",
         "dns server 2 resolve-domains corp.example lab.example", "dns server 2 dnssec optional"]
    )  # fmt: skip
    assert pushed.dns_servers == (
        DNSServer(priority=1, addresses=((IPv4Address("10.0.0.1"), 853),), transport="DoT", sni="dns.example"),
        DNSServer(
            priority=2,
            addresses=((IPv4Address("10.0.0.2"), None), (IPv6Address("fd00::2"), 5353)),
            resolve_domains=("corp.example", "lab.example"),
            dnssec="optional",
        ),
    )
    assert [str(address) for address in pushed.dns] == ["10.0.0.1", "10.0.0.2", "fd00::2"]
    assert pushed.warnings == ()


def test_names_at_the_edge() -> None:
    longest = f"{'a' * 63}.{'b' * 63}.{'c' * 63}.{'d' * 61}"
    assert _domain(longest) == longest
    with pytest.raises(Nonsense):
        _domain(longest + "d")
    # An option is not as long.
    longest = longest[64:]
    pushed = parse_push(
        [f"dns search-domains {longest} .corp.example lab.example.", "dns server 1 address 10.0.0.1",
         "dns server 1 resolve-domains . corp.example"]
    )  # fmt: skip
    assert pushed.search_domains == (longest, "corp.example", "lab.example")
    assert pushed.dns_servers[0].resolve_domains == ("", "corp.example")
    assert pushed.warnings == ()


def test_a_dns_server_that_is_not_asked() -> None:
    pushed = parse_push(["dns server 1 address 10.0.0.1", "dns server 1 transport DoH", "dhcp-option DNS 10.0.0.9"])
    assert "HTTPS" in pushed.warnings[0]
    assert [str(address) for address in pushed.dhcp_dns] == ["10.0.0.9"]


@pytest.mark.parametrize(
    "option",
    ["route 10.0.0.0 255.0.0.0 nowhere", "route 10.0.0.0 255.0.0.0 default -1", "route-ipv6 fd00::/8 x",
     "dns server 1 transport DoX", "dns server 1 dnssec maybe", "dns server 1 sni a/b", "dns server 1 colour red",
     "dns server 1 address 10.0.0.1:0", "redirect-private fly", "route-metric x"],
)  # fmt: skip
def test_nonsense_about_routes_and_servers(option: str) -> None:
    pushed = parse_push([option])
    assert pushed.unusable
    assert (pushed.route_table, pushed.routes, pushed.dns_servers, pushed.dns) == ((), (), (), ())


def test_redirect_private() -> None:
    pushed = parse_push(["redirect-private bypass-dns"])
    assert (pushed.redirect_private, pushed.redirect_gateway) == (("bypass-dns",), ())


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "127.8.0.2", "224.0.0.1", "0.0.0.0", "255.255.255.255", "::1", "::", "ff02::1",
                "::ffff:127.0.0.1"],
)  # fmt: skip
def test_an_address_that_nobody_in_a_network_has(address: str) -> None:
    ours = f"ifconfig-ipv6 {address}/64 fd00::1" if ":" in address else f"ifconfig {address} 255.255.255.0"
    pushed = parse_push([ours, f"dhcp-option DNS {address}", f"dns server 1 address {address}"])
    assert (pushed.ifconfig, pushed.ifconfig_ipv6, pushed.dns, pushed.dns_servers) == (None, None, (), ())
    assert len(pushed.warnings) == 3
    assert pushed.unusable
