"""The control packet codec, the wraps and the muxer under arbitrary input."""

from __future__ import annotations

import random
from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from minivpn_trio.errors import ProtocolError
from minivpn_trio.items import SequencedPacket
from minivpn_trio.packet.codec import (
    HEAD_SIZE,
    MAX_ACKS,
    NO_SESSION,
    SESSION_ID_SIZE,
    ControlPacket,
    parse_control_untrusted,
    serialize_control,
)
from minivpn_trio.packet.ids import KeyID, PacketID, Role, SessionID
from minivpn_trio.packet.opcodes import CONTROL_OPCODES, Opcode
from minivpn_trio.packetmuxer.control_wrap import ControlWrap, NoWrap, StaticKey, TlsCrypt
from minivpn_trio.packetmuxer.muxer import PacketMuxer
from minivpn_trio.packetmuxer.tls_auth import TlsAuth

KEY = StaticKey(random.Random(0).randbytes(256))
DIGESTS = ("SHA1", "SHA224", "SHA256", "SHA384", "SHA512")

#: Client and server.
WrapPair = Callable[[], tuple[ControlWrap, ControlWrap]]


def wall_clock() -> float:
    return 1_700_000_000.5


def plain_pair() -> tuple[ControlWrap, ControlWrap]:
    return NoWrap(), NoWrap()


def tls_auth_pair(digest: str) -> WrapPair:
    return lambda: (
        TlsAuth(KEY, 1, digest, unix_time=wall_clock),
        TlsAuth(KEY, 0, digest, unix_time=wall_clock),
    )


def tls_crypt_pair() -> tuple[ControlWrap, ControlWrap]:
    return TlsCrypt(KEY, Role.CLIENT, unix_time=wall_clock), TlsCrypt(KEY, Role.SERVER, unix_time=wall_clock)


PAIRS = st.sampled_from([plain_pair, tls_crypt_pair, *map(tls_auth_pair, DIGESTS)])
WRAPPED_PAIRS = st.sampled_from([tls_crypt_pair, *map(tls_auth_pair, DIGESTS)])

SESSION_IDS = st.binary(min_size=SESSION_ID_SIZE, max_size=SESSION_ID_SIZE).map(SessionID)
VALID_SESSION_IDS = SESSION_IDS.filter(lambda session_id: session_id != NO_SESSION)
PACKET_IDS = st.integers(min_value=0, max_value=2**32 - 1).map(PacketID)
KEY_IDS = st.integers(min_value=0, max_value=7).map(KeyID)


@st.composite
def control_packets(draw: st.DrawFn) -> ControlPacket:
    opcode = draw(st.sampled_from(sorted(CONTROL_OPCODES)))
    acks = tuple(draw(st.lists(PACKET_IDS, max_size=MAX_ACKS)))
    return ControlPacket(
        opcode=opcode,
        key_id=draw(KEY_IDS),
        session_id=draw(VALID_SESSION_IDS),
        acks=acks,
        peer_session_id=draw(SESSION_IDS) if acks else None,
        packet_id=None if opcode is Opcode.ACK_V1 else draw(PACKET_IDS),
        payload=draw(st.binary(max_size=60)),
    )


# What looks like a packet gets further than noise does.
LIKELY = st.one_of(
    st.binary(max_size=120),
    control_packets().map(lambda packet: b"".join(serialize_control(packet))),
    st.tuples(st.integers(min_value=0, max_value=31), KEY_IDS, st.binary(max_size=80)).map(
        lambda parts: bytes([parts[0] << 3 | parts[1]]) + parts[2]
    ),
)


@given(control_packets())
def test_codec_round_trip(packet: ControlPacket) -> None:
    assert parse_control_untrusted(*serialize_control(packet)) == packet


@given(LIKELY)
def test_whatever_parses_serializes_to_itself(datagram: bytes) -> None:
    try:
        packet = parse_control_untrusted(datagram[:HEAD_SIZE], datagram[HEAD_SIZE:])
    except ProtocolError:
        return
    assert b"".join(serialize_control(packet)) == datagram


@given(pair=PAIRS, packets=st.lists(control_packets(), min_size=1, max_size=5))
def test_wrap_round_trip(pair: WrapPair, packets: list[ControlPacket]) -> None:
    client, server = pair()
    for packet in packets:
        for sender, receiver in ((client, server), (server, client)):
            head, body = serialize_control(packet)
            datagram = sender.wrap(head, body, 0.0)
            assert len(datagram) <= len(head + body) + sender.overhead
            assert receiver.unwrap_untrusted(datagram, 0.0) == (head, body)


