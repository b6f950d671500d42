"""The two workers at the network's edge. Each moves bursts and knows nothing of what is in them."""

from __future__ import annotations

import trio

from ..items import Burst
from ..ports import Inlet, WaitingOutlet
from .transports import Transport

__all__ = ["move_down", "move_up"]


async def move_up(transport: Transport, *, outlet: WaitingOutlet[Burst]) -> None:
    """From the network to packetmuxer. Ends only by the transport's exception, or cancelled.

    A full outlet leaves datagrams in the kernel's buffer, which is where a queue costs least.
    """
    receive, send = transport.receive, outlet.send
    while True:
        await send(await receive())


async def move_down(transport: Transport, *, inlet: Inlet[Burst]) -> None:
    """From packetmuxer to the network, until the inlet ends."""
    receive, send = inlet.receive, transport.send
    try:
        while True:
            await send(await receive())
    except trio.EndOfChannel:
        return
