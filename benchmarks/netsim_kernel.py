"""Our TCP beside Linux's over the same emulated path, each against a Linux kernel with the same congestion control.

    python -m benchmarks.netsim_kernel [--runs 5] [--cells 20/0 20/1 ...] [--congestion cubic] [--write] [--check]

As root. ``--write`` keeps the results in netsim_kernel.json beside this file (one entry for each congestion control),
or in ``--json FILE``. ``--check`` applies the bars and exits with 1 where one is missed; ``--kept`` does so to what
was kept, without measuring.

    client: our stack, or a kernel in a namespace      emulator process      server: a kernel in a namespace
            socketpair or tun            <------->   delay, loss, rate,  <------->      tun
                                                       queue, jitter

The emulator is a process of its own and the same for both, so its faults are shared; the
kernels' cache of what they know of each other is off. Each run is one connection and a
fixed number of bytes; clients take turns, run by run, with the same seeds. What counts is the ratio of
the medians. The bars: downloads at least 0.95 of Linux's, uploads at least 0.85, and with reordering at least
0.6 of what we reach on the same path without.
"""

from __future__ import annotations

import argparse
import array
import ctypes
import fcntl
import gc
import heapq
import json
import os
import random
import select
import socket
import struct
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parent.parent))

from minivpn_trio.netstack import scapy_wire
from minivpn_trio.netstack.stack import Stack
from minivpn_trio.netstack.tcp.settings import TcpSettings

KEPT = Path(__file__).with_name("netsim_kernel.json")
DOWN_BAR, UP_BAR, REORDERING_BAR = 0.95, 0.85, 0.6
#: Our names of congestion controls, where Linux has others.
LINUX_NAMES = {"newreno": "reno"}

OURS, SERVER = "10.99.0.2", "10.99.0.1"
SINK, SOURCE = 9, 19
MTU = 1400
_CLONE_NEWNET = 0x40000000
#: Linux, asm-generic/socket.h.
_SO_SNDBUFFORCE = 32
_TUNSETIFF, _IFF_TUN, _IFF_NO_PI = 0x400454CA, 0x0001, 0x1000


@dataclass(frozen=True)
class Cell:
    """Round trip in ms, loss in percent each way, jitter in ms for 30 % of the packets; Mbit/s; KiB of queue."""

    rtt: float
    loss: float
    jitter: float = 0.0
    rate: float = 100.0
    queue: int = 256

    @property
    def name(self) -> str:
        """As in the table."""
        return f"{self.rtt:g} ms, {self.loss:g} %" + (f", jitter {self.jitter:g} ms" if self.jitter else "")

    @property
    def short(self) -> str:
        """On the command line."""
        return f"{self.rtt:g}/{self.loss:g}" + "/jitter" * bool(self.jitter)

    @property
    def size(self) -> int:
        """Bytes a run: with losses enough that a run has many, lest the first few decide how long it takes. (At 100 ms
        and 1 % the quartiles of simulated runs are a factor of 3.3 apart with 0.75 MB, and of 1.45 with 5 MB. At 20 ms
        and 0.1 % eight megabytes have six losses: half of the path's rate lies between one run and another.)"""
        if self.loss < 0.05:
            return 16_000_000 if not self.jitter else 10_000_000
        if self.loss < 0.5 or self.rtt < 5:
            return 40_000_000 if 5 < self.rtt < 50 else 8_000_000
        return 2_500_000 if self.rtt < 50 else 5_000_000


CELLS = [
    *(Cell(rtt, loss) for rtt in (0, 20, 100) for loss in (0, 0.1, 1)),
    Cell(50, 0, queue=1024),
    Cell(50, 0, jitter=5, queue=1024),
]


# --- the emulator process ---


