"""Keys that change in flight, on virtual time."""

from __future__ import annotations

import dataclasses
import gc

import pytest

from minivpn_trio.datachannel.channel import DataChannel
from minivpn_trio.datachannel.keyslots import KeySlot
from minivpn_trio.errors import DropReason
from minivpn_trio.packet.ids import KeyID, next_key_id
from tests.unit.datachannel.data_keys import ipv4, make_keys, make_pair

PACKET = ipv4(b"payload")


def key_used(channel: DataChannel, now: float) -> int:
    """The id of the key that ``channel`` sends with."""
    return channel.encrypt_burst([PACKET], now)[0][0] & 7


def rekey(pair: tuple[DataChannel, DataChannel], key_id: int, now: float, **options: float) -> None:
    for channel, key in zip(pair, make_keys(**{"key_id": key_id, "seed": key_id + 1, **options}), strict=True):
        channel.install_key(key, now)


def test_the_first_key_sends_at_once() -> None:
    """There is nothing to send with meanwhile."""
    client, _ = make_pair(now=5.0, send_after=30.0)
    assert key_used(client, 5.0) == 0


def test_a_new_key_sends_when_its_time_has_come() -> None:
    pair = make_pair(now=0.0)
    rekey(pair, 1, now=100.0, send_after=30.0)
    client = pair[0]
    assert [key_used(client, now) for now in (100.0, 129.9, 130.0, 500.0)] == [0, 0, 1, 1]


def test_a_new_key_sends_as_soon_as_the_peer_used_it() -> None:
    """Not before: a forged packet with its id proves nothing. And not later: a peer that renegotiates
    sooner than our wait ends forgets the older key, and what is sealed with it is lost."""
    client, server = make_pair(now=0.0)
    first, second = make_keys(key_id=1, seed=2, send_after=60.0)
    client.install_key(first, 10.0)
    server.install_key(dataclasses.replace(second, send_after=5.0), 10.0)
    proof = server.encrypt_burst([PACKET], 15.0)
    assert [datagram[0] & 7 for datagram in proof] == [1]
    forged = [proof[0][:-1] + bytes([proof[0][-1] ^ 1])]
    assert client.decrypt_burst(forged, 15.0) == []
    assert key_used(client, 15.0) == 0
    assert client.decrypt_burst(proof, 15.0) == [PACKET]
    assert key_used(client, 15.0) == 1


@pytest.mark.parametrize(
    ("limit", "before"), [({"reneg_packets": 80}, 90), ({"reneg_bytes": 8 * 80}, 90), ({}, 1000)], ids=str
)
def test_a_key_that_carried_an_eighth_too_much_hands_over(limit: dict[str, int], before: int) -> None:
    """A new key is no use if the old one goes on and on."""
    pair = make_pair(now=0.0, **limit)
    client = pair[0]
    client.encrypt_burst([PACKET] * 80, 0.0)
    assert (client.poll_rekey() is not None) == bool(limit)
    rekey(pair, 1, now=1.0, send_after=60.0, **limit)
    assert client.poll_rekey() is None
    used = [key_used(client, 1.0) for _ in range(before - 80)]
    assert used == [0] * (before - 80)
    assert key_used(client, 1.0) == (1 if limit else 0)


def test_both_keys_receive_in_the_same_burst() -> None:
    client, server = make_pair(now=0.0)
    old = client.encrypt_burst([ipv4(b"old 1"), ipv4(b"old 2")], 0.0)
    rekey((client, server), 1, now=10.0)
    new = client.encrypt_burst([ipv4(b"new 1"), ipv4(b"new 2")], 10.0)
    assert {datagram[0] & 7 for datagram in new} == {1}
    mixed = [new[0], old[0], new[1], old[1]]
    assert server.decrypt_burst(mixed, 11.0) == [ipv4(b"new 1"), ipv4(b"old 1"), ipv4(b"new 2"), ipv4(b"old 2")]


def test_the_peer_may_switch_before_us() -> None:
    client, server = make_pair(now=0.0)
    first, second = make_keys(key_id=1, seed=2)
    client.install_key(first, 10.0)
    server.install_key(second, 12.0)
    assert server.decrypt_burst(client.encrypt_burst([PACKET], 13.0), 13.0) == [PACKET]
    assert client.decrypt_burst(server.encrypt_burst([PACKET], 13.0), 13.0) == [PACKET]


def test_an_old_key_is_forgotten_after_its_transition_window() -> None:
    client, server = make_pair(now=0.0)
    old = client.encrypt_burst([PACKET, PACKET, PACKET], 0.0)
    rekey((client, server), 1, now=100.0, transition_window=60.0)
    assert server.live_keys == 2
    assert server.next_timeout() == 160.0
    assert server.decrypt_burst(old[:1], 159.9) == [PACKET]
    assert server.decrypt_burst(old[1:2], 160.0) == []
    assert server.drops == {DropReason.UNKNOWN_KEY: 1}
    assert server.live_keys == 1
    assert server.next_timeout() is None


