"""How a client begins and ends: what it leaves behind, what it raises, what the other side hears of it."""

from __future__ import annotations

import gc
import itertools
import logging
import os
import socket
import weakref
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from minivpn_trio import open_client, open_tun_dialer
from minivpn_trio.config.model import Remote, TunnelConfig
from minivpn_trio.errors import (
    ConfigError,
    ConnectError,
    HandshakeTimeout,
    Stage,
    TLSVerificationError,
    TransportError,
    TunnelClosed,
)
from minivpn_trio.events import Closed, DialStarted, Event, Ready
from minivpn_trio.netstack import scapy_wire
from minivpn_trio.networkio.udp import UDPTransport
from minivpn_trio.testing import CertificateAuthority, LinkConditions, ServerSettings, open_vpn_server
from minivpn_trio.testing.services import discard, echo
from minivpn_trio.tracing import PacketTraced, TraceRecord

scapy_wire.preload()


def open_files() -> set[str]:
    """What this process has open: kind and inode of each descriptor."""
    found = set()
    for number in os.listdir("/proc/self/fd"):
        try:
            found.add(os.readlink(f"/proc/self/fd/{number}"))
        except OSError:
            continue
    return found


class TaskCounter(trio.abc.Instrument):
    """Counts the tasks that live."""

    def __init__(self) -> None:
        self.names: dict[trio.lowlevel.Task, str] = {}

    def task_spawned(self, task: trio.lowlevel.Task) -> None:
        self.names[task] = task.name

    def task_exited(self, task: trio.lowlevel.Task) -> None:
        self.names.pop(task, None)


# nothing is left behind


@pytest.mark.parametrize("proto", ["udp", "tcp"])
async def test_nothing_is_left_behind(proto: str) -> None:
    counter = TaskCounter()
    trio.lowlevel.add_instrument(counter)
    async with open_vpn_server(proto=proto) as server:  # type: ignore[arg-type]
        config = server.client_config()
        async with open_client(config):
            pass  # what stays open for good (a thread's event descriptor, say) is there from now on
        await trio.testing.wait_all_tasks_blocked(0.02)
        tasks, files = dict(counter.names), open_files()
        for _ in range(3):
            async with open_client(config) as client:
                assert len(counter.names) > len(tasks) + 10, "its workers are tasks"
                assert open_files() - files, "its socket is a file"
                assert not client._closed.is_set()
        with trio.fail_after(5):
            await server.wait_for_clients(0)
        await trio.testing.wait_all_tasks_blocked(0.02)
        assert set(counter.names) == set(tasks), set(counter.names.values()) - set(tasks.values())
        assert open_files() <= files
    trio.lowlevel.remove_instrument(counter)
    gc.collect()  # an unclosed socket would be a ResourceWarning, which is an error here


@pytest.mark.parametrize("opener", [open_client, open_tun_dialer])
async def test_keys_do_not_wait_for_a_collection_of_circles(opener: Any) -> None:
    """Neither of a connection that was lost, nor of the last one: they go with it, and cost nobody a pause later."""
    events: list[Event] = []
    async with open_vpn_server(listen=False) as server:
        gc.collect()
        gc.disable()
        try:
            async with opener(server.client_config(), server.memory_dialer(), on_event=events.append) as tunnel:
                client = tunnel if opener is open_client else tunnel._tunnel
                first = parts(client)
                server.send_message("RESTART")
                with trio.fail_after(5):
                    while sum(isinstance(event, Ready) for event in events) < 2:  # noqa: ASYNC110
                        await trio.sleep(0.01)
                assert [ref() for ref in first] == [None] * len(first)
                second = [*parts(client), weakref.ref(client._upkeep._context)]
            assert [ref() for ref in second] == [None] * len(second)
        finally:
            gc.enable()


