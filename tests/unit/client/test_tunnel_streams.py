"""Streams through a whole tunnel: client, memory link, server, and a real stack at either end."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock, check_half_closeable_stream

from minivpn_trio import TunDialer, open_tun_dialer, wiring
from minivpn_trio.config.model import Remote
from minivpn_trio.netstack import scapy_wire
from minivpn_trio.networkio.stream import StreamTransport
from minivpn_trio.testing import LinkConditions, VPNServer, open_vpn_server
from minivpn_trio.testing.services import echo, pattern

scapy_wire.preload()

PORT = 4000


@asynccontextmanager
async def tunnel(conditions: LinkConditions | None = None) -> AsyncIterator[tuple[VPNServer, TunDialer]]:
    async with (
        open_vpn_server(listen=False) as server,
        open_tun_dialer(server.client_config(), server.memory_dialer(conditions)) as dialer,
    ):
        yield server, dialer


async def test_streams_pass_trio_s_own_test(autojump_clock: MockClock) -> None:
    async with tunnel() as (server, dialer):
        listening = server.host.socket()
        await listening.bind((server.address, PORT))
        listening.listen(128)

        async def make_pair() -> tuple[trio.SocketStream, trio.SocketStream]:
            near = await dialer.open_tcp_stream(server.address, PORT)
            far, _ = await listening.accept()
            return near, trio.SocketStream(far)

        async def make_clogged_pair() -> tuple[trio.SocketStream, trio.SocketStream]:
            near, far = await make_pair()
            # Full when it accepts no more, although all that is on the way had time to arrive.
            for stream in (near, far):
                with trio.move_on_after(0.3) as scope:
                    while True:
                        await stream.send_all(bytes(64 * 1024))
                        scope.deadline = trio.current_time() + 0.3
            return near, far

        await check_half_closeable_stream(make_pair, make_clogged_pair)
        listening.close()


@pytest.mark.parametrize("ending", ["aclose", "send_eof", "nothing"])
@pytest.mark.parametrize("size", [1, 1000, 300_000])
@pytest.mark.parametrize("loss", [0.0, 0.02])
async def test_leaving_the_block_loses_nothing_that_was_accepted(
    autojump_clock: MockClock, ending: str, size: int, loss: float
) -> None:
    async with open_vpn_server(listen=False) as server, trio.open_nursery() as nursery:
        received: list[bytes] = []
        ended = trio.Event()

        async def collect(stream: trio.SocketStream) -> None:
            try:
                async for chunk in stream:
                    received.append(chunk)
            except trio.BrokenResourceError:
                pass
            ended.set()

        await nursery.start(server.host.serve_tcp, collect, PORT)
        conditions = LinkConditions(delay=0.02, loss=loss)
        async with open_tun_dialer(server.client_config(), server.memory_dialer(conditions, seed=size)) as dialer:
            stream = await dialer.open_tcp_stream(server.address, PORT)
            await stream.send_all(pattern(size))
            leaving = trio.current_time()
            if ending == "aclose":
                await stream.aclose()
            elif ending == "send_eof":
                await stream.send_eof()
        assert trio.current_time() - leaving < 2.5
        if ending != "nothing":
            with trio.fail_after(1):
                await ended.wait()
        assert b"".join(received) == pattern(size)
        nursery.cancel_scope.cancel()


async def test_lingering_is_bounded(autojump_clock: MockClock) -> None:
    """A peer that does not read must not keep anybody in the block."""
    async with open_vpn_server(listen=False) as server, trio.open_nursery() as nursery:

        async def ignore(stream: trio.SocketStream) -> None:
            await trio.sleep_forever()

        await nursery.start(server.host.serve_tcp, ignore, PORT)
        async with open_tun_dialer(server.client_config(), server.memory_dialer()) as dialer:
            stream = await dialer.open_tcp_stream(server.address, PORT)
            with trio.move_on_after(1):
                while True:
                    await stream.send_all(bytes(100_000))
            leaving = trio.current_time()
        assert 1.5 <= trio.current_time() - leaving <= 2.5
        nursery.cancel_scope.cancel()


async def test_nobody_lingers_for_himself(autojump_clock: MockClock) -> None:
    """What was sent to ourselves and not read would never be."""
    async with open_vpn_server(listen=False) as server:
        async with open_tun_dialer(server.client_config(), server.memory_dialer()) as dialer:
            with dialer.as_trio_sockets():
                listener, *others = await trio.open_tcp_listeners(PORT)
                stream = await trio.open_tcp_stream("127.0.0.1", PORT)
                with trio.move_on_after(1):
                    while True:
                        await stream.send_all(bytes(100_000))
            leaving = trio.current_time()
        assert trio.current_time() - leaving < 0.1
        for each in (stream, listener, *others):
            await trio.aclose_forcefully(each)


@pytest.mark.parametrize("how", ["raise", "cancel"])
async def test_only_a_clean_end_lingers(autojump_clock: MockClock, how: str) -> None:
    async with open_vpn_server(listen=False) as server, trio.open_nursery() as nursery:

        async def ignore(stream: trio.SocketStream) -> None:
            await trio.sleep_forever()

        await nursery.start(server.host.serve_tcp, ignore, PORT)
        with trio.CancelScope() as scope:
            try:
                async with open_tun_dialer(server.client_config(), server.memory_dialer()) as dialer:
                    stream = await dialer.open_tcp_stream(server.address, PORT)
                    with trio.move_on_after(1):
                        while True:
                            await stream.send_all(bytes(100_000))
                    leaving = trio.current_time()
                    if how == "raise":
                        raise ZeroDivisionError
                    scope.cancel()
                    await trio.lowlevel.checkpoint()
            except ZeroDivisionError:
                pass
        assert trio.current_time() - leaving < 0.1
        nursery.cancel_scope.cancel()


async def test_an_idle_tunnel_is_left_at_once(autojump_clock: MockClock) -> None:
    async with open_vpn_server(listen=False) as server:
        async with open_tun_dialer(server.client_config(), server.memory_dialer()):
            leaving = trio.current_time()
        assert trio.current_time() - leaving < 0.01


@pytest.mark.parametrize("direct", [True, False])
async def test_a_last_datagram_still_leaves(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, direct: bool
) -> None:
    if not direct:
        monkeypatch.setattr(wiring, "EDGES", tuple(edge._replace(direct=False) for edge in wiring.EDGES))
    async with open_vpn_server(listen=False) as server:
        with server.host.socket(trio.socket.SOCK_DGRAM) as far:
            await far.bind((server.address, PORT))
            async with open_tun_dialer(server.client_config(), server.memory_dialer()) as dialer:
                with dialer.open_udp_socket() as near:
                    await near.sendto(b"the last word", (server.address, PORT))
            with trio.fail_after(1):
                assert (await far.recvfrom(100))[0] == b"the last word"


async def test_a_tunnel_through_a_tunnel(autojump_clock: MockClock) -> None:
    """The inner one's stream to its server is a stream of the outer one."""
    async with (
        open_vpn_server(listen=False, proto="tcp") as inner_server,
        open_vpn_server(listen=False) as outer_server,
        trio.open_nursery() as nursery,
    ):
        await nursery.start(inner_server.host.serve_tcp, echo, PORT)
        await nursery.start(
            outer_server.host.serve_tcp, lambda stream: inner_server.serve_transport(StreamTransport(stream)), 1194
        )
        async with open_tun_dialer(outer_server.client_config(), outer_server.memory_dialer()) as outer:

            async def connect(remote: Remote) -> trio.SocketStream:
                return await outer.open_tcp_stream(outer_server.address, 1194)

            async with open_tun_dialer(inner_server.client_config(), connect) as inner:
                stream = await inner.open_tcp_stream(inner_server.address, PORT)
                data = pattern(100_000)
                got = bytearray()
                async with trio.open_nursery() as sending:
                    sending.start_soon(stream.send_all, data)
                    while len(got) < len(data):
                        got += await stream.receive_some()
                assert got == data
                await stream.aclose()
            with trio.fail_after(5):
                await inner_server.wait_for_clients(0)
        nursery.cancel_scope.cancel()


async def test_the_end_of_a_tunnel_breaks_its_streams_at_once(autojump_clock: MockClock) -> None:
    async with tunnel() as (server, dialer), trio.open_nursery() as nursery:

        async def ignore(stream: trio.SocketStream) -> None:
            await trio.sleep_forever()

        await nursery.start(server.host.serve_tcp, ignore, PORT)
        stream = await dialer.open_tcp_stream(server.address, PORT)
        with trio.fail_after(1):
            server.send_message("HALT")
            with pytest.raises(trio.BrokenResourceError) as caught:
                await stream.receive_some()
            assert isinstance(caught.value.__cause__, OSError)
            with pytest.raises(trio.BrokenResourceError):
                await stream.send_all(b"x")
        nursery.cancel_scope.cancel()
