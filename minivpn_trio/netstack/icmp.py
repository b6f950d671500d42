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
from dataclasses import dataclass
from struct import Struct

from ..errors import DropReason, ProtocolError
from .packets import Address, IcmpMessage

__all__ = ["EchoReply", "IcmpEndpoint", "Quote", "echo_reply", "error_of", "is_error", "mtu_of", "quote_untrusted"]

_ECHO_REQUEST, _ECHO_REPLY = 8, 0
_ECHO_REQUEST_6, _ECHO_REPLY_6 = 128, 129

_TCP, _UDP, _ICMP, _ICMPV6 = 6, 17, 1, 58

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


@dataclass(frozen=True, slots=True)
class EchoReply:
    """An answer to an echo request: who, which, with what, and when the burst that brought it arrived."""

    src: Address
    sequence: int
    payload: bytes
    time: float


class IcmpEndpoint:
    """An identifier under which echo requests are sent and their replies collected.

    ``send`` hands a message to the stack, ``on_close`` releases the
    identifier; both are the stack's. At most ``max_queued`` replies and errors
    are kept; more are dropped, oldest first.
    """

    def __init__(
        self,
        *,
        local: Address,
        identifier: int,
        send: Callable[[IcmpMessage], None],
        max_payload: Callable[[], int],
        on_close: Callable[[IcmpEndpoint], None] | None = None,
        max_queued: int = 64,
    ) -> None:
        self.local = local
        self.identifier = identifier
        self.on_change: Callable[[], None] | None = None
        self.closed = False
        self._send = send
        self._max_payload = max_payload
        self._on_close = on_close
        self._replies: deque[EchoReply] = deque(maxlen=max_queued)
        self._errors: deque[tuple[OSError, Address, int]] = deque(maxlen=max_queued)
        self._failure: OSError | None = None

    @property
    def error(self) -> OSError | None:
        """Why nothing will ever arrive any more, or None."""
        return self._failure

    @property
    def readable(self) -> bool:
        """Whether a reply, an error or the end can be had at once."""
        return bool(self._replies or self._errors) or self._failure is not None or self.closed

    def send_echo(self, remote: Address, sequence: int, payload: bytes) -> None:
        """Send an echo request with a 16-bit ``sequence``.

        Raises OSError: EMSGSIZE if ``payload`` does not fit one packet of the tunnel, EAFNOSUPPORT, EBADF
        after closing, or what the tunnel failed with.
        """
        self.raise_failure()
        if len(remote) != len(self.local):
            raise _os_error(errno.EAFNOSUPPORT)
        if len(payload) > self._max_payload():
            raise _os_error(errno.EMSGSIZE)
        kind = _ECHO_REQUEST if len(remote) == 4 else _ECHO_REQUEST_6
        rest = self.identifier << 16 | sequence & 0xFFFF
        self._send(IcmpMessage(self.local, remote, kind, 0, rest, payload))

    def take_reply(self) -> EchoReply | None:
        """The oldest reply, or None."""
        return self._replies.popleft() if self._replies else None

    def take_error(self) -> tuple[OSError, Address, int] | None:
        """The oldest ICMP error about one of our requests: the error, where the request went, its sequence."""
        return self._errors.popleft() if self._errors else None

    def raise_failure(self) -> None:
        """Raise OSError if the endpoint is closed or the tunnel is gone."""
        if self.closed:
            raise _os_error(errno.EBADF)
        if self._failure is not None:
            raise _os_error(self._failure.errno or errno.ENETDOWN)

    def handle_reply(self, message: IcmpMessage, now: float) -> bool:
        """Queue an echo reply; False if it is not ours."""
        reply = _ECHO_REPLY if _ipv4(message) else _ECHO_REPLY_6
        if self.closed or message.type != reply or message.code or message.rest >> 16 != self.identifier:
            return False
        self._replies.append(EchoReply(message.src, message.rest & 0xFFFF, bytes(message.payload), now))
        return True

    def handle_icmp_error(self, error: OSError, remote: Address, sequence: int) -> bool:
        """Note an ICMP error about our request ``sequence`` to ``remote``; True if somebody should be woken."""
        if self.closed:
            return False
        self._errors.append((error, remote, sequence))
        return True

    def fail(self, error: OSError) -> None:
        """The tunnel is gone."""
        self._failure = error

    def close(self) -> None:
        """Release the identifier. Idempotent."""
        if self.closed:
            return
        self.closed = True
        self._replies.clear()
        self._errors.clear()
        if self._on_close is not None:
            self._on_close(self)


# --- errors ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Quote:
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
        # We send no extension headers, so the transport header follows at once.
        if len(packet) < 48 or packet[0] >> 4 != 6:
            raise ProtocolError(DropReason.TOO_SHORT, "ICMPv6 quote")
        protocol, src, dst, start = packet[6], bytes(packet[8:24]), bytes(packet[24:40]), packet[40:]
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
