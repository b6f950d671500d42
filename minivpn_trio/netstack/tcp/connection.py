"""One TCP connection: the states of RFC 9293 around a Receiver and a Sender.

Input comes two ways. ``handle_packets`` is the fast path: a burst of raw
packets of a synchronised connection, read by struct, acknowledged once.
``handle_segment`` takes one parsed segment: SYN, FIN, RST, and everything
before the handshake is complete. Neither sends; ``flush`` does, once after each burst, timeout or command.

TIME-WAIT is not a state here but a record of the stack's (timewait.py), and
LISTEN is listener.py's. The connection reaches the rest of the stack only through
the methods of ``Network``.

This file is longer than most: the states of one connection are one idea.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Callable
from math import inf

from ...errors import DropReason, ProtocolError
from ..packets import ACK, FIN, PSH, RST, SYN, Address, TcpSegment
from ..sequence import MASK, Position, later_timestamp, unwrap
from ..wire import SEQUENCE_AT4, SEQUENCE_AT6, TCP_FIELDS, SegmentBuilder, intact
from .acknowledgement import AckSchedule
from .congestion import ALGORITHMS
from .network import Network, os_error
from .options import SACK_ROOM, TIMESTAMP_PREFIX, parse_options_untrusted, sack_option
from .receiver import Receiver
from .rto import RetransmissionTimeout
from .scoreboard import SentSegment
from .sender import Sender
from .settings import TcpSettings
from .state import HANDSHAKE, SENDING, TcpState

__all__ = ["TcpConnection", "TcpState"]

#: Without an MSS option (RFC 9293, 3.7.1); and the least that is believed (Linux, TCP_MIN_MSS).
_DEFAULT_MSS4, _DEFAULT_MSS6, _LEAST_MSS = 536, 1220, 88
_LARGEST_SCALE = 14
_TIMESTAMP_SIZE = 12
#: Offset 8 words, ACK, PSH or not; ECN's bits do not matter.
_PLAIN_MASK, _PLAIN = 0xFE37, 0x8010
_CONTROL_MASK = FIN | SYN | RST | 0x20
#: RFC 7323, 5.5: after so long timestamps may have wrapped.
_PAWS_VALID = 24 * 24 * 3600.0


class TcpConnection:
    """One TCP connection. Made by ``Stack.connect_tcp``, or handed out by a listener.

    Commands (``write``, ``read``, ``shutdown_write``, ``close``, ``abort``)
    never call ``on_change``: their caller knows.
    """

    __slots__ = (
        "_acks",
        "_builder",
        "_changed",
        "_closed_by_owner",
        "_handshake_deadline",
        "_handshake_sent_at",
        "_handshake_tries",
        "_heard_at",
        "_keepalive_deadline",
        "_keepalive_probes",
        "_linger_deadline",
        "_model",
        "_mss_limit",
        "_network",
        "_offset",
        "_settings",
        "_snd_scale",
        "_timestamps",
        "_ts_offset",
        "_ts_recent",
        "_ts_recent_at",
        "active",
        "deadline",
        "error",
        "inbox",
        "iss",
        "keepalive",
        "key",
        "local",
        "on_change",
        "path_mss",
        "receiver",
        "remote",
        "scheduled",
        "sender",
        "state",
    )

    def __init__(
        self,
        network: Network,
        *,
        local: tuple[Address, int],
        remote: tuple[Address, int],
        iss: int,
        mss: int,
        ts_offset: int,
        settings: TcpSettings,
        now: float,
    ) -> None:
        #: (address, port) of both ends.
        self.local = local
        self.remote = remote
        self.state = TcpState.CLOSED
        #: Why the connection is unusable: OSError with errno (ECONNREFUSED, ECONNRESET, ETIMEDOUT,
        #: EHOSTUNREACH, ENETUNREACH, ENETDOWN, ECONNABORTED...); None as long as it works, or after an orderly end.
        self.error: OSError | None = None
        #: Called once after a burst or a timeout in which any of the properties may have changed.
        self.on_change: Callable[[], None] | None = None
        #: We sent the first SYN.
        self.active = False
        #: Seconds of silence before the first keepalive probe; None: no keepalive.
        self.keepalive = settings.keepalive_idle
        #: For the stack: the addresses and ports of arriving packets; packets of the present burst; when
        #: ``handle_timeout`` is due (inf: never), and the earliest entry for us in the timer heap.
        self.key = remote[0] + local[0] + remote[1].to_bytes(2, "big") + local[1].to_bytes(2, "big")
        self.inbox: list[bytes] = []
        self.deadline = inf
        self.scheduled = inf
        self.iss = iss
        #: Largest segment that the path takes, before options (RFC 6691).
        self.path_mss = mss
        self._network = network
        self._settings = settings
        self._mss_limit = mss
        self._offset = SEQUENCE_AT4 if len(local[0]) == 4 else SEQUENCE_AT6
        self._builder: SegmentBuilder | None = None
        self._timestamps = settings.timestamps
        self._ts_offset = ts_offset
        self._ts_recent = 0
        self._ts_recent_at = now
        self._snd_scale = 0
        rto = RetransmissionTimeout(initial=settings.rto_initial, floor=settings.rto_min, ceiling=settings.rto_max)
        self.sender = Sender(
            iss,
            mss=mss,
            settings=settings,
            rto=rto,
            sack=False,
            congestion=ALGORITHMS[settings.congestion](
                mss, settings.initial_window_segments, settings.initial_ssthresh_segments
            ),
        )
        scale = 0
        while 0xFFFF << scale < settings.receive_buffer_max - 0xFFFF and scale < _LARGEST_SCALE:
            scale += 1
        self.receiver = Receiver(
            0, capacity=settings.receive_buffer, capacity_max=settings.receive_buffer_max, scale=scale, mss=mss, now=now
        )
        self._acks = AckSchedule(delay=settings.delayed_ack, challenge_interval=settings.challenge_ack_interval)
        self._handshake_deadline = inf
        self._handshake_tries = 0
        self._handshake_sent_at = now
        self._model = b""
        self._linger_deadline = inf
        self._keepalive_deadline = inf
        self._keepalive_probes = 0
        self._heard_at = now
        self._changed = False
        self._closed_by_owner = False

    def __repr__(self) -> str:
        return f"<TcpConnection {self.local[1]} -> {self.remote[1]} {self.state.value}>"

    # --- properties ---

    @property
    def connected(self) -> bool:
        """The handshake was completed; stays True through half closing and the end."""
        return self._builder is not None and self.state not in HANDSHAKE

    @property
    def readable(self) -> bool:
        """``read`` has something to say: bytes, the end, or an error. Level-triggered."""
        return bool(self.receiver.queued) or self.receiver.finished or self.error is not None

    @property
    def receivable(self) -> int:
        """Bytes that can be read at once."""
        return self.receiver.queued

    @property
    def writable(self) -> bool:
        """``write`` would accept something, or raise. Level-triggered, and one level for both: it accepts
        nothing while the send buffer is more than half full."""
        if self.error is not None or self.state not in SENDING:
            return self.state not in HANDSHAKE
        return self.sender.fin or self.sender.unacknowledged <= self._settings.send_buffer // 2

    @property
    def eof(self) -> bool:
        """The peer's FIN arrived, and everything before it was read."""
        return self.receiver.finished and not self.receiver.queued

    @property
    def rtt(self) -> float:
        """Smoothed round-trip time, seconds; 0.0: unknown."""
        return self.sender.rto.srtt

    @property
    def timestamp_offset(self) -> int:
        """What is added to milliseconds to make our TSval, or -1 without timestamps; for TIME-WAIT."""
        return self._ts_offset if self._timestamps else -1

    @property
    def timestamp_recent(self) -> int:
        """The TSval to echo."""
        return self._ts_recent

    # --- commands ---

    def connect(self, now: float) -> None:
        """Active open: SYN now, again after 1, 2, 4 ... s."""
        self.active = True
        self.state = TcpState.SYN_SENT
        self.sender.nxt = self.iss + 1
        self._send_syn(now)
        self._arm()

    def accept(self, syn: TcpSegment, now: float) -> None:
        """Passive open: ``syn`` arrived for a listener. SYN-ACK now."""
        self.state = TcpState.SYN_RECEIVED
        self.sender.nxt = self.iss + 1
        self._take_syn(syn, now)
        self._send_syn(now)
        self._arm()

    def write(self, data: bytes | bytearray | memoryview, now: float) -> int:
        """Queue ``data``; the number of its bytes accepted, 0 if not ``writable``.

        Raises OSError: ``error`` if there is one; ENOTCONN before the handshake; EPIPE after ``shutdown_write`` or
        ``close``.
        """
        if self.error is not None:
            raise self._fresh_error()
        if self.state in HANDSHAKE:
            raise os_error(errno.ENOTCONN)
        sender = self.sender
        if sender.fin or self.state not in SENDING:
            raise os_error(errno.EPIPE)
        room = self._settings.send_buffer - sender.unacknowledged
        if room * 2 < self._settings.send_buffer or not len(data):
            return 0
        if type(data) is not bytes:
            data = bytes(memoryview(data)[:room])
        elif len(data) > room:
            data = data[:room]
        sender.write(data)
        self.flush(now)
        return len(data)

    def read(self, max_bytes: int, now: float) -> bytes:
        """Take up to ``max_bytes``; b"" when there is nothing (``eof`` tells the end from a pause).

        Raises OSError, ``error``, when there is one and nothing is left to read. What a reset found unread is lost.
        """
        receiver = self.receiver
        if not receiver.queued:
            if self.error is not None and not receiver.finished:
                raise self._fresh_error()
            if self.state in HANDSHAKE:
                raise os_error(errno.ENOTCONN)
            return b""
        capacity = receiver.capacity
        data = receiver.read(max_bytes, now, self.sender.rto.srtt)
        if receiver.capacity > capacity and not self._network.grow(receiver.capacity - capacity):
            receiver.capacity = capacity
        # A window update, if the peer can still use it.
        if not receiver.finished and receiver.update_due and self.state is not TcpState.CLOSED:
            self._acks.due = True
            self.flush(now)
        return data

    def shutdown_write(self, now: float) -> None:
        """FIN after everything queued. Idempotent. Raises OSError: ENOTCONN before the handshake, or ``error``."""
        if self.error is not None:
            raise self._fresh_error()
        if self.state in HANDSHAKE or not self.connected:
            raise os_error(errno.ENOTCONN)
        self._queue_fin()
        self.flush(now)

    def close(self, now: float) -> None:
        """The owner lets go: what is queued, then FIN, are delivered in the background. If unread data is
        thrown away, the peer gets RST instead (RFC 2525, 2.17). Never raises; idempotent."""
        if self._closed_by_owner:
            return
        self._closed_by_owner = True
        self.on_change = None
        unread = self.receiver.queued
        self.receiver.discard()
        if self.state is TcpState.CLOSED:
            return
        if self.state is TcpState.SYN_SENT:
            self._end(None)
        elif unread:
            self._send_reset(now)
            self._end(None)
        else:
            self._queue_fin()
            if self.state is TcpState.FIN_WAIT_2:
                self._linger_deadline = now + self._settings.fin_wait_2
            self.flush(now)

    def abort(self, now: float) -> None:
        """RST at once; what is queued is dropped, ``error`` becomes ECONNABORTED. Never raises; idempotent."""
        self.on_change = None
        self._closed_by_owner = True
        if self.state is TcpState.CLOSED:
            return
        if self.state is not TcpState.SYN_SENT:
            self._send_reset(now)
        self._end(os_error(errno.ECONNABORTED))

    def fail(self, error: OSError) -> None:
        """The world took the connection away: no packet, only the error."""
        if self.state is not TcpState.CLOSED:
            self._end(error)

    def set_keepalive(self, idle: float | None, now: float) -> None:
        """Probe a silent peer after ``idle`` seconds; None: never."""
        self.keepalive = idle
        self._keepalive_deadline = inf if idle is None else max(self._heard_at + idle, now)
        self._arm()

    # --- the fast path ---

    def handle_packets(self, packets: list[bytes], now: float) -> None:
        """A burst for this connection, in the order of arrival, each whole and with the length that its IP header says.

        Does not send: ``flush`` follows.
        """
        packets = self._verified(packets)
        receiver, sender = self.receiver, self.sender
        unpack, offset = TCP_FIELDS.unpack_from, self._offset
        payload_at = offset - 4 + 32
        scale = self._snd_scale
        self._heard_at = now
        self._keepalive_probes = 0
        chunks: list[bytes] = []
        received = 0
        # The newest of the plain acknowledgements so far: the older ones say nothing more.
        best, best_window, best_seq = 0, -1, 0
        regular = fresh = False
        for packet in packets:
            if not fresh:
                # Plain copies of what is compared below; read again after anything irregular.
                fresh = True
                nxt, limit, last_ack, recent = receiver.nxt, receiver.edge, self._acks.last & MASK, self._ts_recent
                wire_nxt, wire_una = nxt & MASK, sender.una & MASK
                window_field, in_flight = sender.window >> scale, sender.nxt - sender.una
                advances = 0 if sender.in_recovery else in_flight
                holes = receiver.has_holes
                # Without timestamps and near the end nothing is regular.
                regular = self._timestamps and receiver.fin is None and not self._closed_by_owner
            size = len(packet) - payload_at
            if regular and size >= 0:
                seq, ack, bits, window, option, tsval, _ = unpack(packet, offset)
                if (
                    bits & _PLAIN_MASK == _PLAIN
                    and option == TIMESTAMP_PREFIX
                    and (tsval == recent or (tsval - recent) & MASK < 0x80000000)
                ):
                    advance = (ack - wire_una) & MASK
                    if seq == wire_nxt and not holes and nxt + size <= limit:
                        if (advance and advance <= advances) or (size and not advance):
                            if advance > best or (advance == best and window != window_field):
                                best, best_window, best_seq = advance, window, nxt
                            if seq == last_ack:
                                self._ts_recent, self._ts_recent_at, recent = tsval, now, tsval
                            if size:
                                chunks.append(packet[payload_at:])
                                received += size
                                nxt += size
                                wire_nxt = nxt & MASK
                            continue
                    elif size and not advance and window == window_field and (seq - wire_nxt) & MASK < limit - nxt:
                        # Around a hole: these come in bulk when something was lost.
                        if received:
                            self._deliver(chunks, received)
                            chunks, received = [], 0
                        if seq == last_ack:
                            self._ts_recent, self._ts_recent_at, recent = tsval, now, tsval
                        self._take_early(nxt + ((seq - wire_nxt) & MASK), packet[payload_at:])
                        nxt = receiver.nxt
                        wire_nxt = nxt & MASK
                        holes = receiver.has_holes
                        continue
            # The irregular: other options, SACK, recovery, duplicates, control bits.
            if received:
                self._deliver(chunks, received)
                chunks, received = [], 0
            if best_window >= 0:
                self._take_ack(sender.una + best, best_window << scale, best_seq, (), False, now)
                best, best_window = 0, -1
            self._handle_irregular(packet, now)
            if self.state is TcpState.CLOSED:
                return
            fresh = False
        if received:
            self._deliver(chunks, received)
        if best_window >= 0:
            self._take_ack(sender.una + best, best_window << scale, best_seq, (), False, now)

    def _take_early(self, seq: Position, payload: bytes) -> None:
        """Payload within the window, before or into a hole: to be acknowledged at once (RFC 5681, 4.2)."""
        receiver = self.receiver
        before = receiver.nxt
        receiver.insert(seq, payload)
        self._acks.due = True
        if receiver.nxt > before:
            self._changed = True
        elif not self.sender.sack:
            self._acks.early += 1

    def _verified(self, packets: list[bytes]) -> list[bytes]:
        good = intact(packets)
        if good is not packets:
            for _ in range(len(packets) - len(good)):
                self._network.drop(DropReason.BAD_CHECKSUM)
        return good

    def _deliver(self, chunks: list[bytes], size: int) -> None:
        """In-order payload from the fast path, all within the window, no holes waiting."""
        receiver = self.receiver
        if size < 256 * len(chunks):
            # Small ones: joined as they queue.
            position = receiver.nxt
            for chunk in chunks:
                receiver.insert(position, chunk)
                position += len(chunk)
        else:
            receiver.chunks.extend(chunks)
            receiver.queued += size
            receiver.nxt += size
        self._acks.received(size)
        self._changed = True

    def _handle_irregular(self, packet: bytes, now: float) -> None:
        """One packet of a synchronised connection that the loop above did not take."""
        offset = self._offset
        header = offset - 4
        if len(packet) < header + 20:
            self._network.drop(DropReason.TOO_SHORT)
            return
        seq, ack, bits, window = struct.unpack_from("!IIHH", packet, offset)
        if bits & _CONTROL_MASK or not bits & ACK:
            segment = self._network.parse(packet)
            if segment is not None:
                self.handle_segment(segment, now)
            return
        payload_at = header + (bits >> 12) * 4
        if not header + 20 <= payload_at <= len(packet):
            self._network.drop(DropReason.MALFORMED)
            return
        try:
            timestamps, blocks = parse_options_untrusted(packet[header + 20 : payload_at])
        except ProtocolError as exc:
            self._network.drop(exc.reason)
            return
        self._handle_data(seq, ack, bits & 0x3F, window, timestamps, blocks, packet[payload_at:], now)

    # --- the slow path ---

    def handle_segment(self, segment: TcpSegment, now: float) -> None:
        """One parsed segment, in any state. Does not send data or plain acknowledgements: ``flush`` follows."""
        self._heard_at = now
        if self.state is TcpState.SYN_SENT:
            self._handle_in_syn_sent(segment, now)
        elif self.state is not TcpState.CLOSED:
            self._handle_data(
                segment.seq,
                segment.ack,
                segment.flags,
                segment.window,
                segment.timestamps,
                segment.sack_blocks,
                segment.payload,
                now,
            )

    def _handle_in_syn_sent(self, segment: TcpSegment, now: float) -> None:
        """RFC 9293, 3.10.7.3."""
        flags = segment.flags
        acceptable = False
        if flags & ACK:
            acceptable = segment.ack == (self.iss + 1) & MASK
            if not acceptable:
                if not flags & RST:
                    self._network.emit(self._network.build(self._bare(segment.ack, 0, RST)))
                return
        if flags & RST:
            if acceptable:
                self._end(os_error(errno.ECONNREFUSED))
            return
        if not flags & SYN:
            return
        self._take_syn(segment, now)
        if not acceptable:
            # Both sides opened at once.
            self.state = TcpState.SYN_RECEIVED
            self._send_syn(now)
            return
        if self._handshake_tries == 1:
            self.sender.rto.sample(now - self._handshake_sent_at)
        self._establish(segment.window, now)
        self._acks.due = True
        if segment.payload or flags & FIN:
            self._take_payload(self.receiver.nxt, segment.payload, flags & FIN, now)

    def _take_syn(self, syn: TcpSegment, now: float) -> None:
        """Take the peer's initial number and options over."""
        receiver, sender = self.receiver, self.sender
        receiver.nxt = syn.seq + 1
        receiver.edge = receiver.nxt + min(receiver.capacity, 0xFFFF)
        self._acks.last = receiver.nxt
        if syn.window_scale is None:
            receiver.scale = 0
            receiver.capacity_max = min(receiver.capacity_max, 0xFFFF)
            receiver.capacity = min(receiver.capacity, 0xFFFF)
            self._snd_scale = 0
        else:
            self._snd_scale = min(syn.window_scale, _LARGEST_SCALE)
        self._timestamps = self._timestamps and syn.timestamps is not None
        if syn.timestamps is not None:
            self._ts_recent, self._ts_recent_at = syn.timestamps[0], now
        sender.sack = syn.sack_permitted and self._settings.sack
        default = _DEFAULT_MSS4 if len(self.local[0]) == 4 else _DEFAULT_MSS6
        self._mss_limit = max(default if syn.mss is None else syn.mss, _LEAST_MSS)
        self._apply_mss()
        sender.window = sender.max_window = syn.window
        sender.wl1, sender.wl2 = syn.seq, self.iss

    def _apply_mss(self) -> None:
        mss = min(self._mss_limit, self.path_mss) - (_TIMESTAMP_SIZE if self._timestamps else 0)
        self.receiver.mss = max(min(mss, self.receiver.mss), 1)
        if mss != self.sender.mss:
            fresh = self.sender.una == self.iss
            self.sender.set_mss(mss)
            if fresh:
                # The initial window counts segments of the size that was agreed on.
                settings = self._settings
                self.sender.congestion = ALGORITHMS[settings.congestion](
                    mss, settings.initial_window_segments, settings.initial_ssthresh_segments
                )

    def _establish(self, window: int, now: float) -> None:
        sender = self.sender
        sender.una = self.iss + 1
        self.state = TcpState.FIN_WAIT_1 if sender.fin else TcpState.ESTABLISHED
        self._handshake_deadline = inf
        self._builder = SegmentBuilder(self._model, timestamps=self._timestamps)
        self._model = b""
        sender.window = sender.max_window = window
        if self.keepalive is not None:
            self._keepalive_deadline = now + self.keepalive
        self._changed = True
        self._network.established(self)

    def _handle_data(
        self,
        wire_seq: int,
        wire_ack: int,
        flags: int,
        window: int,
        timestamps: tuple[int, int] | None,
        blocks: tuple[tuple[int, int], ...],
        payload: bytes,
        now: float,
    ) -> None:
        """RFC 9293, 3.10.7.4, in its order, for any state but SYN-SENT; with RFC 5961 and RFC 7323."""
        receiver, sender = self.receiver, self.sender
        seq = unwrap(wire_seq, receiver.nxt)
        end = seq + len(payload) + bool(flags & FIN) + bool(flags & SYN)
        if self._timestamps and timestamps is not None and not flags & RST:
            if later_timestamp(self._ts_recent, timestamps[0]) and now - self._ts_recent_at < _PAWS_VALID:
                # PAWS: an old duplicate.
                self._acks.due = True
                return
            if seq <= self._acks.last:
                self._ts_recent, self._ts_recent_at = timestamps[0], now
        if not self._acceptable(seq, end):
            if self.state is TcpState.SYN_RECEIVED and flags & SYN and seq == receiver.nxt - 1 and not flags & RST:
                # The SYN again: our SYN-ACK was lost. A SYN-ACK: both sides opened at once, and this completes it.
                if not flags & ACK:
                    self._send_syn(now)
                    return
            else:
                if not flags & RST:
                    self._handle_outside(seq, end, wire_ack, flags, window, blocks, payload, now)
                return
        if flags & RST:
            self._handle_reset(seq, now)
            return
        if flags & SYN and self.state is not TcpState.SYN_RECEIVED:
            self._acks.challenge(now)
            return
        if not flags & ACK:
            return
        if self.state is TcpState.SYN_RECEIVED:
            if wire_ack != (self.iss + 1) & MASK and not 0 < (wire_ack - self.iss) & MASK <= sender.nxt - self.iss:
                self._network.emit(self._network.build(self._bare(wire_ack, 0, RST)))
                return
            scale = 0 if flags & SYN else self._snd_scale
            if self._handshake_tries == 1:
                sender.rto.sample(now - self._handshake_sent_at)
            self._establish(window << scale, now)
            sender.wl1, sender.wl2 = seq, sender.una
            self._after_acknowledgement(now)
            if flags & SYN:
                self._acks.due = True
                return
        elif not self._acknowledge(wire_ack, window, seq, blocks, empty=not payload and not flags & FIN, now=now):
            return
        if (payload or flags & FIN) and self.state is not TcpState.CLOSED:
            self._take_payload(seq, payload, flags & FIN, now)

    def _handle_outside(
        self,
        seq: Position,
        end: Position,
        wire_ack: int,
        flags: int,
        window: int,
        blocks: tuple[tuple[int, int], ...],
        payload: bytes,
        now: float,
    ) -> None:
        """A segment outside of the window: a duplicate, a probe, or an attack. It is answered, rarely if it is
        empty, so that two confused peers do not answer each other for ever."""
        if flags & SYN or end > self.receiver.edge + 1 or seq == end:
            self._acks.challenge(now)
        else:
            self._acks.due = True
        if payload and end <= self.receiver.nxt:
            # Noted as a duplicate, for SACK.
            self.receiver.insert(seq, payload)
        if flags & ACK and not flags & SYN and abs(seq - self.receiver.nxt) <= max(self.receiver.capacity_max, 0xFFFF):
            # Its acknowledgement may be news even so (RFC 9293, 3.10.7.4, first).
            self._acknowledge(wire_ack, window, seq, blocks, empty=False, now=now)

    def _acceptable(self, seq: Position, end: Position) -> bool:
        """Whether some of a segment lies in the window (RFC 9293, table 6)."""
        nxt, edge = self.receiver.nxt, self.receiver.edge
        if seq == end:
            # At the edge, too: a sender that used up the window acknowledges from there.
            return nxt <= seq <= edge
        return seq < edge and end > nxt

    def _handle_reset(self, seq: Position, now: float) -> None:
        """RFC 5961, 3.2: only the exact position resets."""
        if seq != self.receiver.nxt:
            self._acks.challenge(now)
            return
        if self.state is TcpState.SYN_RECEIVED:
            self._end(os_error(errno.ECONNREFUSED if self.active else errno.ECONNRESET))
        elif self.state in (TcpState.LAST_ACK, TcpState.CLOSING) and self.sender.buffered == 0:
            # Everything was said on both sides; the peer only did not wait for the end of the ceremony.
            self._end(None)
        else:
            # What arrived in order stays readable; then comes the error.
            self._end(os_error(errno.ECONNRESET))

    def _acknowledge(
        self, wire_ack: int, window: int, seq: Position, blocks: tuple[tuple[int, int], ...], *, empty: bool, now: float
    ) -> bool:
        """Process an acknowledgement. False: it acknowledges what was never sent, or what is too old (RFC 5961,
        5.2)."""
        sender = self.sender
        ack = unwrap(wire_ack, sender.una)
        if ack > sender.nxt or ack < sender.una - max(sender.max_window, 0xFFFF):
            self._acks.challenge(now)
            return False
        if ack < sender.una and not blocks:
            return True
        una = sender.una
        unwrapped = tuple((unwrap(left, una), unwrap(right, una)) for left, right in blocks) if sender.sack else ()
        self._take_ack(ack, window << self._snd_scale, seq, unwrapped, empty, now)
        return True

    def _take_ack(
        self,
        ack: Position,
        window: int,
        seq: Position,
        blocks: tuple[tuple[Position, Position], ...],
        empty: bool,
        now: float,
    ) -> None:
        sender = self.sender
        if sender.handle_ack(ack, window, seq, blocks, empty, now):
            self._changed = True
            self._after_acknowledgement(now)

    def _after_acknowledgement(self, now: float) -> None:
        """``una`` moved: is our FIN acknowledged?"""
        if not self.sender.done:
            return
        if self.state is TcpState.FIN_WAIT_1:
            self.state = TcpState.FIN_WAIT_2
            if self._closed_by_owner:
                self._linger_deadline = now + self._settings.fin_wait_2
        elif self.state is TcpState.CLOSING:
            self._enter_time_wait(now)
        elif self.state is TcpState.LAST_ACK:
            self._end(None)

    def _take_payload(self, seq: Position, payload: bytes, fin: int, now: float) -> None:
        """RFC 9293, 3.10.7.4, seventh and eighth."""
        receiver = self.receiver
        if self.state not in (TcpState.ESTABLISHED, TcpState.FIN_WAIT_1, TcpState.FIN_WAIT_2):
            # The peer's FIN was taken already: this comes again.
            self._acks.due = True
            return
        before = receiver.nxt
        if payload and self._closed_by_owner and seq + len(payload) > before:
            # Nobody will read this: say so (RFC 1122, 4.2.2.13).
            self._send_reset(now)
            self._end(os_error(errno.ECONNRESET))
            return
        holes = receiver.has_holes
        if payload:
            receiver.insert(seq, payload)
        if fin:
            receiver.handle_fin(seq + len(payload))
        gained = receiver.nxt - before
        if holes or not gained or receiver.finished:
            # Out of order, filling a hole, a duplicate, or the end: tell at once (RFC 5681, 4.2).
            self._acks.due = True
            if not gained and not self.sender.sack:
                self._acks.early += 1
        else:
            self._acks.received(gained)
        if gained:
            self._changed = True
        if receiver.finished:
            self._handle_fin(now)

    def _handle_fin(self, now: float) -> None:
        if self.state is TcpState.ESTABLISHED:
            self.state = TcpState.CLOSE_WAIT
        elif self.state is TcpState.FIN_WAIT_1:
            self.state = TcpState.CLOSING
            if self.sender.done:
                self._enter_time_wait(now)
        elif self.state is TcpState.FIN_WAIT_2:
            self._enter_time_wait(now)

    # --- errors from the path ---

    def is_in_flight(self, wire_seq: int) -> bool:
        """Whether an ICMP error that quotes this sequence number may be about a segment of ours (RFC 5927, 4)."""
        sender = self.sender
        return sender.una <= unwrap(wire_seq, sender.una) < sender.nxt

    def handle_icmp_error(self, error: OSError) -> None:
        """An ICMP error about a segment in flight: fatal before the handshake is complete, a hint later (RFC 1122,
        4.2.3.9)."""
        if self.state is TcpState.SYN_SENT:
            self._end(error)

    def handle_path_mss(self, mss: int, now: float) -> None:
        """A segment in flight was too big: smaller ones from now on, and all in flight again (RFC 1191). Does not
        send."""
        if mss >= self.path_mss:
            return
        self.set_path_mss(mss)
        if self._builder is not None:
            # Not a sign of congestion.
            self.sender.board.lose_all(forget_sacks=False)

    def set_path_mss(self, mss: int) -> None:
        """What the path takes has changed; bytes of payload and options."""
        self.path_mss = mss
        if self.state is not TcpState.SYN_SENT:
            self._apply_mss()

    # --- output ---

    def flush(self, now: float) -> None:
        """Send what is due: data as the windows allow, or else an acknowledgement if one is wanted."""
        if self._builder is None or self.state in HANDSHAKE or self.state is TcpState.CLOSED:
            if self._acks.due and self.state is TcpState.SYN_RECEIVED:
                self._acks.due = False
            self._arm()
            return
        sender = self.sender
        while sender.buffered or sender.fin or len(sender.board):
            room = self._network.room(self)
            if room <= 0:
                break
            segments = sender.take_segments(min(room, self._settings.train_max_segments), now)
            if not segments:
                break
            self._send_segments(segments, now)
        if self._acks.decide(self.receiver.mss, now):
            self._send_ack(now)
        self._arm()

    def _send_segments(self, segments: list[SentSegment], now: float) -> None:
        builder, receiver = self._builder, self.receiver
        assert builder is not None
        window = receiver.take_window()
        ack = receiver.nxt & MASK
        tsval, tsecr = self._tsval(now), self._ts_recent
        fin = segments[-1] if segments[-1].is_fin else None
        pieces = [(segment.start & MASK, segment.payload) for segment in segments if segment.payload]
        packets: list[bytes] = []
        if pieces:
            # PSH on the last of a train whose end is the end of what was written.
            last = None if self.sender.buffered else pieces.pop()
            packets = builder.build_train(pieces, ack, ACK, window, tsval, tsecr) if pieces else []
            if last is not None:
                packets += builder.build_train([last], ack, ACK | PSH, window, tsval, tsecr)
        if fin is not None:
            packets.append(builder.build(fin.start & MASK, ack, FIN | ACK, window, tsval, tsecr))
        for segment in segments[:-1]:
            if segment.is_fin:
                packets.append(builder.build(segment.start & MASK, ack, FIN | ACK, window, tsval, tsecr))
        self._network.emit_train(packets)
        if not receiver.has_holes:
            self._acks.sent(receiver.nxt)

    def _send_ack(self, now: float) -> None:
        builder, receiver = self._builder, self.receiver
        assert builder is not None
        ack, seq = receiver.nxt & MASK, self.sender.nxt & MASK
        tsval, tsecr = self._tsval(now), self._ts_recent
        emit = self._network.emit
        if self.sender.sack:
            for blocks in receiver.take_sack_blocks(SACK_ROOM if self._timestamps else SACK_ROOM + 1):
                option = sack_option(tuple((left & MASK, right & MASK) for left, right in blocks)) if blocks else b""
                window = receiver.take_window()
                emit(builder.build(seq, ack, ACK, window, tsval, tsecr, b"", option))
        else:
            # Without SACK the number of duplicates is the message.
            for _ in range(max(1, min(self._acks.early, 64))):
                emit(builder.build(seq, ack, ACK, receiver.take_window(), tsval, tsecr))
        self._acks.sent(receiver.nxt)

    def _send_probe(self, now: float) -> None:
        """An old sequence number and no data: whoever is there must answer."""
        builder = self._builder
        assert builder is not None
        self._network.emit(
            builder.build(
                (self.sender.una - 1) & MASK,
                self.receiver.nxt & MASK,
                ACK,
                self.receiver.take_window(),
                self._tsval(now),
                self._ts_recent,
            )
        )

    def _send_reset(self, now: float) -> None:
        if self._builder is None:
            self._network.emit(
                self._network.build(self._bare(self.sender.nxt & MASK, self.receiver.nxt & MASK, RST | ACK))
            )
            return
        self._network.emit(
            self._builder.build(
                self.sender.nxt & MASK, self.receiver.nxt & MASK, RST | ACK, 0, self._tsval(now), self._ts_recent
            )
        )

    def _send_syn(self, now: float) -> None:
        """SYN, or SYN-ACK in SYN-RECEIVED."""
        answer = self.state is TcpState.SYN_RECEIVED
        segment = self._bare(self.iss & MASK, self.receiver.nxt & MASK if answer else 0, SYN | ACK if answer else SYN)
        segment.window = min(self.receiver.capacity, 0xFFFF)
        segment.mss = self.path_mss
        if not answer or self._snd_scale or self.receiver.scale:
            segment.window_scale = self.receiver.scale
        segment.sack_permitted = self.sender.sack if answer else self._settings.sack
        if self._timestamps:
            segment.timestamps = (self._tsval(now), self._ts_recent if answer else 0)
        self._model = self._network.build(segment)
        self._network.emit(self._model)
        self._handshake_tries += 1
        self._handshake_sent_at = now
        self._handshake_deadline = now + self._settings.rto_initial * 2 ** (self._handshake_tries - 1)

    def _bare(self, seq: int, ack: int, flags: int) -> TcpSegment:
        return TcpSegment(
            self.local[0], self.remote[0], self.local[1], self.remote[1], seq & MASK, ack & MASK, flags, 0
        )

    def _tsval(self, now: float) -> int:
        return (int(now * 1000) + self._ts_offset) & MASK

    # --- timers ---

    def handle_timeout(self, now: float) -> None:
        """``deadline`` has passed."""
        settings = self._settings
        if self._handshake_deadline <= now:
            if self._handshake_tries > settings.syn_retries:
                self._end(os_error(errno.ETIMEDOUT))
                return
            self._send_syn(now)
        if self._linger_deadline <= now:
            self._end(None)
            return
        self._acks.expire(now)
        sender = self.sender
        if sender.deadline <= now:
            if sender.retries >= (settings.orphan_retries if self._closed_by_owner else settings.data_retries):
                self._end(os_error(errno.ETIMEDOUT))
                return
            if sender.handle_timeout(now):
                self._send_probe(now)
        if self._keepalive_deadline <= now:
            self._handle_keepalive(now)
        self.flush(now)

    def _handle_keepalive(self, now: float) -> None:
        if self.keepalive is None or self.state is TcpState.CLOSED:
            self._keepalive_deadline = inf
            return
        due = self._heard_at + self.keepalive
        if due > now and not self._keepalive_probes:
            self._keepalive_deadline = due
            return
        if self._keepalive_probes >= self._settings.keepalive_probes:
            self._end(os_error(errno.ETIMEDOUT))
            return
        self._keepalive_probes += 1
        self._keepalive_deadline = now + self._settings.keepalive_interval
        self._send_probe(now)

    def _arm(self) -> None:
        deadline = min(
            self.sender.deadline,
            self._acks.deadline,
            self._handshake_deadline,
            self._linger_deadline,
            self._keepalive_deadline,
        )
        self.deadline = deadline
        if deadline < self.scheduled:
            self._network.arm(self)

    # --- the end ---

    def _queue_fin(self) -> None:
        if self.sender.fin:
            return
        self.sender.fin = True
        if self.state is TcpState.ESTABLISHED:
            self.state = TcpState.FIN_WAIT_1
        elif self.state is TcpState.CLOSE_WAIT:
            self.state = TcpState.LAST_ACK

    def _enter_time_wait(self, now: float) -> None:
        if self._acks.due:
            self._send_ack(now)
        self._network.time_wait(self)
        self._finish()

    def _end(self, error: OSError | None) -> None:
        self.error = error
        self._network.forget(self)
        self.sender.discard()
        self._finish()

    def _finish(self) -> None:
        self.state = TcpState.CLOSED
        self.sender.deadline = inf
        self._acks.deadline = self._handshake_deadline = self._linger_deadline = self._keepalive_deadline = inf
        self.deadline = inf
        self._changed = True

    def _fresh_error(self) -> OSError:
        """``error`` anew, so that tracebacks do not pile up on one object."""
        assert self.error is not None
        return os_error(self.error.errno or errno.EIO)

    def notify(self) -> None:
        """Call ``on_change`` if something changed since the last time."""
        if self._changed:
            self._changed = False
            if self.on_change is not None:
                self.on_change()
