"""Client: a tunnel to an OpenVPN server as a channel of raw IP packets.

``open_client`` is a nursery-scoped block. Inside it one task keeps the tunnel
up, and decides what a failure means (upkeep.py); the client is what an
application sees of that: packets, counters, events, and how it ended. Leaving
the block stops every worker, says goodbye to the server and closes the socket.

An error that ends an established tunnel never cancels the application's code
inside the block: ``receive`` and ``send`` raise it, ``wait_closed`` returns it.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TypeVar

import trio

from .background import in_background
from .challenge import Challenge, ChallengeKind
from .config.model import Credentials, TunnelConfig
from .config.tunnel_info import TunnelInfo
from .errors import ConnectError, MiniVPNError, Stage, TunnelClosed
from .events import Closed, Event, Ready, TunnelChanged
from .items import Burst, TunnelUp
from .networkio.dial import DialerContext
from .packet.ids import RandomBytes
from .ports import Inlet, WaitingOutlet
from .profiles import load_for_client
from .stats import TunnelStats
from .tlssession.login import OnChallenge
from .tlssession.material import is_locked
from .tlssession.openssl import TLSContext
from .tracing import EventTraced, Tracer
from .upkeep import Upkeep
from .wiring import Lifetime, Pipes

__all__ = ["Client", "open_client"]

T = TypeVar("T")

#: How often somebody may mistype the password of a private key.
KEY_PASSWORD_TRIES = 3

logger: logging.Logger = logging.getLogger("minivpn_trio")


class Client(trio.abc.Channel[Burst]):
    """Raw IP packets through the tunnel, in bursts of 1 to 64.

    Made by ``open_client``. ``receive`` and ``send`` are cancel-safe and
    checkpoint; a burst handed to ``send`` counts as sent when it is queued, as
    with any datagram.
    """

    def __init__(
        self,
        config: TunnelConfig,
        pipes: Pipes,
        *,
        context: TLSContext | None = None,
        connect: DialerContext | None = None,
        on_event: Callable[[Event], None] | None = None,
        on_challenge: OnChallenge | None = None,
        tracer: Tracer | None = None,
        rng: RandomBytes = os.urandom,
        unix_time: Callable[[], float] = time.time,
    ) -> None:
        self.config = config
        self._pipes = pipes
        self._on_event = on_event
        self._tracer = None if tracer is None else _fenced(tracer)
        self._broken_callbacks: set[Callable[..., object]] = set()
        self._upkeep = Upkeep(
            config,
            pipes,
            context=context,
            emit=self.emit,
            connect=connect,
            on_challenge=on_challenge,
            tracer=self._tracer,
            rng=rng,
            unix_time=unix_time,
        )
        self._info: TunnelInfo | None = None
        self._info_listeners: list[Callable[[TunnelInfo], None]] = []
        self._closed_by: MiniVPNError | None = None
        self._closed = trio.Event()
        self._scope = trio.CancelScope()
        self.inbound: Inlet[Burst] = pipes.inlet("tun.inbound")
        self.outbound: WaitingOutlet[Burst] = pipes.waiting("tun.outbound", "datachannel.move_down")

    # what an application sees

    @property
    def tunnel_info(self) -> TunnelInfo:
        """Addresses, MTU, DNS and the rest, as the server last pushed them."""
        if self._info is None:
            raise RuntimeError("the tunnel was never up")
        return self._info

    @property
    def closed_by(self) -> MiniVPNError | None:
        """Why the tunnel ended; None while it lives or when you closed it."""
        return self._closed_by

    def stats(self) -> TunnelStats:
        """Counters, summed over reconnections."""
        return self._upkeep.stats()

    def on_tunnel_info(self, listener: Callable[[TunnelInfo], None]) -> None:
        """Call ``listener`` whenever the server's options arrive again: by a reconnection or PUSH_UPDATE."""
        self._info_listeners.append(listener)

    async def receive(self) -> Burst:
        """1 to 64 IP packets. Checkpoints, cancel-safe: a cancelled call loses nothing.

        Raises trio.ClosedResourceError after ``aclose``, trio.BrokenResourceError (with the
        reason as its cause) when the tunnel ended.
        """
        try:
            burst: Burst = await self.inbound.receive()
        except (trio.EndOfChannel, trio.ClosedResourceError):
            raise self._gone() from self._closed_by
        return burst

    async def send(self, value: Burst) -> None:
        """Queue 1 to 64 IP packets. Waits while the tunnel is busy; checkpoints, cancel-safe.

        Raises as ``receive`` does.
        """
        try:
            await self.outbound.send(value)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            raise self._gone() from self._closed_by

    def _gone(self) -> Exception:
        if self._closed_by is None:
            return trio.ClosedResourceError("the tunnel was closed by the application")
        return trio.BrokenResourceError(str(self._closed_by))

    async def wait_closed(self) -> MiniVPNError | None:
        """Wait until the tunnel has ended for good and return why (None: you closed it). Checkpoints."""
        await self._closed.wait()
        return self._closed_by

    async def aclose(self) -> None:
        """Take the tunnel down: goodbye to the server, socket closed. Idempotent, checkpoints."""
        self._scope.cancel()
        if self._closed.is_set():
            await trio.lowlevel.checkpoint()
        else:
            await self._closed.wait()

    # what it is told

    def emit(self, event: Event) -> None:
        """Tell the application and the tracer. What their code raises is logged once, and harms nothing else."""
        if self._tracer is not None:
            self._tracer.trace(EventTraced(time=event.time, stage=self._upkeep.state, event=event))
        if self._on_event is not None:
            self._call(self._on_event, event)

    def _call(self, callback: Callable[[T], object], argument: T) -> None:
        """Call an application's callback."""
        try:
            callback(argument)
        except Exception:
            if callback not in self._broken_callbacks:
                self._broken_callbacks.add(callback)
                logger.exception("a callback of the application raised (this is logged once)")

    async def _run(self, task_status: trio.TaskStatus[None]) -> None:
        """Have the tunnel kept up until it must end. Before the first Ready errors go to the starter."""
        started = False

        def up(news: TunnelUp) -> None:
            nonlocal started
            info = news.info
            first, self._info = self._info is None, info
            ipv4 = str(info.ipv4.ip) if info.ipv4 else None
            ipv6 = str(info.ipv6.ip) if info.ipv6 else None
            if news.changed:
                self.emit(TunnelChanged(time=trio.current_time(), changed=news.changed))
            else:
                self.emit(Ready(time=trio.current_time(), ipv4=ipv4, ipv6=ipv6))
            for listener in list(self._info_listeners):
                self._call(listener, info)
            if first:
                started = True
                task_status.started()

        try:
            with self._scope:
                await self._upkeep.run(up)
        except MiniVPNError as exc:
            if not started:
                if isinstance(exc, TunnelClosed):
                    raise ConnectError(exc.reason, stage=Stage.PUSH) from exc
                raise
            self._closed_by = exc
        finally:
            reason = str(self._closed_by) if self._closed_by else "closed by the application"
            self._pipes.close()
            self._closed.set()
            # A dialer knows us, and we it: no circle stays.
            self._info_listeners.clear()
            if started:
                self.emit(Closed(time=trio.current_time(), reason=reason))


