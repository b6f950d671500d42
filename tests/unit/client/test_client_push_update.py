"""PUSH_UPDATE from end to end: tunnel_info, the event, the stack, streams that live on or fail."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from minivpn_trio import open_tun_dialer
from minivpn_trio.events import Event, Ready, Reconnecting, TunnelChanged
from minivpn_trio.netstack import scapy_wire
from minivpn_trio.testing import ServerSettings, open_vpn_server
from minivpn_trio.testing.services import echo

scapy_wire.preload()


async def test_a_live_tunnel_changes(autojump_clock: MockClock) -> None:
    events: list[Event] = []
    async with (
        open_vpn_server(listen=False) as server,
        trio.open_nursery() as nursery,
        open_tun_dialer(server.client_config(), server.memory_dialer(), on_event=events.append) as dialer,
    ):
        await nursery.start(server.host.serve_tcp, echo, 7)
        stream = await dialer.open_tcp_stream(server.address, 7)
        changes = ("tun-mtu 1280", "dns server 1 address 10.8.0.53", "-dhcp-option", "keepalive 3 9")
        assert server.push_update(*changes) == 1
        await trio.sleep(1)
        assert isinstance(events[-1], TunnelChanged)
        assert set(events[-1].changed) >= {"mtu", "dns", "ping", "ping_restart"}
        info = dialer.tunnel_info
        assert (info.mtu, [str(address) for address in info.dns]) == (1280, ["10.8.0.53"])
        assert dialer.stack.mtu == 1280
        # The stream does not notice, and the other keepalive is kept.
        await stream.send_all(b"still here")
        assert await stream.receive_some(100) == b"still here"
        pings = dialer.stats().data.pings_out
        await trio.sleep(8)
        assert dialer.stats().data.pings_out - pings >= 2
        assert sum(isinstance(event, Ready) for event in events) == 1
        nursery.cancel_scope.cancel()


async def test_another_address(autojump_clock: MockClock) -> None:
    """Streams from the address that is gone fail; new ones begin at the new one."""
    async with (
        open_vpn_server(listen=False) as server,
        trio.open_nursery() as nursery,
        open_tun_dialer(server.client_config(), server.memory_dialer()) as dialer,
    ):
        await nursery.start(server.host.serve_tcp, echo, 7)
        stream = await dialer.open_tcp_stream(server.address, 7)
        server.push_update("ifconfig 10.8.0.77 255.255.255.0")
        await trio.sleep(1)
        assert str(dialer.tunnel_info.ipv4) == "10.8.0.77/24"
        with pytest.raises(trio.BrokenResourceError):
            await stream.send_all(b"x")
            await stream.receive_some(1)
        async with await dialer.open_tcp_stream(server.address, 7) as other:
            await other.send_all(b"new")
            assert await other.receive_some(100) == b"new"
        with pytest.raises(ValueError, match="in use"):
            server.push_update(f"ifconfig {server.address} 255.255.255.0")
        nursery.cancel_scope.cancel()


async def test_what_needs_a_new_tunnel(autojump_clock: MockClock) -> None:
    events: list[Event] = []
    async with (
        open_vpn_server(ServerSettings(), listen=False) as server,
        open_tun_dialer(server.client_config(), server.memory_dialer(), on_event=events.append) as dialer,
    ):
        server.push_update("cipher AES-128-GCM")
        await trio.sleep(30)
        assert any(isinstance(event, Reconnecting) for event in events)
        assert sum(isinstance(event, Ready) for event in events) == 2
        assert await dialer.ping(server.address) < 1
