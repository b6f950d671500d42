"""Counters of a tunnel, as frozen snapshots.

Each stage counts in plain attributes of its core; ``stats()`` of a client or
dialer gathers one of these.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from .errors import DropReason

__all__ = ["ControlStats", "DataStats", "NetstackStats", "TransportStats", "TunnelStats"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TransportStats:
    """The socket to the server. Bytes are those of datagrams, without IP and UDP or TCP headers."""

    packets_in: int = 0
    packets_out: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    bursts_in: int = 0
    bursts_out: int = 0
    drops: Mapping[DropReason, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlStats:
    """packetmuxer and reliable."""

    packets_in: int = 0
    packets_out: int = 0
    retransmissions: int = 0
    fast_retransmissions: int = 0
    drops: Mapping[DropReason, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class DataStats:
    """The data channel. Bytes are those of IP packets."""

    packets_in: int = 0
    packets_out: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    pings_in: int = 0
    pings_out: int = 0
    keys_installed: int = 0
    drops: Mapping[DropReason, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class NetstackStats:
    """The TCP/IP stack."""

    packets_in: int = 0
    packets_out: int = 0
    fast_path: int = 0
    slow_path: int = 0
    #: Segments sent again because they counted as lost. Tail loss probes (RFC 8985, 7.3), which only
    #: ask whether the last one was, count by themselves: a busy machine alone brings some about.
    tcp_retransmissions: int = 0
    tcp_tail_probes: int = 0
    tcp_timeouts: int = 0
    tcp_connections: int = 0
    drops: Mapping[DropReason, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class TunnelStats:
    """Everything, summed over reconnections."""

    transport: TransportStats = field(default_factory=TransportStats)
    control: ControlStats = field(default_factory=ControlStats)
    data: DataStats = field(default_factory=DataStats)
    netstack: NetstackStats | None = None
    reconnections: int = 0
    rekeys: int = 0
    #: Items that an edge of the wiring table had no room for, by edge name.
    edge_drops: Mapping[str, int] = field(default_factory=dict)
