"""Direct edges: the step is called where it may be, nothing overtakes, nothing is lost, and channels do as well."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from minivpn_trio import TunDialer, open_tun_dialer, wiring
from minivpn_trio.netstack import scapy_wire
from minivpn_trio.ports import stepped
from minivpn_trio.testing import LinkConditions, VPNServer, open_vpn_server
from minivpn_trio.testing.services import echo
from minivpn_trio.wiring import Edge, Lifetime, Pipes, WhenFull

scapy_wire.preload()

DIRECT = Edge("a", "b", "Burst", 3, WhenFull.WAIT, "", direct=True)
SHARED = Edge("c", "b", "Burst", 3, WhenFull.WAIT, "")
DROPPING = Edge("a", "d", "Burst", 2, WhenFull.DROP, "", direct=True)
TABLE = (DIRECT, SHARED, DROPPING)


@pytest.fixture
def pipes() -> Iterator[Pipes]:
    with Pipes(Lifetime.CONNECTION, Counter(), TABLE) as opened:
        yield opened


async def test_the_step_takes_what_the_worker_would(pipes: Pipes) -> None:
    taken: list[int] = []
    outlet, inlet = pipes.waiting("a", "b"), pipes.inlet("b")
    with stepped(inlet, taken.append):
        outlet.send_nowait(1)
        await outlet.send(2)
    assert taken == [1, 2]
    outlet.send_nowait(3)
    assert taken == [1, 2], "the worker is gone"
    assert await inlet.receive() == 3


async def test_nothing_overtakes_what_is_queued_or_in_work(pipes: Pipes) -> None:
    taken: list[int] = []
    outlet, inlet = pipes.waiting("a", "b"), pipes.inlet("b")
    outlet.send_nowait(1)
    with stepped(inlet, taken.append):
        outlet.send_nowait(2)
        assert taken == []
        assert [await inlet.receive(), await inlet.receive()] == [1, 2]
        outlet.send_nowait(3)
        assert taken == [], "2 is not done yet"
        assert inlet.receive_nowait() == 3
        with trio.move_on_after(0), pytest.raises(trio.Cancelled):
            await inlet.receive()
        outlet.send_nowait(4)
        assert taken == [4]


async def test_what_the_step_leaves_goes_to_the_worker(pipes: Pipes) -> None:
    outlet, inlet = pipes.waiting("a", "b"), pipes.inlet("b")
    with stepped(inlet, lambda burst: burst[1:] or None):
        outlet.send_nowait([1])
        outlet.send_nowait([1, 2, 3])
        outlet.send_nowait([4])
        assert await inlet.receive() == [2, 3]
        assert await inlet.receive() == [4], "in order"


async def test_other_edges_into_the_same_worker_are_channels(pipes: Pipes) -> None:
    taken: list[int] = []
    inlet = pipes.inlet("b")
    with stepped(inlet, taken.append):
        pipes.waiting("c", "b").send_nowait(1)
        pipes.waiting("a", "b").send_nowait(2)
        assert taken == []
        assert [await inlet.receive(), await inlet.receive()] == [1, 2]


async def test_a_full_channel_holds_its_sender_back(pipes: Pipes) -> None:
    outlet, inlet = pipes.waiting("a", "b"), pipes.inlet("b")
    for number in range(DIRECT.depth):
        assert outlet.has_room()
        outlet.send_nowait(number)
    assert not outlet.has_room()
    with pytest.raises(trio.WouldBlock):
        outlet.send_nowait(9)
    with trio.move_on_after(0.01) as scope:
        await outlet.send(9)
    assert scope.cancelled_caught
    async with trio.open_nursery() as nursery:
        nursery.start_soon(outlet.send, DIRECT.depth)
        await trio.testing.wait_all_tasks_blocked()
        assert [await inlet.receive() for _ in range(DIRECT.depth + 1)] == list(range(DIRECT.depth + 1))
    assert outlet.has_room()


async def test_sending_checkpoints_whoever_takes_it(pipes: Pipes) -> None:
    outlet = pipes.waiting("a", "b")
    with stepped(pipes.inlet("b"), lambda item: None), trio.testing.assert_checkpoints():
        await outlet.send(1)
    with trio.testing.assert_checkpoints():
        await outlet.send(2)
    with trio.CancelScope() as scope:
        scope.cancel()
        await outlet.send(3)
    assert scope.cancelled_caught
    assert await pipes.inlet("b").receive() == 2, "a cancelled send sends nothing"


def test_an_edge_that_drops_drops_only_what_nobody_takes(pipes: Pipes) -> None:
    taken: list[int] = []
    outlet = pipes.dropping("a", "d")
    with stepped(pipes.inlet("d"), taken.append):
        assert all(outlet.offer(number) for number in range(5))
    assert taken == [0, 1, 2, 3, 4]
    assert [outlet.offer(number) for number in range(3)] == [True, True, False]
    assert pipes.drops == {DROPPING.name: 1}


@given(st.lists(st.sampled_from(["send", "share", "receive", "leave", "take"]), max_size=60))
def test_order_holds_whatever_happens(actions: list[str]) -> None:
    """What was accepted comes out once and in order, by step or by channel, whatever the step's mood is."""

    async def main() -> None:
        done: list[int] = []
        takes = True
        given_out: list[int] = []

        def step(item: int) -> int | None:
            if not takes:
                return item
            done.append(item)
            return None

        with Pipes(Lifetime.CONNECTION, Counter(), TABLE) as pipes:
            outlet, other, inlet = pipes.waiting("a", "b"), pipes.waiting("c", "b"), pipes.inlet("b")
            in_work: int | None = None

            def receive() -> None:
                nonlocal in_work
                # The worker: what it received before is done when it asks for more.
                if in_work is not None:
                    done.append(in_work)
                    in_work = None
                try:
                    in_work = inlet.receive_nowait()
                except trio.WouldBlock:
                    in_work = None

            with stepped(inlet, step):
                for number, action in enumerate(actions):
                    if action in ("send", "share"):
                        try:
                            (outlet if action == "send" else other).send_nowait(number)
                        except trio.WouldBlock:
                            continue
                        given_out.append(number)
                    elif action == "receive":
                        receive()
                    else:
                        takes = action == "take"
                for _ in range(len(actions) + 2):
                    receive()
        assert done == given_out

    trio.run(main)


