"""Links of every badness, drawn from seeds: everything arrives and everything ends."""

from __future__ import annotations

import random

import pytest
from tcp_world import Link, Transfer, World

from minivpn_trio.netstack.tcp.settings import TcpSettings


def draw_link(source: random.Random) -> Link:
    choose = source.choice
    return Link(
        delay=choose([0.001, 0.02, 0.1]),
        rate=choose([None, 1e6, 50e6]),
        queue=choose([5000, 60_000, 1 << 20]),
        loss=choose([0, 0.01, 0.1, 0.2]),
        duplicate=choose([0, 0.1]),
        reorder=choose([0, 0.3]),
        jitter=0.05,
        corrupt=choose([0, 0.02]),
    )


@pytest.mark.parametrize("seed", range(40))
def test_chaos(seed: int) -> None:
    source = random.Random(seed)
    settings = TcpSettings(
        sack=source.random() < 0.8,
        timestamps=source.random() < 0.8,
        receive_buffer=source.choice([3000, 65_536, 524_288]),
        receive_buffer_max=source.choice([524_288, 8 << 20]),
    )
    mtu = source.choice([576, 1400, 1500])
    world = World(seed=seed, mtu=mtu, up=draw_link(source), down=draw_link(source), settings_a=settings)
    ours, theirs = world.connect(family=4 if mtu < 1280 else source.choice([4, 6]))
    data = source.randbytes(60_000)
    up, down = Transfer(world, ours, theirs, data), Transfer(world, theirs, ours, data[::-1])
    world.run(lambda: up.pump() & down.pump(), 3000)
    assert bytes(up.received) == data
    assert bytes(down.received) == data[::-1]
    world.run(lambda: world.a.stats().tcp_connections + world.b.stats().tcp_connections == 0, 900)
    assert ours.error is None and theirs.error is None
