"""SecondFactor: what a server asks and announces while it lets a login wait.

After the password a server may want more: a code, or a page opened in a browser. It says how long it waits for that
(AUTH_PENDING), and asks. Both have bounds here: nobody waits longer than the profile allows, and only so many
questions are passed on. Who is asked, and what comes of the answer, is session.py's.
"""

from __future__ import annotations

from ..challenge import Challenge, ChallengeKind
from ..errors import HandshakeTimeout, Stage
from .messages import TextChallengeMessage, WebAuthMessage

__all__ = ["MAX_QUESTIONS", "SecondFactor"]

#: Questions that a server may ask in one session.
MAX_QUESTIONS = 16


class SecondFactor:
    """The one of a session. Times are seconds of the caller's clock."""

    def __init__(self) -> None:
        self._questions = 0
        #: Until when the server waits; None: it did not say that it does.
        self._until: float | None = None

    def hold(self, timeout: float | None, *, patience: float, since: float) -> float:
        """The server asks for ``timeout`` seconds from ``since`` on (None: it does not say how many). What it gets."""
        granted = patience if timeout is None else min(timeout, patience)
        self._until = since + granted
        return granted

    def may_ask(self) -> bool:
        """Count one more question. False: that is one too many."""
        self._questions += 1
        return self._questions <= MAX_QUESTIONS

    def challenge(self, message: TextChallengeMessage | WebAuthMessage, now: float) -> Challenge:
        """The question in ``message``, with the time that is left for it."""
        timeout = None if self._until is None else max(0.0, self._until - now)
        if isinstance(message, WebAuthMessage):
            return Challenge(
                kind=ChallengeKind.WEB,
                text="the server wants this page opened to finish the login",
                needs_answer=False,
                url=message.url,
                flags=message.flags,
                timeout=timeout,
            )
        return Challenge(
            kind=ChallengeKind.CR_TEXT,
            text=message.text,
            echo=message.echo,
            needs_answer=message.needs_answer,
            timeout=timeout,
        )

    def explain_hang(self, waited: float) -> HandshakeTimeout | None:
        """The error for a login that was not finished in ``waited`` seconds; None: not for want of a second factor."""
        if self._until is None:
            return None
        return HandshakeTimeout(
            f"the login was not finished in {waited:.0f} s",
            stage=Stage.PUSH,
            remedy="the server waited for a second factor: confirm or answer it in time",
        )