def parts(client: Any) -> list[weakref.ref[Any]]:
    connection = client._upkeep.connection
    key = connection.session._current
    found = [connection, connection.session, connection.data, connection.muxer, connection.reliable, key.engine]
    return [weakref.ref(each) for each in found]


async def test_a_failed_attempt_leaves_nothing_behind() -> None:
    files = open_files()
    ca = CertificateAuthority()
    identity = ca.issue_client()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    config = TunnelConfig(remotes=(Remote("127.0.0.1", port),), ca=ca.cert, cert=identity.cert, key=identity.key)
    with pytest.raises(TransportError) as caught, trio.fail_after(5):
        async with open_client(config):
            raise AssertionError("never")
    assert isinstance(caught.value.__cause__, ConnectionRefusedError)
    assert open_files() <= files


@pytest.mark.parametrize("kind", ["tls-auth", "tls-crypt", "tls-crypt-v2"])
async def test_a_key_that_is_none_is_found_before_anything_is_dialled(kind: Any) -> None:
    events: list[Event] = []
    async with open_vpn_server(proto="tcp") as server:
        config = replace(server.client_config(), control_wrap=kind, control_wrap_key=b"-----BEGIN nonsense-----\n")
        files = open_files()
        for _ in range(3):
            with pytest.raises(ConfigError) as caught:
                async with open_client(config, on_event=events.append):
                    raise AssertionError("never")
            assert caught.value.directive == kind
        assert open_files() <= files
    assert events == []


async def test_a_transport_that_nobody_came_to_own_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any, **kwargs: Any) -> Any:
        raise ConfigError("it cannot be built")

    monkeypatch.setattr("minivpn_trio.upkeep.Connection", fail)
    async with open_vpn_server(proto="tcp") as server:
        config = server.client_config()
        files = open_files()
        with pytest.raises(ConfigError):
            async with open_client(config):
                raise AssertionError("never")
        await trio.testing.wait_all_tasks_blocked(0.02)
        assert open_files() <= files


