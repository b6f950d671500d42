"""Any transport, behind the disguises of scramble.py.

Size and number of packets stay, so what the inner transport knows of its path and its peer holds for this one too.
There is no ``send_some``: a disguised burst always goes out by the worker's task.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..items import Burst, ForeignBurst
from ..stats import TransportStats
from .scramble import Scrambler
from .transport import FloatingTransport, PathWatcher, Transport

__all__ = ["ScrambledTransport"]


class ScrambledTransport:
    """Another transport whose packets are disguised. Owns it."""

    def __init__(self, inner: Transport, scrambler: Scrambler) -> None:
        self._inner = inner
        self._scrambler = scrambler

    @property
    def is_stream(self) -> bool:
        """As the inner transport's."""
        return self._inner.is_stream

    @property
    def peer(self) -> str | None:
        """As the inner transport's."""
        return self._inner.peer

    @property
    def path_mtu(self) -> int | None:
        """As the inner transport's: a disguise adds nothing."""
        return self._inner.path_mtu if isinstance(self._inner, PathWatcher) else None

    @property
    def on_path_mtu(self) -> Callable[[], None] | None:
        """The inner transport's."""
        return self._inner.on_path_mtu if isinstance(self._inner, PathWatcher) else None

    @on_path_mtu.setter
    def on_path_mtu(self, callback: Callable[[], None] | None) -> None:
        if isinstance(self._inner, PathWatcher):
            self._inner.on_path_mtu = callback

    async def receive(self) -> Burst:
        """1 to 64 datagrams. Errors and cancellation as with the inner transport."""
        burst = await self._inner.receive()
        clear = self._scrambler.unscramble(burst)
        return ForeignBurst(burst.source, clear) if isinstance(burst, ForeignBurst) else clear

    def adopt(self, source: Any) -> None:
        """Tell the inner transport."""
        if isinstance(self._inner, FloatingTransport):
            self._inner.adopt(source)

    async def send(self, burst: Burst) -> None:
        """Send every datagram. Errors and cancellation as with the inner transport."""
        await self._inner.send(self._scrambler.scramble(burst))

    def send_nowait(self, burst: Burst) -> None:
        """Send what goes out without waiting."""
        self._inner.send_nowait(self._scrambler.scramble(burst))

    def established(self) -> None:
        """Tell the inner transport."""
        self._inner.established()

    def stats(self) -> TransportStats:
        """The inner transport's."""
        return self._inner.stats()

    async def aclose(self) -> None:
        """Close the inner transport. Idempotent, checkpoints."""
        await self._inner.aclose()
