"""What the tests of logging in share: answers that are ready, the server's operator, tunnels in bounded time."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
import trio

from minivpn_trio import Challenge, ChallengeKind, Credentials, TunDialer, open_tun_dialer
from tests.interop.lab.lab import TUN_IPV4
from tests.interop.lab.management import Management, managed
from tests.interop.lab.openvpn import PASSWORD, USERNAME

__all__ = ["ALICE", "ASKS", "Answers", "answers", "deciding", "reaches", "refused", "tunnel"]

ALICE = Credentials(USERNAME, PASSWORD)
ASKS = ("auth-user-pass",)


@dataclass
class Answers:
    """An ``on_challenge`` that has its answers ready, by kind and in order."""

    ready: dict[ChallengeKind, list[Credentials | str | None]]
    asked: list[Challenge] = field(default_factory=list)

    async def __call__(self, challenge: Challenge) -> Credentials | str | None:
        self.asked.append(challenge)
        await trio.lowlevel.checkpoint()
        left = self.ready.get(challenge.kind, [])
        return left.pop(0) if left else None

    @property
    def kinds(self) -> list[ChallengeKind]:
        return [challenge.kind for challenge in self.asked]


def answers(**ready: Credentials | str | list[Credentials | str | None] | None) -> Answers:
    return Answers(
        {ChallengeKind[name.upper()]: given if isinstance(given, list) else [given] for name, given in ready.items()}
    )


@asynccontextmanager
async def deciding(server, decide: Callable[[Management], Awaitable[object]]) -> AsyncIterator[Management]:
    """``decide`` speaks for the server's operator meanwhile."""
    async with managed(server.folder) as management, trio.open_nursery() as nursery:
        nursery.start_soon(decide, management)
        yield management
        nursery.cancel_scope.cancel()


async def refused(profile, kind, *, seconds: float = 10, **arguments):
    with trio.fail_after(seconds), pytest.raises(kind) as caught:
        async with open_tun_dialer(profile, **arguments):
            pytest.fail("the tunnel came up")
    return caught.value


@asynccontextmanager
async def tunnel(profile, *, seconds: float = 15, **arguments):
    with trio.fail_after(seconds) as connecting:
        async with open_tun_dialer(profile, **arguments) as dialer:
            connecting.deadline = float("inf")
            yield dialer


async def reaches(dialer: TunDialer) -> bool:
    with trio.fail_after(10):
        return await dialer.ping(TUN_IPV4) > 0
