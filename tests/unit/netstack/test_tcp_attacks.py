"""TCP under attack: what a stranger, or a peer that means harm, cannot do."""

from __future__ import annotations

import errno
from dataclasses import replace

import pytest
from tcp_script import MASK, PEER, US, Script

from minivpn_trio.errors import DropReason
from minivpn_trio.netstack import scapy_wire
from minivpn_trio.netstack.fragments import FragmentTable
from minivpn_trio.netstack.packets import ACK, FIN, PSH, RST, SYN, TcpSegment
from minivpn_trio.netstack.stack import Limits, Stack
from minivpn_trio.netstack.tcp.connection import TcpConnection
from minivpn_trio.netstack.tcp.settings import TcpSettings
from minivpn_trio.netstack.tcp.timewait import TimeWaitTable

SYN_TO_80 = TcpSegment(PEER, US, 1000, 80, 1, 0, SYN, 1000, mss=1000)


# --- the handshake ---


def test_a_syn_repeated_a_thousand_times_is_answered_rarely_and_changes_nothing() -> None:
    script = Script()
    listener = script.stack.listen_tcp((None, 80), script.now)
    packet = scapy_wire.build_tcp(SYN_TO_80)
    start = script.now
    answers = 0
    for _ in range(1200):
        script.stack.handle_packets([packet], script.now)
        answers += len(script.stack.take_output(100))
        script.now += 0.0005
    # The SYN-ACK, the answer to the first repetition, and one more half a second later.
    assert answers == 3
    (embryo,) = listener.half_open
    assert embryo.deadline == start + 1
    # As many SYN-ACKs as without that, and then it is forgotten.
    times = []
    while script.stack.stats().tcp_connections:
        times += [round(script.now - start) for _ in script.out()]
        script.wait(0.5)
    assert times == [1, 3, 7, 15, 31]
    assert 62 < script.now - start < 64


def test_an_ambiguous_handshake_gives_no_round_trip_time() -> None:
    script = Script()
    listener = script.stack.listen_tcp((None, 80), script.now)
    script.give(SYN_TO_80)
    script.now += 0.4
    script.give(SYN_TO_80)
    answer = script.out()[0]
    script.now += 0.01
    script.give(replace(script.segment(), sport=1000, dport=80, seq=2, ack=answer.seq + 1, timestamps=None))
    connection = listener.accept()
    assert connection is not None and connection.connected
    assert connection.rtt == 0.0


def test_the_oldest_half_open_connection_gives_way() -> None:
    script = Script(limits=Limits(half_open=3))
    script.timestamps = False
    listeners = [script.stack.listen_tcp((US, port), script.now, backlog=3) for port in (80, 81)]
    for port in range(5):
        script.give(replace(SYN_TO_80, sport=1000 + port, dport=80 + port % 2))
    answers = script.out()
    assert [answer.flags for answer in answers] == [SYN | ACK] * 5
    assert script.stack.stats().tcp_connections == 3
    assert sum(len(listener.half_open) for listener in listeners) == 3
    assert script.stack.drops[DropReason.LIMIT] == 2
    for answer in answers:
        ack = replace(script.segment(), sport=answer.dport, dport=answer.sport, seq=2, ack=answer.seq + 1)
        script.give(ack)
    # RST for the two that were forgotten, the other three are there.
    assert [segment.flags for segment in script.out()] == [RST, RST]
    assert sum(listener.accept() is not None for listener in listeners for _ in range(3)) == 3


def test_wrong_acknowledgements_in_a_handshake_are_reset_so_many_times_a_second() -> None:
    script = Script(limits=Limits(answers_per_second=5))
    script.stack.connect_tcp((PEER, 80), script.now)
    syn = script.one()
    script.port = syn.sport
    script.give(*[script.segment(SYN | ACK, ack=syn.seq + 5)] * 20)
    assert [segment.flags for segment in script.out()] == [RST] * 5
    script.now += 10
    script.stack.listen_tcp((US, 80), script.now)
    script.timestamps = False
    script.give(SYN_TO_80)
    script.out()
    script.give(*[replace(script.segment(), sport=1000, dport=80, seq=2, ack=77)] * 20)
    assert [segment.flags for segment in script.out()] == [RST] * 5


def test_a_full_backlog_leaves_time_wait_in_place() -> None:
    script = Script()
    listener = script.stack.listen_tcp((None, 80), script.now, backlog=1)
    script.timestamps = False
    script.give(SYN_TO_80)
    answer = script.one()
    base = replace(script.segment(), sport=1000, dport=80, seq=2)
    script.give(replace(base, ack=answer.seq + 1))
    connection = listener.accept()
    assert connection is not None
    connection.close(script.now)
    fin = script.one()
    last = replace(base, flags=FIN | ACK, ack=fin.seq + 1)
    script.give(last)
    script.out()
    script.wait(1)
    script.give(replace(SYN_TO_80, sport=1001))
    script.out()
    script.give(replace(SYN_TO_80, seq=100_000))
    assert script.out() == []
    # Still there: the peer's FIN is acknowledged again.
    script.give(last)
    assert (script.one().flags, script.stack.drops[DropReason.LIMIT]) == (ACK, 1)


