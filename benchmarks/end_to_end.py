"""One TCP stream through the real server, ours and the C client in turn.

``python -m benchmarks.end_to_end [--runs N] [--mebibytes M] [--json FILE] [--svg FILE]``, as root;
with ``--streams N`` so many at once; with ``--rtt MS --loss PERCENT --jitter MS`` over a bad path (relay.py);
with ``--cells`` a table of such paths, once each way and cell.

The server, our client and the C client live in namespaces of their own, joined by veth pairs
(``tests/interop/lab``). Both tunnels stay up and are used one after the other, run by run, so that
whatever else the machine does hits both. Each run's byte count is checked at the receiving end.
What is reported: the median of each, and the ratio of ours to the C client's, which is the figure
that survives a change of machine.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from tests.interop.lab.lab import TUN_IPV4, Lab, Server
from tests.interop.lab.namespaces import Namespace
from tests.interop.lab.openvpn import OpenVPN, ServerOptions

from .chart import chart

__all__ = ["NetworkPath", "main", "relayed"]

ROOT = Path(__file__).parent.parent
MIB = 1 << 20
RELAY_PORT = 11940
Who = Literal["ours", "c"]


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
        self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()


@dataclass
class Run:
    """One transfer: rate of the payload, processor seconds by process, how busy each of the machine's
    processors was (0 to 1), and inner packets by direction as the server's tun device counts them."""

    mbit_per_second: float
    seconds: float
    client_cpu: float
    server_cpu: float
    busy: list[float]
    packets_down: int
    packets_up: int
    retransmissions: int | None = None


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
    """Processor seconds that a running openvpn has used."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def transfer(
    lab: Lab, traffic: Traffic, do: str, size: int, server: Server, client: OpenVPN | None, streams: int = 1
) -> Run:
    """One measured transfer of ``size`` bytes in all; ends the program when a byte is missing."""
    times, packets = processor_times(), tun_packets(lab)
    server_before, client_before = cpu_of(server), cpu_of(client) if client else 0.0
    answer = traffic.ask(do=do, host=TUN_IPV4, bytes=size // streams, streams=streams)
    size = size // streams * streams
    if answer["bytes"] != size:
        raise SystemExit(f"{do}: {answer['bytes']} of {size} bytes arrived")
    client_cpu = answer["cpu"] + (cpu_of(client) - client_before if client else 0.0)
    return Run(
        mbit_per_second=size * 8 / answer["seconds"] / 1e6,
        seconds=answer["seconds"],
        client_cpu=client_cpu,
        server_cpu=cpu_of(server) - server_before,
        busy=[
            (after[0] - before[0]) / max(after[1] - before[1], 1)
            for before, after in zip(times, processor_times(), strict=True)
        ],
        packets_down=tun_packets(lab)[0] - packets[0],
        packets_up=tun_packets(lab)[1] - packets[1],
        retransmissions=answer.get("retransmissions"),
    )


@dataclass(frozen=True)
class NetworkPath:
    """A path to the server: round trip and jitter in ms, loss in percent each way."""

    rtt: float = 0.0
    loss: float = 0.0
    jitter: float = 0.0

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


def measure(
    lab: Lab, options: ServerOptions, *, runs: int, size: int, only: Who | None = None, streams: int = 1,
    path: NetworkPath = NetworkPath(), ours: str = "",
) -> dict[str, Any]:  # fmt: skip
    """All runs against one server."""
    results: dict[str, Any] = {"connect": {}, "download": {}, "upload": {}}
    with lab.server(options) as server, relayed(lab, path) as port:
        ends: dict[Who, tuple[Traffic, OpenVPN | None]] = {}
        c_client = server.c_client(port=port)  # type: ignore[arg-type]
        try:
            if only != "ours":
                ends["c"] = (Traffic(lab.c_namespace, "plain", *filter(None, [lab.congestion])), c_client)
            if only != "c":
                ends["ours"] = (Traffic(lab.our_namespace, "ours", str(server.profile_file(port=port)), ours), None)
            connects: dict[Who, list[float]] = {who: [] for who in ends}
            connects_wanted = max(runs, 1 if path else 11)
            for _ in range(connects_wanted + 1):  # the first warms caches and imports
                for who, (traffic, client) in ends.items():
                    if client is not None:
                        client.stop()
                        client.start()
                        connects[who].append(client.seconds_to_ready)
                    else:
                        connects[who].append(traffic.ask(do="connect")["seconds"])
            for who, seconds in connects.items():
                results["connect"][who] = {"first": seconds[0], "seconds": seconds[1:]}
            for do in ("download", "upload"):
                done: dict[Who, list[Run]] = {who: [] for who in ends}
                for number in range(runs + (not path)):
                    for who, (traffic, client) in ends.items():
                        run = transfer(lab, traffic, do, size, server, client, streams)
                        if number > 0 or path:
                            done[who].append(run)
                results[do] = {who: [asdict(run) for run in list_of_runs] for who, list_of_runs in done.items()}
        finally:
            for traffic, _ in ends.values():
                traffic.close()
            c_client.stop()
    return results


def median(results: dict[str, Any], what: str, who: str, field: str) -> float | None:
    """The median of one field, None where it was not measured."""
    values = results[what].get(who)
    return None if values is None else statistics.median(run[field] for run in values)


def report(results: dict[str, Any], size: int) -> dict[str, Any]:
    """Print the table; return it as data."""
    print(f"{'':10}{'ours':>22}{'C client':>22}{'ours / C':>10}")
    summary: dict[str, Any] = {}
    for what in ("download", "upload"):
        rates = {who: median(results, what, who, "mbit_per_second") for who in ("ours", "c")}
        cells = {}
        for who, rate in rates.items():
            cpu = median(results, what, who, "client_cpu")
            cells[who] = "-" if rate is None or cpu is None else f"{rate:.0f} Mbit/s {cpu / size * 1e9:.1f} s/GB"
        summary[what] = _row(what, rates, cells)
    seconds = {
        who: statistics.median(results["connect"][who]["seconds"]) if who in results["connect"] else None
        for who in ("ours", "c")
    }
    cells = {who: "-" if value is None else f"{value * 1e3:.0f} ms" for who, value in seconds.items()}
    summary["connect"] = _row("connect", seconds, cells)
    for what in ("download", "upload"):
        for who, runs in results[what].items():
            both = [sorted((run["packets_up"], run["packets_down"])) for run in runs]
            acks = statistics.median(few / max(many, 1) for few, many in both)
            busy = [statistics.median(column) for column in zip(*(run["busy"] for run in runs), strict=True)]
            line = f"{what:10}{who:>5}: {acks:.3f} packets back for each, processors busy "
            line += ", ".join(f"{share * 100:.0f} %" for share in busy)
            if who == "ours":
                line += f", sent again {statistics.median(run['retransmissions'] for run in runs):.0f}"
            print(line)
            summary[what][f"acks a packet, {who}"] = acks
    return summary


def _row(what: str, values: dict[str, float | None], cells: dict[str, str]) -> dict[str, float | None]:
    ours, c = values["ours"], values["c"]
    ratio = ours / c if ours and c else None
    print(f"{what:10}{cells['ours']:>22}{cells['c']:>22}{'-' if ratio is None else format(ratio, '.2f'):>10}")
    return {**values, "ratio": ratio}


#: Payload by round trip and loss: enough to leave slow start behind, and not for ever where it is slow.
CELLS = [
    *(NetworkPath(rtt, loss) for rtt in (0, 20, 100) for loss in (0, 0.1, 1, 3)),
    NetworkPath(200, 0),
    NetworkPath(20, 0, 5),
]


def cell_load(path: NetworkPath) -> tuple[int, int]:
    """Bytes to move over ``path`` in one run, and streams that share them. Where a stream lives by chance, several
    say more than one: none of them fills the path."""
    if not path.rtt or not path.loss:
        return (64 * MIB if path.rtt >= 100 else 32 * MIB), 1
    each = MIB if path.rtt < 50 else MIB // 2
    return 8 * each * (4 if path.loss < 0.5 else 1), 8


def table_of_cells(lab: Lab, options: ServerOptions, runs: int, ours: str = "") -> list[dict[str, Any]]:
    """Every cell, ours beside the C client over the kernel's TCP; printed as it comes."""
    rows: list[dict[str, Any]] = []
    print(f"{'path':28}{'download, Mbit/s':>28}{'upload, Mbit/s':>28}")
    for path in CELLS:
        # The relay is in the way of all cells, of the good one too.
        over = path or NetworkPath(0.02)
        size, streams = cell_load(path)
        results = measure(lab, options, runs=runs, size=size, path=over, ours=ours, streams=streams)
        row: dict[str, Any] = {"path": str(path), "streams": streams}
        cells = []
        for do in ("download", "upload"):
            mine, c = (median(results, do, who, "mbit_per_second") or 0.0 for who in ("ours", "c"))
            row[do] = {"ours": mine, "c": c, "ratio": mine / c}
            cells.append(f"{mine:.1f} / {c:.1f} = {mine / c:.2f}")
        rows.append(row)
        print(f"{path!s:28}{cells[0]:>28}{cells[1]:>28}", flush=True)
    return rows


