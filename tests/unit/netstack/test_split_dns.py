"""Names asked of the server that the push names for them, in a whole tunnel: domains, ports, TLS."""

from __future__ import annotations

import socket as stdlib
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import dns.exception
import dns.message
import dns.rcode
import dns.rdatatype
import dns.resolver
import dns.rrset
import pytest
import trio
import trustme

from minivpn_trio import TunDialer, open_tun_dialer
from minivpn_trio.integrations.dnspython import TunnelResolver
from minivpn_trio.netstack import scapy_wire
from minivpn_trio.testing import ServerSettings, VPNServer, open_vpn_server

scapy_wire.preload()

NAME = "dns.corp.example"
GENERAL, CORP, LAB, SECURE = 53, 5353, 5354, 853
SPLIT = (
    "dns server 0 address 10.8.0.1:5353", "dns server 0 resolve-domains corp.example",
    "dns server 1 address 10.8.0.1:5354", "dns server 1 resolve-domains lab.corp.example",
)  # fmt: skip
OVER_TLS = ("dns server 0 address 10.8.0.1", "dns server 0 transport DoT", f"dns server 0 sni {NAME}")


class Servers:
    """DNS servers at the far end by port. Each knows every name, with its own port in the address."""

    def __init__(self, server: VPNServer, authority: trustme.CA) -> None:
        self.server = server
        self.authority = authority
        self.asked: list[tuple[int, str]] = []

    def answer(self, wire: bytes, port: int) -> bytes:
        query = dns.message.from_wire(wire)
        (question,) = query.question
        self.asked.append((port, question.name.to_text(omit_final_dot=True)))
        response = dns.message.make_response(query)
        if question.name.labels[0] == b"absent":
            response.set_rcode(dns.rcode.NXDOMAIN)
        elif question.rdtype == dns.rdatatype.A:
            address = f"192.0.{port >> 8}.{port & 255}"
            response.answer.append(dns.rrset.from_text(question.name, 60, "IN", "A", address))
        return response.to_wire()

    async def udp(self, port: int) -> None:
        with self.server.host.socket(stdlib.SOCK_DGRAM) as socket:
            await socket.bind((self.server.address, port))
            while True:
                wire, asker = await socket.recvfrom(4096)
                await socket.sendto(self.answer(wire, port), asker)

    async def tls(self, name: str) -> None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self.authority.issue_cert(name).configure_cert(context)
        socket = self.server.host.socket()
        await socket.bind((self.server.address, SECURE))
        socket.listen(5)

        async def serve(stream: trio.SocketStream) -> None:
            secure = trio.SSLStream(stream, context, server_side=True, https_compatible=True)
            try:
                wire = await secure.receive_some(4096)
                if not wire:
                    return  # a client that does not trust us hangs up
                reply = self.answer(wire[2:], SECURE)
                await secure.send_all(len(reply).to_bytes(2, "big") + reply)
            except trio.BrokenResourceError:
                pass

        await trio.serve_listeners(serve, [trio.SocketListener(socket)])


@asynccontextmanager
async def tunnel(*push: str, tls_name: str = NAME) -> AsyncIterator[tuple[TunDialer, Servers]]:
    async with open_vpn_server(ServerSettings(push=push), listen=False) as server, trio.open_nursery() as nursery:
        servers = Servers(server, trustme.CA())
        for port in (GENERAL, CORP, LAB):
            nursery.start_soon(servers.udp, port)
        nursery.start_soon(servers.tls, tls_name)
        with trio.fail_after(30):
            async with open_tun_dialer(server.client_config(), server.memory_dialer()) as dialer:
                yield dialer, servers
        nursery.cancel_scope.cancel()


