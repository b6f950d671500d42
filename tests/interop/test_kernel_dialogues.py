"""The dialogues of tests/unit/netstack/tcp_dialogues.py with Linux: what they expect of us is what a kernel does."""

from __future__ import annotations

import json
import os
import select
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from kernel_peer import KERNELS, MTU, OURS, kernel_process

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "netstack"))

from tcp_dialogues import SCENARIOS, Dialogue

pytestmark = pytest.mark.interop

Kernel = tuple[socket.socket, int]


@pytest.fixture(scope="module")
def kernel() -> Iterator[Kernel]:
    with kernel_process(str(Path(__file__).with_name("kernel_application.py"))) as made:
        yield made


class KernelDialogue(Dialogue):
    #: The kernel remembers what it learnt of a path: each script has an address of its own.
    addresses = iter(range(10, 250))

    def __init__(self, kernel: Kernel) -> None:
        super().__init__(KERNELS, OURS[:3] + bytes((next(self.addresses),)), mtu=MTU)
        self._channel, self._tun = kernel

    def _order(self, *order: object) -> Any:
        self._channel.send(json.dumps(order).encode())
        answer = json.loads(self._channel.recv(1 << 17))
        if isinstance(answer, dict):
            raise OSError(answer["errno"], os.strerror(answer["errno"]))
        return answer

    @property
    def now(self) -> float:
        return time.monotonic()

    def put(self, packet: bytes) -> None:
        os.write(self._tun, packet)

    def take(self, seconds: float) -> list[bytes]:
        packets, self.pending = self.pending, []
        end = self.now + seconds
        while not packets and select.select([self._tun], [], [], max(end - self.now, 0))[0]:
            while True:
                try:
                    packet = os.read(self._tun, 65536)
                except BlockingIOError:
                    break
                # The kernel also looks for routers and groups.
                if packet[0] == 0x45 and packet[9] == socket.IPPROTO_TCP and packet[16:20] == self.peer:
                    packets.append(packet)
        return packets

    def listen(self) -> None:
        self.dport = self._order("listen")

    def accept(self) -> None:
        self._order("accept")

    def connect(self) -> None:
        self._order("connect", socket.inet_ntoa(self.peer), self.sport)

    def write(self, data: bytes) -> None:
        short = b"" if data == bytes(len(data)) else data
        assert self._order("write", len(data), short.hex()) == len(data)

    def read(self) -> bytes | None:
        data = self._order("read")
        return None if data is None else bytes.fromhex(data)

    def shutdown(self) -> None:
        self._order("shutdown")

    def close(self) -> None:
        self._order("close")


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_kernel_dialogue(scenario: Callable[[Dialogue], None], kernel: Kernel) -> None:
    scenario(KernelDialogue(kernel))
