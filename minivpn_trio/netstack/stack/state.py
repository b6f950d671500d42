"""What a stack holds: its tables of connections and ports, its queues and its counters."""

from __future__ import annotations

import errno
from collections import Counter, deque
from collections.abc import Callable, Iterable

from ...errors import DropReason
from ...packet.ids import RandomBytes
from ..fragments import FragmentTable
from ..icmp import IcmpEndpoint
from ..inbound import Inbound
from ..memory import MemoryBudget
from ..numbering import Numbering
from ..packets import Address
from ..paths import Path, Paths
from ..pmtu import PathMtus
from ..tcp.connection import TcpConnection
from ..tcp.listener import TcpListener
from ..tcp.network import os_error
from ..tcp.settings import TcpSettings
from ..tcp.timewait import TimeWaitTable
from ..templates import SegmentTemplates
from ..timers import TimerHeap
from ..turns import Turns
from ..udp import UdpEndpoint
from .limits import Allowance, Limits

__all__ = ["StackState"]


class StackState:
    """The state of a stack, and whether it works at all."""

    def __init__(
        self,
        *,
        addresses: Iterable[Address],
        mtu: int,
        rng: RandomBytes,
        now: float,
        mss_ipv4: int | None = None,
        mss_ipv6: int | None = None,
        settings: TcpSettings | None = None,
        limits: Limits | None = None,
    ) -> None:
        #: Called when output appeared or ``next_timeout`` moved earlier, from whatever method.
        self.on_work: Callable[[], None] | None = None
        self.drops: Counter[DropReason] = Counter()
        self.mtu: int = mtu
        self.settings: TcpSettings = settings or TcpSettings()
        self.limits: Limits = limits or Limits()
        self._addresses = tuple(addresses)
        self._mss = {4: mss_ipv4, 16: mss_ipv6}
        self._rng = rng
        self._now = now
        self._numbering = Numbering(rng)
        self._templates = SegmentTemplates()
        self._failure: OSError | None = None

        #: All connections, and those that the fast path knows, by source, destination and ports of arriving packets.
        self._connections: dict[bytes, TcpConnection] = {}
        self._fast: dict[bytes, TcpConnection] = {}
        self._touched: list[TcpConnection] = []
        self._listeners: dict[tuple[Address | None, int], TcpListener] = {}
        #: Ports that somebody chose and does not use yet.
        self._reserved: dict[tuple[Address | None, int], tuple[Address | None, int]] = {}
        self._embryos: dict[TcpConnection, TcpListener] = {}
        self._time_wait = TimeWaitTable(duration=self.settings.time_wait, most=self.limits.time_wait)
        self._udp: dict[tuple[Address | None, int], UdpEndpoint] = {}
        self._icmp: dict[int, IcmpEndpoint] = {}
        self._fragments = FragmentTable()
        self._path_mtus = PathMtus()
        self._timers: TimerHeap[TcpConnection] = TimerHeap()

        self._output: deque[bytes] = deque()
        #: Packets from us to us, and the connections between our own addresses that the fast path knows.
        self._looped: deque[bytes] = deque()
        self._fast_local: dict[bytes, TcpConnection] = {}
        self._looping = False
        #: Connections to flush, and to tell, at the end of this burst or timeout.
        self._active: dict[TcpConnection, None] = {}
        #: Those that a defect of ours ended and whose owners were not told yet.
        self._broken: list[TcpConnection] = []
        #: Who has data to send and found no room in ``_output``, or others waiting for it.
        self._turns = Turns()
        self.memory: MemoryBudget = MemoryBudget(self.limits.tcp_memory, self._on_relief)
        self.inbound: Inbound = Inbound()
        self.paths: Paths = Paths()
        self._queued_datagrams = 0
        rate = self.limits.answers_per_second
        self._resets, self._errors = (Allowance(rate, now) for _ in range(2))
        self._echoes = Allowance(self.limits.echoes_per_second, now)

        self._packets_in = self._packets_out = self._slow = 0
        self._retransmissions = self._tail_probes = self._timeouts = 0

    def path_to(self, remote: Address) -> Path:
        """What connections to ``remote`` share."""
        return self.paths.to(remote, self._now)

    def _on_relief(self) -> None:
        """There is memory again. Who waited for it is told at the next ``handle_timeout``, which is due at once."""
        if self.on_work is not None:
            self.on_work()

    def _check_up(self) -> None:
        if self._failure is not None:
            raise os_error(self._failure.errno or errno.ENETDOWN)
