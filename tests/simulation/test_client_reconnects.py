"""The real client losing and finding servers, on a mock clock: which one next, when, and what becomes of streams."""

from __future__ import annotations

import errno
import math
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from minivpn_trio import open_client, open_tun_dialer
from minivpn_trio.config.model import Remote
from minivpn_trio.errors import HandshakeTimeout, Stage, TransportError, TunnelClosed
from minivpn_trio.events import Closed, DialStarted, Event, Ready, Reconnecting, Warned
from minivpn_trio.netstack import scapy_wire
from minivpn_trio.networkio import dial
from minivpn_trio.testing import LinkConditions, ServerSettings, VPNServer, open_vpn_server
from minivpn_trio.testing.services import echo

scapy_wire.preload()


class Events:
    def __init__(self) -> None:
        self.all: list[Event] = []
        self._news = trio.Event()

    def append(self, event: Event) -> None:
        self.all.append(event)
        self._news.set()
        self._news = trio.Event()

    def of(self, kind: type[Any]) -> list[Any]:
        return [event for event in self.all if isinstance(event, kind)]

    async def wait(self, kind: type[Event], count: int) -> None:
        while len(self.of(kind)) < count:
            await self._news.wait()

    @property
    def dialled(self) -> list[str]:
        return [event.host for event in self.of(DialStarted)]


class World:
    """Servers by name. ``down`` are those that refuse, ``silent`` those that say nothing."""

    def __init__(self, server: VPNServer) -> None:
        self.server = server
        self.down: set[str] = set()
        self.silent: set[str] = set()
        self.good = server.memory_dialer()
        self._void = server.memory_dialer(LinkConditions(loss=1.0))

    async def __call__(self, remote: Remote) -> Any:
        if remote.host in self.down:
            raise ConnectionRefusedError("refused")
        return await (self._void if remote.host in self.silent else self.good)(remote)


@asynccontextmanager
async def world(**options: Any) -> AsyncIterator[World]:
    settings = ServerSettings(**{"ping": 10, "ping_restart": 60, **options})
    async with open_vpn_server(settings, listen=False) as server:
        yield World(server)


REMOTES = tuple(map(Remote, ("one", "two", "three")))


# which server next


@pytest.mark.parametrize(
    ("message", "order"),
    [
        ("RESTART", ["two"]),
        ("RESTART,[P]busy", ["two"]),
        ("RESTART,[N]busy", ["three"]),
        ("EXIT", ["two"]),
    ],
)
async def test_the_server_that_carried_the_tunnel_comes_first(
    autojump_clock: MockClock, message: str, order: list[str]
) -> None:
    del autojump_clock
    events = Events()
    async with world() as net:
        net.down = {"one"}
        config = replace(net.server.client_config(), remotes=REMOTES)
        async with open_client(config, net, on_event=events.append):
            assert events.dialled == ["one", "two"]
            net.server.send_message(message)
            await events.wait(Ready, 2)
            assert events.dialled[2:] == order


async def test_next_remote_comes_round(autojump_clock: MockClock) -> None:
    """From the last to the first; and a lonely server is asked again, whatever it said."""
    del autojump_clock
    for remotes, dialled in ((REMOTES[:2], ["one", "two", "one", "two"]), (REMOTES[:1], ["one"] * 4)):
        events = Events()
        async with world() as net:
            config = replace(net.server.client_config(), remotes=remotes)
            async with open_client(config, net, on_event=events.append):
                for count in (2, 3, 4):
                    net.server.send_message("RESTART,[N]")
                    await events.wait(Ready, count)
        assert events.dialled == dialled


async def test_a_server_that_is_named_twice(autojump_clock: MockClock) -> None:
    """Servers are left by their place in the profile: those behind the second mention get their turn."""
    del autojump_clock
    events = Events()
    async with world() as net:
        remotes = tuple(map(Remote, ("a", "b", "a", "c", "d")))
        async with open_client(replace(net.server.client_config(), remotes=remotes), net, on_event=events.append):
            for count in range(2, 8):
                net.server.send_message("RESTART,[N]busy")
                await events.wait(Ready, count)
    assert events.dialled == ["a", "b", "a", "c", "d", "a", "b"]


