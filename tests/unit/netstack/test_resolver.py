"""The resolver against a DNS server that is whatever a test needs, on the far stack."""

from __future__ import annotations

import socket as stdlib
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from ipaddress import IPv4Address, IPv4Interface, IPv6Interface, ip_address
from random import Random

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset
import pytest
import trio
import trio.testing
from trio.testing import MockClock
from two_stacks import FAR, NEAR, Host, two_stacks

from minivpn_trio.config.tunnel_info import TunnelInfo
from minivpn_trio.netstack.resolver import TunResolver, parse_hosts

V4_ONLY = TunnelInfo(
    ipv4=IPv4Interface(f"{NEAR}/24"), dns=(IPv4Address(FAR),), search_domains=("corp.example", "lab.example")
)
BOTH = TunnelInfo(ipv4=IPv4Interface(f"{NEAR}/24"), ipv6=IPv6Interface("fd00::2/64"), dns=(IPv4Address(FAR),))
GLOBAL = TunnelInfo(ipv4=IPv4Interface(f"{NEAR}/24"), ipv6=IPv6Interface("2600::2/64"), dns=(IPv4Address(FAR),))

ZONE = {
    ("www.example.", "A"): ["192.0.2.1", "192.0.2.2"],
    ("www.example.", "AAAA"): ["2001:db8::1"],
    ("v4.example.", "A"): ["192.0.2.4"],
    ("v6.example.", "AAAA"): ["2001:db8::6"],
    ("host.corp.example.", "A"): ["192.0.2.7"],
    ("other.lab.example.", "A"): ["192.0.2.8"],
    ("xn--bcher-kva.example.", "A"): ["192.0.2.9"],
    ("alias.example.", "CNAME"): ["www.example."],
    ("far-alias.example.", "CNAME"): ["elsewhere.example."],
    ("loop.example.", "CNAME"): ["pool.example."],
    ("pool.example.", "CNAME"): ["loop.example."],
    ("1.2.0.192.in-addr.arpa.", "PTR"): ["www.example."],
}
#: Not told together with the alias that leads there.
ZONE_ELSEWHERE = {("elsewhere.example.", "A"): ["192.0.2.11"]}

Answer = Callable[[dns.message.Message], dns.message.Message | bytes | None]


def honest(query: dns.message.Message) -> dns.message.Message:
    """What a well-behaved server says from ZONE."""
    response = dns.message.make_response(query)
    question = query.question[0]
    name, kind = question.name.to_text().lower(), dns.rdatatype.to_text(question.rdtype)
    for _ in range(4):
        if (name, "CNAME") not in ZONE:
            break
        target = ZONE[name, "CNAME"][0]
        response.answer.append(dns.rrset.from_text(name, 60, "IN", "CNAME", target))
        name = target
    known_here = ZONE if response.answer else ZONE | ZONE_ELSEWHERE
    records = known_here.get((name, kind))
    if records:
        response.answer.append(dns.rrset.from_text(name, 60, "IN", kind, *records))
    elif not any(known == name for known, _ in [*ZONE, *ZONE_ELSEWHERE]):
        response.set_rcode(dns.rcode.NXDOMAIN)
    return response


