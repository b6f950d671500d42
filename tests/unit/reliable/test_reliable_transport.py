"""ReliableTransport: which conversations exist, what is acknowledged when, what is dropped."""

from __future__ import annotations

import pytest

from minivpn_trio.errors import DropReason
from minivpn_trio.events import SessionState
from minivpn_trio.items import ExpectKey, OpenKey, RetireKey, Segment, SequencedPacket
from minivpn_trio.packet.ids import KeyID, PacketID, Role
from minivpn_trio.packet.opcodes import Opcode
from minivpn_trio.reliable.transport import MAX_CONVERSATIONS, MAX_QUEUED, ReliableTransport
from minivpn_trio.tracing import PacketTraced, TraceRecord

CLIENT_RESET = Opcode.CONTROL_HARD_RESET_CLIENT_V2
SERVER_RESET = Opcode.CONTROL_HARD_RESET_SERVER_V2
SOFT_RESET = Opcode.CONTROL_SOFT_RESET_V1
MESSAGE = Opcode.CONTROL_V1
ACK = Opcode.ACK_V1


def packet(
    opcode: Opcode, packet_id: int | None, *, acks: tuple[int, ...] = (), key: int = 0, payload: bytes = b""
) -> SequencedPacket:
    return SequencedPacket(
        KeyID(key),
        opcode,
        tuple(PacketID(ack) for ack in acks),
        None if packet_id is None else PacketID(packet_id),
        payload,
    )


def segment(payload: bytes, key: int = 0) -> Segment:
    return Segment(KeyID(key), MESSAGE, payload)


def shape(packets: list[SequencedPacket]) -> list[tuple[Opcode, int | None, tuple[int, ...]]]:
    return [(p.opcode, p.packet_id, p.acks) for p in packets]


def client() -> ReliableTransport:
    """A client that sent its hard reset at 0.0."""
    reliable = ReliableTransport(role=Role.CLIENT)
    reliable.submit(OpenKey(KeyID(0), CLIENT_RESET), 0.0)
    assert shape(reliable.poll_transmit(0.0)) == [(CLIENT_RESET, 0, ())]
    return reliable


def talking() -> ReliableTransport:
    """A client past both hard resets, owing nothing, at 1.0."""
    reliable = client()
    reliable.handle_packets([packet(SERVER_RESET, 0, acks=(0,))], 0.5)
    assert reliable.take_delivered() == [Segment(KeyID(0), SERVER_RESET, b"")]
    reliable.poll_transmit(1.0)
    assert reliable.idle
    assert reliable.next_timeout() is None
    return reliable


