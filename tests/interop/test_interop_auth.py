"""Logging in at the real server: where passwords come from, challenges, second factors, refusals."""

from __future__ import annotations

from dataclasses import replace

import pytest
import trio

from minivpn_trio import AuthFailed, Challenge, ChallengeKind, ConfigError, Credentials
from minivpn_trio.config.ovpn import load_config
from minivpn_trio.errors import AuthFailedTemporarily, HandshakeTimeout
from minivpn_trio.events import AuthPending, Challenged, DialStarted, Warned
from tests.interop.exchanges import EventLog
from tests.interop.lab.lab import OURS, Lab
from tests.interop.lab.management import Management
from tests.interop.lab.openvpn import PASSWORD, USERNAME
from tests.interop.logins import ALICE, ASKS, answers, deciding, reaches, refused, tunnel

# -- where a password comes from


@pytest.mark.parametrize("source", ["argument", "file", "inline", "user name in the file", "callback", "config"])
async def test_password_from(start_server, source) -> None:
    server = start_server(user_pass=True, client_cert=False)
    asked = answers(credentials=ALICE)
    arguments: dict[str, object] = {}
    file = None
    if source == "file":
        file = server.password_file()
    elif source == "user name in the file":
        file = server.folder / "name.txt"
        file.write_text(f"{USERNAME}\n")
    profile = server.profile_file(credentials_file=file)
    if source == "inline":
        text = server.profile().replace(
            "\nauth-user-pass\n", f"\n<auth-user-pass>\n{USERNAME}\n{PASSWORD}\n</auth-user-pass>\n"
        )
        profile.write_text(text)
    elif source == "argument":
        arguments["credentials"] = ALICE
    elif source in ("callback", "user name in the file"):
        arguments["on_challenge"] = asked
    elif source == "config":
        profile = load_config(profile).with_credentials(USERNAME, PASSWORD)
    async with tunnel(profile, **arguments) as dialer:
        assert await reaches(dialer)
    if "on_challenge" in arguments:
        assert asked.kinds == [ChallengeKind.CREDENTIALS]
        assert asked.asked[0].username == (USERNAME if file is not None else None)


async def test_nobody_to_ask(start_server) -> None:
    server = start_server(user_pass=True)
    error = await refused(server.profile_file(), ConfigError)
    assert error.directive == "auth-user-pass"
    error = await refused(server.profile_file(), ConfigError, on_challenge=answers(credentials=None))
    assert error.directive == "auth-user-pass"
    assert "TLS: Initial packet" not in server.log, "it was dialled before the password was there"


# -- challenges


@pytest.mark.parametrize(("flag", "echo"), [("1", True), ("0", False)])
async def test_static_challenge(managed_server, flag, echo) -> None:
    server = managed_server()
    profile = server.profile_file(extra=(*ASKS, f'static-challenge "Your one-time password" {flag}'))
    seen = []

    async def decide(management: Management) -> None:
        request = await management.next("CONNECT")
        seen.append(request.static_challenge)
        await management.admit(request)

    asked = answers(credentials=Credentials("alice", "pa:ss w\u00f6rd"), static="12 34\u00df")
    async with deciding(server, decide), tunnel(profile, on_challenge=asked) as dialer:
        assert await reaches(dialer)
    assert seen == [("pa:ss w\u00f6rd", "12 34\u00df")]
    assert asked.kinds == [ChallengeKind.CREDENTIALS, ChallengeKind.STATIC]
    assert (asked.asked[1].text, asked.asked[1].echo) == ("Your one-time password", echo)


async def test_static_challenge_without_anybody(managed_server) -> None:
    profile = managed_server().profile_file(extra=(*ASKS, "static-challenge Code 1"))
    error = await refused(profile, ConfigError, credentials=ALICE)
    assert error.directive == "static-challenge"


@pytest.mark.parametrize("transport", ["udp", "tcp"])
async def test_dynamic_challenge(managed_server, transport) -> None:
    """Two in a row, and a new name for the user with the second."""
    server = managed_server(transport=transport)
    seen = []

    async def decide(management: Management) -> None:
        for reason in ("CRV1:R,E:U1RBVEU=:YWxpY2U=:Enter: the code", "CRV1:R:c3RhdGUtMg==:Ym9i:And now?", None):
            request = await management.next("CONNECT")
            seen.append((request.username, request.password))
            if reason is None:
                await management.admit(request)
            else:
                await management.deny(request, reason)

    asked = answers(dynamic=["123456", "7:8"])
    async with (
        deciding(server, decide),
        tunnel(server.profile_file(extra=ASKS), credentials=ALICE, on_challenge=asked) as dialer,
    ):
        assert await reaches(dialer)
    assert seen == [
        ("alice", PASSWORD),
        ("alice", "CRV1::U1RBVEU=::123456"),
        ("bob", "CRV1::c3RhdGUtMg==::7:8"),
    ]
    assert [(challenge.text, challenge.echo) for challenge in asked.asked] == [
        ("Enter: the code", True),
        ("And now?", False),
    ]


