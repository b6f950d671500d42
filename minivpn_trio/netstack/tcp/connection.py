"""One TCP connection: the states of RFC 9293 around a Receiver and a Sender.

Input comes two ways. ``handle_packets`` is the fast path: a burst of raw
packets of a synchronised connection, read by struct, as a rule acknowledged once.
``handle_segment`` takes one parsed segment: SYN, FIN, RST, and everything
before the handshake is complete. Neither sends; ``flush`` does, once after each burst, timeout or command.

TIME-WAIT is not a state here but a record of the stack's (timewait.py), and
LISTEN is listener.py's. The connection reaches the rest of the stack only through
the methods of ``Network``. control_block.py says how the class is layered.
"""

from __future__ import annotations

import errno
from math import inf

from ..memory import FLOOR
from .congestion import ALGORITHMS
from .fastpath import FastPath
from .network import os_error
from .sender.state import SEGMENT_COST
from .state import HANDSHAKE, SENDING, TcpState

__all__ = ["TcpConnection", "TcpState"]


class TcpConnection(FastPath):
    """One TCP connection. Made by ``Stack.connect_tcp``, or handed out by a listener.

    Commands (``write``, ``read``, ``shutdown_write``, ``close``, ``abort``)
    never call ``on_change``: their caller knows.
    """

    __slots__ = ()

    # --- commands ---

    def write(self, data: bytes | bytearray | memoryview, now: float) -> int:
        """Queue ``data``; the number of its bytes accepted, 0 if not ``writable``.

        Raises OSError: ``error`` if there is one; ENOTCONN before the handshake; EPIPE after ``shutdown_write`` or
        ``close``.
        """
        if self.error is not None:
            raise self._fresh_error()
        if self.state in HANDSHAKE:
            raise os_error(errno.ENOTCONN)
        sender = self.sender
        if sender.fin or self.state not in SENDING:
            raise os_error(errno.EPIPE)
        capacity = self._send_limit
        room = capacity - sender.unacknowledged
        if room * 2 < capacity or not len(data):
            return 0
        # Of what is left a part goes to what segments of that size take besides their bytes.
        room = min(room, max(self._memory.left * sender.mss // (sender.mss + SEGMENT_COST), FLOOR))
        if type(data) is not bytes:
            data = bytes(memoryview(data)[:room])
        elif len(data) > room:
            data = data[:room]
        sender.write(data)
        self.flush(now)
        return len(data)

    def read(self, max_bytes: int, now: float) -> bytes:
        """Take up to ``max_bytes``; b"" when there is nothing (``eof`` tells the end from a pause).

        Raises OSError, ``error``, when there is one and nothing is left to read. What a reset found unread is lost.
        """
        receiver = self.receiver
        if not receiver.queued:
            if self.error is not None and not receiver.finished:
                raise self._fresh_error()
            if self.state in HANDSHAKE:
                raise os_error(errno.ENOTCONN)
            return b""
        data = receiver.read(max_bytes, now, self.sender.rto.srtt)
        self._account()
        # A window update, if the peer can still use it.
        if not receiver.finished and receiver.update_due and self.state is not TcpState.CLOSED:
            self._acks.due = True
            self.flush(now)
        return data

    def set_keepalive(
        self, idle: float | None, now: float, interval: float | None = None, probes: int | None = None
    ) -> None:
        """Probe a silent peer after ``idle`` seconds (None: never), again every ``interval`` seconds, and give up after
        ``probes`` unanswered ones (None for either: the settings')."""
        self.keepalive = idle
        self._keepalive_interval = self._settings.keepalive_interval if interval is None else interval
        self._keepalive_limit = self._settings.keepalive_probes if probes is None else probes
        self._keepalive_deadline = inf if idle is None else max(self._heard_at + idle, now)
        self._arm()

    def set_nodelay(self, nodelay: bool, now: float) -> None:
        """Whether less than a segment goes out at once, which is the default, or waits while something is in flight
        (Nagle's algorithm; TCP_NODELAY of 0)."""
        self.sender.nodelay = nodelay
        self.flush(now)

    def set_user_timeout(self, seconds: float | None, now: float) -> None:
        """Give up when written data goes without progress for so long, or the probes of a silent peer
        (RFC 5482; Linux's TCP_USER_TIMEOUT); None: after the retries of the settings."""
        self.sender.set_user_timeout(seconds, now)
        self._arm()

    def set_congestion(self, name: str) -> None:
        """Change the algorithm, a name in ``ALGORITHMS``; it goes on with the window and threshold of the last one.

        One that goes by the rate of delivery needs SACK: without it, it is "cubic". ``congestion_name`` says which.
        """
        if name == self.congestion_name:
            return
        former = self.sender.congestion
        congestion = ALGORITHMS[name](self.sender.mss, self._settings.initial_window_segments)
        if self.connected and not self.sender.sack and hasattr(congestion, "handle_rate"):
            # As at the end of the handshake, for those who asked before.
            self.set_congestion("cubic")
            return
        congestion.window, congestion.threshold = former.window, former.threshold
        self.congestion_name = name
        self.sender.set_congestion(congestion)

    # --- timers ---

    def handle_timeout(self, now: float) -> None:
        """``deadline`` has passed."""
        settings = self._settings
        if self._handshake_deadline <= now:
            if self._handshake_tries > (settings.syn_retries if self.active else settings.syn_ack_retries):
                self._end(os_error(errno.ETIMEDOUT))
                return
            self._try_handshake(now)
        if self._linger_deadline <= now:
            self._end(None)
            return
        self._acks.expire(now)
        sender = self.sender
        if sender.deadline <= now:
            if self._closed_by_owner and not sender.window and now - sender.stalled_since >= settings.orphan_timeout:
                # Alive, but with a window that nobody will open any more. Its owner should know that this is not all.
                self._send_reset(now)
                self._end(os_error(errno.ETIMEDOUT))
                return
            if sender.expired(now, settings.orphan_retries if self._closed_by_owner else settings.data_retries):
                self._end(self._soft_error or os_error(errno.ETIMEDOUT))
                return
            timeouts = sender.timeouts
            if sender.handle_timeout(now):
                self._send_probe(now)
            elif sender.timeouts > timeouts:
                self._suspect_black_hole(now)
        if self._path_probe_at <= now:
            self._probe_path(now)
        if self._keepalive_deadline <= now:
            self._handle_keepalive(now)
        self.flush(now)

    def _handle_keepalive(self, now: float) -> None:
        if self.keepalive is None or self.state is TcpState.CLOSED:
            self._keepalive_deadline = inf
            return
        due = self._heard_at + self.keepalive
        if due > now and not self._keepalive_probes:
            self._keepalive_deadline = due
            return
        if self.sender.una < self.sender.nxt or self.sender.buffered:
            # What is to be delivered has a timer of its own.
            self._keepalive_deadline = now + self.keepalive
            return
        patience = self.sender.user_timeout
        if (
            self._keepalive_probes >= self._keepalive_limit
            if patience is None
            else self._keepalive_probes and now - self._heard_at >= patience
        ):
            self._end(self._soft_error or os_error(errno.ETIMEDOUT))
            return
        self._keepalive_probes += 1
        self._keepalive_deadline = now + self._keepalive_interval
        self._send_probe(now)
