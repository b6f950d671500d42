"""UdpEndpoint: one UDP port of the stack.

An endpoint is bound to a local address (or any of ours) and port, and may be
connected to one remote, from which alone it then hears. Its receive queue is
bounded in datagrams and bytes, for itself and together with all others, and
drops the newest when full, as a kernel's does. What is larger than the tunnel's packets is sent in fragments.

There is no send queue: datagrams go into the stack's, by turns with everything
else. ``writable`` says whether one more fits; whoever sends all the same may lose it.

Errors that arrive by ICMP are reported once, by the next call (as SO_ERROR
is), and only if the endpoint is connected; the loss of the tunnel is reported
by every call.

Sources: RFC 768, RFC 1122 (4.1), udp(7).
"""

from __future__ import annotations

import errno
import os
from collections import Counter, deque
from collections.abc import Callable
from struct import Struct
from typing import Protocol

from ..errors import DropReason
from .fragments import split
from .packets import Address, UdpDatagram
from .pmtu import LargeSends

__all__ = ["Remote", "UdpEndpoint", "UdpStack", "build_udp", "read_udp_untrusted"]

#: Packets that an endpoint may send in a turn, and at first, past those that wait for room: as many as a train.
_TURN = 44

#: A packed address and a port.
Remote = tuple[Address, int]

#: What one queued datagram costs besides its payload.
_OVERHEAD = 200
_UDP_HEADER = 8

#: version and IHL, TOS, total length, identification, flags and offset, TTL, protocol, checksum, source, destination
_IPV4 = Struct("!BBHHHBBH4s4s")
_IPV6 = Struct("!IHBB16s16s")
_UDP = Struct("!HHHH")
#: Source, destination, ports, length, checksum.
_READ4, _READ6 = Struct("!4s4sHHHH"), Struct("!16s16sHHHH")
_MIN4, _MIN6 = 28, 48
_DONT_FRAGMENT = 0x4000
_PROTOCOL = 17
_LOOPBACK6 = bytes(15) + b"\1"


class UdpStack(Protocol):
    """What an endpoint asks of its stack."""

    def bind_udp(
        self, handler: UdpEndpoint, local: tuple[Address | None, int] | None = None, remote: Remote | None = None
    ) -> tuple[Address | None, int]:
        """Register ``handler``; the bound address (None: any of ours) and port. Raises OSError."""
        ...

    def release_udp(self, handler: UdpEndpoint) -> None:
        """Undo ``bind_udp``."""
        ...

    def source_for(self, remote: Address) -> Address:
        """Our address for talking to ``remote``. Raises OSError."""
        ...

    def is_own(self, address: Address) -> bool:
        """Whether ``address`` is one of ours."""
        ...

    def reserve(self, size: int) -> bool:
        """Whether ``size`` more bytes may be queued; a negative ``size`` gives them back."""
        ...

    def mtu_to(self, remote: Address) -> int:
        """Largest IP packet for ``remote``, bytes."""
        ...

    def next_ident(self, remote: Address) -> int:
        """An IP identification for fragments to ``remote``, 32 bits."""
        ...

    def send_ip(self, packet: bytes) -> bool:
        """Queue a complete IP packet; False, counted: there is no room."""
        ...

    def has_room(self, credit: bool) -> bool:
        """Whether a datagram may go now: there is room and nobody waits, or, with ``credit``, not much too much."""
        ...

    def wait_turn(self, waiter: UdpEndpoint) -> None:
        """Have ``waiter.flush`` called when it may send."""
        ...

    def leave_turn(self, waiter: UdpEndpoint) -> None:
        """Undo ``wait_turn``."""
        ...


def build_udp(datagram: UdpDatagram, *, ident: int = 0, ttl: int = 64) -> bytes:
    """The IP packet for ``datagram``, don't-fragment set; what ``scapy_wire.build_udp`` builds, 100 times faster."""
    src, dst, payload = datagram.src, datagram.dst, datagram.payload
    length = _UDP_HEADER + len(payload)
    ports_and_length = (datagram.sport << 32) + (datagram.dport << 16) + length
    # Ones' complement sums are sums modulo 65535, so the pieces add up as integers.
    total = ports_and_length + length + _PROTOCOL + int.from_bytes(src, "big") + int.from_bytes(dst, "big")
    total += int.from_bytes(payload + b"\0" if len(payload) & 1 else payload, "big")
    # 0 would say "no checksum": its other form, 0xFFFF, is sent instead (RFC 768).
    udp = _UDP.pack(datagram.sport, datagram.dport, length, 65535 - total % 65535)
    if len(src) == 4:
        fields = (0x45, 0, 20 + length, ident, _DONT_FRAGMENT, ttl, _PROTOCOL)
        checksum = -int.from_bytes(_IPV4.pack(*fields, 0, src, dst), "big") % 65535
        return _IPV4.pack(*fields, checksum, src, dst) + udp + payload
    return _IPV6.pack(6 << 28, length, _PROTOCOL, ttl, src, dst) + udp + payload


