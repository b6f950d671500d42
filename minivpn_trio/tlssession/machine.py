"""SessionMachine: keys made, renewed and retired, for either end of the protocol.

Three keys may live at a time, each a KeyState:

    pending   being negotiated: the first key of the session, or the next one
    current   generated; its successor is negotiated by its side
    lame      the one before, kept for packets and messages still on their way

A soft reset of either side opens ``pending``. When both sides ask at once
they mean the same key id, so the peer's reset counts as the answer to ours.
``session.py`` and ``server.py`` say what each end does at the steps
(``_on_*``). An error in ``pending`` ends the session only if there is no
``current`` key yet; otherwise the tunnel lives on until that one expires.

What goes out is collected and polled (outbox.py). An error is raised after
what the peer must still be told (a TLS alert) has been put there.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from ..config.model import TunnelConfig
from ..errors import ConnectError, DropReason, HandshakeTimeout, MiniVPNError, Stage, TunnelClosed
from ..events import (
    KeysGenerated,
    Rekeyed,
    SessionState,
    TLSHandshakeDone,
    TLSHandshakeStarted,
    Warned,
)
from ..items import ExpectKey, OpenKey, RenegotiationKey, RetireKey, TLSBytes
from ..packet.ids import KeyID, RandomBytes, Role, SessionID, next_key_id
from ..packet.opcodes import Opcode
from ..tracing import StateTraced, Tracer
from .hangs import explain_hang
from .keymethod2 import KeyMethod2, encode
from .keys import DYNAMIC_TLS_CRYPT_LABEL, KEY2_SIZE, KeySource
from .keystate import DataSettings, KeyState
from .messages import encode_message
from .openssl import TLSContext
from .outbox import Outbox
from .peer_renewals import PeerRenewals

__all__ = ["SessionMachine"]

_NO_SOURCE = KeySource(b"", b"", b"")


class SessionMachine(Outbox, ABC):
    """What both ends share. Times are seconds of the caller's clock."""

    role: Role

    def __init__(
        self,
        *,
        config: TunnelConfig,
        rng: RandomBytes,
        local_session_id: Callable[[], SessionID],
        remote_session_id: Callable[[], SessionID | None],
        context: TLSContext,
        unix_time: Callable[[], float] | None,
        tracer: Tracer | None,
    ) -> None:
        super().__init__()
        self.config = config
        self._rng = rng
        self._local_session_id = local_session_id
        self._remote_session_id = remote_session_id
        self._context = context
        self._unix_time = unix_time
        self._tracer = tracer
        #: How far the first key came; GENERATED_KEYS ever after, ERROR once the session is over.
        self.state: SessionState = SessionState.UNDEF
        #: Keys renegotiated so far.
        self.rekeys: int = 0
        self.drops: Counter[DropReason] = Counter()
        self._pending: KeyState | None = None
        self._current: KeyState | None = None
        self._lame: KeyState | None = None
        self._peer_renewals = PeerRenewals()
        self._settings: DataSettings | None = None
        #: Seconds after which this end renews a key; 0: never.
        self._reneg_sec = config.reneg_sec
        #: Leaving is announced by ``EXIT`` on the control channel.
        self._cc_exit = False

    # what each end decides

    @abstractmethod
    def start(self, now: float) -> None:
        """Begin."""

    @abstractmethod
    def handle_remote_bound(self, now: float) -> None:
        """The muxer knows the peer's session id."""

    @abstractmethod
    def _on_tls_up(self, key: KeyState, now: float) -> None:
        """The TLS handshake of ``key`` is over."""

    @abstractmethod
    def _on_key_method_2(self, key: KeyState, now: float) -> None:
        """The peer's key method 2 for ``key`` is in ``key.theirs``."""

    @abstractmethod
    def _on_message(self, key: KeyState, text: str, now: float) -> None:
        """A control message came over the TLS session of ``key``."""

    def _timers(self) -> Iterator[float]:
        """When this end has something of its own to do."""
        yield from ()

    def _on_timeout(self, now: float) -> None:  # nothing is a fair answer
        """Do what is due of it."""

    # input

    def handle_tls_bytes(self, key_id: KeyID, data: bytes, now: float) -> None:
        """Bytes of the TLS stream of ``key_id``.

        Raises ConnectError or one of its kinds, AuthFailed or TunnelClosed when the peer's
        words end the session; ``poll_outgoing`` may have something for it nevertheless.
        """
        key = self._find(key_id)
        if key is None or key.engine is None:
            self.drops[DropReason.UNKNOWN_KEY if key is None else DropReason.NOT_READY] += 1
            return
        with self._verdicts(now):
            try:
                self._advance(key, data, now)
            finally:
                self._collect(key)

    def _advance(self, key: KeyState, data: bytes, now: float) -> None:
        tls_up, exchanged = key.receive(data)
        if tls_up and key.engine is not None:
            version, cipher = key.engine.version, key.engine.cipher
            self._emit(TLSHandshakeDone(time=now, key_id=key.key_id, version=version, cipher=cipher))
            if key.failure is None:
                self._on_tls_up(key, now)
        if exchanged:
            self._on_key_method_2(key, now)
        for text in key.messages():
            if self._find(key.key_id) is key:
                self._on_message(key, text, now)
        self.drops.update(key.framer.drops)
        key.framer.drops.clear()
        if key.failure is not None:
            self._key_failed(key, key.failure, now)

    def handle_soft_reset(self, key_id: KeyID, now: float) -> None:
        """The peer's soft reset for ``key_id`` was accepted: a wish of its own, or the answer to ours.

        A wish that comes too soon after many others waits (peer_renewals.py).
        """
        pending = self._pending
        if pending is not None and pending.key_id == key_id and self._current is not None:
            if pending.engine is None:
                self._start_tls(pending, now)
                self._collect(pending)
            else:
                self.drops[DropReason.DUPLICATE] += 1
            return
        current = self._current
        if pending is not None or current is None or key_id != next_key_id(current.key_id):
            self.drops[DropReason.UNEXPECTED_OPCODE] += 1
            return
        if not self._peer_renewals.admit(key_id, now):
            return
        peer = Role.SERVER if self.role is Role.CLIENT else Role.CLIENT
        key = self._open_next(current, by=peer.value, now=now)
        self._start_tls(key, now)
        self._collect(key)

    def handle_rekey_wanted(self, reason: str, now: float) -> None:
        """The data channel wants a new key. Ignored while one is being made, or none can be."""
        if self._pending is None and self._current is not None and self._current.expires is None:
            self._open_next(self._current, by=self.role.value, now=now)

    # time

    def next_timeout(self) -> float | None:
        """When ``handle_timeout`` must be called; None: not for now."""
        if self.state is SessionState.ERROR:
            return None
        times = list(self._timers())
        if self._pending is not None:
            times.append(self._pending.deadline)
        if self._current is not None:
            renewal = self._renewal()
            times += [when for when in (renewal, self._current.expires) if when is not None]
        if self._lame is not None and self._lame.expires is not None:
            times.append(self._lame.expires)
        held_until = self._peer_renewals.next_timeout()
        if held_until is not None:
            times.append(held_until)
        return min(times, default=None)

    def handle_timeout(self, now: float) -> None:
        """Do what is due. Raises HandshakeTimeout, or TunnelClosed when a key could not be renewed."""
        with self._verdicts(now):
            if self._pending is not None and now >= self._pending.deadline:
                self._key_failed(self._pending, self._hung(self._pending, now), now)
            if self._lame is not None and self._lame.expires is not None and now >= self._lame.expires:
                self._retire_lame()
            current = self._current
            if current is not None:
                if current.expires is not None and now >= current.expires:
                    raise TunnelClosed("the keys expired and could not be renewed", restart=True)
                renewal = self._renewal()
                if renewal is not None and now >= renewal:
                    self._open_next(current, by=self.role.value, now=now)
            held = self._peer_renewals.take_due(now)
            if held is not None:
                self.handle_soft_reset(held, now)
            self._on_timeout(now)

    def goodbye(self, now: float) -> None:
        """Tell the peer that we leave, if that was agreed to happen on the control channel."""
        if self._cc_exit and self._current is not None and self.state is SessionState.GENERATED_KEYS:
            self._send_message(self._current, "EXIT")
            self._collect(self._current)

    # keys

    def _find(self, key_id: KeyID) -> KeyState | None:
        for key in (self._pending, self._current, self._lame):
            if key is not None and key.key_id == key_id:
                return key
        return None

    def _open_first(self, opcode: Opcode, now: float) -> KeyState:
        """Open key 0 with a hard reset."""
        key = KeyState(KeyID(0), self.role, "client", now, now + self.config.hand_window)
        self._pending = key
        self._outgoing.append(OpenKey(key.key_id, opcode))
        self._enter(key, SessionState.PRE_START, now)
        return key

    def _open_next(self, current: KeyState, *, by: str, now: float) -> KeyState:
        """Open the key after ``current`` with a soft reset."""
        self._retire_lame()
        key = KeyState(next_key_id(current.key_id), self.role, by, now, now + self.config.hand_window)
        self._pending = key
        self._outgoing.append(OpenKey(key.key_id, Opcode.CONTROL_SOFT_RESET_V1))
        return key

    def _start_tls(self, key: KeyState, now: float) -> None:
        key.engine = self._context.open(self._unix_time() if self._unix_time is not None else None)
        warning = self._context.revocations.warning
        if warning is not None:
            self._emit(Warned(time=now, stage=Stage.TLS_HANDSHAKE, text=warning))
        self._enter(key, SessionState.START, now)
        self._emit(TLSHandshakeStarted(time=now, key_id=key.key_id))
        key.engine.handshake()

    def _send_key_method_2(self, key: KeyState, message: KeyMethod2) -> None:
        assert key.engine is not None
        key.ours = message
        key.engine.write(encode(message))

    def _send_message(self, key: KeyState, text: str) -> None:
        assert key.engine is not None
        key.engine.write(encode_message(text))

    def _collect(self, key: KeyState) -> None:
        """Put what TLS has to send among the outgoing."""
        if key.engine is not None:
            data = key.engine.take_output()
            if data:
                self._outgoing.append(TLSBytes(key.key_id, data))

    def _generate(self, key: KeyState, now: float) -> None:
        """Make the data keys of ``key``, which becomes the current one."""
        settings = self._settings
        remote_sid = self._remote_session_id()
        assert settings is not None
        assert remote_sid is not None
        assert key is self._pending
        former, self._current, self._pending = self._current, key, None
        send_after = 0.0
        if former is not None:
            # The peer may be a while behind (deferred authentication): it gets the old key until
            # then (reference: ssl.c, tls_select_encryption_key, auth_deferred_expire).
            send_after = max(0.0, key.started + self._deferral(former, key) - now)
            former.expires = now + settings.transition_window
            self._lame = former
            self.rekeys += 1
        key.generated = now
        local_sid = self._local_session_id()
        self._keys.append(
            key.data_key(settings, local_sid=local_sid, remote_sid=remote_sid, send_after=send_after)
        )
        # Not needed again, and secret.
        key.ours = replace(key.ours, source=_NO_SOURCE, password="") if key.ours is not None else None
        key.theirs = replace(key.theirs, source=_NO_SOURCE, password="") if key.theirs is not None else None
        self._enter(key, SessionState.GENERATED_KEYS, now)
        self._outgoing.append(ExpectKey(next_key_id(key.key_id)))
        self._emit(
            KeysGenerated(
                time=now, key_id=key.key_id, cipher=settings.cipher, derivation=settings.key_derivation
            )
        )
        if former is not None:
            self._emit(Rekeyed(time=now, key_id=key.key_id, by=key.by))

    def _export_renegotiation_key(self, key: KeyState) -> None:
        """Dynamic tls-crypt was agreed on: all renegotiations are protected by the first TLS session."""
        assert key.engine is not None
        exported = key.engine.export(DYNAMIC_TLS_CRYPT_LABEL, KEY2_SIZE)
        self._renegotiation_keys.append(RenegotiationKey(exported))

    def _deferral(self, former: KeyState, key: KeyState) -> float:
        """Seconds from the soft reset of ``key`` to the first packet sent with it, at most.

        A peer that renews more often than we do waits half of its own interval; it forgets ``former``
        at the next renewal, before which that must not be in use any more.
        """
        deferral = self.config.hand_window
        if self._reneg_sec:
            deferral = min(deferral, self._reneg_sec / 2)
        if former.generated is not None:
            deferral = min(deferral, (key.started - former.generated) / 2)
        return deferral

    def _patience(self) -> float:
        """Longest time that a peer may ask us to wait for (reference: push.c, AUTH_PENDING)."""
        return max(self._reneg_sec / 2, self.config.hand_window)

    def _renewal(self) -> float | None:
        """When this end renews the current key; None: not by time, or it is busy with it."""
        current = self._current
        if current is None or current.generated is None or self._pending is not None or not self._reneg_sec:
            return None
        return current.generated + self._reneg_sec if current.expires is None else None

    def _retire_lame(self) -> None:
        if self._lame is not None:
            self._outgoing.append(RetireKey(self._lame.key_id))
            self._lame = None

    # failures

    def _key_failed(self, key: KeyState, error: ConnectError, now: float) -> None:
        """TLS or the key exchange of ``key`` failed: raise, or go on without it."""
        if key is self._lame:
            self._retire_lame()
            return
        current = self._current
        if key is not self._pending or current is None:
            if key is current:
                raise TunnelClosed(f"the control channel broke: {error}", restart=True) from error
            raise error
        # A renewal. The peer may try again under the same id; after the transition window of
        # the reset the old key is too old (reference: ssl.c, must_die).
        self._pending = None
        current.expires = key.started + self.config.tran_window
        self._outgoing += [RetireKey(key.key_id), ExpectKey(key.key_id)]
        self._emit(Warned(time=now, stage=Stage.REKEY, text=f"a new key could not be negotiated: {error}"))

    def _hung(self, key: KeyState, now: float) -> HandshakeTimeout:
        if self._current is not None:
            return HandshakeTimeout("the peer did not finish it in time", stage=Stage.REKEY)
        waited = now - (key.started if key.established is None else key.established)
        return explain_hang(key.state, waited)

    @contextmanager
    def _verdicts(self, now: float) -> Iterator[None]:
        """An error of ours that leaves the block ends the session."""
        try:
            yield
        except MiniVPNError:
            self._set_state(SessionState.ERROR, now)
            raise

    # telling

    def _enter(self, key: KeyState, state: SessionState, now: float) -> None:
        """``key`` reached ``state``; that of the first key is the session's."""
        key.state = state
        if self.rekeys == 0 and (self._current is None or self._current is key):
            self._set_state(state, now)

    def _set_state(self, state: SessionState, now: float) -> None:
        self.state = state
        if self._tracer is not None:
            self._tracer.trace(StateTraced(time=now, stage=state))

