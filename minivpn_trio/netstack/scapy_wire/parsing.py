"""From bytes to what they say.

scapy is lenient, so nothing of it is trusted:

- every call is fenced, whatever it raises becomes ProtocolError;
- lengths are checked before it looks, and bytes behind the datagram's end (padding) are cut off;
- malformed TCP options end the option list before scapy sees them, and values are used only if they
  have the type that a well-formed option has;
- checksums, which scapy does not verify, are verified here.
"""

from __future__ import annotations

from functools import partial
from ipaddress import IPv4Address, IPv6Address
from typing import Any

from ...errors import DropReason, ProtocolError
from ..packets import SYN, Address, Fragment, IcmpMessage, IpPayload, TcpSegment, UdpDatagram
from .fencing import fenced
from .headers import (
    ICMP,
    ICMP_HEADER,
    ICMP_WORDS,
    ICMPV6,
    IPV4_HEADER,
    IPV6_HEADER,
    MAX_DATAGRAM,
    TCP,
    TCP_HEADER,
    UDP,
    UDP_HEADER,
    checksum_holds,
    pseudo_header,
)
from .loading import load

__all__ = ["UnknownProtocolError", "parse_transport_untrusted", "parse_untrusted"]

_HOP_BY_HOP, _ROUTING, _FRAGMENT, _DESTINATION_OPTIONS, _NO_NEXT_HEADER = 0, 43, 44, 60, 59

#: Loose and strict.
_SOURCE_ROUTES = {131, 137}
#: What a fragmented datagram may begin with; hop-by-hop options stand before the fragment header.
_AFTER_REASSEMBLY = {_ROUTING, _DESTINATION_OPTIONS}

#: More extension headers than this in one packet is an attack, not a use.
_MAX_EXTENSION_HEADERS = 8

Parsed = TcpSegment | UdpDatagram | IcmpMessage | Fragment


class UnknownProtocolError(ProtocolError):
    """A packet is in order, but carries what is neither TCP, UDP nor ICMP."""


def parse_untrusted(packet: bytes) -> Parsed:
    """What ``packet``, an IPv4 or IPv6 packet of at most 65,575 bytes, carries.

    A TCP segment, a UDP datagram or an ICMP message with its checksum
    verified; or, unverified, a Fragment for reassembly. Raises ProtocolError
    for everything else, and nothing but ProtocolError whatever the bytes.
    """
    if not packet:
        raise _too_short("an empty packet")
    version = packet[0] >> 4
    if version == 4:
        parsed = fenced(partial(_parse_ipv4, packet))
    elif version == 6:
        parsed = fenced(partial(_parse_ipv6, packet))
    else:
        raise ProtocolError(DropReason.MALFORMED, f"IP version {version}")
    if isinstance(parsed, Fragment):
        return parsed
    return parse_transport_untrusted(parsed)


def parse_transport_untrusted(datagram: IpPayload) -> TcpSegment | UdpDatagram | IcmpMessage:
    """What a whole, perhaps reassembled, datagram carries. Raises only ProtocolError."""
    ipv4 = len(datagram.src) == 4
    if not ipv4 and datagram.protocol in _AFTER_REASSEMBLY:
        datagram = fenced(partial(_skip_extensions, datagram))
    protocol = datagram.protocol
    if protocol == TCP:
        return fenced(partial(_parse_tcp, datagram))
    if protocol == UDP:
        return fenced(partial(_parse_udp, datagram))
    if protocol == (ICMP if ipv4 else ICMPV6):
        return fenced(partial(_parse_icmp, datagram))
    raise UnknownProtocolError(DropReason.NO_SOCKET, f"IP protocol {protocol}")


# --- IP ---


def _parse_ipv4(packet: bytes) -> IpPayload | Fragment:
    header_length = (packet[0] & 15) * 4
    if header_length < IPV4_HEADER or len(packet) < header_length:
        raise _too_short("IPv4 header")
    header = load().ip(packet[:header_length])
    length = _number(header.len, 16)
    if not header_length <= length <= len(packet):
        raise _too_short("IPv4 total length")
    if not checksum_holds(packet[:header_length]):
        raise ProtocolError(DropReason.BAD_CHECKSUM, "IPv4 header")
    src, dst = _packed(header.src), _packed(header.dst)
    protocol = _number(header.proto, 8)
    offset = _number(header.frag, 13) * 8
    more = bool(_number(int(header.flags), 3) & 1)
    _check_ipv4_options(packet[IPV4_HEADER:header_length])
    payload = packet[header_length:length]
    if not offset and not more:
        return IpPayload(src, dst, protocol, payload)
    most = MAX_DATAGRAM - header_length
    return _fragment(src, dst, protocol, _number(header.id, 16), offset, more, payload, most)


