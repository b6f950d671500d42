"""A bad path: a process that forwards UDP datagrams after a while, and forgets some.

``python -m benchmarks.relay LISTEN_PORT TARGET_PORT --delay MS --loss PERCENT [--jitter MS] [--queue N]
[--seed N]``

``delay`` is one way, so a round trip takes twice that. ``jitter`` adds up to so many milliseconds to some
datagrams (one in three), which reorders them. Chance comes from a seed, the same for everybody. Each client
gets a socket of its own to the server. It says ``ready`` on stdout once it listens.

For kernels without netem, and for comparing two clients over one path: what the relay itself costs, both pay.
"""

from __future__ import annotations

import argparse
import heapq
import random
import select
import socket
import time

__all__ = ["Relay", "main"]

#: Datagrams taken from one socket before the others get their turn.
BURST = 64
BUFFER = 8 << 20


def udp_socket() -> socket.socket:
    """Dual stack, non-blocking, with buffers that lose nothing by themselves."""
    sock = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    for option in (33, 32):  # SO_RCVBUFFORCE, SO_SNDBUFFORCE
        sock.setsockopt(socket.SOL_SOCKET, option, BUFFER)
    sock.setblocking(False)
    return sock


class Relay:
    """One path for each client. ``delay`` and ``jitter`` are seconds one way, ``loss`` is 0 to 1; ``queue`` is the
    most datagrams under way in one direction."""

    def __init__(
        self, listen: int, target: int, *, delay: float, loss: float, jitter: float, queue: int, seed: int = 1
    ) -> None:
        self._delay, self._loss, self._jitter, self._limit = delay, loss, jitter, queue
        self._random = random.Random(seed)
        self._target = ("::ffff:127.0.0.1", target)
        self._front = udp_socket()
        self._front.bind(("::", listen))
        self._poll = select.epoll()
        self._poll.register(self._front.fileno(), select.EPOLLIN)
        self._by_client: dict[object, socket.socket] = {}
        self._by_number: dict[int, tuple[socket.socket, object]] = {}
        # When, a number that breaks ties, the way out, the address (None: connected), the datagram.
        self._under_way: list[tuple[float, int, socket.socket, object, bytes]] = []
        self._count = 0

    def run(self) -> None:
        """For ever."""
        while True:
            wait = self._under_way[0][0] - time.monotonic() if self._under_way else 1.0
            # epoll sleeps whole milliseconds: the last one is spent looking.
            for number, _ in self._poll.poll(max(wait - 0.001, 0)):
                self._receive(number)
            self._deliver()

    def _receive(self, number: int) -> None:
        source = self._by_number.get(number)
        sock = source[0] if source else self._front
        now = time.monotonic()
        for _ in range(BURST):
            try:
                data, address = sock.recvfrom(65536)
            except OSError:
                return
            if self._loss and self._random.random() < self._loss:
                continue
            if len(self._under_way) >= self._limit:
                continue
            due = now + self._delay
            if self._jitter and self._random.random() < 1 / 3:
                due += self._random.random() * self._jitter
            self._count += 1
            way = (self._front, source[1]) if source else (self._to_server(address), None)
            heapq.heappush(self._under_way, (due, self._count, *way, data))

    def _to_server(self, client: object) -> socket.socket:
        sock = self._by_client.get(client)
        if sock is None:
            sock = udp_socket()
            sock.connect(self._target)
            self._by_client[client] = sock
            self._by_number[sock.fileno()] = (sock, client)
            self._poll.register(sock.fileno(), select.EPOLLIN)
        return sock

    def _deliver(self) -> None:
        under_way, now = self._under_way, time.monotonic()
        while under_way and under_way[0][0] <= now:
            _, _, sock, address, data = heapq.heappop(under_way)
            try:
                if address is None:
                    sock.send(data)
                else:
                    sock.sendto(data, address)  # type: ignore[call-overload]
            except OSError:
                pass  # as on any path


def main() -> None:
    """Parse the arguments, relay until killed."""
    parser = argparse.ArgumentParser(description="Forward UDP datagrams late, and not all of them.")
    parser.add_argument("listen", type=int)
    parser.add_argument("target", type=int)
    parser.add_argument("--delay", type=float, default=0.0, help="milliseconds, one way")
    parser.add_argument("--loss", type=float, default=0.0, help="percent, each way")
    parser.add_argument("--jitter", type=float, default=0.0, help="milliseconds more, for one in three")
    parser.add_argument("--queue", type=int, default=10_000, help="datagrams under way at most")
    parser.add_argument("--seed", type=int, default=1, help="of all chance (default 1)")
    arguments = parser.parse_args()
    relay = Relay(
        arguments.listen, arguments.target, delay=arguments.delay / 1e3, loss=arguments.loss / 100,
        jitter=arguments.jitter / 1e3, queue=arguments.queue, seed=arguments.seed,
    )  # fmt: skip
    print("ready", flush=True)
    relay.run()


if __name__ == "__main__":
    main()
