"""The muxer's two workers, joined to plain channels."""

from __future__ import annotations

import random

import trio
import trio.testing

from minivpn_trio.errors import DropReason
from minivpn_trio.items import Burst, ControlBurst, RemoteBound, RenegotiationKey, SequencedPacket
from minivpn_trio.packet.codec import ControlPacket, serialize_control
from minivpn_trio.packet.ids import KeyID, PacketID, Role, SessionID
from minivpn_trio.packet.opcodes import Opcode
from minivpn_trio.packetmuxer.control_wrap import NoWrap
from minivpn_trio.packetmuxer.muxer import PacketMuxer
from minivpn_trio.packetmuxer.worker import move_down, move_up
from minivpn_trio.packetmuxer.wrapping import Opened

DATA: Burst = [b"\x48\x00\x00\x01" + bytes(40)] * 3


class Outlet:
    """A dropping outlet with room for ``room`` items."""

    def __init__(self, room: int = 100) -> None:
        self.room = room
        self.items: list[object] = []

    def offer(self, item: object) -> bool:
        if len(self.items) >= self.room:
            return False
        self.items.append(item)
        return True


def make() -> PacketMuxer:
    return PacketMuxer(role=Role.CLIENT, wrap=NoWrap(), rng=random.Random(1).randbytes)


def answer(muxer: PacketMuxer) -> bytes:
    return b"".join(
        serialize_control(
            ControlPacket(
                opcode=Opcode.CONTROL_HARD_RESET_SERVER_V2,
                key_id=KeyID(0),
                session_id=SessionID(b"a server"),
                acks=(PacketID(0),),
                peer_session_id=muxer.local_session_id,
                packet_id=PacketID(0),
            )
        )
    )


async def test_move_up_sorts_and_ends_with_its_inlet() -> None:
    muxer, control, notify = make(), Outlet(), Outlet()
    feed, inlet = trio.open_memory_channel[Burst](10)
    data, got = trio.open_memory_channel[Burst](10)
    async with feed, inlet, data, got:
        for burst in (DATA, [b"junk"], [answer(muxer)], DATA, [answer(muxer), *DATA]):
            feed.send_nowait(burst)
        await feed.aclose()
        await move_up(muxer, inlet=inlet, data=data, control=control, notify=notify)
        assert got.receive_nowait() is DATA
        assert got.receive_nowait() == DATA
    reset = SequencedPacket(KeyID(0), Opcode.CONTROL_HARD_RESET_SERVER_V2, (PacketID(0),), PacketID(0), b"")
    assert control.items == [[reset], [reset]]
    assert notify.items == [RemoteBound()]
    assert muxer.drops == {DropReason.NOT_READY: 3, DropReason.TOO_SHORT: 1}


async def test_a_full_control_edge_does_not_stop_data() -> None:
    muxer, control = make(), Outlet(room=0)
    feed, inlet = trio.open_memory_channel[Burst](10)
    data, got = trio.open_memory_channel[Burst](10)
    async with feed, inlet, data, got:
        feed.send_nowait([answer(muxer), *DATA])
        await feed.aclose()
        await move_up(muxer, inlet=inlet, data=data, control=control, notify=Outlet())
        assert got.receive_nowait() == DATA


async def test_a_full_data_edge_holds_move_up_back() -> None:
    muxer = make()
    muxer.handle_datagrams([answer(muxer)], 0.0)
    feed, inlet = trio.open_memory_channel[Burst](10)
    data, got = trio.open_memory_channel[Burst](0)
    async with feed, inlet, data, got, trio.open_nursery() as nursery:
        nursery.start_soon(
            lambda: move_up(muxer, inlet=inlet, data=data, control=Outlet(), notify=Outlet()),
        )
        for _ in range(3):
            feed.send_nowait(DATA)
        await trio.testing.wait_all_tasks_blocked()
        assert inlet.statistics().current_buffer_used == 2
        for _ in range(3):
            assert await got.receive() is DATA
        nursery.cancel_scope.cancel()


async def test_move_down_wraps_control_and_passes_data() -> None:
    muxer = make()
    feed, inlet = trio.open_memory_channel[Burst | ControlBurst](10)
    outlet, got = trio.open_memory_channel[Burst](10)
    reset = SequencedPacket(KeyID(0), Opcode.CONTROL_HARD_RESET_CLIENT_V2, (), PacketID(0), b"", 1)
    async with feed, inlet, outlet, got:
        feed.send_nowait(ControlBurst([reset]))
        feed.send_nowait(DATA)
        await feed.aclose()
        await move_down(muxer, inlet=inlet, outlet=outlet)
        assert got.receive_nowait() == [b"\x38" + muxer.local_session_id + bytes(5)]
        assert got.receive_nowait() is DATA


async def test_move_up_reads_trios_clock(autojump_clock: trio.testing.MockClock) -> None:
    seen: list[float] = []

    class Timed(NoWrap):
        def open_untrusted(self, datagram: bytes) -> Opened:
            return super().open_untrusted(datagram)._replace(accept=lambda now: seen.append(now - start))

    muxer = PacketMuxer(role=Role.CLIENT, wrap=Timed(), rng=random.Random(1).randbytes)
    feed, inlet = trio.open_memory_channel[Burst](0)
    data, got = trio.open_memory_channel[Burst](0)
    start = trio.current_time()
    async with feed, inlet, data, got, trio.open_nursery() as nursery:
        nursery.start_soon(lambda: move_up(muxer, inlet=inlet, data=data, control=Outlet(), notify=Outlet()))
        for _ in range(2):
            await trio.sleep(3)
            await feed.send([answer(muxer)])
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert seen == [3.0, 6.0]


async def test_a_renegotiation_key_changes_what_follows_it() -> None:
    muxer = make()
    muxer.handle_datagrams([answer(muxer)], 0.0)
    soft = SequencedPacket(KeyID(1), Opcode.CONTROL_SOFT_RESET_V1, (), PacketID(0), b"", 1)
    feed, inlet = trio.open_memory_channel[Burst | ControlBurst | RenegotiationKey](8)
    outlet, wire = trio.open_memory_channel[Burst](8)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: move_down(muxer, inlet=inlet, outlet=outlet))
        for item in (ControlBurst([soft]), RenegotiationKey(bytes(256)), ControlBurst([soft]), DATA):
            await feed.send(item)
        sizes = [len((await wire.receive())[0]) for _ in range(3)]
        feed.close()
    assert sizes == [14, 54, len(DATA[0])]
    for channel in (inlet, outlet, wire):
        channel.close()
