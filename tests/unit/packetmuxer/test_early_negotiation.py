"""What is in a server's hard reset, and what the muxer makes of it."""

from __future__ import annotations

import random
from struct import pack

import pytest
from tls_crypt_v2_keys import CLIENT_KEY, SERVER_KEY, WRAPPED_TIME

from minivpn_trio.config.tls_crypt_v2_key import TlsCryptV2ClientKey
from minivpn_trio.errors import DropReason, ProtocolError
from minivpn_trio.items import Burst, SequencedPacket
from minivpn_trio.packet.ids import KeyID, PacketID, Role
from minivpn_trio.packet.opcodes import Opcode
from minivpn_trio.packetmuxer.control_wrap import ControlWrap, NoWrap, StaticKey, TlsCrypt
from minivpn_trio.packetmuxer.early_negotiation import (
    FIRST_REPLAY_ID,
    EarlyFlag,
    announces_early_negotiation,
    parse_early_untrusted,
    serialize_early,
)
from minivpn_trio.packetmuxer.muxer import MAX_CONTROL_DATAGRAM, PacketMuxer
from minivpn_trio.packetmuxer.tls_auth import TlsAuth
from minivpn_trio.packetmuxer.tls_crypt_v2 import TlsCryptV2, TlsCryptV2Server

KEY0, KEY1, ID0, ID1 = KeyID(0), KeyID(1), PacketID(0), PacketID(1)
#: Type 1, two bytes, bit 0.
ASK = bytes.fromhex("000100020001")
RESEND, NOTHING = EarlyFlag.RESEND_WKC, EarlyFlag(0)


def time() -> float:
    return 1_700_000_000.0


# The list.


@pytest.mark.parametrize(
    ("payload", "flags"),
    [
        (b"", NOTHING),
        (ASK, RESEND),
        (bytes.fromhex("000100020000"), NOTHING),
        (bytes.fromhex("00010002ffff"), RESEND),
        (bytes.fromhex("00010002fffe"), NOTHING),
        (bytes.fromhex("0002000412345678") + ASK, RESEND),
        (ASK + bytes.fromhex("ffff0000"), RESEND),
        (pack("!HH", 7, 1000) + bytes(1000), NOTHING),
        (ASK + bytes.fromhex("000100020000"), RESEND),
    ],
)
def test_flags(payload: bytes, flags: EarlyFlag) -> None:
    assert parse_early_untrusted(payload) == flags


@pytest.mark.parametrize(
    "payload",
    [ASK[:size] for size in range(1, len(ASK))]
    + [ASK + b"\x00", bytes.fromhex("0001000101"), bytes.fromhex("00010000"), bytes.fromhex("000100040001000100")]
    + [pack("!HH", 9, 0xFFFF) + bytes(1200)],
)
def test_malformed(payload: bytes) -> None:
    with pytest.raises(ProtocolError) as caught:
        parse_early_untrusted(payload)
    assert caught.value.reason is DropReason.MALFORMED


def test_there_and_back() -> None:
    assert serialize_early(RESEND) == ASK
    assert serialize_early(NOTHING) == b""


def test_who_announces_it() -> None:
    assert announces_early_negotiation(FIRST_REPLAY_ID)
    assert announces_early_negotiation(0x0FFFFFFF)
    assert not announces_early_negotiation(1)
    assert not announces_early_negotiation(0x1F000001)


# The muxer.

RESET = SequencedPacket(KEY0, Opcode.CONTROL_HARD_RESET_CLIENT_V3, (), ID0, b"", 1)
ANSWER = SequencedPacket(KEY0, Opcode.CONTROL_HARD_RESET_SERVER_V2, (ID0,), ID0, b"", 1)
HELLO = SequencedPacket(KEY0, Opcode.CONTROL_V1, (ID0,), ID1, b"ClientHello", 1)


def client(wrapped: bytes = WRAPPED_TIME) -> PacketMuxer:
    wrap = TlsCryptV2(TlsCryptV2ClientKey(CLIENT_KEY, wrapped), unix_time=time)
    return PacketMuxer(role=Role.CLIENT, wrap=wrap, rng=random.Random(1).randbytes)


