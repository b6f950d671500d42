"""ICMP and ICMPv6: asking for an echo, answering one, and reading errors about our own packets.

An ICMP error is believed only as far as the packet that it quotes: the quote
names the socket (``Quote.flow``) and, for TCP, a sequence number that must be in
flight. Checking that is the stack's business; here bytes become an OSError and
a Quote.

Sources: RFC 792, RFC 4443, RFC 1122 (3.2.2), RFC 1191, RFC 8201, RFC 5927; errno values as icmp(7) and
Linux's icmp_err_convert give them.
"""

from __future__ import annotations

import errno
import os
from collections import deque
from collections.abc import Callable
from struct import Struct
from typing import NamedTuple, Protocol

from ..errors import DropReason, ProtocolError
from . import scapy_wire
from .packets import Address, IcmpMessage
from .pmtu import LargeSends

__all__ = [
    "EchoError",
    "EchoReply",
    "IcmpEndpoint",
    "IcmpStack",
    "Quote",
    "answer_echo_untrusted",
    "echo_reply",
    "error_of",
    "is_error",
    "mtu_of",
    "quote_untrusted",
]

_ECHO_REQUEST, _ECHO_REPLY = 8, 0
_ECHO_REQUEST_6, _ECHO_REPLY_6 = 128, 129

_TCP, _UDP, _ICMP, _ICMPV6, _FRAGMENT = 6, 17, 1, 58, 44
_ICMP_HEADER = 8

_PORTS = Struct("!HH")
_TCP_START = Struct("!HHI")
_ECHO_START = Struct("!BBHHH")

#: (type, code) -> errno. Hard for UDP; for TCP in SYN_SENT only, later they are hints (RFC 1122, 4.2.3.9).
_ERRNO_4 = {
    (3, 0): errno.ENETUNREACH,
    (3, 1): errno.EHOSTUNREACH,
    (3, 2): errno.ENOPROTOOPT,
    (3, 3): errno.ECONNREFUSED,
    (3, 4): errno.EMSGSIZE,
    (3, 5): errno.EOPNOTSUPP,
    (3, 6): errno.ENETUNREACH,
    (3, 7): errno.EHOSTDOWN,
    (3, 8): errno.ENONET,
    (3, 9): errno.ENETUNREACH,
    (3, 10): errno.EHOSTUNREACH,
    (3, 11): errno.ENETUNREACH,
    (3, 12): errno.EHOSTUNREACH,
    (3, 13): errno.EHOSTUNREACH,
    (3, 14): errno.EHOSTUNREACH,
    (3, 15): errno.EHOSTUNREACH,
    (11, 0): errno.EHOSTUNREACH,
}
_ERRNO_6 = {
    (1, 0): errno.ENETUNREACH,
    (1, 1): errno.EACCES,
    (1, 2): errno.EHOSTUNREACH,
    (1, 3): errno.EHOSTUNREACH,
    (1, 4): errno.ECONNREFUSED,
    (1, 5): errno.EACCES,
    (1, 6): errno.EACCES,
    (2, 0): errno.EMSGSIZE,
    (3, 0): errno.EHOSTUNREACH,
    (4, 0): errno.EPROTO,
    (4, 1): errno.EPROTO,
}
_ERROR_TYPES_4, _ERROR_TYPES_6 = {3, 4, 5, 11, 12}, set(range(128))


def _ipv4(message: IcmpMessage) -> bool:
    return len(message.src) == 4


# --- echo ------------------------------------------------------------------------------------------------------------


def echo_reply(message: IcmpMessage) -> IcmpMessage | None:
    """The answer to an echo request, or None if ``message`` is none."""
    request, reply = (_ECHO_REQUEST, _ECHO_REPLY) if _ipv4(message) else (_ECHO_REQUEST_6, _ECHO_REPLY_6)
    if message.type != request or message.code:
        return None
    return IcmpMessage(message.dst, message.src, reply, 0, message.rest, message.payload)


def answer_echo_untrusted(packet: bytes) -> bytes | None:
    """The whole answer to ``packet``, if that is a plain, intact echo request: without IP options, extension headers or
    fragments. None for everything else, which ``scapy_wire`` and ``echo_reply`` see to, with the same result."""
    size = len(packet)
    if size < 28:
        return None
    if packet[0] == 0x45:
        if packet[9] != _ICMP or packet[6] & 0x3F or packet[7] or packet[2] << 8 | packet[3] != size:
            return None
        if packet[20] != _ECHO_REQUEST or packet[21]:
            return None
        if int.from_bytes(packet[:20], "big") % 65535 or _sum(packet[20:]):
            return None
        addresses = packet[16:20] + packet[12:16]
        head = packet[:1] + b"\0" + packet[2:4] + b"\0\0\x40\0\x40\x01"
        checksum = -int.from_bytes(head + b"\0\0" + addresses, "big") % 65535
        ip = head + checksum.to_bytes(2, "big") + addresses
        start, reply = 20, bytes((_ECHO_REPLY, 0))
        summed = reply + packet[24:]
    elif packet[0] >> 4 == 6 and size >= 48:
        length = size - 40
        if packet[6] != _ICMPV6 or packet[4] << 8 | packet[5] != length:
            return None
        if packet[40] != _ECHO_REQUEST_6 or packet[41] or _sum(packet[8:], length + _ICMPV6):
            return None
        addresses = packet[24:40] + packet[8:24]
        ip = b"\x60\0\0\0" + packet[4:6] + bytes((_ICMPV6, 64)) + addresses
        start, reply = 40, bytes((_ECHO_REPLY_6, 0))
        summed = addresses + length.to_bytes(4, "big") + bytes((0, _ICMPV6)) + reply + packet[44:]
    else:
        return None
    total = _sum(summed)
    if not total and any(summed):
        # Only words that are all zero sum to 0; others come to one's complement's other zero.
        total = 65535
    checksum = 65535 - total
    return ip + reply + checksum.to_bytes(2, "big") + packet[start + 4 :]


