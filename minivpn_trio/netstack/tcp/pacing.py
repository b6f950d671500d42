"""Pacing: a window is spread over its round trip instead of leaving in one burst.

What follows a path of some length is short queues: the server's socket buffer holds some ninety datagrams. A window
that opens at once, because one acknowledgement spoke for a whole burst, overflows them at a
fraction of what the path carries. So data leaves at a rate, somewhat above a window in a round trip as in Linux, in
trains that such a queue takes.

Credit grows with time up to a train's worth. Timers come late, by a millisecond or so: what they
miss is credit, not throughput.
"""

from __future__ import annotations

from math import inf

__all__ = ["Pacer"]

#: A window needs no pacing in round trips below this: timers are as coarse, and acknowledgements come meanwhile.
_SHORTEST_PATH = 0.002
#: Windows in a round trip, in slow start and afterwards (Linux, tcp_pacing_ss_ratio and tcp_pacing_ca_ratio).
_SLOW_START, _AVOIDANCE = 2.0, 1.2
#: A train holds what leaves in this time, within bounds, in segments.
_TRAIN_TIME = 0.001
_SHORTEST_TRAIN, _LONGEST_TRAIN = 10, 44
#: The timer is for this part of a train: what a late one misses beyond a whole train is lost. Each costs a turn of the
#: scheduler, so there are fewer on the shortest path, where evenness counts less.
_REFILL, _SHORT_REFILL = 0.5, 0.75


class Pacer:
    """Rates are bytes a second, sizes bytes, times seconds."""

    __slots__ = ("_at", "_credit", "_depth", "_mss", "_refill", "due", "held_back", "rate")

    def __init__(self) -> None:
        #: inf: no pacing.
        self.rate: float = inf
        #: When more may go out; inf: nothing was held back.
        self.due: float = inf
        #: The way out of the stack was full, and now it is our turn: what could have left meanwhile may leave at once,
        #: a whole train at most. That queue is the bottleneck then, and paces by itself.
        self.held_back: bool = False
        # What may leave, and as of when: long ago, so that it begins with a whole train.
        self._credit = 0.0
        self._at = -inf
        self._depth = self._mss = 0.0
        self._refill = _REFILL

    def set_window(self, window: int, slow_start: bool, srtt: float) -> None:
        """The rate that ``window`` bytes in a round trip make; ``slow_start``: it doubles in each."""
        if srtt < _SHORTEST_PATH:
            self.rate = inf
        else:
            self.rate = window / srtt * (_SLOW_START if slow_start else _AVOIDANCE)
        self._refill = _REFILL

    def set_rate(self, rate: float, srtt: float) -> None:
        """``rate`` as it is, on the shortest path, too: where timers are too coarse, the acknowledgements that come
        meanwhile tell the time. 0.0: none."""
        self.rate = rate if rate > 0 else inf
        self._refill = _SHORT_REFILL if srtt < _SHORTEST_PATH else _REFILL

    def allowance(self, mss: int, now: float) -> int:
        """How many segments may leave now. None may: ``due`` says when to ask again."""
        rate = self.rate
        if rate == inf:
            self.held_back = False
            self.due = inf
            return _LONGEST_TRAIN
        most = self._depth = min(max(rate * _TRAIN_TIME, _SHORTEST_TRAIN * mss), _LONGEST_TRAIN * mss)
        self._mss = mss
        if self.held_back:
            most = _LONGEST_TRAIN * mss
            self.held_back = False
        credit = self._credit = min(self._credit + (now - self._at) * rate, most)
        self._at = now
        if credit >= mss:
            self.due = inf
            return int(credit / mss)
        self._wait()
        return 0

    def sent(self, size: int) -> None:
        """``size`` bytes left. Where that is all that may leave now, ``due`` says when to ask again."""
        if self.rate != inf:
            self._credit -= size
            if self._credit < self._mss:
                self._wait()

    def _wait(self) -> None:
        self.due = self._at + (self._refill * self._depth - self._credit) / self.rate
