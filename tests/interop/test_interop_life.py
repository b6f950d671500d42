"""A tunnel over time: rekeying under traffic, idling, the server's restart, leaving."""

from __future__ import annotations

import os
import signal

import pytest
import trio

from minivpn_trio import open_tun_dialer
from minivpn_trio.events import Closed, Ready, Reconnecting, Rekeyed
from tests.interop.exchanges import EventLog, check_pattern, download, everyday, open_tunnel
from tests.interop.lab.lab import TUN_IPV4
from tests.interop.lab.services import PATTERN


async def steady_echo(dialer, seconds: float, *, piece: int = 8192, pause: float = 0.01) -> int:
    """A few Mbit/s each way through one TCP connection for ``seconds``; the bytes that came back."""
    received = 0

    async def send(stream) -> None:
        offset = 0
        end = trio.current_time() + seconds
        while trio.current_time() < end:
            start = offset % len(PATTERN)
            chunk = (PATTERN[start : start + piece] + PATTERN)[:piece]
            await stream.send_all(chunk)
            offset += piece
            await trio.sleep(pause)
        await stream.send_eof()

    stream = await dialer.open_tcp_stream(TUN_IPV4, 7)
    async with stream, trio.open_nursery() as nursery:
        nursery.start_soon(send, stream)
        while True:
            with trio.fail_after(5):
                data = await stream.receive_some()
            if not data:
                return received
            check_pattern(data, received)
            received += len(data)


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.parametrize(
    ("transport", "seconds", "wrap"), [("udp", 60, "none"), ("tcp", 25, "tls-crypt")], ids=["udp", "tcp"]
)
async def test_server_rekeys_under_traffic(start_server, transport, seconds, wrap) -> None:
    """reneg-sec 10: every key change passes without a single segment sent twice."""
    server = start_server(transport=transport, wrap=wrap, reneg_sec=10)
    log = EventLog()
    async with open_tunnel(server.profile_file(), on_event=log) as dialer:
        received = await steady_echo(dialer, seconds)
        stats = dialer.stats()
    assert received > seconds * 200_000
    assert len(log.of(Rekeyed)) >= seconds // 10 - 1
    assert {event.by for event in log.of(Rekeyed)} == {"server"}
    assert not log.of(Reconnecting)
    assert stats.netstack.tcp_retransmissions == 0
    assert not stats.data.drops
    assert not stats.edge_drops


@pytest.mark.slow
async def test_client_rekeys_under_traffic(start_server) -> None:
    server = start_server(reneg_sec=0)
    log = EventLog()
    async with open_tunnel(server.profile_file(reneg_sec=5), on_event=log) as dialer:
        await steady_echo(dialer, 18)
        stats = dialer.stats()
    assert len(log.of(Rekeyed)) >= 2
    assert {event.by for event in log.of(Rekeyed)} == {"client"}
    assert stats.netstack.tcp_retransmissions == 0
    assert not stats.data.drops


@pytest.mark.slow
async def test_both_want_to_rekey(start_server) -> None:
    """Soft resets that cross on the way collapse into one."""
    server = start_server(reneg_sec=5)
    log = EventLog()
    async with open_tunnel(server.profile_file(reneg_sec=5), on_event=log) as dialer:
        await steady_echo(dialer, 17)
        stats = dialer.stats()
    assert 2 <= len(log.of(Rekeyed)) <= 5
    assert not log.of(Reconnecting)
    assert stats.netstack.tcp_retransmissions == 0


@pytest.mark.slow
@pytest.mark.parametrize("transport", ["udp", "tcp"])
async def test_idle_tunnel_stays_up(start_server, transport) -> None:
    """Three times ping-restart without a packet of ours: only pings keep it alive, both ways."""
    server = start_server(transport=transport, keepalive=(1, 4))
    log = EventLog()
    async with open_tunnel(server.profile_file(), on_event=log) as dialer:
        assert dialer.tunnel_info.ping == 1
        await trio.sleep(12)
        stats = dialer.stats()
        assert stats.data.pings_in >= 8
        assert stats.data.pings_out >= 8
        await everyday(dialer)
    assert not log.of(Reconnecting)
    assert "Inactivity timeout" not in server.log


@pytest.mark.parametrize("exit_notify", [True, False])
@pytest.mark.parametrize("transport", ["udp", "tcp"])
async def test_server_restarts(start_server, transport, exit_notify) -> None:
    """The client comes back by itself: at once where it is told, else after ping-restart."""
    if transport == "tcp" and exit_notify:
        exit_notify = False  # explicit-exit-notify is UDP's; a TCP server just closes
    server = start_server(transport=transport, exit_notify=exit_notify, keepalive=(1, 3))
    log = EventLog()
    async with open_tunnel(server.profile_file(), on_event=log) as dialer:
        await everyday(dialer)
        await trio.to_thread.run_sync(lambda: server.stop(kill=transport == "udp" and not exit_notify))
        await log.wait(Reconnecting, 1, seconds=8 if transport == "udp" and not exit_notify else 2)
        await trio.to_thread.run_sync(server.start)
        await log.wait(Ready, 2, seconds=20)
        await everyday(dialer)
        assert dialer.stats().reconnections == 1


async def test_server_goes_silent_and_returns(start_server) -> None:
    server = start_server(keepalive=(1, 3))
    log = EventLog()
    async with open_tunnel(server.profile_file(), on_event=log) as dialer:
        server.signal(signal.SIGSTOP)
        await log.wait(Reconnecting, 1, seconds=8)
        server.signal(signal.SIGCONT)
        await log.wait(Ready, 2, seconds=20)
        await everyday(dialer)


@pytest.mark.parametrize("transport", ["udp", "tcp"])
async def test_leaving_says_goodbye_and_leaves_nothing(start_server, transport) -> None:
    server = start_server(transport=transport)
    extra = ("explicit-exit-notify 1",) if transport == "udp" else ()
    profile = server.profile_file(extra=extra)
    async with open_tunnel(profile):
        pass  # what is imported or opened once and for all is open now
    before = len(os.listdir("/proc/self/fd"))
    log = EventLog()
    async with open_tunnel(profile, on_event=log) as dialer:
        await download(dialer, 100_000)
    assert len(log.of(Closed)) == 1
    assert len(os.listdir("/proc/self/fd")) == before
    goodbye = "remote-exit" if transport == "udp" else "Connection reset"
    await trio.to_thread.run_sync(lambda: server.wait_for(goodbye, timeout=3))


async def test_body_exception_comes_out_as_it_is(start_server) -> None:
    class Mine(Exception):
        pass

    profile = start_server().profile_file()
    with pytest.raises(Mine):
        async with open_tun_dialer(profile):
            raise Mine


async def test_cancellation_ends_it_quickly(start_server) -> None:
    profile = start_server().profile_file()
    with trio.fail_after(3):
        with trio.move_on_after(0.7) as scope:
            async with open_tun_dialer(profile) as dialer:
                stream = await dialer.open_tcp_stream(TUN_IPV4, 19)
                while True:
                    await stream.receive_some()
        assert scope.cancelled_caught


async def test_two_tunnels_at_once(start_server) -> None:
    profile = start_server().profile_file()
    async with open_tunnel(profile) as one, open_tunnel(profile) as two:
        assert one.tunnel_info.ipv4 != two.tunnel_info.ipv4
        async with trio.open_nursery() as nursery:
            nursery.start_soon(everyday, one)
            nursery.start_soon(everyday, two)
