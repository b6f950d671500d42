"""Passwords over time at the real server: auth-token, auth-nocache, RESTART and HALT."""

from __future__ import annotations

from contextlib import asynccontextmanager

import pytest
import trio

from minivpn_trio import ChallengeKind
from minivpn_trio.events import Closed, Ready, Reconnecting, Rekeyed, Warned
from tests.interop.exchanges import EventLog, everyday
from tests.interop.lab.management import Management, managed
from tests.interop.lab.openvpn import PASSWORD, USERNAME
from tests.interop.logins import ALICE, ASKS, answers, deciding, reaches, tunnel


async def test_token_is_kept_over_reconnections(managed_server) -> None:
    """auth-gen-token: the second login needs nobody, and the password of the callback was not kept."""
    server = managed_server("auth-gen-token")
    events = EventLog()
    asked = answers(credentials=ALICE)
    async with managed(server.folder) as management, trio.open_nursery() as nursery:

        @nursery.start_soon
        async def first() -> None:
            await management.admit(await management.next("CONNECT"))

        profile = server.profile_file(extra=(*ASKS, "auth-nocache"))
        async with tunnel(profile, on_challenge=asked, on_event=events) as dialer:
            for cid in range(2):
                ready = len(events.of(Ready))
                await management.command(f"client-kill {cid}")
                await events.wait(Ready, ready + 1, seconds=20)
                await everyday(dialer)
        nursery.cancel_scope.cancel()
    assert len(asked.asked) == 1
    assert len(events.of(Reconnecting)) == 2


async def test_token_that_the_server_forgot(managed_server) -> None:
    """A new server knows no old tokens: the real password is sent then, without anybody being asked."""
    server = managed_server("auth-gen-token", keepalive=(1, 3))
    events = EventLog()
    passwords = []

    async def decide(management: Management) -> None:
        request = await management.next("CONNECT")
        passwords.append((request.username, request.password))
        await management.admit(request)

    async with tunnel_after(server, decide, events) as dialer:
        await trio.to_thread.run_sync(server.stop)
        await trio.to_thread.run_sync(server.start)
        async with deciding(server, decide):
            await events.wait(Ready, 2, seconds=30)
            await everyday(dialer)
    assert passwords == [(USERNAME, PASSWORD)] * 2
    assert any("logging in once more" in warning.text for warning in events.of(Warned))


@asynccontextmanager
async def tunnel_after(server, decide, events: EventLog):
    """A tunnel that ``decide`` lets in, at a server whose manager then hangs up."""
    async with trio.open_nursery() as nursery:
        done = trio.Event()

        @nursery.start_soon
        async def manage() -> None:
            async with managed(server.folder) as management:
                await decide(management)
                await done.wait()

        async with tunnel(server.profile_file(extra=ASKS), credentials=ALICE, on_event=events) as dialer:
            done.set()
            yield dialer
        nursery.cancel_scope.cancel()


async def test_token_that_expired(managed_server) -> None:
    """AUTH_FAILED,SESSION: the password again, once."""
    server = managed_server("auth-gen-token 2 10", "hand-window 5")
    events = EventLog()
    passwords = []

    async def decide(management: Management) -> None:
        while True:
            request = await management.next("CONNECT")
            passwords.append(request.password)
            await management.admit(request)

    async with (
        deciding(server, decide) as management,
        tunnel(server.profile_file(extra=ASKS), credentials=ALICE, on_event=events) as dialer,
    ):
        await trio.sleep(3)
        await management.command("client-kill 0")
        await events.wait(Ready, 2, seconds=20)
        assert await reaches(dialer)
    assert passwords == [PASSWORD, PASSWORD]
    assert "AUTH_FAILED,SESSION" in server.log