def server(*, ask_again: bool) -> PacketMuxer:
    wrap = TlsCryptV2Server(SERVER_KEY, unix_time=time, ask_again=ask_again)
    return PacketMuxer(role=Role.SERVER, wrap=wrap, rng=random.Random(2).randbytes)


def opened(*, ask_again: bool) -> tuple[PacketMuxer, PacketMuxer]:
    ours, theirs = client(), server(ask_again=ask_again)
    assert theirs.handle_datagrams(ours.wrap_control([RESET], 0.0), 0.0).bound
    assert ours.handle_datagrams(theirs.wrap_control([ANSWER], 0.0), 0.0).bound
    return ours, theirs


def opcodes(burst: Burst) -> list[Opcode]:
    return [Opcode(datagram[0] >> 3) for datagram in burst]


def test_message_1_goes_with_the_key_each_time_when_asked() -> None:
    ours, theirs = opened(ask_again=True)
    for attempt in (1, 2, 3):
        (datagram,) = ours.wrap_control([HELLO], float(attempt))
        assert opcodes([datagram]) == [Opcode.CONTROL_WKC_V1]
        assert datagram.endswith(WRAPPED_TIME)
        (packet,) = theirs.handle_datagrams([datagram], float(attempt)).control
        assert (packet.opcode, packet.packet_id, packet.payload) == (Opcode.CONTROL_WKC_V1, ID1, b"ClientHello")
    others = [
        SequencedPacket(KEY0, Opcode.CONTROL_V1, (), PacketID(2), b"more", 1),
        SequencedPacket(KEY0, Opcode.ACK_V1, (ID0,), None, b"", 1),
        SequencedPacket(KEY1, Opcode.CONTROL_SOFT_RESET_V1, (), ID0, b"", 1),
        SequencedPacket(KEY1, Opcode.CONTROL_V1, (), ID1, b"ClientHello", 1),
    ]
    assert opcodes(ours.wrap_control(others, 4.0)) == [packet.opcode for packet in others]
    assert not ours.drops
    assert not theirs.drops


def test_message_1_is_an_ordinary_one_when_not_asked() -> None:
    ours, theirs = opened(ask_again=False)
    datagrams = ours.wrap_control([HELLO], 1.0)
    assert opcodes(datagrams) == [Opcode.CONTROL_V1]
    assert not datagrams[0].endswith(WRAPPED_TIME)
    assert theirs.handle_datagrams(datagrams, 1.0).control[0].opcode is Opcode.CONTROL_V1


def test_the_key_takes_its_room_from_message_1_only() -> None:
    ours, theirs = client(), server(ask_again=True)
    # Nobody knows yet whether it will be asked for.
    small = ours.max_control_payload
    theirs.handle_datagrams(ours.wrap_control([RESET], 0.0), 0.0)
    ours.handle_datagrams(theirs.wrap_control([ANSWER], 0.0), 0.0)
    assert ours.max_control_payload == small
    full = SequencedPacket(KEY0, Opcode.CONTROL_V1, (ID0,) * 4, ID1, bytes(small), 1)
    # 16 bytes that tls-crypt reserves, and does not use, are left.
    assert [len(datagram) for datagram in ours.wrap_control([full], 0.0)] == [MAX_CONTROL_DATAGRAM - 16]
    assert ours.max_control_payload == small + len(WRAPPED_TIME)


def test_no_room_is_reserved_once_the_server_did_not_ask() -> None:
    ours, _ = opened(ask_again=False)
    assert ours.max_control_payload == 1222 - 56 - 38


