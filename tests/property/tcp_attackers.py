"""Two attackers of a stack, and what must hold whatever they send.

``Blind`` knows addresses and ports, yet no number: nothing of a connection may change, and its data passes afterwards.
``Peer`` is the other end of a connection, so it knows everything and lies about it: nothing may break or grow.

Each is an episode of some thousand segments from one seed. ``attack`` plays episodes until enough were sent.

    python tests/property/tcp_attackers.py [--segments 1_000_000] [--seeds 0:1000] [--processes 2]
"""

from __future__ import annotations

import argparse
import os
import random
import struct
import sys
import time
from collections import Counter, deque
from concurrent.futures import Future, ProcessPoolExecutor
from enum import Enum
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
sys.path.insert(0, str(Path(__file__).parents[1] / "simulation"))
sys.path.insert(0, str(Path(__file__).parent))

from hostile_packets import MASK, extended, fragments, ip, mutated, sack, tcp, timestamps
from tcp_world import A4, A6, B4, B6, Transfer, World

from minivpn_trio.netstack.packets import ACK, FIN, PSH, RST, SYN, URG
from minivpn_trio.netstack.stack import Stack
from minivpn_trio.netstack.tcp.congestion import ALGORITHMS
from minivpn_trio.netstack.tcp.connection import TcpConnection, TcpState
from minivpn_trio.netstack.tcp.settings import TcpSettings

#: Packets a burst, and bursts an episode.
BURST, BURSTS = 64, 300
#: Episodes that a process plays before it tells.
EPISODES = 12
#: Farther away than any window here.
FAR = 1 << 24
#: Processor seconds that a burst may take at most: usually two thousandths.
PATIENCE = 1.0
#: What a connection may keep besides the payload: pieces out of order, each with its place.
PIECES = 16384
#: What it has in common with all others.
SHARED = {"_network", "_memory", "path", "_settings", "on_change"}
PATTERN = random.Random(2).randbytes(65536) * 2
LENGTHS = [0, 0, 0, 0, 1, 10, 1200]
#: What struct can read, mostly: control bits send a segment to scapy, which costs thirty times as much.
PLAIN, CONTROL = [ACK, ACK, ACK, ACK | PSH, ACK | 0x40, 0], [
    SYN, SYN | ACK, RST, RST | ACK, FIN | ACK, FIN, FIN | SYN | RST | ACK, ACK | URG, 0x3F,
]  # fmt: skip


#: A connection's own parts, by their module, and how many things besides the payload it may hold whatever happens.
PARTS, CONSTANT = "minivpn_trio.netstack.tcp.", 250


def holdings(connection: TcpConnection) -> tuple[int, int]:
    """How many things lie in all containers that a connection has, and how many bytes everything takes; found by
    looking, so that nothing has to be named to be seen."""
    seen: set[int] = set()
    things = size = 0
    waiting: list[object] = [connection]
    while waiting:
        thing = waiting.pop()
        if id(thing) in seen:
            continue
        seen.add(id(thing))
        size += sys.getsizeof(thing)
        if isinstance(thing, (list, tuple, deque, set, frozenset)):
            things += len(thing)
            waiting += thing
        elif isinstance(thing, dict):
            things += len(thing)
            waiting += [*thing.keys(), *thing.values()]
        elif type(thing).__module__.startswith(PARTS) and not isinstance(thing, (TcpSettings, Enum)):
            for kind in type(thing).__mro__:
                slots = vars(kind).get("__slots__", ())
                waiting += [getattr(thing, name) for name in slots if hasattr(thing, name) and name not in SHARED]
            waiting += getattr(thing, "__dict__", {}).values()
    return things, size


def numbers(connection: TcpConnection) -> tuple[object, ...]:
    """What nobody from outside may touch."""
    sender, receiver = connection.sender, connection.receiver
    return (
        connection.state, connection.error, connection.timestamp_recent,
        sender.una, sender.window, sender.wl1, sender.wl2, sender.fin,
        receiver.nxt, receiver.edge, receiver.fin, receiver.queued, receiver.early,
    )  # fmt: skip


