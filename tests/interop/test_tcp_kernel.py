"""Our TCP against Linux's, over a tun device."""

from __future__ import annotations

import errno
import random
from functools import partial

import pytest
from kernel_peer import ECHO, ECHO_CLOSER, KERNELS, KERNELS6, SINK, SOURCE, KernelWorld, kernel_world

from minivpn_trio.errors import DropReason
from minivpn_trio.netstack.tcp.connection import TcpConnection, TcpState
from minivpn_trio.netstack.tcp.settings import TcpSettings

pytestmark = pytest.mark.interop

DATA = random.Random(5).randbytes(2_000_000)


def dial(world: KernelWorld, port: int, remote: bytes = KERNELS) -> TcpConnection:
    connection = world.stack.connect_tcp((remote, port), world.now)
    world.run(lambda: connection.connected or connection.error is not None)
    return connection


def exchange(world: KernelWorld, connection: TcpConnection, data: bytes, limit: float) -> bytes:
    """Write ``data`` and the end, read until the end."""
    left, received = memoryview(data), bytearray()

    def pump() -> bool:
        nonlocal left
        while left and (taken := connection.write(left[:65536], world.now)):
            left = left[taken:]
        if not left:
            connection.shutdown_write(world.now)
        while connection.receivable:
            received.extend(connection.read(1 << 20, world.now))
        return connection.eof

    world.run(pump, limit)
    world.run(lambda: connection.state is TcpState.CLOSED)
    assert connection.error is None
    return bytes(received)


@pytest.mark.parametrize("remote", [KERNELS, KERNELS6], ids=["ipv4", "ipv6"])
@pytest.mark.parametrize(
    ("delay", "loss", "reorder", "size"),
    [(0.0, 0.0, 0.0, 2_000_000), (0.005, 0.01, 0.0, 500_000), (0.005, 0.1, 0.0, 100_000), (0.005, 0.0, 0.3, 500_000)],
)
def test_echo(delay: float, loss: float, reorder: float, size: int, remote: bytes) -> None:
    with kernel_world(delay=delay, loss=loss, reorder=reorder) as world:
        connection = dial(world, ECHO, remote)
        assert exchange(world, connection, DATA[:size], 60) == DATA[:size]
        # The kernel also sends multicast, which is not for us.
        assert set(world.stack.drops) <= {DropReason.BAD_ADDRESS}


@pytest.mark.parametrize(
    "settings", [TcpSettings(sack=False), TcpSettings(timestamps=False)], ids=["no sack", "no timestamps"]
)
def test_echo_without(settings: TcpSettings) -> None:
    with kernel_world(delay=0.002, loss=0.02, settings=settings) as world:
        assert exchange(world, dial(world, ECHO), DATA[:300_000], 60) == DATA[:300_000]


def test_small_receive_window() -> None:
    """The kernel respects our window, and we keep it honest: nothing is dropped for being outside of it."""
    with kernel_world(settings=TcpSettings(receive_buffer=5000, receive_buffer_max=5000)) as world:
        assert exchange(world, dial(world, ECHO), DATA[:200_000], 60) == DATA[:200_000]


def test_closed_port_is_refused_at_once() -> None:
    with kernel_world() as world:
        start = world.now
        connection = dial(world, 12345)
        assert connection.error is not None and connection.error.errno == errno.ECONNREFUSED
        assert world.now - start < 1


def test_reset_by_the_kernel() -> None:
    with kernel_world() as world:
        connection = dial(world, ECHO_CLOSER)
        connection.write(b"x", world.now)
        world.run(lambda: connection.error is not None)
        assert connection.error is not None and connection.error.errno == errno.ECONNRESET


def test_hundred_connections() -> None:
    with kernel_world(delay=0.001, loss=0.005) as world:
        connections = [world.stack.connect_tcp((KERNELS, ECHO), world.now) for _ in range(100)]
        received = [bytearray() for _ in connections]
        sent: set[int] = set()

        def pump() -> bool:
            done = True
            for index, connection in enumerate(connections):
                if connection.connected and index not in sent:
                    sent.add(index)
                    connection.write(DATA[index : index + 10_000], world.now)
                    connection.shutdown_write(world.now)
                if connection.receivable:
                    received[index] += connection.read(1 << 20, world.now)
                done = done and index in sent and connection.eof
            return done

        world.run(pump, 60)
        for index, data in enumerate(received):
            assert data == DATA[index : index + 10_000]
        world.run(lambda: world.stack.stats().tcp_connections == 0)


def test_a_thousand_echoes_at_once() -> None:
    """The bar is 2.5 s, several times what a quiet machine of today takes, for the best of three tries: others may use
    the machine. Figures are printed (pytest -s)."""
    best = float("inf")
    for _ in range(3):
        best = min(best, thousand_echoes())
        print(f"\n1,000 echoes in {best:.2f} s")
        if best < 2.5:
            return
    raise AssertionError(f"{best:.2f} s at best")


def thousand_echoes() -> float:
    """How long it takes, seconds. All are open before the first one says anything."""
    with kernel_world() as world:
        start = world.now
        connections = [world.stack.connect_tcp((KERNELS, ECHO), world.now) for _ in range(1000)]
        world.run(lambda: all(connection.connected for connection in connections), 30)
        received = [bytearray() for _ in connections]
        changed: set[int] = set()
        for index, connection in enumerate(connections):
            connection.on_change = partial(changed.add, index)
            assert connection.write(DATA[index : index + 1000], world.now) == 1000
            connection.shutdown_write(world.now)
        left = set(range(1000))

        def pump() -> bool:
            while changed:
                index = changed.pop()
                connection = connections[index]
                while connection.receivable:
                    received[index] += connection.read(1 << 20, world.now)
                if connection.eof:
                    left.discard(index)
            return not left

        world.run(pump, 30)
        took = world.now - start
        for index, data in enumerate(received):
            assert data == DATA[index : index + 1000]
            assert connections[index].error is None
        world.run(lambda: world.stack.stats().tcp_connections == 0)
        return took


def test_bulk_download_and_upload() -> None:
    """20 MB each way; figures are printed (pytest -s), since the machine decides about them."""
    with kernel_world() as world:
        size = 20_000_000
        connection = dial(world, SOURCE)
        start = world.now
        connection.write(size.to_bytes(8, "big"), world.now)
        total = 0

        def pump() -> bool:
            nonlocal total
            total += len(connection.read(1 << 22, world.now))
            return connection.eof

        world.run(pump, 60)
        assert total == size
        print(f"\ndownload {size * 8e-6 / (world.now - start):.0f} Mbit/s")
        connection.close(world.now)
        connection = dial(world, SINK)
        start = world.now
        counted = exchange(world, connection, bytes(size), 60)
        print(f"upload {size * 8e-6 / (world.now - start):.0f} Mbit/s {world.stack.stats()}")
        assert int.from_bytes(counted, "big") == size
