"""The data channel against the real server: sizes, framings, compression, old ciphers, and keys that change."""

from __future__ import annotations

import contextlib
import re
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import trio

from minivpn_trio import TunDialer
from minivpn_trio.datachannel import ciphers
from minivpn_trio.datachannel.epoch import EpochSealer
from minivpn_trio.errors import DropReason
from minivpn_trio.events import KeysGenerated, Reconnecting, Rekeyed
from tests.interop.exchanges import EventLog, download, echo, everyday, open_tunnel, upload
from tests.interop.lab.lab import THEIRS, TUN_IPV4, TUN_IPV6, Server
from tests.interop.lab.services import PATTERN

#: linux/if_packet.h. Frames then begin with a struct virtio_net_hdr, which says what the kernel will still cut.
PACKET_VNET_HDR, VNET_HDR_SIZE = 15, 10
UDP_HEADERS = 14 + 20 + 8


async def udp_echo(dialer: TunDialer, data: bytes, *, seconds: float = 3.0) -> bool:
    """Whether ``data`` comes back whole from the UDP echo service."""
    sock = dialer.open_udp_socket()
    with sock, trio.move_on_after(seconds):
        await sock.sendto(data, (TUN_IPV4, 7))
        answer, _ = await sock.recvfrom(65535)
        assert answer == data
        return True
    return False


class Wiretap:
    """Sizes of the UDP payloads that cross our outer interface, each way."""

    def __init__(self) -> None:
        # Nothing is captured before it is bound, and so nothing of other interfaces.
        self.sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        self.sock.setsockopt(263, PACKET_VNET_HDR, 1)  # SOL_PACKET
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 24)
        self.sock.bind(("uplink", 0x0003))
        self.sock.setblocking(False)

    def longest(self) -> tuple[int, int]:
        """The longest sent and the longest received payload of OpenVPN's data packets so far."""
        sent = received = 0
        with contextlib.suppress(BlockingIOError):
            while True:
                captured, (_, _, kind, *_) = self.sock.recvfrom(1 << 17)
                frame = captured[VNET_HDR_SIZE:]
                if frame[12:14] != b"\x08\x00" or frame[23] != 17 or frame[UDP_HEADERS] >> 3 not in (6, 9):
                    continue
                # A train of equal datagrams crosses as one frame.
                segment = int.from_bytes(captured[4:6], sys.byteorder)
                size = segment or int.from_bytes(frame[38:40], "big") - 8
                if kind == socket.PACKET_OUTGOING:
                    sent = max(sent, size)
                else:
                    received = max(received, size)
        return sent, received


@pytest.fixture
def wiretap(lab) -> Iterator[Wiretap]:
    tap = Wiretap()
    with tap.sock:
        yield tap


class TestFragment:
    @pytest.mark.parametrize("cipher", ["AES-256-GCM", "AES-128-CBC"])
    @pytest.mark.parametrize("framing", ["none", "comp-lzo-no", "stub"])
    async def test_large_datagrams_and_streams(self, start_server, wiretap, cipher, framing) -> None:
        """mssfix 0: TCP's own segments are cut as well."""
        lines = ("fragment 1300", "mssfix 0")
        server = start_server(cipher=cipher, compression=framing, extra=lines)
        async with open_tunnel(server.profile_file(extra=lines)) as dialer:
            for size in (0, 1, 1200, 1240, 1241, 1300, 1400, 1472):
                assert await udp_echo(dialer, PATTERN[:size]), size
            # Cut by IP inside the tunnel, and again by us.
            assert await udp_echo(dialer, PATTERN[:8000])
            await everyday(dialer)
            stats = dialer.stats()
        sent, received = wiretap.longest()
        assert 1200 < sent <= 1300
        assert 1200 < received <= 1300
        assert not stats.data.drops

    async def test_with_the_default_mssfix(self, start_server, wiretap) -> None:
        """TCP does not need fragments then: its segments are as long as fits."""
        server = start_server(extra=("fragment 1300",))
        async with open_tunnel(server.profile_file(extra=("fragment 1300",))) as dialer:
            assert await mss_seen(dialer, TUN_IPV4) == dialer.tunnel_info.mss_ipv4
            await download(dialer, 1_000_000)
            await upload(dialer, 1_000_000)
            assert await udp_echo(dialer, PATTERN[:1472])
        sent, received = wiretap.longest()
        assert sent <= 1300
        assert received <= 1300

    async def test_small_fragments(self, start_server, wiretap) -> None:
        lines = ("fragment 200", "mssfix 0")
        server = start_server(extra=lines)
        async with open_tunnel(server.profile_file(extra=lines)) as dialer:
            assert await udp_echo(dialer, PATTERN[:1472])
            await everyday(dialer)
        sent, received = wiretap.longest()
        assert sent <= 200
        assert received <= 200

    async def test_at_one_end_only(self, start_server) -> None:
        """Nothing gets through, and we say why."""
        server = start_server(extra=("fragment 1300",))
        log = EventLog()
        async with open_tunnel(server.profile_file(), on_event=log) as dialer:
            assert not await udp_echo(dialer, b"x", seconds=0.5)
        assert any("fragment is set at one end only" in getattr(event, "text", "") for event in log.events)


