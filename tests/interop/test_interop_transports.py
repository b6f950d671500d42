"""Every way to the real server: HTTP and SOCKS proxies, an obfs4 bridge, a local address and port.

Behind a proxy the server has a name that only the proxy knows: whoever asked a resolver for it, or went past the
proxy, would not arrive.
"""

from __future__ import annotations

import os
import re
import socket
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from minivpn_trio import open_tun_dialer
from minivpn_trio.config.credentials import Credentials
from minivpn_trio.config.ovpn import load_config
from minivpn_trio.config.proxy import HTTPProxy, Obfs4Bridge, SocksProxy
from minivpn_trio.errors import ConnectError, Stage, TransportError
from minivpn_trio.events import DialDone, Ready, Reconnecting
from tests.interop.exchanges import EventLog, download, everyday, open_tunnel
from tests.interop.lab.lab import OURS
from tests.interop.lab.obfs4 import obfs4_bridge
from tests.proxy_servers import HTTPProxyServer, SocksServer, basic_check, digest_check

NAME = "server.behind.proxy.invalid"
NAMES = {NAME: OURS["4"]}
LOGIN = Credentials("proxy-user", "proxy pass:word")


@pytest.fixture(autouse=True)
def no_outside_resolver(monkeypatch) -> None:
    """Numeric hosts only; a real question for a name ends the test."""
    real = socket.getaddrinfo

    def getaddrinfo(host, port, family=0, type=0, proto=0, flags=0):
        try:
            return real(host, port, family, type, proto, flags | socket.AI_NUMERICHOST)
        except socket.gaierror:
            if flags & socket.AI_NUMERICHOST:
                raise
            pytest.fail(f"somebody asked for {host}")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


def profile(server, *lines: str, host: str = NAME, name: str = "proxied.ovpn") -> Path:
    return server.profile_file(name, host=host, extra=lines)


@pytest.mark.parametrize("login", ["", "basic", "auto", "digest", "digest-sha256"])
async def test_http_proxy(start_server, login) -> None:
    server = start_server(transport="tcp")
    password = server.folder / "proxy.txt"
    password.write_text(f"{LOGIN.username}\n{LOGIN.password}\n")
    proxy = HTTPProxyServer(NAMES)
    line = "http-proxy 127.0.0.1 {port}"
    if login == "basic":
        proxy.check = basic_check(LOGIN.username, LOGIN.password)
        line += f" {password} basic"
    elif login == "auto":
        proxy.check, proxy.challenges = basic_check(LOGIN.username, LOGIN.password), ('Basic realm="lab"',)
        line += f" auto\nhttp-proxy-user-pass {password}"
    elif login:
        algorithm = "SHA-256" if "sha" in login else "MD5"
        proxy.check = digest_check(LOGIN.username, LOGIN.password, nonce="abc", realm="lab", algorithm=algorithm)
        proxy.challenges = (
            f'Digest realm="lab", nonce="abc", qop="auth", algorithm={algorithm}', 'Basic realm="lab"',
        )  # fmt: skip
        line += f" auto-nct\n<http-proxy-user-pass>\n{LOGIN.username}\n{LOGIN.password}\n</http-proxy-user-pass>"
    async with proxy.listening() as port:
        path = profile(server, line.format(port=port), "http-proxy-option AGENT lab/1",
                       "http-proxy-option CUSTOM-HEADER X-Lab yes", "http-proxy-retry")  # fmt: skip
        log = EventLog()
        async with open_tunnel(path, on_event=log) as dialer:
            await everyday(dialer)
            await download(dialer, 4 << 20)
    asked = [f"{NAME}:{server.options.port}"]
    assert proxy.asked == (asked if login in ("", "basic") else asked * 2)
    assert proxy.headers[-1]["user-agent"] == "lab/1" and proxy.headers[-1]["x-lab"] == "yes"
    assert [event.host for event in log.of(DialDone)] == [NAME]
    if login.startswith("digest"):
        assert not any(value and value.startswith("Basic") for value in proxy.authorizations)