# --- blind segments ---


@pytest.mark.parametrize("distance", [-1_000_000_000, -100_000, 2_000_000, 1_000_000_000])
@pytest.mark.parametrize("flags", [ACK, 0, FIN | ACK, SYN | ACK])
def test_a_blind_timestamp_does_not_become_the_one_to_compare_with(distance: int, flags: int) -> None:
    """CVE-2005-0356: afterwards PAWS would drop everything that the peer sends."""
    script = Script()
    connection = script.connect()
    recent = connection.timestamp_recent
    future = ((int(script.now * 1000) + 0x7000_0000) & MASK, 0)
    script.give(script.segment(flags, b"evil", seq=(script.seq + distance) & MASK, ack=0, timestamps=future))
    assert connection.timestamp_recent == recent
    script.now += 1
    script.send(b"hello")
    assert connection.read(100, script.now) == b"hello"


@pytest.mark.parametrize("flags", [ACK, 0])
def test_a_timestamp_needs_a_valid_acknowledgement(flags: int) -> None:
    script = Script()
    connection = script.connect()
    recent = connection.timestamp_recent
    future = ((int(script.now * 1000) + 0x7000_0000) & MASK, 0)
    script.give(script.segment(flags, b"evil", ack=(script.ack + 1_000_000) & MASK, timestamps=future))
    assert connection.timestamp_recent == recent
    assert connection.receivable == 0


def test_a_segment_outside_of_the_window_does_not_set_the_peers() -> None:
    for distance in (1_000_000, 8_000_000, -20_000_000):
        script = Script()
        connection = script.connect()
        connection.write(bytes(5000), script.now)
        sent = script.out()
        script.give(script.segment(ACK, seq=(script.seq + distance) & MASK, ack=sent[-1].seq, window=0))
        assert connection.sender.window > 0
        assert connection.sender.una == sent[0].seq
        script.out()
        script.take(sent)
        script.now += 0.1
        script.give(script.segment(ACK, window=400))
        assert connection.sender.window == 400 << 7


def test_data_for_a_closed_window_acknowledges_all_the_same() -> None:
    """RFC 9293, 3.10.7.4: with a window of zero, valid ACKs must be accepted."""
    script = Script(settings=TcpSettings(receive_buffer=2000, receive_buffer_max=2000))
    connection = script.connect()
    script.send(bytes(1000))
    script.send(bytes(1000))
    assert script.out()[-1].window == 0
    connection.write(b"x" * 100, script.now)
    script.take(script.out())
    script.give(script.segment(ACK, b"a probe", window=300))
    assert connection.sender.una == connection.sender.nxt
    assert connection.sender.window == 300 << 7
    assert connection.receivable == 2000


def test_only_the_peer_keeps_a_connection_alive() -> None:
    script = Script(settings=TcpSettings(keepalive_idle=60, keepalive_interval=10, keepalive_probes=3))
    connection = script.connect()
    for _ in range(12):
        script.wait(10)
        script.give(script.segment(ACK, seq=(script.seq + 100_000_000) & MASK))
        script.give(script.segment(RST, seq=(script.seq + 1000) & MASK))
        script.give(script.segment(ACK, ack=(script.ack + 5000) & MASK))
    assert connection.error is not None and connection.error.errno == errno.ETIMEDOUT


def test_data_keeps_a_connection_alive() -> None:
    script = Script(settings=TcpSettings(keepalive_idle=60, keepalive_interval=10, keepalive_probes=3))
    connection = script.connect()
    for step in range(12):
        script.wait(40)
        script.send(b"x", ACK if step % 2 else ACK | PSH)
        assert len(script.out()) == 1
    assert connection.error is None


# --- selective acknowledgements ---


def test_sack_blocks_of_pieces_cost_nothing() -> None:
    script = Script(settings=TcpSettings(initial_window_segments=100))
    connection = script.connect()
    connection.write(bytes(100_000), script.now)
    sent = script.out()
    board, una = connection.sender.board, sent[0].seq
    for at in range(0, 3000, 6):
        blocks = tuple((una + at + 2 * n + 1, una + at + 2 * n + 2) for n in range(3))
        script.give(script.segment(sack_blocks=blocks))
    assert len(board._starts) == 0 and board.sacked_bytes == 0


