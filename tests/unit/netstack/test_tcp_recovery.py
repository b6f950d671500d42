"""Loss recovery, segment by segment: RACK-TLP, PRR, undoing what was for nothing, DSACK both ways."""

from __future__ import annotations

import errno

import pytest
from tcp_script import MASK, PEER, US, Script

from minivpn_trio.netstack import scapy_wire
from minivpn_trio.netstack.packets import ACK, FIN, PSH, RST, IcmpMessage, TcpSegment
from minivpn_trio.netstack.tcp.connection import TcpConnection, TcpState
from minivpn_trio.netstack.tcp.prr import ProportionalRateReduction
from minivpn_trio.netstack.tcp.settings import TcpSettings

FULL = 1448
RTT = 0.1


def flight(script: Script, connection: TcpConnection, count: int) -> list[TcpSegment]:
    """``count`` full segments go out; a round trip passes."""
    assert connection.write(bytes(count * FULL), script.now) == count * FULL
    sent = script.out()
    assert len(sent) == count
    return sent


def settled(settings: TcpSettings | None = None, **options: bool) -> tuple[Script, TcpConnection]:
    """A connection whose round trip of 100 ms is known, with a window of some 40 segments."""
    script = Script(settings=settings)
    connection = script.connect(**options)
    connection.sender.rto.srtt = connection.sender.rto.min_rtt = 0.0
    for count in (10, 20, 20):
        sent = flight(script, connection, count)
        script.now += RTT
        script.take(sent)
        script.give(script.segment())
        assert script.out() == []
    assert connection.rtt == pytest.approx(RTT, rel=0.01)
    return script, connection


def echo_of(segment: TcpSegment) -> int:
    assert segment.timestamps is not None
    return segment.timestamps[0]


def sack(script: Script, *blocks: tuple[TcpSegment, TcpSegment], ack: int | None = None, echo: int = 0) -> None:
    """An acknowledgement with blocks from one segment to another, both included."""
    edges = tuple((first.seq, (last.seq + FULL) & MASK) for first, last in blocks)
    segment = script.segment(ack=script.ack if ack is None else ack, sack_blocks=edges)
    if echo:
        assert segment.timestamps is not None
        segment.timestamps = (segment.timestamps[0], echo)
    script.give(segment)


def seqs(segments: list[TcpSegment]) -> list[int]:
    return [segment.seq for segment in segments]


def test_tail_loss_probe_after_two_round_trips_repairs_without_a_timeout() -> None:
    """RFC 8985, 7: the last of five is lost; its probe gets through."""
    script, connection = settled()
    sent = flight(script, connection, 5)
    script.now += RTT
    script.give(script.segment(ack=sent[4].seq))
    assert script.out() == []
    window = connection.sender.congestion.window
    start = script.now
    # One segment in flight: two round trips, and the peer's delayed acknowledgement; the timeout comes before.
    while not (probe := script.out()):
        script.wait(0.005)
    assert seqs(probe) == [sent[4].seq]
    assert 0.29 <= script.now - start <= 0.42
    assert connection.sender.congestion.window <= window


def test_tail_loss_of_several_is_found_by_the_probe() -> None:
    """Three segments at the tail lost: the probe (the last again) is SACKed, RACK marks the rest."""
    script, connection = settled()
    sent = flight(script, connection, 8)
    script.now += RTT
    script.give(script.segment(ack=sent[5].seq))
    script.wait(2 * RTT + 0.011)
    probe = script.out()
    assert seqs(probe) == [sent[7].seq]
    script.now += RTT
    sack(script, (sent[7], sent[7]), ack=sent[5].seq, echo=echo_of(probe[0]))
    resent = script.out()
    assert seqs(resent) == [sent[5].seq]
    script.now += RTT
    sack(script, (sent[7], sent[7]), ack=sent[6].seq, echo=echo_of(resent[0]))
    assert seqs(script.out()) == [sent[6].seq]
    assert connection.sender.timeouts == 0
    assert connection.sender.in_recovery