class TestAcknowledgements:
    def test_that_of_the_hard_reset_rides_on_the_first_message(self) -> None:
        reliable = client()
        reliable.handle_packets([packet(SERVER_RESET, 0, acks=(0,))], 0.5)
        assert reliable.poll_transmit(0.5) == []
        reliable.submit(segment(b"ClientHello"), 0.55)
        assert shape(reliable.poll_transmit(0.55)) == [(MESSAGE, 1, (0,))]
        assert reliable.next_timeout() == 0.55 + 2.0
        # and is repeated from then on
        reliable.submit(segment(b"more"), 0.6)
        assert shape(reliable.poll_transmit(0.6)) == [(MESSAGE, 2, (0,))]

    def test_that_of_the_hard_reset_does_not_wait_for_ever(self) -> None:
        reliable = client()
        reliable.handle_packets([packet(SERVER_RESET, 0, acks=(0,))], 0.5)
        assert reliable.next_timeout() == 0.6
        assert reliable.poll_transmit(0.59) == []
        assert shape(reliable.poll_transmit(0.6)) == [(ACK, None, (0,))]
        assert reliable.next_timeout() is None

    def test_a_repeated_reset_does_not_cut_the_wait_short_but_is_acknowledged_again_later(self) -> None:
        reliable = client()
        reset = packet(SERVER_RESET, 0, acks=(0,))
        reliable.handle_packets([reset, reset], 0.5)
        assert reliable.poll_transmit(0.55) == []
        assert shape(reliable.poll_transmit(0.6)) == [(ACK, None, (0,))]
        reliable.handle_packets([reset], 2.5)
        assert shape(reliable.poll_transmit(2.5)) == [(ACK, None, (0,))]
        assert reliable.drops[DropReason.DUPLICATE] == 2

    def test_the_client_hello_waits_for_the_servers_reset(self) -> None:
        reliable = client()
        reliable.handle_packets([packet(ACK, None, acks=(0,))], 0.5)
        reliable.submit(segment(b"ClientHello"), 0.5)
        assert reliable.poll_transmit(0.5) == []
        reliable.handle_packets([packet(SERVER_RESET, 0)], 0.7)
        assert shape(reliable.poll_transmit(0.7)) == [(MESSAGE, 1, (0,))]

    def test_those_of_messages_go_alone_at_once_when_nothing_else_goes(self) -> None:
        reliable = talking()
        reliable.handle_packets([packet(MESSAGE, 1), packet(MESSAGE, 2)], 2.0)
        assert reliable.next_timeout() == 2.0
        assert shape(reliable.poll_transmit(2.0)) == [(ACK, None, (1, 2, 0))]
        assert reliable.poll_transmit(2.0) == []

    def test_four_fit_a_message_and_the_others_go_alone(self) -> None:
        reliable = talking()
        reliable.handle_packets([packet(MESSAGE, number) for number in range(1, 7)], 2.0)
        reliable.submit(segment(b"x"), 2.0)
        assert shape(reliable.poll_transmit(2.0)) == [
            (MESSAGE, 1, (1, 2, 3, 4)),
            (ACK, None, (5, 6, 1, 2, 3, 4, 0)),
        ]

    def test_never_more_than_four_where_the_peer_refuses_more(self) -> None:
        reliable = ReliableTransport(role=Role.CLIENT, max_acks=4)
        reliable.submit(OpenKey(KeyID(0), CLIENT_RESET), 0.0)
        reliable.poll_transmit(0.0)
        reliable.handle_packets([packet(SERVER_RESET, 0, acks=(0,))], 0.5)
        reliable.handle_packets([packet(MESSAGE, number) for number in range(1, 7)], 0.5)
        assert shape(reliable.poll_transmit(0.5)) == [(ACK, None, (0, 1, 2, 3)), (ACK, None, (4, 5, 6, 0))]

    def test_a_retransmission_carries_them_too(self) -> None:
        reliable = talking()
        reliable.submit(segment(b"x"), 2.0)
        reliable.poll_transmit(2.0)
        reliable.handle_packets([packet(MESSAGE, 1)], 4.0)
        assert [(p.packet_id, p.acks, p.attempt) for p in reliable.poll_transmit(4.0)] == [(1, (1, 0), 2)]

    def test_an_acknowledgement_is_not_acknowledged(self) -> None:
        reliable = talking()
        for _ in range(3):
            reliable.handle_packets([packet(ACK, None, acks=(0,))], 2.0)
        assert reliable.next_timeout() is None

    def test_beyond_eight_due_ones_the_peer_has_to_ask_again(self) -> None:
        reliable = talking()
        reliable.handle_packets([packet(MESSAGE, number) for number in range(1, 12)], 2.0)
        assert shape(reliable.poll_transmit(2.0)) == [(ACK, None, tuple(range(1, 9)))]
        assert len(reliable.take_delivered()) == 11, "stored all the same"
        reliable.handle_packets([packet(MESSAGE, 9)], 4.0)
        assert reliable.poll_transmit(4.0)[0].acks[0] == 9
        assert reliable.take_delivered() == []


class TestDelivery:
    def test_what_is_not_taken_stays_and_is_offered_again(self) -> None:
        reliable = talking()
        reliable.handle_packets([packet(MESSAGE, 2, payload=b"b"), packet(MESSAGE, 1, payload=b"a")], 2.0)
        offers: list[list[Segment]] = []

        def refuse(segments: list[Segment]) -> bool:
            offers.append(segments)
            return False

        assert not reliable.deliver(refuse)
        assert not reliable.deliver(refuse)
        assert offers == [[segment(b"a"), segment(b"b")]] * 2
        assert reliable.take_delivered() == [segment(b"a"), segment(b"b")]
        assert reliable.deliver(refuse)
        assert len(offers) == 2, "an empty list is not offered"

    def test_the_window_waits_for_the_stage_above(self) -> None:
        reliable = talking()
        reliable.handle_packets([packet(MESSAGE, number) for number in range(1, 20)], 2.0)
        assert reliable.drops[DropReason.OUT_OF_WINDOW] == 19 - 12
        acked = {ack for p in reliable.poll_transmit(2.0) for ack in p.acks}
        assert max(acked) <= 12
        assert len(reliable.take_delivered()) == 12
        reliable.handle_packets([packet(MESSAGE, 13)], 3.0)
        assert len(reliable.take_delivered()) == 1


