"""Who is measured by ``end_to_end.py``, over what, and how one transfer and a row of runs are done.

Three contenders: our client, the C client, and the bare path: the kernel's TCP over the veth pair that the C client's
packets take, without any tunnel. What goes for one goes for all: the same services at the far end, the same bytes, the
same program for the C client and the bare path (``kernel_sockets.py``), and TCP remembers nothing from run to run.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from tests.interop.lab.lab import THEIRS, TUN_IPV4, Lab, Server
from tests.interop.lab.namespaces import Namespace
from tests.interop.lab.openvpn import OpenVPN, ServerOptions

__all__ = ["MIB", "RELAY_PORT", "NetworkPath", "Plan", "Run", "Traffic", "Who", "in_turn", "measure", "relayed"]

ROOT = Path(__file__).parent.parent
MIB = 1 << 20
RELAY_PORT = 11940
Who = Literal["ours", "c", "bare"]


class Traffic:
    """A ``benchmarks.traffic`` process in a namespace."""

    def __init__(self, namespace: Namespace, *argv: str) -> None:
        command = namespace.command(sys.executable, "-m", "benchmarks.traffic", *argv)
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT, text=True
        )

    def ask(self, **order: Any) -> dict[str, Any]:
        """Have one transfer done."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"the {order['do']} failed; see above")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()


@dataclass
class Run:
    """One transfer ("download" or "upload"): rate of the payload, processor seconds by process, how busy each of the
    machine's processors was (0 to 1), and inner packets by direction as the server's tun device counts them (None where
    there is no tun device in the way). ``turn`` is 0 for who went first in this round."""

    do: str
    mbit_per_second: float
    seconds: float
    client_cpu: float
    server_cpu: float
    busy: list[float]
    packets_down: int | None
    packets_up: int | None
    retransmissions: int | None = None
    turn: int = 0

    def _data_and_acks(self) -> tuple[int, int] | None:
        if self.packets_down is None or self.packets_up is None:
            return None
        down, up = self.packets_down, self.packets_up
        return (max(down, 1), up) if self.do == "download" else (max(up, 1), down)

    def acks_per_packet(self) -> float | None:
        """Packets that went back for each that carried data."""
        packets = self._data_and_acks()
        return packets and packets[1] / packets[0]

    def us_per_packet(self) -> float | None:
        """Microseconds of the client's processor time for each packet that carried data."""
        packets = self._data_and_acks()
        return packets and self.client_cpu * 1e6 / packets[0]

    def as_data(self) -> dict[str, Any]:
        """For JSON: the fields, and what follows from them."""
        packets = self._data_and_acks()
        return {
            **asdict(self),
            "data_packets": packets and packets[0],
            "acks_per_packet": self.acks_per_packet(),
            "us_per_packet": self.us_per_packet(),
        }


def processor_times() -> list[tuple[int, int]]:
    """Ticks of each processor since the machine started: busy, all."""
    rows = [line.split()[1:9] for line in Path("/proc/stat").read_text().splitlines() if line[:3] == "cpu"][1:]
    times = [[int(field) for field in row] for row in rows]
    # user nice system idle iowait irq softirq steal
    return [(sum(row) - row[3] - row[4], sum(row)) for row in times]


def tun_packets(lab: Lab) -> tuple[int, int]:
    """Packets that the server's tun device has sent towards the client, and received from it."""
    with lab.server_namespace.entered():
        table = Path("/proc/thread-self/net/dev").read_text()
    for line in table.splitlines():
        name, _, rest = line.partition(":")
        if name.strip() == "tun0":
            fields = rest.split()
            return int(fields[9]), int(fields[1])
    return 0, 0


def cpu_of(process: OpenVPN) -> float:
    """Processor seconds that a running openvpn, one thread, has used: exact where the kernel keeps count, else in
    ticks of 10 ms."""
    with contextlib.suppress(OSError):
        return int(Path(f"/proc/{process.pid}/schedstat").read_text().split()[0]) / 1e9
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class NetworkPath:
    """A path to the server: round trip and jitter in ms, loss in percent each way."""

    rtt: float = 0.0
    loss: float = 0.0
    jitter: float = 0.0

    @classmethod
    def parse(cls, text: str) -> NetworkPath:
        """``RTT/LOSS`` or ``RTT/LOSS/JITTER``. Raises ValueError."""
        numbers = [float(number) for number in text.split("/")]
        if not 2 <= len(numbers) <= 3 or min(numbers) < 0:
            raise ValueError(f"{text} is not RTT/LOSS[/JITTER]")
        return cls(*numbers)

    def __bool__(self) -> bool:
        return bool(self.rtt or self.loss or self.jitter)

    def __str__(self) -> str:
        return f"{self.rtt:g} ms, {self.loss:g} % loss" + (f", jitter {self.jitter:g} ms" if self.jitter else "")


