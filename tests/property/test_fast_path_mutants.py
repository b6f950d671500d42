"""The comparison of TCP's fast path with the slow one can fail: each of these defects of the fast path, planted one at
a time, is found by test_fast_path_oracle.py."""

from __future__ import annotations

import inspect

import pytest
from hypothesis import settings
from test_fast_path_oracle import AFTER_A_BURST, ONE_BY_ONE, compare_after_a_burst, compare_one_by_one
from test_tcp_mutants import SEARCH, Defect, plant, plant_nothing

from minivpn_trio.netstack.tcp.connection import TcpConnection

FAST_PATH: dict[str, Defect] = {
    "old timestamps are plain": (
        TcpConnection.handle_packets,
        "and (tsval == recent or (tsval - recent) & MASK < 0x80000000)",
        "",
    ),
    "the end is plain": (TcpConnection.handle_packets, "bits & _PLAIN_MASK == plain", "bits & 0xFE36 == plain"),
    "the clock of any segment is noted": (
        TcpConnection.handle_packets,
        "                            if seq == last_ack:\n",
        "                            if True:\n",
    ),
    "old segments tell of the window": (TcpConnection._note_window, "if sender.wl1 <= seq:", "if False:"),
    "a repeated window is never news": (
        TcpConnection.handle_packets,
        "elif sender.board.sacked or not window_field or window_field << scale != sender.window:",
        "elif False:",
    ),
    "what comes early acknowledges nothing": (
        TcpConnection.handle_packets,
        "elif size and not advance and window == window_field and",
        "elif size and window == window_field and",
    ),
    "what comes early has the window that was known": (
        TcpConnection.handle_packets,
        "elif size and not advance and window == window_field and",
        "elif size and not advance and",
    ),
    "early is what lies anywhere": (
        TcpConnection.handle_packets,
        "(seq - wire_nxt) & MASK < limit - nxt:",
        "(seq - wire_nxt) & MASK < 0x80000000:",
    ),
    "nothing is verified": (TcpConnection._verified, "good = intact(packets)", "good = packets"),
    "plain behind the end": (TcpConnection.handle_packets, "regular = receiver.fin is None and ", "regular = "),
    "plain where nobody reads": (TcpConnection.handle_packets, "not self._closed_by_owner and ", ""),
    "options are data": (
        TcpConnection._handle_irregular,
        "payload_at = header + (bits >> 12) * 4",
        "payload_at = header + 20",
    ),
}


def compare() -> None:
    search = settings(SEARCH, max_examples=1000)
    # Made anew each time: hypothesis refuses settings for what has some, and that would pass for a find.
    for test in (ONE_BY_ONE(compare_one_by_one), AFTER_A_BURST(compare_after_a_burst)):
        search(test)()


def test_every_defect_fits_the_code() -> None:
    """In the ordinary run, so that whoever changes the code hears of it."""
    for name, (method, old, _) in FAST_PATH.items():
        assert inspect.getsource(method).count(old) == 1, name


@pytest.mark.mutants
def test_without_a_defect_the_paths_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: with nothing but the planting, all examples pass."""
    plant_nothing(FAST_PATH, monkeypatch)
    compare()


@pytest.mark.mutants
@pytest.mark.parametrize("name", FAST_PATH)
def test_the_slow_path_finds(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(FAST_PATH[name], monkeypatch)
    with pytest.raises((AssertionError, LookupError, TypeError, ValueError, OSError, ExceptionGroup)):
        compare()
