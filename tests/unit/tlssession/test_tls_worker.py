"""The worker: what it hands over, in which order, its timer, and its end."""

from __future__ import annotations

import math
from typing import Any

import pytest
import trio
from tlssession_pair import Pair, client_config
from tlssession_pki import OTHER_CA

from minivpn_trio.errors import HandshakeTimeout, Stage, TLSVerificationError, TunnelClosed
from minivpn_trio.events import Event, KeysGenerated, Rekeyed, ResetSent, SessionState
from minivpn_trio.items import (
    DataChannelKey,
    ExpectKey,
    OpenKey,
    RekeyWanted,
    RemoteBound,
    RenegotiationKey,
    SoftResetSeen,
    TLSBytes,
    TunnelUp,
)
from minivpn_trio.tlssession.server import ServerTlsSession
from minivpn_trio.tlssession.session import TlsSession
from minivpn_trio.tlssession.worker import LAST_WORDS, worker


class Rig:
    """The client's worker between memory channels, with a server behind them."""

    def __init__(self, pair: Pair) -> None:
        self.session: TlsSession = pair.tls_client
        self.server: ServerTlsSession = pair.tls_server
        self.to_worker, self.inlet = trio.open_memory_channel[Any](64)
        self.outlet, self.from_worker = trio.open_memory_channel[Any](16)
        self.keys, self.seen_keys = trio.open_memory_channel[DataChannelKey](8)
        self.wraps, self.seen_wraps = trio.open_memory_channel[RenegotiationKey](8)
        self.up, self.seen_ups = trio.open_memory_channel[TunnelUp](16)
        self.events: list[Event] = []
        self.server_error: Exception | None = None

    async def run(self) -> None:
        await worker(
            self.session,
            inlet=self.inlet,
            outlet=self.outlet,
            keys=self.keys,
            wraps=self.wraps,
            up=self.up,
            emit=self.events.append,
        )

    async def serve(self) -> None:
        """The stages below and the server, in one."""
        self.server.start(trio.current_time())
        async for item in self.from_worker:
            now = trio.current_time()
            try:
                match item:
                    case TLSBytes(key_id, data):
                        self.server.handle_tls_bytes(key_id, data, now)
                    case OpenKey(0):
                        self.server.handle_remote_bound(now)
                    case OpenKey(key_id):
                        self.server.handle_soft_reset(key_id, now)
            except Exception as exc:
                self.server_error = exc
            for answer in self.server.poll_outgoing():
                match answer:
                    case TLSBytes():
                        await self.to_worker.send(answer)
                    case OpenKey(key_id):
                        await self.to_worker.send(SoftResetSeen(key_id) if key_id else RemoteBound())

    async def shut(self) -> None:
        for channel in (
            self.to_worker, self.inlet, self.outlet, self.from_worker, self.keys, self.seen_keys, self.wraps,
            self.seen_wraps, self.up,
        ):  # fmt: skip
            await channel.aclose()


async def test_up_and_renewed(autojump_clock: trio.testing.MockClock) -> None:
    rig = Rig(Pair())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(rig.run)
        nursery.start_soon(rig.serve)
        key = await rig.seen_keys.receive()
        news = await rig.seen_ups.receive()
        assert (key.key_id, str(news.info.ipv4)) == (0, "10.8.0.2/24")
        assert isinstance(rig.events[0], ResetSent)
        await rig.to_worker.send(RekeyWanted("bytes"))
        assert (await rig.seen_keys.receive()).key_id == 1
        await trio.testing.wait_all_tasks_blocked()
        assert [type(event) for event in rig.events[-2:]] == [KeysGenerated, Rekeyed]
        # The timer of reneg-sec, without any input.
        before = trio.current_time()
        assert (await rig.seen_keys.receive()).key_id == 2
        assert trio.current_time() - before == pytest.approx(3600.0)
        nursery.cancel_scope.cancel()
    await rig.shut()


