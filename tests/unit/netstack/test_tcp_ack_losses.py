"""After a loss: a burst is acknowledged twice, lest the one acknowledgement be lost."""

from __future__ import annotations

from dataclasses import replace

from tcp_script import MASK, PEER, US, Script

from minivpn_trio.netstack import scapy_wire
from minivpn_trio.netstack.packets import ACK, TcpSegment
from minivpn_trio.netstack.stack import Limits
from minivpn_trio.netstack.tcp.connection import TcpConnection

SIZE = 1000


def burst(script: Script, count: int, size: int = SIZE) -> list[TcpSegment]:
    """``count`` segments in order, sent in one burst; the answers."""
    script.give(*(script.segment(ACK, bytes(size), seq=(script.seq + at * size) & MASK) for at in range(count)))
    script.seq = (script.seq + count * size) & MASK
    return script.out()


def lose_one(script: Script) -> None:
    """A segment that comes behind the next one."""
    late = script.segment(ACK, bytes(SIZE))
    script.seq = (script.seq + SIZE) & MASK
    assert len(burst(script, 1)) == 1
    script.give(late)
    assert script.one().ack == script.seq


def connected(script: Script, read: bool = True) -> TcpConnection:
    connection = script.connect()
    if read:
        # Past the beginning, where nothing is delayed.
        for _ in range(20):
            burst(script, 1)
        connection.read(1 << 20, script.now)
        script.wait(0.1)
        script.out()
    return connection


def acked(script: Script, answers: list[TcpSegment]) -> list[int]:
    """How many segments each answer leaves unacknowledged."""
    return [((script.seq - answer.ack) & MASK) // SIZE for answer in answers]


def test_without_a_loss_a_burst_is_acknowledged_once() -> None:
    script = Script()
    connected(script)
    assert acked(script, burst(script, 8)) == [0]


def test_after_one_it_is_twice() -> None:
    """As the end of it would be if each segment came by itself and every second one was acknowledged."""
    for count, left in ((2, [0]), (4, [2, 0]), (5, [1, 0]), (8, [2, 0]), (40, [2, 0])):
        script = Script()
        connected(script)
        lose_one(script)
        assert acked(script, burst(script, count)) == left, count


def test_an_odd_segment_that_is_acknowledged_counts_no_more() -> None:
    script = Script()
    connected(script)
    lose_one(script)
    burst(script, 1)
    script.wait(0.1)
    assert script.one().ack == script.seq
    assert acked(script, burst(script, 4)) == [2, 0]
    assert acked(script, burst(script, 2)) == [0]


def test_what_data_has_said_is_not_said_again() -> None:
    """Data cannot carry the report of a duplicate: an acknowledgement follows, and no earlier ones."""
    script = Script()
    connection = connected(script)
    lose_one(script)
    connection.write(bytes(100), script.now)
    script.take(script.out())
    connection.write(bytes(200_000), script.now)
    script.take(script.out())
    again = script.segment(ACK, bytes(SIZE), seq=(script.seq - SIZE) & MASK)
    fresh = [script.segment(ACK, bytes(SIZE), seq=(script.seq + at * SIZE) & MASK) for at in range(8)]
    script.give(again, *fresh)
    script.seq = (script.seq + 8 * SIZE) & MASK
    answers = script.out()
    assert any(answer.payload for answer in answers)
    assert {answer.ack for answer in answers} == {script.seq}


def test_where_there_is_room_for_little_the_last_one_goes() -> None:
    script = Script(limits=Limits(output_data=2, output=3))
    connected(script)
    lose_one(script)
    listening = script.stack
    for number in range(2):
        listening.emit(scapy_wire.build_tcp(TcpSegment(US, PEER, 7, 9, number, 0, ACK, 1)))
    assert [answer.ack for answer in burst(script, 8) if answer.sport != 7] == [script.seq]


def test_a_duplicate_is_a_sign_of_loss_too() -> None:
    script = Script()
    connected(script)
    script.give(script.segment(ACK, bytes(SIZE), seq=(script.seq - SIZE) & MASK))
    assert script.one().ack == script.seq
    assert acked(script, burst(script, 4)) == [2, 0]


def test_it_ends_when_enough_arrived_without_another() -> None:
    script = Script()
    connection = connected(script)
    lose_one(script)
    for _ in range(18):
        burst(script, 10)
        connection.read(1 << 20, script.now)
        script.out()
    assert acked(script, burst(script, 8)) == [0]


def test_the_window_does_not_shrink() -> None:
    """Whatever overtakes what: no acknowledgement takes back what an earlier one allowed."""
    script = Script()
    connection = connected(script)
    lose_one(script)
    edge = 0
    for _ in range(6):
        for answer in burst(script, 8):
            now = ((answer.ack - script.iss) & MASK) + (answer.window << connection.receiver.scale)
            assert now >= edge - (1 << connection.receiver.scale)
            edge = max(edge, now)


def test_while_there_is_a_hole_each_says_what_is_behind_it() -> None:
    script = Script()
    connected(script)
    lose_one(script)
    early = [script.segment(ACK, bytes(SIZE), seq=(script.seq + at * SIZE) & MASK) for at in (0, 1, 2, 3, 5, 6)]
    script.give(*early)
    answers = script.out()
    assert [len(answer.sack_blocks) for answer in answers] == [1]
    assert (answers[0].ack - script.seq) & MASK == 4 * SIZE


def test_two_whole_segments_are_acknowledged_whatever_the_link_would_take() -> None:
    """A peer whose path is narrower than our link."""
    script = Script()
    connected(script)
    assert burst(script, 1) == []
    assert acked(script, burst(script, 1)) == [0]


def test_one_whole_segment_waits() -> None:
    script = Script()
    connected(script)
    assert len(burst(script, 2, 1400)) == 1
    assert burst(script, 1, 1400) == []
    script.wait(0.05)
    assert script.one().ack == script.seq


def test_what_options_make_irregular_counts_like_the_rest() -> None:
    script = Script()
    connected(script)
    lose_one(script)
    segments = [script.segment(ACK, bytes(SIZE), seq=(script.seq + at * SIZE) & MASK) for at in range(4)]
    # Options of another length leave the fast path.
    script.give(*(replace(segment, sack_blocks=((1, 2),)) for segment in segments))
    script.seq = (script.seq + 4 * SIZE) & MASK
    assert acked(script, script.out()) == [2, 0]


def test_more_than_the_window_takes_is_no_sign_of_loss() -> None:
    script = Script()
    connection = connected(script)
    room = connection.receiver.edge - connection.receiver.nxt
    whole = room // SIZE
    burst(script, whole)
    assert connection.receiver.edge - connection.receiver.nxt < SIZE
    beyond = script.segment(ACK, bytes(SIZE))
    script.give(beyond)
    script.out()
    connection.read(1 << 20, script.now)
    script.out()
    script.seq = connection.receiver.nxt & MASK
    assert acked(script, burst(script, 8)) == [0]