@asynccontextmanager
async def open_client(
    config: TunnelConfig | str | os.PathLike[str],
    connect: DialerContext | None = None,
    *,
    credentials: Credentials | None = None,
    on_challenge: OnChallenge | None = None,
    on_event: Callable[[Event], None] | None = None,
    tracer: Tracer | None = None,
    rng: RandomBytes = os.urandom,
    unix_time: Callable[[], float] = time.time,
) -> AsyncIterator[Client]:
    """Bring a tunnel up, and keep it up for the length of the block.

    ``config`` is a profile's path or a TunnelConfig. ``connect``, where given,
    replaces name resolution and socket: it is awaited with a Remote and
    returns a Transport or a trio Stream. ``on_event`` and ``tracer`` are called
    from the workers and must not block; what they raise is logged, once.

    ``credentials`` stand in for what auth-user-pass says. ``on_challenge`` is
    awaited with a Challenge wherever something is missing or a server asks
    further, and returns Credentials, a string, or None for no answer; it may
    take its time, and is cancelled when nobody waits for the answer any more.
    What it raises ends the tunnel.

    Raises ConfigError, and ConnectError or one of its kinds when no remote
    could be reached. An exception of the block's body leaves it as it is, in
    no exception group of ours. The caller's cancel scope bounds the connecting.
    """
    settings, context = load_for_client(config, credentials=credentials)
    settings.validate(can_ask=on_challenge is not None)
    if on_challenge is not None and context is None:
        settings = await _unlocked(settings, on_challenge)
    with Pipes(Lifetime.CLIENT) as pipes:
        client = Client(
            settings,
            pipes,
            context=context,
            connect=connect,
            on_event=on_event,
            on_challenge=on_challenge,
            tracer=tracer,
            rng=rng,
            unix_time=unix_time,
        )
        async with in_background(client._run):
            yield client


def _fenced(tracer: Tracer) -> Tracer:
    # Records and sinks are imported where there is somebody to trace for.
    from .trace_sinks import FencedTracer

    return FencedTracer(tracer)


async def _unlocked(config: TunnelConfig, on_challenge: OnChallenge) -> TunnelConfig:
    """``config`` with the password that opens its private key, as far as somebody knows it."""
    reason = ""
    for _ in range(KEY_PASSWORD_TRIES):
        if not is_locked(config):
            break
        challenge = Challenge(kind=ChallengeKind.KEY_PASSWORD, text="Password of the private key", reason=reason)
        answer = await on_challenge(challenge)
        if answer is None:
            break
        if not isinstance(answer, str):
            raise TypeError("the answer to a challenge of kind key-password is a string")
        config = replace(config, key_password=answer.encode("utf-8", "surrogateescape"))
        reason = "that password does not open it"
    return config
