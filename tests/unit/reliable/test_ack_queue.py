"""Acknowledgements: the queue, its bound, and the repetition of recent ones."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minivpn_trio.packet.ids import PacketID
from minivpn_trio.reliable.acks import ACK_QUEUE_SIZE, AckQueue


def acknowledge(queue: AckQueue, ids: list[int], limit: int = ACK_QUEUE_SIZE) -> tuple[int, ...]:
    for packet_id in ids:
        queue.add(PacketID(packet_id), 0.0)
    return queue.take(limit)


# Known answers of the reference's unit tests (openvpn, tests/unit_tests/openvpn/test_packet_id.c,
# test_copy_acks_to_lru): batches of ids acknowledged one after another, and what is remembered
# then, newest first. 42 is the third id of a batch of which only two are sent.
MRU_TABLE = [
    ([[2, 1, 3, 2]], [2, 1, 3]),
    ([[2, 1, 3, 2], [2, 1, 3, 2]], [2, 1, 3]),
    ([[2, 1, 3, 2], [2, 1]], [2, 1, 3]),
    ([[2, 1, 3, 2], [2, 1], [3, 2]], [3, 2, 1]),
    ([[2, 1, 3, 2], []], [2, 1, 3]),
    ([[2, 1, 3, 2], [5, 6, 7, 8, 9, 10, 11]], [5, 6, 7, 8, 9, 10, 11, 2]),
]


@pytest.mark.parametrize(("batches", "recent"), MRU_TABLE)
def test_recent_ones_are_those_of_the_reference(batches: list[list[int]], recent: list[int]) -> None:
    queue = AckQueue()
    for batch in batches:
        acknowledge(queue, batch)
    assert queue.recent == tuple(recent)


def test_only_what_was_sent_is_remembered() -> None:
    queue = AckQueue()
    acknowledge(queue, [2, 1, 3])
    assert acknowledge(queue, [3, 2, 42], limit=2) == (3, 2)
    assert queue.recent == (3, 2, 1)
    assert queue.pending == (42,)


@pytest.mark.parametrize(
    ("recent", "pending", "limit", "sent", "left"),
    [
        ([], [], 4, (), ()),
        ([], [0], 4, (0,), ()),
        # room that is left repeats the recent ones
        ([0], [1], 4, (1, 0), ()),
        ([0, 1, 2], [3], 2, (3, 0), ()),
        ([0, 1, 2], [], 4, (0, 1, 2), ()),
        # new ones first, in order of arrival
        ([0], [3, 1, 2, 4, 5], 4, (3, 1, 2, 4), (5,)),
        ([0], [1, 2, 3, 4, 5, 6, 7, 8], 8, (1, 2, 3, 4, 5, 6, 7, 8), ()),
    ],
)
def test_what_goes_into_a_packet(
    recent: list[int], pending: list[int], limit: int, sent: tuple[int, ...], left: tuple[int, ...]
) -> None:
    queue = AckQueue()
    acknowledge(queue, recent)
    assert acknowledge(queue, pending, limit) == sent
    assert queue.pending == left


def test_the_ninth_finds_no_room() -> None:
    queue = AckQueue()
    assert all(queue.add(PacketID(packet_id), 0.0) for packet_id in range(8))
    assert queue.add(PacketID(3), 0.0), "one that is pending needs no room"
    assert not queue.add(PacketID(8), 0.0)
    assert queue.take(8) == tuple(range(8))


def test_the_earliest_due_time_counts_and_a_repetition_does_not_hurry() -> None:
    queue = AckQueue()
    assert queue.due is None
    queue.add(PacketID(0), 10.1)
    queue.add(PacketID(0), 10.0)
    assert queue.due == 10.1
    queue.add(PacketID(1), 10.05)
    assert queue.due == 10.05
    queue.take(1)
    assert queue.due == 10.05
    queue.take(1)
    assert queue.due is None


@given(st.lists(st.one_of(st.integers(0, 15).map(PacketID), st.sampled_from(["take4", "take8"]))))
def test_bounds_and_order_hold_whatever_happens(actions: list[object]) -> None:
    queue = AckQueue()
    owed: list[object] = []
    for action in actions:
        if isinstance(action, int):
            if queue.add(PacketID(action), 0.0) and action not in owed:
                owed.append(action)
        else:
            limit = 4 if action == "take4" else 8
            sent = queue.take(limit)
            assert len(sent) <= limit
            assert len(set(sent)) == len(sent)
            fresh = owed[:limit]
            assert list(sent[: len(fresh)]) == fresh
            del owed[:limit]
        assert list(queue.pending) == owed
        assert len(queue) <= ACK_QUEUE_SIZE
        assert len(queue.recent) <= ACK_QUEUE_SIZE
        assert (queue.due is None) == (not owed)
