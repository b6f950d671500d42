"""What the rest of the client needs of a way to the server, whatever carries the datagrams.

A transport moves bursts. ``Transport`` is what every one can do, an application's own as well; the other protocols
say what only some can. This package's own:

    udp.py        a connected socket
    floating.py   a socket whose server may be elsewhere
    stream.py     TCP, or the application's own stream
    proxies.py    what a proxy makes of these
    obfs4.py      a stream through a bridge
    scrambled.py  any of them, disguised
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

from ..items import Burst
from ..stats import TransportStats

__all__ = ["MAX_BURST", "FloatingTransport", "PathWatcher", "PromptTransport", "Transport"]

#: Most datagrams handed over at once.
MAX_BURST = 64
#: Room for any datagram that a server may send: the largest tun-mtu we announce, plus overhead.
RECEIVE_SIZE = 65536


@runtime_checkable
class Transport(Protocol):
    """What the networkio workers need of a way to the server.

    An application passes its own through ``connect=``: an obfuscating or
    recording transport, a test link.
    """

    @property
    def is_stream(self) -> bool:
        """True where bytes arrive in order and none are lost (TCP): changes the announced options."""
        ...

    @property
    def peer(self) -> str | None:
        """The server's numeric address, where there is one."""
        ...

    async def receive(self) -> Burst:
        """1 to 64 datagrams. Raises OSError or trio.BrokenResourceError when the transport is
        broken, trio.EndOfChannel when the server closed it. Cancellation loses nothing.
        """
        ...

    async def send(self, burst: Burst) -> None:
        """Send every datagram of ``burst``, waiting for room. Errors as for ``receive``."""
        ...

    def send_nowait(self, burst: Burst) -> None:
        """Send what goes out without waiting and forget the rest: for saying goodbye."""
        ...

    def established(self) -> None:
        """The session is up: what the network says of a single packet no longer ends it."""
        ...

    def stats(self) -> TransportStats:
        """Counters so far."""
        ...

    async def aclose(self) -> None:
        """Close. Idempotent."""
        ...


@runtime_checkable
class PromptTransport(Protocol):
    """A transport that can also send without a task that waits."""

    def send_some(self, burst: Burst) -> int:
        """Send from the front of ``burst`` what goes out without waiting, and return how many datagrams need not
        come again. Never called while ``send`` runs. Errors as for ``send``.
        """
        ...


@runtime_checkable
class FloatingTransport(Protocol):
    """A transport whose peer may come to be elsewhere. What comes from there is an ``items.ForeignBurst``."""

    def adopt(self, source: Any) -> None:
        """The peer has proved that it is at ``source``, that of a ForeignBurst: send there from now on."""
        ...


@runtime_checkable
class PathWatcher(Protocol):
    """A transport that knows how large a packet its path takes whole."""

    @property
    def path_mtu(self) -> int | None:
        """Bytes of outer IP packet; None: not known."""
        ...

    #: Called when that changed, from within a call that sends.
    on_path_mtu: Callable[[], None] | None
