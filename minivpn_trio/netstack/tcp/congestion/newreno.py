"""NewReno: slow start with HyStart++, one segment a round trip, halving on loss (RFC 5681, RFC 6582)."""

from __future__ import annotations

from .hystart import HyStart

__all__ = ["NewReno"]

#: No window grows beyond what a window scale of 14 could ever use.
_CEILING = 1 << 30
#: Segments that may follow each other at once after a recovery.
_BURST = 32


class NewReno:
    """The standard, and the yardstick for everything else."""

    __slots__ = ("_before", "_credit", "_hystart", "_initial_segments", "_mss", "threshold", "window")

    def __init__(self, mss: int, initial_segments: int = 10) -> None:
        self._mss = mss
        self._initial_segments = initial_segments
        self.window: int = initial_segments * mss
        self.threshold: int = _CEILING
        self._hystart: HyStart | None = HyStart()
        #: Window, threshold and slow start before the last reduction.
        self._before: tuple[int, int, HyStart | None] | None = None
        #: Bytes acknowledged since the window grew last (RFC 3465).
        self._credit = 0

    def handle_ack(self, acked: int, in_flight: int, rtt: float, now: float) -> None:
        """Grow, if the window is what limits us (RFC 7661, in short): by what was acknowledged
        below the threshold, by one segment for each window above it."""
        window = self.window
        if window < self.threshold:
            # Doubling in a round trip needs only half of the window in use.
            if in_flight * 2 >= window:
                hystart = self._hystart
                grown = acked if hystart is None else hystart.growth(acked, in_flight, rtt)
                self.window = min(window + grown, self.threshold)
                if hystart is not None and hystart.done:
                    self._hystart = None
                    self.threshold = self.window
            return
        if in_flight + 4 * self._mss + window // 3 < window:
            return
        self._credit += acked
        if self._credit >= window:
            self._credit -= window
            self.window = min(window + self._mss, _CEILING)

    def handle_loss(self, in_flight: int, now: float) -> None:
        """Half of what was in flight, at least two segments (RFC 5681, equation 4)."""
        self._before = (self.window, self.threshold, self._hystart)
        self._hystart = None
        self.threshold = max(in_flight // 2, 2 * self._mss)
        self.window = self.threshold
        self._credit = 0

    def handle_timeout(self, in_flight: int, now: float) -> None:
        """Start over with one segment (RFC 5681, 3.1); repeated timeouts leave the threshold alone."""
        if in_flight:
            self._before = (self.window, self.threshold, self._hystart)
            self._hystart = None
            self.threshold = max(in_flight // 2, 2 * self._mss)
        self.window = self._mss
        self._credit = 0

    def handle_recovered(self, in_flight: int, now: float) -> None:
        """Back to the threshold, but not in one burst: a large one overflows the queue that has just
        overflowed (RFC 6582, 3.2, step 3). What is missing comes by slow start."""
        self.window = min(self.threshold, in_flight + _BURST * self._mss)

    def handle_undo(self, now: float) -> None:
        """As if the last reduction had not been."""
        if self._before is not None:
            window, self.threshold, self._hystart = self._before
            self.window = max(self.window, window)
            self._before = None

    def handle_idle(self, now: float) -> None:
        """What was learnt is out of date: restart from the initial window."""
        self.window = min(self.window, self._initial_segments * self._mss)

    def handle_mss(self, mss: int) -> None:
        """Keep the window at no less than one segment of the new size."""
        self._mss = mss
        self.window = max(self.window, mss)
