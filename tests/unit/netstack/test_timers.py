"""The heap of deadlines: nothing is late, nothing comes twice, and what counts for nothing does not pile up."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

from hypothesis import given
from hypothesis import strategies as st

from minivpn_trio.netstack.timers import TimerHeap


@dataclass(eq=False)
class Item:
    deadline: float = inf
    scheduled: float = inf


def test_a_deadline_that_comes_and_goes_before_a_far_one_leaves_nothing_behind() -> None:
    """What waits behind a hole is told after a millisecond, thousands of times, and a keepalive is due in two hours."""
    heap: TimerHeap[Item] = TimerHeap()
    items = [Item(7200.0 + number) for number in range(5)]
    for item in items:
        heap.arm(item)
    for step in range(10_000):
        now = step * 0.002
        for item in items:
            far = item.deadline
            item.deadline = now + 0.001
            assert heap.arm(item) or len(items) > 1
            (due,) = heap.take_due(now + 0.001)
            assert due is item
            item.deadline = far
            heap.arm(item)
        assert len(heap) <= 2 * len(items) + 1
    assert heap.take_due(8000.0) == items
    for item in items:
        item.deadline = inf
    assert heap.take_due(inf) == []
    assert len(heap) == 0


steps = st.lists(
    st.one_of(
        st.tuples(st.just("arm"), st.integers(0, 5), st.integers(0, 50)),
        st.tuples(st.just("pass"), st.integers(0, 20), st.just(0)),
        st.tuples(st.just("retire"), st.integers(0, 5), st.just(0)),
    ),
    max_size=80,
)


@given(steps)
def test_everything_is_due_once_and_in_time(steps: list[tuple[str, int, int]]) -> None:
    heap: TimerHeap[Item] = TimerHeap()
    items = [Item() for _ in range(6)]
    now = 0.0
    for what, which, later in steps:
        if what == "arm":
            items[which].deadline = now + later
            before = heap.next_timeout()
            assert heap.arm(items[which]) == (heap.next_timeout() < before)
        elif what == "retire":
            heap.retire(items[which])
            items[which] = Item()
        else:
            now += which
            expected = [item for item in items if item.deadline <= now]
            due = heap.take_due(now)
            assert len(due) == len(expected)
            assert set(map(id, due)) == set(map(id, expected))
            for item in due:
                item.deadline = inf
        assert heap.next_timeout() <= min(item.deadline for item in items)
        assert len(heap) <= 2 * len(items) + 1
