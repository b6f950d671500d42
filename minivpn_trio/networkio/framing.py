"""Packets in a TCP stream: each behind its length, two bytes, big-endian.

``FrameReader`` owns the bytes that are not a whole packet yet. It is fed
whatever a read returned, so a read that is cancelled loses nothing, and
nothing depends on how the stream was cut.
"""

from __future__ import annotations

from struct import Struct

from ..errors import DropReason, ProtocolError

__all__ = ["DEFAULT_MAX_FRAME", "LENGTH_SIZE", "MAX_FRAME", "FrameReader", "frame_burst", "max_frame_of"]

LENGTH = Struct("!H")
#: Bytes of the length prefix.
LENGTH_SIZE = LENGTH.size
#: What the prefix can say.
MAX_FRAME = 0xFFFF
#: Room for a tunnel MTU of 1500 and every overhead. Small enough that a peer which does not
#: speak OpenVPN ("HTTP" would be a length of 18516) is found out by its first two bytes.
DEFAULT_MAX_FRAME = 2048


#: What a packet may have besides the IP packet in it: opcode, peer id, packet id, IV, HMAC, padding,
#: compression and fragment headers come to less than 150 bytes.
OVERHEAD = DEFAULT_MAX_FRAME - 1600


def max_frame_of(tun_mtu: int) -> int:
    """The largest packet to take where the tunnel's MTU is ``tun_mtu`` bytes: 2048, or more for jumbo MTUs."""
    return min(MAX_FRAME, max(DEFAULT_MAX_FRAME, tun_mtu + OVERHEAD))


class FrameReader:
    """Cuts a TCP byte stream into packets of 1 to ``max_frame`` bytes.

    Holds at most ``max_frame + 1`` bytes between calls.
    """

    __slots__ = ("_broken", "_max_frame", "_rest")

    def __init__(self, max_frame: int = DEFAULT_MAX_FRAME) -> None:
        if not 1 <= max_frame <= MAX_FRAME:
            raise ValueError(f"a frame has 1 to {MAX_FRAME} bytes, not {max_frame}")
        self._max_frame = max_frame
        self._rest = b""
        self._broken: ProtocolError | None = None

    @property
    def pending(self) -> int:
        """Bytes of a packet that is not complete; not 0 at the end of the stream: it was cut."""
        return len(self._rest)

    def feed_untrusted(self, data: bytes) -> list[bytes]:
        """The packets that ``data``, the next piece of the stream, completes; any number, in order.

        Raises ProtocolError (TOO_SHORT, TOO_LONG) at a length that no packet
        can have. Where packets precede it in the same piece they are returned
        first and the next call raises. There is no way to go on after that:
        the connection must be closed.
        """
        if self._broken is not None:
            raise self._broken
        # Also makes bytes of a bytearray, which some streams deliver.
        data = self._rest + data
        frames: list[bytes] = []
        append = frames.append
        length_at = LENGTH.unpack_from
        longest = self._max_frame
        position = 0
        # Where a length prefix may begin and still be whole.
        last = len(data) - LENGTH_SIZE
        while position <= last:
            (length,) = length_at(data, position)
            if not 1 <= length <= longest:
                self._rest = b""
                reason = DropReason.TOO_LONG if length else DropReason.TOO_SHORT
                self._broken = ProtocolError(reason, f"a packet of {length} bytes in the stream")
                if not frames:
                    raise self._broken
                return frames
            start = position + LENGTH_SIZE
            end = start + length
            if end > len(data):
                break
            append(data[start:end])
            position = end
        self._rest = data[position:]
        return frames


def frame_burst(burst: list[bytes]) -> bytes:
    """All packets of ``burst`` with their length prefixes, for one write.

    Raises ValueError if a packet is empty or longer than 65535 bytes.
    """
    pack = LENGTH.pack
    parts: list[bytes] = []
    for packet in burst:
        size = len(packet)
        if not 1 <= size <= MAX_FRAME:
            raise ValueError(f"a frame has 1 to {MAX_FRAME} bytes, not {size}")
        parts += (pack(size), packet)
    return b"".join(parts)
