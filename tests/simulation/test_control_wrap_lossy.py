"""Whole tunnels with each wrap over links that lose and repeat packets, in virtual time, renegotiations included."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import trio
import trio.testing

from minivpn_trio import open_tun_dialer
from minivpn_trio.errors import DropReason
from minivpn_trio.events import Event, Reconnecting, Rekeyed
from minivpn_trio.packet.opcodes import Opcode
from minivpn_trio.testing import (
    LinkConditions,
    ServerSettings,
    open_vpn_server,
    static_key,
    tls_crypt_v2_server_key,
)
from minivpn_trio.tlssession.server import ServerPolicy
from minivpn_trio.tracing import PacketTraced, TraceRecord

WRAPS: dict[str, dict[str, Any]] = {
    "none": {},
    "tls-auth": {"control_wrap": "tls-auth", "control_wrap_key": static_key(), "auth": "SHA512"},
    "tls-crypt": {"control_wrap": "tls-crypt", "control_wrap_key": static_key()},
    "tls-crypt-v2": {"control_wrap": "tls-crypt-v2", "control_wrap_key": tls_crypt_v2_server_key()},
    "force-cookie": {
        "control_wrap": "tls-crypt-v2",
        "control_wrap_key": tls_crypt_v2_server_key(),
        "force_cookie": True,
    },
}
PERFECT = LinkConditions(delay=0.02)
BAD = LinkConditions(delay=0.02, jitter=0.03, loss=0.2, duplication=0.05)


class Log:
    """Events and control packets of a client."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.packets: list[PacketTraced] = []
        self._news = trio.Event()

    def trace(self, record: TraceRecord) -> None:
        if isinstance(record, PacketTraced):
            self.packets.append(record)

    def __call__(self, event: Event) -> None:
        self.events.append(event)
        if isinstance(event, Rekeyed):
            self._news.set()
            self._news = trio.Event()

    async def rekeyed(self, times: int) -> None:
        """Until there were so many renegotiations."""
        while self.count(Rekeyed) < times:
            await self._news.wait()

    def count(self, kind: type[Event]) -> int:
        return sum(isinstance(event, kind) for event in self.events)


async def run(
    wrap: str, conditions: LinkConditions, *, seed: int = 1, rekeys: int = 2, policy: ServerPolicy | None = None
) -> tuple[Log, Any]:
    """A tunnel that renegotiates ``rekeys`` times; the log, and what the server knows of the client."""
    log = Log()
    settings = ServerSettings(**WRAPS[wrap], **({} if policy is None else {"policy": policy}))
    async with open_vpn_server(settings, listen=False) as server:
        config = replace(server.client_config(), reneg_sec=100.0)
        dialer = server.memory_dialer(conditions, conditions, seed=seed)
        with trio.fail_after(2000):
            async with open_tun_dialer(config, dialer, on_event=log, tracer=log):
                await log.rekeyed(rekeys)
                (client,) = server.core.clients.values()
    return log, client


@pytest.mark.parametrize("wrap", WRAPS)
async def test_a_perfect_link(wrap: str, autojump_clock: trio.testing.MockClock) -> None:
    log, client = await run(wrap, PERFECT)
    assert not client.endpoint.muxer.drops
    assert not [packet for packet in log.packets if packet.direction == "dropped"]
    carriers = [packet for packet in log.packets if packet.opcode is Opcode.CONTROL_WKC_V1]
    assert bool(carriers) is (wrap == "force-cookie")
    assert {packet.packet_id for packet in carriers} <= {1}
    (soft, *_) = [
        packet
        for packet in log.packets
        if packet.opcode is Opcode.CONTROL_SOFT_RESET_V1 and packet.direction == "out"
    ]
    assert soft.size == 54


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("wrap", WRAPS)
async def test_a_bad_link(wrap: str, seed: int, autojump_clock: trio.testing.MockClock) -> None:
    log, client = await run(wrap, BAD, seed=seed)
    assert log.count(Reconnecting) == 0
    assert any((packet.attempt or 0) > 1 for packet in log.packets), "the link was not bad"
    # What is repeated on the way, and what comes before the key that it needs, is dropped; nothing else.
    expected = {DropReason.REPLAY, DropReason.NOT_READY} if wrap != "none" else {DropReason.REPLAY}
    assert set(client.endpoint.muxer.drops) <= expected


@pytest.mark.parametrize("wrap", WRAPS)
async def test_a_server_that_does_not_offer_it(wrap: str, autojump_clock: trio.testing.MockClock) -> None:
    log, client = await run(wrap, PERFECT, policy=ServerPolicy(dynamic_tls_crypt=False))
    assert not client.endpoint.muxer.drops
    (soft, *_) = [
        packet
        for packet in log.packets
        if packet.opcode is Opcode.CONTROL_SOFT_RESET_V1 and packet.direction == "out"
    ]
    assert soft.size == {"none": 14, "tls-auth": 14 + 72}.get(wrap, 54)
