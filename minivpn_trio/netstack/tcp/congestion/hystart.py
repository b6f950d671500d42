"""HyStart++ (RFC 9406): leaving the first slow start when the round-trip time rises, before the queue overflows.

Rounds are counted in octets: one ends when as much was acknowledged as was in flight when it began. A rise
of the smallest round-trip time from one round to the next starts Conservative Slow
Start, which grows at a quarter of the pace; if the rise turns out to be a passing one, growth goes on as before, else
slow start ends after five such rounds, the one in which the rise was seen among them.

RFC 9406's limit of eight segments a growth step is for stacks that acknowledge and send without
trains; here what a burst of acknowledgements brings is counted at once.
"""

from __future__ import annotations

from math import inf

__all__ = ["HyStart"]

#: RFC 9406, 4.3. Times are seconds.
_MIN_THRESHOLD, _MAX_THRESHOLD, _THRESHOLD_DIVISOR = 0.004, 0.016, 8
_SAMPLES = 8
_DIVISOR = 4
_ROUNDS = 5


class HyStart:
    """The first slow start of a connection."""

    __slots__ = ("_acked", "_baseline", "_current", "_last", "_round_end", "_rounds", "_samples", "done")

    def __init__(self) -> None:
        #: Slow start should end now.
        self.done: bool = False
        self._acked = 0
        self._round_end = 0
        self._last = self._current = inf
        self._samples = 0
        #: Smallest round trip when the conservative phase began; 0.0 outside of it.
        self._baseline = 0.0
        self._rounds = 0

    def growth(self, acked: int, in_flight: int, rtt: float) -> int:
        """By how many bytes the window grows for ``acked`` ones, of which ``in_flight`` were before; ``rtt`` 0.0:
        no sample."""
        if rtt:
            self._current = min(self._current, rtt)
            self._samples += 1
            if self._samples >= _SAMPLES and not self._baseline and self._last != inf:
                rise = min(max(self._last / _THRESHOLD_DIVISOR, _MIN_THRESHOLD), _MAX_THRESHOLD)
                if self._current >= self._last + rise:
                    self._baseline = self._current
                    self._rounds = 0
            elif self._baseline and self._samples >= _SAMPLES and self._current < self._baseline:
                self._baseline = 0.0
        self._acked += acked
        if self._acked >= self._round_end:
            self._round_end = self._acked + max(in_flight - acked, 0)
            self._last, self._current, self._samples = self._current, inf, 0
            if self._baseline:
                self._rounds += 1
                self.done = self._rounds >= _ROUNDS
        return acked // _DIVISOR if self._baseline else acked
