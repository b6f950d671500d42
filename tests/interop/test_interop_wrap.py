"""The control channel's protection against the real server: every wrap, and what each says on the wire."""

from __future__ import annotations

import base64
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
import trio

from minivpn_trio.errors import ConnectError, DropReason, HandshakeTimeout
from minivpn_trio.events import Reconnecting, Rekeyed, Warned
from minivpn_trio.packet.opcodes import Opcode
from minivpn_trio.testing import tls_crypt_v2_client_key, tls_crypt_v2_server_key
from minivpn_trio.tlssession import peer_info
from minivpn_trio.tracing import PacketTraced, TraceRecord
from tests.interop.exchanges import EventLog, everyday, open_tunnel
from tests.interop.lab.openvpn import tls_crypt_v2_keys
from tests.interop.lab.pki import static_key

DIGESTS = ("SHA1", "SHA224", "SHA256", "SHA384", "SHA512")
#: The size of a soft reset in tls-crypt, with its acknowledgements none.
SOFT_RESET_IN_TLS_CRYPT = 54


class Packets:
    """A tracer that keeps the control packets."""

    def __init__(self) -> None:
        self.records: list[PacketTraced] = []

    def trace(self, record: TraceRecord) -> None:
        if isinstance(record, PacketTraced):
            self.records.append(record)

    def of(self, direction: str, opcode: Opcode) -> list[PacketTraced]:
        return [record for record in self.records if (record.direction, record.opcode) == (direction, opcode)]

    @property
    def dropped(self) -> list[PacketTraced]:
        return [record for record in self.records if record.direction == "dropped"]


# tls-auth


@pytest.mark.parametrize("direction", [0, 1, None])
@pytest.mark.parametrize("auth", DIGESTS)
@pytest.mark.parametrize("transport", ["udp", "tcp"])
async def test_tls_auth(start_server, transport, auth, direction) -> None:
    options = {"key_direction": None} if direction is None else {"client_direction": direction}
    server = start_server(transport=transport, wrap="tls-auth", auth=auth, **options)
    packets = Packets()
    async with open_tunnel(server.profile_file(), tracer=packets) as dialer:
        await everyday(dialer)
        assert not dialer.stats().control.drops
    assert not packets.dropped
    assert "TLS Error" not in server.log


@pytest.mark.parametrize("wrap", ["tls-auth", "tls-crypt", "tls-crypt-v2"])
async def test_key_in_a_file(start_server, wrap) -> None:
    """The profile names a file; for tls-auth the direction stands beside it."""
    server = start_server(wrap=wrap)
    head, _, rest = server.profile().partition(f"<{wrap}>\n")
    key, _, tail = rest.partition(f"</{wrap}>\n")
    (server.folder / "wrap.key").write_text(key)
    directive = f"{wrap} wrap.key" + (" 1" if wrap == "tls-auth" else "")
    path = server.folder / "by-file.ovpn"
    path.write_text(head + directive + "\n" + tail.replace("key-direction 1\n", ""))
    async with open_tunnel(path) as dialer:
        await everyday(dialer)


@pytest.mark.parametrize("wrap", ["tls-auth", "tls-crypt", "tls-crypt-v2"])
async def test_the_wrong_key_is_never_answered(start_server, lab, wrap) -> None:
    server = start_server(wrap=wrap)
    profile = server.profile()
    if wrap == "tls-crypt-v2":
        profile = profile.replace(lab.credentials.v2_keys[1].strip(), tls_crypt_v2_keys()[1].strip())
    else:
        profile = profile.replace(lab.credentials.key.strip(), static_key().strip())
    path = server.folder / "wrong-key.ovpn"
    path.write_text(profile)
    with pytest.raises(HandshakeTimeout) as caught:
        async with open_tunnel(path, hand_window=1.5, connect_retry_max=1):
            pass
    assert isinstance(caught.value, ConnectError)
    assert "TLS Error" in server.log


# tls-crypt-v2


@pytest.mark.parametrize("force_cookie", [False, True])
@pytest.mark.parametrize("transport", ["udp", "tcp"])
async def test_tls_crypt_v2(start_server, transport, force_cookie) -> None:
    server = start_server(transport=transport, wrap="tls-crypt-v2", force_cookie=force_cookie)
    packets = Packets()
    async with open_tunnel(server.profile_file(), tracer=packets) as dialer:
        await everyday(dialer)
        assert not dialer.stats().control.drops
    assert not packets.dropped
    assert packets.of("out", Opcode.CONTROL_HARD_RESET_CLIENT_V3)
    again = packets.of("out", Opcode.CONTROL_WKC_V1)
    # A UDP server keeps no state before the cookie came back, so it asks; over TCP it has no need to.
    assert bool(again) is (transport == "udp")
    assert {record.packet_id for record in again} <= {1}
    assert all(record.packet_id != 1 for record in packets.of("out", Opcode.CONTROL_V1) if again and record.key_id == 0)
    assert max(record.size for record in packets.records if record.direction == "out") <= 1222
    assert "TLS Error" not in server.log


