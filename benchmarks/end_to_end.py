"""One TCP stream through the real server: ours, the C client and the bare path in turn.

``python -m benchmarks.end_to_end [--runs N] [--mebibytes M] [--json FILE] [--svg FILE]``, as root;
with ``--streams N`` so many at once; with ``--rtt MS --loss PERCENT --jitter MS`` over a bad path (relay.py);
with ``--cells`` a table of such paths, once each way and cell; with ``--cells 20/1 20/0/5`` some of them.

The server, our client and the C client live in namespaces of their own, joined by veth pairs
(``tests/interop/lab``). Both tunnels stay up and are used one after the other, run by run, so that
whatever else the machine does hits both; who goes first alternates. Each run's bytes are counted at the receiving end,
and compared with what was sent when the clock has stopped. What is reported: the median of each, and the ratio of
ours to the C client's, which is the figure that survives a change of machine.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
from pathlib import Path
from typing import Any

from minivpn_trio.dialer import DEFAULT_CONGESTION
from minivpn_trio.networkio.dial import DEFAULT_SOCKET_BUFFER
from tests.interop.lab.lab import Lab
from tests.interop.lab.namespaces import Namespace
from tests.interop.lab.openvpn import ServerOptions

from .cells import CELLS, table_of_cells
from .chart import chart
from .contenders import MIB, NetworkPath, Plan, measure
from .report import DIRECTIONS, head, report

__all__ = ["main", "parser"]

#: Limits and defaults of socket buffers, bytes.
NET_CORE = ("rmem_max", "rmem_default", "wmem_max", "wmem_default")


def conditions(lab: Lab, arguments: argparse.Namespace) -> dict[str, Any]:
    """What a reader has to know to repeat it: for JSON, and for ``report.head``."""

    def congestion(namespace: Namespace) -> str:
        with namespace.entered():
            return lab.congestion or Path("/proc/sys/net/ipv4/tcp_congestion_control").read_text().strip()

    # Where the profile is silent.
    ours_asks_for = DEFAULT_SOCKET_BUFFER if arguments.transport == "udp" else None
    return {
        "transport": arguments.transport,
        "cipher": arguments.cipher,
        "runs": arguments.runs,
        "cpus": os.cpu_count(),
        "affinity": sorted(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "kernel": platform.release(),
        "our_congestion": arguments.our_congestion or DEFAULT_CONGESTION,
        "kernel_congestion": {"server": congestion(lab.server_namespace), "c": congestion(lab.c_namespace)},
        "numpy": arguments.numpy,
        "buffers": {"ours": arguments.buffers or ours_asks_for, "c": arguments.buffers},
        "net_core": {f"net.core.{name}": int(Path(f"/proc/sys/net/core/{name}").read_text()) for name in NET_CORE},
    }


def parser() -> argparse.ArgumentParser:
    """The command line."""
    line = argparse.ArgumentParser(description="Throughput beside the C client, through the real server.")
    line.add_argument("--runs", type=int, default=11, help="measured runs of each kind (default 11)")
    line.add_argument("--mebibytes", type=int, default=64, help="payload of one run (default 64)")
    line.add_argument("--transport", choices=("udp", "tcp"), default="udp")
    line.add_argument("--cipher", default="AES-256-GCM")
    line.add_argument("--only", choices=("ours", "c"), help="measure one side alone")
    line.add_argument(
        "--bare", action=argparse.BooleanOptionalAction,
        help="also the kernel's TCP without a tunnel (default: in the plain table, not over a bad path)",
    )  # fmt: skip
    line.add_argument("--streams", type=int, default=1, help="streams at once, which share the payload")
    line.add_argument("--rtt", type=float, default=0.0, help="round trip of the path, ms")
    line.add_argument("--loss", type=float, default=0.0, help="loss of the path, percent each way")
    line.add_argument("--jitter", type=float, default=0.0, help="jitter of the path, ms; reorders")
    line.add_argument(
        "--cells", nargs="*", type=NetworkPath.parse, metavar="RTT/LOSS[/JITTER]",
        help="a table of paths (ms, percent, ms): those named, or all of " + " ".join(map(_short, CELLS)),
    )  # fmt: skip
    line.add_argument(
        "--congestion", help="of the kernel's TCP at both ends (default: cubic with --cells, else the machine's own)"
    )
    line.add_argument("--our-congestion", default="", help=f"of our TCP (default: {DEFAULT_CONGESTION})")
    line.add_argument(
        "--buffers", type=int, metavar="BYTES",
        help="sndbuf and rcvbuf in both clients' profiles. Without it the profiles are silent: ours asks for 4 MiB "
        "each way over UDP, the C client for nothing and has net.core.rmem_default and wmem_default",
    )  # fmt: skip
    line.add_argument(
        "--numpy", action="store_true", help="ours adds up checksums with numpy, as where the extra `fast` is installed"
    )
    line.add_argument("--json", type=Path, help="write every run to this file")
    line.add_argument("--svg", type=Path, help="draw every run of the plain table into this file")
    return line


def _short(path: NetworkPath) -> str:
    return f"{path.rtt:g}/{path.loss:g}" + (f"/{path.jitter:g}" if path.jitter else "")


def main() -> None:
    """Parse the arguments, measure, print."""
    command_line = parser()
    arguments = command_line.parse_args()
    cells = arguments.cells is not None
    path = NetworkPath(arguments.rtt, arguments.loss, arguments.jitter)
    if arguments.transport == "tcp" and (path or cells):
        command_line.error("the relay forwards datagrams: --transport tcp has no bad path")
    if arguments.bare and (path or cells):
        command_line.error("the bare path does not lead through the relay")
    if arguments.only and cells:
        command_line.error("--cells compares: it goes without --only")
    options = ServerOptions(transport=arguments.transport, cipher=arguments.cipher, inner_ipv6=False)
    congestion = arguments.congestion or ("cubic" if cells else None)
    with tempfile.TemporaryDirectory() as folder, Lab(Path(folder), congestion) as lab:
        about = conditions(lab, arguments)
        if cells:
            print(f"udp {arguments.cipher}, runs of each cell: {arguments.runs}", *head(about), sep="\n")
            rows = table_of_cells(
                lab, options, arguments.runs, arguments.cells or CELLS,
                ours=arguments.our_congestion, buffers=arguments.buffers, numpy=arguments.numpy,
            )  # fmt: skip
            data: dict[str, Any] = {"about": about, "cells": rows}
        else:
            data = plain_table(lab, options, arguments, path, about)
    if arguments.json:
        arguments.json.write_text(json.dumps(data, indent=1) + "\n")


def plain_table(
    lab: Lab, options: ServerOptions, arguments: argparse.Namespace, path: NetworkPath, about: dict[str, Any]
) -> dict[str, Any]:
    """One path, printed, and drawn if that was asked for."""
    plan = Plan(
        runs=arguments.runs, size=arguments.mebibytes * MIB, streams=arguments.streams, path=path, only=arguments.only,
        bare=not path and arguments.only is None if arguments.bare is None else arguments.bare,
        ours=arguments.our_congestion, buffers=arguments.buffers, numpy=arguments.numpy,
    )  # fmt: skip
    results = measure(lab, options, plan)
    streams = "one stream" if plan.streams == 1 else f"{plan.streams} streams"
    print(f"{arguments.transport} {arguments.cipher}, {plan.runs} runs of {arguments.mebibytes} MiB, {streams}"
          + (f", {path}" if path else "") + ", medians", *head(about), sep="\n")  # fmt: skip
    summary = report(results, plan.size)
    if arguments.svg:
        title = f"One TCP stream, {arguments.transport.upper()}, {arguments.cipher}: Mbit/s of payload"
        arguments.svg.write_text(chart(title, {
            # The bare path is of another order: it would make the others hard to tell apart.
            do: {who: [run["mbit_per_second"] for run in results[do][who]] for who in results[do] if who != "bare"}
            for do in DIRECTIONS
        }))  # fmt: skip
    about |= {"bytes": plan.size, "streams": plan.streams, "path": str(path) if path else None}
    return {"about": about, "summary": summary, "results": results}


if __name__ == "__main__":
    main()
