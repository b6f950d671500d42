"""Whole profiles: what a file comes to, what it needs, what is wrong with it."""

from __future__ import annotations

import math
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from minivpn_trio.challenge import Challenge, ChallengeKind
from minivpn_trio.config import honour_data
from minivpn_trio.config.model import Credentials, Remote, StaticChallenge, TunnelConfig
from minivpn_trio.config.ovpn import Profile, load_config, parse_profile, read_profile
from minivpn_trio.config.proxy import Obfs4Bridge
from minivpn_trio.errors import ConfigError
from minivpn_trio.events import Challenged

PROFILES = Path(__file__).parent / "profiles"
DEFAULTS = ("AES-256-GCM", "AES-128-GCM", "CHACHA20-POLY1305")

#: What a profile needs around the line that a test is about.
BASE = "client\ndev tun\nremote vpn.example.net\nremote-cert-tls server\nca ca.crt\nauth-user-pass\n"


def read(text: str, **options: object) -> Profile:
    return parse_profile(text.encode(), base=PROFILES, **options)  # type: ignore[arg-type]


def config_of(text: str) -> TunnelConfig:
    profile = read(BASE + text)
    assert profile.errors == ()
    assert profile.config is not None
    return profile.config


def complaints(text: str, severity: str = "error") -> list[tuple[int | None, str | None, str]]:
    found = [each for each in read(BASE + text).diagnostics if each.severity == severity]
    return [(each.line, each.directive, each.message) for each in found]


LINE = BASE.count("\n") + 1


# -- files of the folder ---------------------------------------------------------------------


def test_the_least_profile() -> None:
    profile = read_profile(PROFILES / "plain.ovpn")
    assert profile.diagnostics == ()
    assert profile.needs == ()
    config = load_config(os.fspath(PROFILES / "plain.ovpn"))
    config.validate()
    assert config.remotes == (Remote("vpn.example.net", 1194, "udp"),)
    assert config.ca == (PROFILES / "ca.crt").read_bytes()
    assert config.key == (PROFILES / "client.key").read_bytes()
    assert config.data_ciphers == DEFAULTS
    assert config.data_ciphers_fallback is None
    assert config.pull
    assert config.remote_cert_tls


def test_everything_inline_with_crlf_and_latin1() -> None:
    profile = read_profile(PROFILES / "inline-crlf-latin1.ovpn")
    assert [each.directive for each in profile.diagnostics] == ["cipher"]
    assert profile.needs == ("auth-user-pass",)
    config = profile.config
    assert config is not None
    assert config.remotes == (Remote("192.0.2.1", 443, "udp"), Remote("2001:db8::1", 1195, "tcp6"))
    assert config.remote_random
    assert config.data_ciphers == (*DEFAULTS, "AES-256-CBC")
    assert config.data_ciphers_fallback == config.cipher == "AES-256-CBC"
    assert config.auth == "SHA512"
    assert config.verify_x509_name == ("vpn server", "name")
    assert (config.control_wrap, config.key_direction) == ("tls-auth", 1)
    assert config.control_wrap_key == (PROFILES / "ta.key").read_bytes()
    assert config.cert == (PROFILES / "client.crt").read_bytes()
    assert config.compression == "comp-lzo-no"
    assert config.reneg_sec == 0
    assert config.needs_credentials


def test_connection_blocks_take_the_defaults_that_stand_before_them() -> None:
    profile = read_profile(PROFILES / "connections.ovpn")
    config = profile.config
    assert config is not None
    assert config.remotes == (
        Remote("one.example.net", 5000, "tcp"),
        Remote("two.example.net", 443, "udp", settings=(("explicit_exit_notify", 1),)),
        Remote("three.example.net", 53, "udp"),
    )
    assert config.control_wrap == "tls-crypt"
    assert config.credentials == Credentials("somebody", "secret-of-somebody")
    assert config.explicit_exit_notify == 0
    assert [config.for_remote(remote).explicit_exit_notify for remote in config.remotes] == [0, 1, 0]
    assert [(each.line, each.directive) for each in profile.warnings] == [(21, "remote")]


def test_scripts_are_ignored_with_a_warning_each() -> None:
    profile = read_profile(PROFILES / "scripts.ovpn")
    assert profile.ok
    assert [each.directive for each in profile.warnings] == ["script-security", "up", "down", "plugin", "management"]


def test_merge_conflicts_are_errors_with_their_lines() -> None:
    profile = read_profile(PROFILES / "merge-conflict.ovpn")
    assert [each.line for each in profile.errors] == [3, 5, 7]
    assert profile.config is None
    with pytest.raises(ConfigError, match="merge conflict") as raised:
        load_config(PROFILES / "merge-conflict.ovpn")
    assert raised.value.line == 3
    assert raised.value.file == str(PROFILES / "merge-conflict.ovpn")


def test_a_server_is_told_what_it_is() -> None:
    errors = {each.directive for each in read_profile(PROFILES / "server.ovpn").errors}
    assert {"server", "push", "dev", "client", "remote"} <= errors


# -- servers ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "proto"),
    [
        ("udp", "udp"), ("udp4", "udp4"), ("udp6", "udp6"), ("tcp", "tcp"), ("tcp4", "tcp4"), ("tcp6", "tcp6"),
        ("tcp-client", "tcp"), ("tcp4-client", "tcp4"), ("tcp6-client", "tcp6"),
    ],
)  # fmt: skip
def test_spellings_of_protocols(written: str, proto: str) -> None:
    assert config_of(f"proto {written}\n").remotes[0].proto == proto
    assert config_of(f"remote b 1 {written}\n").remotes[1] == Remote("b", 1, proto)  # type: ignore[arg-type]


