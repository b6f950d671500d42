"""DNS over TLS: which questions share a connection, which connections are not used again, and that none is left."""

from __future__ import annotations

import socket as stdlib
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface, IPv6Interface
from pathlib import Path
from random import Random

import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset
import pytest
import trio
import trio.testing
import trustme
from trio.testing import MockClock
from two_stacks import FAR, NEAR, Host, two_stacks

from minivpn_trio import open_tun_dialer
from minivpn_trio.config.tunnel_info import DNSServer, TunnelInfo
from minivpn_trio.netstack import scapy_wire
from minivpn_trio.netstack.resolver import TunResolver
from minivpn_trio.netstack.sockets import TunSocket
from minivpn_trio.testing import ServerSettings, VPNServer, open_vpn_server

scapy_wire.preload()

NAME = "dns.corp.example"
PORT = 853
SERVER = DNSServer(priority=0, addresses=((IPv4Address(FAR), PORT),), transport="DoT", sni=NAME)
INFO = TunnelInfo(ipv4=IPv4Interface(f"{NEAR}/24"), dns_servers=(SERVER,))
BOTH = replace(INFO, ipv6=IPv6Interface("fd00::2/64"))
PUSH = ("dns server 0 address 10.8.0.1", "dns server 0 transport DoT", f"dns server 0 sni {NAME}")

#: (the question's wire, how many its connection has brought before) -> what is sent, piece by piece; None: the end.
#: A list goes in records of their own, but arrives at once.
Sent = Iterator[bytes | list[bytes] | float | None]
Behaviour = Callable[[bytes, int], Sent]


def answer(wire: bytes, address: str = "192.0.2.1", rcode: dns.rcode.Rcode = dns.rcode.NOERROR) -> bytes:
    query = dns.message.from_wire(wire)
    response = dns.message.make_response(query)
    response.set_rcode(rcode)
    (question,) = query.question
    if question.rdtype == dns.rdatatype.A and rcode == dns.rcode.NOERROR:
        response.answer.append(dns.rrset.from_text(question.name, 60, "IN", "A", address))
    return framed(response.to_wire())


def framed(wire: bytes) -> bytes:
    return len(wire).to_bytes(2, "big") + wire


def honest(wire: bytes, before: int) -> Sent:
    yield answer(wire)


class Gathering(trio.abc.Stream):
    """Over ``stream``; what is sent while ``held`` is not None goes in one piece with ``flush``."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self.held: bytearray | None = None

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        if self.held is None:
            await self._stream.send_all(data)
        else:
            self.held += data

    async def flush(self) -> None:
        assert self.held is not None
        data, self.held = self.held, None
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        return await self._stream.receive_some(max_bytes)

    async def aclose(self) -> None:
        await self._stream.aclose()


class Server:
    """Answers everything, as ``behaviour`` says."""

    def __init__(self, behaviour: Behaviour = honest) -> None:
        self.behaviour = behaviour
        self.authority = trustme.CA()
        #: Names in the order asked, by connection.
        self.connections: list[list[str]] = []
        #: Connections that were ended by the other side.
        self.ended = 0

    async def run(self, socket: trio.socket.SocketType) -> None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self.authority.issue_cert(NAME).configure_cert(context)

        async def serve(stream: trio.SocketStream) -> None:
            secure = trio.SSLStream(Gathering(stream), context, server_side=True, https_compatible=True)
            asked: list[str] = []
            self.connections.append(asked)
            with suppress(trio.BrokenResourceError):
                await self._serve(secure, asked)

        await trio.serve_listeners(serve, [trio.SocketListener(socket)])

    async def _serve(self, secure: trio.SSLStream[Gathering], asked: list[str]) -> None:
        while len(head := await secure.receive_some(2)) == 2:
            wire = bytes(await secure.receive_some(int.from_bytes(head, "big")))
            (question,) = dns.message.from_wire(wire).question
            asked.append(question.name.to_text(omit_final_dot=True))
            for piece in self.behaviour(wire, len(asked) - 1):
                if piece is None:
                    return
                if isinstance(piece, bytes):
                    await secure.send_all(piece)
                elif isinstance(piece, list):
                    secure.transport_stream.held = bytearray()
                    for record in piece:
                        await secure.send_all(record)
                    await secure.transport_stream.flush()
                else:
                    await trio.sleep(piece)
        self.ended += 1

    @property
    def asked(self) -> list[str]:
        return [name for connection in self.connections for name in connection]


class World:
    """A resolver, its server, and all sockets that it ever opened."""

    def __init__(self, near: Host, server: Server, info: TunnelInfo) -> None:
        self.server = server
        self.info = info
        self.sockets: list[TunSocket] = []
        self._near = near
        self.resolver = TunResolver(self._open, lambda: self.info, Random(4).randbytes)

    def _open(self, family: int, kind: int) -> TunSocket:
        self.sockets.append(self._near.socket(family, kind))
        return self.sockets[-1]

    async def ask(self, name: str) -> str:
        ((*_, address),) = await self.resolver.getaddrinfo(name, 80, type=stdlib.SOCK_STREAM)
        return str(address[0])

    async def ask_at_once(self, *names: str) -> None:
        async with trio.open_nursery() as nursery:
            for name in names:
                nursery.start_soon(self.ask, name)

    @property
    def open(self) -> int:
        return sum(socket.fileno() != -1 for socket in self.sockets)


@pytest.fixture
def trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of the CAs that this machine trusts."""
    path = tmp_path / "system.pem"
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path / "none"))
    return path