def test_tail_loss_probe_prefers_new_data() -> None:
    """It goes beyond the congestion window, by one segment."""
    script, connection = settled()
    connection.sender.congestion.window = 4 * FULL
    connection.write(bytes(10 * FULL), script.now)
    sent = script.out()
    assert len(sent) == 4
    script.wait(2 * RTT + 0.011)
    assert seqs(script.out()) == [(sent[3].seq + FULL) & MASK]


def test_spurious_tail_loss_probe_costs_nothing() -> None:
    """Both copies arrive: the DSACK says so, and the window stays."""
    script, connection = settled()
    sent = flight(script, connection, 5)
    script.wait(2 * RTT + 0.011)
    assert seqs(script.out()) == [sent[4].seq]
    window = connection.sender.congestion.window
    end = (sent[4].seq + FULL) & MASK
    script.give(script.segment(ack=end))
    script.give(script.segment(ack=end, sack_blocks=((sent[4].seq, end),)))
    script.ack = end
    later = flight(script, connection, 3)
    script.now += RTT
    script.take(later)
    script.give(script.segment())
    assert connection.sender.congestion.window >= window
    assert not connection.sender.in_recovery


def test_probe_that_repaired_a_loss_reduces_the_window() -> None:
    """No DSACK came before later data was acknowledged: the original was lost (RFC 8985, 7.4.2)."""
    script, connection = settled()
    sent = flight(script, connection, 5)
    script.wait(2 * RTT + 0.011)
    assert len(script.out()) == 1
    window = connection.sender.congestion.window
    script.ack = (sent[4].seq + FULL) & MASK
    script.give(script.segment())
    later = flight(script, connection, 3)
    script.now += RTT
    script.take(later)
    script.give(script.segment())
    assert connection.sender.congestion.threshold < window


def test_lost_retransmission_is_found_without_a_timeout() -> None:
    script, connection = settled()
    sent = flight(script, connection, 20)
    script.now += RTT
    sack(script, (sent[1], sent[6]))
    first = script.out()
    assert first[0].seq == sent[0].seq
    connection.write(bytes(20 * FULL), script.now)
    script.now += RTT / 2
    sack(script, (sent[1], sent[19]))
    new = script.out()
    assert new and new[0].seq not in seqs(sent)
    script.now += RTT
    # What was sent after the retransmission arrives, the retransmission does not.
    sack(script, (sent[1], new[3]), echo=echo_of(new[3]))
    assert script.out()[0].seq == sent[0].seq
    assert connection.sender.timeouts == 0


def test_reordering_within_a_quarter_of_the_round_trip_costs_nothing() -> None:
    """Two segments overtaken by two others: fewer than three SACKed, so RACK waits; then they arrive."""
    script, connection = settled()
    sent = flight(script, connection, 4)
    script.now += RTT
    sack(script, (sent[2], sent[3]))
    assert script.out() == []
    script.wait(RTT / 5)
    assert script.out() == []
    script.give(script.segment(ack=(sent[3].seq + FULL) & MASK))
    assert script.out() == []
    assert connection.sender.rack.reordering
    # Now it is known that the network reorders: more of it is waited for as well.
    script.ack = (sent[3].seq + FULL) & MASK
    sent = flight(script, connection, 10)
    script.now += RTT
    sack(script, (sent[1], sent[9]))
    assert script.out() == []
    # A quarter of a round trip later it counts as lost, by the timer, without another acknowledgement.
    script.wait(RTT / 4 + 0.002)
    assert script.out()[0].seq == sent[0].seq


def test_recovery_sends_in_proportion_to_what_arrives() -> None:
    """PRR: over the round trip of recovery seven tenths of the flight go out (CUBIC), evenly."""
    script, connection = settled()
    connection.write(bytes(400 * FULL), script.now)
    sent = script.out()
    count = len(sent)
    assert count >= 30
    script.now += RTT
    out: list[int] = []
    for index in range(1, count):
        sack(script, (sent[1], sent[index]))
        out.append(len(script.out()))
    assert max(out) <= 4
    total = sum(out)
    assert 0.6 * count <= total <= 0.8 * count
    script.give(script.segment(ack=(sent[-1].seq + FULL) & MASK))
    assert connection.sender.congestion.window <= 0.75 * count * FULL


