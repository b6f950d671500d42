"""Packets that come before their key."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minivpn_trio.datachannel.channel import DataChannel
from minivpn_trio.datachannel.early import MAX_EARLY_PACKETS, MAX_EARLY_SIZE, MAX_EARLY_TIME, EarlyPackets
from minivpn_trio.errors import DropReason, TunnelClosed
from minivpn_trio.items import DataChannelKey
from tests.unit.datachannel.data_keys import ipv4, make_keys, make_pair

PACKETS = [ipv4(bytes([n])) for n in range(10)]


def ahead(key_id: int = 1) -> tuple[DataChannel, DataChannel, DataChannelKey]:
    """A client that lacks the key which the server sends with already."""
    client, server = make_pair()
    ours, theirs = make_keys(key_id=key_id, seed=9)
    server.install_key(theirs, 0.0)
    return client, server, ours


def test_they_wait_for_it() -> None:
    client, server, key = ahead()
    early = server.encrypt_burst(PACKETS, 1.0)
    assert client.decrypt_burst(early[:3], 1.0) == []
    assert client.decrypt_burst(early[3:6], 1.1) == []
    assert not client.drops
    client.install_key(key, 1.2)
    assert client.decrypt_burst(early[6:], 1.2) == PACKETS
    assert not client.drops


def test_or_need_no_others() -> None:
    client, server, key = ahead()
    client.decrypt_burst(server.encrypt_burst(PACKETS, 1.0), 1.0)
    opened: list[bytes] = []
    client.on_early = lambda: opened.extend(client.decrypt_burst([], 1.2))
    client.install_key(key, 1.2)
    assert opened == PACKETS
    assert client.stats().packets_in == len(PACKETS)


def test_nobody_is_called_without_them() -> None:
    client, _, key = ahead()
    called: list[bool] = []
    client.on_early = lambda: called.append(True)
    client.install_key(key, 1.2)
    assert not called


def test_not_for_ever() -> None:
    client, server, key = ahead()
    client.decrypt_burst(server.encrypt_burst(PACKETS, 1.0), 1.0)
    late = 1.0 + MAX_EARLY_TIME + 0.1
    client.install_key(key, late)
    assert client.decrypt_burst([], late) == []
    assert client.drops == {DropReason.UNKNOWN_KEY: len(PACKETS)}


@pytest.mark.parametrize("key_id", [0, 2, 7])
def test_only_for_the_next_key(key_id: int) -> None:
    client, server = make_pair(key_id=0)
    other = make_keys(key_id=key_id, seed=9)[1]
    wires = [bytes([wire[0] & ~7 | 3]) + wire[1:] for wire in server.encrypt_burst(PACKETS, 1.0)]
    assert client.decrypt_burst(wires, 1.0) == []
    assert client.drops == {DropReason.UNKNOWN_KEY: len(PACKETS)}
    assert other.key_id == key_id


def test_not_before_the_first_key() -> None:
    client, server = DataChannel(role=make_pair()[0]._role, rng=bytes), make_pair()[1]
    assert client.decrypt_burst(server.encrypt_burst(PACKETS, 1.0), 1.0) == []
    assert client.drops == {DropReason.UNKNOWN_KEY: len(PACKETS)}


def test_a_flood_is_bounded_and_counted() -> None:
    client, _, key = ahead()
    junk = [bytes([9 << 3 | 1]) + bytes(99)] * 1000
    for _ in range(3):
        assert client.decrypt_burst(junk, 1.0) == []
    assert len(client._early) == MAX_EARLY_PACKETS
    assert client.drops == {DropReason.UNKNOWN_KEY: 3000 - MAX_EARLY_PACKETS}
    client.install_key(key, 1.0)
    assert client.decrypt_burst([], 1.0) == []
    assert client.drops.total() == 3000
    assert len(client._early) == 0


def test_forgeries_among_them_are_told_apart() -> None:
    client, server, key = ahead()
    good = server.encrypt_burst(PACKETS, 1.0)
    forged = good[4][:-1] + bytes([good[4][-1] ^ 1])
    client.decrypt_burst([*good[:4], forged, *good[4:], good[0]], 1.0)
    client.install_key(key, 1.0)
    assert client.decrypt_burst([], 1.0) == PACKETS
    assert client.drops == {DropReason.BAD_AUTHENTICATION: 1, DropReason.REPLAY: 1}


def test_a_goodbye_among_them_counts() -> None:
    client, server, key = ahead()
    client.decrypt_burst(server.goodbye(1.0), 1.0)
    client.install_key(key, 1.0)
    assert client.decrypt_burst([], 1.0) == []
    assert isinstance(client.poll_closed(), TunnelClosed)


@given(
    st.lists(
        st.tuples(st.sampled_from([b"\x49", b"\x4a"]), st.lists(st.integers(0, 70_000), max_size=400), st.floats(0, 2)),
        max_size=8,
    )
)
def test_every_packet_is_held_taken_or_dropped(steps: list[tuple[bytes, list[int], float]]) -> None:
    early = EarlyPackets()
    now, came, dropped = 0.0, 0, 0
    for first, sizes, pause in steps:
        now += pause
        came += len(sizes)
        dropped += early.hold(first, [first + bytes(size) for size in sizes], now)
        assert len(early) <= MAX_EARLY_PACKETS
        assert sum(map(len, early._packets)) <= MAX_EARLY_SIZE
        assert all(packet[:1] == first for packet in early._packets)
    assert dropped + len(early.take()) == came
    assert len(early) == 0