@pytest.mark.parametrize("line", ["port 5000", "rport 5000"])
def test_a_remote_without_a_port_takes_the_default_wherever_it_stands(line: str) -> None:
    assert config_of(f"{line}\n").remotes[0].port == 5000


def test_proto_force_leaves_only_its_servers() -> None:
    assert config_of("remote b 1 tcp\nproto-force tcp\n").remotes == (Remote("b", 1, "tcp"),)
    assert complaints("proto-force tcp\n")[0][1] == "proto-force"


@pytest.mark.parametrize(
    "line",
    [
        "remote b 0", "remote b 65536", "remote b x", "remote b 1 tcp-server", "remote b 1 sctp", "remote 'a b'",
        "remote http://b", "proto tcp-server", "port x", "remote a 1 udp 5",
    ],
)  # fmt: skip
def test_servers_that_cannot_be(line: str) -> None:
    (found,) = complaints(line + "\n")
    assert found[:2] == (LINE, line.split(maxsplit=1)[0])


def test_no_server_at_all() -> None:
    profile = read("client\nca ca.crt\nauth-user-pass\n")
    assert [(each.line, each.directive) for each in profile.errors] == [(None, "remote")]


def test_a_connection_without_a_remote() -> None:
    assert complaints("<connection>\nnobind\n</connection>\n")[0][:2] == (LINE, "connection")
    assert complaints("<connection>\nremote a\nverb 3\n</connection>\n")[0][:2] == (LINE + 2, "verb")


OWN = """\
<connection>
remote a 1 udp
fragment 1300
mssfix 1200 mtu
tun-mtu 1400
connect-timeout 5
explicit-exit-notify 2
local 192.0.2.1
lport 77
</connection>
<connection>
remote b 2 tcp
server-poll-timeout 6
bind
</connection>
<connection>
remote c
</connection>
"""


def test_what_a_connection_has_for_itself() -> None:
    config = config_of("connect-timeout 30\nmssfix 1000\n" + OWN)
    one, two, three = map(config.for_remote, config.remotes)
    assert (one.fragment, one.mssfix, one.mssfix_mtu, one.tun_mtu) == (1300, 1200, True, 1400)
    assert (one.connect_timeout, one.explicit_exit_notify) == (5, 2)
    assert (one.local_host, one.local_port) == ("192.0.2.1", 77)
    assert (two.fragment, two.mssfix, two.connect_timeout) == (None, 1000, 6)
    assert (two.local_host, two.local_port) == (None, 1194), "bind: by openvpn's own port"
    assert three is config
    assert (three.fragment, three.mssfix, three.connect_timeout, three.local_port) == (None, 1000, 30, 0)
    assert all(three.for_remote(remote).remotes == three.remotes for remote in three.remotes)


def test_a_connection_with_what_only_the_whole_can_have() -> None:
    text = "<connection>\nremote a\nconnect-retry 7\n</connection>\n"
    assert config_of(text).connect_retry == 7
    assert [found[:2] for found in complaints(text, "warning")][-1] == (LINE + 2, "connect-retry")


def test_interface_and_mark() -> None:
    config = config_of("bind-dev wlp3s0\nmark 4294967295\n")
    assert (config.bind_device, config.mark) == ("wlp3s0", 0xFFFFFFFF)
    assert (config_of("").bind_device, config_of("").mark) == (None, None)
    for text in ("bind-dev a/b", "bind-dev " + "x" * 16, "bind-dev ''", "mark -1", "mark 4294967296", "mark 0x7"):
        assert [found[1] for found in complaints(text + "\n")] == [text.split()[0]]


@pytest.mark.parametrize("setting", [{"bind_device": "eth0"}, {"mark": 0}])
def test_obfs4_goes_its_own_ways(setting: dict[str, Any]) -> None:
    config = replace(config_of(""), remotes=(Remote("x", 443, "tcp", Obfs4Bridge("x", 443, cert="A" * 70)),), **setting)
    with pytest.raises(ConfigError, match="its own connections"):
        config.validate()


def test_float_of_all_and_of_one() -> None:
    assert (config_of("float\n").floating, config_of("").floating) == (True, False)
    config = config_of("<connection>\nremote a\nfloat\n</connection>\n<connection>\nremote b\n</connection>\n")
    assert [config.for_remote(remote).floating for remote in config.remotes] == [True, False]


def test_resolv_retry() -> None:
    assert [config_of(f"{line}\n").resolv_retry for line in ("", "resolv-retry 20", "resolv-retry infinite")] == [
        0.0, 20.0, math.inf
    ]  # fmt: skip
    assert [found[1] for found in complaints("resolv-retry never\n")] == ["resolv-retry"]


def test_no_pause_between_attempts_is_not_to_be_had() -> None:
    assert [found[:2] for found in complaints("connect-retry 0\n", "warning")][-1] == (LINE, "connect-retry")


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("<connection>\nremote a 1 tcp\nfragment 1300\n</connection>\n", "fragment"),
        ("fragment 1300\n<connection>\nremote a 1 tcp\n</connection>\n", "fragment"),
        ("<connection>\nremote a\nbind\nnobind\n</connection>\n", "nobind"),
        ("nobind\n<connection>\nremote a\nlport 5\n</connection>\n", "nobind"),
        ("<connection>\nremote a\ntls-crypt ta.key\ntls-auth ta.key\n</connection>\n", "tls-auth"),
    ],
)
def test_connections_at_odds(text: str, name: str) -> None:
    assert [found[1] for found in complaints(text)] == [name]


