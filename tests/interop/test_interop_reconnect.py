"""Losing the real server and finding it again, or another one: which, how, and what becomes of streams."""

from __future__ import annotations

import errno
import signal
import socket
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from minivpn_trio.errors import TransportError, TunnelClosed
from minivpn_trio.events import DialDone, DialStarted, Ready, Reconnecting, ServerMessage
from minivpn_trio.networkio import dial
from tests.interop.exchanges import EventLog, echo, open_tunnel
from tests.interop.lab.lab import OURS, TUN_IPV4
from tests.interop.lab.management import managed
from tests.interop.lab.services import PATTERN

#: In the namespace of ours nobody listens here; and nobody answers there.
REFUSING, SILENT = ("10.77.1.1", 1), ("10.77.1.99", 1194)
FIXED = "ifconfig-pool-persist ipp.txt 0"


def remotes(profile: str, *lines: str) -> str:
    """``profile`` with these instead of its remote."""
    kept = [line for line in profile.splitlines() if not line.startswith("remote ")]
    return "\n".join([*kept, *lines]) + "\n"


@pytest.fixture
def profile_of(tmp_path):
    def write(server, *lines: str, extra: tuple[str, ...] = ()):
        path = tmp_path / "several.ovpn"
        path.touch(0o600)
        path.write_text(remotes(server.profile(extra=extra), *lines))
        return path

    return write


