"""The whole fast path held against the whole slow one: two stacks in one state, one of which knows no fast connection.

Its packets go one by one through scapy and ``handle_segment``, RFC 9293 in its order. Both get the same packets, in
order or not, with right and wrong numbers, flags, options and lengths, damaged in all kinds of ways; and the same is
written, read and waited for at both. A burst of one packet must leave the same state, to the last number, the same
output and the same counts of what was dropped. Of a longer burst the fast path hears the newest acknowledgement only,
so there only what both must agree on is compared.

Three differences are meant:

- which *reason* counts for a packet with two defects, a wrong checksum among them;
- the fast path sums IPv4 header and segment together, so that errors in both may cancel out;
- how often a burst behind a hole was told of: the slow path tells at once each time (acknowledgement.py).
"""

from __future__ import annotations

import random
from collections import deque
from enum import Enum
from itertools import chain
from typing import Any

from hostile_packets import MASK, ip, sack, tcp, timestamps
from hypothesis import given, note
from hypothesis import strategies as st

from minivpn_trio.netstack import wire
from minivpn_trio.netstack.packets import ACK, FIN, PSH, RST, SYN, URG
from minivpn_trio.netstack.scapy_wire.headers import checksum, checksum_holds
from minivpn_trio.netstack.stack import Stack
from minivpn_trio.netstack.tcp.connection import TcpConnection, TcpState
from minivpn_trio.netstack.tcp.scoreboard import Scoreboard
from minivpn_trio.netstack.tcp.settings import TcpSettings

A4, B4 = bytes((10, 8, 0, 2)), bytes((10, 8, 0, 1))
A6, B6 = bytes.fromhex("fd00" + "00" * 13 + "02"), bytes.fromhex("fd00" + "00" * 13 + "01")
MSS = 1000
DATA = random.Random(3).randbytes(1 << 16)
ECE, CWR, NS = 0x40, 0x80, 0x100

#: What is not compared: what belongs to the stack, caches, and what the module's docstring names.
SKIPPED = {
    "_network", "_memory", "_settings", "_builder", "_model", "path", "_share", "inbox", "key", "on_change",
    "_hole", "_told", "_held",
}  # fmt: skip


class Nobody(dict[bytes, TcpConnection]):
    """A table in which nothing stays."""

    def __setitem__(self, key: bytes, value: TcpConnection) -> None:
        pass


def state_of(thing: Any) -> Any:
    """Everything that ``thing`` consists of, as something that can be compared and shown."""
    if thing is None or isinstance(thing, int | float | str | bytes | Enum):
        return thing
    if isinstance(thing, OSError):
        return thing.errno
    if isinstance(thing, dict):
        return {repr(state_of(key)): state_of(value) for key, value in thing.items()}
    if isinstance(thing, set | frozenset):
        return sorted(map(repr, map(state_of, thing)))
    if isinstance(thing, list | tuple | deque):
        return [state_of(each) for each in thing]
    if callable(thing):
        return None
    slots = chain.from_iterable(getattr(kind, "__slots__", ()) for kind in type(thing).__mro__)
    names = sorted({*slots, *getattr(thing, "__dict__", ())} - SKIPPED)
    state = {name: state_of(getattr(thing, name)) for name in names if hasattr(thing, name)}
    if isinstance(thing, Scoreboard):
        # What the last acknowledgement brought, of no use after it.
        for name in ("sample", "resent", "late"):
            del state[name]
    if state.get("_timestamps") is False:
        # When the clock that there is none of was last heard.
        del state["_ts_recent_at"]
    if "chunks" in state:
        # How it is cut is nobody's business.
        state["chunks"] = b"".join(thing.chunks)
    return state


def differences(left: Any, right: Any, at: str = "") -> list[str]:
    if isinstance(left, dict) and isinstance(right, dict):
        return [line for key in sorted({*left, *right})
                for line in differences(left.get(key), right.get(key), f"{at}.{key}")]  # fmt: skip
    return [] if left == right else [f"{at}: fast {left!r}, slow {right!r}"]


