"""BBR and what it rests on: samples of the delivery rate, by hand; the model, over simulated paths."""

from __future__ import annotations

from itertools import pairwise

import pytest
from tcp_world import Link, Transfer, World

from minivpn_trio.netstack.tcp.congestion import Bbr, Cubic
from minivpn_trio.netstack.tcp.congestion.bbr import _Mode
from minivpn_trio.netstack.tcp.connection import TcpConnection
from minivpn_trio.netstack.tcp.delivery_rate import DeliveryRate
from minivpn_trio.netstack.tcp.settings import TcpSettings

BBR = TcpSettings(congestion="bbr")
MSS = 1348


def test_a_sample_is_what_arrived_since_the_segment_left_over_the_longer_of_both_times() -> None:
    rate = DeliveryRate()
    first = rate.departing(0, 1.0)
    assert (first.delivered, first.delivered_at, first.first_sent_at, first.limited) == (0, 1.0, 1.0, False)
    second = rate.departing(1000, 1.01)
    sample = rate.arrived(1000, first, 1.0, 0.1, 1.1)
    assert sample is not None
    assert sample.rate == pytest.approx(1000 / 0.1)
    # The second left 10 ms after the first and arrives 40 ms after it: 40 ms and the round trip count.
    sample = rate.arrived(1000, second, 1.01, 0.1, 1.14)
    assert sample is not None
    assert sample.rate == pytest.approx(2000 / 0.14)
    third = rate.departing(5000, 1.2)
    assert third.delivered == 2000
    assert third.first_sent_at == 1.01


def test_acknowledgements_that_come_all_at_once_are_no_fast_path() -> None:
    rate = DeliveryRate()
    early = rate.departing(0, 1.0)
    rate.arrived(1000, early, 1.14, 0.1, 1.149)
    late = rate.departing(100_000, 1.15)
    sample = rate.arrived(100_000, late, 1.15, 0.1, 1.2)
    assert sample is not None
    assert sample.rate == 0.0


def test_what_an_idle_application_sends_says_nothing_of_the_path() -> None:
    rate = DeliveryRate()
    rate.starved(0)
    assert rate.departing(0, 1.0).limited
    rate.arrived(5000, None, 0.0, 0.1, 1.1)
    assert not rate.departing(0, 1.2).limited


def upload(world: World, size: int) -> tuple[float, TcpConnection]:
    """Mbit/s."""
    ours, theirs = world.connect()
    start = world.now
    transfer = Transfer(world, ours, theirs, bytes(size), chunk=1 << 18)
    world.run(transfer.pump)
    assert len(transfer.received) == size
    return size * 8e-6 / (world.now - start), ours


def path(rate: float, delay: float, queue: int, loss: float = 0.0) -> World:
    return World(up=Link(delay=delay, rate=rate, queue=queue, loss=loss), down=Link(delay=delay), settings_a=BBR)


def test_the_model_finds_rate_and_round_trip_and_keeps_the_queue_short() -> None:
    world = path(50e6, 0.02, 4 << 20)
    speed, connection = upload(world, 20_000_000)
    model = connection.sender.congestion
    assert isinstance(model, Bbr)
    assert speed > 40
    assert model._mode is _Mode.PROBE_RATE
    # Payload: 1348 of 1400 bytes.
    assert model._rate * 8 == pytest.approx(50e6 * 1348 / 1400, rel=0.1)
    assert model._min_rtt == pytest.approx(0.04, rel=0.1)
    # Twice what fits at the most, while a queue of 4 MiB would take twenty times as much.
    assert model.window < 3 * 50e6 / 8 * 0.04
    assert connection.sender.rto.srtt < 0.09


@pytest.mark.parametrize("loss", [0.01, 0.03])
def test_random_loss_does_not_slow_it_down(loss: float) -> None:
    speed, _ = upload(path(50e6, 0.02, 256 << 10, loss), 20_000_000)
    assert speed > 30


def test_a_queue_that_overflows_bounds_the_window() -> None:
    """Nine tenths arrive: the first round's overshoot is not repeated."""
    world = path(100e6, 0.02, 32 << 10)
    speed, connection = upload(world, 20_000_000)
    assert speed > 70
    assert connection.sender.retransmissions < 20_000_000 / MSS * 0.1


def test_the_round_trip_is_looked_for_every_ten_seconds() -> None:
    """A path that became longer is noticed, at the price of a fifth of a second."""
    world = path(20e6, 0.01, 1 << 20)
    ours, theirs = world.connect()
    transfer = Transfer(world, ours, theirs, bytes(60_000_000), chunk=1 << 18)
    model = ours.sender.congestion
    assert isinstance(model, Bbr)
    lengthened, probed = world.now + 3.0, False

    def pump() -> bool:
        nonlocal probed
        if world.now > lengthened:
            world.links["a"].delay = 0.04
        probed = probed or model._mode is _Mode.PROBE_RTT
        return transfer.pump()

    world.run(pump)
    assert probed
    assert model._min_rtt == pytest.approx(0.05, rel=0.15)


