"""Round trips of small UDP datagrams through the tunnel, ours and the C client in turn: quiet, and beside a download.

``python -m benchmarks.latency [--count N] [--rounds N] [--json FILE]``, as root. And connecting: N times each.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

from tests.interop.lab.lab import TUN_IPV4, Lab
from tests.interop.lab.openvpn import OpenVPN, ServerOptions

from .end_to_end import MIB, Traffic

__all__ = ["main"]


def quantiles(values: list[float]) -> dict[str, float]:
    """Median and p99, by nearest rank: of 100 values the 99th."""
    ordered = sorted(values)
    return {"p50": statistics.median(ordered), "p99": ordered[-(-len(ordered) * 99 // 100) - 1]}


def main() -> None:
    """Parse the arguments, measure, print."""
    parser = argparse.ArgumentParser(description="Latency beside the C client, through the real server.")
    parser.add_argument("--count", type=int, default=500, help="echoes in a round (default 500)")
    parser.add_argument("--rounds", type=int, default=6, help="rounds, in turn (default 6)")
    parser.add_argument("--connects", type=int, default=30, help="connections of each (default 30)")
    parser.add_argument("--load", type=int, default=64, help="MiB to download beside the echoes (default 64)")
    parser.add_argument("--json", type=Path, help="write the summary to this file")
    arguments = parser.parse_args()
    times: dict[str, dict[str, list[float]]] = {what: {"ours": [], "c": []} for what in ("quiet", "busy", "connect")}
    with (
        tempfile.TemporaryDirectory() as folder,
        Lab(Path(folder)) as lab,
        lab.server(ServerOptions(inner_ipv6=False)) as server,
    ):
        c_client: OpenVPN = server.c_client()
        ends = {
            "c": Traffic(lab.c_namespace, "plain"),
            "ours": Traffic(lab.our_namespace, "ours", str(server.profile_file())),
        }
        try:
            for number in range(arguments.connects + 1):
                c_client.stop()
                c_client.start()
                seconds = ends["ours"].ask(do="connect")["seconds"]
                if number:
                    times["connect"]["c"].append(c_client.seconds_to_ready)
                    times["connect"]["ours"].append(seconds)
            for number in range(arguments.rounds + 1):
                for who, traffic in ends.items():
                    order: dict[str, Any] = {"do": "echo", "host": TUN_IPV4, "bytes": 64}
                    quiet = traffic.ask(**order, count=arguments.count)["times"]
                    busy = traffic.ask(**order, count=10**6, load=arguments.load * MIB)["times"]
                    if number:
                        times["quiet"][who] += quiet
                        times["busy"][who] += busy
        finally:
            for traffic in ends.values():
                traffic.close()
            c_client.stop()
    summary = {what: {who: quantiles(values) for who, values in by_whom.items()} for what, by_whom in times.items()}
    labels = {"quiet": "64-byte echo", "busy": "beside a download", "connect": "connect"}
    print(f"{'us':20}{'ours p50':>10}{'p99':>10}{'C p50':>10}{'p99':>10}")
    for what, label in labels.items():
        cells = [summary[what][who][q] * 1e6 for who in ("ours", "c") for q in ("p50", "p99")]
        print(f"{label:20}" + "".join(f"{cell:10.0f}" for cell in cells))
    if arguments.json:
        arguments.json.write_text(json.dumps(summary, indent=1) + "\n")


if __name__ == "__main__":
    main()
