"""The real client, its workers and all, against the in-process server over bad memory links, on a mock clock."""

from __future__ import annotations

import gc
import random
from collections.abc import Callable
from dataclasses import replace

import pytest
import trio
from session_world import STATIC_KEY
from trio.testing import MockClock

from minivpn_trio import open_client, open_tun_dialer
from minivpn_trio.config.model import Remote
from minivpn_trio.errors import (
    AuthFailed,
    AuthFailedTemporarily,
    DropReason,
    HandshakeTimeout,
    Stage,
    TLSVerificationError,
    TunnelClosed,
)
from minivpn_trio.events import Event, Ready, Reconnecting, Rekeyed
from minivpn_trio.items import Burst
from minivpn_trio.netstack import scapy_wire
from minivpn_trio.packet.opcodes import Opcode
from minivpn_trio.testing import (
    CertificateAuthority,
    LinkConditions,
    MemoryTransport,
    ServerSettings,
    VPNServer,
    open_vpn_server,
)
from minivpn_trio.testing.services import discard, echo, pattern

#: The mock clock would jump while a thread imports it.
scapy_wire.preload()

LOSSY = LinkConditions(loss=0.3, delay=0.03, jitter=0.02, duplication=0.02, corruption=0.01)
GOOD = LinkConditions(delay=0.02)
ECHO, DISCARD = 7, 9


async def serve(server: VPNServer, nursery: trio.Nursery) -> None:
    await nursery.start(server.host.serve_tcp, echo, ECHO)
    await nursery.start(server.host.serve_tcp, discard, DISCARD)


async def exchange(stream: trio.SocketStream, size: int, start: int = 0) -> None:
    """``size`` bytes through an echo server, both ways at once, every byte checked."""
    data = pattern(size, start)
    got = bytearray()

    async def read() -> None:
        while len(got) < size:
            chunk = await stream.receive_some(65536)
            assert chunk, "the stream ended early"
            got.extend(chunk)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        await stream.send_all(data)
    assert got == data


def of(kind: type[Event], events: list[Event]) -> list[Event]:
    return [event for event in events if isinstance(event, kind)]


@pytest.mark.parametrize("wrap", ["none", "tls-auth", "tls-crypt"])
async def test_transfers_over_a_path_that_loses_a_third(autojump_clock: MockClock, wrap: str) -> None:
    key = STATIC_KEY if wrap != "none" else None
    settings = ServerSettings(control_wrap=wrap, control_wrap_key=key)  # type: ignore[arg-type]
    repeated = damaged = retransmitted = 0
    async with open_vpn_server(settings, listen=False) as server, trio.open_nursery() as nursery:
        await serve(server, nursery)
        for seed in range(5):
            config = replace(server.client_config(), connect_retry_max=3)
            with trio.fail_after(1000):
                async with open_tun_dialer(config, server.memory_dialer(LOSSY, seed=seed)) as dialer:
                    stream = await dialer.open_tcp_stream(server.address, ECHO)
                    await exchange(stream, 40_000)
                    await stream.aclose()
                    stats = dialer.stats()
            assert stats.netstack is not None
            repeated += stats.control.retransmissions
            retransmitted += stats.netstack.tcp_retransmissions
            damaged += stats.data.drops.get(DropReason.BAD_AUTHENTICATION, 0)
        nursery.cancel_scope.cancel()
    assert min(repeated, retransmitted, damaged) > 0, "the path was as bad as it should be, and it was noticed"