def test_a_malformed_reset_binds_nothing() -> None:
    ours, theirs = client(), server(ask_again=False)
    theirs.handle_datagrams(ours.wrap_control([RESET], 0.0), 0.0)
    for payload in (ASK[:3], ASK[:5], ASK + b"\x00\x01"):
        bad = SequencedPacket(KEY0, Opcode.CONTROL_HARD_RESET_SERVER_V2, (ID0,), ID0, payload, 1)
        assert ours.handle_datagrams(theirs.wrap_control([bad], 0.0), 0.0) == ([], [], False)
    assert ours.drops == {DropReason.MALFORMED: 3}
    assert ours.remote_session_id is None
    unknown = SequencedPacket(KEY0, Opcode.CONTROL_HARD_RESET_SERVER_V2, (ID0,), ID0, bytes.fromhex("00090001ff"), 1)
    assert ours.handle_datagrams(theirs.wrap_control([unknown], 0.0), 0.0).bound
    assert opcodes(ours.wrap_control([HELLO], 1.0)) == [Opcode.CONTROL_V1]


def test_a_later_reset_does_not_change_the_answer() -> None:
    ours, theirs = opened(ask_again=True)
    again = SequencedPacket(KEY0, Opcode.CONTROL_HARD_RESET_SERVER_V2, (ID0,), ID0, b"", 1)
    assert ours.handle_datagrams(theirs.wrap_control([again], 0.0), 0.0).control
    assert opcodes(ours.wrap_control([HELLO], 1.0)) == [Opcode.CONTROL_WKC_V1]


@pytest.mark.parametrize(
    "wrap", [NoWrap(), TlsCrypt(StaticKey(CLIENT_KEY), Role.CLIENT, unix_time=time)], ids=["none", "tls-crypt"]
)
def test_who_did_not_announce_it_does_not_read_it(wrap: ControlWrap) -> None:
    ours = PacketMuxer(role=Role.CLIENT, wrap=wrap, rng=random.Random(1).randbytes)
    peer: ControlWrap = NoWrap()
    if isinstance(wrap, TlsCrypt):
        peer = TlsCrypt(StaticKey(CLIENT_KEY), Role.SERVER, unix_time=time)
    theirs = PacketMuxer(role=Role.SERVER, wrap=peer, rng=random.Random(2).randbytes)
    reset = SequencedPacket(KEY0, Opcode.CONTROL_HARD_RESET_CLIENT_V2, (), ID0, b"", 1)
    assert theirs.handle_datagrams(ours.wrap_control([reset], 0.0), 0.0).bound
    odd = SequencedPacket(KEY0, Opcode.CONTROL_HARD_RESET_SERVER_V2, (ID0,), ID0, ASK[:5], 1)
    assert ours.handle_datagrams(theirs.wrap_control([odd], 0.0), 0.0).bound
    assert opcodes(ours.wrap_control([HELLO], 1.0)) == [Opcode.CONTROL_V1]


def test_a_server_without_tls_crypt_v2_takes_neither_opcode() -> None:
    theirs = PacketMuxer(role=Role.SERVER, wrap=NoWrap(), rng=random.Random(2).randbytes)
    ours = PacketMuxer(role=Role.CLIENT, wrap=NoWrap(), rng=random.Random(1).randbytes)
    wkc = SequencedPacket(KEY0, Opcode.CONTROL_WKC_V1, (), ID1, b"", 1)
    assert theirs.handle_datagrams(ours.wrap_control([RESET, wkc], 0.0), 0.0) == ([], [], False)
    assert theirs.drops == {DropReason.UNEXPECTED_OPCODE: 2}


# Keys after the first.

SECRET = StaticKey(bytes(range(256)))
BASES = {
    "none": lambda role: NoWrap(unix_time=time),
    "tls-auth": lambda role: TlsAuth(SECRET, 1 if role is Role.CLIENT else 0, "SHA512", unix_time=time),
    "tls-crypt": lambda role: TlsCrypt(SECRET, role, unix_time=time),
}
SOFT = SequencedPacket(KEY1, Opcode.CONTROL_SOFT_RESET_V1, (), ID0, b"", 1)
EXPORTED = bytes(range(255, -1, -1))


def joined(base: str) -> tuple[PacketMuxer, PacketMuxer]:
    ours, theirs = (
        PacketMuxer(role=role, wrap=BASES[base](role), rng=random.Random(role.value).randbytes)
        for role in (Role.CLIENT, Role.SERVER)
    )
    reset = SequencedPacket(KEY0, Opcode.CONTROL_HARD_RESET_CLIENT_V2, (), ID0, b"", 1)
    assert theirs.handle_datagrams(ours.wrap_control([reset], 0.0), 0.0).bound
    assert ours.handle_datagrams(theirs.wrap_control([ANSWER], 0.0), 0.0).bound
    return ours, theirs