def read_udp_untrusted(packet: bytes) -> UdpDatagram | None:
    """The datagram that ``packet`` carries whole, checksums verified; or None where it is anything but plain.

    Plain means: no IP options, no extension headers, no fragment, no octet too
    many, every checksum right. ``scapy_wire`` reads what is left, and says what is wrong with it.
    """
    size = len(packet)
    if size < _MIN4:
        return None
    first = packet[0]
    if first == 0x45:
        if packet[9] != _PROTOCOL or packet[6] & 0x3F or packet[7]:
            return None
        length = size - 20
        if packet[2] << 8 | packet[3] != size or int.from_bytes(packet[:20], "big") % 65535:
            return None
        src, dst, sport, dport, claimed, checksum = _READ4.unpack_from(packet, 12)
        covered = packet[12:] if checksum else b""
    elif first >> 4 == 6 and size >= _MIN6:
        if packet[6] != _PROTOCOL:
            return None
        length = size - 40
        if packet[4] << 8 | packet[5] != length:
            return None
        src, dst, sport, dport, claimed, checksum = _READ6.unpack_from(packet, 8)
        if not checksum:
            return None
        covered = packet[8:]
    else:
        return None
    if claimed != length:
        return None
    if covered:
        number = int.from_bytes(covered, "big") << (size & 1) * 8
        if (number + length + _PROTOCOL) % 65535:
            return None
    return UdpDatagram(src, dst, sport, dport, packet[size - length + _UDP_HEADER :])