async def test_a_server_that_was_restarted_is_missed_and_found_again(autojump_clock: MockClock) -> None:
    """It says nothing; ping-restart notices. The address is the same, so streams live on."""
    settings = ServerSettings(ping=5, ping_restart=20)
    events: list[Event] = []
    async with open_vpn_server(settings, listen=False) as server, trio.open_nursery() as nursery:
        await serve(server, nursery)
        async with open_tun_dialer(
            server.client_config(), server.memory_dialer(GOOD), on_event=events.append
        ) as dialer:
            stream = await dialer.open_tcp_stream(server.address, ECHO)
            await exchange(stream, 10_000)
            address = dialer.tunnel_info.ipv4
            server.restart()
            restarted = trio.current_time()
            with trio.fail_after(100):
                await exchange(stream, 10_000, 10_000)
            assert trio.current_time() - restarted >= 15
            assert dialer.tunnel_info.ipv4 == address
            assert dialer.stats().reconnections == 1
            (again,) = of(Reconnecting, events)
            assert isinstance(again, Reconnecting)
            assert "ping-restart" in again.reason
            assert 20 <= again.time - restarted + 5 <= 30
            assert len(of(Ready, events)) == 2
        nursery.cancel_scope.cancel()


async def test_a_path_that_is_gone_for_five_minutes(autojump_clock: MockClock) -> None:
    events: list[Event] = []
    settings = ServerSettings(ping=5, ping_restart=20)
    async with open_vpn_server(settings, listen=False) as server, trio.open_nursery() as nursery:
        await serve(server, nursery)
        dial = server.memory_dialer(GOOD)
        config = replace(server.client_config(), hand_window=20.0)
        async with open_tun_dialer(config, dial, on_event=events.append) as dialer:
            stream = await dialer.open_tcp_stream(server.address, ECHO)
            await exchange(stream, 1000)
            dial.change(LinkConditions(loss=1.0))
            await trio.sleep(300)
            dial.change(GOOD)
            with trio.fail_after(200):
                await exchange(stream, 1000, 1000)
            delays = [event.delay for event in events if isinstance(event, Reconnecting)]
            assert delays[:5] == [1.0] * 5
            assert delays == sorted(delays)
            assert delays[-1] > 1.0, "it asks less and less often"
        # every failed attempt is forgotten at the server too, in time
        await trio.sleep(200)
        assert server.core.clients == {}
        nursery.cancel_scope.cancel()


async def test_a_server_that_says_restart(autojump_clock: MockClock) -> None:
    events: list[Event] = []
    async with open_vpn_server(listen=False) as server, trio.open_nursery() as nursery:
        await serve(server, nursery)
        async with open_tun_dialer(
            server.client_config(), server.memory_dialer(GOOD), on_event=events.append
        ) as dialer:
            stream = await dialer.open_tcp_stream(server.address, ECHO)
            before = trio.current_time()
            server.send_message("RESTART,maintenance")
            with trio.fail_after(30):
                await exchange(stream, 1000)
            assert trio.current_time() - before < 10, "at once, not after ping-restart"
            (again,) = of(Reconnecting, events)
            assert isinstance(again, Reconnecting)
            assert "maintenance" in again.reason
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("goodbye", [True, False])
async def test_a_server_that_sends_the_client_away(autojump_clock: MockClock, goodbye: bool) -> None:
    async with open_vpn_server(listen=False) as server, trio.open_nursery() as nursery:
        await serve(server, nursery)
        config = replace(server.client_config(), connect_retry_max=1, hand_window=5.0)
        dial = server.memory_dialer(GOOD)
        async with open_tun_dialer(config, dial) as dialer:
            stream = await dialer.open_tcp_stream(server.address, ECHO)
            if goodbye:
                # explicit-exit-notify by the server: a reason to connect again
                server.restart(goodbye=True)
                with trio.fail_after(30):
                    await exchange(stream, 100)
            else:
                server.send_message("HALT,go away")
                with pytest.raises(trio.BrokenResourceError):
                    await stream.receive_some()
                with pytest.raises(OSError, match="Network is down"):
                    await dialer.open_tcp_stream(server.address, ECHO)
        nursery.cancel_scope.cancel()


