"""The sockets of a dialer against the kernel's stack at the other end of the tunnel."""

from __future__ import annotations

import contextlib
import errno
import socket
import ssl

import pytest
import trio
import trio.testing

from tests.interop.exchanges import download, echo, open_tunnel, upload
from tests.interop.lab.lab import TUN_IPV4
from tests.interop.lab.services import PATTERN


@pytest.fixture
async def dialer(start_server):
    async with open_tunnel(start_server().profile_file()) as made:
        yield made


async def test_stream_is_a_socket_stream(dialer) -> None:
    stream = await dialer.open_tcp_stream(TUN_IPV4, 7)
    assert isinstance(stream, trio.SocketStream)
    await stream.aclose()


async def test_half_close_by_us(dialer) -> None:
    """After our FIN the server's answer still comes."""
    await upload(dialer, 300_000)


async def test_full_duplex_echo(dialer) -> None:
    await echo(dialer, 2 << 20)


async def test_many_streams_at_once(dialer) -> None:
    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(download, dialer, 300_000)
            nursery.start_soon(upload, dialer, 100_000)


async def test_slow_reader_holds_the_sender_back(dialer) -> None:
    """Flow control: nothing is read for a while, nothing is lost, memory stays bounded."""
    stream = await dialer.open_tcp_stream(TUN_IPV4, 19)
    async with stream:
        await trio.sleep(1.5)
        before = dialer.stats().data.bytes_in
        await trio.sleep(1)
        assert dialer.stats().data.bytes_in - before < 4096  # window probes, no data
        assert before < 16 << 20
        received = b""
        with trio.fail_after(20):
            while len(received) < 3 * len(PATTERN):
                received += await stream.receive_some()
    assert received[: 3 * len(PATTERN)] == PATTERN * 3


async def test_reset_by_the_server(dialer) -> None:
    stream = await dialer.open_tcp_stream(TUN_IPV4, 20)
    async with stream:
        await stream.send_all(b"x")
        with trio.fail_after(5), pytest.raises(trio.BrokenResourceError):
            await stream.receive_some(1)


async def test_tls_inside(dialer, lab) -> None:
    context = ssl.create_default_context(cadata=lab.credentials.ca.pem)
    stream = await dialer.open_ssl_over_tcp_stream("web.lab", 443, ssl_context=context, https_compatible=True)
    async with stream:
        await stream.send_all(b"GET /bytes/50000 HTTP/1.1\r\nHost: web.lab\r\nConnection: close\r\n\r\n")
        with trio.fail_after(10):
            body = b"".join([part async for part in stream]).partition(b"\r\n\r\n")[2]
    assert body == PATTERN[:50000]


async def test_ping(dialer) -> None:
    with trio.fail_after(5):
        rtts = [await dialer.ping(TUN_IPV4) for _ in range(10)]
    assert all(0 < rtt < 1 for rtt in rtts)


@pytest.mark.parametrize("size", [0, 1, 1000, 1472])
async def test_ping_sizes(dialer, size) -> None:
    with trio.fail_after(5):
        assert await dialer.ping(TUN_IPV4, size=size) > 0


async def test_ping_that_does_not_fit(dialer) -> None:
    with pytest.raises(OSError) as caught:
        await dialer.ping(TUN_IPV4, size=4000)
    assert caught.value.errno == errno.EMSGSIZE


@pytest.mark.parametrize("size", [0, 1, 512, 1400, 1472, 4000])
async def test_udp_echo(dialer, size) -> None:
    payload = PATTERN[:size]
    udp = dialer.open_udp_socket()
    with udp, trio.fail_after(5):
        await udp.sendto(payload, (TUN_IPV4, 7))
        data, source = await udp.recvfrom(65535)
    assert data == payload
    assert source[:2] == (TUN_IPV4, 7)


async def test_udp_to_a_closed_port(dialer) -> None:
    """A connected UDP socket hears of the ICMP error."""
    udp = dialer.open_udp_socket()
    with udp, trio.fail_after(5):
        await udp.connect((TUN_IPV4, 4444))
        await udp.send(b"anybody?")
        with pytest.raises(ConnectionRefusedError):
            await udp.recv(100)


async def test_names_are_resolved_inside(dialer) -> None:
    with trio.fail_after(10):
        found = await dialer.getaddrinfo("web.lab", 80, type=socket.SOCK_STREAM)
    assert (TUN_IPV4, 80) in [entry[4][:2] for entry in found]
    await download(dialer, 10_000, host="web.lab")


async def test_truncated_answer_is_asked_again_by_tcp(dialer) -> None:
    with trio.fail_after(10):
        found = await dialer.getaddrinfo("big.lab", 80, type=socket.SOCK_STREAM)
    assert len({entry[4][0] for entry in found}) == 400


async def test_unknown_name(dialer) -> None:
    with trio.fail_after(10), pytest.raises(socket.gaierror) as caught:
        await dialer.open_tcp_stream("none.lab", 80)
    assert caught.value.errno == socket.EAI_NONAME


async def test_nothing_is_dialled_outside(dialer) -> None:
    """The server's outer address is reachable from this machine, but the tunnel's stack has no way out."""
    before = dialer.stats().data.packets_out
    with trio.move_on_after(1.5), contextlib.suppress(OSError):
        await dialer.open_tcp_stream("10.77.1.2", 1)
    assert dialer.stats().data.packets_out > before