async def test_a_key_for_renegotiations_goes_ahead_of_all_else(autojump_clock: trio.testing.MockClock) -> None:
    """It is in packetmuxer's inlet before anything that may lead to a soft reset is on its way there."""
    rig = Rig(Pair())
    order: list[object] = []

    class Noted:
        def __init__(self, channel: trio.MemorySendChannel[Any]) -> None:
            self.channel = channel

        async def send(self, item: object) -> None:
            order.append(item)
            await self.channel.send(item)

    rig.wraps, rig.outlet, rig.keys = Noted(rig.wraps), Noted(rig.outlet), Noted(rig.keys)  # type: ignore[assignment]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(rig.run)
        nursery.start_soon(rig.serve)
        await rig.seen_ups.receive()
        await rig.to_worker.send(RekeyWanted("bytes"))
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    kinds = [type(item) for item in order]
    assert kinds.count(RenegotiationKey) == 1
    at = kinds.index(RenegotiationKey)
    assert at < kinds.index(ExpectKey) < kinds.index(DataChannelKey)
    assert [item.key_id for item in order[at:] if isinstance(item, OpenKey)] == [1]
    for channel in (rig.wraps, rig.outlet, rig.keys):
        channel.channel.close()  # type: ignore[attr-defined]
    for receiver in (rig.to_worker, rig.inlet, rig.from_worker, rig.seen_keys, rig.seen_wraps, rig.up):
        await receiver.aclose()


async def test_silent_server(autojump_clock: trio.testing.MockClock) -> None:
    rig = Rig(Pair())
    started = trio.current_time()
    with pytest.raises(HandshakeTimeout) as caught:
        await rig.run()
    assert caught.value.stage is Stage.RESET
    assert trio.current_time() - started == pytest.approx(60.0, abs=0.1)
    assert isinstance(rig.from_worker.receive_nowait(), OpenKey)
    await rig.shut()


async def test_alert_leaves_before_the_error(autojump_clock: trio.testing.MockClock) -> None:
    rig = Rig(Pair(client_config(ca=OTHER_CA.cert)))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(rig.serve)
        started = trio.current_time()
        with pytest.raises(TLSVerificationError, match="self-signed"):
            await rig.run()
        assert trio.current_time() - started <= 2 * LAST_WORDS
        nursery.cancel_scope.cancel()
    assert "unknown ca" in str(rig.server_error)
    assert rig.session.state is SessionState.ERROR
    await rig.shut()


async def test_message_of_the_server_ends_it(autojump_clock: trio.testing.MockClock) -> None:
    rig = Rig(Pair())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(rig.serve)

        async def restart() -> None:
            await rig.seen_ups.receive()
            rig.server.send_message("RESTART,later", trio.current_time())
            for item in rig.server.poll_outgoing():
                if isinstance(item, TLSBytes):
                    await rig.to_worker.send(item)

        nursery.start_soon(restart)
        with pytest.raises(TunnelClosed, match="later"):
            await rig.run()
        nursery.cancel_scope.cancel()
    await rig.shut()


async def test_end_of_the_inlet_ends_it(autojump_clock: trio.testing.MockClock) -> None:
    rig = Rig(Pair())
    await rig.to_worker.aclose()
    with trio.fail_after(1):
        await rig.run()
    await rig.shut()


async def test_waits_for_a_full_outlet(autojump_clock: trio.testing.MockClock) -> None:
    pair = Pair()
    rig = Rig(pair)
    await rig.outlet.aclose()
    rig.outlet, rig.from_worker = trio.open_memory_channel[Any](0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(rig.run)
        await trio.sleep(5)
        nursery.start_soon(rig.serve)
        with trio.fail_after(10):
            await rig.seen_ups.receive()
        nursery.cancel_scope.cancel()
    assert not any(isinstance(item, ExpectKey) for item in pair.tls_client.poll_outgoing())
    assert rig.session.next_timeout() != math.inf
    await rig.shut()