class Blind:
    """Somebody on another path, against one stack with a connection in each state. ``control`` is the share of segments
    that are not plain."""

    def __init__(self, seed: int, *, control: float = 0.04) -> None:
        self.random = random.Random(seed)
        self.control = control
        choose = self.random.choice
        self.sent: Counter[str] = Counter()
        self.family = choose([4, 4, 6])
        self.victim, self.other = (A4, B4) if self.family == 4 else (A6, B6)
        settings = TcpSettings(
            timestamps=choose([True, True, False]), sack=choose([True, False]), receive_buffer=choose([3000, 524288])
        )
        self.world = world = World(seed=seed, settings_a=settings)
        self._open_all()
        self.targets = {
            "established": self.ours, "busy": self.busy[0], "half closed": self.half[0], "SYN-SENT": self.opening,
            "SYN-RECEIVED": self.embryo,
        }  # fmt: skip
        #: Where most of the shots go: what is cheap to shoot at.
        self.cheap = [name for name in self.targets if not name.startswith("SYN")]
        self.ports = {name: (each.remote[1], each.local[1]) for name, each in self.targets.items()}
        self.real: list[bytes] = []
        world.taps.append(lambda name, packet: self.real.append(packet) if name == "b" else None)

    def _open_all(self) -> None:
        """Afterwards nothing moves, except what the attacker moves."""
        world = self.world
        self.ours, self.theirs = world.connect(80, family=self.family)
        self.half = world.connect(83, family=self.family)
        self.half[0].shutdown_write(world.now)
        closed = world.connect(82, family=self.family)
        for end in closed:
            end.shutdown_write(world.now)
        world.idle(2.0)
        ((self.resting, self.record),) = world.a._time_wait._records.items()
        self.busy = world.connect(84, family=self.family)
        self.flood = world.a.listen_tcp((None, 91), world.now, backlog=8)
        self.listener = world.a.listen_tcp((None, 90), world.now)
        self.guest = world.b.connect_tcp((self.victim, 90), world.now)
        world.a.handle_packets(world.b.take_output(), world.now)
        (self.embryo,) = self.listener.half_open
        world.collect()
        world.b.listen_tcp((None, 81), world.now)
        self.opening = world.a.connect_tcp((self.other, 81), world.now)
        for end in self.busy:
            end.write(PATTERN[:5000], world.now)
        world.collect()

    def play(self, bursts: int = BURSTS) -> Counter[str]:
        """An episode; what was sent, by kind."""
        stack, world = self.world.a, self.world
        resting = (self.record.seq, self.record.ack, self.record.timestamp_recent)
        for _ in range(bursts):
            before = {name: numbers(each) for name, each in self.targets.items()}
            packets: list[bytes] = []
            while len(packets) < BURST:
                packets += self._shoot()
            world.now += 0.0001
            start = time.process_time()
            stack.handle_packets(packets, world.now)
            assert time.process_time() - start < PATIENCE, "a burst took too long"
            world.collect()
            for name, each in self.targets.items():
                assert numbers(each) == before[name], f"{name}: {before[name]} became {numbers(each)}"
            assert stack._time_wait._records.get(self.resting) is self.record
            assert (self.record.seq, self.record.ack, self.record.timestamp_recent) == resting
            assert len(self.flood.half_open) <= 8
            assert sum(each.cost for each in stack._fragments._assemblies.values()) <= 1 << 20
        self._everything_works()
        return self.sent

    def _shoot(self) -> list[bytes]:
        rng = self.random
        draw = rng.random()
        if draw < 0.004:
            self.sent["random bytes"] += 1
            return [rng.choice([b"", b"\x45", b"\x60"]) + rng.randbytes(rng.choice([0, 1, 19, 40, 100]))]
        if draw < 0.01:
            return [self._at_the_listener()]
        if draw < 0.02:
            self.sent["unknown port"] += 1
            return [self._packet(rng.randrange(1, 65536), rng.randrange(1, 65536), *self._anything(), b"", b"")]
        control = rng.random() < self.control
        # What is answered, or parsed, by scapy is rare.
        name = rng.choice(self.cheap) if rng.random() < 0.99 else rng.choice([*self.targets, "TIME-WAIT"])
        flags = rng.choice(CONTROL if control else PLAIN)
        if name == "TIME-WAIT":
            self.sent[name] += 1
            seq, ack, _, window = self._anything()
            sport, dport = struct.unpack("!HH", self.resting[-4:])
            return [self._packet(sport, dport, seq, ack, flags, window, b"", b"")]
        if name == "SYN-SENT" and flags & (SYN | ACK | RST) == SYN:
            # Both sides opening at once: no blind shot.
            flags |= ACK
        self.sent[name + (", control" if control else "")] += 1
        packet = self._at(self.targets[name], flags)
        if draw < 0.025:
            return (
                [mutated(rng, packet, repair=False)] if rng.random() < 0.8 else [packet[: rng.randrange(len(packet))]]
            )
        if draw < 0.03:
            head = 20 if self.family == 4 else 40
            if rng.random() < 0.5:
                return fragments(rng, self.other, self.victim, packet[head:])
            return [extended(rng, self.other, self.victim, packet[head:])]
        return [packet]

    def _anything(self) -> tuple[int, int, int, int]:
        rng = self.random
        return rng.getrandbits(32), rng.getrandbits(32), rng.choice(PLAIN), rng.choice([0, 1, 500, 65535])

    def _at(self, target: TcpConnection, flags: int) -> bytes:
        """Whatever is not the exact sequence number, nor in the window with an acceptable acknowledgement."""
        rng = self.random
        sender, receiver = target.sender, target.receiver
        size = rng.choice(LENGTHS)
        far_ack = sender.una + rng.randrange(FAR, (1 << 32) - FAR)
        kind = rng.random()
        if target.state is TcpState.SYN_SENT:
            seq, ack = rng.getrandbits(32), far_ack
        elif kind < 0.1:
            # Ahead of the window, as if something had been lost.
            seq = receiver.edge + 1 + rng.choice([rng.randrange(3000), rng.randrange(FAR)])
            ack = rng.choice([far_ack, sender.una, sender.nxt])
        elif kind < 0.8:
            # Anywhere; even where the acknowledgement is right by luck.
            seq = receiver.nxt + rng.randrange(FAR, (1 << 32) - FAR)
            ack = rng.choice([far_ack, far_ack, sender.una, sender.nxt])
        elif kind < 0.9 and receiver.edge - receiver.nxt > 1:
            seq, ack = receiver.nxt + rng.randrange(1, receiver.edge - receiver.nxt), far_ack
        else:
            # What came already, all of it.
            seq, ack = receiver.nxt - size - 2 - rng.randrange(65535), far_ack
        options = b""
        if rng.random() < 0.8:
            recent = target.timestamp_recent
            value = rng.choice([recent, recent + rng.randrange(1, 100_000), rng.getrandbits(32)])
            options = timestamps(value, rng.getrandbits(32))
        if rng.random() < 0.1:
            options += sack(
                [(ack + rng.randrange(3000), ack + rng.randrange(9000)) for _ in range(rng.randrange(1, 4))]
            )
        if rng.random() < 0.02:
            options += rng.randbytes(rng.randrange(1, 20))
        window = rng.choice([0, 1, 500, 65535])
        return self._packet(target.remote[1], target.local[1], seq, ack, flags, window, options, rng.randbytes(size))

    def _packet(
        self, sport: int, dport: int, seq: int, ack: int, flags: int, window: int, options: bytes, payload: bytes
    ) -> bytes:
        body = tcp(self.other, self.victim, sport, dport, seq, ack, flags, window, options, payload)
        return ip(self.other, self.victim, body)

    def _at_the_listener(self) -> bytes:
        """SYNs from a few ports, again and again, and what no handshake begins with."""
        rng = self.random
        self.sent["listener"] += 1
        flags = rng.choice([SYN] * 6 + [ACK, FIN | ACK, SYN | FIN, SYN | ACK, RST])
        options = rng.choice([b"", b"\2\4\5\xb4", b"\2\4\0\0", b"\3\3\xff\0", rng.randbytes(8)])
        return self._packet(1000 + rng.randrange(2), 91, 1_000_000, rng.getrandbits(32), flags, 60000, options, b"")

    def _everything_works(self) -> None:
        """Data both ways over what was shot at, and over what had only begun."""
        world = self.world
        world.run(lambda: self.guest.connected and self.listener.acceptable and self.opening.connected, 60)
        host = self.listener.accept()
        assert host is self.embryo
        received = bytearray()

        def rest() -> bool:
            for end in self.busy:
                if end.receivable:
                    received.extend(end.read(1 << 20, world.now))
            return len(received) == 10_000

        world.run(rest, 60)
        for source, sink in ((self.ours, self.theirs), (self.theirs, self.ours), (self.guest, host), self.half[::-1]):
            transfer = Transfer(world, source, sink, PATTERN[:30_000], finish=False)
            world.run(transfer.pump, 60)
            assert bytes(transfer.received) == PATTERN[:30_000]
        # The flood is over at last, and somebody else's turn.
        world.idle(200)
        assert not self.flood.half_open
        late = world.b.connect_tcp((self.victim, 91), world.now)
        world.run(lambda: late.connected, 60)


