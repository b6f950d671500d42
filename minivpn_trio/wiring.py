"""THE DIAGRAM: which worker feeds which, with what, and what happens when it cannot keep up.

Every memory channel of the package is opened here, from the one table
``EDGES``. A test checks that the edges that hold their sender back form no
cycle; ARCHITECTURE.md's picture is generated from the same table
(``python -m minivpn_trio.wiring``).

Several edges into one worker share one channel, so a worker has one inlet and
reads its input in the order in which it was sent.

An edge is a channel, or direct. On a direct edge the sender calls the target's
step (ports.py) as long as the target is idle and nothing is queued for it: a
burst then goes from the socket to the application, or back, without a turn
of the scheduler between stages. Else it is the channel that it would have been, in the same order, with the same
back-pressure. Direct are those edges where a measurement paid for it (docs/performance.md); everything works
without (``pytest --edges=channels``).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Iterator
from contextlib import contextmanager
from enum import Enum
from typing import Any, Generic, NamedTuple, TypeVar

import trio

from .ports import Inlet, WaitingOutlet

__all__ = ["EDGES", "Edge", "Lifetime", "Pipes", "WhenFull", "diagram", "waiting_graph"]

T = TypeVar("T")


class WhenFull(Enum):
    """What a sender does when the channel has no room."""

    WAIT = "waits"
    DROP = "drops and counts"


class Lifetime(Enum):
    """How long an edge lives: one connection to a server, or the client with its reconnections."""

    CONNECTION = "connection"
    CLIENT = "client"


class Edge(NamedTuple):
    """One arrow of the diagram."""

    source: str
    target: str
    item: str
    depth: int
    when_full: WhenFull
    why: str
    lifetime: Lifetime = Lifetime.CONNECTION
    #: The sender calls the target where it can.
    direct: bool = False

    @property
    def name(self) -> str:
        """``source -> target``, the key of drop counters."""
        return f"{self.source} -> {self.target}"


WAIT, DROP = WhenFull.WAIT, WhenFull.DROP

#: In the order in which packets are processed: up first, then down, then the side channels.
EDGES: tuple[Edge, ...] = (
    # up
    Edge("networkio.move_up", "packetmuxer.move_up", "Burst", 4, WAIT,
         "the kernel's socket buffer is the better queue, and a TCP stream must not lose bytes", direct=True),
    Edge("packetmuxer.move_up", "datachannel.move_up", "Burst", 4, WAIT,
         "datachannel.move_up never waits itself, so this ends", direct=True),
    Edge("packetmuxer.move_up", "reliable.move_up", "list[SequencedPacket]", 16, DROP,
         "nothing was acknowledged yet: the peer sends it again"),
    Edge("packetmuxer.move_up", "tlssession.worker", "RemoteBound", 64, DROP,
         "sent once, when the inbox is still empty"),
    Edge("reliable.move_up", "controlchannel.move_up", "list[Segment]", 16, DROP,
         "what does not fit stays in the receive window and is offered again"),
    Edge("controlchannel.move_up", "tlssession.worker", "TLSBytes | SoftResetSeen", 64, WAIT,
         "it was acknowledged, so it must arrive"),
    Edge("datachannel.move_up", "tun.inbound", "Burst", 64, DROP,
         "a slow reader must not stop the tunnel; inner TCP repairs it", Lifetime.CLIENT, direct=True),
    # down
    Edge("tun.outbound", "datachannel.move_down", "Burst", 8, WAIT,
         "back-pressure reaches the application", Lifetime.CLIENT, direct=True),
    Edge("datachannel.move_down", "packetmuxer.move_down", "Burst", 8, WAIT, "back-pressure", direct=True),
    Edge("tlssession.worker", "controlchannel.move_down", "TLSBytes | OpenKey | ExpectKey | RetireKey", 16, WAIT,
         "back-pressure"),
    Edge("controlchannel.move_down", "reliable.move_down", "list[Segment | OpenKey | ExpectKey | RetireKey]", 16,
         WAIT, "the send window opens again with the next ACK"),
    Edge("reliable.move_down", "packetmuxer.move_down", "ControlBurst", 8, WAIT, "back-pressure"),
    Edge("packetmuxer.move_down", "networkio.move_down", "Burst", 8, WAIT, "back-pressure of the socket", direct=True),
    # sideways
    Edge("tlssession.worker", "packetmuxer.move_down", "RenegotiationKey", 8, WAIT,
         "it shares the inlet of the control packets, so it is there before the soft reset that needs it"),
    Edge("tlssession.worker", "datachannel.keeper", "DataChannelKey | KeepaliveTimes", 8, WAIT,
         "keys are few and the keeper is quick"),
    Edge("datachannel.keeper", "packetmuxer.move_down", "Burst", 8, WAIT, "pings queue like data"),
    Edge("datachannel.keeper", "tlssession.worker", "RekeyWanted", 64, DROP, "said again while it stays true"),
    Edge("tlssession.worker", "client", "TunnelUp", 16, WAIT, "the client always listens"),
    Edge("challenge", "tlssession.worker", "ChallengeAnswer", 64, WAIT, "nobody waits for whoever answers"),
)


class Junction(Generic[T]):
    """The inlet of a worker with a direct edge (``ports.SteppedInlet``), and what its senders need to know of it."""

    __slots__ = ("_receive", "_receive_nowait", "busy", "channel", "depth", "queued", "step")

    def __init__(self, sender: trio.MemorySendChannel[T], receiver: trio.MemoryReceiveChannel[T], depth: int) -> None:
        self.channel: trio.MemorySendChannel[T] = sender
        self._receive, self._receive_nowait = receiver.receive, receiver.receive_nowait
        self.depth: int = depth
        self.step: Callable[[T], T | None] | None = None
        #: Items in the channel; the worker has one that it has not done with.
        self.queued: int = 0
        self.busy: bool = False

    async def receive(self) -> T:
        """The next item; the one before is done. Checkpoints, cancel-safe."""
        self.busy = False
        item = await self._receive()
        self.queued -= 1
        self.busy = True
        return item

    def receive_nowait(self) -> T:
        """The next item, or trio.WouldBlock."""
        self.busy = False
        item = self._receive_nowait()
        self.queued -= 1
        self.busy = True
        return item

    @contextmanager
    def stepped(self, step: Callable[[T], T | None]) -> Iterator[None]:
        """Have senders call ``step``."""
        self.busy = False
        self.step = step
        try:
            yield
        finally:
            self.step = None
            self.busy = False

    def queue(self, item: T) -> None:
        """Queue ``item``. Raises trio.WouldBlock: no room."""
        self.channel.send_nowait(item)
        self.queued += 1

    def put(self, item: T) -> None:
        """Have the step take ``item``, or else queue it. Raises trio.WouldBlock: no room."""
        step = self.step
        if step is not None and not self.queued and not self.busy:
            rest = step(item)
            if rest is None:
                return
            item = rest
        self.channel.send_nowait(item)
        self.queued += 1


class WaitingSender(Generic[T]):
    """The sending end of a WAIT edge that is a channel (``ports.WaitingOutlet``)."""

    __slots__ = ("_channel", "send", "send_nowait")

    def __init__(self, channel: trio.MemorySendChannel[T]) -> None:
        self._channel = channel
        # Bound here: one attribute look-up less on each burst.
        self.send: Callable[[T], Coroutine[Any, Any, None]] = channel.send
        self.send_nowait: Callable[[T], None] = channel.send_nowait

    def has_room(self) -> bool:
        """Whether ``send_nowait`` would take an item now."""
        statistics = self._channel.statistics()
        return statistics.current_buffer_used < statistics.max_buffer_size or statistics.tasks_waiting_receive > 0


class DirectSender(Generic[T]):
    """The sending end of a WAIT edge that is direct, or of one that shares the channel of one that is."""

    __slots__ = ("_junction", "send_nowait")

    def __init__(self, junction: Junction[T], direct: bool) -> None:
        self._junction = junction
        self.send_nowait: Callable[[T], None] = junction.put if direct else junction.queue

    async def send(self, item: T) -> None:
        """Hand ``item`` over, waiting for room. Checkpoints, cancel-safe."""
        junction = self._junction
        await trio.lowlevel.checkpoint_if_cancelled()
        try:
            self.send_nowait(item)
        except trio.WouldBlock:
            # Counted at once: whoever comes between now and then must not overtake it.
            junction.queued += 1
            try:
                await junction.channel.send(item)
            except BaseException:
                junction.queued -= 1
                raise
        else:
            await trio.lowlevel.cancel_shielded_checkpoint()

    def has_room(self) -> bool:
        """Whether ``send_nowait`` would take an item now."""
        return self._junction.queued < self._junction.depth


class DroppingSender(Generic[T]):
    """The sending end of a DROP edge (``ports.DroppingOutlet``)."""

    __slots__ = ("_drops", "_name", "_send_nowait")

    def __init__(self, send_nowait: Callable[[T], None], name: str, drops: Counter[str]) -> None:
        self._send_nowait = send_nowait
        self._name = name
        self._drops = drops

    def offer(self, item: T) -> bool:
        """Hand ``item`` over; False, counted under the edge's name, when nobody has room for it."""
        try:
            self._send_nowait(item)
        except (trio.WouldBlock, trio.BrokenResourceError, trio.ClosedResourceError):
            self._drops[self._name] += 1
            return False
        return True


