"""A session that is asked something: while its login is pending, and at a renewal whose password was not kept."""

from __future__ import annotations

from typing import Any

import pytest
from tlssession_pair import PUSH, Pair, client_config, credentials

from minivpn_trio.challenge import Challenge, ChallengeKind
from minivpn_trio.errors import AuthFailed, DropReason, HandshakeTimeout, Stage
from minivpn_trio.events import AuthPending, Challenged, ServerMessage, SessionState, Warned
from minivpn_trio.tlssession.login import Login
from minivpn_trio.tlssession.second_factor import MAX_QUESTIONS
from minivpn_trio.tlssession.server import ServerPolicy

PENDING = ServerPolicy(push=PUSH, pending=30.0)


def asking(policy: ServerPolicy = PENDING, *, can_ask: bool = True, **changes: Any) -> Pair:
    """A pair whose client has somebody to ask."""
    config = client_config(**{"needs_credentials": True, "credentials": credentials(), **changes})
    pair = Pair(config, policy=policy)
    pair.tls_client._login = Login(config, salt=b"salt", can_ask=can_ask)
    return pair.start()


def say(pair: Pair, text: str) -> None:
    pair.tls_server.send_message(text, pair.now)
    pair.pump()


def questions(pair: Pair) -> list[Challenge]:
    return [event.challenge for event in pair.client.events_of(Challenged)]


def reply(pair: Pair, challenge: Challenge, answer: Any) -> None:
    pair.tls_client.handle_answer(challenge, answer, pair.now)
    pair.pump()


def test_text_challenge() -> None:
    pair = asking()
    pair.advance(3.0)
    say(pair, "INFO_PRE,CR_TEXT:R,E:Your code")
    (challenge,) = questions(pair)
    assert challenge == Challenge(kind=ChallengeKind.CR_TEXT, text="Your code", echo=True, timeout=27.0)
    reply(pair, challenge, "123456")
    assert pair.tls_server.messages == ["CR_RESPONSE,MTIzNDU2"]
    reply(pair, challenge, "654321")
    assert len(pair.tls_server.messages) == 1, "an answer is given once"
    pair.tls_server.admit(pair.now)
    pair.pump()
    assert pair.tls_client.state is SessionState.GENERATED_KEYS


def test_the_last_question_counts() -> None:
    pair = asking()
    say(pair, "INFO_PRE,CR_TEXT:R:one")
    say(pair, "INFO_PRE,CR_TEXT:R:one")
    first, second = questions(pair)
    assert first == second
    reply(pair, first, "1")
    assert not pair.tls_server.messages
    reply(pair, second, "2")
    assert pair.tls_server.messages == ["CR_RESPONSE,Mg=="]


def test_no_answer_and_answers_that_cannot_be_sent() -> None:
    pair = asking()
    say(pair, "INFO_PRE,CR_TEXT:R:one")
    reply(pair, questions(pair)[-1], None)
    say(pair, "INFO_PRE,CR_TEXT:R:two")
    reply(pair, questions(pair)[-1], "x" * 1025)
    assert not pair.tls_server.messages
    assert "1024" in pair.client.events_of(Warned)[-1].text
    say(pair, "INFO_PRE,CR_TEXT:R:three")
    with pytest.raises(TypeError):
        reply(pair, questions(pair)[-1], credentials())
    assert pair.client.error is None


def test_questions_without_end() -> None:
    pair = asking()
    for _ in range(MAX_QUESTIONS + 50):
        say(pair, "INFO_PRE,CR_TEXT:R:again")
    assert len(questions(pair)) == MAX_QUESTIONS
    assert pair.tls_client.drops[DropReason.LIMIT] == 50


def test_pages() -> None:
    pair = asking()
    say(pair, "INFO_PRE,WEB_AUTH:hidden,odd:https://a.example/?q=1:2")
    say(pair, "INFO_PRE,OPEN_URL:http://b.example")
    (web,) = questions(pair)
    assert (web.kind, web.url, web.flags, web.needs_answer, web.timeout) == (
        ChallengeKind.WEB, "https://a.example/?q=1:2", ("hidden",), False, 30.0,
    )  # fmt: skip
    assert "no https URL" in pair.client.events_of(Warned)[-1].text
    assert not any("b.example" in repr(event) for event in pair.client.events)
    assert not pair.client.events_of(ServerMessage)


