"""THE DIAGRAM: which worker feeds which, with what, and what happens when it cannot keep up.

Every memory channel of the package is opened here, from the one table
``EDGES``. A test checks that the edges that hold their sender back form no
cycle; ARCHITECTURE.md's picture is generated from the same table
(``python -m minivpn_trio.wiring``).

Several edges into one worker share one channel, so a worker has one inlet and
reads its input in the order in which it was sent.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Any, Generic, TypeVar

import trio

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


@dataclass(frozen=True, slots=True)
class Edge:
    """One arrow of the diagram."""

    source: str
    target: str
    item: str
    depth: int
    when_full: WhenFull
    why: str
    lifetime: Lifetime = Lifetime.CONNECTION

    @property
    def name(self) -> str:
        """``source -> target``, the key of drop counters."""
        return f"{self.source} -> {self.target}"


WAIT, DROP = WhenFull.WAIT, WhenFull.DROP

#: In the order in which packets are processed: up first, then down, then the side channels.
EDGES: tuple[Edge, ...] = (
    # up
    Edge("networkio.move_up", "packetmuxer.move_up", "Burst", 4, WAIT,
         "the kernel's socket buffer is the better queue, and a TCP stream must not lose bytes"),
    Edge("packetmuxer.move_up", "datachannel.move_up", "Burst", 4, WAIT,
         "datachannel.move_up never waits itself, so this ends"),
    Edge("packetmuxer.move_up", "reliable.move_up", "list[SequencedPacket]", 16, DROP,
         "nothing was acknowledged yet: the peer sends it again"),
    Edge("packetmuxer.move_up", "tlssession.worker", "RemoteBound", 64, DROP,
         "sent once, when the inbox is still empty"),
    Edge("reliable.move_up", "controlchannel.move_up", "list[Segment]", 16, DROP,
         "what does not fit stays in the receive window and is offered again"),
    Edge("controlchannel.move_up", "tlssession.worker", "TLSBytes | SoftResetSeen", 64, WAIT,
         "it was acknowledged, so it must arrive"),
    Edge("datachannel.move_up", "tun.inbound", "Burst", 64, DROP,
         "a slow reader must not stop the tunnel; inner TCP repairs it", Lifetime.CLIENT),
    # down
    Edge("tun.outbound", "datachannel.move_down", "Burst", 8, WAIT,
         "back-pressure reaches the application", Lifetime.CLIENT),
    Edge("datachannel.move_down", "packetmuxer.move_down", "Burst", 8, WAIT, "back-pressure"),
    Edge("tlssession.worker", "controlchannel.move_down", "TLSBytes | OpenKey | ExpectKey | RetireKey", 16, WAIT,
         "back-pressure"),
    Edge("controlchannel.move_down", "reliable.move_down", "list[Segment | OpenKey | ExpectKey | RetireKey]", 16,
         WAIT, "the send window opens again with the next ACK"),
    Edge("reliable.move_down", "packetmuxer.move_down", "ControlBurst", 8, WAIT, "back-pressure"),
    Edge("packetmuxer.move_down", "networkio.move_down", "Burst", 8, WAIT, "back-pressure of the socket"),
    # sideways
    Edge("tlssession.worker", "packetmuxer.move_down", "RenegotiationKey", 8, WAIT,
         "it shares the inlet of the control packets, so it is there before the soft reset that needs it"),
    Edge("tlssession.worker", "datachannel.keeper", "DataChannelKey", 8, WAIT, "keys are few and the keeper is quick"),
    Edge("datachannel.keeper", "packetmuxer.move_down", "Burst", 8, WAIT, "pings queue like data"),
    Edge("datachannel.keeper", "tlssession.worker", "RekeyWanted", 64, DROP, "said again while it stays true"),
    Edge("tlssession.worker", "client", "TunnelUp", 16, WAIT, "the client always listens"),
    Edge("challenge", "tlssession.worker", "ChallengeAnswer", 64, WAIT, "nobody waits for whoever answers"),
)


class WaitingSender(Generic[T]):
    """The sending end of a WAIT edge (``ports.WaitingOutlet``)."""

    __slots__ = ("_channel", "send", "send_nowait")

    def __init__(self, channel: trio.MemorySendChannel[T]) -> None:
        self._channel = channel
        # Bound here: one attribute look-up less on each burst.
        self.send = channel.send
        self.send_nowait = channel.send_nowait


class DroppingSender(Generic[T]):
    """The sending end of a DROP edge (``ports.DroppingOutlet``)."""

    __slots__ = ("_channel", "_drops", "_name")

    def __init__(self, channel: trio.MemorySendChannel[T], name: str, drops: Counter[str]) -> None:
        self._channel = channel
        self._name = name
        self._drops = drops

    def offer(self, item: T) -> bool:
        """Hand ``item`` over; False, counted under the edge's name, when nobody has room for it."""
        try:
            self._channel.send_nowait(item)
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
        self, lifetime: Lifetime, drops: Counter[str] | None = None, edges: Iterable[Edge] = EDGES
    ) -> None:
        self.drops: Counter[str] = Counter() if drops is None else drops
        self._edges = {(e.source, e.target): e for e in edges if e.lifetime is lifetime}
        depths: dict[str, int] = {}
        for edge in self._edges.values():
            depths[edge.target] = max(depths.get(edge.target, 0), edge.depth)
        self._channels: dict[str, tuple[trio.MemorySendChannel[Any], trio.MemoryReceiveChannel[Any]]] = {}
        for target, depth in depths.items():
            sender, receiver = trio.open_memory_channel[Any](depth)
            self._channels[target] = (sender, receiver)

    def __enter__(self) -> Pipes:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Close every channel. Idempotent."""
        for sender, receiver in self._channels.values():
            sender.close()
            receiver.close()

    def inlet(self, target: str) -> trio.MemoryReceiveChannel[Any]:
        """Where ``target`` reads; all edges into it arrive here. KeyError: not in the table."""
        return self._channels[target][1]

    def waiting(self, source: str, target: str) -> WaitingSender[Any]:
        """The sending end of a WAIT edge. KeyError: no such edge; ValueError: it drops."""
        edge = self._edges[source, target]
        if edge.when_full is not WAIT:
            raise ValueError(f"{edge.name} never waits")
        return WaitingSender(self._channels[target][0])

    def dropping(self, source: str, target: str) -> DroppingSender[Any]:
        """The sending end of a DROP edge. KeyError: no such edge; ValueError: it waits."""
        edge = self._edges[source, target]
        if edge.when_full is not DROP:
            raise ValueError(f"{edge.name} waits")
        return DroppingSender(self._channels[target][0], edge.name, self.drops)


def waiting_graph(edges: Iterable[Edge] = EDGES) -> dict[str, set[str]]:
    """Who may be held back by whom: the graph in which a cycle would be a deadlock."""
    graph: dict[str, set[str]] = {}
    for edge in edges:
        if edge.when_full is WAIT:
            graph.setdefault(edge.source, set()).add(edge.target)
    return graph


def diagram(edges: Iterable[Edge] = EDGES) -> str:
    """The table as a Mermaid flowchart: solid arrows hold back, dotted ones drop."""
    lines = ["flowchart TD"]
    for edge in edges:
        arrow = "-->" if edge.when_full is WAIT else "-.->"
        source, target = (name.replace(".", "_") for name in (edge.source, edge.target))
        label = f"{edge.item} x{edge.depth}".replace("|", "or")
        lines.append(f'    {source}["{edge.source}"] {arrow}|"{label}"| {target}["{edge.target}"]')
    return "\n".join(lines)


if __name__ == "__main__":
    print(diagram())