@pytest.mark.parametrize("login", [None, LOGIN], ids=["open", "login"])
@pytest.mark.parametrize("transport", ["tcp", "udp"])
async def test_socks_proxy(start_server, transport, login) -> None:
    server = start_server(transport=transport)
    password = server.folder / "proxy.txt"
    password.write_text(f"{LOGIN.username}\n{LOGIN.password}\n")
    proxy = SocksServer(NAMES, login=(login.username, login.password) if login else None, relay_host="0.0.0.0")
    async with proxy.listening() as port:
        path = profile(server, f"socks-proxy 127.0.0.1 {port}" + (f" {password}" if login else ""))
        async with open_tunnel(path) as dialer:
            await everyday(dialer)
            await download(dialer, 4 << 20)
            assert not dialer.stats().transport.drops
    if transport == "tcp":
        assert proxy.asked == [(1, NAME, server.options.port)]
    else:
        assert proxy.asked == [(3, "0.0.0.0", 0), NAME]
        assert proxy.relayed > 1000


async def test_a_tunnel_survives_the_end_of_the_socks_relay(start_server) -> None:
    """The proxy ends the association: that is noticed at once, and a new one is made."""
    server = start_server()
    proxy = SocksServer(NAMES, relay_host="0.0.0.0")
    log = EventLog()
    async with (
        proxy.listening() as port,
        open_tunnel(profile(server, f"socks-proxy 127.0.0.1 {port}"), on_event=log) as dialer,
    ):
        await everyday(dialer)
        assert proxy.control is not None
        await proxy.control.aclose()
        await log.wait(Ready, 2, seconds=10)
        await download(dialer, 100_000)
    assert len(log.of(Reconnecting)) == 1


@pytest.mark.parametrize("iat_mode", [0, 1, 2])
async def test_obfs4(lab, start_server, iat_mode) -> None:
    """obfs4proxy at both ends, the server's forwarding to openvpn on its loopback."""
    server = start_server(transport="tcp")
    forward = f"127.0.0.1:{server.options.port}"
    with obfs4_bridge(
        lab.server_namespace, server.folder, host=OURS["4"], port=4443, forward_to=forward, iat_mode=iat_mode
    ) as url:
        assert f"iat-mode={iat_mode}" in url
        async with open_tunnel(profile(server, f"proxy-obfs4 {url}")) as dialer:
            assert len(obfs4_children()) == 1
            await everyday(dialer)
            await download(dialer, (4 << 20) if iat_mode == 0 else 100_000)
        assert obfs4_children() == []
        # With everything else in place, the wrong cert must not get through.
        wrong = Obfs4Bridge.from_url(url)
        wrong = replace(wrong, cert=("A" if wrong.cert[0] != "A" else "B") + wrong.cert[1:])
        error = await refused(server, wrong, seconds=6)
        assert "obfs4 bridge 10.77.1.1:4443" in str(error)
        assert wrong.cert not in str(error)
        assert obfs4_children() == []


async def test_obfs4_that_dies_is_a_broken_tunnel(lab, start_server) -> None:
    """Killed under us: the tunnel reconnects with a new one."""
    server = start_server(transport="tcp")
    forward = f"127.0.0.1:{server.options.port}"
    log = EventLog()
    with obfs4_bridge(lab.server_namespace, server.folder, host=OURS["4"], port=4444, forward_to=forward) as url:
        async with open_tunnel(profile(server, f"proxy-obfs4 {url}"), on_event=log) as dialer:
            await everyday(dialer)
            (first,) = obfs4_children()
            os.kill(first, 9)
            await log.wait(Ready, 2, seconds=15)
            assert obfs4_children() != [first]
            await download(dialer, 100_000)
    assert obfs4_children() == []