class Server:
    """UDP and TCP port 53 of a host. ``udp`` and ``tcp`` decide what is said; queries are noted."""

    def __init__(self, udp: Answer = honest, tcp: Answer | None = honest) -> None:
        self.udp, self.tcp = udp, tcp
        self.queries: list[tuple[str, str, str]] = []
        self.wires: list[bytes] = []
        self.ports: list[int] = []

    def _note(self, transport: str, wire: bytes) -> dns.message.Message:
        query = dns.message.from_wire(wire)
        self.wires.append(wire)
        question = query.question[0]
        self.queries.append((transport, question.name.to_text(), dns.rdatatype.to_text(question.rdtype)))
        return query

    @staticmethod
    def _wire(answer: dns.message.Message | bytes) -> bytes:
        return answer if isinstance(answer, bytes) else answer.to_wire()

    async def serve_udp(self, host: Host) -> None:
        with host.socket(type=stdlib.SOCK_DGRAM) as socket:
            await socket.bind(("", 53))
            while True:
                wire, asker = await socket.recvfrom(65535)
                self.ports.append(asker[1])
                answer = self.udp(self._note("udp", wire))
                if answer is not None:
                    await socket.sendto(self._wire(answer), asker)

    async def serve_tcp(self, host: Host) -> None:
        async def serve(stream: trio.SocketStream) -> None:
            assert self.tcp is not None
            async with stream:
                wire = await stream.receive_some(65535)
                (length,) = struct.unpack_from("!H", wire)
                assert len(wire) == length + 2
                answer = self.tcp(self._note("tcp", wire[2:]))
                if answer is None:
                    await trio.sleep_forever()
                else:
                    wire = self._wire(answer)
                    for piece in (struct.pack("!H", len(wire)), wire[:7], wire[7:]):
                        await stream.send_all(piece)

        await trio.serve_listeners(serve, [trio.SocketListener(await host.listen(53))])


@asynccontextmanager
async def resolving(server: Server, info: TunnelInfo = V4_ONLY) -> AsyncIterator[TunResolver]:
    async with two_stacks() as (near, far), trio.open_nursery() as nursery:
        nursery.start_soon(server.serve_udp, far)
        if server.tcp is not None:
            nursery.start_soon(server.serve_tcp, far)
        await trio.testing.wait_all_tasks_blocked()
        yield TunResolver(near.socket, lambda: info, Random(4).randbytes)
        nursery.cancel_scope.cancel()


def fails(number: int) -> pytest.RaisesExc[stdlib.gaierror]:
    return pytest.RaisesExc(stdlib.gaierror, check=lambda exc: exc.errno == number)


STREAM = {"type": stdlib.SOCK_STREAM}


async def hosts_of(resolver: TunResolver, name: str | bytes, family: int = 0) -> list[str]:
    """Sorted within a family, since dnspython's server side shuffles."""
    found = await resolver.getaddrinfo(name, 80, family, **STREAM)
    families = list(dict.fromkeys(info[0] for info in found))
    return [host for kind in families for host in sorted(info[4][0] for info in found if info[0] == kind)]


async def test_a_name(autojump_clock: MockClock) -> None:
    server = Server()
    async with resolving(server) as resolver:
        assert sorted(await resolver.getaddrinfo("www.example", 80, type=stdlib.SOCK_STREAM)) == [
            (stdlib.AF_INET, stdlib.SOCK_STREAM, 6, "", ("192.0.2.1", 80)),
            (stdlib.AF_INET, stdlib.SOCK_STREAM, 6, "", ("192.0.2.2", 80)),
        ]
    assert server.queries == [("udp", "www.example.", "A")], "no AAAA where the tunnel has no IPv6"
    query = dns.message.from_wire(server.wires[0])
    assert (query.edns, query.payload) == (0, 1232)
    assert query.flags & dns.flags.RD


@pytest.mark.parametrize(("info", "expected"), [
    (BOTH, ["192.0.2.1", "192.0.2.2", "2001:db8::1"]),
    (GLOBAL, ["2001:db8::1", "192.0.2.1", "192.0.2.2"]),
], ids=["private", "global"])  # fmt: skip
async def test_both_families_at_the_same_time(
    autojump_clock: MockClock, info: TunnelInfo, expected: list[str]
) -> None:
    server = Server()
    async with resolving(server, info) as resolver:
        assert await hosts_of(resolver, "www.example") == expected
        assert await hosts_of(resolver, "v4.example") == ["192.0.2.4"]
        assert await hosts_of(resolver, "v6.example") == ["2001:db8::6"]
        assert await hosts_of(resolver, "www.example", stdlib.AF_INET6) == ["2001:db8::1"]
        with fails(stdlib.EAI_NODATA):
            await hosts_of(resolver, "v4.example", stdlib.AF_INET6)
        assert (await resolver.getaddrinfo("v6.example", 80, **STREAM))[0][4] == ("2001:db8::6", 80, 0, 0)


