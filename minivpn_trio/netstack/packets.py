"""Parsed packets as the stack's cores see them.

Addresses are packed bytes, 4 of IPv4 or 16 of IPv6: they compare and hash
quickly, and one code path serves both families.
"""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = [
    "ACK",
    "FIN",
    "PSH",
    "RST",
    "SYN",
    "URG",
    "Address",
    "Fragment",
    "IcmpMessage",
    "IpPayload",
    "TcpSegment",
    "UdpDatagram",
]

Address = bytes

#: TCP control bits (RFC 9293, 3.1).
FIN, SYN, RST, PSH, ACK, URG = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20


@dataclass(slots=True)
class TcpSegment:
    """A TCP segment off the fast path. Sequence and acknowledgement numbers as on the wire (32 bits),
    ``window`` unscaled."""

    src: Address
    dst: Address
    sport: int
    dport: int
    seq: int
    ack: int
    flags: int
    window: int
    payload: bytes = field(default=b"", repr=False)
    mss: int | None = None
    window_scale: int | None = None
    sack_permitted: bool = False
    #: (TSval, TSecr), RFC 7323.
    timestamps: tuple[int, int] | None = None
    #: [left edge, right edge) pairs as on the wire, RFC 2018.
    sack_blocks: tuple[tuple[int, int], ...] = ()


@dataclass(slots=True)
class UdpDatagram:
    """A UDP datagram, reassembled and checked."""

    src: Address
    dst: Address
    sport: int
    dport: int
    payload: bytes = field(default=b"", repr=False)


@dataclass(slots=True)
class IcmpMessage:
    """ICMP (4-byte addresses) or ICMPv6 (16-byte ones). ``rest`` is the second 32-bit word:
    identifier and sequence of an echo, the MTU of packet-too-big."""

    src: Address
    dst: Address
    type: int
    code: int
    rest: int
    payload: bytes = field(default=b"", repr=False)


@dataclass(slots=True)
class Fragment:
    """A piece of an IP datagram. ``ident`` has 16 bits (IPv4) or 32 (IPv6); ``offset`` is in bytes;
    ``more`` says that this is not the last piece."""

    src: Address
    dst: Address
    protocol: int
    ident: int
    offset: int
    more: bool
    payload: bytes = field(default=b"", repr=False)


@dataclass(slots=True)
class IpPayload:
    """What an IP datagram carried, whole: a reassembled TCP segment, UDP datagram or ICMP message, unparsed."""

    src: Address
    dst: Address
    protocol: int
    payload: bytes = field(default=b"", repr=False)
