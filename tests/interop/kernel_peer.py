"""A Linux kernel to talk TCP to: a network namespace of its own behind a tun device.

A child process unshares its network, opens a tun device, passes its file
descriptor back and serves there. The parent runs a Stack over the descriptor, in real
time and without Trio, through an emulated link (this kernel may have no netem).

Needs root, or a kernel that lets users unshare.
"""

from __future__ import annotations

import array
import ctypes
import fcntl
import heapq
import os
import random
import select
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count

from minivpn_trio.netstack.stack import Stack
from minivpn_trio.netstack.tcp.settings import TcpSettings

OURS, KERNELS = bytes((10, 99, 0, 2)), bytes((10, 99, 0, 1))
OURS6, KERNELS6 = socket.inet_pton(socket.AF_INET6, "fd99::2"), socket.inet_pton(socket.AF_INET6, "fd99::1")
MTU = 1400
ECHO, SINK, SOURCE, ECHO_CLOSER = 7, 9, 19, 77
_CLONE_NEWNET = 0x40000000
_TUNSETIFF, _IFF_TUN, _IFF_NO_PI = 0x400454CA, 0x0001, 0x1000


def _serve(congestion: bytes) -> None:
    """The kernel's side: echo; count bytes and say how many; send as many as asked for; reset after the first bytes."""

    def echo(peer: socket.socket) -> None:
        while data := peer.recv(65536):
            peer.sendall(data)
        peer.shutdown(socket.SHUT_WR)

    def sink(peer: socket.socket) -> None:
        total = 0
        while data := peer.recv(1 << 20):
            total += len(data)
        peer.sendall(total.to_bytes(8, "big"))
        peer.shutdown(socket.SHUT_WR)

    def source(peer: socket.socket) -> None:
        left = int.from_bytes(peer.recv(8, socket.MSG_WAITALL), "big")
        block = bytes(range(256)) * 256
        while left:
            left -= peer.send(block[: min(left, len(block))])
        peer.shutdown(socket.SHUT_WR)
        peer.recv(1)

    def reset(peer: socket.socket) -> None:
        peer.recv(1)
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def run(task: Callable[[socket.socket], None], peer: socket.socket) -> None:
        try:
            with peer:
                task(peer)
        except OSError:
            pass

    def accept(port: int, task: Callable[[socket.socket], None]) -> None:
        server = socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=2048)
        while True:
            peer, _ = server.accept()
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, congestion)
            threading.Thread(target=run, args=(task, peer), daemon=True).start()

    for port, task in ((ECHO, echo), (SINK, sink), (SOURCE, source), (ECHO_CLOSER, reset)):
        threading.Thread(target=accept, args=(port, task), daemon=True).start()


def enter_namespace(host: int = 1) -> int:
    """This process is in a network namespace of its own from now on, with a tun device as all its network: 10.99.0.1
    and fd99::1, or another ``host``. The device's descriptor."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "unshare")
    tun = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(tun, _TUNSETIFF, struct.pack("16sH22x", b"peer0", _IFF_TUN | _IFF_NO_PI))
    for command in (
        "ip link set lo up",
        f"ip link set peer0 mtu {MTU} txqueuelen 2000 up",
        f"ip addr add 10.99.0.{host}/24 dev peer0",
        f"ip -6 addr add fd99::{host}/64 dev peer0 nodad",
    ):
        subprocess.run(command.split(), check=True)
    return tun


def hand_over(channel: socket.socket, tun: int) -> None:
    """Give the descriptor to whoever is at the other end of ``channel``."""
    channel.sendmsg([b"!"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [tun]))])


@contextmanager
def kernel_process(*command: str) -> Iterator[tuple[socket.socket, int]]:
    """A child that calls ``enter_namespace`` and ``hand_over``; the channel to it, whose number it gets as its last
    argument, and the tun device."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    child = subprocess.Popen(
        [sys.executable, *command, str(theirs.fileno())], pass_fds=[theirs.fileno()], env=environment
    )
    theirs.close()
    try:
        _, ancillary, _, _ = ours.recvmsg(1, socket.CMSG_SPACE(4))
        if not ancillary:
            raise RuntimeError("no tun device: root is needed")
        tun = array.array("i", ancillary[0][2])[0]
        try:
            yield ours, tun
        finally:
            os.close(tun)
    finally:
        ours.close()
        child.kill()
        child.wait()


