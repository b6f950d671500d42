"""Many streams through one tunnel, and many tunnels in one process.

``python -m benchmarks.scale [--idle N] [--active N] [--tunnels N] [--only WHAT] [--json FILE]``

Each measurement has two processes of its own: a server of ``minivpn_trio.testing``, on 127.0.0.1, so no root is
needed; and a client, whose resident memory and processor time are what is measured. Nothing was freed in it before, so
memory is what the kernel had to give: the growth, over a tunnel and a few streams that were there before, divided
by the number. An idle stream is all of what ``open_tcp_stream`` returns and what stands behind it: a connection of the
stack, the ``TunSocket`` over it, the ``trio.SocketStream`` over that.

What is idle is watched for longer than the tunnels' keepalive (10 s each way), and what it sent and received meanwhile
is counted. Every byte that an active stream gets back is compared with what it sent. (100 streams beside the C client:
``benchmarks.end_to_end --streams 100``.)
"""

from __future__ import annotations

import argparse
import base64
import gc
import json
import os
import pickle
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import trio

from minivpn_trio import TunDialer, TunnelConfig, open_tun_dialer
from minivpn_trio.netstack import scapy_wire

from .figures import quantiles

__all__ = ["main"]

ROOT = Path(__file__).parent.parent
WHAT = ("tunnels", "active", "idle")
ECHO_PORT, HOLD_PORT = 7, 70
PAGE = os.sysconf("SC_PAGE_SIZE")
#: Streams or tunnels that are being opened at the same time.
OPENING = 50
#: Streams that are there before memory is looked at: code and caches that the first ones need.
WARM = 20
ADDRESS = "10.8.0.1"
#: Bars: KiB.
BARS = {"KiB a stream": 12.0, "KiB a tunnel": 1536.0}

Figures = dict[str, float]


def resident() -> int:
    """Bytes of this process in memory."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE


def cpu() -> float:
    """Processor seconds of this process."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


async def serve() -> None:
    """The server's process: one line with a configuration on stdout, then until stdin ends."""
    # Not in the client's process: what imports freed would be used again, and not show.
    from minivpn_trio.testing import ServerSettings, open_vpn_server
    from minivpn_trio.testing.services import echo

    async def hold(stream: trio.SocketStream) -> None:
        await stream.receive_some(1)

    settings = ServerSettings(network=IPv4Network("10.8.0.0/20"), duplicate_cn=True)
    async with open_vpn_server(settings) as server, trio.open_nursery() as nursery:
        await nursery.start(server.host.serve_tcp, echo, ECHO_PORT)
        await nursery.start(server.host.serve_tcp, hold, HOLD_PORT)
        print(base64.b64encode(pickle.dumps(server.client_config())).decode(), flush=True)
        await trio.to_thread.run_sync(sys.stdin.readline)
        nursery.cancel_scope.cancel()