async def test_while_the_network_is_away_the_preference_stays(autojump_clock: MockClock) -> None:
    """Rounds begin with the server that knows us, for as long as no other one has taken its place."""
    del autojump_clock
    events = Events()
    async with world() as net:
        net.down = {"one"}
        config = replace(net.server.client_config(), remotes=REMOTES)
        async with open_client(config, net, on_event=events.append):
            net.down = {"one", "two", "three"}
            net.server.send_message("RESTART")
            await events.wait(Reconnecting, 3)
            net.down = set()
            await events.wait(Ready, 2)
    assert events.dialled[2:] == ["two", "three", "one"] * 2 + ["two"]


async def test_random_order_loses_no_server(autojump_clock: MockClock) -> None:
    del autojump_clock
    orders = set()
    for seed in range(12):
        async with world() as net:
            net.down = {"one", "two", "three"}
            config = replace(net.server.client_config(), remotes=REMOTES, remote_random=True)
            events = Events()
            with pytest.raises(TransportError):
                async with open_client(config, net, on_event=events.append, rng=bytes_from(seed)):
                    raise AssertionError("never")
            assert sorted(events.dialled) == ["one", "three", "two"]
            orders.add(tuple(events.dialled))
    assert len(orders) >= 4


def bytes_from(seed: int) -> Any:
    import random

    return random.Random(seed).randbytes


async def test_a_silent_server_is_left_after_connect_timeout(autojump_clock: MockClock) -> None:
    """Also over UDP, where there is no connection that could fail."""
    del autojump_clock
    events = Events()
    async with world() as net:
        net.silent = {"one"}
        own = replace(REMOTES[0], settings=(("connect_timeout", 4.0),))
        config = replace(net.server.client_config(), remotes=(own, *REMOTES[1:]), hand_window=60.0)
        began = trio.current_time()
        async with open_client(config, net, on_event=events.append):
            assert events.dialled == ["one", "two"]
            assert trio.current_time() - began == pytest.approx(4.0, abs=0.5)


async def test_delays_grow_and_are_bounded(autojump_clock: MockClock) -> None:
    del autojump_clock
    events = Events()
    async with world() as net:
        config = replace(net.server.client_config(), connect_retry=1.0, connect_retry_max_delay=10.0)
        async with open_client(config, net, on_event=events.append):
            net.down = {config.remotes[0].host}
            net.server.send_message("RESTART")
            await events.wait(Reconnecting, 11)
    assert [event.delay for event in events.of(Reconnecting)] == [1, 1, 1, 1, 1, 2, 4, 8, 10, 10, 10]
    assert [event.attempt for event in events.of(Reconnecting)] == list(range(1, 12))


async def test_a_second_passes_whatever_the_profile_says(autojump_clock: MockClock) -> None:
    """``connect-retry 0``: a port that refuses does so in no time, and nobody is to be asked as fast as that."""
    del autojump_clock
    events = Events()
    async with world() as net:
        config = replace(net.server.client_config(), connect_retry=0.0)
        async with open_client(config, net, on_event=events.append):
            net.down = {config.remotes[0].host}
            net.server.send_message("RESTART")
            await events.wait(Reconnecting, 7)
        assert [event.delay for event in events.of(Reconnecting)] == [1, 1, 1, 1, 1, 2, 4]
        began = trio.current_time()
        with pytest.raises(TransportError):
            async with open_client(replace(config, connect_retry_max=4), net):
                raise AssertionError("never")
        assert trio.current_time() - began == pytest.approx(3.0)


async def test_no_more_than_connect_retry_max(autojump_clock: MockClock) -> None:
    del autojump_clock
    events = Events()
    async with world() as net:
        config = replace(net.server.client_config(), connect_retry_max=3)
        async with open_client(config, net, on_event=events.append) as client:
            net.down = {config.remotes[0].host}
            net.server.send_message("RESTART")
            error = await client.wait_closed()
    assert isinstance(error, TunnelClosed)
    assert "could not reconnect" in error.reason
    assert len(events.of(DialStarted)) == 1 + 3


