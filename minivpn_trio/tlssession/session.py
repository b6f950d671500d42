"""TlsSession: the client's end of a session, from the hard reset to the last key.

    UNDEF -> INITIAL -> PRE_START     our hard reset goes out
    PRE_START -> START                the server answered it; ClientHello goes out
    START -> SENT_KEY                 TLS is up; our key method 2 goes out
    SENT_KEY -> GOT_KEY -> ACTIVE     the server's key method 2 is in
    ACTIVE -> GENERATED_KEYS          PUSH_REPLY is in: only it says how keys are derived

Renewals (machine.py) stop at ACTIVE no longer than it takes to derive the
keys, since the options of the first PUSH_REPLY go on to hold.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal

from ..challenge import Challenge, ChallengeKind
from ..config.model import Credentials, TunnelConfig
from ..config.push import NegotiatedTunnel, PushedOptions, parse_push
from ..errors import AuthFailed, ConfigError, ConnectError, DropReason, HandshakeTimeout, Stage, TunnelClosed
from ..events import AuthPending, Challenged, ResetDone, ResetSent, ServerMessage, SessionState, Warned
from ..items import TunnelUp
from ..packet.ids import RandomBytes, Role, SessionID
from ..packet.opcodes import Opcode
from ..tracing import Tracer
from .keymethod2 import KeyMethod2, new_source
from .keystate import KeyState
from .login import Login
from .machine import SessionMachine
from .messages import (
    AuthFailedMessage,
    AuthPendingMessage,
    ExitMessage,
    HaltMessage,
    InfoMessage,
    PushReplyMessage,
    PushUpdateMessage,
    RestartMessage,
    TextChallengeMessage,
    WebAuthMessage,
    challenge_response,
    parse_message,
)
from .negotiation import Negotiation
from .openssl import TLSContext
from .peer_info import SSO_METHODS, peer_info
from .second_factor import SecondFactor

__all__ = ["TlsSession"]

#: The server was told that we want its push; it is asked only when it does not come by itself.
FIRST_PUSH_REQUEST = 1.0
#: Seconds between requests (reference: push.h, PUSH_REQUEST_INTERVAL).
PUSH_REQUEST_INTERVAL = 5.0


class TlsSession(SessionMachine):
    """One session with one server; lives as long as the transport to it.

    ``transport`` and ``remote_address`` are what the options string and the
    MTU arithmetic need. ``unix_time`` says as of when certificates are judged
    (None: the system's clock). ``context`` may be shared between sessions of
    one configuration; without it the certificates are parsed here, which
    raises ConfigError where they cannot be used. ``login`` outlives the session;
    what it must ask is an event, ``Challenged``, and answered by ``handle_answer``.
    Nothing is timed before ``start``, so ``now`` is only there to make all cores alike.
    """

    role = Role.CLIENT

    def __init__(
        self,
        *,
        role: Role = Role.CLIENT,
        config: TunnelConfig,
        rng: RandomBytes,
        now: float,
        local_session_id: Callable[[], SessionID],
        remote_session_id: Callable[[], SessionID | None],
        transport: Literal["udp", "tcp"] = "udp",
        remote_address: str | None = None,
        context: TLSContext | None = None,
        login: Login | None = None,
        unix_time: Callable[[], float] | None = None,
        tracer: Tracer | None = None,
    ) -> None:
        if role is not Role.CLIENT:
            raise ValueError("the server's end is server.ServerTlsSession")
        super().__init__(
            config=config,
            rng=rng,
            local_session_id=local_session_id,
            remote_session_id=remote_session_id,
            context=context or TLSContext(config, Role.CLIENT),
            unix_time=unix_time,
            tracer=tracer,
        )
        self._negotiation = Negotiation(config, transport=transport, remote_address=remote_address)
        self._push_request_at: float | None = None
        self._login = login or Login(config, salt=rng(16))
        #: What is asked now, and the key whose login or control channel waits for the answer.
        self._asked: tuple[Challenge, KeyState] | None = None
        self._second_factor = SecondFactor()
        #: When the session has lasted long enough (session-timeout).
        self._ends_at: float | None = None

    @property
    def negotiated(self) -> NegotiatedTunnel | None:
        """What the push and the profile say together; None before PUSH_REPLY."""
        return self._negotiation.tunnel

    # input

    def start(self, now: float) -> None:
        """Send the hard reset."""
        self._set_state(SessionState.INITIAL, now)
        for text in self._context.warnings:
            self._emit(Warned(time=now, stage=Stage.TLS_HANDSHAKE, text=text))
        v2_key = self.config.control_wrap == "tls-crypt-v2"
        opcode = Opcode.CONTROL_HARD_RESET_CLIENT_V3 if v2_key else Opcode.CONTROL_HARD_RESET_CLIENT_V2
        key = self._open_first(opcode, now)
        # Until the server says something it may as well not be there (reference: forward.c, check_server_poll_timeout).
        key.deadline = min(key.deadline, now + self.config.connect_timeout)
        self._emit(ResetSent(time=now))

    def handle_remote_bound(self, now: float) -> None:
        """The server acknowledged our hard reset. Later ones, which nobody sends, are ignored."""
        key = self._pending
        if key is None or self.state is not SessionState.PRE_START:
            return
        key.deadline = key.started + self.config.hand_window
        self._emit(ResetDone(time=now))
        with self._verdicts(now):
            self._start_tls(key, now)
            self._collect(key)

    # steps

    def handle_answer(self, challenge: Challenge, answer: Credentials | str | None, now: float) -> None:
        """The answer to the last ``Challenged``; one to an earlier one comes too late and is ignored.

        Raises AuthFailed when a first login cannot go on without it.
        """
        if self._asked is None or self._asked[0] is not challenge:
            return
        key, self._asked = self._asked[1], None
        if self._find(key.key_id) is not key or key.engine is None:
            return
        with self._verdicts(now):
            if challenge.kind is ChallengeKind.CR_TEXT:
                self._answer_text(key, answer, now)
            elif answer is None:
                error = ConnectError("nobody answered for the login", stage=Stage.REKEY)
                self._key_failed(key, error, now)
            else:
                self._login.answer(challenge, answer)
                self._log_in(key, now)
            self._collect(key)

    def _answer_text(self, key: KeyState, answer: Credentials | str | None, now: float) -> None:
        if answer is None:
            return
        if not isinstance(answer, str):
            raise TypeError("the answer to a challenge of kind cr-text is a string")
        try:
            self._send_message(key, challenge_response(answer))
        except ValueError as exc:
            self._emit(Warned(time=now, stage=Stage.PUSH, text=f"the answer is not sent: {exc}"))

    # login

    def _on_tls_up(self, key: KeyState, now: float) -> None:
        self._log_in(key, now)

    def _log_in(self, key: KeyState, now: float) -> None:
        """Send our key method 2, or ask for what it still lacks: at a renewal whose password was not kept."""
        question = self._login.question()
        if question is not None:
            if not self._login.can_ask:
                raise self._login.unanswered(question)
            self._ask(key, question, now)
            return
        credentials = self._login.credentials()
        message = KeyMethod2(
            source=new_source(Role.CLIENT, self._rng),
            options=self._negotiation.options,
            username=credentials.username if credentials is not None else "",
            password=credentials.password if credentials is not None else "",
            peer_info=peer_info(self.config, sso=SSO_METHODS if self._login.can_ask else ()),
        )
        try:
            self._send_key_method_2(key, message)
        except ValueError as exc:
            raise ConfigError(str(exc), directive="auth-user-pass") from None
        self._enter(key, SessionState.SENT_KEY, now)

    def _ask(self, key: KeyState, challenge: Challenge, now: float) -> None:
        self._asked = (challenge, key)
        self._emit(Challenged(time=now, challenge=challenge))

    def _on_key_method_2(self, key: KeyState, now: float) -> None:
        assert key.theirs is not None
        key.established = now
        self._enter(key, SessionState.GOT_KEY, now)
        # The server answers ours, so ours has arrived.
        self._enter(key, SessionState.ACTIVE, now)
        if self._settings is not None:
            self._generate(key, now)
            self._login.accepted()
            return
        warning = self._negotiation.look_at_options(key.theirs.options)
        if warning is not None:
            self._emit(Warned(time=now, stage=Stage.KEY_EXCHANGE, text=warning))
        key.deadline = now + self.config.hand_window
        if self.config.pull:
            self._push_request_at = now + FIRST_PUSH_REQUEST
        else:
            self._conclude(key, parse_push([]), now)

    def _on_message(self, key: KeyState, text: str, now: float) -> None:
        message = parse_message(text)
        match message:
            case PushReplyMessage():
                pushed = self._negotiation.take_reply(message.text)
                if pushed is not None:
                    self._on_push(key, pushed, now)
            case PushUpdateMessage():
                self._on_push_update(message, now)
            case AuthFailedMessage():
                raise self._refused(message)
            case AuthPendingMessage():
                self._on_auth_pending(key, message, now)
            case TextChallengeMessage() | WebAuthMessage():
                self._on_question(key, message, now)
            case InfoMessage():
                self._emit(ServerMessage(time=now, text=message.text))
            case RestartMessage():
                self._emit(ServerMessage(time=now, text=text[:256]))
                if not message.keep_credentials:
                    self._login.forget()
                reason = _with("the server asks us to connect again", message.text)
                raise self._lost(reason, next_remote=message.next_remote)
            case HaltMessage():
                self._emit(ServerMessage(time=now, text=text[:256]))
                raise TunnelClosed(_with("the server asks us to stop", message.text), restart=False)
            case ExitMessage():
                raise self._lost("the server left")
            case _:
                self._emit(ServerMessage(time=now, text=text[:256]))

    # push

    def _on_push(self, key: KeyState, pushed: PushedOptions, now: float) -> None:
        if self.negotiated is None and key is self._pending and key.state is SessionState.ACTIVE:
            self._conclude(key, pushed, now)
        else:
            # A repeated answer, or a new token at a renewal: nothing else may change by now.
            self._login.take_token(pushed.auth_token, pushed.auth_token_user)

    def _conclude(self, key: KeyState, pushed: PushedOptions, now: float) -> None:
        assert key.engine is not None
        tunnel = self._negotiation.conclude(pushed, key.engine.version)
        self._push_request_at = None
        self._login.take_token(tunnel.auth_token, tunnel.auth_token_user)
        self._login.accepted()
        self._cc_exit = tunnel.cc_exit
        self._reneg_sec = tunnel.reneg_sec
        if tunnel.session_timeout:
            self._ends_at = now + tunnel.session_timeout
        self._settings = self._negotiation.data_settings(tunnel)
        for text in tunnel.warnings:
            self._emit(Warned(time=now, stage=Stage.PUSH, text=text))
        if tunnel.dynamic_tls_crypt:
            self._export_renegotiation_key(key)
        self._generate(key, now)
        self._ups.append(TunnelUp(tunnel.info))

    def _on_push_update(self, message: PushUpdateMessage, now: float) -> None:
        """The server changes the live tunnel. Before there is one, and without ``pull``, it may not."""
        if self.negotiated is None or self._settings is None or not self.config.pull:
            self.drops[DropReason.NOT_READY] += 1
            return
        try:
            change = self._negotiation.take_update(message.text)
        except ConnectError as error:
            raise self._lost(str(error)) from error
        if change is None:
            return
        if change.keepalive is not None:
            self._keepalives.append(change.keepalive)
        tunnel = change.tunnel
        # What the next key begins with.
        self._settings = self._settings._replace(
            ping=tunnel.ping,
            ping_restart=tunnel.ping_restart,
            ping_exit=tunnel.ping_exit,
            decompress=tunnel.decompress,
        )
        for text in change.warnings:
            self._emit(Warned(time=now, stage=Stage.PUSH, text=text))
        if change.changed:
            self._ups.append(TunnelUp(tunnel.info, change.changed))

    def _on_auth_pending(self, key: KeyState, message: AuthPendingMessage, now: float) -> None:
        """Be patient, within bounds (reference: push.c, server_auth_pending; forward.c)."""
        if key is not self._pending:
            return
        since = key.established if key.established is not None else now
        timeout = self._second_factor.hold(message.timeout, patience=self._patience(), since=since)
        key.deadline = max(key.deadline, since + timeout)
        self._emit(AuthPending(time=now, timeout=timeout))

    def _on_question(self, key: KeyState, message: TextChallengeMessage | WebAuthMessage, now: float) -> None:
        """The server asks for a second factor while it lets the login wait."""
        if not self._second_factor.may_ask():
            self.drops[DropReason.LIMIT] += 1
            return
        if isinstance(message, WebAuthMessage) and message.url is None:
            text = "the server wants a page opened whose address is no https URL: not passed on"
            self._emit(Warned(time=now, stage=Stage.PUSH, text=text))
            return
        challenge = self._second_factor.challenge(message, now)
        if challenge.kind is ChallengeKind.WEB:
            # There is no answer to wait for: the server hears of it from the page.
            self._emit(Challenged(time=now, challenge=challenge))
            return
        if challenge.needs_answer and not self._login.can_ask:
            text = "the server asks for a second factor: give on_challenge to answer it"
            self._emit(Warned(time=now, stage=Stage.PUSH, text=text))
        self._ask(key, challenge, now)

    def _hung(self, key: KeyState, now: float) -> HandshakeTimeout:
        if self._current is None:
            waited = now - (key.started if key.established is None else key.established)
            error = self._second_factor.explain_hang(waited)
            if error is not None:
                return error
        return super()._hung(key, now)

    def _refused(self, message: AuthFailedMessage) -> Exception:
        """What AUTH_FAILED means. A password that was refused is never sent again by itself."""
        stage = Stage.PUSH if self._current is None else Stage.REKEY
        error = self._login.refused(message, stage=stage)
        if self._current is not None and isinstance(error, AuthFailed) and self._login.again:
            return TunnelClosed(_with("the server wants a new login", error.reason), restart=True)
        return error

    def _lost(self, reason: str, *, next_remote: bool = False) -> Exception:
        """The server goes away and may come back."""
        if self._current is None:
            return ConnectError(reason, stage=Stage.PUSH, remedy="try again later")
        return TunnelClosed(reason, restart=True, next_remote=next_remote)

    # timers

    def _timers(self) -> Iterator[float]:
        if self._push_request_at is not None:
            yield self._push_request_at
        if self._ends_at is not None:
            yield self._ends_at

    def _on_timeout(self, now: float) -> None:
        if self._ends_at is not None and now >= self._ends_at:
            raise TunnelClosed("the session has lasted as long as it may (session-timeout)", restart=False)
        key = self._pending
        if self._push_request_at is None or now < self._push_request_at:
            return
        if key is None or self.negotiated is not None:
            self._push_request_at = None
            return
        self._send_message(key, "PUSH_REQUEST")
        self._collect(key)
        self._push_request_at = now + PUSH_REQUEST_INTERVAL


def _with(text: str, detail: str) -> str:
    return f"{text}: {detail}" if detail else text
