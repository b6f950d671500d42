"""The outer UDP socket: bursts, trains, what the kernel says, and cancellation."""

from __future__ import annotations

import errno
import socket
import sys
from collections.abc import Iterator

import pytest
import trio

from minivpn_trio.errors import DropReason
from minivpn_trio.netstack.tcp.settings import TcpSettings
from minivpn_trio.networkio import udp
from minivpn_trio.networkio.transport import MAX_BURST
from minivpn_trio.networkio.udp import MAX_TRAIN_SEGMENTS, UDPTransport, segmentation, train_end


@pytest.fixture
def udp_pair() -> Iterator[tuple[UDPTransport, socket.socket]]:
    """A transport and the plain socket that plays its server."""
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind(("127.0.0.1", 0))
    server.settimeout(2)
    client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    client.connect(server.getsockname())
    server.connect(client.getsockname())
    yield UDPTransport(client, "127.0.0.1"), server
    client.close()
    server.close()


def refused() -> UDPTransport:
    """A transport to a port where nobody is, after the kernel has heard of it."""
    probe = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    probe.bind(("127.0.0.1", 0))
    address = probe.getsockname()
    probe.close()
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.connect(address)
    return UDPTransport(sock, "127.0.0.1")


async def test_a_burst_is_drained_at_once_and_bounded(udp_pair: tuple[UDPTransport, socket.socket]) -> None:
    transport, server = udp_pair
    sent = [bytes([i]) * 10 for i in range(MAX_BURST + 6)]
    for datagram in sent:
        server.send(datagram)
    first = await transport.receive()
    assert first == sent[:MAX_BURST]
    assert await transport.receive() == sent[MAX_BURST:]
    assert transport.stats().packets_in == len(sent)
    assert transport.stats().bytes_in == 10 * len(sent)


@pytest.mark.parametrize(
    "sizes",
    [[100], [100] * 5, [100] * 5 + [40], [100, 200, 100], [100] * 50 + [7], [1400] * 64, [60, 1400, 1400, 60, 60]],
    ids=str,
)
async def test_datagrams_keep_their_boundaries_whatever_train_carries_them(
    udp_pair: tuple[UDPTransport, socket.socket], sizes: list[int]
) -> None:
    transport, server = udp_pair
    burst = [bytes([i]) * size for i, size in enumerate(sizes)]
    await transport.send(burst)
    assert [server.recv(65536) for _ in burst] == burst
    assert transport.stats().packets_out == len(burst)
    assert transport.stats().bytes_out == sum(sizes)


def test_trains_are_runs_of_equal_sizes_with_a_shorter_last() -> None:
    end = train_end
    assert end([b"x" * 10] * 3, 0) == 3
    assert end([b"x" * 10] * 3 + [b"y"], 0) == 4
    assert end([b"x" * 10, b"y" * 11], 0) == 1
    assert end([b"x" * 10, b"y", b"x" * 10], 0) == 2
    assert end([b"x" * 10] * 60, 0) == MAX_TRAIN_SEGMENTS
    # The default mssfix makes datagrams of 1464 bytes: a whole train of TCP's is one call.
    assert end([b"x" * 1464] * 60, 0) == TcpSettings().train_max_segments
    assert end([b"", b""], 0) == 1
    assert end([b"x" * 60000] * 2, 0) == 1