@pytest.mark.parametrize("size", [1, 300, 733])
async def test_a_long_wrapped_key_leaves_less_room(start_server, lab, monkeypatch, size) -> None:
    """Metadata up to the maximum: the ClientHello is cut so that message 1 still fits its datagram."""
    metadata = base64.b64encode(bytes(size)).decode()
    credentials = lab.credentials
    before = credentials.v2_keys
    object.__setattr__(credentials, "v2_keys", tls_crypt_v2_keys(metadata=metadata))
    try:
        server = start_server(wrap="tls-crypt-v2", force_cookie=True)
        path = server.profile_file()
    finally:
        object.__setattr__(credentials, "v2_keys", before)
    packets = Packets()
    async with open_tunnel(path, tracer=packets) as dialer:
        await everyday(dialer)
    (first, *_) = packets.of("out", Opcode.CONTROL_WKC_V1)
    assert first.size <= 1222
    assert first.payload_size >= 16


# dynamic tls-crypt


@pytest.mark.slow
@pytest.mark.parametrize("by", ["server", "client"])
@pytest.mark.parametrize("wrap", ["none", "tls-auth", "tls-crypt", "tls-crypt-v2"])
async def test_dynamic_tls_crypt(start_server, wrap, by) -> None:
    """All control packets of later keys are tls-crypt's, whatever those of the first are."""
    server = start_server(wrap=wrap, reneg_sec=4 if by == "server" else 0)
    log, packets = EventLog(), Packets()
    path = server.profile_file(reneg_sec=4 if by == "client" else 0)
    async with open_tunnel(path, on_event=log, tracer=packets) as dialer:
        await log.wait(Rekeyed, 2, seconds=15)
        await trio.sleep(0.3)
        await everyday(dialer)
        assert not dialer.stats().control.drops
    assert {event.by for event in log.of(Rekeyed)} == {by}
    assert not log.of(Reconnecting)
    assert not [event for event in log.of(Warned) if "tls-crypt" in event.text]
    assert "dyn-tls-crypt" in server.log
    resets = packets.of("out", Opcode.CONTROL_SOFT_RESET_V1) if by == "client" else []
    resets += packets.of("in", Opcode.CONTROL_SOFT_RESET_V1) if by == "server" else []
    assert resets
    assert {record.size for record in resets if not record.acks} <= {SOFT_RESET_IN_TLS_CRYPT}
    assert "TLS Error" not in server.log


@pytest.mark.slow
async def test_renegotiation_without_dynamic_tls_crypt(start_server, monkeypatch) -> None:
    """A client that does not announce it goes on with its static key, or without."""
    without = peer_info.CLIENT_FEATURES & ~peer_info.ProtoFlag.DYN_TLS_CRYPT
    monkeypatch.setattr(peer_info.peer_info, "__defaults__", (without,))
    server = start_server(reneg_sec=3)
    log, packets = EventLog(), Packets()
    async with open_tunnel(server.profile_file(), on_event=log, tracer=packets) as dialer:
        await log.wait(Rekeyed, 1, seconds=8)
        await everyday(dialer)
    assert {record.size for record in packets.of("in", Opcode.CONTROL_SOFT_RESET_V1) if not record.acks} == {14}
    assert "dyn-tls-crypt" not in server.log


# replays

#: Number of the datagram in its direction, the datagram; what is forwarded: pairs of a delay in seconds and a datagram.
Mischief = Callable[[int, bytes], list[tuple[float, bytes]]]


def honest(number: int, datagram: bytes) -> list[tuple[float, bytes]]:
    return [(0.0, datagram)]


