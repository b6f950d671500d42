"""Files that cannot be used: each has its line, its directive, and words of its own, and is never quoted."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from minivpn_trio.config.files import MAX_REFERENCED
from minivpn_trio.config.ovpn import parse_profile, read_profile
from minivpn_trio.testing import CertificateAuthority, static_key, tls_crypt_v2_server_key

CA = CertificateAuthority()
CLIENT = CA.issue_client("client")
FILES = {
    "ca": CA.cert,
    "cert": CLIENT.cert,
    "key": CLIENT.key,
    "static": static_key(),
    "v2-server": tls_crypt_v2_server_key(),
    "empty": b" \n",
    "short-static": b"\n".join(
        [b"-----BEGIN OpenVPN Static key V1-----", b"00" * 16, b"-----END OpenVPN Static key V1-----"]
    ),
    "open-static": static_key()[:200],
    "open-cert": CLIENT.cert[:200],
    "binary": bytes(range(256)),
    "large": b"#" * (MAX_REFERENCED + 1),
}
GOOD = {"ca": "ca", "cert": "cert", "key": "key"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, data in FILES.items():
        (tmp_path / name).write_bytes(data)
    (tmp_path / "folder").mkdir()
    (tmp_path / "loop").symlink_to("loop")
    os.mkfifo(tmp_path / "pipe")
    return tmp_path


def complaint(folder: Path, directive: str, file: str) -> str:
    """The only error of a profile in whose last line ``directive`` names ``file``."""
    named = [f"{name} {value}" for name, value in GOOD.items() if name != directive]
    lines = ["client", "remote vpn.example", "remote-cert-tls server", *named, f"{directive} {file}"]
    (error,) = parse_profile("\n".join(lines).encode(), base=folder).errors
    assert (error.line, error.directive) == (len(lines), directive)
    assert not any(line in error.message for line in FILES.get(file, b"").decode("latin-1").split() if len(line) > 12)
    return error.message


DIRECTIVES = ["ca", "cert", "key", "extra-certs", "crl-verify", "pkcs12", "tls-auth", "tls-crypt", "tls-crypt-v2"]


@pytest.mark.parametrize("directive", [*DIRECTIVES, "auth-user-pass"])
@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("folder", "folder"),
        ("loop", "symbolic links"),
        ("pipe", "not a regular file"),
        ("large", "larger than 1024 KiB"),
    ],
)
def test_what_is_no_file_of_bounded_size(folder: Path, directive: str, file: str, words: str) -> None:
    assert words in complaint(folder, directive, file)


def test_a_file_that_must_not_be_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root reads every file, so the system's refusal is played."""
    real = os.open

    def refuse(path: Path, flags: int, *more: int) -> int:
        if path.name == "key":
            raise PermissionError(errno.EACCES, "no")
        return real(path, flags, *more)

    monkeypatch.setattr("minivpn_trio.config.files.os.open", refuse)
    assert complaint(folder, "key", "key") == "the file cannot be opened: Permission denied"


@pytest.mark.parametrize("directive", DIRECTIVES)
def test_empty_files(folder: Path, directive: str) -> None:
    assert "it is empty" in complaint(folder, directive, "empty")


@pytest.mark.parametrize("directive", DIRECTIVES)
def test_binary_files(folder: Path, directive: str) -> None:
    assert complaint(folder, directive, "binary")


@pytest.mark.parametrize(
    ("directive", "file", "words"),
    [
        ("ca", "key", "certificate in it, but a private key"),
        ("cert", "static", "certificate in it, but an OpenVPN static key"),
        ("key", "cert", "private key in it, but a certificate"),
        ("extra-certs", "key", "but a private key"),
        ("crl-verify", "ca", "a list of revoked certificates in it, but a certificate"),
        ("pkcs12", "cert", "no PKCS #12 file, but a certificate"),
        ("tls-auth", "key", "static key in it, but a private key"),
        ("tls-crypt", "v2-server", "but a tls-crypt-v2 server key, which only a server may have"),
        ("tls-crypt-v2", "static", "tls-crypt-v2 client key in it, but an OpenVPN static key"),
        ("tls-crypt-v2", "v2-server", "but a tls-crypt-v2 server key"),
        ("tls-auth", "short-static", "128 bits instead of 2048"),
        ("tls-crypt", "open-static", "its end is missing"),
        ("cert", "open-cert", "its end is missing"),
    ],
)
def test_the_wrong_kind_of_file(folder: Path, directive: str, file: str, words: str) -> None:
    assert words in complaint(folder, directive, file)


def test_a_profile_that_includes_itself(folder: Path) -> None:
    (folder / "self.ovpn").write_text("client\nconfig self.ovpn\n")
    errors = read_profile(folder / "self.ovpn").errors
    assert (2, "config") in [(error.line, error.directive) for error in errors]


@pytest.mark.parametrize("name", ["folder", "loop", "pipe", "large", "none"])
def test_profiles_that_cannot_be_read(folder: Path, name: str) -> None:
    (error,) = read_profile(folder / name).errors
    assert error.message
