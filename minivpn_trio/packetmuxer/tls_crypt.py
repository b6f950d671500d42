"""tls-crypt: every control packet is encrypted and authenticated with a key both sides hold.

::

    wire   op+session id (9) | replay id (8) | tag (32) | AES-256-CTR(body)
    tag    HMAC-SHA256 over op+session id | replay id | body; its first 16 bytes are the IV

The client always sends with the second pair of the key and receives with the
first (reference: tls_crypt.c; Rogaway and Shrimpton's SIV construction). The
same construction with another key is tls-crypt-v2 (tls_crypt_v2.py), where
the packets that open a session have the wrapped client key appended, and
dynamic tls-crypt: there the control packets of all keys after the first are
protected with a key exported from the first TLS session, combined with the
static key if there is one. Whoever recorded a session and gets hold of the
static key later can still not read, or forge, its renegotiations (reference:
tls_crypt.c, tls_session_generate_dynamic_tls_crypt_key).
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from functools import partial

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR

from ..errors import DropReason, ProtocolError
from ..packet.codec import HEAD_SIZE
from ..packet.ids import Role
from ..packet.replay import ReplayWindow
from .replay_ids import REPLAY_ID_SIZE, ReplayIDs, check_replay_untrusted
from .static_key import StaticKey
from .wrapping import ControlWrap, Opened

__all__ = ["BODY_AT", "DIGEST", "KEY_SIZE", "OVERHEAD", "TAG_SIZE", "TlsCrypt", "dynamic_tls_crypt", "xor_keystream"]

TAG_SIZE = 32
IV_SIZE = 16
KEY_SIZE = 32
DIGEST = "sha256"

#: Bytes to set aside in a datagram. 40 of them are on the wire; the reference reserves one
#: cipher block more, and its full packets (1206 bytes) are what a server and an observer know.
OVERHEAD = REPLAY_ID_SIZE + TAG_SIZE + IV_SIZE

TAG_AT = HEAD_SIZE + REPLAY_ID_SIZE
BODY_AT = TAG_AT + TAG_SIZE


class TlsCrypt(ControlWrap):
    """The tls-crypt wrap of one session, which counts its packets from ``first_replay_id``."""

    def __init__(
        self,
        key: StaticKey,
        role: Role,
        *,
        unix_time: Callable[[], float],
        new_window: Callable[[], ReplayWindow] = ReplayWindow,
        first_replay_id: int = 1,
    ) -> None:
        self._key = key
        sends, receives = (1, 0) if role is Role.CLIENT else (0, 1)
        self._send_hmac, self._receive_hmac = key.hmac(sends)[:KEY_SIZE], key.hmac(receives)[:KEY_SIZE]
        self._send_cipher = AES(key.cipher(sends)[:KEY_SIZE])
        self._receive_cipher = AES(key.cipher(receives)[:KEY_SIZE])
        self._ids = ReplayIDs(unix_time, first=first_replay_id)
        self._window = new_window()
        self._unix_time = unix_time
        self._new_window = new_window

    @property
    def overhead(self) -> int:
        """Bytes to set aside in a datagram; not all of them are used."""
        return OVERHEAD

    def wrap(self, head: bytes, body: bytes, now: float) -> bytes:
        """The datagram for a control packet of ``head`` (9 bytes) and ``body``."""
        head += self._ids.take()
        tag = hmac.digest(self._send_hmac, head + body, DIGEST)
        return b"".join((head, tag, xor_keystream(self._send_cipher, tag, body)))

    def open_untrusted(self, datagram: bytes) -> Opened:
        """What is in a datagram that somebody with the key made.

        Raises ProtocolError: TOO_SHORT, BAD_AUTHENTICATION.
        """
        if len(datagram) < BODY_AT:
            raise ProtocolError(DropReason.TOO_SHORT, "no room for a tag")
        tag = datagram[TAG_AT:BODY_AT]
        body = xor_keystream(self._receive_cipher, tag, datagram[BODY_AT:])
        if not hmac.compare_digest(tag, hmac.digest(self._receive_hmac, datagram[:TAG_AT] + body, DIGEST)):
            raise ProtocolError(DropReason.BAD_AUTHENTICATION)
        accept = partial(check_replay_untrusted, self._window, datagram[HEAD_SIZE:TAG_AT])
        return Opened(datagram[:HEAD_SIZE], body, accept)

    def renegotiation(self, exported: bytes, role: Role) -> ControlWrap:
        """The wrap of later keys: made of both keys."""
        return dynamic_tls_crypt(
            StaticKey(exported) ^ self._key, role, unix_time=self._unix_time, new_window=self._new_window
        )


def dynamic_tls_crypt(
    key: StaticKey,
    role: Role,
    *,
    unix_time: Callable[[], float],
    new_window: Callable[[], ReplayWindow] = ReplayWindow,
) -> TlsCrypt:
    """The wrap of later keys of a session. It counts its packets from 1, whatever went before."""
    return TlsCrypt(key, role, unix_time=unix_time, new_window=new_window)


def xor_keystream(key: AES, tag: bytes, text: bytes) -> bytes:
    """Encrypt or decrypt, which is the same in counter mode."""
    context = Cipher(key, CTR(tag[:IV_SIZE])).encryptor()
    return context.update(text) + context.finalize()
