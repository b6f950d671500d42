"""The stack as a whole: time, the coming and going of the tunnel, and what there is to know of it."""

from __future__ import annotations

import errno
from collections import deque
from math import inf

from ...config.tunnel_info import TunnelInfo
from ...stats import NetstackStats
from ..icmp import IcmpEndpoint
from ..tcp.network import os_error
from ..udp import UdpEndpoint
from .input import Input

__all__ = ["Stack"]

#: Looped packets taken in at a time, so that a local transfer holds nobody up.
_LOOP_BURST = 64


class Stack(Input):
    """A TCP/IP stack with one interface, the tunnel.

    ``addresses`` are ours, packed; ``mtu`` is the tunnel's; ``mss_ipv4`` and
    ``mss_ipv6`` are the largest TCP payloads, before options, that keep the outer
    datagram whole (None: only the MTU limits). Times are seconds of one monotonic clock.
    """

    mtu: int

    # --- time ---

    def next_timeout(self) -> float | None:
        """When ``handle_timeout`` is due; None: not before something happens."""
        if self._looped or self.memory.relief_due or self.paths.due or self._broken:
            return self._now
        earliest = self._timers.next_timeout()
        for other in (self._time_wait.next_timeout(), self._fragments.next_timeout(), self.paths.next_timeout()):
            if other is not None and other < earliest:
                earliest = other
        return None if earliest == inf else earliest

    def handle_timeout(self, now: float) -> None:
        """Do what is due. Calling it too early does nothing."""
        self._now = now
        if self._looped:
            self._take_looped(now)
        if self.memory.relief_due:
            self.memory.relief_due = False
            for connection in self._connections.values():
                connection.relieve()
                self._active.setdefault(connection)
        for connection in self._timers.take_due(now):
            try:
                connection.handle_timeout(now)
            except Exception as fault:
                self._contain(fault, connection, now)
            # Also where the timeout changed nothing: every deadline must be in the heap.
            self._timers.arm(connection)
            self._active.setdefault(connection)
        steps = self._time_wait.handle_timeout, self._fragments.handle_timeout, self._report_expired
        for step in (*steps, self.paths.handle_timeout):
            self._fence(step, now)
        self._finish(now)

    def _take_looped(self, now: float) -> None:
        looped = self._looped
        burst = [looped.popleft() for _ in range(min(len(looped), _LOOP_BURST))]
        self._looping = True
        try:
            self.handle_packets(burst, now)
        finally:
            self._looping = False

    # --- the tunnel ---

    def reconfigure(self, info: TunnelInfo, now: float) -> None:
        """The tunnel is up (again), perhaps with other addresses or another MTU. What was bound to an address that
        is gone fails."""
        self._now = now
        self._failure = None
        self._addresses = tuple(interface.ip.packed for interface in (info.ipv4, info.ipv6) if interface is not None)
        self.mtu = info.mtu
        self._mss = {4: info.mss_ipv4, 16: info.mss_ipv6}
        self._path_mtus.clear()
        self.paths.clear()
        self._sift_output(now)
        gone = os_error(errno.EADDRNOTAVAIL)
        for connection in list(self._connections.values()):
            if not self.is_own(connection.local[0]):
                connection.fail(gone)
                self._active.setdefault(connection)
            else:
                connection.set_path_mss(self.mss_to(connection.remote[0]))
                connection.resume(now)
        for endpoint in list(self._udp.values()):
            address = endpoint.local[0]
            if address is not None and any(address) and not self.is_own(address):
                endpoint.handle_error(os_error(errno.ENETDOWN))
        self._finish(now)

    def _sift_output(self, now: float) -> None:
        """What still waits and no longer fits the tunnel is not sent, but told to who said it."""
        large = [packet for packet in self._output if len(packet) > self.mtu]
        if large:
            self._output = deque(packet for packet in self._output if len(packet) <= self.mtu)
            for packet in large:
                self._refuse_too_big(packet, self.mtu, now)

    def fail(self, error: OSError) -> None:
        """The tunnel is gone: every connection, listener and endpoint gets ``error``, and new ones are refused
        with it until ``reconfigure``."""
        self._failure = error
        for connection in list(self._connections.values()):
            connection.fail(error)
            self._active.setdefault(connection)
        for listener in list(self._listeners.values()):
            listener.fail(error)
        self._listeners.clear()
        self._reserved.clear()
        endpoints: list[UdpEndpoint | IcmpEndpoint] = [*self._udp.values(), *self._icmp.values()]
        for endpoint in endpoints:
            endpoint.handle_error(error)
        self._udp.clear()
        self._icmp.clear()
        self._time_wait.clear()
        self._output.clear()
        self._looped.clear()
        self._turns.clear()
        self._finish(self._now)

    # --- the whole ---

    @property
    def undelivered(self) -> bool:
        """Whether a connection holds data, or the end of a stream, that its peer, who is not ourselves, has not
        acknowledged."""
        senders = (
            connection.sender
            for connection in self._connections.values()
            if connection.connected and not self.is_own(connection.remote[0])
        )
        return any(sender.unacknowledged or (sender.fin and not sender.done) for sender in senders)

    def stats(self) -> NetstackStats:
        """A snapshot of the counters."""
        senders = [connection.sender for connection in self._connections.values()]
        return NetstackStats(
            packets_in=self._packets_in,
            packets_out=self._packets_out,
            fast_path=self._packets_in - self._slow,
            slow_path=self._slow,
            tcp_retransmissions=self._retransmissions + sum(sender.retransmissions for sender in senders),
            tcp_tail_probes=self._tail_probes + sum(sender.tail_probes for sender in senders),
            tcp_timeouts=self._timeouts + sum(sender.timeouts for sender in senders),
            tcp_connections=len(self._connections),
            drops=dict(self.drops + self._fragments.drops),
        )