@pytest.mark.parametrize("name", [
    "192.0.2.55", b"192.0.2.55", "2001:db8::55", "fe80::1%eth0", "localhost", "x.localhost.", None, "",
])  # fmt: skip
async def test_what_needs_no_query(autojump_clock: MockClock, name: str | None) -> None:
    server = Server()
    async with resolving(server) as resolver:
        with trio.testing.assert_checkpoints():
            addresses = [info[4][0] for info in await resolver.getaddrinfo(name, 80)]
        assert all(ip_address(address) for address in addresses)
        if name is None:
            passive = await resolver.getaddrinfo(None, 80, stdlib.AF_INET, flags=stdlib.AI_PASSIVE)
            assert passive[0][4] == ("0.0.0.0", 80)
            assert addresses[-1] == "127.0.0.1"
    assert not server.queries


async def test_no_such_name(autojump_clock: MockClock) -> None:
    async with resolving(Server()) as resolver:
        with fails(stdlib.EAI_NONAME):
            await hosts_of(resolver, "nowhere.example")
        with fails(stdlib.EAI_NODATA):
            await hosts_of(resolver, "v6.example")


@pytest.mark.parametrize(
    "name", ["a..b", "x" * 64 + ".example", ".".join(["label"] * 60), "\udcff.example", "ex ample。。x"]
)
async def test_names_that_cannot_be(autojump_clock: MockClock, name: str) -> None:
    async with resolving(Server()) as resolver:
        with fails(stdlib.EAI_NONAME):
            await hosts_of(resolver, name)


async def test_arguments_that_cannot_be(autojump_clock: MockClock) -> None:
    async with resolving(Server()) as resolver:
        with fails(stdlib.EAI_FAMILY):
            await resolver.getaddrinfo("www.example", 80, stdlib.AF_UNIX)
        with fails(stdlib.EAI_SOCKTYPE):
            await resolver.getaddrinfo("www.example", 80, 0, stdlib.SOCK_RAW)
        with fails(stdlib.EAI_SERVICE):
            await resolver.getaddrinfo("www.example", "no-such-service")
        with fails(stdlib.EAI_SERVICE):
            await resolver.getaddrinfo("www.example", 65536)
        with fails(stdlib.EAI_NONAME):
            await resolver.getaddrinfo("www.example", 80, flags=stdlib.AI_NUMERICHOST)
        with fails(stdlib.EAI_ADDRFAMILY):
            await resolver.getaddrinfo("192.0.2.1", 80, stdlib.AF_INET6)
        with fails(stdlib.EAI_ADDRFAMILY):
            await resolver.getaddrinfo("v6.example", 80, stdlib.AF_INET6)


async def test_types_ports_and_canonical_names(autojump_clock: MockClock) -> None:
    async with resolving(Server()) as resolver:
        found = await resolver.getaddrinfo("alias.example", "443", flags=stdlib.AI_CANONNAME)
    assert [(info[1], info[2], info[3]) for info in found[:3]] == [
        (stdlib.SOCK_STREAM, 6, "www.example"), (stdlib.SOCK_DGRAM, 17, ""), (stdlib.SOCK_STREAM, 6, ""),
    ]  # fmt: skip
    assert found[0][4] in {("192.0.2.1", 443), ("192.0.2.2", 443)}


async def test_aliases(autojump_clock: MockClock) -> None:
    server = Server()
    async with resolving(server) as resolver:
        assert await hosts_of(resolver, "alias.example") == ["192.0.2.1", "192.0.2.2"]
        # The answer ends with the alias: its target takes a second query.
        assert await hosts_of(resolver, "far-alias.example") == ["192.0.2.11"]
        with fails(stdlib.EAI_FAIL):
            await hosts_of(resolver, "loop.example")
    assert [name for _, name, _ in server.queries[1:3]] == ["far-alias.example.", "elsewhere.example."]
    assert len(server.queries) < 14


