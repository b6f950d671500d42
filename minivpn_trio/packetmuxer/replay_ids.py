"""The long packet ids that wrapped control packets carry against replay: a counter and a time.

Both numbers are 4 bytes, big-endian: the counter starts at 1, the time
(``net_time``, Unix seconds) is taken once, with the first packet. A time that
moved with each packet would make every reordered packet look like a replay
(reference: packet_id.c, packet_id_send_update).
"""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct

from ..errors import DropReason, ProtocolError
from ..packet.replay import ReplayWindow

__all__ = ["REPLAY_ID_SIZE", "ReplayIDs", "check_replay_untrusted"]

REPLAY_ID = Struct("!II")
#: Counter and time, bytes.
REPLAY_ID_SIZE = REPLAY_ID.size
MAX_COUNTER = 0xFFFF_FFFF
TIME_MASK = 0xFFFF_FFFF


class ReplayIDs:
    """Hands out replay ids, never one twice: retransmissions get fresh ones too.

    ``unix_time`` returns the wall clock; it is read with the first packet and
    again only when the counter, after 2**32 - 1 packets, starts over. The first
    counter is ``first`` (tls-crypt-v2 begins elsewhere, which tells the server
    what the client can do).
    """

    __slots__ = ("_counter", "_net_time", "_unix_time")

    def __init__(self, unix_time: Callable[[], float], *, first: int = 1) -> None:
        self._unix_time = unix_time
        self._counter = first - 1
        self._net_time: int | None = None

    def take(self) -> bytes:
        """The next id as it is on the wire, 8 bytes."""
        if self._net_time is None:
            self._net_time = int(self._unix_time()) & TIME_MASK
        elif self._counter == MAX_COUNTER:
            self._counter = 0
            self._net_time = max(int(self._unix_time()), self._net_time + 1) & TIME_MASK
        self._counter += 1
        return REPLAY_ID.pack(self._counter, self._net_time)


def check_replay_untrusted(window: ReplayWindow, replay_id: bytes, now: float) -> None:
    """Refuse the id of an authenticated packet that was seen before: ProtocolError, REPLAY."""
    counter, net_time = REPLAY_ID.unpack(replay_id)
    if not window.check_and_update(counter, now, net_time):
        raise ProtocolError(DropReason.REPLAY, f"id {counter}")