def rough(connection: TcpConnection) -> dict[str, Any]:
    """What a burst must lead to, however many of its acknowledgements are looked at."""
    sender, receiver = connection.sender, connection.receiver
    return {
        "state": connection.state, "error": state_of(connection.error), "recent": connection.timestamp_recent,
        "una": sender.una, "window": sender.window, "wl1": sender.wl1, "wl2": sender.wl2, "retries": sender.retries,
        "nxt": receiver.nxt, "edge": receiver.edge, "data": b"".join(receiver.chunks), "fin": receiver.fin,
        "early": state_of((receiver.early, receiver._starts, receiver._ends)), "heard": connection._heard_at,
        "acknowledged": connection._acks.last, "sacked": sender.board.sacked_bytes,
    }  # fmt: skip


class Twins:
    """A stack as it is, another without a fast path, and one script that speaks to both."""

    def __init__(self, *, v6: bool, stamps: bool, sacks: bool, scale: int, active: bool, memory: int) -> None:
        self.us, self.peer = (A6, B6) if v6 else (A4, B4)
        self.now, self.stamps = 5000.0, stamps
        settings = TcpSettings(sack=sacks, timestamps=stamps, pacing=False, receive_buffer=memory)
        self.stacks = [
            Stack(addresses=[A4, A6], mtu=1400, rng=random.Random(1).randbytes, now=self.now, settings=settings)
            for _ in range(2)
        ]
        self.stacks[1]._fast = Nobody()
        options = b"\2\4" + MSS.to_bytes(2, "big") + bytes((1, 3, 3, scale)) + b"\1\1\4\2" * sacks
        self.irs = MASK - 2000
        self.sport, self.port = 7777, 80
        if active:
            self.ends = [stack.connect_tcp((self.peer, 80), self.now) for stack in self.stacks]
            self.sport, self.port = 80, self.ends[0].local[1]
            self.compare_output()
            self.now += 0.005
            self.give([self.packet(self.irs, self.ends[0].iss + 1, SYN | ACK, 60_000, options + self.stamp(0), b"")])
        else:
            listeners = [stack.listen_tcp((None, 80), self.now) for stack in self.stacks]
            self.give([self.packet(self.irs, 0, SYN, 60_000, options + self.stamp(0), b"")])
            self.ends = [next(iter(listener.half_open)) for listener in listeners]
            self.now += 0.005
            acknowledgement = self.packet(self.irs + 1, self.ends[0].iss + 1, ACK, 60_000 >> scale, self.stamp(0), b"")
            self.give([acknowledgement])
            assert [listener.accept() for listener in listeners] == self.ends
        assert all(end.connected for end in self.ends)
        assert [len(stack._fast) for stack in self.stacks] == [1, 0]
        self.compare()

    @property
    def end(self) -> TcpConnection:
        """The one that packets are made for; the other one is the same."""
        return self.ends[1]

    def stamp(self, age: float, value: int = 0) -> bytes:
        """Timestamps: ours of now and ``value`` more, and the stack's of ``age`` seconds ago."""
        if not self.stamps:
            return b""
        echo = 0 if not hasattr(self, "ends") else self.end._tsval(self.now - age)
        return timestamps(int(self.now * 1000) + value, echo)

    def packet(
        self, seq: int, ack: int, flags: int, window: int, options: bytes, payload: bytes, fragment: int = 0x4000,
        ip_options: bytes = b"",
    ) -> bytes:  # fmt: skip
        body = tcp(self.peer, self.us, self.sport, self.port, seq, ack, flags, window, options, payload)
        return ip(self.peer, self.us, body, fragment=fragment, options=ip_options)

    def give(self, burst: list[bytes]) -> None:
        for stack in self.stacks:
            stack.handle_packets(burst, self.now)

    def do(self, name: str, *args: Any) -> None:
        """The same at both ends."""
        results = []
        for end in self.ends:
            try:
                results.append(getattr(end, name)(*args))
            except OSError as exc:
                results.append(exc.errno)
        assert results[0] == results[1], name

    def wait(self, seconds: float) -> None:
        """Time passes; timers go off when they are due."""
        until = self.now + seconds
        for _ in range(200):
            due = [stack.next_timeout() for stack in self.stacks]
            assert due[0] == due[1]
            if due[0] is None or due[0] > until:
                break
            self.now = max(self.now, due[0])
            for stack in self.stacks:
                stack.handle_timeout(self.now)
            self.compare_output()
        self.now = until

    def compare_output(self) -> None:
        fast, slow = ([packet.hex() for packet in stack.take_output(10_000, self.now)] for stack in self.stacks)
        assert fast == slow

    def compare(self) -> None:
        """To the last number."""
        fast, slow = map(state_of, self.ends)
        assert (found := differences(fast, slow)) == [], found
        self.compare_output()
        fast, slow = (state_of(stack._time_wait._records) for stack in self.stacks)
        assert (found := differences(fast, slow)) == [], found
        assert sum(self.stacks[0].drops.values()) == sum(self.stacks[1].drops.values())
        due = [stack.next_timeout() for stack in self.stacks]
        assert due[0] == due[1]


