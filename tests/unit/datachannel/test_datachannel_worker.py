"""The data channel's workers over real memory channels, on Trio's autojump clock."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from minivpn_trio.datachannel import limits
from minivpn_trio.datachannel.channel import DataChannel
from minivpn_trio.datachannel.worker import MAX_BURST, REKEY_REMINDER, keeper, move_down, move_up
from minivpn_trio.errors import TunnelClosed
from minivpn_trio.items import RekeyWanted
from minivpn_trio.packet.ids import Role
from tests.unit.datachannel.data_keys import ipv4, make_channel, make_keys, make_pair

PACKETS = [ipv4(b"packet %d" % n) for n in range(64)]


class Basket:
    """A DroppingOutlet that keeps everything, with the time."""

    def __init__(self) -> None:
        self.items: list[tuple[float, Any]] = []

    def offer(self, item: Any) -> bool:
        self.items.append((trio.current_time(), item))
        return True


class Keeper:
    """A keeper at work: what it takes and what it gives."""

    def __init__(self, channel: DataChannel) -> None:
        self.channel = channel
        self.keys, self.inlet = trio.open_memory_channel[Any](8)
        self.outlet, self.sent = trio.open_memory_channel[Any](100)
        self.rekey = Basket()
        self.started = trio.current_time()

    async def run(self) -> None:
        await keeper(self.channel, inlet=self.inlet, outlet=self.outlet, rekey=self.rekey)

    def elapsed(self) -> float:
        return trio.current_time() - self.started


async def test_up_and_down() -> None:
    client, server = make_pair()
    to_down, down_inlet = trio.open_memory_channel[Any](4)
    down_outlet, to_up = trio.open_memory_channel[Any](4)
    basket = Basket()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: move_down(client, inlet=down_inlet, outlet=down_outlet))
        nursery.start_soon(lambda: move_up(server, inlet=to_up, outlet=basket))
        await to_down.send(PACKETS[:3])
        await to_down.send(PACKETS[3:])
        await trio.testing.wait_all_tasks_blocked()
        assert [item for _, item in basket.items] == [PACKETS[:3], PACKETS[3:]]
        # Both return when their inlet ends.
        to_down.close()
        await trio.testing.wait_all_tasks_blocked()
        down_outlet.close()


async def test_a_burst_of_nothing_useful_is_not_passed_on() -> None:
    client, server = make_pair()
    down, down_inlet = trio.open_memory_channel[Any](4)
    down_outlet, wire = trio.open_memory_channel[Any](4)
    up, up_inlet = trio.open_memory_channel[Any](4)
    basket = Basket()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: move_down(client, inlet=down_inlet, outlet=down_outlet))
        nursery.start_soon(lambda: move_up(server, inlet=up_inlet, outlet=basket))
        await down.send([b""])
        await up.send([b"\x48garbage"])
        await trio.testing.wait_all_tasks_blocked()
        assert basket.items == []
        with pytest.raises(trio.WouldBlock):
            wire.receive_nowait()
        nursery.cancel_scope.cancel()


async def test_bursts_that_fragmentation_made_longer_are_cut() -> None:
    client, _ = make_pair(fragment=300)
    down, down_inlet = trio.open_memory_channel[Any](4)
    down_outlet, wire = trio.open_memory_channel[Any](100)
    await down.send([ipv4(bytes(1000))] * 40)
    down.close()
    await move_down(client, inlet=down_inlet, outlet=down_outlet)
    bursts = []
    with pytest.raises(trio.WouldBlock):
        while True:
            bursts.append(wire.receive_nowait())
    assert [len(burst) for burst in bursts] == [MAX_BURST, MAX_BURST, 160 - 2 * MAX_BURST]


async def test_the_peers_exit_is_raised_after_its_last_packets() -> None:
    client, server = make_pair()
    up, up_inlet = trio.open_memory_channel[Any](4)
    basket = Basket()
    await up.send(server.encrypt_burst(PACKETS[:2], 0.0) + server.goodbye(0.0))
    with pytest.raises(TunnelClosed) as caught:
        await move_up(client, inlet=up_inlet, outlet=basket)
    assert caught.value.restart
    assert [item for _, item in basket.items] == [PACKETS[:2]]


async def test_the_keeper_installs_keys_and_pings(autojump_clock: MockClock) -> None:
    kept = Keeper(make_channel())
    server = make_channel(Role.SERVER)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(kept.run)
        # Before the first key there is nothing to do, for however long.
        await trio.sleep(500)
        keys = make_keys(ping=10.0)
        server.install_key(keys[1], 0.0)
        await kept.keys.send(keys[0])
        times = []
        for _ in range(3):
            pings = await kept.sent.receive()
            assert server.decrypt_burst(pings, 0.0) == []
            times.append(kept.elapsed())
        assert times == pytest.approx([510.0, 520.0, 530.0])
        assert server.stats().pings_in == 3
        nursery.cancel_scope.cancel()


async def test_traffic_puts_the_keepers_ping_off(autojump_clock: MockClock) -> None:
    kept = Keeper(make_channel())
    await kept.keys.send(make_keys(ping=10.0)[0])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(kept.run)
        for _ in range(7):
            await trio.sleep(4)
            kept.channel.encrypt_burst(PACKETS, trio.current_time())
        await kept.sent.receive()
        assert kept.elapsed() == pytest.approx(38.0)
        nursery.cancel_scope.cancel()


async def test_a_silent_peer_ends_the_keeper(autojump_clock: MockClock) -> None:
    kept = Keeper(make_channel())
    await kept.keys.send(make_keys(ping_restart=60.0)[0])
    with pytest.raises(TunnelClosed) as caught:
        await kept.run()
    assert caught.value.restart
    assert kept.elapsed() == pytest.approx(60.0)


async def test_the_keeper_forgets_old_keys(autojump_clock: MockClock) -> None:
    kept = Keeper(make_channel())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(kept.run)
        for key_id in (0, 1):
            await kept.keys.send(make_keys(key_id=key_id, seed=key_id + 1, transition_window=60.0)[0])
        await trio.sleep(59.9)
        assert kept.channel.live_keys == 2
        await trio.sleep(0.2)
        assert kept.channel.live_keys == 1
        nursery.cancel_scope.cancel()


async def test_a_worn_key_asks_at_once_and_then_once_a_second(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is no timer that could bring it up: the burst that passes the limit wakes the keeper."""
    kept = Keeper(make_channel())
    monkeypatch.setattr(limits, "ID_TRIGGER", 64)
    await kept.keys.send(make_keys()[0])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(kept.run)
        await trio.sleep(100)
        assert kept.rekey.items == []
        kept.channel.encrypt_burst(PACKETS, trio.current_time())
        await trio.sleep(0.1)
        assert [item for _, item in kept.rekey.items] == [RekeyWanted("packet ids are running out")]
        # Traffic that goes on does not make it more urgent.
        for _ in range(34):
            await trio.sleep(0.1)
            kept.channel.encrypt_burst(PACKETS, trio.current_time())
        times = [time - kept.started for time, _ in kept.rekey.items]
        assert times == pytest.approx([100 + n * REKEY_REMINDER for n in range(4)])
        await kept.keys.send(make_keys(key_id=1, seed=2)[0])
        await trio.sleep(100)
        assert len(kept.rekey.items) == 4
        nursery.cancel_scope.cancel()


async def test_the_keeper_returns_when_no_keys_will_come(autojump_clock: MockClock) -> None:
    kept = Keeper(make_channel())
    await kept.keys.send(make_keys(ping=10.0)[0])
    kept.keys.close()
    await kept.run()
    assert kept.channel.live_keys == 1


async def test_a_key_that_arrives_while_the_keeper_is_woken_is_not_lost(autojump_clock: MockClock) -> None:
    kept = Keeper(make_channel())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(kept.run)
        await trio.testing.wait_all_tasks_blocked()
        for key_id in range(3):
            kept.keys.send_nowait(make_keys(key_id=key_id, seed=key_id + 1)[0])
            assert kept.channel.on_wakeup is not None
            kept.channel.on_wakeup()
            await trio.testing.wait_all_tasks_blocked()
            assert kept.channel.live_keys == key_id + 1
        nursery.cancel_scope.cancel()
