"""UDP's ports: who has which, and what arrives there."""

from __future__ import annotations

import errno

from ...errors import DropReason
from ..icmp_errors import port_unreachable
from ..packets import Address, UdpDatagram
from ..tcp.network import os_error
from ..udp import Remote, UdpEndpoint
from .icmp_messages import IcmpMessages
from .lookup import bound_to, taken

__all__ = ["UdpPorts"]


class UdpPorts(IcmpMessages):
    """The layer that knows UDP."""

    def open_udp(self, local: tuple[Address | None, int] | None = None, remote: Remote | None = None) -> UdpEndpoint:
        """A UDP port, connected to ``remote`` if given. Raises OSError as ``bind_udp`` does."""
        return UdpEndpoint(self, local, remote)

    def bind_udp(
        self, handler: UdpEndpoint, local: tuple[Address | None, int] | None = None, remote: Remote | None = None
    ) -> tuple[Address | None, int]:
        """Register ``handler`` at an address of ours (zeros: all of that family; None: all) and a port (0: chosen);
        what it was bound to.

        Raises OSError: EADDRINUSE, EADDRNOTAVAIL, ENETUNREACH (no address that reaches ``remote``), ENOBUFS, or
        what ``fail`` said.
        """
        self._check_up()
        address, port = local or (None, 0)
        self._check_bindable(address)
        if len(self._udp) >= self.limits.endpoints:
            raise os_error(errno.ENOBUFS)
        if remote is not None:
            source = self.source_for(remote[0])
            if address is None or not any(address):
                # As connect() of a kernel: bound to the address that reaches the remote.
                address = source
        if not port:
            port = self._numbering.random_port(lambda p: not taken(self._udp, address, p)) or 0
        if not port or taken(self._udp, address, port):
            raise os_error(errno.EADDRINUSE)
        self._udp[address, port] = handler
        return address, port

    def release_udp(self, handler: UdpEndpoint) -> None:
        """Undo ``bind_udp``."""
        if self._udp.get(handler.local) is handler:
            del self._udp[handler.local]

    def reserve(self, size: int) -> bool:
        """Whether ``size`` more bytes of datagrams may be queued; a negative ``size`` gives them back."""
        if size > 0 and self._queued_datagrams + size > self.limits.datagrams:
            return False
        self._queued_datagrams += size
        return True

    def _handle_udp(self, datagram: UdpDatagram, packet: bytes, now: float) -> None:
        endpoint = bound_to(self._udp, datagram.dst, datagram.dport)
        if endpoint is not None:
            endpoint.handle_datagram(datagram)
        else:
            self.drops[DropReason.NO_SOCKET] += 1
            self._report(port_unreachable(packet), now)