class TestConversations:
    def test_an_expected_soft_reset_opens_one_that_we_have_to_answer(self) -> None:
        reliable = talking()
        reliable.submit(ExpectKey(KeyID(1)), 2.0)
        reliable.handle_packets([packet(SOFT_RESET, 0, key=1)], 2.0)
        assert reliable.take_delivered() == [Segment(KeyID(1), SOFT_RESET, b"")]
        reliable.submit(segment(b"too early", key=1), 2.0)
        assert reliable.drops[DropReason.NOT_READY] == 1
        # nothing goes out before our own reset, which carries the acknowledgement
        assert reliable.next_timeout() is None
        assert reliable.poll_transmit(3.0) == []
        reliable.submit(OpenKey(KeyID(1), SOFT_RESET), 3.0)
        reliable.submit(segment(b"ClientHello", key=1), 3.0)
        assert shape(reliable.poll_transmit(3.0)) == [(SOFT_RESET, 0, (0,)), (MESSAGE, 1, (0,))]

    @pytest.mark.parametrize("key", [1, 2, 3, 7])
    def test_any_other_soft_reset_is_dropped_without_acknowledgement(self, key: int) -> None:
        reliable = talking()
        reliable.handle_packets([packet(SOFT_RESET, 0, key=key)], 2.0)
        reliable.submit(ExpectKey(KeyID(4)), 2.0)
        reliable.handle_packets([packet(SOFT_RESET, 0, key=key)], 2.0)
        assert reliable.drops == {DropReason.UNKNOWN_KEY: 2}
        assert reliable.take_delivered() == []
        assert reliable.poll_transmit(100.0) == []

    def test_the_door_opens_once(self) -> None:
        reliable = talking()
        reliable.submit(ExpectKey(KeyID(1)), 2.0)
        reliable.handle_packets([packet(SOFT_RESET, 0, key=1)] * 3, 2.0)
        assert reliable.take_delivered() == [Segment(KeyID(1), SOFT_RESET, b"")]
        reliable.submit(RetireKey(KeyID(1)), 3.0)
        reliable.handle_packets([packet(SOFT_RESET, 0, key=1)], 3.0)
        assert reliable.drops == {DropReason.DUPLICATE: 2, DropReason.UNKNOWN_KEY: 1}

    def test_a_door_can_be_closed(self) -> None:
        reliable = talking()
        reliable.submit(ExpectKey(KeyID(1)), 2.0)
        reliable.submit(RetireKey(KeyID(1)), 2.0)
        reliable.handle_packets([packet(SOFT_RESET, 0, key=1)], 2.0)
        assert reliable.drops == {DropReason.UNKNOWN_KEY: 1}

    def test_after_a_failed_one_the_peer_may_try_the_same_key_again(self) -> None:
        reliable = talking()
        reliable.submit(OpenKey(KeyID(1), SOFT_RESET), 2.0)
        reliable.handle_packets([packet(SOFT_RESET, 0, key=1), packet(MESSAGE, 1, key=1)], 2.0)
        reliable.take_delivered()
        reliable.submit(RetireKey(KeyID(1)), 3.0)
        reliable.submit(ExpectKey(KeyID(1)), 3.0)
        reliable.handle_packets([packet(SOFT_RESET, 0, key=1)], 3.0)
        assert reliable.take_delivered() == [Segment(KeyID(1), SOFT_RESET, b"")]
        reliable.submit(OpenKey(KeyID(1), SOFT_RESET), 3.0)
        assert shape(reliable.poll_transmit(3.0)) == [(SOFT_RESET, 0, (0,))]

    def test_soft_resets_that_cross_are_one(self) -> None:
        reliable = talking()
        reliable.submit(ExpectKey(KeyID(1)), 2.0)
        reliable.submit(OpenKey(KeyID(1), SOFT_RESET), 2.0)
        assert shape(reliable.poll_transmit(2.0)) == [(SOFT_RESET, 0, ())]
        reliable.handle_packets([packet(SOFT_RESET, 0, key=1)], 2.1)
        assert reliable.take_delivered() == [Segment(KeyID(1), SOFT_RESET, b"")]
        reliable.submit(OpenKey(KeyID(1), SOFT_RESET), 2.1)
        # the peer's first word: ours goes again at once, now with the acknowledgement
        assert shape(reliable.poll_transmit(2.1)) == [(SOFT_RESET, 0, (0,))]
        reliable.handle_packets([packet(ACK, None, acks=(0,), key=1)], 2.2)
        assert reliable.idle
        assert [conversation.key_id for conversation in reliable.conversations] == [0, 1]

    def test_a_soft_reset_of_which_message_1_came_first_is_not_opened_by_it(self) -> None:
        reliable = talking()
        reliable.submit(ExpectKey(KeyID(1)), 2.0)
        reliable.handle_packets([packet(MESSAGE, 1, key=1)], 2.0)
        assert reliable.drops == {DropReason.UNKNOWN_KEY: 1}
        reliable.handle_packets([packet(SOFT_RESET, 0, key=1)], 2.0)
        assert reliable.take_delivered() == [Segment(KeyID(1), SOFT_RESET, b"")]

    @pytest.mark.parametrize("opcode", [CLIENT_RESET, Opcode.CONTROL_HARD_RESET_CLIENT_V3])
    def test_a_server_is_opened_by_the_clients_hard_reset_once(self, opcode: Opcode) -> None:
        reliable = ReliableTransport(role=Role.SERVER)
        reliable.handle_packets([packet(opcode, 0)], 0.0)
        assert reliable.take_delivered() == [Segment(KeyID(0), opcode, b"")]
        reliable.submit(OpenKey(KeyID(0), SERVER_RESET), 0.0)
        assert shape(reliable.poll_transmit(0.0)) == [(SERVER_RESET, 0, (0,))]
        reliable.submit(RetireKey(KeyID(0)), 1.0)
        reliable.handle_packets([packet(opcode, 0)], 1.0)
        assert reliable.conversations == ()
        assert reliable.drops == {DropReason.UNKNOWN_KEY: 1}

    def test_a_wrapped_client_key_may_ride_on_message_1_of_a_client(self) -> None:
        server = ReliableTransport(role=Role.SERVER)
        server.handle_packets([packet(Opcode.CONTROL_HARD_RESET_CLIENT_V3, 0)], 0.0)
        server.handle_packets([packet(Opcode.CONTROL_WKC_V1, 1, payload=b"hello")], 0.0)
        server.handle_packets([packet(Opcode.CONTROL_WKC_V1, 2)], 0.0)
        assert [s.payload for s in server.take_delivered()] == [b"", b"hello"]
        assert server.drops == {DropReason.UNEXPECTED_OPCODE: 1}

    def test_a_wrapped_client_key_belongs_to_the_first_key(self) -> None:
        server = ReliableTransport(role=Role.SERVER)
        server.handle_packets([packet(Opcode.CONTROL_HARD_RESET_CLIENT_V3, 0)], 0.0)
        server.submit(ExpectKey(KeyID(1)), 0.0)
        server.handle_packets([packet(SOFT_RESET, 0, key=1), packet(Opcode.CONTROL_WKC_V1, 1, key=1)], 0.0)
        assert [s.opcode for s in server.take_delivered()] == [Opcode.CONTROL_HARD_RESET_CLIENT_V3, SOFT_RESET]
        assert server.drops == {DropReason.UNEXPECTED_OPCODE: 1}

    def test_a_fourth_conversation_ends_the_first(self) -> None:
        reliable = talking()
        for key in (1, 2, 3):
            reliable.submit(OpenKey(KeyID(key), SOFT_RESET), 2.0)
        assert [conversation.key_id for conversation in reliable.conversations] == [1, 2, 3]
        assert len(reliable.conversations) == MAX_CONVERSATIONS
        # so that an id that comes round again is a new conversation
        reliable.submit(OpenKey(KeyID(0), SOFT_RESET), 2.0)
        assert [conversation.key_id for conversation in reliable.conversations] == [2, 3, 0]

    def test_what_a_retired_key_retransmitted_still_counts(self) -> None:
        reliable = client()
        reliable.poll_transmit(2.0)
        reliable.submit(RetireKey(KeyID(0)), 3.0)
        assert reliable.retransmissions == 1
        assert reliable.next_timeout() is None
        assert reliable.poll_transmit(100.0) == []

    def test_retiring_what_does_not_exist_is_harmless(self) -> None:
        reliable = talking()
        reliable.submit(RetireKey(KeyID(5)), 2.0)
        assert [conversation.key_id for conversation in reliable.conversations] == [0]

    def test_messages_of_keys_are_numbered_and_delivered_apart(self) -> None:
        reliable = talking()
        reliable.submit(OpenKey(KeyID(1), SOFT_RESET), 2.0)
        reliable.poll_transmit(2.0)
        reliable.handle_packets([packet(SOFT_RESET, 0, acks=(0,), key=1)], 2.1)
        reliable.submit(segment(b"old"), 2.1)
        reliable.submit(segment(b"new", key=1), 2.1)
        assert [(p.key_id, p.packet_id, p.payload) for p in reliable.poll_transmit(2.1)] == [
            (0, 1, b"old"),
            (1, 1, b"new"),
        ]


