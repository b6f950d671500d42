"""Stages of TCP: what arrives; what is sent, by CUBIC with a clock that stands still, and by BBR over a path.

Peers are stacks of ours. Where their work is not to be timed, two worlds are made of the same seed: what happened in
one is recorded, and played to the other.
"""

from __future__ import annotations

import random
from collections import deque

from minivpn_trio.netstack.tcp.settings import TcpSettings
from tests.simulation.tcp_world import Link, World

from .calibration import BURST, SIZE, Work

__all__ = ["receiving", "sending", "sending_by_rate"]

#: Of one round, where the clock stands still. Not zeros: their checksums cost less.
PAYLOAD = random.Random(1).randbytes(BURST * 1200)
#: The path of BBR's stage: a burst in each tick, 1 Gbit/s, and so many ticks of delay each way. Its model needs some
#: round trips until it neither looks for the rate any more nor drains what that queued.
TICK = 0.0005
DELAY = 4
WARM_UP = 400
#: Ticks that a round takes, at most: one, but where the model sends less than the path's rate.
TICKS_A_ROUND = 2
_ALL = 1 << 22


def world() -> World:
    """Two stacks in the same world each time."""
    return World(up=Link(delay=0.0001), down=Link(delay=0.0001), mtu=SIZE)


def receiving(rounds: int) -> Work:
    """``netstack`` on the way up: a burst of one flow's segments in, its bytes read, its acknowledgement out."""
    # The same numbers twice: what one world sent, its twin receives.
    twin = world()
    ours, theirs = twin.connect()
    bursts = []
    for _ in range(rounds):
        theirs.write(PAYLOAD, twin.now)
        burst = []
        while sent := twin.b.take_output(now=twin.now):
            burst += sent
            twin.a.handle_packets(sent, twin.now)
            ours.read(_ALL, twin.now)
            while acks := twin.a.take_output(now=twin.now):
                twin.b.handle_packets(acks, twin.now)
        bursts.append(burst)
    again = world()
    ours, _ = again.connect()
    stack, now = again.a, again.now
    ready = iter(bursts)

    def work() -> int:
        stack.handle_packets(next(ready), now)
        assert len(ours.read(_ALL, now)) == len(PAYLOAD)
        stack.take_output(now=now)
        return BURST

    return work


def sending(rounds: int) -> Work:
    """``netstack`` on the way down, by CUBIC: written bytes to trains of segments, the peer's work, and its
    acknowledgement of the last."""
    there = world()
    ours, theirs = there.connect()
    acks: list[bytes] = []

    def work() -> int:
        there.a.handle_packets(acks, there.now)
        ours.write(PAYLOAD, there.now)
        acks.clear()
        size = 0
        while size < len(PAYLOAD):
            sent = there.a.take_output(now=there.now)
            there.b.handle_packets(sent, there.now)
            size += len(theirs.read(_ALL, there.now))
            acks.extend(there.b.take_output(now=there.now))
            if size < len(PAYLOAD):
                there.a.handle_packets(acks, there.now)
                acks.clear()
        return BURST

    return work


class RatePath:
    """A connection that sends by BBR, as a dialer's do, as much as the path takes: a burst in each tick."""

    def __init__(self) -> None:
        delay = DELAY * TICK
        settings = TcpSettings(congestion="bbr")
        self._world = World(up=Link(delay=delay), down=Link(delay=delay), mtu=SIZE, settings_a=settings)
        self._ours, self._theirs = self._world.connect()
        self._now = self._world.now
        self._chunk = random.Random(2).randbytes(1 << 16)
        self._queue: deque[bytes] = deque()
        self._up: deque[list[bytes]] = deque([[] for _ in range(DELAY)])
        self._down: deque[list[bytes]] = deque([[] for _ in range(DELAY)])

    @property
    def pacing_rate(self) -> float:
        """At which segments leave, bytes of payload a second; inf: they are not paced."""
        return self._ours.sender.pacer.rate

    def send(self, acks: list[bytes]) -> list[bytes]:
        """A tick of our side, all that is timed: acknowledgements in, timers, the application's bytes, segments out."""
        now = self._now = self._now + TICK
        stack, ours = self._world.a, self._ours
        if acks:
            stack.handle_packets(acks, now)
        if (timeout := stack.next_timeout()) is not None and timeout <= now:
            stack.handle_timeout(now)
        while ours.writable and ours.write(self._chunk, now):
            pass
        sent: list[bytes] = []
        while burst := stack.take_output(now=now):
            sent += burst
        return sent

    def answer(self, sent: list[bytes]) -> list[bytes]:
        """The same tick of path and peer: the acknowledgements that reach us in the next one."""
        now, stack, queue = self._now, self._world.b, self._queue
        queue.extend(sent)
        self._up.append([queue.popleft() for _ in range(min(BURST, len(queue)))])
        if arrived := self._up.popleft():
            stack.handle_packets(arrived, now)
            self._theirs.read(_ALL, now)
        if (timeout := stack.next_timeout()) is not None and timeout <= now:
            stack.handle_timeout(now)
        acks: list[bytes] = []
        while burst := stack.take_output(now=now):
            acks += burst
        self._down.append(acks)
        return self._down.popleft()


def sending_by_rate(rounds: int) -> Work:
    """``netstack`` on the way down as a dialer's streams go: BBR, delivery rates, pacing, a clock that moves, every
    segment acknowledged a round trip later. The peer's work is not timed."""
    path = RatePath()
    #: What arrives in each tick, and how many segments leave in it.
    ticks: list[tuple[list[bytes], int]] = []
    acks: list[bytes] = []
    for _ in range(WARM_UP + TICKS_A_ROUND * rounds):
        sent = path.send(acks)
        ticks.append((acks, len(sent)))
        acks = path.answer(sent)
    again = RatePath()
    ready = iter(ticks)

    def tick() -> int:
        arrived, expected = next(ready)
        count = len(again.send(arrived))
        assert count == expected, "another world"
        return count

    for _ in range(WARM_UP):
        tick()

    def work() -> int:
        count = 0
        while count < BURST:
            count += tick()
        return count

    return work