MSS_CLIENT = """
import socket, sys
family, host = (socket.AF_INET6, "fd08::1") if sys.argv[1] == "6" else (socket.AF_INET, "10.8.0.1")
with socket.socket(family, socket.SOCK_STREAM) as sock:
    sock.settimeout(5)
    sock.connect((host, 21))
    print(sock.recv(100).decode())
"""


async def mss_seen(dialer: TunDialer, host: str) -> int:
    with trio.fail_after(5):
        stream = await dialer.open_tcp_stream(host, 21)
        async with stream:
            return int(b"".join([part async for part in stream]))


class TestMss:
    """What the server's kernel sees of ours is what it sees of the C client with the same profile.

    The server itself has ``mssfix 0``, so it changes nothing.
    """

    @pytest.mark.parametrize(
        ("mssfix", "options"),
        [
            (None, {}),
            ("mssfix", {}),
            ("mssfix 0", {}),
            ("mssfix 1300", {}),
            ("mssfix 1300 mtu", {}),
            ("mssfix 1300 fixed", {}),
            ("mssfix 1450", {"cipher": "AES-256-CBC", "auth": "SHA512"}),
            ("mssfix 1300 mtu", {"cipher": "AES-128-CBC", "auth": "SHA1"}),
            ("mssfix 1301 mtu", {"transport": "tcp"}),
            (None, {"transport": "tcp", "cipher": "CHACHA20-POLY1305"}),
            ("mssfix 1300", {"compression": "stub"}),
            ("mssfix 1300 mtu", {"compression": "comp-lzo-no", "cipher": "AES-192-CBC"}),
            ("mssfix 1300 mtu", {"outer": "6"}),
            ("fragment 1200", {}),
            ("fragment 1200 mtu", {}),
            ("tun-mtu 1400", {}),
            ("tun-mtu 1400\nmssfix 1200", {}),
        ],
        ids=str,
    )
    async def test_as_the_c_client(self, lab, start_server, mssfix, options) -> None:
        lines = tuple(mssfix.split("\n")) if mssfix else ()
        at_server = [line for line in lines if line.split()[0] in ("fragment", "tun-mtu")]
        server: Server = start_server(**options, extra=("mssfix 0", *at_server))
        path = server.profile_file(extra=lines)
        c_profile = server.profile_file(
            "c.ovpn", host=THEIRS[server.options.outer],
            extra=(*lines, "dev tun1", "dev-type tun", "disable-dco", "verb 4"),
        )  # fmt: skip
        c_client = server.c_client()
        c_client._config_file = c_profile
        async with open_tunnel(path) as dialer:
            info = dialer.tunnel_info
            ours = [await mss_seen(dialer, host) for host in (TUN_IPV4, TUN_IPV6)]

            def theirs() -> list[int]:
                with c_client.running():
                    return [int(lab.python_in_c_namespace(MSS_CLIENT, family)) for family in "46"]

            assert ours == await trio.to_thread.run_sync(theirs)
            if mssfix == "mssfix 0":
                assert (info.mss_ipv4, info.mss_ipv6) == (None, None)
                assert ours == [1460, 1440]
            else:
                assert ours == [info.mss_ipv4, info.mss_ipv6]
            await everyday(dialer)


