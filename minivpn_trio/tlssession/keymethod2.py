"""Key method 2: the one message that each side sends first once TLS is up.

    u32 0 | u8 2 | [pre-master 48, client only] | random1 32 | random2 32
        | options | username | password | peer info

A string is a 16-bit length that counts a closing NUL, then the bytes; an
empty one may be just the length 0 (reference: ssl.c, key_method_2_write,
write_empty_string). Old servers leave out the strings after the options.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from ..errors import DropReason, ProtocolError
from ..packet.ids import RandomBytes, Role
from .keys import KeySource

__all__ = ["MAX_KEY_METHOD_2", "MAX_STRING", "KeyMethod2", "decode_untrusted", "encode", "new_source"]

_HEADER = struct.Struct("!IB")
_KEY_METHOD = 2
#: The upper bits of the method byte are reserved (reference: ssl.h, KEY_METHOD_MASK).
_KEY_METHOD_MASK = 0x0F
_PRE_MASTER = 48
_RANDOM = 32
#: Longest string that is believed, bytes with its NUL (reference: TLS_CHANNEL_BUF_SIZE).
MAX_STRING = 2048
#: A message is never longer than this: header, secrets and four strings.
MAX_KEY_METHOD_2 = _HEADER.size + _PRE_MASTER + 2 * _RANDOM + 4 * (2 + MAX_STRING)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyMethod2:
    """One side's message. Only ``options`` is safe to show."""

    source: KeySource = field(repr=False)
    options: str
    username: str = field(default="", repr=False)
    password: str = field(default="", repr=False)
    #: Lines ``NAME=value``, each ending with a line feed.
    peer_info: str = field(default="", repr=False)


def new_source(role: Role, rng: RandomBytes) -> KeySource:
    """Fresh random values for ``role``'s side."""
    return KeySource(rng(_PRE_MASTER) if role is Role.CLIENT else b"", rng(_RANDOM), rng(_RANDOM))


def _string(text: str, what: str) -> bytes:
    if not text:
        return b"\x00\x00"
    encoded = text.encode("utf-8", "surrogateescape")
    if b"\x00" in encoded or len(encoded) >= MAX_STRING:
        # No value here: it may be the password.
        raise ValueError(f"the {what} cannot be sent: longer than {MAX_STRING - 1} bytes or with a NUL in it")
    return struct.pack("!H", len(encoded) + 1) + encoded + b"\x00"


def encode(message: KeyMethod2) -> bytes:
    """The message's bytes. ValueError: a string is too long or holds a NUL."""
    source = message.source
    return b"".join(
        (
            _HEADER.pack(0, _KEY_METHOD),
            source.pre_master,
            source.random1,
            source.random2,
            _string(message.options, "options string"),
            _string(message.username, "user name"),
            _string(message.password, "password"),
            _string(message.peer_info, "peer info"),
        )
    )


def decode_untrusted(data: bytes, sender: Role) -> tuple[KeyMethod2, int] | None:
    """Read the message of ``sender`` from the start of ``data``.

    Returns it and how many bytes it took, or None while more must come.
    ``data`` ends where a read of the TLS stream ended: a server's message that
    ends exactly after one of its strings is complete, and what cannot be a
    string is the first control message. A client always sends all four.
    Raises ProtocolError for bytes that never become a message.
    """
    secrets = (_PRE_MASTER if sender is Role.CLIENT else 0) + 2 * _RANDOM
    offset = _HEADER.size
    if len(data) < offset:
        return None
    zero, method = _HEADER.unpack_from(data)
    if zero != 0 or method & _KEY_METHOD_MASK != _KEY_METHOD:
        raise ProtocolError(DropReason.MALFORMED, "not key method 2")
    if len(data) < offset + secrets:
        return None
    pre_master_end = offset + secrets - 2 * _RANDOM
    source = KeySource(
        data[offset:pre_master_end],
        data[pre_master_end : pre_master_end + _RANDOM],
        data[pre_master_end + _RANDOM : pre_master_end + 2 * _RANDOM],
    )
    offset += secrets
    strings: list[str] = []
    while len(strings) < 4:
        optional = bool(strings) and sender is Role.SERVER
        if optional and offset == len(data):
            break
        if len(data) < offset + 2:
            return None
        (size,) = struct.unpack_from("!H", data, offset)
        if size > MAX_STRING:
            if optional:
                break
            raise ProtocolError(DropReason.TOO_LONG, "a string of key method 2")
        if len(data) < offset + 2 + size:
            return None
        strings.append(_text_untrusted(data[offset + 2 : offset + 2 + size]))
        offset += 2 + size
    strings += [""] * (4 - len(strings))
    options, username, password, peer_info = strings
    message = KeyMethod2(source=source, options=options, username=username, password=password, peer_info=peer_info)
    return message, offset


def _text_untrusted(raw: bytes) -> str:
    text, _, rest = raw.partition(b"\x00")
    if rest:
        raise ProtocolError(DropReason.MALFORMED, "a string of key method 2 with something after its end")
    return text.decode("utf-8", "surrogateescape")
