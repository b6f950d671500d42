"""TCP by the book: one scenario after another, with the segments spelled out."""

from __future__ import annotations

import errno
from dataclasses import replace
from itertools import pairwise

import pytest
from tcp_script import MASK, PEER, PORT, US, Script

from minivpn_trio.errors import DropReason
from minivpn_trio.netstack import scapy_wire
from minivpn_trio.netstack.packets import ACK, FIN, PSH, RST, SYN, IcmpMessage, TcpSegment
from minivpn_trio.netstack.stack import Limits
from minivpn_trio.netstack.tcp.connection import TcpConnection, TcpState
from minivpn_trio.netstack.tcp.settings import TcpSettings

FULL = 1448  # 1500 - 40 - 12


def failed(connection: TcpConnection) -> int | None:
    return connection.error.errno if connection.error is not None else None


def icmp(script: Script, kind: int, code: int, quoted: bytes, rest: int = 0) -> None:
    script.stack.handle_packets([scapy_wire.build_icmp(IcmpMessage(PEER, US, kind, code, rest, quoted))], script.now)


# --- opening ---


def test_syn_offers_everything() -> None:
    script = Script()
    script.stack.connect_tcp((PEER, PORT), script.now)
    syn = script.one()
    assert (syn.mss, syn.window_scale, syn.sack_permitted) == (1460, 7, True)
    assert syn.timestamps is not None and syn.timestamps[1] == 0
    assert syn.window == 65535
    assert syn.sport in range(49152, 65536)


def test_silent_host_gets_syns_at_0_1_3_7_15_31_63_and_a_timeout_at_127() -> None:
    script = Script()
    start = script.now
    connection = script.stack.connect_tcp((PEER, PORT), start)
    times = []
    while not connection.error:
        times += [round(script.now - start) for _ in script.out()]
        script.wait(1)
    assert times == [0, 1, 3, 7, 15, 31, 63]
    assert round(script.now - start) == 127
    assert failed(connection) == errno.ETIMEDOUT
    assert script.stack.next_timeout() is None


def test_closed_port() -> None:
    script = Script()
    connection = script.stack.connect_tcp((PEER, PORT), script.now)
    syn = script.one()
    changes = []
    connection.on_change = lambda: changes.append(connection.error)
    script.port, script.ack = syn.sport, syn.seq + 1
    script.give(script.segment(RST | ACK, seq=0, ack=syn.seq + 2))
    assert connection.error is None
    script.give(script.segment(RST | ACK, seq=0))
    assert failed(connection) == errno.ECONNREFUSED
    assert len(changes) == 1
    with pytest.raises(ConnectionRefusedError):
        connection.write(b"x", script.now)


@pytest.mark.parametrize(("code", "number"), [(0, errno.ENETUNREACH), (1, errno.EHOSTUNREACH), (3, errno.ECONNREFUSED)])
def test_unreachable_is_believed_if_it_quotes_our_syn(code: int, number: int) -> None:
    script = Script()
    connection = script.stack.connect_tcp((PEER, PORT), script.now)
    (packet,) = script.stack.take_output()
    wrong = bytearray(packet[:28])
    wrong[27] ^= 1
    icmp(script, 3, code, bytes(wrong))
    assert connection.error is None
    icmp(script, 3, code, packet[:28])
    assert failed(connection) == number


def test_unreachable_does_not_kill_an_established_connection() -> None:
    script = Script()
    connection = script.connect()
    connection.write(b"x", script.now)
    (packet,) = script.stack.take_output()
    icmp(script, 3, 1, packet[:60])
    assert connection.error is None


def test_wrong_ack_in_syn_sent_is_reset_and_changes_nothing() -> None:
    script = Script()
    connection = script.stack.connect_tcp((PEER, PORT), script.now)
    syn = script.one()
    script.port = syn.sport
    script.give(script.segment(SYN | ACK, ack=syn.seq + 5))
    reset = script.one()
    assert (reset.flags, reset.seq) == (RST, syn.seq + 5)
    assert connection.state is TcpState.SYN_SENT


def test_close_in_syn_sent_is_silent_and_a_late_answer_is_reset() -> None:
    script = Script()
    connection = script.stack.connect_tcp((PEER, PORT), script.now)
    syn = script.one()
    connection.close(script.now)
    assert script.out() == []
    script.port, script.ack = syn.sport, syn.seq + 1
    script.give(script.segment(SYN | ACK))
    assert script.one().flags == RST


