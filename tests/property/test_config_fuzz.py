"""Whatever a profile or a push says, reading it ends in a result, never in another exception."""

from __future__ import annotations

import base64
import contextlib
import datetime
import json
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import example, given, settings
from hypothesis import strategies as st

from minivpn_trio.config.directives import DIRECTIVES
from minivpn_trio.config.lexer import LexError, join_line, split_line
from minivpn_trio.config.model import Remote, TunnelConfig
from minivpn_trio.config.ovpn import load_config, parse_profile
from minivpn_trio.config.push import NegotiatedTunnel, PushAssembler, negotiate, parse_push
from minivpn_trio.config.report import describe
from minivpn_trio.errors import ConfigError, ConnectError
from minivpn_trio.profiles import examine
from minivpn_trio.testing import CertificateAuthority, static_key

#: Nothing of it is on the disk, so no generated name finds a file there.
NOWHERE = Path("/nonexistent")

_names = st.sampled_from(sorted(DIRECTIVES))
_words = st.one_of(
    st.sampled_from(["0", "1", "2", "1194", "65536", "-1", "udp", "tcp-server", "AES-256-CBC", "def1", "no", "server",
                     "name", "10.0.0.1", "255.255.0.0", "fd00::/8", "DNS", "1.3", "mtu", "ff:ff", "opt", "[inline]",
                     "99999999999999999999", "1e5", "\u0663"]),
    st.text(max_size=12),
)  # fmt: skip
_lines = st.one_of(
    st.builds(lambda name, words: join_line([name, *words]), _names, st.lists(_words, max_size=5)),
    st.builds(lambda name, body: f"<{name}>\n{body}\n</{name}>", _names, st.text(max_size=60)),
    st.builds(lambda name: f"<{name}>", _names),
    st.builds(lambda name: f"</{name}>", _names),
    st.sampled_from(["<connection>", "</connection>", "<<<<<<< x", "=======", '"', "'", "\\", "\0"]),
    st.text(max_size=40),
)
_profiles = st.lists(_lines, max_size=25).map(lambda lines: "\n".join(lines).encode("utf-8", "surrogatepass"))


def check(data: bytes) -> None:
    profile = examine(parse_profile(data, base=NOWHERE))
    total = data.count(b"\n") + 1
    for each in profile.diagnostics:
        assert each.line is None or 1 <= each.line <= total
        assert each.message
    assert (profile.config is None) == bool(profile.errors)
    json.dumps(describe(profile))
    if profile.config is not None:
        with contextlib.suppress(ConfigError):
            profile.config.validate()


@given(st.binary(max_size=400))
@example(b"\xff\xfe")
@example(b"\xef\xbb\xbf")
@example(b"\r")
@example(b"<ca>")
def test_any_bytes_are_read(data: bytes) -> None:
    check(data)


@given(_profiles)
def test_anything_like_a_profile_is_read(data: bytes) -> None:
    check(data)


def _revocations() -> bytes:
    issuer = x509.load_pem_x509_certificate(AUTHORITY.cert).subject
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.datetime(2030, 1, 1, tzinfo=datetime.UTC)
    builder = x509.CertificateRevocationListBuilder().issuer_name(issuer).last_update(now).next_update(now)
    revoked = x509.RevokedCertificateBuilder().serial_number(7).revocation_date(now).build()
    return builder.add_revoked_certificate(revoked).sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


AUTHORITY = CertificateAuthority()
CLIENT = AUTHORITY.issue_client()
MATERIAL = {
    "ca": AUTHORITY.cert, "cert": CLIENT.cert, "key": CLIENT.key, "crl-verify": _revocations(),
    "tls-crypt": static_key(),
}  # fmt: skip


# cryptography warns of serial numbers that future releases will refuse.
@pytest.mark.filterwarnings("ignore::cryptography.utils.CryptographyDeprecationWarning")
@settings(max_examples=200)
@given(st.sampled_from(sorted(MATERIAL)), st.integers(0, 2**16), st.integers(1, 255), st.booleans())
def test_damaged_material_is_told_by_its_directive(name: str, place: int, change: int, inside: bool) -> None:
    """A byte of a certificate or key is another one: outside, in the text, or inside, in what the text stands for."""
    text = MATERIAL[name]
    begin, *body, end = [line for line in text.split(b"\n") if line and not line.startswith(b"#")]
    if inside and name != "tls-crypt":
        raw = bytearray(base64.b64decode(b"".join(body)))
        raw[place % len(raw)] ^= change
        text = b"\n".join([begin, base64.b64encode(raw), end, b""])
    else:
        damaged = bytearray(text)
        damaged[place % len(damaged)] ^= change
        text = bytes(damaged).replace(b"\0", b"?")
    data = b"client\nremote a\nremote-cert-tls server\n"
    for each, whole in MATERIAL.items():
        data += b"<%b>\n%b</%b>\n" % (each.encode(), text if each == name else whole, each.encode())
    check(data)
    check(data.replace(b"<cert>", b"<extra-certs>\n" + CLIENT.cert + b"</extra-certs>\n<cert>"))