class Pipes:
    """The open channels of one lifetime, handed out by name.

    A ``with`` block: leaving it closes every channel, so whoever is left
    waiting gets EndOfChannel or BrokenResourceError and nothing is leaked.
    """

    def __init__(
        self, lifetime: Lifetime, drops: Counter[str] | None = None, edges: Iterable[Edge] | None = None
    ) -> None:
        self.drops: Counter[str] = Counter() if drops is None else drops
        self._edges = {(e.source, e.target): e for e in edges or EDGES if e.lifetime is lifetime}
        depths: dict[str, int] = {}
        for edge in self._edges.values():
            depths[edge.target] = max(depths.get(edge.target, 0), edge.depth)
        self._channels: dict[str, tuple[trio.MemorySendChannel[Any], trio.MemoryReceiveChannel[Any]]] = {}
        for target, depth in depths.items():
            sender, receiver = trio.open_memory_channel[Any](depth)
            self._channels[target] = (sender, receiver)
        self._junctions = {
            edge.target: Junction(*self._channels[edge.target], depths[edge.target])
            for edge in self._edges.values()
            if edge.direct
        }

    def __enter__(self) -> Pipes:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Close every channel. Idempotent."""
        for sender, receiver in self._channels.values():
            sender.close()
            receiver.close()

    def inlet(self, target: str) -> Inlet[Any]:
        """Where ``target`` reads; all edges into it arrive here. KeyError: not in the table."""
        junction = self._junctions.get(target)
        return self._channels[target][1] if junction is None else junction

    def waiting(self, source: str, target: str) -> WaitingOutlet[Any]:
        """The sending end of a WAIT edge. KeyError: no such edge; ValueError: it drops."""
        edge = self._edges[source, target]
        if edge.when_full is not WAIT:
            raise ValueError(f"{edge.name} never waits")
        junction = self._junctions.get(target)
        if junction is None:
            return WaitingSender(self._channels[target][0])
        return DirectSender(junction, edge.direct)

    def dropping(self, source: str, target: str) -> DroppingSender[Any]:
        """The sending end of a DROP edge. KeyError: no such edge; ValueError: it waits."""
        edge = self._edges[source, target]
        if edge.when_full is not DROP:
            raise ValueError(f"{edge.name} waits")
        junction = self._junctions.get(target)
        send_nowait: Callable[[Any], None] = self._channels[target][0].send_nowait
        if junction is not None:
            send_nowait = DirectSender(junction, edge.direct).send_nowait
        return DroppingSender(send_nowait, edge.name, self.drops)


def waiting_graph(edges: Iterable[Edge] = EDGES) -> dict[str, set[str]]:
    """Who may be held back by whom: the graph in which a cycle would be a deadlock."""
    graph: dict[str, set[str]] = {}
    for edge in edges:
        if edge.when_full is WAIT:
            graph.setdefault(edge.source, set()).add(edge.target)
    return graph


def diagram(edges: Iterable[Edge] = EDGES) -> str:
    """The table as a Mermaid flowchart: solid arrows hold back, dotted ones drop; "direct" may be a call."""
    lines = ["flowchart TD"]
    for edge in edges:
        arrow = "-->" if edge.when_full is WAIT else "-.->"
        source, target = (name.replace(".", "_") for name in (edge.source, edge.target))
        label = f"{edge.item} x{edge.depth}".replace("|", "or") + (", direct" if edge.direct else "")
        lines.append(f'    {source}["{edge.source}"] {arrow}|"{label}"| {target}["{edge.target}"]')
    return "\n".join(lines)


if __name__ == "__main__":
    print(diagram())
