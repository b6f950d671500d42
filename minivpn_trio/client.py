"""Client: a tunnel to an OpenVPN server as a channel of raw IP packets.

``open_client`` is a nursery-scoped block. Inside it one task keeps the tunnel
up: it dials, runs one ``Connection`` (connection.py) until that fails, and
decides what the failure means. Leaving the block stops every worker, says
goodbye to the server and closes the socket.

What a failure means, decided once and here:

- before the first ``Ready``: every address of every remote is tried once (or
  ``connect_retry_max`` rounds; one in which no name has an address does not count for ``resolv_retry``
  seconds); then the error of the attempt that came furthest leaves ``open_client``, the others as its notes;
- AuthFailed at any time, or a server that said HALT: the end, unless the server asks
  a question that somebody answers, or it was an auth-token that expired: then the same
  address once more (tlssession/login.py knows);
- a server that cannot decide just now (AuthFailedTemporarily): an error like
  the others, but the server says how long to wait and where to try next;
- anything else after the first ``Ready``: Reconnecting, with a growing delay. The round begins with
  the server and the address that carried the tunnel, where the own address inside it is likely to stay the same
  and streams to live on, unless that server sent us away (RESTART with the flag N).

An error that ends an established tunnel never cancels the application's code
inside the block: ``receive`` and ``send`` raise it, ``wait_closed`` returns it.
"""

from __future__ import annotations

import logging
import os
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TypeVar

import trio

from .background import in_background
from .challenge import Challenge, ChallengeKind
from .config.model import Credentials, Remote, TunnelConfig
from .config.tunnel_info import TunnelInfo
from .connection import Connection
from .errors import (
    AuthFailed,
    AuthFailedTemporarily,
    ConnectError,
    HandshakeTimeout,
    MiniVPNError,
    Stage,
    TransportError,
    TunnelClosed,
)
from .events import (
    Challenged,
    Closed,
    DialDone,
    DialStarted,
    Event,
    Ready,
    Reconnecting,
    SessionState,
    TunnelChanged,
    Warned,
)
from .items import Burst, TunnelUp
from .networkio.dial import DialerContext, Endpoint, dial, is_numeric, over_stream, resolve
from .networkio.transport import Transport
from .packet.ids import RandomBytes, Role
from .packetmuxer.control_wrap import make_control_wrap
from .ports import Inlet, WaitingOutlet
from .profiles import load_config
from .rotation import Rotation
from .stats import TunnelStats
from .stats_sum import add_stats
from .tlssession.engine import TLSContext
from .tlssession.login import Answer, Login, OnChallenge
from .tlssession.material import is_locked
from .trace_sinks import FencedTracer
from .tracing import EventTraced, Tracer
from .wiring import Lifetime, Pipes

__all__ = ["Client", "open_client"]

T = TypeVar("T")

#: A tunnel that stayed up this long, seconds, starts again with the shortest delay.
STABLE_AFTER = 60.0
#: Longest wait that a server may ask for (AUTH_FAILED,TEMP), seconds.
MAX_REQUESTED_WAIT = 300.0
#: Seconds between two rounds in which no name had an address (openvpn: fail_wait_interval).
RESOLVE_PAUSE = 5.0
#: Seconds between two logins at one server, at least.
LOGIN_PAUSE = 1.0
#: How often somebody may mistype the password of a private key.
KEY_PASSWORD_TRIES = 3

