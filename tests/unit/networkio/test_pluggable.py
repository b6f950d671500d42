"""What a pluggable transport and its parent say to each other (pt-spec 3.2, 3.3, 3.5)."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minivpn_trio.errors import ProtocolError
from minivpn_trio.networkio.pluggable import MAX_LINE, MAX_OUTPUT, Handshake, Refused, environment, socks_arguments

#: As obfs4proxy 0.0.14 says it.
GOOD = b"VERSION 1\nCMETHOD obfs4 socks5 127.0.0.1:37451\nCMETHODS DONE\n"


def test_the_environment() -> None:
    variables = environment("obfs4", "/tmp/x")
    assert variables["TOR_PT_MANAGED_TRANSPORT_VER"] == "1"
    assert variables["TOR_PT_CLIENT_TRANSPORTS"] == "obfs4"
    assert variables["TOR_PT_STATE_LOCATION"] == "/tmp/x"
    assert variables["TOR_PT_EXIT_ON_STDIN_CLOSE"] == "1"


@given(cuts=st.lists(st.integers(0, len(GOOD) - 1), max_size=5))
def test_the_address_however_it_was_cut(cuts: list[int]) -> None:
    handshake = Handshake("obfs4")
    edges = [0, *sorted(cuts), len(GOOD)]
    for start, end in pairwise(edges):
        assert handshake.address is None
        handshake.handle_output_untrusted(GOOD[start:end])
    assert handshake.address == ("127.0.0.1", 37451)


def test_words_of_later_versions_are_passed_over() -> None:
    handshake = Handshake("obfs4")
    handshake.handle_output_untrusted(
        b"VERSION 1\r\nLOG SEVERITY=notice MESSAGE=hello\nSTATUS TYPE=version\nCMETHOD meek socks5 127.0.0.1:1\n"
        b"CMETHOD obfs4 socks5 [::1]:99 ARGS=x\nCMETHODS DONE\nSTATUS more"
    )
    assert handshake.address == ("::1", 99)


@pytest.mark.parametrize(
    ("said", "text"),
    [
        (b"VERSION 2\n", "version"),
        (b"VERSION-ERROR no-version\n", "version"),
        (b"ENV-ERROR no TOR_PT_STATE_LOCATION\n", "environment"),
        (b"CMETHOD-ERROR obfs4 no\n", "cannot do obfs4"),
        (b"VERSION 1\nCMETHODS DONE\n", "cannot do obfs4"),
        (b"VERSION 1\nCMETHOD obfs4 socks4 127.0.0.1:1\nCMETHODS DONE\n", "cannot do obfs4"),
        (b"PROXY-ERROR x\n", "proxy"),
    ],
)
def test_refusals(said: bytes, text: str) -> None:
    with pytest.raises(Refused, match=text):
        Handshake("obfs4").handle_output_untrusted(said)


@pytest.mark.parametrize(
    "place", ["192.0.2.1:1", "127.0.0.1:0", "127.0.0.1:99999", "localhost:1", "127.0.0.1", ":", "x:y"]
)
def test_a_listener_elsewhere_is_refused(place: str) -> None:
    with pytest.raises(ProtocolError):
        Handshake("obfs4").handle_output_untrusted(f"CMETHOD obfs4 socks5 {place}\n".encode())


@pytest.mark.parametrize("said", [b"x" * (MAX_LINE + 1), b"LOG x\n" * MAX_OUTPUT], ids=["line", "all"])
def test_too_much_is_refused(said: bytes) -> None:
    with pytest.raises(ProtocolError):
        Handshake("obfs4").handle_output_untrusted(said)


@given(
    pieces=st.lists(st.binary(max_size=60), max_size=8),
    prefix=st.sampled_from([b"", b"CMETHOD obfs4 socks5 ", b"VERSION "]),
)
def test_any_output_ends_well(pieces: list[bytes], prefix: bytes) -> None:
    handshake = Handshake("obfs4")
    try:
        for piece in [prefix, *pieces]:
            handshake.handle_output_untrusted(piece)
    except (ProtocolError, Refused):
        pass


def test_arguments() -> None:
    assert socks_arguments({"cert": "abc+/", "iat-mode": "0"}) == ("cert=abc+/;iat-mode=0", "\0")
    assert socks_arguments({"k;e\\y": "v;a=l"}) == ("k\\;e\\\\y=v\\;a\\=l", "\0")
    name, password = socks_arguments({"k": "v" * 300})
    assert (len(name), len(password)) == (255, 47)


@pytest.mark.parametrize("value", ["x" * 520, "\u00fc"])
def test_arguments_that_do_not_fit(value: str) -> None:
    with pytest.raises(ValueError, match="do not fit"):
        socks_arguments({"k": value})


@given(
    arguments=st.dictionaries(
        st.text("ab;=\\-", min_size=1, max_size=6), st.text("xy;=\\/", max_size=30), min_size=1, max_size=4
    )
)
def test_arguments_are_read_back(arguments: dict[str, str]) -> None:
    """As goptlib reads them: a backslash makes the next character plain, = ends a key, ; a pair."""
    name, password = socks_arguments(arguments)
    text = name + ("" if password == "\0" else password)
    pairs = [pair.groups() for pair in re.finditer(r"((?:\\.|[^\\=;])*)=((?:\\.|[^\\;])*)(?:;|$)", text)]
    assert {re.sub(r"\\(.)", r"\1", k): re.sub(r"\\(.)", r"\1", v) for k, v in pairs} == arguments
