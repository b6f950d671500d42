"""Bursts of plain segments of a synchronised connection, read by struct, in one loop.

Header prediction for many: what is compared are local copies of a few numbers, and only the newest of a
burst's acknowledgements counts. Whatever is not plain leaves the loop, and the copies are made anew.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

from ...errors import DropReason
from ..memory import FULL
from ..packets import ACK, FIN, RST, SYN
from ..sequence import MASK, Position
from ..wire import TCP_FIELDS, bare_fields, intact
from .input import Input
from .options import TIMESTAMP_PREFIX, parse_options_untrusted
from .state import TcpState

__all__ = ["FastPath"]

#: Offset 8 words, 5 without timestamps, ACK, PSH or not; ECN's bits do not matter.
_PLAIN_MASK, _PLAIN, _PLAIN_BARE = 0xFE37, 0x8010, 0x5010
_CONTROL_MASK = FIN | SYN | RST | 0x20


class FastPath(Input):
    """The layer that takes raw packets."""

    __slots__ = ()

    def handle_packets(self, packets: list[bytes], now: float, *, verified: bool = False) -> None:
        """A burst for this connection, in the order of arrival, each whole and with the length that its IP header says;
        ``verified``: their checksums are known to hold.

        Does not send: ``flush`` follows.
        """
        if not verified:
            packets = self._verified(packets)
        receiver, sender = self.receiver, self.sender
        offset = self._offset
        unpack: Callable[[bytes, int], tuple[Any, ...]] = TCP_FIELDS.unpack_from
        payload_at, plain = offset - 4 + 32, _PLAIN
        if not self._timestamps:
            unpack, payload_at, plain = bare_fields, offset - 4 + 20, _PLAIN_BARE
        scale = self._snd_scale
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
                window_field, advances = sender.window >> scale, sender.nxt - sender.una
                if sender.in_recovery:
                    window_field, advances = -1, 0
                elif sender.board.sacked or not window_field or window_field << scale != sender.window:
                    # Also what acknowledges nothing and repeats the window is news: time for RACK, an answer to probes.
                    window_field = -1
                holes = receiver.has_holes
                # Near the end nothing is regular.
                regular = receiver.fin is None and not self._closed_by_owner and self._memory.level != FULL
            size = len(packet) - payload_at
            if regular and size >= 0:
                seq, ack, bits, window, option, tsval, _ = unpack(packet, offset)
                if (
                    bits & _PLAIN_MASK == plain
                    and option == TIMESTAMP_PREFIX
                    and (tsval == recent or (tsval - recent) & MASK < 0x80000000)
                ):
                    advance = (ack - wire_una) & MASK
                    if seq == wire_nxt and not holes and nxt + size <= limit:
                        if (advance and advance <= advances) or (size and not advance):
                            # Of those that acknowledge the same the last one counts: its window is the newest.
                            if advance > best or (advance == best and (best_window >= 0 or window != window_field)):
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
                        self._hear_plain(now)
                        self._take_early(nxt + ((seq - wire_nxt) & MASK), packet[payload_at:], now)
                        nxt = receiver.nxt
                        wire_nxt = nxt & MASK
                        holes = receiver.has_holes
                        continue
            # The irregular: other options, SACK, recovery, duplicates, control bits.
            if received or best_window >= 0:
                self._hear_plain(now)
            if received:
                self._deliver(chunks, received)
                if best_window < 0:
                    self._note_window(nxt - len(chunks[-1]))
                chunks, received = [], 0
            if best_window >= 0:
                self._take_ack(sender.una + best, best_window << scale, best_seq, (), False, now)
                best, best_window = 0, -1
            self._handle_irregular(packet, now)
            if self.state is TcpState.CLOSED:
                return
            fresh = False
        if received or best_window >= 0:
            self._hear_plain(now)
        if received:
            self._deliver(chunks, received)
            if best_window < 0:
                self._note_window(nxt - len(chunks[-1]))
        if best_window >= 0:
            self._take_ack(sender.una + best, best_window << scale, best_seq, (), False, now)

    def _hear_plain(self, now: float) -> None:
        """Something plain arrived, all of it within the window: the peer lives."""
        self._heard_at = now
        self._keepalive_probes = 0

    def _note_window(self, seq: Position) -> None:
        """A segment at ``seq`` repeated what is known of acknowledgements and the window: what is older says nothing
        about the window any more (RFC 9293, 3.10.7.4: SND.WL1)."""
        sender = self.sender
        if sender.wl1 <= seq:
            sender.wl1, sender.wl2 = seq, sender.una

    def _take_early(self, seq: Position, payload: bytes, now: float) -> None:
        """Payload within the window, behind or into a hole (RFC 5681, 4.2)."""
        receiver, acks, sender = self.receiver, self._acks, self.sender
        self._note_window(seq)
        before, holes = receiver.nxt, receiver.has_holes
        receiver.insert(seq, payload)
        # What reaches beyond the window, without a hole, is no sign of a loss.
        if holes or receiver.nxt == before:
            acks.lossy(receiver.nxt)
        if receiver.nxt > before:
            acks.due = True
            self._changed = True
        elif sender.sack:
            acks.behind_hole(before, sender.rto.srtt, now)
        else:
            acks.due = True
            acks.early += 1

    def _verified(self, packets: list[bytes]) -> list[bytes]:
        good = intact(packets)
        if good is not packets:
            for _ in range(len(packets) - len(good)):
                self._network.drop(DropReason.BAD_CHECKSUM)
        return good

    def _deliver(self, chunks: list[bytes], size: int) -> None:
        """In-order payload from the fast path, all within the window, no holes waiting."""
        receiver, acks = self.receiver, self._acks
        acks.arriving(receiver.nxt, map(len, chunks))
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
        acks.received(size, len(chunks[0]))
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
            self._network.drop(DropReason.TOO_SHORT)
            return
        timestamps, blocks = parse_options_untrusted(packet[header + 20 : payload_at])
        self._handle_data(seq, ack, bits & 0x3F, window, timestamps, blocks, packet[payload_at:], now)