async def exchange(stream: trio.SocketStream, data: bytes) -> None:
    """Send it to the echo service and see it come back."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stream.send_all, data)
        got = b""
        while len(got) < len(data):
            got += await stream.receive_some()
    assert got == data


# which server


@pytest.mark.parametrize("transport", ["udp", "tcp"])
async def test_the_second_remote_is_up(start_server, profile_of, transport) -> None:
    """The first refuses, by ICMP or RST."""
    server = start_server(transport=transport)
    host, port = REFUSING
    log = EventLog()
    profile = profile_of(server, f"remote {host} {port} {transport}", f"remote {server.host} 1194 {transport}")
    async with open_tunnel(profile, on_event=log, seconds=5) as dialer:
        await echo(dialer, 2000)
    assert [event.port for event in log.of(DialStarted)] == [port, 1194]


@pytest.mark.parametrize("transport", ["udp", "tcp"])
async def test_a_silent_first_remote_costs_connect_timeout(start_server, profile_of, transport) -> None:
    server = start_server(transport=transport)
    host, port = SILENT
    profile = profile_of(
        server,
        f"<connection>\nremote {host} {port} {transport}\nconnect-timeout 1\n</connection>",
        f"<connection>\nremote {server.host} 1194 {transport}\n</connection>",
    )
    log = EventLog()
    async with open_tunnel(profile, on_event=log, seconds=6):
        first, second = log.of(DialStarted)
    assert (first.host, second.host) == (host, server.host)
    assert second.time - first.time < 4  # an unreachable host may be told by the kernel before, or a while after


async def test_udp_refused_then_tcp(start_server, profile_of) -> None:
    """As providers write it: the same host by both protocols, each with settings of its own."""
    server = start_server(transport="tcp")
    profile = profile_of(
        server,
        f"<connection>\nremote {server.host} 1194 udp\nexplicit-exit-notify 2\nmssfix 1200\n</connection>",
        f"<connection>\nremote {server.host} 1194 tcp\nconnect-timeout 5\n</connection>",
    )
    log = EventLog()
    async with open_tunnel(profile, on_event=log, seconds=5) as dialer:
        assert dialer.tunnel_info.transport == "tcp"
        await echo(dialer, 2000)
    assert [event.proto for event in log.of(DialStarted)] == ["udp", "tcp"]


async def test_each_server_with_its_own_control_channel_key(start_server, profile_of) -> None:
    server = start_server(wrap="tls-crypt")
    key = server._lab.credentials.key.strip()
    other = "\n".join(line[::-1] if set(line) <= set("0123456789abcdef") else line for line in key.splitlines())
    assert other != key
    remote = f"remote {server.host} 1194 udp"
    profile = profile_of(
        server,
        f"<connection>\n{remote}\nconnect-timeout 1\n<tls-crypt>\n{other}\n</tls-crypt>\n</connection>",
        f"<connection>\n{remote}\n</connection>",
    )
    log = EventLog()
    async with open_tunnel(profile, on_event=log, seconds=6):
        pass
    assert len(log.of(DialStarted)) == 2


async def test_every_server_is_down(profile_of, start_server) -> None:
    """Each is tried once, and all are told of."""
    server = start_server()
    host, port = REFUSING
    profile = profile_of(server, f"remote {host} {port} tcp", f"remote {host} {port + 1} tcp")
    with pytest.raises(TransportError) as caught:
        async with open_tunnel(profile, seconds=5):
            raise AssertionError("never")
    assert f"port {port}" in "".join([str(caught.value), *caught.value.__notes__])
    assert f"port {port + 1}" in "".join([str(caught.value), *caught.value.__notes__])


@pytest.mark.parametrize(("listening", "dialled"), [("4", ["fd77:1::1", "10.77.1.1"]), ("6", ["fd77:1::1"])])
async def test_a_name_with_both_families(start_server, profile_of, monkeypatch, listening, dialled) -> None:
    """IPv6 first, as the resolver says; then IPv4, where the server listens."""

    async def lookup(host: str, port: int, kind: Any, family: int = 0) -> list[tuple[int, Any]]:
        await trio.lowlevel.checkpoint()
        assert host == "vpn.lab"
        return [(socket.AF_INET6, (OURS["6"], port, 0, 0)), (socket.AF_INET, (OURS["4"], port))]

    monkeypatch.setattr(dial, "lookup", lookup)
    server = start_server(outer=listening)
    log = EventLog()
    async with open_tunnel(profile_of(server, "remote vpn.lab 1194 udp"), on_event=log, seconds=6) as dialer:
        await echo(dialer, 2000)
    assert [event.host for event in log.of(DialStarted)] == dialled


# what a server says


@pytest.mark.parametrize(("flags", "port"), [("", 1194), (",[P]", 1194), (",[N]moving", 1195)])
async def test_restart_and_its_flags(start_server, profile_of, flags, port) -> None:
    """To the same server, or with N to the next; the stream lives on where the address is the same."""
    one = start_server(extra=("management management.sock unix",))
    start_server(port=1195, extra=("dev tun7", "server 10.9.0.0 255.255.255.0"))
    profile = profile_of(one, f"remote {one.host} 1194 udp", f"remote {one.host} 1195 udp")
    log = EventLog()
    async with managed(one.folder) as management, open_tunnel(profile, on_event=log) as dialer:
        stream = await dialer.open_tcp_stream(TUN_IPV4, 7)
        await exchange(stream, b"before")
        await management.command(f'client-kill 0 "RESTART{flags}"')
        await log.wait(Ready, 2, seconds=6)
        assert log.of(DialDone)[-1].port == port
        if port == 1194:
            with trio.fail_after(10):
                await exchange(stream, PATTERN[:50_000])
        else:
            assert str(dialer.tunnel_info.ipv4).startswith("10.9.0.")
            with pytest.raises(trio.BrokenResourceError) as caught:
                await stream.receive_some()
            assert isinstance(caught.value.__cause__, OSError)
            assert caught.value.__cause__.errno == errno.ENETDOWN
    assert any(event.text.startswith("RESTART") for event in log.of(ServerMessage))


async def test_halt(start_server) -> None:
    """No way back, and every stream says so."""
    server = start_server(extra=("management management.sock unix",))
    log = EventLog()
    async with managed(server.folder) as management, open_tunnel(server.profile_file(), on_event=log) as dialer:
        stream = await dialer.open_tcp_stream(TUN_IPV4, 7)
        await exchange(stream, b"before")
        await management.command('client-kill 0 "HALT,go home"')
        with pytest.raises(trio.BrokenResourceError), trio.fail_after(3):
            await stream.receive_some()
        with pytest.raises(OSError) as caught:
            await dialer.open_tcp_stream(TUN_IPV4, 7)
        assert caught.value.errno == errno.ENETDOWN
    assert not log.of(Reconnecting)


# losing it


@pytest.mark.parametrize("transport", ["udp", "tcp"])
async def test_streams_live_through_a_soft_restart(start_server, transport) -> None:
    """SIGUSR1: the server forgets its sessions and keeps its device; the pool file keeps our address."""
    server = start_server(transport=transport, keepalive=(1, 3), extra=("persist-tun", FIXED))
    log = EventLog()
    async with open_tunnel(server.profile_file(), on_event=log) as dialer:
        stream = await dialer.open_tcp_stream(TUN_IPV4, 7)
        await exchange(stream, PATTERN[:50_000])
        server.signal(signal.SIGUSR1)
        await log.wait(Ready, 2, seconds=15)
        with trio.fail_after(15):
            await exchange(stream, PATTERN[:50_000])
        assert dialer.stats().reconnections == 1


@pytest.mark.parametrize("transport", ["udp", "tcp"])
async def test_streams_live_through_a_new_process(start_server, transport) -> None:
    """The server is killed and started again on its port; what was written meanwhile arrives."""
    server = start_server(transport=transport, keepalive=(1, 3), extra=(FIXED,))
    log = EventLog()
    async with open_tunnel(server.profile_file(), on_event=log) as dialer, trio.open_nursery() as nursery:
        stream = await dialer.open_tcp_stream(TUN_IPV4, 7)
        await exchange(stream, b"before")
        await trio.to_thread.run_sync(lambda: server.stop(kill=True))
        nursery.start_soon(exchange, stream, PATTERN[:50_000])
        await log.wait(Reconnecting, 1, seconds=8)
        await trio.to_thread.run_sync(server.start)
        await log.wait(Ready, 2, seconds=20)
        nursery.cancel_scope.deadline = trio.current_time() + 15
    assert not nursery.cancel_scope.cancelled_caught


@pytest.mark.parametrize("how", ["soft", "new process"])
@pytest.mark.parametrize("transport", ["udp", "tcp"])
async def test_what_is_open_fails_where_the_address_changes(start_server, tmp_path, transport, how) -> None:
    """The same server, but it gives us another address: all that is open says so at once, and what is new works."""
    tmp_path.chmod(0o755)
    server = start_server(
        transport=transport, keepalive=(1, 3), extra=("persist-tun", FIXED, f"client-config-dir {tmp_path}")
    )
    log = EventLog()
    causes: list[BaseException | None] = []

    async def read(stream: trio.SocketStream) -> None:
        with pytest.raises(trio.BrokenResourceError) as caught:
            await stream.receive_some()
        causes.append(caught.value.__cause__)

    async def write(stream: trio.SocketStream) -> None:
        with pytest.raises(trio.BrokenResourceError) as caught:
            while True:  # until the window of a server that is not there is full
                await stream.send_all(PATTERN)
        causes.append(caught.value.__cause__)

    async with open_tunnel(server.profile_file(), on_event=log) as dialer:
        before = dialer.tunnel_info.ipv4
        reading, writing = [await dialer.open_tcp_stream(TUN_IPV4, 7) for _ in range(2)]
        await exchange(reading, b"before")
        listener = dialer.socket()
        await listener.bind((str(before.ip), 80))
        listener.listen()
        with trio.fail_after(25):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(read, reading)
                nursery.start_soon(write, writing)
                (tmp_path / "DEFAULT").write_text("ifconfig-push 10.8.0.77 255.255.255.0\n")
                if how == "soft":
                    server.signal(signal.SIGUSR1)
                else:
                    await trio.to_thread.run_sync(lambda: server.stop(kill=True))
                    await trio.to_thread.run_sync(server.start)
                with pytest.raises(OSError) as caught:
                    await listener.accept()
                # Not ENETDOWN, which trio.serve_listeners takes for one lost connection.
                assert caught.value.errno == errno.ENETRESET
        await log.wait(Ready, 2, seconds=20)
        assert (str(before.ip), str(dialer.tunnel_info.ipv4.ip)) == ("10.8.0.2", "10.8.0.77")
        assert [getattr(cause, "errno", cause) for cause in causes] == [errno.ENETDOWN] * 2
        with trio.fail_after(10):
            await exchange(await dialer.open_tcp_stream(TUN_IPV4, 7), PATTERN[:50_000])
        assert dialer.stats().reconnections == 1


# moving


class Relay:
    """UDP between client and server, from a socket that can be replaced: a router that forgot its mapping."""

    def __init__(self, target: tuple[str, int]) -> None:
        self._target = target
        self.front = self._socket(("127.0.0.1", 0))
        self.port = self.front.getsockname()[1]
        self._client: Any = None
        self._back = self._socket(("0.0.0.0", 0))
        self._back_changed = trio.Event()

    @staticmethod
    def _socket(address: tuple[str, int]) -> trio.socket.SocketType:
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.setblocking(False)
        sock.bind(address)
        return trio.socket.from_stdlib_socket(sock)

    def move(self) -> None:
        """From now on the server sees another source port."""
        former, self._back = self._back, self._socket(("0.0.0.0", 0))
        former.close()
        self._back_changed.set()
        self._back_changed = trio.Event()

    async def outward(self) -> None:
        while True:
            data, self._client = await self.front.recvfrom(65536)
            await self._back.sendto(data, self._target)

    async def homeward(self) -> None:
        while True:
            try:
                data, _ = await self._back.recvfrom(65536)
            except trio.ClosedResourceError:
                continue
            await self.front.sendto(data, self._client)


@asynccontextmanager
async def relay_to(target: tuple[str, int]):
    relay = Relay(target)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(relay.outward)
        nursery.start_soon(relay.homeward)
        yield relay
        nursery.cancel_scope.cancel()
    relay.front.close()
    relay._back.close()


async def test_our_address_changes(start_server) -> None:
    """The server knows us by our peer id, and nothing is negotiated anew."""
    server = start_server(keepalive=(1, 5))
    log = EventLog()
    async with relay_to((server.host, 1194)) as relay:
        profile = server.profile_file(host="127.0.0.1", port=relay.port)
        async with open_tunnel(profile, on_event=log) as dialer:
            stream = await dialer.open_tcp_stream(TUN_IPV4, 7)
            for _ in range(3):
                with trio.fail_after(5):
                    await exchange(stream, PATTERN[:100_000])
                relay.move()
            await trio.sleep(2)
            await exchange(stream, b"after")
    assert not log.of(Reconnecting)
    assert server.log.count("Float requested") >= 3


async def test_nobody_else_is_heard(start_server) -> None:
    """A connected socket: datagrams from another address than the server's are not even counted."""
    server = start_server()
    async with open_tunnel(server.profile_file()) as dialer:
        await echo(dialer, 2000)
        transport = dialer._tunnel._upkeep.connection._transport
        ours = transport._sock.getsockname()
        await trio.sleep(0.3)  # the stream's last acknowledgements
        before = transport.stats().packets_in
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            stranger.bind((ours[0], 0))
            for size in (0, 1, 30, 1400):
                stranger.sendto(bytes(size), ours)
        await trio.sleep(0.1)
        assert transport.stats().packets_in == before
        await echo(dialer, 2000)


# ends


@pytest.mark.parametrize(
    ("pushed", "words"), [("session-timeout 1", "session-timeout"), ("inactive 1 1000000", "inactive")]
)
async def test_ends_that_a_server_wishes(start_server, pushed, words) -> None:
    server = start_server(extra=(f'push "{pushed}"',))
    log = EventLog()
    async with open_tunnel(server.profile_file(), on_event=log) as dialer:
        with trio.fail_after(4):
            error = await dialer._tunnel.wait_closed()
    assert isinstance(error, TunnelClosed)
    assert words in error.reason
    assert not log.of(Reconnecting)
    await trio.to_thread.run_sync(lambda: server.wait_for("remote-exit", timeout=3))


async def test_ping_exit(start_server) -> None:
    server = start_server(keepalive=(1, 60), extra=('push "ping-exit 2"',))
    log = EventLog()
    # The server's keepalive pushes a ping-restart behind it, and the last of the two counts.
    async with open_tunnel(server.profile_file(extra=("pull-filter ignore ping-restart",)), on_event=log) as dialer:
        server.signal(signal.SIGSTOP)
        with trio.fail_after(6):
            error = await dialer._tunnel.wait_closed()
    assert "ping-exit" in str(error)
    assert not log.of(Reconnecting)
