"""Why there is no tunnel yet, where nobody says so: what a key that took too long was waiting for, and what to do."""

from __future__ import annotations

from ..errors import HandshakeTimeout, Stage
from ..events import SessionState

__all__ = ["explain_hang"]

#: The state that each stage of the first key leads out of, and what to do when it hangs.
_HANGS: dict[SessionState, tuple[Stage, str, str]] = {
    SessionState.PRE_START: (
        Stage.RESET,
        "no answer",
        "check host, port and protocol; a server with tls-auth or tls-crypt never answers a wrong key",
    ),
    SessionState.START: (
        Stage.TLS_HANDSHAKE,
        "the TLS handshake did not finish",
        "large packets may be lost on the path, or the server refuses our certificate, TLS version or ciphers "
        "without a word: its log says so",
    ),
    SessionState.SENT_KEY: (
        Stage.KEY_EXCHANGE,
        "the server did not answer the key exchange",
        "it may refuse our certificate or options without a word: its log says so",
    ),
    SessionState.GOT_KEY: (Stage.KEY_EXCHANGE, "the key exchange did not finish", "the server's log says why"),
    SessionState.ACTIVE: (
        Stage.PUSH,
        "no PUSH_REPLY",
        "the server may still be checking the credentials, or push nothing to clients",
    ),
}


def explain_hang(state: SessionState, waited: float) -> HandshakeTimeout:
    """The error for a session whose first key came no further than ``state`` in ``waited`` seconds."""
    stage, text, remedy = _HANGS.get(state, _HANGS[SessionState.START])
    return HandshakeTimeout(f"{text} in {waited:.0f} s", stage=stage, remedy=remedy)