# --- packets ---

#: Positions, from where they matter.
sequences = st.one_of(
    st.just(("next", 0)), st.just(("next", 0)),
    st.tuples(
        st.sampled_from(["next", "edge", "told", "far"]),
        st.sampled_from([0, 1, -1, MSS, -MSS, 2 * MSS, 70_000, -70_000]),
    ),
)  # fmt: skip
acknowledgements = st.one_of(
    st.just(("nxt", 0)), st.just(("una", 0)),
    st.tuples(st.sampled_from(["una", "nxt", "far"]), st.sampled_from([1, -1, MSS, -MSS, -70_000])),
)  # fmt: skip
plain_flags = st.sampled_from([ACK, ACK | PSH])
all_flags = st.one_of(
    plain_flags,
    st.just(ACK | FIN),
    st.sampled_from([ACK | FIN, ACK | URG, ACK | ECE, ACK | CWR | NS, SYN, SYN | ACK, RST, RST | ACK, FIN, 0]),
    st.integers(0, 0x1FF),
)  # fmt: skip
windows = st.sampled_from(["same", "same", 0, 1, 500, 65535])
sizes = st.sampled_from([0, 0, 1, 100, 255, 256, MSS, MSS])
#: Seconds that the echo is old, milliseconds that the peer's clock is ahead.
clocks = st.tuples(st.sampled_from([0.005, 0.005, 0.0, 0.1, -1.0]), st.sampled_from([0, 0, 1, -1, -1000, 1 << 31]))
layouts = st.sampled_from(
    ["usual", "usual", "none", "behind", "ended", "unknown", "sack", "dsack", "twice", "short", "long", "syn's", "cut"]
)
damage = st.one_of(
    st.none(), st.none(), st.none(),
    st.tuples(st.just("flip"), st.lists(st.integers(0, 8 * 120), min_size=1, max_size=3), st.booleans()),
    st.tuples(st.just("cut"), st.integers(0, 80), st.just(False)),
    st.tuples(st.just("pad"), st.integers(1, 40), st.just(False)),
    st.tuples(st.just("offset"), st.integers(0, 15), st.just(True)),
    st.tuples(st.just("urgent"), st.integers(1, 65535), st.just(True)),
    st.tuples(st.just("fragment"), st.sampled_from([0x0000, 0x2000, 0x8000, 0x4001]), st.just(False)),
    st.tuples(st.just("options"), st.sampled_from([bytes(4), b"\1\1\1\0"]), st.just(False)),
)  # fmt: skip
Spec = tuple[Any, ...]
specs = st.tuples(sequences, acknowledgements, all_flags, windows, sizes, clocks, layouts, damage)
ticks = st.tuples(st.sampled_from([0.005, 0.005, 0.4, 3.5]), st.sampled_from([0, 0, 1, 5]))
plain = st.tuples(
    st.just(("next", 0)), acknowledgements, plain_flags, windows, sizes, ticks, st.just("usual"), st.none()
)  # fmt: skip
early = st.tuples(
    st.sampled_from([("next", MSS), ("next", 2 * MSS), ("next", 3 * MSS)]), acknowledgements, plain_flags, windows,
    st.just(MSS), ticks, st.just("usual"), st.none(),
)  # fmt: skip


