"""One connection to one server: the stages' cores, their workers, and how they end.

A ``Connection`` builds the five cores, opens the channels of the wiring table
and runs the workers in one nursery. It ends only with an exception: the
verdict of whichever worker found out first, alone, in no exception group.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

import trio

from .challenge import Challenge, ChallengeKind
from .config.model import TunnelConfig
from .config.mss import within_path
from .config.tunnel_info import TunnelInfo
from .controlchannel import worker as controlchannel_worker
from .controlchannel.channel import ControlChannel
from .datachannel import worker as datachannel_worker
from .datachannel.channel import DataChannel
from .errors import (
    AuthFailed,
    ConnectError,
    MiniVPNError,
    ProtocolError,
    Stage,
    TLSVerificationError,
    TransportError,
    TunnelClosed,
)
from .events import Challenged, Event, ResetDone, SessionState
from .items import ChallengeAnswer, TunnelUp
from .networkio import worker as networkio_worker
from .networkio.transport import FloatingTransport, PathWatcher, Transport
from .packet.ids import RandomBytes, Role
from .packetmuxer import worker as packetmuxer_worker
from .packetmuxer.control_wrap import ControlWrap
from .packetmuxer.muxer import PacketMuxer
from .reliable import worker as reliable_worker
from .reliable.acks import ACKS_IN_ACK, ACKS_IN_CONTROL
from .reliable.transport import ReliableTransport
from .stats import ControlStats, TunnelStats
from .tlssession import worker as tlssession_worker
from .tlssession.login import Login, OnChallenge
from .tlssession.openssl import TLSContext
from .tlssession.session import TlsSession
from .tracing import Tracer
from .wiring import Lifetime, Pipes

__all__ = ["Connection"]

#: How long saying goodbye may hold up a closing tunnel, seconds.
GOODBYE_GRACE = 1.0

#: What a session was waiting for in each state, for errors that do not know it themselves.
WAITING_FOR = {
    SessionState.UNDEF: Stage.RESET,
    SessionState.INITIAL: Stage.RESET,
    SessionState.PRE_START: Stage.RESET,
    SessionState.START: Stage.TLS_HANDSHAKE,
    SessionState.SENT_KEY: Stage.KEY_EXCHANGE,
    SessionState.GOT_KEY: Stage.PUSH,
    SessionState.ACTIVE: Stage.PUSH,
    SessionState.GENERATED_KEYS: Stage.ACTIVE,
    SessionState.ERROR: Stage.ACTIVE,
}


class Connection:
    """The life of one transport. Sizes and times come from ``config``."""

    def __init__(
        self,
        config: TunnelConfig,
        transport: Transport,
        *,
        wrap: ControlWrap,
        context: TLSContext,
        login: Login,
        on_challenge: OnChallenge | None,
        client_pipes: Pipes,
        emit: Callable[[Event], None],
        tracer: Tracer | None,
        rng: RandomBytes,
        unix_time: Callable[[], float],
    ) -> None:
        self._transport = transport
        self._client_pipes = client_pipes
        self._emit = emit
        self._on_challenge = on_challenge
        self._nursery: trio.Nursery | None = None
        self._answering = trio.CancelScope()
        now = trio.current_time()
        self.muxer: PacketMuxer = PacketMuxer(
            role=Role.CLIENT,
            wrap=wrap,
            rng=rng,
            tracer=tracer,
            session_state=lambda: self.session.state,
        )
        self.reliable: ReliableTransport = ReliableTransport(
            role=Role.CLIENT,
            tls_timeout=config.tls_timeout,
            max_acks=ACKS_IN_CONTROL if config.control_wrap == "none" else ACKS_IN_ACK,
            adaptive=not transport.is_stream,
            tracer=tracer,
            session_state=lambda: self.session.state,
        )
        self.channel: ControlChannel = ControlChannel(
            role=Role.CLIENT, max_payload=lambda: self.muxer.max_control_payload
        )
        self.session: TlsSession = TlsSession(
            role=Role.CLIENT,
            config=config,
            rng=rng,
            now=now,
            unix_time=unix_time,
            local_session_id=lambda: self.muxer.local_session_id,
            remote_session_id=lambda: self.muxer.remote_session_id,
            transport="tcp" if transport.is_stream else "udp",
            remote_address=transport.peer,
            context=context,
            login=login,
            tracer=tracer,
        )
        self.data: DataChannel = DataChannel(
            role=Role.CLIENT,
            replay_window=config.replay_window,
            replay_time=config.replay_time,
            rng=rng,
            tracer=tracer,
            session_state=lambda: self.session.state,
        )
        if isinstance(transport, FloatingTransport):
            self.muxer.on_foreign = self.data.on_foreign = transport.adopt
        self._was_up = False
        self._is_datagram = not transport.is_stream
        #: What the server said last, and what was made of it.
        self._info: TunnelInfo | None = None
        self._told: TunnelInfo | None = None
        self._path_changed = trio.Event()
        if isinstance(transport, PathWatcher):
            transport.on_path_mtu = self._note_path

    async def run(self, came_up: Callable[[TunnelUp], None]) -> None:
        """Run until the connection fails; never returns normally.

        ``came_up`` is called with each TunnelUp. Raises ConnectError or one of its kinds, or
        TunnelClosed. Cancelled, it says goodbye to the server first. Closes the transport.
        """
        with Pipes(Lifetime.CONNECTION, self._client_pipes.drops) as pipes:
            try:
                async with trio.open_nursery() as nursery:
                    self._nursery = nursery
                    for worker in self._workers(pipes):
                        nursery.start_soon(worker)
                    nursery.start_soon(self._listen, pipes, came_up)
                    nursery.start_soon(self._watch_path, came_up)
            except BaseExceptionGroup as group:
                verdict = self._verdict(group)
                if verdict is None:
                    raise
                try:
                    raise verdict from verdict.__cause__
                finally:
                    # The group holds the verdict, and this frame would: circles that keep every worker's frame.
                    verdict.__context__ = None
                    del verdict
            finally:
                self._say_goodbye()
                if isinstance(self._transport, PathWatcher):
                    self._transport.on_path_mtu = None  # or there would be a circle
                with trio.move_on_after(GOODBYE_GRACE, shield=True):
                    await self._transport.aclose()

    def _workers(self, pipes: Pipes) -> list[Callable[[], Awaitable[None]]]:
        """The workers of the wiring table, joined to its channels, in the order packets meet them."""
        outer = self._client_pipes
        wakeups = reliable_worker.Wakeups()
        return [
            partial(
                networkio_worker.move_up,
                self._transport,
                outlet=pipes.waiting("networkio.move_up", "packetmuxer.move_up"),
            ),
            partial(
                packetmuxer_worker.move_up,
                self.muxer,
                inlet=pipes.inlet("packetmuxer.move_up"),
                data=pipes.waiting("packetmuxer.move_up", "datachannel.move_up"),
                control=pipes.dropping("packetmuxer.move_up", "reliable.move_up"),
                notify=pipes.dropping("packetmuxer.move_up", "tlssession.worker"),
            ),
            partial(
                reliable_worker.move_up,
                self.reliable,
                inlet=pipes.inlet("reliable.move_up"),
                outlet=pipes.dropping("reliable.move_up", "controlchannel.move_up"),
                wakeups=wakeups,
            ),
            partial(
                controlchannel_worker.move_up,
                self.channel,
                inlet=pipes.inlet("controlchannel.move_up"),
                outlet=pipes.waiting("controlchannel.move_up", "tlssession.worker"),
            ),
            partial(
                tlssession_worker.worker,
                self.session,
                inlet=pipes.inlet("tlssession.worker"),
                outlet=pipes.waiting("tlssession.worker", "controlchannel.move_down"),
                keys=pipes.waiting("tlssession.worker", "datachannel.keeper"),
                wraps=pipes.waiting("tlssession.worker", "packetmuxer.move_down"),
                up=pipes.waiting("tlssession.worker", "client"),
                emit=partial(self._session_event, pipes),
            ),
            partial(
                datachannel_worker.move_up,
                self.data,
                inlet=pipes.inlet("datachannel.move_up"),
                outlet=outer.dropping("datachannel.move_up", "tun.inbound"),
            ),
            partial(
                datachannel_worker.move_down,
                self.data,
                inlet=outer.inlet("datachannel.move_down"),
                outlet=pipes.waiting("datachannel.move_down", "packetmuxer.move_down"),
            ),
            partial(
                datachannel_worker.keeper,
                self.data,
                inlet=pipes.inlet("datachannel.keeper"),
                outlet=pipes.waiting("datachannel.keeper", "packetmuxer.move_down"),
                rekey=pipes.dropping("datachannel.keeper", "tlssession.worker"),
            ),
            partial(
                controlchannel_worker.move_down,
                self.channel,
                inlet=pipes.inlet("controlchannel.move_down"),
                outlet=pipes.waiting("controlchannel.move_down", "reliable.move_down"),
            ),
            partial(
                reliable_worker.move_down,
                self.reliable,
                inlet=pipes.inlet("reliable.move_down"),
                outlet=pipes.waiting("reliable.move_down", "packetmuxer.move_down"),
                wakeups=wakeups,
            ),
            partial(
                packetmuxer_worker.move_down,
                self.muxer,
                inlet=pipes.inlet("packetmuxer.move_down"),
                outlet=pipes.waiting("packetmuxer.move_down", "networkio.move_down"),
            ),
            partial(networkio_worker.move_down, self._transport, inlet=pipes.inlet("networkio.move_down")),
        ]

    def _session_event(self, pipes: Pipes, event: Event) -> None:
        if isinstance(event, ResetDone):
            self._transport.established()
        self._emit(event)
        if isinstance(event, Challenged) and self._on_challenge is not None and self._nursery is not None:
            scope = trio.CancelScope()
            if event.challenge.kind is not ChallengeKind.WEB:
                # The latest question counts: whoever still thinks about an earlier one need not.
                self._answering.cancel()
                self._answering = scope
            self._nursery.start_soon(self._put_to, self._on_challenge, event.challenge, pipes, scope)

    async def _put_to(
        self, on_challenge: OnChallenge, challenge: Challenge, pipes: Pipes, scope: trio.CancelScope
    ) -> None:
        """Ask, and take the answer to the session."""
        with scope:
            answer = await on_challenge(challenge)
            await pipes.waiting("challenge", "tlssession.worker").send(ChallengeAnswer(challenge, answer))

    async def _listen(self, pipes: Pipes, came_up: Callable[[TunnelUp], None]) -> None:
        inlet = pipes.inlet("client")
        while True:
            item: TunnelUp = await inlet.receive()
            self._was_up = True
            self._info = item.info
            self._told = self._within_path(item.info)
            came_up(item._replace(info=self._told))

    def _note_path(self) -> None:
        self._path_changed.set()

    async def _watch_path(self, came_up: Callable[[TunnelUp], None]) -> None:
        """Tell when the path takes shorter packets than it did, or longer ones. In a task of its own, since
        those who hear of it send packets."""
        while True:
            await self._path_changed.wait()
            self._path_changed = trio.Event()
            if self._info is None or self._told is None:
                continue
            before, self._told = self._told, self._within_path(self._info)
            changed = tuple(
                name for name in ("mss_ipv4", "mss_ipv6") if getattr(before, name) != getattr(self._told, name)
            )
            if changed:
                came_up(TunnelUp(self._told, changed))

    def _within_path(self, info: TunnelInfo) -> TunnelInfo:
        """``info``, for the path as it is now."""
        transport, tunnel = self._transport, self.session.negotiated
        mtu = transport.path_mtu if isinstance(transport, PathWatcher) else None
        if mtu is None or tunnel is None or tunnel.encapsulation is None:
            return info
        return within_path(info, tunnel.encapsulation, mtu)

    def _verdict(self, group: BaseExceptionGroup[BaseException]) -> Exception | None:
        """The one exception that says why the connection ended; None when it was only cancelled."""
        leaves: list[BaseException] = []
        pending: list[BaseException] = [group]
        while pending:
            exc = pending.pop()
            if isinstance(exc, BaseExceptionGroup):
                pending.extend(exc.exceptions)
            else:
                leaves.append(exc)
        verdicts = [self._translate(exc) for exc in leaves if isinstance(exc, Exception)]
        if len(verdicts) != len([exc for exc in leaves if not isinstance(exc, trio.Cancelled)]):
            return None  # KeyboardInterrupt and its like travel as they came
        return min(verdicts, key=_gravity) if verdicts else None

    def _translate(self, exc: Exception) -> Exception:
        """What a transport raises, as a typed error of the stage that the session had reached."""
        if isinstance(exc, trio.EndOfChannel):
            text = "the server closed the connection"
        elif isinstance(exc, trio.BrokenResourceError | trio.ClosedResourceError):
            text = f"the connection broke: {exc.__cause__ or exc}"
        elif isinstance(exc, ProtocolError):
            text = f"the server does not speak OpenVPN: {exc}"
        elif isinstance(exc, OSError):
            text = f"the network said: {exc.strerror or exc}"
        else:
            return exc
        stage = WAITING_FOR[self.session.state]
        remedy = "check that an OpenVPN server listens on this address and port"
        error = TransportError(text, stage=stage, remedy=remedy)
        error.__cause__ = exc
        return error

    def _say_goodbye(self) -> None:
        """Tell the server that we leave, as far as it goes out without waiting.

        The cores are plain objects, so the message is walked down through them here; the
        workers are gone by now.
        """
        if not self._was_up:
            return
        now = trio.current_time()
        try:
            self.session.goodbye(now)
            for item in self.channel.segment(self.session.poll_outgoing()):
                self.reliable.submit(item, now)
            control = self.muxer.wrap_control(self.reliable.poll_transmit(now), now)
            # A stream that ends says it all; a datagram may be lost, so it is repeated as
            # explicit-exit-notify asks.
            tunnel = self.session.negotiated
            times = max(tunnel.explicit_exit_notify, 1) if tunnel is not None else 1
            data = self.data.goodbye(now) * times if self._is_datagram else []
            if control or data:
                self._transport.send_nowait(control + data)
        except MiniVPNError:
            pass  # no keys (any more): then there is nobody to say goodbye to

    def take_apart(self) -> None:
        """Let go of all parts, once it has ended; it is of no more use.

        They know each other, and would wait for a collection of the cyclic kind, which then holds everything up while
        it frees keys and TLS contexts: 0.3 ms for each connection that there was.
        """
        vars(self).clear()

    def stats(self) -> TunnelStats:
        """Counters of this connection."""
        control = ControlStats(
            packets_in=self.muxer.packets_in,
            packets_out=self.muxer.packets_out,
            retransmissions=self.reliable.retransmissions,
            fast_retransmissions=self.reliable.fast_retransmissions,
            drops=dict(self.muxer.drops + self.reliable.drops),
        )
        return TunnelStats(
            transport=self._transport.stats(), control=control, data=self.data.stats(), rekeys=self.session.rekeys
        )


def _gravity(exc: Exception) -> int:
    """Sort key: a defect of ours first, then what explains most."""
    if not isinstance(exc, MiniVPNError):
        return 0
    order: tuple[type[MiniVPNError], ...] = (
        AuthFailed,
        TLSVerificationError,
        TunnelClosed,
        TransportError,
        ConnectError,
    )
    return next((rank for rank, kind in enumerate(order, 1) if isinstance(exc, kind)), len(order) + 1)
