"""The grammar of a profile: bytes in, statements with line numbers out.

A statement is a directive with its values, or a directive whose only value is
an inline block, ``<ca>`` ... ``</ca>``. ``<connection>`` holds statements. A
block ends at the first line that begins, after white space, with its closing
tag (reference: openvpn 2.6, options.c, read_config_file and
read_inline_file). What openvpn would stumble over is reported where it is,
and reading goes on.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from .directives import DIRECTIVES
from .lexer import MAX_PARAMETERS, LexError, split_line

__all__ = ["Complain", "Statement", "parse_statements"]

#: Bytes of a line outside of blocks; openvpn's own limit, 255, is only warned of.
MAX_LINE = 1024
_OPENVPN_LINE = 255

_TAG = re.compile(r"<([A-Za-z0-9][A-Za-z0-9_-]{0,63})>")
_CLOSING_TAG = re.compile(r"</([A-Za-z0-9][A-Za-z0-9_-]{0,63})>")
_MERGE_MARKER = re.compile(r"(<{7}|\|{7}|={7}|>{7})(\s|$)")

#: How a complaint is made: severity is ``warning`` or ``error``.
Complain = Callable[[str, int | None, str | None, str], None]


@dataclass(frozen=True, slots=True)
class Statement:
    """One directive of a profile."""

    line: int
    name: str
    values: tuple[str, ...] = field(default=(), repr=False)
    #: The text of an inline block.
    block: str | None = field(default=None, repr=False)
    #: The statements of ``<connection>``.
    nested: tuple[Statement, ...] = ()


def parse_statements(data: bytes, complain: Complain) -> list[Statement]:
    """All statements of a profile. Never raises."""
    if _is_utf16(data):
        complain("error", None, None, "the file is UTF-16; save it as UTF-8")
        return []
    data = data.removeprefix(b"\xef\xbb\xbf")
    if b"\n" not in data and b"\r" in data.strip():
        complain("error", None, None, "the lines end in CR alone; openvpn knows LF and CR LF")
        return []
    lines = [_decode(line) for line in data.split(b"\n")]
    return list(_Reader(lines, complain).statements())


def _is_utf16(data: bytes) -> bool:
    """By its byte-order mark, or without one by the NULs of ASCII text, with which every profile begins.

    Comments may be in any language, so not each pair of bytes has one; but those of a file that is merely damaged are
    few, or do not keep to one byte of each pair.
    """
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return True
    nuls = [data[start::2].count(0) for start in (0, 1)]
    high = int(nuls[1] > nuls[0])
    low = 1 - high
    begins = data[high : high + 1] == b"\0" != data[low : low + 1]
    return begins and nuls[high] >= len(data) // 8 and nuls[high] > 8 * nuls[low]


def _decode(line: bytes) -> str:
    """UTF-8, or else Latin-1: comments come in any encoding, and one line's does not bind the next."""
    try:
        return line.decode()
    except UnicodeDecodeError:
        return line.decode("latin-1")


class _Reader:
    def __init__(self, lines: list[str], complain: Complain, first_line: int = 1, inside: str | None = None) -> None:
        self._lines = lines
        self._complain = complain
        self._first = first_line
        self._inside = inside
        self._next = 0

    def statements(self) -> Iterator[Statement]:
        while self._next < len(self._lines):
            number = self._first + self._next
            text = self._lines[self._next]
            self._next += 1
            statement = self._statement(number, text)
            if statement is not None:
                yield statement

    def _statement(self, number: int, text: str) -> Statement | None:
        if _MERGE_MARKER.match(text):
            self._complain(
                "error", number, None, "a marker of a merge conflict: the file holds two versions, choose one of them"
            )
            return None
        bare = text.strip()
        if not bare or bare[0] in "#;":
            return None
        if "\0" in text:
            self._complain("error", number, None, "a NUL character: this is no text file, or it is damaged")
            return None
        if len(text) > MAX_LINE:
            self._complain("error", number, None, f"the line is longer than {MAX_LINE} characters")
            return None
        try:
            name, *values = split_line(text) or [""]
        except LexError as error:
            # Lines of a torn block end up here, too: nothing else of them is shown.
            first = bare.split(None, 1)[0].removeprefix("--")
            self._complain("error", number, first if first in DIRECTIVES else None, str(error))
            return None
        if not name:
            if values:
                self._complain("error", number, None, "the name of the directive is empty")
            return None
        if len(text.rstrip("\r")) > _OPENVPN_LINE:
            self._complain(
                "warning", number, None, f"the line is longer than {_OPENVPN_LINE} characters: openvpn stops at it"
            )
        if len(values) >= MAX_PARAMETERS:
            self._complain("warning", number, None, f"more than {MAX_PARAMETERS} parameters: the rest is not read")
            del values[MAX_PARAMETERS - 1 :]
        if len(name) > 2 and name.startswith("--"):
            name = name[2:]
        return self._tagged(number, name, values)

    def _tagged(self, number: int, name: str, values: list[str]) -> Statement | None:
        closing = _CLOSING_TAG.match(name)
        if closing:
            self._complain("error", number, _shown(closing[1]), "closes a block that is not open")
            return None
        tag = _TAG.fullmatch(name)
        if tag is None:
            return Statement(number, name, tuple(values))
        name = tag[1]
        if values:
            self._complain("error", number, _shown(name), "something follows the tag on its line")
            return None
        if name == "connection" and self._inside == "connection":
            self._complain("error", number, name, "a <connection> cannot hold another one")
            # Its lines are skipped with it, so that they are not taken for the outer one's.
            self._block(number, name)
            return None
        block = self._block(number, name)
        if block is None:
            return None
        if name == "connection":
            nested = _Reader(block, self._complain, number + 1, name)
            return Statement(number, name, nested=tuple(nested.statements()))
        return Statement(number, name, block="\n".join(line.rstrip("\r") for line in block) + "\n")

    def _block(self, number: int, name: str) -> list[str] | None:
        """The lines up to the closing tag; None, complained of: there is none."""
        closing = f"</{name}>"
        lines = self._lines
        for index in range(self._next, len(lines)):
            bare = lines[index].strip()
            if bare.startswith(closing):
                block = lines[self._next : index]
                self._next = index + 1
                rest = bare[len(closing) :].lstrip()
                if rest and rest[0] not in "#;":
                    self._complain(
                        "warning",
                        self._first + index,
                        _shown(name),
                        "what follows the closing tag on its line is not read",
                    )
                self._look_for_merge_markers(name, block, number + 1)
                return block
        hint = ""
        for index in range(self._next, len(lines)):
            if closing in lines[index]:
                hint = f": line {self._first + index} has {closing}, but a closing tag must begin its line"
                break
            if _TAG.fullmatch(lines[index].strip()):
                hint = f": another block begins in line {self._first + index}"
                break
        self._complain("error", number, _shown(name), f"the block is never closed{hint}")
        self._next = len(lines)
        return None

    def _look_for_merge_markers(self, name: str, block: list[str], first_line: int) -> None:
        if name in ("connection", "auth-user-pass"):
            return  # looked for line by line; or a password, which may be anything
        for index, line in enumerate(block):
            if _MERGE_MARKER.match(line):
                self._complain(
                    "error", first_line + index, _shown(name), "a marker of a merge conflict inside the block"
                )
                return


def _shown(name: str) -> str:
    return name.lower()
