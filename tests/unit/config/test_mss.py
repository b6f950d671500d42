"""MSS limits. The numbers are those of openvpn 2.6: its mss.c and mtu.c, and its own unit tests."""

from __future__ import annotations

from dataclasses import replace

import pytest

from minivpn_trio.config.model import Remote, TunnelConfig
from minivpn_trio.config.mss import Encapsulation, fragment_limit, mss_limits

CONFIG = TunnelConfig(remotes=(Remote("a"),))
GCM = Encapsulation(cipher="AES-256-GCM")


@pytest.mark.parametrize(
    ("around", "ipv4", "ipv6"),
    [
        (GCM, 1400, 1380),
        (GCM._replace(outer_ipv6=True), 1380, 1360),
        (GCM._replace(transport="tcp"), 1386, 1366),
        (Encapsulation(cipher="AES-128-CBC", auth="SHA1"), 1379, 1359),
        (Encapsulation(cipher="CHACHA20-POLY1305"), 1400, 1380),
        # One byte of framing, three bytes less without a peer id, four more in the epoch format.
        (GCM._replace(compression="comp-lzo-no"), 1399, 1379),
        (GCM._replace(compression="stub"), 1399, 1379),
        (GCM._replace(compression="stub-v2"), 1400, 1380),
        (GCM._replace(has_peer_id=False), 1403, 1383),
        (GCM._replace(epoch=True), 1396, 1376),
    ],
)
def test_defaults(around: Encapsulation, ipv4: int, ipv6: int) -> None:
    assert mss_limits(CONFIG, around, tun_mtu=1500) == (ipv4, ipv6)


@pytest.mark.parametrize("size", range(900, 1201, 25))
def test_openvpns_own_numbers_for_aead(size: int) -> None:
    # openvpn 2.6.14, tests/unit_tests/openvpn/test_crypto.c, test_mssfix_mtu_calculation: peer id,
    # packet id, tag, TCP and IPv4 are taken off.
    assert mss_limits(replace(CONFIG, mssfix=size), GCM, tun_mtu=1400)[0] == size - 4 - 4 - 16 - 40


@pytest.mark.parametrize("size", range(990, 1011))
@pytest.mark.parametrize("framing", ["none", "comp-lzo-no"])
def test_openvpns_own_numbers_for_cbc(size: int, framing: str) -> None:
    # The same test: 911, 927 or 943 for AES-128-CBC with a static key, one less with compression.
    # There, no opcode and no HMAC surround the packet (24 bytes less than here), and its packet
    # id has 8 bytes (4 more).
    expected = (911 if size <= 991 else 943 if size >= 1008 else 927) - (framing != "none")
    around = Encapsulation(cipher="AES-128-CBC", auth="SHA1", compression=framing)
    assert mss_limits(replace(CONFIG, mssfix=size + 24), around, tun_mtu=1400)[0] == expected + 4


@pytest.mark.parametrize("cipher", ["AES-128-CBC", "AES-256-CBC"])
@pytest.mark.parametrize("auth", ["SHA1", "SHA224", "SHA256", "SHA384", "SHA512"])
@pytest.mark.parametrize("size", range(1200, 1300, 7))
@pytest.mark.parametrize("compression", ["none", "stub"])
def test_cbc_fills_its_blocks_and_no_more(cipher: str, auth: str, size: int, compression: str) -> None:
    config = replace(CONFIG, mssfix=size)
    around = Encapsulation(cipher=cipher, auth=auth, compression=compression)
    mss, _ = mss_limits(config, around, tun_mtu=1500)
    assert mss is not None

    def datagram(segment: int) -> int:
        plain = 4 + (compression == "stub") + 40 + segment
        digest = {"SHA1": 20, "SHA224": 28, "SHA256": 32, "SHA384": 48, "SHA512": 64}[auth]
        return 4 + digest + 16 + (plain // 16 + 1) * 16

    assert datagram(mss) <= size < datagram(mss + 1)


@pytest.mark.parametrize(
    ("change", "tun_mtu", "limits"),
    [
        ({"mssfix": 0}, 1500, (None, None)),
        ({"mssfix": 1450}, 1500, (1450 - 24 - 40, 1450 - 24 - 60)),
        ({"mssfix": 1450, "mssfix_mtu": True}, 1500, (1450 - 28 - 24 - 40, 1450 - 28 - 24 - 60)),
        ({"mssfix": 1450, "mssfix_fixed": True}, 1500, (1410, 1390)),
        ({"tun_mtu": 1400}, 1400, (1360, 1340)),
        ({"tun_mtu": 9000}, 9000, (8960, 8940)),
        ({"fragment": 1300}, 1500, (1300 - 28 - 24 - 40, 1300 - 28 - 24 - 60)),
        ({"fragment": 1300, "fragment_mtu": True}, 1500, (1300 - 28 - 24 - 40, 1300 - 28 - 24 - 60)),
        ({"mssfix": 1}, 1500, (88, 88)),
        ({}, 1280, (1240, 1220)),
    ],
)
def test_forms_of_mssfix(change: dict[str, int], tun_mtu: int, limits: tuple[int | None, int | None]) -> None:
    assert mss_limits(replace(CONFIG, **change), GCM, tun_mtu=tun_mtu) == limits  # type: ignore[arg-type]


def test_the_fragment_header_counts() -> None:
    config = replace(CONFIG, fragment=1300)
    assert mss_limits(config, GCM._replace(has_fragment=True), tun_mtu=1500)[0] == 1300 - 28 - 24 - 4 - 40
    assert fragment_limit(config, GCM) == 1300
    assert fragment_limit(replace(config, fragment_mtu=True), GCM._replace(outer_ipv6=True)) == 1252
    assert fragment_limit(CONFIG, GCM) is None
