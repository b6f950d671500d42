"""The control packet codec, against packets of the C client and against nonsense."""

from __future__ import annotations

import pytest

from minivpn_trio.errors import DropReason, ProtocolError
from minivpn_trio.packet.codec import (
    HEAD_SIZE,
    MAX_ACKS,
    ControlPacket,
    parse_control_untrusted,
    serialize_control,
)
from minivpn_trio.packet.ids import KeyID, PacketID, SessionID
from minivpn_trio.packet.opcodes import Opcode

OURS = SessionID(bytes.fromhex("0102030405060708"))
THEIRS = SessionID(bytes.fromhex("1112131415161718"))


def parse(datagram: bytes) -> ControlPacket:
    return parse_control_untrusted(datagram[:HEAD_SIZE], datagram[HEAD_SIZE:])


def refusal(datagram: bytes) -> DropReason:
    with pytest.raises(ProtocolError) as caught:
        parse(datagram)
    return caught.value.reason


# Provenance of the packets: OpenVPN, tests/unit_tests/openvpn/test_pkt.c (sizes and values only).
KNOWN = {
    "hard reset": (
        "386891923fa31034370000000000",
        ControlPacket(
            opcode=Opcode.CONTROL_HARD_RESET_CLIENT_V2,
            key_id=KeyID(0),
            session_id=SessionID(bytes.fromhex("6891923fa3103437")),
            packet_id=PacketID(0),
        ),
    ),
    "control with an acknowledgement": (
        "207819bf2ebcd19a450100000000eafebfa4418ae31b00000001160301",
        ControlPacket(
            opcode=Opcode.CONTROL_V1,
            key_id=KeyID(0),
            session_id=SessionID(bytes.fromhex("7819bf2ebcd19a45")),
            acks=(PacketID(0),),
            peer_session_id=SessionID(bytes.fromhex("eafebfa4418ae31b")),
            packet_id=PacketID(1),
            payload=bytes.fromhex("160301"),
        ),
    ),
    "one acknowledgement": (
        "28aeb9afe1f01d79c80100000000dd85db535623b02e",
        ControlPacket(
            opcode=Opcode.ACK_V1,
            key_id=KeyID(0),
            session_id=SessionID(bytes.fromhex("aeb9afe1f01d79c8")),
            acks=(PacketID(0),),
            peer_session_id=SessionID(bytes.fromhex("dd85db535623b02e")),
        ),
    ),
    "three acknowledgements": (
        "28aeb9afe1f01d79c803000000000000000100000002dd85db535623b02e",
        ControlPacket(
            opcode=Opcode.ACK_V1,
            key_id=KeyID(0),
            session_id=SessionID(bytes.fromhex("aeb9afe1f01d79c8")),
            acks=(PacketID(0), PacketID(1), PacketID(2)),
            peer_session_id=SessionID(bytes.fromhex("dd85db535623b02e")),
        ),
    ),
}


@pytest.mark.parametrize("name", KNOWN)
def test_known_packets(name: str) -> None:
    wire, packet = bytes.fromhex(KNOWN[name][0]), KNOWN[name][1]
    assert parse(wire) == packet
    assert b"".join(serialize_control(packet)) == wire


def test_the_packet_id_of_minivpn() -> None:
    # Provenance: a parser test of ooni/minivpn: opcode 4, everything zero, id 7. Zero is no
    # session id, so here the packet gets one.
    wire = bytes.fromhex("2000000000000000000000000007")
    assert refusal(wire) is DropReason.BAD_SESSION_ID
    packet = parse(wire[:1] + THEIRS + wire[HEAD_SIZE:])
    assert (packet.opcode, packet.packet_id) == (Opcode.CONTROL_V1, 7)


def test_key_id_is_in_the_low_bits() -> None:
    packet = parse(bytes([Opcode.CONTROL_SOFT_RESET_V1 << 3 | 5]) + THEIRS + bytes(5))
    assert (packet.opcode, packet.key_id) == (Opcode.CONTROL_SOFT_RESET_V1, 5)


@pytest.mark.parametrize("opcode", [0, 1, 2, 12, 20, 31])
def test_unknown_opcodes(opcode: int) -> None:
    assert refusal(bytes([opcode << 3]) + THEIRS + bytes(5)) is DropReason.UNKNOWN_OPCODE


@pytest.mark.parametrize("opcode", [Opcode.DATA_V1, Opcode.DATA_V2])
def test_data_is_not_control(opcode: Opcode) -> None:
    assert refusal(bytes([opcode << 3]) + THEIRS + bytes(5)) is DropReason.UNEXPECTED_OPCODE


def test_session_id_zero_is_invalid() -> None:
    assert refusal(b"\x20" + bytes(8) + bytes(5)) is DropReason.BAD_SESSION_ID


def test_more_than_eight_acks_are_malformed() -> None:
    acks = b"".join(n.to_bytes(4) for n in range(9))
    assert refusal(b"\x28" + THEIRS + b"\x09" + acks + OURS) is DropReason.MALFORMED
    assert len(parse(b"\x28" + THEIRS + b"\x08" + acks[4:] + OURS).acks) == MAX_ACKS


@pytest.mark.parametrize("name", KNOWN)
def test_every_cut_is_refused_or_shortens_the_payload(name: str) -> None:
    wire, packet = bytes.fromhex(KNOWN[name][0]), KNOWN[name][1]
    for size in range(len(wire)):
        if size >= len(wire) - len(packet.payload):
            assert parse(wire[:size]).payload == packet.payload[: size - len(wire)]
        else:
            assert refusal(wire[:size]) is DropReason.TOO_SHORT


def test_a_control_packet_cut_in_its_acknowledgements() -> None:
    # Provenance: OpenVPN, test_pkt.c, client_control_none_random_id.
    assert refusal(bytes.fromhex("20aeb9afe1f01d79c8010000000002")) is DropReason.TOO_SHORT


@pytest.mark.parametrize(
    "packet",
    [
        ControlPacket(opcode=Opcode.CONTROL_V1, key_id=KeyID(0), session_id=OURS),
        ControlPacket(opcode=Opcode.ACK_V1, key_id=KeyID(0), session_id=OURS, packet_id=PacketID(1)),
        ControlPacket(opcode=Opcode.ACK_V1, key_id=KeyID(0), session_id=OURS, acks=(PacketID(1),)),
        ControlPacket(opcode=Opcode.ACK_V1, key_id=KeyID(0), session_id=OURS, peer_session_id=THEIRS),
        ControlPacket(
            opcode=Opcode.ACK_V1,
            key_id=KeyID(0),
            session_id=OURS,
            acks=tuple(PacketID(n) for n in range(9)),
            peer_session_id=THEIRS,
        ),
    ],
)
def test_contradictory_packets_are_not_serialized(packet: ControlPacket) -> None:
    with pytest.raises(ValueError, match=r"packet id|session id|at most"):
        serialize_control(packet)


def test_the_payload_stays_out_of_repr() -> None:
    packet = ControlPacket(
        opcode=Opcode.CONTROL_V1, key_id=KeyID(0), session_id=OURS, packet_id=PacketID(1), payload=b"swordfish"
    )
    assert "swordfish" not in repr(packet)
