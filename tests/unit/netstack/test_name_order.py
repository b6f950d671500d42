"""Destination address selection by RFC 6724's own examples, and the cache of names."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minivpn_trio.netstack.address_order import ordered
from minivpn_trio.netstack.name_cache import NameCache


@pytest.mark.parametrize(("sources", "destinations"), [
    # RFC 6724, 10.2, as far as one address of each family has a say: best destination first.
    (["2001:db8:1::2", "169.254.13.78"], ["2001:db8:1::1", "198.51.100.121"]),
    (["fe80::1", "198.51.100.117"], ["198.51.100.121", "2001:db8:1::1"]),
    (["2001:db8:1::2", "10.1.2.4"], ["2001:db8:1::1", "10.1.2.3"]),
    (["2001:db8:1::2"], ["2001:db8:1::1", "fe80::1"]),
    (["2002:c633:6401::2", "198.51.100.2"], ["198.51.100.1", "2002:c633:6401::1", "2001:db8:1::1"]),
    # What a tunnel usually has: private IPv4 and a unique local IPv6 address.
    (["10.8.0.2", "fd00::2"], ["192.0.2.1", "2001:db8::1"]),
    (["10.8.0.2", "fd00::2"], ["10.8.0.1", "fd00::1"]),
    (["10.8.0.2"], ["192.0.2.1", "2001:db8::1"]),
    (["2001:db8::2"], ["2001:db8::1", "192.0.2.1"]),
    # Rule 9: the longest common prefix.
    (["2001:db8:1:1::2"], ["2001:db8:1:1::9", "2001:db8:1:2::9", "2001:db8:2::9"]),
])  # fmt: skip
def test_examples(sources: list[str], destinations: list[str]) -> None:
    own = [ip_address(text) for text in sources]
    expected = [ip_address(text) for text in destinations]
    assert ordered(reversed(expected), own) == expected
    assert ordered(expected, own) == expected


def test_the_order_of_the_answer_is_kept_among_equals() -> None:
    addresses = [ip_address(f"192.0.2.{n}") for n in (9, 1, 130, 4)]
    assert ordered(addresses, [ip_address("192.0.2.129")]) == addresses


@given(st.lists(st.ip_addresses()), st.lists(st.ip_addresses(), max_size=2))
def test_nothing_is_lost(destinations: list, sources: list) -> None:  # type: ignore[type-arg]
    assert sorted(map(str, ordered(destinations, sources))) == sorted(map(str, destinations))


def test_the_cache() -> None:
    cache: NameCache[str] = NameCache(most=3, longest=100)
    cache.put("a", "1", 10, now=0)
    assert (cache.get("a", 9.9), cache.get("a", 10)) == ("1", None)
    assert len(cache) == 0
    cache.put("b", "2", 10_000, now=0)
    assert (cache.get("b", 99), cache.get("b", 100)) == ("2", None)
    cache.put("c", "3", 0, now=0)
    assert cache.get("c", 0) is None
    for name in "defg":
        cache.put(name, name, 10, now=0)
    assert [cache.get(name, 1) for name in "defg"] == [None, "e", "f", "g"]
    cache.put("e", "new", 10, now=1)
    assert cache.get("e", 2) == "new"
    cache.clear()
    assert len(cache) == 0
