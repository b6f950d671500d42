"""What goes wrong, goes wrong with the right error, at once where the peer or the kernel says so."""

from __future__ import annotations

import signal
from dataclasses import replace

import pytest
import trio
from cryptography.x509.oid import ExtendedKeyUsageOID

from minivpn_trio import open_tun_dialer
from minivpn_trio.config.ovpn import load_config
from minivpn_trio.errors import (
    AuthFailed,
    ConnectError,
    HandshakeTimeout,
    Stage,
    TLSVerificationError,
    TransportError,
)
from tests.interop.exchanges import open_tunnel
from tests.interop.lab.pki import static_key

#: "At once", on a machine that does other things too.
AT_ONCE = 4.0


async def refused(profile, kind: type[ConnectError], *, seconds: float = AT_ONCE, **changes: object) -> ConnectError:
    config = replace(load_config(profile), **changes)  # type: ignore[arg-type]
    with trio.fail_after(seconds):
        with pytest.raises(kind) as caught:
            async with open_tun_dialer(config):
                pytest.fail("the tunnel came up")
    return caught.value


@pytest.mark.parametrize("transport", ["udp", "tcp"])
@pytest.mark.parametrize("version", ["1.2", "1.3"])
async def test_wrong_ca(lab, start_server, transport, version) -> None:
    server = start_server(transport=transport, tls_version=version)
    error = await refused(server.profile_file(ca=lab.credentials.wrong_ca.pem), TLSVerificationError)
    assert error.stage is Stage.TLS_HANDSHAKE


async def test_server_with_a_client_certificate(lab, start_server) -> None:
    """remote-cert-tls server: another client of the same CA must not pass for the server."""
    impostor = lab.credentials.ca.issue("lab-server", ExtendedKeyUsageOID.CLIENT_AUTH)
    server = start_server(extra=(f"<cert>\n{impostor.cert}</cert>", f"<key>\n{impostor.key}</key>"))
    await refused(server.profile_file(), TLSVerificationError)


async def test_expired_server_certificate(lab, start_server) -> None:
    old = lab.credentials.ca.issue("lab-server", ExtendedKeyUsageOID.SERVER_AUTH, expired=True)
    server = start_server(extra=(f"<cert>\n{old.cert}</cert>", f"<key>\n{old.key}</key>"))
    error = await refused(server.profile_file(), TLSVerificationError)
    assert "expired" in str(error)


@pytest.mark.parametrize("transport", ["udp", "tcp"])
async def test_wrong_password(start_server, transport) -> None:
    server = start_server(transport=transport, user_pass=True)
    profile = server.profile_file(credentials_file=server.password_file(password="wrong"))
    error = await refused(profile, AuthFailed, seconds=8)
    assert error.stage is Stage.PUSH
    assert "wrong" not in str(error)
    assert server.log.count("AUTH_FAILED") <= 2, "a refused password was sent again"


@pytest.mark.parametrize("transport", ["udp", "tcp"])
async def test_closed_port(start_server, transport) -> None:
    server = start_server(transport=transport)
    error = await refused(server.profile_file(port=9999), TransportError)
    assert "refused" in str(error)
    assert error.stage in {Stage.DIAL, Stage.RESET}


@pytest.mark.parametrize("transport", ["udp", "tcp"])
async def test_silent_server(start_server, transport) -> None:
    server = start_server(transport=transport)
    server.signal(signal.SIGSTOP)
    error = await refused(server.profile_file(), HandshakeTimeout, hand_window=2.0)
    assert error.stage is Stage.RESET


async def test_wrong_static_key(start_server) -> None:
    """tls-crypt's peers do not answer what they cannot authenticate: it looks like silence."""
    server = start_server(wrap="tls-crypt")
    config = load_config(server.profile_file())
    path = server.folder / "wrong.ovpn"
    path.write_text(server.profile().replace(config.control_wrap_key.decode().strip(), static_key().strip()))
    error = await refused(path, HandshakeTimeout, hand_window=2.0)
    assert error.stage is Stage.RESET


async def test_no_common_cipher(start_server) -> None:
    server = start_server(cipher="AES-256-GCM")
    await refused(server.profile_file(), ConnectError, seconds=10, data_ciphers=("CHACHA20-POLY1305",))


async def test_second_remote_is_tried(start_server) -> None:
    server = start_server()
    profile = server.profile_file(extra=(f"remote {server.host} 1194 udp4",))
    config = load_config(profile)
    config = replace(config, remotes=(replace(config.remotes[0], port=9999), config.remotes[-1]))
    with trio.fail_after(10):
        async with open_tun_dialer(config) as dialer:
            assert dialer.tunnel_info.ipv4 is not None


async def test_unreachable_host_inside(start_server) -> None:
    """A port nobody listens on inside: the kernel's own errno, at once."""
    async with open_tunnel(start_server().profile_file()) as dialer:
        with trio.fail_after(AT_ONCE), pytest.raises(ConnectionRefusedError):
            await dialer.open_tcp_stream("10.8.0.1", 81)
