"""What an application's type checker sees of the public face. Read by mypy and pyright, not run."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, assert_type

import trio

from minivpn_trio import (
    AuthFailed,
    Client,
    ConnectError,
    Event,
    HandshakeTimeout,
    HTTPProxy,
    MiniVPNError,
    Obfs4Bridge,
    Remote,
    Scramble,
    SocksProxy,
    Stage,
    TunDialer,
    TunnelConfig,
    TunnelInfo,
    TunnelStats,
    open_client,
    open_tun_dialer,
)


async def dialling(profile: Path) -> None:
    events: list[Event] = []
    async with open_tun_dialer(profile, on_event=events.append) as dialer:
        assert_type(dialer, TunDialer)
        assert_type(await dialer.open_tcp_stream("10.8.0.1", 80), trio.SocketStream)
        assert_type(await dialer.open_ssl_over_tcp_stream("web.lab", 443), trio.SSLStream[trio.SocketStream])
        assert_type(await dialer.ping("10.8.0.1"), float)
        assert_type(dialer.tunnel_info, TunnelInfo)
        assert_type(dialer.stats(), TunnelStats)
        with dialer.open_udp_socket() as udp:
            assert_type(await udp.sendto(b"", ("10.8.0.1", 7)), int)


async def raw_packets(config: TunnelConfig) -> None:
    async with open_client(config) as client:
        assert_type(client, Client)
        burst = await client.receive()
        assert_type(burst, list[bytes])
        await client.send(burst)
        assert_type(await client.wait_closed(), MiniVPNError | None)


def ways_there(config: TunnelConfig) -> None:
    assert_type(config.with_proxy(SocksProxy("127.0.0.1", 9050)), TunnelConfig)
    bridge = Obfs4Bridge.from_url("obfs4://192.0.2.1:443?cert=...")
    Remote("vpn.example.org", 443, "tcp", proxy=bridge, scramble=Scramble("obfuscate", b"mask"))
    assert_type(HTTPProxy("proxy.example.org", 8080, auth="digest").auth, Literal["auto", "basic", "digest"])


async def own_transport(remote: Remote) -> trio.abc.Stream:
    assert_type(remote.host, str)
    return await trio.open_tcp_stream(remote.host, remote.port)


async def through_own_transport() -> None:
    config = TunnelConfig(remotes=(Remote("vpn.example.org", 443, "tcp"),), ca=b"", cert=b"", key=b"")
    try:
        async with open_tun_dialer(config, connect=own_transport):
            pass
    except AuthFailed as error:
        assert_type(error.reason, str)
    except (HandshakeTimeout, ConnectError) as error:
        assert_type(error.stage, Stage)
