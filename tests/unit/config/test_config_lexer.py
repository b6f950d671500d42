"""Lines into parameters. The cases are openvpn 2.6's own behaviour, seen by running it."""

from __future__ import annotations

import pytest

from minivpn_trio.config.lexer import LexError, join_line, quote, split_line


@pytest.mark.parametrize(
    ("line", "parameters"),
    [
        ("", []),
        ("   \t\r", []),
        ("# comment", []),
        ("; comment", []),
        ("remote host 1194", ["remote", "host", "1194"]),
        ("  remote\thost\v1194  \r", ["remote", "host", "1194"]),
        ("remote host # comment", ["remote", "host"]),
        ("remote host;x #y", ["remote", "host;x"]),
        ("remote host#x", ["remote", "host#x"]),
        ('auth-user-pass "a b"', ["auth-user-pass", "a b"]),
        ("auth-user-pass 'a \" b'", ["auth-user-pass", 'a " b']),
        ("x '' \"\"", ["x", "", ""]),
        (r'x "a \" b"', ["x", 'a " b']),
        (r"x 'a\b'", ["x", r"a\b"]),
        (r"x a\ b", ["x", "a b"]),
        (r"x c:\\keys\\a.key", ["x", r"c:\keys\a.key"]),
        (r"x \"a", ["x", '"a']),
        (r"x \ a", ["x", "a"]),
        (r"x \# a", ["x"]),
        ('x a"b', ["x", 'a"b']),
        ("x a'b", ["x", "a'b"]),
        ('"x""y"z', ["x", "y", "z"]),
        ("'x''y'z", ["x", "y", "z"]),
    ],
)
def test_lines_are_cut_like_openvpn_cuts_them(line: str, parameters: list[str]) -> None:
    assert split_line(line) == parameters


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ('x "a', "never closed"),
        ("x 'a", "never closed"),
        (r"x c:\keys", "backslash"),
        ("x a\\", "backslash"),
        ("x " + "a" * 257, "longer than 256"),
        ("x '" + "a" * 257 + "'", "longer than 256"),
    ],
)
def test_bad_lines_are_refused_without_being_quoted(line: str, complaint: str) -> None:
    with pytest.raises(LexError, match=complaint) as raised:
        split_line(line)
    assert line not in str(raised.value)


def test_the_longest_parameter_fits() -> None:
    assert split_line("x " + "a" * 256) == ["x", "a" * 256]


def test_a_seventeenth_parameter_is_the_last_one_looked_at() -> None:
    assert len(split_line(" ".join("x" * 40))) == 17


@pytest.mark.parametrize("text", ["", "a", "a b", 'a"b', "'", '"', "\\", "#", ";x", "a#", "a\\", "\t", "ü ß"])
def test_quoting_is_undone_by_splitting(text: str) -> None:
    assert split_line(quote(text)) == [text]
    assert split_line(join_line(["x", text, text])) == ["x", text, text]