def test_fragment_over_udp_beside_a_connection_over_tcp() -> None:
    text = "<connection>\nremote a 1 udp\nfragment 1300\n</connection>\n<connection>\nremote b 1 tcp\n</connection>\n"
    config = config_of(text)
    assert [config.for_remote(remote).fragment for remote in config.remotes] == [1300, None]


def test_each_connection_may_wrap_in_its_own_way() -> None:
    config = config_of(
        "tls-auth ta.key 1\n<connection>\nremote a\n</connection>\n"
        "<connection>\nremote b\ntls-crypt ta.key\n</connection>\n"
        "<connection>\nremote c\nkey-direction 0\n</connection>\n"
    )
    wraps = [config.for_remote(remote) for remote in config.remotes]
    assert [(each.control_wrap, each.key_direction) for each in wraps] == [
        ("tls-auth", 1), ("tls-crypt", None), ("tls-auth", 0),
    ]  # fmt: skip
    assert all(each.control_wrap_key for each in wraps)
    config.validate(can_ask=True)


def test_the_same_wrap_in_each_connection_is_the_profile_s() -> None:
    block = "<connection>\nremote a\ntls-crypt ta.key\n</connection>\n"
    config = config_of(block * 2)
    assert config.control_wrap == "tls-crypt"
    assert config.control_wrap_key
    assert all(remote.settings == () for remote in config.remotes)


def test_keys_of_connections_are_not_shown() -> None:
    config = config_of(
        "<connection>\nremote a\n</connection>\n<connection>\nremote b\ntls-crypt ta.key\n</connection>\n"
    )
    assert dict(config.remotes[1].settings)["control_wrap_key"]
    assert "Static key" not in repr(config)


def test_random_names() -> None:
    assert config_of("remote-random-hostname\n").remote_random_hostname
    assert config_of("setenv REMOTE_RANDOM_HOSTNAME\n").remote_random_hostname
    assert not config_of("").remote_random_hostname


# -- ciphers, framing, sizes -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "offered", "fallback"),
    [
        ("", DEFAULTS, None),
        ("cipher AES-256-GCM", DEFAULTS, "AES-256-GCM"),
        ("cipher aes-128-cbc", (*DEFAULTS, "AES-128-CBC"), "AES-128-CBC"),
        ("cipher BF-CBC", DEFAULTS, None),
        ("cipher none", DEFAULTS, None),
        ("data-ciphers AES-256-CBC", ("AES-256-CBC",), None),
        ("ncp-ciphers AES-256-GCM:AES-256-CBC\ncipher AES-256-CBC", ("AES-256-GCM", "AES-256-CBC"), "AES-256-CBC"),
        ("data-ciphers AES-256-GCM:?FOO:DES-CBC:aes-256-gcm", ("AES-256-GCM",), None),
        ("data-ciphers AES-256-GCM:bf-cbc", ("AES-256-GCM", "BF-CBC"), None),
        ("data-ciphers AES-256-GCM:BF-CBC\ncipher BF-CBC", ("AES-256-GCM", "BF-CBC"), "BF-CBC"),
        ("cipher DES-EDE3-CBC\ndata-ciphers-fallback DES-EDE3-CBC", DEFAULTS, "DES-EDE3-CBC"),
        ("data-ciphers DEFAULT:AES-192-GCM", (*DEFAULTS, "AES-192-GCM"), None),
        ("data-ciphers-fallback AES-256-CBC", DEFAULTS, "AES-256-CBC"),
        ("data-ciphers-fallback DES-CBC\ncipher AES-256-CBC", (*DEFAULTS, "AES-256-CBC"), None),
    ],
)
def test_data_ciphers(text: str, offered: tuple[str, ...], fallback: str | None) -> None:
    config = config_of(text + "\n")
    assert config.allow_small_blocks == (not {"BF-CBC", "DES-EDE3-CBC"}.isdisjoint({*offered, fallback}))
    assert config.data_ciphers == offered
    assert config.data_ciphers_fallback == fallback


@pytest.mark.parametrize(
    ("line", "warned"),
    [
        ("cipher AES-256-GCM", False),
        ("cipher AES-256-CBC", True),
        ("cipher BF-CBC", True),
        ("data-ciphers AES-256-GCM:BF-CBC", True),
        ("data-ciphers AES-256-GCM:?BF-CBC", True),
        ("data-ciphers AES-256-GCM:DES-CBC", True),
        ("data-ciphers AES-256-GCM:?DES-CBC", False),
        ("data-ciphers-fallback BF-CBC", True),
        ("data-ciphers-fallback DES-CBC", True),
    ],
)
def test_what_openvpn_would_not_use_or_we_cannot_is_warned_of(line: str, warned: bool) -> None:
    found = complaints(line + "\n", "warning")
    assert [each[:2] for each in found] == ([(LINE, line.split(maxsplit=1)[0])] if warned else [])


@pytest.mark.parametrize(
    ("text", "accepted", "warned"),
    [
        ("compress lz4", False, ["compress"]),
        ("comp-lzo\nallow-compression no", False, ["comp-lzo"]),
        ("compress lz4\nallow-compression asym", True, ["allow-compression"]),
        ("allow-compression yes\ncomp-lzo", True, ["allow-compression"]),
        ("allow-compression stub-only", False, []),
        ("compress\nallow-compression asym", True, ["allow-compression"]),
    ],
)
def test_compressed_packets_are_accepted_on_request(text: str, accepted: bool, warned: list[str]) -> None:
    assert config_of(text + "\n").receive_compressed == accepted
    assert [each[1] for each in complaints(text + "\n", "warning")] == warned