def test_a_sack_block_counts_whole_segments() -> None:
    script = Script()
    connection = script.connect()
    connection.write(bytes(14_480), script.now)
    sent = script.out()
    board, full = connection.sender.board, len(sent[0].payload)
    starts = [segment.seq for segment in sent]

    def sacked(left: int, right: int) -> list[int]:
        script.give(script.segment(ack=starts[0], sack_blocks=((left, right),)))
        return [number for number, segment in enumerate(board) if segment.sacked]

    assert sacked(starts[2], starts[3] - 1) == []
    assert sacked(starts[2] + 1, starts[3] + full - 1) == []
    assert sacked(starts[2], starts[3]) == [2]
    assert sacked(starts[2] - 5, starts[4] + 5) == [2, 3]
    assert sacked(starts[8], starts[9] + full - 1) == [2, 3, 8]
    assert sacked(starts[8], starts[9] + full) == [2, 3, 8, 9]
    assert (len(board._starts), board.sacked_bytes) == (2, 4 * full)


# --- what must not happen, and yet does ---


@pytest.mark.parametrize("method", ["handle_packets", "handle_segment", "handle_timeout", "flush"])
def test_a_defect_ends_one_connection_and_not_the_tunnel(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Stack, "contains_faults", True)
    script = Script()
    victim = script.connect()
    victim.write(b"x", script.now)
    script.out()
    script.ack += 1
    hostile = script.segment(ACK | (0x01 if method == "handle_segment" else 0), b"evil")
    original = getattr(TcpConnection, method)

    def broken(connection: TcpConnection, *args: object) -> None:
        if connection is victim:
            raise ZeroDivisionError
        original(connection, *args)

    told: list[int] = []
    victim.on_change = lambda: told.append(1)
    monkeypatch.setattr(TcpConnection, method, broken)
    if method == "handle_timeout":
        script.wait(5)
    else:
        if method == "handle_segment":
            # As a packet that the fast path does not know.
            script.stack._fast.clear()
        script.give(hostile)
    assert script.stack.drops[DropReason.FAULT] == 1
    assert script.one().flags & RST
    assert victim.error is not None and told == [1]
    assert script.stack.stats().tcp_connections == 0
    # Everybody else goes on.
    script.seq = script.iss
    other = script.connect()
    other.write(b"still here", script.now)
    assert script.one().payload == b"still here"


@pytest.mark.parametrize("also", [[], ["_send_reset"], ["_send_reset", "fail"], ["_account"]])
def test_whoever_waits_for_room_hears_of_a_defect(also: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing arrived for the connection and no timer of it went off; and perhaps letting go fails too."""
    monkeypatch.setattr(Stack, "contains_faults", True)
    script = Script()
    victim = script.connect()
    script.stack.wait_turn(victim)  # type: ignore[arg-type]

    def broken(self: TcpConnection, *args: object) -> None:
        raise ZeroDivisionError

    for method in ["flush", *also]:
        monkeypatch.setattr(TcpConnection, method, broken)
    told: list[int] = []
    woken: list[int] = []
    victim.on_change = lambda: told.append(1)
    script.stack.on_work = lambda: woken.append(1)
    script.out()
    assert woken and script.stack.next_timeout() == script.now
    script.stack.handle_timeout(script.now)
    assert told == [1]
    assert victim.error is not None and victim.error.errno == errno.ECONNABORTED
    assert victim.readable and victim.writable
    with pytest.raises(ConnectionAbortedError):
        victim.read(1, script.now)
    assert (script.stack.stats().tcp_connections, len(script.stack._turns)) == (0, 0)
    assert script.stack.next_timeout() is None
    assert script.stack.drops[DropReason.FAULT] == 1


def test_a_defect_in_what_belongs_to_nobody_is_contained(monkeypatch: pytest.MonkeyPatch) -> None:
    """An unknown protocol's answer, and what a timeout does beside the connections."""
    monkeypatch.setattr(Stack, "contains_faults", True)
    script = Script()
    connection = script.connect()
    # Its checksum is right.
    unknown = bytes.fromhex("4500001c000100004063ae73") + PEER + US + bytes(8)

    def broken(*args: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(Stack, "_report", broken)
    monkeypatch.setattr(Stack, "_report_expired", broken)
    monkeypatch.setattr(TimeWaitTable, "handle_timeout", broken)
    monkeypatch.setattr(FragmentTable, "handle_timeout", broken)
    script.stack.handle_packets([unknown], script.now)
    assert script.stack.drops == {DropReason.NO_SOCKET: 1, DropReason.FAULT: 1}
    connection.write(b"x", script.now)
    script.out()
    script.wait(0.5)
    assert script.one().payload == b"x", "the timers of the others go off"
    assert script.stack.drops[DropReason.FAULT] > 3


def test_a_defect_is_not_hidden_from_tests() -> None:
    assert not Stack.contains_faults
