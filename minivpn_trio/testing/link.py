"""A link that loses, delays, reorders, repeats and corrupts, the same way for the same seed.

``LinkModel`` is one direction of it and knows nothing of Trio: times go in,
packets come out. ``memory_link`` joins two of them into a pair of transports
that run on Trio's clock, so under ``trio.testing.MockClock`` an hour of bad
network takes a moment.
"""

from __future__ import annotations

import heapq
import random
from collections import Counter
from dataclasses import dataclass

import trio

from ..items import Burst
from ..networkio.transport import MAX_BURST
from ..stats import TransportStats

__all__ = ["LinkConditions", "LinkModel", "MemoryTransport", "memory_link"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkConditions:
    """One direction of a path. Probabilities are 0 to 1, times are seconds."""

    loss: float = 0.0
    duplication: float = 0.0
    corruption: float = 0.0
    delay: float = 0.0
    #: Each packet takes up to this much longer, which reorders.
    jitter: float = 0.0
    #: Bits per second; None: no limit.
    rate: float | None = None
    #: Packets that wait for a limited rate before the next is dropped.
    queue: int = 1000


class LinkModel:
    """One direction of a link, on whatever clock the caller keeps.

    >>> link = LinkModel(LinkConditions(delay=0.1), seed=1)
    >>> link.send(b"a packet", now=5.0)
    >>> link.deliver(5.05), link.next_timeout()
    ([], 5.1)
    >>> link.deliver(5.1)
    [b'a packet']

    The same seed and the same packets at the same times: the same fate. ``conditions`` may be
    changed at any time and holds for what is sent from then on.
    """

    sent: int
    lost: int
    corrupted: int
    duplicated: int

    def __init__(self, conditions: LinkConditions, seed: int) -> None:
        self.conditions = conditions
        self._random = random.Random(seed)
        self._in_flight: list[tuple[float, int, bytes]] = []
        self._count = 0
        self._free_at = 0.0
        #: What became of the packets, so far.
        self.sent = self.lost = self.corrupted = self.duplicated = 0

    def send(self, packet: bytes, now: float) -> None:
        """Put ``packet`` on the link at ``now``."""
        self.sent += 1
        chance = self._random.random
        conditions = self.conditions
        if chance() < conditions.loss:
            self.lost += 1
            return
        if conditions.rate is not None:
            self._free_at = max(self._free_at, now)
            if (self._free_at - now) * conditions.rate > conditions.queue * 8 * 1500:
                self.lost += 1
                return
            self._free_at += len(packet) * 8 / conditions.rate
        self._schedule(packet, max(now, self._free_at))
        if chance() < conditions.duplication:
            self.duplicated += 1
            self._schedule(packet, max(now, self._free_at))

    def _schedule(self, packet: bytes, departs: float) -> None:
        conditions = self.conditions
        if packet and self._random.random() < conditions.corruption:
            self.corrupted += 1
            mutable = bytearray(packet)
            mutable[self._random.randrange(len(mutable))] ^= 1 << self._random.randrange(8)
            packet = bytes(mutable)
        arrives = departs + conditions.delay + self._random.random() * conditions.jitter
        self._count += 1
        heapq.heappush(self._in_flight, (arrives, self._count, packet))

    def deliver(self, now: float, limit: int = MAX_BURST) -> Burst:
        """What has arrived by ``now``, in order of arrival, at most ``limit`` packets."""
        arrived: Burst = []
        while self._in_flight and self._in_flight[0][0] <= now and len(arrived) < limit:
            arrived.append(heapq.heappop(self._in_flight)[2])
        return arrived

    def next_timeout(self) -> float | None:
        """When the next packet arrives; None: nothing is on the way."""
        return self._in_flight[0][0] if self._in_flight else None


class MemoryTransport:
    """One end of ``memory_link``: a ``Transport`` that needs no network."""

    def __init__(self, outgoing: LinkModel, incoming: LinkModel, *, is_stream: bool = False) -> None:
        self._outgoing = outgoing
        self._incoming = incoming
        self._is_stream = is_stream
        self._arrival = trio.Event()
        self._far: MemoryTransport | None = None
        self._closed = False
        self._packets: Counter[str] = Counter()

    @property
    def outgoing(self) -> LinkModel:
        """The direction that this end sends into; ``conditions`` may be changed at any time."""
        return self._outgoing

    @property
    def incoming(self) -> LinkModel:
        """The direction that this end receives from."""
        return self._incoming

    @property
    def closed(self) -> bool:
        """Whether this end is closed."""
        return self._closed

    @property
    def is_stream(self) -> bool:
        """Whether it plays a TCP transport (then the link should be perfect)."""
        return self._is_stream

    @property
    def peer(self) -> str | None:
        """A memory link has no addresses."""
        return None

    def established(self) -> None:
        """Nothing to do: no ICMP here."""

    async def receive(self) -> Burst:
        """1 to 64 datagrams that have arrived. Checkpoints, cancel-safe.

        Raises trio.ClosedResourceError when this end is closed; trio.EndOfChannel when a link
        that plays a stream was closed at the other end.
        """
        await trio.lowlevel.checkpoint()
        while True:
            if self._closed:
                raise trio.ClosedResourceError
            burst = self._incoming.deliver(trio.current_time())
            if burst:
                self._packets["in"] += len(burst)
                self._packets["bytes in"] += sum(map(len, burst))
                return burst
            due = self._incoming.next_timeout()
            if due is None and self._is_stream and self._far is not None and self._far._closed:
                raise trio.EndOfChannel
            self._arrival = trio.Event()
            with trio.move_on_at(float("inf") if due is None else due):
                await self._arrival.wait()

    async def send(self, burst: Burst) -> None:
        """Put the burst on the link. Checkpoints."""
        await trio.lowlevel.checkpoint()
        if self._closed:
            raise trio.ClosedResourceError
        if self._is_stream and self._far is not None and self._far._closed:
            raise trio.BrokenResourceError
        self.send_nowait(burst)

    def send_nowait(self, burst: Burst) -> None:
        """Put the burst on the link, unless this end is closed."""
        if self._closed:
            return
        now = trio.current_time()
        for packet in burst:
            self._outgoing.send(bytes(packet), now)
        self._packets["out"] += len(burst)
        self._packets["bytes out"] += sum(map(len, burst))
        if self._far is not None:
            self._far._arrival.set()

    def stats(self) -> TransportStats:
        """Counters so far."""
        return TransportStats(
            packets_in=self._packets["in"],
            packets_out=self._packets["out"],
            bytes_in=self._packets["bytes in"],
            bytes_out=self._packets["bytes out"],
        )

    async def aclose(self) -> None:
        """Close this end and wake both. Idempotent, checkpoints."""
        self._closed = True
        self._arrival.set()
        if self._far is not None:
            self._far._arrival.set()
        await trio.lowlevel.checkpoint()


def memory_link(
    up: LinkConditions | None = None,
    down: LinkConditions | None = None,
    *,
    seed: int = 0,
    is_stream: bool = False,
) -> tuple[MemoryTransport, MemoryTransport]:
    """A client's end and a server's end of one link. ``up`` is client to server; ``down`` defaults to the same.

    With ``is_stream`` it plays a TCP connection: the end sees the other one's closing, the client
    announces TCP. Packets keep their boundaries all the same; no condition but ``delay`` and
    ``rate`` makes sense then.
    """
    up = up or LinkConditions()
    upwards, downwards = LinkModel(up, seed), LinkModel(down or up, seed + 1)
    client = MemoryTransport(upwards, downwards, is_stream=is_stream)
    server = MemoryTransport(downwards, upwards, is_stream=is_stream)
    client._far, server._far = server, client
    return client, server
