"""Many downloads at once, and a queue at the far end of the tunnel that does not hold what all of them could send."""

from __future__ import annotations

import pytest
from tcp_world import B4, Link, World

from minivpn_trio.netstack.inbound import UNLIMITED, Inbound, Share
from minivpn_trio.netstack.tcp.connection import TcpConnection
from minivpn_trio.netstack.tcp.settings import TcpSettings

#: What openvpn's tun device queues by default.
PACKETS = 500
MTU = 1400
#: Seconds that it takes to open another connection.
BETWEEN = 0.00005


class Unlimited(Inbound):
    """No limits."""

    def begin(self, share: Share, mss: int, now: float) -> int:
        return UNLIMITED

    def limit(self, share: Share, nxt: int, mss: int, remote: bytes, rtt: float, now: float) -> int:
        share.pool, share.heard = UNLIMITED, nxt
        return UNLIMITED


def downloads(streams: int, size: int, *, congestion: str, limited: bool = True) -> tuple[World, float]:
    """``streams`` of ``size`` bytes at once, all over 0.3 ms at a gigabit a second; how long it took."""
    world = World(
        mtu=MTU,
        up=Link(delay=0.00015),
        down=Link(delay=0.00015, rate=1e9, queue=PACKETS * MTU),
        settings_b=TcpSettings(congestion=congestion),
    )
    if not limited:
        world.a.inbound = Unlimited()
    start = world.now
    listener = world.b.listen_tcp((None, 80), start, backlog=streams)
    ours: list[TcpConnection] = []
    asked: set[int] = set()
    left: dict[TcpConnection, int] = {}
    asking: set[TcpConnection] = set()
    received = 0
    while received < streams * size:
        while len(ours) < min(streams, 1 + (world.now - start) / BETWEEN):
            ours.append(world.a.connect_tcp((B4, 80), world.now))
        for number, connection in enumerate(ours):
            if connection.connected and number not in asked:
                asked.add(number)
                connection.write(b"GET", world.now)
            received += len(connection.read(1 << 20, world.now)) if connection.readable else 0
        while (accepted := listener.accept()) is not None:
            left[accepted] = size
        for connection, rest in left.items():
            if connection.receivable:
                connection.read(100, world.now)
                asking.add(connection)
            if rest and connection in asking:
                left[connection] -= connection.write(bytes(min(rest, 1 << 16)), world.now)
        assert world.step(0.0002)
        assert world.now < start + 60
    return world, world.now - start


@pytest.mark.parametrize("congestion", ["cubic", "bbr", "newreno"])
def test_a_hundred_downloads_overflow_nothing(congestion: str) -> None:
    world, seconds = downloads(100, 200_000, congestion=congestion)
    stats = world.b.stats()
    assert stats.tcp_retransmissions + stats.tcp_timeouts == 0
    # 20 MB at a gigabit a second, headers included, take 0.17 s.
    assert seconds < 0.35


def test_without_shares_they_do() -> None:
    """So the test above can fail."""
    world, _ = downloads(100, 200_000, congestion="cubic", limited=False)
    assert world.b.stats().tcp_retransmissions > 500


def test_one_download_leaves_the_queue_short() -> None:
    """Whoever sends an echo request beside it waits for a millisecond or two, not for 500 packets."""
    depth: list[float] = []
    world = World(
        mtu=MTU,
        up=Link(delay=0.00015),
        down=Link(delay=0.00015, rate=1e9, queue=PACKETS * MTU),
        settings_b=TcpSettings(congestion="cubic"),
    )
    ours, theirs = world.connect()
    left, received, size, start = 30_000_000, 0, 30_000_000, world.now
    while received < size:
        if left:
            left -= theirs.write(bytes(min(left, 1 << 20)), world.now)
        received += len(ours.read(1 << 20, world.now))
        assert world.step(0.0002)
        depth.append(max(world.links["b"].busy_until - world.now, 0))
    assert max(depth) < 0.002
    assert received * 8 / (world.now - start) > 0.9e9
