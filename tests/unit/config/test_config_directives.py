"""The table of directives is whole, and the reader follows it."""

from __future__ import annotations

from pathlib import Path

import pytest

from minivpn_trio.config.directive_table import markdown
from minivpn_trio.config.directives import DIRECTIVES, Treatment
from minivpn_trio.config.interpret import _HANDLERS
from minivpn_trio.config.ovpn import parse_profile

#: Every name that openvpn 2.6.14 compares with, on any platform, one a line: taken by
#: `grep -o 'streq(p\[0\], "[^"]*"'` from add_option in its options.c.
NAMES = (Path(__file__).parent / "openvpn-2.6.14-directives.txt").read_text().split()


def test_every_directive_of_openvpn_is_in_the_table() -> None:
    assert len(NAMES) > 300
    assert [name for name in NAMES if name not in DIRECTIVES] == []


def test_exactly_the_honoured_ones_have_handlers() -> None:
    honoured = {name for name, row in DIRECTIVES.items() if row.treatment is Treatment.HONOURED}
    assert honoured - {"connection"} == set(_HANDLERS)


def test_the_others_say_why() -> None:
    for name, row in DIRECTIVES.items():
        assert bool(row.why) == (row.treatment is not Treatment.HONOURED), name


def test_the_document_is_made_of_the_table() -> None:
    """Otherwise: python -m minivpn_trio.config.directive_table > docs/directives.md"""
    document = Path(__file__).parents[3] / "docs" / "directives.md"
    assert document.read_text() == markdown()
    assert all(f"\n| `{name}` | {row.treatment.value} |" in markdown() for name, row in DIRECTIVES.items())


@pytest.mark.parametrize("name", sorted(DIRECTIVES))
def test_each_directive_is_treated_as_the_table_says(name: str) -> None:
    row = DIRECTIVES[name]
    if row.treatment is Treatment.HONOURED:
        return
    # tls-verify alone would be one error more: nothing would tell the server from others.
    profile = parse_profile(f"{name} 1\nremote-cert-tls server\n".encode())
    found = [each for each in profile.diagnostics if each.line == 1]
    expected = {Treatment.IGNORED: [], Treatment.WARNED: ["warning"], Treatment.REFUSED: ["error"]}[row.treatment]
    assert [each.severity for each in found] == expected
    assert all(row.why in each.message and each.directive == name for each in found)


@pytest.mark.parametrize("name", sorted(n for n, r in DIRECTIVES.items() if r.values[0] > 0))
def test_too_few_values_are_an_error(name: str) -> None:
    profile = parse_profile(f"{name}\n".encode())
    assert ("error", 1, name) in [(each.severity, each.line, each.directive) for each in profile.diagnostics]


@pytest.mark.parametrize("name", sorted(n for n, r in DIRECTIVES.items() if not r.inline))
def test_only_some_may_be_blocks(name: str) -> None:
    profile = parse_profile(f"<{name}>\nx\n</{name}>\n".encode())
    assert any(each.line == 1 and "block" in each.message for each in profile.errors)
