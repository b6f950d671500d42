"""What the muxer lets through, what binds a session, and what it writes down."""

from __future__ import annotations

import random
import timeit
from collections import Counter
from dataclasses import replace

import pytest

from minivpn_trio.errors import DropReason
from minivpn_trio.events import SessionState
from minivpn_trio.items import Burst, ForeignBurst, SequencedPacket
from minivpn_trio.packet.codec import NO_SESSION, ControlPacket, parse_control_untrusted, serialize_control
from minivpn_trio.packet.ids import KeyID, PacketID, Role, SessionID
from minivpn_trio.packet.opcodes import Opcode
from minivpn_trio.packetmuxer.control_wrap import ControlWrap, NoWrap, StaticKey, TlsCrypt
from minivpn_trio.packetmuxer.muxer import MAX_CONTROL_DATAGRAM, PacketMuxer
from minivpn_trio.packetmuxer.tls_auth import TlsAuth
from minivpn_trio.tracing import PacketTraced, TraceRecord

SERVER_SID = SessionID(b"\xa1" * 8)
OTHER_SID = SessionID(b"\xb2" * 8)
KEY0, ID0 = KeyID(0), PacketID(0)
KEY = StaticKey(bytes(range(256)))
DATA = [b"\x48\x00\x00\x00" + bytes(60), b"\x30" + bytes(60), b"\x4f\xff\xff\xff" + bytes(20)]


class Recorder:
    def __init__(self) -> None:
        self.records: list[PacketTraced] = []

    def trace(self, record: TraceRecord) -> None:
        assert isinstance(record, PacketTraced)
        self.records.append(record)


def make(role: Role = Role.CLIENT, tracer: Recorder | None = None) -> PacketMuxer:
    return PacketMuxer(
        role=role,
        wrap=NoWrap(),
        rng=random.Random(1).randbytes,
        tracer=tracer,
        session_state=lambda: SessionState.PRE_START,
    )


def datagram(packet: ControlPacket) -> bytes:
    return b"".join(serialize_control(packet))


def server_reset(muxer: PacketMuxer, **changes: object) -> bytes:
    """The answer of a server to the hard reset of ``muxer``, or what became of it."""
    packet = ControlPacket(
        opcode=Opcode.CONTROL_HARD_RESET_SERVER_V2,
        key_id=KEY0,
        session_id=SERVER_SID,
        acks=(ID0,),
        peer_session_id=muxer.local_session_id,
        packet_id=ID0,
    )
    return datagram(replace(packet, **changes))  # type: ignore[arg-type]


def client_reset(**changes: object) -> bytes:
    packet = ControlPacket(opcode=Opcode.CONTROL_HARD_RESET_CLIENT_V2, key_id=KEY0, session_id=OTHER_SID, packet_id=ID0)
    return datagram(replace(packet, **changes))  # type: ignore[arg-type]


def bound() -> PacketMuxer:
    muxer = make()
    assert muxer.handle_datagrams([server_reset(muxer)], 0.0).bound
    return muxer


# The session ids.


def test_the_local_session_id_is_random_and_never_zero() -> None:
    draws = iter([bytes(8), bytes(8), b"12345678"])
    muxer = PacketMuxer(role=Role.CLIENT, wrap=NoWrap(), rng=lambda size: next(draws))
    assert muxer.local_session_id == b"12345678"
    assert make().local_session_id != NO_SESSION


def test_the_answer_to_our_reset_binds() -> None:
    muxer = make()
    demuxed = muxer.handle_datagrams([server_reset(muxer)], 0.0)
    assert demuxed.bound
    assert demuxed.control == [SequencedPacket(KEY0, Opcode.CONTROL_HARD_RESET_SERVER_V2, (ID0,), ID0, b"")]
    assert muxer.remote_session_id == SERVER_SID
    assert not muxer.drops


