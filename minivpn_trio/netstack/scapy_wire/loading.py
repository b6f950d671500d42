"""The import of scapy, as late and as quiet as it can be.

Importing scapy takes 0.2 to 0.5 s, so it happens at the first use, or in a
thread ahead of need: ``await trio.to_thread.run_sync(preload)``. The import
is quiet: scapy's look at the host's interfaces and routes, which opens
netlink sockets, is left out. A program that wants those from scapy too
imports ``scapy.all`` before it uses a tunnel.
"""

from __future__ import annotations

import sys
import threading
from typing import Any, NamedTuple

__all__ = ["Layers", "is_loaded", "load", "preload"]


class Layers(NamedTuple):
    """scapy's classes, once they are imported."""

    ip: Any
    ipv6: Any
    ipv6_fragment: Any
    tcp: Any
    udp: Any
    icmp: Any
    raw: Any


_lock = threading.Lock()
_layers: Layers | None = None


def preload() -> None:
    """Import scapy now. Safe to call in any thread, more than once; 0.2 to 0.5 s the first time."""
    load()


def is_loaded() -> bool:
    """Whether scapy is imported, so that nothing here takes longer than a millisecond."""
    return _layers is not None


def load() -> Layers:
    """The classes of scapy. Imports it if nobody did."""
    global _layers  # noqa: PLW0603 - the point of the function
    if _layers is None:
        with _lock:
            if _layers is None:
                _layers = _import_quietly()
    return _layers


def _import_quietly() -> Layers:
    if "scapy.layers.inet" in sys.modules:
        # The program uses scapy itself: its interfaces and routes are its business.
        return _import()
    from scapy.config import conf
    from scapy.interfaces import NetworkInterfaceDict

    autoload, autoload6 = conf.route_autoload, conf.route6_autoload
    reload, load_confiface = NetworkInterfaceDict.reload, NetworkInterfaceDict.load_confiface
    conf.route_autoload = conf.route6_autoload = False
    interfaces: Any = NetworkInterfaceDict
    interfaces.reload = interfaces.load_confiface = lambda self: None
    try:
        return _import()
    finally:
        interfaces.reload, interfaces.load_confiface = reload, load_confiface
        conf.route_autoload, conf.route6_autoload = autoload, autoload6


def _import() -> Layers:
    from scapy.layers import inet, inet6
    from scapy.packet import Raw

    return Layers(
        ip=inet.IP,
        ipv6=inet6.IPv6,
        ipv6_fragment=inet6.IPv6ExtHdrFragment,
        tcp=inet.TCP,
        udp=inet.UDP,
        icmp=inet.ICMP,
        raw=Raw,
    )
