"""The command against the real server: output, exit status, one line on stderr."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.interop.lab.services import PATTERN


def command(*argv: str, timeout: float = 40) -> subprocess.CompletedProcess[bytes]:
    """Run minivpn-trio; it inherits our network namespace."""
    return subprocess.run(
        [sys.executable, "-m", "minivpn_trio", *argv], stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout,
        check=False,
    )  # fmt: skip


def test_ping_the_gateway(start_server) -> None:
    profile = str(start_server().profile_file())
    done = command("ping", "--config", profile, "--count", "3", "--interval", "0.1", "--json")
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert lines[-1]["received"] == 3


@pytest.mark.parametrize("url", ["http://10.8.0.1/bytes/300000", "http://web.lab/bytes/300000"])
def test_fetch(start_server, tmp_path, url) -> None:
    output = tmp_path / "page"
    done = command("fetch", "--config", str(start_server().profile_file()), url, "-o", str(output))
    assert done.returncode == 0, done.stderr
    assert output.read_bytes() == (PATTERN * 2)[:300000]


def test_trace_has_the_handshake(start_server) -> None:
    done = command("trace", "--config", str(start_server().profile_file()))
    assert done.returncode == 0, done.stderr
    text = done.stdout.decode()
    for word in ("packet_in", "packet_out", "client_hello", "server_hello", "P_CONTROL_HARD_RESET_CLIENT_V2"):
        assert word in text


def test_wrong_password_is_one_line_and_status_1(start_server) -> None:
    server = start_server(user_pass=True)
    wrong = server.password_file(password="hunter2")
    done = command("ping", "--config", str(server.profile_file()), "--auth-user-pass", str(wrong), "--count", "1")
    assert done.returncode == 1
    assert len(done.stderr.decode().strip().splitlines()) == 1
    assert b"hunter2" not in done.stderr + done.stdout


def test_unreachable_server_is_status_1(start_server) -> None:
    done = command("ping", "--config", str(start_server(transport="tcp").profile_file(port=9999)), "--count", "1")
    assert done.returncode == 1
    assert len(done.stderr.decode().strip().splitlines()) == 1