Resolving = Callable[..., AbstractAsyncContextManager[World]]


@pytest.fixture
def resolving(trusted: Path) -> Resolving:
    @asynccontextmanager
    async def world(behaviour: Behaviour = honest, info: TunnelInfo = INFO) -> AsyncIterator[World]:
        server = Server(behaviour)
        server.authority.cert_pem.write_to_path(trusted)
        async with two_stacks() as (near, far), trio.open_nursery() as nursery:
            nursery.start_soon(server.run, await far.listen(PORT))
            yield World(near, server, info)
            nursery.cancel_scope.cancel()

    return world


async def test_names_share_the_connections_of_both_families(autojump_clock: MockClock, resolving: Resolving) -> None:
    async with resolving(info=BOTH) as world:
        for name in ("a.example", "b.example", "c.example"):
            assert await world.ask(name) == "192.0.2.1"
        assert world.server.connections == [["a.example", "b.example", "c.example"]] * 2
        assert world.open == 2


async def test_two_stay_open_of_many_that_were_needed_at_once(autojump_clock: MockClock, resolving: Resolving) -> None:
    async with resolving() as world:
        await world.ask_at_once("a.example", "b.example", "c.example", "d.example")
        assert len(world.server.connections) == 4
        assert world.open == 2
        await world.ask_at_once("e.example", "f.example")
        assert len(world.server.connections) == 4


@pytest.mark.parametrize(("pause", "connections"), [(9.5, 1), (10.5, 2)])
async def test_how_long_one_is_kept(
    autojump_clock: MockClock, resolving: Resolving, pause: float, connections: int
) -> None:
    async with resolving() as world:
        for name in ("a.example", "b.example"):
            await world.ask(name)
            await trio.sleep(pause)
        assert len(world.server.connections) == connections
        assert world.open == 1


async def test_another_server_has_its_own(autojump_clock: MockClock, resolving: Resolving) -> None:
    """The same address and port under another name is somebody else."""
    other = replace(SERVER, priority=1, sni="other.example", resolve_domains=("other",))
    general = replace(SERVER, resolve_domains=())
    async with resolving(info=replace(INFO, dns_servers=(general, other))) as world:
        await world.ask("a.example")
        with pytest.raises(stdlib.gaierror) as caught:
            await world.ask("www.other")
        assert "certificate is not to be trusted" in caught.value.__notes__[0]
        await world.ask("b.example")
        assert world.server.asked == ["a.example", "b.example"]
        assert [each for each in world.server.connections if each] == [["a.example", "b.example"]]
        assert world.open == 1


@pytest.mark.parametrize("name", ["a..b", "a" * 64 + ".example", ".example", "a" * 300])
async def test_a_server_that_has_no_name_that_tls_can_ask_for(
    autojump_clock: MockClock, resolving: Resolving, name: str
) -> None:
    """None of these is taken from a push; but whoever asks is told nothing but that there is no answer. Which of them
    Python's ssl refuses, besides the third, differs between versions of it."""
    async with resolving(info=replace(INFO, dns_servers=(replace(SERVER, sni=name),))) as world:
        with pytest.raises(stdlib.gaierror) as caught:
            await world.ask("a.example")
        assert caught.value.errno == stdlib.EAI_AGAIN
        if name == ".example":
            assert "its name is none that a certificate could have" in caught.value.__notes__[0]
        assert world.open == 0


def closes_at_once(wire: bytes, before: int) -> Sent:
    yield answer(wire)
    yield None