@asynccontextmanager
async def relay(host: str, *, up: Mischief = honest, down: Mischief = honest) -> AsyncIterator[int]:
    """A UDP port of 127.0.0.1 behind which the server is, for one client and with somebody in between."""
    inner = trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    outer = trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    await inner.bind(("127.0.0.1", 0))
    await outer.connect((host, 1194))
    clients: list[object] = []

    async def later(delay: float, send: Callable[[bytes], object], datagram: bytes) -> None:
        await trio.sleep(delay)
        await send(datagram)  # type: ignore[misc]

    async def move(
        nursery: trio.Nursery, source: trio.socket.SocketType, send: Callable[[bytes], object], mischief: Mischief
    ) -> None:
        number = 0
        while True:
            datagram, address = await source.recvfrom(4096)
            if source is inner:
                clients[:] = [address]
            number += 1
            for delay, text in mischief(number, datagram):
                nursery.start_soon(later, delay, send, text)

    with inner, outer:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(move, nursery, inner, outer.send, up)
            nursery.start_soon(move, nursery, outer, lambda text: inner.sendto(text, clients[0]), down)
            yield inner.getsockname()[1]
            nursery.cancel_scope.cancel()


def is_control(datagram: bytes) -> bool:
    return datagram[0] >> 3 not in (Opcode.DATA_V1, Opcode.DATA_V2)


def repeat(number: int, datagram: bytes) -> list[tuple[float, bytes]]:
    """Each control packet once more, and once more again."""
    return [(0.0, datagram), *([(0.02, datagram), (0.3, datagram)] if is_control(datagram) else [])]


@pytest.mark.parametrize("wrap", ["tls-auth", "tls-crypt", "tls-crypt-v2"])
async def test_replays_both_ways(start_server, wrap) -> None:
    server = start_server(wrap=wrap)
    async with relay(server.host, up=repeat, down=repeat) as port:
        path = server.profile_file(host="127.0.0.1", port=port)
        async with open_tunnel(path) as dialer:
            await trio.sleep(0.5)
            await everyday(dialer)
            drops = dialer.stats().control.drops
    assert drops[DropReason.REPLAY] >= 8
    # The server has the same rule for ours; what is repeated before it has a session is answered again.
    assert "replay" in server.log


def hold_third_control_packet(seconds: float) -> Mischief:
    """The packets behind it arrive at once."""
    seen = 0

    def mischief(number: int, datagram: bytes) -> list[tuple[float, bytes]]:
        nonlocal seen
        seen += is_control(datagram)
        return [(seconds if is_control(datagram) and seen == 3 else 0.0, datagram)]

    return mischief


@pytest.mark.slow
@pytest.mark.parametrize("wrap", ["tls-auth", "tls-crypt"])
async def test_what_comes_too_late_is_a_replay(start_server, wrap) -> None:
    """Inside the window of ids, and never seen before, but older than the window's time."""
    server = start_server(wrap=wrap)
    async with relay(server.host, down=hold_third_control_packet(4.0)) as port:
        path = server.profile_file(host="127.0.0.1", port=port)
        async with open_tunnel(path, replay_time=1.0) as dialer:
            await trio.sleep(5)
            await everyday(dialer)
            drops = dialer.stats().control.drops
    # What the server sends again meanwhile has a fresh replay id, and may be a duplicate.
    assert drops.get(DropReason.REPLAY) == 1
    assert set(drops) <= {DropReason.REPLAY, DropReason.DUPLICATE}


@pytest.mark.slow
async def test_the_server_judges_lateness_alike(start_server) -> None:
    server = start_server(wrap="tls-crypt", extra=("replay-window 64 1",))
    async with (
        relay(server.host, up=hold_third_control_packet(4.0)) as port,
        open_tunnel(server.profile_file(host="127.0.0.1", port=port)) as dialer,
    ):
        await trio.sleep(5)
        await everyday(dialer)
    assert "replay" in server.log.lower()


@pytest.mark.slow
async def test_a_late_packet_within_the_window_is_taken(start_server) -> None:
    """The same with the default 15 s: nothing is dropped for its replay id."""
    server = start_server(wrap="tls-crypt")
    async with (
        relay(server.host, down=hold_third_control_packet(4.0)) as port,
        open_tunnel(server.profile_file(host="127.0.0.1", port=port)) as dialer,
    ):
        await trio.sleep(5)
        assert DropReason.REPLAY not in dialer.stats().control.drops


# keys made by minivpn_trio.testing


async def test_keys_made_here_are_good_for_openvpn(start_server, lab) -> None:
    made = tls_crypt_v2_server_key()
    before = lab.credentials.v2_keys
    object.__setattr__(lab.credentials, "v2_keys", (made.decode(), tls_crypt_v2_client_key(made).decode()))
    try:
        server = start_server(wrap="tls-crypt-v2", force_cookie=True)
        path = server.profile_file()
    finally:
        object.__setattr__(lab.credentials, "v2_keys", before)
    async with open_tunnel(path) as dialer:
        await everyday(dialer)
