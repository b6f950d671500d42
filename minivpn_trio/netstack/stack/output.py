"""Output of a stack: a bounded queue.

Data waits for room in it (``room``), and is let in by turns (turns.py), so
that no connection keeps the others out; everything else is dropped when it is
full, since whoever waits there could wait for ever.
"""

from __future__ import annotations

from ...errors import DropReason
from ...items import Burst
from ..tcp.connection import TcpConnection
from ..udp import UdpEndpoint
from .connections import Connections
from .lookup import destination_of

__all__ = ["Output"]


class Output(Connections):
    """The layer that queues packets, and hands them out."""

    # --- packets in ---

    def emit(self, packet: bytes) -> bool:
        """Queue a packet; False, counted, when there is no room."""
        output = self._looped if self.is_own(destination_of(packet)) else self._output
        if len(output) >= self.limits.output:
            self.drops[DropReason.QUEUE_FULL] += 1
            return False
        output.append(packet)
        if len(output) == 1 and self.on_work is not None:
            self.on_work()
        return True

    def emit_train(self, packets: list[bytes]) -> None:
        """Queue packets of one connection, for which there is ``room``."""
        output = self._looped if self.is_own(destination_of(packets[0])) else self._output
        idle = not output
        output.extend(packets)
        if idle and self.on_work is not None:
            self.on_work()

    def send_ip(self, packet: bytes) -> bool:
        """Queue a complete IP packet that is not TCP's; False, counted, when the output queue is full, but for what
        is kept for TCP's handshakes and acknowledgements."""
        if self._queued >= self.limits.output * 7 // 8:
            self.drops[DropReason.QUEUE_FULL] += 1
            return False
        return self.emit(packet)

    # --- whose turn it is ---

    @property
    def _queued(self) -> int:
        return len(self._output) + len(self._looped)

    def room(self, connection: TcpConnection) -> int:
        """How many packets of data may be queued, as one train; if none, or if others wait for room, here or on the way
        to the same host, it waits its turn, and is flushed again then."""
        room = self.limits.output_data - len(self._output) - len(self._looped)
        turns, path, sender = self._turns, connection.path, connection.sender
        if (path.waiting or path.flying > connection.flying) and not turns.serving(connection):
            # Also whoever has all that is in flight: others may wait for that.
            path.drain(self._now)
            left, its_turn = path.room, path.waiting.take(connection)
            if not left or (path.waiting and not its_turn):
                first = self.paths.join(path, connection, few=sender.buffered <= 2 * sender.mss)
                if first and self.on_work is not None:
                    self.on_work()
                return 0
            sender.pacer.held_back |= its_turn
            room = min(room, left)
        if room > 0:
            if turns.take(connection):
                sender.pacer.held_back = True
                return room
            if not turns:
                return room
        turns.join(connection, few=sender.buffered <= 2 * sender.mss)
        return 0

    def has_room(self, credit: bool) -> bool:
        """Whether a datagram may be queued now: there is room for data and nobody waits for it, or, with ``credit``,
        at least not twice as much as there should be."""
        queued, most = self._queued, self.limits.output_data
        return (queued < most and not self._turns) or (credit and queued < 2 * most)

    def wait_turn(self, waiter: UdpEndpoint) -> None:
        """Have ``waiter.flush`` called when it may send: in line with the connections."""
        self._turns.join(waiter, few=False)

    def leave_turn(self, waiter: UdpEndpoint) -> None:
        """Undo ``wait_turn``."""
        self._turns.leave(waiter)

    def _serve(self, now: float) -> None:
        """Fill the output queue, if it is half empty, by turns."""
        turns, most = self._turns, self.limits.output_data
        queued = self._queued
        if queued > most // 2:
            return
        # Whole trains only: a turn that is cut short would be a smaller share, again and again.
        train = max(1, min(self.settings.train_max_segments, most // 2))
        stop = most - train
        while turns and queued <= stop:
            # Those with few segments go first as long as that leaves another a turn, or until they had as much as that.
            few = queued <= stop - train or turns.few_in_a_row < train
            turns.serve(now, few=few, flush=self._flush)
            queued = self._queued

    def _finish(self, now: float) -> None:
        """Flush and tell all that something happened to, and serve those that wait for room."""
        active, self._active = self._active, {}
        for connection in active:
            self._flush(connection, now)
        if self.paths.due:
            self.paths.serve(now, self._flush)
        if self._turns:
            self._serve(now)
        for connection in active:
            connection.notify()
        if self._broken:
            broken, self._broken = self._broken, []
            for connection in broken:
                connection.notify()

    # --- the worker's side ---

    @property
    def has_output(self) -> bool:
        """Whether ``take_output`` has something."""
        return bool(self._output)

    def take_output(self, max_packets: int = 64, now: float | None = None) -> Burst:
        """The next packets to send, at most ``max_packets``; [] if there are none.

        The room that this makes is for those that wait for it: they send as of ``now`` (None: the time of what
        happened last, which is too early after a pause).
        """
        if now is not None and now > self._now:
            self._now = now
        output = self._output
        if len(output) <= max_packets:
            burst = list(output)
            output.clear()
        else:
            pop = output.popleft
            burst = [pop() for _ in range(max_packets)]
        self._packets_out += len(burst)
        if self._turns:
            self._serve(self._now)
        return burst