def closes_later(wire: bytes, before: int) -> Sent:
    yield answer(wire)
    yield 1.0
    yield None


def sends_more_in_the_record(wire: bytes, before: int) -> Sent:
    yield answer(wire) + answer(wire, "192.0.2.66")


def sends_more_later(wire: bytes, before: int) -> Sent:
    yield answer(wire)
    yield 1.0
    yield answer(wire, "192.0.2.66")


@pytest.mark.parametrize("behaviour", [closes_at_once, closes_later, sends_more_in_the_record, sends_more_later])
async def test_one_that_said_more_is_not_asked_again(
    autojump_clock: MockClock, resolving: Resolving, behaviour: Behaviour
) -> None:
    async with resolving(behaviour) as world:
        for name in ("a.example", "b.example", "c.example"):
            assert await world.ask(name) == "192.0.2.1"
            await trio.sleep(3)
        assert world.server.connections == [["a.example"], ["b.example"], ["c.example"]]
        assert world.open <= 1


def closes_when_asked_again(wire: bytes, before: int) -> Sent:
    yield None if before else answer(wire)


def closes_in_the_answer(wire: bytes, before: int) -> Sent:
    yield answer(wire)[:20] if before else answer(wire)
    if before:
        yield None


def gives_another_answer(wire: bytes, before: int) -> Sent:
    said = answer(wire, "192.0.2.66" if before else "192.0.2.1")
    yield said[:2] + bytes([said[2] ^ 1]) + said[3:] if before else said


def sends_more_in_a_record_of_its_own(wire: bytes, before: int) -> Sent:
    # Neither the socket nor what is decrypted shows it.
    yield [answer(wire), answer(wire, "192.0.2.66")]


@pytest.mark.parametrize(
    "behaviour",
    [closes_when_asked_again, closes_in_the_answer, gives_another_answer, sends_more_in_a_record_of_its_own],
)
async def test_a_kept_one_that_fails_is_no_failure_of_the_server(
    autojump_clock: MockClock, resolving: Resolving, behaviour: Behaviour
) -> None:
    async with resolving(behaviour) as world:
        await world.ask_at_once("a.example", "b.example")
        start = trio.current_time()
        # Tried once, then anew; not with the other one that is kept, which would be no better.
        assert await world.ask("c.example") == "192.0.2.1"
        assert trio.current_time() - start < 0.5
        assert sorted(each[0] for each in world.server.connections) == ["a.example", "b.example", "c.example"]
        assert len(world.server.asked) == 4
        assert world.open == 2


async def test_what_said_more_is_closed_at_once(autojump_clock: MockClock, resolving: Resolving) -> None:
    async with resolving(sends_more_in_the_record) as world:
        await world.ask("a.example")
        assert world.open == 0


async def test_a_server_that_is_always_wrong(autojump_clock: MockClock, resolving: Resolving) -> None:
    """Nothing is kept; asked afresh in each of the two rounds and no more."""

    def wrong(wire: bytes, before: int) -> Sent:
        yield from gives_another_answer(wire, 1)

    async with resolving(wrong) as world:
        with pytest.raises(stdlib.gaierror):
            await world.ask("a.example")
        assert world.server.connections == [["a.example"]] * 2
        assert world.open == 0


async def test_a_server_that_cannot_say_is_not_asked_the_same_again(
    autojump_clock: MockClock, resolving: Resolving
) -> None:
    def fails(wire: bytes, before: int) -> Sent:
        yield answer(wire, rcode=dns.rcode.SERVFAIL) if before else answer(wire)

    async with resolving(fails) as world:
        await world.ask("a.example")
        with pytest.raises(stdlib.gaierror):
            await world.ask("b.example")
        assert world.server.connections == [["a.example", "b.example", "b.example"]], "one question a round"


def falls_silent(wire: bytes, before: int) -> Sent:
    yield 1e6 if before else 0.0
    yield answer(wire)


async def test_silence_of_a_kept_one(autojump_clock: MockClock, resolving: Resolving) -> None:
    """Within the time of one question; then nothing that was open before is believed to be alive."""
    async with resolving(falls_silent) as world:
        await world.ask_at_once("a.example", "b.example")
        start = trio.current_time()
        assert await world.ask("c.example") == "192.0.2.1"
        assert trio.current_time() - start == pytest.approx(5, abs=0.1)
        assert [each[-1] for each in world.server.connections].count("c.example") == 2
        assert len(world.server.connections) == 3
        assert world.open == 1


