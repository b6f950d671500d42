"""Profile and push merged: cipher, addresses, timers, filters."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface

import pytest

from minivpn_trio.config.model import Remote, TunnelConfig
from minivpn_trio.config.push import NegotiatedTunnel, negotiate, parse_push
from minivpn_trio.errors import ConnectError, Stage

CONFIG = TunnelConfig(remotes=(Remote("vpn.example.net"),))
GCM = "cipher AES-256-GCM"


def tunnel(
    *options: str, config: TunnelConfig = CONFIG, transport: str = "udp", occ_cipher: str | None = None
) -> NegotiatedTunnel:
    return negotiate(
        config,
        parse_push(options),
        transport=transport,
        remote_address="192.0.2.1:1194",
        occ_cipher=occ_cipher,
        tls_version="TLSv1.3",
    )


# -- the cipher (reference: ssl_ncp.c, check_pull_client_ncp) ---------------------------------


@pytest.mark.parametrize(
    ("pushed", "occ", "fallback", "chosen"),
    [
        ("AES-256-GCM", None, None, "AES-256-GCM"),
        ("aes-128-gcm", "BF-CBC", None, "AES-128-GCM"),
        ("CHACHA20-POLY1305", None, "AES-256-CBC", "CHACHA20-POLY1305"),
        (None, "AES-128-GCM", None, "AES-128-GCM"),
        (None, "AES-256-CBC", "AES-256-CBC", "AES-256-CBC"),
        (None, None, "AES-256-CBC", "AES-256-CBC"),
    ],
)
def test_the_cipher_that_is_chosen(pushed: str | None, occ: str | None, fallback: str | None, chosen: str) -> None:
    config = replace(CONFIG, data_ciphers_fallback=fallback)
    options = [f"cipher {pushed}"] if pushed else []
    assert tunnel(*options, config=config, occ_cipher=occ).cipher == chosen


@pytest.mark.parametrize(
    ("pushed", "occ", "fallback"),
    [
        ("AES-256-CBC", None, None),
        ("AES-256-CBC", None, "AES-256-CBC"),
        ("none", None, None),
        ("BF-CBC", "AES-256-GCM", None),
        (None, "BF-CBC", None),
        (None, "BF-CBC", "AES-256-CBC"),
        (None, None, None),
    ],
)
def test_a_cipher_that_was_not_offered_ends_it(pushed: str | None, occ: str | None, fallback: str | None) -> None:
    config = replace(CONFIG, data_ciphers_fallback=fallback)
    options = [f"cipher {pushed}"] if pushed else []
    with pytest.raises(ConnectError) as raised:
        tunnel(*options, config=config, occ_cipher=occ)
    assert raised.value.stage is Stage.PUSH


def test_a_cipher_name_from_the_network_is_not_repeated_blindly() -> None:
    with pytest.raises(ConnectError) as raised:
        tunnel("cipher \x1b[2J")
    assert "\x1b" not in str(raised.value)


# -- key derivation and flags ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "derivation"),
    [
        ((), "prf"),
        (("key-derivation tls-ekm",), "tls-ekm"),
        (("protocol-flags cc-exit tls-ekm",), "tls-ekm"),
        (("protocol-flags cc-exit",), "prf"),
    ],
)
def test_key_derivation(options: tuple[str, ...], derivation: str) -> None:
    found = tunnel(GCM, *options)
    assert found.key_derivation == found.info.key_derivation == derivation


def test_protocol_flags() -> None:
    found = tunnel(GCM, "peer-id 1", "protocol-flags cc-exit dyn-tls-crypt aead-epoch something-new")
    assert (found.cc_exit, found.dynamic_tls_crypt, found.epoch) == (True, True, True)
    assert len(found.warnings) > 1
    found = tunnel(GCM)
    assert (found.cc_exit, found.dynamic_tls_crypt, found.epoch) == (False, False, False)


@pytest.mark.parametrize("options", [(GCM,), ("cipher AES-256-CBC", "peer-id 1")])
def test_epochs_need_an_aead_cipher_and_a_peer_id(options: tuple[str, ...]) -> None:
    with pytest.raises(ConnectError, match="in epochs"):
        tunnel(
            *options, "protocol-flags aead-epoch", config=replace(CONFIG, data_ciphers=("AES-256-GCM", "AES-256-CBC"))
        )


@pytest.mark.parametrize(
    ("cipher", "set_to", "limit"),
    [
        ("BF-CBC", None, 64 << 20),
        ("DES-EDE3-CBC", None, 64 << 20),
        ("BF-CBC", 0, 0),
        ("BF-CBC", 9, 9),
        ("AES-128-CBC", None, 0),
    ],
)
def test_keys_with_small_blocks_are_renewed_soon(cipher: str, set_to: int | None, limit: int) -> None:
    found = tunnel(
        f"cipher {cipher}",
        config=replace(CONFIG, data_ciphers=(cipher,), allow_small_blocks=True, reneg_bytes=set_to),
    )
    assert found.reneg_bytes == limit
    assert any("64 bits" in text for text in found.warnings) == (cipher != "AES-128-CBC")


def test_decompression_is_for_those_who_ask() -> None:
    assert tunnel(GCM).decompress == 0
    assert tunnel(GCM, config=replace(CONFIG, receive_compressed=True)).decompress == 15_000
    assert tunnel(GCM, "tun-mtu 1280", config=replace(CONFIG, receive_compressed=True)).decompress == 12_800


# -- addresses -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "topology", "interface", "gateway"),
    [
        (
            ("topology subnet", "ifconfig 10.8.0.2 255.255.255.0", "route-gateway 10.8.0.1"),
            "subnet", "10.8.0.2/24", "10.8.0.1",
        ),
        (("topology net30", "ifconfig 10.8.0.6 10.8.0.5", "route 10.8.0.1"), "net30", "10.8.0.6/32", "10.8.0.5"),
        (("ifconfig 10.8.0.6 10.8.0.5",), "net30", "10.8.0.6/32", "10.8.0.5"),
        (("topology p2p", "ifconfig 10.8.0.6 10.8.0.1"), "p2p", "10.8.0.6/32", "10.8.0.1"),
        (("topology net30", "ifconfig 10.8.0.6 255.255.255.0"), "subnet", "10.8.0.6/24", None),
        (("topology subnet", "ifconfig 10.8.0.6 10.8.0.5"), "subnet", "10.8.0.6/32", "10.8.0.5"),
        ((), "net30", None, None),
    ],
)  # fmt: skip
def test_topologies(options: tuple[str, ...], topology: str, interface: str | None, gateway: str | None) -> None:
    info = tunnel(GCM, *options).info
    assert info.topology == topology
    assert info.ipv4 == (None if interface is None else IPv4Interface(interface))
    assert info.gateway == (None if gateway is None else IPv4Address(gateway))


def test_ipv6() -> None:
    info = tunnel(GCM, "ifconfig-ipv6 fd00::2/64 fd00::1").info
    assert info.ipv6 == IPv6Interface("fd00::2/64")
    assert info.gateway_ipv6 == IPv6Address("fd00::1")
    assert tunnel(GCM, "ifconfig-ipv6 fd00::2/64 ::").info.gateway_ipv6 is None


def test_no_address_is_worth_a_warning() -> None:
    assert "no address" in tunnel(GCM).warnings[-1]
    assert tunnel(GCM, "ifconfig 10.8.0.6 10.8.0.5").warnings == ()


# -- what the profile adds -------------------------------------------------------------------


def test_the_profiles_own_options_come_first_and_single_ones_give_way() -> None:
    config = replace(
        CONFIG,
        local_options=(
            ("dhcp-option", "DNS", "10.0.0.1"),
            ("topology", "subnet"),
            ("ifconfig", "10.1.0.2", "255.255.0.0"),
            ("route", "10.2.0.0", "255.255.0.0"),
        ),
    )
    info = tunnel(GCM, "dhcp-option DNS 10.0.0.2", "route 10.3.0.0 255.255.0.0", config=config).info
    assert [str(address) for address in info.dns] == ["10.0.0.1", "10.0.0.2"]
    assert info.routes == (IPv4Network("10.2.0.0/16"), IPv4Network("10.3.0.0/16"))
    assert info.ipv4 == IPv4Interface("10.1.0.2/16")
    assert tunnel(GCM, "ifconfig 10.4.0.2 255.255.0.0", config=config).info.ipv4 == IPv4Interface("10.4.0.2/16")


def test_route_nopull() -> None:
    config = replace(CONFIG, route_nopull=True, local_options=(("route", "10.2.0.0", "255.255.0.0"),))
    info = tunnel(
        GCM, "route 10.3.0.0 255.255.0.0", "dhcp-option DNS 10.0.0.2", "redirect-gateway def1",
        "route-ipv6 2000::/3", "ifconfig 10.8.0.6 10.8.0.5", config=config,
    ).info  # fmt: skip
    assert info.routes == (IPv4Network("10.2.0.0/16"),)
    assert (info.dns, info.redirect_gateway, info.routes_ipv6) == ((), (), ())
    assert info.ipv4 is not None


def test_pull_filters_are_prefixes_and_the_first_that_fits_counts() -> None:
    config = replace(CONFIG, pull_filters=(("accept", "route 10.3"), ("ignore", "route "), ("ignore", "ping")))
    found = tunnel(
        GCM, "route 10.3.0.0 255.255.0.0", " route 10.4.0.0 255.255.0.0", "route-gateway 10.8.0.1", "ping 10",
        "ping-restart 60", config=config,
    )  # fmt: skip
    assert found.info.routes == (IPv4Network("10.3.0.0/16"),)
    assert found.info.gateway == IPv4Address("10.8.0.1")
    assert (found.ping, found.ping_restart) == (0, 120)


def test_a_rejected_option_ends_it() -> None:
    with pytest.raises(ConnectError, match="pull-filter"):
        tunnel(GCM, "dhcp-option DNS 10.0.0.2", config=replace(CONFIG, pull_filters=(("reject", "dhcp-option"),)))


# -- sizes, timers, framing ------------------------------------------------------------------


def test_timers() -> None:
    config = replace(CONFIG, ping=5.0, ping_restart=50.0, reneg_sec=0.0)
    config = replace(config, inactive=9.0, inactive_bytes=5, session_timeout=6.0)
    found = tunnel(GCM, config=config)
    assert (found.ping, found.ping_restart, found.ping_exit) == (5, 50, 0)
    assert (found.reneg_sec, found.inactive, found.inactive_bytes, found.session_timeout) == (0, 9, 5, 6)
    found = tunnel(GCM, "ping 1", "ping-exit 7", "reneg-sec 60", "inactive 3", "session-timeout 8", config=config)
    assert (found.ping, found.ping_restart, found.ping_exit) == (1, 0, 7)
    assert (found.reneg_sec, found.inactive, found.inactive_bytes, found.session_timeout) == (60, 3, 0, 8)
    found = tunnel(GCM, "ping-restart 70", config=replace(config, ping_exit=4.0))
    assert (found.ping_restart, found.ping_exit) == (70, 0)


def test_exit_is_notified_over_udp_only() -> None:
    config = replace(CONFIG, explicit_exit_notify=1)
    assert tunnel(GCM, config=config).explicit_exit_notify == 1
    assert tunnel(GCM, "explicit-exit-notify 3", config=config).explicit_exit_notify == 3
    assert tunnel(GCM, config=config, transport="tcp").explicit_exit_notify == 0


@pytest.mark.parametrize(
    ("option", "framing", "warned"),
    [
        (None, "stub", False),
        ("compress stub-v2", "stub-v2", False),
        ("comp-lzo no", "comp-lzo-no", False),
        ("compress lz4-v2", "stub-v2", True),
    ],
)
def test_a_pushed_framing_replaces_the_profiles(option: str | None, framing: str, warned: bool) -> None:
    options = [option] if option else []
    found = tunnel(GCM, "ifconfig 10.8.0.6 10.8.0.5", *options, config=replace(CONFIG, compression="stub"))
    assert found.compression == found.info.compression == framing
    assert bool(found.warnings) == warned


def test_mtu_and_fragment() -> None:
    found = tunnel(GCM, "tun-mtu 1400", "peer-id 1", config=replace(CONFIG, fragment=1300))
    assert found.info.mtu == 1400
    assert found.fragment == 1300
    assert tunnel(GCM, config=replace(CONFIG, fragment=1300, fragment_mtu=True)).fragment == 1300 - 28
    assert tunnel(GCM, "peer-id 1").info.mss_ipv4 == 1400
    assert tunnel(GCM, "peer-id 1", "mssfix 1300").info.mss_ipv4 == 1300 - 24 - 40


def test_what_else_is_passed_on() -> None:
    found = tunnel(GCM, "auth-token secret-token", "auth-token-user bWU=", "peer-id 5", "sndbuf 1")
    assert (found.auth_token, found.auth_token_user) == ("secret-token", "me")
    assert "secret-token" not in repr(found)
    assert found.peer_id == found.info.peer_id == 5
    assert found.info.ignored_options == ("sndbuf",)
    assert (found.info.transport, found.info.remote_address, found.info.tls_version) == (
        "udp", "192.0.2.1:1194", "TLSv1.3",
    )  # fmt: skip


# -- sizes and timeouts -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pushed", "same"),
    [
        ("mssfix 1400", {"mssfix": 1400}),
        ("mssfix 1400 mtu", {"mssfix": 1400, "mssfix_mtu": True}),
        ("mssfix 1300 fixed", {"mssfix": 1300, "mssfix_fixed": True}),
        ("mssfix", {}),
        ("mssfix 0", {"mssfix": 0}),
    ],
)
def test_a_pushed_mssfix_means_what_it_means_in_a_profile(pushed: str, same: dict[str, int]) -> None:
    own = replace(CONFIG, mssfix=700, mssfix_fixed=True)
    got = tunnel(GCM, "ifconfig 10.8.0.2 255.255.255.0", pushed, config=own)
    wanted = tunnel(GCM, "ifconfig 10.8.0.2 255.255.255.0", config=replace(CONFIG, **same))  # type: ignore[arg-type]
    assert got.warnings == wanted.warnings
    assert (got.info.mss_ipv4, got.info.mss_ipv6) == (wanted.info.mss_ipv4, wanted.info.mss_ipv6)
    assert wanted.info.mss_ipv4 != 660


@pytest.mark.parametrize("pushed", ["mssfix 1400 outer", "mssfix 1400 mtu fixed", "mssfix x", "mssfix 70000"])
def test_another_mssfix_is_nonsense(pushed: str) -> None:
    assert "mssfix" in tunnel(GCM, "ifconfig 10.8.0.2 255.255.255.0", pushed).info.ignored_options


@pytest.mark.parametrize(
    ("pushed", "restart", "leave"),
    [
        (["ping-restart 10", "ping-exit 5"], 0, 5),
        (["ping-exit 5", "ping-restart 10"], 10, 0),
        (["ping-exit 5", "keepalive 2 10"], 10, 0),
        (["keepalive 2 10", "ping-exit 5"], 0, 5),
        (["ping-exit 5"], 0, 5),
        (["ping-restart 0"], 0, 0),
        ([], 120, 0),
    ],
)
def test_the_last_of_ping_exit_and_ping_restart_counts(pushed: list[str], restart: float, leave: float) -> None:
    got = tunnel(GCM, *pushed)
    assert (got.ping_restart, got.ping_exit) == (restart, leave)


@pytest.mark.parametrize("mtu", [68, 100, 148, 1280, 1500])
def test_no_segment_is_larger_than_the_mtu(mtu: int) -> None:
    info = tunnel(GCM, "ifconfig 10.8.0.2 255.255.255.0", f"tun-mtu {mtu}").info
    assert info.mtu == mtu
    assert info.mss_ipv4 is not None
    assert 1 <= info.mss_ipv4 <= mtu - 40
    assert info.mss_ipv6 is not None
    assert 1 <= info.mss_ipv6 <= max(mtu - 60, 1)


def test_ipv6_wants_1280_bytes() -> None:
    ipv6 = "ifconfig-ipv6 fd00::2/64 fd00::1"
    both = tunnel(GCM, "ifconfig 10.8.0.2 255.255.255.0", ipv6, "tun-mtu 1279")
    assert (both.info.mtu, both.info.ipv6, both.info.gateway_ipv6) == (1279, None, None)
    assert both.info.ipv4 is not None
    assert any("1280" in warning for warning in both.warnings)
    alone = tunnel(GCM, ipv6, "tun-mtu 576")
    assert (alone.info.mtu, alone.info.ipv6) == (1280, IPv6Interface("fd00::2/64"))
    assert any("1280" in warning for warning in alone.warnings)
    enough = tunnel(GCM, ipv6, "tun-mtu 1280")
    assert (enough.info.mtu, enough.warnings) == (1280, ())
