"""Connecting over a path that loses datagrams, ours and the C client in turn on the same relays.

``python -m benchmarks.handshakes [--count N] [--loss PERCENT] [--rtt MS] [--lanes N] [--wrap KIND] [--json FILE]``,
as root.

From the first packet until the tunnel is up: ``Ready`` here, "Initialization Sequence Completed" there (its process
started and its device made, which is milliseconds). Both go on trying until they are up; two minutes count as never.
Several lanes run at once, each with a relay and a seed of its own: one client after the other.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import platform
import statistics
import tempfile
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import trio

from minivpn_trio import open_client
from minivpn_trio.config.model import TunnelConfig
from minivpn_trio.config.ovpn import load_config
from minivpn_trio.errors import ConnectError
from tests.interop.lab.lab import THEIRS, Lab, Server
from tests.interop.lab.openvpn import OpenVPN, ServerOptions

from .contenders import RELAY_PORT, NetworkPath, relayed

__all__ = ["main"]

#: Seconds after which nobody waits any longer.
NEVER = 120.0
UP = "Initialization Sequence Completed"
#: How often the C client's log is read, seconds.
LOOK = 0.01
#: Rounds of ours: more than fit into NEVER.
ROUNDS = 100


@dataclass
class Lane:
    """One relay, and both clients as they reach the server through it."""

    config: TunnelConfig
    c_client: OpenVPN


@dataclass
class Times:
    """Seconds until the tunnel was up, NEVER among them, by client."""

    ours: list[float] = field(default_factory=list)
    c: list[float] = field(default_factory=list)


async def connect_ours(config: TunnelConfig) -> float:
    """Seconds until our tunnel was up."""
    began = trio.current_time()
    with trio.move_on_after(NEVER):
        with contextlib.suppress(ConnectError):
            async with open_client(config):
                return trio.current_time() - began
    return NEVER


async def connect_c(client: OpenVPN) -> float:
    """Seconds until the C client's tunnel was up."""
    began = time.monotonic()
    client.launch()
    try:
        while time.monotonic() - began < NEVER:
            if UP in client.log:
                return time.monotonic() - began
            await trio.sleep(LOOK)
        return NEVER
    finally:
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(client.stop)


async def measure(lanes: list[Lane], count: int) -> Times:
    """``count`` connections of each, shared among the lanes."""
    times = Times()
    left = count

    async def drive(lane: Lane) -> None:
        nonlocal left
        while left > 0:
            left -= 1
            times.ours.append(await connect_ours(lane.config))
            times.c.append(await connect_c(lane.c_client))
            print(".", end="", flush=True)

    async with trio.open_nursery() as nursery:
        for lane in lanes:
            nursery.start_soon(drive, lane)
    print()
    return times


def make_lane(lab: Lab, server: Server, number: int, port: int) -> Lane:
    """The two profiles of one lane."""
    ours = load_config(server.profile_file(f"ours-{number}.ovpn", port=port))
    theirs = server.profile_file(
        f"c-{number}.ovpn", host=THEIRS["4"], port=port,
        # Several clients in one namespace: their addresses and routes would be in each other's way.
        extra=(f"dev tun{number + 1}", "dev-type tun", "disable-dco", "verb 3", "ifconfig-noexec", "route-noexec"),
    )  # fmt: skip
    client = OpenVPN(lab.c_namespace, theirs, log=server.folder / f"c-{number}.log")
    return Lane(replace(ours, connect_retry_max=ROUNDS), client)


def summary(seconds: list[float]) -> dict[str, Any]:
    """How many came up, median and ninth decile of all."""
    ordered = sorted(seconds)
    return {
        "connected": sum(each < NEVER for each in ordered),
        "of": len(ordered),
        "median": statistics.median(ordered),
        "p90": ordered[math.ceil(len(ordered) * 0.9) - 1],
        "worst": ordered[-1],
    }


def main() -> None:
    """Parse the arguments, measure, print."""
    parser = argparse.ArgumentParser(description="Handshakes over a lossy path beside the C client's.")
    parser.add_argument("--count", type=int, default=50, help="connections of each (default 50)")
    parser.add_argument("--loss", type=float, default=20.0, help="percent, each way (default 20)")
    parser.add_argument("--rtt", type=float, default=0.02, help="round trip of the path, ms (default 0.02)")
    parser.add_argument("--lanes", type=int, default=8, help="how many at a time (default 8)")
    parser.add_argument("--wrap", choices=("none", "tls-auth", "tls-crypt", "tls-crypt-v2"), default="none")
    parser.add_argument("--seed", type=int, default=1, help="of the first relay")
    parser.add_argument("--json", type=Path, help="write every time to this file")
    arguments = parser.parse_args()
    path = NetworkPath(arguments.rtt, arguments.loss)
    options = ServerOptions(wrap=arguments.wrap, inner_ipv6=False)
    load_before = os.getloadavg()[0]
    with (
        tempfile.TemporaryDirectory() as folder,
        Lab(Path(folder)) as lab,
        lab.our_namespace.entered(),
        lab.server(options) as server,
        contextlib.ExitStack() as relays,
    ):
        lanes = []
        for number in range(min(arguments.lanes, arguments.count)):
            port = RELAY_PORT + number
            relays.enter_context(relayed(lab, path, port=port, seed=arguments.seed + number))
            lanes.append(make_lane(lab, server, number, port))
        times = trio.run(measure, lanes, arguments.count)
    result = {"ours": summary(times.ours), "c": summary(times.c)}
    print(f"{path}, {arguments.wrap}; seconds, those that never came up as {NEVER:g}")
    print(f"{'':8}{'connected':>12}{'median':>10}{'p90':>10}{'worst':>10}")
    for who, row in result.items():
        connected = f"{row['connected']} of {row['of']}"
        print(f"{who:8}{connected:>12}" + "".join(f"{row[name]:10.2f}" for name in ("median", "p90", "worst")))
    if arguments.json:
        about = {
            "path": str(path), "wrap": arguments.wrap, "lanes": len(lanes), "seed": arguments.seed,
            "cpus": os.cpu_count(), "load": load_before, "python": platform.python_version(),
            "kernel": platform.release(),
        }  # fmt: skip
        everything = {"about": about, "summary": result, "seconds": {"ours": times.ours, "c": times.c}}
        arguments.json.write_text(json.dumps(everything, indent=1) + "\n")


if __name__ == "__main__":
    main()