def test_a_missing_decompressor_is_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(honour_data, "decompressors", lambda: {"lzo": False, "lz4": True})
    texts = [each[2] for each in complaints("allow-compression asym\n", "warning")]
    assert len(texts) == 2
    assert "no library for lzo" in texts[1]


def test_allow_compression_takes_known_words_only() -> None:
    assert complaints("allow-compression maybe\n")[0][:2] == (LINE, "allow-compression")


def test_no_cipher_left_is_an_error() -> None:
    assert complaints("data-ciphers RC2-CBC:DES-CBC\n")[0][:2] == (LINE, "data-ciphers")


@pytest.mark.parametrize(("written", "digest"), [("SHA256", "SHA256"), ("sha1", "SHA1"), ("RSA-SHA512", "SHA512")])
def test_digests(written: str, digest: str) -> None:
    assert config_of(f"auth {written}\n").auth == digest


def test_no_digest_means_no_cbc() -> None:
    assert complaints("auth MD5\n")[0][:2] == (LINE, "auth")
    config = config_of("auth none\ncipher AES-256-CBC\n")
    assert config.data_ciphers == DEFAULTS
    assert config.data_ciphers_fallback is None
    assert complaints("auth none\ntls-auth ta.key 1\n")[0][1] == "tls-auth"
    assert complaints("auth none\ndata-ciphers AES-256-CBC\n")[0][1] == "data-ciphers"


@pytest.mark.parametrize(
    ("line", "framing", "warned"),
    [
        ("comp-lzo no", "comp-lzo-no", False),
        ("comp-lzo", "comp-lzo-no", True),
        ("comp-lzo adaptive", "comp-lzo-no", True),
        ("comp-lzo yes", "comp-lzo-no", True),
        ("compress", "stub", False),
        ("compress stub", "stub", False),
        ("compress stub-v2", "stub-v2", False),
        ("compress lzo", "comp-lzo-no", True),
        ("compress lz4", "stub", True),
        ("compress lz4-v2", "stub-v2", True),
        ("compress migrate", "none", False),
    ],
)
def test_compression_is_a_framing_only(line: str, framing: str, warned: bool) -> None:
    assert config_of(line + "\n").compression == framing
    assert bool(complaints(line + "\n", "warning")) == warned


@pytest.mark.parametrize(
    ("line", "size", "outer", "fixed"),
    [
        ("verb 3", None, False, False),
        ("mssfix", None, False, False),
        ("mssfix 0", 0, False, False),
        ("mssfix 1450", 1450, False, False),
        ("mssfix 1450 mtu", 1450, True, False),
        ("mssfix 1450 fixed", 1450, False, True),
    ],
)
def test_forms_of_mssfix(line: str, size: int | None, outer: bool, fixed: bool) -> None:
    config = config_of(line + "\n")
    assert (config.mssfix, config.mssfix_mtu, config.mssfix_fixed) == (size, outer, fixed)


def test_fragment() -> None:
    config = config_of("fragment 1300\n")
    assert (config.fragment, config.fragment_mtu) == (1300, False)
    assert config_of("fragment 1300 mtu\n").fragment_mtu
    assert complaints("fragment 1300\nproto tcp\n")[0][:2] == (LINE, "fragment")
    assert complaints("fragment 60\n")[0][:2] == (LINE, "fragment")


def test_only_tun() -> None:
    assert complaints("dev tap\n")[0][:2] == (LINE, "dev")
    assert complaints("dev-type tap\n")[0][:2] == (LINE, "dev-type")
    assert config_of("dev-type tun\ndev tapestry\n")


# -- trust -----------------------------------------------------------------------------------


def test_a_server_that_anybody_can_pose_as_is_warned_of() -> None:
    text = BASE.replace("remote-cert-tls server\n", "")
    assert [(each.line, each.directive) for each in read(text).warnings] == [(None, None)]
    fingerprint = ":".join(["ab"] * 32)
    for line in (
        "verify-x509-name a name", "ns-cert-type server", "remote-cert-eku serverAuth", "remote-cert-ku a0",
        f"peer-fingerprint {fingerprint}",
    ):  # fmt: skip
        assert not any(each.line is None for each in read(text + line + "\n").warnings), line


def test_ns_cert_type_becomes_remote_cert_tls() -> None:
    profile = read(BASE.replace("remote-cert-tls", "ns-cert-type"))
    assert profile.config is not None
    assert profile.config.remote_cert_tls
    assert [each.directive for each in profile.warnings] == ["ns-cert-type"]


def test_fingerprints_alone_are_enough() -> None:
    text = BASE.replace("ca ca.crt\n", "")
    one, two = ":".join(["01"] * 32), ":".join(["Fe"] * 32)
    profile = read(f"{text}<peer-fingerprint>\n# ours\n{one}\n\n{two}\n</peer-fingerprint>\n")
    assert profile.ok
    assert profile.partial.peer_fingerprints == (b"\x01" * 32, b"\xfe" * 32)
    assert complaints("peer-fingerprint 01:02\n")[0][:2] == (LINE, "peer-fingerprint")


