"""A peer without SACK: nothing is noted for it that it cannot be told, and control by rate is not for it."""

from __future__ import annotations

from tcp_script import Script

from minivpn_trio.netstack.packets import ACK, PSH
from minivpn_trio.netstack.tcp.congestion import ALGORITHMS
from minivpn_trio.netstack.tcp.settings import TcpSettings


def notes(script: Script) -> int:
    (connection,) = script.stack._connections.values()
    receiver = connection.receiver
    return len(receiver._news) + len(receiver._duplicates) + len(receiver._reported)


def test_the_same_early_segment_for_ever() -> None:
    for sack in (False, True):
        script = Script()
        script.connect(sack=sack)
        script.send(b"begun")
        script.out()
        for _ in range(50):
            script.give(*[script.segment(ACK, b"ten bytes.", seq=script.seq + 100)] * 8)
            script.wait(0.002)
            # Their number is the message; with SACK a duplicate is named.
            answers = script.out()
            assert answers and all(answer.ack == script.seq for answer in answers)
            assert sack or len(answers) == 8
            assert notes(script) <= 40


def test_reordering_beside_an_upload_leaves_nothing() -> None:
    """A hole that the same burst fills, acknowledged by data of ours."""
    for sack in (False, True):
        script = Script()
        connection = script.connect(sack=sack)
        script.send(b"begun")
        script.out()
        for _ in range(300):
            connection.sender.write(b"upload")
            late = script.segment(ACK | PSH, b"first")
            script.give(script.segment(ACK | PSH, b"next", seq=script.seq + 5), late)
            script.seq += 9
            answers = script.out()
            # Without SACK each early one has its duplicate.
            assert len([answer for answer in answers if not answer.payload]) == (not sack)
            script.take([answer for answer in answers if answer.payload])
        assert connection.receiver.queued == 5 + 300 * 9
        assert notes(script) <= 2


def test_a_duplicate_long_ago_does_not_cost_acknowledgements() -> None:
    """Data of ours acknowledges, alone."""
    script = Script()
    connection = script.connect(sack=False)
    script.send(b"x" * 100)
    script.out()
    script.give(script.segment(ACK, b"x" * 100, seq=script.seq - 100))
    assert [segment.payload for segment in script.out()] == [b""]
    for _ in range(3):
        connection.sender.write(b"answer")
        script.send(b"question")
        answers = script.out()
        assert [segment.payload for segment in answers] == [b"answer"]
        assert answers[0].ack == script.seq
        script.take(answers)


def test_duplicates_are_counted_out_beside_data_of_ours() -> None:
    """What arrives early needs acknowledgements without data: others do not count as duplicates (RFC 5681, 2)."""
    script = Script()
    connection = script.connect(sack=False)
    script.send(b"begun")
    script.out()
    connection.sender.write(b"ours")
    script.give(*[script.segment(ACK, bytes(10), seq=script.seq + 10 * at) for at in (1, 2, 3)])
    answers = script.out()
    assert sorted(len(segment.payload) for segment in answers) == [0, 0, 0, 4]
    assert {segment.ack for segment in answers} == {script.seq}


def test_control_by_rate_is_not_to_be_had_without_sack() -> None:
    for first in ("cubic", "newreno", "bbr"):
        script = Script(settings=TcpSettings(congestion=first))
        connection = script.connect(sack=False)
        connection.set_congestion("bbr")
        assert connection.congestion_name == "cubic"
        assert type(connection.sender.congestion) is ALGORITHMS["cubic"] and not connection.sender.rate_based
        connection.set_congestion("newreno")
        assert connection.congestion_name == "newreno"


def test_control_by_rate_with_sack() -> None:
    script = Script()
    connection = script.connect()
    connection.set_congestion("bbr")
    assert connection.congestion_name == "bbr" and connection.sender.rate_based
