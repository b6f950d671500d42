"""What the real server pushes: as data in tunnel_info, filtered, refused where it is no server's business."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

import pytest

from minivpn_trio.config.push_options import MAX_ROUTES
from minivpn_trio.config.tunnel_info import DNSServer, Route
from minivpn_trio.errors import ConnectError, Stage
from minivpn_trio.events import Warned
from tests.interop.exchanges import EventLog, everyday, open_tunnel

EVERYTHING = (
    "route 10.20.0.0 255.255.0.0",
    "route 10.21.0.0 255.255.0.0 10.8.0.1 7",
    "route-metric 20",
    "route-ipv6 fd20::/64 fd08::1 9",
    "redirect-gateway def1 ipv6",
    "block-ipv6",
    "block-outside-dns",
    "dhcp-option DNS6 fd08::53",
    "dhcp-option DOMAIN corp.example",
    "dhcp-option DOMAIN-SEARCH lab.example",
    "dns search-domains vpn.example",
    "dns server 1 address 10.8.0.54",
    "dns server 1 resolve-domains vpn.example",
    "inactive 3600",
)
UNWELCOME = ("setenv PATH /tmp", "up /bin/false", "tun-mtu 67", "ping 1000000000", "route 300.1.1.1", "frobnicate 1")


def pushes(*options: str) -> tuple[str, ...]:
    """Lines of a server's configuration."""
    return tuple(f'push "{option}"' for option in options)


def facts(server) -> list[str]:
    """What the server's log says that the client announced."""
    return [line.rpartition("peer info: ")[2] for line in server.log.splitlines() if "peer info: " in line]


async def test_everything_as_data(start_server) -> None:
    server = start_server(extra=pushes(*EVERYTHING))
    async with open_tunnel(server.profile_file()) as dialer:
        info = dialer.tunnel_info
        assert info.routes == (IPv4Network("10.20.0.0/16"), IPv4Network("10.21.0.0/16"))
        assert info.route_table == (
            Route(IPv4Network("10.20.0.0/16"), None, 20),
            Route(IPv4Network("10.21.0.0/16"), IPv4Address("10.8.0.1"), 7),
            Route(IPv6Network("fd20::/64"), IPv6Address("fd08::1"), 9),
        )
        assert info.redirect_gateway == ("def1", "ipv6")
        assert set(info.block_flags) == {"block-ipv6", "block-outside-dns"}
        assert info.dns[0] == IPv4Address("10.8.0.54")
        assert {IPv4Address("10.8.0.1"), IPv6Address("fd08::53")} < set(info.dns)
        assert info.dns_servers == (
            DNSServer(
                priority=1, addresses=((IPv4Address("10.8.0.54"), None),), resolve_domains=("vpn.example",)
            ),
        )
        assert set(info.search_domains) == {"vpn.example", "corp.example", "lab.example"}
        await everyday(dialer)


async def test_filtered_and_not_pulled(start_server) -> None:
    server = start_server(extra=pushes(*EVERYTHING))
    lines = ('pull-filter ignore "dhcp-option DOMAIN "', 'pull-filter ignore "dns "')
    async with open_tunnel(server.profile_file(extra=lines)) as dialer:
        assert dialer.tunnel_info.search_domains == ("lab.example",)
        assert len(dialer.tunnel_info.routes) == 2
    async with open_tunnel(server.profile_file(extra=("route-nopull", "route 10.99.0.0 255.255.0.0"))) as dialer:
        info = dialer.tunnel_info
        assert info.routes == (IPv4Network("10.99.0.0/16"),)
        assert (info.dns, info.search_domains, info.redirect_gateway) == ((), (), ())
        await everyday(dialer)
    with pytest.raises(ConnectError, match="pull-filter") as caught:
        async with open_tunnel(server.profile_file(extra=('pull-filter reject "redirect-gateway"',))):
            pass
    assert caught.value.stage is Stage.PUSH


async def test_unwelcome_options(start_server) -> None:
    log = EventLog()
    server = start_server(extra=pushes(*UNWELCOME))
    async with open_tunnel(server.profile_file(), on_event=log) as dialer:
        info = dialer.tunnel_info
        assert {"setenv", "up", "tun-mtu", "ping", "route", "frobnicate"} <= set(info.ignored_options)
        assert (info.mtu, info.routes) == (1500, ())
        warnings = [event.text for event in log.events if isinstance(event, Warned)]
        for name in ("setenv", "up", "tun-mtu", "ping", "route"):
            assert any(text.startswith(f"{name} was pushed") for text in warnings), name
        await everyday(dialer)


async def test_more_routes_than_are_taken(start_server) -> None:
    server = start_server(extra=pushes(*(f"route 10.{n // 250}.{n % 250}.0" for n in range(2500))))
    async with open_tunnel(server.profile_file()) as dialer:
        assert len(dialer.tunnel_info.routes) == MAX_ROUTES


async def test_ten_thousand_routes(start_server) -> None:
    """2.6.14 pushes as many as its configuration holds, in hundreds of messages."""
    server = start_server(extra=pushes(*(f"route 10.{n // 250}.{n % 250}.0 255.255.255.0" for n in range(10_000))))
    with pytest.raises(ConnectError, match="more options than anybody needs"):
        async with open_tunnel(server.profile_file()):
            pass


async def test_what_the_server_hears_of_us(start_server) -> None:
    server = start_server()
    lines = ("setenv UV_PLACE here", "setenv IV_HWADDR 02:00:5e:10:00:01", "setenv IV_GUI_VER x")
    async with open_tunnel(server.profile_file(extra=lines)):
        pass
    said = facts(server)
    assert {"IV_GUI_VER=x", "IV_VER=2.7.0", "IV_PROTO=8094"} < set(said)
    assert not any(line.startswith(("UV_", "IV_HWADDR", "IV_SSL", "IV_PLAT_VER")) for line in said)
    async with open_tunnel(server.profile_file(extra=(*lines, "push-peer-info"))):
        pass
    assert {"UV_PLACE=here", "IV_HWADDR=02:00:5e:10:00:01"} < set(facts(server))
