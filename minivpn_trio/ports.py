"""What a worker sees of the channels it is wired to.

``wiring.py`` opens the channels and knows their depths; a stage knows only
these types, so it can be tested with any object that has the methods.

A worker whose input can be handled without waiting gives its inlet the
function that does it, a ``Step``. On an edge that the wiring table calls direct, the
sender then calls it, and only what the step left over takes the channel.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol, TypeVar, runtime_checkable

__all__ = ["DroppingOutlet", "Inlet", "SteppedInlet", "WaitingOutlet", "stepped"]

T = TypeVar("T")
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

    async def send(self, item: T_contra, /) -> None:
        """Hand ``item`` over, waiting for room. Checkpoints always."""
        ...

    def send_nowait(self, item: T_contra, /) -> None:
        """Hand ``item`` over, or raise trio.WouldBlock."""
        ...

    def has_room(self) -> bool:
        """Whether ``send_nowait`` would take an item now."""
        ...


class DroppingOutlet(Protocol[T_contra]):
    """An edge whose sender never waits."""

    def offer(self, item: T_contra, /) -> bool:
        """Hand ``item`` over; False (dropped and counted by the edge) when there is no room."""
        ...


@runtime_checkable
class SteppedInlet(Protocol):
    """An inlet with direct edges into it."""

    def stepped(self, step: Callable[[Any], Any]) -> AbstractContextManager[None]:
        """Senders call ``step`` for the length of the block, whenever nothing is queued and the worker is idle."""
        ...


def stepped(inlet: Inlet[T], step: Callable[[T], T | None]) -> AbstractContextManager[None]:
    """For the length of the block ``step`` may be called instead of sending to ``inlet``, if it has direct edges.

    ``step`` takes an item and returns None, or what of it has to wait for the worker. It never waits. What it raises
    goes to the sender, so on the way down, where that is the application, it raises nothing.
    """
    return inlet.stepped(step) if isinstance(inlet, SteppedInlet) else nullcontext()
