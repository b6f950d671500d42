"""MSS limits for a path that takes less than was configured."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minivpn_trio.config.model import Remote, TunnelConfig
from minivpn_trio.config.mss import Encapsulation, follows_path, mss_limits, within_path
from minivpn_trio.config.tunnel_info import TunnelInfo


def config(**changes: object) -> TunnelConfig:
    return TunnelConfig(remotes=(Remote("192.0.2.1"),), **changes)  # type: ignore[arg-type]


@given(
    st.builds(
        Encapsulation, cipher=st.sampled_from(["AES-256-GCM", "AES-128-CBC", "BF-CBC"]),
        auth=st.sampled_from(["SHA1", "SHA256"]), outer_ipv6=st.booleans(), has_peer_id=st.booleans(),
        compression=st.sampled_from(["none", "stub"]), epoch=st.booleans(),
    ),
    st.integers(576, 1492),
)  # fmt: skip
def test_a_path_counts_as_mssfix_mtu_does(around: Encapsulation, path: int) -> None:
    """``mssfix N mtu`` is the same promise, made by the profile."""
    ipv4, ipv6 = mss_limits(config(), around, tun_mtu=1500)
    info = within_path(TunnelInfo(mtu=1500, mss_ipv4=ipv4, mss_ipv6=ipv6), around, path)
    assert (info.mss_ipv4, info.mss_ipv6) == mss_limits(config(mssfix=path, mssfix_mtu=True), around, tun_mtu=1500)


def test_a_wide_path_and_a_tiny_one() -> None:
    around = Encapsulation(cipher="AES-256-GCM")
    info = TunnelInfo(mtu=1500, mss_ipv4=1200, mss_ipv6=1180)
    assert within_path(info, around, 1500) == info
    tiny = within_path(info, around, 100)
    assert (tiny.mss_ipv4, tiny.mss_ipv6) == (88, 88)
    off = TunnelInfo(mtu=1500)
    assert within_path(off, around, 1000) == off


@pytest.mark.parametrize(("changes", "follows"), [
    ({}, True), ({"mssfix": 1400}, True), ({"mssfix": 1400, "mssfix_mtu": True}, True), ({"fragment": 1300}, True),
    ({"mssfix": 0}, False), ({"mssfix": 1400, "mssfix_fixed": True}, False), ({"tun_mtu": 9000}, False),
])  # fmt: skip
def test_who_follows_the_path(changes: dict[str, object], follows: bool) -> None:
    assert follows_path(config(**changes)) is follows
