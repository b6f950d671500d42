"""Many streams through one tunnel, and many tunnels in one process.

``python -m benchmarks.scale [--idle N] [--active N] [--tunnels N] [--only WHAT] [--json FILE]``

The server of ``minivpn_trio.testing`` runs in a process of its own, on 127.0.0.1, so no root is needed and what is
measured is this process: its resident memory and its processor time. Every byte that an active stream gets back
is compared with what it sent. (100 streams beside the C client: ``benchmarks.end_to_end --streams 100``.)
"""

from __future__ import annotations

import argparse
import base64
import gc
import json
import os
import pickle
import resource
import statistics
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
from minivpn_trio.testing import ServerSettings, open_vpn_server
from minivpn_trio.testing.services import echo

__all__ = ["main"]

ROOT = Path(__file__).parent.parent
ECHO_PORT, HOLD_PORT = 7, 70
PAGE = os.sysconf("SC_PAGE_SIZE")
#: Streams or tunnels that are being opened at the same time.
OPENING = 50
ADDRESS = "10.8.0.1"


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
def server() -> Iterator[TunnelConfig]:
    """A server in another process; the configuration that connects to it."""
    command = [sys.executable, "-m", "benchmarks.scale", "--serve"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT, text=True) as process:
        assert process.stdout is not None
        try:
            # Our own child's word.
            config: TunnelConfig = pickle.loads(base64.b64decode(process.stdout.readline()))
            yield config
        finally:
            process.kill()


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


async def idle_streams(config: TunnelConfig, count: int, seconds: float) -> dict[str, float]:
    """Open streams that nobody uses."""
    async with open_tun_dialer(config) as dialer:
        await open_many(dialer, HOLD_PORT, 20)  # caches are warm
        before, began = resident(), time.perf_counter()
        streams = await open_many(dialer, HOLD_PORT, count)
        took = time.perf_counter() - began
        await trio.sleep(1.0)
        after, busy = resident(), cpu()
        await trio.sleep(seconds)
        idle = (cpu() - busy) / seconds
        for stream in streams:
            await stream.aclose()
        return {"streams": count, "KiB a stream": (after - before) / count / 1024, "opened a second": count / took,
                "idle CPU %": idle * 100}  # fmt: skip


async def active_streams(config: TunnelConfig, count: int, rounds: int, size: int) -> dict[str, float]:
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
        streams = await open_many(dialer, ECHO_PORT, count)
        began, busy = time.perf_counter(), cpu()
        async with trio.open_nursery() as nursery:
            for number, stream in enumerate(streams):
                nursery.start_soon(talk, stream, number)
        took, spent = time.perf_counter() - began, cpu() - busy
    times.sort()
    moved = 2 * count * rounds * size
    return {"streams": count, "Mbit/s each way": moved * 4 / took / 1e6, "messages a second": count * rounds / took,
            "p50 ms": statistics.median(times) * 1e3, "p99 ms": times[-(-len(times) * 99 // 100) - 1] * 1e3,
            "CPU us a message": spent / count / rounds * 1e6}  # fmt: skip


async def tunnels(config: TunnelConfig, count: int, seconds: float) -> dict[str, float]:
    """Tunnels in this process, all to one server, opened at once and then left alone."""
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(open_tun_dialer(config))
        before, began, busy = resident(), time.perf_counter(), cpu()
        times: list[float] = []
        closing = trio.Event()

        async def one(task_status: trio.TaskStatus[None]) -> None:
            started = time.perf_counter()
            async with open_tun_dialer(config) as dialer:
                times.append(time.perf_counter() - started)
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
            after, busy = resident(), cpu()
            await trio.sleep(seconds)
            idle = (cpu() - busy) / seconds
            closing.set()
    times.sort()
    return {"tunnels": count, "handshakes a second": count / took, "CPU ms a handshake": spent / count * 1e3,
            "p50 ms": statistics.median(times) * 1e3, "p99 ms": times[-(-len(times) * 99 // 100) - 1] * 1e3,
            "KiB a tunnel": (after - before) / count / 1024, "idle CPU %": idle * 100}  # fmt: skip


async def measure(arguments: argparse.Namespace) -> dict[str, dict[str, float]]:
    """All that was asked for, each with a server of its own."""
    results: dict[str, dict[str, float]] = {}
    await trio.to_thread.run_sync(scapy_wire.preload)
    for what in ("tunnels", "active", "idle"):
        if arguments.only not in (None, what):
            continue
        with server() as config:
            if what == "tunnels":
                results[what] = await tunnels(config, arguments.tunnels, arguments.seconds)
            elif what == "active":
                results[what] = await active_streams(config, arguments.active, 10, 4096)
            else:
                results[what] = await idle_streams(config, arguments.idle, arguments.seconds)
        print(f"{what:8} " + ", ".join(f"{name} {value:.4g}" for name, value in results[what].items()), flush=True)
    return results


def main() -> None:
    """Parse the arguments, measure, print."""
    parser = argparse.ArgumentParser(description="Many streams, many tunnels.")
    parser.add_argument("--idle", type=int, default=10_000, help="idle streams (default 10,000)")
    parser.add_argument("--active", type=int, default=1_000, help="active streams (default 1,000)")
    parser.add_argument("--tunnels", type=int, default=200, help="tunnels at once (default 200)")
    parser.add_argument("--seconds", type=float, default=5.0, help="to watch what is idle (default 5)")
    parser.add_argument("--only", choices=("idle", "active", "tunnels"))
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        trio.run(serve)
        return
    results: dict[str, Any] = trio.run(measure, arguments)
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