def emulate(fds: tuple[int, int], cell: Cell, seed: int) -> None:
    """Move packets between two descriptors until one of them is gone."""
    chance = random.Random(seed).random
    wires: tuple[deque[tuple[float, bytes]], deque[tuple[float, bytes]]] = (deque(), deque())
    late: list[tuple[float, int, int, bytes]] = []
    busy = [0.0, 0.0]
    count = 0
    for fd in fds:
        os.set_blocking(fd, False)
    poll = select.epoll()
    for fd in fds:
        poll.register(fd, select.EPOLLIN)
    delay, loss, jitter, rate = cell.rtt / 2000, cell.loss / 100, cell.jitter / 1000, cell.rate * 1e6 / 8
    while True:
        now = time.monotonic()
        heads = [wire[0][0] for wire in wires if wire] + ([late[0][0]] if late else [])
        wait = max(min(heads) - now, 0.0) if heads else 0.1
        events = poll.poll(wait if wait > 0.0008 else 0)
        now = time.monotonic()
        for fd, event in events:
            if event & (select.EPOLLHUP | select.EPOLLERR):
                return
            side = fds.index(fd)
            for _ in range(64):
                try:
                    packet = os.read(fd, 65536)
                except BlockingIOError:
                    break
                except OSError:
                    return
                if not packet:
                    return
                if loss and chance() < loss:
                    continue
                backlog = busy[side] - now
                if backlog * rate > cell.queue * 1024:
                    continue
                busy[side] = max(busy[side], now) + len(packet) / rate
                at = busy[side] + delay
                if jitter and chance() < 0.3:
                    count += 1
                    heapq.heappush(late, (at + chance() * jitter, count, side, packet))
                else:
                    wires[side].append((at, packet))
        now = time.monotonic()
        while late and late[0][0] <= now:
            _, _, side, packet = heapq.heappop(late)
            _write(fds[1 - side], packet)
        for side in (0, 1):
            wire = wires[side]
            while wire and wire[0][0] <= now:
                _write(fds[1 - side], wire.popleft()[1])


def _write(fd: int, packet: bytes) -> None:
    try:
        os.write(fd, packet)
    except BlockingIOError:
        pass
    except OSError as exc:
        print("emulator:", exc, file=sys.stderr)


# --- a kernel ---


def _kernel(channel: socket.socket, address: str, congestion: bytes) -> None:
    """A namespace with a tun device, and a server or a client in it."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "unshare")
    tun = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(tun, _TUNSETIFF, struct.pack("16sH22x", b"bench0", _IFF_TUN | _IFF_NO_PI))
    for command in (
        "ip link set lo up",
        f"ip link set bench0 mtu {MTU} txqueuelen 5000 up",
        f"ip addr add {address}/24 dev bench0",
    ):
        subprocess.run(command.split(), check=True)
    Path("/proc/sys/net/ipv4/tcp_no_metrics_save").write_text("1")
    if address == SERVER:
        from tests.interop.kernel_peer import _serve

        _serve(congestion)
        time.sleep(0.1)
    channel.sendmsg([b"!"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [tun]))])
    while order := channel.recv(100):
        direction, size = order.decode().split()
        channel.send(str(_kernel_transfer(direction, int(size), congestion)).encode())


def _kernel_transfer(direction: str, size: int, congestion: bytes) -> float:
    """Seconds that the kernel takes, connecting not included."""
    peer = socket.socket()
    peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, congestion)
    peer.connect((SERVER, SINK if direction == "up" else SOURCE))
    with peer:
        start = time.monotonic()
        if direction == "up":
            peer.sendall(bytes(size))
            peer.shutdown(socket.SHUT_WR)
            assert int.from_bytes(peer.recv(8), "big") == size
        else:
            peer.sendall(size.to_bytes(8, "big"))
            left = size
            while left:
                got = len(peer.recv(1 << 20))
                assert got
                left -= got
        return time.monotonic() - start


class Kernel:
    """The process with a kernel's namespace, and its tun."""

    def __init__(self, address: str, congestion: str) -> None:
        ours, theirs = socket.socketpair()
        command = [sys.executable, __file__, "--kernel", str(theirs.fileno()), address, congestion]
        self._child = subprocess.Popen(command, pass_fds=[theirs.fileno()])
        theirs.close()
        self._channel = ours
        _, ancillary, _, _ = ours.recvmsg(1, socket.CMSG_SPACE(4))
        if not ancillary:
            raise SystemExit("no tun device: root is needed")
        self.tun = array.array("i", ancillary[0][2])[0]

    def transfer(self, direction: str, size: int) -> float:
        """Seconds."""
        self._channel.send(f"{direction} {size}".encode())
        return float(self._channel.recv(100))

    def close(self) -> None:
        """End it."""
        os.close(self.tun)
        self._channel.close()
        self._child.kill()
        self._child.wait()


