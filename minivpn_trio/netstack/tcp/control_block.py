"""What one connection is: its numbers, its two halves, and what can be asked about it.

The class of a connection is built in layers, each in a file of its own, each using only those below it:

    connection.py     commands of the owner, timers
    fastpath.py       bursts of plain segments
    input.py          any segment in any state
    path.py           ICMP errors, path MTU, black holes
    handshake.py      SYN, options, MSS
    teardown.py       FIN, RST, closing, errors
    output.py         segments and acknowledgements out
    control_block.py  the state
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from math import inf
from typing import Any

from ..inbound import Share
from ..memory import FLOOR, FREE
from ..packets import Address
from ..paths import Path
from ..sequence import Position
from ..wire import SEQUENCE_AT4, SEQUENCE_AT6, SegmentBuilder
from .acknowledgement import AckSchedule
from .congestion import ALGORITHMS
from .network import Network, os_error
from .receiver import Receiver
from .rto import RetransmissionTimeout
from .sender import Sender
from .settings import TcpSettings
from .state import HANDSHAKE, SENDING, TcpState

__all__ = ["ControlBlock"]

_LARGEST_SCALE = 14


class ControlBlock:
    """The state of a connection (RFC 9293's TCB) and its properties."""

    __slots__ = (
        "_acks",
        "_builder",
        "_changed",
        "_closed_by_owner",
        "_drained",
        "_handshake_deadline",
        "_handshake_repeated_at",
        "_handshake_sent_at",
        "_handshake_tries",
        "_heard_at",
        "_held",
        "_keepalive_deadline",
        "_keepalive_interval",
        "_keepalive_limit",
        "_keepalive_probes",
        "_linger_deadline",
        "_memory",
        "_model",
        "_mss_limit",
        "_network",
        "_offset",
        "_path_doubt",
        "_path_hint",
        "_path_probe_at",
        "_path_probed",
        "_path_refused",
        "_path_untested",
        "_settings",
        "_share",
        "_snd_scale",
        "_soft_error",
        "_timestamps",
        "_ts_offset",
        "_ts_recent",
        "_ts_recent_at",
        "active",
        "congestion_name",
        "deadline",
        "error",
        "flying",
        "inbox",
        "iss",
        "keepalive",
        "key",
        "local",
        "on_change",
        "path",
        "path_mss",
        "receiver",
        "remote",
        "scheduled",
        "send_capacity",
        "sender",
        "state",
    )

    def __init__(
        self,
        network: Network[Any],
        *,
        local: tuple[Address, int],
        remote: tuple[Address, int],
        iss: int,
        mss: int,
        ts_offset: int,
        settings: TcpSettings,
        now: float,
    ) -> None:
        #: The stack's budget, and what of it is ours.
        self._memory = network.memory
        self._held = 0
        #: What connections to this host share, and what of it is in flight here, bytes.
        self.path: Path = network.path_to(remote[0])
        self.flying: int = 0
        #: What was sent before that position is in no queue any more, unless it was sent again (paths.py).
        self._drained: Position = 0
        #: (address, port) of both ends.
        self.local: tuple[Address, int] = local
        self.remote: tuple[Address, int] = remote
        self.state: TcpState = TcpState.CLOSED
        #: Why the connection is unusable: OSError with errno (ECONNREFUSED, ECONNRESET, ETIMEDOUT,
        #: EHOSTUNREACH, ENETUNREACH, ENETDOWN, ECONNABORTED...); None as long as it works, or after an orderly end.
        self.error: OSError | None = None
        #: Called once after a burst or a timeout in which any of the properties may have changed.
        self.on_change: Callable[[], None] | None = None
        #: We sent the first SYN.
        self.active: bool = False
        #: Seconds of silence before the first keepalive probe; None: no keepalive.
        self.keepalive: float | None = settings.keepalive_idle
        #: Its key in ``ALGORITHMS``.
        self.congestion_name: str = settings.congestion
        #: Bytes that may be written and not acknowledged: grows with the congestion window.
        self.send_capacity: int = settings.send_buffer
        #: For the stack: the addresses and ports of arriving packets; packets of the present burst; when
        #: ``handle_timeout`` is due (inf: never), and the earliest entry for us in the timer heap.
        self.key: bytes = remote[0] + local[0] + remote[1].to_bytes(2, "big") + local[1].to_bytes(2, "big")
        self.inbox: list[bytes] = []
        self.deadline: float = inf
        self.scheduled: float = inf
        self.iss: int = iss
        #: Largest segment that the path takes, before options (RFC 6691).
        self.path_mss: int = mss
        self._network = network
        self._settings = settings
        self._mss_limit = mss
        #: When to try a larger segment (inf: no reason to); whether the present size is a guess of ours that nothing
        #: was heard about yet; and how many full segments must fail before it is more than a guess, 0: it is.
        self._path_probe_at = inf
        self._path_untested = False
        self._path_doubt = 0
        #: The size of the probe that nothing is known of yet, what was too large lately, and what a router named for
        #: it, 0: none.
        self._path_probed = self._path_refused = self._path_hint = 0
        self._offset = SEQUENCE_AT4 if len(local[0]) == 4 else SEQUENCE_AT6
        self._builder: SegmentBuilder | None = None
        self._timestamps = settings.timestamps
        self._ts_offset = ts_offset
        self._ts_recent = 0
        self._ts_recent_at = now
        self._snd_scale = 0
        #: What an ICMP message said about the path while data was in flight: the reason if it never gets through.
        self._soft_error: OSError | None = None
        rto = RetransmissionTimeout(initial=settings.rto_initial, floor=settings.rto_min, ceiling=settings.rto_max)
        self.sender: Sender = Sender(
            iss,
            mss=mss,
            settings=settings,
            rto=rto,
            sack=False,
            congestion=ALGORITHMS[settings.congestion](mss, settings.initial_window_segments),
        )
        scale = 0
        while 0xFFFF << scale < settings.receive_buffer_max - 0xFFFF and scale < _LARGEST_SCALE:
            scale += 1
        capacity = settings.receive_buffer if self._memory.level == FREE else min(settings.receive_buffer, FLOOR)
        self.receiver: Receiver = Receiver(
            0,
            capacity=capacity,
            capacity_max=settings.receive_buffer_max,
            scale=scale,
            mss=network.link_mss(self),
            memory=self._memory,
            now=now,
        )
        self._share = Share()
        self._acks = AckSchedule(delay=settings.delayed_ack, challenge_interval=settings.challenge_ack_interval)
        self._handshake_deadline = inf
        self._handshake_tries = 0
        #: When a SYN was sent again out of turn, after which nobody knows which one is answered (Karn).
        self._handshake_repeated_at = -inf
        self._handshake_sent_at = now
        self._model = b""
        self._linger_deadline = inf
        self._keepalive_deadline = inf
        self._keepalive_probes = 0
        self._keepalive_interval = settings.keepalive_interval
        self._keepalive_limit = settings.keepalive_probes
        self._heard_at = now
        self._changed = False
        self._closed_by_owner = False

    def __repr__(self) -> str:
        return f"<TcpConnection {self.local[1]} -> {self.remote[1]} {self.state.value}>"

    # --- properties ---

    @property
    def connected(self) -> bool:
        """The handshake was completed; stays True through half closing and the end."""
        return self._builder is not None and self.state not in HANDSHAKE

    @property
    def readable(self) -> bool:
        """``read`` has something to say: bytes, the end, or an error. Level-triggered."""
        return bool(self.receiver.queued) or self.receiver.finished or self.error is not None

    @property
    def receivable(self) -> int:
        """Bytes that can be read at once."""
        return self.receiver.queued

    @property
    def writable(self) -> bool:
        """``write`` would accept something, or raise. Level-triggered, and one level for both: it accepts
        nothing while the send buffer is more than half full."""
        if self.error is not None or self.state not in SENDING:
            return self.state not in HANDSHAKE
        return self.sender.fin or self.sender.unacknowledged <= self._send_limit // 2

    @property
    def _send_limit(self) -> int:
        """What the send buffer may hold as things stand."""
        return self.send_capacity if self._memory.level == FREE else min(self.send_capacity, FLOOR)

    @property
    def eof(self) -> bool:
        """The peer's FIN arrived, and everything before it was read."""
        return self.receiver.finished and not self.receiver.queued

    @property
    def rtt(self) -> float:
        """Smoothed round-trip time, seconds; 0.0: unknown."""
        return self.sender.rto.srtt

    @property
    def timestamp_offset(self) -> int:
        """What is added to milliseconds to make our TSval, or -1 without timestamps; for TIME-WAIT."""
        return self._ts_offset if self._timestamps else -1

    @property
    def timestamp_recent(self) -> int:
        """The TSval to echo."""
        return self._ts_recent

    def relieve(self) -> None:
        """There is memory again: say so to the owner, and to a peer whose window could not open. Does not send."""
        self._changed = True
        if not self.receiver.finished and self.connected and self.receiver.update_due:
            self._acks.due = True

    def _account(self) -> None:
        """Tell the budget what is held now, and the path what is in flight."""
        receiver, sender, path = self.receiver, self.sender, self.path
        held = receiver.held + sender.buffered_cost
        flying, rtt = 0, sender.rto.min_rtt
        if self.state is not TcpState.CLOSED:
            held += sender.flight_cost
            flying = min(sender.board.pipe, sender.nxt - self._drained)
        if 0 < rtt < path.rtt:
            path.rtt = rtt
        if flying != self.flying:
            change, self.flying = flying - self.flying, flying
            self._network.paths.change(path, change)
        if held != self._held:
            change, self._held = held - self._held, held
            self._memory.change(change)

    def drain(self, now: float) -> bool:
        """Whether what was sent so far has left the queue at the server. A single segment has, acknowledged or not;
        the acknowledgement of two would have come, unless the queue takes longer than usual."""
        sender = self.sender
        if sender.board.pipe >= 2 * sender.mss and now < sender.last_sent + 2 * sender.rto.srtt:
            return False
        self._drained = sender.nxt
        self._account()
        return True

    def __del__(self) -> None:
        # Its owner let go of it without reading or closing: not a moment to tell anybody else.
        self._memory.release(self._held)

    def notify(self) -> None:
        """Call ``on_change`` if something changed since the last time."""
        if self._changed:
            self._changed = False
            if self.on_change is not None:
                self.on_change()

    def _fresh_error(self) -> OSError:
        """``error`` anew, so that tracebacks do not pile up on one object."""
        assert self.error is not None
        return os_error(self.error.errno or errno.EIO)
