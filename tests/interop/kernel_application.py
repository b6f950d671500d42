"""A process in a namespace of its own whose one application obeys: sockets of the kernel, by remote control.

Each order is a JSON list, each answer a JSON value; a failed call is answered by {"errno": number}. One connection at a
time: a new ``listen`` or ``connect`` drops what was there before.
"""

from __future__ import annotations

import json
import socket
import sys
from typing import Any

from kernel_peer import enter_namespace, hand_over


class Application:
    def __init__(self) -> None:
        self._listener: socket.socket | None = None
        self._peer: socket.socket | None = None
        self._old: list[socket.socket] = []

    def listen(self) -> int:
        self._drop()
        self._listener = socket.create_server(("10.99.0.1", 0), backlog=8)
        self._listener.settimeout(2)
        return self._listener.getsockname()[1]

    def accept(self) -> None:
        assert self._listener is not None
        self._peer, _ = self._listener.accept()
        self._peer.setblocking(False)

    def connect(self, address: str, port: int) -> None:
        self._drop()
        self._peer = socket.socket()
        self._peer.setblocking(False)
        self._peer.connect_ex((address, port))

    def write(self, size: int, data: str) -> int:
        assert self._peer is not None
        return self._peer.send(bytes.fromhex(data) or bytes(size))

    def read(self) -> str | None:
        """Hexadecimal; None: nothing there."""
        assert self._peer is not None
        try:
            return self._peer.recv(20_000).hex()
        except BlockingIOError:
            return None

    def shutdown(self) -> None:
        assert self._peer is not None
        self._peer.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        assert self._peer is not None
        self._peer.close()
        self._peer = None

    def _drop(self) -> None:
        for each in (self._listener, self._peer):
            if each is not None:
                # Whatever it still has to say must not disturb what comes next: it has other ports.
                each.close()
        self._listener = self._peer = None


def main(channel: socket.socket) -> None:
    hand_over(channel, enter_namespace())
    application = Application()
    while order := channel.recv(1 << 16):
        name, *arguments = json.loads(order)
        answer: Any
        try:
            answer = getattr(application, name)(*arguments)
        except OSError as exc:
            answer = {"errno": exc.errno}
        channel.send(json.dumps(answer).encode())


if __name__ == "__main__":
    main(socket.socket(fileno=int(sys.argv[1])))