def _check_ipv4_options(options: bytes) -> None:
    """Drop what was routed by its sender, as every host does today (RFC 7126, 4.3 and 4.4), and lists that
    make no sense. All other options are skipped."""
    at = 0
    while at < len(options) and options[at]:
        if options[at] == 1:
            at += 1
            continue
        size = options[at + 1] if at + 1 < len(options) else 0
        if size < 2 or at + size > len(options):
            raise ProtocolError(DropReason.MALFORMED, "IPv4 options")
        if options[at] in _SOURCE_ROUTES:
            raise ProtocolError(DropReason.MALFORMED, "a source route")
        at += size


def _parse_ipv6(packet: bytes) -> IpPayload | Fragment:
    if len(packet) < IPV6_HEADER:
        raise _too_short("IPv6 header")
    layers = load()
    header = layers.ipv6(packet[:IPV6_HEADER])
    end = IPV6_HEADER + _number(header.plen, 16)
    if end > len(packet):
        raise _too_short("IPv6 payload length")
    return _walk(_packed(header.src), _packed(header.dst), _number(header.nh, 8), packet[:end], IPV6_HEADER)


def _skip_extensions(datagram: IpPayload) -> IpPayload:
    """What stands behind the extension headers that a reassembled datagram begins with."""
    found = _walk(datagram.src, datagram.dst, datagram.protocol, datagram.payload, 0)
    if isinstance(found, Fragment):
        raise ProtocolError(DropReason.FRAGMENT, "a fragment of a fragment")
    return found


def _walk(src: Address, dst: Address, following: int, packet: bytes, at: int) -> IpPayload | Fragment:
    """Go through the extension headers of ``packet`` from ``at`` on, the first of which is ``following``."""
    layers, end = load(), len(packet)
    for _ in range(_MAX_EXTENSION_HEADERS):
        if following not in {_HOP_BY_HOP, _ROUTING, _DESTINATION_OPTIONS, _FRAGMENT}:
            return IpPayload(src, dst, following, packet[at:end])
        if at + 8 > end:
            raise _too_short("IPv6 extension header")
        if following == _FRAGMENT:
            piece = layers.ipv6_fragment(packet[at : at + 8])
            protocol = _number(piece.nh, 8)
            offset, more = _number(piece.offset, 13) * 8, bool(_number(piece.m, 1))
            payload = packet[at + 8 : end]
            if not offset and not more:
                # An atomic fragment (RFC 6946): whole as it is.
                following, at = protocol, at + 8
                continue
            # Extension headers before this one are in the payload length of the whole as well (RFC 8200, 4.5).
            most = MAX_DATAGRAM - (at - IPV6_HEADER)
            return _fragment(src, dst, protocol, _number(piece.id, 32), offset, more, payload, most)
        if following == _HOP_BY_HOP and at != IPV6_HEADER:
            raise ProtocolError(DropReason.MALFORMED, "hop-by-hop options out of place")
        if following == _ROUTING and packet[at + 3]:
            raise ProtocolError(DropReason.MALFORMED, "a routing header with segments left (RFC 5095)")
        behind = at + 8 + packet[at + 1] * 8
        if behind > end:
            raise _too_short("IPv6 extension header")
        if following != _ROUTING:
            _check_ipv6_options(packet[at + 2 : behind])
        following, at = packet[at], behind
    raise ProtocolError(DropReason.LIMIT, "too many IPv6 extension headers")


def _check_ipv6_options(options: bytes) -> None:
    """Drop the packet if an option's type says so: none but padding is known here, and the two highest bits tell
    what who does not know it has to do (RFC 8200, 4.2)."""
    at = 0
    while at < len(options):
        if not options[at]:
            at += 1
            continue
        if at + 2 > len(options) or at + 2 + options[at + 1] > len(options):
            raise ProtocolError(DropReason.MALFORMED, "IPv6 options")
        if options[at] >> 6:
            raise ProtocolError(DropReason.MALFORMED, "an IPv6 option that must be known")
        at += 2 + options[at + 1]


def _fragment(
    src: Address, dst: Address, protocol: int, ident: int, offset: int, more: bool, payload: bytes, most: int
) -> Fragment:
    """A piece of a datagram that may carry ``most`` bytes: no length field can say more of the whole, so nobody sent
    such a thing in good faith, and no answer as long as it could be built."""
    if not payload or (more and len(payload) % 8):
        raise ProtocolError(DropReason.FRAGMENT, "a fragment of impossible size")
    if offset + len(payload) > most:
        raise ProtocolError(DropReason.FRAGMENT, "a fragment beyond the largest datagram")
    return Fragment(src, dst, protocol, ident, offset, more, payload)


# --- TCP, UDP and ICMP ---


