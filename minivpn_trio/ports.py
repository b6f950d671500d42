"""What a worker sees of the channels it is wired to.

``wiring.py`` opens the channels and knows their depths; a stage knows only
these three types, so it can be tested with any object that has the methods.
"""

from __future__ import annotations

from typing import Protocol, TypeVar

__all__ = ["DroppingOutlet", "Inlet", "WaitingOutlet"]

T_co = TypeVar("T_co", covariant=True)
T_contra = TypeVar("T_contra", contravariant=True)


class Inlet(Protocol[T_co]):
    """Where a worker's input arrives."""

    async def receive(self) -> T_co:
        """The next item. Checkpoints always. Raises trio.EndOfChannel when every sender left."""
        ...

    def receive_nowait(self) -> T_co:
        """The next item, or trio.WouldBlock."""
        ...


class WaitingOutlet(Protocol[T_contra]):
    """An edge that holds its sender back when full."""

    async def send(self, item: T_contra) -> None:
        """Hand ``item`` over, waiting for room. Checkpoints always."""
        ...

    def send_nowait(self, item: T_contra) -> None:
        """Hand ``item`` over, or raise trio.WouldBlock."""
        ...


class DroppingOutlet(Protocol[T_contra]):
    """An edge whose sender never waits."""

    def offer(self, item: T_contra) -> bool:
        """Hand ``item`` over; False (dropped and counted by the edge) when there is no room."""
        ...
