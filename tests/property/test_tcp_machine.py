"""Two TCPs, an adversarial link, and hypothesis choosing what happens next.

Rules write, read, shut down, deliver, lose, repeat, reorder, cut segments anew with
overlaps, repeat what was sent long ago, lose pure acknowledgements, let time pass, and inject blind forgeries and
acknowledgements of what was never sent.
Invariants hold after every step; at the end the link heals, everything must be delivered
without a FIN's help, and then both sides close in order.
"""

from __future__ import annotations

import random
import struct
import sys
from collections import deque
from dataclasses import replace
from math import inf
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

sys.path.insert(0, str(Path(__file__).parent.parent / "simulation"))

from tcp_world import World

from minivpn_trio.netstack import scapy_wire
from minivpn_trio.netstack.packets import ACK, FIN, RST, SYN, TcpSegment
from minivpn_trio.netstack.tcp.connection import TcpConnection, TcpState
from minivpn_trio.netstack.tcp.settings import TcpSettings

STREAM = random.Random(99).randbytes(1 << 20)
MASK = 0xFFFFFFFF
SIDES = st.sampled_from(["a", "b"])


class TcpMachine(RuleBasedStateMachine):
    """``a`` opened, ``b`` accepted; packets in flight lie in ``wire`` until a rule does something with them."""

    @initialize(
        seed=st.integers(0, 1 << 16),
        receive=st.sampled_from([600, 3000, 65_535, 200_000]),
        send=st.sampled_from([2000, 100_000]),
        sack=st.booleans(),
        timestamps=st.booleans(),
        prefill=st.integers(0, 60_000),
        offset=st.sampled_from([0, 2**32 - 5000]),
    )
    def connect(
        self, seed: int, receive: int, send: int, sack: bool, timestamps: bool, prefill: int, offset: int
    ) -> None:
        """The handshake, and something to do."""
        # Giving up is no answer here: the link heals at last.
        stubborn = TcpSettings(data_retries=10_000, black_hole_mss=(300,), path_probe_interval=2.0)
        chosen = replace(
            stubborn,
            receive_buffer=receive,
            receive_buffer_max=receive * 4,
            send_buffer=send,
            sack=sack,
            timestamps=timestamps,
        )
        self.world = World(seed=seed, mtu=576, settings_a=chosen, settings_b=stubborn)
        for stack in (self.world.a, self.world.b):
            if offset:
                stack._numbering.initial_sequence = lambda *args: offset  # type: ignore[method-assign]
        ours, theirs = self.world.connect()
        self.world.idle(1.0)
        self.ends: dict[str, TcpConnection] = {"a": ours, "b": theirs}
        self.stacks = {"a": self.world.a, "b": self.world.b}
        self.written = {"a": 0, "b": 0}
        self.read_so_far = {"a": 0, "b": 0}
        self.una = {name: end.sender.una for name, end in self.ends.items()}
        self.base = {name: end.receiver.nxt for name, end in self.ends.items()}
        self.edge: dict[str, int] = {}
        #: The smallest segment that each end was ever told to send.
        self.told = {"a": 300, "b": 300}
        self.shut: set[str] = set()
        #: An end has sent more than it was allowed to.
        self.overrun = False
        self.wire: list[tuple[str, bytes]] = []
        #: Everything that was ever sent, the last thousand of it.
        self.history: deque[tuple[str, bytes]] = deque(maxlen=1000)
        for name in self.ends:
            self._write(name, prefill)

    def _write(self, name: str, size: int) -> None:
        start = self.written[name]
        accepted = self.ends[name].write(STREAM[start : start + size], self.world.now)
        self.written[name] = start + accepted

    def _collect(self) -> None:
        for name, stack in self.stacks.items():
            for packet in stack.take_output(10_000):
                self.wire.append((name, packet))
                self.history.append((name, packet))
                self._watch_edge(name, packet)

    def _watch_edge(self, name: str, packet: bytes) -> None:
        _, ack, bits, window = struct.unpack_from("!IIHH", packet, 24)
        assert len(packet) - 20 - (bits >> 12) * 4 <= 576 - 40
        if bits & (SYN | RST):
            return
        scale = self.ends[name].receiver.scale
        nxt = self.ends[name].receiver.nxt
        edge = nxt - ((nxt - ack) & MASK) + (window << scale)
        assert edge > self.edge.get(name, edge) - (1 << scale)
        self.edge[name] = max(edge, self.edge.get(name, edge))

    def _deliver(self, packets: list[tuple[str, bytes]]) -> None:
        for name, stack in (("a", self.world.b), ("b", self.world.a)):
            burst = [packet for source, packet in packets if source == name]
            if burst:
                stack.handle_packets(burst, self.world.now)
        self._collect()

    # --- rules ---

    @rule(name=SIDES, size=st.integers(1, 30_000))
    def write(self, name: str, size: int) -> None:
        if name not in self.shut and self.written[name] + size < len(STREAM):
            self._write(name, size)
            self._collect()

    @rule(name=SIDES, size=st.sampled_from([1, 100, 5000, 1 << 20]))
    def read(self, name: str, size: int) -> None:
        data = self.ends[name].read(size, self.world.now)
        start = self.read_so_far[name]
        assert data == STREAM[start : start + len(data)]
        self.read_so_far[name] = start + len(data)
        assert self.read_so_far[name] <= self.written["b" if name == "a" else "a"]
        self._collect()

    @rule(name=SIDES)
    def shut_down(self, name: str) -> None:
        self.shut.add(name)
        self.ends[name].shutdown_write(self.world.now)
        self._collect()

    @rule(count=st.integers(1, 64))
    def deliver(self, count: int) -> None:
        self._collect()
        packets, self.wire = self.wire[:count], self.wire[count:]
        self.world.now += 0.001
        self._deliver(packets)

    @rule(picks=st.lists(st.booleans(), min_size=1, max_size=64))
    def lossy_burst(self, picks: list[bool]) -> None:
        self._collect()
        packets, self.wire = self.wire[: len(picks)], self.wire[len(picks) :]
        self.world.now += 0.001
        self._deliver([packet for packet, pick in zip(packets, picks, strict=False) if pick])

    @rule(name=SIDES, mss=st.sampled_from([1, 88, 150, 256, 400, 500, 536]))
    def the_path_takes_less(self, name: str, mss: int) -> None:
        """A router says so."""
        end = self.ends[name]
        if end.state is TcpState.CLOSED:
            return
        self.told[name] = min(self.told[name], max(mss, 88))
        end.handle_path_mss(mss, self.world.now)
        end.flush(self.world.now)
        self._collect()

    @rule(name=SIDES, mss=st.sampled_from([150, 256, 536]), part=st.integers(0, 600))
    def a_larger_segment_is_tried(self, name: str, mss: int, part: int) -> None:
        """The path takes less, everything arrives and is read, and then it is time to see whether it takes more again.
        What is sent then arrives too, and is acknowledged in pieces."""
        self.the_path_takes_less(name, mss)
        for _ in range(20):
            self._collect()
            packets, self.wire = self.wire, []
            self._deliver(packets)
            for side in self.ends:
                self.read(side, 1 << 20)
            self.world.now += 0.15
            for stack in self.stacks.values():
                stack.handle_timeout(self.world.now)
        if name not in self.shut and self.written[name] + 5000 < len(STREAM):
            self._write(name, 5000)
        self._collect()
        packets, self.wire = self.wire, []
        self._deliver(packets)
        if part:
            answers, self.wire = self.wire, []
            self.acknowledge_a_part(name, part)
            self.wire += answers

    @rule(name=SIDES, size=st.integers(1, 1200))
    def acknowledge_a_part(self, name: str, size: int) -> None:
        """Of what arrived, as far as an arbitrary byte: a middlebox does so, or a peer who looks for trouble."""
        end, other = self.ends[name], self.ends["b" if name == "a" else "a"]
        span = min(other.receiver.nxt, end.sender.nxt - end.sender.fin_sent) - end.sender.una
        if end.state is TcpState.CLOSED or span < 2:
            return
        ack = end.sender.una + min(size, span - 1)
        window = min(max(other.receiver.edge - ack, 0) >> other.receiver.scale, 0xFFFF)
        part = TcpSegment(
            end.remote[0], end.local[0], end.remote[1], end.local[1],
            end.receiver.nxt & MASK, ack & MASK, ACK, window,
        )  # fmt: skip
        if end.timestamp_offset >= 0:
            part.timestamps = (end.timestamp_recent, 0)
        self._deliver([("b" if name == "a" else "a", scapy_wire.build_tcp(part))])

    @rule(count=st.integers(1, 3))
    def deliver_newest(self, count: int) -> None:
        """What was sent last overtakes everything, a FIN its data."""
        self._collect()
        packets, self.wire = self.wire[-count:], self.wire[:-count]
        self._deliver(packets)

    @rule(name=SIDES, count=st.integers(1, 20))
    def fill_the_window(self, name: str, count: int) -> None:
        """Nobody reads, everything arrives; then the window opens, and the news of it is lost."""
        for _ in range(count):
            packets, self.wire = self.wire, []
            self._deliver(packets)
            self.world.now += 0.05
            for stack in self.stacks.values():
                stack.handle_timeout(self.world.now)
            self._collect()
        self.slurp_and_lose(name)

    @rule(index=st.integers(0, 1000))
    def repeat(self, index: int) -> None:
        self._collect()
        if self.wire:
            self._deliver([self.wire[index % len(self.wire)]])

    @rule(index=st.integers(0, 1000))
    def repeat_what_is_old(self, index: int) -> None:
        if self.history:
            self._deliver([self.history[index % len(self.history)]])

    @rule(name=SIDES, beyond=st.sampled_from([1, 100, 5000]))
    def acknowledge_what_was_never_sent(self, name: str, beyond: int) -> None:
        """RFC 5961, 5.2, by somebody who knows the numbers."""
        end = self.ends[name]
        if end.state is TcpState.CLOSED:
            return
        una, window = end.sender.una, end.sender.window
        forged = TcpSegment(
            end.remote[0], end.local[0], end.remote[1], end.local[1],
            end.receiver.nxt & MASK, (end.sender.nxt + beyond) & MASK, ACK, 1000,
        )  # fmt: skip
        if end.timestamp_offset >= 0:
            forged.timestamps = (end.timestamp_recent, 0)
        self.stacks[name].handle_packets([scapy_wire.build_tcp(forged)], self.world.now)
        assert (end.sender.una, end.sender.window) == (una, window)
        self._collect()

    @rule(name=SIDES, excess=st.sampled_from([1, 500, 5000]), order=st.booleans())
    def overrun_the_window(self, name: str, excess: int, order: bool) -> None:
        """An end sends more than it was allowed to: what is beyond the other's edge must not be kept."""
        end = self.ends[name]
        if end.state is TcpState.CLOSED:
            return
        self._collect()
        self.overrun = True
        before = len(self.wire)
        end.sender.window += excess
        end.flush(self.world.now)
        self._collect()
        packets, self.wire = self.wire[before:], self.wire[:before]
        if order:
            # What is missing before them first.
            packets = self.wire + packets
            self.wire = []
        self._deliver(packets)

    @rule(order=st.randoms(use_true_random=False))
    def reorder(self, order: random.Random) -> None:
        self._collect()
        order.shuffle(self.wire)

    @rule(
        index=st.integers(0, 1000),
        before=st.sampled_from([0, 0, 1, 100, 300]),
        keep=st.integers(1, 700),
        old=st.booleans(),
    )
    def resegment(self, index: int, before: int, keep: int, old: bool) -> None:
        """A middlebox sends a piece of a segment, starting later and ending earlier, besides the whole."""
        self._collect()
        source = self.history if old else self.wire
        if not source:
            return
        name, packet = source[index % len(source)]
        segment = scapy_wire.parse_untrusted(packet)
        assert isinstance(segment, TcpSegment)
        piece = segment.payload[before : before + keep]
        if piece:
            cut = replace(segment, seq=(segment.seq + before) & MASK, payload=piece, flags=segment.flags & ~FIN)
            self._deliver([(name, scapy_wire.build_tcp(cut))])

    @rule(index=st.integers(0, 1000), before=st.integers(1, 400), keep=st.integers(1, 400))
    def only_a_piece_arrives(self, index: int, before: int, keep: int) -> None:
        """The end of a segment, or its middle, and neither the whole nor what came before it: a SACK block that covers
        a part."""
        self._collect()
        data = [at for at, (_, packet) in enumerate(self.wire) if len(packet) > 200]
        if data:
            at = data[index % len(data)]
            name, packet = self.wire.pop(at)
            segment = scapy_wire.parse_untrusted(packet)
            assert isinstance(segment, TcpSegment)
            piece = segment.payload[before : before + keep]
            cut = replace(segment, seq=(segment.seq + before) & MASK, payload=piece, flags=segment.flags & ~FIN)
            self._deliver([(name, scapy_wire.build_tcp(cut))] if piece else [])

    @rule()
    def lose_pure_acks(self) -> None:
        self._collect()
        self.wire = [(name, packet) for name, packet in self.wire if len(packet) > 90]

    @rule(name=SIDES)
    def slurp_and_lose(self, name: str) -> None:
        """The window opens, and the news of it is lost."""
        self._collect()
        before = list(self.wire)
        self.read(name, 1 << 20)
        self.wire = before

    @rule()
    def next_timer(self) -> None:
        times = [time for stack in self.stacks.values() if (time := stack.next_timeout()) is not None]
        if times:
            self.world.now = max(self.world.now, min(times))
            for stack in self.stacks.values():
                for _ in range(5):
                    stack.handle_timeout(self.world.now)
                # What is due for ever keeps a processor busy.
                again = stack.next_timeout()
                assert again is None or again > self.world.now
            self._collect()

    @rule(name=SIDES, pause=st.sampled_from([0.1, 40.0, 300.0]))
    def the_end_is_not_late(self, name: str, pause: float) -> None:
        """Whatever was before, and however long nobody read: on a path that works, the end follows the last byte
        within a second."""
        other = "b" if name == "a" else "a"
        source, sink = self.ends[other], self.ends[name]
        if self.overrun or TcpState.CLOSED in (source.state, sink.state):
            # Who sends more than he was allowed to waits for the reader.
            return
        self._collect()
        for packet in self.wire:
            self.world.put(*packet)
        self.wire = []

        def settled() -> bool:
            # What was lost was sent again, and the news of a window that opened arrived.
            sender, receiver = source.sender, sink.receiver
            return sender.una == sender.nxt and (sender.window > 0) == (receiver.edge > receiver.nxt)

        self.world.run(settled, 4000)
        self.shut.add(other)
        source.shutdown_write(self.world.now)
        self.world.idle(pause)

        def drained() -> bool:
            self.read(name, 1 << 20)
            for packet in self.wire:
                self.world.put(*packet)
            self.wire = []
            return self.read_so_far[name] == self.written[other]

        self.world.run(drained, 4000)
        self.world.run(lambda: sink.eof, 1.0)

    @rule(
        name=SIDES,
        flags=st.sampled_from([SYN, RST, SYN | ACK, RST | ACK, ACK, ACK, ACK, FIN | ACK]),
        where=st.sampled_from(["behind", "inside", "ahead", "anywhere"]),
        distance=st.one_of(st.integers(1, 5000), st.integers(1, 1 << 22)),
        acknowledges=st.sampled_from(["una", "nxt", "between", "old"]),
        stamp=st.sampled_from([None, 0, 1, 1000, (1 << 31) - 1, -1]),
        size=st.sampled_from([0, 0, 1, 400]),
    )
    def forge(
        self, name: str, flags: int, where: str, distance: int, acknowledges: str, stamp: int | None, size: int
    ) -> None:
        """Somebody who knows addresses and ports, and one of the numbers by luck: a sequence number in the window, or
        an acknowledgement, or the peer's clock; never all."""
        other = self.ends["b" if name == "a" else "a"]
        sender, receiver = other.sender, other.receiver
        old = sender.una - (1 << 30)
        middle = (sender.una + sender.nxt) // 2
        ack = {"una": sender.una, "nxt": sender.nxt, "between": middle, "old": old}[acknowledges]
        seq = receiver.edge + 1 + distance
        if where == "behind":
            # A duplicate, as far as anybody knows: only its acknowledgement tells.
            seq, ack = receiver.nxt - size - 2 - distance, old
        elif where == "inside" and receiver.edge - receiver.nxt > 1:
            seq, ack = receiver.nxt + 1 + distance % (receiver.edge - receiver.nxt - 1), old
        elif where == "anywhere":
            seq = receiver.nxt + (1 << 31) - distance
        forged = TcpSegment(
            other.remote[0], other.local[0], other.remote[1], other.local[1],
            seq & MASK, ack & MASK, flags, 1000, b"?" * size,
        )  # fmt: skip
        if stamp is not None and other.timestamp_offset >= 0:
            forged.timestamps = ((other.timestamp_recent + stamp) & MASK, 0)
        before = self._numbers(other)
        stack = self.world.b if name == "a" else self.world.a
        stack.handle_packets([scapy_wire.build_tcp(forged)], self.world.now)
        assert self._numbers(other) == before
        self._collect()

    @staticmethod
    def _numbers(end: TcpConnection) -> tuple[object, ...]:
        sender, receiver = end.sender, end.receiver
        return (
            end.state, end.timestamp_recent, sender.una, sender.window, sender.wl1, sender.wl2,
            receiver.nxt, receiver.fin, receiver.queued, receiver.early,
        )  # fmt: skip

    # --- invariants ---

    def _alive(self) -> bool:
        return hasattr(self, "ends")

    @invariant()
    @precondition(_alive)
    def nothing_breaks(self) -> None:
        for name, end in self.ends.items():
            other = "b" if name == "a" else "a"
            assert end.error is None
            assert end.sender.una >= self.una[name]
            self.una[name] = end.sender.una
            if end.eof:
                assert other in self.shut
                assert self.read_so_far[name] == self.written[other]
            receiver = end.receiver
            assert receiver.queued + receiver.early <= receiver.capacity
            assert receiver.early == sum(map(len, receiver._pieces.values()))
            assert max([receiver.nxt, *receiver._ends]) <= receiver.edge
            # Nothing is taken that was not written, and the end is where it was put.
            arrived = receiver.nxt - self.base[name]
            assert arrived - receiver.finished <= self.written[other]
            if receiver.finished:
                assert other in self.shut
                assert arrived == self.written[other] + 1

    @invariant()
    @precondition(_alive)
    def acknowledged_is_received(self) -> None:
        """What the scoreboard believes is true: neither end ever takes back what it reported."""
        for name, end in self.ends.items():
            receiver = self.ends["b" if name == "a" else "a"].receiver
            assert end.sender.una <= receiver.nxt
            ranges = list(zip(receiver._starts, receiver._ends, strict=True))
            for segment in end.sender.board:
                if segment.sacked and segment.end > receiver.nxt:
                    missing = max(segment.start, receiver.nxt)
                    assert any(start <= missing and segment.end <= stop for start, stop in ranges)

    @invariant()
    @precondition(_alive)
    def segments_have_a_size(self) -> None:
        """Nobody's acknowledgement makes segments smaller, and nothing makes them larger than the link takes."""
        for name, end in self.ends.items():
            sender = end.sender
            assert self.told[name] <= end.path_mss <= 536
            if end.state is not TcpState.CLOSED:
                assert sender.mss == end.path_mss - (12 if end.timestamp_offset >= 0 else 0)
                larger = [segment for segment in sender.board if segment.end - segment.start > sender.mss]
                assert len(larger) <= (sender.probe is not None)
                assert len(sender.board) <= 2 + (sender.nxt - sender.una) // 16

    @invariant()
    @precondition(_alive)
    def timers_cover(self) -> None:
        for name, end in self.ends.items():
            if end.state is TcpState.CLOSED:
                continue
            sender = end.sender
            # A timer for what is under way, and for what the peer's window or the pacer holds back.
            if sender.una < sender.nxt:
                assert sender.deadline < inf
            if sender.buffered or (sender.fin and not sender.fin_sent):
                assert min(sender.deadline, sender.pacer.due) < inf
            timeout = self.stacks[name].next_timeout()
            if end.deadline < inf:
                assert timeout is not None and timeout <= end.deadline
            pipe = sum(
                (segment.end - segment.start) * ((not segment.lost) + segment.resent)
                for segment in sender.board
                if not segment.sacked
            )
            assert sender.board.pipe == pipe
            unmarked = [segment for segment in sender.board if segment.start >= sender.board._marked]
            assert not any(segment.sacked or segment.lost or segment.resent for segment in unmarked)
            assert len(sender.board._starts) <= len(sender.board)
            assert sender.nxt - sender.una == sum(segment.end - segment.start for segment in sender.board)

    def teardown(self) -> None:
        """The link heals: all data without a FIN, then the end."""
        if not self._alive():
            return
        for packet in self.wire:
            self.world.put(*packet)

        def drained() -> bool:
            for name in ("a", "b"):
                self.read(name, 1 << 20)
            for source, packet in self.wire:
                self.world.put(source, packet)
            self.wire = []
            return self.read_so_far["a"] == self.written["b"] and self.read_so_far["b"] == self.written["a"]

        self.wire = []
        self.world.run(drained, 4000)
        for name, end in self.ends.items():
            if name not in self.shut:
                end.shutdown_write(self.world.now)
        self.world.run(lambda: all(end.state is TcpState.CLOSED for end in self.ends.values()), 4000)
        for end in self.ends.values():
            assert end.error is None
            assert end.eof
        assert self.world.a.stats().tcp_connections == self.world.b.stats().tcp_connections == 0


TestTcpMachine = TcpMachine.TestCase
TestTcpMachine.settings = settings(stateful_step_count=60)