@pytest.mark.parametrize(("mss", "expected"), [(None, 536), (0, 88), (1, 88), (700, 700), (1460, 1460), (65535, 1460)])
def test_mss_is_respected_and_clamped(mss: int | None, expected: int) -> None:
    script = Script()
    connection = script.connect(mss=mss)
    connection.write(bytes(20_000), script.now)
    sizes = {len(segment.payload) for segment in script.out()}
    assert max(sizes) == expected - 12


def test_without_any_option() -> None:
    script = Script()
    connection = script.connect(mss=None, scale=None, sack=False, timestamps=False)
    connection.write(bytes(1000), script.now)
    first, second = script.out()
    assert first.timestamps is None
    assert len(first.payload) == 536
    script.take([first, second])
    script.send(b"answer")
    assert connection.read(100, script.now) == b"answer"
    assert connection.sender.done is False


def test_local_ports_are_ours_alone() -> None:
    script = Script()
    script.stack.connect_tcp((PEER, PORT), script.now, (US, 5000))
    with pytest.raises(OSError, match="in use"):
        script.stack.connect_tcp((PEER, PORT), script.now, (US, 5000))
    with pytest.raises(OSError, match="assign"):
        script.stack.connect_tcp((PEER, PORT), script.now, (PEER, 0))
    with pytest.raises(OSError, match="unreachable"):
        script.stack.connect_tcp((b"\xfd" + bytes(14) + b"\1", PORT), script.now)
    ports = {script.stack.connect_tcp((PEER, PORT), script.now).local[1] for _ in range(200)}
    assert len(ports) == 200


# --- data ---


def test_window_of_ten_segments_first() -> None:
    script = Script()
    connection = script.connect()
    assert connection.write(bytes(100_000), script.now) == 100_000
    assert [len(segment.payload) for segment in script.out()] == [FULL] * 10


def test_psh_ends_what_was_written() -> None:
    script = Script()
    connection = script.connect()
    connection.write(bytes(3000), script.now)
    assert [bool(segment.flags & PSH) for segment in script.out()] == [False, False, True]


def test_one_ack_a_burst() -> None:
    script = Script()
    connection = script.connect()
    parts = [bytes([n]) * FULL for n in range(20)]
    script.give(*(script.segment(ACK, part, seq=script.seq + n * FULL) for n, part in enumerate(parts)))
    ack = script.one()
    assert ack.ack == script.seq + 20 * FULL
    assert connection.read(1 << 20, script.now) == b"".join(parts)


def test_delayed_ack_rides_on_data_or_goes_alone_after_40_ms() -> None:
    script = Script()
    connection = script.connect()
    for _ in range(20):
        script.send(b"x")
    script.out()
    script.send(b"y")
    assert script.out() == []
    script.wait(0.05)
    assert script.one().ack == script.seq
    script.send(b"z")
    assert script.out() == []
    connection.write(b"answer", script.now)
    assert script.one().ack == script.seq
    script.wait(0.1)
    assert script.out() == []


