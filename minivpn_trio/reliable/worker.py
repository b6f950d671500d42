"""The reliability layer's two workers, which share one core.

``move_up`` feeds packets to the core and offers what became deliverable to the
stage above, which never holds us back: what it has no room for stays in the
receive window and is offered again. ``move_down`` is two tasks: one takes
messages while the core has room, the other sends what the core wants to send
and sleeps until its next timeout. Whoever changes something that another one
waits for says so through ``Wakeups``.
"""

from __future__ import annotations

import math

import trio

from ..items import ControlBurst, ExpectKey, OpenKey, RetireKey, Segment, SequencedPacket
from ..ports import DroppingOutlet, Inlet, WaitingOutlet
from .transport import ReliableTransport

__all__ = ["DELIVERY_RETRY", "Wakeups", "move_down", "move_up"]

#: How long to wait before offering again what the stage above had no room for, seconds.
DELIVERY_RETRY = 0.02


class _Wakeup:
    """A bell for one waiting task. Rung while nobody waits, it ends the next wait at once."""

    def __init__(self) -> None:
        self._event = trio.Event()

    def ring(self) -> None:
        self._event.set()

    async def wait(self) -> None:
        await self._event.wait()
        self._event = trio.Event()


class Wakeups:
    """What the workers of one core tell each other."""

    def __init__(self) -> None:
        #: Something new is to be sent, or a timer was set.
        self.transmit: _Wakeup = _Wakeup()
        #: The send windows moved, so the core may take more messages.
        self.room: _Wakeup = _Wakeup()


async def move_up(
    reliable: ReliableTransport,
    *,
    inlet: Inlet[list[SequencedPacket]],
    outlet: DroppingOutlet[list[Segment]],
    wakeups: Wakeups,
) -> None:
    """Packets in, messages in order out. Returns when the inlet ends."""
    delivered = True
    while True:
        with trio.move_on_after(math.inf if delivered else DELIVERY_RETRY):
            try:
                packets = await inlet.receive()
            except trio.EndOfChannel:
                return
            reliable.handle_packets(packets, trio.current_time())
            wakeups.transmit.ring()
            wakeups.room.ring()
        delivered = reliable.deliver(outlet.offer)


async def move_down(
    reliable: ReliableTransport,
    *,
    inlet: Inlet[list[Segment | OpenKey | ExpectKey | RetireKey]],
    outlet: WaitingOutlet[ControlBurst],
    wakeups: Wakeups,
) -> None:
    """Messages and commands in, packets out, each again until it is acknowledged. Returns when
    the inlet ends."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_transmit, reliable, outlet, wakeups)
        await _take(reliable, inlet, wakeups)
        nursery.cancel_scope.cancel()


async def _take(
    reliable: ReliableTransport, inlet: Inlet[list[Segment | OpenKey | ExpectKey | RetireKey]], wakeups: Wakeups
) -> None:
    while True:
        try:
            items = await inlet.receive()
        except trio.EndOfChannel:
            return
        for item in items:
            # Commands need no room; one may be what makes some.
            while isinstance(item, Segment) and not reliable.can_submit:
                await wakeups.room.wait()
            reliable.submit(item, trio.current_time())
            wakeups.transmit.ring()


async def _transmit(reliable: ReliableTransport, outlet: WaitingOutlet[ControlBurst], wakeups: Wakeups) -> None:
    while True:
        packets = reliable.poll_transmit(trio.current_time())
        if packets:
            await outlet.send(ControlBurst(packets))
            continue
        deadline = reliable.next_timeout()
        with trio.move_on_at(math.inf if deadline is None else deadline):
            await wakeups.transmit.wait()
