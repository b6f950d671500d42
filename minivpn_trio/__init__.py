"""An OpenVPN client for Trio programs, with its own TCP/IP stack: no root, no tun device, no daemon.

    async with minivpn_trio.open_tun_dialer("client.ovpn") as dialer:
        stream = await dialer.open_tcp_stream("10.8.0.1", 80)

This module is the whole public face, with ``minivpn_trio.testing`` (a server
for test suites), ``minivpn_trio.events``, ``minivpn_trio.tracing`` and
``minivpn_trio.integrations``.

Each name is imported from its module when it is first used (PEP 562): importing
the package alone costs a few milliseconds, and a program pays for what it uses.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .challenge import Challenge, ChallengeKind
    from .client import Client, open_client
    from .config.model import Credentials, Remote, TunnelConfig
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
    from .networkio.transport import Transport
    from .profiles import load_config
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

#: Where each name lives; the same as the imports above, which only type checkers read.
_HOMES = {
    "Challenge": ".challenge",
    "ChallengeKind": ".challenge",
    "Client": ".client",
    "open_client": ".client",
    "Credentials": ".config.model",
    "Remote": ".config.model",
    "TunnelConfig": ".config.model",
    "load_config": ".profiles",
    "HTTPProxy": ".config.proxy",
    "Obfs4Bridge": ".config.proxy",
    "Scramble": ".config.proxy",
    "SocksProxy": ".config.proxy",
    "TunnelInfo": ".config.tunnel_info",
    "TunDialer": ".dialer",
    "open_tun_dialer": ".dialer",
    "AuthFailed": ".errors",
    "ConfigError": ".errors",
    "ConnectError": ".errors",
    "HandshakeTimeout": ".errors",
    "MiniVPNError": ".errors",
    "Stage": ".errors",
    "TLSVerificationError": ".errors",
    "TransportError": ".errors",
    "TunnelClosed": ".errors",
    "Event": ".events",
    "DialerContext": ".networkio.dial",
    "Transport": ".networkio.transport",
    "TunnelStats": ".stats",
    "ArchivalTracer": ".trace_sinks",
    "JSONLinesTracer": ".trace_sinks",
    "LoggingTracer": ".trace_sinks",
    "TeeTracer": ".trace_sinks",
    "Tracer": ".tracing",
}
#: Modules that are public as such: attributes of the package without an import of their own.
_MODULES = frozenset({"config", "errors", "events", "integrations", "stats", "testing", "tracing"})

if not TYPE_CHECKING:  # type checkers then know a misspelt name when they see one

    def __getattr__(name: str) -> Any:
        """A public name, imported now and kept; AttributeError for any other."""
        from importlib import import_module

        if name in _HOMES:
            value = getattr(import_module(_HOMES[name], __name__), name)
        elif name in _MODULES:
            value = import_module(f".{name}", __name__)
        else:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        globals()[name] = value
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__, *_MODULES})