def test_sack_blocks_newest_first_and_duplicates_reported() -> None:
    script = Script()
    connection = script.connect()
    base = script.seq

    def piece(number: int) -> TcpSegment:
        return script.segment(ACK, bytes([number]) * 100, seq=base + number * 100)

    def blocks() -> list[tuple[int, int]]:
        script.wait(0.001)
        return [((left - base) // 100, (right - base) // 100) for left, right in script.one().sack_blocks]

    script.give(piece(1))
    assert blocks() == [(1, 2)]
    script.give(piece(5))
    assert blocks() == [(5, 6), (1, 2)]
    script.give(piece(3))
    assert blocks() == [(3, 4), (5, 6), (1, 2)]
    script.give(piece(7))
    assert blocks() == [(7, 8), (3, 4), (5, 6)]
    script.give(piece(2))
    assert blocks() == [(1, 4), (7, 8), (5, 6)]
    script.give(piece(2))
    assert blocks()[0] == (2, 3)
    script.give(piece(0))
    ack = script.one()
    assert ack.ack == base + 400
    assert connection.read(1000, script.now) == b"".join(bytes([n]) * 100 for n in range(4))
    script.give(piece(0))
    assert blocks()[0] == (0, 1)


def test_behind_a_hole_three_are_told_at_once_and_then_one_a_millisecond() -> None:
    """As Linux does: the peer repairs after three, and sends for each."""
    script = Script()
    connection = script.connect()
    connection.sender.rto.srtt = 0.1
    script.give(script.segment())
    base = script.seq

    def give(number: int) -> list[TcpSegment]:
        script.give(script.segment(ACK, bytes(100), seq=base + number * 100))
        return script.out()

    for number in (1, 2, 3):
        (told,) = give(number)
        assert told.sack_blocks == ((base + 100, base + 100 * (number + 1)),)
    for number in range(4, 20):
        assert give(number) == []
    script.wait(0.0009)
    assert script.out() == []
    script.wait(0.0002)
    assert script.one().sack_blocks == ((base + 100, base + 2000),)
    # However many come within it, no acknowledgement speaks for more than 44.
    told_at = [number for number in range(20, 110) if give(number)]
    assert told_at == [64, 109]
    # A hole that is filled is news; and so is the next one, three times.
    assert give(0)[0].ack == base + 11_000
    assert [len(give(number)) for number in range(120, 126)] == [1, 1, 1, 0, 0, 0]


def test_on_a_short_path_everything_behind_a_hole_is_told_at_once() -> None:
    script = Script()
    connection = script.connect()
    connection.sender.rto.srtt = 0.005
    for number in range(1, 20):
        script.give(script.segment(ACK, bytes(100), seq=script.seq + number * 100))
        assert script.one().flags == ACK


def test_a_burst_full_of_holes_is_reported_completely() -> None:
    script = Script()
    script.connect()
    base = script.seq
    script.give(*(script.segment(ACK, b"x" * 10, seq=base + n * 20) for n in range(1, 9)))
    reported = {block for ack in script.out() for block in ack.sack_blocks}
    assert {(base + n * 20, base + n * 20 + 10) for n in range(1, 9)} <= reported


def test_lost_segments_1_and_3_of_10_cost_exactly_two_retransmissions() -> None:
    script = Script()
    connection = script.connect()
    connection.write(bytes(10 * FULL), script.now)
    sent = script.out()
    assert len(sent) == 10
    script.now += 0.02
    una = sent[0].seq
    resent: list[int] = []
    held = [segment for index, segment in enumerate(sent) if index not in (0, 2)]
    known: list[int] = []
    for segment in held:
        known.append(segment.seq)
        lefts = [seq for seq in sorted(known) if seq - FULL not in known]
        blocks = []
        for left in lefts:
            right = left
            while right in known:
                right += FULL
            blocks.append((left, right))
        blocks.sort(key=lambda block: segment.seq not in range(*block))
        script.give(script.segment(ack=una, sack_blocks=tuple(blocks)))
        resent += [(s.seq - una) // FULL for s in script.out()]
    assert resent == [0, 2]
    script.ack = una + 10 * FULL
    script.give(script.segment())
    script.wait(30)
    assert script.out() == []
    assert connection.sender.timeouts == 0
    assert connection.sender.unacknowledged == 0


def test_three_duplicate_acks_without_sack() -> None:
    script = Script()
    connection = script.connect(sack=False)
    # Until now the window was the SYN's, unscaled: an acknowledgement that changes it is no duplicate.
    script.give(script.segment())
    connection.write(bytes(10 * FULL), script.now)
    sent = script.out()
    for count in range(3):
        assert script.out() == [], count
        script.give(script.segment())
    (again,) = script.out()
    assert again.seq == sent[0].seq
    # A partial acknowledgement names the next hole (RFC 6582).
    script.ack = sent[4].seq
    script.give(script.segment())
    assert sent[4].seq in [segment.seq for segment in script.out()]
    assert connection.sender.timeouts == 0


def test_timeout_backs_off_and_goes_back_to_the_first_byte() -> None:
    script = Script(settings=TcpSettings(black_hole_mss=()))
    connection = script.connect()
    connection.write(bytes(5 * FULL), script.now)
    sent = script.out()
    start, times = script.now, []
    for _ in range(1000):
        script.wait(0.01)
        for segment in script.out():
            if script.now - start < 0.1:
                # The tail loss probe, after two round trips, is the last segment again.
                assert segment.seq == sent[4].seq
                continue
            assert segment.seq == sent[0].seq
            times.append(script.now - start)
    gaps = [b - a for a, b in pairwise([0.0, *times])]
    assert 0.2 <= gaps[0] <= 0.5
    for before, after in pairwise(gaps):
        assert 1.5 < after / before < 2.6
    # The first byte arrives: the others follow in slow start, without another timeout.
    script.ack = sent[1].seq
    script.give(script.segment())
    assert [segment.seq for segment in script.out()] == [sent[1].seq, sent[2].seq]


def test_peer_gone_silent_is_a_timeout_at_last() -> None:
    script = Script(settings=TcpSettings(data_retries=4))
    connection = script.connect()
    connection.write(b"x", script.now)
    script.wait(60)
    assert failed(connection) == errno.ETIMEDOUT
    assert script.stack.stats().tcp_connections == 0


def test_paws() -> None:
    script = Script()
    connection = script.connect()
    script.send(b"new")
    script.out()
    old = script.segment(ACK | PSH, b"old", timestamps=((int(script.now * 1000) - 100) & MASK, 0))
    script.give(old)
    ack = script.one()
    assert ack.ack == script.seq
    assert connection.read(100, script.now) == b"new"


def test_corrupt_segment_is_dropped_and_its_neighbours_are_not() -> None:
    script = Script()
    connection = script.connect()
    packets = [scapy_wire.build_tcp(script.segment(ACK, bytes([n]) * 100, seq=script.seq + n * 100)) for n in range(3)]
    packets[1] = packets[1][:-1] + b"\xee"
    script.stack.handle_packets(packets, script.now)
    assert connection.read(1000, script.now) == bytes(100)
    assert script.stack.drops[DropReason.BAD_CHECKSUM] == 1
    assert script.one().sack_blocks == ((script.seq + 200, script.seq + 300),)


# --- windows ---


def test_zero_window_is_probed_with_backoff_and_an_update_resumes() -> None:
    script = Script()
    connection = script.connect(scale=0)
    script.give(script.segment(window=0))
    connection.write(bytes(1000), script.now)
    assert script.out() == []
    start, times = script.now, []
    for _ in range(200):
        script.wait(0.05)
        for probe in script.out():
            assert (probe.seq, probe.payload) == (script.ack - 1, b"")
            times.append(script.now - start)
            script.give(script.segment(window=0))
    gaps = [b - a for a, b in pairwise(times)]
    assert len(times) >= 4
    assert all(1.5 < after / before < 2.6 for before, after in pairwise(gaps))
    script.give(script.segment(window=60_000))
    assert len(script.one().payload) == 1000


def test_zero_window_for_hours_is_not_an_error_while_it_is_answered() -> None:
    script = Script()
    connection = script.connect(scale=0)
    script.give(script.segment(window=0))
    connection.write(b"x", script.now)
    for _ in range(4 * 3600):
        script.wait(1)
        for _probe in script.out():
            script.give(script.segment(window=0))
    assert connection.error is None


def test_our_window_closes_and_its_right_edge_stays() -> None:
    script = Script(settings=TcpSettings(receive_buffer=10_000, receive_buffer_max=10_000))
    connection = script.connect()
    edges, scale = [], connection.receiver.scale
    for _ in range(20):
        room = min(1000, connection.receiver.edge - connection.receiver.nxt)
        if room:
            script.send(bytes(room))
        else:
            script.give(script.segment(ACK, b"x"))
        edges += [segment.ack + (segment.window << scale) for segment in script.out()]
    assert connection.receiver.queued <= 10_000
    assert edges == sorted(edges)
    # Beyond the window: nothing is taken.
    assert connection.receiver.queued == 10_000
    assert len(connection.read(500, script.now)) == 500
    assert script.out() == []
    assert len(connection.read(1 << 20, script.now)) == 9500
    assert script.one().window << scale == 10_000


def test_send_buffer_is_bounded_and_one_level_rules_writing() -> None:
    script = Script(settings=TcpSettings(send_buffer=100_000))
    connection = script.connect()
    assert connection.writable
    assert connection.write(bytes(500_000), script.now) == 100_000
    assert not connection.writable
    assert connection.write(b"x", script.now) == 0
    sent = script.out()
    script.take(sent)
    script.give(script.segment())
    assert not connection.writable
    while connection.sender.unacknowledged > 50_000:
        script.take(script.out())
        script.give(script.segment())
    assert connection.writable


def test_nagle_sends_small_pieces_one_at_a_time_and_full_ones_at_once() -> None:
    """RFC 9293, 3.7.4; off by default."""
    script = Script()
    connection = script.connect()
    connection.set_nodelay(False, script.now)
    connection.write(b"a", script.now)
    assert [segment.payload for segment in script.out()] == [b"a"]
    for piece in (b"b", b"c"):
        connection.write(piece, script.now)
    assert script.out() == []
    connection.write(bytes(2 * FULL), script.now)
    assert [len(segment.payload) for segment in script.out()] == [FULL, FULL]
    script.ack += 1 + 2 * FULL
    script.now += 0.02
    script.give(script.segment())
    assert [len(segment.payload) for segment in script.out()] == [2]
    connection.write(b"d", script.now)
    assert script.out() == []
    # Turned off, what waits goes; and so it does with the end.
    connection.set_nodelay(True, script.now)
    assert [segment.payload for segment in script.out()] == [b"d"]
    connection.set_nodelay(False, script.now)
    connection.write(b"e", script.now)
    assert script.out() == []
    connection.shutdown_write(script.now)
    assert [segment.payload for segment in script.out()] == [b"e", b""]


# --- closing ---


def test_half_close_then_the_peer_closes() -> None:
    script = Script()
    connection = script.connect()
    connection.write(b"request", script.now)
    connection.shutdown_write(script.now)
    connection.shutdown_write(script.now)
    segments = script.out()
    assert script.take(segments) == b"request"
    assert segments[-1].flags & FIN
    script.give(script.segment())
    assert connection.state is TcpState.FIN_WAIT_2
    with pytest.raises(BrokenPipeError):
        connection.write(b"x", script.now)
    script.send(b"answer")
    script.send(b"", FIN | ACK)
    assert script.out()[-1].ack == script.seq
    assert connection.read(100, script.now) == b"answer"
    assert connection.eof and connection.error is None
    assert connection.state is TcpState.CLOSED
    # TIME-WAIT: the FIN again is acknowledged again; a reset changes nothing; it ends.
    fin = script.segment(FIN | ACK, seq=script.seq - 1)
    script.give(fin)
    assert script.one().ack == script.seq
    script.give(script.segment(RST))
    script.wait(1)
    script.give(fin)
    assert script.one().flags == ACK
    script.wait(61)
    script.give(fin)
    assert script.one().flags & RST
    assert script.stack.next_timeout() is None


def test_the_peer_closes_first() -> None:
    script = Script()
    connection = script.connect()
    script.send(b"bye", FIN | ACK | PSH)
    assert script.one().ack == script.seq
    assert connection.state is TcpState.CLOSE_WAIT
    assert not connection.eof
    assert connection.read(10, script.now) == b"bye"
    assert connection.eof
    connection.write(b"last", script.now)
    connection.close(script.now)
    assert script.take(script.out()) == b"last"
    assert connection.state is TcpState.LAST_ACK
    script.give(script.segment())
    assert connection.state is TcpState.CLOSED and connection.error is None
    assert script.stack.stats().tcp_connections == 0


def test_simultaneous_close() -> None:
    script = Script()
    connection = script.connect()
    connection.shutdown_write(script.now)
    fin = script.one()
    script.send(b"", FIN | ACK)
    assert connection.state is TcpState.CLOSING
    script.out()
    script.ack = fin.seq + 1
    script.give(script.segment())
    assert connection.state is TcpState.CLOSED and connection.error is None


def test_no_early_end() -> None:
    """A FIN that overtakes data is the end only after the data (RFC 9293, 3.10.7.4)."""
    script = Script()
    connection = script.connect()
    base = script.seq
    script.give(script.segment(FIN | ACK, b"", seq=base + 6))
    script.give(script.segment(ACK, b"def", seq=base + 3))
    assert not connection.eof and not connection.readable
    script.give(script.segment(ACK, b"abcdef", seq=base))
    assert connection.read(10, script.now) == b"abcdef"
    assert connection.eof
    assert script.out()[-1].ack == base + 7


def test_close_with_unread_data_resets() -> None:
    script = Script()
    connection = script.connect()
    script.send(b"unread")
    script.out()
    connection.close(script.now)
    assert script.one().flags & RST
    assert script.stack.stats().tcp_connections == 0


def test_data_after_close_resets() -> None:
    script = Script()
    connection = script.connect()
    connection.close(script.now)
    script.out()
    script.send(b"late")
    assert script.one().flags & RST


def test_closed_and_the_peer_never_closes() -> None:
    script = Script()
    connection = script.connect()
    connection.close(script.now)
    script.take(script.out())
    script.give(script.segment())
    assert connection.state is TcpState.FIN_WAIT_2
    script.wait(61)
    assert script.stack.stats().tcp_connections == 0


def test_abort() -> None:
    script = Script()
    connection = script.connect()
    connection.write(b"x", script.now)
    script.out()
    connection.abort(script.now)
    assert script.one().flags & RST
    assert failed(connection) == errno.ECONNABORTED
    assert script.stack.stats().tcp_connections == 0


# --- attacks ---


def test_reset_at_the_exact_position_only() -> None:
    """RFC 5961, 3.2."""
    script = Script()
    connection = script.connect()
    script.give(script.segment(RST, seq=script.seq + 100))
    challenge = script.one()
    assert (challenge.flags, challenge.ack) == (ACK, script.seq)
    script.give(script.segment(RST, seq=script.seq + 101))
    assert script.out() == []
    script.wait(0.6)
    script.give(script.segment(RST, seq=script.seq + 101))
    assert script.one().flags == ACK
    script.give(script.segment(RST, seq=script.seq + 10_000_000), script.segment(RST, seq=script.seq - 1))
    assert script.out() == []
    assert connection.error is None
    script.send(b"kept")
    script.out()
    script.give(script.segment(RST))
    assert failed(connection) == errno.ECONNRESET
    assert connection.read(10, script.now) == b"kept"
    with pytest.raises(ConnectionResetError):
        connection.read(10, script.now)
    assert script.out() == []


def test_syn_in_the_window_is_challenged() -> None:
    script = Script()
    connection = script.connect()
    script.give(script.segment(SYN, seq=script.seq + 5))
    assert script.one().flags == ACK
    assert connection.error is None


def test_ack_of_what_was_never_sent() -> None:
    script = Script()
    connection = script.connect()
    script.give(script.segment(ACK, b"evil", ack=script.ack + 1))
    assert script.one().ack == script.seq
    assert connection.receivable == 0


def test_reset_never_answers_reset() -> None:
    script = Script()
    script.port = 4000
    script.give(script.segment(RST), script.segment(RST | ACK))
    assert script.out() == []
    assert script.stack.drops[DropReason.NO_SOCKET] == 2


def test_resets_for_nobody_follow_the_rules_and_are_rationed() -> None:
    script = Script(limits=Limits(answers_per_second=5))
    script.port = 4000
    script.give(script.segment(ACK, b"x", ack=77))
    first = script.one()
    assert (first.flags, first.seq) == (RST, 77)
    script.give(script.segment(SYN | FIN, b"xy"))
    second = script.one()
    assert (second.flags, second.ack) == (RST | ACK, script.seq + 4)
    script.give(*[script.segment(ACK)] * 50)
    assert len(script.out()) == 3


def test_sack_lies_are_ignored() -> None:
    script = Script()
    connection = script.connect()
    connection.write(bytes(10 * FULL), script.now)
    sent = script.out()
    una = sent[0].seq
    for lie in ((una + 10 * FULL, una + 11 * FULL), (una + 5, una + 4), (una - 10, una), (una, una + 20 * FULL)):
        script.give(script.segment(sack_blocks=(lie,)))
    assert connection.sender.board.sacked_bytes == 0
    assert connection.sender.board.pipe == 10 * FULL


# --- paths ---


def test_packet_too_big_lowers_the_segment_size() -> None:
    script = Script()
    connection = script.connect()
    connection.write(bytes(10 * FULL), script.now)
    packets = script.stack.take_output(100)
    wrong = bytearray(packets[0][:28])
    wrong[24] ^= 0x80
    icmp(script, 3, 4, bytes(wrong), 1300)
    assert connection.sender.mss == FULL
    icmp(script, 3, 4, packets[0][:28], 1300)
    sizes = [len(segment.payload) for segment in script.out()]
    assert max(sizes) == 1300 - 52
    assert sum(sizes) >= 9 * 1248
    # What is known of a path holds for the next connection too; what the peer may send is another matter.
    later = script.stack.connect_tcp((PEER, 81), script.now)
    assert later.path_mss == 1260
    assert script.one().mss == 1460


def test_packet_too_big_has_a_floor() -> None:
    script = Script()
    connection = script.connect()
    connection.write(bytes(10 * FULL), script.now)
    (packet, *_rest) = script.stack.take_output(100)
    icmp(script, 3, 4, packet[:28], 68)
    assert connection.sender.mss == 552 - 52


def test_tunnel_lost() -> None:
    script = Script()
    connection = script.connect()
    listener = script.stack.listen_tcp((None, 1), script.now)
    changes: list[int] = []
    connection.on_change = lambda: changes.append(1)
    script.stack.fail(OSError(errno.ENETDOWN, "down"))
    assert failed(connection) == errno.ENETDOWN and changes == [1]
    with pytest.raises(OSError, match="down"):
        listener.accept()
    with pytest.raises(OSError, match="down"):
        script.stack.connect_tcp((PEER, PORT), script.now)


def test_keepalive_notices_a_dead_peer() -> None:
    script = Script(settings=TcpSettings(keepalive_idle=60, keepalive_interval=10, keepalive_probes=3))
    connection = script.connect()
    script.wait(61)
    probe = script.one()
    assert (probe.seq, probe.payload) == (script.ack - 1, b"")
    script.give(script.segment())
    script.wait(59)
    assert script.out() == []
    script.wait(5)
    assert len(script.out()) == 1
    script.wait(40)
    assert failed(connection) == errno.ETIMEDOUT


# --- listening ---


def test_backlog_is_bounded() -> None:
    script = Script()
    listener = script.stack.listen_tcp((US, 80), script.now, backlog=3)
    script.timestamps = False
    for port in range(10):
        script.give(TcpSegment(PEER, US, 1000 + port, 80, 1, 0, SYN, 1000, mss=1000))
    answers = script.out()
    assert [(answer.flags, answer.dport) for answer in answers] == [(SYN | ACK, 1000 + n) for n in range(3)]
    assert script.stack.drops[DropReason.LIMIT] == 7
    for answer in answers:
        script.give(replace(script.segment(), sport=answer.dport, dport=80, seq=2, ack=answer.seq + 1))
    accepted = [listener.accept() for _ in range(4)]
    assert [connection is not None for connection in accepted] == [True, True, True, False]


def test_syn_received_answers_the_syn_again_and_gives_up() -> None:
    script = Script(settings=TcpSettings(syn_ack_retries=2))
    listener = script.stack.listen_tcp((None, 80), script.now)
    syn = TcpSegment(PEER, US, 1000, 80, 1, 0, SYN, 1000, mss=1000)
    script.give(syn)
    first = script.one()
    script.give(syn)
    assert script.one() == first
    script.wait(60)
    assert script.out()
    assert script.stack.stats().tcp_connections == 0
    assert not listener.half_open and listener.accept() is None


def test_closing_a_listener_resets_who_waits() -> None:
    script = Script()
    listener = script.stack.listen_tcp((None, 80), script.now)
    script.give(TcpSegment(PEER, US, 1000, 80, 1, 0, SYN, 1000, mss=1000))
    script.out()
    listener.close(script.now)
    assert script.one().flags & RST
    script.give(TcpSegment(PEER, US, 1001, 80, 1, 0, SYN, 1000, mss=1000))
    assert script.one().flags == RST | ACK


def test_port_reuse_out_of_time_wait() -> None:
    """RFC 6191: a newer SYN may take the four-tuple over."""
    script = Script()
    listener = script.stack.listen_tcp((None, 80), script.now)
    syn = TcpSegment(PEER, US, 1000, 80, 1, 0, SYN, 60_000, mss=1000)
    script.give(syn)
    answer = script.one()
    base = replace(script.segment(), sport=1000, dport=80, timestamps=None)
    script.give(replace(base, seq=2, ack=answer.seq + 1))
    connection = listener.accept()
    assert connection is not None
    connection.close(script.now)
    fin = script.one()
    script.give(replace(base, flags=FIN | ACK, seq=2, ack=fin.seq + 1))
    script.out()
    script.give(replace(syn, seq=2))
    assert SYN not in [segment.flags & SYN for segment in script.out()]
    script.wait(1)
    script.give(replace(syn, seq=100_000))
    assert script.one().flags == SYN | ACK
