"""What happened to a tunnel, as frozen dataclasses that an application can match on.

Times are seconds of Trio's clock. Nothing here ever holds a secret.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from .challenge import Challenge
from .errors import Stage

__all__ = [
    "AuthPending",
    "Challenged",
    "Closed",
    "DialDone",
    "DialStarted",
    "Event",
    "KeysGenerated",
    "Ready",
    "Reconnecting",
    "Rekeyed",
    "ResetDone",
    "ResetSent",
    "ServerMessage",
    "SessionState",
    "TLSHandshakeDone",
    "TLSHandshakeStarted",
    "TunnelChanged",
    "Warned",
]


class SessionState(Enum):
    """The states of a session (reference: ssl_common.h, S_*); the value is the name that
    minivpn's tracer writes."""

    UNDEF = "UNDEF"
    INITIAL = "INITIAL"
    PRE_START = "PRE_START"
    START = "START"
    SENT_KEY = "SENT_KEY"
    GOT_KEY = "GOT_KEY"
    ACTIVE = "ACTIVE"
    GENERATED_KEYS = "GENERATED_KEYS"
    ERROR = "ERROR"


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Base of all events. ``time`` is Trio's clock."""

    time: float


@dataclass(frozen=True, slots=True, kw_only=True)
class DialStarted(Event):
    """A transport to ``host``:``port`` is being opened."""

    host: str
    port: int
    proto: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DialDone(Event):
    """The transport is open. ``address`` is the peer's numeric address, where there is one."""

    host: str
    port: int
    proto: str
    address: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ResetSent(Event):
    """Our hard reset went out for the first time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResetDone(Event):
    """The server answered our hard reset; the session is bound to it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TLSHandshakeStarted(Event):
    """ClientHello is on its way for ``key_id``."""

    key_id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TLSHandshakeDone(Event):
    """TLS is up for ``key_id``; ``version`` as in ``TLSv1.3``, ``cipher`` in OpenSSL's name."""

    key_id: int
    version: str
    cipher: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthPending(Event):
    """The server asks for patience (AUTH_PENDING); ``timeout`` in seconds, already capped."""

    timeout: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Challenged(Event):
    """Somebody is asked something, by ``on_challenge`` where there is one. The answer is no event."""

    challenge: Challenge


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerMessage(Event):
    """INFO, INFO_PRE, RESTART, HALT or another message of the server, printable characters only.
    Untrusted text."""

    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class KeysGenerated(Event):
    """Data keys exist for ``key_id``. ``derivation`` is ``prf`` or ``tls-ekm``."""

    key_id: int
    cipher: str
    derivation: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready(Event):
    """The tunnel carries packets."""

    ipv4: str | None
    ipv6: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TunnelChanged(Event):
    """The server changed the live tunnel (PUSH_UPDATE). ``tunnel_info`` says what is true now; ``changed`` names
    its fields that were different before."""

    changed: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rekeyed(Event):
    """Data keys were renegotiated; ``by`` is ``client`` or ``server``."""

    key_id: int
    by: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconnecting(Event):
    """The connection was lost for ``reason`` and is tried again in ``delay`` seconds."""

    reason: str
    delay: float
    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Warned(Event):
    """Something is not as it should be, but the tunnel goes on."""

    stage: Stage
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Closed(Event):
    """The tunnel is gone for good."""

    reason: str