async def test_what_a_raw_client_sees_of_halt(autojump_clock: MockClock) -> None:
    async with open_vpn_server(listen=False) as server:
        async with open_client(server.client_config(), server.memory_dialer(GOOD)) as client:
            server.send_message("HALT,go away")
            with pytest.raises(trio.BrokenResourceError) as caught:
                await client.receive()
            assert isinstance(caught.value.__cause__, TunnelClosed)
            assert "go away" in str(caught.value)
            with pytest.raises(trio.BrokenResourceError):
                await client.send([bytes(20)])
            assert await client.wait_closed() is client.closed_by is caught.value.__cause__
        assert isinstance(client.closed_by, TunnelClosed)


async def test_credentials_refused_at_a_reconnection_end_the_tunnel(autojump_clock: MockClock) -> None:
    users = {"jo": "secret"}
    async with (
        open_vpn_server(ServerSettings(users=users, ping=5, ping_restart=20), listen=False) as server,
        open_client(server.client_config("jo", "secret"), server.memory_dialer(GOOD)) as client,
    ):
        users["jo"] = "another"
        server.restart()
        with trio.fail_after(60):
            reason = await client.wait_closed()
        assert isinstance(reason, AuthFailed)
        assert "secret" not in repr(reason)


# the handshake fails


@pytest.mark.parametrize("stage", [Stage.RESET, Stage.TLS_HANDSHAKE])
async def test_a_silent_server(autojump_clock: MockClock, stage: Stage) -> None:
    async with open_vpn_server(listen=False) as server:
        dial = server.memory_dialer(GOOD if stage is Stage.TLS_HANDSHAKE else LinkConditions(loss=1.0))

        def on_event(event: Event) -> None:
            if type(event).__name__ == "ResetDone":
                dial.change(LinkConditions(loss=1.0))

        began = trio.current_time()
        with pytest.raises(HandshakeTimeout) as caught:
            async with open_client(server.client_config(), dial, on_event=on_event):
                raise AssertionError("never")
        assert caught.value.stage is stage
        assert trio.current_time() - began == pytest.approx(60.0, abs=0.5)
        assert all(transport.closed for transport in dial.transports)


async def test_a_wrong_password(autojump_clock: MockClock) -> None:
    async with open_vpn_server(ServerSettings(users={"jo": "secret"}), listen=False) as server:
        dial = server.memory_dialer(replace(LOSSY, corruption=0.0), seed=5)
        began = trio.current_time()
        with pytest.raises(AuthFailed) as caught:
            async with open_client(server.client_config("jo", "sesame"), dial):
                raise AssertionError("never")
        assert caught.value.stage is Stage.PUSH
        assert "sesame" not in str(caught.value)
        assert trio.current_time() - began < 60
        assert len(dial.transports) == 1, "a refused password is not sent again"


async def test_a_wrong_authority(autojump_clock: MockClock) -> None:
    async with open_vpn_server(listen=False) as server:
        config = replace(server.client_config(), ca=CertificateAuthority("somebody else").cert)
        began = trio.current_time()
        with pytest.raises(TLSVerificationError) as caught:
            async with open_client(config, server.memory_dialer(GOOD)):
                raise AssertionError("never")
        assert caught.value.stage is Stage.TLS_HANDSHAKE
        assert trio.current_time() - began < 1.0
        await trio.sleep(1.0)
        assert server.core.clients == {}, "the server was told"


@pytest.mark.parametrize(
    ("message", "wait", "hosts"),
    [
        ("TEMP[backoff 7,advance remote]:busy", 7.0, ["one", "two"]),
        ("TEMP[backoff 7,advance no]:busy", 7.0, ["one", "one"]),
        ("TEMP:busy", 0.0, ["one", "two"]),
        ("TEMP[backoff 100000]:busy", 300.0, ["one", "two"]),
    ],
)
async def test_a_server_that_cannot_decide_just_now(
    autojump_clock: MockClock, message: str, wait: float, hosts: list[str]
) -> None:
    answers = iter([message])
    settings = ServerSettings()
    policy = replace(settings.policy, authenticate=lambda _name, _password: next(answers, True))
    async with open_vpn_server(replace(settings, policy=policy), listen=False) as server:
        inner = server.memory_dialer(GOOD)
        tried: list[tuple[str, float]] = []

        async def dial(remote: Remote) -> MemoryTransport:
            tried.append((remote.host, trio.current_time()))
            return await inner(remote)

        config = replace(
            server.client_config(), remotes=(Remote("one"), Remote("two")), connect_retry_max=2, connect_retry=1.0
        )
        async with open_client(config, dial) as client:
            assert client.tunnel_info is not None
        assert [host for host, _ in tried] == hosts
        assert tried[1][1] - tried[0][1] == pytest.approx(max(wait, 1.0 if "no" in message else 0.0), abs=1.5)


