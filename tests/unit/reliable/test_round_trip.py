"""How soon messages are repeated where the round trip is measured, and the hints about holes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minivpn_trio.items import ExpectKey, OpenKey, Segment, SequencedPacket
from minivpn_trio.packet.ids import KeyID, PacketID, Role
from minivpn_trio.packet.opcodes import Opcode
from minivpn_trio.reliable.conversation import MAX_HINTS
from minivpn_trio.reliable.roundtrip import BACKOFF, FLOOR, RoundTrip
from minivpn_trio.reliable.transport import ReliableTransport

KEY = KeyID(0)


def test_an_unknown_round_trip_begins_with_half_of_tls_timeout() -> None:
    trip = RoundTrip(2.0)
    assert trip.smoothed is None
    assert [trip.interval(n) for n in range(5)] == pytest.approx([1.0, 1.5, 2.25, 3.375, 4.0])


def test_the_estimate_is_that_of_rfc_6298() -> None:
    # RFC 6298, 2.2 and 2.3, by hand: SRTT 0.4, RTTVAR 0.2; then a sample of 0.6.
    trip = RoundTrip(2.0)
    trip.measured(0.4)
    assert trip.interval(0) == pytest.approx(0.4 + 4 * 0.2)
    trip.measured(0.6)
    assert trip.smoothed == pytest.approx(0.4 * 7 / 8 + 0.6 / 8)
    assert trip.interval(0) == pytest.approx(0.425 + 4 * (0.2 * 3 / 4 + 0.2 / 4))


def test_a_quick_path_is_not_hurried() -> None:
    trip = RoundTrip(2.0)
    trip.measured(0.001)
    assert trip.interval(0) == FLOOR
    assert trip.interval(1) == pytest.approx(FLOOR * BACKOFF)


@given(st.lists(st.floats(0, 1000), max_size=20), st.integers(0, 10_000), st.floats(0.1, 60))
def test_intervals_stay_within_bounds_and_never_shrink(samples: list[float], expiries: int, timeout: float) -> None:
    trip = RoundTrip(timeout)
    for seconds in samples:
        trip.measured(seconds)
    assert min(FLOOR, timeout / 2) <= trip.interval(expiries) <= 2 * timeout
    assert trip.interval(expiries) <= trip.interval(expiries + 1)


def opened(*, adaptive: bool = True) -> ReliableTransport:
    """A client whose hard reset was answered after 0.1 s, at 0.1."""
    client = ReliableTransport(role=Role.CLIENT, adaptive=adaptive)
    client.submit(OpenKey(KEY, Opcode.CONTROL_HARD_RESET_CLIENT_V2), 0.0)
    client.poll_transmit(0.0)
    client.handle_packets([arriving(0, Opcode.CONTROL_HARD_RESET_SERVER_V2, acks=(0,))], 0.1)
    return client


def arriving(packet_id: int | None, opcode: Opcode = Opcode.CONTROL_V1, acks: tuple[int, ...] = ()) -> SequencedPacket:
    number = None if packet_id is None else PacketID(packet_id)
    return SequencedPacket(KEY, opcode, tuple(PacketID(ack) for ack in acks), number, b"x" if packet_id else b"")


def sendings(client: ReliableTransport, until: float) -> list[tuple[float, SequencedPacket]]:
    """All that it sends by itself, with times."""
    sent = []
    while (due := client.next_timeout()) is not None and due <= until:
        sent += [(due, packet) for packet in client.poll_transmit(due)]
    return sent


def test_a_silent_server_hears_from_us_about_16_times_a_minute() -> None:
    client = ReliableTransport(role=Role.CLIENT, adaptive=True)
    client.submit(OpenKey(KEY, Opcode.CONTROL_HARD_RESET_CLIENT_V2), 0.0)
    times = [time for time, _ in sendings(client, 60.0)]
    assert times[:4] == pytest.approx([0.0, 1.0, 2.5, 4.75])
    assert 14 <= len(times) <= 18


def test_a_lost_message_is_repeated_after_a_few_round_trips() -> None:
    client = opened()
    client.submit(Segment(KEY, Opcode.CONTROL_V1, b"hello"), 0.1)
    times = [time for time, packet in sendings(client, 2.0) if packet.packet_id == 1]
    # one sample of 0.1 s: 0.1 + 4 * 0.05
    assert times == pytest.approx([0.1, 0.4, 0.85, 1.525])


def test_an_ambiguous_acknowledgement_measures_nothing() -> None:
    """Karn's rule: after a repetition nobody knows which transmission was acknowledged."""
    client = ReliableTransport(role=Role.CLIENT, adaptive=True)
    client.submit(OpenKey(KEY, Opcode.CONTROL_HARD_RESET_CLIENT_V2), 0.0)
    sendings(client, 1.0)
    client.handle_packets([arriving(0, Opcode.CONTROL_HARD_RESET_SERVER_V2, acks=(0,))], 1.001)
    client.submit(Segment(KEY, Opcode.CONTROL_V1, b"hello"), 1.001)
    first, second, *_ = [time for time, packet in sendings(client, 3.0) if packet.packet_id == 1]
    assert second - first == pytest.approx(1.0)