@contextmanager
def server() -> Iterator[str]:
    """A server in another process; the configuration that connects to it, as a line for ``measure``."""
    command = [sys.executable, "-m", "benchmarks.scale", "--serve"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline()
        finally:
            process.kill()


def traffic(dialers: list[TunDialer]) -> Figures:
    """Packets to the servers and from them so far, and which of those were pings."""
    each = [dialer.stats() for dialer in dialers]
    return {
        "packets out": sum(stats.transport.packets_out for stats in each),
        "packets in": sum(stats.transport.packets_in for stats in each),
        "pings out": sum(stats.data.pings_out for stats in each),
        "pings in": sum(stats.data.pings_in for stats in each),
    }


async def watch_idle(dialers: list[TunDialer], seconds: float) -> Figures:
    """What this process does when nobody wants anything of it. The last packets of what was before are gone."""
    before, busy = traffic(dialers), cpu()
    await trio.sleep(seconds)
    spent, after = cpu() - busy, traffic(dialers)
    figures: Figures = {"idle CPU %": spent / seconds * 100, "in seconds": seconds}
    return figures | {name: after[name] - before[name] for name in before}


async def open_many(dialer: TunDialer, port: int, count: int) -> list[trio.SocketStream]:
    """``count`` streams, some at a time."""
    streams: list[trio.SocketStream] = []
    left = count

    async def opener() -> None:
        nonlocal left
        while left > 0:
            left -= 1
            streams.append(await dialer.open_tcp_stream(ADDRESS, port))

    async with trio.open_nursery() as nursery:
        for _ in range(min(OPENING, count)):
            nursery.start_soon(opener)
    return streams


async def idle_streams(config: TunnelConfig, count: int, seconds: float) -> Figures:
    """Open streams that nobody uses."""
    async with open_tun_dialer(config) as dialer:
        warm = await open_many(dialer, HOLD_PORT, WARM)
        before, began = resident(), time.perf_counter()
        streams = await open_many(dialer, HOLD_PORT, count)
        took = time.perf_counter() - began
        await trio.sleep(1.0)
        after = resident()
        idle = await watch_idle([dialer], seconds)
        for stream in warm + streams:
            await stream.aclose()
        return {"streams": count, "KiB a stream": (after - before) / count / 1024, "MiB before": before / (1 << 20),
                "opened a second": count / took, **idle}  # fmt: skip


async def active_streams(config: TunnelConfig, count: int, rounds: int, size: int) -> Figures:
    """Streams that all send, and get back, ``rounds`` messages of ``size`` bytes."""
    times: list[float] = []

    async def talk(stream: trio.SocketStream, number: int) -> None:
        for turn in range(rounds):
            message = (number * rounds + turn).to_bytes(8, "big") * (size // 8)
            began = time.perf_counter()
            await stream.send_all(message)
            got = bytearray()
            while len(got) < len(message):
                data = await stream.receive_some(size)
                if not data:
                    raise SystemExit(f"stream {number} ended early")
                got += data
            if got != message:
                raise SystemExit(f"stream {number} got something else back")
            times.append(time.perf_counter() - began)

    async with open_tun_dialer(config) as dialer:
        await open_many(dialer, ECHO_PORT, WARM)
        before = resident()
        streams = await open_many(dialer, ECHO_PORT, count)
        began, busy = time.perf_counter(), cpu()
        async with trio.open_nursery() as nursery:
            for number, stream in enumerate(streams):
                nursery.start_soon(talk, stream, number)
        took, spent = time.perf_counter() - began, cpu() - busy
        after = resident()
    moved = 2 * count * rounds * size
    took_each = quantiles(times)
    return {"streams": count, "Mbit/s each way": moved * 4 / took / 1e6, "messages a second": count * rounds / took,
            "p50 ms": took_each["p50"] * 1e3, "p99 ms": took_each["p99"] * 1e3,
            "CPU us a message": spent / count / rounds * 1e6,
            "KiB a stream when done": (after - before) / count / 1024}  # fmt: skip


async def tunnels(config: TunnelConfig, count: int, seconds: float) -> Figures:
    """Tunnels in this process, all to one server, opened at once and then left alone."""
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(open_tun_dialer(config))
        before, began, busy = resident(), time.perf_counter(), cpu()
        times: list[float] = []
        dialers: list[TunDialer] = []
        closing = trio.Event()

        async def one(task_status: trio.TaskStatus[None]) -> None:
            started = time.perf_counter()
            async with open_tun_dialer(config) as dialer:
                times.append(time.perf_counter() - started)
                dialers.append(dialer)
                task_status.started()
                await closing.wait()
                with trio.fail_after(60):
                    await dialer.ping(ADDRESS)

        async with trio.open_nursery() as nursery:
            async with trio.open_nursery() as starting:
                limit = trio.CapacityLimiter(OPENING)

                async def start() -> None:
                    async with limit:
                        await nursery.start(one)

                for _ in range(count):
                    starting.start_soon(start)
            took, spent = time.perf_counter() - began, cpu() - busy
            await trio.sleep(1.0)
            after = resident()
            idle = await watch_idle(dialers, seconds)
            closing.set()
    took_each = quantiles(times)
    return {"tunnels": count, "handshakes a second": count / took, "CPU ms a handshake": spent / count * 1e3,
            "p50 ms": took_each["p50"] * 1e3, "p99 ms": took_each["p99"] * 1e3,
            "KiB a tunnel": (after - before) / count / 1024, "MiB before": before / (1 << 20), **idle}  # fmt: skip


async def measure(arguments: argparse.Namespace) -> None:
    """The client's process: ``--measure``, with the configuration from stdin; figures on stdout."""
    # Our own parent's word.
    config: TunnelConfig = pickle.loads(base64.b64decode(sys.stdin.readline()))
    await trio.to_thread.run_sync(scapy_wire.preload)
    if arguments.measure == "tunnels":
        figures = await tunnels(config, arguments.tunnels, arguments.seconds)
    elif arguments.measure == "active":
        figures = await active_streams(config, arguments.active, 10, 4096)
    else:
        figures = await idle_streams(config, arguments.idle, arguments.seconds)
    print(json.dumps(figures))


def measure_apart(what: str, arguments: argparse.Namespace) -> Figures:
    """The figures of one measurement, from a process of its own. SystemExit if that failed."""
    numbers = {name: getattr(arguments, name) for name in (*WHAT, "seconds")}
    options = [f"--{name}={number}" for name, number in numbers.items()]
    command = [sys.executable, "-m", "benchmarks.scale", "--measure", what, *options]
    with server() as config:
        done = subprocess.run(command, input=config, stdout=subprocess.PIPE, cwd=ROOT, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{what}: the client failed; see above")
    figures: Figures = json.loads(done.stdout)
    return figures


def lines(what: str, figures: Figures) -> list[str]:
    """What is printed of one measurement, bars included."""
    texts = {name: f"{value:.0f}" if value >= 1000 else f"{value:.4g}" for name, value in figures.items()}
    found = [f"{what:8} " + ", ".join(f"{name} {text}" for name, text in texts.items())]
    for name, bar in BARS.items():
        if name in figures:
            found.append(f"{'':9}{name}: bar {bar:g}, {'met' if figures[name] <= bar else 'MISSED'}")
    if not figures.get("pings out", 1) or not figures.get("pings in", 1):
        found.append(f"{'':9}too short for a keepalive: it says nothing of what is idle")
    return found


def main() -> None:
    """Parse the arguments, measure, print."""
    parser = argparse.ArgumentParser(description="Many streams, many tunnels.")
    parser.add_argument("--idle", type=int, default=10_000, help="idle streams (default 10,000)")
    parser.add_argument("--active", type=int, default=1_000, help="active streams (default 1,000)")
    parser.add_argument("--tunnels", type=int, default=200, help="tunnels at once (default 200)")
    parser.add_argument("--seconds", type=float, default=35.0, help="to watch what is idle (default 35)")
    parser.add_argument("--only", choices=WHAT)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--measure", choices=WHAT, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        trio.run(serve)
        return
    if arguments.measure:
        trio.run(measure, arguments)
        return
    results: dict[str, Any] = {}
    for what in WHAT:
        if arguments.only in (None, what):
            results[what] = measure_apart(what, arguments)
            print("\n".join(lines(what, results[what])), flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