@contextlib.contextmanager
def relayed(lab: Lab, path: NetworkPath, *, port: int = RELAY_PORT, seed: int = 1) -> Iterator[int | None]:
    """The port of a relay beside the server; None where the path is the veth pair as it is."""
    if not path:
        yield None
        return
    command = lab.server_namespace.command(
        sys.executable, "-m", "benchmarks.relay", str(port), "1194", "--seed", str(seed),
        "--delay", str(path.rtt / 2), "--loss", str(path.loss), "--jitter", str(path.jitter),
    )  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT, text=True) as process:
        try:
            assert process.stdout is not None
            if process.stdout.readline() != "ready\n":
                raise SystemExit("the relay did not start")
            yield port
        finally:
            process.kill()


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to measure: ``size`` bytes in all in one run, shared by ``streams``; our congestion control (empty: the
    dialer's own); the socket buffers of both clients' profiles in bytes (None: the profiles are silent); whether ours
    adds up checksums with numpy."""

    runs: int
    size: int
    streams: int = 1
    path: NetworkPath = NetworkPath()
    only: Literal["ours", "c"] | None = None
    bare: bool = False
    ours: str = ""
    buffers: int | None = None
    numpy: bool = False


@dataclass
class _End:
    """A contender: the process that moves the bytes, the C client where there is one, the services' address."""

    traffic: Traffic
    client: OpenVPN | None = None
    host: str = TUN_IPV4

    @property
    def tunnelled(self) -> bool:
        return self.host == TUN_IPV4


def forget_metrics(lab: Lab) -> None:
    """The kernels' TCP keeps no window and no round trip of one connection for the next one to the same address: each
    run starts as the first does, as ours do."""
    for namespace in (lab.server_namespace, lab.our_namespace, lab.c_namespace):
        with namespace.entered():
            Path("/proc/sys/net/ipv4/tcp_no_metrics_save").write_text("1")


def in_turn(contenders: list[Who], number: int) -> list[Who]:
    """Who goes when in round ``number``: the clients swap places each time. The bare path is last: it leaves the
    machine to whoever is first, which is each of the clients in turn."""
    clients = [who for who in contenders if who != "bare"]
    return (clients[::-1] if number % 2 else clients) + [who for who in contenders if who == "bare"]


def transfer(lab: Lab, end: _End, do: str, plan: Plan, server: Server) -> Run:
    """One measured transfer, its contents compared afterwards; ends the program when a byte is missing or wrong."""
    each = plan.size // plan.streams
    size = each * plan.streams
    times, packets = processor_times(), tun_packets(lab)
    server_before, client_before = cpu_of(server), cpu_of(end.client) if end.client else 0.0
    answer = end.traffic.ask(do=do, host=end.host, bytes=each, streams=plan.streams)
    client_cpu = answer["cpu"] + (cpu_of(end.client) - client_before if end.client else 0.0)
    server_cpu = cpu_of(server) - server_before
    times_after, packets_after = processor_times(), tun_packets(lab)
    if answer["bytes"] != size:
        raise SystemExit(f"{do}: {answer['bytes']} of {size} bytes arrived")
    if end.traffic.ask(do="check")["checked"] != size:
        raise SystemExit(f"{do}: not every byte was compared")
    down, up = (after - before for after, before in zip(packets_after, packets, strict=True))
    return Run(
        do=do,
        mbit_per_second=size * 8 / answer["seconds"] / 1e6,
        seconds=answer["seconds"],
        client_cpu=client_cpu,
        server_cpu=server_cpu,
        busy=[
            (after[0] - before[0]) / max(after[1] - before[1], 1)
            for before, after in zip(times, times_after, strict=True)
        ],
        packets_down=down if end.tunnelled else None,
        packets_up=up if end.tunnelled else None,
        retransmissions=answer.get("retransmissions"),
    )


def measure(lab: Lab, options: ServerOptions, plan: Plan) -> dict[str, Any]:
    """All runs against one server, downloads and uploads by contender. On a path without a relay the first transfer
    each way is thrown away: it warms caches."""
    forget_metrics(lab)
    results: dict[str, Any] = {"download": {}, "upload": {}}
    extra = () if plan.buffers is None else (f"sndbuf {plan.buffers}", f"rcvbuf {plan.buffers}")
    plain = ("plain", *filter(None, [lab.congestion]))
    with lab.server(options) as server, relayed(lab, plan.path) as port:
        ends: dict[Who, _End] = {}
        c_client = server.c_client(port=port, extra=extra)
        try:
            if plan.only != "ours":
                ends["c"] = _End(Traffic(lab.c_namespace, *plain), c_client)
            if plan.only != "c":
                profile = server.profile_file(port=port, extra=extra)
                ends["ours"] = _End(Traffic(lab.our_namespace, "ours", str(profile), plan.ours, "numpy" * plan.numpy))
            if plan.bare:
                ends["bare"] = _End(Traffic(lab.c_namespace, *plain), host=THEIRS[options.outer])
            for end in ends.values():
                if end.client is not None:
                    end.client.start()
                elif end.tunnelled:
                    end.traffic.ask(do="connect")
            for do in ("download", "upload"):
                done: dict[Who, list[dict[str, Any]]] = {who: [] for who in ends}
                for number in range(plan.runs + (not plan.path)):
                    for turn, who in enumerate(in_turn(list(ends), number)):
                        run = transfer(lab, ends[who], do, plan, server)
                        run.turn = turn
                        if number > 0 or plan.path:
                            done[who].append(run.as_data())
                results[do] = done
        finally:
            for end in ends.values():
                end.traffic.close()
            c_client.stop()
    return results