def main() -> None:
    """Parse the arguments, measure, print."""
    parser = argparse.ArgumentParser(description="Throughput beside the C client, through the real server.")
    parser.add_argument("--runs", type=int, default=11, help="measured runs of each kind (default 11)")
    parser.add_argument("--mebibytes", type=int, default=64, help="payload of one run (default 64)")
    parser.add_argument("--transport", choices=("udp", "tcp"), default="udp")
    parser.add_argument("--cipher", default="AES-256-GCM")
    parser.add_argument("--only", choices=("ours", "c"), help="measure one side alone")
    parser.add_argument("--streams", type=int, default=1, help="streams at once, which share the payload")
    parser.add_argument("--rtt", type=float, default=0.0, help="round trip of the path, ms")
    parser.add_argument("--loss", type=float, default=0.0, help="loss of the path, percent each way")
    parser.add_argument("--jitter", type=float, default=0.0, help="jitter of the path, ms; reorders")
    parser.add_argument("--cells", action="store_true", help="a table of paths")
    parser.add_argument(
        "--congestion", help="of the kernel's TCP at both ends (default: cubic with --cells, else the machine's own)"
    )
    parser.add_argument("--our-congestion", default="", help="of our TCP (default: the settings' own)")
    parser.add_argument("--json", type=Path, help="write every run to this file")
    parser.add_argument("--svg", type=Path, help="draw every run into this file")
    arguments = parser.parse_args()
    options = ServerOptions(transport=arguments.transport, cipher=arguments.cipher, inner_ipv6=False)
    size = arguments.mebibytes * MIB
    path = NetworkPath(arguments.rtt, arguments.loss, arguments.jitter)
    congestion = arguments.congestion or ("cubic" if arguments.cells else None)
    with tempfile.TemporaryDirectory() as folder, Lab(Path(folder), congestion) as lab:
        if arguments.cells:
            rows = table_of_cells(lab, options, arguments.runs, arguments.our_congestion)
            if arguments.json:
                arguments.json.write_text(json.dumps(rows, indent=1) + "\n")
            return
        results = measure(
            lab, options, runs=arguments.runs, size=size, only=arguments.only, streams=arguments.streams, path=path,
            ours=arguments.our_congestion,
        )
    print(f"{arguments.transport} {arguments.cipher}, {arguments.runs} runs of {arguments.mebibytes} MiB, medians")
    summary = report(results, size)
    if arguments.svg:
        title = f"One TCP stream, {arguments.transport.upper()}, {arguments.cipher}: Mbit/s of payload"
        arguments.svg.write_text(chart(title, {
            do: {who: [run["mbit_per_second"] for run in results[do][who]] for who in results[do]}
            for do in ("download", "upload")
        }))  # fmt: skip
    if arguments.json:
        about = {
            "transport": arguments.transport, "cipher": arguments.cipher, "bytes": size, "runs": arguments.runs,
            "cpus": os.cpu_count(), "python": platform.python_version(), "kernel": platform.release(),
        }  # fmt: skip
        arguments.json.write_text(json.dumps({"about": about, "summary": summary, "results": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
