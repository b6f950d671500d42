"""The dialogues of tcp_dialogues.py with our stack, on a counted clock."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from tcp_dialogues import SCENARIOS, Dialogue

from minivpn_trio.netstack.stack import Stack
from minivpn_trio.netstack.tcp.connection import TcpConnection
from minivpn_trio.netstack.tcp.listener import TcpListener

HOST, PEER = bytes((10, 8, 0, 2)), bytes((192, 0, 2, 1))
MTU = 1400


class OurDialogue(Dialogue):
    def __init__(self) -> None:
        super().__init__(HOST, PEER, mtu=MTU)
        self.clock = 5000.0
        self.stack = Stack(addresses=[HOST], mtu=MTU, rng=random.Random(1).randbytes, now=self.clock)
        self.listener: TcpListener
        self.connection: TcpConnection

    @property
    def now(self) -> float:
        return self.clock

    def put(self, packet: bytes) -> None:
        self.stack.handle_packets([packet], self.clock)

    def take(self, seconds: float) -> list[bytes]:
        packets, self.pending = self.pending + self.stack.take_output(10_000), []
        end = self.clock + seconds
        while not packets and self.clock < end:
            at = self.stack.next_timeout()
            if at is None or at >= end:
                self.clock = end
            else:
                self.clock = max(self.clock, at)
                self.stack.handle_timeout(self.clock)
            packets = self.stack.take_output(10_000)
        return packets

    def listen(self) -> None:
        self.dport = 80
        self.listener = self.stack.listen_tcp((None, 80), self.clock)

    def accept(self) -> None:
        accepted = self.listener.accept()
        assert accepted is not None
        self.connection = accepted

    def connect(self) -> None:
        self.connection = self.stack.connect_tcp((PEER, self.sport), self.clock)

    def write(self, data: bytes) -> None:
        assert self.connection.write(data, self.clock) == len(data)

    def read(self) -> bytes | None:
        connection = self.connection
        if not connection.readable:
            return None
        return connection.read(1 << 20, self.clock)

    def shutdown(self) -> None:
        self.connection.shutdown_write(self.clock)

    def close(self) -> None:
        self.connection.close(self.clock)


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_our_dialogue(scenario: Callable[[Dialogue], None]) -> None:
    dialogue = OurDialogue()
    scenario(dialogue)
