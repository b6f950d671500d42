"""From what is to be said to bytes.

Much of what is said answers a packet, and repeats what is in it. So every call of scapy is fenced here as well: what it
raises becomes ProtocolError, which drops the packet that asked for the answer.
"""

from __future__ import annotations

from functools import partial
from ipaddress import IPv4Address, IPv6Address
from typing import Any

from ..packets import Address, IcmpMessage, TcpSegment, UdpDatagram
from .fencing import built
from .headers import ICMP, ICMP_WORDS, ICMPV6, IPV4_HEADER, MAX_DATAGRAM, TCP, UDP, UDP_HEADER, checksum, pseudo_header
from .loading import load

__all__ = ["build_icmp", "build_tcp", "build_udp"]

_ECHO_TYPES = {8, 0}


def build_tcp(segment: TcpSegment, *, ident: int = 0, ttl: int = 64) -> bytes:
    """The IP packet for ``segment``, don't-fragment set, checksums filled in.

    ``ident`` is IPv4's identification. At most 40 bytes of options fit: ValueError if more are asked for. Raises
    ProtocolError if scapy cannot build it.
    """
    options = 4 * (segment.mss is not None) + 12 * (segment.timestamps is not None)
    options += 4 * (segment.window_scale is not None) + (4 + 8 * len(segment.sack_blocks)) * bool(segment.sack_blocks)
    options += 4 * (segment.sack_permitted and segment.timestamps is None)
    if options > 40:
        raise ValueError(f"{options} bytes of TCP options, 40 is the most")
    return built(partial(_tcp_packet, segment, ident, ttl))


def _tcp_packet(segment: TcpSegment, ident: int, ttl: int) -> bytes:
    packet = _network_layer(segment.src, segment.dst, TCP, ident, ttl) / _tcp_layer(segment)
    if segment.payload:
        packet /= load().raw(bytes(segment.payload))
    return bytes(packet)


def build_udp(datagram: UdpDatagram, *, ident: int = 0, ttl: int = 64) -> bytes:
    """The IP packet for ``datagram``, don't-fragment set, checksums filled in. Raises ValueError if it is
    too long for IP, ProtocolError if scapy cannot build it."""
    if len(datagram.payload) > MAX_DATAGRAM - UDP_HEADER - (IPV4_HEADER if len(datagram.src) == 4 else 0):
        raise ValueError(f"a UDP payload of {len(datagram.payload)} bytes")
    return built(partial(_udp_packet, datagram, ident, ttl))


def _udp_packet(datagram: UdpDatagram, ident: int, ttl: int) -> bytes:
    layers = load()
    packet = _network_layer(datagram.src, datagram.dst, UDP, ident, ttl) / layers.udp(
        sport=datagram.sport, dport=datagram.dport
    )
    if datagram.payload:
        packet /= layers.raw(bytes(datagram.payload))
    return bytes(packet)


def build_icmp(message: IcmpMessage, *, ident: int = 0, ttl: int = 64) -> bytes:
    """The IP packet for an ICMP or ICMPv6 message, don't-fragment set, checksums filled in. Raises ProtocolError if it
    is too long for IP, or scapy cannot build it."""
    return built(partial(_icmp_packet, message, ident, ttl))


def _icmp_packet(message: IcmpMessage, ident: int, ttl: int) -> bytes:
    layers = load()
    ipv4 = len(message.src) == 4
    network = _network_layer(message.src, message.dst, ICMP if ipv4 else ICMPV6, ident, ttl)
    if ipv4 and message.type in _ECHO_TYPES:
        transport = layers.icmp(
            type=message.type, code=message.code, id=message.rest >> 16, seq=message.rest & 0xFFFF
        ) / layers.raw(bytes(message.payload))
        return bytes(network / transport)
    # scapy would pad the quoted packet of an error to 128 bytes (RFC 4884), which we do not want.
    body = ICMP_WORDS.pack(message.type, message.code, 0, message.rest) + bytes(message.payload)
    pseudo = b"" if ipv4 else pseudo_header(message.src, message.dst, ICMPV6, len(body))
    body = body[:2] + checksum(pseudo + body).to_bytes(2, "big") + body[4:]
    return bytes(network / layers.raw(body))


def _network_layer(src: Address, dst: Address, protocol: int, ident: int, ttl: int) -> Any:
    layers = load()
    if len(src) == 4:
        # Every field is given: a missing source would make scapy look at the host's routes.
        return layers.ip(src=_text(src), dst=_text(dst), proto=protocol, id=ident, ttl=ttl, flags="DF")
    return layers.ipv6(src=_text(src), dst=_text(dst), nh=protocol, hlim=ttl)


def _tcp_layer(segment: TcpSegment) -> Any:
    return load().tcp(
        sport=segment.sport,
        dport=segment.dport,
        seq=segment.seq,
        ack=segment.ack,
        flags=segment.flags,
        window=segment.window,
        options=_tcp_options(segment),
    )


def _tcp_options(segment: TcpSegment) -> list[tuple[str, Any]]:
    """Options in the order and with the alignment that Linux uses."""
    options: list[tuple[str, Any]] = []
    if segment.mss is not None:
        options.append(("MSS", segment.mss))
    if segment.timestamps is not None:
        options += [("SAckOK", b"")] if segment.sack_permitted else [("NOP", None), ("NOP", None)]
        options.append(("Timestamp", segment.timestamps))
    elif segment.sack_permitted:
        options += [("NOP", None), ("NOP", None), ("SAckOK", b"")]
    if segment.window_scale is not None:
        options += [("NOP", None), ("WScale", segment.window_scale)]
    if segment.sack_blocks:
        edges = tuple(edge for block in segment.sack_blocks for edge in block)
        options += [("NOP", None), ("NOP", None), ("SAck", edges)]
    return options


def _text(address: Address) -> str:
    return str(IPv4Address(address) if len(address) == 4 else IPv6Address(address))
