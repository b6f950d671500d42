"""Many connections at once, and queues at the server that do not hold what all of them could send."""

from __future__ import annotations

from ipaddress import IPv4Interface
from math import inf

import pytest
from tcp_world import B4, Link, World

from minivpn_trio.config.tunnel_info import TunnelInfo
from minivpn_trio.netstack.inbound import UNLIMITED, Inbound, Share
from minivpn_trio.netstack.packets import Address
from minivpn_trio.netstack.paths import Path, Paths
from minivpn_trio.netstack.tcp.congestion import ALGORITHMS
from minivpn_trio.netstack.tcp.connection import TcpConnection
from minivpn_trio.netstack.tcp.settings import TcpSettings

MTU = 1400
#: What openvpn's tun device queues by default, and its socket.
TUN, SOCKET = 500 * MTU, 92 * MTU
#: Seconds one way, and bits a second.
DELAY, RATE = 0.00015, 1e9
#: Seconds that it takes to open another connection.
BETWEEN = 0.00005


class Unlimited(Inbound):
    """Windows as large as the buffers."""

    def begin(self, share: Share, mss: int, now: float) -> int:
        return UNLIMITED

    def limit(self, share: Share, nxt: int, mss: int, path: Path, now: float) -> int:
        share.heard = nxt
        return UNLIMITED


class Endless(Path):
    """A path with room for everything."""

    __slots__ = ()

    @property
    def room(self) -> int:
        return 1 << 20


class Alone(Paths):
    """Nobody shares anything."""

    __slots__ = ()

    def to(self, remote: Address, now: float) -> Path:
        return Endless()


def between_two(congestion: str, up: Link, down: Link, *, pacing: bool = True) -> World:
    """``a`` is ours, ``b`` somebody who knows nothing of such queues."""
    settings = TcpSettings(congestion=congestion, pacing=pacing)
    world = World(mtu=MTU, up=up, down=down, settings_a=settings, settings_b=settings)
    world.b.paths, world.b.inbound = Alone(), Unlimited()
    return world


def transfers(world: World, streams: int, size: int, *, upload: bool) -> float:
    """``streams`` of ``size`` bytes at once; how long they took. For a download each is asked for first."""
    start = world.now
    listener = world.b.listen_tcp((None, 80), start, backlog=streams)
    ours: list[TcpConnection] = []
    left: dict[TcpConnection, int] = {}
    theirs: list[TcpConnection] = []
    asked: set[TcpConnection] = set()
    received = 0
    while received < streams * size:
        while len(ours) < min(streams, 1 + (world.now - start) / BETWEEN):
            ours.append(world.a.connect_tcp((B4, 80), world.now))
        while (accepted := listener.accept()) is not None:
            theirs.append(accepted)
        for connection in ours:
            if connection.connected and connection not in asked:
                asked.add(connection)
                if upload:
                    left[connection] = size
                else:
                    connection.write(b"GET", world.now)
        for connection in theirs:
            if not upload and connection not in left and connection.receivable:
                connection.read(100, world.now)
                left[connection] = size
        for connection, rest in left.items():
            if rest:
                left[connection] -= connection.write(bytes(min(rest, 1 << 16)), world.now)
        for connection in theirs if upload else ours:
            if connection.receivable:
                received += len(connection.read(1 << 20, world.now))
        assert world.step(0.0002)
        assert world.now < start + 60
    return world.now - start


def downloads(streams: int, size: int, congestion: str, *, limited: bool = True) -> tuple[int, float]:
    """How many segments or probes were lost, and the seconds."""
    world = between_two(congestion, Link(delay=DELAY), Link(delay=DELAY, rate=RATE, queue=TUN))
    if not limited:
        world.a.inbound = Unlimited()
    seconds = transfers(world, streams, size, upload=False)
    stats = world.b.stats()
    return stats.tcp_retransmissions + stats.tcp_timeouts, seconds


def uploads(streams: int, size: int, congestion: str, *, limited: bool = True) -> tuple[int, float]:
    """The same the other way."""
    world = between_two(congestion, Link(delay=DELAY, rate=RATE, queue=SOCKET), Link(delay=DELAY))
    if not limited:
        world.a.paths = Alone()
    seconds = transfers(world, streams, size, upload=True)
    stats = world.a.stats()
    return stats.tcp_retransmissions + stats.tcp_timeouts, seconds


@pytest.mark.parametrize("congestion", sorted(ALGORITHMS))
def test_a_hundred_downloads_overflow_nothing(congestion: str) -> None:
    lost, seconds = downloads(100, 200_000, congestion)
    assert not lost
    # 20 MB at a gigabit a second, headers included, take 0.17 s.
    assert seconds < 0.35


@pytest.mark.parametrize("congestion", sorted(ALGORITHMS))
@pytest.mark.parametrize("streams", [4, 30, 100])
def test_many_uploads_overflow_nothing(congestion: str, streams: int) -> None:
    size = 20_000_000 // streams
    lost, seconds = uploads(streams, size, congestion)
    assert not lost
    assert seconds < 0.22


def test_without_shares_they_do() -> None:
    """So the tests above can fail."""
    lost, _ = downloads(100, 200_000, "cubic", limited=False)
    assert lost > 500
    lost, seconds = uploads(100, 200_000, "cubic", limited=False)
    assert lost > 500
    assert seconds > 0.6


def test_one_download_leaves_the_queue_short() -> None:
    """Whoever sends an echo request beside it waits for a millisecond or two, not for 500 packets."""
    depth: list[float] = []
    world = between_two("cubic", Link(delay=DELAY), Link(delay=DELAY, rate=RATE, queue=TUN))
    world.taps.append(lambda *_: depth.append(world.links["b"].busy_until - world.now))
    seconds = transfers(world, 1, 30_000_000, upload=False)
    assert max(depth) < 0.002
    assert 30_000_000 * 8 / seconds > 0.9e9


