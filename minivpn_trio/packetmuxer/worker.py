"""The two workers of the muxer: one sorts what arrives, one sends control packets and data."""

from __future__ import annotations

import trio

from ..items import Burst, ControlBurst, RemoteBound, RenegotiationKey, SequencedPacket
from ..ports import DroppingOutlet, Inlet, WaitingOutlet, stepped
from .muxer import PacketMuxer

__all__ = ["move_down", "move_up"]


async def move_up(
    muxer: PacketMuxer,
    *,
    inlet: Inlet[Burst],
    data: WaitingOutlet[Burst],
    control: DroppingOutlet[list[SequencedPacket]],
    notify: DroppingOutlet[RemoteBound],
) -> None:
    """From the network to datachannel and reliable, until the inlet ends.

    ``notify`` is told once, before the packets that bound the session are passed on. Control
    packets that find no room are dropped: they were not acknowledged, so the peer repeats them.
    """
    receive, is_data, handle, clock = inlet.receive, muxer.is_data, muxer.handle_datagrams, trio.current_time

    def sort(burst: Burst) -> Burst:
        if is_data(burst):
            return burst
        demuxed = handle(burst, clock())
        if demuxed.bound:
            notify.offer(RemoteBound())
        if demuxed.control:
            control.offer(demuxed.control)
        return demuxed.data

    def step(burst: Burst) -> Burst | None:
        if not data.has_room():
            return burst
        rest = sort(burst)
        if rest:
            data.send_nowait(rest)
        return None

    try:
        with stepped(inlet, step):
            while True:
                burst = sort(await receive())
                if burst:
                    await data.send(burst)
    except trio.EndOfChannel:
        return


async def move_down(
    muxer: PacketMuxer, *, inlet: Inlet[Burst | ControlBurst | RenegotiationKey], outlet: WaitingOutlet[Burst]
) -> None:
    """From reliable, datachannel and keeper to the network, until the inlet ends.

    A key that comes between is installed before anything that follows it is wrapped.
    """
    receive, send = inlet.receive, outlet.send

    def step(item: Burst | ControlBurst | RenegotiationKey) -> Burst | ControlBurst | RenegotiationKey | None:
        if not isinstance(item, list) or not outlet.has_room():
            return item
        outlet.send_nowait(item)
        return None

    try:
        with stepped(inlet, step):
            while True:
                item = await receive()
                if isinstance(item, ControlBurst):
                    item = muxer.wrap_control(item.packets, trio.current_time())
                elif isinstance(item, RenegotiationKey):
                    muxer.install_renegotiation_key(item.exported)
                    continue
                await send(item)
    except trio.EndOfChannel:
        return