class TestMtu:
    @pytest.mark.parametrize("pushed", [True, False])
    @pytest.mark.parametrize("mtu", [1280, 1400, 1600])
    async def test_tun_mtu(self, start_server, wiretap, mtu, pushed) -> None:
        line = f"tun-mtu {mtu}"
        server = start_server(extra=(line, *([f'push "{line}"'] if pushed else [])))
        async with open_tunnel(server.profile_file(extra=() if pushed else (line,))) as dialer:
            assert dialer.tunnel_info.mtu == mtu
            await everyday(dialer)
            for size in (mtu - 28, mtu):
                assert await udp_echo(dialer, PATTERN[:size])

    async def test_more_than_we_take(self, start_server) -> None:
        """IV_MTU says 1600, but a 2.6 server pushes what it was told to; it is not believed."""
        server = start_server(extra=("tun-mtu 1700", 'push "tun-mtu 1700"'))
        async with open_tunnel(server.profile_file()) as dialer:
            assert dialer.tunnel_info.mtu == 1500
            await everyday(dialer)


def compressing(line: str) -> tuple[str, ...]:
    return (line, "allow-compression yes")


class TestCompression:
    ZEROS = bytes(300_000)

    async def zeros(self, dialer: TunDialer) -> None:
        """What compresses best, both ways."""
        received = bytearray()
        with trio.fail_after(10):
            stream = await dialer.open_tcp_stream(TUN_IPV4, 7)

            async def send() -> None:
                await stream.send_all(self.ZEROS)
                await stream.send_eof()

            async with stream, trio.open_nursery() as nursery:
                nursery.start_soon(send)
                async for part in stream:
                    received += part
        assert bytes(received) == self.ZEROS

    @pytest.mark.openvpn(before=(2, 7))  # later servers do not compress any more
    @pytest.mark.parametrize("cipher", ["AES-256-GCM", "AES-128-CBC"])
    @pytest.mark.parametrize(
        ("line", "framing"),
        [
            ("compress lz4", "stub"),
            ("compress lz4-v2", "stub-v2"),
            ("compress lzo", "comp-lzo-no"),
            ("comp-lzo yes", "comp-lzo-no"),
            ("comp-lzo", "comp-lzo-no"),
        ],
    )
    async def test_a_server_that_compresses(self, start_server, line, framing, cipher) -> None:
        server = start_server(cipher=cipher, extra=compressing(line))
        async with open_tunnel(server.profile_file(extra=(line, "allow-compression asym"))) as dialer:
            assert dialer.tunnel_info.compression == framing
            before = dialer.stats()
            await self.zeros(dialer)
            after = dialer.stats()
            await everyday(dialer)
            assert not dialer.stats().data.drops
        came = after.transport.bytes_in - before.transport.bytes_in
        inside = after.data.bytes_in - before.data.bytes_in
        assert inside > len(self.ZEROS)
        assert came < inside / 3, "the server did not compress"
        # Ours went as they are.
        assert after.transport.bytes_out - before.transport.bytes_out > len(self.ZEROS)

    @pytest.mark.parametrize("line", ["compress lz4", "compress lz4-v2", "comp-lzo yes"])
    async def test_pushed_by_the_server(self, start_server, line) -> None:
        server = start_server(extra=(*compressing(line), f'push "{line}"'))
        async with open_tunnel(server.profile_file(extra=("allow-compression asym",))) as dialer:
            await self.zeros(dialer)
            assert not dialer.stats().data.drops

    @pytest.mark.openvpn(before=(2, 7))  # later servers do not compress any more
    @pytest.mark.parametrize("line", ["compress lz4", "compress lz4-v2", "comp-lzo yes"])
    async def test_unless_it_was_asked_for_it_is_dropped(self, start_server, line) -> None:
        server = start_server(extra=compressing(line))
        async with open_tunnel(server.profile_file(extra=(line,))) as dialer:
            assert not await udp_echo(dialer, bytes(1000), seconds=0.5)
            assert dialer.stats().data.drops == {DropReason.COMPRESSED: 1}
            # What does not become shorter is not compressed.
            assert await udp_echo(dialer, bytes(range(50)))

    @pytest.mark.parametrize("cipher", ["AES-256-GCM", "AES-256-CBC"])
    @pytest.mark.parametrize(
        ("line", "framing"),
        [
            (None, "none"),
            ("comp-lzo no", "stub-v2"),
            ("comp-lzo", "stub-v2"),
            ("compress", "stub-v2"),
            ("compress lz4", "stub-v2"),
            ("compress stub-v2", "stub-v2"),
        ],
    )
    async def test_migrate(self, start_server, line, framing, cipher) -> None:
        """The server wants away from compression, whatever the profile says."""
        server = start_server(cipher=cipher, extra=("compress migrate",))
        async with open_tunnel(server.profile_file(extra=(line,) if line else ())) as dialer:
            assert dialer.tunnel_info.compression == framing
            await everyday(dialer)
            await self.zeros(dialer)
            assert not dialer.stats().data.drops

    async def test_migrate_at_both_ends(self, start_server) -> None:
        server = start_server(extra=("compress migrate",))
        async with open_tunnel(server.profile_file(extra=("compress migrate",))) as dialer:
            await everyday(dialer)


