"""How much may be under way to all connections together."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from minivpn_trio.netstack.inbound import UNLIMITED, Inbound, Share
from minivpn_trio.netstack.paths import Path

MSS = 1400


def path(rtt: float) -> Path:
    made = Path()
    made.rtt = rtt
    return made


SHORT, LONG, UNKNOWN = path(0.0003), path(0.1), Path()


def opened(inbound: Inbound, now: float, position: int = 1000) -> Share:
    share = Share()
    inbound.begin(share, MSS, now)
    share.heard = position
    return share


def test_one_connection_on_a_short_path_has_all_of_it() -> None:
    inbound = Inbound()
    share = opened(inbound, 1.0)
    assert inbound.limit(share, 1000, MSS, SHORT, 1.0) == 128 * MSS


def test_a_long_path_holds_more() -> None:
    inbound = Inbound()
    share = opened(inbound, 1.0)
    assert inbound.limit(share, 1000, MSS, LONG, 1.0) == 25_000_000


def test_nothing_is_known_of_the_path() -> None:
    """The SYN came twice: nobody knows which one was answered."""
    inbound = Inbound()
    share = opened(inbound, 1.0)
    assert inbound.limit(share, 1000, MSS, UNKNOWN, 1.0) == UNLIMITED


def test_hundred_that_begin_at_once_get_four_segments_each() -> None:
    inbound = Inbound()
    shares = [Share() for _ in range(100)]
    offers = [inbound.begin(share, MSS, 1.0) for share in shares]
    assert offers[:4] == [128 * MSS, 64 * MSS, 128 * MSS // 3, 32 * MSS]
    assert offers[-1] == 4 * MSS
    assert [inbound.limit(share, 0, MSS, SHORT, 1.01) for share in shares] == [4 * MSS] * 100
    many = [opened(inbound, 1.02) for _ in range(400)]
    assert {inbound.limit(share, 1000, MSS, SHORT, 1.03) for share in many} == {3 * MSS}


def test_who_receives_much_gets_much_beside_those_who_hold_little() -> None:
    inbound = Inbound()
    bulk, small = opened(inbound, 1.0), [opened(inbound, 1.0) for _ in range(50)]
    position, now = 1000, 1.0
    for _ in range(20):
        now += 0.02
        position += 500_000
        limit = inbound.limit(bulk, position, MSS, SHORT, now)
        for share in small:
            least = inbound.limit(share, share.heard + 100, MSS, SHORT, now)
    assert limit > 120 * MSS
    assert least == 4 * MSS


def test_who_comes_late_catches_up_beside_many_who_receive_little() -> None:
    """What arrives is as much as the windows allow, so whatever they are is what was received lately."""
    inbound = Inbound()
    early, small = opened(inbound, 1.0), [opened(inbound, 1.0) for _ in range(60)]
    late = opened(inbound, 1.0)
    limits = {early: 128 * MSS, late: 4 * MSS}
    now = 1.0
    for _ in range(100):
        now += 0.01
        for share in small:
            inbound.limit(share, share.heard + 100, MSS, SHORT, now)
        # A gigabit a second.
        together = sum(limits.values())
        for share, limit in limits.items():
            limits[share] = inbound.limit(share, share.heard + 1_250_000 * limit // together, MSS, SHORT, now)
    assert limits[late] > limits[early] / 2
    assert sum(limits.values()) > 100 * MSS


def test_a_pause_is_no_reason_to_begin_anew() -> None:
    """On a long path what comes in one round trip comes at once, and others are heard meanwhile."""
    inbound = Inbound()
    bulk, small = opened(inbound, 1.0), opened(inbound, 1.0)
    inbound.limit(bulk, 2_001_000, MSS, LONG, 1.0)
    for number in range(1, 10):
        inbound.limit(small, small.heard + 100, MSS, LONG, 1.0 + number / 50)
    assert inbound.limit(bulk, 2_001_000, MSS, LONG, 1.2) > 24_000_000


@given(
    events=st.lists(
        st.tuples(
            st.integers(0, 30),
            st.integers(0, 100_000),
            st.floats(0, 0.2),
            st.sampled_from([UNKNOWN, SHORT, path(0.02), LONG]),
        ),
        max_size=200,
    )
)
def test_whatever_comes_everybody_may_be_sent_a_little_and_nobody_more_than_there_is(
    events: list[tuple[int, int, float, Path]],
) -> None:
    inbound = Inbound()
    now = 5.0
    shares = [opened(inbound, now) for _ in range(31)]
    for number, size, pause, way in events:
        now += pause
        share = shares[number]
        limit = inbound.limit(share, share.heard + size, MSS, way, now)
        assert 3 * MSS <= limit <= (UNLIMITED if way is UNKNOWN else max(128 * MSS, int(2.5e8 * way.rtt)))
