"""Any name, service and server: whoever asks for an address is told so, or why not, as ``socket.getaddrinfo`` would."""

from __future__ import annotations

import errno
import socket as stdlib
from ipaddress import IPv4Address, IPv4Interface, IPv6Interface
from random import Random
from typing import Any

import dns.name
import trio
from hypothesis import example, given
from hypothesis import strategies as st
from trio.testing import MockClock

from minivpn_trio.config.push import parse_push
from minivpn_trio.config.tunnel_info import DNSServer, TunnelInfo
from minivpn_trio.netstack.resolver import TunResolver

#: What has a meaning in a name, to somebody who reads it.
CRUMBS = ["a", "b.c", ".", "..", "xn--", "-", "_", "\\", "\\046", "\\300", "%", "[", ":", "::1", "127.1", "\0",
          "\u3002", "\xdf", "\u200d", "\u0661", "\ud800", "a" * 63, "a" * 64, "b." * 60, "localhost", " "]  # fmt: skip
names = st.one_of(st.text(max_size=30), st.lists(st.sampled_from(CRUMBS), max_size=6).map("".join))
hosts = st.one_of(st.none(), names, st.binary(max_size=80), names.map(lambda name: name.encode("utf-8", "replace")))
services = st.one_of(
    st.none(), st.integers(-1, 65536), st.text(max_size=10), st.binary(max_size=10),
    st.sampled_from(["80", "0" * 5000 + "80", "9" * 5000, b"http", "http", "ht\0tp", "\ud800", "\u0661"]),
)  # fmt: skip


class Deaf(trio.socket.SocketType):
    """Connects to anybody, who resets the connection."""

    type = stdlib.SOCK_STREAM
    did_shutdown_SHUT_WR = False

    def __init__(self) -> None:
        pass

    def __enter__(self) -> Deaf:
        return self

    def __exit__(self, *exc_info: object) -> None:
        pass

    def setsockopt(self, *args: Any) -> None:
        pass

    def close(self) -> None:
        pass

    async def connect(self, address: Any) -> None:
        await trio.lowlevel.checkpoint()

    async def send(self, data: Any, flags: int = 0) -> int:
        await trio.lowlevel.checkpoint()
        raise ConnectionResetError(errno.ECONNRESET, "reset")


def open_deaf(family: int, kind: int) -> Any:
    if kind == stdlib.SOCK_DGRAM:
        raise OSError(errno.ENETUNREACH, "unreachable")
    return Deaf()


def ask(info: TunnelInfo, *args: Any, **options: Any) -> list[Any]:
    async def main() -> list[Any]:
        resolver = TunResolver(open_deaf, lambda: info, Random(4).randbytes)
        return await resolver.getaddrinfo(*args, **options)

    return trio.run(main, clock=MockClock(autojump_threshold=0))


@example(host=None, service="0" * 5000 + "80", family=0, kind=0, flags=0, search=[], tls_name=None)
@given(
    host=hosts,
    service=services,
    family=st.sampled_from([0, stdlib.AF_INET, stdlib.AF_INET6, 77]),
    kind=st.sampled_from([0, stdlib.SOCK_STREAM, stdlib.SOCK_DGRAM, stdlib.SOCK_RAW]),
    flags=st.sampled_from([0, stdlib.AI_PASSIVE, stdlib.AI_CANONNAME, stdlib.AI_NUMERICHOST]),
    search=st.lists(names, max_size=2),
    tls_name=st.none() | names,
)
@example("www", 80, 0, stdlib.SOCK_STREAM, 0, [], "a..b")
@example("www", 80, 0, stdlib.SOCK_STREAM, 0, ["a..b"], "a" * 64)
@example("www", "9" * 5000, 0, stdlib.SOCK_STREAM, 0, [], None)
@example("www", "ht\0tp", 0, stdlib.SOCK_STREAM, 0, [], None)
def test_the_answer_is_addresses_or_a_gaierror(
    host: Any, service: Any, family: int, kind: int, flags: int, search: list[str], tls_name: str | None
) -> None:
    transport = "plain" if tls_name is None else "DoT"
    server = DNSServer(priority=0, addresses=((IPv4Address("10.8.0.1"), None),), transport=transport, sni=tls_name)
    info = TunnelInfo(
        ipv4=IPv4Interface("10.8.0.2/24"), ipv6=IPv6Interface("fd00::2/64"), search_domains=tuple(search),
        dns_servers=(server,),
    )  # fmt: skip
    try:
        found = ask(info, host, service, family, kind, flags=flags)
    except stdlib.gaierror:
        return
    # Nobody answers here, so it is one that needs no question.
    assert found
    for entry in found:
        assert entry[0] in (stdlib.AF_INET, stdlib.AF_INET6)
        assert 0 <= entry[4][1] <= 65535


@given(names)
@example("a..b")
@example("." + "a" * 63 + ".")
def test_a_pushed_name_is_one_or_is_left_out(name: str) -> None:
    """What is taken, DNS and TLS can carry."""
    if set(name) & set(" \t\r\n,'\"\\#;\0"):
        return
    pushed = parse_push([f"dns server 0 address 10.8.0.1:{5353}", f"dns server 0 sni {name}"])
    (server,) = pushed.dns_servers
    if server.sni is None:
        return
    assert server.sni.encode("idna").decode() == server.sni
    assert dns.name.from_text(server.sni).to_text(omit_final_dot=True) == server.sni
