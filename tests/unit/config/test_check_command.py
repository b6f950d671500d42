"""``minivpn-trio check``, as its users see it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from minivpn_trio.cli.check import check
from minivpn_trio.config.ovpn import read_profile
from minivpn_trio.config.report import describe

PROFILES = Path(__file__).parent / "profiles"


def run(*arguments: str) -> Result:
    return CliRunner().invoke(check, arguments, catch_exceptions=False)


def test_one_object_a_line() -> None:
    files = [str(PROFILES / name) for name in ("plain.ovpn", "merge-conflict.ovpn", "none.ovpn")]
    result = run("--json", *files)
    assert result.exit_code == 2
    objects = [json.loads(line) for line in result.stdout.splitlines()]
    assert [each["file"] for each in objects] == files
    assert [each["ok"] for each in objects] == [True, False, False]
    assert objects[1]["errors"][0]["line"] == 3


def test_the_object() -> None:
    assert describe(read_profile(PROFILES / "inline-crlf-latin1.ovpn")) == {
        "file": str(PROFILES / "inline-crlf-latin1.ovpn"),
        "ok": True,
        "complete": True,
        "remotes": [
            {"host": "192.0.2.1", "port": 443, "proto": "udp"},
            {"host": "2001:db8::1", "port": 1195, "proto": "tcp6"},
        ],
        "data_ciphers": ["AES-256-GCM", "AES-128-GCM", "CHACHA20-POLY1305", "AES-256-CBC"],
        "fallback_cipher": "AES-256-CBC",
        "auth": "SHA512",
        "control_wrap": "tls-auth",
        "key_direction": 1,
        "needs": ["auth-user-pass"],
        "compression": "comp-lzo-no",
        "fragment": None,
        "warnings": [
            {
                "line": 12,
                "directive": "cipher",
                "message": "AES-256-CBC is offered after AES-256-GCM:AES-128-GCM:CHACHA20-POLY1305 and serves as the "
                "fallback for servers that negotiate nothing; openvpn 2.6 itself would not use it without data-ciphers",
            }
        ],
        "errors": [],
    }


def test_a_profile_that_only_needs_something_is_ok(tmp_path: Path) -> None:
    path = tmp_path / "a.ovpn"
    path.write_text("client\ndev tun\nremote a\nca no.crt\nauth-user-pass\nremote-cert-tls server\n")
    result = run(str(path))
    assert result.exit_code == 0
    assert "still needed" in result.stdout
    assert "file:no.crt" in result.stdout


def test_for_humans() -> None:
    result = run(str(PROFILES / "scripts.ovpn"), str(PROFILES / "merge-conflict.ovpn"))
    assert result.exit_code == 2
    assert "can be used" in result.stdout
    assert "198.51.100.7:1194 udp" in result.stdout
    assert "line 8 up: ignored: programs named in a profile are never run" in result.stdout
    assert "cannot be used" in result.stdout
    assert "line 3: a marker of a merge conflict" in result.stdout


@pytest.mark.parametrize("name", ["[red]x.ovpn", "a\x1b[2Jb.ovpn"])
def test_file_names_are_shown_as_text(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text("client\n")
    result = run(str(path))
    assert "\x1b" not in result.stdout
    assert name.replace("\x1b", "?") in result.stdout


def test_nothing_secret_is_shown() -> None:
    for arguments in ([], ["--json"]):
        result = run(*arguments, str(PROFILES / "connections.ovpn"))
        assert "somebody" not in result.stdout


def test_help_and_usage() -> None:
    assert "Exit status" in run("--help").stdout
    assert run().exit_code == 2


def test_what_is_missing_shows_to_programs(tmp_path: Path) -> None:
    path = tmp_path / "a.ovpn"
    path.write_text("client\ndev tun\nremote a\nca no.crt\nauth-user-pass\nremote-cert-tls server\n")
    described = json.loads(run("--json", str(path)).stdout)
    assert (described["ok"], described["complete"]) == (True, False)