class UdpEndpoint:
    """One UDP port, bound by construction.

    ``local`` (None: any address, a random port; an address of zeros: any of that family) and ``remote`` are as for
    ``UdpStack.bind_udp``, whose OSErrors are raised here. ``on_change``, if
    set, is called when the endpoint becomes readable or fails.
    """

    def __init__(
        self,
        stack: UdpStack,
        local: tuple[Address | None, int] | None = None,
        remote: Remote | None = None,
        *,
        max_queued_bytes: int = 212_992,
        max_queued: int = 512,
    ) -> None:
        self.remote = remote
        self.on_change: Callable[[], None] | None = None
        self.closed: bool = False
        #: IP time to live of what is sent.
        self.ttl = 64
        #: What is too large for the path is refused, not sent in fragments (IP_MTU_DISCOVER).
        self.dont_fragment = False
        self.drops: Counter[DropReason] = Counter()
        self._stack = stack
        #: How many bytes of datagrams may wait; each counts for its payload and 200 more.
        self.max_queued_bytes = max_queued_bytes
        self._max_queued = max_queued
        self._queue: deque[tuple[bytes, Remote]] = deque()
        self._queued_bytes = 0
        self._pending: OSError | None = None
        self._failure: OSError | None = None
        self._credit = _TURN
        #: Which destinations may find something too large.
        self.large_sends: LargeSends = LargeSends()
        self.local: tuple[Address | None, int] = stack.bind_udp(self, local, remote)

    @property
    def error(self) -> OSError | None:
        """What the next call will raise, if anything. Reading it does not clear it."""
        return self._failure or self._pending

    @property
    def readable(self) -> bool:
        """Whether receiving would give a datagram or an error at once."""
        return bool(self._queue) or self.error is not None or self.closed

    @property
    def writable(self) -> bool:
        """Whether ``sendto`` would send, not drop, and without pushing in; or would raise."""
        return self._stack.has_room(self._credit > 0) or self.error is not None or self.closed

    def wait_turn(self) -> None:
        """Have ``on_change`` called when the endpoint is ``writable``."""
        self._stack.wait_turn(self)

    def flush(self, now: float) -> None:
        """It is our turn: whoever waits may send."""
        self._credit = _TURN
        self._changed()

    def connect(self, remote: Remote | None) -> None:
        """Hear only ``remote`` from now on, and send there by default; None undoes it."""
        self.remote = remote
        if remote is not None:
            self._queue = deque(item for item in self._queue if item[1] == remote)
            self._charge(sum(len(payload) + _OVERHEAD for payload, _ in self._queue) - self._queued_bytes)

    def sendto(self, payload: bytes, remote: Remote | None = None) -> int:
        """Send one datagram to ``remote``, by default the connected one; the number of payload bytes.

        It is dropped, and counted by the stack, if there is no room: see ``writable``.

        Raises OSError: EDESTADDRREQ, EMSGSIZE (more than UDP can carry, or than the path takes with ``dont_fragment``),
        EINVAL (no such port, or out of the tunnel from a loopback address),
        ENETUNREACH or EAFNOSUPPORT (no address of that family), EBADF after closing, or a pending error.
        """
        self.raise_pending()
        remote = remote or self.remote
        if remote is None:
            raise _os_error(errno.EDESTADDRREQ)
        address, port = remote
        if not 0 < port <= 65535:
            raise _os_error(errno.EINVAL)
        own = self.local[0]
        if own is not None and len(own) != len(address):
            raise _os_error(errno.EAFNOSUPPORT)
        if own is None or not any(own):
            own = self._stack.source_for(address)
        elif (own[0] == 127 if len(own) == 4 else own == _LOOPBACK6) and not self._stack.is_own(address):
            raise _os_error(errno.EINVAL)
        network_header = 20 if len(address) == 4 else 40
        if len(payload) > 65535 - _UDP_HEADER - (20 if len(address) == 4 else 0):
            raise _os_error(errno.EMSGSIZE)
        mtu = self._stack.mtu_to(address)
        whole = network_header + _UDP_HEADER + len(payload) <= mtu
        if self.dont_fragment and not whole:
            raise _os_error(errno.EMSGSIZE)
        packet = build_udp(UdpDatagram(own, address, self.local[1], port, bytes(payload)), ttl=self.ttl)
        pieces = [packet] if whole else split(packet, mtu, self._stack.next_ident(address))
        self.large_sends.note(address, len(pieces[0]))
        self._credit = max(self._credit - len(pieces), 0)
        for piece in pieces:
            if not self._stack.send_ip(piece):
                break
        return len(payload)

    def recvfrom(self) -> tuple[bytes, Remote] | None:
        """The oldest queued datagram and its sender, or None. Raises OSError if an error is pending."""
        if self._queue:
            payload, remote = self._queue.popleft()
            self._charge(-len(payload) - _OVERHEAD)
            return payload, remote
        self.raise_pending()
        return None

    def peek(self) -> tuple[bytes, Remote] | None:
        """The oldest queued datagram and its sender, which stays queued."""
        return self._queue[0] if self._queue else None

    def raise_pending(self) -> None:
        """Raise the pending error, if any, and forget it unless it is for good."""
        if self.closed:
            raise _os_error(errno.EBADF)
        if self._failure is not None:
            raise _os_error(self._failure.errno or errno.ENETDOWN)
        error, self._pending = self._pending, None
        if error is not None:
            raise error

    def handle_datagram(self, datagram: UdpDatagram) -> None:
        """Queue an arrived datagram; counted if it is not for us or there is no room."""
        remote = (datagram.src, datagram.sport)
        if self.closed or (self.remote is not None and self.remote != remote):
            self.drops[DropReason.NO_SOCKET] += 1
            return
        cost = len(datagram.payload) + _OVERHEAD
        full = len(self._queue) >= self._max_queued or self._queued_bytes + cost > self.max_queued_bytes
        if full or not self._charge(cost):
            self.drops[DropReason.QUEUE_FULL] += 1
            return
        self._queue.append((bytes(datagram.payload), remote))
        self._changed()

    def handle_error(self, error: OSError) -> None:
        """Note an ICMP error that quotes a datagram of ours, or (ENETDOWN) the loss of the tunnel."""
        if self.closed:
            return
        if error.errno == errno.ENETDOWN:
            self._failure = error
        elif self.remote is not None:
            self._pending = error
        else:
            return
        self._changed()

    def close(self) -> None:
        """Release the port and forget what is queued. Idempotent."""
        if self.closed:
            return
        self.closed = True
        self._queue.clear()
        self._charge(-self._queued_bytes)
        self._stack.release_udp(self)
        self._stack.leave_turn(self)
        self._changed()

    def _charge(self, cost: int) -> bool:
        if not self._stack.reserve(cost):
            return False
        self._queued_bytes += cost
        return True

    def _changed(self) -> None:
        if self.on_change is not None:
            self.on_change()


def _os_error(number: int) -> OSError:
    return OSError(number, os.strerror(number))
