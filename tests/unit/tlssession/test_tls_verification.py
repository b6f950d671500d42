"""Whom the client trusts, and what each refusal says at both ends."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID, ObjectIdentifier
from OpenSSL import SSL, crypto
from tlssession_pair import client_config, server_config
from tlssession_pki import (
    CA,
    CLIENT,
    CLIENT_CERT,
    OTHER_CA,
    SERVER_CERT,
    UNIX_TIME,
    Authority,
    Issued,
    name,
)

from minivpn_trio.config.model import TunnelConfig
from minivpn_trio.config.ovpn import parse_profile
from minivpn_trio.errors import ConfigError, ConnectError, TLSVerificationError
from minivpn_trio.packet.ids import Role
from minivpn_trio.tlssession.openssl import MAX_HANDSHAKE, TLSContext, TLSEngine
from minivpn_trio.tlssession.verify import key_usage_bits, subject_text

VERSIONS = ("1.2", "1.3")
DAY = 86400


def shake(
    client: TunnelConfig, server: TunnelConfig, *, unix_time: float = UNIX_TIME
) -> tuple[TLSEngine, TLSEngine, dict[str, ConnectError]]:
    """Join two engines; returns them and what each raised. What is put out after an error is delivered too."""
    ours, theirs = TLSContext(client, Role.CLIENT).open(unix_time), TLSContext(server, Role.SERVER).open(unix_time)
    return ours, theirs, join(ours, theirs)


def join(client: TLSEngine, server: TLSEngine) -> dict[str, ConnectError]:
    """What each of two engines raised in its handshake with the other."""
    ends = {"client": client, "server": server}
    errors: dict[str, ConnectError] = {}
    for _ in range(6):
        for who, other in (("client", "server"), ("server", "client")):
            if who not in errors:
                try:
                    if ends[who].handshake():
                        list(ends[who].read())
                except ConnectError as exc:
                    errors[who] = exc
            data = ends[who].take_output()
            if data and other not in errors:
                ends[other].feed(data)
    return errors


def refused_by_client(server: TunnelConfig | None = None, unix_time: float = UNIX_TIME, **client: object) -> str:
    """The client's error, after checks that both ends know."""
    ours, _, errors = shake(client_config(**client), server or server_config(), unix_time=unix_time)
    assert isinstance(errors["client"], TLSVerificationError)
    assert not ours.established
    assert "alert" in str(errors["server"])
    return str(errors["client"])


def accepted(server: TunnelConfig | None = None, **client: object) -> None:
    ours, theirs, errors = shake(client_config(**client), server or server_config())
    assert not errors
    assert ours.established
    assert theirs.established


def presenting(issued: Issued, **changes: object) -> TunnelConfig:
    return server_config(cert=issued.cert, key=issued.key, **changes)


@pytest.mark.parametrize("version", VERSIONS)
def test_good(version: str) -> None:
    client, server, errors = shake(client_config(tls_version_max=version), server_config())
    assert not errors
    assert client.version == server.version == f"TLSv{version}"
    assert client.export(b"EXPORTER-x", 40) == server.export(b"EXPORTER-x", 40)
    assert client.peer_certificate == SERVER_CERT.certificate


@pytest.mark.parametrize("version", VERSIONS)
def test_wrong_ca(version: str) -> None:
    # A server sends what its own store knows of the chain, here the root.
    text = refused_by_client(tls_version_max=version, ca=OTHER_CA.cert)
    assert "CN=test CA" in text
    assert "self-signed certificate in certificate chain" in text
    assert "check that <ca>" in text


@pytest.mark.parametrize("version", VERSIONS)
def test_wrong_ca_when_the_leaf_comes_alone(version: str) -> None:
    alone = server_config(ca=OTHER_CA.cert)
    client, _, errors = shake(client_config(ca=OTHER_CA.cert, tls_version_max=version), alone)
    assert not client.established
    assert "(CN=server)" in str(errors["client"])
    assert "unable to get local issuer certificate" in str(errors["client"])