def test_verify_hash() -> None:
    one, two = ":".join(["01"] * 32), ":".join(["02"] * 32)
    assert config_of(f"verify-hash {':'.join(['01'] * 20)}\n").verify_hash == (b"\x01" * 20,)
    assert config_of(f"verify-hash {one} SHA256\n").verify_hash == (b"\x01" * 32,)
    both = (b"\x01" * 32, b"\x02" * 32)
    assert config_of(f"<verify-hash>\n{one}\n# and\n{two}\n</verify-hash>\n").verify_hash == both
    assert config_of(f"verify-hash {one} SHA256\nverify-hash {two} SHA256\n").verify_hash == both
    assert complaints("<verify-hash>\n# none\n</verify-hash>\n")
    assert complaints(f"verify-hash {':'.join(['01'] * 32)}\n")


def test_who_is_trusted_and_who_we_are_must_be_said() -> None:
    assert [e.directive for e in read(BASE.replace("ca ca.crt\n", "")).errors] == ["ca"]
    assert [e.directive for e in read(BASE.replace("auth-user-pass\n", "")).errors] == ["auth-user-pass"]
    assert [e.directive for e in read(BASE + "cert client.crt\n").errors] == ["cert"]
    assert [e.directive for e in read(BASE.replace("client\n", "")).errors] == ["client"]


@pytest.mark.parametrize(
    ("line", "wrap", "direction"),
    [
        ("tls-auth ta.key", "tls-auth", None),
        ("tls-auth ta.key 1", "tls-auth", 1),
        ("tls-auth ta.key 0\nkey-direction 1", "tls-auth", 1),
        ("key-direction 0\ntls-auth ta.key", "tls-auth", 0),
        ("tls-crypt ta.key\nkey-direction 1", "tls-crypt", None),
    ],
)
def test_control_wraps(line: str, wrap: str, direction: int | None) -> None:
    config = config_of(line + "\n")
    assert (config.control_wrap, config.key_direction) == (wrap, direction)
    assert config.control_wrap_key == (PROFILES / "ta.key").read_bytes()


@pytest.mark.parametrize(
    ("block", "complaint"),
    [
        ("", "no OpenVPN static key"),
        ("-----BEGIN OpenVPN Static key V1-----\nzz\n-----END OpenVPN Static key V1-----", "hexadecimal"),
        ("-----BEGIN OpenVPN Static key V1-----\n00\n-----END OpenVPN Static key V1-----", "8 bits"),
    ],
)
def test_damaged_static_keys(block: str, complaint: str) -> None:
    ((line, directive, message),) = complaints(f"<tls-auth>\n{block}\n</tls-auth>\n")
    assert (line, directive) == (LINE, "tls-auth")
    assert complaint in message


def test_two_wraps_cannot_be() -> None:
    assert complaints("tls-auth ta.key 1\ntls-crypt ta.key\n")[0][:2] == (LINE + 1, "tls-crypt")


def test_damaged_certificates_and_keys() -> None:
    assert "no PEM" in complaints("<ca>\nhello\n</ca>\n")[0][2]
    begin, end = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
    assert "base64" in complaints(f"<cert>\n{begin}\n!!!\n{end}\n</cert>\nkey client.key\n")[0][2]
    assert "no PEM" in complaints("cert client.crt\nkey client.crt\n")[0][2]


def test_an_encrypted_key_needs_its_pass_phrase() -> None:
    text = BASE + "cert client.crt\nkey client-encrypted.key\n"
    assert read(text).needs == ("auth-user-pass", "askpass")
    assert read(text, key_password=b"x").needs == ("auth-user-pass",)
    assert read(text + "askpass credentials.txt\n").partial.key_password == b"somebody"


@pytest.mark.parametrize(
    ("text", "low", "high"),
    [
        ("", "1.2", None),
        ("tls-version-min 1.0", "1.0", None),
        ("tls-version-min 1.9 or-highest", "1.3", None),
        ("tls-version-max 1.1", "1.1", "1.1"),
        ("tls-version-max 1.3", "1.2", "1.3"),
    ],
)
def test_tls_versions(text: str, low: str, high: str | None) -> None:
    config = config_of(text + "\n")
    assert (config.tls_version_min, config.tls_version_max) == (low, high)


def test_tls_settings_at_odds() -> None:
    assert complaints("tls-version-min 1.3\ntls-version-max 1.2\n")[0][:2] == (LINE + 1, "tls-version-max")
    assert complaints("tls-version-min 1.9\n")
    assert complaints("tls-cert-profile strict\n")
    assert complaints("crl-verify crls folder\n")


def test_purposes() -> None:
    for name in ("TLS Web Server Authentication", "serverAuth", "1.3.6.1.5.5.7.3.1"):
        assert config_of(f"remote-cert-eku '{name}'\n").remote_cert_eku == name
    for name in ("anything", "1.", "3.1.1", "1.40.1", "1.3.01"):
        assert complaints(f"remote-cert-eku {name}\n")[0][:2] == (LINE, "remote-cert-eku")


def test_a_pkcs12_bundle_is_identity_and_ca(tmp_path: Path) -> None:
    (tmp_path / "me.p12").write_bytes(b"\x30\x03")
    text = "client\ndev tun\nremote a\nremote-cert-tls server\n"
    profile = parse_profile(f"{text}pkcs12 me.p12\n".encode(), base=tmp_path)
    assert profile.diagnostics == ()
    profile.partial.validate()
    inline = parse_profile(f"{text}<pkcs12>\nMAM=\n</pkcs12>\n".encode())
    assert inline.partial.pkcs12 == profile.partial.pkcs12 == b"\x30\x03"
    assert parse_profile(f"{text}<pkcs12>\nM\n</pkcs12>\n".encode()).errors[0].directive == "pkcs12"


