"""Data keys over a whole session, without Trio: epochs, old ciphers, renewals by what a key has carried, OCC."""

from __future__ import annotations

import dataclasses

import pytest
import trio.testing
from session_world import SessionWorld

from minivpn_trio import open_tun_dialer
from minivpn_trio.datachannel.epoch import EpochSealer
from minivpn_trio.datachannel.occ import OCC_MAGIC, OccOp
from minivpn_trio.errors import ConnectError, DropReason
from minivpn_trio.events import KeysGenerated, Rekeyed
from minivpn_trio.testing import LinkConditions, ServerSettings, open_vpn_server
from minivpn_trio.testing.services import echo
from minivpn_trio.tlssession.server import ServerPolicy
from minivpn_trio.tlssession.session import TlsSession

PERFECT = LinkConditions(delay=0.02)
BAD = LinkConditions(delay=0.05, jitter=0.05, loss=0.2, duplication=0.05, corruption=0.02)
EPOCHS = ServerPolicy(epoch=True)
#: What a bad link does to data packets, and nothing worse.
LINKS_DOING = {DropReason.REPLAY, DropReason.BAD_AUTHENTICATION, DropReason.UNKNOWN_KEY, DropReason.UNEXPECTED_OPCODE}


def up(conditions: LinkConditions = PERFECT, seed: int = 1, **options: object) -> SessionWorld:
    world = SessionWorld(seed, conditions, **options)  # type: ignore[arg-type]
    assert world.run_until(lambda: world.both_up), world.verdict
    return world


def renewals(world: SessionWorld) -> list[str]:
    return [event.by for event in world.client.events if isinstance(event, Rekeyed)]


def key_ids(world: SessionWorld) -> list[int]:
    return [event.key_id for event in world.client.events if isinstance(event, KeysGenerated)]


def exchange(world: SessionWorld, count: int = 20) -> None:
    """``count`` packets each way, which arrive in order on a perfect link."""
    world.at_server.clear()
    world.at_client.clear()
    sent = world.send_from_client(count), world.send_from_server(count)
    world.run_for(1.0)
    assert (world.at_server, world.at_client) == sent


class TestEpochs:
    @pytest.mark.parametrize("cipher", ["AES-256-GCM", "AES-128-GCM", "CHACHA20-POLY1305"])
    def test_both_ends_speak_them(self, cipher: str) -> None:
        world = up(policy=EPOCHS, data_ciphers=(cipher,))
        assert world.session.negotiated is not None
        assert world.session.negotiated.epoch
        exchange(world)
        world.client.send_packets([b"\x45" + bytes(99)], world.now)
        (wire,) = world.client.take_datagrams()
        assert wire[0] >> 3 == 9
        assert wire[4:6] == b"\x00\x01"
        assert len(wire) == 100 + 28

    def test_not_with_cbc(self) -> None:
        world = up(policy=EPOCHS, data_ciphers=("AES-256-CBC",))
        assert world.session.negotiated is not None
        assert not world.session.negotiated.epoch
        exchange(world)

    def test_not_without_a_peer_id(self) -> None:
        world = up(policy=dataclasses.replace(EPOCHS, peer_id=None))
        assert world.session.negotiated is not None
        assert not world.session.negotiated.epoch
        exchange(world)

    def test_a_server_that_wants_them_where_they_cannot_be(self) -> None:
        world = SessionWorld(1, PERFECT, data_ciphers=("AES-256-CBC",), push=("protocol-flags aead-epoch",))
        assert not world.run_until(lambda: world.both_up)
        assert isinstance(world.verdict, ConnectError)
        assert "in epochs" in str(world.verdict)

    def test_epochs_go_on_in_flight(self) -> None:
        """Whoever goes ahead, the other follows, and nothing is lost."""
        world = up(policy=EPOCHS)
        assert world.at_the_server is not None
        ends = [world.client.data._slots.newest, world.at_the_server.endpoint.data._slots.newest]
        sealers = [end.sealer for end in ends if end is not None]
        assert all(isinstance(sealer, EpochSealer) for sealer in sealers)
        for number in range(10):
            leader = sealers[number % 2]
            assert isinstance(leader, EpochSealer)
            leader.advance(leader.epoch + 1 + number % 4)
            exchange(world, 5)
            exchange(world, 5)
            assert {sealer.epoch for sealer in sealers if isinstance(sealer, EpochSealer)} == {leader.epoch}
        assert leader.epoch == 1 + 10 + sum(number % 4 for number in range(10))
        assert not world.client.data.drops
        assert not world.at_the_server.endpoint.data.drops

    @pytest.mark.parametrize("seed", range(5))
    def test_renewed_over_a_bad_link(self, seed: int) -> None:
        world = up(BAD, seed, policy=EPOCHS, client_options={"reneg_sec": 40.0})
        for _ in range(100):
            world.send_from_client(3)
            world.send_from_server(3)
            world.run_for(2.0)
        assert world.verdict is None
        assert len(renewals(world)) >= 3
        assert set(world.client.data.drops) <= LINKS_DOING
        assert len(world.at_server) > 150
        assert len(world.at_client) > 150
        world.heal()
        world.run_for(30.0)
        exchange(world)

    async def test_a_whole_tunnel(self, autojump_clock: trio.testing.MockClock) -> None:
        settings = ServerSettings(policy=EPOCHS)
        async with open_vpn_server(settings, listen=False) as server:
            link = server.memory_dialer(PERFECT, PERFECT)
            async with open_tun_dialer(server.client_config(), link) as dialer, trio.open_nursery() as nursery:
                await nursery.start(server.host.serve_tcp, echo, 7)
                stream = await dialer.open_tcp_stream(server.address, 7)
                async with stream:
                    await stream.send_all(bytes(100_000))
                    received = 0
                    while received < 100_000:
                        received += len(await stream.receive_some())
                assert not dialer.stats().data.drops
                nursery.cancel_scope.cancel()


