"""Congestion control against the formulas of its RFCs: what is expected is computed from those, not taken over."""

from __future__ import annotations

import pytest

from minivpn_trio.netstack.tcp.congestion import ALGORITHMS, CongestionControl, Cubic, NewReno

MSS = 1000
LOSS_BASED = ["newreno", "cubic"]
#: RFC 9438, 4.6 and 5; 4.3.
BETA, C = 0.7, 0.4
ALPHA = 3 * (1 - BETA) / (1 + BETA)


class Flow:
    """A sender that always has data: one acknowledgement for each segment, evenly over each round trip."""

    def __init__(self, control: CongestionControl, *, rtt: float, now: float = 100.0) -> None:
        self.control, self.rtt, self.now = control, rtt, now

    @property
    def segments(self) -> float:
        return self.control.window / MSS

    def until(self, now: float) -> None:
        """Whole round trips, up to ``now``."""
        while self.now + self.rtt <= now + 1e-9:
            flight = self.control.window // MSS
            for _ in range(flight):
                self.now += self.rtt / flight
                self.control.handle_ack(MSS, flight * MSS, self.rtt, self.now)

    def lose_at(self, segments: int) -> None:
        self.control.window = segments * MSS
        self.control.handle_loss(segments * MSS, self.now)


def k_of(w_max: float, cwnd: float) -> float:
    """RFC 9438, figure 2."""
    return ((w_max - cwnd) / C) ** (1 / 3)


def w_cubic(seconds: float, w_max: float, k: float) -> float:
    """RFC 9438, figure 1."""
    return C * (seconds - k) ** 3 + w_max


def cubic_after_loss(at: int, rtt: float) -> Flow:
    flow = Flow(Cubic(MSS), rtt=rtt)
    flow.lose_at(at)
    return flow


# --- CUBIC ---


@pytest.mark.parametrize("w_max", [200, 400])
def test_cubic_follows_the_cubic_function(w_max: int) -> None:
    flow = cubic_after_loss(w_max, rtt=0.1)
    assert flow.segments == BETA * w_max
    k = k_of(w_max, BETA * w_max)
    start = flow.now
    for share in (0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0):
        flow.until(start + share * k)
        # The epoch begins with the first acknowledgement, and a window is whole segments: both are small.
        expected = w_cubic(flow.now - start, w_max, k)
        assert flow.segments == pytest.approx(expected, rel=0.012), share


def test_cubic_is_flat_around_k_and_symmetric() -> None:
    flow = cubic_after_loss(400, rtt=0.1)
    k = k_of(400, 280)
    start, windows = flow.now, {}
    for share in (0.9, 1.1, 1.9, 2.1):
        flow.until(start + share * k)
        windows[share] = flow.segments
    # Concave before, convex after: what is gained in a fifth of K around K is next to nothing.
    assert windows[1.1] - windows[0.9] < 2.0
    assert windows[2.1] - windows[1.9] > 60
    assert windows[1.9] - 400 == pytest.approx(C * (0.9 * k) ** 3, rel=0.05)


def test_cubic_k_does_not_depend_on_the_round_trip_time() -> None:
    for rtt in (0.05, 0.2):
        flow = cubic_after_loss(1000, rtt)
        flow.until(flow.now + k_of(1000, 700))
        assert flow.segments == pytest.approx(1000, rel=0.01)


def test_cubic_fast_convergence() -> None:
    """RFC 9438, 4.7: a second loss below the last peak gives room: W_max is cwnd * (1 + beta) / 2."""
    flow = cubic_after_loss(200, rtt=0.1)
    flow.lose_at(160)
    assert flow.segments == BETA * 160
    w_max = 160 * (1 + BETA) / 2
    k = k_of(w_max, BETA * 160)
    start = flow.now
    flow.until(start + k)
    assert flow.segments == pytest.approx(w_max, rel=0.012)
    flow.until(start + 2 * k)
    assert flow.segments == pytest.approx(w_cubic(flow.now - start, w_max, k), rel=0.015)


def test_cubic_without_fast_convergence_above_the_last_peak() -> None:
    flow = cubic_after_loss(160, rtt=0.1)
    flow.lose_at(200)
    start = flow.now
    flow.until(start + k_of(200, 140))
    assert flow.segments == pytest.approx(200, rel=0.012)


