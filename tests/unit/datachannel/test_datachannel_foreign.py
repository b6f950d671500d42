"""Data from another address than the server's: what proves that it has moved."""

from __future__ import annotations

import pytest

from minivpn_trio.datachannel.channel import DataChannel
from minivpn_trio.errors import DropReason, TunnelClosed
from minivpn_trio.items import ForeignBurst
from tests.unit.datachannel.data_keys import CIPHERS, ipv4, make_keys, make_pair

PACKETS = [ipv4(bytes([n])) for n in range(5)]


def watched(**options: object) -> tuple[DataChannel, DataChannel, list[object]]:
    client, server = make_pair(**options)
    found: list[object] = []
    client.on_foreign = found.append
    return client, server, found


@pytest.mark.parametrize(("cipher", "auth"), CIPHERS)
def test_what_authenticates(cipher: str, auth: str) -> None:
    client, server, found = watched(cipher=cipher, auth=auth)
    sealed = server.encrypt_burst(PACKETS, 1.0)
    assert client.decrypt_burst(ForeignBurst("there", sealed), 1.0) == PACKETS
    assert found == ["there"]


def test_a_ping_is_enough() -> None:
    client, server, found = watched(ping=1, ping_restart=10)
    (ping,) = server.handle_timeout(1.5)
    assert client.decrypt_burst(ForeignBurst("there", [ping]), 1.5) == []
    assert found == ["there"]


def test_what_was_seen_before_proves_nothing() -> None:
    client, server, found = watched(ping=1, ping_restart=10)
    sealed = server.encrypt_burst(PACKETS, 1.0)
    client.decrypt_burst(sealed, 1.0)
    assert client.decrypt_burst(ForeignBurst("stranger", sealed), 9.0) == []
    assert client.drops == {DropReason.REPLAY: len(PACKETS)}
    assert found == []
    # Nor does it keep the tunnel up.
    with pytest.raises(TunnelClosed):
        client.handle_timeout(11.5)


def test_forgeries_prove_nothing() -> None:
    client, server, found = watched()
    sealed = server.encrypt_burst(PACKETS, 1.0)
    forged = [packet[:-1] + bytes([packet[-1] ^ 1]) for packet in sealed]
    client.decrypt_burst(ForeignBurst("stranger", [*forged, b"", b"\x48", b"\x4f" + bytes(60), b"\x10"]), 1.0)
    assert found == []
    # One of them is the peer's own.
    client.decrypt_burst(ForeignBurst("there", [forged[0], sealed[1]]), 1.0)
    assert found == ["there"]


def test_packets_that_waited_for_their_key_prove_nothing() -> None:
    """They came from the server, and are opened together with what a stranger sent."""
    client, server, found = watched()
    ours, theirs = make_keys(key_id=1, seed=9)
    server.install_key(theirs, 0.0)
    assert client.decrypt_burst(server.encrypt_burst(PACKETS, 1.0), 1.0) == []
    client.install_key(ours, 1.2)
    assert client.decrypt_burst(ForeignBurst("stranger", [b"\x49" + bytes(60)]), 1.3) == PACKETS
    assert found == []


@pytest.mark.parametrize("options", [{}, {"cipher": "AES-256-CBC", "auth": "SHA256"}, {"epoch": True}])
def test_a_late_packet_tells_where_the_server_was(options: dict[str, object]) -> None:
    client, server, found = watched(**options)
    sealed = server.encrypt_burst(PACKETS, 1.0)
    client.decrypt_burst(ForeignBurst("new", [sealed[1], sealed[3]]), 1.0)
    assert client.decrypt_burst(ForeignBurst("old", [sealed[2]]), 1.1) == PACKETS[2:3]
    assert found == ["new"]
    client.decrypt_burst(ForeignBurst("newer", [sealed[0], sealed[4]]), 1.2)
    assert found == ["new", "newer"]


def test_a_late_packet_of_an_older_key_tells_where_the_server_was() -> None:
    client, server, found = watched()
    late, *before = server.encrypt_burst(PACKETS, 1.0)
    client.decrypt_burst(before, 1.0)
    ours, theirs = make_keys(key_id=1, seed=9)
    client.install_key(ours, 1.2)
    # The older key is in use as long as nothing came with the new one.
    (ahead,) = server.encrypt_burst(PACKETS[:1], 1.3)
    client.decrypt_burst(ForeignBurst("new", [ahead]), 1.3)
    assert found == ["new"]
    held = server.encrypt_burst(PACKETS[:2], 1.4)
    server.install_key(theirs, 1.4)
    (first,) = server.encrypt_burst(PACKETS[:1], 500.0)
    assert first[0] & 7 == 1
    client.decrypt_burst(ForeignBurst("newer", [first]), 500.0)
    assert client.decrypt_burst(ForeignBurst("old", [late, *held]), 500.1)
    assert found == ["new", "newer"]
