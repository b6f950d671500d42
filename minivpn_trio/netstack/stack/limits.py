"""The budgets of a stack: how many of everything, and how many answers a second."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Allowance", "Limits"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The stack's budgets. Sizes are bytes."""

    connections: int = 16384
    #: Connections in the handshake that others began; the oldest gives way to another. Each listener has its backlog.
    half_open: int = 1024
    endpoints: int = 4096
    time_wait: int = 4096
    #: Packets in the output queue: of all kinds, and when data starts to wait.
    output: int = 4096
    output_data: int = 192
    #: What all TCP connections together hold of bytes to be read, early ones and those not acknowledged. At the limit
    #: windows stay as they are and writers wait, but for 16 KiB a connection in each direction.
    tcp_memory: int = 64 * 1024 * 1024
    #: What all UDP sockets together may have queued.
    datagrams: int = 16 * 1024 * 1024
    #: RSTs and ICMP errors a second, each kind on its own.
    answers_per_second: int = 100
    echoes_per_second: int = 2000


class Allowance:
    """So many answers a second, and no more at once."""

    __slots__ = ("_left", "_rate", "_since")

    def __init__(self, rate: int, now: float) -> None:
        self._rate = rate
        self._left = float(rate)
        self._since = now

    def take(self, now: float) -> bool:
        """Whether one more may go out."""
        self._left = min(self._left + (now - self._since) * self._rate, float(self._rate))
        self._since = now
        if self._left < 1:
            return False
        self._left -= 1
        return True
