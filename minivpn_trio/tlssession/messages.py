"""Control messages: text over the TLS stream once key method 2 is done.

A message is printable ASCII and ends with a NUL. One TLS record may hold
several, one message may take several records. ``MessageFramer`` cuts the
stream, ``parse_message`` says what a message means.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from ..errors import DropReason

__all__ = [
    "AuthFailedMessage",
    "AuthPendingMessage",
    "ControlMessage",
    "ExitMessage",
    "HaltMessage",
    "InfoMessage",
    "MessageFramer",
    "PushReplyMessage",
    "PushRequestMessage",
    "RestartMessage",
    "UnknownMessage",
    "encode_message",
    "parse_message",
]

#: Bytes that may wait for their NUL. openvpn sends at most 2048 in one message.
MAX_MESSAGE = 16 * 1024
#: Characters of the peer's own words that are passed on.
MAX_TEXT = 256


@dataclass(frozen=True, slots=True)
class ControlMessage:
    """Base of all messages."""


@dataclass(frozen=True, slots=True)
class PushRequestMessage(ControlMessage):
    """The client asks for its options."""


@dataclass(frozen=True, slots=True)
class PushReplyMessage(ControlMessage):
    """``text`` is the whole message; it may hold an auth-token."""

    text: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class AuthFailedMessage(ControlMessage):
    """``AUTH_FAILED``, in one of its forms.

    ``temporary``: try again, ``backoff`` seconds later if given, and with
    which address (``advance``: ``no``, ``addr`` or ``remote``).
    ``session_expired``: an auth-token was refused, the real credentials may
    still do. ``challenge``: a second factor is asked for; ``reason`` is the
    question.
    """

    reason: str = ""
    temporary: bool = False
    backoff: float | None = None
    advance: str = "addr"
    session_expired: bool = False
    challenge: bool = False


@dataclass(frozen=True, slots=True)
class AuthPendingMessage(ControlMessage):
    """``timeout``: seconds that the server takes for it, as it says; None: it does not say."""

    timeout: float | None = None


@dataclass(frozen=True, slots=True)
class InfoMessage(ControlMessage):
    """INFO or INFO_PRE; ``text`` is what follows, untrusted."""

    text: str


@dataclass(frozen=True, slots=True)
class RestartMessage(ControlMessage):
    """The server wants us to connect again. ``next_remote``: to another remote; ``keep_credentials``: do
    not ask for the password again."""

    text: str = ""
    next_remote: bool = False
    keep_credentials: bool = False


@dataclass(frozen=True, slots=True)
class HaltMessage(ControlMessage):
    """The server wants us to stop."""

    text: str = ""


@dataclass(frozen=True, slots=True)
class ExitMessage(ControlMessage):
    """The peer leaves."""


@dataclass(frozen=True, slots=True)
class UnknownMessage(ControlMessage):
    """Something else; ``text`` is the message's first word."""

    text: str


def encode_message(text: str) -> bytes:
    """A message's bytes. ValueError: not printable ASCII, or empty."""
    if not text or not (text.isascii() and text.isprintable()):
        raise ValueError("a control message is printable ASCII")
    return text.encode("ascii") + b"\x00"


class MessageFramer:
    """Cuts a stream into messages.

    What is not printable is dropped and counted, message by message
    (reference: ssl_pkt.c, extract_command_buffer); so is the rest of a
    message that grows beyond 16 KiB.
    """

    __slots__ = ("_partial", "_skipping", "drops")

    def __init__(self) -> None:
        self._partial = bytearray()
        self._skipping = False
        self.drops: Counter[DropReason] = Counter()

    def feed(self, data: bytes) -> list[str]:
        """Take bytes of the stream; returns the messages that they complete, without their ends."""
        *complete, rest = data.split(b"\x00")
        messages = []
        for piece in complete:
            self._append(piece)
            text = self._finish()
            if text:
                messages.append(text)
        self._append(rest)
        return messages

    def _append(self, piece: bytes) -> None:
        if self._skipping:
            return
        if len(self._partial) + len(piece) > MAX_MESSAGE:
            self._partial.clear()
            self._skipping = True
            self.drops[DropReason.TOO_LONG] += 1
            return
        self._partial += piece

    def _finish(self) -> str | None:
        if self._skipping:
            self._skipping = False
            return None
        raw = bytes(self._partial).rstrip(b"\r\n")
        self._partial.clear()
        if any(not 0x20 <= byte < 0x7F for byte in raw):
            self.drops[DropReason.MALFORMED] += 1
            return None
        return raw.decode("ascii")


def parse_message(text: str) -> ControlMessage:
    """What a message of printable ASCII means. The first word counts up to its comma: what merely
    begins with a known word is another message."""
    word, _, rest = text.partition(",")
    match word:
        case "PUSH_REPLY":
            return PushReplyMessage(text)
        case "PUSH_REQUEST":
            return PushRequestMessage()
        case "AUTH_FAILED":
            return _auth_failed(rest)
        case "AUTH_PENDING":
            return AuthPendingMessage(_timeout(rest))
        case "INFO" | "INFO_PRE":
            return InfoMessage(rest[:MAX_TEXT])
        case "RESTART":
            flags, words = _flags(rest)
            return RestartMessage(words, next_remote="N" in flags, keep_credentials="P" in flags)
        case "HALT":
            return HaltMessage(_flags(rest)[1])
        case "EXIT":
            return ExitMessage()
    return UnknownMessage(word[:64])


def _auth_failed(rest: str) -> AuthFailedMessage:
    if rest.startswith("TEMP"):
        return _temporary(rest.removeprefix("TEMP"))
    if rest.startswith("CRV1:"):
        # CRV1:flags:state:base64 user name:question. The state is as good as a password.
        question = rest.split(":", 4)[4:]
        return AuthFailedMessage("".join(question)[:MAX_TEXT], challenge=True)
    if rest == "SESSION" or rest.startswith("SESSION:"):
        return AuthFailedMessage(rest.removeprefix("SESSION").removeprefix(":")[:MAX_TEXT], session_expired=True)
    return AuthFailedMessage(rest[:MAX_TEXT])


def _temporary(rest: str) -> AuthFailedMessage:
    """``TEMP[backoff 42,advance no]:reason`` (reference: push.c, parse_auth_failed_temp)."""
    backoff: float | None = None
    advance = "addr"
    if rest.startswith("["):
        inside, _, rest = rest[1:].partition("]")
        for setting in inside.split(","):
            name, _, value = setting.strip().partition(" ")
            if name == "backoff":
                backoff = _number(value)
            elif name == "advance" and value in ("no", "addr", "remote"):
                advance = value
    return AuthFailedMessage(rest.removeprefix(":")[:MAX_TEXT], temporary=True, backoff=backoff, advance=advance)


def _timeout(rest: str) -> float | None:
    for setting in rest.split(","):
        name, _, value = setting.strip().partition(" ")
        if name == "timeout":
            return _number(value)
    return None


def _number(text: str) -> float | None:
    """Seconds, at most a day; None: no number."""
    digits = text.strip()
    return float(min(int(digits), 86400)) if digits.isdigit() and len(digits) <= 9 else None


def _flags(rest: str) -> tuple[str, str]:
    """``[flags]text`` of RESTART and HALT."""
    if rest.startswith("["):
        flags, bracket, text = rest[1:].partition("]")
        if bracket:
            return flags, text[:MAX_TEXT]
    return "", rest[:MAX_TEXT]
