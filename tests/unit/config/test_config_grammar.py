"""Bytes into statements: blocks, line numbers, damage."""

from __future__ import annotations

import pytest

from minivpn_trio.config.grammar import Statement, parse_statements


def parse(data: bytes) -> tuple[list[Statement], list[tuple[str, int | None, str]]]:
    complaints: list[tuple[str, int | None, str]] = []
    statements = parse_statements(data, lambda severity, line, _, text: complaints.append((severity, line, text)))
    return statements, complaints


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
def test_statements_have_their_line_numbers(end: bytes, bom: bytes) -> None:
    data = bom + end.join(
        [b"client", b"", b"# x", b"  remote a 1  ", b"--nobind", b"<ca>", b"one", b" two", b"</ca>", b"verb 3"]
    )
    statements, complaints = parse(data)
    assert complaints == []
    assert [(s.line, s.name, s.values, s.block) for s in statements] == [
        (1, "client", (), None),
        (4, "remote", ("a", "1"), None),
        (5, "nobind", (), None),
        (6, "ca", (), "one\n two\n"),
        (10, "verb", ("3",), None),
    ]


def test_a_block_keeps_comments_and_tags_of_others() -> None:
    (statement,), complaints = parse(b"<ca>\n# kept\n<key>\n</key>\n   </ca>  # done\n")
    assert statement.block == "# kept\n<key>\n</key>\n"
    assert complaints == []


def test_connection_blocks_hold_statements() -> None:
    (statement,), complaints = parse(b"<connection>\nremote a\n<tls-auth>\nx\n</tls-auth>\n</connection>\n")
    assert complaints == []
    assert [(s.line, s.name, s.block) for s in statement.nested] == [(2, "remote", None), (3, "tls-auth", "x\n")]


@pytest.mark.parametrize(
    ("data", "line", "complaint"),
    [
        (b"client\n<ca>\nabc\n", 2, "never closed"),
        (b"<ca>\nabc</ca>\n", 1, "line 2 has </ca>"),
        (b"<ca>\nabc\n<key>\nx\n", 1, "another block begins in line 3"),
        (b"client\n</ca>\n", 2, "not open"),
        (b"<connection>\nremote a\n", 1, "never closed"),
        (b"<connection>\n<connection>\nremote a\n</connection>\n", 2, "cannot hold"),
        (b"<<<<<<< HEAD\nclient\n", 1, "merge conflict"),
        (b"client\n=======\n", 2, "merge conflict"),
        (b"client\n>>>>>>> 123\n", 2, "merge conflict"),
        (b"<ca>\nabc\n=======\ndef\n</ca>\n", 3, "merge conflict"),
        (b"<ca> x\n</ca>\n", 1, "follows the tag"),
        (b"cli\0ent\n", 1, "NUL"),
        (b"x '" + b"a" * 2000 + b"'\n", 1, "longer than 1024"),
        (b"remote 'a\n", 1, "never closed"),
        (b'"" x\n', 1, "empty"),
        (b"client\rdev tun\r", None, "CR alone"),
        ("client\n".encode("utf-16"), None, "UTF-16"),
        ("client\n".encode("utf-16-le"), None, "UTF-16"),
        ("client\n".encode("utf-16-be"), None, "UTF-16"),
    ],
)
def test_damage_is_an_error_where_it_is(data: bytes, line: int | None, complaint: str) -> None:
    _, complaints = parse(data)
    found = [text for severity, at, text in complaints if (severity, at) == ("error", line)]
    assert any(complaint in text for text in found), complaints


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("cut", [0, 1])
def test_a_file_in_utf16_is_one_error(encoding: str, cut: int) -> None:
    text = "# \u4e00\u4e8c: \u043a\u043b\u0438\u0435\u043d\u0442\r\nclient\r\nremote a\r\nverb 3\r\n"
    data = text.encode(encoding)
    statements, complaints = parse(data[: len(data) - cut])
    assert statements == []
    assert complaints == [("error", None, "the file is UTF-16; save it as UTF-8")]


@pytest.mark.parametrize(
    "data",
    [
        b"c\0lient\nremote a\nverb 3\n", b"\0client\nremote a\nverb 3\n", b"client\n" + b"\0" * 500,
        b"c" + b"\0" * 501 + b"\nverb 3\n", b"\0" * 501 + b"\nverb 3\n",
    ],
)  # fmt: skip
def test_some_nuls_are_no_utf16(data: bytes) -> None:
    _, complaints = parse(data)
    assert complaints
    assert all(severity == "error" and line for severity, line, _ in complaints), complaints
    assert all("NUL" in text for *_, text in complaints)


def test_reading_goes_on_after_damage() -> None:
    statements, complaints = parse(b"<<<<<<< HEAD\nclient\nremote 'a\nverb 3\n")
    assert [s.name for s in statements] == ["client", "verb"]
    assert [(severity, line) for severity, line, _ in complaints] == [("error", 1), ("error", 3)]


def test_what_openvpn_only_stumbles_over_is_a_warning() -> None:
    _, complaints = parse(b"<ca>\nx\n</ca><cert>\n" + b"setenv a " + b"b " * 130 + b"\n")
    assert [(severity, line) for severity, line, _ in complaints] == [("warning", 3), ("warning", 4), ("warning", 4)]


def test_a_password_may_look_like_a_merge_marker() -> None:
    (statement,), complaints = parse(b"<auth-user-pass>\nme\n=======\n</auth-user-pass>\n")
    assert statement.block == "me\n=======\n"
    assert complaints == []


def test_long_comments_and_other_encodings_are_no_matter() -> None:
    _, complaints = parse(b"# " + b"\xe4" * 3000 + b"\nclient\n")
    assert complaints == []


def test_no_statement_shows_its_values() -> None:
    (statement,), _ = parse(b"<auth-user-pass>\nme\nsecret\n</auth-user-pass>\n")
    assert "secret" not in repr(statement)
