"""Which servers are trusted: every check of a profile against a real server with such a certificate."""

from __future__ import annotations

from dataclasses import replace

import pytest
import trio
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from minivpn_trio import ConnectError, HandshakeTimeout, Stage, TLSVerificationError, open_tun_dialer
from minivpn_trio.config.ovpn import load_config, read_profile
from minivpn_trio.events import TLSHandshakeDone, Warned
from tests.interop.exchanges import EventLog
from tests.interop.lab.lab import TUN_IPV4

SERVER = ExtendedKeyUsageOID.SERVER_AUTH
CLIENT = ExtendedKeyUsageOID.CLIENT_AUTH
#: What other profiles ask for is looked at alone.
PLAIN = "remote-cert-tls server\n"


def presenting(identity, *more: str) -> tuple[str, ...]:
    """Lines that make a server show ``identity``: the last mention counts."""
    return (f"<cert>\n{identity.cert}</cert>", f"<key>\n{identity.key}</key>", *more)


def profile_with(server, *lines: str, text: str | None = None):
    """A profile with ``lines`` for all that it checks of the server's certificate."""
    path = server.folder / "verify.ovpn"
    path.write_text((text or server.profile()).replace(PLAIN, "\n".join([*lines, ""])))
    return path


async def accepted(profile) -> EventLog:
    events = EventLog()
    with trio.fail_after(15):
        async with open_tun_dialer(profile, on_event=events) as dialer:
            assert await dialer.ping(TUN_IPV4) > 0
    return events


async def rejected(profile, words: str, kind: type[ConnectError] = TLSVerificationError) -> None:
    with trio.fail_after(10), pytest.raises(kind) as caught:
        async with open_tun_dialer(profile):
            pytest.fail("the tunnel came up")
    assert words in str(caught.value)


async def nothing_in_common(profile) -> None:
    """openvpn's server does not send the alert, so it looks like silence."""
    config = replace(load_config(profile), hand_window=2.0)
    with trio.fail_after(10), pytest.raises(HandshakeTimeout) as caught:
        async with open_tun_dialer(config):
            pytest.fail("the tunnel came up")
    assert caught.value.stage is Stage.TLS_HANDSHAKE
    assert "TLS version" in str(caught.value)


NAMES = [
    # As in the collection of profiles: 90 have "*.trust.zone name", 63 "*.hide.me name", 160 "Server name-prefix".
    ("*.hide.me", 'verify-x509-name "*.hide.me" name', True),
    ("*.trust.zone", "verify-x509-name *.trust.zone name", True),
    ("nl.hide.me", 'verify-x509-name "*.hide.me" name', False),
    ("*.hide.me", "verify-x509-name nl.hide.me name", False),
    ("Server-17", "verify-x509-name Server name-prefix", True),
    ("server-17", "verify-x509-name Server name-prefix", False),
    ("My Server-17", "verify-x509-name Server name-prefix", False),
    ("cryptostorm maine server", 'verify-x509-name "cryptostorm maine server" name', True),
    ("us1.vpn.example", "verify-x509-name us1.vpn.example name", True),
    ("us11.vpn.example", "verify-x509-name us1.vpn.example name", False),
    ("us1.vpn.example", "verify-x509-name CN=us1.vpn.example", True),
    ("us1.vpn.example", "verify-x509-name us1.vpn.example", False),
    ("us1.vpn.example", "verify-x509-name CN=us1.vpn.example subject", True),
]


@pytest.mark.parametrize(("common_name", "line", "good"), NAMES)
async def test_name(lab, start_server, common_name, line, good) -> None:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    server = start_server(extra=presenting(lab.credentials.ca.issue(subject, SERVER)))
    profile = profile_with(server, line)
    if good:
        await accepted(profile)
    else:
        await rejected(profile, "verify-x509-name wants the")


@pytest.mark.parametrize("good", [True, False])
async def test_whole_subject(lab, start_server, good) -> None:
    """In the certificate's order, as openvpn writes it."""
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.COUNTRY_NAME, "DE"),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Lab, Inc."),
            x509.NameAttribute(NameOID.COMMON_NAME, "gw"),
            x509.NameAttribute(NameOID.EMAIL_ADDRESS, "me@lab.example"),
        ]
    )
    server = start_server(extra=presenting(lab.credentials.ca.issue(subject, SERVER)))
    wanted = "C=DE, O=Lab, Inc., CN=gw, emailAddress=me@lab.example"
    if good:
        await accepted(profile_with(server, f"verify-x509-name '{wanted}' subject"))
    else:
        await rejected(profile_with(server, "verify-x509-name 'C=DE, CN=gw' subject"), "subject")