async def test_token_with_a_user_name(managed_server) -> None:
    """auth-token and auth-token-user as an operator's script pushes them."""
    server = managed_server(client_cert=False)
    events = EventLog()
    seen = []

    async def decide(management: Management) -> None:
        while True:
            request = await management.next("CONNECT")
            seen.append((request.username, request.password))
            # base64 of token-user
            await management.push(request, "auth-token secret-token-1", "auth-token-user dG9rZW4tdXNlcg==")

    async with (
        deciding(server, decide) as management,
        tunnel(server.profile_file(extra=ASKS), credentials=ALICE, on_event=events) as dialer,
    ):
        await management.command("client-kill 0")
        await events.wait(Ready, 2, seconds=20)
        assert await reaches(dialer)
    assert seen == [(USERNAME, PASSWORD), ("token-user", "secret-token-1")]
    assert not any("secret-token" in repr(event) for event in events.events)


async def test_token_at_renegotiation(managed_server) -> None:
    """The password is asked for once and not kept; new keys come with the token."""
    server = managed_server("auth-gen-token 0 10", "hand-window 5", reneg_sec=4)
    events = EventLog()
    asked = answers(credentials=ALICE)
    profile = server.profile_file(extra=(*ASKS, "auth-nocache"))

    async def decide(management: Management) -> None:
        await management.admit(await management.next("CONNECT"))

    async with deciding(server, decide), tunnel(profile, on_challenge=asked, on_event=events) as dialer:
        await events.wait(Rekeyed, 2, seconds=20)
        await everyday(dialer)
    assert asked.kinds == [ChallengeKind.CREDENTIALS]
    assert not events.of(Reconnecting)


async def test_password_that_is_not_kept_is_asked_for_at_renegotiation(managed_server) -> None:
    """auth-nocache without a token."""
    server = managed_server(reneg_sec=4)
    events = EventLog()
    asked = answers(credentials=[ALICE] * 5)

    async def decide(management: Management) -> None:
        await management.admit(await management.next("CONNECT"))
        while True:
            request = await management.next("REAUTH")
            assert request.password == PASSWORD
            await management.admit(request)

    profile = server.profile_file(extra=(*ASKS, "auth-nocache"))
    async with deciding(server, decide), tunnel(profile, on_challenge=asked, on_event=events) as dialer:
        await events.wait(Rekeyed, 2, seconds=20)
        await everyday(dialer)
    assert len(asked.asked) == 3
    assert not events.of(Reconnecting)


@pytest.mark.parametrize(
    ("message", "nocache", "times"), [("RESTART,[P]", False, 1), ("RESTART", False, 2), ("RESTART,[P]", True, 2)]
)
async def test_password_over_a_restart(managed_server, message, nocache, times) -> None:
    """RESTART says whether a password that was asked for is kept; auth-nocache never keeps it."""
    server = managed_server()
    events = EventLog()
    asked = answers(credentials=[ALICE] * 3)
    passwords = []

    async def decide(management: Management) -> None:
        while True:
            request = await management.next("CONNECT")
            passwords.append(request.password)
            await management.admit(request)

    profile = server.profile_file(extra=(*ASKS, *(["auth-nocache"] if nocache else [])))
    async with (
        deciding(server, decide) as management,
        tunnel(profile, on_challenge=asked, on_event=events) as dialer,
    ):
        await management.command(f'client-kill 0 "{message}"')
        await events.wait(Ready, 2, seconds=20)
        assert await reaches(dialer)
    assert passwords == [PASSWORD, PASSWORD]
    assert len(asked.asked) == times


async def test_halt_is_the_end(managed_server) -> None:
    server = managed_server()
    events = EventLog()

    async def decide(management: Management) -> None:
        await management.admit(await management.next("CONNECT"))

    async with (
        deciding(server, decide) as management,
        tunnel(server.profile_file(extra=ASKS), credentials=ALICE, on_event=events),
    ):
        await management.command('client-kill 0 "HALT,go home"')
        await events.wait(Closed, 1, seconds=10)
    assert "go home" in events.of(Closed)[0].reason
    assert not events.of(Reconnecting)
