"""Two reliability layers joined by a link that an adversary runs.

The machine plays the sessions above (which TLS bytes, which keys), the link between (lose, reorder,
repeat, mangle, forge) and the clock. Beside each core runs a model that is written from the
protocol, not from the code, and that says for every poll exactly which messages have to go out. What
the model does not say, such as which acknowledgements travel in which packet, is held to rules: only
what is safe is acknowledged, everything owed is acknowledged in time, nobody acknowledges for ever.

At the end of each example the link heals: then every byte has to arrive, and both sides have to
fall silent.
"""

from __future__ import annotations

import itertools
import struct
from collections import Counter, deque
from dataclasses import dataclass, field

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from minivpn_trio.controlchannel.channel import ControlChannel
from minivpn_trio.errors import DropReason
from minivpn_trio.items import ExpectKey, OpenKey, RetireKey, Segment, SequencedPacket, SoftResetSeen, TLSBytes
from minivpn_trio.packet.ids import KeyID, PacketID, Role, next_key_id
from minivpn_trio.packet.opcodes import Opcode
from minivpn_trio.reliable.transport import ReliableTransport

SOFT_RESET = Opcode.CONTROL_SOFT_RESET_V1
RESET_OF = {Role.CLIENT: Opcode.CONTROL_HARD_RESET_CLIENT_V2, Role.SERVER: Opcode.CONTROL_HARD_RESET_SERVER_V2}
#: What the other side may open key 0 with.
RESETS_FOR = {
    Role.CLIENT: {Opcode.CONTROL_HARD_RESET_SERVER_V2},
    Role.SERVER: {Opcode.CONTROL_HARD_RESET_CLIENT_V2, Opcode.CONTROL_HARD_RESET_CLIENT_V3},
}
SENT_BY_NOBODY = b"forged"

# The protocol's numbers, on purpose not imported from the code under test.
SEND_WINDOW, RECEIVE_WINDOW, ACK_QUEUE, ACKS_IN_CONTROL, ACKS_IN_ACK = 6, 12, 8, 4, 8
FIRST_TIMEOUT, MAX_TIMEOUT, ACK_HOLD, FAST_RESEND = 2.0, 60.0, 0.1, 3
MAX_QUEUED, MAX_CONVERSATIONS = 64, 3
PIECE = 12


def key_of(generation: int) -> KeyID:
    """The key id of the n-th key of a session: 0, 1 ... 7, 1 ... 7."""
    key = KeyID(0)
    for _ in range(generation):
        key = next_key_id(key)
    return key