# addresses of a name


class Names:
    """A resolver."""

    def __init__(self, *addresses: str) -> None:
        self.asked: list[str] = []
        self.addresses = addresses

    async def __call__(self, host: str, port: int, kind: Any, family: int = 0) -> list[tuple[int, Any]]:
        await trio.lowlevel.checkpoint()
        self.asked.append(host)
        found = [
            (socket.AF_INET6, (each, port, 0, 0)) if ":" in each else (socket.AF_INET, (each, port))
            for each in self.addresses
        ]
        return [each for each in found if family in (0, each[0])]


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Names:
    made = Names("2001:db8::1", "2001:db8::2", "192.0.2.1")
    monkeypatch.setattr(dial, "lookup", made)
    return made


async def refuse(*args: Any, **kwargs: Any) -> Any:
    await trio.lowlevel.checkpoint()
    raise OSError(errno.ECONNREFUSED, "refused")


@pytest.mark.parametrize(
    ("proto", "dialled"),
    [
        ("udp", ["2001:db8::1", "2001:db8::2", "192.0.2.1"]),
        ("udp4", ["192.0.2.1"]),
        ("tcp6", ["2001:db8::1", "2001:db8::2"]),
    ],
)
async def test_all_addresses_are_tried_in_turn(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, names: Names, proto: Any, dialled: list[str]
) -> None:
    del autojump_clock
    monkeypatch.setattr(dial, "open_socket", refuse)
    events = Events()
    async with world() as net:
        config = replace(net.server.client_config(), remotes=(Remote("vpn.example", 1194, proto),))
        with pytest.raises(TransportError):
            async with open_client(config, on_event=events.append):
                raise AssertionError("never")
    assert events.dialled == dialled
    assert names.asked == ["vpn.example"]


async def test_names_are_asked_for_in_each_round_anew(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, names: Names
) -> None:
    """A server that moved is found where its name points now; a name without address is a server away."""
    del autojump_clock
    monkeypatch.setattr(dial, "open_socket", refuse)
    names.addresses = ("192.0.2.1",)
    events = Events()
    async with world() as net:
        config = replace(net.server.client_config(), remotes=(Remote("vpn.example"),), connect_retry_max=3)
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def connecting() -> None:
                with pytest.raises(TransportError):
                    async with open_client(config, on_event=events.append):
                        raise AssertionError("never")

            await events.wait(DialStarted, 1)
            names.addresses = ()
            await trio.sleep(1.5)
            names.addresses = ("192.0.2.2",)
    assert events.dialled == ["192.0.2.1", "192.0.2.2"]
    assert names.asked == ["vpn.example"] * 3


@pytest.mark.parametrize("seconds", [12.0, math.inf])
async def test_resolv_retry(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, names: Names, seconds: float
) -> None:
    """Before the tunnel was up for the first time: a machine that has just been started has no network yet."""
    del autojump_clock
    monkeypatch.setattr(dial, "open_socket", refuse)
    names.addresses = ()
    events = Events()

    async with world() as net, trio.open_nursery() as nursery:
        config = replace(net.server.client_config(), remotes=(Remote("vpn.example"), Remote("other.example")))
        config = replace(config, resolv_retry=seconds)

        @nursery.start_soon
        async def appear() -> None:
            await trio.sleep(3600)
            names.addresses = ("192.0.2.1",)

        began = trio.current_time()
        with pytest.raises(TransportError) as caught:
            async with open_client(config, on_event=events.append):
                raise AssertionError("never")
        took = trio.current_time() - began
        nursery.cancel_scope.cancel()
    (warning,) = events.of(Warned)
    assert "no address for other.example" in warning.text
    if seconds == math.inf:
        assert took == pytest.approx(3600, abs=5)
        assert caught.value.stage is Stage.DIAL
        assert events.dialled == ["192.0.2.1"] * 2
    else:
        assert took == pytest.approx(12)
        assert caught.value.stage is Stage.RESOLVE
        assert names.asked == ["vpn.example", "other.example"] * 4


