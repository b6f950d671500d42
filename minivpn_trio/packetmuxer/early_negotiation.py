"""Early negotiation: what client and server tell each other in the hard resets.

A client that knows it counts its replay ids from 0x0f000001. Such a client
reads the payload of the server's hard reset as a list of

::

    type (2)   length (2)   value (length)

The one type there is holds 16 flags, of which one is defined: the wrapped
client key of tls-crypt-v2 must be sent again with message 1, since the server
kept nothing of the packet that had it (reference: ssl_pkt.h; ssl.c,
parse_early_negotiation_tlvs).
"""

from __future__ import annotations

from enum import IntFlag
from struct import Struct

from ..errors import DropReason, ProtocolError

__all__ = ["FIRST_REPLAY_ID", "EarlyFlag", "announces_early_negotiation", "parse_early_untrusted", "serialize_early"]

#: The first replay id of a client that reads what is in the server's hard reset.
FIRST_REPLAY_ID = 0x0F00_0001
_MARK_SHIFT = 24

_HEAD = Struct("!HH")
_FLAGS = Struct("!H")
_TYPE_FLAGS = 1


class EarlyFlag(IntFlag):
    """What a server asks for in its hard reset."""

    #: Append the wrapped client key to message 1, each time it is sent.
    RESEND_WKC = 1


def announces_early_negotiation(replay_id: int) -> bool:
    """Whether a client that began with this replay id reads what the server's hard reset holds."""
    return replay_id >> _MARK_SHIFT == FIRST_REPLAY_ID >> _MARK_SHIFT


def parse_early_untrusted(payload: bytes) -> EarlyFlag:
    """The flags in the payload of a server's hard reset; none, where it is empty.

    Types and flags that nobody knows yet are skipped. Raises ProtocolError, MALFORMED.
    """
    flags = EarlyFlag(0)
    position = 0
    while position < len(payload):
        start = position + _HEAD.size
        if start > len(payload):
            raise ProtocolError(DropReason.MALFORMED, "early negotiation: cut in a head")
        kind, size = _HEAD.unpack_from(payload, position)
        position = start + size
        if position > len(payload):
            raise ProtocolError(DropReason.MALFORMED, "early negotiation: cut in a value")
        if kind == _TYPE_FLAGS:
            if size != _FLAGS.size:
                raise ProtocolError(DropReason.MALFORMED, f"early negotiation: {size} bytes of flags")
            flags |= EarlyFlag(_FLAGS.unpack_from(payload, start)[0]) & EarlyFlag.RESEND_WKC
    return flags


def serialize_early(flags: EarlyFlag) -> bytes:
    """The payload of a server's hard reset that asks for ``flags``; nothing, for none."""
    return _HEAD.pack(_TYPE_FLAGS, _FLAGS.size) + _FLAGS.pack(flags) if flags else b""
