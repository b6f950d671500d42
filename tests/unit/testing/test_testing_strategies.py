"""The strategies for users make what they promise."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet import IP, UDP

from minivpn_trio.errors import MiniVPNError
from minivpn_trio.items import Burst
from minivpn_trio.packet.ids import Role
from minivpn_trio.packet.opcodes import OPCODE_SHIFT, Opcode
from minivpn_trio.packetmuxer.control_wrap import NoWrap
from minivpn_trio.packetmuxer.muxer import PacketMuxer
from minivpn_trio.testing import LinkConditions, ServerCore, ServerSettings
from minivpn_trio.testing.strategies import Step, hostile_datagrams, ipv4_packets, link_conditions, schedules

CORE_SETTINGS = ServerSettings()


@given(ipv4_packets())
def test_packets_are_what_scapy_makes_of_them(packet: bytes) -> None:
    """scapy computes both checksums anew and gets the same."""
    parsed = IP(packet)
    del parsed.chksum
    del parsed[UDP].chksum
    assert bytes(parsed) == packet
    assert (parsed.src, parsed.dst, parsed.len) == ("10.8.0.2", "10.8.0.1", len(packet))


@given(link_conditions(max_loss=0.2, max_delay=0.1, damage=False))
def test_conditions_keep_to_their_bounds(conditions: LinkConditions) -> None:
    assert 0 <= conditions.loss <= 0.2
    assert 0 <= conditions.delay <= 0.1
    assert conditions.duplication == conditions.corruption == 0
    assert conditions.rate is None


def test_hostile_datagrams_are_of_all_kinds() -> None:
    seen: set[int] = set()
    named = 0

    @settings(max_examples=400, database=None, derandomize=True)
    @given(hostile_datagrams(b"session!"))
    def collect(datagram: bytes) -> None:
        nonlocal named
        if len(datagram) > 1:
            seen.add(datagram[0] >> OPCODE_SHIFT)
        named += datagram[1:9] == b"session!"

    collect()
    assert {int(opcode) for opcode in Opcode} <= seen
    assert named > 20


@given(st.lists(hostile_datagrams(), max_size=10))
def test_a_muxer_takes_them_all(burst: Burst) -> None:
    muxer = PacketMuxer(role=Role.CLIENT, wrap=NoWrap(), rng=random.Random(1).randbytes)
    demuxed = muxer.handle_datagrams(burst, 0.0)
    assert demuxed.data == []
    assert not demuxed.bound
    assert sum(muxer.drops.values()) == len(burst)


@settings(max_examples=25)
@given(st.lists(st.tuples(st.integers(0, 3), hostile_datagrams(b"session!")), max_size=40))
def test_a_server_takes_them_all(datagrams: list[tuple[int, bytes]]) -> None:
    core = ServerCore(
        CORE_SETTINGS, rng=random.Random(1).randbytes, deliver=lambda burst: None, unix_time=lambda: 1.7e9
    )
    now = 0.0
    for peer, datagram in datagrams:
        now += 1.0
        try:
            core.handle_datagrams(peer, [datagram], now)
        except MiniVPNError as exc:
            raise AssertionError("nobody may make a server raise") from exc
        core.handle_timeout(now)
        core.take_datagrams()
    assert len(core.clients) <= 4
    assert len(core._newcomers) <= 4
    assert len(core._by_address) == len(core.clients) + len(core._newcomers)
    core.handle_timeout(now + 1000)
    assert len(core._free) == 253 - len(core._by_address)


@given(schedules(), st.lists(st.binary(min_size=1, max_size=4), max_size=30))
def test_an_adversary_does_what_the_steps_say(steps: list[Step], packets: list[bytes]) -> None:
    queue = list(packets)
    for step in steps:
        before = list(queue)
        arrived = step.apply(queue)
        if step.action == "inject":
            assert arrived == list(step.packets)
            assert queue == before
        else:
            assert all(packet in before for packet in arrived)
        if step.action == "deliver":
            assert arrived + queue == before
        if step.action in {"swap", "repeat", "wait"}:
            assert sorted(queue) == sorted(before)
        assert step.seconds >= 0