@pytest.mark.parametrize(("shift", "words"), [(20, "has expired"), (-20, "not yet valid")])
def test_dates(shift: int, words: str) -> None:
    lasting = Authority()  # the CA dies on the same day as the leaf; either may be named
    server = presenting(lasting.issue("server"), ca=CA.cert)
    assert words in refused_by_client(server, UNIX_TIME + shift * DAY, ca=lasting.cert)


def test_expired_leaf() -> None:
    text = refused_by_client(presenting(CA.issue("old", to_day=-1)))
    assert "CN=old" in text
    assert "has expired" in text
    assert "clock" in text


def test_client_certificate_posing_as_server() -> None:
    assert "purpose" in refused_by_client(presenting(CA.issue("mallory", eku=CLIENT)))


@pytest.mark.parametrize("version", VERSIONS)
def test_remote_cert_tls(version: str) -> None:
    no_eku = presenting(CA.issue("plain", eku=None))
    no_ku = presenting(CA.issue("plain", key_usage=False))
    assert "extended key usage" in refused_by_client(no_eku, tls_version_max=version)
    assert "no key usage" in refused_by_client(no_ku, tls_version_max=version)
    accepted(no_eku, remote_cert_tls=False)
    accepted(no_ku, remote_cert_tls=False)


def test_remote_cert_ku_and_eku() -> None:
    # digitalSignature 0x80 and keyAgreement 0x08, as the test certificates have.
    accepted(remote_cert_ku=(0xA0, 0x88))
    assert "remote-cert-ku" in refused_by_client(remote_cert_ku=(0xA0,))
    for purpose in ("TLS Web Server Authentication", "serverAuth", "1.3.6.1.5.5.7.3.1"):
        accepted(remote_cert_tls=False, remote_cert_eku=purpose)
    assert "purpose" in refused_by_client(remote_cert_tls=False, remote_cert_eku="1.3.6.1.5.5.7.3.99")
    with pytest.raises(ConfigError, match="remote-cert-eku"):
        TLSContext(client_config(remote_cert_eku="no purpose"), Role.CLIENT)


def test_verify_x509_name() -> None:
    subject = name(
        (NameOID.COUNTRY_NAME, "DE"),
        (NameOID.STATE_OR_PROVINCE_NAME, "Bayern"),
        (NameOID.ORGANIZATION_NAME, "Example, Inc."),
        (NameOID.COMMON_NAME, "vpn-7.example"),
        (ObjectIdentifier("2.5.4.41"), "EasyRSA"),
        (NameOID.EMAIL_ADDRESS, "me@example"),
    )
    server = presenting(CA.issue(subject))
    full = "C=DE, ST=Bayern, O=Example, Inc., CN=vpn-7.example, name=EasyRSA, emailAddress=me@example"
    assert subject_text(subject) == full
    accepted(server, verify_x509_name=(full, "subject"))
    accepted(server, verify_x509_name=("vpn-7.example", "name"))
    accepted(server, verify_x509_name=("vpn-", "name-prefix"))
    for wrong in (("vpn-7.example", "subject"), ("vpn-7", "name"), ("pn-7", "name-prefix"), ("CN=vpn-", "name-prefix")):
        text = refused_by_client(server, verify_x509_name=wrong)
        assert wrong[0] in text
        assert "verify-x509-name" in text


def test_subject_cannot_write_lines() -> None:
    subject = name((NameOID.COMMON_NAME, "a\nERROR: b\x7f"))
    assert subject_text(subject) == "CN=a\\0AERROR: b\\7F"
    text = refused_by_client(presenting(CA.issue(subject)), ca=OTHER_CA.cert)
    assert "\n" not in text
    # What a terminal obeys beyond ASCII is shown as what it is, and compared as it is.
    steering = "a\x9b2J\u202egro.elpmaxe"
    shown = refused_by_client(presenting(CA.issue(steering)), verify_x509_name=("another", "name"))
    assert shown.isprintable()
    assert "a\\u009B2J\\u202Egro" in shown
    accepted(presenting(CA.issue(steering)), verify_x509_name=(steering, "name"))
    long = name(*[(NameOID.ORGANIZATIONAL_UNIT_NAME, "x" * 60)] * 10)
    assert len(refused_by_client(presenting(CA.issue(long)), ca=OTHER_CA.cert)) < 500


