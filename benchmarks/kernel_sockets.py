"""Measured transfers over the kernel's TCP: one epoll loop for however many streams, in one thread.

What a program beside the C client does, and the counterpart of the one task a stream of our side: no thread for each,
no lock that they share. The loop is as thin as it gets; whatever it spends counts as the C client's.
"""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Generator
from typing import Literal

from .payload import (
    HTTP_PORT,
    KEEP_PORT,
    QUESTION,
    READ,
    Memory,
    body_start,
    check_body,
    check_crc,
    piece_at,
    request,
    upload_head,
)  # fmt: skip

__all__ = ["Transfer"]

#: Seconds without any progress after which a transfer has failed.
STALLED = 60.0
#: What a flow waits for next.
Steps = Generator[int, None, None]


class _Flow:
    """One stream, and where a download is kept."""

    def __init__(self, size: int, memory: bytearray) -> None:
        self.size = size
        self.memory = memory
        self.arrived = 0
        self.sock = socket.socket()
        self.sock.setblocking(False)

    def connected(self) -> None:
        """Raises OSError when the connection was refused or timed out."""
        error = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            raise OSError(error, os.strerror(error))

    def download(self, host: str) -> Steps:
        yield select.EPOLLOUT
        self.connected()
        self.sock.send(request(host, self.size))
        head = b""
        while (start := body_start(head)) < 0:
            yield select.EPOLLIN
            piece = self.sock.recv(READ)
            if not piece:
                return
            head += piece
        view = memoryview(self.memory)
        self.arrived = len(head) - start
        view[: self.arrived] = head[start:]
        while self.arrived < self.size:
            yield select.EPOLLIN
            count = self.sock.recv_into(view[self.arrived :], min(READ, self.size - self.arrived))
            if not count:
                return
            self.arrived += count

    def upload(self, host: str) -> Steps:
        yield select.EPOLLOUT
        self.connected()
        self.sock.send(upload_head(self.size))
        sent = 0
        while sent < self.size:
            yield select.EPOLLOUT
            sent += self.sock.send(piece_at(sent, self.size - sent))
        answer = b""
        while not answer.endswith(b"\n"):
            yield select.EPOLLIN
            piece = self.sock.recv(100)
            if not piece:
                return
            answer += piece
        self.arrived = int(answer)

    def ask_for_crc(self) -> bytes:
        """What the sink says."""
        self.sock.settimeout(STALLED)
        self.sock.sendall(QUESTION)
        with self.sock.makefile("rb") as reader:
            return reader.readline()


class Transfer:
    """Some streams at once, ``size`` bytes each, one way. ``run``, then ``check``; as a ``with`` block, which closes.

    ``congestion`` is the congestion control of what an upload sends (empty: the machine's default); ``memory`` is where
    to keep downloads; ``port`` is another one than the service's own.
    """

    def __init__(
        self, do: Literal["download", "upload"], host: str, size: int, streams: int = 1, *, congestion: str = "",
        memory: Memory | None = None, port: int = 0,
    ) -> None:  # fmt: skip
        self._download = do == "download"
        self._host, self._port = host, port or (HTTP_PORT if self._download else KEEP_PORT)
        self._memory = memory or Memory()
        self._flows = [
            _Flow(size, self._memory.take(size) if self._download else bytearray()) for _ in range(streams)
        ]
        for flow in self._flows:
            if congestion:
                flow.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, congestion.encode())

    def run(self) -> int:
        """Do it; bytes that arrived, as counted at the receiving end. Raises OSError."""
        with select.epoll() as poll:
            waiting: dict[int, tuple[_Flow, Steps, int]] = {}
            for flow in self._flows:
                flow.sock.connect_ex((self._host, self._port))
                steps = flow.download(self._host) if self._download else flow.upload(self._host)
                wanted = next(steps)
                waiting[flow.sock.fileno()] = flow, steps, wanted
                poll.register(flow.sock.fileno(), wanted)
            while waiting:
                ready = poll.poll(STALLED)
                if not ready:
                    raise TimeoutError(f"nothing happened for {STALLED:g} s")
                for number, _ in ready:
                    flow, steps, before = waiting[number]
                    wanted = next(steps, 0)
                    if not wanted:
                        del waiting[number]
                        poll.unregister(number)
                    elif wanted != before:
                        waiting[number] = flow, steps, wanted
                        poll.modify(number, wanted)
        return sum(flow.arrived for flow in self._flows)

    def check(self) -> int:
        """Compare what arrived with what was sent; bytes compared. Raises Corrupted."""
        for flow in self._flows:
            if self._download:
                check_body([memoryview(flow.memory)[: flow.arrived]], flow.size)
            else:
                check_crc(flow.ask_for_crc(), flow.size)
        return sum(flow.size for flow in self._flows)

    def __enter__(self) -> Transfer:
        return self

    def __exit__(self, *exc_info: object) -> None:
        for flow in self._flows:
            flow.sock.close()
            self._memory.give_back(flow.memory)
