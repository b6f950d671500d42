"""Two stacks over a bad link: every byte arrives, once, in order, and everything ends."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from tcp_world import Link, Transfer, World

from minivpn_trio.netstack.numbering import Numbering
from minivpn_trio.netstack.tcp.connection import TcpConnection, TcpState
from minivpn_trio.netstack.tcp.settings import TcpSettings

MEGABYTE = random.Random(7).randbytes(1_000_000)


def finish(world: World, *connections: TcpConnection) -> None:
    """Both ends shut down: both must be over, in order, and forgotten."""
    for connection in connections:
        connection.shutdown_write(world.now)
    world.run(lambda: all(connection.state is TcpState.CLOSED for connection in connections), limit=900)
    for connection in connections:
        assert connection.error is None
    assert world.a.stats().tcp_connections == world.b.stats().tcp_connections == 0


def both_ways(
    world: World, data: bytes = MEGABYTE, *, family: int = 4, limit: float = 900.0, chunk: int = 65536
) -> float:
    """``data`` up and, reversed, down at once; the virtual seconds it took."""
    ours, theirs = world.connect(family=family)
    start = world.now
    up = Transfer(world, ours, theirs, data, chunk=chunk)
    down = Transfer(world, theirs, ours, data[::-1], chunk=chunk)
    world.run(lambda: up.pump() & down.pump(), limit)
    took = world.now - start
    assert bytes(up.received) == data
    assert bytes(down.received) == data[::-1]
    finish(world, ours, theirs)
    return took


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("loss", [0.0, 0.001, 0.01, 0.05, 0.2])
def test_loss(loss: float, family: int) -> None:
    world = World(seed=3, up=Link(loss=loss), down=Link(loss=loss))
    data = MEGABYTE if loss < 0.1 else MEGABYTE[:200_000]
    both_ways(world, data, family=family)


@pytest.mark.parametrize("seed", range(4))
def test_everything_at_once(seed: int) -> None:
    bad = Link(loss=0.03, duplicate=0.05, reorder=0.2, jitter=0.02, corrupt=0.02)
    world = World(seed=seed, up=replace(bad), down=replace(bad))
    both_ways(world, MEGABYTE[:300_000])


def test_reordering_alone_loses_nothing() -> None:
    world = World(up=Link(reorder=0.3, jitter=0.005), down=Link(reorder=0.3, jitter=0.005))
    both_ways(world)
    assert world.a.stats().tcp_timeouts == 0


@pytest.mark.parametrize("sack", [True, False])
@pytest.mark.parametrize("timestamps", [True, False])
def test_without_options(sack: bool, timestamps: bool) -> None:
    plain = TcpSettings(sack=sack, timestamps=timestamps)
    world = World(seed=5, up=Link(loss=0.01), down=Link(loss=0.01), settings_b=plain)
    both_ways(world, MEGABYTE[:400_000])


@pytest.mark.parametrize("buffer", [1, 100, 1000, 3000, 65535])
def test_tiny_windows(buffer: int) -> None:
    tiny = TcpSettings(receive_buffer=buffer, receive_buffer_max=buffer)
    world = World(settings_b=tiny)
    both_ways(world, MEGABYTE[: min(buffer * 300, 200_000)])


@pytest.mark.parametrize("seed", [36, 40, 73, 76, 79, 84])
def test_reordering_in_the_first_round_trips_does_no_lasting_damage(seed: int) -> None:
    """5 ms of it on a path of 50 ms. With four of these seeds a segment of the first few comes so late that it is
    called lost, and arrives before it was sent again: the window may not suffer from it."""

    def link() -> Link:
        return Link(delay=0.025, rate=100e6, queue=1 << 20, jitter=0.005, reorder=0.3)

    world = World(seed=seed, up=link(), down=link())
    ours, theirs = world.connect()
    start = world.now
    transfer = Transfer(world, ours, theirs, bytes(10_000_000), chunk=1 << 18)
    world.run(transfer.pump)
    assert 80e6 / (world.now - start) > 50e6


@pytest.mark.parametrize("loss", [0.0, 0.05])
def test_slow_reader_closes_the_window_and_opens_it_again(loss: float) -> None:
    """The window fills, is probed, and opens; even if the update is lost."""
    world = World(seed=11, up=Link(loss=loss), down=Link(loss=loss))
    ours, theirs = world.connect()
    data = MEGABYTE * 2
    up = Transfer(world, ours, theirs, data)
    written = 0
    for _ in range(12):
        view = memoryview(data)
        while ours.writable and (taken := ours.write(view[written : written + 100_000], world.now)):
            written += taken
        world.idle(5.0)
    assert theirs.receivable <= TcpSettings().receive_buffer
    assert ours.sender.window - (ours.sender.nxt - ours.sender.una) < ours.sender.mss
    up.left = view[written:]
    world.run(up.pump, 900)
    assert bytes(up.received) == data


def test_byte_by_byte_reader_gets_no_silly_segments() -> None:
    """A one-byte reader: the window opens by segments, not by bytes (RFC 9293, 3.8.6.2)."""
    small = TcpSettings(receive_buffer=8192, receive_buffer_max=8192)
    world = World(settings_b=small)
    ours, theirs = world.connect()
    sizes: list[int] = []
    world.taps.append(lambda name, packet: sizes.append(len(packet) - 52) if name == "a" and len(packet) > 52 else None)
    up = Transfer(world, ours, theirs, MEGABYTE[:30_000], read=1)
    while not up.pump():
        theirs.read(1, world.now)
        assert world.step()
    assert bytes(up.received) == MEGABYTE[: len(up.received)]
    assert sum(size >= 500 for size in sizes) >= len(sizes) - 4


@pytest.mark.parametrize("back", [1, 100, 500_000, 2**31])
def test_sequence_numbers_wrap(monkeypatch: pytest.MonkeyPatch, back: int) -> None:
    monkeypatch.setattr(Numbering, "initial_sequence", lambda *args: 2**32 - back)
    world = World(seed=9, up=Link(loss=0.01), down=Link(loss=0.01))
    both_ways(world)


def test_half_close() -> None:
    world = World(seed=2, up=Link(loss=0.02), down=Link(loss=0.02))
    ours, theirs = world.connect()
    up = Transfer(world, ours, theirs, b"request")
    world.run(up.pump)
    assert theirs.eof
    assert ours.state is not TcpState.CLOSED
    down = Transfer(world, theirs, ours, MEGABYTE)
    world.run(down.pump)
    assert bytes(down.received) == MEGABYTE
    finish(world, ours, theirs)


def test_simultaneous_open_and_close() -> None:
    """Both send SYN before either arrives (RFC 9293, 3.5)."""
    world = World()
    ours = world.a.connect_tcp((world.b.addresses[0], 5000), world.now, (world.a.addresses[0], 6000))
    theirs = world.b.connect_tcp((world.a.addresses[0], 6000), world.now, (world.b.addresses[0], 5000))
    world.run(lambda: ours.connected and theirs.connected)
    up = Transfer(world, ours, theirs, MEGABYTE[:100_000])
    world.run(up.pump)
    assert bytes(up.received) == MEGABYTE[:100_000]
    finish(world, ours, theirs)


def test_both_close_at_once() -> None:
    world = World()
    ours, theirs = world.connect()
    world.idle(1)
    finish(world, ours, theirs)


@pytest.mark.parametrize("loss", [0.0, 0.1])
def test_close_delivers_in_the_background(loss: float) -> None:
    roomy = TcpSettings(send_buffer=1 << 20)
    world = World(seed=4, up=Link(loss=loss), down=Link(loss=loss), settings_a=roomy)
    ours, theirs = world.connect()
    down = Transfer(world, ours, theirs, MEGABYTE[:500_000])
    assert not down.pump()
    ours.close(world.now)
    world.run(down.pump)
    assert bytes(down.received) == MEGABYTE[:500_000]
    theirs.close(world.now)
    world.run(lambda: world.b.stats().tcp_connections + world.a.stats().tcp_connections == 0, 900)


def test_many_connections_leave_nothing() -> None:
    world = World(seed=8, up=Link(loss=0.01), down=Link(loss=0.01))
    listener = world.b.listen_tcp((None, 80), world.now, backlog=128)
    clients = [world.a.connect_tcp((world.b.addresses[0], 80), world.now) for _ in range(100)]
    servers: list[TcpConnection] = []

    def accepted() -> bool:
        while (connection := listener.accept()) is not None:
            servers.append(connection)
        return len(servers) == 100 and all(client.connected for client in clients)

    world.run(accepted, 200)
    by_port = {server.remote[1]: server for server in servers}
    transfers = [
        Transfer(world, client, by_port[client.local[1]], MEGABYTE[index : index + 5000])
        for index, client in enumerate(clients)
    ]
    world.run(lambda: sum(not transfer.pump() for transfer in transfers) == 0, 300)
    for index, transfer in enumerate(transfers):
        assert bytes(transfer.received) == MEGABYTE[index : index + 5000]
    for connection in [*clients, *servers]:
        connection.close(world.now)
    world.run(lambda: world.b.stats().tcp_connections + world.a.stats().tcp_connections == 0, 900)
    world.idle(200)
    assert world.a.next_timeout() is None or world.a.next_timeout() > world.now


UNBOUNDED = TcpSettings(initial_ssthresh_segments=None)


@pytest.mark.parametrize(
    ("delay", "rate", "loss", "settings", "floor"),
    [
        # The floors are about half of what was measured when this was written; without loss, three quarters.
        (0.010, 100e6, 0.0, TcpSettings(), 45e6),
        (0.010, 100e6, 0.0, UNBOUNDED, 60e6),
        (0.050, 50e6, 0.0, UNBOUNDED, 20e6),
        (0.010, 100e6, 0.001, TcpSettings(), 8e6),
        (0.010, 100e6, 0.01, TcpSettings(), 2.5e6),
    ],
)
def test_throughput_does_not_collapse(
    delay: float, rate: float, loss: float, settings: TcpSettings, floor: float
) -> None:
    size = 16_000_000 if not loss else 8_000_000
    data = bytes(size)
    speeds = []
    for seed in (1, 2, 3):
        world = World(
            seed=seed,
            up=Link(delay=delay, rate=rate, loss=loss),
            down=Link(delay=delay, rate=rate),
            settings_a=settings,
        )
        ours, theirs = world.connect()
        start = world.now
        up = Transfer(world, ours, theirs, data)
        world.run(up.pump)
        assert len(up.received) == size
        speeds.append(size * 8 / (world.now - start))
    assert sorted(speeds)[1] > floor, [f"{speed / 1e6:.1f} Mbit/s" for speed in speeds]
