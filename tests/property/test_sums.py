"""Sums by numpy and by integers, beside the definition (RFC 1071)."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minivpn_trio.netstack import sums
from minivpn_trio.netstack.wire import all_intact, intact

pieces = st.one_of(
    st.lists(st.binary(max_size=70), max_size=10),
    # As in a burst: all of one length, or but the last.
    st.integers(1, 70).flatmap(
        lambda size: st.tuples(
            st.lists(st.binary(min_size=size, max_size=size), min_size=3, max_size=10),
            st.lists(st.binary(max_size=size), max_size=1),
        ).map(lambda parts: parts[0] + parts[1])
    ),
)


@pytest.fixture(params=[None, numpy], ids=["integers", "numpy"], scope="module", autouse=True)
def adder(request: pytest.FixtureRequest) -> Iterator[ModuleType | None]:
    before = sums.use(request.param)
    yield request.param
    sums.use(before)


def words(piece: bytes) -> int:
    """The sum, word by word."""
    padded = piece + bytes(len(piece) & 1)
    return sum(padded[at] << 8 | padded[at + 1] for at in range(0, len(padded), 2))


@given(pieces)
def test_the_sum_is_that_of_the_words(burst: list[bytes]) -> None:
    assert [number % 65535 for number in sums.totals(burst)] == [words(piece) % 65535 for piece in burst]


@given(pieces, st.integers(0, 1 << 40))
def test_a_burst_holds_if_each_of_it_does(burst: list[bytes], constant: int) -> None:
    """Also where one piece makes up for another, of which a sum over all of them would not know."""
    each = [(words(piece) + len(piece) + constant) % 65535 == 0 for piece in burst]
    assert sums.hold(burst, constant) in (None, all(each))
    if burst and burst[0] and len(set(map(len, burst))) == 1:
        # Make it right, and then one bit wrong.
        constant = -(words(burst[0]) + len(burst[0]))
        same = [burst[0]] * 6
        assert sums.hold(same, constant) in (None, True)
        spoilt = bytes([burst[0][0] ^ 4]) + burst[0][1:]
        assert sums.hold([*same, spoilt], constant) in (None, False)
        assert sums.hold([spoilt, *same], constant) in (None, False)


def test_numpy_is_asked_for_what_pays(adder: ModuleType | None) -> None:
    burst = [bytes(range(100))] * 6
    constant = -words(burst[0]) - 100
    asked = adder is not None
    assert (sums.hold(burst, constant) is not None) == asked
    assert (sums.hold([b"short", *burst, b"also"], constant) is not None) == asked
    assert sums.hold(burst[:2], constant) is None
    assert sums.hold([*burst, bytes(1000)], constant) is None
    assert sums.hold([b""] * 6, 0) is None


@pytest.mark.parametrize("size", [1388, 1389, 1390, 1391])
@pytest.mark.parametrize("octet", [0, 255])
def test_the_largest_numbers_do_not_overflow(size: int, octet: int) -> None:
    burst = [bytes([octet]) * size] * 64
    assert {number % 65535 for number in sums.totals(burst)} == {words(burst[0]) % 65535}


@pytest.mark.parametrize("ipv4", [True, False])
@pytest.mark.parametrize("size", [61, 1388])
def test_damaged_packets_are_picked_from_a_burst(ipv4: bool, size: int) -> None:
    from minivpn_trio.netstack import scapy_wire
    from minivpn_trio.netstack.packets import ACK, TcpSegment

    width = 4 if ipv4 else 16
    src, dst = bytes(range(width)), bytes(range(1, width + 1))
    burst = [
        scapy_wire.build_tcp(TcpSegment(src, dst, 7, 9, at, 1, ACK, 100, payload=bytes([at]) * size))
        for at in range(1, 9)
    ]
    assert intact(burst) == burst
    up, down = bytearray(burst[2]), bytearray(burst[5])
    up[-2] += 16
    down[-2] -= 3
    damaged = [*burst[:2], bytes(up), *burst[3:5], bytes(down), *burst[6:]]
    assert intact(damaged) == [*burst[:2], *burst[3:5], *burst[6:]]
    assert all_intact(burst)
    assert not all_intact(damaged)


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 5), st.integers(0, 40)), min_size=1, max_size=12), st.data())
def test_a_burst_of_many_connections_is_verified_as_a_whole(
    kinds: list[tuple[bool, int, int]], data: st.DataObject
) -> None:
    from minivpn_trio.netstack import scapy_wire
    from minivpn_trio.netstack.packets import ACK, TcpSegment

    burst = []
    for ipv4, host, size in kinds:
        src, dst = (bytes([host]) * (4 if ipv4 else 16) for _ in range(2))
        payload = data.draw(st.binary(min_size=size, max_size=size))
        segment = TcpSegment(src, dst, 7, host, 5, 1, ACK, 100, payload=payload)
        burst.append(scapy_wire.build_tcp(segment))
    assert all_intact(burst)
    which = data.draw(st.integers(0, len(burst) - 1))
    spoilt = bytearray(burst[which])
    spoilt[-1 - data.draw(st.integers(0, 19))] ^= 1 << data.draw(st.integers(0, 7))
    burst[which] = bytes(spoilt)
    assert not all_intact(burst)


@pytest.mark.parametrize("timestamps", [True, False])
def test_a_train_is_what_the_oracle_takes(timestamps: bool) -> None:
    from minivpn_trio.netstack import scapy_wire
    from minivpn_trio.netstack.packets import ACK, SYN, TcpSegment
    from minivpn_trio.netstack.wire import SegmentBuilder

    model = scapy_wire.build_tcp(TcpSegment(b"\x0a\x00\x00\x02", b"\x0a\x00\x00\x01", 7, 9, 1, 0, SYN, 100))
    builder = SegmentBuilder(model, timestamps=timestamps)
    pieces = [(number << 25, bytes((number * at) & 255 for at in range(1389 - number % 2))) for number in range(44)]
    for part in (pieces[::2], pieces[1::2], [*pieces[::2], (5, b"the last")], pieces):
        positions, payloads = [seq for seq, _ in part], [payload for _, payload in part]
        packets = builder.build_train(positions, payloads, 0xFFFFFFFF, ACK, 0xFFFF, 1, 2)
        for packet, (seq, payload) in zip(packets, part, strict=True):
            segment = scapy_wire.parse_untrusted(packet)
            assert isinstance(segment, TcpSegment)
            assert (segment.seq, segment.ack, segment.payload) == (seq, 0xFFFFFFFF, payload)
            assert segment.timestamps == ((1, 2) if timestamps else None)


@pytest.mark.parametrize("how", ["raises", "lies", "lacks"])
def test_a_numpy_that_does_not_work_is_not_used(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It raises RuntimeError at its import on a processor that lacks what it was built for."""
    import importlib.abc
    import sys
    from types import SimpleNamespace

    class Refusing(importlib.abc.MetaPathFinder):
        """No numpy for this processor."""

        def find_spec(self, name: str, *args: object) -> None:
            if name == "numpy":
                raise RuntimeError("built with baseline optimizations that are not there")

    before = sums.use(None)
    try:
        if how == "raises":
            monkeypatch.delitem(sys.modules, "numpy")
            monkeypatch.setattr(sys, "meta_path", [Refusing(), *sys.meta_path])
        elif how == "lies":
            wrong = SimpleNamespace(
                uint64=numpy.uint64,
                fromiter=numpy.fromiter,
                frombuffer=lambda data, _: numpy.frombuffer(data, "<u4") + 1,
            )
            monkeypatch.setitem(sys.modules, "numpy", wrong)
        else:
            monkeypatch.setitem(sys.modules, "numpy", SimpleNamespace())
        sums.load()
        assert sums.hold([b"ab"] * 8, 0) is None
    finally:
        sums.use(before)


def test_without_numpy_it_stays_with_integers(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    before = sums.use(None)
    try:
        monkeypatch.setitem(sys.modules, "numpy", None)
        sums.load()
        assert sums.hold([b"ab"] * 8, 0) is None
        monkeypatch.undo()
        sums.load()
        assert sums.hold([b"ab"] * 8, 0) is False
        assert sums.is_loaded()
    finally:
        sums.use(before)
