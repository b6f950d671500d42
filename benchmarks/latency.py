"""Round trips of small UDP datagrams through the tunnel, ours and the C client in turn: quiet, and beside a download.

``python -m benchmarks.latency [--count N] [--rounds N] [--connects N] [--load MIB] [--json FILE]``, as root. And
connecting: N times each.

Our figures are those of a Trio program over our sockets. The C client's are taken twice (echoes.py): with the same Trio
program over the kernel's sockets, echo and download in one process as ours are; and with blocking sockets, the
echo and the download in processes of their own, which is the least that anybody can pay beside it. The rate of the
download is reported with the round trips beside it: who downloads slowly has short queues.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

from tests.interop.lab.lab import TUN_IPV4, Lab
from tests.interop.lab.openvpn import ServerOptions

from .figures import quantiles
from .processes import CClient, Worker

__all__ = ["main"]

MIB = 1 << 20
MODULE = "benchmarks.echoes"
SIZE = 64
#: Column by program at the client's end.
WHO = {"ours": "ours", "c": "C, same program", "c blocking": "C, blocking"}
#: Row by what is measured, in us.
ROWS = {"quiet": f"{SIZE}-byte echo", "busy": "beside a download", "connect": "connect"}

Times = dict[str, dict[str, list[float]]]


def measure_connects(ours: Worker, c_client: CClient, count: int) -> dict[str, list[float]]:
    """Seconds of each connection. Both tunnels are up afterwards."""
    seconds: dict[str, list[float]] = {"ours": [], "c": []}
    for number in range(count + 1):
        both = {"c": c_client.connect(), "ours": ours.ask(do="connect")["seconds"]}
        if number:
            for who, figure in both.items():
                seconds[who].append(figure)
    return seconds


def busy(who: str, ends: dict[str, Worker], bulk: Worker, load: int) -> dict[str, Any]:
    """One round of echoes beside a download."""
    if who != "c blocking":
        return ends[who].ask(do="busy echo", host=TUN_IPV4, bytes=SIZE, load=load)
    ends[who].tell(do="echo", host=TUN_IPV4, bytes=SIZE, until="told")
    answer = bulk.ask(do="download", host=TUN_IPV4, load=load)
    ends[who].tell(do="nothing")
    return {**ends[who].hear(), **answer}


def measure_echoes(ends: dict[str, Worker], bulk: Worker, rounds: int, count: int, load: int) -> Times:
    """Round trips in seconds, and rates in Mbit/s. A first round is thrown away."""
    figures: Times = {what: {who: [] for who in ends} for what in ("quiet", "busy", "bulk")}
    for number in range(rounds + 1):
        for who, worker in ends.items():
            quiet = worker.ask(do="echo", host=TUN_IPV4, bytes=SIZE, count=count)
            loaded = busy(who, ends, bulk, load)
            if number:
                figures["quiet"][who] += quiet["times"]
                figures["busy"][who] += loaded["times"]
                figures["bulk"][who].append(loaded["bulk"])
    return figures


def summarize(figures: Times) -> dict[str, Any]:
    """Quantiles of the times, and how many they are of; medians of the rates."""
    summary: dict[str, Any] = {
        what: {who: {**quantiles(values), "of": len(values)} for who, values in figures[what].items()} for what in ROWS
    }
    summary["bulk"] = {who: statistics.median(rates) for who, rates in figures["bulk"].items()}
    return summary


def table(summary: dict[str, Any]) -> list[str]:
    """The lines of the table."""
    lines = [f"{'':20}" + "".join(f"{title:>22}" for title in WHO.values())]
    lines.append(f"{'us':20}" + f"{'p50':>12}{'p99':>10}" * len(WHO))
    for what, label in ROWS.items():
        line = f"{label:20}"
        for who in WHO:
            row = summary[what].get(who)
            line += f"{'-':>12}{'-':>10}" if row is None else f"{row['p50'] * 1e6:12.0f}{row['p99'] * 1e6:10.0f}"
        lines.append(line)
    lines.append(f"{'Mbit/s beside it':20}" + "".join(f"{summary['bulk'][who]:12.0f}{'':10}" for who in WHO))
    return [line.rstrip() for line in lines]


def main() -> None:
    """Parse the arguments, measure, print."""
    parser = argparse.ArgumentParser(description="Latency beside the C client, through the real server.")
    parser.add_argument("--count", type=int, default=500, help="echoes in a round (default 500)")
    parser.add_argument("--rounds", type=int, default=6, help="rounds, in turn (default 6)")
    parser.add_argument("--connects", type=int, default=30, help="connections of each (default 30)")
    parser.add_argument("--load", type=int, default=64, help="MiB to download beside the echoes (default 64)")
    parser.add_argument("--json", type=Path, help="write the summary to this file")
    arguments = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        Lab(Path(folder)) as lab,
        lab.server(ServerOptions(inner_ipv6=False)) as server,
    ):
        c_client = CClient(lab.c_namespace, server)
        ends = {
            "ours": Worker(lab.our_namespace, MODULE, "ours", str(server.profile_file())),
            "c": Worker(lab.c_namespace, MODULE, "trio"),
            "c blocking": Worker(lab.c_namespace, MODULE, "blocking"),
        }
        bulk = Worker(lab.c_namespace, MODULE, "blocking")
        try:
            connects = measure_connects(ends["ours"], c_client, arguments.connects)
            figures = measure_echoes(ends, bulk, arguments.rounds, arguments.count, arguments.load * MIB)
        finally:
            for worker in (*ends.values(), bulk):
                worker.close()
            c_client.stop()
    summary = summarize({**figures, "connect": connects})
    print("\n".join(table(summary)))
    if arguments.json:
        arguments.json.write_text(json.dumps(summary, indent=1) + "\n")


if __name__ == "__main__":
    main()
