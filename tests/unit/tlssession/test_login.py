"""What is sent to log in, what is asked before, and what is never sent again."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from minivpn_trio.challenge import ChallengeKind
from minivpn_trio.config.model import Credentials, Remote, StaticChallenge, TunnelConfig
from minivpn_trio.errors import AuthFailed, AuthFailedTemporarily, ConfigError, Stage
from minivpn_trio.tlssession.login import MAX_REFUSALS, Login
from minivpn_trio.tlssession.messages import AuthFailedMessage, parse_message

ALICE = Credentials("alice", "secret")
CONFIG = TunnelConfig(remotes=(Remote("vpn.example"),), needs_credentials=True)


def login(*, can_ask: bool = True, **changes: Any) -> Login:
    return Login(replace(CONFIG, **changes), salt=b"salt", can_ask=can_ask)


def refuse(who: Login, text: str = "AUTH_FAILED,no") -> AuthFailed | AuthFailedTemporarily:
    message = parse_message(text)
    assert isinstance(message, AuthFailedMessage)
    return who.refused(message, stage=Stage.PUSH)


def asked(who: Login) -> ChallengeKind | None:
    question = who.question()
    return None if question is None else question.kind


def reply(who: Login, answer: Credentials | str) -> None:
    question = who.question()
    assert question is not None
    who.answer(question, answer)


def test_certificate_alone() -> None:
    who = Login(replace(CONFIG, needs_credentials=False), salt=b"")
    assert who.question() is None
    assert who.credentials() is None


def test_password_of_the_profile() -> None:
    who = login(credentials=ALICE, can_ask=False)
    for _ in range(2):  # a second connection
        who.begin()
        assert who.question() is None
        assert who.credentials() == ALICE
        who.accepted()
    who.forget()
    assert who.credentials() == ALICE, "what the profile itself holds stays"


def test_asked_once() -> None:
    who = login(username="alice")
    question = who.question()
    assert question is not None
    assert (question.kind, question.username, question.reason) == (ChallengeKind.CREDENTIALS, "alice", "")
    reply(who, ALICE)
    assert who.credentials() == ALICE
    who.accepted()
    who.begin()
    assert who.question() is None
    assert who.credentials() == ALICE


def test_nocache() -> None:
    who = login(auth_nocache=True)
    reply(who, ALICE)
    assert who.credentials() == ALICE
    who.accepted()
    assert asked(who) is ChallengeKind.CREDENTIALS


@pytest.mark.parametrize("answer", ["text", ("alice", "secret"), None])
def test_not_an_answer(answer: object) -> None:
    who = login()
    question = who.question()
    assert question is not None
    with pytest.raises(TypeError):
        who.answer(question, answer)  # type: ignore[arg-type]


def test_nobody_answers() -> None:
    who = login()
    question = who.question()
    assert question is not None
    error = who.unanswered(question)
    assert isinstance(error, ConfigError)
    assert error.directive == "auth-user-pass"


# openvpn's unit test, test_user_pass.c, has the form: base64 of both with colons.
@pytest.mark.parametrize(
    ("password", "response", "sent"),
    [
        ("fuchsia", "4711", "SCRV1:ZnVjaHNpYQ==:NDcxMQ=="),
        ("", "", "SCRV1::"),
        ("p:w", "a:b", "SCRV1:cDp3:YTpi"),
        ("\u00fc", "\u20ac", "SCRV1:w7w=:4oKs"),
    ],
)
def test_static_challenge(password: str, response: str, sent: str) -> None:
    who = login(credentials=Credentials("alice", password), static_challenge=StaticChallenge("Code", True))
    question = who.question()
    assert question is not None
    assert (question.kind, question.text, question.echo) == (ChallengeKind.STATIC, "Code", True)
    who.answer(question, response)
    assert who.credentials() == Credentials("alice", sent)
    assert who.credentials() == Credentials("alice", sent), "a renewal of the same session sends it again"
    who.accepted()
    who.begin()
    assert asked(who) is ChallengeKind.STATIC, "another connection asks again"


def test_static_challenge_behind_the_password() -> None:
    who = login(credentials=ALICE, static_challenge=StaticChallenge("Code", concatenated=True))
    reply(who, "99")
    assert who.credentials() == Credentials("alice", "secret99")


def test_connection_that_failed_before_the_login_keeps_the_answer() -> None:
    who = login(credentials=ALICE, static_challenge=StaticChallenge("Code"))
    reply(who, "1")
    who.begin()
    assert who.question() is None


def test_wrong_answer_to_a_static_challenge_is_asked_for_again() -> None:
    who = login(credentials=ALICE, static_challenge=StaticChallenge("Code"), auth_retry="interact")
    reply(who, "1")
    who.credentials()
    refuse(who, "AUTH_FAILED,wrong code")
    assert who.again
    question = who.question()
    assert question is not None
    assert (question.kind, question.reason) == (ChallengeKind.STATIC, "wrong code")
    who.answer(question, "1")
    with pytest.raises(AuthFailed, match="not sent again"):
        who.credentials()
    assert not who.again


CRV1 = "AUTH_FAILED,CRV1:R,E:c3RhdGU=:Ym9i:Which: colour?"


def test_dynamic_challenge() -> None:
    who = login(credentials=ALICE)
    who.credentials()
    error = refuse(who, CRV1)
    assert "c3RhdGU" not in str(error) + repr(error)
    assert who.again
    who.begin()
    question = who.question()
    assert question is not None
    assert (question.kind, question.text, question.username) == (ChallengeKind.DYNAMIC, "Which: colour?", "bob")
    who.answer(question, "b::l")
    assert who.credentials() == Credentials("bob", "CRV1::c3RhdGU=::b::l")
    who.begin()
    assert who.question() is None
    assert who.credentials() == ALICE, "answered once"


def test_dynamic_challenge_without_a_name() -> None:
    who = login(credentials=ALICE)
    who.credentials()
    refuse(who, "AUTH_FAILED,CRV1:R:s::Code")
    reply(who, "1")
    assert who.credentials() == Credentials("alice", "CRV1::s::1")


def test_dynamic_challenge_and_nobody_there() -> None:
    who = login(credentials=ALICE, can_ask=False)
    who.credentials()
    assert "on_challenge" in str(refuse(who, CRV1))
    assert not who.again


def test_announcement_needs_nobody() -> None:
    """CRV1 without the flag R: an empty answer goes back."""
    who = login(credentials=ALICE, can_ask=False)
    who.credentials()
    refuse(who, "AUTH_FAILED,CRV1::s:Ym9i:Look at your phone")
    assert who.again
    who.begin()
    assert who.question() is None
    assert who.credentials() == Credentials("bob", "CRV1::s::")


def test_unanswered_dynamic_challenge() -> None:
    who = login(credentials=ALICE)
    who.credentials()
    refuse(who, CRV1)
    question = who.question()
    assert question is not None
    assert isinstance(who.unanswered(question), AuthFailed)
    assert not who.again
    assert who.credentials() == ALICE


def test_refused_answer_to_a_dynamic_challenge() -> None:
    who = login(credentials=ALICE, auth_retry="interact")
    who.credentials()
    refuse(who, CRV1)
    reply(who, "red")
    who.credentials()
    refuse(who, "AUTH_FAILED,wrong colour")
    assert who.again
    assert who.question() is None
    assert who.credentials() == ALICE, "it was not the password that was refused"


def test_token() -> None:
    who = login(credentials=ALICE)
    who.credentials()
    who.take_token("tok", None)
    who.accepted()
    assert who.credentials() == Credentials("alice", "tok")
    who.take_token("tok2", "other")
    who.take_token(None, "nobody")
    assert who.credentials() == Credentials("other", "tok2")
    who.take_token("tok3", None)
    assert who.credentials() == Credentials("other", "tok3")


@pytest.mark.parametrize("text", ["AUTH_FAILED", "AUTH_FAILED,SESSION: expired", "AUTH_FAILED,whatever"])
def test_refused_token(text: str) -> None:
    """Back to the password, without asking; that one is not refused."""
    who = login(credentials=ALICE, can_ask=False)
    who.take_token("tok", None)
    who.credentials()
    refuse(who, text)
    assert who.again
    who.begin()
    assert who.credentials() == ALICE
    refuse(who)
    assert not who.again


def test_refused_token_whose_password_was_not_kept() -> None:
    who = login(auth_nocache=True)
    reply(who, ALICE)
    who.credentials()
    who.take_token("tok", None)
    who.accepted()
    who.begin()
    assert who.question() is None
    who.credentials()
    refuse(who)
    assert who.again
    assert asked(who) is ChallengeKind.CREDENTIALS


def test_token_makes_a_static_challenge_needless() -> None:
    who = login(credentials=ALICE, static_challenge=StaticChallenge("Code"))
    who.take_token("tok", None)
    assert who.question() is None
    assert who.credentials() == Credentials("alice", "tok")


@pytest.mark.parametrize(
    ("retry", "can_ask", "again"),
    [
        ("none", True, False),
        ("nointeract", True, False),
        ("interact", True, True),
        ("interact", False, False),
    ],
)
@pytest.mark.parametrize("given", [True, False])
def test_refused_password(retry: Any, can_ask: bool, again: bool, given: bool) -> None:
    who = login(can_ask=can_ask, auth_retry=retry, credentials=None if given and can_ask else ALICE)
    if who.question() is not None:
        reply(who, ALICE)
    assert who.credentials() == ALICE
    error = refuse(who, "AUTH_FAILED,because")
    assert isinstance(error, AuthFailed)
    assert error.reason == "because"
    assert "secret" not in str(error)
    assert who.again is again
    if again:
        question = who.question()
        assert question is not None
        assert (question.kind, question.reason) == (ChallengeKind.CREDENTIALS, "because")
        who.answer(question, Credentials("alice", "better"))
        assert who.credentials() == Credentials("alice", "better")


@pytest.mark.parametrize(("retry", "again"), [("none", False), ("nointeract", True), ("interact", True)])
def test_refused_certificate(retry: Any, again: bool) -> None:
    who = login(needs_credentials=False, auth_retry=retry, can_ask=False)
    who.credentials()
    refuse(who)
    assert who.again is again


def test_temporary_refusal_refuses_nothing() -> None:
    who = login(credentials=ALICE)
    who.credentials()
    error = refuse(who, "AUTH_FAILED,TEMP[backoff 3]:busy")
    assert isinstance(error, AuthFailedTemporarily)
    who.begin()
    assert who.credentials() == ALICE


def test_a_server_that_challenges_for_ever() -> None:
    who = login(credentials=ALICE)
    rounds = 0
    for _ in range(100):
        who.begin()
        if who.question() is not None:
            reply(who, "1")
        who.credentials()
        refuse(who, CRV1)
        rounds += 1
        if not who.again:
            break
    assert rounds == MAX_REFUSALS


def test_no_secrets_are_shown() -> None:
    who = login(credentials=ALICE)
    who.take_token("token!", None)
    who.credentials()
    assert "secret" not in repr(who)
    assert "token!" not in repr(vars(who))
    assert "secret" not in repr(vars(who))
