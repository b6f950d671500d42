"""What connections to one host share: how short the way there is, and how much of theirs is under way on it.

The server's socket holds some ninety datagrams by default (``net.core.rmem_default``). A sender by itself finds out by
its congestion control. Several that begin at once overflow that queue however each behaves, with ten segments to
begin with (RFC 6928) and one or four at least; and where each has little to say, what is lost is its end, which
costs a timeout. So together they have no more in flight than that queue and the path hold, and whoever finds no
room waits for his turn (turns.py). RFC 9040 and RFC 3124 have the idea; here the queue is what is known beforehand.

On a path of some length that is more than all of them can fill. And what was sent a while ago has left the queue,
though nobody has acknowledged it yet: a peer may wait for 200 ms with that, and many that say little each would be
in the way of all others for so long.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Protocol

from .packets import Address
from .turns import Turns, Waiter

__all__ = ["Flight", "Path", "Paths"]

#: Segments that the queue at the server holds, and bytes a second that a fast path carries, the same as
#: ``TcpSettings.initial_ssthresh_segments`` and ``initial_ssthresh_rate`` say for one connection.
_QUEUE = 90
_RATE = 1.25e8
#: A turn comes when so many segments may leave: one by one each would cost a system call.
_LEAST = 10
#: Turns in a row for those with little to say.
_FEW = 8
#: Seconds, beyond a round trip, in which such a queue is empty again: at 100 Mbit/s. Those that have more in flight
#: than a peer lets wait know better.
_DRAIN = 0.01
#: Hosts remembered, and for how long, seconds.
_MOST_HOSTS, _AGE = 1024, 600.0


class Flight(Waiter, Protocol):
    """A connection and what it has in flight."""

    path: Path
    flying: int

    def drain(self, now: float) -> bool:
        """Whether what was sent so far is in no queue any more. If so, count it no longer, and tell
        ``Paths.change``."""
        ...


class Path:
    """The way to one host. Sizes are bytes, times seconds."""

    __slots__ = ("flying", "mss", "recent", "rtt", "waiting")

    def __init__(self) -> None:
        #: The shortest round trip that any connection has seen; inf: none yet.
        self.rtt: float = inf
        #: What all have in flight, but for what has left the queue; and who may have something in it, with the time
        #: when he sent it or was asked last, in that order.
        self.flying: int = 0
        self.recent: dict[Flight, float] = {}
        #: Who waits for others' data to arrive.
        self.waiting: Turns = Turns()
        #: A full segment, the largest of all connections: who cuts smaller ones must find room when the others do.
        self.mss: int = 1

    @property
    def drained_at(self) -> float:
        """When something of ``flying`` may not count any more; inf: nothing does."""
        for sent_at in self.recent.values():
            return sent_at + _DRAIN + self.rtt
        return inf

    def drain(self, now: float) -> None:
        """Let those go that sent nothing lately."""
        while self.drained_at <= now:
            flight = next(iter(self.recent))
            del self.recent[flight]
            if not flight.drain(now):
                self.recent[flight] = now

    @property
    def room(self) -> int:
        """How many segments may leave now, if that is enough for a turn; else 0."""
        if self.rtt == inf:
            return 1 << 20
        room = (max(_QUEUE * self.mss, int(_RATE * self.rtt)) - self.flying) // self.mss
        return room if room >= _LEAST else 0


class Paths:
    """The paths of a stack by host. Bounded: the oldest goes first; those who use it go on doing so."""

    __slots__ = ("_held", "_known", "_used", "due")

    def __init__(self) -> None:
        #: Somebody who waits may send, and ``serve`` is to be called.
        self.due: bool = False
        self._known: dict[Address, tuple[Path, float]] = {}
        #: Where somebody waits.
        self._held: dict[Path, None] = {}
        #: Somebody sent something in this round of turns.
        self._used = False

    def to(self, remote: Address, now: float) -> Path:
        """The path to ``remote``. What is known of its length is forgotten after ten minutes: routes change."""
        known = self._known.get(remote)
        if known is not None:
            path, expires = known
            if now < expires:
                return path
            del self._known[remote]
        elif len(self._known) >= _MOST_HOSTS:
            del self._known[next(iter(self._known))]
        path = Path()
        self._known[remote] = (path, now + _AGE)
        return path

    def sent(self, flight: Flight, now: float) -> None:
        """Something of ``flight`` leaves now."""
        recent = flight.path.recent
        recent.pop(flight, None)
        recent[flight] = now
        self._used = True

    def forget(self, flight: Flight) -> None:
        """The connection is over: nothing of it counts or waits any more."""
        path = flight.path
        path.recent.pop(flight, None)
        path.waiting.leave(flight)
        if not path.waiting:
            self._held.pop(path, None)
        self.change(path, -flight.flying)
        flight.flying = 0

    def next_timeout(self) -> float:
        """When ``handle_timeout`` is due; inf: not before something happens."""
        return min([path.drained_at for path in self._held], default=inf)

    def handle_timeout(self, now: float) -> None:
        """See whether those who wait may send after all."""
        for path in self._held:
            path.drain(now)

    def change(self, path: Path, size: int) -> None:
        """``size`` bytes more are in flight, or fewer."""
        path.flying += size
        if size < 0 and path.waiting and path.room:
            self.due = True

    def join(self, path: Path, waiter: Waiter, few: bool) -> bool:
        """Have ``waiter`` wait for its turn. True: ``next_timeout`` may have moved earlier."""
        first = not path.waiting
        path.waiting.join(waiter, few)
        self._held[path] = None
        return first

    def serve(self, now: float, flush: Callable[[Waiter, float], None]) -> None:
        """Let those send that may now, in turn, until there is no room or nobody uses it."""
        self.due = False
        for path in list(self._held):
            waiting, self._used = path.waiting, True
            while waiting and path.room and self._used:
                self._used = False
                for _ in range(len(waiting)):
                    # Whoever leaves takes a place in the line with him.
                    if not waiting or not path.room:
                        break
                    waiting.serve(now, few=waiting.few_in_a_row < _FEW, flush=flush)
            if not waiting:
                self._held.pop(path, None)

    def clear(self) -> None:
        """The tunnel is another one: nothing is known of the paths behind it. What is in flight goes on counting."""
        for path, _ in self._known.values():
            path.rtt, path.mss = inf, 1
        self.due = bool(self._held)
