"""CUBIC (RFC 9438): after a loss the window follows a cubic of the time, flat around where the loss was."""

from __future__ import annotations

from .hystart import HyStart

__all__ = ["Cubic"]

#: RFC 9438, 4.6 and 5.1; and the additive increase that is as aggressive as Reno's with that decrease (4.3).
_BETA = 0.7
_C = 0.4
_ALPHA = 3 * (1 - _BETA) / (1 + _BETA)
#: No window grows beyond what a window scale of 14 could ever use.
_CEILING = 1 << 30
#: Segments that may follow each other at once after a recovery.
_BURST = 32

_Memory = tuple[int, int, float, float, float, float, float, HyStart | None]


class Cubic:
    """Windows are bytes outside, segments of the present size within."""

    __slots__ = (
        "_acked_at",
        "_before",
        "_epoch",
        "_estimate",
        "_hystart",
        "_initial_segments",
        "_k",
        "_mss",
        "_peak",
        "_prior",
        "_rtt",
        "_window",
        "threshold",
        "window",
    )

    def __init__(self, mss: int, initial_segments: int = 10) -> None:
        self._mss = mss
        self._initial_segments = initial_segments
        self.window: int = initial_segments * mss
        self.threshold: int = _CEILING
        self._hystart: HyStart | None = HyStart()
        #: ``window`` with its fraction, in segments, while in congestion avoidance.
        self._window = 0.0
        #: W_max, K, cwnd_prior and W_est of the RFC; when this epoch began (0.0: it has not).
        self._peak = 0.0
        self._k = 0.0
        self._prior = 0.0
        self._estimate = 0.0
        self._epoch = 0.0
        self._rtt = 0.0
        self._acked_at = 0.0
        self._before: _Memory | None = None

    def handle_ack(self, acked: int, in_flight: int, rtt: float, now: float) -> None:
        """Slow start below the threshold, the cubic above it; neither unless the window is what limits us."""
        if rtt:
            self._rtt = rtt
        window = self.window
        if window < self.threshold:
            # Doubling in a round trip needs only half of the window in use.
            if in_flight * 2 >= window:
                hystart = self._hystart
                grown = acked if hystart is None else hystart.growth(acked, in_flight, rtt)
                self.window = min(window + grown, max(self.threshold, window))
                if hystart is not None and hystart.done:
                    self._hystart = None
                    self.threshold = self.window
            return
        if in_flight + 4 * self._mss + window // 3 < window:
            # Not limited by the window: this time does not count.
            if self._epoch:
                self._epoch += now - self._acked_at
            self._acked_at = now
            return
        self._acked_at = now
        self._follow(acked / self._mss, now)

    def _follow(self, acked: float, now: float) -> None:
        """Congestion avoidance (RFC 9438, 4.2 to 4.5) for ``acked`` segments."""
        size = self.window / self._mss
        if abs(self._window - size) >= 1:
            self._window = size
        size = self._window
        if not self._epoch:
            self._begin(size, now)
        elapsed = now - self._epoch
        self._estimate += acked / size * (_ALPHA if self._estimate < self._prior else 1.0)
        if self._peak + _C * (elapsed - self._k) ** 3 < self._estimate:
            size = max(size, self._estimate)
        else:
            target = self._peak + _C * (elapsed + self._rtt - self._k) ** 3
            target = min(max(target, size), size * 1.5)
            # All that a burst of acknowledgements brings, at most up to the target.
            size += min((target - size) * acked / size, target - size)
        self._window = size
        self.window = min(int(size * self._mss), _CEILING)

    def _begin(self, size: float, now: float) -> None:
        self._epoch = now
        self._estimate = size
        if size < self._peak:
            self._k = ((self._peak - size) / _C) ** (1 / 3)
        else:
            self._peak, self._k = size, 0.0

    def _remember(self) -> None:
        self._before = (
            self.window, self.threshold, self._peak, self._k, self._prior, self._estimate, self._epoch, self._hystart,
        )  # fmt: skip

    def _reduce(self, in_flight: int) -> None:
        self._remember()
        self._hystart = None
        window = self.window
        if in_flight + 4 * self._mss + window // 3 < window:
            window = in_flight
        size = window / self._mss
        self._prior = size
        # Fast convergence: leave room for newcomers if even the last peak was not reached (4.7).
        self._peak = size * (1 + _BETA) / 2 if size < self._peak else size
        self.threshold = max(int(window * _BETA), 2 * self._mss)
        self._epoch = 0.0

    def handle_loss(self, in_flight: int, now: float) -> None:
        """To seven tenths (4.6)."""
        self._reduce(in_flight)
        self.window = self.threshold

    def handle_timeout(self, in_flight: int, now: float) -> None:
        """Start over with one segment (4.8); repeated timeouts leave the threshold alone."""
        if in_flight:
            self._reduce(in_flight)
        self._peak = 0.0
        self._epoch = 0.0
        self.window = self._mss

    def handle_recovered(self, in_flight: int, now: float) -> None:
        """Back to the threshold, but not in one burst: a large one overflows the queue that has just
        overflowed (RFC 6582, 3.2, step 3). What is missing comes by slow start."""
        self.window = min(self.threshold, in_flight + _BURST * self._mss)

    def handle_undo(self, now: float) -> None:
        """As if the last reduction had not been."""
        if self._before is None:
            return
        (
            window, self.threshold, self._peak, self._k, self._prior, self._estimate, self._epoch, self._hystart,
        ) = self._before  # fmt: skip
        self._before = None
        self.window = max(self.window, window)

    def handle_idle(self, now: float) -> None:
        """What was learnt is out of date: restart from the initial window, and a new epoch."""
        self.window = min(self.window, self._initial_segments * self._mss)
        self._epoch = 0.0

    def handle_mss(self, mss: int) -> None:
        """Keep the window at no less than one segment of the new size."""
        scale = self._mss / mss
        self._peak *= scale
        self._prior *= scale
        self._estimate *= scale
        self._window *= scale
        self._mss = mss
        self.window = max(self.window, mss)
