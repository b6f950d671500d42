"""TCP under attack: what a stranger, or a peer that means harm, cannot do."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tcp_script import PEER, US, Script

from minivpn_trio.errors import DropReason
from minivpn_trio.netstack import scapy_wire
from minivpn_trio.netstack.packets import ACK, RST, SYN, TcpSegment
from minivpn_trio.netstack.stack import Limits, Stack
from minivpn_trio.netstack.tcp.connection import TcpConnection

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


def test_a_defect_is_not_hidden_from_tests() -> None:
    assert not Stack.contains_faults
