"""Control messages: cut out of the stream, and what they mean."""

from __future__ import annotations

from itertools import pairwise
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minivpn_trio.errors import DropReason
from minivpn_trio.tlssession.messages import (
    MAX_MESSAGE,
    AuthFailedMessage,
    AuthPendingMessage,
    DynamicChallenge,
    ExitMessage,
    HaltMessage,
    InfoMessage,
    MessageFramer,
    PushReplyMessage,
    PushRequestMessage,
    RestartMessage,
    TextChallengeMessage,
    UnknownMessage,
    WebAuthMessage,
    challenge_response,
    encode_message,
    parse_message,
)

_PRINTABLE = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), min_size=1, max_size=300)


@given(messages=st.lists(_PRINTABLE, max_size=8), cuts=st.lists(st.integers(0, 3000), max_size=8))
def test_cut_anywhere(messages: list[str], cuts: list[int]) -> None:
    stream = b"".join(encode_message(text) for text in messages)
    edges = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
    framer = MessageFramer()
    found: list[str] = []
    for start, end in pairwise(edges):
        found += framer.feed(stream[start:end])
    assert found == messages
    assert not framer.drops


@given(pieces=st.lists(st.binary(max_size=2000), max_size=30))
def test_garbage(pieces: list[bytes]) -> None:
    framer = MessageFramer()
    for piece in pieces:
        for text in framer.feed(piece):
            assert text.isascii()
            assert text.isprintable()
            parse_message(text)


def test_unprintable_message_is_dropped_alone() -> None:
    framer = MessageFramer()
    assert framer.feed(b"PUSH_REPLY,x\x01y\0INFO,z\0\xff\0EXIT\r\n\0") == ["INFO,z", "EXIT"]
    assert framer.drops == {DropReason.MALFORMED: 2}


def test_a_message_without_end() -> None:
    framer = MessageFramer()
    for _ in range(100):
        assert framer.feed(b"A" * 4096) == []
        assert len(framer._partial) <= MAX_MESSAGE
    assert framer.feed(b"A\0EXIT\0") == ["EXIT"]
    assert framer.drops == {DropReason.TOO_LONG: 1}


