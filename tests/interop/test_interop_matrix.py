"""Transport x cipher x control wrap x topology against the real server, and the options beside them."""

from __future__ import annotations

import itertools

import pytest

from minivpn_trio.events import DialDone, KeysGenerated, Ready, ResetDone, TLSHandshakeDone, TLSHandshakeStarted
from minivpn_trio.tlssession import peer_info
from tests.interop.exchanges import EventLog, download, everyday, open_tunnel, upload
from tests.interop.lab.lab import TUN_IPV4

CIPHERS = (
    "AES-128-GCM", "AES-192-GCM", "AES-256-GCM", "CHACHA20-POLY1305", "AES-128-CBC", "AES-192-CBC", "AES-256-CBC",
)  # fmt: skip
#: Each cipher with another digest; the rest is in test_digests.
DIGEST = dict(zip(CIPHERS, itertools.cycle(("SHA1", "SHA256", "SHA384", "SHA512")), strict=False))


@pytest.mark.parametrize("topology", ["subnet", "net30"])
@pytest.mark.parametrize("wrap", ["none", "tls-auth", "tls-crypt"])
@pytest.mark.parametrize("cipher", CIPHERS)
@pytest.mark.parametrize("transport", ["udp", "tcp"])
async def test_matrix(start_server, transport, cipher, wrap, topology) -> None:
    server = start_server(transport=transport, cipher=cipher, auth=DIGEST[cipher], wrap=wrap, topology=topology)
    log = EventLog()
    async with open_tunnel(server.profile_file(), on_event=log) as dialer:
        await everyday(dialer)
        info = dialer.tunnel_info
        assert info.cipher == cipher
        assert info.topology == topology
        assert info.key_derivation == "tls-ekm"
        assert info.peer_id is not None
        assert str(info.dns[0]) == TUN_IPV4
        assert str(info.ipv4.ip).startswith("10.8.0.")
        stats = dialer.stats()
    for kind in (DialDone, ResetDone, TLSHandshakeStarted, TLSHandshakeDone, KeysGenerated, Ready):
        assert len(log.of(kind)) == 1, kind
    assert not stats.data.drops
    assert not stats.control.drops


@pytest.mark.parametrize("auth", ["SHA1", "SHA224", "SHA256", "SHA384", "SHA512"])
@pytest.mark.parametrize("wrap", ["none", "tls-auth"])
async def test_digests(start_server, auth, wrap) -> None:
    server = start_server(cipher="AES-256-CBC", auth=auth, wrap=wrap)
    async with open_tunnel(server.profile_file()) as dialer:
        await everyday(dialer)


@pytest.mark.parametrize("cipher", ["AES-256-GCM", "AES-128-CBC"])
@pytest.mark.parametrize("framing", ["comp-lzo-no", "stub", "stub-v2"])
@pytest.mark.parametrize("transport", ["udp", "tcp"])
async def test_compression_framing(start_server, transport, framing, cipher) -> None:
    server = start_server(transport=transport, compression=framing, cipher=cipher)
    async with open_tunnel(server.profile_file()) as dialer:
        await everyday(dialer)


@pytest.mark.parametrize("framing", ["stub", "stub-v2"])
async def test_pushed_compression_framing(start_server, framing) -> None:
    """The profile knows nothing of it; the server pushes it."""
    pushed = {"stub": "compress", "stub-v2": "compress stub-v2"}[framing]
    server = start_server(compression=framing, extra=(f'push "{pushed}"',))
    text = "\n".join(line for line in server.profile().splitlines() if not line.startswith("compress"))
    path = server.folder / "plain.ovpn"
    path.write_text(text + "\n")
    async with open_tunnel(path, peer_info=(("IV_COMP_STUBv2", "1"), ("IV_COMP_STUB", "1"))) as dialer:
        assert dialer.tunnel_info.compression == framing
        await everyday(dialer)


@pytest.mark.parametrize("cipher", ["AES-256-GCM", "AES-256-CBC"])
async def test_keys_by_prf(start_server, monkeypatch, cipher) -> None:
    """A client that does not announce the exporter gets keys by TLS 1.0's PRF."""
    without = peer_info.CLIENT_FEATURES & ~peer_info.ProtoFlag.TLS_KEY_EXPORT
    monkeypatch.setattr(peer_info.peer_info, "__defaults__", (without,))
    server = start_server(cipher=cipher)
    async with open_tunnel(server.profile_file()) as dialer:
        assert dialer.tunnel_info.key_derivation == "prf"
        await everyday(dialer)


@pytest.mark.parametrize("version", ["1.2", "1.3"])
async def test_tls_versions(start_server, version) -> None:
    server = start_server(tls_version=version)
    log = EventLog()
    async with open_tunnel(server.profile_file(), on_event=log) as dialer:
        await everyday(dialer)
    assert log.of(TLSHandshakeDone)[0].version == f"TLSv{version}"


@pytest.mark.parametrize("transport", ["udp", "tcp"])
async def test_server_on_ipv6(start_server, transport) -> None:
    server = start_server(transport=transport, outer="6")
    async with open_tunnel(server.profile_file()) as dialer:
        assert ":" in dialer.tunnel_info.remote_address
        await everyday(dialer)


async def test_tls_auth_without_direction(start_server) -> None:
    server = start_server(wrap="tls-auth", key_direction=None)
    async with open_tunnel(server.profile_file()) as dialer:
        await everyday(dialer)


@pytest.mark.parametrize("client_cert", [True, False])
async def test_user_and_password(start_server, client_cert) -> None:
    server = start_server(user_pass=True, client_cert=client_cert)
    async with open_tunnel(server.profile_file(credentials_file=server.password_file())) as dialer:
        await everyday(dialer)


async def test_long_push(start_server) -> None:
    """More options than one message holds: PUSH_REPLY comes in pieces."""
    routes = tuple(f'push "route 172.{16 + n // 250}.{n % 250}.0 255.255.255.0"' for n in range(400))
    server = start_server(extra=routes)
    async with open_tunnel(server.profile_file()) as dialer:
        assert len(dialer.tunnel_info.routes) == 400
        await everyday(dialer)


@pytest.mark.parametrize("mtu", [1280, 1400])
async def test_pushed_mtu(start_server, mtu) -> None:
    server = start_server(inner_ipv6=False, extra=(f"tun-mtu {mtu}", f'push "tun-mtu {mtu}"'))
    async with open_tunnel(server.profile_file()) as dialer:
        assert dialer.tunnel_info.mtu == mtu
        await everyday(dialer)


@pytest.mark.parametrize("transport", ["udp", "tcp"])
async def test_megabytes_both_ways(start_server, transport) -> None:
    server = start_server(transport=transport)
    async with open_tunnel(server.profile_file()) as dialer:
        await download(dialer, 32 << 20)
        await upload(dialer, 16 << 20)