def test_who_waits_for_another_hears_of_its_end() -> None:
    """The other one is aborted, and nothing of its data will ever be acknowledged."""
    up = Link(delay=DELAY)
    world = between_two("cubic", up, Link(delay=DELAY), pacing=False)
    (first, _), (second, far) = world.connect(port=1), world.connect(port=2)
    for connection in (first, second):
        # Windows as after a while.
        connection.sender.congestion.window = 200 * MTU
        connection.sender.window = 1 << 20
    up.filter = lambda packet: False
    first.write(bytes(200_000), world.now)
    world.collect()
    second.write(b"x" * 5000, world.now)
    world.collect()
    assert second.sender.buffered == 5000
    up.filter = None
    first.abort(world.now)
    assert world.a.next_timeout() == pytest.approx(world.now, abs=0.01)
    world.idle(0.1)
    assert far.read(10_000, world.now) == b"x" * 5000


@pytest.mark.parametrize("congestion", sorted(ALGORITHMS))
def test_one_upload_that_has_more_in_flight_than_there_is_room_for(congestion: str) -> None:
    """Alone it may, where the queue is long. Who comes then must not wait for its end."""
    world = between_two(congestion, Link(delay=DELAY, rate=RATE, queue=TUN), Link(delay=DELAY))
    (bulk, sink), (ours, theirs) = world.connect(port=1), world.connect(port=2)
    start = world.now
    while world.now < start + 0.2:
        bulk.write(bytes(1 << 20), world.now)
        sink.read(1 << 24, world.now)
        world.step(0.0002)
    asked = world.now
    ours.write(b"GET", world.now)
    while not theirs.receivable:
        bulk.write(bytes(1 << 20), world.now)
        sink.read(1 << 24, world.now)
        world.step(0.0002)
        # The queue takes 6 ms.
        assert world.now < asked + 0.02


def test_small_segments_beside_large_ones() -> None:
    """Somebody suspects a black hole: his segments are small, and he has his share even so."""
    world = between_two("cubic", Link(delay=DELAY, rate=RATE, queue=TUN), Link(delay=DELAY))
    pairs = [world.connect(port=port) for port in (1, 2, 3)]
    pairs[2][0].set_path_mss(536)
    start, received = world.now, [0, 0, 0]
    while world.now < start + 0.3:
        for number, (ours, theirs) in enumerate(pairs):
            ours.write(bytes(1 << 20), world.now)
            received[number] += len(theirs.read(1 << 24, world.now))
        world.step(0.0002)
    assert received[2] > max(received) / 6, received


def test_an_upload_beside_many_whose_peers_do_not_hurry_to_acknowledge() -> None:
    """A segment of each is in flight for 200 ms, and in the queue for less than one."""
    settings = TcpSettings(delayed_ack=0.2)
    world = World(
        mtu=MTU, up=Link(delay=DELAY, rate=RATE, queue=SOCKET), down=Link(delay=DELAY), settings_b=settings
    )
    upload, chatter = world.connect(port=1), [world.connect(port=port) for port in range(2, 102)]
    for _ in range(20):
        # Acknowledgements come at once in the beginning.
        for ours, _ in chatter:
            ours.write(b"x", world.now)
        world.idle(0.25)
    start, sent = world.now, 0
    said = [0.0] * len(chatter)
    while world.now < start + 0.4:
        upload[0].write(bytes(1 << 20), world.now)
        sent += len(upload[1].read(1 << 24, world.now))
        for number, (ours, theirs) in enumerate(chatter):
            if said[number] and theirs.receivable >= 1300:
                assert world.now - said[number] < 0.015
                said[number] = 0.0
            if world.now > start + number / 1000 and (not ours.sender.unacknowledged):
                theirs.read(1 << 20, world.now)
                ours.write(bytes(1300), world.now)
                said[number] = world.now
        world.step(0.0002)
    assert sent * 8 / 0.4 > 0.9e9


def test_another_tunnel_is_as_long_as_it_is() -> None:
    """What a connection knew of the old one holds nobody back, nor what others find out before it."""
    world = World(up=Link(delay=DELAY), down=Link(delay=DELAY))
    ours, theirs = world.connect()
    theirs.write(bytes(1000), world.now)
    ours.write(bytes(1000), world.now)
    world.idle(0.1)
    assert ours.path.rtt < 0.01
    for link in world.links.values():
        link.delay = 0.05
    world.a.reconfigure(TunnelInfo(ipv4=IPv4Interface("10.8.0.2/24"), mtu=1400), world.now)
    theirs.write(bytes(1000), world.now)
    world.idle(1)
    assert ours.path.rtt == inf
    ours.write(bytes(1000), world.now)
    world.idle(1)
    assert ours.path.rtt == pytest.approx(0.1, abs=0.01)


def test_a_long_path_is_not_shared_out() -> None:
    """Ten uploads over 40 ms have as much in flight as each by itself, and one alone may have what it likes."""
    world = between_two("newreno", Link(delay=0.02), Link(delay=0.02), pacing=False)
    pairs = [world.connect(port=port) for port in range(1, 11)]
    for ours, _ in pairs:
        ours.sender.congestion.window = 300 * MTU
        ours.sender.window = 1 << 20
        ours.write(bytes(256 * 1024), world.now)
    world.idle(0.015)
    assert sum(ours.sender.nxt - ours.sender.una for ours, _ in pairs) > 1_000_000