# -- credentials and files -------------------------------------------------------------------


def test_credentials() -> None:
    assert read(BASE).needs == ("auth-user-pass",)
    assert read(BASE + "<auth-user-pass>\nme\nmine\n</auth-user-pass>\n").partial.credentials == Credentials(
        "me", "mine"
    )
    assert read(BASE + "<auth-user-pass>\nme\n</auth-user-pass>\n").needs == ("auth-user-pass",)
    given = read(BASE + "auth-user-pass nowhere.txt\n", credentials=Credentials("a", "b"))
    assert given.needs == ()
    assert given.partial.credentials == Credentials("a", "b")


def test_user_name_without_a_password() -> None:
    profile = read(BASE + "<auth-user-pass>\nme\n</auth-user-pass>\n")
    assert profile.partial.username == "me"
    profile.partial.validate(can_ask=True)
    with pytest.raises(ConfigError, match="auth-user-pass"):
        profile.partial.validate()


def test_how_to_log_in() -> None:
    assert config_of("").auth_retry == "none"
    assert not config_of("").auth_nocache
    for how in ("none", "nointeract", "interact"):
        assert config_of(f"auth-retry {how}\n").auth_retry == how
    assert complaints("auth-retry always\n")[0][:2] == (LINE, "auth-retry")
    assert config_of("auth-nocache\n").auth_nocache


def test_static_challenge() -> None:
    config = config_of('static-challenge "Your code: " 1\n')
    assert config.static_challenge == StaticChallenge("Your code: ", echo=True)
    assert config_of("static-challenge PIN 0 concat\n").static_challenge == StaticChallenge("PIN", concatenated=True)
    assert config_of("static-challenge PIN 0 scrv1\n").static_challenge == StaticChallenge("PIN")
    assert read(BASE + "static-challenge PIN 0\n").needs == ("auth-user-pass", "static-challenge")
    for bad in ("PIN", "PIN yes", "PIN 1 base64", "'' 1"):
        assert complaints(f"static-challenge {bad}\n")[0][:2] == (LINE, "static-challenge")
    with pytest.raises(ConfigError, match="static-challenge"):
        config.with_credentials("a", "b").validate()
    config.validate(can_ask=True)


def test_files_that_do_not_exist_are_needed_and_no_error(tmp_path: Path) -> None:
    profile = read(BASE.replace("ca.crt", "keys/ca.crt") + "tls-auth ta2.key 1\nauth-user-pass /nowhere/pass.txt\n")
    assert profile.ok
    assert profile.needs == ("file:keys/ca.crt", "file:ta2.key", "auth-user-pass")
    path = tmp_path / "a.ovpn"
    path.write_text("client\nremote a\nca no.crt\nauth-user-pass no.txt\n")
    with pytest.raises(ConfigError, match=r"no\.crt does not exist") as raised:
        load_config(path)
    assert (raised.value.line, raised.value.directive) == (3, "ca")
    path.write_text(f"client\nremote a\nca {PROFILES / 'ca.crt'}\nauth-user-pass no.txt\n")
    assert load_config(path).needs_credentials


def test_a_file_that_a_later_line_replaces_is_not_needed() -> None:
    key = (PROFILES / "ta.key").read_text()
    profile = read(BASE + f"tls-auth nowhere.key 0\n<tls-auth>\n{key}</tls-auth>\n")
    assert profile.needs == ("auth-user-pass",)
    assert profile.partial.key_direction == 0
    assert profile.partial.control_wrap_key is not None


def test_only_regular_files_of_bounded_size_are_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "big").write_bytes(b"x" * (1024 * 1024 + 1))
    for name in (".", "pipe", "big", "/dev/zero"):
        profile = parse_profile((BASE + f"crl-verify {name}\n").encode(), base=tmp_path)
        (error,) = profile.errors
        assert (error.line, error.directive) == (LINE, "crl-verify")
        assert profile.needs == ("file:ca.crt", "auth-user-pass")


def test_revocations_in_a_folder_and_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "revoked").mkdir()
    (tmp_path / "crl.pem").write_bytes(b"-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n")
    (tmp_path / "link").symlink_to(tmp_path / "revoked")
    text = BASE + "crl-verify revoked dir\ncrl-verify crl.pem\n"
    config = parse_profile(text.encode(), base=tmp_path).partial
    assert (config.crl_folder, config.crl_file) == (str(tmp_path / "revoked"), str(tmp_path / "crl.pem"))
    assert config.crl is not None
    confined = parse_profile((BASE + "crl-verify link dir\n").encode(), base=tmp_path, confine=tmp_path).partial
    assert confined.crl_folder == str(tmp_path / "revoked")

    for name in (str(PROFILES), "../x"):
        profile = parse_profile((BASE + f"crl-verify {name} dir\n").encode(), base=tmp_path, confine=tmp_path)
        assert "crl-verify" in [each.directive for each in profile.errors]
        assert profile.partial.crl_folder is None
    assert complaints("crl-verify ca.crt dir\n")[0][1] == "crl-verify"
    assert "file:nowhere" in read(BASE + "crl-verify nowhere dir\n").needs


def test_a_profile_is_a_regular_file_of_bounded_size(tmp_path: Path) -> None:
    (tmp_path / "big.ovpn").write_bytes(b"#" * (256 * 1024 + 1))
    for path in (tmp_path, tmp_path / "big.ovpn", tmp_path / "none.ovpn", "/dev/zero"):
        profile = read_profile(path)
        assert not profile.ok
        with pytest.raises(ConfigError):
            load_config(path)


