"""What a control wrap is: it stands between the muxer and the wire.

A wrap keeps the replay ids of what it sends and the replay window of what it
receives, so there is one for each session and it is never reused for the next.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import NamedTuple

from ..packet.ids import Role
from ..packet.opcodes import Opcode
from .early_negotiation import EarlyFlag

__all__ = ["ControlWrap", "Opened"]


class Opened(NamedTuple):
    """A control packet that is authentic, and of which nothing was believed yet."""

    #: Opcode and session id, 9 bytes.
    head: bytes
    body: bytes
    #: Has the packet count, at ``now`` (monotonic seconds): it is no replay, and would be one from now on. Raises
    #: ProtocolError: REPLAY.
    accept: Callable[[float], object]


class ControlWrap(ABC):
    """Turns a control packet (``packet.codec``) into a datagram and back."""

    @property
    @abstractmethod
    def overhead(self) -> int:
        """Bytes to set aside for the wrap in a datagram."""

    @property
    def wrapped_key_size(self) -> int:
        """Bytes by which a message that carries the client's wrapped key is longer; 0: there is none."""
        return 0

    @property
    def client_reset(self) -> Opcode:
        """The opcode that opens a session from the client's side."""
        return Opcode.CONTROL_HARD_RESET_CLIENT_V2

    @property
    def early_flags(self) -> EarlyFlag:
        """What a server's hard reset asks the client for."""
        return EarlyFlag(0)

    @abstractmethod
    def wrap(self, head: bytes, body: bytes, now: float) -> bytes:
        """The datagram for a control packet of ``head`` (9 bytes) and ``body``."""

    @abstractmethod
    def open_untrusted(self, datagram: bytes) -> Opened:
        """What is in an authentic ``datagram``; ProtocolError for any other. Changes nothing.

        Whoever has the static key makes authentic packets, so a packet that is of no use is left at that: only
        one that belongs to the session may move the replay window, by ``accept``.
        """

    def unwrap_untrusted(self, datagram: bytes, now: float) -> tuple[bytes, bytes]:
        """Head and body of an authentic, fresh ``datagram``, which counts; ProtocolError for any other.

        ``now`` is monotonic seconds, for the replay window.
        """
        opened = self.open_untrusted(datagram)
        opened.accept(now)
        return opened.head, opened.body

    @abstractmethod
    def renegotiation(self, exported: bytes, role: Role) -> ControlWrap:
        """The wrap of the keys after the first, made of 256 bytes ``exported`` from the first TLS
        session: dynamic tls-crypt."""
