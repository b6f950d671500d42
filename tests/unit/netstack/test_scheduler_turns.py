"""Turns of Trio's scheduler on the way of each burst: they are a good part of what a burst costs."""

from __future__ import annotations

from collections import Counter

import pytest
import trio
import trio.testing
from test_netstack_worker import B, make
from trio.testing import MockClock
from two_stacks import connect, receive_exactly, send_all, two_stacks

from minivpn_trio.items import Burst
from minivpn_trio.netstack.worker import move_down
from minivpn_trio.testing.link import LinkConditions


class Turns(trio.abc.Instrument):
    """Counts them, by the name of the task."""

    def __init__(self) -> None:
        self.of: Counter[str] = Counter()

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.of[task.name] += 1


async def test_a_read_that_waits_takes_one(autojump_clock: MockClock) -> None:
    turns = Turns()
    async with two_stacks(LinkConditions(delay=0.001)) as (near, far):
        ours, theirs = await connect(near, far)

        async def reader() -> None:
            for _ in range(50):
                assert await ours.recv(100) == b"x"

        async with trio.open_nursery() as nursery:
            nursery.start_soon(reader, name="reader")
            await trio.sleep(1)
            trio.lowlevel.add_instrument(turns)
            for _ in range(50):
                await send_all(theirs, b"x")
                await trio.sleep(1)
        trio.lowlevel.remove_instrument(turns)
    assert turns.of["reader"] == 50


async def test_a_write_that_waits_takes_one(autojump_clock: MockClock) -> None:
    turns = Turns()
    async with two_stacks(LinkConditions(delay=0.001)) as (near, far):
        ours, theirs = await connect(near, far)
        sent: list[int] = []

        async def writer() -> None:
            while True:
                sent.append(await ours.send(bytes(1 << 20)))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(writer, name="writer")
            await trio.sleep(1)
            before = len(sent)
            trio.lowlevel.add_instrument(turns)
            await receive_exactly(theirs, 500_000)
            trio.lowlevel.remove_instrument(turns)
            assert turns.of["writer"] == len(sent) - before > 3
            nursery.cancel_scope.cancel()


async def test_one_that_need_not_wait_takes_one_too(autojump_clock: MockClock) -> None:
    async with two_stacks(LinkConditions(delay=0.001)) as (near, far):
        ours, theirs = await connect(near, far)
        await send_all(theirs, b"xyz")
        await trio.sleep(1)
        for _ in range(3):
            with trio.testing.assert_checkpoints():
                assert len(await ours.recv(1)) == 1
        with trio.testing.assert_checkpoints():
            assert await ours.recv(0) == b""


async def test_a_read_hears_of_memory_that_nobody_could_tell_of(autojump_clock: MockClock) -> None:
    """Given back by a connection that was forgotten."""
    async with two_stacks(LinkConditions(delay=0.001)) as (near, far):
        ours, theirs = await connect(near, far)
        await send_all(theirs, b"xy")
        await trio.sleep(1)
        memory = near.stack.memory
        memory.change(memory.limit)
        memory.release(memory.limit)
        assert memory.relief_due
        await ours.recv(1)
        await trio.sleep(0.1)
        assert not memory.relief_due


async def test_who_is_cancelled_has_read_nothing(autojump_clock: MockClock) -> None:
    async with two_stacks(LinkConditions(delay=0.001)) as (near, far):
        ours, theirs = await connect(near, far)
        await send_all(theirs, b"xyz")
        await trio.sleep(1)
        with trio.CancelScope() as scope:
            scope.cancel()
            await ours.recv(3)
        assert scope.cancelled_caught
        assert await ours.recv(3) == b"xyz"
        with trio.move_on_after(1) as scope:
            await ours.recv(3)
        assert scope.cancelled_caught
        await send_all(theirs, b"abc")
        await trio.sleep(1)
        assert await ours.recv(3) == b"abc"


async def test_a_timer_that_moves_earlier_wakes_nobody(autojump_clock: MockClock) -> None:
    """The task that runs the timers sleeps until then, and not until it has heard when that is."""
    stack, pump = make()
    outlet, down = trio.open_memory_channel[Burst](4)
    turns = Turns()

    async def run_down() -> None:
        await move_down(stack, outlet=outlet, pump=pump)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run_down, name="down")
        await trio.testing.wait_all_tasks_blocked()
        start = trio.current_time()
        trio.lowlevel.add_instrument(turns)
        pump.run(stack.connect_tcp, (B, 80), start)
        await down.receive()
        await trio.sleep(0.5)
        assert turns.of["down"] == 0
        await down.receive()
        assert trio.current_time() - start == pytest.approx(1, abs=0.01)
        trio.lowlevel.remove_instrument(turns)
        nursery.cancel_scope.cancel()
    assert turns.of["down"] > 0
