"""The key files of tls-crypt-v2: a client's, and a server's for whoever makes clients' keys.

Both are PEM. A client's holds its tls-crypt key Kc, 256 bytes, and after it
the same key wrapped for the server, WKc: 32 bytes of tag, Kc and metadata
encrypted, and a length that counts WKc as a whole, itself included. Only the
server can open WKc; the client hands it over as it is (reference:
tls_crypt.c, tls_crypt_v2_init_client_key). A server's key has 128 bytes.
"""

from __future__ import annotations

import binascii
import re
from dataclasses import dataclass, field

__all__ = [
    "LENGTH_SIZE",
    "MAX_WRAPPED_KEY",
    "MIN_WRAPPED_KEY",
    "SERVER_KEY_SIZE",
    "TlsCryptV2ClientKey",
    "parse_client_key",
    "parse_server_key",
    "serialize_client_key",
    "serialize_server_key",
]

KEY_SIZE = 256
SERVER_KEY_SIZE = 128
#: Of the number at the end of WKc.
LENGTH_SIZE = 2
#: Bytes of a WKc without metadata (tag, Kc, length), and of the longest (reference: tls_crypt.h).
MIN_WRAPPED_KEY = 32 + KEY_SIZE + LENGTH_SIZE
MAX_WRAPPED_KEY = 1024
#: Characters in a line of PEM.
_LINE = 64

_KINDS = {
    kind: re.compile(
        b"-----BEGIN OpenVPN tls-crypt-v2 %s key-----(.*?)-----END OpenVPN tls-crypt-v2 %s key-----" % (kind, kind),
        re.DOTALL,
    )
    for kind in (b"client", b"server")
}


@dataclass(frozen=True, slots=True)
class TlsCryptV2ClientKey:
    """A client's key. Never shown by ``repr``."""

    #: Kc, 256 bytes, laid out like a static key.
    key: bytes = field(repr=False)
    #: WKc, as it goes over the wire.
    wrapped: bytes = field(repr=False)


def parse_client_key(text: bytes) -> TlsCryptV2ClientKey:
    """The key in ``text``, a file as ``openvpn --genkey tls-crypt-v2-client`` writes it.

    Raises ValueError, with a text for the user that quotes nothing.
    """
    data = _decode(text, b"client")
    key, wrapped = data[:KEY_SIZE], data[KEY_SIZE:]
    if len(wrapped) < MIN_WRAPPED_KEY:
        raise ValueError(
            f"the tls-crypt-v2 client key is cut: {len(data)} bytes instead of {KEY_SIZE + MIN_WRAPPED_KEY} or more"
        )
    if len(wrapped) > MAX_WRAPPED_KEY:
        raise ValueError(f"the wrapped part of the tls-crypt-v2 client key is longer than {MAX_WRAPPED_KEY} bytes")
    if int.from_bytes(wrapped[-LENGTH_SIZE:]) != len(wrapped):
        raise ValueError("the tls-crypt-v2 client key is damaged: its length does not agree with what it says")
    return TlsCryptV2ClientKey(key, wrapped)


def parse_server_key(text: bytes) -> bytes:
    """The 128 bytes in ``text``, a file as ``openvpn --genkey tls-crypt-v2-server`` writes it. Raises ValueError."""
    data = _decode(text, b"server")
    if len(data) != SERVER_KEY_SIZE:
        raise ValueError(f"the tls-crypt-v2 server key has {len(data)} bytes instead of {SERVER_KEY_SIZE}")
    return data


def serialize_client_key(key: TlsCryptV2ClientKey) -> bytes:
    """The file for a client."""
    return _encode(key.key + key.wrapped, b"client")


def serialize_server_key(key: bytes) -> bytes:
    """The file for a server."""
    return _encode(key, b"server")


def _decode(text: bytes, kind: bytes) -> bytes:
    found = _KINDS[kind].search(text)
    if found is None:
        raise ValueError(f"there is no tls-crypt-v2 {kind.decode()} key in it")
    try:
        return binascii.a2b_base64(b"".join(found[1].split()), strict_mode=True)
    except binascii.Error:
        raise ValueError(f"the tls-crypt-v2 {kind.decode()} key is damaged: it is no base64") from None


def _encode(data: bytes, kind: bytes) -> bytes:
    digits = binascii.b2a_base64(data, newline=False)
    lines = [digits[start : start + _LINE] for start in range(0, len(digits), _LINE)]
    name = b"OpenVPN tls-crypt-v2 %s key-----" % kind
    return b"\n".join([b"-----BEGIN " + name, *lines, b"-----END " + name, b""])
