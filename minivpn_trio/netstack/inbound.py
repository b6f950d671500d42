"""How much all peers together may have under way to us: what the path holds, and a queue for which there is room.

The server's tun device queues 500 packets by default (``txqueuelen``) and drops the rest. One sender that grows until
something is lost finds that limit, and a hundred that begin at once are far beyond it: what is lost at the
end of a stream costs a timeout, and who queues behind 500 packets waits for all of them. The receive window says
how much may be under way, so it is divided among those connections to which something comes, by what came
to each lately, and evenly where that would be less. In exact proportion to that everybody would keep for ever
what he happens to have; so the larger is given a little less than that, and two that take what they can get
are equal after a second, while those with little to receive hardly count.

On a path of some length all of it counts as nothing beside what a fast path of that length holds, and
the windows are what the readers make them.
"""

from __future__ import annotations

from math import inf

from .paths import Path
from .sequence import Position

__all__ = ["UNLIMITED", "Inbound", "Share"]

#: Segments under way to all connections together, a queue shorter than any server's by default; and to each at least
#: so many, by how many there are. Two would wait for a delayed acknowledgement where a peer sends short ones.
_TOGETHER, _LEAST, _MOST_LEAST, _LEAST_TOGETHER = 128, 3, 4, 400
#: Bytes a second that a path may carry without being limited by this, twice what this stack can take: round trips
#: grow for other reasons than queues, too.
_RATE = 2.5e8
#: What came, to this power, is what is divided by.
_POWER = 5 / 6
#: Seconds for which what comes is counted.
_ROUND = 0.05
UNLIMITED = 1 << 40


class Share:
    """What one connection gets, and what it got. Sizes are bytes."""

    __slots__ = ("before", "heard", "now", "round", "weight")

    def __init__(self) -> None:
        #: The position up to which arrivals were counted.
        self.heard: Position = 0
        #: The round in which something came last, how much came in it, and before, halved with each round.
        self.round: int = -1
        self.now: int = 0
        self.before: int = 0
        #: What ``now`` counts for.
        self.weight: float = 0.0


class Inbound:
    """The shares of all connections of a stack. Times are seconds of one monotonic clock."""

    __slots__ = ("_active", "_active_before", "_ends_at", "_round", "_weight", "_weight_before")

    def __init__(self) -> None:
        self._round = 0
        self._ends_at = 0.0
        #: To how many connections something came, in this round and in the last one, and the sum of their weights.
        self._active = self._active_before = 0
        self._weight = self._weight_before = 0.0

    def begin(self, share: Share, mss: int, now: float) -> int:
        """How much may be under way to a connection whose handshake begins, until ``limit`` says more; bytes. Whoever
        is to speak first there says it with his first segment."""
        if now >= self._ends_at:
            self._turn(now)
        self._active += 1
        share.round = self._round
        return max(_TOGETHER * mss // self._active, self._least(mss))

    def limit(self, share: Share, nxt: Position, mss: int, path: Path, now: float) -> int:
        """How much may be under way on ``path`` to the connection of ``share``, beyond ``nxt``, the next position
        expected; bytes."""
        if now >= self._ends_at:
            self._turn(now)
        if share.round != self._round:
            share.before = max(share.now, share.before // 2) >> min(self._round - share.round - 1, 32)
            share.now, share.weight = 0, 0.0
            share.round = self._round
            self._active += 1
        arrived = nxt - share.heard
        share.heard = nxt
        share.now += arrived
        weight = share.now**_POWER
        self._weight += weight - share.weight
        share.weight = weight
        if path.rtt == inf:
            return UNLIMITED
        pool = max(_TOGETHER * mss, int(_RATE * path.rtt))
        if share.before > share.now:
            weight = share.before**_POWER
        return max(
            self._least(mss),
            pool // max(self._active, self._active_before),
            int(pool * (weight / max(self._weight_before, self._weight, weight, 1.0))),
        )

    def _least(self, mss: int) -> int:
        return min(max(_LEAST_TOGETHER // max(self._active, self._active_before), _LEAST), _MOST_LEAST) * mss

    def _turn(self, now: float) -> None:
        """Begin a round."""
        late = now >= self._ends_at + _ROUND
        self._active_before, self._weight_before = (0, 0.0) if late else (self._active, self._weight)
        self._active, self._weight = 0, 0.0
        self._round += 2 if late else 1
        self._ends_at = now + _ROUND