def test_it_binds_once() -> None:
    muxer = bound()
    again = muxer.handle_datagrams([server_reset(muxer)], 0.0)
    assert not again.bound
    # The repetition goes up: reliable acknowledges it again.
    assert len(again.control) == 1


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"acks": (), "peer_session_id": None}, DropReason.NOT_READY),
        ({"acks": (PacketID(1),)}, DropReason.NOT_READY),
        ({"peer_session_id": OTHER_SID}, DropReason.BAD_SESSION_ID),
        ({"peer_session_id": NO_SESSION}, DropReason.BAD_SESSION_ID),
        ({"session_id": NO_SESSION}, DropReason.BAD_SESSION_ID),
        ({"packet_id": PacketID(1)}, DropReason.MALFORMED),
        ({"key_id": KeyID(1)}, DropReason.MALFORMED),
        ({"opcode": Opcode.CONTROL_HARD_RESET_CLIENT_V2}, DropReason.UNEXPECTED_OPCODE),
        ({"opcode": Opcode.CONTROL_HARD_RESET_CLIENT_V3}, DropReason.UNEXPECTED_OPCODE),
        ({"opcode": Opcode.CONTROL_WKC_V1}, DropReason.UNEXPECTED_OPCODE),
        ({"opcode": Opcode.CONTROL_V1, "key_id": KeyID(1)}, DropReason.NOT_READY),
        ({"opcode": Opcode.CONTROL_V1, "acks": (), "peer_session_id": None}, DropReason.NOT_READY),
    ],
)
def test_forged_resets_never_bind(changes: dict[str, object], reason: DropReason) -> None:
    muxer = make()
    demuxed = muxer.handle_datagrams([server_reset(muxer, **changes)], 0.0)
    assert demuxed == ([], [], False)
    assert muxer.remote_session_id is None
    assert muxer.drops == Counter({reason: 1})
    # And the real one still does.
    assert muxer.handle_datagrams([server_reset(muxer)], 0.0).bound


def test_a_thousand_forgeries_before_the_answer() -> None:
    muxer = make()
    rng = random.Random(2)
    forged = [
        server_reset(muxer, session_id=SessionID(rng.randbytes(8)), peer_session_id=SessionID(rng.randbytes(8)))
        for _ in range(1000)
    ]
    assert muxer.handle_datagrams([*forged, server_reset(muxer), *forged], 0.0).bound
    assert muxer.remote_session_id == SERVER_SID
    assert muxer.drops == Counter({DropReason.BAD_SESSION_ID: 2000})


def test_an_acknowledgement_alone_binds_too() -> None:
    muxer = make()
    ack = server_reset(muxer, opcode=Opcode.ACK_V1, packet_id=None)
    assert muxer.handle_datagrams([ack], 0.0).bound
    # The reset that follows need not acknowledge again.
    reset = server_reset(muxer, acks=(), peer_session_id=None)
    assert len(muxer.handle_datagrams([reset], 0.0).control) == 1


@pytest.mark.parametrize("wrap", [NoWrap(), TlsAuth(KEY, None, "SHA1", unix_time=lambda: 0.0)])
def test_our_own_packets_reflected_are_dropped(wrap: NoWrap | TlsAuth) -> None:
    """Where nothing tells the directions apart, the session ids and opcodes do."""
    muxer = PacketMuxer(role=Role.CLIENT, wrap=wrap, rng=random.Random(1).randbytes)
    reset = SequencedPacket(KEY0, Opcode.CONTROL_HARD_RESET_CLIENT_V2, (), ID0, b"", 1)
    assert muxer.handle_datagrams(muxer.wrap_control([reset], 0.0), 0.0) == ([], [], False)
    muxer._remote = SERVER_SID
    acks = SequencedPacket(KEY0, Opcode.CONTROL_V1, (ID0,), PacketID(1), b"hello", 1)
    control = SequencedPacket(KEY0, Opcode.CONTROL_V1, (), PacketID(2), b"hello", 1)
    assert muxer.handle_datagrams(muxer.wrap_control([acks, control], 0.0), 0.0) == ([], [], False)
    assert muxer.drops == Counter({DropReason.UNEXPECTED_OPCODE: 1, DropReason.BAD_SESSION_ID: 2})


def test_the_acknowledgement_may_be_among_others() -> None:
    muxer = make()
    assert muxer.handle_datagrams([server_reset(muxer, acks=(PacketID(1), ID0))], 0.0).bound


def test_a_second_reset_with_another_session_id_is_dropped() -> None:
    muxer = bound()
    assert muxer.handle_datagrams([server_reset(muxer, session_id=OTHER_SID)], 0.0) == ([], [], False)
    assert muxer.remote_session_id == SERVER_SID
    assert muxer.drops == Counter({DropReason.BAD_SESSION_ID: 1})


