"""One end of a measured transfer, as a process that takes orders.

``python -m benchmarks.traffic plain [CONGESTION]`` uses the kernel's TCP, as a program beside the C client does;
``python -m benchmarks.traffic ours PROFILE [CONGESTION]`` uses minivpn_trio. Both read one JSON order a line from
stdin and write one JSON answer a line: seconds, bytes as counted at the receiving end, and processor seconds spent.

==============  ===========================================  ============================================
``do``          other fields                                 what
==============  ===========================================  ============================================
``download``    ``host``, ``bytes``, ``streams`` (1)         so many streams at once, ``bytes`` each
``upload``      the same                                     the other way
``echo``        ``host``, ``count``, ``bytes`` (64 or so),   round trips of UDP datagrams, one after the
                ``load`` (0)                                 other; beside a download of ``load`` bytes
``connect``     nothing                                      the tunnel down if it was up, and up again
==============  ===========================================  ============================================

The clock runs from before the TCP connection is opened until the last byte is here (download) or
the receiver's count of all bytes is here (upload).
"""

from __future__ import annotations

import gc
import json
import resource
import socket
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

__all__ = ["main"]

HTTP_PORT, DISCARD_PORT, ECHO_PORT = 80, 9, 7
#: What an application that cares about throughput hands over at once.
CHUNK = bytes(range(256)) * 1024
_READ = 1 << 18
#: Of the kernel's TCP; empty: the machine's default.
CONGESTION = "".join(sys.argv[2:3]) if sys.argv[1:2] == ["plain"] else ""
#: Between two echoes beside a bulk transfer, seconds.
ECHO_PAUSE = 0.005


def _cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def _request(host: str, size: int) -> bytes:
    return f"GET /bytes/{size} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode()


def _body_start(head: bytes) -> int:
    """Where the body begins in the first bytes of a response; -1: further on."""
    end = head.find(b"\r\n\r\n")
    return -1 if end < 0 else end + 4


def plain_download(host: str, size: int) -> int:
    """GET ``size`` bytes by a blocking socket; the number that came."""
    with socket.create_connection((host, HTTP_PORT), 30) as sock:
        sock.sendall(_request(host, size))
        head = b""
        while (start := _body_start(head)) < 0:
            head += sock.recv(_READ)
        received = len(head) - start
        buffer = bytearray(_READ)
        while received < size and (count := sock.recv_into(buffer)):
            received += count
    return received


def plain_upload(host: str, size: int) -> int:
    """Send ``size`` bytes to the discard service by a blocking socket; its count."""
    view = memoryview(CHUNK)
    with socket.create_connection((host, DISCARD_PORT), 30) as sock:
        if CONGESTION:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, CONGESTION.encode())
        left = size
        while left > 0:
            left -= sock.send(view[: min(left, len(view))])
        sock.shutdown(socket.SHUT_WR)
        return int(sock.recv(100))


