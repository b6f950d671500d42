"""What a profile holds is put to use before it is called good: certificates, keys, names of TLS, peer info."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives import serialization

from minivpn_trio import load_config, open_client
from minivpn_trio.cli.check import check
from minivpn_trio.config.model import Remote, TunnelConfig
from minivpn_trio.config.ovpn import parse_profile
from minivpn_trio.config.profile import Profile
from minivpn_trio.errors import ConfigError
from minivpn_trio.profiles import examine, load_for_client, read_profile
from minivpn_trio.testing import CertificateAuthority, static_key

PROFILES = Path(__file__).parent / "profiles"
CA = CertificateAuthority()
ALICE, BOB = CA.issue_client("alice"), CA.issue_client("bob")
KEY = static_key().decode()
BEGIN, *DIGITS, END = [line for line in KEY.splitlines() if line and line[0] != "#"]
NO_DER = f"-----BEGIN CERTIFICATE-----\n{base64.b64encode(b'no DER').decode()}\n-----END CERTIFICATE-----\n"
#: The line of the first of ``lines`` in ``text``.
LINE = 5


def text(*lines: str, ca: str = CA.cert.decode(), cert: str = ALICE.cert.decode(), key: bytes = ALICE.key) -> str:
    head = ["client", "dev tun", "remote 192.0.2.1", "remote-cert-tls server", *lines]
    return "\n".join(head) + f"\n<ca>\n{ca}</ca>\n<cert>\n{cert}</cert>\n<key>\n{key.decode()}</key>\n"


def locked(key: bytes) -> bytes:
    return serialization.load_pem_private_key(key, None).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"x")
    )


def look(profile: str) -> Profile:
    return examine(parse_profile(profile.encode()))


def line_of(profile: str, beginning: str) -> int:
    return 1 + next(number for number, line in enumerate(profile.split("\n")) if line.startswith(beginning))


@pytest.mark.parametrize(
    "lines",
    [
        [],
        ["tls-version-min 1.3"],
        ["tls-cipher NONSENSE:TLS-ECDHE-RSA-WITH-AES-256-GCM-SHA384"],
        ["tls-groups X25519:P-256"],
        [f"<tls-crypt>\n{KEY}</tls-crypt>"],
        ["<tls-auth>", "a comment", BEGIN + " more", " " + "  ".join(DIGITS).upper(), END, "</tls-auth>"],
        ["push-peer-info", *(f"setenv UV_{number} {'x' * 240}" for number in range(6))],
        # Without push-peer-info they are not sent.
        [*(f"setenv UV_{number} {'x' * 240}" for number in range(20))],
    ],
)
def test_good(lines: list[str]) -> None:
    profile = look(text(*lines))
    assert profile.diagnostics == ()
    assert profile.require() is profile.partial


@pytest.mark.parametrize(
    ("lines", "directive", "words"),
    [
        (["tls-version-max 1.1"], "tls-version-max", "1.2"),
        (["tls-version-max 1.0", "tls-version-min 1.0"], "tls-version-max", "1.2"),
        (["tls-cipher NONSENSE"], "tls-cipher", "no cipher suite"),
        (["tls-ciphersuites NONSENSE"], "tls-ciphersuites", "not known"),
        (["tls-groups nonsense"], "tls-groups", "no group"),
        (["<tls-crypt>", *(f" {line}" for line in (BEGIN, *DIGITS, END)), "</tls-crypt>"], "tls-crypt", "begin a line"),
        (["<tls-crypt>", " ".join([BEGIN, *DIGITS, END]), "</tls-crypt>"], "tls-crypt", "begin a line"),
        (["<tls-auth>", BEGIN, "# comment", *DIGITS, END, "</tls-auth>"], "tls-auth", "hexadecimal"),
        (["<tls-auth>", BEGIN, *DIGITS[:-1], DIGITS[-1][1:], END, "</tls-auth>"], "tls-auth", "511 digits"),
        (["<tls-auth>", BEGIN, *DIGITS[:-1], END, "</tls-auth>"], "tls-auth", "1920 bits"),
        (["setenv UV_19 x", *(f"setenv UV_{number} {'x' * 240}" for number in range(20)), "push-peer-info"],
         "setenv", "push-peer-info"),
        (["remote vpn.example.com:1194"], "remote", "after a blank"),
        (["remote [2001:db8::1]"], "remote", "without brackets"),
    ],
)  # fmt: skip
def test_what_cannot_work_has_its_line(lines: list[str], directive: str, words: str) -> None:
    (error,) = look(text(*lines)).errors
    expected = LINE + 20 if directive == "setenv" else LINE
    assert (error.line, error.directive) == (expected, directive)
    assert words in error.message
    for digits in DIGITS:
        assert digits not in error.message


@pytest.mark.parametrize(
    ("profile", "directive"),
    [
        (text(key=BOB.key), "key"),
        (text(cert=NO_DER), "cert"),
        (text(ca=NO_DER), "ca"),
        (text(ca=CA.cert.decode() + NO_DER), "ca"),
    ],
)
def test_certificates_and_keys(profile: str, directive: str, tmp_path: Path) -> None:
    path = tmp_path / "a.ovpn"
    path.write_text(profile)
    (error,) = read_profile(path).errors
    assert (error.line, error.directive) == (line_of(profile, f"<{directive}>"), directive)
    for load in (load_config, load_for_client):
        with pytest.raises(ConfigError) as caught:
            load(path)
        assert (caught.value.line, caught.value.directive) == (error.line, directive)
        assert caught.value.file == str(path)


def test_a_good_profile_is_put_to_use_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who connects gets the TLS context that proved it good, and what is left to be looked at is."""
    monkeypatch.setattr("minivpn_trio.profiles.look_at_settings", None)
    path = tmp_path / "a.ovpn"
    path.write_text(text())
    config, context = load_for_client(path)
    assert config == parse_profile(path.read_bytes()).require()
    assert context is not None
    assert context.has_ca
    path.write_text(text("push-peer-info", *(f"setenv UV_{number} {'x' * 240}" for number in range(20))))
    with pytest.raises(ConfigError, match="push-peer-info"):
        load_for_client(path)


