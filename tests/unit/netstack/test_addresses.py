"""A stack with several addresses of one family: which one speaks, that all are heard, and who listens where."""

from __future__ import annotations

import errno
import random

import pytest

from minivpn_trio.errors import DropReason
from minivpn_trio.netstack import scapy_wire
from minivpn_trio.netstack.packets import RST, IcmpMessage, TcpSegment, UdpDatagram
from minivpn_trio.netstack.stack import Stack
from minivpn_trio.netstack.tcp.connection import TcpConnection

FIRST4, SECOND4, FAR4 = bytes((10, 8, 0, 2)), bytes((10, 9, 0, 2)), bytes((10, 8, 0, 1))
PREFIX = bytes.fromhex("fd00" + "00" * 13)
FIRST6, SECOND6, FAR6 = PREFIX + b"\2", PREFIX + b"\3", PREFIX + b"\1"
FAMILIES = pytest.mark.parametrize(
    ("first", "second", "far"), [(FIRST4, SECOND4, FAR4), (FIRST6, SECOND6, FAR6)], ids=["v4", "v6"]
)
NOW = 1000.0


class Pair:
    """The stack with two addresses of each family, and one beyond, over a link that loses nothing and takes no time."""

    def __init__(self) -> None:
        addresses = [FIRST4, SECOND4, FIRST6, SECOND6]
        self.near, self.far = (
            Stack(addresses=own, mtu=1400, rng=random.Random(seed).randbytes, now=NOW)
            for seed, own in enumerate((addresses, [FAR4, FAR6]))
        )
        self.now = NOW
        #: From where to where, in both directions.
        self.seen: set[tuple[bytes, bytes]] = set()

    def settle(self) -> None:
        """Until nobody has anything to say at once."""
        for _ in range(50):
            moved = False
            for source, sink in ((self.near, self.far), (self.far, self.near)):
                due = source.next_timeout()
                if due is not None and due <= self.now:
                    # What a stack says to itself, too.
                    source.handle_timeout(self.now)
                    moved = True
                packets = source.take_output(1000, self.now)
                for packet in packets:
                    size, at = (4, 12) if packet[0] >> 4 == 4 else (16, 8)
                    self.seen.add((packet[at : at + size], packet[at + size : at + 2 * size]))
                sink.handle_packets(packets, self.now)
                moved = moved or bool(packets)
            self.now += 0.001
            if not moved:
                return

    def refused(self, connection: TcpConnection) -> bool:
        self.settle()
        return connection.error is not None and connection.error.errno == errno.ECONNREFUSED


def exchange(world: Pair, one: TcpConnection, other: TcpConnection) -> None:
    """Data both ways."""
    for source, sink in ((one, other), (other, one)):
        assert source.write(b"x" * 5000, world.now) == 5000
        received = b""
        for _ in range(20):
            world.settle()
            received += sink.read(1 << 20, world.now)
        assert received == b"x" * 5000


# --- who speaks ---


@FAMILIES
def test_the_first_address_speaks_where_nobody_says_which(first: bytes, second: bytes, far: bytes) -> None:
    world = Pair()
    world.far.listen_tcp((None, 80), NOW)
    assert world.near.source_for(far) == first
    connection = world.near.connect_tcp((far, 80), NOW)
    world.settle()
    assert connection.connected
    assert connection.local[0] == first
    world.near.open_udp().sendto(b"x", (far, 53))
    world.settle()
    assert world.seen == {(first, far), (far, first)}


@FAMILIES
def test_the_second_speaks_if_it_is_asked_to(first: bytes, second: bytes, far: bytes) -> None:
    world = Pair()
    listener = world.far.listen_tcp((None, 80), NOW)
    server = world.far.open_udp((None, 53))
    connection = world.near.connect_tcp((far, 80), NOW, (second, 0))
    client = world.near.open_udp((second, 0))
    client.sendto(b"question", (far, 53))
    world.settle()
    accepted = listener.accept()
    assert accepted is not None
    assert connection.local[0] == accepted.remote[0] == second
    exchange(world, connection, accepted)
    data, sender = server.recvfrom() or (b"", None)
    assert data == b"question"
    assert sender is not None and sender[0] == second
    server.sendto(b"answer", sender)
    world.settle()
    assert client.recvfrom() == (b"answer", (far, 53))
    assert {pair for pair in world.seen if first in pair} == set()


@FAMILIES
def test_the_same_ports_at_both_are_two_connections(first: bytes, second: bytes, far: bytes) -> None:
    world = Pair()
    listener = world.far.listen_tcp((None, 80), NOW)
    ours = [world.near.connect_tcp((far, 80), NOW, (own, 4000)) for own in (first, second)]
    world.settle()
    theirs = {each.remote: each for each in (listener.accept(), listener.accept()) if each is not None}
    assert set(theirs) == {(first, 4000), (second, 4000)}
    for connection in ours:
        exchange(world, connection, theirs[connection.local])
    ours[0].abort(world.now)
    world.settle()
    exchange(world, ours[1], theirs[ours[1].local])