@pytest.mark.parametrize("version", VERSIONS)
def test_fingerprint_without_ca(version: str) -> None:
    lone = OTHER_CA.issue("lone", to_day=-1)  # neither chain nor dates count then
    prints = (bytes(32), lone.fingerprint)
    accepted(presenting(lone), ca=None, tls_version_max=version, peer_fingerprints=prints)
    text = refused_by_client(presenting(lone), ca=None, tls_version_max=version, peer_fingerprints=(bytes(32),))
    assert "peer-fingerprint" in text


def test_fingerprint_beside_ca() -> None:
    accepted(peer_fingerprints=(SERVER_CERT.fingerprint,))
    assert "peer-fingerprint" in refused_by_client(peer_fingerprints=(CLIENT_CERT.fingerprint,))
    lone = OTHER_CA.issue("lone")
    assert "issuer" in refused_by_client(presenting(lone), peer_fingerprints=(lone.fingerprint,))


@pytest.mark.parametrize("algorithm", [hashes.SHA1(), hashes.SHA256()], ids=["sha1", "sha256"])
def test_verify_hash_is_about_the_issuer(algorithm: hashes.HashAlgorithm) -> None:
    good, bad = (each.issued.certificate.fingerprint(algorithm) for each in (CA, OTHER_CA))
    accepted(verify_hash=(good,))
    accepted(verify_hash=(bad, good))
    assert "verify-hash" in refused_by_client(verify_hash=(bad,))
    assert "verify-hash" in refused_by_client(verify_hash=(bad, SERVER_CERT.fingerprint))


def test_verify_hash_without_an_issuer() -> None:
    # A server's own certificate as the CA: there is nothing above it that the hash could be about.
    own = client_config(ca=SERVER_CERT.cert, verify_hash=(SERVER_CERT.fingerprint,))
    client, _, errors = shake(own, server_config())
    assert not client.established
    assert isinstance(errors["client"], TLSVerificationError)


def test_remote_cert_ku_says_that_it_must_be_there() -> None:
    without = presenting(CA.issue("plain", key_usage=False))
    accepted(remote_cert_tls=False, remote_cert_ku=())
    assert "no key usage" in refused_by_client(without, remote_cert_tls=False, remote_cert_ku=())
    # Reference: ssl_verify_openssl.c, x509_verify_cert_ku: 0 is in every certificate and matches none.
    assert "remote-cert-ku" in refused_by_client(remote_cert_tls=False, remote_cert_ku=(0,))


@pytest.mark.parametrize(("there", "wanted", "good"), [
    ("*.hide.me", "*.hide.me", True), ("nl.hide.me", "*.hide.me", False), ("*.hide.me", "nl.hide.me", False),
])  # fmt: skip
def test_a_star_is_a_letter(there: str, wanted: str, good: bool) -> None:
    server = presenting(CA.issue(there))
    if good:
        accepted(server, verify_x509_name=(wanted, "name"))
    else:
        assert "verify-x509-name" in refused_by_client(server, verify_x509_name=(wanted, "name"))


@pytest.mark.parametrize(("groups", "good"), [
    ("P-384", True), ("secp521r1", False), ("prime256v1", False), ("secp256r1:X25519", False),
    ("X25519:secp384r1", True), ("nonsense:P-384", True), ("?nonsense:?P-384", True),
])  # fmt: skip
def test_groups(groups: str, good: bool) -> None:
    """A server that speaks P-384 alone tells which were offered."""
    context = TLSContext(client_config(tls_groups=groups), Role.CLIENT)
    assert [text for text in context.warnings if "tls-groups" in text] == context.warnings
    assert bool(context.warnings) is ("nonsense" in groups)
    _, _, errors = shake(client_config(tls_groups=groups), server_config(tls_groups="P-384"))
    assert (not errors) is good
    accepted(tls_groups=groups)