def stream(sender: Role, generation: int, start: int, size: int) -> bytes:
    """A piece of an endless byte stream that differs everywhere and for every key and direction."""
    salt = (0x80 if sender is Role.SERVER else 0) | (generation & 0x7F)
    words = range(start // 4, (start + size) // 4 + 1)
    return b"".join(struct.pack(">I", salt << 24 | word) for word in words)[start % 4 :][:size]


@dataclass
class Sent:
    """What the model knows of a message that went out."""

    opcode: Opcode
    payload: bytes
    next_try: float
    timeout: float
    later: int = 0
    acked: bool = False


@dataclass
class Talk:
    """The model of one side of one conversation."""

    messages: list[tuple[Opcode, bytes]] = field(default_factory=list)
    sent: list[Sent] = field(default_factory=list)
    open: bool = False
    heard: bool = False
    #: Ids that are stored, and how many messages were taken; and whether message 0 arrived.
    stored: set[int] = field(default_factory=set)
    taken: int = 0
    #: Acknowledgements that are due, by id, with their time; and all that ever went out.
    owed: dict[int, float] = field(default_factory=dict)
    acknowledged: set[int] = field(default_factory=set)

    def has(self, packet_id: int) -> bool:
        return packet_id < self.taken or packet_id in self.stored

    @property
    def deliverable(self) -> int:
        return next(number for number in itertools.count() if self.taken + number not in self.stored)

    def handle_acks(self, acks: tuple[int, ...], now: float) -> None:
        for ack in acks:
            if ack < len(self.sent) and not self.sent[ack].acked:
                self.sent[ack].acked = True
                for earlier in self.sent[:ack]:
                    earlier.later += 1
                    if earlier.later >= FAST_RESEND:
                        earlier.next_try = min(earlier.next_try, now)

    def handle(self, packet: SequencedPacket, now: float) -> DropReason | None:
        self.handle_acks(packet.acks, now)
        if self.open and not self.heard:
            self.heard = True
            for message in self.sent:
                message.next_try, message.timeout = min(message.next_try, now), FIRST_TIMEOUT
        if packet.packet_id is None:
            return None
        duplicate = self.has(packet.packet_id)
        if not duplicate and packet.packet_id >= self.taken + RECEIVE_WINDOW:
            return DropReason.OUT_OF_WINDOW
        if packet.packet_id not in self.owed and len(self.owed) < ACK_QUEUE:
            held = packet.packet_id == 0 and not duplicate
            self.owed[packet.packet_id] = now + ACK_HOLD if held else now
        if duplicate:
            return DropReason.DUPLICATE
        self.stored.add(packet.packet_id)
        return None

    def due(self, now: float) -> list[int]:
        """Exactly the ids that have to go out at ``now``."""
        due = [i for i, message in enumerate(self.sent) if not message.acked and message.next_try <= now]
        oldest = next((i for i, message in enumerate(self.sent) if not message.acked), len(self.sent))
        last = oldest + SEND_WINDOW if self.has(0) else 1
        return due + list(range(len(self.sent), min(last, len(self.messages))))

    def transmit(self, packet_id: int, now: float) -> tuple[int, bool]:
        """A message goes out. Returns how many retransmissions that is, and whether a fast one."""
        if packet_id == len(self.sent):
            opcode, payload = self.messages[packet_id]
            self.sent.append(Sent(opcode, payload, now + FIRST_TIMEOUT, FIRST_TIMEOUT * 2))
            return 0, False
        message = self.sent[packet_id]
        fast = message.later >= FAST_RESEND
        message.later = 0
        message.next_try = now + message.timeout
        if not fast:
            message.timeout = min(message.timeout * 2, MAX_TIMEOUT)
        return 1, fast


class Side:
    """A core under test, its ControlChannel, and the model of the session above them."""

    def __init__(self, role: Role) -> None:
        self.role = role
        self.core = ReliableTransport(role=role)
        self.channel = ControlChannel(role=role, max_payload=lambda: PIECE)
        self.pending: deque[Segment | OpenKey | ExpectKey | RetireKey] = deque()
        self.talks: dict[int, Talk] = {}
        self.expecting: int | None = None
        self.newest = 0
        self.opened: set[int] = set()
        self.seen: set[int] = set()
        self.written: Counter[int] = Counter()
        self.received: dict[int, bytearray] = {}
        self.retransmissions = 0
        self.fast = 0
        self.drops: Counter[DropReason] = Counter()

    def generation_of(self, key_id: KeyID) -> int:
        """The newest key that goes by this id, counting the one that may come next; -1: none."""
        return next((g for g in range(self.newest + 1, -1, -1) if key_of(g) == key_id), -1)

    @property
    def live(self) -> list[int]:
        return sorted(self.talks)

    def established(self, generation: int) -> bool:
        return generation in self.opened and generation in self.seen

    # the session above

    def open_key(self, generation: int) -> None:
        """Said again in answer to the peer's reset, whoever came first: that must not matter."""
        self.opened.add(generation)
        self.newest = max(self.newest, generation)
        opcode = RESET_OF[self.role] if generation == 0 else SOFT_RESET
        self.command(OpenKey(key_of(generation), opcode))

    def expect_next(self, generation: int) -> None:
        if self.established(generation) and generation == self.newest:
            self.command(ExpectKey(key_of(generation + 1)))

    def command(self, item: OpenKey | ExpectKey) -> None:
        self.pending.extend(self.channel.segment([item]))

    def write(self, generation: int, size: int) -> None:
        data = stream(self.role, generation, self.written[generation], size)
        self.written[generation] += size
        self.pending.extend(self.channel.segment([TLSBytes(key_of(generation), data)]))

    def pump(self, now: float) -> None:
        """Hand over what the core has room for, as its worker does."""
        while self.pending:
            item = self.pending[0]
            if isinstance(item, Segment) and not self.core.can_submit:
                return
            self.core.submit(self.pending.popleft(), now)
            if isinstance(item, Segment):
                generation = self.generation_of(item.key_id)
                if generation in self.talks:
                    self.talks[generation].messages.append((item.opcode, item.payload))
                else:
                    self.drops[DropReason.UNKNOWN_KEY] += 1
            elif isinstance(item, OpenKey):
                talk = self.begin(self.generation_of(item.key_id))
                if not talk.open:
                    talk.open = True
                    talk.messages.append((item.opcode, item.payload))
            elif isinstance(item, ExpectKey) and self.generation_of(item.key_id) not in self.talks:
                self.expecting = self.generation_of(item.key_id)

    def begin(self, generation: int) -> Talk:
        if self.expecting == generation:
            self.expecting = None
        return self.talks.setdefault(generation, Talk())

    def retire(self, generation: int, now: float) -> None:
        key_id = key_of(generation)
        self.core.submit(RetireKey(key_id), now)
        self.talks.pop(generation, None)
        self.pending = deque(item for item in self.pending if item.key_id != key_id)

    def take(self, accept: bool) -> None:
        """The stage above takes what is deliverable, or has no room."""
        offered: list[Segment] = []

        def offer(segments: list[Segment]) -> bool:
            assert segments, "an empty list is not worth an offer"
            offered.extend(segments)
            return accept

        everything = self.core.deliver(offer)
        counts = Counter(self.generation_of(segment.key_id) for segment in offered)
        assert counts == Counter({g: talk.deliverable for g, talk in self.talks.items() if talk.deliverable})
        assert everything == (accept or not offered)
        if not accept:
            return
        for generation, count in counts.items():
            talk = self.talks[generation]
            talk.stored -= set(range(talk.taken, talk.taken + count))
            talk.taken += count
        for segment in offered:
            if segment.opcode not in {Opcode.CONTROL_V1, SOFT_RESET}:
                assert segment.key_id == 0
                self.reset_seen(0)
        for item in self.channel.handle_segments(offered):
            generation = self.generation_of(item.key_id)
            if isinstance(item, TLSBytes):
                self.received.setdefault(generation, bytearray()).extend(item.data)
            elif isinstance(item, SoftResetSeen):
                self.reset_seen(generation)

    def reset_seen(self, generation: int) -> None:
        assert generation not in self.seen, "a reset was delivered twice"
        self.seen.add(generation)
        self.open_key(generation)
        self.expect_next(generation)

    # the link

    def receive(self, packets: list[tuple[int | None, SequencedPacket]], now: float) -> None:
        """Packets with the generation they belong to; None: the muxer would have let pass what
        no conversation may accept."""
        for generation, packet in packets:
            reason = self.judge(generation, packet, now)
            if reason is not None:
                self.drops[reason] += 1
        self.core.handle_packets([packet for _, packet in packets], now)

    def right_opcodes(self, key_id: KeyID, packet_id: int) -> set[Opcode]:
        if packet_id == 0:
            return RESETS_FOR[self.role] if key_id == 0 else {SOFT_RESET}
        wrapped = packet_id == 1 and key_id == 0 and self.role is Role.SERVER
        return {Opcode.CONTROL_V1, Opcode.CONTROL_WKC_V1} if wrapped else {Opcode.CONTROL_V1}

    def judge(self, generation: int | None, packet: SequencedPacket, now: float) -> DropReason | None:
        if len(packet.acks) > ACK_QUEUE or (packet.opcode is Opcode.ACK_V1) != (packet.packet_id is None):
            return DropReason.MALFORMED
        if len(packet.payload) > 2048:
            return DropReason.TOO_LONG
        if packet.packet_id is not None and packet.opcode not in self.right_opcodes(packet.key_id, packet.packet_id):
            return DropReason.UNEXPECTED_OPCODE
        if generation is None:
            generation = self.generation_of(packet.key_id)
        if generation not in self.talks:
            first = generation == 0 and self.role is Role.SERVER and 0 not in self.opened | self.seen
            if packet.packet_id != 0 or not (first or (self.expecting is not None and self.expecting == generation)):
                return DropReason.UNKNOWN_KEY
            self.newest = max(self.newest, generation)
        return self.begin(generation).handle(packet, now)

    def poll(self, now: float) -> list[tuple[int, SequencedPacket]]:
        """Ask the core for packets, and hold each of them to the rules."""
        timeout = self.core.next_timeout()
        packets = self.core.poll_transmit(now)
        assert bool(packets) == (timeout is not None and timeout <= now), "next_timeout tells the truth"
        assert self.core.poll_transmit(now) == [], "a second look finds nothing"
        timeout = self.core.next_timeout()
        assert timeout is None or timeout > now
        tagged = [(self.generation_of(packet.key_id), packet) for packet in packets]
        for generation, talk in self.talks.items():
            self.check(talk, [packet for g, packet in tagged if g == generation], now)
        assert {g for g, _ in tagged} <= set(self.talks)
        assert (self.core.retransmissions, self.core.fast_retransmissions) == (self.retransmissions, self.fast)
        return tagged

    def check(self, talk: Talk, packets: list[SequencedPacket], now: float) -> None:
        expected = talk.due(now) if talk.open else []
        overdue = {packet_id for packet_id, due in talk.owed.items() if due <= now}
        assert [packet.packet_id for packet in packets if packet.packet_id is not None] == expected
        for packet in packets:
            limit = ACKS_IN_ACK if packet.packet_id is None else ACKS_IN_CONTROL
            fresh = [ack for ack in packet.acks if ack in talk.owed]
            assert all(talk.has(ack) for ack in packet.acks), "acknowledged what is not safe"
            assert len(set(packet.acks)) == len(packet.acks)
            assert list(packet.acks[: len(fresh)]) == list(talk.owed)[: len(fresh)], "new ones first, in order"
            assert len(fresh) == min(limit, len(talk.owed))
            talk.acknowledged.update(packet.acks)
            assert len(packet.acks) == min(limit, len(talk.acknowledged)), "room is used for repetition"
            if packet.packet_id is None:
                assert packet.opcode is Opcode.ACK_V1
                assert any(due <= now for due in talk.owed.values()), "an acknowledgement that nobody waits for"
                assert (packet.payload, packet.attempt) == (b"", 1)
            else:
                retransmission, fast = talk.transmit(packet.packet_id, now)
                self.retransmissions += retransmission
                self.fast += fast
                message = talk.sent[packet.packet_id]
                assert (packet.opcode, packet.payload) == (message.opcode, message.payload)
                assert (packet.attempt > 1) == bool(retransmission)
            for ack in fresh:
                del talk.owed[ack]
        assert not (talk.open and overdue & set(talk.owed)), "an acknowledgement is overdue"

    def check_bounds(self) -> None:
        conversations = self.core.conversations
        assert [c.key_id for c in conversations] == [key_of(g) for g in self.talks]
        assert len(conversations) <= MAX_CONVERSATIONS
        assert sum(c.sender.queued for c in conversations) <= MAX_QUEUED
        for conversation, talk in zip(conversations, self.talks.values(), strict=True):
            assert conversation.sender.in_flight <= SEND_WINDOW
            assert conversation.receiver.stored == len(talk.stored) <= RECEIVE_WINDOW
            assert set(conversation.acks.pending) == set(talk.owed)
            assert len(conversation.acks.recent) <= ACK_QUEUE
        assert self.core.drops == self.drops


indexes = st.integers(0, 10_000)
sides = st.sampled_from(["client", "server"])
fates = st.sampled_from(["deliver", "deliver", "deliver", "lose", "repeat", "delay", "refuse"])
sizes = st.one_of(st.integers(1, 3 * PIECE), st.integers(1, 150 * PIECE))


class ReliableMachine(RuleBasedStateMachine):
    """The adversary's moves. ``wire[x]`` is what is on its way to ``x``."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.sides = {"client": Side(Role.CLIENT), "server": Side(Role.SERVER)}
        self.wire: dict[str, list[tuple[int, SequencedPacket]]] = {"client": [], "server": []}
        self.history: dict[str, list[tuple[int, SequencedPacket]]] = {"client": [], "server": []}

    def peer(self, name: str) -> str:
        return "server" if name == "client" else "client"

    @initialize(shaken=st.booleans())
    def connect(self, shaken: bool) -> None:
        self.sides["client"].open_key(0)
        self.pump()
        if shaken:
            self.exchange(rounds=3)

    def pump(self) -> None:
        for side in self.sides.values():
            side.pump(self.now)

    def hand_over(self, name: str, packets: list[tuple[int | None, SequencedPacket]]) -> None:
        side = self.sides[name]
        # An id that came round again is another key by now; outside of this model the replay window
        # of the control channel stops such a packet.
        side.receive([(g, p) for g, p in packets if g is None or g > side.newest + 1 - 7], self.now)
        self.pump()

    # the sessions

    @rule(name=sides, which=indexes, size=sizes)
    def write(self, name: str, which: int, size: int) -> None:
        side = self.sides[name]
        keys = [g for g in side.live if g in side.opened]
        if keys and len(side.pending) < 400:
            side.write(keys[which % len(keys)], size)
            self.pump()

    @rule(name=sides)
    def rekey(self, name: str) -> None:
        side = self.sides[name]
        if side.established(side.newest):
            for generation in [g for g in range(side.newest - 1) if any(g in s.talks for s in self.sides.values())]:
                self.retire(generation)
            side.open_key(side.newest + 1)
            self.pump()

    @rule()
    def rekey_at_once(self) -> None:
        """Both sides have the same idea."""
        client, server = self.sides.values()
        if client.newest == server.newest and all(s.established(s.newest) for s in (client, server)):
            self.rekey("client")
            self.rekey("server")

    @rule()
    def retire_oldest(self) -> None:
        oldest = min((g for side in self.sides.values() for g in side.talks), default=0)
        if all(side.established(oldest) and oldest < side.newest for side in self.sides.values()):
            self.retire(oldest)

    def retire(self, generation: int) -> None:
        for side in self.sides.values():
            side.retire(generation, self.now)

    @rule(name=sides, accept=st.booleans())
    def take(self, name: str, accept: bool) -> None:
        self.sides[name].take(accept)
        self.pump()

    # the clock

    @rule(seconds=st.one_of(st.sampled_from([0.0, 0.05, 0.1, 0.5, 1.0, 2.0, 4.0]), st.floats(0, 1e5)))
    def pass_time(self, seconds: float) -> None:
        then = self.now + seconds
        for side in self.sides.values():
            timeout = side.core.next_timeout()
            if timeout is None or timeout > then:
                assert side.core.poll_transmit(then) == [], "before its timeout a core has nothing to say"
        self.now = then

    # the link

    @rule(name=sides)
    def poll(self, name: str) -> None:
        packets = self.sides[name].poll(self.now)
        self.wire[self.peer(name)] += packets
        self.history[self.peer(name)] += packets

    @rule(name=sides, rounds=st.integers(1, 4))
    def exchange_one_way(self, name: str, rounds: int) -> None:
        for _ in range(rounds):
            self.poll(name)
            self.deliver_all(self.peer(name), 0)
            self.take(self.peer(name), True)

    @rule(rounds=st.integers(1, 4))
    def exchange(self, rounds: int) -> None:
        for _ in range(rounds):
            for name in self.sides:
                self.exchange_one_way(name, 1)

    @rule(
        rounds=st.integers(1, 10),
        pieces=st.integers(0, 8),
        fates=st.lists(fates, min_size=1, max_size=12),
    )
    def suffer(self, rounds: int, pieces: int, fates: list[str]) -> None:
        """The conversation goes on over a link on which each packet has its own fate, and under
        stages that sometimes have no room; after each round time goes on to the next timeout."""
        fate = itertools.cycle(fates)
        for _ in range(rounds):
            for name in self.sides:
                if pieces:
                    self.write(name, -1, pieces * PIECE)
                self.poll(name)
            for name in self.sides:
                coming, self.wire[name] = self.wire[name], []
                for packet in coming:
                    match next(fate):
                        case "delay":
                            self.wire[name].append(packet)
                        case "repeat":
                            self.hand_over(name, [packet, packet])
                        case "deliver" | "refuse":
                            self.hand_over(name, [packet])
                self.take(name, next(fate) != "refuse")
            timeouts = [t for side in self.sides.values() if (t := side.core.next_timeout()) is not None]
            self.now = max([self.now, *([min(timeouts)] if timeouts else [])])

    @rule(timeouts=st.integers(1, 9))
    def silence(self, timeouts: int) -> None:
        """For a while nothing arrives at all."""
        self.suffer(rounds=timeouts, pieces=0, fates=["lose"])

    @rule(times=st.integers(1, 8), which=sides)
    def rekey_often(self, times: int, which: str) -> None:
        """So that key ids come round again."""
        for _ in range(times):
            self.rekey(which)
            self.exchange(rounds=2)

    @precondition(lambda self: any(self.wire.values()))
    @rule(name=sides, which=indexes)
    def deliver(self, name: str, which: int) -> None:
        """Any one of those on their way, so they overtake each other."""
        if wire := self.wire[name]:
            self.hand_over(name, [wire.pop(which % len(wire))])

    @precondition(lambda self: any(self.wire.values()))
    @rule(name=sides, turn=indexes)
    def deliver_all(self, name: str, turn: int) -> None:
        wire = self.wire[name]
        self.wire[name] = []
        cut = turn % (len(wire) + 1)
        self.hand_over(name, [*wire[cut:], *wire[:cut]])

    @precondition(lambda self: any(self.wire.values()))
    @rule(name=sides, which=indexes, everything=st.booleans())
    def lose(self, name: str, which: int, everything: bool) -> None:
        if wire := self.wire[name]:
            first = which % len(wire)
            del wire[0 if everything else first : None if everything else first + 1]

    @rule(name=sides, which=indexes, times=st.integers(1, 3))
    def repeat(self, name: str, which: int, times: int) -> None:
        """Something that was sent once arrives again, whether it arrived before or not."""
        if history := self.history[name]:
            self.hand_over(name, [history[which % len(history)]] * times)

    # What follows reaches a core when the control channel is not authenticated and the adversary
    # knows both session ids. He cannot be kept from inventing the very next message, nor from
    # acknowledging what was lost; everything else must not do any harm.

    def target(self, name: str, which: int) -> tuple[int, Talk] | None:
        talks = list(self.sides[name].talks.items())
        return talks[which % len(talks)] if talks else None

    @rule(name=sides, which=indexes, offset=st.integers(0, 0xFFFF0000))
    def forge_far_ahead(self, name: str, which: int, offset: int) -> None:
        if target := self.target(name, which):
            packet_id = PacketID(target[1].taken + RECEIVE_WINDOW + offset)
            self.forge(name, key_of(target[0]), Opcode.CONTROL_V1, packet_id)

    @rule(name=sides, which=indexes, first=indexes, count=st.integers(1, 12))
    def forge_what_is_known(self, name: str, which: int, first: int, count: int) -> None:
        """Ids that were used before, with other content."""
        if target := self.target(name, which):
            known = sorted({*range(target[1].taken), *target[1].stored} - {0})
            for number in range(first, first + count) if known else []:
                self.forge(name, key_of(target[0]), Opcode.CONTROL_V1, PacketID(known[number % len(known)]))

    @rule(
        name=sides,
        which=indexes,
        acks=st.lists(st.one_of(st.integers(0, 8), st.integers(0, 0xFFFFFFFF)), min_size=1, max_size=8),
    )
    def forge_acks(self, name: str, which: int, acks: list[int]) -> None:
        """Of what was never sent, and of what was acknowledged long ago."""
        if target := self.target(name, which):
            generation, talk = target
            harmless = [ack + len(talk.sent) for ack in acks]
            harmless += [ack for ack in acks if ack < len(talk.sent) and talk.sent[ack].acked]
            valid = tuple(PacketID(min(ack, 0xFFFFFFFF)) for ack in harmless)[:ACK_QUEUE]
            self.forge(name, key_of(generation), Opcode.ACK_V1, None, acks=valid)

    @rule(name=sides, key=st.integers(0, 7), opcode=st.sampled_from(Opcode), number=st.sampled_from([None, 0, 1, 5]))
    def forge_nonsense(self, name: str, key: int, opcode: Opcode, number: int | None) -> None:
        """Any opcode, key and id, except those that the protocol would have to believe."""
        side = self.sides[name]
        key_id = KeyID(key)
        unknown = key_id not in [key_of(g) for g in side.talks]
        opens = number == 0 and (key == 0 or (side.expecting is not None and key_of(side.expecting) == key_id))
        believable = number is not None and opcode in side.right_opcodes(key_id, number)
        if not believable or (unknown and not opens):
            self.forge(name, key_id, opcode, None if number is None else PacketID(number))

    @rule(name=sides, which=indexes, long=st.booleans())
    def forge_too_much(self, name: str, which: int, long: bool) -> None:
        if target := self.target(name, which):
            key_id, next_id = key_of(target[0]), PacketID(max(1, target[1].taken))
            if long:
                self.forge(name, key_id, Opcode.CONTROL_V1, next_id, payload=bytes(2049))
            else:
                self.forge(name, key_id, Opcode.CONTROL_V1, next_id, acks=tuple(PacketID(i) for i in range(9)))

    @precondition(lambda self: any(self.wire.values()))
    @rule(name=sides, which=indexes, far=st.integers(RECEIVE_WINDOW, 0xFFFF))
    def mangle(self, name: str, which: int, far: int) -> None:
        """A packet changes on its way and is not what it was: its id, and what it acknowledges."""
        if wire := self.wire[name]:
            generation, packet = wire.pop(which % len(wire))
            talk = self.sides[name].talks.get(generation)
            if talk is not None and packet.packet_id is not None:
                packet_id = PacketID(talk.taken + far)
                acks = tuple(PacketID(len(talk.sent) + ack) for ack in packet.acks)
                changed = packet._replace(opcode=Opcode.CONTROL_V1, packet_id=packet_id, acks=acks)
                self.hand_over(name, [(generation, changed)])

    def forge(
        self,
        name: str,
        key_id: KeyID,
        opcode: Opcode,
        packet_id: PacketID | None,
        *,
        acks: tuple[PacketID, ...] = (),
        payload: bytes = SENT_BY_NOBODY,
    ) -> None:
        self.hand_over(name, [(None, SequencedPacket(key_id, opcode, acks, packet_id, payload))])

    # what holds at all times, and in the end

    @invariant()
    def bounds_hold(self) -> None:
        for side in self.sides.values():
            side.check_bounds()

    @invariant()
    def what_arrived_is_what_was_sent(self) -> None:
        for name, side in self.sides.items():
            sender = self.sides[self.peer(name)]
            for generation, data in side.received.items():
                assert len(data) <= sender.written[generation]
                assert data == stream(sender.role, generation, 0, len(data))

    def teardown(self) -> None:
        """The link heals. Everything arrives, and then there is silence."""
        healed_at = self.now
        for _ in range(1000):
            self.exchange(rounds=1)
            self.what_arrived_is_what_was_sent()
            timeouts = [t for side in self.sides.values() if (t := side.core.next_timeout()) is not None]
            if not timeouts:
                break
            self.now = max(self.now, min(timeouts))
        else:
            pytest.fail("they never fall silent")
        # One full timeout for what was lost just before, and again for what it held back.
        assert self.now - healed_at <= 2 * MAX_TIMEOUT + FIRST_TIMEOUT
        client, server = self.sides.values()
        assert client.newest == server.newest
        assert client.live == server.live
        for side, peer in ((client, server), (server, client)):
            assert not side.pending
            assert side.core.idle
            for generation in side.live:
                assert side.established(generation)
                assert len(side.received.get(generation, b"")) == peer.written[generation]
        self.bounds_hold()


TestReliableMachine = ReliableMachine.TestCase
