"""Ten thousand connections between two stacks at once, and what an idle one costs."""

from __future__ import annotations

import gc
import random
import tracemalloc

import pytest
from tcp_world import B4, B6, Link, World

from minivpn_trio.netstack.stack import Limits
from minivpn_trio.netstack.tcp.connection import TcpConnection, TcpState
from minivpn_trio.netstack.tcp.settings import TcpSettings

COUNT = 10_000
STREAM = random.Random(8).randbytes(COUNT + 4000)
#: What an idle connection has carried before, each way.
SENT = STREAM[:30_000]
#: Opened at the same time: what a listener's queue holds.
WAVE = 500


class Echo:
    """One connection: a request of its own length, the same back, and the end from both sides."""

    def __init__(self, world: World, number: int, connection: TcpConnection) -> None:
        self.world, self.connection = world, connection
        self.request = STREAM[number : number + 200 + number % 3000]
        self.received = bytearray()
        self.written = False
        connection.on_change = self.advance

    def advance(self) -> None:
        connection, now = self.connection, self.world.now
        if connection.connected and not self.written:
            self.written = True
            assert connection.write(self.request, now) == len(self.request)
            connection.shutdown_write(now)
        while connection.receivable:
            self.received += connection.read(1 << 20, now)


class Answer:
    """The other end."""

    def __init__(self, world: World, connection: TcpConnection) -> None:
        self.world, self.connection = world, connection
        connection.on_change = self.advance
        self.advance()

    def advance(self) -> None:
        connection, now = self.connection, self.world.now
        while connection.receivable:
            data = connection.read(1 << 20, now)
            assert connection.write(data, now) == len(data)
        if connection.eof and not connection.sender.fin:
            connection.shutdown_write(now)


@pytest.mark.slow
def test_ten_thousand_connections_at_once() -> None:
    """1 % loss; every byte is compared; all are open at the same time before the first one ends; none is left."""
    limits = Limits(connections=COUNT + 1, time_wait=COUNT)
    world = World(seed=4, up=Link(loss=0.01), down=Link(loss=0.01), limits=limits)
    listener = world.b.listen_tcp((None, 80), world.now, backlog=WAVE)
    accepted: list[TcpConnection] = []
    held: list[TcpConnection] = []

    def all_open() -> bool:
        while listener.acceptable:
            connection = listener.accept()
            assert connection is not None
            accepted.append(connection)
        return len(accepted) == len(held) and all(connection.connected for connection in held[-WAVE:])

    while len(held) < COUNT:
        for _ in range(WAVE):
            held.append(world.a.connect_tcp((B6 if len(held) % 10 == 9 else B4, 80), world.now))
        world.run(all_open, 200)
    assert world.a.stats().tcp_connections == world.b.stats().tcp_connections == COUNT
    answers = [Answer(world, connection) for connection in accepted]
    echoes = [Echo(world, number, connection) for number, connection in enumerate(held)]
    for number, echo in enumerate(echoes):
        echo.advance()
        if number % 50 == 0:
            world.step()
    world.run(lambda: not world.a._connections and not world.b._connections, 600)
    for echo in echoes:
        assert echo.received == echo.request
        assert echo.connection.eof and echo.connection.error is None
        assert echo.connection.state is TcpState.CLOSED
    assert all(answer.connection.state is TcpState.CLOSED for answer in answers)
    # What rests for a minute, rests no longer.
    world.idle(61)
    for stack in (world.a, world.b):
        assert not len(stack._time_wait)
        assert not stack._fast and not stack._embryos and not stack._turns
        assert stack.next_timeout() is None
        assert stack.memory.held == 0


def test_an_idle_connection_takes_eight_kilobytes_at_most() -> None:
    """Of Python's memory, one end: after the handshake, and after it has carried something."""
    world = World(limits=Limits(connections=2000))
    listener = world.b.listen_tcp((None, 80), world.now, backlog=1000)

    def pairs(count: int) -> list[TcpConnection]:
        ends = [world.a.connect_tcp((B4, 80), world.now) for _ in range(count)]
        world.run(lambda: all(end.connected for end in ends) and not world.b._embryos)
        while listener.acceptable:
            connection = listener.accept()
            assert connection is not None
            ends.append(connection)
        for end in ends:
            end.write(SENT, world.now)
        world.run(lambda: all(end.receivable == len(SENT) for end in ends))
        for end in ends:
            assert end.read(len(SENT), world.now) == SENT
        world.idle(5)
        return ends

    # What is made once is made before.
    kept = pairs(50)
    gc.collect()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        kept += pairs(300)
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    each = (after - before) / 600
    print(f"\n{each:.0f} bytes")
    assert each <= 8 * 1024
    assert all(end.receiver.capacity == TcpSettings().receive_buffer for end in kept)
