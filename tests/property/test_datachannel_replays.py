"""Replays: the data channel against a set that forgets nothing."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from minivpn_trio.errors import DropReason
from minivpn_trio.packet.replay import ReplayWindow
from tests.unit.datachannel.data_keys import ipv4, make_channel, make_keys, make_pair

COUNT = 120
PACKETS = [ipv4(b"%d" % n) for n in range(COUNT)]


def deliver(cipher: str, bursts: list[list[int]], window: int) -> None:
    """Deliver datagrams by index, in ``bursts``; the model knows which are fresh."""
    client, _ = make_pair(cipher=cipher)
    server = make_channel(replay_window=window, replay_time=0.0)
    server.install_key(make_keys(cipher=cipher)[1], 0.0)
    datagrams = client.encrypt_burst(PACKETS, 0.0)
    seen: set[int] = set()
    replayed = 0
    for burst in bursts:
        expected = []
        for index in burst:
            if index in seen or index <= max(seen, default=-1) - window:
                replayed += 1
            else:
                seen.add(index)
                expected.append(PACKETS[index])
        assert server.decrypt_burst([datagrams[index] for index in burst], 0.0) == expected
    assert server.drops.total() == server.drops[DropReason.REPLAY] == replayed


CIPHERS = st.sampled_from(["AES-256-GCM", "CHACHA20-POLY1305", "AES-128-CBC"])


@given(
    cipher=CIPHERS,
    bursts=st.lists(st.lists(st.integers(0, COUNT - 1), min_size=1, max_size=64), max_size=8),
    window=st.integers(1, 100),
)
def test_any_order_with_any_repetition(cipher: str, bursts: list[list[int]], window: int) -> None:
    deliver(cipher, bursts, window)


@given(
    cipher=CIPHERS,
    runs=st.lists(st.tuples(st.integers(0, COUNT - 1), st.integers(1, 30)), max_size=12),
    window=st.integers(1, 100),
)
def test_runs_that_overlap(cipher: str, runs: list[tuple[int, int]], window: int) -> None:
    """Runs in order take the short way; starting anywhere, they must not take it wrongly."""
    deliver(cipher, [list(range(start, min(start + length, COUNT))) for start, length in runs], window)


@given(
    steps=st.lists(st.tuples(st.booleans(), st.integers(1, 150), st.integers(1, 70), st.floats(0.0, 3.0)), max_size=40),
    size=st.integers(0, 80),
)
def test_a_run_is_the_same_as_its_ids_one_by_one(steps: list[tuple[bool, int, int, float]], size: int) -> None:
    """ReplayWindow.accept_run, if it accepts, leaves the window as check_and_update would."""
    windows = ReplayWindow(size, time=8.0), ReplayWindow(size, time=8.0)
    now = 0.0
    for next_in_order, start, count, pause in steps:
        now += pause
        first = windows[0].highest + 1 if next_in_order else start
        one_by_one = [windows[0].check_and_update(packet_id, now) for packet_id in range(first, first + count)]
        if windows[1].accept_run(first, count, now):
            assert all(one_by_one)
        else:
            assert not next_in_order
            assert one_by_one == [windows[1].check_and_update(number, now) for number in range(first, first + count)]
        assert windows[0].highest == windows[1].highest
