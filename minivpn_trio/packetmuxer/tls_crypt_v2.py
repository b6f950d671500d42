"""tls-crypt-v2: tls-crypt with a key of each client's own, which it brings along.

The client's key Kc is wrapped for the server, who alone can open it; the
result, WKc, follows the packets that carry it in clear::

    wire   op+session id (9) | replay id (8) | tag (32) | AES-256-CTR(body) | WKc
    WKc    tag (32) | AES-256-CTR(Kc (256) | metadata) | length (2)
    tag    HMAC-SHA256 over length | Kc | metadata; its first 16 bytes are the IV

These packets are CONTROL_HARD_RESET_CLIENT_V3 and, where the server asks for
it because it kept no state (early_negotiation.py), CONTROL_WKC_V1, which is
message 1. All others are those of tls-crypt (reference: tls_crypt.c,
doc/tls-crypt-v2.txt).
"""

from __future__ import annotations

import hmac
from collections.abc import Callable

from cryptography.hazmat.primitives.ciphers.algorithms import AES

from ..config.tls_crypt_v2_key import (
    LENGTH_SIZE,
    MAX_WRAPPED_KEY,
    MIN_WRAPPED_KEY,
    SERVER_KEY_SIZE,
    TlsCryptV2ClientKey,
)
from ..errors import DropReason, ProtocolError
from ..packet.codec import HEAD_SIZE
from ..packet.ids import Role
from ..packet.opcodes import KEY_ID_MASK, OPCODE_SHIFT, Opcode
from ..packet.replay import ReplayWindow
from .early_negotiation import FIRST_REPLAY_ID, EarlyFlag, announces_early_negotiation
from .static_key import SLOT_SIZE, STATIC_KEY_SIZE, StaticKey
from .tls_crypt import BODY_AT, DIGEST, KEY_SIZE, OVERHEAD, TAG_SIZE, TlsCrypt, xor_keystream
from .wrapping import ControlWrap, Opened

__all__ = ["TlsCryptV2", "TlsCryptV2Server", "unwrap_client_key_untrusted", "wrap_client_key"]

#: First bytes of the packets that WKc follows; the key id of all of them is 0.
CARRIERS = frozenset(
    opcode << OPCODE_SHIFT for opcode in (Opcode.CONTROL_HARD_RESET_CLIENT_V3, Opcode.CONTROL_WKC_V1)
)
REPLAY_COUNTER = slice(HEAD_SIZE, HEAD_SIZE + 4)


class TlsCryptV2(TlsCrypt):
    """The client's wrap of one session."""

    def __init__(
        self,
        key: TlsCryptV2ClientKey,
        *,
        unix_time: Callable[[], float],
        new_window: Callable[[], ReplayWindow] = ReplayWindow,
    ) -> None:
        super().__init__(
            StaticKey(key.key),
            Role.CLIENT,
            unix_time=unix_time,
            new_window=new_window,
            first_replay_id=FIRST_REPLAY_ID,
        )
        self._wrapped = key.wrapped

    @property
    def wrapped_key_size(self) -> int:
        """Bytes by which the packets that WKc follows are longer than others."""
        return len(self._wrapped)

    @property
    def client_reset(self) -> Opcode:
        """The hard reset that WKc follows."""
        return Opcode.CONTROL_HARD_RESET_CLIENT_V3

    def wrap(self, head: bytes, body: bytes, now: float) -> bytes:
        """The datagram for a control packet of ``head`` (9 bytes) and ``body``."""
        datagram = super().wrap(head, body, now)
        return datagram + self._wrapped if head[0] in CARRIERS else datagram


