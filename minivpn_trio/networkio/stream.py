"""A byte stream to the server, TCP's or one that the application opened, with framed packets in it.

What is read is cut into packets by framing.py. A burst goes out as one write. Over a real socket a worker's step
writes what the kernel takes at once (``send_some``), which may end within a frame: then nothing else may be sent
before the rest of that frame.
"""

from __future__ import annotations

import os
import socket

import trio

from ..items import Burst
from ..stats import TransportStats
from .framing import DEFAULT_MAX_FRAME, LENGTH_SIZE, FrameReader, frame_burst
from .transport import MAX_BURST, RECEIVE_SIZE

__all__ = ["StreamTransport"]


class StreamTransport:
    """Datagrams with 16-bit length prefixes in a byte stream. Owns the stream."""

    is_stream = True

    packets_in: int
    packets_out: int
    bytes_in: int
    bytes_out: int
    bursts_in: int
    bursts_out: int

    def __init__(
        self,
        stream: trio.abc.Stream,
        peer: str | None = None,
        *,
        max_frame: int = DEFAULT_MAX_FRAME,
        received: bytes = b"",
    ) -> None:
        """``max_frame``: bytes of the largest packet taken (``framing.max_frame_of``).

        ``received`` is what of the stream was read already.
        """
        self._stream = stream
        self._peer = peer
        self._reader = FrameReader(max_frame)
        self._unread = received
        self._ready: Burst = []
        self._mid_frame = False
        #: Bytes of the next datagram's frame that ``send_some`` got out.
        self._begun = 0
        #: Of a real socket; -1: there is none, or it is closed.
        self._descriptor = stream.socket.fileno() if isinstance(stream, trio.SocketStream) else -1
        self.packets_in = self.packets_out = self.bytes_in = self.bytes_out = 0
        self.bursts_in = self.bursts_out = 0

    @property
    def peer(self) -> str | None:
        """The server's numeric address, where there is one."""
        return self._peer

    def established(self) -> None:
        """Nothing changes: a stream that breaks stays broken."""

    async def receive(self) -> Burst:
        """1 to 64 datagrams. Cancel-safe: the frame reader keeps what arrived of a frame.

        Raises trio.EndOfChannel at the end of the stream, trio.BrokenResourceError when it
        breaks, ProtocolError when the peer sends a length that no packet has.
        """
        while not self._ready:
            if self._unread:
                await trio.lowlevel.checkpoint()
                data, self._unread = self._unread, b""
            else:
                data = bytes(await self._stream.receive_some(RECEIVE_SIZE))
            if not data:
                raise trio.EndOfChannel
            self._ready = self._reader.feed_untrusted(data)
        burst, self._ready = self._ready[:MAX_BURST], self._ready[MAX_BURST:]
        self.packets_in += len(burst)
        self.bursts_in += 1
        self.bytes_in += sum(map(len, burst))
        return burst

    async def send(self, burst: Burst) -> None:
        """Send all of ``burst`` as one write. Checkpoints.

        Cancelled: a frame may have been sent in part, so the stream is of no more use.
        """
        data = frame_burst(burst)[self._begun :]
        self._mid_frame = True
        await self._stream.send_all(data)
        self._mid_frame = False
        self._begun = 0
        self.packets_out += len(burst)
        self.bursts_out += 1
        self.bytes_out += sum(map(len, burst))

    def send_some(self, burst: Burst) -> int:
        """Write what a real socket takes at once; how many datagrams that was, not counting one that went in part.

        The rest has to be handed to ``send``, and before anything else: it knows how much of the first is out.
        """
        if self._descriptor < 0 or self._mid_frame or self._begun:
            return 0
        data = frame_burst(burst)
        try:
            written = os.write(self._descriptor, data)
        except BlockingIOError:
            return 0
        if written == len(data):
            count = len(burst)
        else:
            count = 0
            while written >= len(burst[count]) + LENGTH_SIZE:
                written -= len(burst[count]) + LENGTH_SIZE
                count += 1
            self._begun = written
        self.packets_out += count
        self.bursts_out += count > 0
        self.bytes_out += sum(map(len, burst[:count]))
        return count

    def send_nowait(self, burst: Burst) -> None:
        """Send without waiting if the stream is a real socket between two frames."""
        if self._mid_frame or self._begun or not isinstance(self._stream, trio.SocketStream):
            return
        try:
            with socket.fromfd(
                self._stream.socket.fileno(), self._stream.socket.family, self._stream.socket.type
            ) as sock:
                sock.setblocking(False)
                sock.send(frame_burst(burst))
        except OSError:
            pass

    def stats(self) -> TransportStats:
        """Counters so far."""
        return TransportStats(
            packets_in=self.packets_in,
            packets_out=self.packets_out,
            bytes_in=self.bytes_in,
            bytes_out=self.bytes_out,
            bursts_in=self.bursts_in,
            bursts_out=self.bursts_out,
        )

    async def aclose(self) -> None:
        """Close the stream. Idempotent, checkpoints."""
        self._descriptor = -1
        await self._stream.aclose()