async def test_search_domains(autojump_clock: MockClock) -> None:
    server = Server()
    async with resolving(server) as resolver:
        assert await hosts_of(resolver, "host") == ["192.0.2.7"]
        assert await hosts_of(resolver, "other") == ["192.0.2.8"]
        # One with a dot is tried as it is first; one with a dot at its end is tried no other way.
        await trio.sleep(100)  # nothing is remembered any more
        assert await hosts_of(resolver, "host.corp.example") == ["192.0.2.7"]
        with fails(stdlib.EAI_NONAME):
            await hosts_of(resolver, "host.")
    assert [name for _, name, _ in server.queries] == [
        "host.corp.example.", "other.corp.example.", "other.lab.example.", "host.corp.example.", "host.",
    ]  # fmt: skip


async def test_international_names(autojump_clock: MockClock) -> None:
    async with resolving(Server()) as resolver:
        assert await hosts_of(resolver, "Bücher.example") == ["192.0.2.9"]
        assert await hosts_of(resolver, b"xn--bcher-kva.example") == ["192.0.2.9"]


def truncated(query: dns.message.Message) -> dns.message.Message:
    response = dns.message.make_response(query)
    response.flags |= dns.flags.TC
    return response


def cut(query: dns.message.Message) -> bytes:
    """Truncated in the middle of a record, as some servers do."""
    wire = bytearray(honest(query).to_wire())
    wire[2] |= 0x02
    return bytes(wire[:-5])


@pytest.mark.parametrize("answer", [truncated, cut])
async def test_a_truncated_answer_is_asked_for_by_tcp(autojump_clock: MockClock, answer: Answer) -> None:
    server = Server(udp=answer)
    async with resolving(server) as resolver:
        assert await hosts_of(resolver, "www.example") == ["192.0.2.1", "192.0.2.2"]
    assert [transport for transport, _, _ in server.queries] == ["udp", "tcp"]


async def test_a_silent_server_is_asked_again_and_then_by_tcp(autojump_clock: MockClock) -> None:
    server = Server(udp=lambda query: None)
    async with resolving(server) as resolver:
        start = trio.current_time()
        assert await hosts_of(resolver, "v4.example") == ["192.0.2.4"]
        assert trio.current_time() - start == pytest.approx(4.5, abs=0.1)
    assert [transport for transport, _, _ in server.queries] == ["udp", "udp", "tcp"]


async def test_nobody_answers(autojump_clock: MockClock) -> None:
    server = Server(udp=lambda query: None, tcp=lambda query: None)
    async with resolving(server) as resolver:
        start = trio.current_time()
        with fails(stdlib.EAI_AGAIN):
            await hosts_of(resolver, "v4.example")
        assert trio.current_time() - start == pytest.approx(9.5, abs=0.1)


async def test_the_next_server_is_asked(autojump_clock: MockClock) -> None:
    """The first is an address where nobody is; the second refuses; the third knows."""
    server = Server()
    refusals = 0

    def sometimes(query: dns.message.Message) -> dns.message.Message:
        nonlocal refusals
        refusals += 1
        if refusals > 1:
            return honest(query)
        response = dns.message.make_response(query)
        response.set_rcode(dns.rcode.REFUSED)
        return response

    server.udp = sometimes
    info = TunnelInfo(ipv4=V4_ONLY.ipv4, dns=(IPv4Address("10.8.0.99"), IPv4Address(FAR), IPv4Address(FAR)))
    async with resolving(server, info) as resolver:
        start = trio.current_time()
        assert await hosts_of(resolver, "v4.example") == ["192.0.2.4"]
        assert trio.current_time() - start == pytest.approx(1.5, abs=0.1)


async def test_no_pushed_resolver(autojump_clock: MockClock) -> None:
    async with resolving(Server(), TunnelInfo(ipv4=V4_ONLY.ipv4)) as resolver:
        with pytest.raises(stdlib.gaierror, match="pushed no resolver"):
            await hosts_of(resolver, "www.example")


async def test_a_server_from_before_edns(autojump_clock: MockClock) -> None:
    def old(query: dns.message.Message) -> dns.message.Message:
        if query.edns < 0:
            return honest(query)
        response = dns.message.make_response(dns.message.make_query("x", "A", id=query.id))
        response.question = query.question
        response.set_rcode(dns.rcode.FORMERR)
        return response

    server = Server(udp=old)
    async with resolving(server) as resolver:
        assert await hosts_of(resolver, "v4.example") == ["192.0.2.4"]
    assert len(server.queries) == 2