@pytest.mark.parametrize("opcode", [Opcode.CONTROL_V1, Opcode.CONTROL_SOFT_RESET_V1])
@pytest.mark.parametrize(
    ("changes", "admitted"),
    [
        ({}, True),
        ({"acks": (), "peer_session_id": None}, True),
        ({"key_id": KeyID(3)}, True),
        ({"session_id": OTHER_SID}, False),
        ({"peer_session_id": OTHER_SID}, False),
    ],
)
def test_both_session_ids_must_match(opcode: Opcode, changes: dict[str, object], admitted: bool) -> None:
    muxer = bound()
    demuxed = muxer.handle_datagrams([server_reset(muxer, opcode=opcode, **changes)], 0.0)
    assert len(demuxed.control) == admitted
    assert muxer.drops == Counter() if admitted else Counter({DropReason.BAD_SESSION_ID: 1})


# The server's side.


def test_a_server_binds_the_first_client_reset() -> None:
    muxer = make(Role.SERVER)
    demuxed = muxer.handle_datagrams([client_reset()], 0.0)
    assert demuxed.bound
    assert muxer.remote_session_id == OTHER_SID
    assert len(demuxed.control) == 1
    # Repeated: once more to reliable. From another session: dropped.
    assert len(muxer.handle_datagrams([client_reset()], 0.0).control) == 1
    assert muxer.handle_datagrams([client_reset(session_id=SERVER_SID)], 0.0).control == []
    assert muxer.drops == Counter({DropReason.BAD_SESSION_ID: 1})


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"packet_id": PacketID(1)}, DropReason.MALFORMED),
        ({"key_id": KeyID(1)}, DropReason.MALFORMED),
        ({"acks": (ID0,), "peer_session_id": SERVER_SID}, DropReason.BAD_SESSION_ID),
        ({"opcode": Opcode.CONTROL_V1}, DropReason.NOT_READY),
        ({"opcode": Opcode.CONTROL_HARD_RESET_SERVER_V2}, DropReason.UNEXPECTED_OPCODE),
        ({"opcode": Opcode.CONTROL_HARD_RESET_CLIENT_V3}, DropReason.UNEXPECTED_OPCODE),
    ],
)
def test_what_does_not_open_a_session(changes: dict[str, object], reason: DropReason) -> None:
    muxer = make(Role.SERVER)
    assert muxer.handle_datagrams([client_reset(**changes)], 0.0) == ([], [], False)
    assert muxer.drops == Counter({reason: 1})


# Data.


def test_a_burst_of_data_is_passed_on_as_it_is() -> None:
    muxer = bound()
    demuxed = muxer.handle_datagrams(DATA, 0.0)
    assert demuxed.data is DATA
    assert demuxed.control == []


def test_a_mixed_burst_is_sorted_in_order() -> None:
    muxer = bound()
    first = server_reset(muxer, opcode=Opcode.CONTROL_V1, packet_id=PacketID(1))
    second = server_reset(muxer, opcode=Opcode.CONTROL_V1, packet_id=PacketID(2))
    demuxed = muxer.handle_datagrams([DATA[0], second, DATA[1], b"", first, DATA[2]], 0.0)
    assert demuxed.data == DATA
    assert [packet.packet_id for packet in demuxed.control] == [2, 1]
    assert muxer.drops == Counter({DropReason.TOO_SHORT: 1})


def test_data_before_the_session_is_dropped() -> None:
    muxer = make()
    assert muxer.handle_datagrams(DATA, 0.0) == ([], [], False)
    assert muxer.drops == Counter({DropReason.NOT_READY: 3})
    # In one burst with the answer, what follows it passes.
    assert muxer.handle_datagrams([DATA[0], server_reset(muxer), DATA[1]], 0.0).data == [DATA[1]]


def test_the_way_past_for_data_is_short() -> None:
    """Under 0.3 us a packet on any machine of these days; twice that here, since others may be at work."""
    muxer = bound()
    burst: Burst = [b"\x48" + bytes(1300) for _ in range(64)]
    best = min(timeit.repeat(lambda: muxer.handle_datagrams(burst, 0.0), number=200, repeat=20))
    assert best / 200 / 64 < 0.6e-6


# Sizes.


@pytest.mark.parametrize(
    "wrap",
    [
        NoWrap(),
        TlsAuth(KEY, 1, "SHA1", unix_time=lambda: 0.0),
        TlsAuth(KEY, None, "SHA512", unix_time=lambda: 0.0),
        TlsCrypt(KEY, Role.CLIENT, unix_time=lambda: 0.0),
    ],
)
def test_full_control_packets_fit(wrap: NoWrap | TlsAuth | TlsCrypt) -> None:
    muxer = PacketMuxer(role=Role.SERVER, wrap=wrap, rng=random.Random(1).randbytes)
    muxer._remote = OTHER_SID
    acks = tuple(PacketID(n) for n in range(4))
    packet = SequencedPacket(KEY0, Opcode.CONTROL_V1, acks, PacketID(9), bytes(muxer.max_control_payload), 1)
    (wire,) = muxer.wrap_control([packet], 0.0)
    # Provenance: full control packets of openvpn 2.6.14 have 1222 bytes, and 1206 with tls-crypt.
    assert len(wire) == (1206 if isinstance(wrap, TlsCrypt) else MAX_CONTROL_DATAGRAM)