@pytest.mark.parametrize("groups", ["nonsense", "?nonsense", ":", "é", "nonsense:worse"])
def test_no_known_group(groups: str) -> None:
    with pytest.raises(ConfigError) as caught:
        TLSContext(client_config(tls_groups=groups), Role.CLIENT)
    assert caught.value.directive == "tls-groups"
    accepted()  # nothing of the complaint is left for the next


def test_a_library_that_can_set_one_curve_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("minivpn_trio.tlssession.openssl.settings.lib", object())
    context = TLSContext(client_config(tls_groups="X25519:secp384r1:P-256"), Role.CLIENT)
    assert "2 of the names" in context.warnings[0]
    accepted(tls_groups="secp384r1")
    with pytest.raises(ConfigError, match="tls-groups"):
        TLSContext(client_config(tls_groups="X25519"), Role.CLIENT)


def test_intermediate_sent_by_the_server() -> None:
    middle = Authority("middle", parent=CA)
    leaf = middle.issue("server")
    accepted(server_config(cert=leaf.cert + middle.cert, key=leaf.key))
    accepted(presenting(leaf, extra_certs=middle.cert))
    accepted(presenting(leaf), ca=b"words before\n" + CA.cert + b"and between\r\n" + middle.cert)
    assert "issuer" in refused_by_client(presenting(leaf))


def test_crl() -> None:
    accepted(crl=CA.crl())
    accepted(crl=CA.crl(CLIENT_CERT))
    assert "revoked" in refused_by_client(crl=CA.crl(SERVER_CERT))
    assert "CRL has expired" in refused_by_client(crl=CA.crl(to_day=-1))
    # One of another CA says nothing about this server.
    assert "unable to get certificate CRL" in refused_by_client(crl=OTHER_CA.crl())
    with pytest.raises(ConfigError, match="crl-verify"):
        TLSContext(client_config(crl=b"nothing"), Role.CLIENT)


def test_crl_of_the_intermediate_alone() -> None:
    middle = Authority("middle", parent=CA)
    leaf = middle.issue("server")
    accepted(presenting(leaf), ca=CA.cert + middle.cert, crl=middle.crl())
    text = refused_by_client(presenting(leaf), ca=CA.cert + middle.cert, crl=middle.crl(leaf))
    assert "revoked" in text


def rewrite(path: Path, data: bytes) -> None:
    """Exchange a file for another one, in one step, as whoever renews it should."""
    path.with_suffix(".new").write_bytes(data)
    path.with_suffix(".new").replace(path)


def test_a_list_that_changes(tmp_path: Path) -> None:
    """It is read again while the program runs; one that cannot be read changes nothing, and that is said."""
    file = tmp_path / "crl.pem"
    file.write_bytes(CA.crl())
    config = client_config(crl=CA.crl(), crl_file=str(file))
    context = TLSContext(config, Role.CLIENT)

    def outcome(unix_time: float = UNIX_TIME) -> str:
        theirs = TLSContext(server_config(), Role.SERVER).open(unix_time)
        return str(join(context.open(unix_time), theirs).get("client", ""))

    assert outcome() == ""
    rewrite(file, CA.crl(SERVER_CERT))
    assert "revoked" in outcome()
    assert "revoked" in outcome()
    for broken in (b"", b"-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n"):
        rewrite(file, broken)
        assert "revoked" in outcome()
        assert "crl-verify" in str(context.revocations.warning)
    rewrite(file, CA.crl(to_day=1))
    assert outcome() == ""
    assert context.revocations.warning is None
    assert "CRL has expired" in outcome(UNIX_TIME + 3 * DAY)
    rewrite(file, CA.crl())
    assert outcome(UNIX_TIME + 3 * DAY) == ""
    file.unlink()
    assert outcome() == ""
    assert context.revocations.warning is not None
    # What the profile holds counts where the file is gone, and nothing does where it holds nothing.
    accepted(crl=CA.crl(), crl_file=str(file))
    with pytest.raises(ConfigError, match="crl-verify"):
        TLSContext(client_config(crl_file=str(file)), Role.CLIENT)


