"""An OpenVPN client for Trio programs, with its own TCP/IP stack: no root, no tun device, no daemon.

    async with minivpn_trio.open_tun_dialer("client.ovpn") as dialer:
        stream = await dialer.open_tcp_stream("10.8.0.1", 80)

This module is the whole public face, with ``minivpn_trio.testing`` (a server
for test suites), ``minivpn_trio.events``, ``minivpn_trio.tracing`` and
``minivpn_trio.integrations``.
"""

from .challenge import Challenge, ChallengeKind
from .client import Client, open_client
from .config.model import Credentials, Remote, TunnelConfig
from .config.ovpn import load_config
from .config.proxy import HTTPProxy, Obfs4Bridge, Scramble, SocksProxy
from .config.tunnel_info import TunnelInfo
from .dialer import TunDialer, open_tun_dialer
from .errors import (
    AuthFailed,
    ConfigError,
    ConnectError,
    HandshakeTimeout,
    MiniVPNError,
    Stage,
    TLSVerificationError,
    TransportError,
    TunnelClosed,
)
from .events import Event
from .networkio.dial import DialerContext
from .networkio.transports import Transport
from .stats import TunnelStats
from .trace_sinks import ArchivalTracer, JSONLinesTracer, LoggingTracer, TeeTracer
from .tracing import Tracer

__all__ = [
    "ArchivalTracer",
    "AuthFailed",
    "Challenge",
    "ChallengeKind",
    "Client",
    "ConfigError",
    "ConnectError",
    "Credentials",
    "DialerContext",
    "Event",
    "HTTPProxy",
    "HandshakeTimeout",
    "JSONLinesTracer",
    "LoggingTracer",
    "MiniVPNError",
    "Obfs4Bridge",
    "Remote",
    "Scramble",
    "SocksProxy",
    "Stage",
    "TLSVerificationError",
    "TeeTracer",
    "Tracer",
    "Transport",
    "TransportError",
    "TunDialer",
    "TunnelClosed",
    "TunnelConfig",
    "TunnelInfo",
    "TunnelStats",
    "load_config",
    "open_client",
    "open_tun_dialer",
]
