"""OCC: the messages by which openvpn compares options and measures the path's MTU, inside the data channel.

::

    magic 16 | op 1 | ...
      0 REQUEST             what are your options?          1 REPLY      options string, NUL
      2 MTU_LOAD_REQUEST    send me SIZE bytes (2)          3 MTU_LOAD   anything: its size is the message
      4 MTU_REQUEST         what got through?               5 MTU_REPLY  longest received (2), longest sent (2)
      6 EXIT                I am leaving

(Reference: occ.c.) With TLS the options are compared in the key exchange, so
all that a server usually says here is EXIT; a peer with ``mtu-test`` asks the
rest. It gets its answers, but not more than one of each kind a second, and no
longer ones than a packet of the tunnel can be: who asks has authenticated, and
is still no reason to send more than anybody wants.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum

from ..packet.ids import RandomBytes

__all__ = ["ANSWER_INTERVAL", "MAX_LOAD", "OCC_EXIT_MESSAGE", "OCC_MAGIC", "OccOp", "OccResponder"]

OCC_MAGIC = bytes.fromhex("287f346bd4ef7a812d56b8d3afc5459c")

#: Seconds between two answers of one kind. The C client asks for one every 3 (mtu-test) or 10 (options).
ANSWER_INTERVAL = 1.0
#: Longest datagram sent as MTU_LOAD, bytes; what IV_MTU announces, and room for what is around it.
MAX_LOAD = 1700
MAX_SIZE = 0xFFFF


class OccOp(IntEnum):
    """What an OCC message is about: the byte after the magic."""

    REQUEST = 0
    REPLY = 1
    MTU_LOAD_REQUEST = 2
    MTU_LOAD = 3
    MTU_REQUEST = 4
    MTU_REPLY = 5
    EXIT = 6


OCC_EXIT_MESSAGE = OCC_MAGIC + bytes([OccOp.EXIT])

_ANSWERS = {
    OccOp.REQUEST: OccOp.REPLY,
    OccOp.MTU_LOAD_REQUEST: OccOp.MTU_LOAD,
    OccOp.MTU_REQUEST: OccOp.MTU_REPLY,
}


class OccResponder:
    """Remembers what was asked, and answers in its own time. Sizes are bytes."""

    __slots__ = ("_asked", "_load_size", "_next_at", "longest_in", "longest_out", "options")

    def __init__(self) -> None:
        #: Our options string; without it there is no REPLY.
        self.options: str = ""
        #: The longest datagrams of an MTU test, received and sent.
        self.longest_in: int = 0
        self.longest_out: int = 0
        self._asked: set[OccOp] = set()
        self._load_size = 0
        self._next_at = float("-inf")

    def handle_untrusted(self, message: bytes, datagram_size: int) -> bool:
        """Take ``message``, magic included, which came in a datagram of ``datagram_size`` bytes.

        True: it asks for an answer that it will get. Never raises.
        """
        op = message[len(OCC_MAGIC) :][:1]
        if op == bytes([OccOp.MTU_LOAD]):
            self.longest_in = max(self.longest_in, min(datagram_size, MAX_SIZE))
            return False
        if not op or op[0] not in _ANSWERS or (op[0] == OccOp.REQUEST and not self.options):
            return False
        asked = OccOp(op[0])
        if asked is OccOp.MTU_LOAD_REQUEST:
            size = message[len(OCC_MAGIC) + 1 :][:2]
            if len(size) < 2:
                return False
            self._load_size = min(int.from_bytes(size, "big"), MAX_LOAD)
        self._asked.add(asked)
        return True

    def next_timeout(self) -> float | None:
        """When ``poll`` has something; minus infinity: at once; None: nothing was asked."""
        return self._next_at if self._asked else None

    def poll(self, now: float, largest_message: Callable[[int], int], rng: RandomBytes) -> list[bytes]:
        """The answers that are due. ``largest_message``: the longest message for a datagram of that size."""
        if not self._asked or now < self._next_at:
            return []
        answers = [self._answer(_ANSWERS[op], largest_message, rng) for op in sorted(self._asked)]
        self._asked.clear()
        self._next_at = now + ANSWER_INTERVAL
        return answers

    def _answer(self, op: OccOp, largest_message: Callable[[int], int], rng: RandomBytes) -> bytes:
        head = OCC_MAGIC + bytes([op])
        if op is OccOp.REPLY:
            return head + self.options.encode() + b"\0"
        if op is OccOp.MTU_REPLY:
            return head + self.longest_in.to_bytes(2, "big") + self.longest_out.to_bytes(2, "big")
        filling = largest_message(self._load_size) - len(head)
        self.longest_out = max(self.longest_out, min(self._load_size, MAX_SIZE))
        return head + (rng(filling) if filling > 0 else b"")
