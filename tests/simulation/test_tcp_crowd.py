"""Many connections that do what they like: whatever they share is given back, and nobody waits for nothing.

From seeds: opens, writes, pauses of the reader, ends of every kind, losses, outages, smaller segments, other tunnels.
"""

from __future__ import annotations

import random
from collections import Counter
from ipaddress import IPv4Interface, IPv6Interface

import pytest
from tcp_world import A4, B4, B6, Link, World

from minivpn_trio.config.tunnel_info import TunnelInfo
from minivpn_trio.netstack.paths import Path
from minivpn_trio.netstack.stack import Limits, Stack
from minivpn_trio.netstack.tcp.connection import TcpConnection, TcpState
from minivpn_trio.netstack.tcp.settings import TcpSettings

MTU = 1400
INFO = TunnelInfo(ipv4=IPv4Interface("10.8.0.2/24"), ipv6=IPv6Interface("fd00::2/64"), mtu=MTU)


def check(stack: Stack) -> None:
    """What must be true between any two steps."""
    flying: Counter[Path] = Counter()
    alive: set[object] = set(stack._connections.values())
    for connection in stack._connections.values():
        assert 0 <= connection.flying <= connection.sender.board.pipe
        assert connection.sender.board.pipe <= connection.sender.nxt - connection.sender.una
        flying[connection.path] += connection.flying
    for path in {*flying, *stack.paths._held, *(path for path, _ in stack.paths._known.values())}:
        assert path.flying == flying[path]
        assert alive.issuperset([*path.recent, *path.waiting._few, *path.waiting._many])
        if path.waiting:
            assert path in stack.paths._held
            # They hear of the time when there is room.
            assert stack.paths.due or (path.flying and not path.room and path.recent)


class Crowd:
    """Connections of ``a`` to ``b``, and to itself."""

    def __init__(self, seed: int) -> None:
        self.source = source = random.Random(seed)
        choose = source.choice
        self.world = World(
            seed=seed,
            mtu=MTU,
            up=self.link(),
            down=self.link(),
            settings_a=TcpSettings(congestion=choose(["bbr", "cubic", "newreno"]), pacing=choose([True, False])),
            settings_b=TcpSettings(
                delayed_ack=choose([0.04, 0.2]),
                receive_buffer=choose([3000, 65_536, 524_288]),
                receive_buffer_max=choose([65_536, 8 << 20]),
            ),
            limits=Limits(output_data=choose([48, 192])),
        )
        self.listeners = [stack.listen_tcp((None, 80), self.world.now) for stack in (self.world.a, self.world.b)]
        self.ours: list[TcpConnection] = []
        self.theirs: dict[tuple[bytes, int], TcpConnection] = {}
        #: What was written by whom, and read from him.
        self.written: dict[TcpConnection, bytearray] = {}
        self.read: dict[TcpConnection, bytearray] = {}
        self.paused: set[TcpConnection] = set()

    def link(self) -> Link:
        choose = self.source.choice
        return Link(
            delay=choose([0.0002, 0.0002, 0.002, 0.03]),
            rate=choose([None, 1e9, 5e7]),
            queue=choose([20 * MTU, 92 * MTU, 500 * MTU]),
            loss=choose([0, 0, 0.01, 0.05]),
        )

    @property
    def everybody(self) -> list[TcpConnection]:
        return [*self.ours, *self.theirs.values()]

    def other(self, connection: TcpConnection) -> TcpConnection | None:
        """The far end of one of ours, once it was accepted."""
        return self.theirs.get(connection.local)

    def accept(self) -> None:
        for listener in self.listeners:
            while (accepted := listener.accept()) is not None:
                self.theirs[accepted.remote] = accepted

    def write(self, connection: TcpConnection, size: int) -> None:
        if connection.connected and connection.error is None and not connection.sender.fin:
            data = self.source.randbytes(size)
            accepted = connection.write(data, self.world.now)
            self.written.setdefault(connection, bytearray()).extend(data[:accepted])

    def drain(self) -> None:
        for connection in self.everybody:
            if connection not in self.paused and connection.receivable:
                self.read.setdefault(connection, bytearray()).extend(connection.read(1 << 20, self.world.now))

    def act(self) -> None:
        """Anything."""
        source, world = self.source, self.world
        what = source.random()
        alive = [connection for connection in self.everybody if connection.state is not TcpState.CLOSED]
        if what < 0.1 or not alive:
            if len(alive) < 60:
                self.ours.append(world.a.connect_tcp((source.choice([B4, B4, B4, B6, A4]), 80), world.now))
            return
        connection = source.choice(alive)
        if what < 0.8:
            self.write(connection, source.choice([1, 500, 1400, 5000, 60_000, 200_000]))
        elif what < 0.9:
            self.paused.symmetric_difference_update({connection})
        elif what < 0.93:
            connection.set_nodelay(source.random() < 0.5, world.now)
        elif what < 0.95:
            connection.set_path_mss(source.choice([536, 1000, 1340]))
        elif what < 0.96 and connection.connected:
            connection.shutdown_write(world.now)
        elif what < 0.97:
            connection.abort(world.now)
        elif what < 0.975:
            connection.fail(OSError(5, "broken"))
        elif what < 0.98:
            world.a.reconfigure(INFO, world.now)
        elif what < 0.985:
            link = source.choice(list(world.links.values()))
            link.filter = None if link.filter else lambda packet: False

    def step(self, most: float = 0.002) -> None:
        """To the next event, but ``most`` seconds at most."""
        world = self.world
        world.collect()
        at = world.next_event()
        if at is None or at > world.now + most:
            world.now += most
        else:
            world.step(0.0003)
        self.accept()
        self.drain()
        for stack in (world.a, world.b):
            check(stack)


@pytest.mark.parametrize("seed", range(12))
def test_crowd(seed: int) -> None:
    crowd = Crowd(seed)
    world, source = crowd.world, crowd.source
    for _ in range(400):
        for _ in range(source.choice([0, 1, 1, 3])):
            crowd.act()
            check(world.a)
            check(world.b)
        crowd.step()
    # Now let all of it arrive.
    for link in world.links.values():
        link.filter, link.loss = None, 0.0
    crowd.paused.clear()
    end = world.now + 300
    while any(c.sender.unacknowledged for c in crowd.everybody if c.state is not TcpState.CLOSED):
        assert world.now < end
        crowd.step(1.0)
    arrived = 0
    for ours in crowd.ours:
        theirs = crowd.other(ours)
        if theirs is None or ours.error or theirs.error:
            continue
        for writer, reader in ((ours, theirs), (theirs, ours)):
            assert crowd.read.get(reader, b"") == crowd.written.get(writer, b"")
            arrived += len(crowd.read.get(reader, b""))
    assert arrived > 1_000_000
    for connection in crowd.everybody:
        connection.abort(world.now)
    world.idle(200)
    for stack in (world.a, world.b):
        check(stack)
        assert not stack.paths._held
        for path, _ in stack.paths._known.values():
            assert not path.flying
            assert not path.recent
