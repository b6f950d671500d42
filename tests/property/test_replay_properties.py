"""The replay window against the plain definition of one."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from minivpn_trio.packet.replay import MARKS, ReplayWindow

IDS = st.lists(st.integers(min_value=-1, max_value=150), max_size=80)


@given(sizes=st.integers(min_value=1, max_value=80), ids=IDS)
def test_the_window_accepts_what_a_set_would(sizes: int, ids: list[int]) -> None:
    window = ReplayWindow(size=sizes, time=0.0)
    seen: set[int] = set()
    for packet_id in ids:
        fresh = packet_id > 0 and packet_id not in seen and packet_id > max(seen, default=0) - sizes
        assert window.check_and_update(packet_id, 0.0) == fresh
        if fresh:
            seen.add(packet_id)


@given(
    steps=st.lists(
        st.tuples(st.integers(min_value=0, max_value=100), st.floats(min_value=0.0, max_value=3.0)), max_size=60
    )
)
@example(steps=[(1, 0.0), (3, 0.0), (0, 3.0), (4, 3.0), (2, 3.0)])  # a pause right after the highest id
def test_the_window_closes_by_time(steps: list[tuple[int, float]]) -> None:
    """Never earlier than ``time``, and at most one part of it later; nothing twice."""
    time = 8.0
    window = ReplayWindow(size=64, time=time)
    arrivals: dict[int, float] = {}
    now = 0.0
    for packet_id, pause in steps:
        now += pause
        highest = max(arrivals, default=0)
        accepted = window.check_and_update(packet_id, now)
        if packet_id == 0 or packet_id in arrivals or packet_id <= highest - 64:
            assert not accepted
        else:
            # When the window came to know an id above this one.
            known = min((at for seen, at in arrivals.items() if seen > packet_id), default=now)
            if now - known <= time:
                assert accepted
            if now - known > time + time / MARKS:
                assert not accepted
        if accepted:
            arrivals[packet_id] = now


@given(
    steps=st.lists(
        st.one_of(
            st.integers(min_value=0, max_value=60),
            st.tuples(st.integers(min_value=-2, max_value=3), st.integers(min_value=1, max_value=40)),
        ),
        max_size=40,
    ),
    size=st.integers(min_value=0, max_value=70),
)
def test_a_run_is_its_ids_one_by_one(steps: list[int | tuple[int, int]], size: int) -> None:
    runs, singles = ReplayWindow(size=size), ReplayWindow(size=size)
    for step in steps:
        if isinstance(step, int):
            assert runs.check_and_update(step, 0.0) == singles.check_and_update(step, 0.0)
            continue
        offset, count = step
        first = runs.highest + offset
        accepted = runs.accept_run(first, count, 0.0)
        assert accepted == (offset == 1)
        if accepted:
            assert all(singles.check_and_update(first + n, 0.0) for n in range(count))
    assert runs.highest == singles.highest
