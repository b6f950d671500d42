"""Keys for the control channel, in the files that openvpn reads and writes."""

from __future__ import annotations

import os

from ..config.tls_crypt_v2_key import (
    SERVER_KEY_SIZE,
    TlsCryptV2ClientKey,
    parse_server_key,
    serialize_client_key,
    serialize_server_key,
)
from ..packet.ids import RandomBytes
from ..packetmuxer.static_key import STATIC_KEY_SIZE, StaticKey
from ..packetmuxer.tls_crypt_v2 import wrap_client_key

__all__ = ["static_key", "tls_crypt_v2_client_key", "tls_crypt_v2_server_key"]


def static_key(*, rng: RandomBytes = os.urandom) -> bytes:
    """A new key file for tls-auth or tls-crypt, as ``openvpn --genkey secret`` makes it."""
    digits = rng(STATIC_KEY_SIZE).hex().encode()
    lines = [digits[start : start + 32] for start in range(0, len(digits), 32)]
    name = b"OpenVPN Static key V1-----"
    return b"\n".join([b"-----BEGIN " + name, *lines, b"-----END " + name, b""])


def tls_crypt_v2_server_key(*, rng: RandomBytes = os.urandom) -> bytes:
    """A new server key file, as ``openvpn --genkey tls-crypt-v2-server`` makes it."""
    return serialize_server_key(rng(SERVER_KEY_SIZE))


def tls_crypt_v2_client_key(server_key: bytes, *, metadata: bytes = b"\x00", rng: RandomBytes = os.urandom) -> bytes:
    """A new client's key file for the server with the key file ``server_key``.

    ``metadata`` begins with its type, 0 for the operator's own; openvpn's is 1 and a 64-bit time. At most 734 bytes.
    Raises ValueError.
    """
    key = StaticKey(rng(STATIC_KEY_SIZE))
    wrapped = wrap_client_key(parse_server_key(server_key), key, metadata)
    return serialize_client_key(TlsCryptV2ClientKey(key.material, wrapped))
