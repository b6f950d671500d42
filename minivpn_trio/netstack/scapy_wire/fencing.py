"""The fence around scapy: whatever it raises is a packet's fault, not the stack's."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from ...errors import DropReason, ProtocolError

__all__ = ["built", "fenced"]

T = TypeVar("T")


def fenced(call: Callable[[], T]) -> T:
    """The result of ``call``, with everything that scapy may raise turned into ProtocolError."""
    try:
        return call()
    except ProtocolError:
        raise
    except Exception as exc:  # scapy raises struct.error, IndexError, TypeError, Scapy_Exception, ...
        raise ProtocolError(DropReason.MALFORMED, f"scapy: {type(exc).__name__}") from None


def built(call: Callable[[], object]) -> bytes:
    """Like ``fenced``, of a call that makes a packet: anything but bytes is a ProtocolError, too."""
    packet = fenced(call)
    if not isinstance(packet, bytes):
        raise ProtocolError(DropReason.MALFORMED, "scapy: not bytes")
    return packet