def other_id(query: dns.message.Message) -> dns.message.Message:
    response = honest(query)
    response.id ^= 1
    return response


def other_question(query: dns.message.Message) -> dns.message.Message:
    return honest(dns.message.make_query("v4.example", "A", id=query.id))


@pytest.mark.parametrize("forgery", [
    other_id, other_question, lambda query: b"", lambda query: b"\0" * 12, lambda query: honest(query).to_wire()[:20],
    lambda query: query, lambda query: bytes(range(200)),
], ids=["other id", "other question", "empty", "zeros", "cut", "an echo", "garbage"])  # fmt: skip
async def test_what_is_no_answer_is_waited_past(autojump_clock: MockClock, forgery: Answer) -> None:
    async with two_stacks() as (near, far), trio.open_nursery() as nursery:

        async def serve() -> None:
            socket = far.socket(type=stdlib.SOCK_DGRAM)
            await socket.bind(("", 53))
            while True:
                wire, asker = await socket.recvfrom(65535)
                query = dns.message.from_wire(wire)
                for answer in (forgery(query), honest(query)):
                    assert answer is not None
                    await socket.sendto(Server._wire(answer), asker)

        nursery.start_soon(serve)
        resolver = TunResolver(near.socket, lambda: V4_ONLY, Random(4).randbytes)
        start = trio.current_time()
        assert await hosts_of(resolver, "www.example") == ["192.0.2.1", "192.0.2.2"]
        assert trio.current_time() - start < 1
        nursery.cancel_scope.cancel()


async def test_every_query_has_a_port_and_an_id_of_its_own(autojump_clock: MockClock) -> None:
    server = Server()
    async with resolving(server) as resolver:
        for _ in range(20):
            await hosts_of(resolver, "v4.example")
            await trio.sleep(100)
    assert len(set(server.ports)) >= 19
    assert len({wire[:2] for wire in server.wires}) == 20


async def test_answers_are_kept_for_their_time_to_live(autojump_clock: MockClock) -> None:
    server = Server()
    async with resolving(server, BOTH) as resolver:
        for _ in range(3):
            await hosts_of(resolver, "www.example")
            await trio.sleep(25)
        # The third came after 50 s of 60, the fourth comes after 75.
        assert sorted(kind for _, _, kind in server.queries) == ["A", "AAAA"]
        await hosts_of(resolver, "www.example")
        assert len(server.queries) == 4


@pytest.mark.parametrize(("soa", "ttl", "kept"), [(True, 30, 30), (True, 9999, 60), (False, 30, 0)])
async def test_how_long_nothing_is_believed(autojump_clock: MockClock, soa: bool, ttl: int, kept: int) -> None:
    def nothing(query: dns.message.Message) -> dns.message.Message:
        response = honest(query)
        if soa:
            text = f"ns.example. root.example. 1 2 3 4 {ttl}"
            response.authority.append(dns.rrset.from_text("example.", ttl, "IN", "SOA", text))
        return response

    server = Server(nothing)
    async with resolving(server) as resolver:
        for _ in range(3):
            with fails(stdlib.EAI_NONAME):
                await hosts_of(resolver, "none.example.")
            await trio.sleep(max(kept / 2 - 1, 0))
        assert len(server.queries) == (1 if kept else 3)
        await trio.sleep(5)
        with fails(stdlib.EAI_NONAME):
            await hosts_of(resolver, "none.example.")
        assert len(server.queries) == (2 if kept else 4)


async def test_other_servers_are_asked_afresh(autojump_clock: MockClock) -> None:
    server = Server()
    info = V4_ONLY
    async with two_stacks() as (near, far), trio.open_nursery() as nursery:
        nursery.start_soon(server.serve_udp, far)
        resolver = TunResolver(near.socket, lambda: info, Random(4).randbytes)
        await hosts_of(resolver, "www.example")
        info = TunnelInfo(ipv4=V4_ONLY.ipv4, dns=(IPv4Address("10.8.0.77"), IPv4Address(FAR)))
        await hosts_of(resolver, "www.example")
        assert len(server.queries) == 2
        nursery.cancel_scope.cancel()