def test_not_another_family_and_nobody_elses() -> None:
    world = Pair()
    for local, remote in ((SECOND4, FAR6), (SECOND6, FAR4), (FAR4, FAR4)):
        with pytest.raises(OSError, check=lambda exc: exc.errno == errno.EADDRNOTAVAIL):
            world.near.connect_tcp((remote, 80), NOW, (local, 0))


# --- who is heard ---


@FAMILIES
def test_both_can_be_reached_and_answer_as_themselves(first: bytes, second: bytes, far: bytes) -> None:
    world = Pair()
    listener = world.near.listen_tcp((None, 80), NOW)
    server = world.near.open_udp((bytes(len(first)), 53))
    for own in (first, second):
        connection = world.far.connect_tcp((own, 80), NOW)
        client = world.far.open_udp(remote=(own, 53))
        client.sendto(b"question")
        pinger = world.far.open_icmp()
        pinger.send_echo(own, 7, b"anybody?")
        world.settle()
        accepted = listener.accept()
        assert accepted is not None
        assert accepted.local == (own, 80)
        exchange(world, connection, accepted)
        assert (server.recvfrom() or [None])[0] == b"question"
        reply = pinger.take_reply()
        assert reply is not None and (reply.src, reply.payload) == (own, b"anybody?")


@FAMILIES
def test_what_only_the_other_one_has_is_closed(first: bytes, second: bytes, far: bytes) -> None:
    """A listener and a datagram socket at the second address: refused at the first one, by the first one."""
    world = Pair()
    listener = world.near.listen_tcp((second, 80), NOW)
    server = world.near.open_udp((second, 53))
    assert world.refused(world.far.connect_tcp((first, 80), NOW))
    client = world.far.open_udp(remote=(first, 53))
    client.sendto(b"question")
    world.settle()
    assert client.error is not None and client.error.errno == errno.ECONNREFUSED
    assert world.seen == {(far, first), (first, far)}
    connection = world.far.connect_tcp((second, 80), NOW)
    world.far.open_udp(remote=(second, 53)).sendto(b"question")
    world.settle()
    accepted = listener.accept()
    assert accepted is not None and listener.accept() is None
    exchange(world, connection, accepted)
    assert (server.recvfrom() or [None])[0] == b"question"


@FAMILIES
def test_each_address_has_ports_of_its_own(first: bytes, second: bytes, far: bytes) -> None:
    """Two listeners at one port, and the more special one of two goes first."""
    world = Pair()
    listeners = {own: world.near.listen_tcp((own, 80), NOW) for own in (first, second)}
    with pytest.raises(OSError, check=lambda exc: exc.errno == errno.EADDRINUSE):
        world.near.listen_tcp((bytes(len(first)), 80), NOW)
    for own, listener in listeners.items():
        world.far.connect_tcp((own, 80), NOW)
        world.settle()
        accepted = listener.accept()
        assert accepted is not None and accepted.local[0] == own
    assert not any(listener.acceptable for listener in listeners.values())
    listeners[first].close(world.now)
    assert world.refused(world.far.connect_tcp((first, 80), world.now))


@FAMILIES
def test_an_error_about_what_the_second_sent_reaches_it(first: bytes, second: bytes, far: bytes) -> None:
    world = Pair()
    clients = {own: world.near.open_udp((own, 4000), (far, 53)) for own in (first, second)}
    clients[second].sendto(b"question")
    world.settle()
    assert clients[first].error is None
    error = clients[second].error
    assert error is not None and error.errno == errno.ECONNREFUSED


# --- between the two ---


@FAMILIES
def test_one_talks_to_the_other_inside(first: bytes, second: bytes, far: bytes) -> None:
    world = Pair()
    listener = world.near.listen_tcp((second, 80), NOW)
    connection = world.near.connect_tcp((second, 80), NOW, (first, 0))
    plain = world.near.connect_tcp((second, 80), NOW)
    world.settle()
    accepted = {each.remote: each for each in (listener.accept(), listener.accept()) if each is not None}
    assert (connection.local[0], plain.local[0]) == (first, second)
    for each in (connection, plain):
        exchange(world, each, accepted[each.local])
    assert not world.seen, "something left"


@FAMILIES
def test_nobody_outside_is_one_of_us(first: bytes, second: bytes, far: bytes) -> None:
    stack = Pair().near
    stack.listen_tcp((None, 80), NOW)
    for src, dst in ((second, first), (first, second), (second, second)):
        stack.handle_packets(
            [
                scapy_wire.build_tcp(TcpSegment(src, dst, 4000, 80, 1, 0, RST, 0)),
                scapy_wire.build_udp(UdpDatagram(src, dst, 4000, 80, b"x")),
                scapy_wire.build_icmp(IcmpMessage(src, dst, 8 if len(src) == 4 else 128, 0, 1, b"x")),
            ],
            NOW,
        )
    assert not stack.take_output(100, NOW)
    assert stack.drops == {DropReason.BAD_ADDRESS: 9}
