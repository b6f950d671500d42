"""A million hostile segments: nothing raises, nothing grows, nothing takes long, and who guesses changes nothing.

Of the million two thirds are blind shots at connections in every state, the rest lies of a peer. Most are plain:
what has control bits, fragments and extension headers goes through scapy at thirty times the price. So about 4 % have
control bits, 1 % go to a listener, 1 % to unknown ports, 1 % are fragments, mutations or have extension headers, 1 %
go to the states before ESTABLISHED and TIME-WAIT, and 0.4 % are random bytes. ``nox -s hostile`` sends more.
"""

from __future__ import annotations

import gc
import random
import struct
import sys
import time
import tracemalloc
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from hostile_packets import ip, mutated, sack, tcp, timestamps
from tcp_attackers import A4, B4, PATIENCE, attack

from minivpn_trio.netstack.packets import ACK, SYN
from minivpn_trio.netstack.stack import Stack
from minivpn_trio.netstack.tcp.connection import TcpConnection, TcpState
from minivpn_trio.netstack.tcp.settings import TcpSettings

SHARDS, SEGMENTS = 5, 1_000_000


@pytest.mark.parametrize("shard", range(SHARDS))
def test_a_million_hostile_segments(shard: int) -> None:
    sent = attack(SEGMENTS // SHARDS, range(shard * 1000, shard * 1000 + 1000))
    assert sent.total() >= SEGMENTS // SHARDS
    # Enough of each.
    assert sum(count for name, count in sent.items() if name.startswith("peer")) > sent.total() // 5
    assert sum(count for name, count in sent.items() if "control" in name) > sent.total() // 50


def test_random_and_mutated_packets_of_every_kind() -> None:
    """Everything that a stack answers or ignores, without a connection to hit: no exception, no growth."""
    rng = random.Random(4)
    stack = Stack(addresses=[A4], mtu=1400, rng=rng.randbytes, now=1.0)
    stack.listen_tcp((None, 80), 1.0, backlog=4)
    stack.open_udp((None, 53))
    seeds = [
        ip(B4, A4, tcp(B4, A4, 1, 80, 0, 0, SYN, 9, b"\2\4\5\xb4\4\2\3\3\7" + timestamps(1, 0), b"")),
        ip(B4, A4, tcp(B4, A4, 2, 80, 5, 9, ACK, 9, sack([(1, 2)]), b"data")),
        bytes.fromhex("4500001c00000000400111f4") + B4 + A4 + bytes.fromhex("0800f7ff00000000"),
        bytes.fromhex("4500002000000000401111e0") + B4 + A4 + bytes.fromhex("00350035000c000061626364"),
    ]
    for _ in range(300):
        burst = [mutated(rng, rng.choice(seeds), repair=rng.random() < 0.5) for _ in range(20)]
        burst += [rng.choice([b"\x45", b"\x46", b"\x60"]) + rng.randbytes(rng.randrange(80)) for _ in range(12)]
        stack.handle_packets(burst, 1.0)
        stack.take_output(10_000)
    assert len(stack._connections) <= 4
    assert stack.stats().packets_in == 300 * 32


def test_one_syn_again_and_again() -> None:
    """Whoever repeats a SYN some thousand times gets an answer now and then, and keeps nobody out."""
    stack = Stack(addresses=[A4], mtu=1400, rng=random.Random(1).randbytes, now=1.0)
    listener = stack.listen_tcp((None, 80), 1.0, backlog=4)
    now = 1.0
    for _ in range(40):
        stack.handle_packets([ip(B4, A4, tcp(B4, A4, 5, 80, 7, 0, SYN, 9, b"\2\4\5\xb4"))] * 32, now)
        stack.take_output(10_000)
        now += 0.05
    assert len(listener.half_open) == 1
    while (at := stack.next_timeout()) is not None and at < 1000:
        now = max(now, at)
        stack.handle_timeout(now)
        stack.take_output(10_000)
    assert not listener.half_open


class Victim:
    """A connection of a stack, whose peer is the test."""

    def __init__(self, settings: TcpSettings, *, mss: int = 1360) -> None:
        self.now = 100.0
        self.stack = Stack(addresses=[A4], mtu=1400, rng=random.Random(1).randbytes, now=self.now, settings=settings)
        self.connection: TcpConnection = self.stack.connect_tcp((B4, 80), self.now)
        options = b"\2\4" + mss.to_bytes(2, "big") + b"\1\3\3\x0e\1\1\4\2"
        self.slowest = 0.0
        self.give([self.packet(0, self.connection.iss + 1, SYN | ACK, options)])
        assert self.connection.state is TcpState.ESTABLISHED

    def packet(self, seq: int, ack: int, flags: int = ACK, options: bytes = b"", payload: bytes = b"") -> bytes:
        port = self.connection.local[1]
        return ip(B4, A4, tcp(B4, A4, 80, port, seq, ack, flags, 65535, options, payload))

    def give(self, packets: list[bytes]) -> list[bytes]:
        """In bursts; what comes out."""
        answers = []
        for start in range(0, len(packets), 64):
            began = time.process_time()
            self.stack.handle_packets(packets[start : start + 64], self.now)
            self.now += 0.0005
            while burst := self.stack.take_output():
                answers += burst
            self.slowest = max(self.slowest, time.process_time() - began)
        return answers


@pytest.mark.parametrize("order", ["rising", "falling", "random"])
@pytest.mark.parametrize("size", [1, 3])
def test_memory_of_pieces_out_of_order(order: str, size: int) -> None:
    """Every other byte: what is kept beside the bytes must be bounded, and finding a place quick."""
    victim = Victim(TcpSettings(timestamps=False))
    places = list(range(2, 200_000, 2 * size))
    if order == "falling":
        places.reverse()
    elif order == "random":
        random.Random(1).shuffle(places)
    packets = [victim.packet(place, victim.connection.iss + 1, payload=b"abc"[:size]) for place in places[:40_000]]
    gc.collect()
    tracemalloc.start()
    try:
        answers = victim.give(packets)
        assert len(answers) <= len(packets)
        del answers
        gc.collect()
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    receiver = victim.connection.receiver
    assert receiver.early > 0
    # The budget is charged with what it really takes, and no more is taken than that.
    charged = victim.stack.memory.held
    assert receiver.early < charged < 384 << 10
    assert kept < charged * 1.25 + 100_000
    assert victim.slowest < PATIENCE


def test_memory_of_crumbs_beside_early_segments() -> None:
    """The limit of crumbs keeps nobody from sending a window of full segments behind a hole."""
    victim = Victim(TcpSettings(timestamps=False))
    receiver = victim.connection.receiver
    first = victim.connection.iss + 1
    count = (receiver.edge - receiver.nxt) // 200
    victim.give([victim.packet(1 + n * 200, first, payload=bytes(200)) for n in range(1, count)])
    assert receiver.early == (count - 1) * 200
    victim.give([victim.packet(1, first, payload=bytes(200))])
    assert receiver.queued == count * 200


@pytest.mark.parametrize("sack", [False, True])
def test_memory_of_one_early_segment_again_and_again(sack: bool) -> None:
    victim = Victim(TcpSettings(timestamps=False, sack=sack))
    packet = victim.packet(100, victim.connection.iss + 1, payload=b"ten bytes.")
    victim.give([packet] * 64)
    gc.collect()
    tracemalloc.start()
    try:
        victim.give([packet] * 20_000)
        gc.collect()
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 60_000


def test_memory_of_an_upload_in_the_smallest_segments() -> None:
    """Objects of 76 bytes cost twice as much again: the budget is charged with it."""
    settings = TcpSettings(
        initial_window_segments=20_000, initial_ssthresh_segments=None, send_buffer=2 << 20, pacing=False
    )
    victim = Victim(settings, mss=88)
    connection = victim.connection
    victim.give([victim.packet(1, connection.iss + 1)])
    data = bytes(800_000)
    gc.collect()
    tracemalloc.start()
    try:
        assert connection.write(data, victim.now) == len(data)
        del data
        while victim.stack.take_output(10_000, victim.now):
            pass
        gc.collect()
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(connection.sender.board) > 9000 and not connection.sender.buffered
    charged = victim.stack.memory.held
    assert charged * 0.8 < kept < charged * 1.25 + 100_000


def test_memory_of_many_small_writes() -> None:
    """Nothing goes out, as the peer's window is closed: bytes cost bytes."""
    victim = Victim(TcpSettings(timestamps=False))
    connection = victim.connection
    victim.give([ip(B4, A4, tcp(B4, A4, 80, connection.local[1], 1, connection.iss + 1, ACK, 0, b"", b""))])
    assert connection.sender.window == 0
    gc.collect()
    tracemalloc.start()
    try:
        for number in range(60_000):
            assert connection.write(number.to_bytes(2, "big"), victim.now) == 2
        gc.collect()
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert connection.sender.buffered == 120_000
    assert kept < 200_000
    victim.give([victim.packet(1, connection.iss + 1)])
    sent = b"".join(segment.payload for segment in connection.sender.board)
    assert sent == b"".join(number.to_bytes(2, "big") for number in range(60_000))[: len(sent)] and sent


def test_memory_of_crumbs_in_order() -> None:
    """A byte a segment, and nobody reads: bytes cost bytes."""
    victim = Victim(TcpSettings(timestamps=False))
    packets = [victim.packet(1 + n, victim.connection.iss + 1, payload=b"x") for n in range(60_000)]
    gc.collect()
    tracemalloc.start()
    try:
        victim.give(packets)
        gc.collect()
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert victim.connection.receiver.queued == 60_000
    assert kept < 400_000


@pytest.mark.parametrize("step", [2, 3, 7])
@pytest.mark.parametrize("order", ["rising", "falling", "random"])
def test_time_of_sack_blocks_full_of_holes(step: int, order: str) -> None:
    """A peer with tiny segments and a huge window that acknowledges every other one, by four blocks at a time."""
    settings = TcpSettings(
        timestamps=False, initial_window_segments=20_000, initial_ssthresh_segments=None, send_buffer=8 << 20
    )
    victim = Victim(settings, mss=88)
    connection = victim.connection
    # The window of the SYN was not scaled.
    victim.give([victim.packet(1, connection.iss + 1)])
    connection.write(bytes(2_000_000), victim.now)
    sent = victim.give([victim.packet(1, connection.iss + 1)])
    flight = (connection.sender.nxt - connection.sender.una) // 88
    assert flight > 10_000, (flight, len(sent))
    una = connection.iss + 1
    blocks = [(una + n * 88, una + (n + 1) * 88) for n in range(1, flight, step)]
    if order == "falling":
        blocks.reverse()
    elif order == "random":
        random.Random(1).shuffle(blocks)
    groups = [blocks[at : at + 4] for at in range(0, len(blocks), 4)]
    victim.slowest = 0.0
    start = time.process_time()
    victim.give([victim.packet(1, una, options=sack(group)) for group in groups])
    took = (time.process_time() - start) / len(groups)
    assert victim.slowest < PATIENCE
    assert took < 0.0005, f"{took * 1e6:.0f} us an acknowledgement"
    sender = connection.sender
    assert sender.nxt - sender.una == sum(segment.end - segment.start for segment in sender.board)


def test_blocks_of_single_bytes() -> None:
    """Every other byte of what is in flight: no more ranges are kept than there are segments."""
    settings = TcpSettings(timestamps=False, initial_window_segments=2000, initial_ssthresh_segments=None)
    victim = Victim(settings)
    connection = victim.connection
    victim.give([victim.packet(1, connection.iss + 1)])
    connection.write(bytes(1_000_000), victim.now)
    victim.give([victim.packet(1, connection.iss + 1)])
    una, nxt = connection.iss + 1, connection.sender.nxt
    places = list(range(una + 1, min(nxt, una + 100_000), 2))
    random.Random(1).shuffle(places)
    groups = [[(place, place + 1) for place in places[at : at + 4]] for at in range(0, len(places), 4)]
    victim.slowest = 0.0
    victim.give([victim.packet(1, una, options=sack(group)) for group in groups])
    assert victim.slowest < PATIENCE
    assert len(connection.sender.board._starts) <= len(connection.sender.board)


def test_time_of_blocks_that_say_the_same_again() -> None:
    """Everything SACKed but the first; then the same blocks, cut differently, for ever."""
    settings = TcpSettings(timestamps=False, initial_window_segments=20_000, initial_ssthresh_segments=None)
    victim = Victim(settings, mss=88)
    connection, rng = victim.connection, random.Random(3)
    victim.give([victim.packet(1, connection.iss + 1)])
    connection.write(bytes(1_500_000), victim.now)
    victim.give([victim.packet(1, connection.iss + 1)])
    una, nxt = connection.iss + 1, connection.sender.nxt
    lies = []
    for _ in range(6000):
        left = rng.randrange(una + 88, nxt)
        lies.append(victim.packet(1, una, options=sack([(left, rng.randrange(left, nxt + 1)), (una + 88, nxt)])))
    victim.slowest = 0.0
    start = time.process_time()
    victim.give(lies)
    took = (time.process_time() - start) / len(lies)
    assert victim.slowest < PATIENCE
    assert took < 0.0005, f"{took * 1e6:.0f} us an acknowledgement"


def test_what_our_window_lets_in_is_all_that_is_kept() -> None:
    """A peer that ignores the window fills no more than that."""
    victim = Victim(TcpSettings(timestamps=False, receive_buffer=20_000, receive_buffer_max=20_000))
    answers = victim.give(
        [victim.packet(1 + n * 1360, victim.connection.iss + 1, payload=bytes(1360)) for n in range(500)]
    )
    receiver = victim.connection.receiver
    assert receiver.queued + receiver.early <= 20_000
    # 12 to 14: sequence ... window.
    assert {struct.unpack_from("!H", answer, 34)[0] for answer in answers[-5:]} == {0}