USAGES = [
    # key usage of the lab's certificates: digitalSignature, 0x80
    ("remote-cert-tls server", SERVER, True, True),
    ("remote-cert-tls server", CLIENT, True, False),
    ("remote-cert-tls server", None, True, False),
    ("remote-cert-tls server", SERVER, False, False),
    ("ns-cert-type server", SERVER, True, True),
    ("ns-cert-type server", CLIENT, True, False),
    ("remote-cert-ku", SERVER, True, True),
    ("remote-cert-ku", SERVER, False, False),
    ("remote-cert-ku 80", SERVER, True, True),
    ("remote-cert-ku a0 80", SERVER, True, True),
    ("remote-cert-ku a0 88", SERVER, True, False),
    ("remote-cert-ku 0", SERVER, True, False),
    ('remote-cert-eku "TLS Web Server Authentication"', SERVER, True, True),
    ("remote-cert-eku serverAuth", SERVER, False, True),
    ("remote-cert-eku 1.3.6.1.5.5.7.3.1", SERVER, True, True),
    ("remote-cert-eku 1.3.6.1.5.5.8.2.2", SERVER, True, False),
    ('remote-cert-eku "TLS Web Server Authentication"', CLIENT, True, False),
]


@pytest.mark.parametrize(("line", "purpose", "key_usage", "good"), USAGES)
async def test_usage(lab, start_server, line, purpose, key_usage, good) -> None:
    identity = lab.credentials.ca.issue("lab-server", purpose, key_usage=key_usage)
    profile = profile_with(start_server(extra=presenting(identity)), line)
    if good:
        await accepted(profile)
    else:
        # Without a CA's help openssl itself finds a client's purpose unsuitable.
        await rejected(profile, "was not accepted")


@pytest.mark.parametrize("place", ["file", "inline"])
@pytest.mark.parametrize("state", ["good", "revoked", "expired", "another CA's", "missing"])
async def test_crl(lab, start_server, place, state) -> None:
    ca, server_identity = lab.credentials.ca, lab.credentials.server
    crl = {
        "good": ca.crl(lab.credentials.client),
        "revoked": ca.crl(server_identity),
        "expired": ca.crl(expired=True),
        "another CA's": lab.credentials.wrong_ca.crl(),
        "missing": "",
    }[state]
    server = start_server()
    if place == "file":
        if state != "missing":
            (server.folder / "crl.pem").write_text(crl)
        profile = profile_with(server, "remote-cert-tls server", "crl-verify crl.pem")
    else:
        profile = profile_with(server, "remote-cert-tls server", f"<crl-verify>\n{crl}</crl-verify>")
    if state == "missing":
        with pytest.raises(Exception, match="crl-verify"):
            async with open_tun_dialer(profile):
                pytest.fail("the tunnel came up")
    elif state == "good":
        await accepted(profile)
    else:
        words = {"revoked": "revoked", "expired": "CRL has expired", "another CA's": "unable to get certificate CRL"}
        await rejected(profile, words[state])


async def test_revocations_in_a_folder(lab, start_server) -> None:
    """A file named by a serial number, from one connection to the next, of one configuration."""
    server = start_server()
    folder = server.folder / "revoked"
    folder.mkdir()
    config = load_config(profile_with(server, "remote-cert-tls server", "crl-verify revoked dir"))
    await accepted(config)
    serial = x509.load_pem_x509_certificate(lab.credentials.server.cert.encode()).serial_number
    (folder / str(serial)).touch()
    await rejected(config, "revoked")
    (folder / str(serial)).unlink()
    await accepted(config)


async def test_a_new_list_for_a_running_program(lab, start_server) -> None:
    server = start_server()
    file = server.folder / "crl.pem"
    file.write_text(lab.credentials.ca.crl(expired=True))
    config = load_config(profile_with(server, "remote-cert-tls server", "crl-verify crl.pem"))
    await rejected(config, "CRL has expired")
    file.write_text(lab.credentials.ca.crl())
    await accepted(config)


@pytest.mark.parametrize("form", ["one", "block", "none of them"])
async def test_fingerprint_without_ca(lab, start_server, form) -> None:
    server = start_server()
    text = server.profile()
    ca = f"<ca>\n{lab.credentials.ca.pem.strip()}\n</ca>\n"
    assert ca in text
    right, wrong = lab.credentials.server.fingerprint, lab.credentials.client.fingerprint
    lines = {
        "one": f"peer-fingerprint {right}",
        "block": f"<peer-fingerprint>\n# two\n{wrong}\n{right}\n</peer-fingerprint>",
        "none of them": f"peer-fingerprint {wrong}",
    }[form]
    profile = profile_with(server, lines, text=text.replace(ca, ""))
    if form == "none of them":
        await rejected(profile, "fingerprint")
    else:
        await accepted(profile)


@pytest.mark.parametrize("algorithm", ["SHA1", "SHA256"])
async def test_hash_of_the_ca(lab, start_server, algorithm) -> None:
    server = start_server()
    kind = hashes.SHA1() if algorithm == "SHA1" else hashes.SHA256()
    right, wrong = (ca.fingerprint(kind) for ca in (lab.credentials.ca, lab.credentials.wrong_ca))
    await accepted(profile_with(server, PLAIN.strip(), f"verify-hash {right} {algorithm}"))
    await rejected(profile_with(server, PLAIN.strip(), f"verify-hash {wrong} {algorithm}"), "verify-hash")