class TestLimits:
    def test_messages_without_a_conversation_are_dropped(self) -> None:
        reliable = ReliableTransport(role=Role.CLIENT)
        reliable.submit(segment(b"x"), 0.0)
        assert reliable.drops == {DropReason.UNKNOWN_KEY: 1}
        assert reliable.poll_transmit(1.0) == []

    def test_the_queue_is_bounded(self) -> None:
        reliable = talking()
        taken = 0
        while reliable.can_submit:
            reliable.submit(segment(b"%d" % taken), 2.0)
            taken += 1
        assert taken == 6 + MAX_QUEUED
        reliable.submit(segment(b"one too many"), 2.0)
        assert reliable.drops == {DropReason.QUEUE_FULL: 1}
        sent = reliable.poll_transmit(2.0)
        assert not reliable.can_submit
        reliable.handle_packets([packet(ACK, None, acks=(1,))], 2.5)
        assert reliable.can_submit
        assert [p.payload for p in sent + reliable.poll_transmit(2.5)] == [b"%d" % n for n in range(7)]


BAD_PACKETS = [
    (packet(MESSAGE, 0), DropReason.UNEXPECTED_OPCODE),
    (packet(SOFT_RESET, 0), DropReason.UNEXPECTED_OPCODE),
    (packet(CLIENT_RESET, 0), DropReason.UNEXPECTED_OPCODE),
    (packet(SERVER_RESET, 1), DropReason.UNEXPECTED_OPCODE),
    (packet(SOFT_RESET, 1, key=1), DropReason.UNEXPECTED_OPCODE),
    (packet(SERVER_RESET, 0, key=1), DropReason.UNEXPECTED_OPCODE),
    (packet(Opcode.CONTROL_WKC_V1, 1), DropReason.UNEXPECTED_OPCODE),
    (packet(Opcode.DATA_V2, 1), DropReason.UNEXPECTED_OPCODE),
    (packet(MESSAGE, None), DropReason.MALFORMED),
    (packet(ACK, 1), DropReason.MALFORMED),
    (packet(ACK, None, acks=tuple(range(9))), DropReason.MALFORMED),
    (packet(MESSAGE, 1, payload=bytes(2049)), DropReason.TOO_LONG),
    (packet(MESSAGE, 13), DropReason.OUT_OF_WINDOW),
    (packet(MESSAGE, 0xFFFFFFFF), DropReason.OUT_OF_WINDOW),
    (packet(MESSAGE, 1, key=1), DropReason.UNKNOWN_KEY),
    (packet(ACK, None, acks=(0,), key=5), DropReason.UNKNOWN_KEY),
]


