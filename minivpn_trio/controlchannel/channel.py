"""The control channel: messages of the reliability layer <-> the TLS byte streams of the keys.

TLS ciphertext is one stream of bytes for each key. On the way down it is cut
into pieces that fit a control packet; where the cuts fall means nothing, so on
the way up neighbouring pieces are joined. Resets travel in the same sequence
of messages and are told apart here: a soft reset concerns the session, a hard
one packetmuxer has seen already.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

from ..errors import DropReason
from ..items import ExpectKey, OpenKey, RetireKey, Segment, SoftResetSeen, TLSBytes
from ..packet.ids import KeyID, Role
from ..packet.opcodes import Opcode

__all__ = ["ControlChannel"]

_TLS_OPCODES = frozenset({Opcode.CONTROL_V1, Opcode.CONTROL_WKC_V1})
_HARD_RESETS = {
    Role.CLIENT: frozenset({Opcode.CONTROL_HARD_RESET_SERVER_V2}),
    Role.SERVER: frozenset({Opcode.CONTROL_HARD_RESET_CLIENT_V2, Opcode.CONTROL_HARD_RESET_CLIENT_V3}),
}


class ControlChannel:
    """Cuts and joins the TLS streams of one session; holds no bytes itself.

    ``max_payload`` says how many bytes fit a control packet; it is asked each time, because it
    changes with the wrapping of the control channel.
    """

    def __init__(self, *, role: Role, max_payload: Callable[[], int]) -> None:
        self._max_payload = max_payload
        self._hard_resets = _HARD_RESETS[role]
        self.drops: Counter[DropReason] = Counter()

    def handle_segments(self, segments: Iterable[Segment]) -> list[TLSBytes | SoftResetSeen]:
        """What messages of the peer, in their order, mean to the session."""
        items: list[TLSBytes | SoftResetSeen] = []
        pieces: list[bytes] = []
        key_id = None
        for segment in segments:
            if segment.key_id != key_id or segment.opcode not in _TLS_OPCODES:
                _flush(items, key_id, pieces)
                key_id = segment.key_id
            if segment.opcode in _TLS_OPCODES:
                pieces.append(segment.payload)
            elif segment.opcode is Opcode.CONTROL_SOFT_RESET_V1:
                items.append(SoftResetSeen(segment.key_id))
            elif segment.opcode not in self._hard_resets:
                self.drops[DropReason.UNEXPECTED_OPCODE] += 1
        _flush(items, key_id, pieces)
        return items

    def segment(
        self, items: Iterable[TLSBytes | OpenKey | ExpectKey | RetireKey]
    ) -> list[Segment | OpenKey | ExpectKey | RetireKey]:
        """The session's bytes, cut into messages; its commands pass between them unchanged."""
        size = self._max_payload()
        if size < 1:
            raise ValueError(f"no room for a payload: max_payload is {size}")
        out: list[Segment | OpenKey | ExpectKey | RetireKey] = []
        for item in items:
            if isinstance(item, TLSBytes):
                out += [
                    Segment(item.key_id, Opcode.CONTROL_V1, item.data[start : start + size])
                    for start in range(0, len(item.data), size)
                ]
            else:
                out.append(item)
        return out


def _flush(items: list[TLSBytes | SoftResetSeen], key_id: KeyID | None, pieces: list[bytes]) -> None:
    """Turn ``pieces`` into one item, if they hold anything."""
    data = b"".join(pieces)
    pieces.clear()
    if data and key_id is not None:
        items.append(TLSBytes(key_id, data))
