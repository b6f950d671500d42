"""What a connection sends: trains of segments, acknowledgements, probes, resets; and when to look again."""

from __future__ import annotations

from math import inf

from ..packets import ACK, FIN, PSH, RST, TcpSegment
from ..sequence import MASK
from .control_block import ControlBlock
from .options import SACK_ROOM, sack_option
from .sent_segment import SentSegment
from .state import HANDSHAKE, TcpState

__all__ = ["Output"]


class Output(ControlBlock):
    """The layer that builds and emits. Positions are unwrapped, wire numbers masked where they are packed."""

    __slots__ = ()

    deadline: float

    def flush(self, now: float) -> None:
        """Send what is due: data as the windows allow, or else an acknowledgement if one is wanted."""
        if self._builder is None or self.state in HANDSHAKE or self.state is TcpState.CLOSED:
            if self._acks.due and self.state is TcpState.SYN_RECEIVED:
                self._acks.due = False
            self._account()
            self._arm()
            return
        sender, receiver, share = self.sender, self.receiver, self._share
        if receiver.nxt != share.heard:
            # A scaled field has not every value.
            receiver.flight = (1 << receiver.scale) + self._network.inbound.limit(
                share, receiver.nxt, receiver.mss, self.path, now
            )
        if sender.pacer.due <= now:
            # Set again below if something is still held back. Perhaps there is nothing left to hold.
            sender.pacer.due = inf
        accounted = False
        while sender.buffered or sender.fin or len(sender.board):
            room = self._network.room(self)
            if room <= 0:
                break
            segments = sender.take_segments(min(room, self._settings.train_max_segments), now)
            if not segments:
                break
            self._send_segments(segments, now)
            self._drained = min(self._drained, segments[0].start)
            self._network.paths.sent(self, now)
            self._account()
            accounted = True
            if sender.pacer.due != inf:
                break
        if sender.nxt - sender.una > self.send_capacity >> 2:
            self._grow_send_buffer()
        if not accounted:
            self._account()
        if self._acks.decide(receiver.mss, now):
            self._send_ack(now)
        self._arm()

    def _grow_send_buffer(self) -> None:
        """A quarter of the send buffer is in flight: more, so that the writer never holds the window back."""
        capacity = min(4 * min(self.sender.congestion.window, self.sender.window), self._settings.send_buffer_max)
        if capacity > self.send_capacity + 65536:
            self.send_capacity = capacity

    def _send_segments(self, segments: list[SentSegment], now: float) -> None:
        builder, receiver = self._builder, self.receiver
        assert builder is not None
        window = receiver.take_window()
        ack = receiver.nxt & MASK
        tsval, tsecr = self._tsval(now), self._ts_recent
        # It may stand before others among what is sent again.
        fins = [segment for segment in segments if segment.is_fin] if self.sender.fin_sent else ()
        if fins:
            segments = [segment for segment in segments if segment.payload]
        # PSH on the last of a train whose end is the end of what was written.
        last = segments[-1] if segments and not self.sender.buffered else None
        if last is not None:
            segments = segments[:-1]
        payloads = [segment.payload for segment in segments]
        positions = [segment.start for segment in segments]
        packets = builder.build_train(positions, payloads, ack, ACK, window, tsval, tsecr)
        if last is not None:
            packets.append(builder.build(last.start & MASK, ack, ACK | PSH, window, tsval, tsecr, last.payload))
        for fin in fins:
            packets.append(builder.build(fin.start & MASK, ack, FIN | ACK, window, tsval, tsecr))
        self._network.emit_train(packets)
        # Data cannot carry SACK blocks, nor be the duplicates that stand for them.
        if not (receiver.has_report if self.sender.sack else self._acks.early):
            self._acks.sent(receiver.nxt)
        else:
            self._acks.carried()

    def _send_ack(self, now: float) -> None:
        builder, receiver = self._builder, self.receiver
        assert builder is not None
        ack, seq = receiver.nxt & MASK, self.sender.nxt & MASK
        tsval, tsecr = self._tsval(now), self._ts_recent
        emit = self._network.emit
        # Not where they would take the place of the last one.
        stop = self._acks.stop(receiver.nxt)
        if stop is not None and not receiver.has_holes and self._network.has_room(credit=False):
            # The right edge of the window stays where it was said to be.
            field = min(max(receiver.edge - stop, 0) >> receiver.scale, 0xFFFF)
            emit(builder.build(seq, stop & MASK, ACK, field, tsval, tsecr))
        if self.sender.sack:
            for blocks in receiver.take_sack_blocks(SACK_ROOM if self._timestamps else SACK_ROOM + 1):
                option = sack_option(tuple((left & MASK, right & MASK) for left, right in blocks)) if blocks else b""
                window = receiver.take_window()
                emit(builder.build(seq, ack, ACK, window, tsval, tsecr, b"", option))
        else:
            # Without SACK the number of duplicates is the message.
            receiver.drop_report()
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

    def _bare(self, seq: int, ack: int, flags: int) -> TcpSegment:
        return TcpSegment(
            self.local[0], self.remote[0], self.local[1], self.remote[1], seq & MASK, ack & MASK, flags, 0
        )

    def _tsval(self, now: float) -> int:
        return (int(now * 1000) + self._ts_offset) & MASK

    def _arm(self) -> None:
        deadline = min(
            self.sender.deadline,
            self.sender.pacer.due,
            self._acks.deadline,
            self._handshake_deadline,
            self._linger_deadline,
            self._keepalive_deadline,
            self._path_probe_at,
        )
        self.deadline = deadline
        if deadline < self.scheduled:
            self._network.arm(self)