async def test_resolv_retry_is_not_for_servers_that_refuse(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, names: Names
) -> None:
    del autojump_clock
    monkeypatch.setattr(dial, "open_socket", refuse)
    names.addresses = ()
    async with world() as net:
        remotes = (Remote("vpn.example"), Remote("192.0.2.7"))
        monkeypatch.setattr(dial, "lookup", only_numbers)
        config = replace(net.server.client_config(), remotes=remotes, resolv_retry=math.inf)
        began = trio.current_time()
        with pytest.raises(TransportError) as caught:
            async with open_client(config):
                raise AssertionError("never")
        assert caught.value.stage is Stage.DIAL
        assert trio.current_time() == began


async def only_numbers(host: str, port: int, kind: Any, family: int = 0) -> list[tuple[int, Any]]:
    await trio.lowlevel.checkpoint()
    if not host[0].isdigit():
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    return [(socket.AF_INET, (host, port))]


async def test_a_resolver_that_never_answers(autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch) -> None:
    del autojump_clock

    async def lookup(*args: Any) -> Any:
        await trio.sleep_forever()

    monkeypatch.setattr(dial, "lookup", lookup)
    async with world() as net:
        config = replace(net.server.client_config(), remotes=(Remote("vpn.example"),), connect_timeout=8.0)
        began = trio.current_time()
        with pytest.raises(HandshakeTimeout) as caught:
            async with open_client(config):
                raise AssertionError("never")
        assert caught.value.stage is Stage.RESOLVE
        assert trio.current_time() - began == pytest.approx(8.0)


async def test_random_hostname(autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, names: Names) -> None:
    """A new label for each look-up, none for an address."""
    del autojump_clock
    monkeypatch.setattr(dial, "open_socket", refuse)
    remotes = (Remote("vpn.example"), Remote("vpn.example"), Remote("192.0.2.7"))
    async with world() as net:
        config = replace(net.server.client_config(), remotes=remotes, remote_random_hostname=True)
        with pytest.raises(TransportError):
            async with open_client(config):
                raise AssertionError("never")
    *labels, address = names.asked
    assert address == "192.0.2.7"
    assert len(set(labels)) == 2
    for name in labels:
        label, _, rest = name.partition(".")
        assert (len(bytes.fromhex(label)), rest) == (6, "vpn.example")


# streams


async def exchange(stream: trio.SocketStream, data: bytes) -> None:
    await stream.send_all(data)
    got = b""
    while len(got) < len(data):
        got += await stream.receive_some()
    assert got == data


@pytest.mark.parametrize("loss", ["RESTART", "silence"])
async def test_streams_live_on_where_the_address_stays(autojump_clock: MockClock, loss: str) -> None:
    """And what is written meanwhile arrives afterwards."""
    del autojump_clock
    events = Events()
    async with world(ping=1, ping_restart=5) as net, trio.open_nursery() as nursery:
        await nursery.start(net.server.host.serve_tcp, echo, 7)
        config = net.server.client_config()
        async with open_tun_dialer(config, net, on_event=events.append) as dialer:
            stream = await dialer.open_tcp_stream(net.server.address, 7)
            await exchange(stream, b"before")
            address = dialer.tunnel_info.ipv4
            if loss == "silence":
                net.good.change(LinkConditions(loss=1.0))
                await events.wait(Reconnecting, 1)
                nursery.start_soon(exchange, stream, b"meanwhile" * 1000)
                await trio.sleep(20)
                net.good.change(LinkConditions())
            else:
                net.server.send_message(loss)
                await events.wait(Reconnecting, 1)
                nursery.start_soon(exchange, stream, b"meanwhile" * 1000)
            await events.wait(Ready, 2)
            assert dialer.tunnel_info.ipv4 == address
            await trio.sleep(30)
            await exchange(stream, b"after")
        nursery.cancel_scope.cancel()


