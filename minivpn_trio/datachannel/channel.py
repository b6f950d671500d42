"""DataChannel: IP packets in, datagrams out, and the other way round; bursts of both.

On the way in a datagram is matched to a live key, authenticated and decrypted,
checked for replay, put together from fragments, freed of its compression
framing, and swallowed if it is a ping or an OCC message. On the way out a
packet is framed, fragmented and sealed with the key that sends at this time.

A burst is processed as a whole: nearly always it is one run of packets of one
key with consecutive ids, and each step has a short way for that case.

This file is long because both ways of a burst are read together: they share the keys, the counters and the silences,
and a step that stood elsewhere would be one more call for each burst.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any

from ..errors import DropReason, ProtocolError, TunnelClosed
from ..events import SessionState
from ..items import Burst, DataChannelKey, ForeignBurst, KeepaliveTimes
from ..packet.ids import RandomBytes, Role, next_key_id
from ..packet.opcodes import KEY_ID_MASK, OPCODE_SHIFT, Opcode
from ..packet.replay import DEFAULT_REPLAY_TIME, DEFAULT_REPLAY_WINDOW
from ..stats import DataStats
from ..tracing import BurstTraced, Tracer
from .ciphers import V1_HEADER_SIZE, V2_HEADER_SIZE, Buffer
from .early import EarlyPackets
from .fragment import Fragmenter, Reassembler
from .keepalive import PING, Keepalive
from .keyslots import KeySlot, KeySlots
from .occ import OCC_EXIT_MESSAGE, OCC_MAGIC, OccResponder

__all__ = ["DataChannel"]

#: IP packets begin with 0x45 or more (version 4 or 6 in the high bits), pings and OCC messages
#: with less; so does the empty packet. One comparison sorts out what needs a closer look.
LOWEST_IP = b"\x40"

#: As bytes; of an empty datagram none.
first_byte: Callable[[bytes], bytes] = itemgetter(slice(1))

HEADER_SIZES = {Opcode.DATA_V1: V1_HEADER_SIZE, Opcode.DATA_V2: V2_HEADER_SIZE}


class DataChannel:
    """One end of the data channel of one session.

    ``replay_window`` is in ids, ``replay_time`` in seconds; ``rng`` gives CBC
    its IVs and fragments their first number; ``session_state`` is asked only
    for traces. All times are seconds of one monotonic clock.

    The tunnel's end is a TunnelClosed: raised by ``handle_timeout`` where the
    peer fell silent, handed out by ``poll_closed`` where it said that it leaves.
    """

    def __init__(
        self,
        *,
        role: Role,
        rng: RandomBytes,
        replay_window: int = DEFAULT_REPLAY_WINDOW,
        replay_time: float = DEFAULT_REPLAY_TIME,
        tracer: Tracer | None = None,
        session_state: Callable[[], SessionState] = lambda: SessionState.ACTIVE,
    ) -> None:
        self._role = role
        self._rng = rng
        self._replay_window = replay_window
        self._replay_time = replay_time
        self._tracer = tracer
        self._session_state = session_state
        self._slots = KeySlots()
        # First byte of a datagram -> the key that opens it and the size of its header.
        self._receivers: dict[bytes, tuple[KeySlot, int]] = {}
        # The key that sends until ``_sender_until``, when the choice is made again.
        self._sender: KeySlot | None = None
        self._sender_until = float("-inf")
        self._keys_expire_at = float("inf")
        self._keepalive = Keepalive()
        self._occ = OccResponder()
        self._fragmenter = Fragmenter(rng(1)[0])
        self._reassembler = Reassembler()
        self._early = EarlyPackets()
        self._rekey_reason: str | None = None
        self._closed: TunnelClosed | None = None
        #: Called when ``next_timeout``, ``poll_rekey`` or ``poll_closed`` may have a new answer that does
        #: not come by itself with time. Must not raise.
        self.on_wakeup: Callable[[], object] | None = None
        #: Called by ``install_key`` when packets that came before the key wait to be opened, which the next
        #: ``decrypt_burst`` does, with or without others.
        self.on_early: Callable[[], object] | None = None
        #: Called with the source of a ``ForeignBurst`` that holds the newest packet of the peer's: it is there.
        self.on_foreign: Callable[[Any], object] | None = None
        #: What was dropped, and why.
        self.drops: Counter[DropReason] = Counter()
        self._packets_in = 0
        self._packets_out = 0
        self._bytes_in = 0
        self._bytes_out = 0
        self._pings_in = 0
        self._pings_out = 0
        self._keys_installed = 0

    # Commands

    def install_key(self, key: DataChannelKey, now: float) -> None:
        """Receive with ``key`` from now on, and send with it after ``key.send_after`` seconds, or at
        once if there is no other.

        ValueError: the cipher, the digest or the framing is not one that this package has.
        ConfigError: ``fragment`` is too small to carry anything.
        """
        slot = KeySlot(
            key,
            rng=self._rng,
            replay_window=self._replay_window,
            replay_time=self._replay_time,
            sends_at=now + key.send_after if len(self._slots) else now,
        )
        self._slots.install(slot, now, key.transition_window)
        self._keys_installed += 1
        self._keys_changed()
        self._keepalive.configure(ping=key.ping, ping_restart=key.ping_restart, ping_exit=key.ping_exit, now=now)
        self._keepalive.watch_use(inactive=key.inactive, inactive_bytes=key.inactive_bytes, now=now)
        self._occ.options = key.options
        self._rekey_reason = None
        self._wake()
        if self._early and self.on_early is not None:
            self.on_early()

    def change_keepalive(self, times: KeepaliveTimes, now: float) -> None:
        """Use other silences from now on. Ignored without a key, which brings its own."""
        if len(self._slots):
            self._keepalive.configure(
                ping=times.ping, ping_restart=times.ping_restart, ping_exit=times.ping_exit, now=now
            )
            self._wake()

    def goodbye(self, now: float) -> Burst:
        """The datagram that tells the peer that we leave (OCC EXIT); empty before the first key."""
        return self._seal([OCC_EXIT_MESSAGE], now)

    # Input

    def decrypt_burst(self, packets: Sequence[bytes], now: float) -> Burst:
        """The IP packets inside the datagrams ``packets``, in order. Whatever is not one is dropped
        and counted. Never raises."""
        if isinstance(packets, ForeignBurst):
            return self._decrypt_foreign(packets, now)
        if now >= self._keys_expire_at:
            self._expire_keys(now)
        if self._early:
            packets = self._with_early(packets, now)
        tracer = self._tracer
        drops_before = self.drops.copy() if tracer is not None else None
        bytes_before = self._bytes_in
        firsts = set(map(first_byte, packets))
        opened: Burst = []
        if len(firsts) == 1:
            opened = self._open_run(firsts.pop(), packets, now)
        else:
            for first, run in groupby(packets, first_byte):
                opened += self._open_run(first, list(run), now)
        self._packets_in += len(opened)
        if self._keepalive.inactive and self._bytes_in > bytes_before:
            self._keepalive.count(self._bytes_in - bytes_before, now)
        if tracer is not None and drops_before is not None and packets:
            self._trace_in(tracer, packets, self.drops - drops_before, now)
        return opened

    def encrypt_burst(self, packets: Sequence[Buffer], now: float) -> Burst:
        """The datagrams that carry the IP packets ``packets``; one each, or several where ``fragment``
        is in use. Before the first key there are none: the packets are dropped and counted."""
        if not all(packets):
            self.drops[DropReason.TOO_SHORT] += sum(not packet for packet in packets)
            packets = [packet for packet in packets if packet]
        if not packets:
            return []
        size = sum(map(len, packets))
        sealed = self._seal(packets, now, size)
        if sealed:
            self._packets_out += len(packets)
            self._bytes_out += size
            if self._keepalive.inactive:
                self._keepalive.count(size, now)
        return sealed

    # Output

    def next_timeout(self) -> float | None:
        """When ``handle_timeout`` may have something to do. Traffic moves it into the future, or ``on_wakeup``
        is called, so a caller may sleep until an earlier answer and ask again."""
        times = (
            self._keepalive.next_timeout(),
            self._slots.next_timeout(),
            self._reassembler.next_timeout(),
            self._occ.next_timeout(),
        )
        return min((time for time in times if time is not None), default=None)

    def handle_timeout(self, now: float) -> Burst:
        """Forget old keys and stale fragments; the pings and answers that are due.

        TunnelClosed: the peer was silent for too long, or the tunnel not used (``inactive``).
        """
        if now >= self._keys_expire_at:
            self._expire_keys(now)
        if len(self._reassembler):
            self._reassembler.handle_timeout(now)
        self._keepalive.check_peer(now)
        answers = self._answer(now) if self._occ.next_timeout() is not None else []
        if not self._keepalive.ping_is_due(now):
            return answers
        pings = self._seal([PING], now)
        if pings:
            self._pings_out += 1
        else:
            # Nothing can be sent: asking again at once would not help.
            self._keepalive.last_sent = now
        return pings

    def poll_rekey(self) -> str | None:
        """Why new keys are wanted, for as long as they are; None: they are not."""
        return self._rekey_reason

    def poll_closed(self) -> TunnelClosed | None:
        """The error to raise, once the peer said that it leaves."""
        return self._closed

    @property
    def live_keys(self) -> int:
        """How many keys receive."""
        return len(self._slots)

    def stats(self) -> DataStats:
        """The counters as they are now."""
        return DataStats(
            packets_in=self._packets_in,
            packets_out=self._packets_out,
            bytes_in=self._bytes_in,
            bytes_out=self._bytes_out,
            pings_in=self._pings_in,
            pings_out=self._pings_out,
            keys_installed=self._keys_installed,
            drops=dict(self.drops),
        )

    # The way in, in the order in which packets take it

    def _open_run(self, first: bytes, packets: Sequence[bytes], now: float) -> list[bytes]:
        """The IP packets in datagrams that all begin with the byte ``first``."""
        drops = self.drops
        receiver = self._receivers.get(first)
        if receiver is None:
            reason = _why_unknown(first)
            dropped = len(packets)
            if reason is DropReason.UNKNOWN_KEY and self._is_next(first):
                dropped = self._early.hold(first, packets, now)
            if dropped:
                drops[reason] += dropped
            return []
        slot, header_size = receiver
        if not slot.may_open:
            drops[DropReason.LIMIT] += len(packets)
            return []
        ids, texts = slot.opener.open_run_untrusted(packets, header_size, drops)
        if texts:
            texts = self._without_replays(slot, ids, texts, now)
        if not texts:
            self._check_limits(slot, now)
            return []
        self._keepalive.last_heard = now
        if slot.sends_at > now:
            # The peer sends with this key, so it has it, and a peer that renegotiates sooner than our wait
            # ends forgets the older one then.
            slot.sends_at = now
            self._sender_until = now
        usage = slot.usage
        size = sum(map(len, texts))
        usage.packets_in += len(texts)
        usage.bytes_in += size
        self._check_limits(slot, now)
        fresh = texts
        if slot.fragment_limit is not None:
            texts = self._join_fragments_untrusted(texts, now)
        if slot.framing is not None:
            texts = slot.framing.decode_burst_untrusted(texts, drops)
        if texts and min(texts) < LOWEST_IP:
            texts = self._without_messages(slot, texts)
        self._bytes_in += size if texts is fresh else sum(map(len, texts))
        return texts

    def _decrypt_foreign(self, burst: ForeignBurst, now: float) -> Burst:
        """``decrypt_burst``; the peer is where ``burst`` comes from if something in it authenticates and is newer than
        all that came before: a late packet tells where the peer was (RFC 9000, 9.3)."""
        # Packets that waited for their key came from elsewhere, and prove nothing.
        opened = self.decrypt_burst([], now) if self._early else []
        before = self._keepalive.take_last_heard()
        slot, highest = self._slots.newest_heard
        opened += self.decrypt_burst(list(burst), now)
        if self._keepalive.last_heard is None:
            self._keepalive.last_heard = before
            return opened
        newest, reached = self._slots.newest_heard
        if self.on_foreign is not None and (newest is not slot or reached > highest):
            self.on_foreign(burst.source)
        return opened

    def _is_next(self, first: bytes) -> bool:
        """Whether ``first`` names the key that will come next, if any does."""
        newest = self._slots.newest
        return newest is not None and first[0] & KEY_ID_MASK == next_key_id(newest.key_id)

    def _with_early(self, packets: Sequence[bytes], now: float) -> Sequence[bytes]:
        """``packets`` after those that waited for their key, if that is there now."""
        early = self._early
        if early.is_stale(now):
            self.drops[DropReason.UNKNOWN_KEY] += len(early.take())
        elif early.first in self._receivers:
            return [*early.take(), *packets]
        return packets

    def _without_replays(self, slot: KeySlot, ids: tuple[int, ...], texts: list[bytes], now: float) -> list[bytes]:
        """Those of ``texts`` whose ids come for the first time. They authenticated, so the ids are the peer's."""
        count = len(ids)
        if ids == tuple(range(ids[0], ids[0] + count)) and slot.replay.accept_run(ids[0], count, now):
            return texts
        fresh = slot.replay.check_and_update
        texts = [text for packet_id, text in zip(ids, texts, strict=True) if fresh(packet_id, now)]
        if len(texts) < count:
            self.drops[DropReason.REPLAY] += count - len(texts)
        return texts

    def _join_fragments_untrusted(self, texts: Sequence[bytes], now: float) -> list[bytes]:
        """The packets that ``texts`` are or complete."""
        join = self._reassembler.join_untrusted
        packets: list[bytes] = []
        for text in texts:
            try:
                packet = join(text, now)
            except ProtocolError as exc:
                self.drops[exc.reason] += 1
            else:
                if packet is not None:
                    packets.append(packet)
        return packets

    def _without_messages(self, slot: KeySlot, texts: Iterable[bytes]) -> list[bytes]:
        """``texts`` without pings, OCC messages and empty packets."""
        packets: list[bytes] = []
        for text in texts:
            if text == PING:
                self._pings_in += 1
            elif text.startswith(OCC_EXIT_MESSAGE):
                if self._closed is None:
                    self._closed = TunnelClosed("the peer left", restart=self._role is Role.CLIENT)
                    self._wake()
            elif text.startswith(OCC_MAGIC):
                if self._occ.handle_untrusted(text, slot.datagram_size(len(text))):
                    self._wake()
            elif text:
                packets.append(text)
            else:
                self.drops[DropReason.TOO_SHORT] += 1
        return packets

    # The way out

    def _seal(self, packets: Sequence[Buffer], now: float, size: int | None = None) -> Burst:
        """``packets``, none of them empty, as datagrams; ``size`` is how many bytes they are, if that is known."""
        if now >= self._keys_expire_at:
            self._expire_keys(now)
        if now >= self._sender_until:
            self._choose_sender(now)
        slot = self._sender
        if slot is None:
            self.drops[DropReason.NOT_READY] += len(packets)
            return []
        texts = packets
        if slot.framing is not None:
            encode = slot.framing.encode
            texts = [encode(packet) for packet in texts]
        if slot.fragment_limit is not None:
            texts = self._split(texts, slot.fragment_limit)
        usage = slot.usage
        room = usage.room()
        if room < len(texts):
            self.drops[DropReason.LIMIT] += len(texts) - room
            texts = texts[:room]
            self._sender_until = now
        count = len(texts)
        if not count:
            return []
        # The ids are spent before they are used: not even an error makes one come twice.
        first_id = usage.next_id
        usage.packets_out += count
        usage.bytes_out += size if size is not None and texts is packets else sum(map(len, texts))
        sealed = slot.sealer.seal_burst(first_id, texts)
        self._keepalive.last_sent = now
        self._check_limits(slot, now)
        if self._tracer is not None:
            self._trace_out(self._tracer, sealed, now)
        return sealed

    def _answer(self, now: float) -> Burst:
        """What the peer asked for by OCC, as far as it is due."""
        slot = self._slots.newest
        if slot is None:
            return []
        messages = self._occ.poll(now, slot.largest_message, self._rng)
        return self._seal(messages, now) if messages else []

    def _split(self, packets: Sequence[Buffer], limit: int) -> list[bytes]:
        """``packets`` with fragment headers, long ones in pieces of at most ``limit`` bytes."""
        pieces: list[bytes] = []
        for packet in packets:
            try:
                pieces += self._fragmenter.split(packet, limit)
            except ProtocolError as exc:
                self.drops[exc.reason] += 1
        return pieces

    # Keys

    def _choose_sender(self, now: float) -> None:
        """Find the key that sends now, and until when that is sure to hold."""
        self._sender = self._slots.sender(now)
        self._sender_until = self._slots.next_sender_at(now)

    def _expire_keys(self, now: float) -> None:
        if self._slots.expire(now):
            self._keys_changed()

    def _keys_changed(self) -> None:
        """Build what the burst methods look up."""
        self._receivers = {
            bytes([opcode << OPCODE_SHIFT | slot.key_id]): (slot, header_size)
            for slot in self._slots
            for opcode, header_size in HEADER_SIZES.items()
        }
        self._sender = None
        self._sender_until = float("-inf")
        expiry = self._slots.next_timeout()
        self._keys_expire_at = float("inf") if expiry is None else expiry

    def _check_limits(self, slot: KeySlot, now: float) -> None:
        """Once a burst: does the newest key want a successor? And an older one that has it already, to go?"""
        newest = self._slots.newest
        if slot is newest:
            if self._rekey_reason is None:
                self._rekey_reason = slot.rekey_reason()
                if self._rekey_reason is not None:
                    self._wake()
        elif newest is not None and newest.sends_at > now and slot.usage.is_overdue:
            # It was replaced for what it had carried: waiting for the peer must not let it carry much more.
            newest.sends_at = now
            self._sender_until = now

    def _wake(self) -> None:
        if self.on_wakeup is not None:
            self.on_wakeup()

    def _trace_out(self, tracer: Tracer, packets: Sequence[bytes], now: float) -> None:
        size = sum(map(len, packets))
        stage = self._session_state()
        tracer.trace(BurstTraced(time=now, stage=stage, direction="out", packets=len(packets), size=size))

    def _trace_in(self, tracer: Tracer, packets: Sequence[bytes], dropped: Counter[DropReason], now: float) -> None:
        """One record for the burst, and one for each reason why some of it was dropped."""
        stage = self._session_state()
        size = sum(map(len, packets))
        tracer.trace(BurstTraced(time=now, stage=stage, direction="in", packets=len(packets), size=size))
        for reason, count in dropped.items():
            # Which of them it was is not kept: the size is that of an average one.
            share = size * count // max(len(packets), 1)
            tracer.trace(
                BurstTraced(time=now, stage=stage, direction="dropped", packets=count, size=share, drop_reason=reason)
            )


def _why_unknown(first: bytes) -> DropReason:
    """Why no key opens datagrams that begin with ``first``."""
    if not first:
        return DropReason.TOO_SHORT
    opcode = first[0] >> OPCODE_SHIFT
    if opcode not in HEADER_SIZES:
        return DropReason.UNEXPECTED_OPCODE
    return DropReason.UNKNOWN_KEY
