"""One reliable conversation: both directions of one key id.

Each key of a session has message ids of its own that start at 0 on either
side, and message 0 is always the reset that opens the conversation. So until
the peer's message 0 is here nothing but our own reset goes out: what follows
then always carries the acknowledgement of that reset, which is what the peer
waits for.

For the same reason a lone acknowledgement of a reset is held for a moment.
Sent on its own it could overtake, or lose the race against, the ClientHello.

A hole in what the peer sent, while later messages are here, is made known to
it: the acknowledgements of those are repeated at the pace of our own
retransmissions, since three of them make the reference send what is missing
at once instead of after its 2, 4 or 8 s (reference: reliable.c,
reliable_send_purge; repeated acknowledgements count there).
"""

from __future__ import annotations

from typing import NamedTuple

from ..errors import DropReason, ProtocolError
from ..items import Segment, SequencedPacket
from ..packet.ids import KeyID, PacketID, Role
from ..packet.opcodes import Opcode
from .acks import ACK_QUEUE_SIZE, ACKS_IN_ACK, ACKS_IN_CONTROL, AckQueue
from .receiver import Receiver, Verdict
from .roundtrip import RoundTrip
from .sender import FAST_RESEND_ACKS, Sender

__all__ = ["ACK_HOLD", "MAX_HINTS", "MAX_PAYLOAD", "Conversation", "ConversationSettings", "check_packet_untrusted"]

#: How long the acknowledgement of the peer's reset waits for a message of ours, seconds.
ACK_HOLD = 0.1
#: Longest payload of a control packet, bytes; the reference never makes a longer one
#: (reference: common.h, TLS_CHANNEL_BUF_SIZE).
MAX_PAYLOAD = 2048
#: How often a peer is reminded of one missing message; its own timer goes on anyway.
MAX_HINTS = 8

_HARD_RESETS = {
    Role.CLIENT: frozenset({Opcode.CONTROL_HARD_RESET_SERVER_V2}),
    Role.SERVER: frozenset({Opcode.CONTROL_HARD_RESET_CLIENT_V2, Opcode.CONTROL_HARD_RESET_CLIENT_V3}),
}
_SOFT_RESET = frozenset({Opcode.CONTROL_SOFT_RESET_V1})
_ORDINARY = frozenset({Opcode.CONTROL_V1})
_WRAPPED = frozenset({Opcode.CONTROL_V1, Opcode.CONTROL_WKC_V1})


def check_packet_untrusted(packet: SequencedPacket, role: Role) -> None:
    """Whether ``packet`` can belong to any conversation of a session in which we play ``role``.

    Message 0 is a reset, a hard one for key 0 and a soft one for the others; all other messages
    are not. Raises ProtocolError.
    """
    if len(packet.acks) > ACK_QUEUE_SIZE:
        raise ProtocolError(DropReason.MALFORMED, "too many acknowledgements")
    if (packet.opcode is Opcode.ACK_V1) != (packet.packet_id is None):
        raise ProtocolError(DropReason.MALFORMED, "message id")
    if len(packet.payload) > MAX_PAYLOAD:
        raise ProtocolError(DropReason.TOO_LONG, f"{len(packet.payload)} bytes")
    if packet.packet_id is None:
        return
    if packet.packet_id == 0:
        expected = _HARD_RESETS[role] if packet.key_id == 0 else _SOFT_RESET
    else:
        # Only a client that was asked to repeats its wrapped key, and only in message 1 of the first key.
        carrier = packet.packet_id == 1 and packet.key_id == 0 and role is Role.SERVER
        expected = _WRAPPED if carrier else _ORDINARY
    if packet.opcode not in expected:
        raise ProtocolError(DropReason.UNEXPECTED_OPCODE, f"{packet.opcode.name} as message {packet.packet_id}")


class ConversationSettings(NamedTuple):
    """What all conversations of a session have in common; times in seconds."""

    role: Role
    tls_timeout: float = 2.0
    ack_hold: float = ACK_HOLD
    #: Most acknowledgements in any packet. 4 pleases SoftEther, which refuses more.
    max_acks: int = ACKS_IN_ACK
    #: Shared by the conversations; None: timers as the reference has them, and no hints.
    round_trip: RoundTrip | None = None