@pytest.mark.parametrize(("bad", "reason"), BAD_PACKETS)
def test_what_does_not_belong_is_dropped_counted_and_not_acknowledged(bad: SequencedPacket, reason: DropReason) -> None:
    reliable = talking()
    reliable.handle_packets([bad], 2.0)
    assert reliable.drops == {reason: 1}
    assert reliable.take_delivered() == []
    assert reliable.poll_transmit(100.0) == []
    assert reliable.idle


def test_no_acknowledgements_at_all_cannot_be_asked_for() -> None:
    with pytest.raises(ValueError, match="max_acks is 0"):
        ReliableTransport(role=Role.CLIENT, max_acks=0)


def test_a_refused_packet_opens_no_conversation() -> None:
    reliable = talking()
    reliable.submit(ExpectKey(KeyID(1)), 2.0)
    reliable.handle_packets([packet(SOFT_RESET, 0, key=1, payload=bytes(5000))], 2.0)
    assert [conversation.key_id for conversation in reliable.conversations] == [0]
    reliable.handle_packets([packet(SOFT_RESET, 0, key=1)], 2.0)
    assert reliable.take_delivered() == [Segment(KeyID(1), SOFT_RESET, b"")]


def test_what_a_message_out_of_window_acknowledges_counts() -> None:
    reliable = talking()
    reliable.submit(segment(b"x"), 2.0)
    reliable.poll_transmit(2.0)
    reliable.handle_packets([packet(MESSAGE, 500, acks=(1,))], 2.0)
    assert reliable.idle


def test_drops_are_traced() -> None:
    records: list[TraceRecord] = []

    class Recorder:
        def trace(self, record: TraceRecord) -> None:
            records.append(record)

    reliable = ReliableTransport(role=Role.CLIENT, tracer=Recorder(), session_state=lambda: SessionState.START)
    reliable.handle_packets([packet(MESSAGE, 3, acks=(1,), key=2, payload=b"abc")], 5.0)
    assert records == [
        PacketTraced(
            time=5.0,
            stage=SessionState.START,
            direction="dropped",
            opcode=MESSAGE,
            key_id=2,
            packet_id=3,
            acks=(1,),
            payload_size=3,
            drop_reason=DropReason.UNKNOWN_KEY,
        )
    ]