class TlsCryptV2Server(ControlWrap):
    """The server's wrap of one client's session, which learns the client's key by its first packet.

    ``server_key`` has 128 bytes. With ``ask_again`` it plays a server that keeps no state before message 1: it asks
    clients for WKc again, hears nothing else until that came, and refuses clients that cannot do it.
    """

    def __init__(
        self,
        server_key: bytes,
        *,
        unix_time: Callable[[], float],
        new_window: Callable[[], ReplayWindow] = ReplayWindow,
        ask_again: bool = False,
    ) -> None:
        self._server_key = server_key
        self._unix_time = unix_time
        self._new_window = new_window
        self._ask_again = ask_again
        self._crypt: TlsCrypt | None = None
        self._wrapped = b""
        self._confirmed = not ask_again
        #: What the client's key was issued with.
        self.metadata: bytes = b""

    @property
    def overhead(self) -> int:
        """Bytes to set aside in a datagram, as for tls-crypt."""
        return OVERHEAD

    @property
    def client_reset(self) -> Opcode:
        """The hard reset that WKc follows."""
        return Opcode.CONTROL_HARD_RESET_CLIENT_V3

    @property
    def early_flags(self) -> EarlyFlag:
        """What the hard reset asks the client for."""
        return EarlyFlag.RESEND_WKC if self._ask_again else EarlyFlag(0)

    def wrap(self, head: bytes, body: bytes, now: float) -> bytes:
        """The datagram for a control packet. ValueError before the client's first one."""
        if self._crypt is None:
            raise ValueError("there is no key before the client's first packet")
        return self._crypt.wrap(head, body, now)

    def open_untrusted(self, datagram: bytes) -> Opened:
        """What is in a datagram that the client made; a key that it brings is taken by ``accept``.

        Raises ProtocolError: TOO_SHORT, MALFORMED, BAD_AUTHENTICATION; NOT_READY: the client's key is not
        known yet.
        """
        if not datagram:
            raise ProtocolError(DropReason.TOO_SHORT, "nothing")
        if datagram[0] & ~KEY_ID_MASK not in CARRIERS:
            if self._crypt is None or not self._confirmed:
                raise ProtocolError(DropReason.NOT_READY, "it came before the client's key")
            return self._crypt.open_untrusted(datagram)
        if datagram[0] not in CARRIERS:
            raise ProtocolError(DropReason.MALFORMED, "a wrapped key, but not of key 0")
        packet, wrapped = split_untrusted(datagram)
        crypt, metadata = self._crypt, self.metadata
        if crypt is None:
            key, metadata = unwrap_client_key_untrusted(self._server_key, wrapped)
            crypt = TlsCrypt(key, Role.SERVER, unix_time=self._unix_time, new_window=self._new_window)
        elif not hmac.compare_digest(wrapped, self._wrapped):
            raise ProtocolError(DropReason.BAD_AUTHENTICATION, "another wrapped key")
        # Between its first and its second carrier an honest client's count is still where it began.
        early = announces_early_negotiation(int.from_bytes(datagram[REPLAY_COUNTER]))
        if self._ask_again and not early:
            raise ProtocolError(DropReason.NOT_READY, "a client that cannot send its key again")
        opened = crypt.open_untrusted(packet)

        def accept(now: float) -> None:
            opened.accept(now)
            self._crypt, self._wrapped, self.metadata = crypt, wrapped, metadata
            if datagram[0] >> OPCODE_SHIFT == Opcode.CONTROL_WKC_V1:
                self._confirmed = True

        return opened._replace(accept=accept)

    def renegotiation(self, exported: bytes, role: Role) -> ControlWrap:
        """The wrap of later keys. ValueError before the client's first packet."""
        if self._crypt is None:
            raise ValueError("there is no key before the client's first packet")
        return self._crypt.renegotiation(exported, role)


def split_untrusted(datagram: bytes) -> tuple[bytes, bytes]:
    """The control packet, and the WKc that follows it. Raises ProtocolError: TOO_SHORT, MALFORMED."""
    size = int.from_bytes(datagram[-LENGTH_SIZE:])
    if not MIN_WRAPPED_KEY <= size <= MAX_WRAPPED_KEY:
        raise ProtocolError(DropReason.MALFORMED, f"a wrapped key of {size} bytes")
    if len(datagram) < BODY_AT + size:
        raise ProtocolError(DropReason.TOO_SHORT, "no room for a packet before the wrapped key")
    return datagram[:-size], datagram[-size:]


def wrap_client_key(server_key: bytes, key: StaticKey, metadata: bytes = b"") -> bytes:
    """WKc of ``key``. ValueError: too much ``metadata`` (734 bytes fit), or no server key."""
    cipher, mac = server_keys(server_key)
    size = MIN_WRAPPED_KEY + len(metadata)
    if size > MAX_WRAPPED_KEY:
        raise ValueError(f"at most {MAX_WRAPPED_KEY - MIN_WRAPPED_KEY} bytes of metadata fit")
    length = size.to_bytes(LENGTH_SIZE)
    text = key.material + metadata
    tag = hmac.digest(mac, length + text, DIGEST)
    return tag + xor_keystream(cipher, tag, text) + length


def unwrap_client_key_untrusted(server_key: bytes, wrapped: bytes) -> tuple[StaticKey, bytes]:
    """Client key and metadata of a WKc that was made with ``server_key``.

    Raises ProtocolError: MALFORMED, BAD_AUTHENTICATION.
    """
    cipher, mac = server_keys(server_key)
    length = wrapped[-LENGTH_SIZE:]
    if not MIN_WRAPPED_KEY <= len(wrapped) <= MAX_WRAPPED_KEY or int.from_bytes(length) != len(wrapped):
        raise ProtocolError(DropReason.MALFORMED, "the length of a wrapped key")
    tag = wrapped[:TAG_SIZE]
    text = xor_keystream(cipher, tag, wrapped[TAG_SIZE:-LENGTH_SIZE])
    if not hmac.compare_digest(tag, hmac.digest(mac, length + text, DIGEST)):
        raise ProtocolError(DropReason.BAD_AUTHENTICATION, "a wrapped key of another server")
    return StaticKey(text[:STATIC_KEY_SIZE]), text[STATIC_KEY_SIZE:]


def server_keys(server_key: bytes) -> tuple[AES, bytes]:
    """The cipher and the HMAC key of a server key: one pair of slots."""
    if len(server_key) != SERVER_KEY_SIZE:
        raise ValueError(f"a server key has {SERVER_KEY_SIZE} bytes")
    return AES(server_key[:KEY_SIZE]), server_key[SLOT_SIZE : SLOT_SIZE + KEY_SIZE]