def test_a_folder_of_serial_numbers(tmp_path: Path) -> None:
    folder = tmp_path / "revoked"
    settings = {"crl_folder": str(folder)}
    assert "cannot be looked into" in refused_by_client(**settings)
    folder.mkdir()
    accepted(**settings)
    (folder / str(CLIENT_CERT.certificate.serial_number)).touch()
    (folder / f"{SERVER_CERT.certificate.serial_number:x}").touch()
    accepted(**settings)
    (folder / str(SERVER_CERT.certificate.serial_number)).symlink_to("/nowhere")
    assert "revoked" in refused_by_client(**settings)
    # A fingerprint instead of a CA makes no difference.
    fingerprint = SERVER_CERT.certificate.fingerprint(hashes.SHA256())
    assert "revoked" in refused_by_client(ca=None, peer_fingerprints=(fingerprint,), **settings)
    (folder / str(SERVER_CERT.certificate.serial_number)).unlink()
    (folder / str(CA.issued.certificate.serial_number)).mkdir()
    assert "a CA certificate" in refused_by_client(**settings)
    folder.rename(tmp_path / "elsewhere")
    folder.touch()
    assert "cannot be looked into" in refused_by_client(**settings)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    ("issued", "alert"),
    [(OTHER_CA.issue("client", eku=CLIENT), "unknown ca"), (CA.issue("client", eku=CLIENT, to_day=-1), "expired")],
    ids=["unknown-ca", "expired"],
)
def test_server_refuses_our_certificate(version: str, issued: Issued, alert: str) -> None:
    client = client_config(cert=issued.cert, key=issued.key, tls_version_max=version)
    _, server, errors = shake(client, server_config())
    assert not server.established
    assert isinstance(errors["server"], TLSVerificationError)
    assert isinstance(errors["client"], TLSVerificationError)
    assert alert in str(errors["client"])
    assert "our certificate" in str(errors["client"])


def test_server_wants_a_certificate_and_we_have_none() -> None:
    _, _, errors = shake(client_config(cert=None, key=None), server_config())
    assert isinstance(errors["client"], TLSVerificationError)
    assert "set cert and key" in str(errors["client"])


def test_no_version_and_no_cipher_in_common() -> None:
    _, _, errors = shake(client_config(tls_version_max="1.2"), server_config(tls_version_min="1.3"))
    assert "protocol version" in str(errors["client"])
    assert "tls-version-m" in str(errors["client"])
    rsa_only = client_config(tls_version_max="1.2", tls_cipher="TLS-ECDHE-RSA-WITH-AES-128-GCM-SHA256")
    _, _, errors = shake(rsa_only, server_config())
    assert "handshake failure" in str(errors["client"])
    assert "tls-cipher" in str(errors["client"])


def test_cipher_and_suite() -> None:
    wanted = "TLS-ECDHE-ECDSA-WITH-CHACHA20-POLY1305-SHA256"
    client, _, _ = shake(client_config(tls_version_max="1.2", tls_cipher=wanted), server_config())
    assert client.cipher == "ECDHE-ECDSA-CHACHA20-POLY1305"
    client, _, _ = shake(client_config(tls_ciphersuites="TLS_CHACHA20_POLY1305_SHA256"), server_config())
    assert client.cipher == "TLS_CHACHA20_POLY1305_SHA256"
    for changes in ({"tls_cipher": "NO-SUCH-CIPHER"}, {"tls_ciphersuites": "TLS_NO_SUCH"}, {"tls_cipher": "caf\u00e9"}):
        with pytest.raises(ConfigError, match="tls-cipher"):
            TLSContext(client_config(**changes), Role.CLIENT)


