"""Our messages of one conversation: numbered, kept until acknowledged, sent again when lost.

Messages wait in a queue until the send window has room, get the next message
id then, and stay in the window until the peer acknowledged them. A message is
sent again

- when its timeout expires: 2 s at first, doubled with each expiry, 60 s at most; or sooner,
  where the round trip is measured (roundtrip.py);
- when three later messages were acknowledged: it was probably lost. The count
  starts anew with each transmission, and only a message that was in flight
  counts, so neither repeated nor forged acknowledgements provoke anything;
- once, when the peer is heard for the first time: whatever we sent before was
  possibly sent to nobody.

(reference: reliable.c, reliable_send, reliable_send_purge, reliable_schedule_now)
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from ..packet.ids import PacketID
from ..packet.opcodes import Opcode
from .roundtrip import RoundTrip

__all__ = ["FAST_RESEND_ACKS", "MAX_TIMEOUT", "SEND_WINDOW", "Message", "Sender"]

#: Message ids from the oldest unacknowledged one on that may be in flight (reference: ssl_pkt.h).
SEND_WINDOW = 6
#: Acknowledged later messages that make an earlier one count as lost (reference: reliable.h).
FAST_RESEND_ACKS = 3
#: Longest time between two transmissions of a message, seconds (the hand-window's default).
MAX_TIMEOUT = 60.0


@dataclass(slots=True)
class Message:
    """A message in the send window."""

    packet_id: PacketID
    opcode: Opcode
    payload: bytes
    #: When to send it (again), absolute seconds.
    next_try: float
    #: How long to wait for the acknowledgement after that, seconds.
    timeout: float
    #: Transmissions so far.
    attempt: int = 0
    #: Later messages acknowledged since the last transmission.
    later_acks: int = 0
    #: When it was sent last, absolute seconds.
    sent_at: float = 0.0
    #: Transmissions that began a longer wait than the one before.
    expiries: int = 0


class Sender:
    """The sending half of a conversation.

    ``first_timeout`` is the ``tls-timeout`` directive, seconds. With ``round_trip`` the measured
    round trip decides instead.
    """

    __slots__ = (
        "_first_timeout",
        "_next_id",
        "_queue",
        "_released",
        "_round_trip",
        "_window",
        "fast_retransmissions",
        "retransmissions",
    )

    def __init__(self, *, first_timeout: float, round_trip: RoundTrip | None = None) -> None:
        self._first_timeout = first_timeout
        self._round_trip = round_trip
        self._queue: deque[tuple[Opcode, bytes]] = deque()
        #: In the order of ids, which is the order of insertion.
        self._window: dict[PacketID, Message] = {}
        self._next_id = 0
        self._released = False
        #: All repeated transmissions, and those of them that did not wait for a timeout.
        self.retransmissions: int = 0
        self.fast_retransmissions: int = 0

    @property
    def in_flight(self) -> int:
        """Messages in the send window, at most ``SEND_WINDOW``."""
        return len(self._window)

    @property
    def queued(self) -> int:
        """Messages that wait for room in the send window."""
        return len(self._queue)

    # input

    def push(self, opcode: Opcode, payload: bytes, now: float) -> None:
        """Send a message after all earlier ones. The first one is the reset, message 0."""
        self._queue.append((opcode, payload))
        self._admit(now)

    def release(self, now: float) -> None:
        """Let messages after the first one go: the peer's own reset arrived, so it knows this
        conversation and our next packet acknowledges that reset."""
        self._released = True
        self._admit(now)

    def handle_acks(self, acks: Iterable[PacketID], now: float) -> None:
        """Forget what the peer has. Ids that are not in flight mean nothing."""
        for packet_id in acks:
            message = self._window.get(packet_id)
            if message is None or message.attempt == 0:
                continue
            del self._window[packet_id]
            if self._round_trip is not None and message.attempt == 1:
                self._round_trip.measured(now - message.sent_at)
            for other in self._window.values():
                if other.packet_id < packet_id and other.attempt > 0:
                    other.later_acks += 1
                    if other.later_acks >= FAST_RESEND_ACKS:
                        other.next_try = min(other.next_try, now)
        self._admit(now)

    def handle_first_reply(self, now: float) -> None:
        """The peer is there: send everything that is in flight again, with fresh timeouts."""
        for message in self._window.values():
            message.next_try = min(message.next_try, now)
            message.timeout = self._first_timeout
            message.expiries = 0

    # output

    def poll(self, now: float) -> list[Message]:
        """The messages that have to be sent now, oldest first; their timers start anew."""
        due = [message for message in self._window.values() if message.next_try <= now]
        for message in due:
            fast = message.later_acks >= FAST_RESEND_ACKS
            message.attempt += 1
            message.later_acks = 0
            message.sent_at = now
            message.next_try = now + self._interval(message)
            if message.attempt > 1:
                self.retransmissions += 1
                self.fast_retransmissions += fast
            # A fast resend proves that the path works: no reason to become slower.
            if not fast:
                message.timeout = min(message.timeout * 2, MAX_TIMEOUT)
                message.expiries += 1
        return due

    def _interval(self, message: Message) -> float:
        """How long to wait for the acknowledgement of ``message``, seconds."""
        return message.timeout if self._round_trip is None else self._round_trip.interval(message.expiries)

    def next_timeout(self) -> float | None:
        """When ``poll`` has something to send, absolute seconds; None: not without new input."""
        return min((message.next_try for message in self._window.values()), default=None)

    def _admit(self, now: float) -> None:
        """Move messages from the queue into the window as far as it is open."""
        while self._queue and (self._released or self._next_id == 0):
            # The window is counted in ids from its oldest member, acknowledged ones included:
            # that is what fits the peer's receive window.
            oldest = next(iter(self._window), self._next_id)
            if self._next_id - oldest >= SEND_WINDOW:
                break
            opcode, payload = self._queue.popleft()
            packet_id = PacketID(self._next_id)
            self._next_id += 1
            self._window[packet_id] = Message(packet_id, opcode, payload, now, self._first_timeout)