async def test_a_temporary_failure_that_stays_is_told(autojump_clock: MockClock) -> None:
    settings = ServerSettings()
    policy = replace(settings.policy, authenticate=lambda _name, _password: "TEMP:busy")
    async with open_vpn_server(replace(settings, policy=policy), listen=False) as server:
        with pytest.raises(AuthFailedTemporarily, match="busy"):
            async with open_client(server.client_config(), server.memory_dialer(GOOD)):
                raise AssertionError("never")


# hostile company


class Intruder:
    """A transport around another, into whose received bursts somebody puts packets of their own."""

    is_stream = False
    peer = None

    def __init__(self, inner: MemoryTransport, inject: Callable[[Burst], Burst]) -> None:
        self.inner = inner
        self.inject = inject
        self.established = inner.established
        self.send, self.send_nowait, self.stats = inner.send, inner.send_nowait, inner.stats
        self.aclose = inner.aclose

    async def receive(self) -> Burst:
        return self.inject(await self.inner.receive())


def hard_reset_server(session_id: bytes, *, acks: bytes = b"", peer: bytes = b"") -> bytes:
    head = bytes([Opcode.CONTROL_HARD_RESET_SERVER_V2 << 3]) + session_id
    return head + bytes([len(acks) // 4]) + acks + (peer if acks else b"") + bytes(4)


async def test_forged_resets_before_the_real_one(autojump_clock: MockClock) -> None:
    """The C client believes the first that comes. Ours needs the acknowledgement that names its session id."""
    forged = [
        hard_reset_server(b"forged!!"),
        hard_reset_server(b"forged!!", acks=bytes(4), peer=b"guessed!"),
        hard_reset_server(bytes(8)),
    ]
    async with open_vpn_server(listen=False) as server:
        inner = server.memory_dialer(GOOD)

        async def dial(remote: Remote) -> Intruder:
            return Intruder(await inner(remote), lambda burst: [*forged, *burst])

        began = trio.current_time()
        async with open_client(server.client_config(), dial) as client:
            assert trio.current_time() - began == pytest.approx(0.12, abs=0.15), "nothing is slowed down"
            drops = client.stats().control.drops
        assert drops[DropReason.BAD_SESSION_ID] > 0
        assert drops[DropReason.NOT_READY] > 0


def garbage(rng: random.Random, count: int) -> Burst:
    """What a network may throw at us: noise, empty datagrams, every opcode with nonsense behind it."""
    return [
        bytes([rng.randrange(256)])[: rng.randrange(2)] + rng.randbytes(rng.choice([0, 1, 8, 13, 22, 60, 1400, 4000]))
        for _ in range(count)
    ]


def objects_held() -> int:
    gc.collect()
    return sum(len(thing) for thing in gc.get_objects() if isinstance(thing, list | dict | set))


@pytest.mark.parametrize("seed", range(3))
async def test_a_flood_of_garbage_during_the_handshake_and_after(autojump_clock: MockClock, seed: int) -> None:
    rng = random.Random(seed)
    async with open_vpn_server(listen=False) as server, trio.open_nursery() as nursery:
        await serve(server, nursery)
        inner = server.memory_dialer(GOOD)
        injected = 0

        def inject(burst: Burst) -> Burst:
            nonlocal injected
            noise = garbage(rng, 63)
            injected += len(noise)
            mixed = noise + list(burst)
            rng.shuffle(mixed)
            return mixed[:64] if len(burst) == 1 else mixed

        async def dial(remote: Remote) -> Intruder:
            return Intruder(await inner(remote), inject)

        async with open_tun_dialer(server.client_config(), dial) as dialer:
            stream = await dialer.open_tcp_stream(server.address, ECHO)
            await exchange(stream, 20_000)
            before = objects_held()
            for round_ in range(1, 4):
                await exchange(stream, 20_000, 20_000 * round_)
            assert objects_held() < before * 1.1 + 2000, "nothing piles up"
            stats = dialer.stats()
        counted = sum(stats.control.drops.values()) + sum(stats.data.drops.values())
        assert counted >= 0.98 * injected, (counted, injected)
        nursery.cancel_scope.cancel()


# a long life


async def test_an_idle_hour(autojump_clock: MockClock) -> None:
    """Pings both ways keep the tunnel and the server's session alive, over a path that loses a tenth."""
    async with open_vpn_server(listen=False) as server, trio.open_nursery() as nursery:
        await serve(server, nursery)
        events: list[Event] = []
        dial = server.memory_dialer(LinkConditions(loss=0.1, delay=0.05), seed=3)
        async with open_tun_dialer(server.client_config(), dial, on_event=events.append) as dialer:
            stream = await dialer.open_tcp_stream(server.address, ECHO)
            await trio.sleep(3600)
            await exchange(stream, 1000)
            data = dialer.stats().data
            assert 330 <= data.pings_out <= 370
            assert 270 <= data.pings_in <= 370
            assert of(Reconnecting, events) == []
            (client,) = server.core.clients.values()
            assert client.endpoint.data.stats().pings_out >= 330
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("by", ["client", "server"])
async def test_keys_are_renewed_under_traffic(autojump_clock: MockClock, by: str) -> None:
    settings = ServerSettings(reneg_sec=30.0 if by == "server" else 0.0)
    events: list[Event] = []
    async with open_vpn_server(settings, listen=False) as server, trio.open_nursery() as nursery:
        await serve(server, nursery)
        config = replace(server.client_config(), reneg_sec=30.0 if by == "client" else 0.0)
        dial = server.memory_dialer(LinkConditions(delay=0.1), seed=3)
        async with open_tun_dialer(config, dial, on_event=events.append) as dialer:
            stream = await dialer.open_tcp_stream(server.address, ECHO)
            start, until = 0, trio.current_time() + 160
            overlapping = False
            while trio.current_time() < until:
                await exchange(stream, 20_000, start)
                start += 20_000
                (client,) = server.core.clients.values()
                overlapping |= client.endpoint.data.live_keys > 1
            renewed = [event.by for event in events if isinstance(event, Rekeyed)]
            assert len(renewed) >= 4
            assert set(renewed) == {by}
            assert overlapping, "an old key lives on for a while"
            stats = dialer.stats()
            assert stats.rekeys == len(renewed)
            assert stats.netstack is not None
            assert stats.netstack.tcp_retransmissions == server.stack.stats().tcp_retransmissions == 0
            assert stats.data.drops == {}
            assert (client.endpoint.data.drops, client.endpoint.data.live_keys <= 3) == ({}, True)
        nursery.cancel_scope.cancel()


async def test_two_tunnels_with_one_certificate(autojump_clock: MockClock) -> None:
    """Who comes again takes the place of who was there; unless the server allows both."""
    for duplicates in (False, True):
        async with open_vpn_server(ServerSettings(duplicate_cn=duplicates), listen=False) as server:
            config = server.client_config()
            async with (
                open_client(config, server.memory_dialer(GOOD)) as first,
                open_client(config, server.memory_dialer(GOOD, seed=9)) as second,
            ):
                same = first.tunnel_info.ipv4 == second.tunnel_info.ipv4
                assert same is not duplicates
                assert len(server.core.clients) == 1 + duplicates


