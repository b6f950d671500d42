"""A client and a server session joined in memory, without packets, in virtual time.

The pair does what the stages between them do: bytes arrive in order, a soft
reset only where it is expected or answers one. ``cut`` says where the byte
stream is cut.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from tlssession_pki import CA, CLIENT_CERT, SERVER_CERT, UNIX_TIME

from minivpn_trio.config.model import Credentials, Remote, TunnelConfig
from minivpn_trio.events import Event
from minivpn_trio.items import DataChannelKey, ExpectKey, OpenKey, RenegotiationKey, RetireKey, TLSBytes, TunnelUp
from minivpn_trio.packet.ids import SessionID
from minivpn_trio.packet.opcodes import Opcode
from minivpn_trio.tlssession.machine import SessionMachine
from minivpn_trio.tlssession.server import ServerPolicy, ServerTlsSession
from minivpn_trio.tlssession.session import TlsSession
from minivpn_trio.tracing import TraceRecord

Cut = Callable[[bytes], list[bytes]]

PUSH = ("ifconfig 10.8.0.2 255.255.255.0", "topology subnet", "route-gateway 10.8.0.1", "ping 10", "ping-restart 60")

_CONFIG = TunnelConfig(
    remotes=(Remote("vpn.example"),), ca=CA.cert, cert=CLIENT_CERT.cert, key=CLIENT_CERT.key, remote_cert_tls=True
)
_SERVER_CONFIG = replace(_CONFIG, cert=SERVER_CERT.cert, key=SERVER_CERT.key)


def client_config(**changes: Any) -> TunnelConfig:
    return replace(_CONFIG, **changes)


def server_config(**changes: Any) -> TunnelConfig:
    return replace(_SERVER_CONFIG, **changes)


def credentials(username: str = "alice", password: str = "secret") -> Credentials:
    return Credentials(username, password)


class Recorder:
    """A tracer."""

    def __init__(self) -> None:
        self.records: list[TraceRecord] = []

    def trace(self, record: TraceRecord) -> None:
        self.records.append(record)


class End:
    """One session and what came out of it."""

    def __init__(self, session: SessionMachine) -> None:
        self.session = session
        self.keys: list[DataChannelKey] = []
        self.ups: list[TunnelUp] = []
        self.renegotiation_keys: list[RenegotiationKey] = []
        self.events: list[Event] = []
        self.opened: list[OpenKey] = []
        self.expected: set[int] = set()
        self.retired: list[int] = []
        self.inbox: list[object] = []
        self.error: Exception | None = None
        self.deaf = False

    def collect(self) -> None:
        self.keys += self.session.poll_keys()
        self.renegotiation_keys += self.session.poll_renegotiation_keys()
        self.ups += self.session.poll_ups()
        self.events += self.session.poll_events()

    def events_of(self, kind: type[Event]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]


class Pair:
    def __init__(
        self,
        client: TunnelConfig | None = None,
        server: TunnelConfig | None = None,
        policy: ServerPolicy | None = None,
        *,
        cut: Cut | None = None,
        seed: int = 1,
        unix_time: float = UNIX_TIME,
    ) -> None:
        self.now = 1000.0
        self.unix_time = unix_time
        rng = random.Random(seed)
        self.client_sid = SessionID(rng.randbytes(8))
        self.server_sid = SessionID(rng.randbytes(8))
        self.tracer = Recorder()
        self._cut = cut or (lambda data: [data])
        config = client or client_config()
        self.client = End(
            TlsSession(
                config=config,
                rng=rng.randbytes,
                now=self.now,
                local_session_id=lambda: self.client_sid,
                remote_session_id=lambda: self.server_sid,
                remote_address="192.0.2.1",
                unix_time=lambda: self.unix_time,
                tracer=self.tracer,
            )
        )
        self.server = End(
            ServerTlsSession(
                config=server or server_config(data_ciphers=config.data_ciphers),
                policy=policy or ServerPolicy(push=PUSH),
                rng=rng.randbytes,
                now=self.now,
                local_session_id=lambda: self.server_sid,
                remote_session_id=lambda: self.client_sid,
                unix_time=lambda: self.unix_time,
            )
        )

    @property
    def tls_client(self) -> TlsSession:
        assert isinstance(self.client.session, TlsSession)
        return self.client.session

    @property
    def tls_server(self) -> ServerTlsSession:
        assert isinstance(self.server.session, ServerTlsSession)
        return self.server.session

    def start(self) -> Pair:
        self.tls_server.start(self.now)
        self.tls_client.start(self.now)
        return self.pump()

    def pump(self) -> Pair:
        """Carry everything over until nobody has anything to say."""
        ends = ((self.client, self.server), (self.server, self.client))
        while True:
            for sender, receiver in ends:
                sender.collect()
                for item in sender.session.poll_outgoing():
                    self._carry(item, sender, receiver)
            if not (self.client.inbox or self.server.inbox):
                return self
            for end, _ in ends:
                inbox, end.inbox = end.inbox, []
                for item in inbox:
                    if not end.deaf and end.error is None:
                        self._deliver(end, item)

    def _carry(self, item: object, sender: End, receiver: End) -> None:
        match item:
            case TLSBytes(key_id, data):
                receiver.inbox += [TLSBytes(key_id, piece) for piece in self._cut(data)]
            case OpenKey():
                sender.opened.append(item)
                sender.expected.discard(item.key_id)
                receiver.inbox.append(item)
            case ExpectKey(key_id):
                sender.expected = {key_id}
            case RetireKey(key_id):
                sender.retired.append(key_id)

    def _deliver(self, end: End, item: object) -> None:
        session = end.session
        try:
            match item:
                case TLSBytes(key_id, data):
                    session.handle_tls_bytes(key_id, data, self.now)
                case OpenKey(key_id, Opcode.CONTROL_SOFT_RESET_V1):
                    if key_id in end.expected or any(opened.key_id == key_id for opened in end.opened[-1:]):
                        session.handle_soft_reset(key_id, self.now)
                case OpenKey():
                    session.handle_remote_bound(self.now)
        except Exception as exc:
            end.error = exc

    def advance(self, seconds: float) -> Pair:
        """Let time pass; each timer goes off when it is due."""
        until = self.now + seconds
        while True:
            due = [
                (end.session.next_timeout() or 0.0, number, end)
                for number, end in enumerate((self.client, self.server))
                if end.error is None and end.session.next_timeout() is not None
            ]
            if not due or min(due)[0] > until:
                break
            self.now, _, end = min(due)
            try:
                end.session.handle_timeout(self.now)
            except Exception as exc:
                end.error = exc
            self.pump()
        self.now = until
        return self


def mirrored(client: DataChannelKey, server: DataChannelKey) -> bool:
    """Whether what one end sends with is what the other receives with."""
    sending = (client.key_id, client.cipher, client.send_cipher, client.send_hmac)
    receiving = (server.key_id, server.cipher, server.receive_cipher, server.receive_hmac)
    back = (server.send_cipher, server.send_hmac) == (client.receive_cipher, client.receive_hmac)
    return sending == receiving and back and client.send_cipher != client.receive_cipher
