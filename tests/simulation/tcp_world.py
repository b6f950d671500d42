"""Two stacks joined by a link on a virtual clock, for simulations of TCP without Trio.

The link delays, limits the rate, loses, repeats, reorders and may corrupt; all of it
from one seed, so a run can be repeated.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count

from minivpn_trio.netstack.stack import Limits, Stack
from minivpn_trio.netstack.tcp.connection import TcpConnection
from minivpn_trio.netstack.tcp.settings import TcpSettings

A4, B4 = bytes((10, 8, 0, 2)), bytes((10, 8, 0, 1))
A6, B6 = bytes.fromhex("fd00" + "00" * 13 + "02"), bytes.fromhex("fd00" + "00" * 13 + "01")


@dataclass
class Link:
    """One direction. Times are seconds, ``rate`` is bits per second (None: unlimited), ``queue`` bytes."""

    delay: float = 0.01
    rate: float | None = None
    queue: int = 256 * 1024
    loss: float = 0.0
    duplicate: float = 0.0
    #: Additional delay, up to so much, for this share of the packets.
    jitter: float = 0.0
    reorder: float = 0.0
    corrupt: float = 0.0
    busy_until: float = 0.0
    filter: Callable[[bytes], bool] | None = None


class World:
    """Two stacks, ``a`` and ``b``, and time."""

    def __init__(
        self,
        *,
        seed: int = 1,
        mtu: int = 1400,
        up: Link | None = None,
        down: Link | None = None,
        now: float = 1000.0,
        settings_a: TcpSettings | None = None,
        settings_b: TcpSettings | None = None,
        limits: Limits | None = None,
        limits_b: Limits | None = None,
    ) -> None:
        self.random = random.Random(seed)
        self.now = now
        self.a = Stack(
            addresses=(A4, A6), mtu=mtu, rng=self.random.randbytes, now=now, settings=settings_a, limits=limits
        )
        self.b = Stack(
            addresses=(B4, B6),
            mtu=mtu,
            rng=self.random.randbytes,
            now=now,
            settings=settings_b,
            limits=limits_b or limits,
        )
        self.links = {"a": up or Link(), "b": down or Link()}
        self.wire: list[tuple[float, int, str, bytes]] = []
        self.order = count()
        self.sent = {"a": 0, "b": 0}
        #: Called with (side that sent, packet), before the link sees it.
        self.taps: list[Callable[[str, bytes], None]] = []

    def collect(self) -> None:
        """Put what the stacks have to say on the wire."""
        for name, stack in (("a", self.a), ("b", self.b)):
            while burst := stack.take_output(now=self.now):
                for packet in burst:
                    self.put(name, packet)

    def put(self, name: str, packet: bytes) -> None:
        """One packet, from side ``name``."""
        for tap in self.taps:
            tap(name, packet)
        link, chance = self.links[name], self.random.random
        self.sent[name] += 1
        if link.filter is not None and not link.filter(packet):
            return
        if chance() < link.loss:
            return
        at = self.now
        if link.rate is not None:
            backlog = max(link.busy_until - at, 0.0)
            if backlog * link.rate / 8 > link.queue:
                return
            link.busy_until = max(link.busy_until, at) + len(packet) * 8 / link.rate
            at = link.busy_until
        at += link.delay
        if chance() < link.reorder:
            at += chance() * link.jitter
        if link.corrupt and chance() < link.corrupt:
            broken = bytearray(packet)
            broken[self.random.randrange(len(broken))] ^= 1 << self.random.randrange(8)
            packet = bytes(broken)
        for _ in range(2 if chance() < link.duplicate else 1):
            heapq.heappush(self.wire, (at, next(self.order), name, packet))

    def next_event(self) -> float | None:
        """When something happens next."""
        times = [self.a.next_timeout(), self.b.next_timeout()]
        if self.wire:
            times.append(self.wire[0][0])
        known = [time for time in times if time is not None]
        return min(known) if known else None

    def step(self, granularity: float = 0.0005) -> bool:
        """Go to the next event and let it happen, in bursts of ``granularity`` seconds. False: nothing ever will."""
        self.collect()
        at = self.next_event()
        if at is None:
            return False
        self.now = max(self.now, at) + granularity
        bursts: dict[str, list[bytes]] = {"a": [], "b": []}
        while self.wire and self.wire[0][0] <= self.now:
            _, _, name, packet = heapq.heappop(self.wire)
            bursts[name].append(packet)
        for name, stack in (("a", self.b), ("b", self.a)):
            burst = bursts[name]
            for start in range(0, len(burst), 64):
                stack.handle_packets(burst[start : start + 64], self.now)
        for stack in (self.a, self.b):
            timeout = stack.next_timeout()
            if timeout is not None and timeout <= self.now:
                stack.handle_timeout(self.now)
        self.collect()
        return True

    def run(self, until: Callable[[], bool], limit: float = 600.0) -> None:
        """Step until ``until()``; AssertionError after ``limit`` seconds of virtual time, or if nothing can happen
        any more."""
        end = self.now + limit
        while not until():
            assert self.now < end, "took too long"
            assert self.step(), "nothing will ever happen again"

    def idle(self, seconds: float) -> None:
        """Let time pass."""
        end = self.now + seconds
        self.collect()
        while (at := self.next_event()) is not None and at <= end:
            self.step()
            self.collect()
        self.now = max(self.now, end)

    def connect(self, port: int = 80, *, family: int = 4, limit: float = 200.0) -> tuple[TcpConnection, TcpConnection]:
        """A connection from ``a`` to a listener at ``b``: both ends."""
        listener = self.b.listen_tcp((None, port), self.now)
        ours = self.a.connect_tcp((B4 if family == 4 else B6, port), self.now)
        accepted: list[TcpConnection] = []

        def done() -> bool:
            if listener.acceptable:
                connection = listener.accept()
                assert connection is not None
                accepted.append(connection)
            return bool(accepted) and ours.connected

        self.run(done, limit)
        listener.close(self.now)
        return ours, accepted[0]


class Transfer:
    """One direction of a connection: writes ``data`` at one end, reads it at the other."""

    def __init__(
        self,
        world: World,
        source: TcpConnection,
        sink: TcpConnection,
        data: bytes,
        *,
        chunk: int = 65536,
        read: int = 1 << 20,
        finish: bool = True,
    ) -> None:
        self.world, self.source, self.sink = world, source, sink
        self.left = memoryview(data)
        self.chunk, self.read_size, self.finish = chunk, read, finish
        self.received = bytearray()
        self.ended = False
        self.finished_writing = False

    def pump(self) -> bool:
        """Write and read what is possible; True when all was read, with the end if ``finish``."""
        now = self.world.now
        while self.left and self.source.writable:
            accepted = self.source.write(self.left[: self.chunk], now)
            if not accepted:
                break
            self.left = self.left[accepted:]
        if not self.left and self.finish and not self.finished_writing:
            self.finished_writing = True
            self.source.shutdown_write(now)
        while self.sink.receivable:
            self.received += self.sink.read(self.read_size, now)
        self.ended = self.sink.eof
        return not self.left and (self.ended if self.finish else self.source.sender.unacknowledged == 0)
