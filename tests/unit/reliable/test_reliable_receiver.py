"""The receiving half: what is accepted, what is a duplicate, what is too far ahead."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minivpn_trio.packet.ids import PacketID
from minivpn_trio.packet.opcodes import Opcode
from minivpn_trio.reliable.receiver import RECEIVE_WINDOW, Receiver, Verdict

MESSAGE = Opcode.CONTROL_V1


def receiver_with(*ids: int, taken: int = 0) -> Receiver:
    receiver = Receiver()
    for packet_id in [*range(taken), *ids]:
        receiver.accept(PacketID(packet_id), MESSAGE, b"%d" % packet_id)
    receiver.advance(taken)
    return receiver


@pytest.mark.parametrize(
    ("stored", "taken", "packet_id", "verdict"),
    [
        ((), 0, 0, Verdict.NEW),
        ((), 0, 11, Verdict.NEW),
        ((), 0, 12, Verdict.OUT_OF_WINDOW),
        ((), 0, 0xFFFFFFFF, Verdict.OUT_OF_WINDOW),
        ((0,), 0, 0, Verdict.DUPLICATE),
        ((5,), 0, 5, Verdict.DUPLICATE),
        # stored but not taken: the window has not moved
        ((0,), 0, 12, Verdict.OUT_OF_WINDOW),
        ((), 1, 12, Verdict.NEW),
        ((), 1, 13, Verdict.OUT_OF_WINDOW),
        ((), 1, 0, Verdict.DUPLICATE),
        ((), 10, 0, Verdict.DUPLICATE),
        ((), 10, 21, Verdict.NEW),
        ((), 10, 22, Verdict.OUT_OF_WINDOW),
    ],
)
def test_what_is_accepted(stored: tuple[int, ...], taken: int, packet_id: int, verdict: Verdict) -> None:
    receiver = receiver_with(*stored, taken=taken)
    assert receiver.accept(PacketID(packet_id), MESSAGE, b"") is verdict


def test_of_two_with_one_id_the_first_counts() -> None:
    receiver = Receiver()
    receiver.accept(PacketID(0), MESSAGE, b"first")
    receiver.accept(PacketID(0), MESSAGE, b"second")
    assert receiver.ready() == [(MESSAGE, b"first")]


def test_ready_stops_at_the_first_gap_and_takes_nothing() -> None:
    receiver = receiver_with(0, 1, 3)
    assert [payload for _, payload in receiver.ready()] == [b"0", b"1"]
    assert [payload for _, payload in receiver.ready()] == [b"0", b"1"]
    receiver.advance(1)
    assert [payload for _, payload in receiver.ready()] == [b"1"]


@given(st.lists(st.one_of(st.integers(0, 40).map(PacketID), st.just("take"))))
def test_every_message_once_in_order_and_never_more_than_a_window(actions: list[object]) -> None:
    receiver = Receiver()
    delivered: list[bytes] = []
    for action in actions:
        if isinstance(action, int):
            receiver.accept(PacketID(action), MESSAGE, b"%d" % action)
        else:
            ready = receiver.ready()
            delivered += [payload for _, payload in ready]
            receiver.advance(len(ready))
        assert receiver.stored <= RECEIVE_WINDOW
        assert delivered == [b"%d" % number for number in range(len(delivered))]