def test_cubic_is_no_slower_than_reno_on_short_paths() -> None:
    """RFC 9438, 4.3: below W_est the window is W_est, which grows by alpha a round trip, by one once it is where the
    last reduction was."""
    flow = cubic_after_loss(40, rtt=0.005)
    estimate, cwnd, prior = 28.0, 28.0, 40.0
    elapsed, k = 0.0, k_of(40, 28)
    for _ in range(100):
        flight = flow.control.window // MSS
        for _ in range(flight):
            estimate += 1 / cwnd * (ALPHA if estimate < prior else 1.0)
            cwnd = estimate
            elapsed += flow.rtt / flight
            assert w_cubic(elapsed, 40, k) < estimate, "not the region that this is about"
        flow.until(flow.now + flow.rtt)
        assert flow.segments == pytest.approx(estimate, abs=0.3)
    # 12 segments at alpha take 23 round trips; 77 are left at one each.
    assert flow.segments == pytest.approx(40 + 100 - 12 / ALPHA, abs=2)


def test_cubic_grows_by_half_a_round_trip_at_most() -> None:
    """RFC 9438, 4.2: the target lies in [cwnd, 1.5 cwnd], however far the curve has run."""
    flow = cubic_after_loss(1000, rtt=1.0)
    flow.until(flow.now + 1)
    # As if nothing had been acknowledged for a minute: the curve would be far above.
    flow.now += 60
    before = flow.segments
    flow.until(flow.now + 1)
    assert before * 1.3 < flow.segments <= before * 1.5 + 1


def test_cubic_does_not_count_the_time_that_the_application_was_idle() -> None:
    """RFC 9438, 5.8: no leap after a pause."""
    flow, steady = cubic_after_loss(200, rtt=0.1), cubic_after_loss(200, rtt=0.1)
    for each in (flow, steady):
        each.until(each.now + 2)
    window = flow.control.window
    for _ in range(100):
        flow.now += 0.1
        flow.control.handle_ack(MSS, 2 * MSS, 0.1, flow.now)
    assert flow.control.window == window
    for each in (flow, steady):
        each.until(each.now + 2)
    assert flow.segments == pytest.approx(steady.segments, rel=0.02)


@pytest.mark.parametrize("name", LOSS_BASED)
def test_idle_restarts_from_the_initial_window(name: str) -> None:
    """RFC 5681, 4.1; and the way back up to the threshold is slow start."""
    control = ALGORITHMS[name](MSS, 10)
    flow = Flow(control, rtt=0.1)
    flow.lose_at(200)
    threshold = control.threshold
    control.handle_idle(flow.now)
    assert control.window == 10 * MSS
    assert control.threshold == threshold
    flow.until(flow.now + 0.1)
    assert control.window == 20 * MSS
    control.window = 4 * MSS
    control.handle_idle(flow.now)
    assert control.window == 4 * MSS


def test_cubic_begins_a_new_epoch_after_idling() -> None:
    flow = cubic_after_loss(200, rtt=0.1)
    flow.until(flow.now + 3)
    flow.control.handle_idle(flow.now)
    flow.now += 600
    while flow.control.window < flow.control.threshold:
        flow.until(flow.now + 0.1)
    reached, start = flow.segments, flow.now
    flow.until(start + 1)
    assert flow.segments == pytest.approx(w_cubic(1, 200, k_of(200, reached)), rel=0.02)


def test_cubic_after_a_timeout() -> None:
    """RFC 9438, 4.8: one segment, slow start to the threshold, and a curve that starts there: K is 0."""
    flow = cubic_after_loss(200, rtt=0.1)
    flow.control.window = 150 * MSS
    flow.control.handle_timeout(150 * MSS, flow.now)
    assert (flow.segments, flow.control.threshold) == (1, int(BETA * 150 * MSS))
    flow.control.handle_timeout(0, flow.now)
    assert flow.control.threshold == int(BETA * 150 * MSS)
    while flow.control.window < flow.control.threshold:
        flow.until(flow.now + 0.1)
    w_max, start = flow.segments, flow.now
    assert w_max == 105
    flow.until(start + 4)
    # W_est starts where the curve does and is ahead of it at first.
    assert flow.segments == pytest.approx(max(w_cubic(4, w_max, 0), w_max + ALPHA * 40), rel=0.03)


