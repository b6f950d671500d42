"""CONNECT without I/O: the request, its answer, and logging in."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minivpn_trio.config.credentials import Credentials
from minivpn_trio.config.proxy import HTTPProxy
from minivpn_trio.errors import ProtocolError
from minivpn_trio.networkio.http_connect import MAX_ANSWER, HTTPConnect, answer_challenge, authority, basic
from tests.proxy_servers import digest_check

PROXY = HTTPProxy("proxy.example", 8080)
LOGIN = Credentials("Mufasa", "Circle of Life")
TARGET = "vpn.example.org:443"


def answered(data: bytes, *, proxy: HTTPProxy = PROXY) -> HTTPConnect:
    dialogue = HTTPConnect(proxy, TARGET)
    dialogue.request()
    dialogue.handle_data_untrusted(data)
    return dialogue


def test_the_request() -> None:
    assert HTTPConnect(PROXY, TARGET).request() == (
        b"CONNECT vpn.example.org:443 HTTP/1.1\r\nHost: vpn.example.org:443\r\n\r\n"
    )
    proxy = HTTPProxy("p", 1, user_agent="agent/1", headers=(("X-One", "1"), ("Host", "front.example")))
    assert HTTPConnect(proxy, TARGET, "Basic eA==").request() == (
        b"CONNECT vpn.example.org:443 HTTP/1.1\r\nHost: front.example\r\nUser-Agent: agent/1\r\nX-One: 1\r\n"
        b"Proxy-Authorization: Basic eA==\r\n\r\n"
    )


@pytest.mark.parametrize(
    ("host", "expected"),
    [("vpn.example", "vpn.example:7"), ("192.0.2.1", "192.0.2.1:7"), ("2001:db8::1", "[2001:db8::1]:7"),
     ("b\u00fccher.example", "xn--bcher-kva.example:7")],
)  # fmt: skip
def test_authority(host: str, expected: str) -> None:
    assert authority(host, 7) == expected


def test_an_answer_in_pieces_and_what_comes_behind_it() -> None:
    data = b"HTTP/1.0 200 Connection established\r\nX: y\r\n\r\n\x00\x05hello"
    for cut in range(1, len(data)):
        dialogue = HTTPConnect(PROXY, TARGET)
        dialogue.request()
        dialogue.handle_data_untrusted(data[:cut])
        behind = b""
        if dialogue.status is None:
            dialogue.handle_data_untrusted(data[cut:])
        else:
            behind = data[cut:]
        assert dialogue.status == 200
        assert dialogue.trailing + behind == b"\x00\x05hello"


def test_a_407_and_its_challenges() -> None:
    dialogue = answered(
        b"HTTP/1.1 407 No\r\nProxy-Authenticate: Basic realm=x\r\nproxy-authenticate: Digest y\r\n\r\nbody"
    )
    assert dialogue.status == 407
    assert dialogue.challenges == ("Basic realm=x", "Digest y")


@pytest.mark.parametrize(
    "data", [b"\x05\xff", b"SSH-2.0-x\r\n", b"HTTP/1.1 abc\r\n\r\n", b"x" * (MAX_ANSWER + 1),
             b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * MAX_ANSWER],
    ids=["socks", "ssh", "status", "long-line", "long-headers"],
)  # fmt: skip
def test_what_is_no_proxy(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        answered(data).handle_data_untrusted(b"")


def test_an_answer_that_never_comes() -> None:
    with pytest.raises(ProtocolError):
        answered(b"")
    with pytest.raises(ProtocolError):
        answered(b"HTTP/1.1 200 OK\r\n").handle_data_untrusted(b"")


@given(
    pieces=st.lists(st.binary(max_size=100), max_size=10),
    prefix=st.sampled_from([b"", b"HTTP/1.1 ", b"HTTP/1.1 407 x\r\n"]),
)
def test_any_bytes_are_an_answer_or_a_protocol_error(pieces: list[bytes], prefix: bytes) -> None:
    dialogue = HTTPConnect(PROXY, TARGET)
    dialogue.request()
    try:
        for piece in [*filter(None, [prefix, *pieces]), b""]:
            if dialogue.status is None:
                dialogue.handle_data_untrusted(piece)
    except ProtocolError:
        return
    assert dialogue.status is not None
    answer_challenge(dialogue.challenges, LOGIN, TARGET)


def test_basic_known_answer() -> None:
    """RFC 7617, section 2."""
    assert basic(Credentials("Aladdin", "open sesame")) == "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="


@pytest.mark.parametrize("algorithm", ["MD5", "md5", "MD5-sess", "SHA-256", "SHA-256-sess"])
def test_digest(algorithm: str) -> None:
    """Held against RFC 7616 written out (tests/proxy_servers.py)."""
    challenge = f'Digest realm="http-auth@example.org", nonce="7ypf/xlj9X", qop="auth, auth-int", algorithm={algorithm}'
    answer = answer_challenge([challenge], LOGIN, TARGET)
    assert answer is not None
    right = digest_check(
        "Mufasa", "Circle of Life", nonce="7ypf/xlj9X", realm="http-auth@example.org", algorithm=algorithm
    )
    assert right(answer)
    assert f'uri="{TARGET}"' in answer
    assert not right(answer.replace("nc=00000001", "nc=00000002"))


DIGEST = 'Digest realm="r", nonce="n"'


@pytest.mark.parametrize(
    ("challenges", "clear_text", "scheme"),
    [
        (["Basic realm=r"], True, "Basic"),
        (["Basic realm=r"], False, None),
        (["Basic realm=r", DIGEST], True, "Digest"),
        ([DIGEST + ", algorithm=ROT13", "basic realm=r"], True, "Basic"),
        ([DIGEST + ', qop="auth-int"'], True, None),
        (["Digest nonsense"], True, None),
        (["Digest", "NTLM"], True, None),
        ([], True, None),
    ],
)
def test_the_best_answer(challenges: list[str], clear_text: bool, scheme: str | None) -> None:
    answer = answer_challenge(challenges, LOGIN, TARGET, clear_text=clear_text)
    assert (answer and answer.partition(" ")[0]) == scheme


@given(text=st.text(st.characters(max_codepoint=255), max_size=80))
def test_any_challenge_has_an_answer_or_none(text: str) -> None:
    answer_challenge([f"Digest {text}", f'Digest realm="{text}", nonce={text}', text], LOGIN, TARGET)
