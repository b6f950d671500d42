"""Upkeep: a tunnel is kept up, connection after connection, and this decides what a failure means.

One task dials, runs one ``Connection`` (connection.py) until that fails, and goes on from there; which server is
next and when is rotation.py's. What a failure means, decided once and here:

- before the first ``Ready``: every address of every remote is tried once (or
  ``connect_retry_max`` rounds; one in which no name has an address does not count for ``resolv_retry``
  seconds); then the error of the attempt that came furthest is raised, the others as its notes;
- AuthFailed at any time, or a server that said HALT: the end, unless the server asks
  a question that somebody answers, or it was an auth-token that expired: then the same
  address once more (tlssession/login.py knows);
- a server that cannot decide just now (AuthFailedTemporarily): an error like
  the others, but the server says how long to wait and where to try next;
- anything else after the first ``Ready``: Reconnecting, with a growing delay. The round begins with
  the server and the address that carried the tunnel, where the own address inside it is likely to stay the same
  and streams to live on, unless that server sent us away (RESTART with the flag N).
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

import trio

from .challenge import Challenge
from .config.model import Remote, TunnelConfig
from .connection import Connection
from .errors import (
    AuthFailed,
    AuthFailedTemporarily,
    ConnectError,
    HandshakeTimeout,
    Stage,
    TransportError,
    TunnelClosed,
)
from .events import Challenged, DialDone, DialStarted, Event, Reconnecting, SessionState, Warned
from .items import TunnelUp
from .networkio.dial import DialerContext, Endpoint, dial, is_numeric, over_stream, resolve
from .networkio.transport import Transport
from .packet.ids import RandomBytes, Role
from .packetmuxer.control_wrap import make_control_wrap
from .rotation import Rotation
from .stats import TunnelStats
from .stats_sum import add_stats
from .tlssession.login import Answer, Login, OnChallenge
from .tlssession.openssl import TLSContext
from .tracing import Tracer
from .wiring import Pipes

__all__ = ["Upkeep"]

#: A tunnel that stayed up this long, seconds, starts again with the shortest delay.
STABLE_AFTER = 60.0
#: Longest wait that a server may ask for (AUTH_FAILED,TEMP), seconds.
MAX_REQUESTED_WAIT = 300.0
#: Seconds between two rounds in which no name had an address (openvpn: fail_wait_interval).
RESOLVE_PAUSE = 5.0
#: Seconds between two logins at one server, at least.
LOGIN_PAUSE = 1.0

#: How far an attempt came, for choosing the error that tells most.
PROGRESS = {stage: progress for progress, stage in enumerate(Stage)}


class Upkeep:
    """What keeps one client's tunnel up. ``run`` does it, once; the rest tells how it goes.

    ``context`` is that of ``config``, where it was made already.
    ``emit`` is called with each event and must not raise. Raises ConfigError for certificates and keys that cannot be
    used: they are parsed once, and before anything is dialled.
    """

    def __init__(
        self,
        config: TunnelConfig,
        pipes: Pipes,
        *,
        context: TLSContext | None,
        emit: Callable[[Event], None],
        connect: DialerContext | None,
        on_challenge: OnChallenge | None,
        tracer: Tracer | None,
        rng: RandomBytes,
        unix_time: Callable[[], float],
    ) -> None:
        self._config = config
        self._pipes = pipes
        self._emit = emit
        self._connect = connect
        self._on_challenge = on_challenge
        self._tracer = tracer
        self._rng = rng
        self._unix_time = unix_time
        self._login = Login(config, salt=rng(16), can_ask=on_challenge is not None)
        self._context = context or TLSContext(config, Role.CLIENT)
        self._rotation = Rotation(config, random.Random(rng(16)))
        #: The connection that there is now, whether the tunnel is up or not.
        self.connection: Connection | None = None
        self._past = TunnelStats()
        #: Connections that brought the tunnel up.
        self._tunnels = 0
        self._up_at: float | None = None
        self._last_reason = ""
        # What AUTH_FAILED,TEMP asked for: seconds to wait.
        self._requested_wait = 0.0

    @property
    def state(self) -> SessionState:
        """How far the session with the server came; UNDEF where there is no connection."""
        return SessionState.UNDEF if self.connection is None else self.connection.session.state

    def stats(self) -> TunnelStats:
        """Counters, summed over all connections."""
        reconnections = max(self._tunnels - 1, 0)
        return replace(self._counted(), reconnections=reconnections, edge_drops=dict(self._pipes.drops))

    def _counted(self) -> TunnelStats:
        """What was counted by the connection that there is, and those before it."""
        return self._past if self.connection is None else add_stats(self._past, self.connection.stats())

    async def run(self, up: Callable[[TunnelUp], None]) -> None:
        """Keep the tunnel up until it must end; never returns normally.

        ``up`` is called with each TunnelUp. Raises ConnectError or one of its kinds, TunnelClosed, or ConfigError for a
        key of the control channel that is none. Cancelled, it says goodbye to the server first.
        """
        try:
            await self._first_rounds(up)
            await self._reconnect_for_ever(up)
        finally:
            # Keys go now, even if somebody keeps us for our counters; and our owner is not held in a circle.
            del self._context, self._emit

    # rounds

    async def _first_rounds(self, up: Callable[[TunnelUp], None]) -> None:
        """Try every remote until one has carried a tunnel and lost it (returns), or none is left (raises)."""
        rounds = self._config.connect_retry_max or 1
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
        patience = trio.current_time() + self._config.resolv_retry
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
                self._emit(Warned(time=trio.current_time(), stage=Stage.RESOLVE, text=text))
                told = True
            await trio.sleep(min(RESOLVE_PAUSE, left))

    async def _reconnect_for_ever(self, up: Callable[[TunnelUp], None]) -> None:
        attempt = 0
        while True:
            attempt = 1 if self._was_stable() else attempt + 1
            delay = max(self._rotation.delay(attempt), self._take_requested_wait())
            now = trio.current_time()
            self._emit(Reconnecting(time=now, reason=self._last_reason, delay=delay, attempt=attempt))
            await trio.sleep(delay)
            failures: list[ConnectError] = []
            if await self._one_round(up, failures):
                continue
            self._last_reason = str(failures[-1])
            if self._config.connect_retry_max and attempt >= self._config.connect_retry_max:
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

    # one server

    async def _endpoints(self, position: int, remote: Remote) -> list[Endpoint]:
        """The addresses of ``remote`` in the order in which they are tried. Raises ConnectError."""
        if self._connect is not None:
            return [Endpoint(remote)]
        name = remote.host
        if self._config.remote_random_hostname and not is_numeric(name):
            # Servers with a wildcard in the DNS are spread by it, past every cache (reference: socket.c).
            name = f"{self._rng(6).hex()}.{name}"
        timeout = self._config.for_remote(remote).connect_timeout
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
                    self._emit(Warned(time=trio.current_time(), stage=exc.stage, text=text))
                await trio.sleep(LOGIN_PAUSE)

    async def _ask(self, challenge: Challenge) -> Answer:
        """Put a question to the application. None: nobody answers."""
        self._emit(Challenged(time=trio.current_time(), challenge=challenge))
        return None if self._on_challenge is None else await self._on_challenge(challenge)

    async def _one_connection(self, endpoint: Endpoint, up: Callable[[TunnelUp], None]) -> None:
        """One transport and what runs over it; ends only with an exception."""
        remote = endpoint.remote
        config = self._config.for_remote(remote)
        # A key that is none shows here, before anybody is dialled.
        wrap = make_control_wrap(config, Role.CLIENT, unix_time=self._unix_time)
        self._emit(DialStarted(time=trio.current_time(), host=endpoint.host, port=remote.port, proto=remote.proto))
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
                emit=self._emit,
                tracer=self._tracer,
                rng=self._rng,
                unix_time=self._unix_time,
            )
        except BaseException:
            # Nobody owns the transport yet.
            with trio.CancelScope(shield=True):
                await transport.aclose()
            raise
        self._emit(
            DialDone(
                time=trio.current_time(), host=remote.host, port=remote.port, proto=remote.proto, address=transport.peer
            )
        )
        self.connection = connection
        was_up = False

        def came_up(news: TunnelUp) -> None:
            nonlocal was_up
            if not was_up:
                was_up = True
                self._tunnels += 1
                self._up_at = trio.current_time()
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
            self._past = self._counted()
            self.connection = None
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