def _parse_tcp(datagram: IpPayload) -> TcpSegment:
    body = datagram.payload
    if len(body) < TCP_HEADER:
        raise _too_short("TCP header")
    header_length = (body[12] >> 4) * 4
    if not TCP_HEADER <= header_length <= len(body):
        raise _too_short("TCP data offset")
    if not checksum_holds(pseudo_header(datagram.src, datagram.dst, TCP, len(body)) + body):
        raise ProtocolError(DropReason.BAD_CHECKSUM, "TCP")
    options = _well_formed_options(body[TCP_HEADER:header_length])
    header = load().tcp(body[:TCP_HEADER] + options.ljust(header_length - TCP_HEADER, b"\0"))
    segment = TcpSegment(
        src=datagram.src,
        dst=datagram.dst,
        sport=_number(header.sport, 16),
        dport=_number(header.dport, 16),
        seq=_number(header.seq, 32),
        ack=_number(header.ack, 32),
        # ECN's three bits are not ours.
        flags=_number(int(header.flags), 9) & 0x3F,
        window=_number(header.window, 16),
        payload=body[header_length:],
    )
    for option in header.options:
        _take_option(segment, *option)
    return segment


def _well_formed_options(options: bytes) -> bytes:
    """The options up to the first whose length cannot be right, where RFC 9293 (3.1) gives no meaning
    to the rest. scapy would read on."""
    at = 0
    while at < len(options):
        kind = options[at]
        if kind == 0:
            break
        if kind == 1:
            at += 1
            continue
        size = options[at + 1] if at + 1 < len(options) else 0
        if size < 2 or at + size > len(options):
            break
        at += size
    return options[:at]


def _take_option(segment: TcpSegment, kind: object, value: Any) -> None:
    """Store one option in ``segment``, unless its value has not the shape that its kind requires; such an
    option is ignored, the segment is not. MSS, window scale and SACK-permitted count only in a SYN."""
    syn = bool(segment.flags & SYN)
    if kind == "MSS" and syn and isinstance(value, int):
        segment.mss = _number(value, 16)
    elif kind == "WScale" and syn and isinstance(value, int):
        segment.window_scale = _number(value, 8)
    elif kind == "SAckOK" and syn and value == b"":
        segment.sack_permitted = True
    elif kind == "Timestamp" and isinstance(value, tuple) and len(value) == 2:
        segment.timestamps = (_number(value[0], 32), _number(value[1], 32))
    elif kind == "SAck" and isinstance(value, tuple) and value and len(value) % 2 == 0:
        edges = [_number(edge, 32) for edge in value]
        segment.sack_blocks = tuple(zip(edges[::2], edges[1::2], strict=True))


def _parse_udp(datagram: IpPayload) -> UdpDatagram:
    body = datagram.payload
    if len(body) < UDP_HEADER:
        raise _too_short("UDP header")
    header = load().udp(body[:UDP_HEADER])
    length = _number(header.len, 16)
    if not UDP_HEADER <= length <= len(body):
        raise _too_short("UDP length")
    body = body[:length]
    if _number(header.chksum, 16) or len(datagram.src) == 16:
        # 0 means "none" over IPv4 (RFC 768) and is forbidden over IPv6 (RFC 8200, 8.1).
        pseudo = pseudo_header(datagram.src, datagram.dst, UDP, length)
        if not header.chksum or not checksum_holds(pseudo + body):
            raise ProtocolError(DropReason.BAD_CHECKSUM, "UDP")
    return UdpDatagram(
        src=datagram.src,
        dst=datagram.dst,
        sport=_number(header.sport, 16),
        dport=_number(header.dport, 16),
        payload=body[UDP_HEADER:],
    )


def _parse_icmp(datagram: IpPayload) -> IcmpMessage:
    body = datagram.payload
    if len(body) < ICMP_HEADER:
        raise _too_short("ICMP header")
    ipv4 = len(datagram.src) == 4
    pseudo = b"" if ipv4 else pseudo_header(datagram.src, datagram.dst, ICMPV6, len(body))
    if not checksum_holds(pseudo + body):
        raise ProtocolError(DropReason.BAD_CHECKSUM, "ICMP")
    # scapy's classes differ by type and read on behind the first eight bytes for some of them; the four
    # fields that all types share are read plainly.
    kind, code, _, rest = ICMP_WORDS.unpack_from(body)
    return IcmpMessage(datagram.src, datagram.dst, kind, code, rest, body[ICMP_HEADER:])


# --- checks ---


def _number(value: object, bits: int) -> int:
    """``value``, if it is what a header field of ``bits`` bits may hold."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << bits:
        raise ProtocolError(DropReason.MALFORMED, "a header field of the wrong type")
    return int(value)


def _packed(text: object) -> Address:
    if not isinstance(text, str):
        raise ProtocolError(DropReason.MALFORMED, "an address of the wrong type")
    return IPv6Address(text).packed if ":" in text else IPv4Address(text).packed


def _too_short(what: str) -> ProtocolError:
    return ProtocolError(DropReason.TOO_SHORT, what)
