"""Control messages: text over the TLS stream once key method 2 is done.

A message is printable ASCII and ends with a NUL. One TLS record may hold
several, one message may take several records. ``MessageFramer`` cuts the
stream, ``parse_message`` says what a message means.
"""

from __future__ import annotations

import binascii
from base64 import b64encode
from collections import Counter
from dataclasses import dataclass, field

from ..errors import DropReason

__all__ = [
    "AuthFailedMessage",
    "AuthPendingMessage",
    "ControlMessage",
    "DynamicChallenge",
    "ExitMessage",
    "HaltMessage",
    "InfoMessage",
    "MessageFramer",
    "PushReplyMessage",
    "PushRequestMessage",
    "PushUpdateMessage",
    "RestartMessage",
    "TextChallengeMessage",
    "UnknownMessage",
    "WebAuthMessage",
    "challenge_response",
    "encode_message",
    "parse_message",
]

#: Bytes that may wait for their NUL. openvpn sends at most 2048 in one message.
MAX_MESSAGE = 16 * 1024
#: Characters of the peer's own words that are passed on.
MAX_TEXT = 256
#: Characters of a URL. A server's whole message has at most 1024.
MAX_URL = 2048
#: Bytes of an answer to CR_TEXT; a server's buffer for it and its base64 has 2048.
MAX_RESPONSE = 1024


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
class PushUpdateMessage(ControlMessage):
    """The server changes options of the live tunnel; ``text`` is the whole message."""

    text: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class DynamicChallenge:
    """``CRV1:flags:state:base64 user name:question``: what the server asks before we connect again.

    ``state`` and the user name go back with the answer. The state is as good as a password.
    """

    text: str
    state: str = field(repr=False)
    username: str = field(repr=False)
    echo: bool = False
    #: False: the text is an announcement, and an empty answer goes back.
    needs_answer: bool = True


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
    challenge: DynamicChallenge | None = None


@dataclass(frozen=True, slots=True)
class AuthPendingMessage(ControlMessage):
    """``timeout``: seconds that the server takes for it, as it says; None: it does not say."""

    timeout: float | None = None


@dataclass(frozen=True, slots=True)
class InfoMessage(ControlMessage):
    """INFO or INFO_PRE; ``text`` is what follows, untrusted."""

    text: str


@dataclass(frozen=True, slots=True)
class TextChallengeMessage(ControlMessage):
    """``CR_TEXT`` in an INFO_PRE: a question while the login is pending, answered by CR_RESPONSE."""

    text: str
    echo: bool = False
    needs_answer: bool = False


@dataclass(frozen=True, slots=True)
class WebAuthMessage(ControlMessage):
    """``WEB_AUTH`` or ``OPEN_URL`` in an INFO_PRE: ``url`` is to be opened by the user.

    None: it is no https URL, or too long, and nobody should see it.
    """

    url: str | None
    flags: tuple[str, ...] = ()


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
        case "PUSH_UPDATE":
            return PushUpdateMessage(text)
        case "PUSH_REQUEST":
            return PushRequestMessage()
        case "AUTH_FAILED":
            return _auth_failed(rest)
        case "AUTH_PENDING":
            return AuthPendingMessage(_timeout(rest))
        case "INFO" | "INFO_PRE":
            return _info(rest)
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
        challenge = _dynamic_challenge(rest)
        text = "a challenge that cannot be read" if challenge is None else challenge.text
        return AuthFailedMessage(text, challenge=challenge)
    if rest == "SESSION" or rest.startswith("SESSION:"):
        return AuthFailedMessage(rest.removeprefix("SESSION").removeprefix(":")[:MAX_TEXT], session_expired=True)
    return AuthFailedMessage(rest[:MAX_TEXT])


def _dynamic_challenge(text: str) -> DynamicChallenge | None:
    """``CRV1:flags:state:base64 user name:question``; None: it is not one."""
    fields = text.split(":", 4)
    if len(fields) != 5:
        return None
    _, flags, state, encoded, question = fields
    try:
        username = binascii.a2b_base64(encoded, strict_mode=True).decode() if encoded else ""
    except (binascii.Error, UnicodeDecodeError):
        return None
    if not username.isprintable():
        return None  # somebody may be shown it
    echo, needs_answer = _challenge_flags(flags)
    return DynamicChallenge(question[:MAX_TEXT], state, username, echo, needs_answer)


def _challenge_flags(text: str) -> tuple[bool, bool]:
    """``E``: the answer may be shown; ``R``: one is needed."""
    flags = [flag.strip() for flag in text.split(",")]
    return "E" in flags, "R" in flags


def _info(rest: str) -> ControlMessage:
    kind, colon, inside = rest.partition(":")
    if colon and kind == "CR_TEXT":
        flags, colon, text = inside.partition(":")
        if colon:
            echo, needs_answer = _challenge_flags(flags)
            return TextChallengeMessage(text[:MAX_TEXT], echo, needs_answer)
    elif colon and kind == "WEB_AUTH":
        names, _, url = inside.partition(":")
        # What else there may be, a proxy with its password, was not asked for.
        known = tuple(name for name in names.split(",") if name in ("external", "hidden"))
        return WebAuthMessage(_url(url), known)
    elif colon and kind == "OPEN_URL":
        return WebAuthMessage(_url(inside))
    return InfoMessage(rest[:MAX_TEXT])


def _url(text: str) -> str | None:
    """``text`` if it is an https URL with a host. Printable ASCII is all that gets here."""
    prefix = "https://"
    host = text[len(prefix) :].split("/", 1)[0].split("?", 1)[0].split("#", 1)[0]
    good = text.lower().startswith(prefix) and len(text) <= MAX_URL
    # A user name in it would make another host look like the one to be trusted.
    good = good and bool(host) and not any(char in host for char in "@\\\"'<>") and " " not in text
    return text if good else None


def challenge_response(answer: str) -> str:
    """The message that answers CR_TEXT. ValueError: longer than 1024 bytes."""
    raw = answer.encode("utf-8", "surrogateescape")
    if len(raw) > MAX_RESPONSE:
        raise ValueError(f"an answer has at most {MAX_RESPONSE} bytes")
    return "CR_RESPONSE," + b64encode(raw).decode("ascii")


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