async def test_a_bad_certificate_is_found_before_anything_is_dialled() -> None:
    dialled = []

    async def connect(remote: Remote) -> Any:
        dialled.append(remote)
        raise OSError

    async with open_vpn_server(listen=False) as server:
        config = replace(server.client_config(), cert=b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
        with pytest.raises(ConfigError):
            async with open_client(config, connect):
                raise AssertionError("never")
    assert dialled == []


# what leaves the block


class Mine(Exception):
    """The application's."""


BODIES = [
    Mine("one"),
    ExceptionGroup("several", [Mine("one"), Mine("two")]),
    ExceptionGroup("one", [Mine("alone")]),
    KeyboardInterrupt(),
    SystemExit(3),
    BaseExceptionGroup("both", [KeyboardInterrupt(), Mine("two")]),
    StopIteration(),
    StopAsyncIteration(),
]


@pytest.mark.parametrize("opener", [open_client, open_tun_dialer])
@pytest.mark.parametrize("raised", BODIES, ids=repr)
async def test_the_body_s_exception_leaves_as_it_is(opener: Any, raised: BaseException) -> None:
    async with open_vpn_server(listen=False) as server:
        try:
            async with opener(server.client_config(), server.memory_dialer()):
                raise raised
        except BaseException as exc:
            caught = exc
    assert caught is raised
    assert caught.__cause__ is None


@pytest.mark.parametrize("opener", [open_client, open_tun_dialer])
async def test_an_outer_cancellation_passes_through(opener: Any) -> None:
    async with open_vpn_server(listen=False) as server:
        with trio.CancelScope() as scope:
            async with opener(server.client_config(), server.memory_dialer()):
                scope.cancel()
                await trio.sleep_forever()
        assert scope.cancelled_caught
        with trio.move_on_after(0.0) as early:
            async with opener(server.client_config(), server.memory_dialer()):
                raise AssertionError("never")
        assert early.cancelled_caught


@pytest.mark.parametrize("opener", [open_client, open_tun_dialer])
async def test_an_error_while_an_outer_scope_is_cancelled_is_not_lost(opener: Any) -> None:
    async with open_vpn_server(listen=False) as server:
        with pytest.raises(Mine) as caught, trio.CancelScope() as scope:
            async with opener(server.client_config(), server.memory_dialer()):
                scope.cancel()
                raise Mine("on the way out")
        assert str(caught.value) == "on the way out"


@pytest.mark.parametrize("opener", [open_client, open_tun_dialer])
async def test_errors_of_connecting_come_bare(opener: Any) -> None:
    async with open_vpn_server(listen=False) as server:
        config = replace(server.client_config(), ca=CertificateAuthority("another").cert)
        with pytest.raises(TLSVerificationError):
            async with opener(config, server.memory_dialer()):
                raise AssertionError("never")


async def test_return_from_inside_the_block() -> None:
    async with open_vpn_server(listen=False) as server:

        async def address() -> str:
            async with open_client(server.client_config(), server.memory_dialer()) as client:
                return str(client.tunnel_info.ipv4)

        assert await address() == "10.8.0.2/24"


# ways to reach the server


async def test_connect_may_return_a_stream() -> None:
    """Over a TCP server, but the socket is the application's."""
    async with open_vpn_server(proto="tcp") as server:

        async def connect(remote: Remote) -> trio.SocketStream:
            assert (remote.host, remote.port) == ("127.0.0.1", server.port)
            return await trio.open_tcp_stream(remote.host, remote.port)

        async with open_client(server.client_config(), connect) as client:
            assert client.stats().transport.packets_in > 0


async def test_connect_may_return_a_transport() -> None:
    async with open_vpn_server() as server:

        async def connect(remote: Remote) -> UDPTransport:
            sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            sock.connect((remote.host, remote.port))
            return UDPTransport(sock)

        async with open_client(server.client_config(), connect):
            pass


@pytest.mark.parametrize("error", [ConnectionRefusedError("no"), trio.BrokenResourceError("no")])
async def test_what_connect_raises_is_a_transport_error(error: Exception) -> None:
    async def connect(remote: Remote) -> Any:
        raise error

    async with open_vpn_server(listen=False) as server:
        with pytest.raises(TransportError) as caught:
            async with open_client(server.client_config(), connect):
                raise AssertionError("never")
    assert caught.value.stage is Stage.DIAL
    assert caught.value.__cause__ is error


@pytest.mark.parametrize("made", [None, 7, object()])
async def test_connect_that_returns_nonsense_is_told_so(made: object) -> None:
    async def connect(remote: Remote) -> Any:
        return made

    async with open_vpn_server(listen=False) as server:
        with pytest.raises(TypeError, match="Transport"):
            async with open_client(server.client_config(), connect):
                raise AssertionError("never")


async def test_a_defect_of_connect_leaves_bare() -> None:
    async def connect(remote: Remote) -> Any:
        raise ZeroDivisionError

    async with open_vpn_server(listen=False) as server:
        with pytest.raises(ZeroDivisionError):
            async with open_client(server.client_config(), connect):
                raise AssertionError("never")


async def test_remotes_are_tried_in_turn(autojump_clock: MockClock) -> None:
    tried: list[str] = []
    async with open_vpn_server(listen=False) as server:
        good = server.memory_dialer()

        async def connect(remote: Remote) -> Any:
            tried.append(remote.host)
            match remote.host:
                case "refuses":
                    raise ConnectionRefusedError("refused")
                case "hangs":
                    await trio.sleep_forever()
                case _:
                    return await good(remote)

        remotes = tuple(map(Remote, ("refuses", "hangs", "works", "never")))
        began = trio.current_time()
        async with open_client(replace(server.client_config(), remotes=remotes, connect_timeout=7.0), connect):
            assert tried == ["refuses", "hangs", "works"]
            assert trio.current_time() - began == pytest.approx(7.0)


async def test_of_several_failures_the_one_that_came_furthest_is_raised(autojump_clock: MockClock) -> None:
    async with open_vpn_server(listen=False) as server:
        silent = server.memory_dialer(LinkConditions(loss=1.0))

        async def connect(remote: Remote) -> Any:
            if remote.host == "silent":
                return await silent(remote)
            raise ConnectionRefusedError("refused")

        remotes = (Remote("first"), Remote("silent"), Remote("last"))
        with pytest.raises(HandshakeTimeout) as caught:
            async with open_client(replace(server.client_config(), remotes=remotes), connect):
                raise AssertionError("never")
        assert caught.value.stage is Stage.RESET
        assert sum("refused" in note for note in caught.value.__notes__) == 2


async def test_connect_timeout(autojump_clock: MockClock) -> None:
    async def connect(remote: Remote) -> Any:
        await trio.sleep_forever()

    async with open_vpn_server(listen=False) as server:
        began = trio.current_time()
        with pytest.raises(HandshakeTimeout) as caught:
            async with open_client(replace(server.client_config(), connect_timeout=3.0), connect):
                raise AssertionError("never")
        assert caught.value.stage is Stage.DIAL
        assert trio.current_time() - began == pytest.approx(3.0)


@pytest.mark.parametrize(
    ("proto", "times"),
    [
        # half of tls-timeout, then half as long again, up to twice of it (reliable/roundtrip.py)
        ("udp", [0, 1, 2.5, 4.75, 8.125, 12.125, 16.125]),
        # where nothing gets lost the reference's timers do
        ("tcp", [0, 2, 6, 14]),
    ],
)
async def test_how_often_a_silent_server_is_asked(autojump_clock: MockClock, proto: str, times: list[float]) -> None:
    sent: list[float] = []

    class Tracer:
        def trace(self, record: TraceRecord) -> None:
            if isinstance(record, PacketTraced) and record.direction == "out":
                sent.append(record.time - began)

    async with open_vpn_server(listen=False, proto=proto) as server:  # type: ignore[arg-type]
        dial = server.memory_dialer(LinkConditions(loss=1.0))
        began = trio.current_time()
        with pytest.raises(HandshakeTimeout):
            async with open_client(replace(server.client_config(), hand_window=20.0), dial, tracer=Tracer()):
                raise AssertionError("never")
    assert sent == pytest.approx(times)


async def test_rounds_before_the_first_ready(autojump_clock: MockClock) -> None:
    times: list[float] = []

    async def connect(remote: Remote) -> Any:
        times.append(trio.current_time())
        raise ConnectionRefusedError

    async with open_vpn_server(listen=False) as server:
        with pytest.raises(TransportError):
            async with open_client(replace(server.client_config(), connect_retry_max=8, connect_retry=1.0), connect):
                raise AssertionError("never")
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert gaps == pytest.approx([1, 1, 1, 1, 1, 2, 4])


async def test_halt_instead_of_a_push_is_an_error_of_connecting() -> None:
    settings = ServerSettings()
    sent: list[float] = []

    def authenticate(name: str, password: str) -> bool:
        (client,) = server.core.clients.values()
        client.session.send_message("HALT,full", 0.0)
        sent.append(0.0)
        return True

    policy = replace(settings.policy, authenticate=authenticate)
    async with open_vpn_server(replace(settings, policy=policy), listen=False) as server:
        with pytest.raises(ConnectError, match="full"):
            async with open_client(server.client_config(), server.memory_dialer()):
                raise AssertionError("never")
    assert sent


# closing


async def test_a_client_that_was_closed() -> None:
    events: list[Event] = []
    async with open_vpn_server(listen=False) as server:
        async with open_client(server.client_config(), server.memory_dialer(), on_event=events.append) as client:
            async with trio.open_nursery() as nursery:

                async def waiter() -> None:
                    with pytest.raises(trio.ClosedResourceError):
                        await client.receive()

                nursery.start_soon(waiter)
                await trio.testing.wait_all_tasks_blocked()
                await client.aclose()
            for call in (client.receive(), client.send([bytes(20)])):
                with pytest.raises(trio.ClosedResourceError):
                    await call
            assert await client.wait_closed() is None
            assert client.closed_by is None
            await client.aclose()
            assert client.tunnel_info is not None
            assert client.stats().data.keys_installed == 1
        assert isinstance(events[-1], Closed)
        assert sum(isinstance(event, Closed) for event in events) == 1


@pytest.mark.parametrize("how", ["aclose", "leave", "raise", "cancel"])
@pytest.mark.parametrize("cc_exit", [True, False])
async def test_goodbye_arrives(how: str, cc_exit: bool) -> None:
    """On the control channel or as an OCC message, also when somebody cancels."""
    settings = ServerSettings()
    settings = replace(settings, policy=replace(settings.policy, cc_exit=cc_exit))
    async with open_vpn_server(settings, listen=False) as server:
        with trio.CancelScope() as scope:
            try:
                async with open_client(server.client_config(), server.memory_dialer()) as client:
                    assert len(server.core.clients) == 1
                    if how == "aclose":
                        await client.aclose()
                    elif how == "raise":
                        raise Mine("goodbye")
                    elif how == "cancel":
                        scope.cancel()
                        await trio.sleep_forever()
            except Mine:
                pass
        with trio.fail_after(5):
            await server.wait_for_clients(0)
        (ending,) = server.core.endings
        assert isinstance(ending, TunnelClosed)
        assert "left" in ending.reason


async def test_goodbye_arrives_through_real_sockets() -> None:
    async with open_vpn_server() as server:
        async with open_client(server.client_config()):
            pass
        with trio.fail_after(5):
            await server.wait_for_clients(0)
        assert "left" in str(server.core.endings[-1])


async def test_closing_during_traffic() -> None:
    async with open_vpn_server(listen=False) as server, trio.open_nursery() as nursery:
        await nursery.start(server.host.serve_tcp, discard, 9)
        broken = []
        async with open_tun_dialer(server.client_config(), server.memory_dialer()) as dialer:
            stream = await dialer.open_tcp_stream(server.address, 9)

            async def pour() -> None:
                try:
                    while True:
                        await stream.send_all(bytes(100_000))
                except trio.BrokenResourceError as exc:
                    broken.append(exc.__cause__)

            nursery.start_soon(pour)
            await trio.sleep(0.1)
            await dialer._tunnel.aclose()  # type: ignore[attr-defined]
            await trio.sleep(0.05)
            assert [type(cause) for cause in broken] == [OSError]
        nursery.cancel_scope.cancel()


async def test_send_waits_and_loses_nothing_when_cancelled(autojump_clock: MockClock) -> None:
    """With the path gone the tunnel fills up; ``send`` waits, and may be cancelled."""
    async with open_vpn_server(listen=False) as server:
        dial = server.memory_dialer(LinkConditions(rate=1e5, queue=10_000))
        async with open_client(server.client_config(), dial) as client:
            sent = 0
            packet = bytes([0x45, 0, 5, 0xDC]) + bytes(8) + client.tunnel_info.ipv4.ip.packed + bytes([10, 8, 0, 77])  # type: ignore[union-attr]
            for _ in range(100):
                with trio.move_on_after(0.001) as scope:
                    await client.send([packet.ljust(1500)] * 64)
                sent += not scope.cancelled_caught
            await trio.sleep(1)
            assert client.stats().data.packets_out == 64 * sent


# what the tunnel tells


async def test_callbacks_that_raise_harm_nothing(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    calls = {"event": 0, "tracer": 0, "info": 0}

    def on_event(event: Event) -> None:
        calls["event"] += 1
        raise ValueError("a defect of the application")

    class BadTracer:
        def trace(self, record: object) -> None:
            calls["tracer"] += 1
            raise ValueError("another one")

    def listener(info: object) -> None:
        calls["info"] += 1
        raise ValueError("a third")

    async with open_vpn_server(listen=False) as server, trio.open_nursery() as nursery:
        await nursery.start(server.host.serve_tcp, echo, 7)
        async with open_tun_dialer(
            server.client_config(), server.memory_dialer(), on_event=on_event, tracer=BadTracer()
        ) as dialer:
            dialer._tunnel.on_tunnel_info(listener)
            server.send_message("RESTART")
            stream = await dialer.open_tcp_stream(server.address, 7)
            with trio.fail_after(10):
                await stream.send_all(b"still there")
                assert await stream.receive_some() == b"still there"
        nursery.cancel_scope.cancel()
    assert calls["event"] > 10
    assert calls["info"] == 1
    assert calls["tracer"] == 1, "it gets no more records"
    records = [record for record in caplog.records if record.name == "minivpn_trio"]
    assert len(records) == 3, "each is logged once"
    assert all(record.levelno == logging.ERROR and record.exc_info for record in records)


async def test_events_of_a_life() -> None:
    events: list[Event] = []
    async with open_vpn_server() as server, open_client(server.client_config(), on_event=events.append):
        pass
    names = [type(event).__name__ for event in events]
    assert names == [
        "DialStarted", "DialDone", "ResetSent", "ResetDone", "TLSHandshakeStarted", "TLSHandshakeDone",
        "KeysGenerated", "Ready", "Closed",
    ]  # fmt: skip
    assert [event.time for event in events] == sorted(event.time for event in events)
    assert isinstance(events[0], DialStarted)
    assert isinstance(events[-1], Closed)
    assert events[-1].reason == "closed by the application"


async def test_stats_are_summed_over_reconnections(autojump_clock: MockClock) -> None:
    events: list[Event] = []
    async with open_vpn_server(ServerSettings(ping=2, ping_restart=10), listen=False) as server:
        dial = server.memory_dialer()
        async with open_client(server.client_config(), dial, on_event=events.append) as client:
            seen = client.stats()
            for number in range(1, 4):
                server.restart()
                with trio.fail_after(60):
                    while len([event for event in events if isinstance(event, Ready)]) <= number:  # noqa: ASYNC110
                        await trio.sleep(0.5)
                now = client.stats()
                assert now.reconnections == number
                assert now.data.keys_installed == number + 1
                for field in ("packets_in", "packets_out", "bytes_in", "bytes_out"):
                    assert getattr(now.transport, field) > getattr(seen.transport, field)
                assert now.control.packets_out >= seen.control.packets_out + 4
                seen = now
            assert client.stats().transport.packets_out == sum(t.stats().packets_out for t in dial.transports)
            assert all(transport.closed for transport in dial.transports[:-1])
        assert dial.transports[-1].closed


async def test_a_defect_after_the_start_cancels_the_body_and_leaves_alone() -> None:
    async with open_vpn_server(listen=False) as server:
        inner = server.memory_dialer()
        dials = 0

        async def connect(remote: Remote) -> Any:
            nonlocal dials
            dials += 1
            if dials > 1:
                raise ZeroDivisionError("a defect")
            return await inner(remote)

        with pytest.raises(ZeroDivisionError):
            async with open_client(replace(server.client_config(), connect_retry=0.01), connect):
                server.send_message("RESTART")
                with trio.fail_after(5):
                    await trio.sleep_forever()


async def test_many_clients_at_once() -> None:
    async with open_vpn_server(listen=False) as server, AsyncExitStack() as stack:
        clients = []
        for seed in range(20):
            opened = open_client(server.client_config(), server.memory_dialer(seed=seed))
            clients.append(await stack.enter_async_context(opened))
        addresses = {str(client.tunnel_info.ipv4) for client in clients}
        assert len(addresses) == 20
        assert len({client.tunnel_info.peer_id for client in clients}) == 20


