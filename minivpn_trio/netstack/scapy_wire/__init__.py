"""The slow path between packets and bytes, by scapy; and the oracle that the fast path is held against.

What is rare or irregular comes here: SYN, FIN and RST, ICMP, fragments,
anything with IP options or IPv6 extension headers. scapy sees headers only:
the payload is sliced off first, so its size costs nothing and its bytes are
never dissected.

``parsing.py`` and ``building.py`` are the two directions, ``headers.py`` what they share, and
``loading.py`` is where scapy is imported.

Sources: RFC 791, 8200, 768, 792, 4443, 9293 (3.1, 3.2), 7323, 2018; RFC 1071 for the checksum.
"""

from __future__ import annotations

from .building import build_icmp, build_tcp, build_udp
from .headers import ICMP, ICMPV6, TCP, UDP
from .loading import is_loaded, preload
from .parsing import UnknownProtocolError, parse_transport_untrusted, parse_untrusted

__all__ = [
    "ICMP",
    "ICMPV6",
    "TCP",
    "UDP",
    "UnknownProtocolError",
    "build_icmp",
    "build_tcp",
    "build_udp",
    "is_loaded",
    "parse_transport_untrusted",
    "parse_untrusted",
    "preload",
]
