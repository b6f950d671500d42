"""The command at a terminal: what it asks, and what it does with the answers, at the real server."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import trio
from cryptography.hazmat.primitives import serialization

from tests.interop.lab.management import MANAGED, Management, managed
from tests.interop.lab.openvpn import PASSWORD, USERNAME


class Terminal:
    """A process with a terminal of its own. Blocking: use it from a thread."""

    def __init__(self, *argv: str) -> None:
        master, slave = pty.openpty()
        self._master = master
        self._process = subprocess.Popen(
            [sys.executable, "-m", "minivpn_trio", *argv], stdin=slave, stdout=slave, stderr=slave,
            env={**os.environ, "TERM": "dumb", "COLUMNS": "200"}, start_new_session=True,
        )  # fmt: skip
        os.close(slave)
        self.output = ""
        self._looked_at = 0

    def wait_for(self, text: str, *, seconds: float = 20) -> None:
        deadline = time.monotonic() + seconds
        while text not in self.output[self._looked_at :]:
            if not self._read(max(0.0, deadline - time.monotonic())):
                raise AssertionError(f"no {text!r} in {self.output!r}")
        self._looked_at = self.output.index(text, self._looked_at) + len(text)

    def type(self, text: str) -> None:
        os.write(self._master, text.encode() + b"\n")

    def _read(self, seconds: float) -> bool:
        ready, _, _ = select.select([self._master], [], [], seconds)
        if not ready:
            return False
        try:
            data = os.read(self._master, 65536)
        except OSError:  # the other end is closed
            return False
        self.output += data.decode()
        return bool(data)

    def finish(self, *, seconds: float = 20) -> int:
        """Read to its end; the exit status."""
        while self._read(seconds):
            pass
        return self._process.wait(5)

    def close(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        os.close(self._master)


@contextmanager
def terminal(*argv: str) -> Iterator[Terminal]:
    opened = Terminal(*argv)
    try:
        yield opened
    finally:
        opened.close()


def ping(profile) -> tuple[str, ...]:
    return ("ping", "--config", str(profile), "--count", "1")


def test_user_name_and_password(start_server) -> None:
    server = start_server(user_pass=True)
    with terminal(*ping(server.profile_file())) as shown:
        shown.wait_for("User name")
        shown.type(USERNAME)
        shown.wait_for("Password")
        shown.type(PASSWORD)
        shown.wait_for("1 received")
        assert shown.finish() == 0
    assert PASSWORD not in shown.output


def test_wrong_password_is_asked_for_again(start_server) -> None:
    """auth-retry interact."""
    server = start_server(user_pass=True)
    with terminal(*ping(server.profile_file(extra=("auth-retry interact",)))) as shown:
        for password in ("hunter2", PASSWORD):
            shown.wait_for("User name")
            shown.type(USERNAME)
            shown.wait_for("Password")
            shown.type(password)
        shown.wait_for("1 received")
        assert shown.finish() == 0
    assert "Refused: no reason given" in shown.output


@pytest.mark.parametrize("password", ["right", "wrong"])
def test_encrypted_key(lab, start_server, password) -> None:
    server = start_server()
    identity = lab.credentials.client
    key = serialization.load_pem_private_key(identity.key.encode(), None)
    encrypted = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"open sesame"),
    ).decode()
    profile = server.profile_file()
    profile.write_text(profile.read_text().replace(identity.key.strip(), encrypted.strip()))
    with terminal(*ping(profile)) as shown:
        if password == "wrong":
            for _ in range(3):
                shown.wait_for("Password of the private key")
                shown.type("wrong")
            assert shown.finish() == 2
            assert "the password does not open the private key" in shown.output
        else:
            shown.wait_for("Password of the private key")
            shown.type("open sesame")
            shown.wait_for("1 received")
            assert shown.finish() == 0
    assert "open sesame" not in shown.output


async def test_everything_a_server_can_ask(start_server) -> None:
    """Static challenge, dynamic challenge, a page to open, a code while the login is pending."""
    server = start_server(extra=MANAGED)
    profile = server.profile_file(extra=("auth-user-pass", 'static-challenge "Code on your card" 1'))
    seen = []

    async def decide(management: Management) -> None:
        request = await management.next("CONNECT")
        seen.append(request.static_challenge)
        await management.deny(request, "CRV1:R:U1RBVEU=:YWxpY2U=:Favourite colour?")
        request = await management.next("CONNECT")
        seen.append(request.password)
        await management.let_wait(request, "WEB_AUTH::https://sso.example/page", 50)
        await management.let_wait(request, "CR_TEXT:E,R:Number shown there", 50)
        answer = await management.next("CR_RESPONSE")
        seen.append(answer.response)
        await management.admit(request)

    def user() -> None:
        with terminal(*ping(profile)) as shown:
            for question, answer in (
                ("User name", USERNAME),
                ("Password of alice", PASSWORD),
                ("Code on your card", "4711"),
                ("The server asks: Favourite colour?", "blue"),
            ):
                shown.wait_for(question)
                shown.type(answer)
            shown.wait_for("https://sso.example/page")
            shown.wait_for("The server asks: Number shown there")
            shown.type("99")
            shown.wait_for("1 received")
            assert shown.finish() == 0
            assert "blue" not in shown.output
            assert "4711" in shown.output, "an answer that may be seen is shown"

    async with managed(server.folder) as management, trio.open_nursery() as nursery:
        nursery.start_soon(decide, management)
        await trio.to_thread.run_sync(user)
        nursery.cancel_scope.cancel()
    assert seen == [(PASSWORD, "4711"), "CRV1::U1RBVEU=::blue", "99"]