@given(st.lists(_lines, max_size=6), st.data())
def test_damage_to_a_good_profile(lines: list[str], data: st.DataObject) -> None:
    good = ["client", "dev tun", "remote a 1", "ca ca.crt", "auth-user-pass", "remote-cert-tls server"]
    where = data.draw(st.integers(0, len(good)))
    check("\n".join(good[:where] + lines + good[where:]).encode("utf-8", "surrogatepass"))


@given(st.binary(max_size=300))
def test_files_of_any_content_are_read(data: bytes) -> None:
    profile = parse_profile(
        b"client\nremote a\n"
        + b"".join(
            b"<%s>\n%s\n</%s>\n" % (name, data.replace(b"</", b""), name)
            for name in (b"ca", b"cert", b"key", b"tls-auth", b"tls-crypt-v2", b"auth-user-pass", b"peer-fingerprint")
        ),
        base=NOWHERE,
    )
    assert not profile.ok


@given(st.text(max_size=80).filter(lambda name: "\0" not in name))
def test_a_path_that_leads_nowhere_is_a_config_error(name: str) -> None:
    with pytest.raises(ConfigError) as raised:
        load_config(NOWHERE / name.lstrip("/"))
    assert raised.value.line is None


@given(st.lists(st.text(st.characters(exclude_characters="\0"), max_size=40), min_size=1, max_size=16))
def test_quoted_parameters_come_back(parameters: list[str]) -> None:
    assert split_line(join_line(parameters)) == parameters


@given(st.text(max_size=300))
def test_a_line_is_cut_or_refused(line: str) -> None:
    try:
        parameters = split_line(line)
    except LexError:
        return
    assert len(parameters) <= 17
    assert all(len(parameter) <= 256 for parameter in parameters)


# -- pushes ----------------------------------------------------------------------------------

_option_names = st.sampled_from(
    ["ifconfig", "ifconfig-ipv6", "topology", "route", "route-ipv6", "route-gateway", "dhcp-option", "dns", "tun-mtu",
     "ping", "ping-restart", "ping-exit", "peer-id", "cipher", "protocol-flags", "key-derivation", "compress",
     "comp-lzo", "auth-token", "auth-token-user", "redirect-gateway", "inactive", "reneg-sec", "mssfix", "setenv", "x"]
)  # fmt: skip
_push_words = st.one_of(
    st.sampled_from(["10.0.0.1", "255.255.255.0", "fd00::1/64", "::", "net30", "subnet", "p2p", "server", "address",
                     "1", "0", "1500", "4294967296", "AES-256-GCM", "tls-ekm", "lz4-v2", "DNS", "search-domains"]),
    st.text(max_size=10),
)  # fmt: skip
_options = st.one_of(
    st.builds(lambda name, words: " ".join([name, *words]), _option_names, st.lists(_push_words, max_size=4)),
    st.text(max_size=60),
)


@example(["auth-token-user \x80"], "udp", None)
@given(st.lists(_options, max_size=20), st.sampled_from(["udp", "tcp"]), st.none() | st.text(max_size=12))
def test_any_push_is_merged_or_refused(options: list[str], transport: str, occ_cipher: str | None) -> None:
    pushed = parse_push(options)
    config = TunnelConfig(remotes=(Remote("a"),), data_ciphers_fallback="AES-256-CBC")
    try:
        found = negotiate(
            config, pushed, transport=transport, remote_address=None, occ_cipher=occ_cipher, tls_version="TLSv1.3"
        )
    except ConnectError:
        return
    assert isinstance(found, NegotiatedTunnel)
    assert found.cipher in (*config.data_ciphers, "AES-256-CBC")
    assert 68 <= found.info.mtu <= 1600
    assert 0 <= found.ping <= 86400
    assert found.peer_id is None or 0 <= found.peer_id < 1 << 24


@given(st.lists(st.text(max_size=200), max_size=12))
def test_any_messages_are_put_together_or_refused(messages: list[str]) -> None:
    assembler = PushAssembler()
    for message in messages:
        for text in (message, "PUSH_REPLY," + message, "PUSH_REPLY," + message + ",push-continuation 2"):
            try:
                options = assembler.add(text)
            except ConnectError:
                continue
            assert options is None or all("," not in option for option in options)


@given(st.text(max_size=20_000))
def test_an_assembler_never_holds_more_than_its_bound(message: str) -> None:
    assembler = PushAssembler()
    for _ in range(8):
        with contextlib.suppress(ConnectError):
            assembler.add("PUSH_REPLY," + message + ",push-continuation 2")
        assert sum(map(len, assembler._options)) <= 64 * 1024