def test_page_does_not_take_the_place_of_a_question() -> None:
    pair = asking()
    say(pair, "INFO_PRE,CR_TEXT:R:code")
    say(pair, "INFO_PRE,WEB_AUTH::https://a.example")
    reply(pair, questions(pair)[0], "1")
    assert pair.tls_server.messages == ["CR_RESPONSE,MQ=="]


@pytest.mark.parametrize("can_ask", [True, False])
def test_announced_only_where_somebody_answers(can_ask: bool) -> None:
    pair = asking(can_ask=can_ask)
    client = pair.tls_server.client
    assert client is not None
    assert ("IV_SSO=webauth,openurl,crtext\n" in client.peer_info) is can_ask
    say(pair, "INFO_PRE,CR_TEXT:R:code")
    assert any("on_challenge" in event.text for event in pair.client.events_of(Warned)) is not can_ask


def test_nobody_finishes_the_login() -> None:
    pair = asking(hand_window=10.0, policy=ServerPolicy(push=PUSH, pending=500.0))
    assert pair.client.events_of(AuthPending)[0].timeout == 500.0
    pair.advance(499.0)
    assert pair.client.error is None
    pair.advance(2.0)
    error = pair.client.error
    assert isinstance(error, HandshakeTimeout)
    assert error.stage is Stage.PUSH
    assert "the login was not finished in 500 s" in str(error)


def test_answer_to_a_session_that_is_gone() -> None:
    pair = asking(policy=ServerPolicy(push=PUSH, pending=30.0))
    say(pair, "INFO_PRE,CR_TEXT:R:code")
    challenge = questions(pair)[0]
    pair.advance(61.0)
    assert pair.client.error is not None
    pair.tls_client._pending = None
    pair.tls_client.handle_answer(challenge, "1", pair.now)
    assert not pair.tls_client.poll_outgoing()


# -- renewals


def renewing(**changes: Any) -> Pair:
    """An established session whose password was asked for and not kept, and whose key is to be renewed."""
    config = client_config(needs_credentials=True, auth_nocache=True, **changes)
    pair = Pair(config, policy=ServerPolicy(push=PUSH, authenticate=lambda u, p: p == "secret"))
    login = Login(config, salt=b"salt", can_ask=True)
    question = login.question()
    assert question is not None
    login.answer(question, credentials())
    pair.tls_client._login = login
    pair.start()
    assert pair.tls_client.state is SessionState.GENERATED_KEYS
    pair.tls_client.handle_rekey_wanted("test", pair.now)
    return pair.pump()


def test_renewal_asks_for_the_password() -> None:
    pair = renewing()
    assert pair.tls_client.rekeys == 0
    (challenge,) = questions(pair)
    assert challenge.kind is ChallengeKind.CREDENTIALS
    pair.advance(20.0)
    reply(pair, challenge, credentials())
    assert pair.tls_client.rekeys == 1
    assert pair.client.error is None


@pytest.mark.parametrize("answer", [None, "late"])
def test_renewal_that_nobody_answers_for(answer: str | None) -> None:
    """The tunnel lives on with its old key; the renewal alone failed."""
    pair = renewing()
    if answer is None:
        reply(pair, questions(pair)[0], None)
    else:
        pair.advance(61.0)
        reply(pair, questions(pair)[0], credentials())
    assert pair.tls_client.rekeys == 0
    assert pair.client.error is None
    assert pair.tls_client.state is SessionState.GENERATED_KEYS
    assert any(event.stage is Stage.REKEY for event in pair.client.events_of(Warned))


def test_renewal_with_a_wrong_password() -> None:
    pair = renewing()
    challenge = questions(pair)[0]
    pair.tls_client.handle_answer(challenge, credentials("alice", "wrong"), pair.now)
    pair.pump()
    assert isinstance(pair.client.error, AuthFailed)