@st.composite
def nearly_plain(draw: st.DrawFn) -> tuple[Any, ...]:
    """In order and as usual, but for one thing."""
    spec = [("next", 0), draw(st.sampled_from([("nxt", 0), ("una", 0)])), ACK, "same", draw(sizes), (0.005, 0), "usual"]
    strategies = [sequences, acknowledgements, all_flags, windows, sizes, clocks, layouts, damage]
    at = draw(st.integers(0, len(strategies) - 1))
    spec.append(None)
    spec[at] = draw(strategies[at])
    return tuple(spec)


noise = st.tuples(st.just("noise"), st.sampled_from([b"", b"\x45", b"\x60"]), st.binary(max_size=100))


def options_of(twins: Twins, layout: str, stamp: bytes, ack: int) -> bytes:
    receiver_nxt, una = twins.end.receiver.nxt, twins.end.sender.una
    block = (una + MSS, una + 2 * MSS)
    return {
        "usual": stamp,
        "none": b"",
        "behind": stamp[2:] + stamp[:2],
        "ended": stamp + b"\0\xff\xff\xff",
        "unknown": b"\xfd\4\1\2" + stamp,
        "sack": stamp + sack([block]),
        "dsack": stamp + sack([(una - MSS, una), block, (receiver_nxt, receiver_nxt + 1)]),
        "twice": stamp + stamp,
        "short": stamp + b"\5\1\0\0",
        "long": stamp + b"\1\1\5\x28",
        "syn's": stamp + b"\2\4\1\0\3\3\0\1",
        "cut": stamp + b"\1\1\1\5",
    }[layout]


