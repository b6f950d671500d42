"""Login: what we log in with, over all the connections of one client.

It knows the credentials of the profile and those that were asked for, the
auth-token that replaces them, and what a server challenged. It says what must
be asked before the next login (``question``), takes the answer (``answer``),
gives what key method 2 carries (``credentials``) and hears the verdict
(``accepted``, ``refused``, ``take_token``).

A name and password that were refused are never sent again. What was answered
to a challenge is sent once, except to a renewal within the same session.
"""

from __future__ import annotations

import hashlib
import hmac
from base64 import b64encode
from collections.abc import Awaitable, Callable

from ..challenge import Challenge, ChallengeKind
from ..config.model import Credentials, TunnelConfig
from ..errors import AuthFailed, AuthFailedTemporarily, ConfigError, Stage
from .messages import AuthFailedMessage, DynamicChallenge
from .peer_info import check_peer_info

__all__ = ["Answer", "Login", "OnChallenge"]

#: Credentials for a challenge that asks for them, a string for any other; None: no answer.
Answer = Credentials | str | None
#: An application's way to answer.
OnChallenge = Callable[[Challenge], Awaitable[Answer]]

#: Logins in a row that a server may refuse and that are tried once more, with something else.
MAX_REFUSALS = 10


def _b64(text: str) -> str:
    return b64encode(text.encode("utf-8", "surrogateescape")).decode("ascii")


