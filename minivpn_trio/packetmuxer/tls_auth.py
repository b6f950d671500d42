"""tls-auth: every control packet carries an HMAC made with a key both sides hold.

::

    wire     op+session id (9) | HMAC | replay id (8) | body
    signed   replay id | op+session id | body

The digest is that of the ``auth`` directive, SHA1 unless the profile says
otherwise; its key is as many bytes of the HMAC slot as the digest is long.
``key-direction`` says which slot sends: 1 the second, 0 the first, and without
a direction both sides use the first (reference: ssl_pkt.c, swap_hmac; crypto.c).
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from functools import partial
from typing import Literal

from ..errors import DropReason, ProtocolError
from ..packet.codec import HEAD_SIZE
from ..packet.ids import Role
from ..packet.replay import ReplayWindow
from .replay_ids import REPLAY_ID_SIZE, ReplayIDs, check_replay_untrusted
from .static_key import StaticKey
from .tls_crypt import dynamic_tls_crypt
from .wrapping import ControlWrap, Opened

__all__ = ["TlsAuth"]


class TlsAuth(ControlWrap):
    """The tls-auth wrap of one session. ``digest`` is OpenVPN's name (``SHA256``)."""

    def __init__(
        self,
        key: StaticKey,
        direction: Literal[0, 1] | None,
        digest: str = "SHA1",
        *,
        unix_time: Callable[[], float],
        new_window: Callable[[], ReplayWindow] = ReplayWindow,
    ) -> None:
        self._key = key
        self._digest = digest.lower()
        self._digest_size = hashlib.new(self._digest).digest_size
        sends, receives = (0, 0) if direction is None else (direction, 1 - direction)
        self._send_key = key.hmac(sends)[: self._digest_size]
        self._receive_key = key.hmac(receives)[: self._digest_size]
        self._ids = ReplayIDs(unix_time)
        self._window = new_window()
        self._unix_time = unix_time
        self._new_window = new_window
        self._body_at = HEAD_SIZE + self._digest_size + REPLAY_ID_SIZE

    @property
    def overhead(self) -> int:
        """Bytes that the wrap adds."""
        return self._digest_size + REPLAY_ID_SIZE

    def wrap(self, head: bytes, body: bytes, now: float) -> bytes:
        """The datagram for a control packet of ``head`` (9 bytes) and ``body``."""
        replay_id = self._ids.take()
        code = hmac.digest(self._send_key, replay_id + head + body, self._digest)
        return b"".join((head, code, replay_id, body))

    def open_untrusted(self, datagram: bytes) -> Opened:
        """What is in a datagram that somebody with the key made.

        Raises ProtocolError: TOO_SHORT, BAD_AUTHENTICATION.
        """
        if len(datagram) < self._body_at:
            raise ProtocolError(DropReason.TOO_SHORT, "no room for an HMAC")
        head, code = datagram[:HEAD_SIZE], datagram[HEAD_SIZE : HEAD_SIZE + self._digest_size]
        replay_id = datagram[self._body_at - REPLAY_ID_SIZE : self._body_at]
        body = datagram[self._body_at :]
        if not hmac.compare_digest(code, hmac.digest(self._receive_key, replay_id + head + body, self._digest)):
            raise ProtocolError(DropReason.BAD_AUTHENTICATION)
        return Opened(head, body, partial(check_replay_untrusted, self._window, replay_id))

    def renegotiation(self, exported: bytes, role: Role) -> ControlWrap:
        """The wrap of later keys: tls-crypt, with a key made of both."""
        return dynamic_tls_crypt(
            StaticKey(exported) ^ self._key, role, unix_time=self._unix_time, new_window=self._new_window
        )
