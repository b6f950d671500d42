"""From what the two sides exchanged to the four slots of a data key.

OpenVPN knows two ways. The older one feeds the random values of key method 2
into the pseudo-random function of TLS 1.0 (RFC 2246, section 5); the newer
one asks TLS itself for keying material (RFC 5705). Either yields 256 bytes,
``key2``: two keys, client to server first, each of 64 bytes for the cipher
and 64 for the HMAC (reference: crypto.h, struct key2; ssl.c,
generate_key_expansion).
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from ..packet.ids import Role

__all__ = [
    "DYNAMIC_TLS_CRYPT_LABEL",
    "EKM_LABEL",
    "KEY2_SIZE",
    "KeySlots",
    "KeySource",
    "key2_from_exporter",
    "key2_from_sources",
    "split_key2",
    "tls1_prf",
]

KEY2_SIZE = 256
SLOT_SIZE = 64
MASTER_SIZE = 48
#: Reference: ssl_backend.h, EXPORT_KEY_DATA_LABEL. No context value is used.
EKM_LABEL = b"EXPORTER-OpenVPN-datakeys"
#: Reference: ssl_backend.h, EXPORT_DYNAMIC_TLS_CRYPT_LABEL; as many bytes, for the control packets of later keys.
DYNAMIC_TLS_CRYPT_LABEL = b"EXPORTER-OpenVPN-dynamic-tls-crypt"
_MASTER_LABEL = b"OpenVPN master secret"
_EXPANSION_LABEL = b"OpenVPN key expansion"


@dataclass(frozen=True, slots=True)
class KeySource:
    """The random values that one side contributes (reference: struct key_source).

    ``pre_master`` is 48 bytes from the client and empty from the server, the
    other two are 32 bytes each.
    """

    pre_master: bytes = field(repr=False)
    random1: bytes = field(repr=False)
    random2: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class KeySlots:
    """key2 from one side's point of view; 64 bytes each."""

    send_cipher: bytes = field(repr=False)
    send_hmac: bytes = field(repr=False)
    receive_cipher: bytes = field(repr=False)
    receive_hmac: bytes = field(repr=False)


def _p_hash(digest: str, secret: bytes, seed: bytes, size: int) -> bytes:
    """P_hash of RFC 2246, section 5."""
    # FIPS builds refuse MD5 unless told that no security rests on it alone; here it is one
    # half of an exclusive-or whose other half is SHA-1.
    keyed = hmac.new(secret, digestmod=partial(hashlib.new, digest, usedforsecurity=False))

    def mac(message: bytes) -> bytes:
        running = keyed.copy()
        running.update(message)
        return running.digest()

    output = bytearray()
    step = seed
    while len(output) < size:
        step = mac(step)
        output += mac(step + seed)
    return bytes(output[:size])


def tls1_prf(secret: bytes, label: bytes, seed: bytes, size: int) -> bytes:
    """``size`` bytes of the TLS 1.0 pseudo-random function (RFC 2246, section 5).

    An odd secret is halved so that the middle byte belongs to both halves.
    """
    half = (len(secret) + 1) // 2
    labelled = label + seed
    left = _p_hash("md5", secret[:half], labelled, size)
    right = _p_hash("sha1", secret[len(secret) - half :], labelled, size)
    return bytes(a ^ b for a, b in zip(left, right, strict=True))


def key2_from_sources(client: KeySource, server: KeySource, *, client_sid: bytes, server_sid: bytes) -> bytes:
    """The 256 bytes of key2 by the PRF. The session ids go into the second step only
    (reference: ssl.c, generate_key_expansion_openvpn_prf)."""
    master = tls1_prf(client.pre_master, _MASTER_LABEL, client.random1 + server.random1, MASTER_SIZE)
    seed = client.random2 + server.random2 + client_sid + server_sid
    return tls1_prf(master, _EXPANSION_LABEL, seed, KEY2_SIZE)


def key2_from_exporter(export: Callable[[bytes, int], bytes]) -> bytes:
    """The 256 bytes of key2 from the TLS session; ``export(label, size)`` is RFC 5705's exporter."""
    return export(EKM_LABEL, KEY2_SIZE)


def split_key2(key2: bytes, role: Role) -> KeySlots:
    """The slots that ``role`` sends and receives with. ValueError: not 256 bytes.

    The client sends with the first key of the two (reference: ssl.c, key_direction_state_init
    with KEY_DIRECTION_NORMAL); tls-auth's directions are the other way round.
    """
    if len(key2) != KEY2_SIZE:
        raise ValueError("key2 has 256 bytes")
    slots = [key2[start : start + SLOT_SIZE] for start in range(0, KEY2_SIZE, SLOT_SIZE)]
    to_server, to_client = slots[:2], slots[2:]
    send, receive = (to_server, to_client) if role is Role.CLIENT else (to_client, to_server)
    return KeySlots(*send, *receive)
