"""The files of tls-crypt-v2: what is read, and what each broken one is called."""

from __future__ import annotations

import binascii
import random
from pathlib import Path

import pytest

from minivpn_trio.config.ovpn import load_config
from minivpn_trio.config.tls_crypt_v2_key import (
    TlsCryptV2ClientKey,
    parse_client_key,
    parse_server_key,
    serialize_client_key,
    serialize_server_key,
)
from minivpn_trio.errors import ConfigError
from minivpn_trio.testing import CertificateAuthority, tls_crypt_v2_client_key, tls_crypt_v2_server_key


def client_key(size: int = 290) -> TlsCryptV2ClientKey:
    rng = random.Random(size)
    return TlsCryptV2ClientKey(rng.randbytes(256), rng.randbytes(size - 2) + (size % 65536).to_bytes(2))


def pem(data: bytes, kind: bytes = b"client") -> bytes:
    name = b"OpenVPN tls-crypt-v2 %s key-----\n" % kind
    return b"-----BEGIN " + name + binascii.b2a_base64(data) + b"-----END " + name


@pytest.mark.parametrize("size", [290, 299, 1024])
def test_client_keys_there_and_back(size: int) -> None:
    key = client_key(size)
    text = serialize_client_key(key)
    assert max(map(len, text.splitlines())) <= 64
    assert parse_client_key(text) == key
    assert parse_client_key(b"a comment\r\n" + text.replace(b"\n", b"\r\n") + b"after") == key


def test_server_keys_there_and_back() -> None:
    key = bytes(range(128))
    assert parse_server_key(serialize_server_key(key)) == key


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"", "no tls-crypt-v2 client key"),
        (pem(bytes(546), b"server"), "no tls-crypt-v2 client key"),
        (serialize_client_key(client_key())[:200], "no tls-crypt-v2 client key"),
        (pem(b"").replace(b"\n\n", b"\n!\n"), "no base64"),
        (serialize_client_key(client_key()).replace(b"\n", b"\n=", 2), "no base64"),
        (pem(b""), "cut: 0 bytes"),
        (pem(bytes(256)), "cut: 256 bytes"),
        (pem(bytes(256 + 287) + b"\x01\x21"), "cut: 545 bytes instead of 546"),
        (serialize_client_key(client_key(1025)), "longer than 1024"),
        (pem(bytes(256 + 290)), "length does not agree"),
        (pem(bytes(256 + 288) + b"\x01\x23"), "length does not agree"),
    ],
)
def test_broken_client_keys(text: bytes, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        parse_client_key(text)


@pytest.mark.parametrize("size", [0, 127, 129, 256])
def test_broken_server_keys(size: int) -> None:
    with pytest.raises(ValueError, match=f"{size} bytes instead of 128"):
        parse_server_key(pem(bytes(size), b"server"))


PROFILE = """client
dev tun
remote 192.0.2.1
auth-user-pass
<ca>
{ca}
</ca>
{wrap}
"""


@pytest.fixture
def ca() -> str:
    return CertificateAuthority().cert.decode().strip()


@pytest.mark.parametrize("inline", [True, False])
def test_in_a_profile(tmp_path: Path, ca: str, inline: bool) -> None:
    text = serialize_client_key(client_key()).decode()
    (tmp_path / "v2.key").write_text(text)
    wrap = f"<tls-crypt-v2>\n{text}</tls-crypt-v2>" if inline else "tls-crypt-v2 v2.key"
    path = tmp_path / "client.ovpn"
    path.write_text(PROFILE.format(ca=ca, wrap=wrap))
    config = load_config(path)
    assert config.control_wrap == "tls-crypt-v2"
    assert config.control_wrap_key is not None
    assert parse_client_key(config.control_wrap_key) == client_key()


def test_a_broken_one_is_named_by_line(tmp_path: Path, ca: str) -> None:
    (tmp_path / "v2.key").write_bytes(pem(bytes(300)))
    path = tmp_path / "client.ovpn"
    text = PROFILE.format(ca=ca, wrap="tls-crypt-v2 v2.key")
    path.write_text(text)
    with pytest.raises(ConfigError, match="cut: 300 bytes") as caught:
        load_config(path)
    assert caught.value.directive == "tls-crypt-v2"
    assert caught.value.line == text.splitlines().index("tls-crypt-v2 v2.key") + 1


def test_keys_made_here() -> None:
    rng = random.Random(3).randbytes
    server = tls_crypt_v2_server_key(rng=rng)
    one, two = (tls_crypt_v2_client_key(server, metadata=b"\x00me", rng=rng) for _ in range(2))
    assert len(parse_server_key(server)) == 128
    assert parse_client_key(one).key != parse_client_key(two).key
    assert len(parse_client_key(one).wrapped) == 293