async def test_streams_fail_at_once_where_the_address_changes(autojump_clock: MockClock) -> None:
    """ENETDOWN, in every task that uses one; new ones work."""
    del autojump_clock
    events = Events()
    async with world(duplicate_cn=True) as net, trio.open_nursery() as nursery:
        await nursery.start(net.server.host.serve_tcp, echo, 7)
        config = replace(net.server.client_config(), connect_retry=5.0)
        async with open_tun_dialer(config, net, on_event=events.append) as dialer:
            stream = await dialer.open_tcp_stream(net.server.address, 7)
            await exchange(stream, b"before")
            before = dialer.tunnel_info.ipv4
            causes = []

            async def reader() -> None:
                with pytest.raises(trio.BrokenResourceError) as caught:
                    await stream.receive_some()
                causes.append(caught.value.__cause__)

            nursery.start_soon(reader)
            net.server.send_message("RESTART")
            await events.wait(Reconnecting, 1)
            async with open_client(config, net):  # somebody else, who takes our address while we wait
                await events.wait(Ready, 2)
                await trio.testing.wait_all_tasks_blocked()
            assert dialer.tunnel_info.ipv4 != before
            (cause,) = causes
            assert isinstance(cause, OSError)
            assert cause.errno == errno.ENETDOWN
            with pytest.raises(trio.BrokenResourceError):
                await stream.send_all(b"x")
            await exchange(await dialer.open_tcp_stream(net.server.address, 7), b"new")
        nursery.cancel_scope.cancel()


# the end of it


@pytest.mark.parametrize(
    ("push", "words", "after"),
    [
        ("session-timeout 100", "session-timeout", 100),
        ("inactive 50", "inactive", 50),
        ("inactive 50 1000000", "inactive", 50),
    ],
)
async def test_ends_that_are_for_good(autojump_clock: MockClock, push: str, words: str, after: float) -> None:
    """Pushed or of the profile. The server hears that we leave."""
    del autojump_clock
    events = Events()
    async with world(push=(push,)) as net:
        began = trio.current_time()
        async with open_client(net.server.client_config(), net, on_event=events.append) as client:
            error = await client.wait_closed()
            assert trio.current_time() - began == pytest.approx(after, abs=1.0)
            with trio.fail_after(5):
                await net.server.wait_for_clients(0)
            assert "left" in str(net.server.core.endings[-1])
    assert isinstance(error, TunnelClosed)
    assert words in error.reason
    assert not events.of(Reconnecting)
    assert len(events.of(Closed)) == 1


async def test_a_tunnel_in_use_is_not_inactive(autojump_clock: MockClock) -> None:
    del autojump_clock
    async with world(push=("inactive 50 1000",)) as net, trio.open_nursery() as nursery:
        await nursery.start(net.server.host.serve_tcp, echo, 7)
        async with open_tun_dialer(net.server.client_config(), net) as dialer:
            stream = await dialer.open_tcp_stream(net.server.address, 7)
            for _ in range(8):
                await exchange(stream, bytes(500))
                await trio.sleep(40)
        nursery.cancel_scope.cancel()


async def test_ping_exit(autojump_clock: MockClock) -> None:
    del autojump_clock
    events = Events()
    async with (
        world(push=("ping-restart 0", "ping-exit 30")) as net,
        open_client(net.server.client_config(), net, on_event=events.append) as client,
    ):
        net.good.change(LinkConditions(loss=1.0))
        began = trio.current_time()
        error = await client.wait_closed()
        assert trio.current_time() - began == pytest.approx(30, abs=10)
    assert "ping-exit" in str(error)
    assert not events.of(Reconnecting)


async def test_halt_ends_it(autojump_clock: MockClock) -> None:
    del autojump_clock
    async with world() as net, open_client(net.server.client_config(), net) as client:
        net.server.send_message("HALT,closing time")
        error = await client.wait_closed()
        assert isinstance(error, TunnelClosed)
        assert "closing time" in error.reason
        with pytest.raises(trio.BrokenResourceError):
            await client.receive()