def test_files_can_be_confined_to_a_folder(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in-not").mkdir()
    (tmp_path / "in" / "link").symlink_to(PROFILES / "ca.crt")
    for name in ("../in-not/x", str(PROFILES / "ca.crt"), "link"):
        profile = parse_profile(BASE.replace("ca.crt", name).encode(), base=tmp_path / "in", confine=tmp_path / "in")
        assert [each.directive for each in profile.errors] == ["ca"]
    assert read(BASE, confine=PROFILES).ok


# -- unknown lines ---------------------------------------------------------------------------


def test_unknown_directives() -> None:
    ((line, directive, message),) = complaints("presist-tun\n")
    assert (line, directive) == (LINE, "presist-tun")
    assert "persist-tun" in message
    assert "'persist-key' and 'persist-tun'" in complaints("persist-keypersist-tun\n")[0][2]


@pytest.mark.parametrize("text", ["ignore-unknown-option frobnicate x\nfrobnicate 1\n", "setenv opt frobnicate 1\n",
                                  "setenv FORWARD_COMPATIBLE 1\nfrobnicate 1\n"])  # fmt: skip
def test_unknown_directives_that_are_allowed(text: str) -> None:
    assert complaints(text) == []


def test_setenv_opt_applies_a_directive_that_is_known() -> None:
    assert config_of("setenv opt tls-version-min 1.3\n").tls_version_min == "1.3"
    assert complaints("setenv opt\n")


def test_a_lost_line_break_is_suspected() -> None:
    found = complaints("route-ipv6 ::/128 ::1ping-restart 30\n", "warning")
    assert {each[:2] for each in found} == {(LINE, "route-ipv6")}
    assert "ping-restart" in found[-1][2]


def test_lines_of_a_torn_key_are_not_shown() -> None:
    secret = "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgsecretsecret"
    profile = read(BASE + f"<key>\nx\n</key>\n{secret}\n{secret} {secret}\n")
    assert all(secret not in f"{each.message}{each.directive}" for each in profile.diagnostics)
    assert [each.line for each in profile.errors if each.directive is None] == [LINE + 3, LINE + 4]


@pytest.mark.parametrize("text", ["Netherlands.ovpn", "../other/New York.ovpn\n", "Netherlands"])
def test_a_lost_symbolic_link_is_recognized(text: str) -> None:
    (error,) = parse_profile(text.encode()).errors
    assert "symbolic link" in error.message
    assert error.line == 1


def test_garbage_does_not_flood() -> None:
    assert len(parse_profile(b"!\n" * 5000).diagnostics) <= 201


def test_including_is_refused() -> None:
    assert complaints("config plain.ovpn\n")[0][:2] == (LINE, "config")


@pytest.mark.parametrize(
    ("directive", "window", "seconds"),
    [("", 2048, 15), ("replay-window 0", 0, 15), ("replay-window 64", 64, 15), ("replay-window 64 0", 64, 0)],
)
def test_the_window_against_replays(directive: str, window: int, seconds: float) -> None:
    config = config_of(f"{directive}\n")
    assert (config.replay_window, config.replay_time) == (window, seconds)


# -- the rest --------------------------------------------------------------------------------


def test_timers() -> None:
    config = config_of(
        "keepalive 10 60\nreneg-sec 100 50\nreneg-bytes 1000\nreneg-pkts 9\nhand-window 30\ntran-window 60\n"
        "tls-timeout 4\nreplay-window 256 30\nconnect-retry 2 20\nconnect-retry-max 3\nserver-poll-timeout 7\n"
        "inactive 90 1000\nsession-timeout 700\nexplicit-exit-notify 2\nsndbuf 1000\nrcvbuf 2000\n"
    )
    assert (config.ping, config.ping_restart, config.ping_exit) == (10, 60, 0)
    assert (config.reneg_sec, config.reneg_bytes, config.reneg_packets) == (100, 1000, 9)
    assert (config.hand_window, config.tran_window, config.tls_timeout) == (30, 60, 4)
    assert (config.replay_window, config.replay_time) == (256, 30)
    assert (config.connect_retry, config.connect_retry_max_delay, config.connect_retry_max) == (2, 20, 3)
    assert (config.connect_timeout, config.explicit_exit_notify) == (7, 2)
    assert (config.inactive, config.inactive_bytes, config.session_timeout) == (90, 1000, 700)
    assert (config.sndbuf, config.rcvbuf) == (1000, 2000)


def test_ping_restart_and_ping_exit_replace_each_other() -> None:
    config = config_of("ping-restart 10\nping-exit 20\n")
    assert (config.ping_restart, config.ping_exit) == (0, 20)
    config = config_of("ping-exit 20\nping-restart 0\n")
    assert (config.ping_restart, config.ping_exit) == (0, 0)
    assert complaints("keepalive 10 15\n")
    assert complaints("ping 90000\n")


def test_local_options_and_filters() -> None:
    config = config_of(
        "dhcp-option DNS 10.0.0.1\nroute 10.0.0.0 255.0.0.0 vpn_gateway 5\nredirect-gateway def1\nroute-nopull\n"
        'pull-filter ignore "dhcp-option DNS6"\ntopology subnet\n'
    )
    assert config.local_options == (
        ("dhcp-option", "DNS", "10.0.0.1"),
        ("route", "10.0.0.0", "255.0.0.0", "vpn_gateway", "5"),
        ("redirect-gateway", "def1"),
        ("topology", "subnet"),
    )
    assert config.pull_filters == (("ignore", "dhcp-option DNS6"),)
    assert config.route_nopull
    assert complaints("pull-filter drop x\n")
    assert complaints("dhcp-option DNS example\n", "warning")[0][:2] == (LINE, "dhcp-option")


def test_peer_info_goes_out_only_where_openvpn_sends_it() -> None:
    assert config_of("setenv UV_A 1\nsetenv IV_GUI_VER x\n").peer_info == (("IV_GUI_VER", "x"),)
    assert config_of("setenv UV_A 1\npush-peer-info\n").peer_info == (("UV_A", "1"),)
    # What tells one host from others is never looked up, and goes out only if both directives say so.
    assert config_of("setenv IV_HWADDR 02:00:5e:10:00:01\n").peer_info == ()
    assert config_of("push-peer-info\n").peer_info == ()
    named = config_of("setenv IV_HWADDR 02:00:5e:10:00:01\nsetenv PUSH_PEER_INFO 1\n")
    assert named.peer_info == (("IV_HWADDR", "02:00:5e:10:00:01"),)
    assert complaints("setenv GENERIC_CONFIG 1\n")


def test_a_config_passes_through() -> None:
    config = TunnelConfig(remotes=(Remote("a"),))
    assert load_config(config) is config
    assert load_config(config, credentials=Credentials("a", "b")).credentials == Credentials("a", "b")


def test_nothing_that_is_read_shows_in_repr() -> None:
    profile = read_profile(PROFILES / "connections.ovpn")
    text = repr(profile)
    assert "secret-of-somebody" not in text
    assert (PROFILES / "ta.key").read_text().split("\n")[5] not in text


def test_a_check_by_a_program_that_is_not_run() -> None:
    """Without another check, leaving it out would trust whoever has a certificate of the CA."""
    text = BASE.replace("remote-cert-tls server\n", "")
    line = text.count("\n") + 1
    profile = read(text + "tls-verify /etc/openvpn/check.sh\n")
    assert [(each.line, each.directive) for each in profile.errors] == [(line, "tls-verify")]
    for check in ("remote-cert-tls server", "verify-x509-name a name", f"verify-hash {':'.join(['00'] * 20)}"):
        profile = read(f"{text}tls-verify /etc/openvpn/check.sh\n{check}\n")
        assert profile.ok
        (warning,) = [each for each in profile.warnings if each.directive == "tls-verify"]
        assert "not checked" in warning.message


def test_a_token_in_a_profile_is_not_used_and_that_is_said() -> None:
    (warning,) = read(BASE + "auth-token SECRET\n").warnings
    assert (warning.line, warning.directive) == (LINE, "auth-token")
    assert "SECRET" not in str(read(BASE + "auth-token SECRET\n"))


def test_who_somebody_is_stays_out_of_repr() -> None:
    shown = repr(config_of("push-peer-info\nsetenv UV_TOKEN SECRET\n<auth-user-pass>\nSECRET\n</auth-user-pass>\n"))
    assert "SECRET" not in shown
    challenge = Challenge(kind=ChallengeKind.WEB, text="", username="SECRET", url="https://SECRET/")
    assert "SECRET" not in repr(Challenged(time=0, challenge=challenge))


def test_a_refused_check_is_told_once() -> None:
    profile = read(BASE.replace("remote-cert-tls server\n", "") + "tls-verify /etc/openvpn/check.sh\n")
    assert [each.severity for each in profile.diagnostics if each.directive == "tls-verify"] == ["error"]
    (warning,) = [each for each in read(BASE + "tls-verify x\n").warnings if each.directive == "tls-verify"]
    assert "error" not in warning.message


def test_a_folder_of_revoked_certificates_without_its_word(tmp_path: Path) -> None:
    (tmp_path / "revoked").mkdir()
    (error,) = parse_profile((BASE + "crl-verify revoked\n").encode(), base=tmp_path).errors
    assert (error.line, error.message) == (LINE, "it is a folder: write dir after it")


def test_a_file_that_is_no_text_at_all_has_one_error() -> None:
    for data in (BASE.encode("utf-16"), BASE.encode("utf-16-le"), BASE.encode("utf-16-be"), b"", b"client\rremote a\r"):
        assert [each.line for each in parse_profile(data).diagnostics] == [None]


def test_a_line_that_cannot_be_read_names_its_directive() -> None:
    for name, directive in (("verify-x509-name", "verify-x509-name"), ("--setenv", "setenv"), ("S3cretOfABlock", None)):
        (error,) = read(f"{BASE}{name} {'x' * 257}\n").errors
        assert (error.line, error.directive) == (LINE, directive)
        assert "256 characters" in error.message


@pytest.mark.parametrize(
    ("lines", "warned"),
    [
        ("float\n", False),
        ("float\nproto tcp\n", True),
        ("float\nsocks-proxy 192.0.2.1\n", True),
        ("float\nproto tcp\nremote 192.0.2.2 1194 udp\n", False),
        ("proto tcp\n", False),
    ],
)
def test_float_where_it_does_nothing(lines: str, warned: bool) -> None:
    found = [(each.line, each.directive) for each in read(BASE + lines).warnings if each.directive == "float"]
    assert found == ([(LINE, "float")] if warned else [])


def test_an_asterisk_in_a_name_is_compared_as_it_is() -> None:
    for line, warned in (("'*.example' name", True), ("'C=*' subject", False), ("www.example name", False)):
        warnings = read(f"{BASE}verify-x509-name {line}\n").warnings
        assert [each.directive for each in warnings] == (["verify-x509-name"] if warned else [])
