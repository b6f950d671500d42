"""The command's manners: one line on stderr, exit status 2 for wrong usage, and what it says of errors in groups."""

from __future__ import annotations

import math
import os
import subprocess
import sys

import pytest

from minivpn_trio import load_config
from minivpn_trio.cli import describe, first_expected
from minivpn_trio.cli.tunnel import ConnectingStatus, load_settings
from minivpn_trio.errors import Stage, TunnelClosed
from minivpn_trio.events import DialStarted, Ready, Reconnecting, ResetDone, ResetSent, Warned


def command(*argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "minivpn_trio", *argv], stdin=subprocess.DEVNULL, capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip


@pytest.fixture
def profile(tmp_path) -> str:
    path = tmp_path / "client.ovpn"
    path.write_text("client\nremote 127.0.0.1 9\nremote-cert-tls server\nca ca.crt\nauth-user-pass\n")
    return str(path)


@pytest.mark.parametrize(
    ("argv", "about"),
    [
        (["nonsense"], "nonsense"),
        (["ping"], "--config"),
        (["ping", "--config", "no such file"], "no such file"),
        (["ping", "--config", "PROFILE", "--count", "0"], "--count"),
        (["fetch", "--config", "PROFILE", "ftp://host/"], "http"),
        (["fetch", "--config", "PROFILE", "http://host/", "-o", "no/such/folder/x"], "no/such/folder/x"),
        (["trace", "--config", "PROFILE", "-o", os.curdir], "cannot be written"),
        (["trace", "--config", "PROFILE", "--auth-user-pass", "no such file"], "no such file"),
        (["check"], "FILE"),
    ],
)
def test_wrong_usage_is_one_line_and_status_2(profile, argv, about) -> None:
    done = command(*(profile if word == "PROFILE" else word for word in argv))
    assert done.returncode == 2
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("minivpn-trio: ")
    assert about in line
    assert "--help" in line


def test_no_arguments_show_the_help() -> None:
    done = command()
    assert done.returncode == 2
    assert "Commands:" in done.stderr


@pytest.mark.parametrize("name", ["check", "demo", "fetch", "ping", "trace"])
def test_each_command_has_help(name) -> None:
    done = command(name, "--help")
    assert done.returncode == 0
    assert f"minivpn-trio {name}" in done.stdout


def test_a_group_of_what_is_expected_is_told_by_its_first() -> None:
    refused = TunnelClosed("the server left")
    assert first_expected(ExceptionGroup("", [ExceptionGroup("", [refused]), BrokenPipeError()])) is refused
    assert first_expected(refused) is refused


def test_a_group_with_a_mistake_of_ours_is_not_hidden() -> None:
    assert first_expected(ExceptionGroup("", [TunnelClosed("gone"), ZeroDivisionError()])) is None


def test_the_stage_follows_the_events() -> None:
    status = ConnectingStatus()
    assert status.stage is Stage.DIAL
    status.on_event(DialStarted(time=0, host="h", port=1, proto="udp"))
    status.on_event(ResetSent(time=0))
    assert status.stage is Stage.RESET
    status.on_event(ResetDone(time=0))
    assert status.stage is Stage.TLS_HANDSHAKE


def test_a_lost_tunnel_is_told_once_and_so_is_its_return(capsys) -> None:
    status = ConnectingStatus()
    lost = Reconnecting(time=1, reason="nothing heard", delay=1, attempt=1)
    status.on_event(lost)  # while it connects for the first time, the final error says it
    assert capsys.readouterr().err == ""
    status.on_event(Ready(time=0, ipv4="10.8.0.2", ipv6=None))
    status.on_event(lost)
    status.on_event(lost)
    status.on_event(Ready(time=2, ipv4="10.8.0.2", ipv6=None))
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert "nothing heard" in lines[0]


def test_what_the_network_said_cannot_steer_the_terminal(capsys) -> None:
    steering = "a\x1b[2J\x9b1m\u202eb"
    assert describe(TunnelClosed(steering)) == "the tunnel is closed: a?[2J?1m?b"
    assert describe(OSError(2, steering, steering)).isprintable()
    status = ConnectingStatus()
    status.on_event(Warned(time=0, stage=Stage.PUSH, text=steering))
    status.on_event(Ready(time=0, ipv4=None, ipv6=None))
    status.on_event(Reconnecting(time=1, reason=steering, delay=1, attempt=1))
    shown = capsys.readouterr().err
    assert all(line.isprintable() for line in shown.splitlines())
    assert len(shown.splitlines()) == 2


def test_a_name_that_does_not_exist_is_not_asked_for_for_ever(tmp_path) -> None:
    path = tmp_path / "client.ovpn"
    path.write_text("client\nremote vpn.invalid 9\nremote-cert-tls server\nresolv-retry infinite\n"
                    f"peer-fingerprint {':'.join(['00'] * 32)}\nauth-user-pass\n")  # fmt: skip
    login = tmp_path / "login"
    login.write_text("alice\nsecret\n")
    assert load_config(path).resolv_retry == math.inf
    assert load_settings(str(path), str(login)).resolv_retry == 0
