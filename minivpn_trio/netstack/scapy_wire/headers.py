"""What parsing and building share: protocol numbers, the sizes of headers, and the checksum over them."""

from __future__ import annotations

from struct import Struct

from ..packets import Address

__all__ = [
    "ICMP",
    "ICMPV6",
    "ICMP_HEADER",
    "ICMP_WORDS",
    "IPV4_HEADER",
    "IPV6_HEADER",
    "MAX_DATAGRAM",
    "TCP",
    "TCP_HEADER",
    "UDP",
    "UDP_HEADER",
    "checksum",
    "checksum_holds",
    "pseudo_header",
]

#: IP protocol numbers.
ICMP, TCP, UDP, ICMPV6 = 1, 6, 17, 58

#: Bytes, without options.
TCP_HEADER, UDP_HEADER, ICMP_HEADER, IPV4_HEADER, IPV6_HEADER = 20, 8, 8, 20, 40
MAX_DATAGRAM = 65535

#: Type, code, checksum, and the rest of the header.
ICMP_WORDS = Struct("!BBHI")


def checksum_holds(data: bytes) -> bool:
    """Whether the 16-bit words of ``data`` sum to 0xFFFF in ones' complement. 2**16 is 1 modulo 65535, so
    the sum of the words is the big number itself, modulo 65535."""
    if len(data) & 1:
        data += b"\0"
    return int.from_bytes(data, "big") % 65535 == 0


def checksum(data: bytes) -> int:
    """The checksum to put where ``data`` has two zero bytes (RFC 1071)."""
    if len(data) & 1:
        data += b"\0"
    return 65535 - int.from_bytes(data, "big") % 65535


def pseudo_header(src: Address, dst: Address, protocol: int, length: int) -> bytes:
    """What TCP, UDP and ICMPv6 checksum before the ``length`` bytes of their own (RFC 9293, 3.1; RFC 8200, 8.1)."""
    if len(src) == 4:
        return src + dst + bytes((0, protocol)) + length.to_bytes(2, "big")
    return src + dst + length.to_bytes(4, "big") + bytes((0, 0, 0, protocol))
