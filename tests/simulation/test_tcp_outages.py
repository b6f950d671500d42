"""The tunnel was gone for a while and is up again: connections go on at once, not when their timers say so."""

from __future__ import annotations

from ipaddress import IPv4Interface, IPv6Interface

import pytest
from tcp_world import B4, World

from minivpn_trio.config.tunnel_info import TunnelInfo

INFO = TunnelInfo(ipv4=IPv4Interface("10.8.0.2/24"), ipv6=IPv6Interface("fd00::2/64"), mtu=1400)


def outage(world: World, seconds: float) -> float:
    for link in world.links.values():
        link.loss = 1.0
    world.idle(seconds)
    for link in world.links.values():
        link.loss = 0.0
    world.a.reconfigure(INFO, world.now)
    return world.now


@pytest.mark.parametrize("seconds", [5.0, 20.0, 60.0, 200.0])
def test_data_under_way_arrives_at_once(seconds: float) -> None:
    world = World()
    ours, theirs = world.connect()
    ours.write(bytes(1000), world.now)
    world.idle(1)
    theirs.read(1000, world.now)
    world.links["a"].loss = 1.0
    ours.write(bytes(100_000), world.now)
    up = outage(world, seconds)
    got = 0

    def arrived() -> bool:
        nonlocal got
        got += len(theirs.read(1 << 20, world.now))
        return got == 100_000

    world.run(arrived, 1.0)
    assert world.now - up < 0.5
    assert ours.sender.retries == 0


def test_a_window_that_opened_meanwhile_is_asked_for_at_once() -> None:
    world = World()
    ours, theirs = world.connect()
    full = theirs.receiver.capacity
    while theirs.receivable < full - 2000:
        ours.write(bytes(100_000), world.now)
        world.idle(0.1)
    world.idle(30)
    for link in world.links.values():
        link.loss = 1.0
    theirs.read(1 << 20, world.now)
    outage(world, 100)
    world.run(lambda: theirs.receivable > 0, 0.5)


def test_a_syn_goes_again_at_once_and_starts_afresh() -> None:
    world = World()
    listener = world.b.listen_tcp((None, 80), world.now)
    for link in world.links.values():
        link.loss = 1.0
    ours = world.a.connect_tcp((B4, 80), world.now)
    outage(world, 40)
    world.run(lambda: listener.acceptable, 0.5)
    world.run(lambda: ours.connected, 0.5)


def test_what_works_is_left_alone() -> None:
    """The server may push options at any time; that is no reason to send anything twice."""
    world = World()
    ours, _ = world.connect()
    ours.write(bytes(50_000), world.now)
    world.idle(0.015)
    assert ours.sender.una < ours.sender.nxt
    window = ours.sender.congestion.window
    world.a.reconfigure(INFO, world.now)
    world.idle(1)
    assert ours.sender.una == ours.sender.nxt
    assert ours.sender.congestion.window >= window
    assert world.a.stats().tcp_retransmissions == world.a.stats().tcp_timeouts == 0
