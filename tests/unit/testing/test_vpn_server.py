"""The in-process server: its promises to test suites."""

from __future__ import annotations

import ast
import inspect
import re
import socket
import textwrap
from dataclasses import replace

import pytest
import trio
from cryptography import x509
from trio.testing import MockClock

import minivpn_trio.testing
from minivpn_trio import open_client, open_tun_dialer
from minivpn_trio.netstack import scapy_wire
from minivpn_trio.testing import (
    CertificateAuthority,
    LinkConditions,
    ServerCore,
    ServerSettings,
    open_vpn_server,
    vpn_server,
)
from minivpn_trio.testing.server import HARD_RESETS
from minivpn_trio.testing.services import chargen, discard, echo, http_handler, pattern

scapy_wire.preload()


def examples(text: str) -> list[str]:
    """The indented blocks of a docstring."""
    return [
        textwrap.dedent(block)
        for block in re.findall(r"(?:^ {4}.*\n?|^\n)+", inspect.cleandoc(text) + "\n", re.M)
        if block.strip()
    ]


async def test_the_examples_in_the_docs_run(autojump_clock: MockClock) -> None:
    """With a handler behind port 80, which they take for granted."""
    found = examples(vpn_server.__doc__ or "")
    assert len(found) == 2
    for example in found:
        # over memory links in either case: the clock jumps
        source = example.replace("open_vpn_server()", "open_vpn_server(listen=False)")
        source = source.replace("server.client_config())", "server.client_config(), server.memory_dialer())")
        source = source.replace(" as server:\n", " as server, serving(server):\n")
        body = f"async def example():\n{textwrap.indent(source, '    ')}"
        ast.parse(body)
        namespace = dict(vars(minivpn_trio.testing), open_tun_dialer=open_tun_dialer, serving=Serving)
        exec(body, namespace)
        await namespace["example"]()


class Serving:
    """An HTTP server behind ``server`` for the length of a block."""

    def __init__(self, server: vpn_server.VPNServer) -> None:
        self.server = server

    async def __aenter__(self) -> None:
        self.manager = trio.open_nursery()
        nursery = await self.manager.__aenter__()
        self.scope = nursery.cancel_scope
        await nursery.start(self.server.host.serve_tcp, http_handler({"/": b"hello"}), 80)

    async def __aexit__(self, *exc_info: object) -> None:
        self.scope.cancel()
        await self.manager.__aexit__(*exc_info)  # type: ignore[arg-type]


def test_everything_that_is_exported_says_what_it_does() -> None:
    for name in minivpn_trio.testing.__all__:
        thing = getattr(minivpn_trio.testing, name)
        assert inspect.getdoc(thing), name
        for attribute, member in vars(thing).items() if inspect.isclass(thing) else ():
            if not attribute.startswith("_") and inspect.isfunction(member):
                assert inspect.getdoc(member), f"{name}.{attribute}"


@pytest.mark.parametrize("proto", ["udp", "tcp"])
async def test_its_services(proto: str) -> None:
    async with open_vpn_server(proto=proto) as server, trio.open_nursery() as nursery:  # type: ignore[arg-type]
        host = server.host
        await nursery.start(host.serve_tcp, echo, 7)
        await nursery.start(host.serve_tcp, discard, 9)
        await nursery.start(host.serve_tcp, chargen, 19)
        await nursery.start(host.serve_tcp, http_handler({"/": b"hello"}), 80)
        await nursery.start(host.serve_udp_echo, 7)
        await nursery.start(host.serve_dns, {"here.test": server.address})
        with trio.fail_after(20):
            async with open_tun_dialer(server.client_config()) as dialer:

                async def talk(port: int, said: bytes, expected: bytes) -> None:
                    async with await dialer.open_tcp_stream("here.test", port) as stream:
                        await stream.send_all(said)
                        await stream.send_eof()
                        heard = b""
                        while len(heard) < len(expected) and (chunk := await stream.receive_some()):
                            heard += chunk
                        assert heard[: len(expected)] == expected

                await talk(7, b"echo", b"echo")
                await talk(9, bytes(1000), b"1000")
                await talk(19, b"", pattern(100_000))
                request = "GET {} HTTP/1.1\r\nHost: here.test\r\n\r\n"
                await talk(80, request.format("/").encode(), b"HTTP/1.1 200")
                await talk(80, request.format("/bytes/70000").encode(), b"HTTP/1.1 200")
                await talk(80, request.format("/none").encode(), b"HTTP/1.1 404")
                await talk(80, b"\x00\x01nonsense\r\n\r\n", b"")
                with dialer.open_udp_socket() as sock:
                    await sock.sendto(b"datagram", (server.address, 7))
                    assert (await sock.recvfrom(100))[0] == b"datagram"
                with pytest.raises(socket.gaierror):
                    await dialer.open_tcp_stream("nowhere.test", 80)
                assert await dialer.ping(server.address) < 5
        nursery.cancel_scope.cancel()


async def test_two_clients_reach_each_other_and_only_as_themselves(autojump_clock: MockClock) -> None:
    async with (
        open_vpn_server(listen=False) as server,
        open_tun_dialer(server.client_config(), server.memory_dialer()) as one,
        open_tun_dialer(server.client_config(), server.memory_dialer()) as two,
    ):
        address = str(two.tunnel_info.ipv4.ip)  # type: ignore[union-attr]
        assert await one.ping(address) < 1
        forged = bytearray(28)
        forged[0], forged[2:4], forged[9] = 0x45, (28).to_bytes(2, "big"), 17
        forged[12:16], forged[16:20] = bytes([10, 8, 0, 99]), server.core.address.packed
        before = server.core.drops.total()
        await one._tunnel.outbound.send([bytes(forged)])
        await trio.sleep(1)
        assert server.core.drops.total() == before + 1