def test_two_share_a_path() -> None:
    world = path(40e6, 0.02, 256 << 10)
    both = [world.connect(port=port) for port in (80, 81)]
    transfers = [Transfer(world, ours, theirs, bytes(40_000_000), chunk=1 << 18) for ours, theirs in both]
    end = world.now + 12.0

    def pump() -> bool:
        for transfer in transfers:
            transfer.pump()
        return world.now > end

    world.run(pump)
    shares = sorted(len(transfer.received) for transfer in transfers)
    assert sum(shares) * 8 / 12 > 30e6
    assert shares[0] > 0.25 * sum(shares)


def test_a_timeout_starts_small_and_comes_back() -> None:
    """The path is gone for a second."""
    world = path(20e6, 0.02, 256 << 10)
    ours, theirs = world.connect()
    transfer = Transfer(world, ours, theirs, bytes(10_000_000), chunk=1 << 18)
    down = (world.now + 1.0, world.now + 2.0)

    def pump() -> bool:
        world.links["a"].filter = (lambda packet: False) if down[0] < world.now < down[1] else None
        return transfer.pump()

    start = world.now
    world.run(pump)
    assert ours.sender.timeouts > 0
    assert world.now - start < 9.0


def test_a_window_that_was_bounded_grows_again() -> None:
    """Two seconds of heavy loss, then a clean path, then a faster one."""
    world = path(16e6, 0.02, 128 << 10)
    ours, theirs = world.connect()
    transfer = Transfer(world, ours, theirs, bytes(200_000_000), chunk=1 << 18)
    link, start = world.links["a"], world.now
    marks: list[tuple[float, int]] = []

    def pump() -> bool:
        at = world.now - start
        link.loss = 0.4 if 3 < at < 5 else 0.0
        link.rate = 60e6 if at > 17 else 16e6
        if not marks or at - marks[-1][0] >= 1:
            marks.append((at, len(transfer.received)))
        transfer.pump()
        return at > 27

    world.run(pump)
    speeds = {round(b[0]): (b[1] - a[1]) * 8e-6 / (b[0] - a[0]) for a, b in pairwise(marks)}
    # A second in which the round trip is looked for may be among them.
    assert sum(speeds[at] for at in range(8, 17)) / 9 > 13.5, speeds
    assert sum(speeds[at] for at in range(22, 27)) / 5 > 45, speeds


def test_reordering_alone_bounds_nothing_for_long() -> None:
    """Every two seconds half of the packets come up to 60 ms late, for a fifth of a second; none is lost."""
    world = path(30e6, 0.03, 1 << 20)
    ours, theirs = world.connect()
    transfer = Transfer(world, ours, theirs, bytes(200_000_000), chunk=1 << 18)
    link, start = world.links["a"], world.now
    at_ten = 0

    def pump() -> bool:
        nonlocal at_ten
        at = world.now - start
        link.jitter, link.reorder = (0.06, 0.5) if at % 2 < 0.2 and at > 2 else (0.0, 0.0)
        at_ten = at_ten or (len(transfer.received) if at >= 10 else 0)
        transfer.pump()
        return at > 20

    world.run(pump)
    assert (len(transfer.received) - at_ten) * 8e-6 / 10 > 22


def test_a_switch_with_data_in_flight_starts_from_nothing() -> None:
    """What left under the last algorithm carries no note of this one."""
    for first, second in (("cubic", "bbr"), ("bbr", "cubic"), ("bbr", "newreno")):
        world = World(
            up=Link(delay=0.02, rate=20e6, queue=256 << 10), down=Link(delay=0.02),
            settings_a=TcpSettings(congestion=first),
        )  # fmt: skip
        ours, theirs = world.connect()
        transfer = Transfer(world, ours, theirs, bytes(3_000_000), chunk=1 << 20, finish=False)
        end = world.now + 0.3
        world.run(lambda transfer=transfer, world=world, end=end: transfer.pump() or world.now > end)
        for name in (second, second, first, second):
            assert ours.sender.nxt > ours.sender.una
            ours.set_congestion(name)
            end = world.now + 0.05
            world.run(lambda transfer=transfer, world=world, end=end: transfer.pump() or world.now > end)
            model = ours.sender.congestion
            if isinstance(model, Bbr):
                assert all(rate > 0 for _, rate in model._rates)
                assert model.pacing_rate >= 0
        world.run(transfer.pump)
        assert len(transfer.received) == 3_000_000


def test_after_a_pause_the_first_sample_is_the_round_trip_that_was_looked_for() -> None:
    def took(pause: float) -> float:
        world = path(50e6, 0.02, 1 << 20)
        ours, theirs = world.connect()
        for size in (5_000_000, 2_500_000):
            world.idle(pause)
            start = world.now
            transfer = Transfer(world, ours, theirs, bytes(size), chunk=1 << 18, finish=False)
            world.run(transfer.pump)
        return world.now - start

    assert took(11.0) < 1.15 * took(1.0)


def test_without_sack_it_is_cubic() -> None:
    """Nothing tells then what arrives behind a loss."""
    world = World(settings_a=BBR, settings_b=TcpSettings(sack=False))
    ours, _ = world.connect()
    assert ours.congestion_name == "cubic"
    assert isinstance(ours.sender.congestion, Cubic)
