"""The workers and the Pump: output leaves promptly, waits when it must, and timers run."""

from __future__ import annotations

import errno
from ipaddress import ip_address
from random import Random

import pytest
import trio
import trio.testing
from trio.testing import MockClock
from two_stacks import FAR, NEAR, connect, receive_exactly, send_all, two_stacks

from minivpn_trio.items import Burst
from minivpn_trio.netstack import scapy_wire
from minivpn_trio.netstack.packets import IcmpMessage, TcpSegment
from minivpn_trio.netstack.stack import Stack
from minivpn_trio.netstack.worker import Pump, move_down, move_up
from minivpn_trio.testing.link import LinkConditions

A, B = ip_address(NEAR).packed, ip_address(FAR).packed


def make() -> tuple[Stack, Pump]:
    stack = Stack(addresses=[A], mtu=1400, rng=Random(1).randbytes, now=trio.current_time())
    return stack, Pump(stack)


def echo_request(sequence: int) -> bytes:
    return scapy_wire.build_icmp(IcmpMessage(B, A, 8, 0, 7 << 16 | sequence, b"ping"))


async def test_a_burst_in_is_answered_before_the_next_is_awaited(autojump_clock: MockClock) -> None:
    stack, pump = make()
    up, inlet = trio.open_memory_channel[Burst](4)
    outlet, down = trio.open_memory_channel[Burst](4)

    async def run_up() -> None:
        await move_up(stack, inlet=inlet, pump=pump)

    async def run_down() -> None:
        await move_down(stack, outlet=outlet, pump=pump)

    with up, inlet, outlet, down:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run_up)
            nursery.start_soon(run_down)
            await trio.testing.wait_all_tasks_blocked()
            up.send_nowait([echo_request(1), echo_request(2)])
            burst = await down.receive()
            assert [scapy_wire.parse_untrusted(packet) for packet in burst] == [
                IcmpMessage(A, B, 0, 0, 7 << 16 | sequence, b"ping") for sequence in (1, 2)
            ]
            up.close()
            await trio.testing.wait_all_tasks_blocked()
            # The tunnel ended: nothing can be opened any more.
            assert pump.down
            with pytest.raises(OSError, match="down") as caught:
                stack.open_udp()
            assert caught.value.errno == errno.ENETDOWN
            nursery.cancel_scope.cancel()


async def test_output_keeps_its_order_when_the_edge_is_full(autojump_clock: MockClock) -> None:
    """What did not fit is held by move_down, and what comes later does not overtake it."""
    stack, pump = make()
    outlet, down = trio.open_memory_channel[Burst](1)

    async def run_down() -> None:
        await move_down(stack, outlet=outlet, pump=pump)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run_down)
        await trio.testing.wait_all_tasks_blocked()
        for sequence in range(10):
            pump.run(stack.handle_packets, [echo_request(sequence)], trio.current_time())
            if sequence % 3 == 0:
                await trio.testing.wait_all_tasks_blocked()
        sequences = []
        while len(sequences) < 10:
            for packet in await down.receive():
                parsed = scapy_wire.parse_untrusted(packet)
                assert isinstance(parsed, IcmpMessage)
                sequences.append(parsed.rest & 0xFFFF)
        assert sequences == list(range(10))
        nursery.cancel_scope.cancel()


class Patient:
    """Waits for its turn, and notes when that came."""

    def __init__(self) -> None:
        self.turns: list[float] = []

    def flush(self, now: float) -> None:
        self.turns.append(now)


@pytest.mark.parametrize("clogged", [False, True])
async def test_whoever_waits_for_room_sends_at_the_time_of_now(autojump_clock: MockClock, clogged: bool) -> None:
    """Not at that of the last packet or timer, which may be long ago."""
    stack, pump = make()
    outlet, down = trio.open_memory_channel[Burst](1 if clogged else 100)
    patient, packet = Patient(), scapy_wire.build_icmp(IcmpMessage(A, B, 0, 0, 7, b"ping"))

    async def run_down() -> None:
        await move_down(stack, outlet=outlet, pump=pump)

    def say() -> None:
        for _ in range(stack.limits.output_data * 2):
            stack.send_ip(packet)
        stack.wait_turn(patient)  # type: ignore[arg-type]

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run_down)
        await trio.sleep(30)
        pump.run(say)
        assert patient.turns == ([] if clogged else [trio.current_time()])
        await trio.sleep(30)
        while not patient.turns:
            await down.receive()
            await trio.testing.wait_all_tasks_blocked()
        assert patient.turns == [trio.current_time() - (0 if clogged else 30)]
        nursery.cancel_scope.cancel()


