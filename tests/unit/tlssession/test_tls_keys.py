"""Known answers of the key derivation, and key2's directions."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from minivpn_trio.packet.ids import Role
from minivpn_trio.tlssession.keys import (
    KeySource,
    key2_from_exporter,
    key2_from_sources,
    split_key2,
    tls1_prf,
)

_VECTORS = Path(__file__).parents[2] / "vectors" / "openvpn-2.6.14-sessions.json"
#: Recorded between openvpn 2.6.14 on both sides, with the secrets taken from the TLS key log.
SESSIONS = json.loads(_VECTORS.read_text())


def test_prf_of_openvpn_unit_test() -> None:
    # OpenVPN's own unit test of the TLS 1.0 PRF (test_crypto.c): a secret of 117 bytes, so odd.
    secret = (
        b"Lorem ipsum dolor sit amet, consectetur adipisici elit, "
        b"sed eiusmod tempor incidunt ut labore et dolore magna aliqua."
    )
    seed = b"Quis aute iure reprehenderit in voluptate velit esse cillum dolore"
    expected = "d98c8518c85e946927916acfc2d592fbb1567e4b4b1459e6a904ac2ddab72d67"
    assert len(secret) == 117
    assert tls1_prf(secret, b"", seed, 32).hex() == expected


def test_prf_of_minivpn_unit_test() -> None:
    # ooni/minivpn, internal/tlssession, Test_prf.
    assert tls1_prf(b"secret", b"master key", b"aaabbb", 16).hex() == "67187c52acd24d959a55d31cdb978011"


@pytest.mark.parametrize("name", sorted(SESSIONS))
def test_key2_of_recorded_sessions(name: str) -> None:
    session = {key: bytes.fromhex(value) for key, value in SESSIONS[name].items() if key not in ("cipher", "packets")}
    client = KeySource(session["pre_master"], session["c_r1"], session["c_r2"])
    server = KeySource(b"", session["s_r1"], session["s_r2"])
    master = tls1_prf(client.pre_master, b"OpenVPN master secret", client.random1 + server.random1, 48)
    assert master == session["master"]
    sids = {"client_sid": session["client_sid"], "server_sid": session["server_sid"]}
    assert key2_from_sources(client, server, **sids) == session["key2"]


def test_directions() -> None:
    # Session A of the recorded ones: the client's first bytes of each slot.
    key2 = bytes.fromhex(SESSIONS["gcm256"]["key2"])
    client, server = split_key2(key2, Role.CLIENT), split_key2(key2, Role.SERVER)
    assert client.send_cipher.hex().startswith("df6c490d13fe217861588d5129f482d78ccc437df74c692aa94570f6cf140a4b")
    assert client.receive_cipher.hex().startswith("165c10bf9d28448919a48bc9dbfe6f6dc0342a04f88dcf0acd716255370fcdfb")
    assert client.send_hmac.hex().startswith("b12017376efc78db")
    assert (client.send_cipher, client.send_hmac) == (server.receive_cipher, server.receive_hmac)
    assert (server.send_cipher, server.send_hmac) == (client.receive_cipher, client.receive_hmac)


def test_key2_has_one_size() -> None:
    with pytest.raises(ValueError, match="256"):
        split_key2(bytes(255), Role.CLIENT)


def test_exporter_is_asked_for_the_right_thing() -> None:
    asked: list[tuple[bytes, int]] = []

    def export(label: bytes, size: int) -> bytes:
        asked.append((label, size))
        return random.Random(1).randbytes(size)

    assert len(key2_from_exporter(export)) == 256
    assert asked == [(b"EXPORTER-OpenVPN-datakeys", 256)]


def test_secrets_are_not_shown() -> None:
    key2 = b"q" * 256
    assert "q" * 4 not in repr(split_key2(key2, Role.CLIENT))
    assert "q" * 4 not in repr(KeySource(b"q" * 48, b"q" * 32, b"q" * 32))