@pytest.mark.parametrize("cipher", ["BF-CBC", "DES-EDE3-CBC"])
def test_small_blocks(cipher: str) -> None:
    world = up(data_ciphers=(cipher,))
    assert world.session.negotiated is not None
    assert world.session.negotiated.cipher == cipher
    assert world.session.negotiated.reneg_bytes == 64 << 20
    exchange(world)


class TestRenewals:
    """A packet here has 64 bytes; each ``exchange`` carries 20 each way."""

    @pytest.mark.parametrize("limit", [{"reneg_bytes": 3000}, {"reneg_packets": 45}], ids=str)
    def test_by_the_client(self, limit: dict[str, int]) -> None:
        world = up(client_options=limit)
        for _ in range(6):
            exchange(world)
        assert set(renewals(world)) == {"client"}
        assert len(renewals(world)) >= 2

    @pytest.mark.parametrize("limit", [{"reneg_bytes": 3000}, {"reneg_packets": 45}], ids=str)
    def test_by_the_server(self, limit: dict[str, int]) -> None:
        world = up(policy=ServerPolicy(**limit))  # type: ignore[arg-type]
        for _ in range(6):
            exchange(world)
        assert set(renewals(world)) == {"server"}
        assert len(renewals(world)) >= 2

    @pytest.mark.parametrize("seed", range(10))
    def test_by_both_at_once(self, seed: int) -> None:
        """Soft resets that cross on the way are one renewal."""
        limit = {"reneg_packets": 40}
        world = up(seed=seed, policy=ServerPolicy(**limit), client_options=limit)  # type: ignore[arg-type]
        for _ in range(8):
            exchange(world)
        assert world.verdict is None
        ids = key_ids(world)
        assert ids == [0, *((number - 1) % 7 + 1 for number in range(1, len(ids)))]
        assert len(ids) >= 4
        assert world.at_the_server is not None
        assert world.at_the_server.session.rekeys == len(ids) - 1

    @pytest.mark.parametrize("seed", range(5))
    def test_by_both_over_a_bad_link(self, seed: int) -> None:
        limit = {"reneg_packets": 60}
        world = up(BAD, seed, policy=ServerPolicy(**limit), client_options=limit)  # type: ignore[arg-type]
        for _ in range(150):
            world.send_from_client(3)
            world.send_from_server(3)
            world.run_for(2.0)
        assert world.verdict is None
        assert len(renewals(world)) >= 3
        world.heal()
        world.run_for(90.0)
        exchange(world)

    def test_key_ids_go_round(self) -> None:
        world = up(client_options={"reneg_packets": 30})
        for _ in range(40):
            exchange(world)
        ids = key_ids(world)
        assert len(ids) > 9
        assert ids[:9] == [0, 1, 2, 3, 4, 5, 6, 7, 1]
        assert not world.client.data.drops

    def test_packet_ids_that_run_out_are_renewed_in_time(self) -> None:
        world = up()
        slot = world.client.data._slots.newest
        assert slot is not None
        slot.usage.packets_out = 0xFF000000 - 21
        world.send_from_client(20)
        world.run_for(1.0)
        assert renewals(world) == []
        world.send_from_client(2)
        world.run_for(1.0)
        assert renewals(world) == ["client"]
        exchange(world)

    def test_the_ciphers_limit_is_not_reached(self) -> None:
        world = up()
        slot = world.client.data._slots.newest
        assert slot is not None
        slot.usage.bytes_in = 2**40 // 8 * 7
        world.send_from_server(1)
        world.run_for(1.0)
        assert renewals(world) == ["client"]
        exchange(world)


def test_occ_both_ways() -> None:
    """Either end may be asked; each names its own options."""
    world = up()
    assert world.at_the_server is not None
    server = world.at_the_server.endpoint
    heard: list[bytes] = []
    for end in (world.client.data, server.data):
        answer = end._occ.handle_untrusted

        def listen(message: bytes, size: int, answer: object = answer) -> bool:
            heard.append(message)
            return answer(message, size)  # type: ignore[operator,no-any-return]

        responder = end._occ
        end._occ = type("Listener", (), {  # type: ignore[assignment]
            "handle_untrusted": staticmethod(listen), "poll": responder.poll, "next_timeout": responder.next_timeout,
        })()  # fmt: skip
    question = OCC_MAGIC + bytes([OccOp.REQUEST])
    world.client.send_packets([question], world.now)
    server.send_packets([question], world.now)
    world.server._collect(world.at_the_server)
    world.run_for(5.0)
    replies = sorted(message[17:-1].decode() for message in heard if message[16] == OccOp.REPLY)
    assert len(replies) == 2
    assert replies[0].endswith("tls-client")
    assert replies[1].endswith("tls-server")
    assert isinstance(world.session, TlsSession)