@pytest.fixture
def trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of the CAs that this machine trusts."""
    path = tmp_path / "system.pem"
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path / "none"))
    trustme.CA().cert_pem.write_to_path(path)
    return path


async def address_of(dialer: TunDialer, name: str) -> str:
    ((*_, address),) = await dialer.getaddrinfo(name, 80, type=stdlib.SOCK_STREAM)
    return str(address[0])


async def test_each_name_is_asked_of_its_own_servers_only() -> None:
    async with tunnel(*SPLIT) as (dialer, servers):
        for name in ("www.example.net", "host.corp.example", "host.lab.corp.example"):
            await address_of(dialer, name)
        # On a slow machine a question may be asked twice.
        assert list(dict.fromkeys(servers.asked)) == [
            (GENERAL, "www.example.net"),
            (CORP, "host.corp.example"),
            (LAB, "host.lab.corp.example"),
        ]
        assert await address_of(dialer, "host.corp.example") == f"192.0.{CORP >> 8}.{CORP & 255}"


async def test_a_name_of_the_inside_is_told_to_nobody_else(autojump_clock: trio.testing.MockClock) -> None:
    del autojump_clock
    push = ("dns server 0 address 10.8.0.77", "dns server 0 resolve-domains corp.example")
    async with tunnel(*push) as (dialer, servers):
        with pytest.raises(stdlib.gaierror) as caught:
            await address_of(dialer, "host.corp.example")
        assert caught.value.errno == stdlib.EAI_AGAIN
        assert servers.asked == []


async def test_an_update_of_the_push_counts_at_once() -> None:
    async with tunnel() as (dialer, servers):
        await address_of(dialer, "host.corp.example")
        changed = trio.Event()
        dialer._tunnel.on_tunnel_info(lambda info: changed.set())
        servers.server.push_update(*SPLIT[:2])
        await changed.wait()
        await address_of(dialer, "host.corp.example")
        assert list(dict.fromkeys(port for port, _ in servers.asked)) == [GENERAL, CORP]


async def test_over_tls(trusted: Path) -> None:
    async with tunnel(*OVER_TLS, "dns server 0 resolve-domains example.net") as (dialer, servers):
        servers.authority.cert_pem.write_to_path(trusted)
        assert await address_of(dialer, "www.example.net") == f"192.0.{SECURE >> 8}.{SECURE & 255}"
        assert servers.asked == [(SECURE, "www.example.net")]


@pytest.mark.parametrize(
    ("tls_name", "known", "why"), [("other.example", True, "mismatch"), (NAME, False, "unable to get local issuer")]
)
async def test_a_server_that_is_not_who_it_should_be(trusted: Path, tls_name: str, known: bool, why: str) -> None:
    """And nobody is asked in its place."""
    async with tunnel(*OVER_TLS, "dns server 0 resolve-domains corp.example", tls_name=tls_name) as (dialer, servers):
        if known:
            servers.authority.cert_pem.write_to_path(trusted)
        with pytest.raises(stdlib.gaierror) as caught:
            await address_of(dialer, "host.corp.example")
        assert caught.value.errno == stdlib.EAI_AGAIN
        assert "certificate is not to be trusted" in caught.value.__notes__[0]
        assert why.lower() in caught.value.__notes__[0].lower()
        assert servers.asked == []


async def test_dnspython_goes_by_it_too(trusted: Path) -> None:
    secure = ("dns server 2 address 10.8.0.1", "dns server 2 transport DoT", f"dns server 2 sni {NAME}",
              "dns server 2 resolve-domains secure.example")  # fmt: skip
    async with tunnel(*SPLIT, *secure) as (dialer, servers):
        servers.authority.cert_pem.write_to_path(trusted)
        resolver = TunnelResolver(dialer)
        for name, port in (
            ("www.example.net", GENERAL),
            ("host.corp.example", CORP),
            ("a.secure.example", SECURE),
            ("b.lab.corp.example", LAB),
        ):
            (record,) = await resolver.resolve(name, "A")
            assert record.address == f"192.0.{port >> 8}.{port & 255}"
            assert servers.asked.pop() == (port, name)
        assert servers.asked == []


async def test_dnspython_without_a_server_for_a_name(autojump_clock: trio.testing.MockClock) -> None:
    del autojump_clock
    push = ("dns server 0 address 10.8.0.1", "dns server 0 transport DoH", "dns server 0 resolve-domains corp.example")
    async with tunnel(*push) as (dialer, servers):
        with pytest.raises(dns.resolver.NoNameservers):
            await TunnelResolver(dialer).resolve("host.corp.example", "A")
        assert servers.asked == []


async def test_a_name_of_the_inside_is_not_searched_for_outside() -> None:
    push = (*SPLIT[:1], "dns server 0 resolve-domains corp", "dns search-domains example.net")
    async with tunnel(*push) as (dialer, servers):
        assert dialer.tunnel_info.search_domains
        for name in ("absent.corp", "absent.CORP"):
            with pytest.raises(stdlib.gaierror):
                await address_of(dialer, name)
            with pytest.raises(dns.resolver.NXDOMAIN):
                await TunnelResolver(dialer).resolve(name)
        assert {(port, name.lower()) for port, name in servers.asked} == {(CORP, "absent.corp")}
        servers.asked.clear()
        with pytest.raises(stdlib.gaierror):
            await address_of(dialer, "absent.other")
        assert servers.asked == [(GENERAL, "absent.other"), (GENERAL, "absent.other.example.net")]