async def test_segmentation_that_the_kernel_refuses_falls_back(
    udp_pair: tuple[UDPTransport, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    transport, server = udp_pair
    calls = []

    class Refusing:
        """The socket, with a sendmsg that knows no UDP_SEGMENT."""

        def __init__(self, inner: socket.socket) -> None:
            self.send, self.getsockopt = inner.send, inner.getsockopt

        def sendmsg(self, *args: object) -> int:
            calls.append(args)
            raise OSError(errno.EINVAL, "no such option")

    inner = transport._sock
    monkeypatch.setattr(transport, "_sock", Refusing(inner))
    burst = [b"a" * 20, b"b" * 20, b"c" * 20]
    await transport.send(burst)
    await transport.send(burst)
    assert [server.recv(100) for _ in range(6)] == burst * 2
    assert len(calls) == 1, "it must not ask again"
    monkeypatch.setattr(transport, "_sock", inner)


async def test_a_closed_port_is_an_error_before_the_session_is_up() -> None:
    transport = refused()
    with trio.fail_after(2), pytest.raises(ConnectionRefusedError):
        await transport.send([b"hello"])
        await transport.receive()
    await transport.aclose()


async def test_a_closed_port_is_a_lost_packet_afterwards(autojump_clock: trio.testing.MockClock) -> None:
    transport = refused()
    transport.established()
    for _ in range(3):
        await transport.send([b"hello"])
        with trio.move_on_after(0.05):
            await transport.receive()
    assert transport.stats().drops[DropReason.NOT_READY] >= 1
    await transport.aclose()


def coalesces(transport: UDPTransport) -> int:
    """UDP_GRO as the kernel has it."""
    return transport._sock.getsockopt(17, udp.UDP_GRO)


async def receive_all(transport: UDPTransport, count: int) -> list[bytes]:
    got: list[bytes] = []
    while len(got) < count:
        burst = await transport.receive()
        assert 0 < len(burst) <= MAX_BURST
        got += burst
    return got


async def test_coalescing_is_used_where_the_host_does_it(
    udp_pair: tuple[UDPTransport, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A train that is sent in one piece stays one on the loopback device, for a socket that takes it so."""
    monkeypatch.setattr(udp, "COALESCING_TRIAL", 60)
    transport, server = udp_pair
    expected: list[bytes] = []
    for turn in range(30):
        # Two trains and a half: more than a burst holds; the last datagram of each is shorter.
        for size in (40, 40, 20):
            train = [bytes([turn, size, number]) * 300 for number in range(size)] + [b"end"]
            server.sendmsg(train, [segmentation(900)])
            expected += train
        assert await receive_all(transport, len(expected)) == expected
        expected.clear()
    assert coalesces(transport) == 1
    assert transport.stats().packets_in == 30 * 103


async def test_coalescing_is_given_up_where_the_host_does_not(
    udp_pair: tuple[UDPTransport, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(udp, "COALESCING_TRIAL", 60)
    monkeypatch.setattr(udp, "COALESCING_PAUSE", 600)
    transport, server = udp_pair
    states = []
    for turn in range(60):
        sent = [bytes([turn, number]) * 200 for number in range(20)]
        for datagram in sent:
            server.send(datagram)
        assert await receive_all(transport, len(sent)) == sent
        states.append(coalesces(transport))
    assert 1 in states, "it was tried"
    assert 0 < sum(states) < 15, "and given up, for most of the time"
    assert states[35:].count(1) > 0, "and tried again"


async def test_a_kernel_that_cannot_coalesce_is_asked_once(
    udp_pair: tuple[UDPTransport, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(udp, "UDP_GRO", 9999)
    transport, server = udp_pair
    for turn in range(3):
        for number in range(5):
            server.send(bytes([turn, number]))
        assert len(await receive_all(transport, 5)) == 5
    assert not transport._coalescing
    assert transport._look_at > 1 << 60


async def test_a_cancelled_receive_loses_nothing(udp_pair: tuple[UDPTransport, socket.socket]) -> None:
    transport, server = udp_pair
    with trio.move_on_after(0.01) as scope:
        await transport.receive()
    assert scope.cancelled_caught
    server.send(b"late")
    assert await transport.receive() == [b"late"]


async def test_closing_wakes_the_receiver(udp_pair: tuple[UDPTransport, socket.socket]) -> None:
    transport, _ = udp_pair
    async with trio.open_nursery() as nursery:

        async def receiver() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await transport.receive()

        nursery.start_soon(receiver)
        await trio.testing.wait_all_tasks_blocked()
        await transport.aclose()
        await transport.aclose()


class Script:
    """A socket from which ``events`` come, then nothing."""

    def __init__(self, *events: bytes | OSError) -> None:
        self.events = list(events)

    def recv(self, size: int) -> bytes:
        if not self.events:
            raise BlockingIOError
        event = self.events.pop(0)
        if isinstance(event, OSError):
            raise event
        return event


MORE_THAN_A_BURST: list[bytes | OSError] = [bytes([n]) for n in range(MAX_BURST + 6)]


def refusal() -> OSError:
    return ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")


@pytest.mark.parametrize(
    ("established", "events", "drains", "lost"),
    [
        (True, [b"1", refusal(), b"2", b"", refusal(), b"3"], [[b"1", b"2", b"", b"3"]], 2),
        (True, [refusal()] * udp.MAX_ERRORS_IN_A_ROW + [b"1"], [[], [b"1"]], udp.MAX_ERRORS_IN_A_ROW),
        (True, [b"1", OSError(errno.EINVAL, "Invalid argument")], [[b"1"], []], 0),
        (False, [b"1", b"2", refusal(), b"3"], [[b"1", b"2"], [b"3"]], 0),
        (False, MORE_THAN_A_BURST, [MORE_THAN_A_BURST[:MAX_BURST], MORE_THAN_A_BURST[MAX_BURST:]], 0),
    ],
    ids=["losses between", "too many", "an error behind a datagram", "not up yet", "more than a burst"],
)
def test_what_came_before_an_error_is_received(
    udp_pair: tuple[UDPTransport, socket.socket],
    monkeypatch: pytest.MonkeyPatch,
    established: bool,
    events: list[bytes | OSError],
    drains: list[list[bytes]],
    lost: int,
) -> None:
    transport, _ = udp_pair
    if established:
        transport.established()
    inner = transport._sock
    monkeypatch.setattr(transport, "_sock", Script(*events))
    assert [transport._drain() for _ in drains] == drains
    assert transport.drops[DropReason.NOT_READY] == lost
    monkeypatch.setattr(transport, "_sock", inner)


async def test_an_oversized_datagram_is_dropped_and_counted(udp_pair: tuple[UDPTransport, socket.socket]) -> None:
    transport, server = udp_pair
    await transport.send([b"x" * 65508, b"fits"])
    assert server.recv(100) == b"fits"
    assert transport.stats().drops[DropReason.TOO_LONG] == 1


class Path:
    """A connected socket on a path of ``mtu`` bytes, as Linux would have it."""

    def __init__(self, inner: socket.socket, mtu: int) -> None:
        self.inner, self.mtu = inner, mtu
        self.trains: list[int] = []
        self.singles = 0

    def getsockopt(self, level: int, option: int) -> int:
        assert (level, option) == (socket.IPPROTO_IP, 14)
        return self.mtu

    def sendmsg(self, datagrams: list[bytes], ancillary: object) -> int:
        if len(datagrams[0]) + 28 > self.mtu:
            raise OSError(errno.EINVAL, "Invalid argument")
        self.trains.append(len(datagrams))
        return sum(map(self.inner.send, datagrams))

    def send(self, datagram: bytes) -> int:
        self.singles += 1
        return self.inner.send(datagram)


@pytest.mark.skipif(sys.platform != "linux", reason="IP_MTU is Linux's")
async def test_a_path_that_narrows_and_widens(
    udp_pair: tuple[UDPTransport, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is too long goes one by one, for the kernel to fragment; trains of what fits go on."""
    transport, _ = udp_pair
    told: list[int | None] = []
    transport.on_path_mtu = lambda: told.append(transport.path_mtu)
    inner = transport._sock
    path = Path(inner, 1500)
    monkeypatch.setattr(transport, "_sock", path)
    long, short = [bytes(1400)] * 10, [bytes(900)] * 10
    await transport.send(long)
    assert (told, path.trains, path.singles) == ([1500], [10], 0)
    path.mtu = 1200
    await transport.send(long)
    assert (told, path.trains, path.singles) == ([1500, 1200], [10], 10)
    await transport.send(short)
    assert (path.trains, path.singles) == ([10, 10], 10)
    path.mtu = 1500
    for _ in range(8):
        await transport.send(long)
    assert told == [1500, 1200, 1500]
    assert path.trains[2:], "trains again"
    assert path.trains[2] == 10
    monkeypatch.setattr(transport, "_sock", inner)