class Login:
    """The login of one client.

    ``salt`` keeps what is remembered of refused passwords from being the same
    elsewhere; ``can_ask`` says that somebody answers questions. Raises ConfigError
    for peer info that cannot be sent with the login.
    """

    def __init__(self, config: TunnelConfig, *, salt: bytes, can_ask: bool = False) -> None:
        check_peer_info(config)
        self._config = config
        self._salt = salt
        self.can_ask = can_ask
        #: The password that was asked for; the profile's own is in ``config``.
        self._given: Credentials | None = None
        self._token: Credentials | None = None
        self._static_response: str | None = None
        self._dynamic: DynamicChallenge | None = None
        self._dynamic_response: str | None = None
        #: What the last key method 2 carried, as far as the verdict on it needs it.
        self._sent_token = False
        self._sent_digest: bytes | None = None
        self._refused: set[bytes] = set()
        #: The last refusal, for the next question.
        self._reason = ""
        self._refusals = 0
        #: The login was refused, and may be tried again: with something else, or because nothing was wrong with it.
        self.again: bool = False

    # before a login

    def begin(self) -> None:
        """A new connection begins: what may be used only once and was used is forgotten."""
        self.again = False
        if self._sent_digest is not None:
            self._static_response = None
            self._dynamic = self._dynamic_response = None
            self._sent_digest = None

    def question(self) -> Challenge | None:
        """What must be asked before ``credentials`` can be had; None: nothing (more)."""
        dynamic = self._dynamic
        if dynamic is not None:
            if self._dynamic_response is not None:
                return None
            return Challenge(
                kind=ChallengeKind.DYNAMIC,
                text=dynamic.text,
                echo=dynamic.echo,
                needs_answer=dynamic.needs_answer,
                username=dynamic.username,
            )
        if self._token is not None or not self._has_password:
            return None
        known = self._known
        if known is None:
            return Challenge(
                kind=ChallengeKind.CREDENTIALS,
                text="User name and password",
                username=self._config.username,
                reason=self._reason,
            )
        static = self._config.static_challenge
        if static is not None and self._static_response is None:
            return Challenge(
                kind=ChallengeKind.STATIC,
                text=static.text,
                echo=static.echo,
                username=known.username,
                reason=self._reason,
            )
        return None

    def answer(self, challenge: Challenge, answer: Credentials | str) -> None:
        """Take the answer to what ``question`` asked. TypeError: not the kind of answer that it asks for."""
        if challenge.kind is ChallengeKind.CREDENTIALS:
            if not isinstance(answer, Credentials):
                raise TypeError("the answer to a challenge for credentials is Credentials")
            self._given = answer
            return
        if not isinstance(answer, str):
            raise TypeError(f"the answer to a challenge of kind {challenge.kind.value} is a string")
        if challenge.kind is ChallengeKind.STATIC:
            self._static_response = answer
        elif challenge.kind is ChallengeKind.DYNAMIC:
            self._dynamic_response = answer

    def unanswered(self, challenge: Challenge) -> ConfigError | AuthFailed:
        """The error for a question that nobody answers."""
        self.again = False
        if challenge.kind is ChallengeKind.DYNAMIC:
            self._dynamic = None
            return AuthFailed(challenge.text, remedy="the server's question was not answered")
        if self._reason:
            return AuthFailed(self._reason)
        if challenge.kind is ChallengeKind.STATIC:
            return ConfigError("the profile's question was not answered", directive="static-challenge")
        return ConfigError("a user name and a password are needed", directive="auth-user-pass")

    def credentials(self) -> Credentials | None:
        """What the next key method 2 carries; None: nothing, the certificate is all.

        Raises AuthFailed for what this server has refused before.
        """
        dynamic = self._dynamic
        self._sent_token = False
        found: Credentials | None
        if dynamic is not None and self._dynamic_response is not None:
            known = self._known or self._token
            name = dynamic.username or (known.username if known is not None else "")
            found = Credentials(name, f"CRV1::{dynamic.state}::{self._dynamic_response}")
        elif self._token is not None:
            found = self._token
            self._sent_token = True
        else:
            found = self._with_static_response(self._known)
        if found is None:
            self._sent_digest = None
            return None
        self._sent_digest = self._digest(found)
        if self._sent_digest in self._refused:
            self.again = False
            remedy = "the same was refused before: it is not sent again"
            raise AuthFailed(self._reason, stage=Stage.KEY_EXCHANGE, remedy=remedy)
        return found

    # after it

    def accepted(self) -> None:
        """The server let us in."""
        self._refusals = 0
        self._reason = ""
        self.again = False
        # A renewal sends the password again, since openvpn's servers do not challenge there.
        self._dynamic = self._dynamic_response = None
        if self._config.auth_nocache:
            self.forget()

    def forget(self) -> None:
        """Forget the password that was asked for, and with it the answer to the profile's question.

        What the configuration itself holds stays, as a file named in a profile would.
        """
        self._given = None
        self._static_response = None

    def take_token(self, token: str | None, username: str | None) -> None:
        """``auth-token``: the password from now on; ``username``: that of ``auth-token-user``."""
        if token is None:
            return
        known = self._token or self._known
        name = username or (known.username if known is not None else self._config.username)
        if name is not None:
            self._token = Credentials(name, token)

    def refused(self, message: AuthFailedMessage, *, stage: Stage) -> AuthFailed | AuthFailedTemporarily:
        """The error that AUTH_FAILED is. ``again`` then says whether another login may do."""
        self.again = False
        if message.temporary:
            return AuthFailedTemporarily(
                message.reason, stage=stage, backoff=message.backoff, advance=message.advance
            )
        self._refusals += 1
        may = self._refusals < MAX_REFUSALS
        if message.challenge is not None:
            return self._challenged(message.challenge, may, stage)
        # Refused is what was sent, a challenge's answer included; the challenge is over.
        self._dynamic = self._dynamic_response = None
        if self._sent_token:
            # Expired, or the server was started anew; openvpn's says SESSION only in the first case.
            self._token = None
            self.again = may
            return AuthFailed(message.reason or "the auth-token is not valid any more", stage=stage)
        self._reason = message.reason or "no reason given"
        remedy = None
        if self._sent_digest is None:
            self.again = may and self._config.auth_retry != "none"
        else:
            self._refused.add(self._sent_digest)
            self.again = may and self._config.auth_retry == "interact" and self.can_ask
            if self._config.auth_retry == "nointeract":
                remedy = "check the user name and password; what a server refused is not sent again"
        self.forget()
        return AuthFailed(message.reason, stage=stage, remedy=remedy)

    def _challenged(self, challenge: DynamicChallenge, may: bool, stage: Stage) -> AuthFailed:
        self._dynamic, self._dynamic_response = challenge, None
        self._token = None
        self._sent_digest = None  # nothing is used up: the answer comes now
        if not challenge.needs_answer and not self.can_ask:
            self._dynamic_response = ""
            self.again = may
        else:
            self.again = may and self.can_ask
        remedy = None if self.can_ask else "the server asks for a second factor: give on_challenge to answer it"
        return AuthFailed(challenge.text, stage=stage, remedy=remedy)

    # inside

    @property
    def _has_password(self) -> bool:
        config = self._config
        return config.needs_credentials or config.credentials is not None

    @property
    def _known(self) -> Credentials | None:
        """Name and password; None: they must be asked for."""
        if self._given is not None:
            return self._given
        found = self._config.credentials
        if found is None or self._config.static_challenge is not None:
            # With a challenge it may have been the answer that was refused.
            return found
        return None if self._digest(found) in self._refused and self.can_ask else found

    def _with_static_response(self, known: Credentials | None) -> Credentials | None:
        static = self._config.static_challenge
        if known is None or static is None:
            return known
        response = self._static_response or ""
        if static.concatenated:
            return Credentials(known.username, known.password + response)
        return Credentials(known.username, f"SCRV1:{_b64(known.password)}:{_b64(response)}")

    def _digest(self, credentials: Credentials) -> bytes:
        text = f"{len(credentials.username)}:{credentials.username}{credentials.password}"
        return hmac.digest(self._salt, text.encode("utf-8", "surrogateescape"), hashlib.sha256)
