"""Listening ports: who has one."""

from __future__ import annotations

import errno
from ipaddress import ip_interface

from tcp_script import PEER, US, Script

from minivpn_trio.config.tunnel_info import TunnelInfo
from minivpn_trio.netstack.packets import ACK, SYN, TcpSegment


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
