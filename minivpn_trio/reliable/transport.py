"""ReliableTransport: the reliability layer of a session, a conversation for each live key.

OpenVPN runs TLS over datagrams. This layer makes of them what TLS needs: every
message arrives once and in order, per key id. A session has up to three
conversations at a time: the current key, the one that replaces it, and the one
that it replaced.

Which conversations exist is the session's decision, not the network's:

- ``OpenKey`` starts one, or answers one that the peer started;
- ``ExpectKey`` names the one key id whose soft reset by the peer is accepted;
- ``RetireKey`` ends one.

The only conversation that a peer starts unasked is a server's key 0, by the
client's hard reset, once. So two soft resets that cross on the way meet in the
same conversation and are one; a repeated or forged one finds no open door.

How long a peer may stay silent is not decided here: the session gives up, this
layer never does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from ..errors import DropReason, ProtocolError
from ..events import SessionState
from ..items import ExpectKey, OpenKey, RetireKey, Segment, SequencedPacket
from ..packet.ids import KeyID, Role
from ..tracing import PacketTraced, Tracer
from .acks import ACKS_IN_ACK
from .conversation import ACK_HOLD, Conversation, ConversationSettings, check_packet_untrusted
from .roundtrip import RoundTrip

__all__ = ["MAX_CONVERSATIONS", "MAX_QUEUED", "ReliableTransport"]

#: The current key, its successor and its predecessor (reference: ssl_common.h, KS_SIZE and the lame duck).
MAX_CONVERSATIONS = 3
#: Messages that wait for room in the send windows, all conversations together.
MAX_QUEUED = 64


class ReliableTransport:
    """The conversations of one session, in either role.

    ``tls_timeout``: seconds before a message is sent again for the first time.
    ``max_acks``: most acknowledgements in a packet; 4 where a peer may refuse more, as SoftEther does, which
    has no control channel wrapping (reference: ssl_pkt.c, write_control_auth).
    ``ack_hold``: seconds that the acknowledgement of a reset waits for a message to ride on.
    ``adaptive``: the measured round trip decides when to send again (roundtrip.py), not ``tls_timeout``
    alone. For paths that lose packets: over a TCP stream a repetition is never of use.
    """

    def __init__(
        self,
        *,
        role: Role,
        tls_timeout: float = 2.0,
        max_acks: int = ACKS_IN_ACK,
        ack_hold: float = ACK_HOLD,
        adaptive: bool = False,
        tracer: Tracer | None = None,
        session_state: Callable[[], SessionState] = lambda: SessionState.UNDEF,
    ) -> None:
        if max_acks < 1:
            raise ValueError(f"max_acks is {max_acks}: without acknowledgements nothing ends")
        round_trip = RoundTrip(tls_timeout) if adaptive else None
        self._settings = ConversationSettings(role, tls_timeout, ack_hold, max_acks, round_trip)
        #: In the order in which they began.
        self._conversations: dict[KeyID, Conversation] = {}
        self._expected: KeyID | None = None
        self._hard_reset_seen = False
        self._tracer = tracer
        self._session_state = session_state
        self._forgotten_retransmissions = 0
        self._forgotten_fast_retransmissions = 0
        self.drops: Counter[DropReason] = Counter()

    # what it is up to

    @property
    def conversations(self) -> tuple[Conversation, ...]:
        """The live conversations, oldest first; at most ``MAX_CONVERSATIONS``."""
        return tuple(self._conversations.values())

    @property
    def retransmissions(self) -> int:
        """Messages sent again so far, for whatever reason."""
        return self._forgotten_retransmissions + sum(c.sender.retransmissions for c in self.conversations)

    @property
    def fast_retransmissions(self) -> int:
        """Those of them that were sent again because later ones had arrived."""
        return self._forgotten_fast_retransmissions + sum(c.sender.fast_retransmissions for c in self.conversations)

    @property
    def can_submit(self) -> bool:
        """True while another Segment has room."""
        return sum(conversation.sender.queued for conversation in self._conversations.values()) < MAX_QUEUED

    @property
    def idle(self) -> bool:
        """Nothing is queued, in flight, undelivered, or waiting to be acknowledged."""
        return all(conversation.idle for conversation in self._conversations.values())

    # from the network

    def handle_packets(self, packets: list[SequencedPacket], now: float) -> None:
        """Take control packets that packetmuxer authenticated. Never raises for what is in them."""
        for packet in packets:
            try:
                self._handle_packet_untrusted(packet, now)
            except ProtocolError as exc:
                self.drops[exc.reason] += 1
                if self._tracer is not None:
                    self._trace_drop(self._tracer, packet, exc.reason, now)

    def _handle_packet_untrusted(self, packet: SequencedPacket, now: float) -> None:
        check_packet_untrusted(packet, self._settings.role)
        conversation = self._conversations.get(packet.key_id)
        if conversation is None:
            if not self._opens_conversation(packet):
                raise ProtocolError(DropReason.UNKNOWN_KEY, f"key {packet.key_id}")
            conversation = self._begin(packet.key_id)
        conversation.handle_packet_untrusted(packet, now)

    def _opens_conversation(self, packet: SequencedPacket) -> bool:
        """Whether the peer may start a conversation with this packet."""
        if packet.packet_id != 0:
            return False
        if packet.key_id == 0:
            return self._settings.role is Role.SERVER and not self._hard_reset_seen
        return packet.key_id == self._expected

    def _trace_drop(self, tracer: Tracer, packet: SequencedPacket, reason: DropReason, now: float) -> None:
        tracer.trace(
            PacketTraced(
                time=now,
                stage=self._session_state(),
                direction="dropped",
                opcode=packet.opcode,
                key_id=packet.key_id,
                packet_id=packet.packet_id,
                acks=packet.acks,
                payload_size=len(packet.payload),
                drop_reason=reason,
            )
        )

    # from the session

    def submit(self, item: Segment | OpenKey | ExpectKey | RetireKey, now: float) -> None:
        """Take a message or a command of the session.

        Commands always have room; a Segment only while ``can_submit``. One that has none, or
        whose conversation we did not open, is dropped and counted.
        """
        match item:
            case Segment():
                self._submit_segment(item, now)
            case OpenKey():
                conversation = self._conversations.get(item.key_id) or self._begin(item.key_id)
                conversation.open(item.opcode, item.payload, now)
            case ExpectKey():
                # Once the conversation exists nobody has to open it any more.
                if item.key_id not in self._conversations:
                    self._expected = item.key_id
            case RetireKey():
                if self._expected == item.key_id:
                    self._expected = None
                if item.key_id in self._conversations:
                    self._forget(item.key_id)

    def _submit_segment(self, segment: Segment, now: float) -> None:
        conversation = self._conversations.get(segment.key_id)
        if conversation is None:
            self.drops[DropReason.UNKNOWN_KEY] += 1
        elif not conversation.opened:
            self.drops[DropReason.NOT_READY] += 1
        elif not self.can_submit:
            self.drops[DropReason.QUEUE_FULL] += 1
        else:
            conversation.sender.push(segment.opcode, segment.payload, now)

    def _begin(self, key_id: KeyID) -> Conversation:
        while len(self._conversations) >= MAX_CONVERSATIONS:
            self._forget(next(iter(self._conversations)))
        if self._expected == key_id:
            self._expected = None
        if key_id == 0:
            self._hard_reset_seen = True
        conversation = self._conversations[key_id] = Conversation(key_id, self._settings)
        return conversation

    def _forget(self, key_id: KeyID) -> None:
        sender = self._conversations.pop(key_id).sender
        self._forgotten_retransmissions += sender.retransmissions
        self._forgotten_fast_retransmissions += sender.fast_retransmissions

    # to the session

    def deliver(self, offer: Callable[[list[Segment]], bool]) -> bool:
        """Offer what arrived, in order, and forget it only if ``offer`` says that it was taken.

        What is not taken stays in the receive window, already acknowledged, until it is. True:
        nothing is left to deliver.
        """
        found = [(conversation, conversation.ready()) for conversation in self._conversations.values()]
        segments = [segment for _, ready in found for segment in ready]
        if not segments:
            return True
        if not offer(segments):
            return False
        for conversation, ready in found:
            conversation.receiver.advance(len(ready))
        return True

    def take_delivered(self) -> list[Segment]:
        """``deliver`` to a caller that always has room."""
        taken: list[Segment] = []

        def take(segments: list[Segment]) -> bool:
            taken.extend(segments)
            return True

        self.deliver(take)
        return taken

    # to the network

    def poll_transmit(self, now: float) -> list[SequencedPacket]:
        """All packets that have to go out now, with their acknowledgements; also what timed out.

        At most ``MAX_CONVERSATIONS`` times a send window and two ACK_V1.
        """
        packets: list[SequencedPacket] = []
        for conversation in self._conversations.values():
            packets += conversation.poll_transmit(now)
        return packets

    def next_timeout(self) -> float | None:
        """When ``poll_transmit`` has something to send, absolute seconds; None: not without new
        input. In the past: at once."""
        times = [conversation.next_timeout() for conversation in self._conversations.values()]
        return min((time for time in times if time is not None), default=None)
