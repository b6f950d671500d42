"""The control channel's two workers: messages up to the session, its bytes and commands down."""

from __future__ import annotations

import trio

from ..items import ExpectKey, OpenKey, RetireKey, Segment, SoftResetSeen, TLSBytes
from ..ports import Inlet, WaitingOutlet
from .channel import ControlChannel

__all__ = ["BURST", "move_down", "move_up"]

#: Most items that travel down together.
BURST = 64


async def move_up(
    channel: ControlChannel, *, inlet: Inlet[list[Segment]], outlet: WaitingOutlet[TLSBytes | SoftResetSeen]
) -> None:
    """Messages in, bytes and soft resets out. Returns when the inlet ends."""
    while True:
        try:
            segments = await inlet.receive()
        except trio.EndOfChannel:
            return
        for item in channel.handle_segments(segments):
            await outlet.send(item)


async def move_down(
    channel: ControlChannel,
    *,
    inlet: Inlet[TLSBytes | OpenKey | ExpectKey | RetireKey],
    outlet: WaitingOutlet[list[Segment | OpenKey | ExpectKey | RetireKey]],
) -> None:
    """Bytes and commands in, messages and commands out, in order. Returns when the inlet ends."""
    while True:
        try:
            items = [await inlet.receive()]
        except trio.EndOfChannel:
            return
        # A command and the bytes that follow it go down together: the reset of a new key and
        # the acknowledgement it carries must not wait for a second turn.
        while len(items) < BURST:
            try:
                items.append(inlet.receive_nowait())
            except (trio.WouldBlock, trio.EndOfChannel):
                break
        segments = channel.segment(items)
        for start in range(0, len(segments), BURST):
            await outlet.send(segments[start : start + BURST])
