"""Sorts what arrives into data and control, and puts control packets on the wire.

The muxer is the gate of a session. It knows both session ids and lets through
only control packets that name them; everything else is counted in ``drops``
and goes no further.

The client binds the server's session id by the first packet that acknowledges
our hard reset and, beside the acknowledgement, names our own session id. Those
8 random bytes are known only to whoever saw our reset, so a reset forged from
off the path binds nothing, from whatever address it pretends to come. Once bound,
a packet with another session id is dropped, resets included. A server binds
the id of the client's first hard reset.

The static key of the wrap is in every customer's profile, so an authentic packet
may still be a stranger's: its replay id counts only once its session ids are found
to be right.

The wrap may change with the key id: control packets of all keys after the
first have one of their own once ``install_renegotiation_key`` was called.

Bursts of data packets, nearly all there are, are recognised by their first
bytes and handed on as the same list.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from operator import itemgetter
from typing import Any, NamedTuple

from ..errors import DropReason, ProtocolError
from ..events import SessionState
from ..items import Burst, ForeignBurst, SequencedPacket
from ..packet.codec import (
    HEAD_SIZE,
    NO_SESSION,
    PACKET_ID_SIZE,
    SESSION_ID_SIZE,
    ControlPacket,
    parse_control_untrusted,
    serialize_control,
)
from ..packet.ids import KeyID, PacketID, RandomBytes, Role, SessionID
from ..packet.opcodes import DATA_OPCODES, KEY_ID_MASK, OPCODE_SHIFT, Opcode
from ..tracing import Direction, PacketTraced, Tracer
from .control_wrap import ControlWrap
from .early_negotiation import EarlyFlag, parse_early_untrusted, serialize_early
from .wrapping import Opened

__all__ = ["MAX_CONTROL_DATAGRAM", "Demuxed", "PacketMuxer"]

#: Largest control datagram sent: 1250 bytes with the headers of IPv4 and UDP, which passes every
#: IPv6 path with those of IPv6 too (reference: ssl.c, TLS_CHANNEL_MTU_MIN).
MAX_CONTROL_DATAGRAM = 1250 - 28
#: Largest control datagram looked at: a peer may have raised its limit up to 2048 bytes of payload.
MAX_ACCEPTED_DATAGRAM = 2048 + 256
#: Acknowledgements that ride on a control packet with a payload (reference: ssl.h).
RIDING_ACKS = 4
#: What a control packet has besides wrap and payload.
CONTROL_OVERHEAD = HEAD_SIZE + 1 + RIDING_ACKS * PACKET_ID_SIZE + SESSION_ID_SIZE + PACKET_ID_SIZE

#: The packet id of every hard reset, and so what acknowledges one.
RESET_ID = PacketID(0)
FIRST_KEY = KeyID(0)
#: The message that repeats a client's wrapped key where the server asks for it.
KEY_MESSAGE = PacketID(1)
#: Bytes of payload that fit a control packet whatever else is in it (reference: ssl.c, write_outgoing_tls_ciphertext).
LEAST_PAYLOAD = 16

DATA_FIRST_BYTES = frozenset(opcode << OPCODE_SHIFT | key for opcode in DATA_OPCODES for key in range(KEY_ID_MASK + 1))
first_byte: Callable[[bytes], int] = itemgetter(0)


class Demuxed(NamedTuple):
    """A burst, sorted. Each part is in the order of arrival."""

    # A tuple: one is made for every burst of data, in half the time of a frozen dataclass.
    data: Burst
    control: list[SequencedPacket]
    #: The remote session id became known with this burst.
    bound: bool


class PacketMuxer:
    """The muxer of one session, in either role.

    ``session_state`` is asked only for trace records.
    """

    def __init__(
        self,
        *,
        role: Role,
        wrap: ControlWrap,
        rng: RandomBytes,
        tracer: Tracer | None = None,
        session_state: Callable[[], SessionState] = lambda: SessionState.UNDEF,
    ) -> None:
        self._role = role
        self._wrap = wrap
        self._tracer = tracer
        self._session_state = session_state
        self._local = new_session_id(rng)
        self._remote: SessionID | None = None
        self._peer_reset = Opcode.CONTROL_HARD_RESET_SERVER_V2 if role is Role.CLIENT else wrap.client_reset
        self._expected = {Opcode.CONTROL_V1, Opcode.ACK_V1, Opcode.CONTROL_SOFT_RESET_V1, self._peer_reset}
        if self._peer_reset is Opcode.CONTROL_HARD_RESET_CLIENT_V3:
            self._expected.add(Opcode.CONTROL_WKC_V1)
        #: The wrap of the keys after the first; None: the same as that of the first.
        self._later_wrap: ControlWrap | None = None
        #: Message 1 carries the wrapped key. None: the server did not answer yet.
        self._resend_key: bool | None = None if wrap.wrapped_key_size else False
        self._key_message_sent = False
        #: Called with the source of a ``ForeignBurst`` whose packet binds the session: the peer is there.
        self.on_foreign: Callable[[Any], object] | None = None
        self._bound_from: object = None
        #: Packets refused, by reason.
        self.drops: Counter[DropReason] = Counter()
        #: Control packets that came through, and that were sent.
        self.packets_in: int = 0
        self.packets_out: int = 0

    @property
    def local_session_id(self) -> SessionID:
        """Our 8 random bytes, never all zeros."""
        return self._local

    @property
    def remote_session_id(self) -> SessionID | None:
        """The peer's session id; None until it is bound."""
        return self._remote

    @property
    def max_control_payload(self) -> int:
        """Bytes of TLS stream that fit one control packet, whatever acknowledgements ride on it."""
        overhead = self._wrap.overhead
        if self._later_wrap is not None:
            overhead = max(overhead, self._later_wrap.overhead)
        if self._resend_key is not False and not self._key_message_sent:
            overhead += self._wrap.wrapped_key_size
        return max(MAX_CONTROL_DATAGRAM - overhead - CONTROL_OVERHEAD, LEAST_PAYLOAD)

    def wrap_for(self, key_id: KeyID) -> ControlWrap:
        """The wrap of control packets of ``key_id``: one for all, unless keys after the first get their own."""
        return self._wrap if key_id == FIRST_KEY or self._later_wrap is None else self._later_wrap

    def install_renegotiation_key(self, exported: bytes) -> None:
        """From now on control packets of all keys but the first are wrapped with a key made of these 256 bytes,
        which both sides took from the first TLS session, and of the wrap's own (dynamic tls-crypt).

        Raises ValueError: not 256 bytes.
        """
        self._later_wrap = self._wrap.renegotiation(exported, self._role)

    def is_data(self, burst: Burst) -> bool:
        """Whether all of ``burst`` is data of a session that is bound, so that there is nothing to sort."""
        try:
            return self._remote is not None and DATA_FIRST_BYTES.issuperset(map(first_byte, burst))
        except IndexError:
            return False  # An empty datagram: it is counted with the rest.

    def handle_datagrams(self, burst: Burst, now: float) -> Demuxed:
        """Sort what arrived. Never raises; what is not ours is dropped and counted."""
        return Demuxed(burst, [], False) if self.is_data(burst) else self._sort(burst, now)

    def wrap_control(self, packets: list[SequencedPacket], now: float) -> Burst:
        """The datagrams for ``packets``.

        Raises ValueError for acknowledgements before the session is bound: there
        was nothing to acknowledge.
        """
        burst = []
        for packet in map(self._early, packets):
            head, body = serialize_control(
                ControlPacket(
                    opcode=packet.opcode,
                    key_id=packet.key_id,
                    session_id=self._local,
                    acks=packet.acks,
                    peer_session_id=self._remote if packet.acks else None,
                    packet_id=packet.packet_id,
                    payload=packet.payload,
                )
            )
            datagram = self.wrap_for(packet.key_id).wrap(head, body, now)
            burst.append(datagram)
            if self._tracer is not None:
                self._trace("out", packet, len(datagram), now)
        self.packets_out += len(burst)
        return burst

    def _early(self, packet: SequencedPacket) -> SequencedPacket:
        """``packet`` with what early negotiation makes of it, each time it is sent."""
        if packet.key_id != FIRST_KEY:
            return packet
        if packet.packet_id == KEY_MESSAGE:
            self._key_message_sent = True
            if self._resend_key and packet.opcode is Opcode.CONTROL_V1:
                return packet._replace(opcode=Opcode.CONTROL_WKC_V1)
        elif packet.opcode is Opcode.CONTROL_HARD_RESET_SERVER_V2 and self._wrap.early_flags:
            return packet._replace(payload=serialize_early(self._wrap.early_flags))
        return packet

    def _sort(self, burst: Burst, now: float) -> Demuxed:
        """handle_datagrams for a burst that may hold anything."""
        was_bound = self._remote is not None
        foreign = burst if isinstance(burst, ForeignBurst) else None
        data: Burst = [] if foreign is None else ForeignBurst(foreign.source)
        control: list[SequencedPacket] = []
        for datagram in burst:
            packet = None
            try:
                if datagram and datagram[0] in DATA_FIRST_BYTES:
                    if self._remote is None:
                        raise ProtocolError(DropReason.NOT_READY, "data before a session")
                    data.append(datagram)
                    continue
                bound = self._remote is not None
                if foreign is not None and bound and foreign.source != self._bound_from:
                    # The data channel finds out whether the peer moves; its packets can be no replays.
                    raise ProtocolError(DropReason.BAD_ADDRESS, "control from another address than the server's")
                opened = self._open_untrusted(datagram)
                packet = parse_control_untrusted(opened.head, opened.body)
                flags = self._admit_untrusted(packet)
                opened.accept(now)
                self._believe(packet, flags)
                if foreign is not None and not bound:
                    self._bound_from = foreign.source
                    if self.on_foreign is not None:
                        self.on_foreign(foreign.source)
            except ProtocolError as error:
                self.drops[error.reason] += 1
                if self._tracer is not None:
                    self._trace_drop(datagram, packet, error.reason, now)
                continue
            sequenced = SequencedPacket(packet.key_id, packet.opcode, packet.acks, packet.packet_id, packet.payload)
            control.append(sequenced)
            if self._tracer is not None:
                self._trace("in", sequenced, len(datagram), now)
        self.packets_in += len(control)
        return Demuxed(data, control, bound=not was_bound and self._remote is not None)

    def _open_untrusted(self, datagram: bytes) -> Opened:
        """The control packet in ``datagram``, authenticated as far as the wrap does that."""
        if not datagram:
            raise ProtocolError(DropReason.TOO_SHORT, "nothing")
        if len(datagram) > MAX_ACCEPTED_DATAGRAM:
            raise ProtocolError(DropReason.TOO_LONG, f"{len(datagram)} bytes")
        return self.wrap_for(KeyID(datagram[0] & KEY_ID_MASK)).open_untrusted(datagram)

    def _admit_untrusted(self, packet: ControlPacket) -> EarlyFlag | None:
        """Raise ProtocolError unless ``packet`` belongs to this session, or may bind it. Changes nothing.

        The flags of early negotiation in it; None: it has no business with that.
        """
        if packet.opcode not in self._expected:
            raise ProtocolError(DropReason.UNEXPECTED_OPCODE, packet.opcode.wire_name)
        if packet.acks and packet.peer_session_id != self._local:
            raise ProtocolError(DropReason.BAD_SESSION_ID, "it answers another session")
        is_reset = packet.opcode is self._peer_reset
        if is_reset and (packet.packet_id != RESET_ID or packet.key_id != FIRST_KEY):
            raise ProtocolError(DropReason.MALFORMED, "a hard reset that does not begin a session")
        # Who does not announce early negotiation has no business reading its answer.
        early = is_reset and self._role is Role.CLIENT and self._wrap.wrapped_key_size > 0
        flags = parse_early_untrusted(packet.payload) if early else None
        if self._remote is None:
            self._check_answer_untrusted(packet, is_reset)
        elif packet.session_id != self._remote:
            raise ProtocolError(DropReason.BAD_SESSION_ID, "it comes from another session")
        return flags

    def _check_answer_untrusted(self, packet: ControlPacket, is_reset: bool) -> None:
        """Raise ProtocolError unless ``packet`` may say what the peer's session id is."""
        # That the acknowledgement is for us was found out already. Any control packet will do: the
        # server's reset may be lost while an ACK_V1 of its own arrives.
        answers = packet.key_id == FIRST_KEY and RESET_ID in packet.acks
        if not (is_reset if self._role is Role.SERVER else answers):
            raise ProtocolError(DropReason.NOT_READY, "it does not answer our hard reset")

    def _believe(self, packet: ControlPacket, flags: EarlyFlag | None) -> None:
        """``packet`` was admitted, and is no replay: its session id is the peer's."""
        self._remote = packet.session_id
        if flags is not None and self._resend_key is None:
            self._resend_key = EarlyFlag.RESEND_WKC in flags

    def _trace(self, direction: Direction, packet: SequencedPacket, size: int, now: float) -> None:
        assert self._tracer is not None
        self._tracer.trace(
            PacketTraced(
                time=now,
                stage=self._session_state(),
                direction=direction,
                opcode=packet.opcode,
                key_id=packet.key_id,
                packet_id=packet.packet_id,
                acks=packet.acks,
                size=size,
                payload_size=len(packet.payload),
                attempt=packet.attempt or None,
                payload=packet.payload,
            )
        )

    def _trace_drop(self, datagram: bytes, packet: ControlPacket | None, reason: DropReason, now: float) -> None:
        """A record of what was dropped, with as much of it as could be read."""
        assert self._tracer is not None
        opcode, key_id = read_first_byte(datagram)
        self._tracer.trace(
            PacketTraced(
                time=now,
                stage=self._session_state(),
                direction="dropped",
                opcode=opcode,
                key_id=key_id,
                packet_id=packet.packet_id if packet else None,
                acks=packet.acks if packet else (),
                size=len(datagram),
                payload_size=len(packet.payload) if packet else 0,
                drop_reason=reason,
                payload=packet.payload if packet else b"",
            )
        )


def new_session_id(rng: RandomBytes) -> SessionID:
    """8 random bytes; all zeros would mean "no session"."""
    while (session_id := SessionID(rng(SESSION_ID_SIZE))) == NO_SESSION:
        pass
    return session_id


def read_first_byte(datagram: bytes) -> tuple[Opcode | None, KeyID | None]:
    """Opcode and key id as claimed; (None, None) where there is no such opcode."""
    try:
        return Opcode(datagram[0] >> OPCODE_SHIFT), KeyID(datagram[0] & KEY_ID_MASK)
    except (IndexError, ValueError):
        return None, None