async def test_nothing_is_verified(start_server) -> None:
    """A warning when the profile is checked, and an event when it is used."""
    server = start_server()
    profile = profile_with(server)
    assert any("pose as the server" in warning.message for warning in read_profile(profile).warnings)
    assert not read_profile(server.profile_file()).warnings
    events = await accepted(profile)
    assert any("remote-cert-tls" in warning.text for warning in events.of(Warned))
    assert not (await accepted(server.profile_file())).of(Warned)


@pytest.mark.parametrize(
    ("line", "server_version", "got"),
    [
        ("tls-version-max 1.2", None, "TLSv1.2"),
        ("tls-version-min 1.3", None, "TLSv1.3"),
        ("tls-version-min 1.2", "1.2", "TLSv1.2"),
        ("tls-version-min 1.0", "1.3", "TLSv1.3"),
        ("tls-version-min 1.3", "1.2", None),
        ("tls-version-max 1.2", "1.3", None),
    ],
)
async def test_versions(start_server, line, server_version, got) -> None:
    profile = start_server(tls_version=server_version).profile_file(extra=(line,))
    if got is None:
        await nothing_in_common(profile)
    else:
        assert (await accepted(profile)).of(TLSHandshakeDone)[0].version == got


@pytest.mark.parametrize(
    ("line", "cipher"),
    [
        ("tls-cipher TLS-ECDHE-ECDSA-WITH-AES-256-GCM-SHA384", "ECDHE-ECDSA-AES256-GCM-SHA384"),
        ("tls-cipher ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-ECDSA-AES128-GCM-SHA256"),
        (
            "tls-cipher TLS-DHE-RSA-WITH-AES-256-CBC-SHA:TLS-ECDHE-ECDSA-WITH-CHACHA20-POLY1305-SHA256",
            "ECDHE-ECDSA-CHACHA20-POLY1305",
        ),
        ('tls-cipher "DEFAULT:@SECLEVEL=0"', "ECDHE-ECDSA-AES256-GCM-SHA384"),
        ("tls-cipher TLS-DHE-RSA-WITH-AES-256-CBC-SHA", None),
        ("tls-ciphersuites TLS-CHACHA20-POLY1305-SHA256", "TLS_CHACHA20_POLY1305_SHA256"),
        ("tls-ciphersuites TLS_AES_128_GCM_SHA256", "TLS_AES_128_GCM_SHA256"),
    ],
)
async def test_ciphers(start_server, line, cipher) -> None:
    version = "1.3" if "suites" in line else "1.2"
    profile = start_server(tls_version=version, extra=("tls-cert-profile insecure",)).profile_file(extra=(line,))
    if cipher is None:
        await nothing_in_common(profile)
    else:
        assert (await accepted(profile)).of(TLSHandshakeDone)[0].cipher == cipher


@pytest.mark.parametrize(
    ("groups", "of_server", "key"),
    [
        ("secp384r1", "", "384 bits"),
        ("P-256", "", "256 bits"),
        ("secp521r1:X25519", "", "521 bits"),
        ("X25519:P-256", "", "X25519"),
        ("P-521:P-384", "secp384r1", "384 bits"),
        ("secp521r1:P-256", "secp384r1", None),
        ("nonsense:secp384r1", "", "384 bits"),
    ],
)
async def test_groups(start_server, groups, of_server, key) -> None:
    """The list is offered in its order; a name that nobody knows is left out with a warning."""
    server = start_server(extra=(f"tls-groups {of_server}",) if of_server else ())
    profile = server.profile_file(extra=(f"tls-groups {groups}",))
    if key is None:
        await nothing_in_common(profile)
        return
    events = await accepted(profile)
    warned = any("tls-groups" in warning.text for warning in events.of(Warned))
    assert warned is ("nonsense" in groups)
    assert key in server.log.partition("peer temporary key: ")[2].partition("\n")[0]


@pytest.mark.parametrize(
    ("level", "good"), [("insecure", True), ("legacy", True), ("preferred", False), ("suiteb", False)]
)
async def test_certificate_profiles(lab, start_server, level, good) -> None:
    """A server with RSA of 1024 bits."""
    weak = lab.credentials.ca.issue(
        "lab-server", SERVER, key=rsa.generate_private_key(public_exponent=65537, key_size=1024)
    )
    server = start_server(extra=presenting(weak, "tls-cert-profile insecure"))
    profile = server.profile_file(extra=(f"tls-cert-profile {level}",))
    if good:
        await accepted(profile)
    else:
        await rejected(profile, "", ConnectError)


async def test_old_authority(lab, start_server) -> None:
    """An expired server is refused whatever the profile checks, or does not."""
    old = lab.credentials.ca.issue("lab-server", SERVER, expired=True)
    server = start_server(extra=presenting(old))
    await rejected(profile_with(server), "expired")