async def test_failures_are_not_kept(autojump_clock: MockClock) -> None:
    def refuse(query: dns.message.Message) -> dns.message.Message:
        response = dns.message.make_response(query)
        response.set_rcode(dns.rcode.SERVFAIL)
        return response

    server = Server(refuse, refuse)
    async with resolving(server) as resolver:
        with fails(stdlib.EAI_AGAIN):
            await hosts_of(resolver, "www.example.")
        server.udp = honest
        assert await hosts_of(resolver, "www.example.")


async def test_names_that_the_application_gave(autojump_clock: MockClock) -> None:
    server = Server()
    hosts = parse_hosts("127.0.0.1 localhost\n192.0.2.50\tprinter Printer.example. # upstairs\n::5 printer\nno x\n")
    assert hosts == {"localhost": ["127.0.0.1"], "printer": ["192.0.2.50", "::5"], "printer.example": ["192.0.2.50"]}
    async with two_stacks() as (near, far), trio.open_nursery() as nursery:
        nursery.start_soon(server.serve_udp, far)
        resolver = TunResolver(near.socket, lambda: BOTH, Random(4).randbytes, hosts)
        assert await hosts_of(resolver, "PRINTER") == ["192.0.2.50", "::5"]
        assert await hosts_of(resolver, b"printer.example.") == ["192.0.2.50"]
        with fails(stdlib.EAI_NODATA):
            await hosts_of(resolver, "printer.example", stdlib.AF_INET6)
        assert server.queries == []
        nursery.cancel_scope.cancel()


async def test_the_machines_hosts_file_is_not_read(autojump_clock: MockClock) -> None:
    """Whatever it says: its names are asked for like all others."""
    server = Server()
    machine = parse_hosts(await trio.Path("/etc/hosts").read_text())
    names = [name for name in machine if "localhost" not in name]
    async with resolving(server) as resolver:
        for name in [*names, "ip6-allnodes"]:
            with fails(stdlib.EAI_NONAME):
                await hosts_of(resolver, name)
            assert server.queries[-1][1] in (f"{name}.", f"{name}.lab.example.")


async def test_one_family_that_is_never_answered_does_not_hold_up_the_other(autojump_clock: MockClock) -> None:
    def no_aaaa(query: dns.message.Message) -> dns.message.Message | None:
        return honest(query) if query.question[0].rdtype == dns.rdatatype.A else None

    async with resolving(Server(udp=no_aaaa, tcp=no_aaaa), BOTH) as resolver:
        start = trio.current_time()
        assert await hosts_of(resolver, "v4.example") == ["192.0.2.4"]
        assert trio.current_time() - start < 2.5


async def test_cancelled(autojump_clock: MockClock) -> None:
    async with resolving(Server(udp=lambda query: None), BOTH) as resolver:
        with trio.move_on_after(1) as scope:
            await hosts_of(resolver, "v4.example")
        assert scope.cancelled_caught


async def test_trio_accepts_it_as_its_resolver(autojump_clock: MockClock) -> None:
    """Trio hands over bytes, and wants what the system's function gives."""
    async with resolving(Server()) as resolver:
        trio.socket.set_custom_hostname_resolver(resolver)  # type: ignore[arg-type]
        try:
            found = await trio.socket.getaddrinfo("Bücher.example", 80, type=stdlib.SOCK_STREAM)
            assert found[0][4] == ("192.0.2.9", 80)
            assert await trio.socket.getnameinfo(("192.0.2.1", 80), 0) == ("www.example", "80")
        finally:
            trio.socket.set_custom_hostname_resolver(None)
        assert await resolver.getnameinfo(("192.0.2.1", 80), stdlib.NI_NUMERICHOST) == ("192.0.2.1", "80")
        assert await resolver.getnameinfo(("192.0.2.2", 80), 0) == ("192.0.2.2", "80")
        with fails(stdlib.EAI_NONAME):
            await resolver.getnameinfo(("192.0.2.2", 80), stdlib.NI_NAMEREQD)
