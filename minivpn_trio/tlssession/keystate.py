"""KeyState: the negotiation of one data key over one TLS session.

Each key id has one, and with it a TLS session of its own. It knows how far
this key has come, holds both sides' key method 2 and cuts the control
messages that follow; what they mean is decided above (machine.py).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from ..errors import ConnectError, ProtocolError, Stage
from ..events import SessionState
from ..items import DataChannelKey
from ..packet.ids import KeyID, Role
from .keymethod2 import MAX_KEY_METHOD_2, KeyMethod2, decode_untrusted
from .keys import key2_from_exporter, key2_from_sources, split_key2
from .messages import MessageFramer
from .openssl import TLSEngine

__all__ = ["DataSettings", "KeyState"]


class DataSettings(NamedTuple):
    """What all data keys of a session have in common; the fields are those of DataChannelKey."""

    cipher: str
    auth: str
    key_derivation: str
    peer_id: int | None
    compression: str = "none"
    transition_window: float = 3600.0
    ping: float = 0.0
    ping_restart: float = 0.0
    ping_exit: float = 0.0
    inactive: float = 0.0
    inactive_bytes: int = 0
    reneg_bytes: int = 0
    reneg_packets: int = 0
    fragment: int | None = None
    epoch: bool = False
    decompress: int = 0
    options: str = ""


@dataclass(slots=True, eq=False)
class KeyState:
    """One key. ``by`` says whose wish it was: ``client`` or ``server``."""

    key_id: KeyID
    role: Role
    by: str
    #: When the reset was sent or accepted, and until when the key must be there.
    started: float
    deadline: float
    state: SessionState = SessionState.PRE_START
    engine: TLSEngine | None = None
    #: What TLS or the key exchange failed of.
    failure: ConnectError | None = None
    #: When TLS and key method 2 were done.
    established: float | None = None
    #: When the data keys were made.
    generated: float | None = None
    #: When it is forgotten; None: not decided yet.
    expires: float | None = None
    ours: KeyMethod2 | None = field(default=None, repr=False)
    theirs: KeyMethod2 | None = field(default=None, repr=False)
    framer: MessageFramer = field(default_factory=MessageFramer, repr=False)
    _inside: bytes = field(default=b"", repr=False)

    def receive(self, data: bytes) -> tuple[bool, bool]:
        """Give the peer's bytes to TLS. Returns whether TLS, and whether the peer's key method 2,
        were completed by them. Call ``messages`` afterwards; ``failure`` counts after those,
        since the peer wrote them before it.
        """
        engine = self.engine
        if engine is None or self.failure is not None:
            return False, False
        was_up, had_theirs = engine.established, self.theirs is not None
        try:
            engine.feed(data)
            if engine.handshake():
                self._read(engine)
        except ConnectError as exc:
            self.failure = exc
        return engine.established and not was_up, self.theirs is not None and not had_theirs

    def _read(self, engine: TLSEngine) -> None:
        for piece in engine.read():
            self._inside += piece
            if self.theirs is None:
                self._take_key_method_2()
        if engine.peer_left and self.theirs is None:
            raise ConnectError("the peer ended TLS before the key exchange", stage=Stage.KEY_EXCHANGE)

    def _take_key_method_2(self) -> None:
        # Tried at the end of each record: a record is what the peer wrote at once.
        sender = Role.SERVER if self.role is Role.CLIENT else Role.CLIENT
        try:
            found = decode_untrusted(self._inside, sender)
        except ProtocolError as exc:
            raise ConnectError(
                f"the peer's key exchange cannot be read: {exc}", stage=Stage.KEY_EXCHANGE
            ) from None
        if found is not None:
            self.theirs, used = found
            self._inside = self._inside[used:]
        elif len(self._inside) > MAX_KEY_METHOD_2:
            raise ConnectError("the peer's key exchange never ends", stage=Stage.KEY_EXCHANGE)

    def messages(self) -> list[str]:
        """The control messages that are complete; none before the peer's key method 2."""
        if self.theirs is None:
            return []
        inside, self._inside = self._inside, b""
        return self.framer.feed(inside)

    def data_key(
        self, settings: DataSettings, *, local_sid: bytes, remote_sid: bytes, send_after: float
    ) -> DataChannelKey:
        """The data key, by the derivation that ``settings`` names. Both sides' key method 2 are there."""
        assert self.engine is not None
        assert self.ours is not None
        assert self.theirs is not None
        if settings.key_derivation == "tls-ekm":
            key2 = key2_from_exporter(self.engine.export)
        elif self.role is Role.CLIENT:
            key2 = key2_from_sources(
                self.ours.source, self.theirs.source, client_sid=local_sid, server_sid=remote_sid
            )
        else:
            key2 = key2_from_sources(
                self.theirs.source, self.ours.source, client_sid=remote_sid, server_sid=local_sid
            )
        slots = split_key2(key2, self.role)
        return DataChannelKey(
            key_id=self.key_id,
            cipher=settings.cipher,
            auth=settings.auth,
            send_cipher=slots.send_cipher,
            send_hmac=slots.send_hmac,
            receive_cipher=slots.receive_cipher,
            receive_hmac=slots.receive_hmac,
            peer_id=settings.peer_id,
            compression=settings.compression,
            send_after=send_after,
            transition_window=settings.transition_window,
            ping=settings.ping,
            ping_restart=settings.ping_restart,
            ping_exit=settings.ping_exit,
            inactive=settings.inactive,
            inactive_bytes=settings.inactive_bytes,
            reneg_bytes=settings.reneg_bytes,
            reneg_packets=settings.reneg_packets,
            fragment=settings.fragment,
            epoch=settings.epoch,
            decompress=settings.decompress,
            options=settings.options,
        )
