"""The real client logging in at the in-process server, on a mock clock: retries, waits, and whoever is asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
import trio

from minivpn_trio import Challenge, ChallengeKind, Credentials, open_client
from minivpn_trio.errors import AuthFailed, AuthFailedTemporarily
from minivpn_trio.events import Challenged, Closed, Event, Ready, Reconnecting
from minivpn_trio.testing import ServerSettings, open_vpn_server
from minivpn_trio.tlssession.server import ServerPolicy

ALICE = Credentials("alice", "secret")
Verdict = bool | str


class Door:
    """An ``authenticate`` that goes by a list, and remembers who came and when."""

    def __init__(self, *verdicts: Verdict) -> None:
        self._verdicts: Iterator[Verdict] = iter(verdicts)
        self.passwords: list[str] = []
        self.times: list[float] = []

    def __call__(self, username: str, password: str) -> Verdict:
        self.passwords.append(password)
        self.times.append(trio.current_time())
        return next(self._verdicts)


@asynccontextmanager
async def world(door: Callable[[str, str], Verdict], **policy: object):
    settings = ServerSettings(users={}, policy=ServerPolicy(authenticate=door, **policy))  # type: ignore[arg-type]
    async with open_vpn_server(settings, listen=False) as server:
        yield server, replace(server.client_config(), credentials=ALICE)


class Events:
    def __init__(self) -> None:
        self._events: list[Event] = []
        self._news = trio.Event()

    def append(self, event: Event) -> None:
        self._events.append(event)
        self._news.set()
        self._news = trio.Event()

    def of(self, kind: type[Event]) -> list[Event]:
        return [event for event in self._events if isinstance(event, kind)]

    async def wait(self, kind: type[Event], count: int) -> None:
        while len(self.of(kind)) < count:
            await self._news.wait()


@pytest.mark.parametrize(("backoff", "waited"), [("backoff 7,", 7.0), ("backoff 99999,", 300.0), ("", 1.0)])
async def test_temporary_refusal_of_a_reconnection(autojump_clock, backoff, waited) -> None:
    """The server's wish is granted up to five minutes."""
    del autojump_clock
    door = Door(True, f"TEMP[{backoff}advance no]:busy", True)
    events = Events()
    async with (
        world(door) as (server, config),
        open_client(config, server.memory_dialer(), on_event=events.append),
    ):
        server.send_message("RESTART")
        await events.wait(Ready, 2)
    assert waited <= door.times[2] - door.times[1] < waited + 2
    assert door.passwords == ["secret"] * 3


async def test_temporary_refusal_of_the_first_login(autojump_clock) -> None:
    del autojump_clock
    async with world(Door("TEMP[backoff 5]:busy")) as (server, config):
        with pytest.raises(AuthFailedTemporarily) as caught:
            async with open_client(config, server.memory_dialer()):
                pass
    assert caught.value.backoff == 5


async def test_expired_token(autojump_clock) -> None:
    """The token first, then the password, with a second between them; nobody is asked."""
    del autojump_clock
    door = Door(True, "SESSION:expired", True)
    events = Events()

    def forgetful(username: str, password: str) -> Verdict:
        return door(username, password)

    async with (
        world(forgetful) as (server, config),
        open_client(config, server.memory_dialer(), on_event=events.append),
    ):
        server.send_message("PUSH_REPLY,auth-token tok")
        await trio.sleep(1)
        server.send_message("RESTART")
        await events.wait(Ready, 2)
    assert door.passwords == ["secret", "tok", "secret"]
    assert door.times[2] - door.times[1] >= 1
    assert not events.of(Challenged)


async def test_challenges_have_an_end(autojump_clock) -> None:
    """A server that always challenges, and a program that always answers: ten times."""
    del autojump_clock
    asked = []

    async def on_challenge(challenge: Challenge) -> str:
        asked.append(challenge)
        return str(len(asked))

    async with world(lambda u, p: "CRV1:R:c3RhdGU=:YWxpY2U=:Code") as (server, config):
        with pytest.raises(AuthFailed):
            async with open_client(config, server.memory_dialer(), on_challenge=on_challenge):
                pass
    assert len(asked) == 9
    assert {challenge.kind for challenge in asked} == {ChallengeKind.DYNAMIC}


async def test_password_that_is_refused_at_a_reconnection(autojump_clock) -> None:
    """It was good once; refused it is not sent again, and the tunnel ends."""
    del autojump_clock
    door = Door(True, "changed")
    events = Events()
    async with (
        world(door) as (server, config),
        open_client(config, server.memory_dialer(), on_event=events.append) as client,
    ):
        server.send_message("RESTART")
        error = await client.wait_closed()
    assert isinstance(error, AuthFailed)
    assert error.reason == "changed"
    assert door.passwords == ["secret", "secret"]
    assert len(events.of(Closed)) == 1


async def test_password_that_is_refused_at_a_reconnection_and_somebody_to_ask(autojump_clock) -> None:
    del autojump_clock
    door = Door(True, "changed", True)
    events = Events()

    async def on_challenge(challenge: Challenge) -> Credentials:
        assert challenge.reason == "changed"
        await trio.sleep(3600)  # as long as it takes
        return Credentials("alice", "new")

    async with world(door) as (server, config):
        config = replace(config, auth_retry="interact")
        async with open_client(
            config, server.memory_dialer(), on_event=events.append, on_challenge=on_challenge
        ):
            server.send_message("RESTART")
            await events.wait(Ready, 2)
    assert door.passwords == ["secret", "secret", "new"]
    assert len(events.of(Reconnecting)) == 1


async def test_what_the_program_raises_ends_the_tunnel(autojump_clock) -> None:
    del autojump_clock

    class Mine(Exception):
        pass

    async def on_challenge(challenge: Challenge) -> None:
        raise Mine

    async with world(Door(True), pending=30.0) as (server, config):

        async def ask() -> None:
            await server.wait_for_clients(1)
            await trio.sleep(2)
            server.send_message("INFO_PRE,CR_TEXT:R:code")

        with pytest.raises(Mine):
            nameless = replace(config, credentials=None)
            async with open_client(nameless, server.memory_dialer(), on_challenge=on_challenge):
                pass
        with pytest.raises(BaseExceptionGroup) as caught:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(ask)
                async with open_client(config, server.memory_dialer(), on_challenge=on_challenge):
                    pass
    assert [type(exc) for exc in caught.value.exceptions] == [Mine]


async def test_question_is_withdrawn_with_its_connection(autojump_clock) -> None:
    """Whoever thinks about an answer is cancelled when the login that waited for it ends."""
    del autojump_clock
    cancelled = []

    async def on_challenge(challenge: Challenge) -> None:
        try:
            await trio.sleep_forever()
        except trio.Cancelled:
            cancelled.append(challenge.text)
            raise

    async with world(Door(True), pending=30.0) as (server, config):

        async def ask() -> None:
            await server.wait_for_clients(1)
            await trio.sleep(2)
            server.send_message("INFO_PRE,CR_TEXT:R:first")
            await trio.sleep(2)
            server.send_message("INFO_PRE,CR_TEXT:R:second")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            with pytest.raises(AuthFailed, match="nobody decided"):
                async with open_client(config, server.memory_dialer(), on_challenge=on_challenge):
                    pass
    assert cancelled == ["first", "second"]