def _sum(data: bytes, more: int = 0) -> int:
    """The sum of ``data``'s 16-bit words and ``more``, modulo 65535; 0 if a checksum in it holds."""
    return ((int.from_bytes(data, "big") << (len(data) & 1) * 8) + more) % 65535


class EchoReply(NamedTuple):
    """An answer to an echo request: from whom, to which, and with what."""

    src: Address
    sequence: int
    payload: bytes


class EchoError(NamedTuple):
    """An ICMP error about the echo request ``sequence`` to ``dst``; ``src`` is who reported it."""

    src: Address
    dst: Address
    sequence: int
    error: OSError


class IcmpStack(Protocol):
    """What an endpoint asks of its stack."""

    def bind_icmp(self, handler: IcmpEndpoint, identifier: int | None = None) -> int:
        """Register ``handler`` under an echo identifier (random when None), which is returned. Raises OSError."""
        ...

    def release_icmp(self, handler: IcmpEndpoint) -> None:
        """Undo ``bind_icmp``."""
        ...

    def source_for(self, remote: Address) -> Address:
        """Our address for talking to ``remote``. Raises OSError."""
        ...

    def mtu_to(self, remote: Address) -> int:
        """Largest IP packet for ``remote``, bytes."""
        ...

    def send_ip(self, packet: bytes) -> bool:
        """Queue a complete IP packet."""
        ...


class IcmpEndpoint:
    """An identifier under which echo requests are sent and their replies collected.

    At most ``max_queued`` replies and as many errors are kept; when there are
    more, the oldest go. ``on_change``, if set, is called for each that arrives
    and when the tunnel goes.
    """

    def __init__(self, stack: IcmpStack, identifier: int | None = None, *, max_queued: int = 64) -> None:
        self.on_change: Callable[[], None] | None = None
        self.closed: bool = False
        self._stack = stack
        self._replies: deque[EchoReply] = deque(maxlen=max_queued)
        self._errors: deque[EchoError] = deque(maxlen=max_queued)
        self._failure: OSError | None = None
        #: Which destinations may find something too large.
        self.large_sends: LargeSends = LargeSends()
        self.identifier: int = stack.bind_icmp(self, identifier)

    @property
    def error(self) -> OSError | None:
        """Why nothing will ever arrive any more, or None."""
        return self._failure

    @property
    def readable(self) -> bool:
        """Whether a reply, an error or the end can be had at once."""
        return bool(self._replies or self._errors) or self._failure is not None or self.closed

    def send_echo(self, remote: Address, sequence: int, payload: bytes, *, ttl: int = 64) -> None:
        """Send an echo request; of ``sequence`` the low 16 bits count.

        Raises OSError: EMSGSIZE if ``payload`` does not fit one packet of the
        tunnel, ENETUNREACH, EBADF after closing, or what the tunnel failed with.
        """
        self.raise_failure()
        ipv4 = len(remote) == 4
        size = len(payload) + _ICMP_HEADER + (20 if ipv4 else 40)
        if size > self._stack.mtu_to(remote):
            raise _os_error(errno.EMSGSIZE)
        rest = self.identifier << 16 | sequence & 0xFFFF
        kind = _ECHO_REQUEST if ipv4 else _ECHO_REQUEST_6
        request = IcmpMessage(self._stack.source_for(remote), remote, kind, 0, rest, bytes(payload))
        self.large_sends.note(remote, size)
        self._stack.send_ip(scapy_wire.build_icmp(request, ttl=ttl))

    def take_reply(self) -> EchoReply | None:
        """The oldest reply, or None."""
        return self._replies.popleft() if self._replies else None

    def take_error(self) -> EchoError | None:
        """The oldest error about one of our requests, or None."""
        return self._errors.popleft() if self._errors else None

    def raise_failure(self) -> None:
        """Raise OSError if the endpoint is closed or the tunnel is gone."""
        if self.closed:
            raise _os_error(errno.EBADF)
        if self._failure is not None:
            raise _os_error(self._failure.errno or errno.ENETDOWN)

    def handle_message(self, message: IcmpMessage) -> None:
        """Take an echo reply with our identifier, or an error that quotes one of our requests. Others are ignored."""
        if self.closed:
            return
        if message.type == (_ECHO_REPLY if _ipv4(message) else _ECHO_REPLY_6):
            if message.code or message.rest >> 16 != self.identifier:
                return
            self._replies.append(EchoReply(message.src, message.rest & 0xFFFF, bytes(message.payload)))
        else:
            error = error_of(message) if is_error(message) else None
            try:
                quote = quote_untrusted(message)
            except ProtocolError:
                return
            if error is None or quote.protocol not in (_ICMP, _ICMPV6) or quote.sport != self.identifier:
                return
            self._errors.append(EchoError(message.src, quote.dst, quote.sequence, error))
        self._changed()

    def handle_error(self, error: OSError) -> None:
        """The tunnel is gone."""
        self._failure = error
        self._changed()

    def close(self) -> None:
        """Release the identifier. Idempotent."""
        if self.closed:
            return
        self.closed = True
        self._replies.clear()
        self._errors.clear()
        self._stack.release_icmp(self)
        self._changed()

    def _changed(self) -> None:
        if self.on_change is not None:
            self.on_change()