def test_packets_out_of_all_proportion_are_not_looked_at() -> None:
    muxer = bound()
    huge = server_reset(muxer, opcode=Opcode.CONTROL_V1, payload=bytes(3000))
    assert muxer.handle_datagrams([huge], 0.0).control == []
    assert muxer.drops == Counter({DropReason.TOO_LONG: 1})
    old_style = server_reset(muxer, opcode=Opcode.CONTROL_V1, payload=bytes(2048))
    assert len(muxer.handle_datagrams([old_style], 0.0).control) == 1


# The way down.


def test_control_packets_get_both_session_ids() -> None:
    muxer = bound()
    burst = muxer.wrap_control(
        [
            SequencedPacket(KEY0, Opcode.CONTROL_V1, (ID0,), PacketID(1), b"hello", 1),
            SequencedPacket(KeyID(2), Opcode.ACK_V1, (ID0, PacketID(7)), None, b"", 1),
            SequencedPacket(KEY0, Opcode.CONTROL_V1, (), PacketID(2), b"", 3),
        ],
        0.0,
    )
    packets = [parse_control_untrusted(wire[:9], wire[9:]) for wire in burst]
    assert {packet.session_id for packet in packets} == {muxer.local_session_id}
    assert [packet.peer_session_id for packet in packets] == [SERVER_SID, SERVER_SID, None]
    assert [packet.key_id for packet in packets] == [0, 2, 0]
    assert [packet.packet_id for packet in packets] == [1, None, 2]
    assert packets[0].payload == b"hello"
    assert muxer.packets_out == 3


def test_our_reset_is_fourteen_bytes() -> None:
    # Provenance: the size of a hard reset of openvpn 2.6.14, as captured.
    (wire,) = make().wrap_control([SequencedPacket(KEY0, Opcode.CONTROL_HARD_RESET_CLIENT_V2, (), ID0, b"", 1)], 0.0)
    assert (len(wire), wire[0]) == (14, 0x38)


def test_nothing_can_be_acknowledged_before_the_session() -> None:
    with pytest.raises(ValueError, match="session id"):
        make().wrap_control([SequencedPacket(KEY0, Opcode.ACK_V1, (ID0,), None, b"", 1)], 0.0)


# Traces.


def test_one_record_for_each_control_packet() -> None:
    tracer = Recorder()
    muxer = make(tracer=tracer)
    muxer.wrap_control([SequencedPacket(KEY0, Opcode.CONTROL_HARD_RESET_CLIENT_V2, (), ID0, b"", 2)], 1.0)
    answer = server_reset(muxer, payload=b"tlv")
    muxer.handle_datagrams([DATA[0], b"\xf8", b"", server_reset(muxer, session_id=NO_SESSION), answer], 2.0)
    muxer.handle_datagrams([server_reset(muxer, session_id=OTHER_SID, payload=b"x"), *DATA], 3.0)
    muxer.handle_datagrams(DATA, 4.0)

    def record(direction: str, time: float, **fields: object) -> PacketTraced:
        return PacketTraced(
            time=time,
            stage=SessionState.PRE_START,
            direction=direction,  # type: ignore[arg-type]
            **fields,  # type: ignore[arg-type]
        )

    reset = Opcode.CONTROL_HARD_RESET_SERVER_V2
    assert tracer.records == [
        record("out", 1.0, opcode=Opcode.CONTROL_HARD_RESET_CLIENT_V2, key_id=0, packet_id=0, size=14, attempt=2),
        record("dropped", 2.0, opcode=Opcode.DATA_V2, key_id=0, size=64, drop_reason=DropReason.NOT_READY),
        record("dropped", 2.0, opcode=None, size=1, drop_reason=DropReason.TOO_SHORT),
        record("dropped", 2.0, opcode=None, size=0, drop_reason=DropReason.TOO_SHORT),
        record("dropped", 2.0, opcode=reset, key_id=0, size=26, drop_reason=DropReason.BAD_SESSION_ID),
        record("in", 2.0, opcode=reset, key_id=0, packet_id=0, acks=(0,), size=29, payload_size=3, payload=b"tlv"),
        record(
            "dropped",
            3.0,
            opcode=reset,
            key_id=0,
            packet_id=0,
            acks=(0,),
            size=27,
            payload_size=1,
            drop_reason=DropReason.BAD_SESSION_ID,
            payload=b"x",
        ),
    ]