logger: logging.Logger = logging.getLogger("minivpn_trio")
#: How far an attempt came, for choosing the error that tells most.
PROGRESS = {stage: progress for progress, stage in enumerate(Stage)}


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
        connect: DialerContext | None = None,
        on_event: Callable[[Event], None] | None = None,
        on_challenge: OnChallenge | None = None,
        tracer: Tracer | None = None,
        rng: RandomBytes = os.urandom,
        unix_time: Callable[[], float] = time.time,
    ) -> None:
        self.config = config
        self._on_challenge = on_challenge
        self._login = Login(config, salt=rng(16), can_ask=on_challenge is not None)
        self._pipes = pipes
        self._connect = connect
        self._on_event = on_event
        self._tracer = FencedTracer(tracer) if tracer is not None else None
        self._broken_callbacks: set[Callable[..., object]] = set()
        # The certificates are parsed once, and before anything is dialled.
        self._context = TLSContext(config, Role.CLIENT)
        self._rng = rng
        self._unix_time = unix_time
        self._rotation = Rotation(config, random.Random(rng(16)))
        self._connection: Connection | None = None
        self._past = TunnelStats()
        self._info: TunnelInfo | None = None
        self._info_listeners: list[Callable[[TunnelInfo], None]] = []
        self._reconnections = 0
        self._last_reason = ""
        # What AUTH_FAILED,TEMP asked for: seconds to wait.
        self._requested_wait = 0.0
        self._up_at: float | None = None
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
        current = self._connection.stats() if self._connection is not None else TunnelStats()
        return add_stats(
            self._past, current, reconnections=self._reconnections, edge_drops=dict(self._pipes.drops)
        )

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

    # what keeps it up

    def emit(self, event: Event) -> None:
        """Tell the application and the tracer. What their code raises is logged once, and harms nothing else."""
        if self._tracer is not None:
            connection = self._connection
            state = connection.session.state if connection is not None else SessionState.UNDEF
            self._tracer.trace(EventTraced(time=event.time, stage=state, event=event))
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
        """Keep the tunnel up until it must end. Before the first Ready errors go to the starter."""
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
                await self._first_rounds(up)
                await self._reconnect_for_ever(up)
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
            # A dialer knows us, and we it: what is heavy goes now, not at some collection of what is left in a circle.
            self._info_listeners.clear()
            del self._context
            if started:
                self.emit(Closed(time=trio.current_time(), reason=reason))

    async def _first_rounds(self, up: Callable[[TunnelUp], None]) -> None:
        """Try every remote until one has carried a tunnel and lost it (returns), or none is left (raises)."""
        rounds = self.config.connect_retry_max or 1
        failures: list[ConnectError] = []
        for attempt in range(rounds):
            if attempt:
                await trio.sleep(self._rotation.delay(attempt))
            if await self._one_round_with_names(up, failures):
                return
        # Of those that came equally far the last one counts.
        furthest = max(reversed(failures), key=lambda failure: PROGRESS[failure.stage])
        for failure in failures:
            if failure is not furthest:
                furthest.add_note(f"tried as well: {failure}")
        raise furthest

    async def _one_round_with_names(self, up: Callable[[TunnelUp], None], failures: list[ConnectError]) -> bool:
        """A round; one in which no name had an address is repeated for as long as ``resolv_retry`` says."""
        patience = trio.current_time() + self.config.resolv_retry
        told = False
        while True:
            latest: list[ConnectError] = []
            if await self._one_round(up, latest):
                return True
            left = patience - trio.current_time()
            if left <= 0 or any(failure.stage is not Stage.RESOLVE for failure in latest):
                failures += latest
                return False
            if not told:
                text = f"{latest[-1].message}: it is asked for again, as resolv-retry says"
                self.emit(Warned(time=trio.current_time(), stage=Stage.RESOLVE, text=text))
                told = True
            await trio.sleep(min(RESOLVE_PAUSE, left))

    async def _reconnect_for_ever(self, up: Callable[[TunnelUp], None]) -> None:
        attempt = 0
        while True:
            attempt = 1 if self._was_stable() else attempt + 1
            delay = max(self._rotation.delay(attempt), self._take_requested_wait())
            now = trio.current_time()
            self.emit(Reconnecting(time=now, reason=self._last_reason, delay=delay, attempt=attempt))
            await trio.sleep(delay)
            failures: list[ConnectError] = []
            if await self._one_round(up, failures):
                continue
            self._last_reason = str(failures[-1])
            if self.config.connect_retry_max and attempt >= self.config.connect_retry_max:
                raise TunnelClosed(f"could not reconnect: {failures[-1]}") from failures[-1]

    def _was_stable(self) -> bool:
        """Whether the tunnel that was lost now had lasted: then the delays begin anew."""
        up_at, self._up_at = self._up_at, None
        return up_at is not None and trio.current_time() - up_at >= STABLE_AFTER

    def _take_requested_wait(self) -> float:
        seconds, self._requested_wait = self._requested_wait, 0.0
        return seconds

    async def _one_round(self, up: Callable[[TunnelUp], None], failures: list[ConnectError]) -> bool:
        """Try each address of each remote. True: a tunnel was up and is lost. False: none came up."""
        for position, remote in self._rotation.round():
            try:
                endpoints = await self._endpoints(position, remote)
            except ConnectError as exc:
                failures.append(exc)
                continue
            for endpoint in endpoints:
                await trio.sleep(self._take_requested_wait())
                try:
                    await self._logins(endpoint, up)
                except AuthFailed:
                    raise
                except AuthFailedTemporarily as exc:
                    failures.append(exc)
                    self._requested_wait = min(exc.backoff or 0.0, MAX_REQUESTED_WAIT)
                    if exc.advance == "no":
                        self._rotation.begin_at(position, endpoint.address)
                        return False
                    if exc.advance == "remote":
                        break
                except ConnectError as exc:
                    failures.append(exc)
                except TunnelClosed as exc:
                    if not exc.restart:
                        raise
                    self._last_reason = exc.reason
                    advance = "remote" if exc.next_remote else "no"
                    if isinstance(exc.__cause__, AuthFailedTemporarily):
                        advance = exc.__cause__.advance
                        self._requested_wait = min(exc.__cause__.backoff or 0.0, MAX_REQUESTED_WAIT)
                    self._rotation.begin_at(position, endpoint.address, advance)
                    return True
        return False

    async def _endpoints(self, position: int, remote: Remote) -> list[Endpoint]:
        """The addresses of ``remote`` in the order in which they are tried. Raises ConnectError."""
        if self._connect is not None:
            return [Endpoint(remote)]
        name = remote.host
        if self.config.remote_random_hostname and not is_numeric(name):
            # Servers with a wildcard in the DNS are spread by it, past every cache (reference: socket.c).
            name = f"{self._rng(6).hex()}.{name}"
        timeout = self.config.for_remote(remote).connect_timeout
        with trio.move_on_after(timeout):
            return self._rotation.addresses(position, await resolve(replace(remote, host=name)))
        raise HandshakeTimeout(f"no address for {remote.host}: no answer in {timeout:g} s", stage=Stage.RESOLVE)

    async def _logins(self, endpoint: Endpoint, up: Callable[[TunnelUp], None]) -> None:
        """One connection; and again, as long as a login was refused and another one may do."""
        while True:
            self._login.begin()
            while (question := self._login.question()) is not None:
                answer = await self._ask(question)
                if answer is None:
                    raise self._login.unanswered(question)
                self._login.answer(question, answer)
            try:
                await self._one_connection(endpoint, up)
            except AuthFailed as exc:
                if not self._login.again:
                    raise
                if self._login.question() is None:
                    text = f"logging in once more: {exc.reason or 'no reason given'}"
                    self.emit(Warned(time=trio.current_time(), stage=exc.stage, text=text))
                await trio.sleep(LOGIN_PAUSE)

    async def _ask(self, challenge: Challenge) -> Answer:
        """Put a question to the application. None: nobody answers."""
        self.emit(Challenged(time=trio.current_time(), challenge=challenge))
        return None if self._on_challenge is None else await self._on_challenge(challenge)

    async def _one_connection(self, endpoint: Endpoint, up: Callable[[TunnelUp], None]) -> None:
        """One transport and what runs over it; ends only with an exception."""
        remote = endpoint.remote
        config = self.config.for_remote(remote)
        # A key that is none shows here, before anybody is dialled.
        wrap = make_control_wrap(config, Role.CLIENT, unix_time=self._unix_time)
        self.emit(DialStarted(time=trio.current_time(), host=endpoint.host, port=remote.port, proto=remote.proto))
        transport = await self._dial(endpoint, config)
        try:
            connection = Connection(
                config,
                transport,
                wrap=wrap,
                context=self._context,
                login=self._login,
                on_challenge=self._on_challenge,
                client_pipes=self._pipes,
                emit=self.emit,
                tracer=self._tracer,
                rng=self._rng,
                unix_time=self._unix_time,
            )
        except BaseException:
            # Nobody owns the transport yet.
            with trio.CancelScope(shield=True):
                await transport.aclose()
            raise
        self.emit(
            DialDone(
                time=trio.current_time(), host=remote.host, port=remote.port, proto=remote.proto, address=transport.peer
            )
        )
        self._connection = connection
        was_up = False

        def came_up(news: TunnelUp) -> None:
            nonlocal was_up
            self._reconnections += not was_up and self._info is not None
            if not was_up:
                self._up_at = trio.current_time()
            was_up = True
            up(news)

        try:
            await connection.run(came_up)
        except ConnectError as exc:
            if was_up and not isinstance(exc, AuthFailed):
                raise TunnelClosed(str(exc), restart=True) from exc
            raise
        except TunnelClosed as exc:
            if exc.restart and not was_up:
                raise ConnectError(exc.reason, stage=Stage.PUSH) from exc
            raise
        finally:
            self._past = add_stats(self._past, connection.stats())
            self._connection = None
            connection.take_apart()

    async def _dial(self, endpoint: Endpoint, config: TunnelConfig) -> Transport:
        """Open a transport in bounded time."""
        timeout = config.connect_timeout
        with trio.move_on_after(timeout):
            if self._connect is None:
                return await dial(endpoint, config)
            try:
                made = await self._connect(endpoint.remote)
            except (OSError, trio.BrokenResourceError) as exc:
                raise TransportError(f"the application's connect failed: {exc}", stage=Stage.DIAL) from exc
            if isinstance(made, trio.abc.Stream):
                return over_stream(made, endpoint.remote, config)
            if not isinstance(made, Transport):
                raise TypeError(f"connect returned neither a Transport nor a trio Stream, but {made!r}")
            return made
        raise HandshakeTimeout(
            f"{endpoint.way}: no answer in {timeout:g} s",
            stage=Stage.DIAL,
            remedy=endpoint.remedy,
        )


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
    settings = load_config(config, credentials=credentials)
    settings.validate(can_ask=on_challenge is not None)
    if on_challenge is not None:
        settings = await _unlocked(settings, on_challenge)
    with Pipes(Lifetime.CLIENT) as pipes:
        client = Client(
            settings,
            pipes,
            connect=connect,
            on_event=on_event,
            on_challenge=on_challenge,
            tracer=tracer,
            rng=rng,
            unix_time=unix_time,
        )
        async with in_background(client._run):
            yield client


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