@contextmanager
def emulator(first: int, second: int, cell: Cell, seed: int) -> Iterator[None]:
    """An emulator process between two descriptors."""
    arguments = json.dumps([[first, second], [cell.rtt, cell.loss, cell.jitter, cell.rate, cell.queue], seed])
    child = subprocess.Popen([sys.executable, __file__, "--emulate", arguments], pass_fds=[first, second])
    time.sleep(0.15)
    try:
        yield
    finally:
        child.kill()
        child.wait()


# --- our stack ---


def our_transfer(link: socket.socket, direction: str, size: int, settings: TcpSettings, seed: int) -> float:
    """Seconds that our stack takes over ``link``, connecting not included."""
    clock = time.monotonic
    stack = Stack(
        addresses=[socket.inet_aton(OURS)], mtu=MTU, rng=random.Random(seed).randbytes, now=clock(), settings=settings
    )
    remote = socket.inet_aton(SERVER)
    connection = stack.connect_tcp((remote, SINK if direction == "up" else SOURCE), clock())
    block, left, received, start = bytes(1 << 18), size, 0, 0.0
    end = clock() + 120
    while clock() < end:
        now = clock()
        if connection.error is not None:
            raise connection.error
        if connection.connected:
            if not start:
                start = now
                if direction == "down":
                    connection.write(size.to_bytes(8, "big"), now)
            while direction == "up" and left and (taken := connection.write(block[: min(left, 1 << 18)], now)):
                left -= taken
            if direction == "up" and not left:
                connection.shutdown_write(now)
            if connection.receivable:
                received += len(connection.read(1 << 22, now))
            if received >= (8 if direction == "up" else size):
                took = clock() - start
                connection.abort(clock())
                _send(link, stack)
                return took
        _send(link, stack)
        timeout = stack.next_timeout()
        wait = 0.05 if timeout is None else min(max(timeout - clock(), 0.0), 0.05)
        if select.select([link], [], [], wait)[0]:
            burst: list[bytes] = []
            while len(burst) < 64:
                try:
                    burst.append(link.recv(65536))
                except BlockingIOError:
                    break
            stack.handle_packets(burst, clock())
        timeout = stack.next_timeout()
        if timeout is not None and timeout <= clock():
            stack.handle_timeout(clock())
    raise SystemExit("our stack took too long")


def _send(link: socket.socket, stack: Stack) -> None:
    while burst := stack.take_output(now=time.monotonic()):
        for packet in burst:
            try:
                link.send(packet)
            except BlockingIOError:
                select.select([], [link], [], 1)
                link.send(packet)


def measure(cell: Cell, runs: int, settings: TcpSettings) -> dict[str, list[float]]:
    """Mbit/s of each run, by client and direction."""
    congestion = LINUX_NAMES.get(settings.congestion, settings.congestion)
    rates: dict[str, list[float]] = {f"{who} {way}": [] for way in ("down", "up") for who in ("ours", "linux")}
    for run in range(runs):
        for way in ("down", "up"):
            for who in ("ours", "linux"):
                server = Kernel(SERVER, congestion)
                try:
                    if who == "ours":
                        near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
                        for end in (near, far):
                            end.setblocking(False)
                            end.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, 32 << 20)
                        with near, far, emulator(far.fileno(), server.tun, cell, run):
                            took = our_transfer(near, way, cell.size, settings, run)
                    else:
                        client = Kernel(OURS, congestion)
                        try:
                            with emulator(client.tun, server.tun, cell, run):
                                took = client.transfer(way, cell.size)
                        finally:
                            client.close()
                finally:
                    server.close()
                rates[f"{who} {way}"].append(cell.size * 8e-6 / took)
    return rates


#: By cell (``Cell.short``), by client and direction: Mbit/s of each run.
Results = dict[str, dict[str, list[float]]]


