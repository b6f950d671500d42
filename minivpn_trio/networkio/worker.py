"""The two workers at the network's edge. Each moves bursts and knows nothing of what is in them."""

from __future__ import annotations

import trio

from ..items import Burst
from ..ports import Inlet, WaitingOutlet, stepped
from .transport import PromptTransport, Transport

__all__ = ["move_down", "move_up"]


async def move_up(transport: Transport, *, outlet: WaitingOutlet[Burst]) -> None:
    """From the network to packetmuxer. Ends only by the transport's exception, or cancelled.

    A full outlet leaves datagrams in the kernel's buffer, which is where a queue costs least.
    """
    receive, send, send_nowait = transport.receive, outlet.send, outlet.send_nowait
    while True:
        burst = await receive()
        try:
            send_nowait(burst)
        except trio.WouldBlock:
            await send(burst)


async def move_down(transport: Transport, *, inlet: Inlet[Burst]) -> None:
    """From packetmuxer to the network, until the inlet ends.

    As a step it sends what the kernel takes at once; the rest, and what fails, is for the task.
    """
    receive, send = inlet.receive, transport.send
    send_some = transport.send_some if isinstance(transport, PromptTransport) else None

    def step(burst: Burst) -> Burst | None:
        if send_some is None:
            return burst
        try:
            sent = send_some(burst)
        except OSError:
            return burst
        return None if sent == len(burst) else burst[sent:]

    try:
        with stepped(inlet, step):
            while True:
                await send(await receive())
    except trio.EndOfChannel:
        return