def make(twins: Twins, spec: Spec, ahead: int = 0) -> bytes:
    """The packet that ``spec`` describes, as things stand, or will when ``ahead`` bytes more have come."""
    if spec[0] == "noise":
        return spec[1] + spec[2]
    (from_seq, seq), (from_ack, ack), flags, window, size, (age, value), layout, hurt = spec
    end = twins.end
    sender, receiver = end.sender, end.receiver
    told, far = end._acks.last, receiver.nxt + (1 << 31)
    seq += {"next": receiver.nxt + ahead, "edge": receiver.edge, "told": told, "far": far}[from_seq]
    ack += {"una": sender.una, "nxt": sender.nxt, "far": sender.una + (1 << 31)}[from_ack]
    if window == "same":
        window = min(sender.window >> end._snd_scale, 0xFFFF)
    options = options_of(twins, layout, twins.stamp(age, value), ack)
    payload = DATA[seq % 30_000 : seq % 30_000 + size]
    kind, how, repair = hurt or ("", 0, False)
    ipv4 = len(twins.us) == 4
    extra = {"fragment": how} if kind == "fragment" else {"ip_options": how} if kind == "options" else {}
    packet = twins.packet(seq, ack, flags, window, options, payload, **extra)
    start = 20 if ipv4 else 40
    changed = bytearray(packet)
    if kind == "flip":
        for bit in how:
            changed[bit // 8 % len(changed)] ^= 1 << bit % 8
    elif kind == "cut":
        del changed[-how or len(changed) :]
    elif kind == "pad":
        changed += bytes(how)
    elif kind == "offset":
        changed[start + 12] = how << 4 | changed[start + 12] & 15
    elif kind == "urgent":
        changed[start + 18 : start + 20] = how.to_bytes(2, "big")
    return repaired(bytes(changed), start) if repair else bytes(changed)


def repaired(packet: bytes, start: int) -> bytes:
    """With checksums that hold, so that the damage is seen by who comes after them."""
    changed = bytearray(packet)
    if start == 20:
        changed[10:12] = bytes(2)
        changed[10:12] = checksum(bytes(changed[:20])).to_bytes(2, "big")
    pseudo = bytes(changed[12:20] if start == 20 else changed[8:40])
    pseudo += (6).to_bytes(4, "big") + (len(changed) - start).to_bytes(4, "big")
    changed[start + 16 : start + 18] = bytes(2)
    changed[start + 16 : start + 18] = checksum(pseudo + bytes(changed[start:])).to_bytes(2, "big")
    return bytes(changed)


def sound(packet: bytes) -> bool:
    """Whether the checksums hold, as far as there are any."""
    try:
        return wire.intact([packet]) == [packet]
    except IndexError:
        return False


def errors_cancel_out(packet: bytes) -> bool:
    return packet[:1] == b"\x45" and len(packet) >= 40 and not checksum_holds(packet[:20]) and sound(packet)


# --- what both must agree on ---

worlds = st.fixed_dictionaries({
    "v6": st.booleans(), "stamps": st.sampled_from([True, True, False]), "sacks": st.booleans(),
    "scale": st.sampled_from([0, 7]), "active": st.booleans(), "memory": st.sampled_from([3000, 60_000, 524_288]),
})  # fmt: skip
steps = st.one_of(
    st.tuples(st.just("packet"), plain), st.tuples(st.just("packet"), early),
    st.tuples(st.just("packet"), nearly_plain()), st.tuples(st.just("packet"), nearly_plain()),
    st.tuples(st.just("packet"), specs | noise),
    st.tuples(st.just("write"), st.sampled_from([1, 500, 3000, 20_000])),
    st.tuples(st.just("read"), st.sampled_from([1, 1000, 1 << 20])),
    st.tuples(st.just("wait"), st.sampled_from([0.0005, 0.005, 0.05, 0.3, 3.0])),
    st.tuples(st.sampled_from(["shutdown_write", "close"]), st.none()),
)  # fmt: skip


def play(twins: Twins, script: list[tuple[str, Any]]) -> None:
    """Step by step, everything compared after each."""
    for action, argument in script:
        if action == "packet":
            packet = make(twins, argument)
            if errors_cancel_out(packet):
                continue
            note(f"{argument} {packet.hex()}")
            twins.now += 0.0001
            before = [stack.drops.copy() for stack in twins.stacks]
            twins.give([packet])
            if sound(packet):
                fast, slow = (stack.drops - then for stack, then in zip(twins.stacks, before, strict=True))
                assert fast == slow, (fast, slow)
        elif action == "wait":
            twins.wait(argument)
        elif action == "write":
            twins.do("write", DATA[:argument], twins.now)
        elif action == "read":
            twins.do("read", argument, twins.now)
        else:
            twins.do(action, twins.now)
        twins.compare()


def compare_one_by_one(world: dict[str, Any], script: list[tuple[str, Any]]) -> None:
    """Everything, after each packet."""
    play(Twins(**world), script)


def compare_after_a_burst(world: dict[str, Any], script: list[tuple[str, Any]], burst: list[Spec]) -> None:
    """The state, after the last packet."""
    twins = Twins(**world)
    play(twins, script)
    packets, ahead = [], 0
    for spec in burst:
        packets.append(make(twins, spec, ahead))
        if spec[0] == ("next", 0):
            # The next one follows.
            ahead += spec[4]
    if any(map(errors_cancel_out, packets)):
        return
    note("\n".join(packet.hex() for packet in packets))
    twins.now += 0.0001
    twins.give(packets)
    if TcpState.CLOSED in {end.state for end in twins.ends}:
        # What comes behind the end of a connection in one burst is nobody's: no answer to it, and no count.
        assert [end.state for end in twins.ends] == [TcpState.CLOSED] * 2
        assert state_of(twins.ends[0].error) == state_of(twins.ends[1].error)
        return
    assert (found := differences(*map(rough, twins.ends))) == [], found
    assert sum(twins.stacks[0].drops.values()) == sum(twins.stacks[1].drops.values())
    twins.do("read", 1 << 20, twins.now)


shots = st.one_of(plain, plain, early, nearly_plain(), specs | noise)
ONE_BY_ONE = given(worlds, st.lists(steps, min_size=2, max_size=16))
AFTER_A_BURST = given(worlds, st.lists(steps, max_size=8), st.lists(shots, min_size=2, max_size=8))

test_one_by_one_both_paths_do_the_same = ONE_BY_ONE(compare_one_by_one)
test_after_a_burst_both_paths_are_at_the_same_place = AFTER_A_BURST(compare_after_a_burst)