def test_handle_timeout_forgets_old_keys_without_traffic() -> None:
    client, server = make_pair(now=0.0)
    rekey((client, server), 1, now=100.0, transition_window=60.0)
    assert client.handle_timeout(160.0) == []
    assert client.live_keys == 1


def test_a_second_rekey_does_not_prolong_the_life_of_a_lame_duck() -> None:
    pair = make_pair(now=0.0)
    rekey(pair, 1, now=100.0, transition_window=60.0)
    rekey(pair, 2, now=130.0, transition_window=60.0)
    client = pair[0]
    client.handle_timeout(160.0)
    assert client.live_keys == 2
    client.handle_timeout(190.0)
    assert client.live_keys == 1


def test_the_only_key_does_not_expire() -> None:
    client, server = make_pair(now=0.0, transition_window=60.0)
    assert server.decrypt_burst(client.encrypt_burst([PACKET], 1e6), 1e6) == [PACKET]


def test_an_old_key_that_expires_before_the_switch_hands_over() -> None:
    pair = make_pair(now=0.0)
    rekey(pair, 1, now=10.0, send_after=100.0, transition_window=20.0)
    assert [key_used(pair[0], now) for now in (10.0, 29.0, 30.0)] == [0, 0, 1]


def test_three_keys_live_at_most() -> None:
    pair = make_pair(now=0.0)
    for key_id in (1, 2, 3):
        rekey(pair, key_id, now=10.0 * key_id, send_after=5.0)
    client, server = pair
    assert client.live_keys == 3
    # Key 3 does not send yet, key 2 does since 25.0.
    assert [key_used(client, now) for now in (30.0, 34.9, 35.0)] == [2, 2, 3]
    assert server.live_keys == 3


def test_a_second_rekey_proves_that_the_peer_has_the_key_between() -> None:
    """openvpn keeps two keys: with the third, it has forgotten the first."""
    pair = make_pair(now=0.0)
    rekey(pair, 1, now=10.0, send_after=100.0)
    assert key_used(pair[0], 19.9) == 0
    rekey(pair, 2, now=20.0, send_after=100.0)
    assert [key_used(pair[0], now) for now in (20.0, 109.0, 119.9, 120.0)] == [1, 1, 1, 2]


def test_an_id_that_comes_round_again_replaces_the_key_of_old() -> None:
    client, server = make_pair(now=0.0)
    key_id = KeyID(0)
    for number in range(20):
        key_id = next_key_id(key_id)
        for channel, key in zip((client, server), make_keys(key_id=key_id, seed=number + 2), strict=True):
            channel.install_key(key, 10.0 * number)
        burst = client.encrypt_burst([PACKET], 10.0 * number)
        assert burst[0][0] & 7 == key_id
        assert server.decrypt_burst(burst, 10.0 * number) == [PACKET]
    assert server.live_keys == 3


def test_the_same_id_again_starts_afresh() -> None:
    """As after a lost rekey: another key under the same id, with ids and window of its own."""
    client, server = make_pair(now=0.0)
    old = client.encrypt_burst([PACKET] * 3, 0.0)
    rekey((client, server), 0, now=1.0, seed=9)
    assert client.live_keys == 1
    again = client.encrypt_burst([PACKET], 1.0)
    assert again[0][4:8] == old[0][4:8] == b"\0\0\0\1"
    assert server.decrypt_burst(again, 1.0) == [PACKET]


def test_each_key_has_a_replay_window_of_its_own() -> None:
    client, server = make_pair(now=0.0)
    old = client.encrypt_burst([PACKET] * 50, 0.0)
    server.decrypt_burst(old, 0.0)
    rekey((client, server), 1, now=1.0)
    new = client.encrypt_burst([PACKET], 1.0)
    assert server.decrypt_burst(new, 1.0) == [PACKET]
    assert server.decrypt_burst([*old[-1:], *new], 1.0) == []
    assert server.drops == {DropReason.REPLAY: 2}


def test_what_a_fast_path_reorders_is_no_replay() -> None:
    """5 ms at a gigabit are some 450 packets; the reference's window of 64 would refuse the late ones of them."""
    client, server = make_pair(now=0.0)
    late, *others = client.encrypt_burst([PACKET] * 2000, 0.0)
    assert len(server.decrypt_burst(others, 0.005)) == 1999
    assert server.decrypt_burst([late], 0.005) == [PACKET]
    assert server.decrypt_burst([late, others[0], others[-1]], 0.005) == []
    assert server.drops == {DropReason.REPLAY: 3}


def live_slots() -> int:
    gc.collect()
    return sum(isinstance(thing, KeySlot) for thing in gc.get_objects())


def test_nothing_refers_to_a_forgotten_key() -> None:
    """Its secrets are in its cipher objects and go with them."""
    before = live_slots()
    client, server = make_pair(now=0.0)
    server.decrypt_burst(client.encrypt_burst([PACKET], 0.0), 0.0)
    rekey((client, server), 1, now=1.0, transition_window=10.0, send_after=5.0)
    server.decrypt_burst(client.encrypt_burst([PACKET], 1.0), 1.0)
    assert live_slots() - before == 4
    for channel in (client, server):
        channel.handle_timeout(11.0)
    assert live_slots() - before == 2
