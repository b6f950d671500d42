"""One segment, in any state: RFC 9293, 3.10.7, with RFC 5961 and RFC 7323."""

from __future__ import annotations

import errno

from ...errors import DropReason
from ..memory import FLOOR, FULL
from ..packets import ACK, FIN, RST, SYN, TcpSegment
from ..sequence import MASK, Position, later_timestamp, unwrap
from .network import os_error
from .path import Path
from .state import TcpState

__all__ = ["Input"]

#: RFC 7323, 5.5: after so long timestamps may have wrapped.
_PAWS_VALID = 24 * 24 * 3600.0
#: Ticks of a peer's clock in a second, at most, where its age is to be told (RFC 7323, 5.4: a millisecond or more).
_OVERTAKEN = 1200


class Input(Path):
    """The layer that takes parsed segments. It does not send data or plain acknowledgements: ``flush`` follows."""

    __slots__ = ()

    def handle_segment(self, segment: TcpSegment, now: float) -> None:
        """One parsed segment, in any state. Does not send data or plain acknowledgements: ``flush`` follows."""
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
                    self._refuse_ack(segment.ack, now)
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
            self._try_handshake(now)
            return
        self._establish(segment.window, now)
        self._acks.due = True
        if segment.payload or flags & FIN:
            self._take_payload(self.receiver.nxt, segment.payload, flags & FIN, now)

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
        if (
            self._timestamps
            and timestamps is not None
            and not flags & RST
            and later_timestamp(self._ts_recent, timestamps[0])
            and now - self._ts_recent_at < _PAWS_VALID
        ):
            if flags & SYN or seq == end:
                if not self._take_overtaken(seq, wire_ack, flags, blocks, timestamps, now):
                    self._acks.challenge(now)
                return
            # PAWS: an old duplicate. Reported as one, as Linux does: its sender learns that it sent twice.
            self._acks.due = True
            if payload and end <= receiver.nxt:
                receiver.insert(seq, payload)
            return
        if not self._acceptable(seq, end, flags):
            if self.state is TcpState.SYN_RECEIVED and flags & SYN and seq == receiver.nxt - 1 and not flags & RST:
                # A SYN-ACK: both sides opened at once, and this completes it.
                if not flags & ACK:
                    self._repeat_syn_ack(now)
                    return
            else:
                if not flags & RST:
                    self._handle_outside(seq, end, wire_ack, flags, window, blocks, timestamps, payload, now)
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
                self._refuse_ack(wire_ack, now)
                return
            self._hear(seq, timestamps, now)
            scale = 0 if flags & SYN else self._snd_scale
            self._establish(window << scale, now)
            sender.wl1, sender.wl2 = seq, sender.una
            self._after_acknowledgement(now)
            if flags & SYN:
                self._acks.due = True
                return
        else:
            ack = self._valid_ack(wire_ack, now)
            if ack is None:
                return
            self._hear(seq, timestamps, now)
            self._acknowledge(ack, window, seq, blocks, timestamps, empty=not payload and not flags & FIN, now=now)
        if (payload or flags & FIN) and self.state is not TcpState.CLOSED:
            self._take_payload(seq, payload, flags & FIN, now)

    def _take_overtaken(
        self,
        seq: Position,
        wire_ack: int,
        flags: int,
        blocks: tuple[tuple[int, int], ...],
        timestamps: tuple[int, int],
        now: float,
    ) -> bool:
        """Whether an empty segment that PAWS refuses is only an acknowledgement that a later one has overtaken: next in
        sequence, of nothing new, and younger than a retransmission timeout by the fastest clock that is usual (Linux,
        tcp_disordered_ack). Then it counts for its SACK blocks, a DSACK perhaps; its window and clock are old."""
        receiver, sender = self.receiver, self.sender
        age = (self._ts_recent - timestamps[0]) & MASK
        if flags & (SYN | ACK) != ACK or seq != receiver.nxt or age > sender.rto.value * _OVERTAKEN:
            return False
        ack = unwrap(wire_ack, sender.una)
        if not sender.una - max(sender.max_window, 0xFFFF) <= ack <= sender.una:
            return False
        if blocks and sender.sack:
            # By its place it is older than what set the window, which stays what it is.
            self._acknowledge(ack, 0, sender.wl1 - 1, blocks, timestamps, empty=False, now=now)
        return True

    def _handle_outside(
        self,
        seq: Position,
        end: Position,
        wire_ack: int,
        flags: int,
        window: int,
        blocks: tuple[tuple[int, int], ...],
        timestamps: tuple[int, int] | None,
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
            # Noted as a duplicate, for SACK. Perhaps it came again because no acknowledgement arrived.
            self.receiver.insert(seq, payload)
            self._acks.lossy(self.receiver.nxt)
        receiver = self.receiver
        if flags & ACK and not flags & SYN and 0 <= receiver.nxt - seq <= max(receiver.capacity_max, 0xFFFF):
            # Its acknowledgement may be news even so, of a duplicate, or of data for a window that is closed (RFC
            # 9293, 3.10.7.4, first). What lies ahead says nothing: anybody can guess that.
            ack = self._valid_ack(wire_ack, now)
            if ack is not None:
                self._acknowledge(ack, window, seq, blocks, timestamps, empty=False, now=now)

    def _acceptable(self, seq: Position, end: Position, flags: int) -> bool:
        """Whether some of a segment lies in the window (RFC 9293, table 6). A FIN takes no room in a buffer: alone it
        is good for a window that is closed, as with Linux."""
        nxt, edge = self.receiver.nxt, self.receiver.edge
        if seq == end - bool(flags & FIN):
            # At the edge, too: a sender that used up the window acknowledges from there.
            return nxt <= seq <= edge
        return seq < edge and end > nxt

    def _hear(self, seq: Position, timestamps: tuple[int, int] | None, now: float) -> None:
        """A segment in the window, with a valid acknowledgement: the peer lives, and this is its clock (RFC 7323,
        4.3). What has not passed both tests may be anybody's."""
        self._heard_at = now
        self._keepalive_probes = 0
        if self._timestamps and timestamps is not None and seq <= self._acks.last:
            self._ts_recent, self._ts_recent_at = timestamps[0], now

    def _refuse_ack(self, wire_ack: int, now: float) -> None:
        """RST for an acknowledgement of what was never sent, before the handshake is complete."""
        if self._network.may_reset(now):
            self._network.emit(self._network.build(self._bare(wire_ack, 0, RST)))

    def _valid_ack(self, wire_ack: int, now: float) -> Position | None:
        """An acknowledgement's position. None: of what was never sent, or too old (RFC 5961, 5.2)."""
        sender = self.sender
        ack = unwrap(wire_ack, sender.una)
        if ack > sender.nxt or ack < sender.una - max(sender.max_window, 0xFFFF):
            self._acks.challenge(now)
            return None
        return ack

    def _acknowledge(
        self,
        ack: Position,
        window: int,
        seq: Position,
        blocks: tuple[tuple[int, int], ...],
        timestamps: tuple[int, int] | None,
        *,
        empty: bool,
        now: float,
    ) -> None:
        """Process a valid acknowledgement."""
        sender = self.sender
        if ack < sender.una and not blocks:
            return
        una = sender.una
        unwrapped = tuple((unwrap(left, una), unwrap(right, una)) for left, right in blocks) if sender.sack else ()
        echoed = -1.0
        if timestamps is not None and self._timestamps:
            age = (self._tsval(now) - timestamps[1]) & MASK
            if age < 0x80000000:
                echoed = now - age / 1000
        self._take_ack(ack, window << self._snd_scale, seq, unwrapped, empty, now, echoed)

    def _take_ack(
        self,
        ack: Position,
        window: int,
        seq: Position,
        blocks: tuple[tuple[Position, Position], ...],
        empty: bool,
        now: float,
        echoed: float = -1.0,
    ) -> None:
        sender = self.sender
        if sender.handle_ack(ack, window, seq, blocks, empty, now, echoed):
            self._changed = True
            # Whatever a router said about the path, it delivers again.
            self._soft_error = None
            if self._path_untested or self._path_probed:
                self._learn_path(now)
            self._after_acknowledgement(now)

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
        if self._memory.level == FULL and receiver.queued + receiver.early + len(payload) > FLOOR:
            # It was asked for, and comes again when the reader has made room.
            self._network.drop(DropReason.LIMIT)
            self._acks.due = True
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
            if not receiver.finished:
                self._acks.lossy(receiver.nxt)
            if not gained and not self.sender.sack:
                self._acks.early += 1
        else:
            self._acks.arriving(before, (gained,))
            self._acks.received(gained, gained)
        if gained:
            self._changed = True
        if receiver.finished:
            self._handle_fin(now)
