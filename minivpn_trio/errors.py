"""Every exception that minivpn_trio raises on purpose, in one tree.

An error says what failed, at which stage, and what to do about it. It never
holds a secret, nor a line of a file that may hold one.
"""

from __future__ import annotations

from enum import Enum

__all__ = [
    "AuthFailed",
    "AuthFailedTemporarily",
    "ConfigError",
    "ConnectError",
    "DropReason",
    "HandshakeTimeout",
    "MiniVPNError",
    "ProtocolError",
    "Stage",
    "TLSVerificationError",
    "TransportError",
    "TunnelClosed",
]


class Stage(Enum):
    """Where in a tunnel's life something happened; the value is what people read."""

    CONFIG = "reading the configuration"
    RESOLVE = "resolving the server's name"
    DIAL = "dialling the server"
    RESET = "waiting for the server's hard reset"
    TLS_HANDSHAKE = "the TLS handshake"
    KEY_EXCHANGE = "the key exchange"
    PUSH = "waiting for the pushed options"
    ACTIVE = "the established tunnel"
    REKEY = "renegotiating keys"


class DropReason(Enum):
    """Why a packet was dropped; the key of every drop counter and the ``reason`` of drop traces."""

    TOO_SHORT = "too-short"
    TOO_LONG = "too-long"
    MALFORMED = "malformed"
    UNKNOWN_OPCODE = "unknown-opcode"
    UNEXPECTED_OPCODE = "unexpected-opcode"
    BAD_SESSION_ID = "bad-session-id"
    BAD_AUTHENTICATION = "bad-authentication"
    REPLAY = "replay"
    OUT_OF_WINDOW = "out-of-window"
    DUPLICATE = "duplicate"
    UNKNOWN_KEY = "unknown-key"
    NOT_READY = "not-ready"
    QUEUE_FULL = "queue-full"
    COMPRESSED = "compressed"
    FRAGMENT = "fragment"
    BAD_CHECKSUM = "bad-checksum"
    BAD_ADDRESS = "bad-address"
    NO_SOCKET = "no-socket"
    LIMIT = "limit"
    #: Of this package, not of the packet: please report it.
    FAULT = "fault"


class MiniVPNError(Exception):
    """Base of everything that this package raises on purpose."""


class ConfigError(MiniVPNError):
    """A profile or TunnelConfig cannot be used.

    ``file``, ``line`` and ``directive`` say where; the text never quotes the
    file, which may hold keys or passwords.
    """

    def __init__(
        self,
        message: str,
        *,
        file: str | None = None,
        line: int | None = None,
        directive: str | None = None,
    ) -> None:
        where = ":".join(str(part) for part in (file, line) if part is not None)
        what = f"{directive}: {message}" if directive else message
        super().__init__(f"{where}: {what}" if where else what)
        self.message = message
        self.file = file
        self.line = line
        self.directive = directive


class ConnectError(MiniVPNError):
    """The tunnel could not be brought up. ``stage`` says how far it came."""

    def __init__(self, message: str, *, stage: Stage, remedy: str | None = None) -> None:
        text = f"{message} (while {stage.value})" if stage is not Stage.TLS_HANDSHAKE else message
        super().__init__(f"{text}; {remedy}" if remedy else text)
        self.message = message
        self.stage = stage
        self.remedy = remedy


class HandshakeTimeout(ConnectError):
    """The server stayed silent, or stopped answering, during the handshake."""


class AuthFailed(ConnectError):
    """The server refused our credentials (AUTH_FAILED). ``reason`` is its own text, printable only."""

    def __init__(self, reason: str, *, stage: Stage = Stage.PUSH, remedy: str | None = None) -> None:
        super().__init__(
            f"the server refused the credentials: {reason or 'no reason given'}",
            stage=stage,
            remedy=remedy or "check the user name and password, or the client certificate",
        )
        self.reason = reason


class AuthFailedTemporarily(ConnectError):
    """The server could not decide about our credentials just now (``AUTH_FAILED,TEMP``): they may be
    good, and trying again may help.

    ``backoff`` is how many seconds the server asks us to wait, ``advance`` where to try next:
    ``no`` (the same address), ``addr`` (the remote's next address) or ``remote`` (the next remote).
    """

    def __init__(
        self, reason: str, *, stage: Stage = Stage.PUSH, backoff: float | None = None, advance: str = "addr"
    ) -> None:
        super().__init__(
            f"the server cannot check the credentials just now: {reason or 'no reason given'}",
            stage=stage,
            remedy="try again later",
        )
        self.reason = reason
        self.backoff = backoff
        self.advance = advance


class TLSVerificationError(ConnectError):
    """The server's certificate was not accepted, or ours was not accepted by the server."""

    def __init__(self, message: str, *, remedy: str | None = None) -> None:
        super().__init__(message, stage=Stage.TLS_HANDSHAKE, remedy=remedy)


class TransportError(ConnectError):
    """The socket to the server failed; ``__cause__`` is the OSError where there is one."""


class ProtocolError(MiniVPNError):
    """A packet or message breaks the protocol. Raised only by ``*_untrusted`` functions and
    caught in the same stage, where it becomes a counted drop."""

    def __init__(self, reason: DropReason, detail: str = "") -> None:
        super().__init__(f"{reason.value}: {detail}" if detail else reason.value)
        self.reason = reason
        self.detail = detail


class TunnelClosed(MiniVPNError):
    """The tunnel was up and is gone: the server left, was lost, or told us to go.

    ``restart`` says whether connecting again may help; a client that is
    allowed to reconnect does so and never shows this error. ``next_remote``:
    not with this server, if there is another one.
    """

    def __init__(self, reason: str, *, restart: bool = False, next_remote: bool = False) -> None:
        super().__init__(f"the tunnel is closed: {reason}")
        self.reason = reason
        self.restart = restart
        self.next_remote = next_remote
