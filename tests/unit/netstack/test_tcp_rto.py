"""The retransmission timeout by RFC 6298's own arithmetic."""

from __future__ import annotations

import pytest

from minivpn_trio.netstack.tcp.rto import RetransmissionTimeout


def make() -> RetransmissionTimeout:
    return RetransmissionTimeout(initial=1.0, floor=0.2, ceiling=60.0)


def test_before_a_sample_it_is_the_initial_one() -> None:
    assert make().value == 1.0


def test_first_and_second_sample() -> None:
    # RFC 6298, 2.2: SRTT = R, RTTVAR = R/2. 2.3: RTTVAR = 3/4 RTTVAR + 1/4 |SRTT - R'|, then SRTT = 7/8 SRTT + 1/8 R'.
    rto = make()
    rto.sample(0.8)
    assert (rto.srtt, rto.rttvar) == (0.8, 0.4)
    assert rto.value == pytest.approx(0.8 + 4 * 0.4)
    rto.sample(1.6)
    assert rto.rttvar == pytest.approx(0.75 * 0.4 + 0.25 * 0.8)
    assert rto.srtt == pytest.approx(0.875 * 0.8 + 0.125 * 1.6)
    assert rto.value == pytest.approx(0.9 + 4 * 0.5)
    assert rto.min_rtt == 0.8


def test_a_steady_path_ends_at_the_floor_of_the_variance() -> None:
    rto = make()
    for _ in range(100):
        rto.sample(0.05)
    assert rto.value == pytest.approx(0.05 + 0.2)


def test_each_timeout_doubles_it_up_to_the_ceiling_and_progress_ends_that() -> None:
    rto = make()
    values = []
    for _ in range(8):
        values.append(rto.value)
        rto.expire()
    assert values == [1, 2, 4, 8, 16, 32, 60, 60]
    rto.progress()
    assert rto.value == 1.0


def test_thousands_of_timeouts_stay_finite() -> None:
    rto = make()
    for _ in range(5000):
        rto.expire()
    assert rto.value == 60.0
