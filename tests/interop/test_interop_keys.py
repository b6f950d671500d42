"""Private keys that are locked, and PKCS #12, at the real server."""

from __future__ import annotations

import base64

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.serialization import pkcs12

from minivpn_trio import ConfigError
from tests.interop.logins import answers, reaches, refused, tunnel

OPENED_BY = "open sesame"


def encrypted_key(pem: str, form: serialization.PrivateFormat = serialization.PrivateFormat.PKCS8) -> str:
    key = serialization.load_pem_private_key(pem.encode(), None)
    encryption = serialization.BestAvailableEncryption(OPENED_BY.encode())
    return key.private_bytes(serialization.Encoding.PEM, form, encryption).decode()


def bundle(lab, password: str | None) -> bytes:
    """The lab's client with its CA, as PKCS #12."""
    identity = lab.credentials.client
    return pkcs12.serialize_key_and_certificates(
        b"client",
        serialization.load_pem_private_key(identity.key.encode(), None),  # type: ignore[arg-type]
        x509.load_pem_x509_certificate(identity.cert.encode()),
        [x509.load_pem_x509_certificate(lab.credentials.ca.pem.encode())],
        serialization.NoEncryption() if password is None else serialization.BestAvailableEncryption(password.encode()),
    )


@pytest.mark.parametrize("form", ["PKCS8", "TraditionalOpenSSL"])
@pytest.mark.parametrize("source", ["askpass file", "callback", "wrong at first", "nobody", "always wrong"])
async def test_encrypted_key(lab, start_server, source, form) -> None:
    server = start_server()
    pem = lab.credentials.client.key
    profile = server.profile_file()
    locked = encrypted_key(pem, getattr(serialization.PrivateFormat, form))
    text = profile.read_text().replace(pem.strip(), locked.strip())
    if source == "askpass file":
        (server.folder / "pass.txt").write_text(OPENED_BY + "\n")
        text += "askpass pass.txt\n"
    profile.write_text(text)
    asked = {
        "callback": answers(key_password=OPENED_BY),
        "wrong at first": answers(key_password=["no", OPENED_BY]),
        "always wrong": answers(key_password=["no"] * 9),
    }.get(source)
    if source in ("nobody", "always wrong"):
        error = await refused(profile, ConfigError, on_challenge=asked)
        assert error.directive == "askpass"
        assert asked is None or len(asked.asked) == 3
        return
    async with tunnel(profile, on_challenge=asked) as dialer:
        assert await reaches(dialer)
    if asked is not None:
        assert asked.asked[-1].reason == ("that password does not open it" if source == "wrong at first" else "")


@pytest.mark.parametrize("place", ["file", "inline"])
@pytest.mark.parametrize("password", [None, OPENED_BY])
@pytest.mark.parametrize("with_ca", [True, False])
async def test_pkcs12(lab, start_server, place, password, with_ca) -> None:
    """Certificate, key and, where the profile names none, the CA in one file."""
    server = start_server()
    kept = server.profile(extra=("remote-cert-tls server",)).split("<ca>")[0]
    if with_ca:
        kept += f"<ca>\n{lab.credentials.ca.pem}</ca>\n"
    data = bundle(lab, password)
    if place == "file":
        (server.folder / "client.p12").write_bytes(data)
        kept += "pkcs12 client.p12\n"
    else:
        kept += f"<pkcs12>\n{base64.encodebytes(data).decode()}</pkcs12>\n"
    profile = server.folder / "p12.ovpn"
    profile.write_text(kept)
    asked = None if password is None else answers(key_password=password)
    async with tunnel(profile, on_challenge=asked) as dialer:
        assert await reaches(dialer)
