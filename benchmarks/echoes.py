"""Round trips of small UDP datagrams, alone and beside a download: a process that takes orders.

==============================  ====================================================================================
``ours PROFILE``                a Trio program over minivpn_trio
``trio``                        the same Trio program over the kernel's sockets, as somebody beside the C client
``blocking``                    blocking sockets, as little as can be between the datagram and the clock
==============================  ====================================================================================

Orders, a line of JSON each, and their answers:

* ``connect`` (ours alone): the tunnel down if it was up, and up again: ``seconds``.
* ``echo``, with ``host``, ``count`` and ``bytes``: ``times``, seconds each.
* ``busy echo`` (Trio's), with ``load`` besides: the same beside a download of ``load`` bytes in the same process, for
  as long as that takes; ``bulk`` is its rate in Mbit/s.
* ``download`` (blocking), with ``host`` and ``load``: ``bulk``. The echo beside it is another process's, which is
  told by ``echo`` with ``until`` "told": it goes on until the next line of input, whatever that is.

A datagram without an answer within a second counts as a second. Bytes of a download are counted where they arrive.
"""

from __future__ import annotations

import gc
import io
import json
import select
import socket
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import trio

__all__ = ["main"]

HTTP_PORT, ECHO_PORT = 80, 7
_READ = 1 << 18
#: Between two echoes beside a bulk transfer, seconds; and how long one is waited for.
PAUSE, LOST = 0.005, 1.0

Open = Callable[[str, int], Awaitable[trio.abc.Stream]]


def _answer(**answer: Any) -> None:
    print(json.dumps(answer), flush=True)


def request(host: str, size: int) -> bytes:
    """What a lab's web server answers by ``size`` bytes."""
    return f"GET /bytes/{size} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode()


def body_size(head: bytes) -> int | None:
    """How much of the body is in the first bytes of an answer; None: the head goes on."""
    end = head.find(b"\r\n\r\n")
    return None if end < 0 else len(head) - end - 4


def rate(size: int, received: int, began: float) -> float:
    """Mbit/s of a download that began at ``began`` and is over. SystemExit if bytes are missing."""
    if received != size:
        raise SystemExit(f"{received} of {size} bytes arrived")
    return size * 8e-6 / (time.perf_counter() - began)


def message(number: int, size: int) -> bytes:
    """The datagram of this number: an answer that belongs to an earlier one shows."""
    return number.to_bytes(4, "big") * (size // 4)


# Blocking sockets


def blocking_download(host: str, size: int) -> float:
    """Mbit/s."""
    began = time.perf_counter()
    with socket.create_connection((host, HTTP_PORT), 30) as sock:
        sock.sendall(request(host, size))
        head = b""
        while (received := body_size(head)) is None:
            head += sock.recv(_READ)
        buffer = bytearray(_READ)
        while received < size and (count := sock.recv_into(buffer)):
            received += count
    return rate(size, received, began)


def blocking_echo(host: str, count: int, size: int, told: Callable[[], bool] | None) -> list[float]:
    """Round trips: ``count`` of them, or with pauses until ``told`` is true."""
    times: list[float] = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect((host, ECHO_PORT))
        sock.settimeout(LOST)
        for number in range(count):
            if told is not None and told():
                break
            expected = message(number, size)
            began = time.perf_counter()
            sock.send(expected)
            try:
                while sock.recv(2048) != expected:
                    pass
            except TimeoutError:
                pass
            times.append(time.perf_counter() - began)
            if told is not None:
                time.sleep(PAUSE)
    return times


def run_blocking() -> None:
    """Take orders."""
    # Without a buffer, in which a line could wait that ``select`` does not see.
    orders = io.FileIO(0, closefd=False)

    def told() -> bool:
        return bool(select.select([orders], [], [], 0)[0])

    while line := orders.readline():
        order = json.loads(line)
        if order["do"] == "download":
            _answer(bulk=blocking_download(order["host"], order["load"]))
        elif order["do"] == "echo":
            until_told = order.get("until") == "told"
            count = sys.maxsize if until_told else order["count"]
            _answer(times=blocking_echo(order["host"], count, order["bytes"], told if until_told else None))


# Trio, over either kind of socket


async def download(open_stream: Open, host: str, size: int) -> float:
    """Mbit/s."""
    began = time.perf_counter()
    stream = await open_stream(host, HTTP_PORT)
    async with stream:
        await stream.send_all(request(host, size))
        head = b""
        while (received := body_size(head)) is None:
            head += await stream.receive_some(_READ)
        while received < size and (data := await stream.receive_some(_READ)):
            received += len(data)
    return rate(size, received, began)


async def echo(sock: Any, host: str, count: int, size: int, over: Callable[[], bool] | None) -> list[float]:
    """Round trips over ``sock``, Trio's or ours: ``count`` of them, or with pauses until ``over`` is true."""
    times: list[float] = []
    await sock.connect((host, ECHO_PORT))
    for number in range(count):
        if over is not None and over():
            break
        expected = message(number, size)
        began = time.perf_counter()
        await sock.send(expected)
        with trio.move_on_after(LOST):
            while await sock.recv(2048) != expected:
                pass
        times.append(time.perf_counter() - began)
        if over is not None:
            await trio.sleep(PAUSE)
    return times


async def busy_echo(open_stream: Open, sock: Any, host: str, size: int, load: int) -> tuple[list[float], float]:
    """Round trips beside a download of ``load`` bytes, and its rate in Mbit/s."""
    bulk = 0.0

    async def transfer() -> None:
        nonlocal bulk
        bulk = await download(open_stream, host, load)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(transfer)
        times = await echo(sock, host, sys.maxsize, size, lambda: bulk > 0)
    return times, bulk


async def run_trio(profile: str | None) -> None:
    """Take orders: through ``profile``'s tunnel, or where that is None through the kernel."""

    async def orders() -> AsyncIterator[dict[str, Any]]:
        while line := await trio.to_thread.run_sync(sys.stdin.readline):
            yield json.loads(line)

    open_stream: Open = trio.open_tcp_stream
    open_socket: Callable[[], Any] = lambda: trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM)  # noqa: E731
    if profile is not None:
        from minivpn_trio import open_tun_dialer
        from minivpn_trio.netstack import scapy_wire

        scapy_wire.preload()
    # What imports made is not walked through in the midst of a round trip, here or there.
    gc.collect()
    gc.freeze()
    async with AsyncExitStack() as stack:
        async for order in orders():
            if order["do"] == "connect":
                assert profile is not None
                await stack.aclose()
                began = time.perf_counter()
                dialer = await stack.enter_async_context(open_tun_dialer(profile))
                _answer(seconds=time.perf_counter() - began)
                open_stream, open_socket = dialer.open_tcp_stream, dialer.open_udp_socket
                continue
            with open_socket() as sock:
                if order["do"] == "busy echo":
                    times, bulk = await busy_echo(open_stream, sock, order["host"], order["bytes"], order["load"])
                    _answer(times=times, bulk=bulk)
                else:
                    _answer(times=await echo(sock, order["host"], order["count"], order["bytes"], None))


def main() -> None:
    """Entry: ``ours PROFILE``, ``trio`` or ``blocking``."""
    if sys.argv[1:] == ["blocking"]:
        run_blocking()
    else:
        trio.run(run_trio, sys.argv[2] if sys.argv[1] == "ours" else None)


if __name__ == "__main__":
    main()
