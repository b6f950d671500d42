"""The one deadline of a sender, and what it is for: retransmission, the tail loss probe, reordering, or the peer's
closed window."""

from __future__ import annotations

from math import inf

from .state import Timer
from .tail_probe import TailProbe

__all__ = ["Timers"]

#: RFC 8985, 7.2: for a single segment in flight, the peer's delayed acknowledgement; and no probe sooner than this,
#: for a process that the system did not run meanwhile has acknowledgements waiting that it did not see yet.
_PEERS_DELAY, _LEAST_PROBE = 0.2, 0.03


class Timers(TailProbe):
    """The layer that chooses the deadline, and acts when it has passed."""

    __slots__ = ()

    deadline: float
    retries: int
    timeouts: int
    user_timeout: float | None

    def _arm(self, now: float, waiting: float) -> None:
        """Choose the timer: ``waiting`` is when to look for losses again, 0.0 if there is no need."""
        if self.una == self.nxt:
            self.deadline = inf
            self._timer = Timer.RETRANSMIT
            return
        rto = self.rto
        delay = rto.value
        self._timer = Timer.RETRANSMIT
        if waiting:
            self.deadline = max(waiting, now)
            self._timer = Timer.REORDER
            return
        if self.sack and self._recovery_point is None and self._tail_end is None and rto.srtt and not self.board.sacked:
            probe = max(2 * rto.srtt + (_PEERS_DELAY if len(self.board) == 1 else 0.0), _LEAST_PROBE)
            if probe < delay:
                delay = probe
                self._timer = Timer.TAIL
        self.deadline = now + delay
        if self.user_timeout is not None:
            self.deadline = min(self.deadline, max(self.stalled_since + self.user_timeout, now))

    def handle_timeout(self, now: float) -> bool:
        """``deadline`` has passed. True: ask the peer for its window, with an old sequence number and no data."""
        timer = self._timer
        if timer is Timer.REORDER:
            _, waiting = self._detect_losses(0, self.nxt - self.una - self.board.sacked_bytes, now)
            self._arm(now, waiting)
            return False
        if timer is Timer.TAIL:
            self._tail_due = True
            self._tail_end = self.nxt
            self._arm(now, 0.0)
            return False
        self.retries += 1
        in_flight = self.nxt - self.una
        self.rto.expire()
        if not in_flight:
            self.deadline = now + self.rto.value
            if self.user_timeout is not None:
                self.deadline = min(self.deadline, max(self.stalled_since + self.user_timeout, now))
            # A window that stays small is used at last (RFC 9293, 3.8.6.2.1).
            self._override = self.window > 0
            return True
        self.timeouts += 1
        board = self.board
        flight = board.pipe if self._slow else in_flight
        if self.probe is not None:
            self._drop_probe()
        first = board.first
        # The first segment SACKed and yet not acknowledged: the peer changed its mind.
        board.lose_all(forget_sacks=(first is not None and first.sacked) or self.retries > 1)
        # A peer that took its window back throws away what comes: not a sign of congestion either.
        self.congestion.handle_timeout(max(flight, 1) if self.retries == 1 and self.window else 0, now)
        if self.retries == 1 and self.window:
            self._undo.begin(self.una)
        self._recovery_point = self.nxt
        self._slow = True
        self._tail_end = None
        self._tail_due = False
        self._retransmit_now = True
        self._duplicates = 0
        self._arm(now, 0.0)
        return False

    def expired(self, now: float, most: int) -> bool:
        """Whether it is time to give up: ``most`` timeouts in a row, or the user's patience is over."""
        if self.user_timeout is not None and (self.una < self.nxt or self.buffered):
            return now - self.stalled_since >= self.user_timeout
        return self.retries >= most and self._timer in (Timer.RETRANSMIT, Timer.PERSIST)

    def set_user_timeout(self, seconds: float | None, now: float) -> None:
        """How long what was written may wait for progress."""
        self.user_timeout = seconds
        if self.deadline < inf and seconds is not None:
            self.deadline = min(self.deadline, max(self.stalled_since + seconds, now))

    def resume(self, now: float) -> None:
        """The path is there again. What the timer went off for meanwhile, in vain, need not wait for its next time,
        which may be two minutes away."""
        if self.rto.backoff and self.deadline < inf:
            self.retries = 0
            self.rto.progress()
            if self.una < self.nxt:
                self._timer = Timer.RETRANSMIT
            self.deadline = now
