"""Dialling through proxies: real sockets of this machine, an echo of frames at the far end."""

from __future__ import annotations

import gc
import os
import socket
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trio

from minivpn_trio.config.credentials import Credentials
from minivpn_trio.config.model import Remote, TunnelConfig
from minivpn_trio.config.proxy import HTTPProxy, Obfs4Bridge, Proxy, Scramble, SocksProxy
from minivpn_trio.errors import ConfigError, DropReason, Stage, TransportError
from minivpn_trio.networkio import obfs4
from minivpn_trio.networkio.dial import Endpoint, dial, over_stream, resolve
from minivpn_trio.networkio.framing import DEFAULT_MAX_FRAME, MAX_FRAME, max_frame_of
from minivpn_trio.networkio.scrambled import ScrambledTransport
from minivpn_trio.networkio.transport import PromptTransport, Transport
from tests.proxy_servers import HTTPProxyServer, SocksServer, basic_check, digest_check

NAME = "server.invalid"
NAMES = {NAME: "127.0.0.1"}
LOGIN = Credentials("user", "pa:ss w\u00f6rd")
PLAIN = Credentials("user", "secret")
SETTINGS = TunnelConfig(remotes=())
BASIC = ('Basic realm="x"',)
CERT = "A" * 70


@pytest.fixture(autouse=True)
def no_resolver(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asks a resolver, here or through Trio, fails."""
    real = socket.getaddrinfo

    def getaddrinfo(host: str, port: int, family: int = 0, type: int = 0, proto: int = 0, flags: int = 0) -> object:
        assert flags & socket.AI_NUMERICHOST or host.replace(".", "").isdigit(), f"somebody asked for {host}"
        return real(host, port, family, type, proto, flags)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


@pytest.fixture
def no_leaks() -> None:
    """As many descriptors after the test as before."""
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    yield  # type: ignore[misc]
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) <= before


@asynccontextmanager
async def tcp_echo() -> AsyncIterator[int]:
    async def echo(stream: trio.SocketStream) -> None:
        async with stream:
            async for data in stream:
                await stream.send_all(data)

    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, echo, 0, host="127.0.0.1"))
        yield listener.socket.getsockname()[1]
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def udp_echo() -> AsyncIterator[int]:
    with trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        await sock.bind(("127.0.0.1", 0))

        async def echo() -> None:
            while True:
                data, source = await sock.recvfrom(65536)
                await sock.sendto(data, source)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(echo)
            yield sock.getsockname()[1]
            nursery.cancel_scope.cancel()


async def through(proxy: Proxy, port: int, proto: str = "tcp", **more: object) -> Transport:
    remote = Remote(NAME, port, proto, proxy, **more)  # type: ignore[arg-type]
    (endpoint,) = await resolve(remote)
    assert endpoint.address is None
    return await dial(endpoint, SETTINGS)


async def check_echo(transport: Transport) -> None:
    burst = [b"one", b"two" * 400, b"three"]
    await transport.send(burst)
    got: list[bytes] = []
    while len(got) < 3:
        got += await transport.receive()
    assert got == burst


@pytest.mark.parametrize("auth", ["auto", "basic", "digest"])
async def test_http(no_leaks: None, auth: str) -> None:
    if auth == "digest":
        server = HTTPProxyServer(
            NAMES,
            check=digest_check(LOGIN.username, LOGIN.password, nonce="n", realm="r"),
            challenges=(*BASIC, 'Digest realm="r", nonce="n", qop="auth"'),
        )
    else:
        server = HTTPProxyServer(NAMES, check=basic_check(LOGIN.username, LOGIN.password), challenges=BASIC)
    with trio.fail_after(5):
        async with tcp_echo() as port, server.listening() as proxy_port:
            transport = await through(HTTPProxy("127.0.0.1", proxy_port, LOGIN, auth), port)  # type: ignore[arg-type]
            assert transport.is_stream
            assert transport.peer is None
            await check_echo(transport)
            await transport.aclose()
    assert len(server.asked) == (1 if auth == "basic" else 2)


async def test_basic_that_turns_out_to_be_digest() -> None:
    server = HTTPProxyServer(
        NAMES,
        check=digest_check(LOGIN.username, LOGIN.password, nonce="n", realm="r"),
        challenges=('Digest realm="r", nonce="n", qop="auth"',),
    )
    with trio.fail_after(5):
        async with tcp_echo() as port, server.listening() as proxy_port:
            transport = await through(HTTPProxy("127.0.0.1", proxy_port, LOGIN, "basic"), port)
            await check_echo(transport)
            await transport.aclose()


async def test_what_comes_behind_the_answer_is_not_lost() -> None:
    server = HTTPProxyServer(NAMES, first_bytes=b"\x00\x05early\x00")
    with trio.fail_after(5):
        async with tcp_echo() as port, server.listening() as proxy_port:
            transport = await through(HTTPProxy("127.0.0.1", proxy_port), port)
            assert await transport.receive() == [b"early"]
            await transport.aclose()


@pytest.mark.parametrize("login", [None, PLAIN], ids=["open", "login"])
@pytest.mark.parametrize("proto", ["tcp", "udp"])
async def test_socks(no_leaks: None, proto: str, login: Credentials | None) -> None:
    server = SocksServer(NAMES, login=(login.username, login.password) if login else None)
    echo = tcp_echo if proto == "tcp" else udp_echo
    with trio.fail_after(5):
        async with echo() as port, server.listening() as proxy_port:
            transport = await through(SocksProxy("127.0.0.1", proxy_port, login), port, proto)
            assert transport.is_stream == (proto == "tcp")
            await check_echo(transport)
            transport.send_nowait([b"bye"])
            assert await transport.receive() == [b"bye"]
            if isinstance(transport, PromptTransport):
                assert transport.send_some([b"at once"]) == 1
                assert await transport.receive() == [b"at once"]
            assert transport.stats().packets_in == 5
            await transport.aclose()
            await transport.aclose()


async def test_a_relay_that_is_where_the_proxy_is() -> None:
    """0.0.0.0 as the relay's address means the address at which the proxy was reached."""
    server = SocksServer(NAMES, announce="0.0.0.0", relay_host="127.0.0.2")
    with trio.fail_after(5):
        async with udp_echo() as port, server.listening("127.0.0.2") as proxy_port:
            transport = await through(SocksProxy("127.0.0.2", proxy_port), port, "udp")
            await check_echo(transport)
            await transport.aclose()


async def test_datagrams_without_a_header_are_dropped_and_counted() -> None:
    server = SocksServer(NAMES)
    with trio.fail_after(5):
        async with udp_echo() as port, server.listening() as proxy_port:
            transport = await through(SocksProxy("127.0.0.1", proxy_port), port, "udp")
            relay = transport._sock.getpeername()  # type: ignore[attr-defined]
            ours = transport._sock.getsockname()  # type: ignore[attr-defined]
            await check_echo(transport)
            with trio.move_on_after(0.05) as scope:
                await transport.receive()
            assert scope.cancelled_caught
            assert relay != ours
            # What the relay itself would never send: it is fed to the socket's other end.
            near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
            near.setblocking(False)
            old, transport._sock = transport._sock, near  # type: ignore[attr-defined]
            head = b"\0\0\0\1" + bytes(6)
            for datagram in (b"", b"\0\0\0", b"\0\0\1\1" + bytes(7), head, head + b"ok"):
                far.send(datagram)
            assert await transport.receive() == [b"ok"]
            assert transport.stats().drops == {DropReason.MALFORMED: 3, DropReason.FRAGMENT: 1}
            old.close()
            far.close()
            await transport.aclose()


async def test_the_end_of_the_association_is_noticed() -> None:
    server = SocksServer(NAMES)
    with trio.fail_after(5):
        async with udp_echo() as port, server.listening() as proxy_port:
            transport = await through(SocksProxy("127.0.0.1", proxy_port), port, "udp")
            transport.established()
            await check_echo(transport)
            assert server.control is not None
            await server.control.aclose()
            with pytest.raises(OSError, match="ended the relaying"):
                await transport.receive()
            await transport.aclose()


async def test_closing_wakes_the_receiver_of_a_relay() -> None:
    server = SocksServer(NAMES)
    with trio.fail_after(5):
        async with udp_echo() as port, server.listening() as proxy_port:
            transport = await through(SocksProxy("127.0.0.1", proxy_port), port, "udp")
            async with trio.open_nursery() as nursery:

                async def receiver() -> None:
                    with pytest.raises(trio.ClosedResourceError):
                        await transport.receive()

                nursery.start_soon(receiver)
                await trio.testing.wait_all_tasks_blocked()
                await transport.aclose()


async def refusal(proxy: Proxy, proto: str = "tcp") -> TransportError:
    with trio.fail_after(5), pytest.raises(TransportError) as caught:
        await through(proxy, 9, proto)
    error = caught.value
    assert error.stage is Stage.DIAL
    assert error.remedy
    assert str(proxy) in str(error)
    for secret in ("hunter2", CERT):
        assert secret not in str(error) + repr(error) + repr(error.__cause__) + repr(error.__context__)
    return error


WRONG = Credentials("somebody", "hunter2")


@pytest.mark.parametrize(
    ("server", "login", "auth", "text"),
    [
        (HTTPProxyServer(status=403), None, "auto", "answered 403"),
        (HTTPProxyServer(status=502), WRONG, "auto", "answered 502"),
        (HTTPProxyServer(check=bool, challenges=BASIC), None, "auto", "http-proxy-user-pass"),
        (HTTPProxyServer(check=lambda value: False, challenges=BASIC), WRONG, "auto", "refused the user name"),
        (HTTPProxyServer(check=lambda value: False, challenges=BASIC), WRONG, "basic", "refused the user name"),
        (HTTPProxyServer(check=bool, challenges=BASIC), WRONG, "digest", "auto-nct"),
        (HTTPProxyServer(check=bool, challenges=("NTLM",)), WRONG, "auto", "a way to log in that we have not"),
        (HTTPProxyServer(check=lambda value: False, challenges=('Digest realm="r", nonce="n"',)), WRONG, "auto",
         "refused the user name"),
        (SocksServer(), None, "auto", "does not speak HTTP"),
    ],
)  # fmt: skip
async def test_http_refusals(
    no_leaks: None, server: HTTPProxyServer | SocksServer, login: Credentials | None, auth: str, text: str
) -> None:
    if isinstance(server, SocksServer):
        # Something that answers, and no HTTP.
        async def handle(stream: trio.SocketStream) -> None:
            await stream.send_all(b"SSH-2.0-OpenSSH_9.2\r\n")
            await stream.receive_some()

        server.handle = handle  # type: ignore[method-assign]
    async with server.listening() as port:
        error = await refusal(HTTPProxy("127.0.0.1", port, login, auth))  # type: ignore[arg-type]
    assert text in str(error)


@pytest.mark.parametrize("proto", ["tcp", "udp"])
@pytest.mark.parametrize(
    ("server", "login", "text"),
    [
        (SocksServer(reply=2), None, "allowed"),
        (SocksServer(login=("a", "b")), None, "socks-proxy HOST PORT FILE"),
        (SocksServer(login=("a", "b")), WRONG, "socks-proxy HOST PORT FILE"),
        (HTTPProxyServer(), None, ""),
    ],
    ids=["rules", "no-login", "wrong-login", "http"],
)
async def test_socks_refusals(
    no_leaks: None, server: HTTPProxyServer | SocksServer, login: Credentials | None, text: str, proto: str
) -> None:
    if isinstance(server, HTTPProxyServer):

        async def handle(stream: trio.SocketStream) -> None:
            await stream.receive_some()
            await stream.send_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        server.handle = handle  # type: ignore[method-assign]
    async with server.listening() as port:
        error = await refusal(SocksProxy("127.0.0.1", port, login), proto)
    assert text in str(error)


@pytest.mark.parametrize("login", [Credentials("us\u00e9r", "hunter2"), Credentials("u" * 300, "hunter2")])
async def test_socks_credentials_that_do_not_fit(login: Credentials) -> None:
    async with SocksServer(login=("a", "b")).listening() as port:
        assert "255 ASCII" in str(await refusal(SocksProxy("127.0.0.1", port, login)))


@pytest.mark.parametrize("kind", [HTTPProxy, SocksProxy])
async def test_nobody_there(kind: type[HTTPProxy] | type[SocksProxy]) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    error = await refusal(kind("127.0.0.1", port))
    assert "Connection refused" in str(error)
    assert isinstance(error.__cause__, ConnectionRefusedError)


@pytest.mark.parametrize("proxy", [HTTPProxy("127.0.0.1", 0), SocksProxy("127.0.0.1", 0)], ids=["http", "socks"])
@pytest.mark.parametrize("proto", ["tcp", "udp"])
async def test_a_silent_proxy_can_be_left(no_leaks: None, proxy: HTTPProxy | SocksProxy, proto: str) -> None:
    """Cancelled in the middle of the dialogue: no socket stays behind."""
    if proto == "udp" and isinstance(proxy, HTTPProxy):
        proto = "tcp"
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        there = type(proxy)("127.0.0.1", listener.getsockname()[1])
        with trio.move_on_after(0.1) as scope:
            await through(there, 9, proto)
        assert scope.cancelled_caught


def test_errors_and_reprs_show_no_secret() -> None:
    proxy = HTTPProxy("p", 1, WRONG, headers=(("Cookie", "hunter2"),))
    assert "hunter2" not in repr(Remote("h", 1, "tcp", proxy)) + str(proxy)
    assert CERT not in repr(Obfs4Bridge("h", 1, CERT))


def test_only_tcp_for_those_that_carry_only_tcp() -> None:
    config = TunnelConfig(remotes=(Remote("h", 1, "udp"),), ca=b"x", needs_credentials=True)
    for proxy, directive in ((HTTPProxy("p", 1), "http-proxy"), (Obfs4Bridge("b", 1, CERT), "proxy-obfs4")):
        with pytest.raises(ConfigError) as caught:
            config.with_proxy(proxy).validate()
        assert caught.value.directive == directive
    with pytest.raises(ConfigError) as caught:
        config.with_proxy(SocksProxy("p")).validate()
    assert caught.value.directive == "auth-user-pass"


def test_the_way_is_named_in_errors() -> None:
    endpoint = Endpoint(Remote("h", 1, "tcp", SocksProxy("p")))
    assert endpoint.way == "tcp to h port 1 through the SOCKS proxy p:1080"
    assert "proxy" in endpoint.remedy
    assert "cert" in Endpoint(Remote("h", 1, "tcp", Obfs4Bridge("::1", 2, CERT))).remedy


async def test_a_scramble_is_put_around_every_kind_of_transport() -> None:
    scramble = Scramble("xormask", b"k")
    server = HTTPProxyServer(NAMES)
    with trio.fail_after(5):
        async with tcp_echo() as port, server.listening() as proxy_port:
            transport = await through(HTTPProxy("127.0.0.1", proxy_port), port, scramble=scramble)
            assert isinstance(transport, ScrambledTransport)
            await check_echo(transport)
            await transport.aclose()
    near, far = trio.testing.memory_stream_pair()
    transport = over_stream(near, Remote("h", scramble=scramble), SETTINGS)
    await transport.send([b"k"])
    assert await far.receive_some() == b"\x00\x01\x00"


def test_larger_mtus_have_larger_frames() -> None:
    assert max_frame_of(1500) == max_frame_of(0) == DEFAULT_MAX_FRAME
    assert max_frame_of(9000) >= 9000 + 150
    assert max_frame_of(65535) == MAX_FRAME


async def test_a_jumbo_frame_passes_where_the_mtu_says_so() -> None:
    near, far = trio.testing.memory_stream_pair()
    transport = over_stream(near, Remote("h"), TunnelConfig(remotes=(), tun_mtu=9000))
    await far.send_all(b"\x23\x28" + bytes(9000))
    assert await transport.receive() == [bytes(9000)]


# obfs4: programs that are none


@pytest.fixture
def program(tmp_path: Path):
    """Makes an executable shell script."""

    def make(text: str) -> str:
        path = tmp_path / "pt"
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(stat.S_IRWXU)
        return str(path)

    return make


@pytest.mark.parametrize(
    ("script", "text"),
    [
        ("exit 1", "ended before it listened"),
        ("echo ENV-ERROR no; sleep 9", "environment"),
        ("echo VERSION 1; echo CMETHOD-ERROR obfs4 no; sleep 9", "cannot do obfs4"),
        ("echo VERSION 1; echo CMETHOD obfs4 socks5 192.0.2.1:5; sleep 9", "no address of this machine"),
        ("echo VERSION 1; echo CMETHOD obfs4 socks5 127.0.0.1:1; echo CMETHODS DONE; sleep 9", "refused"),
        ("cat /dev/zero", "says too much"),
        ("sleep 9", "did not say within"),
    ],
)
async def test_programs_that_do_not_work(
    no_leaks: None, program, monkeypatch: pytest.MonkeyPatch, script: str, text: str
) -> None:
    monkeypatch.setattr(obfs4, "START_TIMEOUT", 0.5)
    error = await refusal(Obfs4Bridge("192.0.2.9", 443, CERT, program=program(script)))
    assert text in str(error)


async def test_no_program(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    error = await refusal(Obfs4Bridge("192.0.2.9", 443, CERT))
    assert "obfs4proxy or lyrebird is not installed" in str(error)
    assert "apt-get install obfs4proxy" in str(error)
    assert "not installed" in str(await refusal(Obfs4Bridge("192.0.2.9", 443, CERT, program="/no/such/program")))
    (tmp_path / "folder").mkdir()
    not_one = tmp_path / "noexec"
    not_one.write_bytes(b"\x7fnothing")
    not_one.chmod(0o700)
    assert "cannot be run" in str(await refusal(Obfs4Bridge("192.0.2.9", 443, CERT, program=str(not_one))))


async def test_the_program_gets_its_arguments_and_dies_with_the_transport(program, tmp_path: Path) -> None:
    """A SOCKS server of ours in the program's place: what it is asked for, and what becomes of the program."""
    arguments = f"cert={CERT};iat-mode=1"
    server = SocksServer({"bridge.invalid": "127.0.0.1"}, login=(arguments, "\0"))
    with trio.fail_after(5):
        async with tcp_echo() as port, server.listening() as socks_port:
            script = program(
                f"echo $$ > {tmp_path}/pid; env > {tmp_path}/env; echo VERSION 1;"
                f"echo CMETHOD obfs4 socks5 127.0.0.1:{socks_port}; echo CMETHODS DONE; exec sleep 60"
            )
            bridge = Obfs4Bridge("bridge.invalid", port, CERT, 1, program=script)
            transport = await through(bridge, 1194)
            assert server.asked == [(1, "bridge.invalid", port)]
            await check_echo(transport)
            pid = int((tmp_path / "pid").read_text())
            os.kill(pid, 0)
            variables = dict(line.split("=", 1) for line in (tmp_path / "env").read_text().splitlines())
            folder = Path(variables["TOR_PT_STATE_LOCATION"])
            assert folder.name in os.listdir(folder.parent)
            await transport.aclose()
            await transport.aclose()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert folder.name not in os.listdir(folder.parent)
    assert "HOME" not in variables


async def test_a_dial_that_is_cancelled_leaves_no_program(program, tmp_path: Path) -> None:
    script = program(f"echo $$ > {tmp_path}/pid; exec sleep 60")
    with trio.move_on_after(5) as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(through, Obfs4Bridge("192.0.2.9", 443, CERT, program=script), 1)
            while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():  # noqa: ASYNC110
                await trio.sleep(0.01)
            nursery.cancel_scope.cancel()
    assert not scope.cancelled_caught
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)