async def test_output_from_outside_of_run_leaves_too(autojump_clock: MockClock) -> None:
    stack, pump = make()
    outlet, down = trio.open_memory_channel[Burst](4)

    async def run_down() -> None:
        await move_down(stack, outlet=outlet, pump=pump)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run_down)
        await trio.testing.wait_all_tasks_blocked()
        stack.handle_packets([echo_request(1)], trio.current_time())
        assert len(await down.receive()) == 1
        nursery.cancel_scope.cancel()


async def test_timers_run_on_time_also_when_they_move(autojump_clock: MockClock) -> None:
    """SYNs at 0, 1, 3, 7 s; the first is armed while move_down sleeps without a deadline."""
    stack, pump = make()
    outlet, down = trio.open_memory_channel[Burst](4)

    async def run_down() -> None:
        await move_down(stack, outlet=outlet, pump=pump)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run_down)
        await trio.testing.wait_all_tasks_blocked()
        start = trio.current_time()
        pump.run(stack.connect_tcp, (B, 80), start)
        times = []
        for _ in range(4):
            (packet,) = await down.receive()
            assert isinstance(scapy_wire.parse_untrusted(packet), TcpSegment)
            times.append(trio.current_time() - start)
        assert times == pytest.approx([0, 1, 3, 7], abs=0.05)
        nursery.cancel_scope.cancel()


async def test_when_nobody_takes_packets_any_more_everything_fails(autojump_clock: MockClock) -> None:
    stack, pump = make()
    outlet, down = trio.open_memory_channel[Burst](1)
    connection = stack.connect_tcp((B, 80), trio.current_time())
    down.close()
    with trio.fail_after(1):
        await move_down(stack, outlet=outlet, pump=pump)
    outlet.close()
    assert pump.down
    assert connection.error is not None
    assert connection.error.errno == errno.ENETDOWN


async def test_commands_before_and_after_the_worker_are_harmless(autojump_clock: MockClock) -> None:
    stack, pump = make()
    pump.run(stack.connect_tcp, (B, 80), trio.current_time())
    assert stack.has_output
    outlet, down = trio.open_memory_channel[Burst](4)
    with trio.move_on_after(0.5):
        await move_down(stack, outlet=outlet, pump=pump)
    assert len(down.receive_nowait()) == 1
    pump.run(stack.connect_tcp, (B, 81), trio.current_time())
    assert stack.has_output


async def test_an_idle_stack_sleeps(autojump_clock: MockClock) -> None:
    """No periodic timer: an hour without traffic is an hour without a packet, and the worker runs not once."""
    async with two_stacks(LinkConditions(delay=0.01)) as (near, far):
        ours, theirs = await connect(near, far)
        await send_all(ours, b"x")
        await receive_exactly(theirs, 1)
        await trio.sleep(5)
        before = near.link.stats().packets_out, far.link.stats().packets_out
        await trio.sleep(3600)
        assert (near.link.stats().packets_out, far.link.stats().packets_out) == before


async def test_timers_run_while_the_way_out_is_never_idle(autojump_clock: MockClock) -> None:
    stack, pump = make()
    start = trio.current_time()
    syns: list[float] = []

    class Busy:
        def send_nowait(self, burst: Burst) -> None:
            raise trio.WouldBlock

        async def send(self, burst: Burst) -> None:
            await trio.sleep(0.1)
            syns.extend(round(trio.current_time() - start) for packet in burst if packet[9] == 6)
            # There is always something to send.
            stack.handle_packets([echo_request(1)] * 64, trio.current_time())

    async with trio.open_nursery() as nursery:

        async def down() -> None:
            await move_down(stack, outlet=Busy(), pump=pump)

        pump.run(stack.connect_tcp, (B, 80), start)
        nursery.start_soon(down)
        await trio.sleep(8)
        nursery.cancel_scope.cancel()
    assert syns == [0, 1, 3, 7]
