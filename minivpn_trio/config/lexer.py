"""How openvpn cuts one line into parameters, and the way back.

The same rules hold for a line of a profile and for one option of a
PUSH_REPLY (reference: openvpn 2.6, options.c, parse_line): parameters are
separated by white space; ``"..."`` and ``'...'`` keep white space; a
backslash, outside single quotes, escapes a backslash, a double quote or white
space and nothing else; ``#`` or ``;`` where a parameter could begin starts a
comment. A quote inside an unquoted parameter is an ordinary character.
"""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["MAX_PARAMETER", "MAX_PARAMETERS", "LexError", "join_line", "quote", "split_line"]

#: Characters in one parameter.
MAX_PARAMETER = 256
#: Parameters of one directive, its name included; openvpn drops the rest unseen.
MAX_PARAMETERS = 16

#: C's isspace in the C locale. Python's str.isspace knows more than openvpn does.
_SPACE = frozenset(" \t\n\v\f\r")
_ESCAPABLE = _SPACE | {"\\", '"'}


class LexError(ValueError):
    """A line cannot be cut into parameters. The text says why and never quotes the line."""


def split_line(line: str) -> list[str]:
    """The parameters of ``line``: empty for a blank line or a comment.

    No more than 16 parameters are returned, like openvpn does; a caller that
    wants to complain about more finds out by ``len``: a 17th is kept as a
    marker. Raises LexError.
    """
    parameters: list[str] = []
    position, end = 0, len(line)
    while position < end and len(parameters) <= MAX_PARAMETERS:
        char = line[position]
        following = line[position + 1 : position + 2]
        if char in _SPACE:
            position += 1
        elif char == "\\" and following in _SPACE:
            # Between parameters an escaped blank is still only a blank.
            position += 2
        elif char in "#;" or (char == "\\" and following in ("#", ";")):
            break
        elif char == "'":
            parameter, position = _single_quoted(line, position + 1)
            parameters.append(parameter)
        else:
            quoted = char == '"'
            parameter, position = _escaped(line, position + quoted, quoted=quoted)
            parameters.append(parameter)
    return parameters


def _single_quoted(line: str, start: int) -> tuple[str, int]:
    stop = line.find("'", start)
    if stop < 0:
        raise LexError("a single quotation mark is never closed")
    return _bounded(line[start:stop]), stop + 1


def _escaped(line: str, start: int, *, quoted: bool) -> tuple[str, int]:
    """One parameter in which backslashes escape; where it ended."""
    chars: list[str] = []
    position, end = start, len(line)
    while position < end:
        char = line[position]
        if char == "\\":
            if position + 1 == end:
                raise LexError("a backslash ends the line")
            char = line[position + 1]
            if char not in _ESCAPABLE:
                raise LexError(
                    "a backslash escapes only another one, a double quotation mark or a blank; "
                    "write a backslash of a file name twice"
                )
            position += 1
        elif (char == '"') if quoted else (char in _SPACE):
            return _bounded("".join(chars)), position + 1
        chars.append(char)
        position += 1
    if quoted:
        raise LexError("a quotation mark is never closed")
    return _bounded("".join(chars)), position


def _bounded(parameter: str) -> str:
    if len(parameter) > MAX_PARAMETER:
        raise LexError(f"a parameter is longer than {MAX_PARAMETER} characters")
    return parameter


def quote(parameter: str) -> str:
    """``parameter`` written so that ``split_line`` gives it back."""
    plain = parameter and parameter[0] not in "#;'\"" and not any(c in _SPACE or c == "\\" for c in parameter)
    if plain:
        return parameter
    return '"' + parameter.replace("\\", "\\\\").replace('"', '\\"') + '"'


def join_line(parameters: Iterable[str]) -> str:
    """One line out of ``parameters``."""
    return " ".join(quote(parameter) for parameter in parameters)