class Peer:
    """The other end of one connection of a stack."""

    def __init__(self, seed: int, *, control: float = 0.03) -> None:
        self.random = rng = random.Random(seed)
        self.control = control
        choose = rng.choice
        self.sent: Counter[str] = Counter()
        self.now = 5000.0
        self.us, self.peer = choose([(A4, B4), (A4, B4), (A6, B6)])
        self.settings = TcpSettings(
            sack=rng.random() < 0.8, timestamps=rng.random() < 0.8, congestion=choose(list(ALGORITHMS)),
            receive_buffer=choose([1000, 60_000, 524_288]), user_timeout=choose([None] * 5 + [5.0]),
        )  # fmt: skip
        self.stack = Stack(addresses=[A4, A6], mtu=1400, rng=rng.randbytes, now=self.now, settings=self.settings)
        self.irs = choose([rng.getrandbits(32), MASK - 3000, 0])
        self.stamps, self.scale = rng.random() < 0.7, choose([None, 0, 7, 14])
        self.read = 0
        self.una = 0
        self.edge: int | None = None
        #: Payloads; in some episodes crumbs, most of them out of order.
        self.crumbs = rng.random() < 0.25
        self.lengths = [0, 1, 2, 3] if self.crumbs else [0, 0, 0, 1, 10, 1200, 1300]
        #: How often a burst is one segment again and again.
        self.stubborn = choose([0.02, 0.02, 0.02, 0.5])
        self.burst = 0
        self.real: list[bytes] = []
        self.connection = self._connect(rng.random() < 0.5)

    def _options(self) -> bytes:
        choose = self.random.choice
        options = choose([b"", b"\2\4" + choose([0, 88, 536, 1460, 65535]).to_bytes(2, "big")])
        if self.scale is not None:
            options += bytes((1, 3, 3, self.scale))
        if self.random.random() < 0.8:
            options += b"\1\1\4\2"
        return options + (timestamps(self._clock(), 0) if self.stamps else b"")

    def _clock(self) -> int:
        return int(self.now * 1000)

    def _connect(self, active: bool) -> TcpConnection:
        stack = self.stack
        if active:
            connection = stack.connect_tcp((self.peer, 80), self.now)
            self.port, self.sport = connection.local[1], 80
            self._give([self._packet(self.irs, connection.iss + 1, SYN | ACK, 60_000, self._options(), b"")])
        else:
            listener = stack.listen_tcp((None, 80), self.now)
            self.port, self.sport = 80, 7777
            self._give([self._packet(self.irs, 0, SYN, 60_000, self._options(), b"")])
            (connection,) = listener.half_open
            stamps = timestamps(self._clock(), 0) if self.stamps else b""
            self._give([self._packet(self.irs + 1, connection.iss + 1, ACK, 60_000, stamps, b"")])
            assert listener.accept() is connection
        assert connection.connected
        self.una = connection.sender.una
        return connection

    def _packet(self, seq: int, ack: int, flags: int, window: int, options: bytes, payload: bytes) -> bytes:
        body = tcp(self.peer, self.us, self.sport, self.port, seq, ack, flags, window, options, payload)
        return ip(self.peer, self.us, body)

    def _give(self, packets: list[bytes]) -> None:
        start = time.process_time()
        self.stack.handle_packets(packets, self.now)
        assert time.process_time() - start < PATIENCE, "a burst took too long"

    def play(self, bursts: int = BURSTS) -> Counter[str]:
        """An episode; what was sent, by kind. It ends early with the connection."""
        for _ in range(bursts):
            self._own_side()
            if self.connection.state is TcpState.CLOSED and self.random.random() < 0.2:
                break
            written = self._answers()
            packets = [self._shot() for _ in range(self.random.choice([1, 2, 8, BURST, BURST]))]
            if self.random.random() < self.stubborn:
                packets = packets[:1] * BURST
                self.sent["the same again"] += BURST - 1
            self.now += self.random.choice([0, 0.0001, 0.001, 0.03])
            self._give(packets)
            self._check()
            # Acknowledgements, and a few of what was written: no amplifier.
            assert self._answers(count=True) <= len(packets) + 40 + written
        return self.sent

    def _own_side(self) -> None:
        """The application at the victim writes, reads, closes; time passes; ICMP and the tunnel change the path."""
        connection, rng, draw = self.connection, self.random, self.random.random()
        if connection.error is None and connection.connected and draw < 0.2 and connection.writable:
            if not connection.sender.fin and connection.state in (TcpState.ESTABLISHED, TcpState.CLOSE_WAIT):
                connection.write(bytes(rng.randrange(1, 60_000)), self.now)
        elif draw < 0.5 and connection.receivable:
            data = connection.read(rng.choice([1, 500, 100_000]), self.now)
            at = self.read & 0xFFFF
            for start in range(0, len(data), 65536):
                piece = data[start : start + 65536]
                assert piece == PATTERN[at : at + len(piece)], "not what was sent"
            self.read += len(data)
        elif draw < 0.501 and connection.error is None and connection.state is not TcpState.CLOSED:
            connection.shutdown_write(self.now)
        elif draw < 0.5012:
            connection.close(self.now)
        elif draw < 0.56:
            self._wait(rng.choice([0.001] * 5 + [0.05] * 5 + [0.5, 0.5, 5, 60]))
        elif draw < 0.57:
            connection.handle_path_mss(rng.randrange(500, 1460), self.now)
        elif draw < 0.575:
            connection.set_path_mss(rng.randrange(500, 1340))
            connection.flush(self.now)

    def _wait(self, seconds: float) -> None:
        end = self.now + seconds
        for _ in range(200):
            at = self.stack.next_timeout()
            if at is None or at > end:
                break
            self.now = max(self.now, at)
            self.stack.handle_timeout(self.now)
            self._answers()
        self.now = max(self.now, end)

    def _answers(self, count: bool = False) -> int:
        """Look at what comes out: the window's right edge stays where it was promised. How many were pure ACKs."""
        pure = 0
        head = 20 if len(self.us) == 4 else 40
        scale = self.connection.receiver.scale if hasattr(self, "connection") else 0
        for packet in self.stack.take_output(10_000):
            self.real.append(packet)
            assert len(packet) <= 1400
            if packet[9 if head == 20 else 6] != 6:
                continue  # an ICMP error
            _, ack, bits, window = struct.unpack_from("!IIHH", packet, head + 4)
            pure += len(packet) == head + (bits >> 12) * 4
            if bits & (SYN | RST) or not hasattr(self, "connection"):
                continue
            nxt = self.connection.receiver.nxt
            edge = nxt - ((nxt - ack) & MASK) + (window << scale)
            if self.edge is not None:
                assert edge > self.edge - (1 << scale), "the window shrank"
            self.edge = max(edge, self.edge or 0)
        del self.real[:-200]
        return pure

    def _shot(self) -> bytes:
        """Numbers around those that are right, and every kind of lie."""
        rng, choose = self.random, self.random.choice
        sender, receiver = self.connection.sender, self.connection.receiver
        draw = rng.random()
        if draw < 0.01 and self.real:
            self.sent["our own, mirrored and changed"] += 1
            return mutated(rng, self._mirrored(choose(self.real)), repair=rng.random() < 0.7)
        kind = "control" if rng.random() < self.control else "plain"
        self.sent[kind] += 1
        seq = receiver.nxt + choose(
            [0, 0, 0, 0, 0, -1, 1, rng.randrange(-3000, 70_000), rng.randrange(-3000, 3000), rng.getrandbits(32)]
        )
        if self.crumbs and rng.random() < 0.8:
            seq = receiver.nxt + rng.randrange(2, 60_000)
        ack = choose(
            [
                sender.una, sender.nxt, sender.nxt, rng.randint(sender.una, sender.nxt),
                rng.randint(sender.una, sender.nxt), sender.nxt + 1, sender.una - 1, rng.getrandbits(32),
            ]
        )  # fmt: skip
        options = b""
        if self.stamps and rng.random() < 0.95:
            value = self._clock() + choose([0] * 30 + [-5, 3, rng.randrange(-(2**31), 2**31)])
            echo = self.connection._tsval(self.now) - choose([0, 20, 1000, rng.getrandbits(32)])
            options = timestamps(value, echo)
        if rng.random() < 0.3:
            options += sack([self._lie() for _ in range(rng.randrange(1, 4 if options else 5))])
        if rng.random() < 0.02:
            options += rng.randbytes(rng.randrange(1, 12))
        size = choose(self.lengths)
        flags = choose(CONTROL if kind == "control" else PLAIN)
        if flags & (RST | FIN) and rng.random() < 0.95:
            # Not at the very number, or that would be all.
            seq = receiver.nxt + choose([-size - 2, rng.randrange(1, 5000), rng.getrandbits(32)])
            flags &= ~FIN if seq >= receiver.nxt else MASK
        at = (seq - self.irs - 1) & 0xFFFF
        return self._packet(seq, ack, flags, choose([0, 1, 100, 60_000, 65535]), options, PATTERN[at : at + size])

    def _lie(self) -> tuple[int, int]:
        """A SACK block: true, half true, absurd."""
        rng, sender = self.random, self.connection.sender
        left = rng.randrange(sender.una - 3000, sender.nxt + 200)
        right = left + rng.randrange(-10, 5000)
        if rng.random() < 0.7:
            mss = max(sender.mss, 1)
            left = sender.una + (left - sender.una) // mss * mss
            right = min(left + mss * rng.randrange(1, 5), sender.nxt)
        return left, right

    def _mirrored(self, packet: bytes) -> bytes:
        if len(self.us) == 4:
            return packet[:12] + packet[16:20] + packet[12:16] + packet[22:24] + packet[20:22] + packet[24:]
        return packet[:8] + packet[24:40] + packet[8:24] + packet[42:44] + packet[40:42] + packet[44:]

    def _check(self) -> None:
        connection = self.connection
        sender, receiver = connection.sender, connection.receiver
        assert receiver.queued + receiver.early <= max(receiver.capacity, self.settings.receive_buffer)
        assert receiver.early == sum(map(len, receiver._pieces.values()))
        assert len(receiver._pieces) <= PIECES
        assert max([receiver.nxt, *receiver._ends]) <= receiver.edge
        assert sender.una >= self.una
        self.una = sender.una
        self.burst += 1
        if self.burst % 10 == 0:
            self._check_growth()
        if connection.state is TcpState.CLOSED:
            assert connection not in self.stack._connections.values()
            return
        board = list(sender.board)
        assert sender.una <= sender.nxt
        assert sender.nxt - sender.una == sum(segment.end - segment.start for segment in board)
        assert sender.board.pipe == sum(
            (segment.end - segment.start) * ((not segment.lost) + segment.resent)
            for segment in board
            if not segment.sacked
        )
        assert sender.board.sacked == sum(segment.sacked for segment in board)
        if sender.una < sender.nxt:
            assert sender.deadline < float("inf"), "no timer for what is in flight"
        timeout = self.stack.next_timeout()
        assert connection.deadline == float("inf") or (timeout is not None and timeout <= connection.deadline)

    def _check_growth(self) -> None:
        """Nothing is kept besides what the budget was charged with, except for a fixed amount."""
        connection = self.connection
        sender, receiver = connection.sender, connection.receiver
        things, size = holdings(connection)
        payload = len(receiver._pieces), len(sender.board), len(receiver.chunks), len(sender._buffer)
        # A piece and where its range begins and ends; a segment, lost, sent again and when, and its range.
        most = sum(number * each for number, each in zip(payload, (3, 6, 1, 1), strict=True))
        assert things <= CONSTANT + most, f"{things} things in containers, payload {payload}"
        charged = self.stack.memory.held
        # Tables grow by doubling, and what was acknowledged last leaves a little later.
        assert size <= 1.5 * charged + (96 << 10), f"{size} bytes, {charged} charged, payload {payload}"