@pytest.mark.parametrize("text", ["", "a\0b", "caf\u00e9", "a\nb"])
def test_what_is_not_sent(text: str) -> None:
    with pytest.raises(ValueError, match="printable"):
        encode_message(text)


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("PUSH_REQUEST", PushRequestMessage()),
        ("PUSH_REPLY,ping 10", PushReplyMessage("PUSH_REPLY,ping 10")),
        ("PUSH_REPLY", PushReplyMessage("PUSH_REPLY")),
        ("PUSH_REPLYX,ping 10", UnknownMessage("PUSH_REPLYX")),
        ("AUTH_FAILED", AuthFailedMessage()),
        ("AUTH_FAILED,wrong, or expired", AuthFailedMessage("wrong, or expired")),
        ("AUTH_FAILED,SESSION: token expired", AuthFailedMessage(" token expired", session_expired=True)),
        # OpenVPN's own unit test of the temporary form (test_misc.c) has these settings.
        ("AUTH_FAILED,TEMP", AuthFailedMessage(temporary=True)),
        ("AUTH_FAILED,TEMP:there are no more tokens", AuthFailedMessage("there are no more tokens", temporary=True)),
        (
            "AUTH_FAILED,TEMP[backoff 42,advance no]:go away",
            AuthFailedMessage("go away", temporary=True, backoff=42.0, advance="no"),
        ),
        ("AUTH_FAILED,TEMP[advance remote]", AuthFailedMessage(temporary=True, advance="remote")),
        ("AUTH_FAILED,TEMP[advance moon,backoff x]:a", AuthFailedMessage("a", temporary=True)),
        (
            "AUTH_FAILED,CRV1:R,E:c3RhdGU=:dXNlcg==:Enter: PIN",
            AuthFailedMessage(
                "Enter: PIN", challenge=DynamicChallenge("Enter: PIN", "c3RhdGU=", "user", True, True)
            ),
        ),
        (
            "AUTH_FAILED,CRV1::s::Look",
            AuthFailedMessage("Look", challenge=DynamicChallenge("Look", "s", "", False, False)),
        ),
        ("AUTH_FAILED,CRV1:R", AuthFailedMessage("a challenge that cannot be read")),
        ("AUTH_FAILED,CRV1:R:s:%%%:PIN", AuthFailedMessage("a challenge that cannot be read")),
        # User names with ESC [ 2 J in them, and with U+202E, which turns the direction of writing.
        ("AUTH_FAILED,CRV1:R:s:eBtbMko=:PIN", AuthFailedMessage("a challenge that cannot be read")),
        ("AUTH_FAILED,CRV1:R:s:eOKArg==:PIN", AuthFailedMessage("a challenge that cannot be read")),
        ("INFO_PRE,CR_TEXT:R,E:Your code: ", TextChallengeMessage("Your code: ", echo=True, needs_answer=True)),
        ("INFO,CR_TEXT::Welcome", TextChallengeMessage("Welcome")),
        ("INFO_PRE,CR_TEXT", InfoMessage("CR_TEXT")),
        ("INFO_PRE,WEB_AUTH::https://a.example/x?y=z:1", WebAuthMessage("https://a.example/x?y=z:1")),
        (
            "INFO_PRE,WEB_AUTH:hidden,proxy=192.0.2.1;80;dQ==;cA==,external:https://a.example",
            WebAuthMessage("https://a.example", ("hidden", "external")),
        ),
        ("INFO_PRE,OPEN_URL:HTTPS://a.example", WebAuthMessage("HTTPS://a.example")),
        *[
            (f"INFO_PRE,OPEN_URL:{url}", WebAuthMessage(None))
            for url in (
                "http://a.example", "file:///etc/passwd", "javascript:alert(1)", "https://", "https:///a", "https://?a",
                "https://good.example@bad.example/", "https://a.example/ x", "https://a" + "b" * 2048, "",
            )
        ],
        ("AUTH_PENDING", AuthPendingMessage()),
        ("AUTH_PENDING,timeout 180", AuthPendingMessage(180.0)),
        ("AUTH_PENDING,timeout 99999999999", AuthPendingMessage()),
        ("AUTH_PENDING,timeout -5", AuthPendingMessage()),
        ("AUTH_PENDING,timeout 999999999", AuthPendingMessage(86400.0)),
        ("INFO,hello", InfoMessage("hello")),
        ("INFO_PRE,OPEN_URL:https://x", WebAuthMessage("https://x")),
        ("RESTART", RestartMessage()),
        ("RESTART,bye", RestartMessage("bye")),
        ("RESTART,[N]bye", RestartMessage("bye", next_remote=True)),
        ("RESTART,[P]", RestartMessage(keep_credentials=True)),
        ("RESTART,[P bye", RestartMessage("[P bye")),
        ("HALT,[N]now", HaltMessage("now")),
        ("EXIT", ExitMessage()),
        ("EXITS", UnknownMessage("EXITS")),
    ],
)
def test_meaning(text: str, meaning: object) -> None:
    assert parse_message(text) == meaning


def test_words_are_bounded_and_tokens_not_shown() -> None:
    message = parse_message("AUTH_FAILED," + "x" * 5000)
    assert isinstance(message, AuthFailedMessage)
    assert len(message.reason) == 256
    assert "token" not in repr(parse_message("PUSH_REPLY,auth-token SESS_ID"))
    assert "c3RhdGU" not in repr(parse_message("AUTH_FAILED,CRV1:R:c3RhdGU=:dXNlcg==:PIN"))


def test_answer_to_a_text_challenge() -> None:
    # openvpn's doc/management-notes.txt, cr-response: base64 of what was typed.
    assert challenge_response("123456") == "CR_RESPONSE,MTIzNDU2"
    assert challenge_response("caf\u00e9") == "CR_RESPONSE,Y2Fmw6k="
    assert encode_message(challenge_response("")) == b"CR_RESPONSE,\0"
    with pytest.raises(ValueError, match="1024"):
        challenge_response("x" * 1025)


_KINDS = [
    "AUTH_FAILED,CRV1:", "AUTH_FAILED,TEMP", "AUTH_FAILED,",
    "INFO_PRE,CR_TEXT:", "INFO,WEB_AUTH:", "INFO_PRE,OPEN_URL:",
]  # fmt: skip


@given(kind=st.sampled_from(_KINDS), rest=st.text(st.sampled_from(":,[]=ERhttps/@. ?#%0a~"), max_size=60))
def test_what_a_server_may_ask(kind: str, rest: str) -> None:
    """Whatever it writes: text is bounded, an address is an https one with a host that is not something else."""
    message = parse_message(kind + rest)
    if isinstance(message, WebAuthMessage) and message.url is not None:
        parts = urlsplit(message.url)
        assert parts.scheme == "https"
        assert parts.netloc
        assert parts.username is None
    if isinstance(message, AuthFailedMessage) and message.challenge is not None:
        assert rest.count(":") >= 3