async def test_a_flood_of_strangers(autojump_clock: MockClock) -> None:
    """Resets from more peers than there are addresses: bounded, forgotten in time, and who is in stays in."""
    async with (
        open_vpn_server(ServerSettings(hand_window=10.0), listen=False) as server,
        open_client(server.client_config(), server.memory_dialer()) as client,
    ):
        now = trio.current_time()
        reset = bytes([min(HARD_RESETS)])
        for number in range(1, 3000):
            datagram = reset + number.to_bytes(8, "big") + bytes(5)
            server.core.handle_datagrams(("stranger", number), [datagram], now)
            # no reset, though it begins like one
            server.core.handle_datagrams(("noise", number), [datagram[:5], b"", b"\xff" * 2000], now)
        server._flush()
        assert len(server.core.clients) == 253
        assert not any("noise" in peer for peer in server.core.clients if isinstance(peer, tuple))
        assert server.core.drops.total() >= 2700
        await trio.sleep(30)
        assert len(server.core.clients) == 1
        assert len(server.core._free) == 252
        assert client.closed_by is None


async def test_settings_reach_the_client() -> None:
    settings = ServerSettings(
        push=("dhcp-option DOMAIN corp.test", "route 192.168.7.0 255.255.255.0"), tun_mtu=1400, topology="net30"
    )
    async with (
        open_vpn_server(settings, listen=False) as server,
        open_client(server.client_config(), server.memory_dialer()) as client,
    ):
        info = client.tunnel_info
        assert info.mtu == 1400
        assert "corp.test" in repr(info)
        assert str(info.gateway) == server.address


@pytest.mark.parametrize("certificates", ["require", "optional", "none"])
async def test_users_and_certificates(certificates: str) -> None:
    settings = ServerSettings(users={"jo": "secret"})
    settings = replace(settings, policy=replace(settings.policy, client_certificate=certificates))  # type: ignore[arg-type]
    async with (
        open_vpn_server(settings, listen=False) as server,
        open_client(server.client_config("jo", "secret"), server.memory_dialer()) as client,
    ):
        assert client.tunnel_info.ipv4 is not None


async def test_memory_links_need_a_running_server() -> None:
    async with open_vpn_server(listen=False) as server:
        config, dial = server.client_config(), server.memory_dialer()
    with pytest.raises(RuntimeError):
        await dial(config.remotes[0])


async def test_a_memory_link_s_conditions_change_for_all(autojump_clock: MockClock) -> None:
    async with open_vpn_server(listen=False) as server:
        dial = server.memory_dialer(LinkConditions(delay=0.1), LinkConditions(delay=0.2))
        async with open_tun_dialer(server.client_config(), dial) as dialer:
            assert await dialer.ping(server.address) == pytest.approx(0.3)
            dial.change(LinkConditions(delay=1.0))
            assert await dialer.ping(server.address) == pytest.approx(2.0)
            assert len(dial.transports) == 1


async def test_over_tcp_the_connection_ends_with_the_session() -> None:
    async with open_vpn_server(ServerSettings(users={"jo": "secret"}), proto="tcp") as server:
        events: list[object] = []
        async with open_client(server.client_config("jo", "secret"), on_event=events.append) as client:
            server.restart()
            with trio.fail_after(10):
                while client.stats().reconnections < 1:  # noqa: ASYNC110
                    await trio.sleep(0.01)
            assert "closed the connection" in str(events)
        with trio.fail_after(5):
            await server.wait_for_clients(0)


def test_certificates() -> None:
    ca = CertificateAuthority("a test")
    for identity, name in ((ca.issue_server("s"), "s"), (ca.issue_client("c"), "c")):
        certificate = x509.load_pem_x509_certificate(identity.cert)
        certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(ca.cert))
        assert certificate.subject.rfc4514_string() == f"CN={name}"
        assert b"PRIVATE" in identity.key
        assert "PRIVATE" not in repr(identity)


def test_settings_show_no_secrets() -> None:
    settings = ServerSettings(users={"jo": "open sesame"}, control_wrap_key=b"open sesame")
    assert "sesame" not in repr(settings)


def test_the_pattern() -> None:
    assert pattern(12) == bytes([0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2])
    whole = pattern(600_000)
    assert len(whole) == 600_000
    for start, size in ((0, 0), (1, 7), (262_140, 9), (262_144, 4), (300_001, 200_000)):
        assert pattern(size, start) == whole[start : start + size]
    assert pattern(4, 4 << 32) == bytes(4)


def test_a_core_can_be_driven_by_hand() -> None:
    core = ServerCore(ServerSettings(), rng=bytes, deliver=lambda burst: None, unix_time=lambda: 0.0)
    assert core.next_timeout() is None
    core.handle_timeout(0.0)
    assert core.take_datagrams() == []
    core.handle_datagrams("peer", [b"garbage"], 0.0)
    assert core.clients == {}
    core.send_packets([bytes(20), b""], 0.0)
    assert core.drops.total() == 3
