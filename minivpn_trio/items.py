"""What crosses the boundaries between stages.

Stages never import each other; they agree on these types, and ``wiring.py``
says which edge carries which.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from .challenge import Challenge
from .config.model import Credentials
from .config.tunnel_info import TunnelInfo
from .packet.ids import KeyID, PacketID
from .packet.opcodes import Opcode

__all__ = [
    "Burst",
    "ChallengeAnswer",
    "ControlBurst",
    "DataChannelKey",
    "ExpectKey",
    "ForeignBurst",
    "KeepaliveTimes",
    "OpenKey",
    "RekeyWanted",
    "RemoteBound",
    "RenegotiationKey",
    "RetireKey",
    "Segment",
    "SequencedPacket",
    "SoftResetSeen",
    "TLSBytes",
    "TunnelUp",
]

#: 1 to 64 datagrams or IP packets. One await, one clock reading and one trace record a burst.
Burst = list[bytes]


class ForeignBurst(Burst):
    """Datagrams from ``source``, which is not where the peer is known to be (``float``).

    ``source`` is for the transport that made it. Whoever finds out that one of them is the peer's own says so to it.
    """

    __slots__ = ("source",)

    def __init__(self, source: Any, datagrams: Iterable[bytes] = ()) -> None:
        super().__init__(datagrams)
        self.source: Any = source


class SequencedPacket(NamedTuple):
    """A control packet between packetmuxer and reliable, without what only the muxer knows
    (session ids, wrapping).

    ``packet_id`` is None for ACK_V1. ``attempt`` counts transmissions from 1 on the way down
    and is 0 on the way up.
    """

    key_id: KeyID
    opcode: Opcode
    acks: tuple[PacketID, ...]
    packet_id: PacketID | None
    payload: bytes
    attempt: int = 0


class ControlBurst(NamedTuple):
    """Control packets on the edge to packetmuxer.move_down, which carries data bursts too."""

    packets: list[SequencedPacket]


class Segment(NamedTuple):
    """The payload of one control packet, delivered once and in order; between reliable and
    controlchannel."""

    key_id: KeyID
    opcode: Opcode
    payload: bytes


class OpenKey(NamedTuple):
    """Start a reliable conversation for ``key_id`` by sending ``opcode`` (a hard or soft reset)
    as message 0. Travels tlssession -> controlchannel -> reliable."""

    key_id: KeyID
    opcode: Opcode
    payload: bytes = b""


@dataclass(frozen=True, slots=True)
class ExpectKey:
    """From now on a soft reset by the peer for ``key_id`` is accepted; any other is not.
    Travels tlssession -> controlchannel -> reliable."""

    key_id: KeyID


@dataclass(frozen=True, slots=True)
class RetireKey:
    """Forget the reliable conversation of ``key_id``. Travels like OpenKey."""

    key_id: KeyID


class TLSBytes(NamedTuple):
    """A piece of the TLS byte stream of ``key_id``; between controlchannel and tlssession."""

    key_id: KeyID
    data: bytes


@dataclass(frozen=True, slots=True)
class RemoteBound:
    """packetmuxer tells tlssession: a packet that acknowledges our hard reset arrived, the
    remote session id is known."""


@dataclass(frozen=True, slots=True)
class SoftResetSeen:
    """controlchannel tells tlssession: the peer's soft reset for ``key_id`` was accepted."""

    key_id: KeyID


class RekeyWanted(NamedTuple):
    """datachannel tells tlssession: the current key is near one of its limits."""

    reason: str


@dataclass(frozen=True, slots=True)
class RenegotiationKey:
    """tlssession tells packetmuxer: both sides wrap the control packets of all later keys with a
    key made of these 256 bytes of the first TLS session (dynamic tls-crypt).

    It is sent before whatever can lead to a soft reset.
    """

    exported: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class ChallengeAnswer:
    """Whoever was asked tells tlssession: the answer to ``challenge``; None: there will be none."""

    challenge: Challenge
    answer: Credentials | str | None = field(repr=False)


class TunnelUp(NamedTuple):
    """tlssession tells the client: PUSH_REPLY is in, the keys are installed; or, later, what
    the server changed."""

    info: TunnelInfo
    #: Names of the fields of ``info`` that a PUSH_UPDATE changed; empty when the tunnel came up.
    changed: tuple[str, ...] = ()


class KeepaliveTimes(NamedTuple):
    """tlssession tells datachannel: the server changed the keepalive of the live tunnel. Seconds; 0: off.

    See ``DataChannelKey`` for what each means.
    """

    ping: float
    ping_restart: float
    ping_exit: float


@dataclass(frozen=True, slots=True)
class DataChannelKey:
    """All that datachannel needs to use one data key. tlssession makes it after PUSH_REPLY.

    The secrets stay out of ``repr``.
    """

    key_id: KeyID
    #: OpenVPN's name, upper case: ``AES-256-GCM``.
    cipher: str
    #: Digest for CBC ciphers, OpenVPN's name, upper case (``SHA256``); unused by AEAD ciphers.
    auth: str
    #: The 64-byte slots of key2 (protocol.md 2.4), from our point of view.
    send_cipher: bytes = field(repr=False)
    send_hmac: bytes = field(repr=False)
    receive_cipher: bytes = field(repr=False)
    receive_hmac: bytes = field(repr=False)
    #: None: not pushed, so packets go out as DATA_V1.
    peer_id: int | None
    #: ``none``, ``comp-lzo-no``, ``stub`` or ``stub-v2``.
    compression: str = "none"
    #: Seconds after installation before this key sends (an older one sends until then).
    #: 0 for a session's first key.
    send_after: float = 0.0
    #: Seconds after which an older key that this one replaces is forgotten (tran-window).
    transition_window: float = 3600.0
    #: Keepalive, seconds; 0: off. ``ping`` is the longest silence on the way out,
    #: ``ping_restart`` / ``ping_exit`` the longest silence of the peer.
    ping: float = 0.0
    ping_restart: float = 0.0
    ping_exit: float = 0.0
    #: The tunnel ends after so long with less than ``inactive_bytes`` of IP packets, both ways together; 0: never.
    inactive: float = 0.0
    inactive_bytes: int = 0
    #: Renegotiate after this many bytes or packets in either direction; 0: no such limit.
    reneg_bytes: int = 0
    reneg_packets: int = 0
    #: Largest datagram payload for ``fragment``; None: no fragment header at all.
    fragment: int | None = None
    #: AEAD packets carry 64-bit epoch packet ids and trailing tags (2.7 servers).
    epoch: bool = False
    #: Largest packet to decompress, bytes; 0: compressed packets are dropped.
    decompress: int = 0
    #: Our options string, for peers that ask for it on the data channel (OCC); empty: no answer.
    options: str = ""