def edges(direct: bool) -> tuple[Edge, ...]:
    return tuple(edge._replace(direct=direct and edge.direct) for edge in wiring.EDGES)


async def echo_through(server: VPNServer, dialer: TunDialer, payload: bytes) -> None:
    async with trio.open_nursery() as nursery:
        await nursery.start(server.host.serve_tcp, echo, 7)
        async with await dialer.open_tcp_stream(server.address, 7) as stream:
            nursery.start_soon(stream.send_all, payload)
            echoed = bytearray()
            while len(echoed) < len(payload):
                echoed += await stream.receive_some(65536)
        assert echoed == payload
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("direct", [True, False])
@pytest.mark.parametrize("proto", ["udp", "tcp"])
async def test_a_tunnel_works_either_way(monkeypatch: pytest.MonkeyPatch, direct: bool, proto: Any) -> None:
    monkeypatch.setattr(wiring, "EDGES", edges(direct))
    async with open_vpn_server(proto=proto) as server, open_tun_dialer(server.client_config()) as dialer:
        await echo_through(server, dialer, bytes(range(256)) * 2000)
        assert not dialer.stats().edge_drops


@pytest.mark.parametrize("direct", [True, False])
async def test_a_lossy_tunnel_works_either_way(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock, direct: bool
) -> None:
    monkeypatch.setattr(wiring, "EDGES", edges(direct))
    bad = LinkConditions(loss=0.02, delay=0.002)
    async with (
        open_vpn_server(listen=False) as server,
        open_tun_dialer(server.client_config(), server.memory_dialer(bad, bad, seed=7)) as dialer,
    ):
        await echo_through(server, dialer, bytes(range(256)) * 400)