# another address than the one that was dialled


def test_an_answer_to_our_session_id_says_where_the_server_is() -> None:
    muxer = make()
    found: list[object] = []
    muxer.on_foreign = found.append
    ack = datagram(
        ControlPacket(
            opcode=Opcode.CONTROL_V1, key_id=KEY0, session_id=SERVER_SID, acks=(), peer_session_id=None,
            packet_id=PacketID(1), payload=b"x",
        )
    )  # fmt: skip
    forged = server_reset(muxer, peer_session_id=OTHER_SID)
    assert not muxer.handle_datagrams(ForeignBurst("stranger", [forged, ack, b"", *DATA]), 0.0).bound
    assert found == []
    sorted_ = muxer.handle_datagrams(ForeignBurst("server", [server_reset(muxer), ack, *DATA]), 0.0)
    assert (sorted_.bound, len(sorted_.control), list(sorted_.data)) == (True, 2, DATA)
    assert isinstance(sorted_.data, ForeignBurst)
    assert sorted_.data.source == "server"
    assert found == ["server"]
    # What was on its way when that was found out.
    assert len(muxer.handle_datagrams(ForeignBurst("server", [ack]), 0.0).control) == 1


def test_control_packets_from_elsewhere_are_not_heard_once_a_session_is_bound() -> None:
    """They may be repeated by whoever has seen them."""
    muxer = make()
    found: list[object] = []
    muxer.on_foreign = found.append
    reset = server_reset(muxer)
    assert muxer.handle_datagrams([reset], 0.0).bound
    sorted_ = muxer.handle_datagrams(ForeignBurst("stranger", [reset, DATA[0]]), 0.0)
    assert (sorted_.control, list(sorted_.data)) == ([], DATA[:1])
    assert muxer.drops == {DropReason.BAD_ADDRESS: 1}
    assert found == []
    burst = ForeignBurst("anybody", DATA)
    assert muxer.handle_datagrams(burst, 0.0).data is burst


@pytest.mark.parametrize("kind", ["tls-auth", "tls-crypt"])
def test_a_stranger_with_the_static_key_does_not_shut_the_server_out(kind: str) -> None:
    """It is in every customer's profile. The time in what a stranger sends is the last there is."""

    def wrap(role: Role, time: float) -> ControlWrap:
        if kind == "tls-crypt":
            return TlsCrypt(KEY, role, unix_time=lambda: time)
        return TlsAuth(KEY, 1 if role is Role.CLIENT else 0, unix_time=lambda: time)

    muxer = PacketMuxer(role=Role.CLIENT, wrap=wrap(Role.CLIENT, 5.0), rng=random.Random(1).randbytes)
    strange, server = wrap(Role.SERVER, float(0xFFFFFFFF)), wrap(Role.SERVER, 5.0)

    def packet(**changes: object) -> tuple[bytes, bytes]:
        plain = server_reset(muxer, **changes)
        return plain[:9], plain[9:]

    forged = [
        packet(acks=(), peer_session_id=None),
        packet(peer_session_id=OTHER_SID),
        packet(opcode=Opcode.ACK_V1, packet_id=None, acks=(PacketID(7),)),
        packet(opcode=Opcode.CONTROL_HARD_RESET_CLIENT_V2),
        (packet()[0], b"\xff"),
    ]
    for head, body in forged:
        assert not muxer.handle_datagrams(ForeignBurst("stranger", [strange.wrap(head, body, 0.0)]), 0.0).control
    assert DropReason.REPLAY not in muxer.drops
    answer = server.wrap(*packet(), 0.0)
    assert muxer.handle_datagrams([answer], 0.0).bound
    # Nor once the session stands, if its source is forged too.
    muxer.handle_datagrams([strange.wrap(*packet(session_id=OTHER_SID), 0.0)], 0.0)
    assert len(muxer.handle_datagrams([server.wrap(*packet(), 0.0)], 0.0).control) == 1
    # What belongs to the session counts once.
    assert not muxer.handle_datagrams([answer], 0.0).control
    assert muxer.drops[DropReason.REPLAY] == 1
