"""The replay window: what it accepts once, refuses, and forgets."""

from __future__ import annotations

import pytest

from minivpn_trio.packet.replay import ReplayWindow


def accepts(window: ReplayWindow, ids: list[int], now: float = 0.0) -> list[bool]:
    return [window.check_and_update(packet_id, now) for packet_id in ids]


def test_ids_in_order_are_accepted_once() -> None:
    window = ReplayWindow()
    assert accepts(window, list(range(1, 200))) == [True] * 199
    assert accepts(window, list(range(1, 200))) == [False] * 199
    assert window.highest == 199


def test_id_zero_is_invalid() -> None:
    window = ReplayWindow()
    assert accepts(window, [0, 1, 0, -1]) == [False, True, False, False]


def test_reordered_ids_are_accepted_once() -> None:
    window = ReplayWindow()
    assert accepts(window, [2, 1, 5, 3, 4]) == [True] * 5
    assert accepts(window, [1, 2, 3, 4, 5]) == [False] * 5


def test_the_first_id_need_not_be_one() -> None:
    window = ReplayWindow()
    assert accepts(window, [0x0F000001, 0x0F000000, 0x0F000001]) == [True, True, False]


@pytest.mark.parametrize("size", [1, 2, 64, 1000])
def test_the_window_is_size_ids_wide(size: int) -> None:
    window = ReplayWindow(size=size)
    assert window.check_and_update(5000, 0.0)
    assert not window.check_and_update(5000 - size, 0.0)
    assert window.check_and_update(5000 - size + 1, 0.0) == (size > 1)


def test_size_zero_wants_rising_ids() -> None:
    window = ReplayWindow(size=0)
    assert accepts(window, [1, 2, 5, 4, 5, 6]) == [True, True, True, False, False, True]


def test_a_jump_over_the_whole_window_forgets_nothing_that_matters() -> None:
    window = ReplayWindow()
    assert accepts(window, [1, 2, 3, 100_000, 99_999, 3, 100_000]) == [True, True, True, True, True, False, False]


def test_a_run_after_a_jump_keeps_the_bits_in_place() -> None:
    window = ReplayWindow()
    accepts(window, [1, 2, 5, 6, 7])
    assert accepts(window, [2, 3, 4, 5, 6, 7, 8]) == [False, True, True, False, False, False, True]


def test_late_packets_have_only_so_much_time() -> None:
    window = ReplayWindow(time=15.0)
    assert accepts(window, [1, 2, 4, 6], now=100.0) == [True] * 4
    assert window.check_and_update(3, 115.0)
    assert not window.check_and_update(5, 115.1)
    assert window.check_and_update(7, 115.2)


def test_a_busy_window_closes_by_time_too() -> None:
    window = ReplayWindow(size=10_000, time=15.0)
    assert window.check_and_update(2, 0.0)
    for second in range(1, 31):
        assert window.check_and_update(2 + 2 * second, float(second))
    # 9 came between 3 and 4 seconds of a clock that stands at 30: too late. 61 would be fresh.
    assert not window.check_and_update(9, 30.0)
    assert window.check_and_update(61, 30.0)
    # Within one part of the window's time the limit may be lenient, never more.
    assert not window.check_and_update(2 * 13 + 1, 30.0)
    assert window.check_and_update(2 * 16 + 1, 30.0)


def test_time_zero_sets_no_limit() -> None:
    window = ReplayWindow(time=0.0)
    assert accepts(window, [1, 3], now=0.0) == [True, True]
    assert window.check_and_update(2, 1e9)


def test_a_later_timestamp_starts_again_and_an_earlier_one_is_refused() -> None:
    window = ReplayWindow()
    assert window.check_and_update(1, 0.0, timestamp=1_640_218_476)
    assert window.check_and_update(2, 0.0, timestamp=1_640_218_476)
    assert not window.check_and_update(3, 0.0, timestamp=1_640_218_475)
    assert window.check_and_update(1, 0.0, timestamp=1_640_218_477)
    assert not window.check_and_update(1, 0.0, timestamp=1_640_218_477)
    assert not window.check_and_update(3, 0.0, timestamp=1_640_218_476)


def test_gaps_repeats_and_the_edge_of_the_window() -> None:
    window = ReplayWindow(size=64, time=5.0)
    steps = [
        (True, 1), (True, 2), (False, 2), (False, 1), (True, 5), (True, 4), (True, 3), (False, 3),
        (True, 65), (False, 1), (True, 64), (True, 20), (False, 20), (True, 200), (False, 136), (True, 137),
    ]  # fmt: skip
    assert [window.check_and_update(packet_id, 0.0) for _, packet_id in steps] == [ok for ok, _ in steps]


def test_memory_is_bounded() -> None:
    window = ReplayWindow(size=64)
    for packet_id in range(1, 20_000):
        window.check_and_update(packet_id * 3, packet_id * 0.1)
    assert len(window._marks) <= 20
    assert window._bits.bit_length() <= 64


def test_a_negative_window_is_refused() -> None:
    with pytest.raises(ValueError, match="negative"):
        ReplayWindow(size=-1)