def attack(segments: int, seeds: range) -> Counter[str]:
    """Episodes of both, one seed after the other, until so many segments were sent or the seeds are used up."""
    sent: Counter[str] = Counter()
    for seed in seeds:
        # Those of a peer are shorter, since it may end the connection.
        kind = Peer if seed % 3 else Blind
        try:
            played = kind(seed).play()
        except Exception as exc:
            exc.add_note(f"{kind.__name__}({seed}).play()")
            raise
        sent.update({f"{kind.__name__.lower()}: {name}": count for name, count in played.items()})
        if sent.total() >= segments:
            break
    return sent


def main() -> None:
    """Shards of seeds over processes. The first failure ends it, with its seed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--segments", type=int, default=1_000_000)
    parser.add_argument("--seeds", default="0:1000000000", help="first:end")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    arguments = parser.parse_args()
    first, end = map(int, arguments.seeds.split(":"))
    sent: Counter[str] = Counter()
    start, shown = time.monotonic(), 0.0
    with ProcessPoolExecutor(arguments.processes) as pool:
        waiting: deque[Future[Counter[str]]] = deque()
        following = first
        while waiting or not sent:
            while len(waiting) < 2 * arguments.processes and following < end and sent.total() < arguments.segments:
                shard = range(following, min(following + EPISODES, end))
                waiting.append(pool.submit(attack, 1 << 60, shard))
                following = shard.stop
            sent.update(waiting.popleft().result())
            if time.monotonic() - shown > 30:
                shown = time.monotonic()
                print(f"{sent.total():,} segments, seeds up to {following}, {shown - start:.0f} s", flush=True)
    print(f"{sent.total():,} segments, seeds {first}:{following}, {time.monotonic() - start:.0f} s")
    for name, count in sorted(sent.items()):
        print(f"{count:12,}  {name}")


if __name__ == "__main__":
    main()