def test_versions() -> None:
    client, _, errors = shake(client_config(tls_version_min="1.0", tls_version_max="1.2"), server_config())
    assert not errors
    assert client.version == "TLSv1.2"
    for changes in ({"tls_version_max": "1.1"}, {"tls_version_min": "1.3", "tls_version_max": "1.2"}):
        with pytest.raises(ConfigError, match="tls-version-max"):
            TLSContext(client_config(**changes), Role.CLIENT)


@pytest.mark.parametrize("profile", ["insecure", "legacy", "preferred", "suiteb"])
def test_certificate_profiles(profile: str) -> None:
    accepted(tls_cert_profile=profile)


def test_garbage_instead_of_tls() -> None:
    engine = TLSContext(client_config(), Role.CLIENT).open(UNIX_TIME)
    engine.handshake()
    engine.feed(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    with pytest.raises(ConnectError, match="OpenVPN server"):
        engine.handshake()


def test_a_handshake_without_end() -> None:
    engine = TLSContext(client_config(), Role.CLIENT).open(UNIX_TIME)
    with pytest.raises(ConnectError, match="never ends"):
        for _ in range(MAX_HANDSHAKE // 1000 + 1):
            engine.feed(b"\x16\x03\x03\x3f\xff" + bytes(995))


def test_a_context_that_other_revocations_made_anew_is_told_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[object] = []
    monkeypatch.setattr(crypto.X509Store, "set_time", lambda store, time: told.append(time))
    context = TLSContext(client_config(), Role.CLIENT)
    context.open(UNIX_TIME)
    assert len(told) == 1
    changes = iter([True, False])
    monkeypatch.setattr(context.revocations, "refresh", lambda: next(changes))
    context.open(None)
    context.open(UNIX_TIME)
    assert len(told) == 2


def test_the_first_session_has_the_context_that_proved_it_good(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another is made when the time at which certificates are judged has moved, as a store keeps the first."""
    made: list[None] = []

    class Counted(SSL.Context):
        def __init__(self, method: int) -> None:
            made.append(None)
            super().__init__(method)

    monkeypatch.setattr(SSL, "Context", Counted)
    context = TLSContext(client_config(), Role.CLIENT)
    assert len(made) == 1
    for later, contexts in ((0, 1), (30, 1), (100, 2), (130, 2), (100 + DAY, 3)):
        context.open(UNIX_TIME + later)
        assert len(made) == contexts


# -- the profile's own certificate and key


def test_encrypted_key() -> None:
    locked = CLIENT_CERT.encrypted_key(b"open sesame")
    accepted(key=locked, key_password=b"open sesame")
    with pytest.raises(ConfigError, match=r"askpass.*no password"):
        TLSContext(client_config(key=locked), Role.CLIENT)
    with pytest.raises(ConfigError, match="askpass") as caught:
        TLSContext(client_config(key=locked, key_password=b"guess"), Role.CLIENT)
    assert "guess" not in str(caught.value)


def test_pkcs12() -> None:
    bundle = CA.pkcs12(CLIENT_CERT, b"pw")
    accepted(cert=None, key=None, pkcs12=bundle, key_password=b"pw")
    # Its CA is the CA unless there is another.
    accepted(cert=None, key=None, ca=None, pkcs12=bundle, key_password=b"pw")
    text = refused_by_client(cert=None, key=None, ca=OTHER_CA.cert, pkcs12=bundle, key_password=b"pw")
    assert "self-signed" in text
    for wrong in (None, b"nope"):
        with pytest.raises(ConfigError, match="pkcs12"):
            TLSContext(client_config(pkcs12=bundle, key_password=wrong), Role.CLIENT)


@pytest.mark.parametrize(
    ("changes", "directive"),
    [
        ({"ca": b"nothing"}, "ca"),
        ({"ca": b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"}, "ca"),
        ({"ca": None}, "ca"),
        ({"cert": b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"}, "cert"),
        ({"key": b"-----BEGIN PRIVATE KEY-----\nTUZTRUNSRVQ=\n-----END PRIVATE KEY-----\n"}, "key"),
        ({"key": SERVER_CERT.key}, "key"),
        ({"extra_certs": b"nothing"}, "extra-certs"),
    ],
)
def test_what_cannot_be_used(changes: dict[str, object], directive: str) -> None:
    with pytest.raises(ConfigError) as caught:
        TLSContext(client_config(**changes), Role.CLIENT)
    assert caught.value.directive == directive
    assert "TUZT" not in str(caught.value)


def test_warnings() -> None:
    assert TLSContext(client_config(), Role.CLIENT).warnings == []
    assert "remote-cert-tls" in TLSContext(client_config(remote_cert_tls=False), Role.CLIENT).warnings[0]
    assert "tls-groups" in TLSContext(client_config(tls_groups="X25519:X1"), Role.CLIENT).warnings[0]


def test_key_usage_bits() -> None:
    # Reference: the numbers of remote-cert-ku in openvpn's manual page: a0, 88.
    usage = x509.KeyUsage(True, False, True, False, False, False, False, False, False)
    assert key_usage_bits(usage) == 0xA0
    usage = x509.KeyUsage(True, False, False, False, True, False, False, False, False)
    assert key_usage_bits(usage) == 0x88


def unusable(crl: bytes) -> bytes:
    """A list that cryptography reads and OpenSSL does not: the issuer's name has the type of an octet string."""
    der = x509.load_pem_x509_crl(crl).public_bytes(Encoding.DER)
    changed = der.replace(b"\x55\x04\x03\x0c", b"\x55\x04\x03\x04", 1)
    text = base64.encodebytes(changed)
    return b"-----BEGIN X509 CRL-----\n" + text + b"-----END X509 CRL-----\n"


def test_a_list_that_openssl_refuses_changes_nothing(tmp_path: Path) -> None:
    """A renewal of the keys would end the tunnel otherwise."""
    refused = unusable(CA.crl())
    x509.load_pem_x509_crl(refused)
    with pytest.raises(ConfigError, match="crl-verify"):
        TLSContext(client_config(crl=refused), Role.CLIENT)
    file = tmp_path / "crl.pem"
    file.write_bytes(CA.crl(SERVER_CERT))
    context = TLSContext(client_config(crl=CA.crl(), crl_file=str(file)), Role.CLIENT)
    for contents in (refused, CA.crl() + refused, CA.crl() + CA.crl()[:-40]):
        rewrite(file, contents)
        theirs = TLSContext(server_config(), Role.SERVER).open(UNIX_TIME)
        assert "revoked" in str(join(context.open(UNIX_TIME), theirs)["client"])
        assert "crl-verify" in str(context.revocations.warning)


def test_a_list_that_was_cut_off() -> None:
    whole, other = CA.crl(), OTHER_CA.crl()
    accepted(crl=whole + other)
    for contents in (whole + other[:-40], other[:-40] + whole):
        with pytest.raises(ConfigError, match="crl-verify"):
            TLSContext(client_config(crl=contents), Role.CLIENT)


def test_a_list_that_was_exchanged_in_code(tmp_path: Path) -> None:
    """It counts until the file holds something else than when the profile was read."""
    file = tmp_path / "crl.pem"
    file.write_bytes(CA.crl())
    read = parse_profile(b"client\ncrl-verify crl.pem\n", base=tmp_path).partial
    config = client_config(crl=CA.crl(SERVER_CERT), crl_file=read.crl_file, crl_read=read.crl_read)
    context = TLSContext(config, Role.CLIENT)

    def outcome() -> str:
        theirs = TLSContext(server_config(), Role.SERVER).open(UNIX_TIME)
        return str(join(context.open(UNIX_TIME), theirs).get("client", ""))

    assert "revoked" in outcome()
    assert "revoked" in outcome()
    rewrite(file, CA.crl(to_day=1))
    assert outcome() == ""
    # And from the beginning, where the file is newer than the profile.
    context = TLSContext(config, Role.CLIENT)
    assert outcome() == ""