@pytest.mark.parametrize("ask", [True, False])
async def test_dynamic_challenge_that_nobody_answers(managed_server, ask) -> None:
    server = managed_server()

    async def decide(management: Management) -> None:
        while True:
            await management.deny(await management.next("CONNECT"), "CRV1:R,E:U1RBVEU=:YWxpY2U=:Enter the code")

    async with deciding(server, decide):
        error = await refused(
            server.profile_file(extra=ASKS), AuthFailed, credentials=ALICE, on_challenge=answers() if ask else None
        )
    assert error.reason == "Enter the code"
    assert "U1RBVEU" not in str(error)
    assert ("on_challenge" in str(error)) is not ask


async def test_text_challenge_while_pending(managed_server) -> None:
    """AUTH_PENDING with its timeout, CR_TEXT, CR_RESPONSE; a wrong answer first."""
    server = managed_server()
    seen = []
    events = EventLog()

    async def decide(management: Management) -> None:
        request = await management.next("CONNECT")
        assert "crtext" in request.env["IV_SSO"].split(",")
        for wanted in ("1111", "2222"):
            await management.let_wait(request, f"CR_TEXT:R,E:Code {wanted}", 40)
            answer = await management.next("CR_RESPONSE")
            seen.append(answer.response)
        await management.admit(request)

    asked = answers(cr_text=["x1", "2222"])
    async with (
        deciding(server, decide),
        tunnel(
            server.profile_file(extra=ASKS), credentials=ALICE, on_challenge=asked, on_event=events, seconds=20
        ) as dialer,
    ):
        assert await reaches(dialer)
    assert seen == ["x1", "2222"]
    assert [(each.text, each.echo, each.needs_answer) for each in asked.asked] == [
        ("Code 1111", True, True),
        ("Code 2222", True, True),
    ]
    assert events.of(AuthPending)[0].timeout == 40
    assert 30 < asked.asked[0].timeout <= 40
    assert len(events.of(Challenged)) == 2


async def test_only_who_answers_says_so(managed_server) -> None:
    server = managed_server()
    sso = []

    async def decide(management: Management) -> None:
        request = await management.next("CONNECT")
        sso.append(request.env.get("IV_SSO"))
        await management.admit(request)

    async with deciding(server, decide), tunnel(server.profile_file(extra=ASKS), credentials=ALICE) as dialer:
        assert await reaches(dialer)
    assert sso == [None]


@pytest.mark.parametrize("message", ["WEB_AUTH:external:https://sso.example/x?a=b:c", "OPEN_URL:https://sso.example/"])
async def test_web_login(managed_server, message) -> None:
    """The application sees the address and opens it or not; what is no https URL it does not even see."""
    server = managed_server()
    events = EventLog()
    opened = trio.Event()

    async def decide(management: Management) -> None:
        request = await management.next("CONNECT")
        await management.let_wait(request, "OPEN_URL:http://evil.example/", 50)
        await management.let_wait(request, message, 50)
        await opened.wait()
        await management.admit(request)

    async def on_challenge(challenge: Challenge) -> None:
        assert challenge.kind is ChallengeKind.WEB
        assert challenge.url is not None
        assert challenge.url == message.partition("https")[1] + message.partition("https")[2]
        assert challenge.flags == (("external",) if "external" in message else ())
        opened.set()

    async with (
        deciding(server, decide),
        tunnel(
            server.profile_file(extra=ASKS), credentials=ALICE, on_challenge=on_challenge, on_event=events
        ) as dialer,
    ):
        assert await reaches(dialer)
    assert len(events.of(Challenged)) == 1
    assert any("no https URL" in warning.text for warning in events.of(Warned))
    assert not any("evil" in str(event) for event in events.events)


async def test_pending_login_that_is_never_finished(managed_server) -> None:
    server = managed_server()
    config = replace(load_config(server.profile_file(extra=ASKS)), hand_window=2.0)

    async def decide(management: Management) -> None:
        await management.let_wait(await management.next("CONNECT"), "CR_TEXT:R:Code", 40)
        await trio.sleep_forever()

    waits = trio.Event()

    async def never(challenge: Challenge) -> None:
        try:
            await trio.sleep_forever()
        finally:
            waits.set()

    async with deciding(server, decide):
        error = await refused(config, HandshakeTimeout, credentials=ALICE, on_challenge=never)
    assert "login was not finished" in str(error)
    assert waits.is_set(), "whoever was asked still thinks about it"


