"""What protects control packets before TLS does: nothing, tls-auth, tls-crypt or tls-crypt-v2.

Only tls-crypt is always there, as it protects renegotiations behind each of them (dynamic tls-crypt). The others are
imported where a profile has them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from ..config.model import TunnelConfig
from ..errors import ConfigError, DropReason, ProtocolError
from ..packet.codec import HEAD_SIZE
from ..packet.ids import Role
from ..packet.replay import ReplayWindow
from .static_key import StaticKey, parse_static_key
from .tls_crypt import TlsCrypt, dynamic_tls_crypt
from .wrapping import ControlWrap, Opened

__all__ = [
    "ControlWrap",
    "NoWrap",
    "StaticKey",
    "TlsCrypt",
    "make_control_wrap",
    "parse_static_key",
]


class NoWrap(ControlWrap):
    """Control packets as they are. Nothing is authenticated: that is left to TLS.

    ``unix_time`` and ``new_window`` are for the wrap of later keys.
    """

    overhead = 0

    def __init__(
        self,
        *,
        unix_time: Callable[[], float] = lambda: 0.0,
        new_window: Callable[[], ReplayWindow] = ReplayWindow,
    ) -> None:
        self._unix_time = unix_time
        self._new_window = new_window

    def wrap(self, head: bytes, body: bytes, now: float) -> bytes:
        """The datagram for a control packet of ``head`` (9 bytes) and ``body``."""
        return head + body

    def open_untrusted(self, datagram: bytes) -> Opened:
        """What is in ``datagram``; there are no replays. Raises ProtocolError: TOO_SHORT."""
        if len(datagram) < HEAD_SIZE:
            raise ProtocolError(DropReason.TOO_SHORT, "no session id")
        return Opened(datagram[:HEAD_SIZE], datagram[HEAD_SIZE:], _accept_any)

    def renegotiation(self, exported: bytes, role: Role) -> ControlWrap:
        """The wrap of later keys: tls-crypt, with the exported key alone."""
        return dynamic_tls_crypt(StaticKey(exported), role, unix_time=self._unix_time, new_window=self._new_window)


def _accept_any(now: float) -> None:
    pass


def make_control_wrap(
    config: TunnelConfig, role: Role, *, unix_time: Callable[[], float], force_cookie: bool = False
) -> ControlWrap:
    """The wrap that ``config`` asks for, new, for one session.

    ``unix_time`` returns Unix seconds. ``key_direction`` is read as our own:
    a server's configuration has the opposite of its clients'. With tls-crypt-v2 a
    server's ``control_wrap_key`` is the server key, and ``force_cookie`` makes it
    ask clients for theirs twice. Raises ConfigError.
    """
    new_window = partial(ReplayWindow, config.replay_window, config.replay_time)
    if config.control_wrap == "none":
        return NoWrap(unix_time=unix_time, new_window=new_window)
    if config.control_wrap_key is None:
        raise ConfigError("the key is missing", directive=config.control_wrap)
    if config.control_wrap == "tls-crypt-v2":
        from ..config.tls_crypt_v2_key import parse_client_key, parse_server_key
        from .tls_crypt_v2 import TlsCryptV2, TlsCryptV2Server

        try:
            if role is Role.CLIENT:
                client_key = parse_client_key(config.control_wrap_key)
                return TlsCryptV2(client_key, unix_time=unix_time, new_window=new_window)
            server_key = parse_server_key(config.control_wrap_key)
        except ValueError as exc:
            raise ConfigError(str(exc), directive="tls-crypt-v2") from None
        return TlsCryptV2Server(server_key, unix_time=unix_time, new_window=new_window, ask_again=force_cookie)
    key = parse_static_key(config.control_wrap_key, directive=config.control_wrap)
    if config.control_wrap == "tls-auth":
        from .tls_auth import TlsAuth

        return TlsAuth(key, config.key_direction, config.auth, unix_time=unix_time, new_window=new_window)
    return TlsCrypt(key, role, unix_time=unix_time, new_window=new_window)