def test_what_is_locked_or_no_profile_has_no_context_yet(tmp_path: Path) -> None:
    path = tmp_path / "a.ovpn"
    path.write_text(text(key=locked(ALICE.key)))
    config, context = load_for_client(path)
    assert context is None
    assert load_for_client(config) == (config, None)


def test_all_at_once() -> None:
    profile = look(text("tls-cipher NONSENSE", "tls-groups nonsense", key=BOB.key, ca=NO_DER))
    assert [error.directive for error in profile.errors] == ["tls-cipher", "tls-groups", "ca", "key"]


async def test_a_client_of_a_profile_names_the_line_too(tmp_path: Path) -> None:
    path = tmp_path / "a.ovpn"
    path.write_text(text("tls-groups nonsense"))
    with pytest.raises(ConfigError) as caught:
        async with open_client(path):
            pytest.fail("there is a tunnel")
    assert (caught.value.line, caught.value.directive) == (LINE, "tls-groups")


async def test_oversized_peer_info_of_a_configuration_is_found_before_anything_is_dialled() -> None:
    config = TunnelConfig(
        remotes=(Remote("192.0.2.1"),), ca=CA.cert, cert=ALICE.cert, key=ALICE.key, peer_info=(("UV_X", "x" * 2000),)
    )
    with pytest.raises(ConfigError, match="2047") as caught:
        async with open_client(config):
            pytest.fail("there is a tunnel")
    assert caught.value.directive == "setenv"


def test_unknown_groups_among_known_ones_are_a_warning() -> None:
    (warning,) = look(text("tls-groups nonsense:X25519")).diagnostics
    assert (warning.severity, warning.line, warning.directive) == ("warning", LINE, "tls-groups")


def test_what_is_locked_or_missing_is_left_alone(tmp_path: Path) -> None:
    key = locked(BOB.key)
    profile = look(text(key=key))
    assert profile.ok
    assert profile.needs == ("askpass",)
    (error,) = examine(parse_profile(text(key=key).encode(), key_password=b"x")).errors
    assert error.directive == "key"

    files = "ca no.crt\ncert no.crt\nkey no.key\n"
    (tmp_path / "a.ovpn").write_text(f"client\ndev tun\nremote a\n{files}remote-cert-tls server\n")
    profile = read_profile(tmp_path / "a.ovpn")
    assert profile.ok
    assert profile.needs == ("file:no.crt", "file:no.key")
    assert [each.directive for each in profile.absent] == ["ca", "cert", "key"]
    with pytest.raises(ConfigError, match=r"no\.crt does not exist"):
        profile.require()


