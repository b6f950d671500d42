"""TCP's ports: connecting, listening, and the segments that are not plain ones of a known connection.

Those go on to a connection, a TIME-WAIT record or a listener, or are answered with RST.
"""

from __future__ import annotations

import errno

from ...errors import DropReason, ProtocolError
from ..packets import ACK, FIN, RST, SYN, Address, TcpSegment
from ..sequence import MASK
from ..tcp.connection import TcpConnection
from ..tcp.listener import TcpListener
from ..tcp.network import os_error
from .lookup import bound_to, is_host, is_loopback, taken
from .output import Output

__all__ = ["TcpPorts"]

Endpoint = tuple[Address, int]


class TcpPorts(Output):
    """The layer that opens connections."""

    # --- commands ---

    def connect_tcp(self, remote: Endpoint, now: float, local: Endpoint | None = None) -> TcpConnection:
        """SYN now; ``connected`` or ``error`` follow, told by ``on_change``. A local port of 0 is chosen, and an
        address of zeros.

        Raises OSError: ENETUNREACH (no address of that family), EADDRNOTAVAIL, EADDRINUSE, EINVAL, ENOBUFS, or what
        ``fail`` said.
        """
        self._check_up()
        self._now = now
        address, port = remote
        if not 0 < port <= 0xFFFF or not (is_host(address) or self.is_own(address)):
            raise os_error(errno.EINVAL)
        own, own_port = local if local is not None else (b"", 0)
        if not any(own):
            own = self.source_for(address)
        if not self.is_own(own) or len(own) != len(address):
            raise os_error(errno.EADDRNOTAVAIL)
        if is_loopback(own) and not self.is_own(address):
            raise os_error(errno.EINVAL)
        if len(self._connections) >= self.limits.connections:
            raise os_error(errno.ENOBUFS)

        def usable(candidate: int) -> bool:
            key = address + own + port.to_bytes(2, "big") + candidate.to_bytes(2, "big")
            return not (
                key in self._connections
                or key in self._time_wait
                or bound_to(self._listeners, own, candidate) is not None
                or bound_to(self._reserved, own, candidate) is not None
            )

        if not own_port:
            own_port = self._numbering.port(own, address, port, usable) or 0
            if not own_port:
                raise os_error(errno.EADDRNOTAVAIL)
        elif not usable(own_port):
            raise os_error(errno.EADDRINUSE)
        connection = self._make_connection((own, own_port), remote, now)
        self._connections[connection.key] = connection
        connection.connect(now)
        return connection

    def _make_connection(self, local: Endpoint, remote: Endpoint, now: float) -> TcpConnection:
        key = remote[0] + local[0] + remote[1].to_bytes(2, "big") + local[1].to_bytes(2, "big")
        return TcpConnection(
            self,
            local=local,
            remote=remote,
            iss=self._numbering.initial_sequence(key, now),
            mss=self.mss_to(remote[0]),
            ts_offset=self._numbering.timestamp_offset(key),
            settings=self.settings,
            now=now,
        )

    def listen_tcp(self, local: tuple[Address | None, int], now: float, backlog: int = 128) -> TcpListener:
        """Passive open at ``local``: an address of ours, zeros for all of that family, None for all, and a port,
        0 to have one chosen.

        Raises OSError: EADDRINUSE, EADDRNOTAVAIL, or what ``fail`` said.
        """
        self._check_up()
        address, port = local
        self._check_bindable(address)
        port = self._free_port(address, port)
        listener = TcpListener((address, port), backlog=backlog, on_close=self._close_listener)
        self._listeners[address, port] = listener
        return listener

    def _close_listener(self, listener: TcpListener, now: float) -> None:
        self._now = now
        # After ``fail`` somebody else may listen there.
        if self._listeners.get(listener.local) is listener:
            del self._listeners[listener.local]

    def reserve_tcp(self, local: tuple[Address | None, int]) -> tuple[Address | None, int]:
        """Keep a port, 0 to have one chosen, from others until ``release_tcp``; what is kept. Addresses are as for
        ``listen_tcp``.

        Raises OSError: EADDRINUSE, EADDRNOTAVAIL, ENOBUFS, or what ``fail`` said.
        """
        self._check_up()
        self._check_bindable(local[0])
        if len(self._reserved) >= self.limits.endpoints:
            raise os_error(errno.ENOBUFS)
        kept = local[0], self._free_port(*local)
        self._reserved[kept] = kept
        return kept

    def release_tcp(self, kept: tuple[Address | None, int]) -> None:
        """Undo ``reserve_tcp``."""
        if self._reserved.get(kept) is kept:
            del self._reserved[kept]

    def _free_port(self, address: Address | None, port: int) -> int:
        """``port`` if nobody listens there or has reserved it; for 0, one like that. Raises OSError(EADDRINUSE)."""

        def free(candidate: int) -> bool:
            return not (taken(self._listeners, address, candidate) or taken(self._reserved, address, candidate))

        chosen = port or self._numbering.port(address or b"", b"", 0, free)
        if chosen is None or not free(chosen):
            raise os_error(errno.EADDRINUSE)
        return chosen

    # --- segments ---

    def _handle_tcp(self, segment: TcpSegment, now: float) -> None:
        key = segment.src + segment.dst + segment.sport.to_bytes(2, "big") + segment.dport.to_bytes(2, "big")
        connection = self._connections.get(key)
        if connection is not None:
            try:
                connection.handle_segment(segment, now)
            except Exception as fault:
                self._contain(fault, connection, now)
            self._active.setdefault(connection)
            return
        listener = bound_to(self._listeners, segment.dst, segment.dport)
        opens = segment.flags & (SYN | ACK | RST) == SYN
        if key in self._time_wait:
            if not (listener is not None and opens and self._time_wait.gives_way(key, segment)):
                answer = self._time_wait.handle_segment(key, segment, now)
                if answer is not None and self._resets.take(now):
                    self.emit(self.build(answer))
                return
            self._open_passively(listener, key, segment, now)
            self._time_wait.discard(key)
            return
        if listener is None or (not opens and not segment.flags & RST):
            self._refuse(segment, now)
        elif opens:
            self._open_passively(listener, key, segment, now)

    def _open_passively(self, listener: TcpListener, key: bytes, syn: TcpSegment, now: float) -> None:
        if not listener.has_room(now) or len(self._connections) >= self.limits.connections or not syn.sport:
            raise ProtocolError(DropReason.LIMIT, "backlog")
        if listener.crowded or len(self._embryos) >= self.limits.half_open:
            self.drops[DropReason.LIMIT] += 1
            next(iter(listener.half_open if listener.crowded else self._embryos)).fail(os_error(errno.ECONNABORTED))
        connection = self._make_connection((syn.dst, syn.dport), (syn.src, syn.sport), now)
        self._connections[key] = connection
        self._embryos[connection] = listener
        listener.half_open[connection] = now
        connection.accept(syn, now)

    def _refuse(self, segment: TcpSegment, now: float) -> None:
        """RST for a segment that belongs to nobody (RFC 9293, 3.10.7.1); never for an RST."""
        self.drops[DropReason.NO_SOCKET] += 1
        if segment.flags & RST or not self._resets.take(now):
            return
        reset = TcpSegment(segment.dst, segment.src, segment.dport, segment.sport, 0, 0, RST, 0)
        if segment.flags & ACK:
            reset.seq = segment.ack
        else:
            size = len(segment.payload) + bool(segment.flags & SYN) + bool(segment.flags & FIN)
            reset.ack, reset.flags = (segment.seq + size) & MASK, RST | ACK
        self.emit(self.build(reset))