def obfs4_children() -> list[int]:
    """Processes of this one that run obfs4proxy and are not the bridge in the server's namespace."""
    found = []
    ours = os.readlink("/proc/self/ns/net")
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            status = dict(line.split(":\t", 1) for line in (folder / "status").read_text().splitlines())
            namespace = os.readlink(folder / "ns/net")
        except (OSError, ValueError):
            continue
        if int(status["PPid"]) == os.getpid() and status["Name"] == "obfs4proxy" and namespace == ours:
            found.append(int(folder.name))
    return found


async def refused(server, proxy, *, seconds: float = 10) -> ConnectError:
    config = load_config(profile(server, name="refused.ovpn")).with_proxy(proxy)
    config = replace(config, connect_timeout=seconds / 2)
    with trio.fail_after(seconds), pytest.raises(ConnectError) as caught:
        async with open_tun_dialer(config):
            pytest.fail("the tunnel came up")
    assert caught.value.stage is Stage.DIAL
    return caught.value


async def test_what_goes_wrong_names_the_proxy(start_server) -> None:
    """Neither a direct dial nor a password in the text, whatever fails."""
    server = start_server(transport="tcp")
    basic = ('Basic realm="lab"',)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        closed = probe.getsockname()[1]
    for proxy in (HTTPProxy("127.0.0.1", closed), SocksProxy("127.0.0.1", closed)):
        error = await refused(server, proxy)
        assert isinstance(error, TransportError) and f"proxy 127.0.0.1:{closed}: Connection refused" in str(error)
    silent = Obfs4Bridge("127.0.0.1", closed, "A" * 70)
    assert "it cannot be reached" in str(await refused(server, silent))
    wrong = Credentials("somebody", "hunter2-hunter2")
    cases = [
        (HTTPProxyServer(NAMES, check=bool, challenges=basic), None, "user name and a password .407."),
        (HTTPProxyServer(NAMES, check=lambda value: False, challenges=basic), wrong, "refused the user name"),
        (HTTPProxyServer(NAMES, status=403), None, f"it answered 403 for {NAME}"),
        (SocksServer(NAMES, login=("a", "b")), None, "authentication"),
        (SocksServer(NAMES, login=("a", "b")), wrong, "authentication"),
        (SocksServer(NAMES, reply=2), None, "(?i)not allowed"),
    ]
    for made, credentials, text in cases:
        async with made.listening() as port:
            kind = HTTPProxy if isinstance(made, HTTPProxyServer) else SocksProxy
            error = await refused(server, kind("127.0.0.1", port, credentials))
            assert isinstance(error, TransportError) and error.remedy
            assert f"127.0.0.1:{port}" in str(error)
            assert re.search(text, str(error))
            assert wrong.password not in str(error) + repr(error) + repr(error.__cause__)
    assert "TCP connection established" not in server.log


@pytest.mark.parametrize("transport", ["tcp", "udp"])
async def test_local_address_and_port(start_server, transport) -> None:
    server = start_server(transport=transport)
    path = server.folder / "bound.ovpn"
    lines = [line for line in server.profile().splitlines() if line != "nobind"]
    path.write_text("\n".join([*lines, "local 10.77.1.2", "lport 40123"]) + "\n")
    for _ in range(2):  # a second time at once: the port is free again
        async with open_tunnel(path) as dialer:
            await everyday(dialer)
    assert server.log.count("10.77.1.2:40123") > 2


@pytest.mark.parametrize("spelling", ["tcp", "tcp-client", "tcp4", "tcp4-client", "udp", "udp4"])
async def test_protocols_in_all_spellings(start_server, spelling) -> None:
    server = start_server(transport=spelling[:3], port=1201)
    path = server.folder / "spelled.ovpn"
    lines = [line for line in server.profile().splitlines() if not line.startswith("remote ")]
    path.write_text("\n".join([f"proto {spelling}", "port 1201", f"remote {server.host}", *lines]) + "\n")
    async with open_tunnel(path) as dialer:
        await everyday(dialer)