def test_cubic_keeps_its_curve_when_segments_change_their_size() -> None:
    flow = cubic_after_loss(200, rtt=0.1)
    start = flow.now
    flow.until(start + 1)
    window = flow.control.window
    half = MSS // 2
    flow.control.handle_mss(half)
    assert flow.control.window == window
    while flow.now < start + 4:
        flight = flow.control.window // half
        for _ in range(flight):
            flow.now += flow.rtt / flight
            flow.control.handle_ack(half, flight * half, flow.rtt, flow.now)
    # In the segments of before: twice as many now.
    assert flow.segments == pytest.approx(w_cubic(4, 200, k_of(200, 140)), rel=0.02)


# --- NewReno ---


def in_avoidance(segments: int) -> Flow:
    flow = Flow(NewReno(MSS), rtt=0.1)
    flow.lose_at(2 * segments)
    return flow


def test_newreno_doubles_in_slow_start() -> None:
    flow = Flow(NewReno(MSS), rtt=0.1)
    windows = []
    for _ in range(5):
        windows.append(flow.segments)
        flow.until(flow.now + 0.1)
    assert windows == [10, 20, 40, 80, 160]


def test_newreno_halves_and_adds_one_segment_a_round_trip() -> None:
    flow = in_avoidance(50)
    assert flow.segments == 50
    for rounds in range(1, 20):
        flow.until(flow.now + 0.1)
        assert flow.segments == pytest.approx(50 + rounds, abs=1)


def test_newreno_does_not_grow_a_window_that_is_not_used() -> None:
    flow = in_avoidance(50)
    for _ in range(1000):
        flow.control.handle_ack(MSS, 10 * MSS, 0.1, flow.now)
    assert flow.segments == 50


def test_newreno_reduces_to_half_of_what_is_in_flight() -> None:
    """RFC 5681, equation 4: max(FlightSize / 2, 2 * SMSS), not half of the window."""
    control = NewReno(MSS)
    control.window = 100 * MSS
    control.handle_loss(30 * MSS, 1.0)
    assert (control.window, control.threshold) == (15 * MSS, 15 * MSS)
    control.handle_loss(MSS, 1.0)
    assert control.threshold == 2 * MSS


def test_newreno_timeout() -> None:
    """RFC 5681, 3.1: one segment; the threshold only at the first of a row."""
    control = NewReno(MSS)
    control.window = 40 * MSS
    control.handle_timeout(40 * MSS, 1.0)
    assert (control.window, control.threshold) == (MSS, 20 * MSS)
    control.handle_timeout(0, 2.0)
    assert (control.window, control.threshold) == (MSS, 20 * MSS)


@pytest.mark.parametrize("name", LOSS_BASED)
def test_what_was_no_loss_is_taken_back(name: str) -> None:
    control = ALGORITHMS[name](MSS, 10)
    for reduce in (control.handle_loss, control.handle_timeout):
        control.window, control.threshold = 40 * MSS, 50 * MSS
        reduce(40 * MSS, 1.0)
        assert control.window < 40 * MSS
        control.handle_undo(1.1)
        assert (control.window, control.threshold) == (40 * MSS, 50 * MSS)
        # Once: there is nothing more to take back.
        control.window = 20 * MSS
        control.handle_undo(1.2)
        assert control.window == 20 * MSS


def test_slow_start_that_goes_on_after_all_ends_when_the_round_trip_rises() -> None:
    """HyStart++ comes back with the window: without it slow start would go on until the queue overflows."""
    for name in LOSS_BASED:
        control = ALGORITHMS[name](MSS, 10)
        for reduce in (control.handle_loss, control.handle_timeout):
            control.window = 10 * MSS
            reduce(10 * MSS, 1.0)
            control.handle_undo(1.1)
        flow = Flow(control, rtt=0.05)
        flow.until(flow.now + 0.2)
        assert flow.segments == 160
        flow.rtt = 0.07
        flow.until(flow.now + 0.07 * 8)
        assert control.threshold < 900 * MSS


@pytest.mark.parametrize("name", LOSS_BASED)
def test_recovery_ends_without_a_burst(name: str) -> None:
    control = ALGORITHMS[name](MSS, 10)
    control.window = 400 * MSS
    control.handle_loss(400 * MSS, 1.0)
    control.handle_recovered(5 * MSS, 1.2)
    assert control.window == 37 * MSS
    control.window = 400 * MSS
    control.handle_recovered(1000 * MSS, 1.2)
    assert control.window == control.threshold