def plain_echo(host: str, count: int, size: int, load: int) -> list[float]:
    """Round trips, seconds. A datagram that is lost (no answer within a second) counts as a second."""
    times: list[float] = []
    with ThreadPoolExecutor(1) as pool, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        bulk = pool.submit(plain_download, host, load) if load else None
        sock.connect((host, ECHO_PORT))
        sock.settimeout(1.0)
        for number in range(count):
            if bulk is not None and bulk.done():
                break
            message = number.to_bytes(4, "big") * (size // 4)
            start = time.perf_counter()
            sock.send(message)
            try:
                while sock.recv(2048) != message:
                    pass
            except TimeoutError:
                pass
            times.append(time.perf_counter() - start)
            if load:
                time.sleep(ECHO_PAUSE)
        assert bulk is None or bulk.result() == load
    return times


def run_plain() -> None:
    """Take orders, with the kernel's TCP."""
    transfers = {"download": plain_download, "upload": plain_upload}
    for line in sys.stdin:
        order = json.loads(line)
        cpu, start = _cpu(), time.perf_counter()
        if order["do"] == "echo":
            times = plain_echo(order["host"], order["count"], order["bytes"], order.get("load", 0))
            _answer(times=times, cpu=_cpu() - cpu)
            continue
        streams = order.get("streams", 1)
        with ThreadPoolExecutor(streams) as pool:
            one = partial(transfers[order["do"]], order["host"])
            count = sum(pool.map(one, [order["bytes"]] * streams))
        _answer(seconds=time.perf_counter() - start, bytes=count, cpu=_cpu() - cpu)


def _answer(**answer: Any) -> None:
    print(json.dumps(answer), flush=True)


async def run_ours(profile: str, congestion: str = "") -> None:
    """Take orders, through minivpn_trio."""
    import trio

    from minivpn_trio import open_tun_dialer
    from minivpn_trio.netstack import scapy_wire

    async def orders() -> AsyncIterator[dict[str, Any]]:
        while line := await trio.to_thread.run_sync(sys.stdin.readline):
            yield json.loads(line)

    async def download(host: str, size: int) -> int:
        stream = await dialer.open_tcp_stream(host, HTTP_PORT)
        async with stream:
            await stream.send_all(_request(host, size))
            head = b""
            while (start := _body_start(head)) < 0:
                head += await stream.receive_some(_READ)
            received = len(head) - start
            while received < size and (data := await stream.receive_some(_READ)):
                received += len(data)
        return received

    async def upload(host: str, size: int) -> int:
        stream = await dialer.open_tcp_stream(host, DISCARD_PORT)
        async with stream:
            left = size
            while left > 0:
                piece = min(left, len(CHUNK))
                await stream.send_all(CHUNK if piece == len(CHUNK) else CHUNK[:piece])
                left -= piece
            await stream.send_eof()
            return int(await stream.receive_some(100))

    async def echo(host: str, count: int, size: int, load: int) -> list[float]:
        times: list[float] = []
        done = 0
        async with trio.open_nursery() as nursery:

            async def bulk() -> None:
                nonlocal done
                assert await download(host, load) == load
                done = load

            if load:
                nursery.start_soon(bulk)
            with dialer.open_udp_socket() as sock:
                await sock.connect((host, ECHO_PORT))
                for number in range(count):
                    if load and done:
                        break
                    message = number.to_bytes(4, "big") * (size // 4)
                    start = time.perf_counter()
                    await sock.send(message)
                    with trio.move_on_after(1.0):
                        while await sock.recv(2048) != message:
                            pass
                    times.append(time.perf_counter() - start)
                    if load:
                        await trio.sleep(ECHO_PAUSE)
        return times

    async def several(transfer: Callable[[str, int], Awaitable[int]], host: str, size: int, streams: int) -> int:
        counts: list[int] = []

        async def one() -> None:
            counts.append(await transfer(host, size))

        async with trio.open_nursery() as nursery:
            for _ in range(streams):
                nursery.start_soon(one)
        return sum(counts)

    # Imports are over before anything is timed, and what they made is not walked through by a collection in the midst
    # of a connection: what an application does that minds pauses.
    scapy_wire.preload()
    gc.collect()
    gc.freeze()
    transfers = {"download": download, "upload": upload}
    async with AsyncExitStack() as stack:
        async for order in orders():
            cpu, start = _cpu(), time.perf_counter()
            if order["do"] == "connect":
                await stack.aclose()
                start = time.perf_counter()
                options: dict[str, Any] = {"congestion": congestion} if congestion else {}
                dialer = await stack.enter_async_context(open_tun_dialer(profile, **options))
                _answer(seconds=time.perf_counter() - start, cpu=_cpu() - cpu)
            elif order["do"] == "echo":
                times = await echo(order["host"], order["count"], order["bytes"], order.get("load", 0))
                _answer(times=times, cpu=_cpu() - cpu)
            else:
                before = dialer.stack.stats().tcp_retransmissions
                count = await several(transfers[order["do"]], order["host"], order["bytes"], order.get("streams", 1))
                _answer(seconds=time.perf_counter() - start, bytes=count, cpu=_cpu() - cpu,
                        retransmissions=dialer.stack.stats().tcp_retransmissions - before)  # fmt: skip


def main() -> None:
    """Entry: ``plain``, or ``ours PROFILE``."""
    if sys.argv[1:2] == ["plain"]:
        run_plain()
    else:
        import trio

        trio.run(run_ours, sys.argv[2], "".join(sys.argv[3:4]))


if __name__ == "__main__":
    main()
