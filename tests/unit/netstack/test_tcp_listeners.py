"""Listening ports: who has one, and whom it has room for."""

from __future__ import annotations

import errno
from dataclasses import replace
from ipaddress import ip_interface

from tcp_script import PEER, US, Script

from minivpn_trio.config.tunnel_info import TunnelInfo
from minivpn_trio.errors import DropReason
from minivpn_trio.netstack.packets import ACK, RST, SYN, TcpSegment


def test_an_old_listener_does_not_take_the_new_one_along() -> None:
    script = Script()
    stack, now = script.stack, script.now
    old = stack.listen_tcp((bytes(4), 80), now)
    stack.fail(OSError(errno.ENETDOWN, "down"))
    stack.reconfigure(TunnelInfo(ipv4=ip_interface("10.8.0.2/24"), mtu=1500), now)
    stack.listen_tcp((bytes(4), 80), now)
    old.close(now)
    script.give(TcpSegment(PEER, US, 5555, 80, 1000, 0, SYN, 60_000, mss=1460))
    assert script.one().flags == SYN | ACK


def spoofed(port: int) -> TcpSegment:
    """A SYN of nobody."""
    return TcpSegment(PEER, US, port, 80, 1000, 0, SYN, 60_000, mss=1460)


def completed(script: Script, answer: TcpSegment) -> TcpSegment:
    return replace(script.segment(), sport=answer.dport, dport=80, seq=1001, ack=answer.seq + 1, timestamps=None)


def test_syns_of_nobody_do_not_keep_a_listener_deaf() -> None:
    script = Script()
    listener = script.stack.listen_tcp((US, 80), script.now, backlog=128)
    script.give(*[spoofed(1000 + number) for number in range(128)])
    script.out()
    # At once there is no room, and a second later, when the SYN comes again, there is.
    script.give(spoofed(5000))
    assert script.out() == []
    script.now += 1.0
    script.give(spoofed(5000))
    (answer,) = script.out()
    assert (answer.flags, answer.dport) == (SYN | ACK, 5000)
    assert len(listener.half_open) == 128
    assert script.stack.drops[DropReason.LIMIT] == 2
    script.give(completed(script, answer))
    accepted = listener.accept()
    assert accepted is not None and accepted.connected and accepted.remote[1] == 5000
    # It was the oldest that gave way.
    script.give(replace(completed(script, answer), sport=1000))
    assert script.one().flags == RST


def test_many_who_come_at_once_do_not_reset_each_other() -> None:
    script = Script()
    listener = script.stack.listen_tcp((US, 80), script.now, backlog=4)
    answers = []
    for number in range(8):
        script.give(spoofed(1000 + number))
        answers += script.out()
        script.now += 0.05
    assert [answer.dport for answer in answers] == [1000, 1001, 1002, 1003]
    script.give(*[completed(script, answer) for answer in answers])
    assert script.out() == []
    assert [listener.accept() is not None for _ in range(5)] == [True] * 4 + [False]


def test_those_in_the_handshake_do_not_give_way_to_whom_nobody_accepts() -> None:
    """A queue that is full of what nobody accepts stays a reason to wait."""
    script = Script()
    listener = script.stack.listen_tcp((US, 80), script.now, backlog=2)
    for port in (1000, 1001):
        script.give(spoofed(port))
        script.give(completed(script, script.one()))
    script.now += 5.0
    script.give(spoofed(1002))
    assert script.out() == []
    assert listener.accept() is not None
    script.give(spoofed(1002))
    assert script.one().flags == SYN | ACK