# --- errors ----------------------------------------------------------------------------------------------------------


class Quote(NamedTuple):
    """Our own packet, as an ICMP error quotes it.

    For an echo request ``sport`` is the identifier and ``sequence`` the
    echo's; for TCP ``sequence`` is the segment's; for UDP it is 0.
    """

    protocol: int
    src: Address
    dst: Address
    sport: int
    dport: int
    sequence: int

    @property
    def flow(self) -> tuple[int, Address, int, Address, int]:
        """(protocol, local address, local port, remote address, remote port): the key of a socket."""
        return self.protocol, self.src, self.sport, self.dst, self.dport


def is_error(message: IcmpMessage) -> bool:
    """Whether ``message`` reports an error and thus quotes a packet. Never answer these (RFC 1122, 3.2.2)."""
    return message.type in (_ERROR_TYPES_4 if _ipv4(message) else _ERROR_TYPES_6)


def error_of(message: IcmpMessage) -> OSError | None:
    """The error that a kernel would report for ``message``; None for messages that are no socket's business."""
    number = (_ERRNO_4 if _ipv4(message) else _ERRNO_6).get((message.type, message.code))
    return None if number is None else _os_error(number)


def mtu_of(message: IcmpMessage) -> int | None:
    """The next hop's MTU of a packet-too-big message, in bytes, as claimed; None for other messages.

    0 from a router older than RFC 1191.
    """
    if _ipv4(message):
        return message.rest & 0xFFFF if (message.type, message.code) == (3, 4) else None
    return message.rest if message.type == 2 else None


def quote_untrusted(message: IcmpMessage) -> Quote:
    """The packet that an ICMP error quotes. Routers quote as little as the IP header and 8 bytes, so no length
    or checksum of it is checked. Raises ProtocolError."""
    packet = message.payload
    if _ipv4(message):
        if len(packet) < 28 or packet[0] >> 4 != 4:
            raise ProtocolError(DropReason.TOO_SHORT, "ICMP quote")
        header = (packet[0] & 15) * 4
        if header < 20 or len(packet) < header + 8:
            raise ProtocolError(DropReason.TOO_SHORT, "ICMP quote")
        if (packet[6] << 8 | packet[7]) & 0x1FFF:
            raise ProtocolError(DropReason.FRAGMENT, "ICMP quote of a later fragment")
        protocol, src, dst, start = packet[9], bytes(packet[12:16]), bytes(packet[16:20]), packet[header:]
    else:
        if len(packet) < 48 or packet[0] >> 4 != 6:
            raise ProtocolError(DropReason.TOO_SHORT, "ICMPv6 quote")
        protocol, src, dst, start = packet[6], bytes(packet[8:24]), bytes(packet[24:40]), packet[40:]
        if protocol == _FRAGMENT:
            # The only extension header that we send. Only the first fragment has the transport header.
            if (start[2] << 8 | start[3]) & 0xFFF8:
                raise ProtocolError(DropReason.FRAGMENT, "ICMPv6 quote of a later fragment")
            protocol, start = start[0], start[8:]
            if len(start) < 8:
                raise ProtocolError(DropReason.TOO_SHORT, "ICMPv6 quote")
    if src != message.dst:
        raise ProtocolError(DropReason.BAD_ADDRESS, "ICMP quote of somebody else's packet")
    if protocol == _TCP:
        sport, dport, sequence = _TCP_START.unpack_from(start)
        return Quote(protocol, src, dst, sport, dport, sequence)
    if protocol == _UDP:
        sport, dport = _PORTS.unpack_from(start)
        return Quote(protocol, src, dst, sport, dport, 0)
    request = (_ICMP, _ECHO_REQUEST) if _ipv4(message) else (_ICMPV6, _ECHO_REQUEST_6)
    kind, _, _, identifier, sequence = _ECHO_START.unpack_from(start)
    if (protocol, kind) == request:
        return Quote(protocol, src, dst, identifier, 0, sequence)
    raise ProtocolError(DropReason.NO_SOCKET, f"ICMP quote of IP protocol {protocol}")


def _os_error(number: int) -> OSError:
    return OSError(number, os.strerror(number))
