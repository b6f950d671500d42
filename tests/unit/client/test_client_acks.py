"""How many acknowledgements the client puts into a packet: some servers drop a packet with more than four."""

from __future__ import annotations

from typing import Literal

import pytest
import trio
from trio.testing import MockClock

from minivpn_trio import open_client
from minivpn_trio.testing import LinkConditions, ServerSettings, open_vpn_server, static_key
from minivpn_trio.tracing import PacketTraced, TraceRecord


class Acks:
    """The largest number of acknowledgements in a packet that went out, and the largest id of a message that came."""

    def __init__(self) -> None:
        self.most = self.received = 0

    def trace(self, record: TraceRecord) -> None:
        if isinstance(record, PacketTraced) and record.direction == "out":
            self.most = max(self.most, len(record.acks))
        elif isinstance(record, PacketTraced) and record.direction == "in":
            self.received = max(self.received, record.packet_id or 0)


@pytest.mark.parametrize(("wrap", "most"), [("none", 4), ("tls-auth", 8), ("tls-crypt", 8)])
async def test_no_more_than_four_acknowledgements_without_a_wrap(
    autojump_clock: MockClock, wrap: Literal["none", "tls-auth", "tls-crypt"], most: int
) -> None:
    # Enough routes that the push takes more messages than one packet can acknowledge.
    routes = tuple(f"route 10.{high}.{low}.0 255.255.255.0" for high in range(8) for low in range(60))
    key = static_key() if wrap != "none" else None
    settings = ServerSettings(push=routes, control_wrap=wrap, control_wrap_key=key)
    acks = Acks()
    async with open_vpn_server(settings, listen=False) as server:
        dial = server.memory_dialer(LinkConditions(delay=0.02), seed=1)
        async with open_client(server.client_config(), dial, tracer=acks):
            await trio.sleep(1)
    assert acks.received > 8
    assert acks.most == most
