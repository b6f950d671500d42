"""The three tasks of the data channel: up, down, and the keeper of keys and silences.

All three drive one DataChannel. They need no lock: a core's methods never
wait, so each call is atomic among Trio's tasks.
"""

from __future__ import annotations

import trio

from ..items import Burst, DataChannelKey, KeepaliveTimes, RekeyWanted
from ..ports import DroppingOutlet, Inlet, WaitingOutlet, stepped
from .channel import DataChannel

__all__ = ["MAX_BURST", "REKEY_REMINDER", "keeper", "move_down", "move_up"]

#: Datagrams in one item on the way down. Only ``fragment`` makes more of a burst than came in.
MAX_BURST = 64

#: Seconds between two RekeyWanted while a key wants a successor.
REKEY_REMINDER = 1.0


async def move_up(channel: DataChannel, *, inlet: Inlet[Burst], outlet: DroppingOutlet[Burst]) -> None:
    """Decrypt what packetmuxer delivers and offer the IP packets to the tunnel's user.

    TunnelClosed: the peer said that it leaves; what came before that was delivered.
    """

    def step(datagrams: Burst) -> None:
        packets = channel.decrypt_burst(datagrams, trio.current_time())
        if packets:
            outlet.offer(packets)
        closed = channel.poll_closed()
        if closed is not None:
            raise closed

    channel.on_early = lambda: step([])
    try:
        with stepped(inlet, step):
            while True:
                try:
                    datagrams = await inlet.receive()
                except trio.EndOfChannel:
                    return
                step(datagrams)
    finally:
        channel.on_early = None


async def move_down(channel: DataChannel, *, inlet: Inlet[Burst], outlet: WaitingOutlet[Burst]) -> None:
    """Encrypt the IP packets of the tunnel's user and send them to packetmuxer."""

    def step(packets: Burst) -> Burst | None:
        if not outlet.has_room():
            return packets
        datagrams = channel.encrypt_burst(packets, trio.current_time())
        if datagrams:
            # Fragments may be more than fit an item, but they are one burst, and there is room for one.
            outlet.send_nowait(datagrams)
        return None

    with stepped(inlet, step):
        while True:
            try:
                packets = await inlet.receive()
            except trio.EndOfChannel:
                return
            await _send(outlet, channel.encrypt_burst(packets, trio.current_time()))


async def keeper(
    channel: DataChannel,
    *,
    inlet: Inlet[DataChannelKey | KeepaliveTimes],
    outlet: WaitingOutlet[Burst],
    rekey: DroppingOutlet[RekeyWanted],
) -> None:
    """Install new keys, forget old ones, send pings, ask for new keys when the current one nears a limit.

    TunnelClosed: the peer was silent for too long (ping-restart, ping-exit).
    """
    remind_at = 0.0
    while True:
        now = trio.current_time()
        await _send(outlet, channel.handle_timeout(now))
        wake_at = channel.next_timeout()
        deadline = float("inf") if wake_at is None else wake_at
        reason = channel.poll_rekey()
        if reason is not None:
            if now >= remind_at:
                rekey.offer(RekeyWanted(reason))
                remind_at = now + REKEY_REMINDER
            deadline = min(deadline, remind_at)
        # The core, driven by the other two tasks, cuts the wait short when the answers above change.
        with trio.move_on_at(deadline) as waiting:
            channel.on_wakeup = waiting.cancel
            try:
                news = await inlet.receive()
            except trio.EndOfChannel:
                return
            finally:
                channel.on_wakeup = None
            if isinstance(news, KeepaliveTimes):
                channel.change_keepalive(news, trio.current_time())
            else:
                channel.install_key(news, trio.current_time())


async def _send(outlet: WaitingOutlet[Burst], datagrams: Burst) -> None:
    for start in range(0, len(datagrams), MAX_BURST):
        await outlet.send(datagrams[start : start + MAX_BURST])
