"""What protects control packets before TLS does: nothing, tls-auth or tls-crypt.

A wrap stands between the muxer and the wire. It keeps the replay ids of what
it sends and the replay window of what it receives, so there is one for each
session and it is never reused for the next.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from ..config.model import TunnelConfig
from ..errors import ConfigError, DropReason, ProtocolError
from ..packet.codec import HEAD_SIZE
from ..packet.ids import Role
from ..packet.replay import ReplayWindow
from .static_key import StaticKey, parse_static_key
from .tls_auth import TlsAuth
from .tls_crypt import TlsCrypt

__all__ = ["ControlWrap", "NoWrap", "StaticKey", "TlsAuth", "TlsCrypt", "make_control_wrap", "parse_static_key"]


class ControlWrap(Protocol):
    """Turns a control packet (``packet.codec``) into a datagram and back."""

    @property
    def overhead(self) -> int:
        """Bytes to set aside for the wrap in a datagram."""
        ...

    def wrap(self, head: bytes, body: bytes, now: float) -> bytes:
        """The datagram for a control packet of ``head`` (9 bytes) and ``body``."""
        ...

    def unwrap_untrusted(self, datagram: bytes, now: float) -> tuple[bytes, bytes]:
        """Head and body of an authentic, fresh ``datagram``; ProtocolError for any other.

        ``now`` is monotonic seconds, for the replay window.
        """
        ...


class NoWrap:
    """Control packets as they are. Nothing is authenticated: that is left to TLS."""

    overhead = 0

    def wrap(self, head: bytes, body: bytes, now: float) -> bytes:
        """The datagram for a control packet of ``head`` (9 bytes) and ``body``."""
        return head + body

    def unwrap_untrusted(self, datagram: bytes, now: float) -> tuple[bytes, bytes]:
        """Head and body of ``datagram``. Raises ProtocolError: TOO_SHORT."""
        if len(datagram) < HEAD_SIZE:
            raise ProtocolError(DropReason.TOO_SHORT, "no session id")
        return datagram[:HEAD_SIZE], datagram[HEAD_SIZE:]


def make_control_wrap(config: TunnelConfig, role: Role, *, unix_time: Callable[[], float]) -> ControlWrap:
    """The wrap that ``config`` asks for, new, for one session.

    ``unix_time`` returns Unix seconds. ``key_direction`` is read as our own:
    a server's configuration has the opposite of its clients'. Raises ConfigError.
    """
    if config.control_wrap == "none":
        return NoWrap()
    if config.control_wrap_key is None:
        raise ConfigError("the key is missing", directive=config.control_wrap)
    if config.control_wrap == "tls-crypt-v2":
        raise ConfigError("this kind of control channel protection is not supported", directive="tls-crypt-v2")
    key = parse_static_key(config.control_wrap_key, directive=config.control_wrap)
    window = ReplayWindow(config.replay_window, config.replay_time)
    if config.control_wrap == "tls-auth":
        return TlsAuth(key, config.key_direction, config.auth, unix_time=unix_time, window=window)
    return TlsCrypt(key, role, unix_time=unix_time, window=window)