def up(packet: SequencedPacket) -> SequencedPacket:
    return SequencedPacket(packet.key_id, packet.opcode, packet.acks, packet.packet_id, packet.payload)


@pytest.mark.parametrize("base", BASES)
def test_later_keys_have_a_wrap_of_their_own(base: str) -> None:
    ours, theirs = joined(base)
    for muxer in (ours, theirs):
        muxer.install_renegotiation_key(EXPORTED)
    (datagram,) = ours.wrap_control([SOFT], 1.0)
    # Provenance: the size of openvpn 2.6.14's soft reset behind dynamic tls-crypt, as captured.
    assert len(datagram) == 54
    assert int.from_bytes(datagram[9:13]) == 1
    assert theirs.handle_datagrams([datagram], 1.0).control == [up(SOFT)]
    assert theirs.handle_datagrams([datagram], 1.0).control == []
    assert theirs.drops == {DropReason.REPLAY: 1}
    seven = SequencedPacket(KeyID(7), Opcode.CONTROL_V1, (ID0,), ID1, b"x", 1)
    assert ours.handle_datagrams(theirs.wrap_control([seven], 2.0), 2.0).control == [up(seven)]
    # The first key goes on as it began.
    (datagram,) = ours.wrap_control([HELLO], 3.0)
    assert len(datagram) == {"none": 0, "tls-auth": 72, "tls-crypt": 40}[base] + 9 + 1 + 4 + 8 + 4 + 11
    assert theirs.handle_datagrams([datagram], 3.0).control == [up(HELLO)]


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("late", [0, 1])
def test_both_ends_need_it(base: str, late: int) -> None:
    pair = joined(base)
    pair[late].install_renegotiation_key(EXPORTED)
    sender, receiver = pair
    # Without a wrap anything can be read as a control packet, though not as this one.
    read = receiver.handle_datagrams(sender.wrap_control([SOFT], 1.0), 1.0).control
    assert all(packet.packet_id != 0 for packet in read)
    assert not read or base == "none"


def test_the_static_key_alone_does_not_open_later_keys() -> None:
    ours, theirs = joined("tls-crypt")
    ours.install_renegotiation_key(EXPORTED)
    theirs.install_renegotiation_key(bytes(256))
    assert theirs.handle_datagrams(ours.wrap_control([SOFT], 1.0), 1.0).control == []
    assert theirs.drops == {DropReason.BAD_AUTHENTICATION: 1}


def test_the_exported_key_alone_does_not_open_later_keys() -> None:
    ours, _ = joined("tls-crypt")
    _, bare = joined("none")
    ours.install_renegotiation_key(EXPORTED)
    bare.install_renegotiation_key(EXPORTED)
    assert bare.handle_datagrams(ours.wrap_control([SOFT], 1.0), 1.0).control == []


def test_with_tls_crypt_v2_the_clients_key_counts() -> None:
    ours, theirs = opened(ask_again=False)
    for muxer in (ours, theirs):
        muxer.install_renegotiation_key(EXPORTED)
    (datagram,) = ours.wrap_control([SOFT], 1.0)
    assert len(datagram) == 54
    assert theirs.handle_datagrams([datagram], 1.0).control == [up(SOFT)]


def test_payloads_fit_whichever_wrap_is_larger() -> None:
    for base, before, after in (("none", 0, 56), ("tls-auth", 72, 72), ("tls-crypt", 56, 56)):
        ours, _ = joined(base)
        assert ours.max_control_payload == 1222 - 38 - before
        ours.install_renegotiation_key(EXPORTED)
        assert ours.max_control_payload == 1222 - 38 - after


def test_the_key_has_256_bytes() -> None:
    ours, _ = joined("none")
    with pytest.raises(ValueError, match="256"):
        ours.install_renegotiation_key(bytes(255))