def test_recovery_counts_from_what_was_still_under_way() -> None:
    """RFC 9937, 5: what was SACKed while reordering was still possible is no longer in flight when a loss is found."""
    script, connection = settled()
    connection.write(bytes(400 * FULL), script.now)
    sent = script.out()
    half = len(sent) // 2
    connection.sender.rack.reordering = True
    script.now += RTT
    sack(script, (sent[1], sent[half]))
    sent += script.out()
    script.wait(RTT / 2)
    assert seqs(script.out()) == [sent[0].seq]
    threshold, flights = connection.sender.congestion.threshold, [connection.sender.board.pipe]
    for segment in sent[half + 1 :]:
        sack(script, (sent[1], segment))
        script.out()
        flights.append(connection.sender.board.pipe)
    # It comes down to the new window evenly, over the whole round trip.
    assert flights[-1] == pytest.approx(threshold, abs=2 * FULL)
    assert flights[len(flights) // 2] == pytest.approx((flights[0] + threshold) / 2, abs=2 * FULL)


def test_a_burst_of_acknowledgements_allows_what_they_would_one_by_one() -> None:
    """Below the new window recovery doubles what is under way in each round trip, like slow start."""
    for together in (1, 4, 16):
        reduction = ProportionalRateReduction()
        reduction.begin(500 * FULL)
        under_way, rounds = 1, [1]
        for _ in range(4):
            sent = 0
            for index in range(1, under_way + 1):
                pipe = (under_way - index + sent) * FULL
                reduction.acknowledged(FULL, pipe, 350 * FULL, True, FULL)
                if index % together == 0 or index == under_way:
                    segments = reduction.budget // FULL
                    reduction.sent(segments * FULL)
                    sent += segments
            under_way = sent
            rounds.append(sent)
        assert rounds == [1, 2, 4, 8, 16]


def test_a_peer_that_acknowledges_byte_by_byte_gets_no_burst() -> None:
    reduction = ProportionalRateReduction()
    reduction.begin(500 * FULL)
    reduction.acknowledged(FULL, 10 * FULL, 350 * FULL, True, FULL)
    assert reduction.budget == 2 * FULL
    reduction.sent(2 * FULL)
    for _ in range(300):
        reduction.acknowledged(1, 12 * FULL, 350 * FULL, True, FULL)
    assert reduction.budget <= 600
    # However much arrives, the window is the limit.
    reduction.acknowledged(400 * FULL, 300 * FULL, 350 * FULL, True, FULL)
    assert reduction.budget == 50 * FULL


def test_without_sack_a_part_that_arrives_says_nothing_of_the_rest() -> None:
    """Of ten the first is late and the sixth lost: what is missing after the partial acknowledgement goes out at once
    (RFC 6582)."""
    script, connection = settled(sack=False)
    sent = flight(script, connection, 10)
    script.now += RTT
    duplicates = [script.segment(window=60_000) for _ in range(8)]
    script.give(*duplicates, script.segment(ACK | PSH, b"x", ack=sent[5].seq))
    assert sent[5].seq in seqs(script.out())


def test_a_probe_that_arrives_late_does_not_excuse_the_loss_it_repaired() -> None:
    """The last segment was lost; its tail loss probe is late, so RACK calls that lost as well; and then it arrives."""
    script, connection = settled()
    sent = flight(script, connection, 2)
    script.wait(2 * RTT + 0.011)
    assert seqs(script.out()) == [sent[1].seq]
    script.give(script.segment(ack=sent[1].seq))
    window = connection.sender.congestion.window
    script.wait(0.01)
    more = flight(script, connection, 5)
    script.wait(RTT)
    blocks = ((more[0].seq, (more[4].seq + FULL) & MASK),)
    script.give(
        script.segment(sack_blocks=blocks, ack=sent[1].seq),
        script.segment(ACK | PSH, b"x", ack=(more[4].seq + FULL) & MASK),
    )
    assert connection.sender.una == connection.sender.nxt
    assert connection.sender.congestion.window < window


def test_what_arrives_before_anything_was_sent_again_was_not_lost() -> None:
    """A burst tells of a loss, and right behind of the arrival of what was deemed lost."""
    for timestamps in (True, False):
        script, connection = settled(timestamps=timestamps)
        sent = flight(script, connection, 10)
        window = connection.sender.congestion.window
        script.now += RTT
        blocks = ((sent[2].seq, (sent[9].seq + len(sent[9].payload)) & MASK),)
        script.give(script.segment(sack_blocks=blocks), script.segment(ACK | PSH, b"x", ack=sent[1].seq))
        assert not connection.sender.in_recovery
        assert connection.sender.congestion.window >= window
        assert connection.sender.rack.reordering
        assert not any(segment.payload for segment in script.out())
        # The other one has its time, too, and is lost then.
        script.wait(RTT / 2)
        assert seqs(script.out()) == [sent[1].seq]
        assert connection.sender.congestion.window < window


def test_eifel_a_timeout_for_nothing_is_taken_back() -> None:
    """A delay of a second: the first acknowledgement echoes the original (RFC 3522, RFC 4015)."""
    script, connection = settled()
    sent = flight(script, connection, 20)
    window = connection.sender.congestion.window
    original = echo_of(sent[0])
    script.wait(1.0)
    assert script.out()
    assert connection.sender.timeouts >= 1
    assert connection.sender.congestion.window == FULL
    script.give(script.segment(ack=sent[10].seq, timestamps=(int(script.now * 1000) & MASK, original)))
    assert not connection.sender.in_recovery
    assert connection.sender.congestion.window >= window
    script.give(script.segment(ack=(sent[19].seq + FULL) & MASK, timestamps=(int(script.now * 1000) & MASK, original)))
    assert script.out() == []


def test_f_rto_without_timestamps() -> None:
    """What the timer called lost and nobody sent again is acknowledged (RFC 5682)."""
    script, connection = settled(timestamps=False)
    sent = flight(script, connection, 20)
    window = connection.sender.congestion.window
    script.wait(1.0)
    script.out()
    assert connection.sender.congestion.window == connection.sender.mss
    script.give(script.segment(ack=sent[10].seq))
    assert not connection.sender.in_recovery
    assert connection.sender.congestion.window >= window


def test_f_rto_does_not_believe_an_acknowledgement_of_everything() -> None:
    """The first segment was lost, and then every acknowledgement: what comes for its retransmission names all."""
    script, connection = settled(timestamps=False)
    sent = flight(script, connection, 20)
    window = connection.sender.congestion.window
    script.wait(1.0)
    script.out()
    script.now += RTT
    script.give(script.segment(ack=(sent[19].seq + len(sent[19].payload)) & MASK))
    assert connection.sender.una == connection.sender.nxt
    assert connection.sender.congestion.window < window / 2


def test_a_real_timeout_is_not_taken_back() -> None:
    script, connection = settled()
    sent = flight(script, connection, 20)
    script.wait(0.9)
    resent = script.out()
    assert connection.sender.timeouts == 1
    script.now += RTT
    script.give(
        script.segment(ack=(sent[0].seq + FULL) & MASK, timestamps=(int(script.now * 1000), echo_of(resent[-1])))
    )
    assert connection.sender.in_recovery
    assert connection.sender.congestion.window < 5 * FULL


def test_fast_recovery_for_nothing_is_taken_back_when_all_retransmissions_are_reported_twice() -> None:
    """RFC 3708: every retransmission of the episode comes back as a DSACK."""
    script, connection = settled()
    sent = flight(script, connection, 10)
    window = connection.sender.congestion.window
    script.now += RTT
    sack(script, (sent[2], sent[9]))
    resent = script.out()
    assert seqs(resent) == [sent[0].seq, sent[1].seq]
    assert connection.sender.congestion.window < window
    script.now += RTT
    script.ack = (sent[9].seq + FULL) & MASK
    later = echo_of(resent[-1])
    # Not told by timestamps: the peer echoes something newer.
    script.give(script.segment(timestamps=(int(script.now * 1000), later)))
    assert connection.sender.congestion.threshold < window
    for segment in sent[:2]:
        script.give(script.segment(sack_blocks=((segment.seq, (segment.seq + FULL) & MASK),)))
    assert connection.sender.congestion.window >= window
    assert connection.sender.rack.reordering


def test_every_duplicate_is_reported() -> None:
    """RFC 2883, several in one burst, each in an acknowledgement of its own unless they touch."""
    script, _ = settled()
    old = [script.segment(payload=bytes([index]) * 100, seq=(script.seq + index * 100) & MASK) for index in range(5)]
    script.give(*old)
    script.out()
    script.seq = (script.seq + 500) & MASK
    script.give(old[0], old[2], old[3])
    blocks = [segment.sack_blocks for segment in script.out()]
    first = old[0].seq
    assert blocks == [((first, first + 100),), ((first + 200, first + 400),)]


def test_limited_transmit() -> None:
    """RFC 3042: the first two duplicate acknowledgements let out a new segment each."""
    script, connection = settled(sack=False)
    connection.sender.congestion.window = 10 * FULL
    connection.write(bytes(20 * FULL), script.now)
    sent = script.out()
    assert len(sent) == 10
    script.now += RTT
    for number in range(2):
        script.give(script.segment(ack=sent[0].seq))
        assert seqs(script.out()) == [(sent[9].seq + (1 + number) * FULL) & MASK]
    script.give(script.segment(ack=sent[0].seq))
    assert script.out()[0].seq == sent[0].seq


def test_user_timeout() -> None:
    """RFC 5482: written data without progress for so long ends the connection, whatever the retries."""
    script = Script(settings=TcpSettings(user_timeout=5.0))
    connection = script.connect()
    script.wait(100)
    assert connection.error is None
    connection.write(b"x", script.now)
    script.wait(4.9)
    assert connection.error is None
    script.wait(0.2)
    assert isinstance(connection.error, TimeoutError)


def test_user_timeout_counts_a_closed_window() -> None:
    script = Script(settings=TcpSettings(user_timeout=5.0))
    connection = script.connect()
    script.give(script.segment(window=0))
    connection.write(b"x" * 5000, script.now)
    end = script.now + 4.9
    while script.now < end:
        script.wait(0.1)
        for probe in script.out():
            script.give(script.segment(ACK, window=0, ack=(probe.seq + 1) & MASK))
    assert connection.error is None
    script.wait(0.3)
    assert isinstance(connection.error, TimeoutError)


def test_soft_error_is_the_reason_of_a_timeout() -> None:
    script = Script(settings=TcpSettings(data_retries=3))
    connection = script.connect()
    connection.write(b"x", script.now)
    (packet,) = script.stack.take_output()
    script.stack.handle_packets([scapy_wire.build_icmp(IcmpMessage(PEER, US, 3, 1, 0, packet[:60]))], script.now)
    assert connection.error is None
    script.wait(60)
    assert connection.error is not None
    assert connection.error.errno == errno.EHOSTUNREACH


def test_progress_ends_what_a_router_said() -> None:
    script = Script(settings=TcpSettings(data_retries=3))
    connection = script.connect()
    connection.write(b"x", script.now)
    (packet,) = script.stack.take_output()
    script.stack.handle_packets([scapy_wire.build_icmp(IcmpMessage(PEER, US, 3, 1, 0, packet[:60]))], script.now)
    script.ack += 1
    script.give(script.segment())
    assert script.out() == []
    script.wait(3600)
    connection.write(b"y", script.now)
    script.wait(60)
    assert connection.error is not None
    assert connection.error.errno == errno.ETIMEDOUT


def test_keepalive_pace_is_the_connection_s_own() -> None:
    script = Script()
    connection = script.connect()
    connection.set_keepalive(10.0, script.now, 2.0, 2)
    script.wait(10.5)
    assert len(script.out()) == 1
    script.wait(2)
    assert len(script.out()) == 1
    assert connection.error is None
    script.wait(2)
    assert isinstance(connection.error, TimeoutError)


def test_keepalive_obeys_the_user_timeout() -> None:
    """As Linux: a probe unanswered when the silence lasted so long."""
    script = Script()
    connection = script.connect()
    connection.set_keepalive(10.0, script.now, 2.0, 9)
    connection.set_user_timeout(13.0, script.now)
    script.wait(13.5)
    assert connection.error is None
    script.wait(1)
    assert isinstance(connection.error, TimeoutError)


def test_no_keepalive_while_data_is_under_way() -> None:
    script = Script()
    connection = script.connect()
    connection.set_keepalive(0.1, script.now, 0.1, 2)
    connection.write(b"x", script.now)
    script.wait(3)
    assert connection.error is None


def test_without_timestamps_established_segments_are_read_fast_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither scapy nor the path of irregular segments sees them."""
    script = Script()
    connection = script.connect(timestamps=False)
    script.send(b"the window is known from here")
    assert connection.read(100, script.now)

    def refuse(*args: object) -> None:
        raise AssertionError("irregular")

    monkeypatch.setattr(type(connection), "_handle_irregular", refuse)
    segments = [script.segment(payload=bytes([index]) * 1000, seq=script.seq + index * 1000) for index in range(5)]
    script.give(*segments[:3], segments[4], segments[3])
    assert connection.read(9000, script.now) == b"".join(bytes([index]) * 1000 for index in range(5))
    connection.write(b"y" * 3000, script.now)
    sent = script.out()
    script.seq += 5000
    script.take(sent)
    script.give(script.segment())
    assert connection.sender.una == connection.sender.nxt


def test_duplicates_that_paws_rejects_are_reported() -> None:
    script, _ = settled()
    old = script.segment(payload=b"old" * 100)
    script.now += 1
    script.send(b"new" * 100)
    script.out()
    script.give(old)
    assert script.one().sack_blocks == ((old.seq, old.seq + 300),)


def test_progress_ends_the_backoff() -> None:
    script, connection = settled(TcpSettings(black_hole_mss=()))
    sent = flight(script, connection, 2)
    script.wait(5)
    assert connection.sender.rto.backoff >= 2
    script.out()
    script.ack = (sent[-1].seq + FULL) & MASK
    script.give(script.segment())
    assert connection.sender.rto.backoff == 0
    flight(script, connection, 1)
    script.wait(1)
    assert script.out()


def test_what_was_sent_twice_says_nothing_about_the_round_trip() -> None:
    """Karn: also for what was sent once, if a retransmission was what let it be acknowledged."""
    script, connection = settled(TcpSettings(black_hole_mss=()), sack=False)
    sent = flight(script, connection, 5)
    script.wait(1.5)
    assert script.out()
    script.ack = (sent[-1].seq + FULL) & MASK
    script.give(script.segment())
    assert connection.rtt == pytest.approx(RTT, rel=0.01)


def test_of_several_early_segments_the_last_is_reported_first() -> None:
    script, _ = settled()
    base = script.seq
    script.give(*(script.segment(payload=b"x" * 100, seq=(base + number * 100) & MASK) for number in (1, 3, 5)))
    blocks = [segment.sack_blocks for segment in script.out()]
    assert blocks[-1][0] == (base + 500, base + 600)
    assert {block for ack in blocks for block in ack} == {(base + n * 100, base + (n + 1) * 100) for n in (1, 3, 5)}


def test_time_wait_ignores_resets() -> None:
    """RFC 1337; and RST never answers RST."""
    script, connection = settled()
    connection.close(script.now)
    fin = script.one()
    script.ack = (fin.seq + 1) & MASK
    script.send(b"", FIN | ACK)
    assert script.one().flags == ACK
    assert connection.state is TcpState.CLOSED
    script.now += 1
    for distance in (0, 1, 1000):
        script.give(script.segment(RST | ACK, seq=script.seq - distance))
        assert script.out() == []
        script.now += 1
    # Still there: the FIN again is acknowledged.
    script.give(script.segment(FIN | ACK, seq=script.seq - 1))
    assert script.one().flags == ACK


def test_of_a_burst_of_acknowledgements_the_newest_counts_whatever_its_place() -> None:
    script, connection = settled()
    sent = flight(script, connection, 6)
    script.give(script.segment(ack=sent[5].seq), script.segment(ack=sent[2].seq))
    assert connection.sender.una & MASK == sent[5].seq


def test_an_old_window_is_not_believed() -> None:
    """RFC 9293, SND.WL1 and SND.WL2: an overtaken acknowledgement says nothing about the window now."""
    script, connection = settled()
    flight(script, connection, 6)
    old = script.segment(window=100)
    script.send(b"x")
    script.give(script.segment(window=5000))
    window = connection.sender.window
    assert window == 5000 << 7
    script.give(old)
    assert connection.sender.window == window


def test_an_acknowledgement_of_less_says_nothing_about_the_window() -> None:
    """Sent later, as its number says, but by a peer that had less: it answers something old."""
    script, connection = settled()
    sent = flight(script, connection, 6)
    script.give(script.segment(ack=sent[3].seq, window=5000))
    for blocks in ((), ((sent[4].seq, sent[5].seq),)):
        script.give(script.segment(ack=sent[2].seq, window=9000, seq=(script.seq + 1000) & MASK, sack_blocks=blocks))
        assert connection.sender.window == 5000 << 7


def test_the_window_of_a_segment_that_was_sent_again_is_heard() -> None:
    """It has an old number, but acknowledges more than anything before: the window is not larger than it says."""
    script, connection = settled()
    sent = flight(script, connection, 6)
    first = script.segment(ACK | PSH, b"x")
    script.seq = (script.seq + 1) & MASK
    script.give(script.segment(window=5000))
    assert connection.sender.window == 5000 << 7
    first.ack, first.window = sent[3].seq, 4000
    script.give(first)
    assert connection.sender.una & MASK == sent[3].seq
    assert connection.sender.window == 4000 << 7


def test_what_the_pacer_held_back_is_forgotten_when_nothing_is_left() -> None:
    """Everything was acknowledged before its time: it comes, and is over."""
    script, connection = settled()
    assert connection.sender.una == connection.sender.nxt
    connection.sender.pacer.due = script.now + 0.01
    connection.flush(script.now)
    script.now += 0.02
    assert script.stack.next_timeout() is not None
    script.stack.handle_timeout(script.now)
    assert (timeout := script.stack.next_timeout()) is None or timeout > script.now


def test_a_fin_that_is_sent_again_before_data_goes_out_as_well() -> None:
    """What was lost again lies behind what was lost first, whatever the numbers."""
    script, connection = settled()
    sent = flight(script, connection, 2)
    connection.shutdown_write(script.now)
    fin = script.one()
    assert fin.flags & FIN
    first, second, last = connection.sender.board
    connection._send_segments([first, last, second], script.now)
    again = script.out()
    assert sorted(seqs(again)) == [*seqs(sent), fin.seq]
    assert [segment.seq for segment in again if segment.flags & FIN] == [fin.seq]


def test_an_overtaken_block_that_is_acknowledged_by_now_is_no_dsack() -> None:
    """A duplicate lies below what the same segment acknowledges (RFC 2883), not below what another one did since."""
    for later in (0.0, 0.001):
        script, connection = settled()
        sent = flight(script, connection, 6)
        script.now += RTT
        block = (sent[1].seq, (sent[2].seq + FULL) & MASK)
        overtaken = script.segment(sack_blocks=(block,))
        script.ack = (sent[3].seq + FULL) & MASK
        script.now += later
        script.give(script.segment())
        before = connection.sender.rack._multiplier
        script.give(overtaken)
        assert connection.sender.rack._multiplier == before
        # While this is one.
        script.give(script.segment(sack_blocks=(block,)))
        assert connection.sender.rack._multiplier == before + 1
