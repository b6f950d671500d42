"""The wiring table in use: every edge has its two ends, and full edges do what the table says."""

from __future__ import annotations

from collections import Counter

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from minivpn_trio import open_client, wiring
from minivpn_trio.stats import ControlStats, DataStats, NetstackStats, TransportStats, TunnelStats
from minivpn_trio.stats_sum import add_stats
from minivpn_trio.testing import open_vpn_server
from minivpn_trio.wiring import EDGES, Lifetime, Pipes, WhenFull


async def test_a_client_uses_every_edge_of_the_table_and_reads_every_channel(monkeypatch: pytest.MonkeyPatch) -> None:
    used: set[tuple[str, str]] = set()
    read: set[str] = set()
    for name in ("waiting", "dropping"):
        original = getattr(Pipes, name)

        def sender(self: Pipes, source: str, target: str, original=original) -> object:
            used.add((source, target))
            return original(self, source, target)

        monkeypatch.setattr(Pipes, name, sender)
    inlet = Pipes.inlet

    def reader(self: Pipes, target: str) -> object:
        read.add(target)
        return inlet(self, target)

    monkeypatch.setattr(Pipes, "inlet", reader)
    async with open_vpn_server(listen=False) as server, open_client(server.client_config(), server.memory_dialer()):
        pass
    asked = {edge for edge in EDGES if edge.source == "challenge"}
    assert used == {(edge.source, edge.target) for edge in EDGES if edge not in asked}, "those are for who is asked"
    assert read == {edge.target for edge in EDGES}


async def test_an_edge_that_drops_counts_under_its_name() -> None:
    with Pipes(Lifetime.CLIENT) as pipes:
        edge = next(edge for edge in EDGES if edge.target == "tun.inbound")
        outlet = pipes.dropping(edge.source, edge.target)
        for number in range(edge.depth):
            assert outlet.offer([b"%d" % number])
        assert not outlet.offer([b"one too many"])
        assert not outlet.offer([b"and another"])
        assert pipes.drops == {edge.name: 2}
        assert await pipes.inlet("tun.inbound").receive() == [b"0"], "what is queued stays"
        assert outlet.offer([b"room again"])
    assert not outlet.offer([b"nobody there"])


async def test_an_edge_that_waits_waits() -> None:
    with Pipes(Lifetime.CONNECTION) as pipes:
        edge = next(edge for edge in EDGES if edge.target == "networkio.move_down")
        outlet = pipes.waiting(edge.source, edge.target)
        for _ in range(edge.depth):
            outlet.send_nowait([b"x"])
        with pytest.raises(trio.WouldBlock):
            outlet.send_nowait([b"x"])
        with trio.move_on_after(0.01) as scope:
            await outlet.send([b"x"])
        assert scope.cancelled_caught


async def test_closing_wakes_whoever_waits() -> None:
    pipes = Pipes(Lifetime.CLIENT)
    woken = []

    async def reader() -> None:
        try:
            await pipes.inlet("tun.inbound").receive()
        except (trio.EndOfChannel, trio.ClosedResourceError) as exc:
            woken.append(exc)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(reader)
        await trio.testing.wait_all_tasks_blocked()
        pipes.close()
        pipes.close()
    assert len(woken) == 1


def test_the_wrong_kind_of_end_is_refused() -> None:
    with Pipes(Lifetime.CONNECTION) as pipes:
        for edge in EDGES:
            if edge.lifetime is not Lifetime.CONNECTION:
                continue
            wrong = pipes.dropping if edge.when_full is WhenFull.WAIT else pipes.waiting
            with pytest.raises(ValueError, match="wait"):
                wrong(edge.source, edge.target)
        with pytest.raises(KeyError):
            pipes.waiting("networkio.move_up", "tun.inbound")
        with pytest.raises(KeyError):
            pipes.inlet("tun.inbound")


async def test_two_lifetimes_can_count_together() -> None:
    drops: Counter[str] = Counter()
    with Pipes(Lifetime.CONNECTION, drops) as first, Pipes(Lifetime.CONNECTION, drops) as second:
        for pipes in (first, second):
            outlet = pipes.dropping("packetmuxer.move_up", "reliable.move_up")
            while outlet.offer([]):
                pass
    assert drops == {"packetmuxer.move_up -> reliable.move_up": 2}


def test_the_diagram_shows_every_edge() -> None:
    picture = wiring.diagram()
    assert picture.count("\n") == len(EDGES)
    for edge in EDGES:
        assert f'"{edge.source}"' in picture
        assert f'"{edge.target}"' in picture
    assert picture.count("-.->") == sum(edge.when_full is WhenFull.DROP for edge in EDGES)


# adding up snapshots

counts = st.integers(0, 2**60)
named = st.dictionaries(st.sampled_from(["a", "b", "c"]), st.integers(1, 1000))
snapshots = st.builds(
    TunnelStats,
    transport=st.builds(TransportStats, packets_in=counts, bytes_out=counts, drops=named),
    control=st.builds(ControlStats, retransmissions=counts, drops=named),
    data=st.builds(DataStats, packets_in=counts, pings_out=counts, drops=named),
    netstack=st.none() | st.builds(NetstackStats, packets_in=counts, drops=named),
    reconnections=counts,
    rekeys=counts,
    edge_drops=named,
)


@given(snapshots, snapshots, snapshots)
def test_sums_are_sums(a: TunnelStats, b: TunnelStats, c: TunnelStats) -> None:
    assert add_stats(a, b) == add_stats(b, a)
    assert add_stats(add_stats(a, b), c) == add_stats(a, add_stats(b, c))
    assert add_stats(a, TunnelStats()) == a
    total = add_stats(a, b)
    assert total.transport.packets_in == a.transport.packets_in + b.transport.packets_in
    assert sum(total.data.drops.values()) == sum(a.data.drops.values()) + sum(b.data.drops.values())
    assert add_stats(a, b, rekeys=7).rekeys == 7
