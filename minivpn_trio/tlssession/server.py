"""ServerTlsSession: the other end of ``TlsSession``, for servers in tests and demonstrations.

One object serves one client. A ``ServerPolicy`` says what the server pushes
and how it behaves, including the ways in which servers make life hard:
refused passwords, deferred decisions, restarts, renewals at short notice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from cryptography.x509.oid import NameOID

from ..config.model import AEAD_CIPHERS, DEFAULT_DATA_CIPHERS, TunnelConfig
from ..errors import TunnelClosed
from ..events import ResetDone, SessionState
from ..packet.ids import RandomBytes, Role, SessionID
from ..packet.opcodes import Opcode
from ..tracing import Tracer
from .keymethod2 import KeyMethod2, new_source
from .keystate import DataSettings, KeyState
from .machine import SessionMachine
from .messages import ExitMessage, PushRequestMessage, parse_message
from .openssl import TLSContext
from .options_string import cipher_in_options, options_string
from .peer_info import ProtoFlag, parse_peer_info

__all__ = ["ServerPolicy", "ServerTlsSession"]

#: Characters of options in one PUSH_REPLY (reference: common.h, PUSH_BUNDLE_SIZE, less its head).
MAX_PUSH_MESSAGE = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerPolicy:
    """How a server treats a client. Times are seconds."""

    #: Options in the push grammar, such as ``ifconfig 10.8.0.2 255.255.255.0``. peer-id, cipher and
    #: key derivation are added.
    push: tuple[str, ...] = ()
    #: The first that the client offers too is taken.
    data_ciphers: tuple[str, ...] = DEFAULT_DATA_CIPHERS
    #: ``prf``, ``tls-ekm``, or None: whichever is the newest that the client knows.
    key_derivation: Literal["prf", "tls-ekm"] | None = None
    #: None: not pushed, so packets are DATA_V1.
    peer_id: int | None = 0
    #: Push protocol-flags cc-exit to clients that know it.
    cc_exit: bool = True
    #: Push protocol-flags dyn-tls-crypt to clients that know it.
    dynamic_tls_crypt: bool = True
    #: Push protocol-flags aead-epoch to clients that know it, as 2.7 does, where cipher and peer id allow it.
    epoch: bool = False
    #: Push at once when the client announces REQUEST_PUSH; otherwise wait for PUSH_REQUEST.
    push_unasked: bool = True
    #: What a PUSH_REPLY holds before it is continued in another one, characters.
    max_push_message: int = MAX_PUSH_MESSAGE
    #: The server renews keys after this long, or after so many bytes or packets; 0: never.
    reneg_sec: float = 0.0
    reneg_bytes: int = 0
    reneg_packets: int = 0
    #: Largest packet that it decompresses; 0: none.
    decompress: int = 0
    #: Called with user name and password for each key: True, or False or a reason. None: all are good.
    authenticate: Callable[[str, str], bool | str] | None = field(default=None, repr=False)
    #: Ask for this much patience and push only after ``ServerTlsSession.admit``; None: decide at once.
    pending: float | None = None
    #: Pushed as ``auth-token``, and accepted as a password from then on.
    auth_token: str | None = field(default=None, repr=False)
    #: Pushed when a key is renewed, and accepted from then on.
    renewed_auth_token: str | None = field(default=None, repr=False)
    #: What the server asks of clients' certificates.
    client_certificate: Literal["require", "optional", "none"] = "require"
    #: Keepalive at the server's end; 0: off.
    ping: float = 0.0
    ping_restart: float = 0.0


class ServerTlsSession(SessionMachine):
    """One client. ``config`` has the server's own certificate, CA, digest, compression and fragment.

    ``handle_remote_bound`` is called when the client's hard reset is in. HandshakeTimeout and other
    errors mean that this client is gone.
    """

    role = Role.SERVER

    def __init__(
        self,
        *,
        config: TunnelConfig,
        policy: ServerPolicy,
        rng: RandomBytes,
        now: float,
        local_session_id: Callable[[], SessionID],
        remote_session_id: Callable[[], SessionID | None],
        transport: Literal["udp", "tcp"] = "udp",
        context: TLSContext | None = None,
        unix_time: Callable[[], float] | None = None,
        tracer: Tracer | None = None,
    ) -> None:
        super().__init__(
            config=config,
            rng=rng,
            local_session_id=local_session_id,
            remote_session_id=remote_session_id,
            context=context or TLSContext(config, Role.SERVER, client_certificate=policy.client_certificate),
            unix_time=unix_time,
            tracer=tracer,
        )
        self.policy = policy
        self._transport = transport
        self._reneg_sec = policy.reneg_sec
        self._admit_at: float | None = None
        self._refused = False
        self._tokens: list[str] = []
        #: What the client said for its newest key, its password included; None before that.
        self.client: KeyMethod2 | None = None
        #: Its peer info, by name.
        self.client_info: dict[str, str] = {}
        #: Its messages that mean nothing here, oldest first, the last 64.
        self.messages: list[str] = []

    # input

    def start(self, now: float) -> None:
        """Wait for a client."""
        self._set_state(SessionState.INITIAL, now)

    def handle_remote_bound(self, now: float) -> None:
        """The client's hard reset is in: answer it."""
        if self.state is not SessionState.INITIAL:
            return
        key = self._open_first(Opcode.CONTROL_HARD_RESET_SERVER_V2, now)
        self._emit(ResetDone(time=now))
        with self._verdicts(now):
            self._start_tls(key, now)

    # what is known of the client

    @property
    def common_name(self) -> str | None:
        """The common name of the client's certificate, which was verified; None before TLS is up, or without one."""
        key = self._pending or self._current
        certificate = key.engine.peer_certificate if key is not None and key.engine is not None else None
        if certificate is None:
            return None
        names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        return str(names[0].value) if names else None

    @property
    def negotiating_first_key(self) -> bool:
        """Whether there is no key yet."""
        return self._current is None

    # commands

    def send_message(self, text: str, now: float) -> None:
        """Send any control message (``RESTART,...``, ``INFO,...``). Ignored while there is no TLS session."""
        key = self._current or self._pending
        if key is not None and key.theirs is not None:
            self._send_message(key, text)
            self._collect(key)

    def push_update(self, options: Sequence[str], now: float) -> bool:
        """Change options of the live tunnel: each in the push grammar, with its ``-`` and ``?``.

        False: there is no tunnel yet, or the client does not announce that it understands this.
        """
        key = self._current
        if key is None or ProtoFlag.PUSH_UPDATE not in self._features():
            return False
        for message in self._in_messages("PUSH_UPDATE", options):
            self._send_message(key, message)
        self._collect(key)
        return True

    def admit(self, now: float) -> None:
        """End a decision that ``ServerPolicy.pending`` deferred, in the client's favour."""
        key = self._pending
        if self._admit_at is not None and key is not None:
            self._admit_at = None
            self._push_to(key, now)
            self._collect(key)

    def refuse(self, reason: str, now: float) -> None:
        """Send AUTH_FAILED with ``reason`` (also ``TEMP...``, ``SESSION...``, ``CRV1...``)."""
        self._refused = True
        self.send_message(f"AUTH_FAILED,{reason}" if reason else "AUTH_FAILED", now)

    # steps

    def _on_tls_up(self, key: KeyState, now: float) -> None:
        """The client speaks first."""

    def _on_key_method_2(self, key: KeyState, now: float) -> None:
        assert key.theirs is not None
        self._enter(key, SessionState.GOT_KEY, now)
        self.client = key.theirs
        message = KeyMethod2(
            source=new_source(Role.SERVER, self._rng),
            options=options_string(self.config, Role.SERVER, stream=self._transport == "tcp"),
        )
        self._send_key_method_2(key, message)
        self._enter(key, SessionState.SENT_KEY, now)
        key.established = now
        verdict = self._authenticate(key.theirs.username, key.theirs.password)
        if verdict is not True:
            self._refused = True
            self._send_message(key, f"AUTH_FAILED,{verdict}" if verdict else "AUTH_FAILED")
            return
        self._enter(key, SessionState.ACTIVE, now)
        if self._settings is not None:
            if self.policy.renewed_auth_token is not None:
                self._tokens.append(self.policy.renewed_auth_token)
                self._send_message(key, f"PUSH_REPLY,auth-token {self.policy.renewed_auth_token}")
            self._generate(key, now)
            return
        self.client_info = parse_peer_info(key.theirs.peer_info)
        if self.policy.pending is not None:
            self._admit_at = now + self.policy.pending
            key.deadline = self._admit_at + self.config.hand_window
            self._send_message(key, f"AUTH_PENDING,timeout {self.policy.pending:.0f}")
        elif self.policy.push_unasked and ProtoFlag.REQUEST_PUSH in self._features():
            self._push_to(key, now)

    def _authenticate(self, username: str, password: str) -> bool | str:
        """True, or False or why not."""
        if self._refused:
            return False
        if password in self._tokens or self.policy.authenticate is None:
            return True
        return self.policy.authenticate(username, password)

    def _on_message(self, key: KeyState, text: str, now: float) -> None:
        match parse_message(text):
            case PushRequestMessage():
                if not self._refused and self._admit_at is None and self._answers(key):
                    self._push_to(key, now)
            case ExitMessage():
                raise TunnelClosed("the client left", restart=False)
            case _:
                self.messages = [*self.messages[-63:], text]

    def _answers(self, key: KeyState) -> bool:
        return key is self._current or key.state is SessionState.ACTIVE

    # push

    def _features(self) -> ProtoFlag:
        announced = self.client_info.get("IV_PROTO", "0")
        return ProtoFlag(int(announced) & 0xFFFF) if announced.isdigit() and len(announced) < 8 else ProtoFlag(0)

    def _choose_cipher(self) -> str | None:
        """The first of ours that the client offers: in IV_CIPHERS, by IV_NCP=2, or in its options string."""
        assert self.client is not None
        offered = self.client_info.get("IV_CIPHERS", "").upper().split(":")
        if self.client_info.get("IV_NCP") == "2":
            offered += ["AES-256-GCM", "AES-128-GCM"]
        offered.append(cipher_in_options(self.client.options) or "")
        return next((cipher for cipher in self.policy.data_ciphers if cipher in offered), None)

    def _push_to(self, key: KeyState, now: float) -> None:
        """Answer with the options; the first time, make the keys as well."""
        features = self._features()
        cipher = self._choose_cipher()
        if cipher is None:
            self.refuse("Data channel cipher negotiation failed (no shared cipher)", now)
            return
        derivation = self.policy.key_derivation
        if derivation is None:
            derivation = "tls-ekm" if ProtoFlag.TLS_KEY_EXPORT in features else "prf"
        self._cc_exit = self.policy.cc_exit and ProtoFlag.CC_EXIT_NOTIFY in features
        dynamic = self.policy.dynamic_tls_crypt and ProtoFlag.DYN_TLS_CRYPT in features
        epoch = (
            self.policy.epoch
            and ProtoFlag.DATA_EPOCH in features
            and cipher in AEAD_CIPHERS
            and self.policy.peer_id is not None
        )
        for message in self._push_messages(cipher, derivation, dynamic=dynamic, epoch=epoch):
            self._send_message(key, message)
        if self._settings is None:
            if dynamic:
                self._export_renegotiation_key(key)
            self._settings = DataSettings(
                cipher=cipher,
                auth=self.config.auth,
                key_derivation=derivation,
                peer_id=self.policy.peer_id,
                compression=self.config.compression,
                transition_window=self.config.tran_window,
                ping=self.policy.ping,
                ping_restart=self.policy.ping_restart,
                reneg_bytes=self.policy.reneg_bytes,
                reneg_packets=self.policy.reneg_packets,
                fragment=self.config.fragment,
                epoch=epoch,
                decompress=self.policy.decompress,
                options=options_string(self.config, Role.SERVER, stream=self._transport == "tcp"),
            )
            self._generate(key, now)

    def _push_messages(
        self, cipher: str, derivation: str, *, dynamic: bool = False, epoch: bool = False
    ) -> Iterator[str]:
        options = list(self.policy.push)
        if self.policy.peer_id is not None:
            options.append(f"peer-id {self.policy.peer_id}")
        options.append(f"cipher {cipher}")
        flags = {
            "cc-exit": self._cc_exit,
            "tls-ekm": derivation == "tls-ekm",
            "dyn-tls-crypt": dynamic,
            "aead-epoch": epoch,
        }
        if self._cc_exit or dynamic or epoch:
            options.append(" ".join(["protocol-flags", *(name for name, wanted in flags.items() if wanted)]))
        elif derivation == "tls-ekm":
            options.append("key-derivation tls-ekm")
        if self.policy.auth_token is not None:
            self._tokens.append(self.policy.auth_token)
            options.append(f"auth-token {self.policy.auth_token}")
        yield from self._in_messages("PUSH_REPLY", options)

    def _in_messages(self, word: str, options: Sequence[str]) -> Iterator[str]:
        """``options`` in as many messages as they need."""
        pieces = [""]
        for option in options:
            if len(pieces[-1]) + len(option) + 1 > self.policy.max_push_message and pieces[-1]:
                pieces.append("")
            pieces[-1] += f",{option}"
        for number, piece in enumerate(pieces, 1):
            # 2: more follow; 1: the last of several.
            tail = "" if len(pieces) == 1 else f",push-continuation {2 if number < len(pieces) else 1}"
            yield f"{word}{piece}{tail}"

    # timers

    def _timers(self) -> Iterator[float]:
        if self._admit_at is not None:
            yield self._admit_at

    def _on_timeout(self, now: float) -> None:
        if self._admit_at is not None and now >= self._admit_at:
            self._admit_at = None
            if self._pending is not None:
                self.send_message("AUTH_FAILED,nobody decided in time", now)
                self._refused = True
