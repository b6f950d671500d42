"""The TCP/IP stack: which packet belongs to whom, addresses, ports, timers, budgets. Sans-IO.

The class is built in layers, each in a file of its own, each using only those below it:

    stack.py          time, the coming and going of the tunnel, what there is to know of the whole
    input.py          bursts in: to whom each packet goes
    udp_ports.py      UDP
    icmp_messages.py  echo, and errors from us and to us
    tcp_ports.py      connecting, listening, segments that are not plain
    output.py         the queue out, and whose turn it is to put data there
    connections.py    the life of connections, and what ends at a defect of ours
    addressing.py     our addresses, and what fits the way to others
    state.py          the state
    lookup.py         the addresses in a packet, and who is bound there
    limits.py         the budgets

Packets to our own addresses, 127.0.0.1 and ::1 among them, never leave: they
wait in a queue and are taken in again at the next ``handle_timeout``, which is
due at once. What arrives from the tunnel in the name of one of our own addresses is dropped,
so nobody out there takes part in what is local.

Everything an attacker may cause has a bound: connections, half-open ones,
TIME-WAIT records, fragments, path MTUs, RSTs and ICMP errors a second.
"""

from __future__ import annotations

from .limits import Limits
from .lookup import is_loopback
from .stack import Stack

__all__ = ["Limits", "Stack", "is_loopback"]
