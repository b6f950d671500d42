"""What the TCP connections of a stack hold together: bytes to be read, early ones, and those not acknowledged.

One counter against one budget, brought up to date once for a burst, a timeout or a command of each connection. It
says how things stand, and every connection acts on that itself:

    FREE   buffers grow as they need
    TIGHT  the budget is used up: no window opens further, what comes early is refused (it comes again), and nobody
           may write, beyond what ``FLOOR`` gives to each, so that whoever is read from goes on
    FULL   what was granted before is being used: data in order is refused too, beyond ``FLOOR``

So whatever peers send and readers leave, no more is held than five quarters of the budget and ``FLOOR`` for each
connection. What is held is not only bytes: each piece out of order and each segment, small as peers may make them, is
charged with the memory that it takes. A window that was granted is never taken back (RFC 9293, 3.8.6).
"""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["FLOOR", "FREE", "FULL", "TIGHT", "MemoryBudget"]

FREE, TIGHT, FULL = range(3)
#: Bytes that a connection may hold in each direction, however tight it is.
FLOOR = 16 * 1024


class MemoryBudget:
    """Sizes are bytes. ``on_relief`` is called when ``relief_due`` is set, but for what ``release`` does."""

    __slots__ = ("_full", "_on_relief", "_relief", "held", "level", "limit", "relief_due")

    def __init__(self, limit: int, on_relief: Callable[[], None]) -> None:
        self.limit: int = limit
        #: What is held now.
        self.held: int = 0
        #: FREE, TIGHT or FULL.
        self.level: int = FREE
        #: The level is FREE again, and those that waited for it were not told yet: whoever tells them takes it back.
        self.relief_due: bool = False
        self._full = limit + limit // 4
        # Some way below, so that it does not go to and fro with each packet.
        self._relief = limit - limit // 8
        self._on_relief = on_relief

    @property
    def left(self) -> int:
        """How much the budget still has."""
        return self.limit - self.held

    def change(self, size: int) -> None:
        """``size`` more bytes are held, or fewer."""
        if self._add(size):
            self._on_relief()

    def release(self, size: int) -> None:
        """``size`` bytes went with an object that nobody held any more. That may be at any moment and in any thread, so
        nobody is called."""
        self._add(-size)

    def _add(self, size: int) -> bool:
        """Whether that was a relief."""
        self.held = held = self.held + size
        if held >= self.limit:
            self.level = FULL if held >= self._full else TIGHT
        elif self.level != FREE:
            if held <= self._relief:
                self.level = FREE
                self.relief_due = True
                return True
            self.level = TIGHT
        return False
