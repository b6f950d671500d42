"""ICMP: echo requests and replies, and errors, both ours to others and those of others to us.

An error is believed only if the packet that it quotes may be one of ours (RFC 5927).
"""

from __future__ import annotations

import errno

from ...errors import DropReason, ProtocolError
from .. import scapy_wire
from ..fragments import split
from ..icmp import IcmpEndpoint, Quote, echo_reply, error_of, is_error, mtu_of, quote_untrusted
from ..packets import Address, IcmpMessage
from ..tcp.connection import TcpConnection
from ..tcp.network import os_error
from .lookup import bound_to, destination_of, source_of
from .tcp_ports import TcpPorts

__all__ = ["IcmpMessages"]

_TCP, _UDP = 6, 17


class IcmpMessages(TcpPorts):
    """The layer that knows ICMP."""

    # --- commands ---

    def open_icmp(self) -> IcmpEndpoint:
        """An identifier for echo requests. Raises OSError as ``bind_icmp`` does."""
        return IcmpEndpoint(self)

    def bind_icmp(self, handler: IcmpEndpoint, identifier: int | None = None) -> int:
        """Register ``handler`` under an echo identifier (None: a random one), which is returned.

        Raises OSError: EADDRINUSE, ENOBUFS, or what ``fail`` said.
        """
        self._check_up()
        if len(self._icmp) >= self.limits.endpoints:
            raise os_error(errno.ENOBUFS)
        while identifier is None or identifier in self._icmp:
            if identifier is not None:
                raise os_error(errno.EADDRINUSE)
            candidate = int.from_bytes(self._rng(2), "big")
            if candidate not in self._icmp:
                identifier = candidate
        self._icmp[identifier] = handler
        return identifier

    def release_icmp(self, handler: IcmpEndpoint) -> None:
        """Undo ``bind_icmp``."""
        if self._icmp.get(handler.identifier) is handler:
            del self._icmp[handler.identifier]

    # --- echo ---

    def _handle_icmp(self, message: IcmpMessage, now: float) -> None:
        if is_error(message):
            self._handle_icmp_error(message, now)
            return
        answer = echo_reply(message)
        if answer is not None:
            self._echo(scapy_wire.build_icmp(answer), now)
            return
        endpoint = self._icmp.get(message.rest >> 16)
        if endpoint is None:
            raise ProtocolError(DropReason.NO_SOCKET)
        endpoint.handle_message(message)

    def _echo(self, answer: bytes, now: float) -> None:
        """Send an echo reply: as large as the request, so perhaps in fragments."""
        if not self._echoes.take(now):
            return
        remote = destination_of(answer)
        mtu = self.mtu_to(remote)
        for piece in [answer] if len(answer) <= mtu else split(answer, mtu, self.next_ident(remote)):
            self.send_ip(piece)

    # --- errors ---

    def _report(self, error: IcmpMessage | None, now: float) -> None:
        """Send an ICMP error, if it is one from us to another host (or here) and not one too many."""
        if error is None:
            return
        try:
            self._check_addresses(error.dst, error.src)
        except ProtocolError:
            return
        if not self._errors.take(now):
            return
        try:
            packet = scapy_wire.build_icmp(error)
        except ProtocolError as exc:
            # Also asked for where no packet is at hand that could be dropped instead.
            self.drops[exc.reason] += 1
            return
        self.send_ip(packet)

    def _refuse_too_big(self, packet: bytes, mtu: int, now: float) -> None:
        """``packet``, which this stack made, is too large for the tunnel, which takes ``mtu`` bytes by now: as if a
        router had said so. TCP sends again what is in flight, in shorter segments; a datagram is lost, and its socket
        hears of it if it forbids fragments."""
        ipv4 = packet[0] >> 4 == 4
        src = source_of(packet)
        message = IcmpMessage(src, src, 3 if ipv4 else 2, 4 if ipv4 else 0, mtu, packet)
        try:
            self._handle_quoted(message, quote_untrusted(message), now, ours=True)
        except ProtocolError as exc:
            self.drops[exc.reason] += 1

    def _handle_icmp_error(self, message: IcmpMessage, now: float) -> None:
        """Believed only if the packet that it quotes may be one of ours (RFC 5927)."""
        self._handle_quoted(message, quote_untrusted(message), now)

    def _handle_quoted(self, message: IcmpMessage, quote: Quote, now: float, *, ours: bool = False) -> None:
        """``ours``: there is no doubt about what is quoted."""
        if not self._looping and self.is_own(quote.dst):
            raise ProtocolError(DropReason.BAD_ADDRESS)
        error, mtu = error_of(message), mtu_of(message)
        if quote.protocol == _TCP:
            key = quote.dst + quote.src + quote.dport.to_bytes(2, "big") + quote.sport.to_bytes(2, "big")
            connection = self._connections.get(key)
            if connection is None or not connection.is_in_flight(quote.sequence):
                raise ProtocolError(DropReason.NO_SOCKET)
            self._active.setdefault(connection)
            if mtu is not None:
                self._learn_mtu(quote.dst, mtu, now, connection)
            elif error is not None:
                connection.handle_icmp_error(error)
            return
        if quote.protocol == _UDP:
            endpoint = bound_to(self._udp, quote.src, quote.sport)
            if endpoint is None or endpoint.remote not in (None, (quote.dst, quote.dport)):
                raise ProtocolError(DropReason.NO_SOCKET)
            if mtu is not None:
                if not ours and not endpoint.large_sends.explain(quote.dst, mtu):
                    raise ProtocolError(DropReason.NO_SOCKET)
                # The next datagram of that size goes in fragments.
                self._learn_mtu(quote.dst, mtu, now)
                if endpoint.dont_fragment and error is not None:
                    endpoint.handle_error(error)
            elif error is not None:
                endpoint.handle_error(error)
            return
        pinger = self._icmp.get(quote.sport)
        if pinger is None:
            raise ProtocolError(DropReason.NO_SOCKET)
        if mtu is not None:
            if not ours and not pinger.large_sends.explain(quote.dst, mtu):
                raise ProtocolError(DropReason.NO_SOCKET)
            self._learn_mtu(quote.dst, mtu, now)
        pinger.handle_message(message)

    def _learn_mtu(self, remote: Address, mtu: int, now: float, teller: TcpConnection | None = None) -> None:
        """The way to ``remote`` takes ``mtu``: so for datagrams, for connections that begin, and for all that are, not
        only for ``teller``, one of whose segments was too large."""
        before = self.mtu_to(remote)
        understood = self._path_mtus.learn(remote, mtu, now) if mtu < self.mtu else before
        mss = self._mss_of(understood, remote)
        news = self.mtu_to(remote) < before
        if teller is not None:
            news |= mss < teller.path_mss
            # Also if it is no news: it may be about a probe.
            teller.handle_path_mss(mss, now)
        if not news:
            return
        for connection in self._connections.values():
            if connection.remote[0] == remote and mss < connection.path_mss:
                connection.handle_path_mss(mss, now)
                self._active.setdefault(connection)