@pytest.mark.parametrize("mark", "\u201c\u201d\u201e\u2018\u2019\u201a\u00ab\u00bb")
def test_typographic_quotation_marks(mark: str) -> None:
    (warning,) = look(text(f"verify-x509-name {mark}server{mark} name")).diagnostics
    assert (warning.severity, warning.line, warning.directive) == ("warning", LINE, "verify-x509-name")
    assert look(text("verify-x509-name 'server\u201c' name")).diagnostics == ()


@pytest.mark.parametrize(
    "host", ["2001:db8::1", "::ffff:192.0.2.1", "fe80::1%eth0", "vpn.example.com", "xn--a", "büro.example"]
)
def test_hosts(host: str) -> None:
    assert look(text(f"remote {host} 1194")).partial.remotes[-1].host == host


# -- as the command shows it -----------------------------------------------------------------


def run(path: Path) -> tuple[int, str]:
    result = CliRunner().invoke(check, [str(path)], catch_exceptions=False)
    return result.exit_code, result.stdout


def test_a_profile_without_its_ca_is_not_called_usable(tmp_path: Path) -> None:
    path = tmp_path / "a.ovpn"
    path.write_text("client\ndev tun\nremote a\nca no.crt\nauth-user-pass nobody.txt\nremote-cert-tls server\n")
    status, shown = run(path)
    assert status == 0
    assert "can be used" not in shown
    assert "not complete: no.crt is missing" in shown
    # The file of credentials is no need besides the credentials.
    assert read_profile(path).needs == ("file:no.crt", "auth-user-pass")
    assert "file:no.crt, auth-user-pass (nobody.txt is missing)" in shown


def test_credentials_alone_are_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "a.ovpn"
    path.write_text(text("auth-user-pass nobody.txt"))
    status, shown = run(path)
    assert status == 0
    assert "a.ovpn: can be used" in shown


def test_a_row_is_a_line_for_a_pipe(tmp_path: Path) -> None:
    path = tmp_path / "a.ovpn"
    hosts = [f"a-long-name-of-a-server-{number}.example.com" for number in range(6)]
    path.write_text(text(*(f"remote {host}" for host in hosts)))
    _, shown = run(path)
    (row,) = [line for line in shown.splitlines() if "servers" in line]
    assert hosts[-2] in row
    assert all(line == line.rstrip() for line in shown.splitlines())


def test_a_key_of_another_certificate_fails_the_check(tmp_path: Path) -> None:
    path = tmp_path / "a.ovpn"
    path.write_text(text(key=BOB.key))
    status, shown = run(path)
    assert status == 2
    assert "cannot be used" in shown
    assert "the private key does not belong to the certificate" in shown


BRIDGE = "proxy-obfs4 obfs4://192.0.2.9:443?cert=" + "A" * 70 + "&iat-mode=0"


def test_what_an_obfs4_bridge_cannot_have() -> None:
    profile = look(text("mark 5", "bind-dev lo", BRIDGE, "proto tcp"))
    assert [(each.line, each.directive) for each in profile.errors] == [(LINE, "mark"), (LINE + 1, "bind-dev")]
    with pytest.raises(ConfigError, match="bind-dev"):
        profile.partial.validate(can_ask=True)


def test_what_is_missing_is_no_contradiction() -> None:
    """Rules on what must be there are the reader's, who knows what was only not found."""
    lines = "client\nremote a\nremote-cert-tls server\nca no.pem\ncert no.crt\nkey no.key\ntls-crypt no.key\n"
    assert look(lines).errors == ()


def test_each_setting_of_tls_is_looked_at() -> None:
    profile = look(text("tls-version-max 1.1", "tls-cipher NONSENSE", "tls-ciphersuites NONSENSE"))
    assert [error.directive for error in profile.errors] == ["tls-version-max", "tls-cipher", "tls-ciphersuites"]
