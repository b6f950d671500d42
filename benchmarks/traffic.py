"""One end of a measured transfer, as a process that takes orders.

``python -m benchmarks.traffic plain`` uses the kernel's TCP, as a program beside the C client does;
``python -m benchmarks.traffic ours PROFILE`` uses minivpn_trio. Both read one JSON order a line from
stdin (``{"do": "download", "host": ..., "bytes": N}``, ``upload``, ``connect``) and write one JSON
answer a line: seconds, bytes as counted at the receiving end, and processor seconds spent.

The clock runs from before the TCP connection is opened until the last byte is here (download) or
the receiver's count of all bytes is here (upload).
"""

from __future__ import annotations

import json
import resource
import socket
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

__all__ = ["main"]

HTTP_PORT, DISCARD_PORT = 80, 9
#: What an application that cares about throughput hands over at once.
CHUNK = bytes(range(256)) * 1024
_READ = 1 << 18


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
        left = size
        while left > 0:
            left -= sock.send(view[: min(left, len(view))])
        sock.shutdown(socket.SHUT_WR)
        return int(sock.recv(100))


def run_plain() -> None:
    """Take orders, with the kernel's TCP."""
    transfers = {"download": plain_download, "upload": plain_upload}
    for line in sys.stdin:
        order = json.loads(line)
        cpu, start = _cpu(), time.perf_counter()
        count = transfers[order["do"]](order["host"], order["bytes"])
        _answer(seconds=time.perf_counter() - start, bytes=count, cpu=_cpu() - cpu)


def _answer(**answer: Any) -> None:
    print(json.dumps(answer), flush=True)


async def run_ours(profile: str) -> None:
    """Take orders, through minivpn_trio."""
    import trio

    from minivpn_trio import open_tun_dialer

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

    transfers = {"download": download, "upload": upload}
    async with AsyncExitStack() as stack:
        async for order in orders():
            cpu, start = _cpu(), time.perf_counter()
            if order["do"] == "connect":
                await stack.aclose()
                start = time.perf_counter()
                dialer = await stack.enter_async_context(open_tun_dialer(profile))
                _answer(seconds=time.perf_counter() - start, cpu=_cpu() - cpu)
            else:
                count = await transfers[order["do"]](order["host"], order["bytes"])
                _answer(seconds=time.perf_counter() - start, bytes=count, cpu=_cpu() - cpu)


def main() -> None:
    """Entry: ``plain``, or ``ours PROFILE``."""
    if sys.argv[1:2] == ["plain"]:
        run_plain()
    else:
        import trio

        trio.run(run_ours, sys.argv[2])


if __name__ == "__main__":
    main()