async def test_refusal_while_pending(managed_server) -> None:
    server = managed_server()

    async def decide(management: Management) -> None:
        request = await management.next("CONNECT")
        await management.let_wait(request, "CR_TEXT:R:Code", 40)
        await management.next("CR_RESPONSE")
        await management.deny(request, "that was wrong")

    async with deciding(server, decide):
        error = await refused(
            server.profile_file(extra=ASKS), AuthFailed, credentials=ALICE, on_challenge=answers(cr_text="1")
        )
    assert error.reason == "that was wrong"


# -- refusals


async def deny_all(management: Management) -> None:
    while True:
        await management.deny(await management.next("CONNECT"), "no such user")


@pytest.mark.parametrize("retry", [None, "none", "nointeract"])
async def test_refused_password_is_final(managed_server, retry) -> None:
    server = managed_server()
    extra = ASKS if retry is None else (*ASKS, f"auth-retry {retry}")
    asked = answers(credentials=[ALICE, ALICE, ALICE])
    async with deciding(server, deny_all):
        error = await refused(server.profile_file(extra=extra), AuthFailed, on_challenge=asked)
    assert error.reason == "no such user"
    assert len(asked.asked) == 1
    assert server.log.count("MANAGEMENT: CMD 'client-deny") == 1


async def test_interact_asks_again(managed_server) -> None:
    """auth-retry interact: with the reason; the same answer once more is not sent."""
    server = managed_server()
    passwords = []

    async def decide(management: Management) -> None:
        while True:
            request = await management.next("CONNECT")
            passwords.append(request.password)
            if request.password == PASSWORD:
                await management.admit(request)
            else:
                await management.deny(request, "try harder")

    profile = server.profile_file(extra=(*ASKS, "auth-retry interact"))
    wrong = Credentials(USERNAME, "wrong")
    asked = answers(credentials=[wrong, replace(wrong, password="wronger"), ALICE])
    async with deciding(server, decide), tunnel(profile, on_challenge=asked) as dialer:
        assert await reaches(dialer)
    assert passwords == ["wrong", "wronger", PASSWORD]
    assert [challenge.reason for challenge in asked.asked] == ["", "try harder", "try harder"]
    passwords.clear()
    async with deciding(server, decide):
        error = await refused(profile, AuthFailed, on_challenge=answers(credentials=[wrong, wrong]))
    assert passwords == ["wrong"]
    assert "not sent again" in str(error)


async def test_certificate_alone_is_tried_again(managed_server) -> None:
    """auth-retry nointeract where no password was refused."""
    server = managed_server()
    tries = []

    async def decide(management: Management) -> None:
        for _ in range(2):
            request = await management.next("CONNECT")
            tries.append(request.password)
            if len(tries) == 2:
                await management.admit(request)
            else:
                await management.deny(request)

    async with deciding(server, decide), tunnel(server.profile_file(extra=("auth-retry nointeract",))) as dialer:
        assert await reaches(dialer)
    assert tries == ["", ""]


async def test_try_later(managed_server) -> None:
    """AUTH_FAILED,TEMP: one round without success is an error; with more rounds its backoff is kept."""
    server = managed_server()
    config = load_config(server.profile_file(extra=ASKS), credentials=ALICE)
    times = []

    async def decide(management: Management) -> None:
        while True:
            request = await management.next("CONNECT")
            times.append(trio.current_time())
            if len(times) == 3:
                await management.admit(request)
            else:
                await management.deny(request, "TEMP[backoff 3,advance no]:busy")

    async with deciding(server, decide):
        error = await refused(config, AuthFailedTemporarily)
        assert (error.reason, error.backoff, error.advance) == ("busy", 3, "no")
        async with tunnel(replace(config, connect_retry_max=2)) as dialer:
            assert await reaches(dialer)
    assert 2.9 < times[2] - times[1] < 6


@pytest.mark.parametrize("advance", ["no", "addr", "remote"])
async def test_where_to_try_later(lab: Lab, managed_server, advance: str) -> None:
    """The server is in the profile under two addresses; its answer says which of them comes next."""
    other = "10.77.1.8"
    server = managed_server(transport="tcp")
    config = load_config(server.profile_file(extra=ASKS), credentials=ALICE)
    (remote,) = config.remotes
    config = replace(config, remotes=(remote, replace(remote, host=other)), connect_retry_max=3)
    log, requests = EventLog(), 0

    async def decide(management: Management) -> None:
        nonlocal requests
        while True:
            request = await management.next("CONNECT")
            requests += 1
            if requests == 1:
                await management.deny(request, f"TEMP[backoff 1,advance {advance}]:busy")
            else:
                await management.admit(request)

    lab.server_namespace.run("ip", "addr", "add", f"{other}/32", "dev", "ours")
    try:
        async with deciding(server, decide), tunnel(config, on_event=log) as dialer:
            assert await reaches(dialer)
    finally:
        lab.server_namespace.run("ip", "addr", "del", f"{other}/32", "dev", "ours")
    second = OURS["4"] if advance == "no" else other
    assert [event.host for event in log.of(DialStarted)] == [OURS["4"], second]
