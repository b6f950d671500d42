"""Numbers that are not to be guessed, and not to repeat."""

from __future__ import annotations

import errno
import random
from itertools import pairwise

import pytest

from minivpn_trio.netstack.numbering import EPHEMERAL_PORTS, Numbering
from minivpn_trio.netstack.packets import Address
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
