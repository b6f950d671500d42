"""The reliability layer's workers over real channels, on a virtual clock."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from minivpn_trio.items import ControlBurst, OpenKey, RetireKey, Segment, SequencedPacket
from minivpn_trio.packet.ids import KeyID, PacketID, Role
from minivpn_trio.packet.opcodes import Opcode
from minivpn_trio.reliable import worker
from minivpn_trio.reliable.transport import MAX_QUEUED, ReliableTransport
from minivpn_trio.wiring import Lifetime, Pipes

KEY = KeyID(0)
CLIENT_RESET = Opcode.CONTROL_HARD_RESET_CLIENT_V2
SERVER_RESET = Opcode.CONTROL_HARD_RESET_SERVER_V2
MESSAGE = Opcode.CONTROL_V1


def packet(opcode: Opcode, packet_id: int | None, *acks: int, payload: bytes = b"") -> SequencedPacket:
    pid = None if packet_id is None else PacketID(packet_id)
    return SequencedPacket(KEY, opcode, tuple(PacketID(ack) for ack in acks), pid, payload)


class Bench:
    """A core with both workers, and the four far ends of their channels."""

    def __init__(self, pipes: Pipes) -> None:
        self.pipes = pipes
        self.core = ReliableTransport(role=Role.CLIENT)
        self.network_in = pipes.dropping("packetmuxer.move_up", "reliable.move_up")
        self.network_out = pipes.inlet("packetmuxer.move_down")
        self.session_in = pipes.waiting("controlchannel.move_down", "reliable.move_down")
        self.session_out = pipes.inlet("controlchannel.move_up")

    def workers(self) -> list[partial[object]]:
        wakeups = worker.Wakeups()
        up = partial(
            worker.move_up,
            self.core,
            inlet=self.pipes.inlet("reliable.move_up"),
            outlet=self.pipes.dropping("reliable.move_up", "controlchannel.move_up"),
            wakeups=wakeups,
        )
        down = partial(
            worker.move_down,
            self.core,
            inlet=self.pipes.inlet("reliable.move_down"),
            outlet=self.pipes.waiting("reliable.move_down", "packetmuxer.move_down"),
            wakeups=wakeups,
        )
        return [up, down]

    async def sent(self) -> list[SequencedPacket]:
        burst = await self.network_out.receive()
        assert isinstance(burst, ControlBurst)
        return burst.packets

    async def shake_hands(self) -> None:
        await self.session_in.send([OpenKey(KEY, CLIENT_RESET)])
        assert [p.opcode for p in await self.sent()] == [CLIENT_RESET]
        assert self.network_in.offer([packet(SERVER_RESET, 0, 0)])
        assert [s.opcode for s in await self.session_out.receive()] == [SERVER_RESET]


@asynccontextmanager
async def bench() -> AsyncIterator[Bench]:
    with Pipes(Lifetime.CONNECTION) as pipes:
        it = Bench(pipes)
        async with trio.open_nursery() as nursery:
            for each in it.workers():
                nursery.start_soon(each)
            yield it
            nursery.cancel_scope.cancel()


async def test_a_message_is_sent_again_until_it_is_acknowledged(autojump_clock: MockClock) -> None:
    async with bench() as it:
        start = trio.current_time()
        await it.session_in.send([OpenKey(KEY, CLIENT_RESET)])
        times = []
        for attempt in (1, 2, 3):
            (reset,) = await it.sent()
            assert reset.attempt == attempt
            times.append(round(trio.current_time() - start, 6))
        assert times == [0, 2, 6]
        it.network_in.offer([packet(Opcode.ACK_V1, None, 0)])
        with trio.move_on_after(1000) as scope:
            await it.sent()
        assert scope.cancelled_caught


async def test_the_client_hello_carries_the_acknowledgement_of_the_servers_reset(autojump_clock: MockClock) -> None:
    async with bench() as it:
        await it.shake_hands()
        await trio.sleep(0.05)
        await it.session_in.send([Segment(KEY, MESSAGE, b"ClientHello")])
        (hello,) = await it.sent()
        assert (hello.packet_id, hello.acks, hello.payload) == (1, (0,), b"ClientHello")


async def test_without_a_message_the_acknowledgement_goes_alone(autojump_clock: MockClock) -> None:
    async with bench() as it:
        await it.shake_hands()
        start = trio.current_time()
        (ack,) = await it.sent()
        assert (ack.opcode, ack.acks) == (Opcode.ACK_V1, (0,))
        assert round(trio.current_time() - start, 6) == 0.1


async def test_what_the_stage_above_has_no_room_for_is_offered_again(autojump_clock: MockClock) -> None:
    async with bench() as it:
        await it.shake_hands()
        # Nobody reads: 16 lists fit the channel, the rest has to stay in the receive window.
        for number in range(1, 26):
            it.network_in.offer([packet(MESSAGE, number, payload=b"%d" % number)])
            await wait_all_tasks_blocked()
        (conversation,) = it.core.conversations
        assert conversation.receiver.stored == 25 - 16
        assert it.pipes.drops["reliable.move_up -> controlchannel.move_up"] > 0
        received: list[bytes] = []
        while len(received) < 25:
            received += [segment.payload for segment in await it.session_out.receive()]
        assert received == [b"%d" % number for number in range(1, 26)]
        assert conversation.receiver.stored == 0


async def test_a_full_core_holds_the_stage_above_back_and_takes_more_after_an_acknowledgement(
    autojump_clock: MockClock,
) -> None:
    async with bench() as it:
        await it.shake_hands()
        await it.sent()
        total = 6 + MAX_QUEUED + 20
        await it.session_in.send([Segment(KEY, MESSAGE, b"%d" % number) for number in range(total)])
        await wait_all_tasks_blocked()
        (conversation,) = it.core.conversations
        assert (conversation.sender.in_flight, conversation.sender.queued) == (6, MAX_QUEUED)
        arrived: dict[int, bytes] = {}
        while len(arrived) < total:
            packets = await it.sent()
            for each in packets:
                assert each.packet_id is not None
                arrived[each.packet_id] = each.payload
            it.network_in.offer([packet(Opcode.ACK_V1, None, *(p.packet_id for p in packets if p.packet_id))])
        assert [arrived[number + 1] for number in range(total)] == [b"%d" % number for number in range(total)]
        assert not it.core.drops


async def test_retiring_the_key_wakes_who_waited_for_its_timer(autojump_clock: MockClock) -> None:
    async with bench() as it:
        await it.session_in.send([OpenKey(KEY, CLIENT_RESET)])
        await it.sent()
        await it.session_in.send([RetireKey(KEY)])
        with trio.move_on_after(1000) as scope:
            await it.sent()
        assert scope.cancelled_caught


async def test_the_workers_end_with_their_inlets() -> None:
    with Pipes(Lifetime.CONNECTION) as pipes:
        it = Bench(pipes)
        with trio.fail_after(5):
            async with trio.open_nursery() as nursery:
                for each in it.workers():
                    nursery.start_soon(each)
                await it.session_in.send([OpenKey(KEY, CLIENT_RESET)])
                await wait_all_tasks_blocked()
                for target in ("reliable.move_up", "reliable.move_down"):
                    pipes._channels[target][0].close()