@pytest.mark.openvpn(since=(2, 7))
class TestEpochs:
    @pytest.mark.parametrize("cipher", ["AES-128-GCM", "AES-192-GCM", "AES-256-GCM", "CHACHA20-POLY1305"])
    @pytest.mark.parametrize(
        "options", [{}, {"transport": "tcp"}, {"wrap": "tls-crypt"}, {"compression": "stub"}], ids=str
    )
    async def test_tunnels(self, start_server, cipher, options) -> None:
        server = start_server(cipher=cipher, extra=("mssfix 0",), **options)
        log = EventLog()
        async with open_tunnel(server.profile_file(), on_event=log, reneg_packets=2000) as dialer:
            await everyday(dialer)
            await download(dialer, 4_000_000)
            await upload(dialer, 2_000_000)
            assert await mss_seen(dialer, TUN_IPV4) == dialer.tunnel_info.mss_ipv4
            assert not dialer.stats().data.drops
        assert "aead-epoch" in server.log
        assert len(log.of(Rekeyed)) >= 1

    async def test_fragments(self, start_server) -> None:
        lines = ("fragment 1300", "mssfix 0")
        server = start_server(extra=lines)
        async with open_tunnel(server.profile_file(extra=lines)) as dialer:
            assert await udp_echo(dialer, PATTERN[:1472])
            await everyday(dialer)
            assert not dialer.stats().data.drops
        assert "aead-epoch" in server.log

    async def test_the_server_follows_us(self, start_server, monkeypatch) -> None:
        """We go one to four epochs ahead, in the middle of everything; its answers come in the same."""
        sealers: list[EpochSealer] = []

        class Noted(EpochSealer):
            def __init__(self, *args: Any) -> None:
                super().__init__(*args)
                sealers.append(self)

        monkeypatch.setattr(ciphers, "EpochSealer", Noted)
        server = start_server()
        async with open_tunnel(server.profile_file()) as dialer:
            (sealer,) = sealers
            for number in range(12):
                sealer.advance(sealer.epoch + 1 + number % 4)
                await echo(dialer, 20_000)
                assert sealer._peer.current.epoch == sealer.epoch
            assert sealer.epoch == 31
            assert not dialer.stats().data.drops
        assert "Received data packet with new epoch 31" in server.log


