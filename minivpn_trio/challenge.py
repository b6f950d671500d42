"""What a profile or a server may ask whoever logs in, as one kind of question.

An application that can ask its user gives ``open_client`` an ``on_challenge``:
an async function that gets a ``Challenge`` and returns the answer. Nothing
here holds a secret; what a server wrote is untrusted text.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

__all__ = ["Challenge", "ChallengeKind"]


class ChallengeKind(Enum):
    """What is asked for, and so what the answer is."""

    #: User name and password (``auth-user-pass``). Answer: ``Credentials``.
    CREDENTIALS = "credentials"
    #: The password that opens the private key (``askpass``) or the PKCS #12 file. Answer: a string.
    KEY_PASSWORD = "key-password"
    #: The profile's own question (``static-challenge``), asked before connecting. Answer: a string.
    STATIC = "static-challenge"
    #: A server refused the login so far and asks further (``CRV1``). Answer: a string, with which we connect again.
    DYNAMIC = "dynamic-challenge"
    #: A server asks while the login is pending (``CR_TEXT``). Answer: a string, sent over the open connection.
    CR_TEXT = "cr-text"
    #: The user is to open ``url`` in a browser (``WEB_AUTH``, ``OPEN_URL``). There is no answer.
    WEB = "web-auth"


@dataclass(frozen=True, slots=True, kw_only=True)
class Challenge:
    """One question.

    ``echo`` says that the answer may be seen while it is typed; ``needs_answer``
    is False where the text is only to be shown. ``url`` always begins with
    ``https://``; it is never opened by this package, and neither should a program
    open it without asking. ``flags`` are those of ``WEB_AUTH``: ``hidden`` or
    ``external``. ``timeout`` is how many seconds the server waits, where it says
    so. ``reason`` is why it is asked once more, empty the first time.
    """

    kind: ChallengeKind
    text: str
    echo: bool = False
    needs_answer: bool = True
    username: str | None = field(default=None, repr=False)
    #: It may hold what is as good as a password for a while.
    url: str | None = field(default=None, repr=False)
    flags: tuple[str, ...] = ()
    timeout: float | None = None
    reason: str = ""