def test_without_adaptation_the_timers_are_the_reference_s() -> None:
    client = opened(adaptive=False)
    client.submit(Segment(KEY, Opcode.CONTROL_V1, b"hello"), 0.1)
    client.handle_packets([arriving(2)], 0.1)
    times = [time for time, packet in sendings(client, 20.0) if packet.packet_id == 1]
    assert times == pytest.approx([0.1, 2.1, 6.1, 14.1])


def test_a_hole_is_hinted_at_by_three_acknowledgements_of_what_came_after_it() -> None:
    client = opened()
    client.handle_packets([arriving(2)], 0.2)
    sent = sendings(client, 60.0)
    assert {packet.opcode for _, packet in sent} == {Opcode.ACK_V1}
    hints = [(time, packet) for time, packet in sent if time > 0.2]
    times = sorted({time for time, _ in hints})
    assert len(times) == MAX_HINTS
    assert times[0] == pytest.approx(0.2 + 0.3)
    for time in times:
        assert sum(sum(ack > 1 for ack in packet.acks) for at, packet in hints if at == time) >= 3
    # what is not missing was not acknowledged, and nothing else is
    assert {ack for _, packet in sent for ack in packet.acks} == {0, 2}


def test_a_filled_hole_ends_the_hints() -> None:
    client = opened()
    client.handle_packets([arriving(2), arriving(3), arriving(4)], 0.2)
    client.poll_transmit(0.2)
    client.handle_packets([arriving(1)], 0.3)
    assert [packet.acks[0] for _, packet in sendings(client, 60.0)] == [1]


def test_a_new_hole_is_hinted_at_anew() -> None:
    client = opened()
    client.handle_packets([arriving(2)], 0.2)
    sendings(client, 100.0)
    client.handle_packets([arriving(1), arriving(4)], 100.0)
    assert [time for time, packet in sendings(client, 110.0) if time > 100.0]


def test_nothing_is_hinted_before_our_own_reset() -> None:
    """A conversation that the server opened: an acknowledgement would mean nothing to it yet."""
    client = opened()
    client.poll_transmit(0.1)
    client.submit(ExpectKey(KeyID(1)), 1.0)
    reset = SequencedPacket(KeyID(1), Opcode.CONTROL_SOFT_RESET_V1, (), PacketID(0), b"")
    early = SequencedPacket(KeyID(1), Opcode.CONTROL_V1, (), PacketID(2), b"x")
    client.handle_packets([reset, early], 1.0)
    assert [packet for _, packet in sendings(client, 60.0) if packet.key_id == 1] == []
