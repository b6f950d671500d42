"""Control packets between bytes and a dataclass (reference: ssl_pkt.c, reliable.c).

On the wire, before any wrapping::

    head   op << 3 | key_id  (1)   session id (8)
    body   n (1)   n acked packet ids (4 each)   peer's session id (8, only if n > 0)
           packet id (4, not in ACK_V1)   payload (the rest)

The head stays readable in every wrap; tls-auth and tls-crypt put their own
fields between head and body. All numbers are big-endian.

A packet that came from ``parse_control_untrusted`` is well formed, no more:
whether it is authentic, and meant for us, is the muxer's question.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from struct import Struct, pack

from ..errors import DropReason, ProtocolError
from .ids import KeyID, PacketID, SessionID
from .opcodes import CONTROL_OPCODES, KEY_ID_MASK, OPCODE_SHIFT, Opcode

__all__ = [
    "HEAD_SIZE",
    "MAX_ACKS",
    "NO_SESSION",
    "PACKET_ID_SIZE",
    "SESSION_ID_SIZE",
    "ControlPacket",
    "parse_control_untrusted",
    "serialize_control",
]

SESSION_ID_SIZE = 8
#: Opcode, key id and session id, bytes.
HEAD_SIZE = 1 + SESSION_ID_SIZE
#: Acknowledgements in one packet (reference: reliable.h, RELIABLE_ACK_SIZE).
MAX_ACKS = 8
#: The session id that is never valid.
NO_SESSION = SessionID(bytes(SESSION_ID_SIZE))

PACKET_ID_SIZE = 4
MAX_PACKET_ID = 0xFFFF_FFFF
#: Acknowledged ids for each count.
ACK_LISTS = tuple(Struct(f"!{count}I") for count in range(MAX_ACKS + 1))

CONTROL_BY_VALUE = {int(opcode): opcode for opcode in CONTROL_OPCODES}


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlPacket:
    """One control packet, all of its fields.

    ``peer_session_id`` is on the wire only beside acknowledgements, so it is
    None where ``acks`` is empty. ``packet_id`` is None for ACK_V1, the one
    packet that is not itself acknowledged.
    """

    opcode: Opcode
    key_id: KeyID
    session_id: SessionID
    acks: tuple[PacketID, ...] = ()
    peer_session_id: SessionID | None = None
    packet_id: PacketID | None = None
    payload: bytes = field(default=b"", repr=False)


def parse_control_untrusted(head: bytes, body: bytes) -> ControlPacket:
    """The control packet that ``head`` (9 bytes) and ``body`` spell.

    Raises ProtocolError: UNKNOWN_OPCODE, UNEXPECTED_OPCODE (a data packet),
    BAD_SESSION_ID (all zeros), TOO_SHORT, or MALFORMED (more than 8 acks).
    """
    if len(head) != HEAD_SIZE:
        raise ProtocolError(DropReason.TOO_SHORT, "no session id")
    value = head[0] >> OPCODE_SHIFT
    opcode = CONTROL_BY_VALUE.get(value)
    if opcode is None:
        data = value in (Opcode.DATA_V1, Opcode.DATA_V2)
        raise ProtocolError(DropReason.UNEXPECTED_OPCODE if data else DropReason.UNKNOWN_OPCODE, f"opcode {value}")
    session_id = SessionID(bytes(head[1:]))
    if session_id == NO_SESSION:
        raise ProtocolError(DropReason.BAD_SESSION_ID, "session id zero")
    if not body:
        raise ProtocolError(DropReason.TOO_SHORT, "no acknowledgement count")
    count = body[0]
    if count > MAX_ACKS:
        raise ProtocolError(DropReason.MALFORMED, f"{count} acknowledgements")
    position = 1
    acks: tuple[PacketID, ...] = ()
    peer_session_id = None
    if count:
        layout = ACK_LISTS[count]
        end = position + layout.size + SESSION_ID_SIZE
        if len(body) < end:
            raise ProtocolError(DropReason.TOO_SHORT, "cut in the acknowledgements")
        acks = layout.unpack_from(body, position)
        peer_session_id = SessionID(bytes(body[end - SESSION_ID_SIZE : end]))
        position = end
    packet_id = None
    if opcode is not Opcode.ACK_V1:
        end = position + PACKET_ID_SIZE
        if len(body) < end:
            raise ProtocolError(DropReason.TOO_SHORT, "no packet id")
        packet_id = PacketID(int.from_bytes(body[position:end]))
        position = end
    return ControlPacket(
        opcode=opcode,
        key_id=KeyID(head[0] & KEY_ID_MASK),
        session_id=session_id,
        acks=acks,
        peer_session_id=peer_session_id,
        packet_id=packet_id,
        payload=bytes(body[position:]),
    )


def serialize_control(packet: ControlPacket) -> tuple[bytes, bytes]:
    """Head and body of ``packet``, ready for a control wrap.

    Raises ValueError if the fields contradict each other: acks without the
    peer's session id or more than 8 of them, ACK_V1 with a packet id, another
    opcode without one.
    """
    if (packet.packet_id is None) != (packet.opcode is Opcode.ACK_V1):
        raise ValueError("every control packet has a packet id, except ACK_V1")
    if bool(packet.acks) != (packet.peer_session_id is not None):
        raise ValueError("acknowledgements and the peer's session id go together")
    if len(packet.acks) > MAX_ACKS:
        raise ValueError(f"at most {MAX_ACKS} acknowledgements fit")
    head = bytes([packet.opcode << OPCODE_SHIFT | packet.key_id]) + packet.session_id
    parts = [bytes([len(packet.acks)])]
    if packet.peer_session_id is not None:
        parts += [ACK_LISTS[len(packet.acks)].pack(*packet.acks), packet.peer_session_id]
    if packet.packet_id is not None:
        parts.append(pack("!I", packet.packet_id))
    parts.append(packet.payload)
    return head, b"".join(parts)