class TestSmallBlocks:
    LEGACY = ("providers legacy default",)

    @pytest.mark.parametrize("transport", ["udp", "tcp"])
    @pytest.mark.parametrize("cipher", ["BF-CBC", "DES-EDE3-CBC"])
    async def test_old_ciphers(self, start_server, cipher, transport) -> None:
        server = start_server(cipher=cipher, auth="SHA1", transport=transport, extra=self.LEGACY)
        log = EventLog()
        async with open_tunnel(server.profile_file(), on_event=log) as dialer:
            assert dialer.tunnel_info.cipher == cipher
            await everyday(dialer)
            assert not dialer.stats().data.drops
        assert any("64 bits" in getattr(event, "text", "") for event in log.events)

    async def test_with_fragment_and_mssfix(self, start_server, wiretap) -> None:
        lines = ("fragment 1300",)
        server = start_server(cipher="BF-CBC", auth="SHA1", extra=(*self.LEGACY, *lines, "mssfix 0"))
        async with open_tunnel(server.profile_file(extra=lines)) as dialer:
            assert await mss_seen(dialer, TUN_IPV4) == dialer.tunnel_info.mss_ipv4
            assert await udp_echo(dialer, PATTERN[:1472])
            await everyday(dialer)
        assert max(wiretap.longest()) <= 1300

    @pytest.mark.slow
    async def test_a_new_key_every_64_megabytes(self, start_server) -> None:
        server = start_server(cipher="BF-CBC", auth="SHA1", extra=(*self.LEGACY, "reneg-bytes 0"))
        log = EventLog()
        async with open_tunnel(server.profile_file(), on_event=log) as dialer:
            await download(dialer, 62 << 20)
            assert len(log.of(Rekeyed)) == 0
            await download(dialer, 6 << 20)
            await log.wait(Rekeyed, 1, seconds=5)
            await everyday(dialer)
        assert {event.by for event in log.of(Rekeyed)} == {"client"}


class TestOcc:
    async def test_the_server_measures_the_path(self, start_server, wiretap) -> None:
        """mtu-test: every 3 s it asks for a long packet, or sends one. With no other traffic ours is seen on the
        wire. (The whole test takes 3 minutes: test_mtu_test_to_its_end.)"""
        server = start_server(extra=("mtu-test",))
        sent = received = 0
        async with open_tunnel(server.profile_file()) as dialer:
            with trio.fail_after(15):
                while not (sent > 1000 and received > 1000):
                    await trio.sleep(0.2)
                    sizes = wiretap.longest()
                    sent, received = max(sent, sizes[0]), max(received, sizes[1])
            assert not dialer.stats().data.drops
        assert "Beginning empirical MTU test" in server.log
        assert sent == received

    @pytest.mark.slow
    @pytest.mark.timeout(300)
    async def test_mtu_test_to_its_end(self, start_server) -> None:
        server = start_server(extra=("mtu-test",))
        async with open_tunnel(server.profile_file()):
            await trio.to_thread.run_sync(lambda: server.wait_for("MTU test completed", timeout=280))
        (line,) = [line for line in server.log.splitlines() if "MTU test completed" in line]
        found = re.search(r"local->remote=\[(\d+),(\d+)\] remote->local=\[(\d+),(\d+)\]", line)
        assert found is not None
        tried_down, got_down, tried_up, got_up = map(int, found.groups())
        assert tried_down == got_down
        assert tried_up == got_up


