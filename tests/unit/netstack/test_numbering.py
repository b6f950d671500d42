"""Numbers that are not to be guessed, and not to repeat."""

from __future__ import annotations

import errno
import random
from itertools import pairwise

import pytest

from minivpn_trio.netstack.numbering import EPHEMERAL_PORTS, Numbering
from minivpn_trio.netstack.packets import Address
from minivpn_trio.netstack.sequence import MASK
from minivpn_trio.netstack.stack import Stack

A4, B4, C4 = bytes((10, 8, 0, 2)), bytes((10, 8, 0, 1)), bytes((192, 0, 2, 1))


def test_ports_of_datagram_sockets_do_not_follow_each_other() -> None:
    stack = Stack(addresses=[A4], mtu=1400, rng=random.Random(1).randbytes, now=0.0)
    ports = []
    for _ in range(200):
        endpoint = stack.open_udp(None, (B4, 53))
        ports.append(endpoint.local[1])
        endpoint.close()
    assert all(port in EPHEMERAL_PORTS for port in ports)
    assert len(set(ports)) > 190
    assert not any(abs(second - first) < 3 for first, second in pairwise(ports))
    halves = sum(port >= EPHEMERAL_PORTS[len(EPHEMERAL_PORTS) // 2] for port in ports)
    assert 60 < halves < 140


def test_the_last_free_port_is_found() -> None:
    numbering = Numbering(random.Random(1).randbytes)
    assert numbering.random_port(lambda port: port == 60_000) == 60_000
    assert numbering.random_port(lambda port: False) is None


def idents(numbering: Numbering, remote: Address, count: int) -> list[int]:
    return [numbering.identification(remote) for _ in range(count)]


def test_identifications_tell_one_destination_nothing_about_another() -> None:
    numbering, other = Numbering(random.Random(1).randbytes), Numbering(random.Random(2).randbytes)
    ours = idents(numbering, B4, 70_000)
    # IPv4 has 16 bits: none comes again before all others have.
    assert all(len({ident & 0xFFFF for ident in ours[at : at + 65536]}) == 65536 for at in (0, 4000))
    assert all(0 <= ident < 1 << 32 for ident in ours)
    assert abs(idents(numbering, C4, 1)[0] - ours[0]) > 70_000
    assert idents(other, B4, 1)[0] != ours[0]


def test_nobody_connects_from_a_port_that_is_kept() -> None:
    stack = Stack(addresses=[A4], mtu=1400, rng=random.Random(1).randbytes, now=0.0)
    kept = stack.reserve_tcp((bytes(4), 0))
    with pytest.raises(OSError) as caught:
        stack.connect_tcp((B4, 80), 0.0, (A4, kept[1]))
    assert caught.value.errno == errno.EADDRINUSE
    stack.release_tcp(kept)
    assert stack.connect_tcp((B4, 80), 0.0, (A4, kept[1])).local == (A4, kept[1])


# --- initial sequence numbers (RFC 6528) ---


KEYS = [B4 + A4 + bytes((0, 80)) + port.to_bytes(2, "big") for port in range(50_000, 50_200)]


def behind(later: int, earlier: int) -> int:
    return (later - earlier) & MASK


def test_initial_sequence_numbers_of_one_four_tuple_follow_the_clock() -> None:
    numbering = Numbering(random.Random(1).randbytes)
    for key in KEYS[:20]:
        start = numbering.initial_sequence(key, 1000.0)
        assert start == numbering.initial_sequence(key, 1000.0)
        # One every 4 us: a connection that follows is never behind the last one.
        for seconds in (0.000_008, 0.001, 1.0, 3600.0):
            assert abs(behind(numbering.initial_sequence(key, 1000.0 + seconds), start) - seconds * 250_000) <= 1
        # Round in 4.77 hours.
        assert behind(numbering.initial_sequence(key, 1000.0 + 2**32 / 250_000), start) in (0, 1, MASK)


def test_initial_sequence_numbers_tell_nothing_about_other_four_tuples_nor_other_stacks() -> None:
    one, other = Numbering(random.Random(1).randbytes), Numbering(random.Random(2).randbytes)
    now = 1000.0
    numbers = [one.initial_sequence(key, now) for key in KEYS]
    spread(numbers)
    differences = [(second - first) & MASK for first, second in pairwise(numbers)]
    assert len(set(differences)) == len(differences)
    spread([behind(one.initial_sequence(key, now), other.initial_sequence(key, now)) for key in KEYS])
    # Each part of the four-tuple counts.
    remote, local = bytearray(KEYS[0]), bytearray(KEYS[0])
    remote[3] ^= 1
    local[7] ^= 1
    assert len({one.initial_sequence(bytes(key), now) for key in (KEYS[0], remote, local, KEYS[1])}) == 4


def spread(numbers: list[int]) -> None:
    """All over 32 bits: in each of eight parts some, none near another but by chance."""
    assert len(set(numbers)) == len(numbers)
    parts = [sum(number >> 29 == part for number in numbers) for part in range(8)]
    assert min(parts) > len(numbers) / 8 / 3
    assert sum(abs(second - first) < 1 << 20 for first, second in pairwise(numbers)) < 4


def test_connections_have_such_numbers() -> None:
    """On the wire: SYNs to one port from one, an hour apart."""
    rng = random.Random(1)
    stack = Stack(addresses=[A4], mtu=1400, rng=rng.randbytes, now=0.0)
    numbers, stamps = [], []
    for now in (0.0, 0.5, 3600.0):
        connection = stack.connect_tcp((B4, 80), now, (A4, 50_000))
        numbers.append(connection.iss)
        stamps.append(connection.timestamp_offset)
        (syn,) = stack.take_output(now=now)
        assert int.from_bytes(syn[24:28], "big") == connection.iss
        connection.abort(now)
    assert [behind(number, numbers[0]) for number in numbers] == [0, 125_000, 900_000_000]
    # The clock goes on where it was for this four-tuple (RFC 7323, 5.4), elsewhere for others.
    assert len(set(stamps)) == 1
    offsets = []
    for port in range(50_001, 50_101):
        connection = stack.connect_tcp((B4, 80), 3600.0, (A4, port))
        offsets.append(connection.timestamp_offset)
    spread([*offsets, stamps[0]])


def test_timestamp_offsets_are_each_stack_s_own() -> None:
    one, other = Numbering(random.Random(1).randbytes), Numbering(random.Random(2).randbytes)
    spread([one.timestamp_offset(key) for key in KEYS])
    spread([behind(one.timestamp_offset(key), other.timestamp_offset(key)) for key in KEYS])
    # Not the same secret as for sequence numbers, which everybody sees beside it.
    spread([behind(one.timestamp_offset(key), one.initial_sequence(key, 0.0)) for key in KEYS])


# --- ephemeral ports (RFC 6056) ---


def anything(port: int) -> bool:
    return True


def ports(numbering: Numbering, remote: Address, count: int) -> list[int]:
    found = [numbering.port(A4, remote, 80, anything) for _ in range(count)]
    return [port for port in found if port is not None]


def test_ports_to_one_destination_do_not_repeat_soon() -> None:
    numbering = Numbering(random.Random(1).randbytes)
    count = len(EPHEMERAL_PORTS)
    found = ports(numbering, B4, 2 * count)
    assert all(len(set(found[at : at + count])) == count for at in (0, 5000, count))
    assert set(found) == set(EPHEMERAL_PORTS)


def test_ports_to_one_destination_tell_nothing_about_another() -> None:
    """Whoever sees ours to himself: with one counter for all he would know those to others."""
    numbering = Numbering(random.Random(1).randbytes)
    others = [bytes((203, 0, 113, host)) for host in range(200)]
    watched, distances = ports(numbering, B4, 1)[0], []
    for other in others:
        (port,) = ports(numbering, other, 1)
        distances.append((port - watched) % len(EPHEMERAL_PORTS))
        (watched,) = ports(numbering, B4, 1)
    # All over the range, and hardly ever where one counter would have it.
    parts = [sum(distance * 4 // len(EPHEMERAL_PORTS) == part for distance in distances) for part in range(4)]
    assert min(parts) > 25
    assert sum(distance <= 2 for distance in distances) < 4
    # Another stack's are elsewhere.
    rival = Numbering(random.Random(2).randbytes)
    assert sum(ports(numbering, each, 1) == ports(rival, each, 1) for each in others) < 3


def test_connections_to_others_move_ports_of_few() -> None:
    """How many of ours went elsewhere meanwhile is not to be counted from a port either: a counter is one of many."""
    numbering = Numbering(random.Random(1).randbytes)
    before = {host: ports(numbering, bytes((203, 0, 113, host)), 1)[0] for host in range(200)}
    ports(numbering, B4, 1000)
    moved = 0
    for host, port in before.items():
        (after,) = ports(numbering, bytes((203, 0, 113, host)), 1)
        # Besides the hosts that share its counter.
        moved += (after - port) % len(EPHEMERAL_PORTS) > 20
    assert moved < 20
