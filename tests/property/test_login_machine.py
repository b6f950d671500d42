"""A login in any order of events: what was refused never goes out again, and nothing is asked for that is known."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from minivpn_trio.challenge import ChallengeKind
from minivpn_trio.config.model import Credentials, Remote, StaticChallenge, TunnelConfig
from minivpn_trio.errors import AuthFailed, Stage
from minivpn_trio.tlssession.login import Login
from minivpn_trio.tlssession.messages import AuthFailedMessage, parse_message

CONFIG = TunnelConfig(remotes=(Remote("vpn.example"),), needs_credentials=True)
SHORT = st.sampled_from(["a", "b", "c:"])
PASSWORDS = st.builds(Credentials, SHORT, SHORT)


class Logins(RuleBasedStateMachine):
    """One client's life at a moody server."""

    login: Login

    @initialize(
        own=st.none() | PASSWORDS,
        static=st.booleans(),
        retry=st.sampled_from(["none", "nointeract", "interact"]),
        nocache=st.booleans(),
        can_ask=st.booleans(),
    )
    def start(self, own: Credentials | None, static: bool, retry: Any, nocache: bool, can_ask: bool) -> None:
        challenge = StaticChallenge("Code") if static else None
        config = replace(
            CONFIG, credentials=own, static_challenge=challenge, auth_retry=retry, auth_nocache=nocache
        )
        self.login = Login(config, salt=b"x", can_ask=can_ask)
        self.own = own
        self.sent: Credentials | None = None
        self.refused: set[Credentials] = set()
        self.tokens: set[str] = set()
        self.stopped = False

    @rule(password=PASSWORDS, text=SHORT)
    def log_in(self, password: Credentials, text: str) -> None:
        """A connection as far as key method 2."""
        if self.stopped:
            return
        self.login.begin()
        for _ in range(5):
            question = self.login.question()
            if question is None:
                break
            assert question.kind is not ChallengeKind.KEY_PASSWORD
            self.login.answer(question, password if question.kind is ChallengeKind.CREDENTIALS else text)
        else:
            raise AssertionError("it asks without end")
        self.send()

    def send(self) -> None:
        try:
            self.sent = self.login.credentials()
        except AuthFailed:
            self.sent = None
            self.stopped = not self.login.again
            return
        assert self.sent is not None
        assert self.sent not in self.refused, "what was refused is sent again"

    @precondition(lambda self: self.sent is not None)
    @rule()
    def accept(self) -> None:
        self.login.accepted()

    @precondition(lambda self: self.sent is not None)
    @rule(token=st.sampled_from(["t1", "t2"]), name=st.none() | SHORT)
    def token(self, token: str, name: str | None) -> None:
        self.login.take_token(token, name)
        self.login.accepted()
        self.tokens.add(token)

    @precondition(lambda self: self.sent is not None)
    @rule()
    def renew(self) -> None:
        """The next key of the same session."""
        if self.login.question() is None:
            self.send()

    @precondition(lambda self: self.sent is not None)
    @rule(
        text=st.sampled_from(
            ["", ",no", ",SESSION:x", ",TEMP[backoff 1]:x", ",CRV1:R:s1::q", ",CRV1::s2:YQ==:q", ",CRV1:broken"]
        )
    )
    def refuse(self, text: str) -> None:
        message = parse_message("AUTH_FAILED" + text)
        assert isinstance(message, AuthFailedMessage)
        sent, self.sent = self.sent, None
        assert sent is not None
        self.login.refused(message, stage=Stage.PUSH)
        if not message.temporary and message.challenge is None and sent.password not in self.tokens:
            self.refused.add(sent)
        self.stopped = not message.temporary and not self.login.again

    @rule()
    def forget(self) -> None:
        self.login.forget()

    @invariant()
    def known_is_not_asked_for(self) -> None:
        if not hasattr(self, "login") or self.own is None or self.own in self.refused:
            return
        question = self.login.question()
        assert question is None or question.kind is not ChallengeKind.CREDENTIALS


Logins.TestCase.settings = settings(max_examples=150, stateful_step_count=25, deadline=None)
TestLogins = Logins.TestCase
