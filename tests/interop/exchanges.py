"""What the interop tests do through a tunnel, each step checked byte by byte."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

import trio

from minivpn_trio import TunDialer, open_tun_dialer
from minivpn_trio.config.model import TunnelConfig
from minivpn_trio.config.ovpn import load_config
from minivpn_trio.events import Event
from minivpn_trio.tracing import Tracer
from tests.interop.lab.lab import TUN_IPV4
from tests.interop.lab.services import PATTERN

__all__ = ["EventLog", "check_pattern", "download", "echo", "everyday", "open_tunnel", "upload"]

E = TypeVar("E", bound=Event)


@dataclass
class EventLog:
    """Everything that a tunnel told."""

    events: list[Event] = field(default_factory=list)
    _news: trio.Event = field(default_factory=trio.Event)

    def __call__(self, event: Event) -> None:
        self.events.append(event)
        self._news.set()
        self._news = trio.Event()

    async def wait(self, kind: type[Event], count: int, *, seconds: float) -> None:
        """Until ``count`` events of ``kind`` have happened in all."""
        with trio.fail_after(seconds):
            while len(self.of(kind)) < count:
                await self._news.wait()

    def of(self, kind: type[E]) -> list[E]:
        return [event for event in self.events if isinstance(event, kind)]


@asynccontextmanager
async def open_tunnel(
    profile: Path,
    *,
    on_event: EventLog | None = None,
    tracer: Tracer | None = None,
    seconds: float = 20,
    **changes: object,
) -> AsyncIterator[TunDialer]:
    """A tunnel that is up within ``seconds``; ``changes`` are fields of TunnelConfig."""
    config: TunnelConfig = replace(load_config(profile), **changes)  # type: ignore[arg-type]
    with trio.fail_after(seconds) as connecting:
        async with open_tun_dialer(config, on_event=on_event, tracer=tracer) as dialer:
            connecting.deadline = float("inf")
            yield dialer


def check_pattern(data: bytes, offset: int = 0) -> None:
    """``data`` is what stands at ``offset`` in PATTERN repeated for ever."""
    start = offset % len(PATTERN)
    wanted = (PATTERN[start:] + PATTERN * (len(data) // len(PATTERN) + 1))[: len(data)]
    assert data == wanted


async def download(dialer: TunDialer, size: int, *, host: str = TUN_IPV4, port: int = 80) -> None:
    """GET ``size`` bytes by HTTP and look at each."""
    with trio.fail_after(60):
        stream = await dialer.open_tcp_stream(host, port)
        async with stream:
            await stream.send_all(f"GET /bytes/{size} HTTP/1.1\r\nHost: lab\r\nConnection: close\r\n\r\n".encode())
            parts: Sequence[bytes] = [part async for part in stream]
    head, _, body = b"".join(parts).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ")
    assert len(body) == size
    check_pattern(body)


async def upload(dialer: TunDialer, size: int) -> None:
    """Send ``size`` bytes to the discard service, half-close, and read its count of them."""
    with trio.fail_after(60):
        stream = await dialer.open_tcp_stream(TUN_IPV4, 9)
        async with stream:
            await stream.send_all((PATTERN * (size // len(PATTERN) + 1))[:size])
            await stream.send_eof()
            answer = b"".join([part async for part in stream])
    assert int(answer) == size


async def echo(dialer: TunDialer, size: int) -> None:
    """Send and receive at the same time through the echo service; half-close ends it."""
    data = (PATTERN * (size // len(PATTERN) + 1))[:size]
    received = bytearray()

    async def send(stream: trio.abc.HalfCloseableStream) -> None:
        await stream.send_all(data)
        await stream.send_eof()

    with trio.fail_after(60):
        stream = await dialer.open_tcp_stream(TUN_IPV4, 7)
        async with stream, trio.open_nursery() as nursery:
            nursery.start_soon(send, stream)
            async for part in stream:
                received += part
    assert bytes(received) == data


async def everyday(dialer: TunDialer) -> None:
    """A little of everything."""
    with trio.fail_after(5):
        assert 0 < await dialer.ping(TUN_IPV4) < 2
    await download(dialer, 200_000)
    await upload(dialer, 100_000)
    await echo(dialer, 20_000)
