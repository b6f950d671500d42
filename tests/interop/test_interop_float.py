"""A real server that answers from another address than the one that was dialled, and one that moves."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
import trio

from minivpn_trio.errors import ConnectError
from minivpn_trio.events import Reconnecting
from tests.interop.exchanges import EventLog, echo, open_tunnel
from tests.interop.lab.lab import OURS, TUN_IPV4, Lab
from tests.interop.lab.services import PATTERN

#: Another address of the server's, on the same wire.
OTHER = "10.77.1.9"


@pytest.fixture
def two_addresses(lab: Lab) -> Iterator[None]:
    lab.server_namespace.run("ip", "addr", "add", f"{OTHER}/32", "dev", "ours")
    yield
    send_from(lab, OURS["4"])
    lab.server_namespace.run("ip", "addr", "del", f"{OTHER}/32", "dev", "ours")


def send_from(lab: Lab, source: str) -> None:
    """What the server sends us comes from ``source``, wherever we sent to: its socket is bound to no address."""
    lab.server_namespace.run("ip", "route", "replace", "10.77.1.0/24", "dev", "ours", "src", source)


@pytest.mark.parametrize("wrap", ["none", "tls-crypt"])
async def test_a_server_that_answers_from_another_address(start_server, two_addresses, wrap: str) -> None:
    server = start_server(wrap=wrap)
    with pytest.raises(ConnectError):
        async with open_tunnel(server.profile_file(host=OTHER, extra=("connect-timeout 1",)), seconds=6):
            raise AssertionError("without float nobody is heard")
    async with open_tunnel(server.profile_file(host=OTHER, extra=("float",)), seconds=6) as dialer:
        assert dialer._tunnel._upkeep.connection._transport.peer == OURS["4"]
        for size in (100, 100_000):
            await echo(dialer, size)


async def test_a_server_that_moves(lab: Lab, start_server, two_addresses) -> None:
    """Its first data packet from there is enough, be it a ping; nothing is negotiated anew."""
    server = start_server(keepalive=(1, 10))
    log = EventLog()
    async with open_tunnel(server.profile_file(extra=("float",)), on_event=log, seconds=6) as dialer:
        transport = dialer._tunnel._upkeep.connection._transport
        stream = await dialer.open_tcp_stream(TUN_IPV4, 7)
        for address in (OTHER, OURS["4"]):
            assert transport.peer != address or address == OURS["4"]
            await exchange(stream, PATTERN[:50_000])
            send_from(lab, address)
            with trio.fail_after(5):
                while transport.peer != address:  # noqa: ASYNC110  nobody rings
                    await trio.sleep(0.05)
            await exchange(stream, PATTERN[:50_000])
    assert not log.of(Reconnecting)


async def test_a_stranger_stays_unheard(start_server) -> None:
    """What it sends is counted and changes nothing, even where it repeats what the server had sent."""
    server = start_server()
    async with open_tunnel(server.profile_file(extra=("float",)), seconds=6) as dialer:
        transport = dialer._tunnel._upkeep.connection._transport
        heard: list[bytes] = []
        receive = transport._addressed.recvfrom

        def recvfrom(size: int) -> tuple[bytes, object]:
            data, source = receive(size)
            heard.append(data)
            return data, source

        transport._addressed.recvfrom = recvfrom
        await echo(dialer, 2000)
        recorded = list(heard)
        assert recorded
        ours = ("10.77.1.2", transport._addressed._sock.getsockname()[1])
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            for datagram in (*recorded, b"", b"\x30", bytes(30), b"\x48" + bytes(1400), b"\x20" + bytes(60)):
                stranger.sendto(datagram, ours)
            await trio.sleep(0.2)
        assert transport.peer == OURS["4"]
        await echo(dialer, 2000)
        stats = dialer.stats()
        assert sum(stats.data.drops.values()) >= len(recorded)
        assert stats.control.drops


async def exchange(stream: trio.SocketStream, data: bytes) -> None:
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.send_all, data)
            got = b""
            while len(got) < len(data):
                got += await stream.receive_some()
    assert got == data
