"""Microseconds per packet of the TCP/IP stack, next to a calibration loop so that machines can be compared.

    python -m benchmarks.micro.netstack

receive: bursts of in-order full segments into an established connection, its
ACKs taken out and its bytes read. send: writes of 64 KiB, segments taken out in
trains, acknowledged by one ACK a train. recover: receive with one segment in 50 missing
until the next burst, so that most arrive out of order.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from statistics import median

from minivpn_trio.netstack.stack import Stack
from minivpn_trio.netstack.tcp.connection import TcpConnection
from minivpn_trio.netstack.tcp.settings import TcpSettings
from tests.simulation.tcp_world import Link, World

BURST, TRAINS = 44, 100


def calibrate() -> float:
    """Microseconds for a fixed mix of interpreter work and hashing: about 1 on a machine of 2024."""
    data = bytes(1400)
    start = time.perf_counter()
    for _ in range(2000):
        number = int.from_bytes(data, "big")
        for step in range(10):
            number += step
    return (time.perf_counter() - start) / 2000 * 1e6


def pair() -> tuple[World, TcpConnection, TcpConnection]:
    """An established connection with windows wide open."""
    settings = TcpSettings(
        receive_buffer=4 << 20, send_buffer=8 << 20, initial_window_segments=200, initial_ssthresh_segments=None
    )
    world = World(up=Link(delay=0.0001), down=Link(delay=0.0001), settings_a=settings, settings_b=settings, mtu=1400)
    ours, theirs = world.connect()
    world.idle(1.0)
    return world, ours, theirs


def trains(
    world: World, source: TcpConnection, stack: Stack, sink_stack: Stack, sink: TcpConnection
) -> list[list[bytes]]:
    """Ready-made bursts of segments from ``source``."""
    payload = os.urandom(65536)
    result: list[list[bytes]] = []
    while len(result) < TRAINS:
        source.write(payload, world.now)
        while burst := stack.take_output(BURST, world.now):
            result.append(burst)
            sink_stack.handle_packets(burst, world.now)
            sink.read(1 << 22, world.now)
            while acks := sink_stack.take_output(now=world.now):
                stack.handle_packets(acks, world.now)
    return result


def receive() -> float:
    """Per packet."""
    world, ours, theirs = pair()
    # The same numbers again in a twin world, since everything comes from one seed.
    bursts = trains(world, theirs, world.b, world.a, ours)
    world, ours, theirs = pair()
    stack, now, total = world.a, world.now, 0
    start = time.perf_counter()
    for burst in bursts:
        stack.handle_packets(burst, now)
        total += len(ours.read(1 << 22, now))
        stack.take_output(now=now)
    elapsed = time.perf_counter() - start
    count = sum(map(len, bursts))
    assert total > count * 1200, (total, count)
    return elapsed / count * 1e6


def recover() -> float:
    """Per packet."""
    world, ours, theirs = pair()
    bursts = trains(world, theirs, world.b, world.a, ours)
    world, ours, theirs = pair()
    stack, now, total = world.a, world.now, 0
    late: list[bytes] = []
    start = time.perf_counter()
    for number, burst in enumerate(bursts):
        missing = burst[number % 3 : number % 3 + 1]
        stack.handle_packets(burst[: number % 3] + burst[number % 3 + 1 :] + late, now)
        late = missing
        total += len(ours.read(1 << 22, now))
        stack.take_output(now=now)
    elapsed = time.perf_counter() - start
    count = sum(map(len, bursts))
    assert total > count * 1100, (total, count)
    return elapsed / count * 1e6


def send() -> float:
    """Per packet, its share of processing ACKs included."""
    world, ours, theirs = pair()
    payload, spent, count = os.urandom(65536), 0.0, 0
    while count < TRAINS * BURST:
        start = time.perf_counter()
        ours.write(payload, world.now)
        bursts = []
        while burst := world.a.take_output(now=world.now):
            bursts.append(burst)
        spent += time.perf_counter() - start
        acks: list[bytes] = []
        for burst in bursts:
            count += len(burst)
            world.b.handle_packets(burst, world.now)
            theirs.read(1 << 22, world.now)
            acks += world.b.take_output(now=world.now)
        start = time.perf_counter()
        world.a.handle_packets(acks, world.now)
        spent += time.perf_counter() - start
    return spent / count * 1e6


def main() -> None:
    """Print medians."""
    unit = median(calibrate() for _ in range(5))
    print(f"calibration loop  {unit:6.2f} us")
    tasks: dict[str, Callable[[], float]] = {"receive": receive, "send": send, "recover": recover}
    for name, task in tasks.items():
        cost = median(task() for _ in range(11))
        print(f"{name:16}  {cost:6.2f} us a packet  {cost / unit:5.2f} x calibration")


if __name__ == "__main__":
    main()