class Conversation:
    """The sender, receiver and acknowledgements of ``key_id``."""

    __slots__ = (
        "_ack_limit",
        "_heard",
        "_hint_at",
        "_hints",
        "_hole",
        "_settings",
        "acks",
        "key_id",
        "opened",
        "receiver",
        "sender",
    )

    def __init__(self, key_id: KeyID, settings: ConversationSettings) -> None:
        self.key_id: KeyID = key_id
        self.sender: Sender = Sender(first_timeout=settings.tls_timeout, round_trip=settings.round_trip)
        self.receiver: Receiver = Receiver()
        self.acks: AckQueue = AckQueue()
        #: True once we sent, or queued, our own reset.
        self.opened: bool = False
        self._heard = False
        self._settings = settings
        self._ack_limit = min(ACKS_IN_ACK, settings.max_acks)
        # The missing message, how often it was hinted at, and when to do so again.
        self._hole: PacketID | None = None
        self._hints = 0
        self._hint_at: float | None = None

    @property
    def idle(self) -> bool:
        """Nothing is queued, in flight, undelivered, or waiting to be acknowledged."""
        return not (self.sender.queued or self.sender.in_flight or self.receiver.stored or self.acks.pending)

    # input

    def open(self, opcode: Opcode, payload: bytes, now: float) -> None:
        """Send our reset as message 0. Does nothing when we did so before, which is how two
        simultaneous soft resets become one."""
        if not self.opened:
            self.opened = True
            self.sender.push(opcode, payload, now)

    def handle_packet_untrusted(self, packet: SequencedPacket, now: float) -> None:
        """Take one packet of the peer that ``check_packet_untrusted`` let pass.

        ProtocolError: its message was not new. What it acknowledged counts all the same, and a
        duplicate is acknowledged again.
        """
        if packet.acks:
            self.sender.handle_acks(packet.acks, now)
        if self.opened and not self._heard:
            self._heard = True
            self.sender.handle_first_reply(now)
        if packet.packet_id is None:
            return
        verdict = self.receiver.accept(packet.packet_id, packet.opcode, packet.payload)
        if self._settings.round_trip is not None:
            self._look_for_hole(self._settings.round_trip, now)
        if verdict is Verdict.OUT_OF_WINDOW:
            raise ProtocolError(DropReason.OUT_OF_WINDOW, f"message {packet.packet_id}")
        new_reset = verdict is Verdict.NEW and packet.packet_id == 0
        # A full queue means no acknowledgement: the message is safe, the peer will ask again.
        self.acks.add(packet.packet_id, now + self._settings.ack_hold if new_reset else now)
        if new_reset:
            self.sender.release(now)
        if verdict is Verdict.DUPLICATE:
            raise ProtocolError(DropReason.DUPLICATE, f"message {packet.packet_id}")

    # output

    def poll_transmit(self, now: float) -> list[SequencedPacket]:
        """What has to be sent now: messages first, then the acknowledgements that found no room."""
        limit = min(ACKS_IN_CONTROL, self._ack_limit)
        packets = [
            SequencedPacket(
                self.key_id, message.opcode, self.acks.take(limit), message.packet_id, message.payload, message.attempt
            )
            for message in self.sender.poll(now)
        ]
        # Before our reset the peer could make nothing of an acknowledgement.
        while self.opened and self.acks.due is not None and self.acks.due <= now:
            packets.append(SequencedPacket(self.key_id, Opcode.ACK_V1, self.acks.take(self._ack_limit), None, b"", 1))
        if self.opened and self._hint_at is not None and self._hint_at <= now:
            packets += self._hint(now)
        return packets

    def _look_for_hole(self, round_trip: RoundTrip, now: float) -> None:
        """Something of the peer arrived: is a message before it missing?"""
        hole = self.receiver.hole
        if hole != self._hole:
            self._hole, self._hints = hole, 0
            self._hint_at = None if hole is None else now + round_trip.interval(0)

    def _hint(self, now: float) -> list[SequencedPacket]:
        """Acknowledgements of messages after the hole, as many as make the peer look."""
        round_trip, hole = self._settings.round_trip, self._hole
        assert round_trip is not None
        assert hole is not None
        self._hints += 1
        self._hint_at = now + round_trip.interval(self._hints) if self._hints < MAX_HINTS else None
        acks = self.acks.take(self._ack_limit)
        later = sum(packet_id > hole for packet_id in acks)
        if not later:
            return []
        packet = SequencedPacket(self.key_id, Opcode.ACK_V1, acks, None, b"", 1)
        return [packet] * -(-FAST_RESEND_ACKS // later)

    def next_timeout(self) -> float | None:
        """When ``poll_transmit`` has something to send, absolute seconds."""
        times = [self.sender.next_timeout(), *((self.acks.due, self._hint_at) if self.opened else ())]
        return min((time for time in times if time is not None), default=None)

    def ready(self) -> list[Segment]:
        """What can be delivered, in order, without taking it."""
        return [Segment(self.key_id, opcode, payload) for opcode, payload in self.receiver.ready()]
