"""The sending half: window, backoff, fast resend, the peer's first reply."""

from __future__ import annotations

import pytest

from minivpn_trio.packet.ids import PacketID
from minivpn_trio.packet.opcodes import Opcode
from minivpn_trio.reliable.sender import SEND_WINDOW, Sender

RESET = Opcode.CONTROL_HARD_RESET_CLIENT_V2
MESSAGE = Opcode.CONTROL_V1


def sender_with(messages: int, *, now: float = 0.0) -> Sender:
    """A sender whose reset was acknowledged and that was given ``messages`` more."""
    sender = Sender(first_timeout=2.0)
    sender.push(RESET, b"", now)
    sender.poll(now)
    sender.handle_acks([PacketID(0)], now)
    sender.handle_first_reply(now)
    sender.release(now)
    for number in range(1, messages + 1):
        sender.push(MESSAGE, b"%d" % number, now)
    return sender


def sent(sender: Sender, now: float) -> list[int]:
    return [message.packet_id for message in sender.poll(now)]


def ack(sender: Sender, *ids: int, now: float = 0.0) -> None:
    sender.handle_acks([PacketID(packet_id) for packet_id in ids], now)


def test_nothing_follows_the_reset_until_the_peers_own_arrived() -> None:
    sender = Sender(first_timeout=2.0)
    sender.push(RESET, b"", 0.0)
    sender.push(MESSAGE, b"hello", 0.0)
    assert sent(sender, 0.0) == [0]
    ack(sender, 0)
    assert sent(sender, 1.0) == []
    assert sender.next_timeout() is None
    sender.release(1.5)
    assert sender.next_timeout() == 1.5
    assert sent(sender, 1.5) == [1]


@pytest.mark.parametrize(
    ("acked", "more"),
    [
        ([], []),
        # the oldest one holds the window, however many later ones are acknowledged
        ([2, 3, 4, 5, 6], []),
        ([1], [7]),
        ([1, 3], [7]),
        ([1, 2], [7, 8]),
        ([2, 1], [7, 8]),
        ([1, 2, 3, 4, 5, 6], [7, 8, 9, 10, 11, 12]),
    ],
)
def test_the_window_is_six_ids_from_the_oldest_unacknowledged(acked: list[int], more: list[int]) -> None:
    sender = sender_with(20)
    assert sent(sender, 0.0) == [1, 2, 3, 4, 5, 6]
    for packet_id in acked:
        ack(sender, packet_id)
    fast = [1] if 1 not in acked and len(acked) >= 3 else []
    assert sent(sender, 0.0) == fast + more
    assert sender.in_flight <= SEND_WINDOW


def test_timeouts_double_up_to_a_minute() -> None:
    sender = sender_with(1)
    assert sent(sender, 0.0) == [1]
    times = []
    for _ in range(9):
        at = sender.next_timeout()
        assert at is not None
        assert sent(sender, at - 1e-6) == []
        assert sent(sender, at) == [1]
        times.append(at)
    assert times == [2.0, 6.0, 14.0, 30.0, 62.0, 122.0, 182.0, 242.0, 302.0]
    assert sender.retransmissions == 9
    assert sender.fast_retransmissions == 0


def test_transmissions_are_counted_from_one() -> None:
    sender = sender_with(1)
    assert [message.attempt for message in sender.poll(0.0)] == [1]
    assert [message.attempt for message in sender.poll(2.0)] == [2]


@pytest.mark.parametrize(
    ("acked", "resent"),
    [([2, 3], []), ([2, 3, 4], [1]), ([4, 5, 6], [1, 2, 3]), ([3, 4, 5], [1, 2]), ([2, 4, 6], [1])],
)
def test_three_later_acknowledgements_resend_at_once(acked: list[int], resent: list[int]) -> None:
    sender = sender_with(6)
    sender.poll(0.0)
    ack(sender, *acked, now=0.5)
    assert sent(sender, 0.5) == resent
    assert sender.fast_retransmissions == sender.retransmissions == len(resent)


def test_a_fast_resend_counts_anew_and_does_not_slow_down() -> None:
    sender = sender_with(6)
    sender.poll(0.0)
    ack(sender, 2, 3, 4, now=0.5)
    assert sent(sender, 0.5) == [1]
    ack(sender, 5, 6, now=0.6)
    assert sent(sender, 0.6) == [], "two later ones since then"
    # 2 s would have been doubled by an expiry; the path works, so the wait stays as it was
    assert sender.next_timeout() == 0.5 + 4.0


def test_acknowledgements_of_what_is_not_in_flight_mean_nothing() -> None:
    sender = sender_with(10)
    ack(sender, 1)
    assert sent(sender, 0.0) == [1, 2, 3, 4, 5, 6], "1 was not sent when its acknowledgement came"
    # never sent, long gone, absurd (the reference counted these until 2026: test_packet_id.c,
    # test_reliable_purge_ignores_forged_acks)
    for _ in range(5):
        ack(sender, 0, 7, 8, 0x40000000, 0xFFFFFFFF)
    assert sent(sender, 1.0) == []
    ack(sender, 2)
    for _ in range(5):
        ack(sender, 2)
    assert sent(sender, 1.0) == [], "one later message, however often its acknowledgement is repeated"
    ack(sender, 1)
    assert sent(sender, 1.0) == [7, 8]


def test_the_first_reply_sends_everything_again_with_fresh_timeouts() -> None:
    sender = Sender(first_timeout=2.0)
    sender.push(RESET, b"", 0.0)
    for at in (0.0, 2.0, 6.0):
        assert sent(sender, at) == [0]
    assert sender.next_timeout() == 14.0
    sender.handle_first_reply(7.0)
    assert sent(sender, 7.0) == [0]
    assert sender.next_timeout() == 9.0
