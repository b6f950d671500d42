"""Servers that push nonsense: the tunnel comes up within bounds and says what it did not take, or it is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest
import trio
from trio.testing import MockClock

from minivpn_trio import open_client
from minivpn_trio.config.push_options import MAX_ROUTES
from minivpn_trio.config.tunnel_info import TunnelInfo
from minivpn_trio.errors import ConnectError, DropReason, HandshakeTimeout, Stage
from minivpn_trio.events import Event, ServerMessage, Warned
from minivpn_trio.testing import ServerSettings, open_vpn_server


async def connected(*push: str) -> tuple[TunnelInfo, list[str]]:
    """The tunnel's data and the warnings of a client whose server pushes this too."""
    events: list[Event] = []
    async with (
        open_vpn_server(ServerSettings(push=push), listen=False) as running,
        open_client(running.client_config(), running.memory_dialer(), on_event=events.append) as client,
    ):
        info = client.tunnel_info
    return info, [event.text for event in events if isinstance(event, Warned)]


#: What is pushed, and a field of tunnel_info with the value that holds nevertheless.
NONSENSE = [
    ("tun-mtu 1", "mtu", 1500),
    ("tun-mtu 4000000000", "mtu", 1500),
    ("ping 1000000000", "ping", 10.0),
    ("ping-restart 1000000000", "ping_restart", 60.0),
    ("keepalive 10 1000000000", "ping_restart", 60.0),
    ("ifconfig 10.8.0.999 255.255.255.0", "mtu", 1500),
    ("ifconfig-ipv6 fd00::/129 ::1", "ipv6", None),
    ("route 300.0.0.0 255.0.0.0", "routes", ()),
    ("route-ipv6 fd00::/999", "routes_ipv6", ()),
    ("dhcp-option DNS 1.2.3", "search_domains", ()),
    ("peer-id 4294967295", "cipher", "AES-256-GCM"),
    ("topology spaghetti", "topology", "subnet"),
    ("compress snake-oil", "compression", "none"),
]


@pytest.mark.parametrize(("option", "field", "value"), NONSENSE)
async def test_values_out_of_range_are_left_out(
    autojump_clock: MockClock, option: str, field: str, value: object
) -> None:
    info, warnings = await connected(option)
    assert getattr(info, field) == value
    assert info.ipv4 is not None
    name, *values = option.split()
    assert any(text.startswith(name) for text in warnings)
    assert not any(one in text for text in warnings for one in values if len(one) > 4)


@pytest.mark.parametrize(
    "option",
    ["setenv PATH /tmp", "up /bin/sh", "down /bin/sh", "route-up /bin/sh", "ipchange /bin/sh", "plugin evil.so",
     "script-security 3", "tls-verify /bin/sh", "remote evil.example", "log /etc/passwd", "management 0.0.0.0 1",
     "config /etc/passwd", "auth none", "fragment 1000", "data-ciphers none", "ca /tmp/ca", "writepid /etc/x"],
)  # fmt: skip
async def test_what_no_server_may_decide_is_refused(autojump_clock: MockClock, option: str) -> None:
    info, warnings = await connected(option)
    name, *values = option.split()
    assert name in info.ignored_options
    assert any(text.startswith(f"{name} was pushed, which no server may decide") for text in warnings)
    assert not any(one in text for text in warnings for one in values if len(one) > 4)


@pytest.mark.parametrize("cipher", ["BF-CBC", "none", "AES-192-GCM", "DES-EDE3-CBC", "ROT13"])
async def test_a_cipher_that_was_not_offered_is_refused(autojump_clock: MockClock, cipher: str) -> None:
    settings = ServerSettings(data_ciphers=("AES-256-GCM",))
    async with open_vpn_server(settings, listen=False) as server:
        config = server.client_config()
        # The server's own "cipher" is pushed after these, so a filter takes it away.
        config = replace(config, pull_filters=(("ignore", "cipher AES-256-GCM"),))
        server.core.settings = replace(settings, push=(f"cipher {cipher}",))
        with pytest.raises(ConnectError, match="not offered") as caught:
            async with open_client(config, server.memory_dialer()):
                pass
        assert caught.value.stage is Stage.PUSH


async def test_ten_thousand_routes_are_too_many(autojump_clock: MockClock) -> None:
    """By the number of options, or by their size; 2,048 are taken of those that are fewer."""
    some = tuple(f"route 10.{n // 250}.{n % 250}.0" for n in range(3000))
    info, warnings = await connected(*some)
    assert len(info.routes) == len(info.route_table) == MAX_ROUTES
    assert any("too many" in text for text in warnings)
    with pytest.raises(ConnectError, match="more options than anybody needs") as caught:
        await connected(*(f"route 10.{n // 250}.{n % 250}.0 255.255.255.0" for n in range(10_000)))
    assert caught.value.stage is Stage.PUSH


@pytest.mark.parametrize("byte", [0x01, 0x0A, 0x1B, 0x7F, 0x80, 0xFF])
async def test_bytes_that_cannot_be_printed_drop_their_message(autojump_clock: MockClock, byte: int) -> None:
    """That message only: the next one in the same record is read."""
    events: list[Event] = []
    async with (
        open_vpn_server(listen=False) as server,
        open_client(server.client_config(), server.memory_dialer(), on_event=events.append) as client,
    ):
        (peer,) = server.core.clients.values()
        key = peer.session._current
        engine = key.engine if key is not None else None
        assert engine is not None

        def say() -> None:
            engine.write(b"INFO,clear " + bytes([byte]) + b" screen\x00" + b"INFO,fine\x00")
            peer.session._collect(key)

        peer.endpoint.run(say, trio.current_time())
        server.core._collect(peer)
        server._flush()
        await trio.sleep(1)
        session = client._upkeep.connection.session  # type: ignore[union-attr]
        assert session.drops[DropReason.MALFORMED] == 1
        assert [event.text for event in events if isinstance(event, ServerMessage)] == ["fine"]
        assert client.closed_by is None


async def test_a_push_that_never_ends(autojump_clock: MockClock) -> None:
    """Each message says that another one comes, and none is the last: the hand-window is the end of it."""
    async with open_vpn_server(ServerSettings(push=("push-continuation 2",)), listen=False) as server:
        with pytest.raises(HandshakeTimeout) as caught:
            async with open_client(server.client_config(), server.memory_dialer()):
                pass
        assert caught.value.stage is Stage.PUSH