@given(pair=WRAPPED_PAIRS, packet=control_packets(), data=st.data())
def test_any_change_is_found(pair: WrapPair, packet: ControlPacket, data: st.DataObject) -> None:
    client, server = pair()
    datagram = client.wrap(*serialize_control(packet), 0.0)
    position = data.draw(st.integers(min_value=0, max_value=len(datagram) - 1))
    change = data.draw(st.integers(min_value=1, max_value=255))
    changed = datagram[:position] + bytes([datagram[position] ^ change]) + datagram[position + 1 :]
    try:
        server.unwrap_untrusted(changed, 0.0)
    except ProtocolError:
        return
    raise AssertionError("a forged packet was accepted")


@given(pair=PAIRS, role=st.sampled_from(Role), bind=st.booleans(), bursts=st.lists(st.lists(LIKELY, max_size=8)))
def test_a_muxer_survives_and_counts_anything(
    pair: WrapPair, role: Role, bind: bool, bursts: list[list[bytes]]
) -> None:
    client, server = pair()
    wrap, peer = (client, server) if role is Role.CLIENT else (server, client)
    muxer = PacketMuxer(role=role, wrap=wrap, rng=random.Random(7).randbytes)
    remote = SessionID(b"the peer")
    if bind:
        opening = ControlPacket(
            opcode=(
                Opcode.CONTROL_HARD_RESET_SERVER_V2 if role is Role.CLIENT else Opcode.CONTROL_HARD_RESET_CLIENT_V2
            ),
            key_id=KeyID(0),
            session_id=remote,
            acks=(PacketID(0),) if role is Role.CLIENT else (),
            peer_session_id=muxer.local_session_id if role is Role.CLIENT else None,
            packet_id=PacketID(0),
        )
        assert muxer.handle_datagrams([peer.wrap(*serialize_control(opening), 0.0)], 0.0).bound
    for now, burst in enumerate(bursts):
        before = muxer.drops.total()
        demuxed = muxer.handle_datagrams(burst, float(now))
        assert len(demuxed.data) + len(demuxed.control) + muxer.drops.total() - before == len(burst)
        # Nobody guesses our session id, so no client is ever bound by this, and nobody changes it.
        if bind:
            assert muxer.remote_session_id == remote
        elif role is Role.CLIENT:
            assert muxer.remote_session_id is None
            assert demuxed == ([], [], False)


SEQUENCED = st.builds(
    SequencedPacket,
    key_id=KEY_IDS,
    opcode=st.just(Opcode.CONTROL_V1),
    acks=st.lists(PACKET_IDS, max_size=MAX_ACKS).map(tuple),
    packet_id=PACKET_IDS,
    payload=st.binary(max_size=100),
    attempt=st.just(0),  # what is handed up does not tell
)


@given(pair=PAIRS, packets=st.lists(SEQUENCED, max_size=8), order=st.randoms(use_true_random=False))
def test_what_one_muxer_sends_the_other_hands_up(
    pair: WrapPair, packets: list[SequencedPacket], order: random.Random
) -> None:
    """Whatever the order; and a second time only without a wrap."""
    client_wrap, server_wrap = pair()
    client = PacketMuxer(role=Role.CLIENT, wrap=client_wrap, rng=random.Random(1).randbytes)
    server = PacketMuxer(role=Role.SERVER, wrap=server_wrap, rng=random.Random(2).randbytes)
    first, key = PacketID(0), KeyID(0)
    reset = SequencedPacket(key, Opcode.CONTROL_HARD_RESET_CLIENT_V2, (), first, b"")
    answer = SequencedPacket(key, Opcode.CONTROL_HARD_RESET_SERVER_V2, (first,), first, b"")
    assert server.handle_datagrams(client.wrap_control([reset], 0.0), 0.0) == ([], [reset], True)
    assert client.handle_datagrams(server.wrap_control([answer], 0.0), 0.0) == ([], [answer], True)
    for sender, receiver in ((client, server), (server, client)):
        indexes = list(range(len(packets)))
        order.shuffle(indexes)
        burst = sender.wrap_control(packets, 0.0)
        shuffled = [burst[index] for index in indexes]
        assert receiver.handle_datagrams(shuffled, 0.0).control == [packets[index] for index in indexes]
        again = receiver.handle_datagrams(shuffled, 0.0).control
        assert len(again) == (len(packets) if isinstance(client_wrap, NoWrap) else 0)