async def test_a_cancelled_question_leaves_no_connection(autojump_clock: MockClock, resolving: Resolving) -> None:
    def slow(wire: bytes, before: int) -> Sent:
        yield 2.0
        yield answer(wire)

    async with resolving(slow) as world:
        for name in ("a.example", "b.example"):
            with trio.move_on_after(1) as scope:
                await world.ask(name)
            assert scope.cancelled_caught
            assert world.open == 0
            await trio.sleep(2)
        assert await world.ask("c.example") == "192.0.2.1"
        with trio.move_on_after(1):
            await world.ask("d.example")
        assert world.open == 0, "a kept one neither"
        assert world.server.connections == [["a.example"], ["b.example"], ["c.example", "d.example"]]


async def test_a_cancelled_handshake_leaves_no_connection(autojump_clock: MockClock, trusted: Path) -> None:
    trustme.CA().cert_pem.write_to_path(trusted)
    async with two_stacks() as (near, far):
        listener = await far.listen(PORT)
        world = World(near, Server(), INFO)
        with trio.move_on_after(1):
            await world.ask("a.example")
        assert len(world.sockets) == 1
        assert world.open == 0
        listener.close()


@pytest.mark.parametrize("how", ["another server", "told", "closed"])
async def test_none_outlives_its_tunnel(autojump_clock: MockClock, resolving: Resolving, how: str) -> None:
    def slow(wire: bytes, before: int) -> Sent:
        yield 1.0
        yield answer(wire)

    async with resolving(slow) as world:
        await world.ask("a.example")
        async with trio.open_nursery() as nursery:
            # One is in use, one idle.
            nursery.start_soon(world.ask_at_once, "b.example", "c.example")
            await trio.sleep(0.5)
            nursery.start_soon(world.ask, "d.example")
            await trio.sleep(0.8)
            assert world.open == 3
            if how == "another server":
                world.info = replace(INFO, dns_servers=(replace(SERVER, priority=1),))
                nursery.start_soon(world.ask, "e.example")
                await trio.testing.wait_all_tasks_blocked()
                assert world.open == 2, "those in use and in the making"
            else:
                {"told": world.resolver.forget_streams, "closed": world.resolver.close}[how]()
                assert world.open == 1, "the one in use"
        assert world.open == (how == "another server")
        await world.ask("f.example")
        assert world.open == (how != "closed")


@asynccontextmanager
async def vpn(trusted: Path) -> AsyncIterator[tuple[VPNServer, Server]]:
    """A server of a tunnel and, behind it, one of names."""
    names = Server()
    names.authority.cert_pem.write_to_path(trusted)
    async with open_vpn_server(ServerSettings(push=PUSH), listen=False) as server, trio.open_nursery() as nursery:
        listener = server.host.socket()
        await listener.bind((server.address, PORT))
        listener.listen()
        nursery.start_soon(names.run, listener)
        yield server, names
        nursery.cancel_scope.cancel()


async def test_what_is_kept_ends_with_the_dialer(autojump_clock: MockClock, trusted: Path) -> None:
    async with vpn(trusted) as (server, names):
        for fault in (None, KeyError("the application's")):
            with suppress(KeyError):
                async with open_tun_dialer(server.client_config(), server.memory_dialer()) as dialer:
                    for name in ("a.example", "b.example"):
                        await dialer.getaddrinfo(name, 80)
                    assert dialer.stats().netstack.tcp_connections == 1
                    assert names.connections.pop() == ["a.example", "b.example"]
                    left, before = trio.current_time(), names.ended
                    if fault is not None:
                        raise fault
            assert trio.current_time() - left < 1, "nobody waits for the other end"
            assert names.ended - before == (fault is None), "told, where there is time to"
            assert dialer.stats().netstack.tcp_connections == 0
            assert not dialer._resolver._client._streams._idle


async def test_what_is_kept_ends_when_the_push_changes(autojump_clock: MockClock, trusted: Path) -> None:
    async with (
        vpn(trusted) as (server, names),
        open_tun_dialer(server.client_config(), server.memory_dialer()) as dialer,
    ):
        for count, change in enumerate((None, "push", "restart"), start=1):
            changed = trio.Event()
            dialer._tunnel.on_tunnel_info(lambda info, changed=changed: changed.set())
            if change == "push":
                server.push_update(*PUSH, "dns search-domains example.net")
            if change == "restart":
                server.send_message("RESTART")
            if change:
                await changed.wait()
                assert not dialer._resolver._client._streams._idle
            await dialer.getaddrinfo(f"{change}.example", 80)
            assert len(names.connections) == count
