"""The peer's messages of one conversation: put in order, kept until the stage above took them.

The window begins at the first message that was not taken yet, so what a slow
stage above leaves here bounds what the peer can make us hold. A message is
acknowledged only when it is stored or was stored before (reference:
reliable.c, reliable_wont_break_sequentiality, reliable_not_replay).
"""

from __future__ import annotations

from enum import Enum

from ..packet.ids import PacketID
from ..packet.opcodes import Opcode

__all__ = ["RECEIVE_WINDOW", "Receiver", "Verdict"]

#: Message ids from the next one to deliver on that are accepted (reference: ssl_pkt.h).
RECEIVE_WINDOW = 12


class Verdict(Enum):
    """What became of a message."""

    #: Stored: acknowledge it.
    NEW = "new"
    #: Stored or delivered before: acknowledge it again, the acknowledgement was lost.
    DUPLICATE = "duplicate"
    #: Too far ahead to be stored: no acknowledgement, or the peer would forget it.
    OUT_OF_WINDOW = "out of window"


class Receiver:
    """The receiving half of a conversation; holds at most ``RECEIVE_WINDOW`` messages."""

    __slots__ = ("_next_id", "_stored")

    def __init__(self) -> None:
        self._next_id = 0
        self._stored: dict[int, tuple[Opcode, bytes]] = {}

    @property
    def stored(self) -> int:
        """Messages held, deliverable or waiting for an earlier one."""
        return len(self._stored)

    @property
    def hole(self) -> PacketID | None:
        """The first message that is missing while a later one is here; None: there is none."""
        missing = self._next_id
        while missing in self._stored:
            missing += 1
        return PacketID(missing) if any(stored > missing for stored in self._stored) else None

    def judge(self, packet_id: PacketID) -> Verdict:
        """What ``accept`` would say, changing nothing."""
        if packet_id < self._next_id or packet_id in self._stored:
            return Verdict.DUPLICATE
        if packet_id >= self._next_id + RECEIVE_WINDOW:
            return Verdict.OUT_OF_WINDOW
        return Verdict.NEW

    def accept(self, packet_id: PacketID, opcode: Opcode, payload: bytes) -> Verdict:
        """Store a message if it is new. Of two with the same id the first one counts."""
        verdict = self.judge(packet_id)
        if verdict is Verdict.NEW:
            self._stored[packet_id] = (opcode, payload)
        return verdict

    def ready(self) -> list[tuple[Opcode, bytes]]:
        """The messages that are next in order, without taking them."""
        messages = []
        packet_id = self._next_id
        while (message := self._stored.get(packet_id)) is not None:
            messages.append(message)
            packet_id += 1
        return messages

    def advance(self, count: int) -> None:
        """The first ``count`` messages of ``ready`` were taken: forget them, move the window."""
        for _ in range(count):
            del self._stored[self._next_id]
            self._next_id += 1