class TestKeyLife:
    @contextlib.asynccontextmanager
    async def tunnel(self, server: Server, log: EventLog, **changes: object) -> AsyncIterator[TunDialer]:
        async with open_tunnel(server.profile_file(), on_event=log, **changes) as dialer:
            yield dialer
            drops = dialer.stats().data.drops
        # Segments sent twice say nothing here: an upload at full speed overflows the server's socket.
        assert not log.of(Reconnecting)
        assert not drops

    @pytest.mark.parametrize("transport", ["udp", "tcp"])
    @pytest.mark.parametrize("limit", [{"reneg_bytes": 3_000_000}, {"reneg_packets": 2500}], ids=str)
    async def test_by_us(self, start_server, limit, transport) -> None:
        server = start_server(transport=transport)
        log = EventLog()
        async with self.tunnel(server, log, **limit) as dialer:
            await download(dialer, 8_000_000)
            await log.wait(Rekeyed, 1, seconds=5)
            await upload(dialer, 4_000_000)
            await log.wait(Rekeyed, 2, seconds=5)
        assert {event.by for event in log.of(Rekeyed)} == {"client"}

    @pytest.mark.parametrize("transport", ["udp", "tcp"])
    @pytest.mark.parametrize("limit", ["reneg-bytes 3000000", "reneg-pkts 2500"])
    async def test_by_the_server(self, start_server, limit, transport) -> None:
        server = start_server(transport=transport, extra=(limit,))
        log = EventLog()
        async with self.tunnel(server, log) as dialer:
            await download(dialer, 8_000_000)
            await log.wait(Rekeyed, 1, seconds=5)
            await upload(dialer, 4_000_000)
            await log.wait(Rekeyed, 2, seconds=5)
        assert {event.by for event in log.of(Rekeyed)} == {"server"}

    @pytest.mark.parametrize("limits", [("reneg-bytes 3000000", {"reneg_bytes": 3_000_000})], ids=str)
    async def test_by_both_at_once(self, start_server, limits) -> None:
        """Both count the same bytes: the soft resets cross."""
        server = start_server(extra=(limits[0],))
        log = EventLog()
        async with self.tunnel(server, log, **limits[1]) as dialer:
            with trio.fail_after(20):
                while len(log.of(Rekeyed)) < 4:
                    await echo(dialer, 1_000_000)
            await trio.sleep(0.3)
            await everyday(dialer)
        # One a crossing: the key ids follow each other at both ends, or nothing would get through.
        ids = [event.key_id for event in log.of(KeysGenerated)]
        assert ids == list(range(len(ids)))

    @pytest.mark.parametrize("cipher", ["AES-256-GCM", "AES-128-CBC"])
    async def test_key_ids_go_round(self, start_server, cipher) -> None:
        """0 to 7, and then 1: id 0 is the first key's alone."""
        server = start_server(cipher=cipher)
        log = EventLog()
        async with self.tunnel(server, log, reneg_packets=300) as dialer:
            while len(log.of(KeysGenerated)) < 12:
                await echo(dialer, 300_000)
                await trio.sleep(0.05)
        assert [event.key_id for event in log.of(KeysGenerated)][:12] == [0, 1, 2, 3, 4, 5, 6, 7, 1, 2, 3, 4]

    @pytest.mark.slow
    @pytest.mark.parametrize("client_cert", [True, False])
    async def test_auth_tokens_at_renewals(self, start_server, client_cert) -> None:
        """The server makes tokens; its script is asked once, the token serves for the keys after that."""
        server = start_server(
            user_pass=True, client_cert=client_cert, reneg_sec=4, extra=("auth-gen-token 60 8", "hand-window 4")
        )
        log = EventLog()
        async with open_tunnel(server.profile_file(credentials_file=server.password_file()), on_event=log) as dialer:
            for count in (1, 2, 3):
                await log.wait(Rekeyed, count, seconds=12)
                await everyday(dialer)
        assert not log.of(Reconnecting)
        assert server.log.count("TLS: Username/Password authentication succeeded") >= 1
        assert server.log.count("TLS: Username/auth-token authentication succeeded") >= 2

    @pytest.mark.slow
    @pytest.mark.timeout(60)
    async def test_the_old_key_goes_after_the_transition_window(self, start_server) -> None:
        server = start_server(extra=("tran-window 4",))
        log = EventLog()
        async with self.tunnel(server, log, reneg_sec=6.0, tran_window=4.0) as dialer:
            await log.wait(Rekeyed, 1, seconds=10)
            deadline = trio.current_time() + 5
            while trio.current_time() < deadline:
                await echo(dialer, 20_000)
                await trio.sleep(0.1)
