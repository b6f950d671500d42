"""The ICMP errors that this host reports: a closed port, a protocol that it does not speak, and a datagram of
which pieces are missing.

Never about an ICMP error, a multicast or broadcast packet, or a fragment other
than the first (RFC 1122, 3.2.2; RFC 4443, 2.4): whoever calls has checked that
the packet is from one host to another; the rest is seen to here. How many go
out is the stack's business.

A datagram that was put together from fragments is quoted as if it had come whole.

Sources: RFC 792, RFC 1122 (3.2.2, 3.3.2), RFC 1812 (4.3.2.3), RFC 4443 (2.4, 3), RFC 8200 (4.5).
"""

from __future__ import annotations

from struct import Struct

from .packets import Address, Fragment, IcmpMessage, IpPayload

__all__ = ["port_unreachable", "protocol_unreachable", "reassembly_time_exceeded", "whole_packet"]

#: What an error may quote, so that it fits every path whole.
_QUOTE4, _QUOTE6 = 548, 1232

_ICMP, _ICMPV6, _NO_NEXT_HEADER = 1, 58, 59
_FRAGMENT = 44
_EXTENSIONS = {0, 43, _FRAGMENT, 60}
_MORE = 0x2000
_IPV4 = Struct("!BBHHHBBH4s4s")
_IPV6 = Struct("!IHBB16s16s")
_IPV6_FRAGMENT = Struct("!BxHI")


def _ip_header(src: Address, dst: Address, protocol: int, size: int, ident: int = 0, flags: int = 0) -> bytes:
    """An IP header for ``size`` bytes of payload."""
    if len(src) == 4:
        fields = (0x45, 0, min(20 + size, 65535), ident, flags, 64, protocol)
        checksum = -int.from_bytes(_IPV4.pack(*fields, 0, src, dst), "big") % 65535
        return _IPV4.pack(*fields, checksum, src, dst)
    return _IPV6.pack(6 << 28, min(size, 65535), protocol, 64, src, dst)


def whole_packet(datagram: IpPayload) -> bytes:
    """``datagram`` as one IP packet, as far as an error would quote it."""
    header = _ip_header(datagram.src, datagram.dst, datagram.protocol, len(datagram.payload))
    return header + datagram.payload[:_QUOTE6]


def _about(packet: bytes, error4: tuple[int, int], error6: tuple[int, int], rest: int = 0) -> IcmpMessage:
    """The error to the sender of ``packet``."""
    if packet[0] >> 4 == 4:
        return IcmpMessage(packet[16:20], packet[12:16], *error4, rest, packet[:_QUOTE4])
    return IcmpMessage(packet[24:40], packet[8:24], *error6, rest, packet[:_QUOTE6])


def port_unreachable(packet: bytes) -> IcmpMessage:
    """Nobody has the UDP port that ``packet`` is for."""
    return _about(packet, (3, 3), (1, 4))


def protocol_unreachable(packet: bytes) -> IcmpMessage | None:
    """What ``packet`` carries is no protocol of ours; for IPv6 with a pointer to the field that says so. None: the
    sender said that it carries nothing."""
    if packet[0] >> 4 == 4:
        return _about(packet, (3, 2), (4, 1))
    field, following = 6, 40
    while packet[field] in _EXTENSIONS and following + 8 <= len(packet):
        size = 8 if packet[field] == _FRAGMENT else 8 + packet[following + 1] * 8
        field, following = following, following + size
    return None if packet[field] == _NO_NEXT_HEADER else _about(packet, (3, 2), (4, 1), field)


def reassembly_time_exceeded(first: Fragment) -> IcmpMessage | None:
    """The rest of the datagram that ``first`` is the beginning of did not come in time. None: it was an ICMP error."""
    src, dst, protocol, payload = first.src, first.dst, first.protocol, first.payload
    if len(src) == 4:
        if protocol == _ICMP and payload[0] not in (0, 8):
            return None
        packet = _ip_header(src, dst, protocol, len(payload), first.ident, _MORE) + payload
    else:
        if protocol == _ICMPV6 and payload[0] < 128:
            return None
        header = _ip_header(src, dst, _FRAGMENT, 8 + len(payload))
        packet = header + _IPV6_FRAGMENT.pack(protocol, 1, first.ident) + payload
    return _about(packet, (11, 1), (3, 1))