def _child(channel: socket.socket, congestion: bytes) -> None:
    tun = enter_namespace()
    _serve(congestion)
    time.sleep(0.05)
    hand_over(channel, tun)
    channel.recv(1)


class KernelWorld:
    """A Stack in front of a kernel, in real time. ``delay`` (seconds, one way), ``loss`` and ``reorder`` hold for
    both directions."""

    def __init__(
        self, tun: int, *, delay: float, loss: float, reorder: float, settings: TcpSettings | None, seed: int
    ) -> None:
        self.random = random.Random(seed)
        self.stack = Stack(
            addresses=(OURS, OURS6), mtu=MTU, rng=self.random.randbytes, now=time.monotonic(), settings=settings
        )
        self._tun, self._delay, self._loss, self._reorder = tun, delay, loss, reorder
        self._wire: list[tuple[float, int, bool, bytes]] = []
        self._order = count()

    @property
    def now(self) -> float:
        """Of the stack's clock."""
        return time.monotonic()

    def _put(self, outbound: bool, packet: bytes) -> None:
        chance = self.random.random
        if chance() < self._loss:
            return
        at = self.now + self._delay
        if chance() < self._reorder:
            at += chance() * 0.005
        heapq.heappush(self._wire, (at, next(self._order), outbound, packet))

    def step(self) -> None:
        """Wait for something, at most 10 ms, and let it happen."""
        stack = self.stack
        self._collect()
        wait = 0.01
        for at in (stack.next_timeout(), self._wire[0][0] if self._wire else None):
            if at is not None:
                wait = min(wait, max(at - self.now, 0))
        readable, _, _ = select.select([self._tun], [], [], wait)
        if readable:
            for _ in range(64):
                try:
                    self._put(False, os.read(self._tun, 65536))
                except BlockingIOError:
                    break
        self._deliver()
        timeout = stack.next_timeout()
        if timeout is not None and timeout <= self.now:
            stack.handle_timeout(self.now)
        self._collect()

    def _collect(self) -> None:
        while burst := self.stack.take_output(now=self.now):
            for packet in burst:
                self._put(True, packet)

    def _deliver(self) -> None:
        arrived: list[bytes] = []
        now = self.now
        while self._wire and self._wire[0][0] <= now and len(arrived) < 64:
            _, _, outbound, packet = heapq.heappop(self._wire)
            if outbound:
                try:
                    os.write(self._tun, packet)
                except OSError:
                    # What the kernel finds malformed it refuses: a failure of ours.
                    print("refused by tun:", packet.hex(), file=sys.stderr)
                    raise
            else:
                arrived.append(packet)
        if arrived:
            self.stack.handle_packets(arrived, now)

    def run(self, until: Callable[[], bool], limit: float = 30.0) -> None:
        """Step until ``until()``; AssertionError after ``limit`` seconds."""
        end = self.now + limit
        while not until():
            assert self.now < end, "took too long"
            self.step()


@contextmanager
def kernel_world(
    *,
    delay: float = 0.0,
    loss: float = 0.0,
    reorder: float = 0.0,
    settings: TcpSettings | None = None,
    seed: int = 1,
    congestion: bytes = b"cubic",
) -> Iterator[KernelWorld]:
    """A fresh namespace with a kernel in it, gone afterwards."""
    with kernel_process(__file__, congestion.decode()) as (_, tun):
        yield KernelWorld(tun, delay=delay, loss=loss, reorder=reorder, settings=settings, seed=seed)


if __name__ == "__main__":
    _child(socket.socket(fileno=int(sys.argv[2])), sys.argv[1].encode())