def missed(results: Results) -> list[str]:
    """The bars that these results do not reach, each as a line."""
    middle = {cell: {name: median(values) for name, values in rates.items()} for cell, rates in results.items()}
    lines = []
    for cell, rates in middle.items():
        for way, bar in (("down", DOWN_BAR), ("up", UP_BAR)):
            ours, linux = rates[f"ours {way}"], rates[f"linux {way}"]
            if ours < bar * linux:
                lines.append(f"{cell} {way}: {ours / linux:.2f} of Linux's {linux:.1f} Mbit/s, the bar is {bar}")
            clean = middle.get(cell.removesuffix("/jitter"), rates)[f"ours {way}"]
            if cell.endswith("/jitter") and ours < REORDERING_BAR * clean:
                lines.append(
                    f"{cell} {way}: {ours / clean:.2f} of our {clean:.1f} Mbit/s without reordering, "
                    f"the bar is {REORDERING_BAR}"
                )
    return lines


def keep(path: Path, congestion: str, results: Results) -> None:
    """Put ``results`` beside what ``path`` holds of other cells and congestion controls."""
    kept = json.loads(path.read_text()) if path.exists() else {}
    rounded = {
        cell: {name: [round(rate, 2) for rate in values] for name, values in rates.items()}
        for cell, rates in results.items()
    }
    kept[congestion] = {**kept.get(congestion, {}), **rounded}
    path.write_text(json.dumps(kept, indent=1) + "\n")


def report(results: Results) -> None:
    """Print the bars that were missed; exit with 1 if any was."""
    lines = missed(results)
    print(*lines, sep="\n", end="\n" if lines else "")
    print(f"{len(lines)} bars missed" if lines else "every bar is reached")
    if lines:
        raise SystemExit(1)


def main() -> None:
    """Print the table."""
    if sys.argv[1:2] == ["--kernel"]:
        _kernel(socket.socket(fileno=int(sys.argv[2])), sys.argv[3], sys.argv[4].encode())
        return
    if sys.argv[1:2] == ["--emulate"]:
        fds, (rtt, loss, jitter, rate, queue), seed = json.loads(sys.argv[2])
        emulate((fds[0], fds[1]), Cell(rtt, loss, jitter, rate, queue), seed)
        return
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--cells", nargs="*", help="such as 20/0.1 or 50/0/jitter")
    parser.add_argument("--congestion", default=TcpSettings().congestion)
    parser.add_argument("--json", type=Path, default=KEPT, help="instead of netsim_kernel.json")
    parser.add_argument("--write", action="store_true", help="keep the results")
    parser.add_argument("--check", action="store_true", help="exit with 1 where a bar is missed")
    parser.add_argument("--kept", action="store_true", help="check what was kept, measure nothing")
    arguments = parser.parse_args()
    if arguments.kept:
        report(json.loads(arguments.json.read_text())[arguments.congestion])
        return
    cells = CELLS
    if arguments.cells:
        cells = [cell for cell in CELLS if cell.short in arguments.cells]
    settings = TcpSettings(congestion=arguments.congestion)
    # What imports made is not walked through by a collection in the midst of a transfer: what an application does that
    # minds pauses, and the other benchmarks.
    scapy_wire.preload()
    gc.collect()
    gc.freeze()
    heads = "".join(f" {way + ' ours':>10} {'linux':>7} {'ratio':>6}" for way in ("down", "up"))
    print(f"{'Mbit/s, medians':24}{heads}")
    everything: Results = {}
    for cell in cells:
        rates = everything[cell.short] = measure(cell, arguments.runs, settings)
        middle = {name: median(values) for name, values in rates.items()}
        print(
            f"{cell.name:24} {middle['ours down']:10.1f} {middle['linux down']:7.1f} "
            f"{middle['ours down'] / middle['linux down']:6.2f} {middle['ours up']:10.1f} {middle['linux up']:7.1f} "
            f"{middle['ours up'] / middle['linux up']:6.2f}",
            flush=True,
        )
    if arguments.write:
        keep(arguments.json, arguments.congestion, everything)
    if arguments.check:
        report(everything)


if __name__ == "__main__":
    main()
