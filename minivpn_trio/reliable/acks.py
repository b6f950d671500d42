"""What we owe the peer: acknowledgements that are due, and those worth repeating.

Every control packet has room for a few acknowledgements. New ones go first;
what room is left repeats the most recently used ones (MRU), because a packet
that carried them may have been lost, and repeating four bytes is cheaper than
the peer's retransmission (reference: reliable.c, copy_acks_to_mru).
"""

from __future__ import annotations

from ..packet.ids import PacketID

__all__ = ["ACKS_IN_ACK", "ACKS_IN_CONTROL", "ACK_QUEUE_SIZE", "AckQueue"]

#: Acknowledgements that wait to be sent, and equally those remembered for repetition
#: (reference: reliable.h, RELIABLE_ACK_SIZE).
ACK_QUEUE_SIZE = 8
#: Most acknowledgements in a packet that carries a message (reference: ssl.h).
ACKS_IN_CONTROL = 4
#: Most acknowledgements in an ACK_V1.
ACKS_IN_ACK = 8


class AckQueue:
    """The acknowledgements of one conversation, at most ``ACK_QUEUE_SIZE`` due ones."""

    __slots__ = ("_due", "_pending", "_recent")

    def __init__(self) -> None:
        self._pending: list[PacketID] = []
        self._recent: list[PacketID] = []
        self._due: float | None = None

    def __len__(self) -> int:
        return len(self._pending)

    @property
    def pending(self) -> tuple[PacketID, ...]:
        """What was not acknowledged yet, in order of arrival."""
        return tuple(self._pending)

    @property
    def recent(self) -> tuple[PacketID, ...]:
        """What was acknowledged lately, newest first, at most ``ACK_QUEUE_SIZE``."""
        return tuple(self._recent)

    @property
    def due(self) -> float | None:
        """When the pending acknowledgements have to go even if no message goes their way; None:
        nothing is pending."""
        return self._due

    def add(self, packet_id: PacketID, due: float) -> bool:
        """Owe an acknowledgement of ``packet_id`` from ``due`` on (absolute seconds).

        One that is pending already stays as it is: a repeated message is no reason to hurry.
        False: the queue is full, so the peer has to send that message again.
        """
        if packet_id in self._pending:
            return True
        if len(self._pending) >= ACK_QUEUE_SIZE:
            return False
        self._pending.append(packet_id)
        self._due = due if self._due is None else min(self._due, due)
        return True

    def take(self, limit: int) -> tuple[PacketID, ...]:
        """At most ``limit`` acknowledgements for a packet that leaves now: pending ones, then
        repetitions, newest first."""
        fresh = self._pending[:limit]
        if fresh:
            del self._pending[:limit]
            self._recent = (fresh + [old for old in self._recent if old not in fresh])[:ACK_QUEUE_SIZE]
            if not self._pending:
                self._due = None
        return tuple(self._recent[:limit])
