"""The control channel's workers over real channels."""

from __future__ import annotations

import trio
from trio.testing import wait_all_tasks_blocked

from minivpn_trio.controlchannel import worker
from minivpn_trio.controlchannel.channel import ControlChannel
from minivpn_trio.items import OpenKey, Segment, SoftResetSeen, TLSBytes
from minivpn_trio.packet.ids import KeyID, Role
from minivpn_trio.packet.opcodes import Opcode
from minivpn_trio.wiring import Lifetime, Pipes

KEY = KeyID(1)


def channel() -> ControlChannel:
    return ControlChannel(role=Role.CLIENT, max_payload=lambda: 10)


async def test_up() -> None:
    with Pipes(Lifetime.CONNECTION) as pipes:
        messages = pipes.dropping("reliable.move_up", "controlchannel.move_up")
        messages.offer([Segment(KEY, Opcode.CONTROL_SOFT_RESET_V1, b""), Segment(KEY, Opcode.CONTROL_V1, b"abc")])
        async with trio.open_nursery() as nursery:
            nursery.start_soon(
                lambda: worker.move_up(
                    channel(),
                    inlet=pipes.inlet("controlchannel.move_up"),
                    outlet=pipes.waiting("controlchannel.move_up", "tlssession.worker"),
                )
            )
            inbox = pipes.inlet("tlssession.worker")
            assert [await inbox.receive(), await inbox.receive()] == [SoftResetSeen(KEY), TLSBytes(KEY, b"abc")]
            pipes._channels["controlchannel.move_up"][0].close()


async def test_down_keeps_order_and_sends_lists_of_64_at_most() -> None:
    with Pipes(Lifetime.CONNECTION) as pipes:
        session = pipes.waiting("tlssession.worker", "controlchannel.move_down")
        inbox = pipes.inlet("reliable.move_down")
        reset = OpenKey(KEY, Opcode.CONTROL_SOFT_RESET_V1)
        data = bytes(i % 251 for i in range(1000))
        session.send_nowait(reset)
        session.send_nowait(TLSBytes(KEY, data[:5]))
        session.send_nowait(TLSBytes(KEY, data[5:]))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(
                lambda: worker.move_down(
                    channel(),
                    inlet=pipes.inlet("controlchannel.move_down"),
                    outlet=pipes.waiting("controlchannel.move_down", "reliable.move_down"),
                )
            )
            await wait_all_tasks_blocked()
            pipes._channels["controlchannel.move_down"][0].close()
            await wait_all_tasks_blocked()
            lists = []
            while True:
                try:
                    lists.append(inbox.receive_nowait())
                except trio.WouldBlock:
                    break
        assert [len(each) for each in lists] == [64, 38]
        first, *segments = [item for each in lists for item in each]
        assert first is reset
        assert b"".join(segment.payload for segment in segments) == data
