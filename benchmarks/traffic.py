"""One end of a measured transfer, as a process that takes orders.

``python -m benchmarks.traffic plain [CONGESTION]`` uses the kernel's TCP, as a program beside the C client does
(kernel_sockets.py); ``python -m benchmarks.traffic ours PROFILE [CONGESTION [numpy]]`` uses minivpn_trio. Both read
one JSON order a line from stdin and write one JSON answer a line: seconds, bytes as counted at the receiving end, and
processor seconds spent.

==============  ===========================================  ============================================
``do``          other fields                                 what
==============  ===========================================  ============================================
``download``    ``host``, ``bytes``, ``streams`` (1)         so many streams at once, ``bytes`` each
``upload``      the same                                     the other way
``check``       nothing                                      compare what the last transfer moved, close
                                                             its streams; ``checked``: bytes compared
``connect``     nothing                                      the tunnel down if it was up, and up again
==============  ===========================================  ============================================

The clock runs from before the TCP connection is opened until the last byte is here (download) or
the receiver's count of all bytes is here (upload). Contents are compared by ``check``, which nobody times and which
no transfer may leave out: other bytes than were sent end the process with ``Corrupted``.
"""

from __future__ import annotations

import gc
import json
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .kernel_sockets import Transfer
from .payload import (
    HTTP_PORT,
    KEEP_PORT,
    PATTERN,
    QUESTION,
    READ,
    Memory,
    body_start,
    check_body,
    check_crc,
    request,
    upload_head,
)  # fmt: skip

if TYPE_CHECKING:
    import trio

    from minivpn_trio import TunDialer

__all__ = ["main"]



def wall_and_cpu() -> tuple[float, float]:
    """Seconds: the clock's, and the processor's that this process has used."""
    return time.perf_counter(), time.process_time()


def _answer(**answer: Any) -> None:
    print(json.dumps(answer), flush=True)


def _answer_since(start: tuple[float, float], **answer: Any) -> None:
    seconds, cpu = (now - then for now, then in zip(wall_and_cpu(), start, strict=True))
    _answer(seconds=seconds, cpu=cpu, **answer)


# --- the kernel's TCP ---


def run_plain(congestion: str = "") -> None:
    """Take orders, with the kernel's TCP."""
    memory = Memory()
    transfer: Transfer | None = None
    for line in sys.stdin:
        order = json.loads(line)
        if (order["do"] == "check") != (transfer is not None):
            raise SystemExit(f"{order['do']}: a transfer is checked once, before anything else")
        if transfer is not None:
            with transfer:
                checked = transfer.check()
            transfer = None
            _answer(checked=checked)
        else:
            transfer = Transfer(
                order["do"], order["host"], order["bytes"], order.get("streams", 1),
                congestion=congestion, memory=memory,
            )  # fmt: skip
            start = wall_and_cpu()
            count = transfer.run()
            _answer_since(start, bytes=count)


# --- ours ---


@dataclass
class Flow:
    """A transfer of ours: its stream while it is open, how many bytes arrived, and those of a download."""

    do: str
    size: int
    memory: bytearray
    stream: trio.SocketStream | None = None
    arrived: int = 0

    async def check(self) -> None:
        """Compare what arrived, and close. Raises Corrupted."""
        assert self.stream is not None
        async with self.stream as stream:
            if self.do == "download":
                check_body([memoryview(self.memory)[: self.arrived]], self.size)
                return
            await stream.send_all(QUESTION)
            answer = b""
            while data := await stream.receive_some(READ):
                answer += data
            check_crc(answer, self.size)


class Ours:
    """Transfers through a tunnel that is up: ``prepare``, ``transfer``, ``check``."""

    def __init__(self, dialer: TunDialer) -> None:
        self.dialer = dialer
        #: Under way, or to be checked.
        self.flows: list[Flow] = []
        self._memory = Memory()

    def prepare(self, do: str, size: int, streams: int) -> None:
        """What needs no clock: so many flows of ``size`` bytes each."""
        download = do == "download"
        self.flows = [Flow(do, size, self._memory.take(size) if download else bytearray()) for _ in range(streams)]

    async def download(self, flow: Flow, host: str) -> None:
        """GET its bytes and keep them."""
        size = flow.size
        flow.stream = stream = await self.dialer.open_tcp_stream(host, HTTP_PORT)
        await stream.send_all(request(host, size))
        head = b""
        while (start := body_start(head)) < 0:
            data = await stream.receive_some(READ)
            if not data:
                return
            head += data
        view = memoryview(flow.memory)
        received = len(head) - start
        view[:received] = head[start:]
        while received < size and (data := await stream.receive_some(READ)):
            end = received + len(data)
            # More than there should be does not fit, which is a ValueError.
            view[received:end] = data
            received = end
        flow.arrived = received

    async def upload(self, flow: Flow, host: str) -> None:
        """Send its bytes to the service that keeps them, and read its count."""
        flow.stream = stream = await self.dialer.open_tcp_stream(host, KEEP_PORT)
        await stream.send_all(upload_head(flow.size))
        left = flow.size
        while left > 0:
            piece = min(left, len(PATTERN))
            await stream.send_all(PATTERN if piece == len(PATTERN) else PATTERN[:piece])
            left -= piece
        answer = b""
        while not answer.endswith(b"\n") and (data := await stream.receive_some(100)):
            answer += data
        flow.arrived = int(answer)

    async def transfer(self, host: str) -> int:
        """All that was prepared, at once; bytes that arrived."""
        import trio

        transfers = {"download": self.download, "upload": self.upload}
        async with trio.open_nursery() as nursery:
            for flow in self.flows:
                nursery.start_soon(transfers[flow.do], flow, host)
        return sum(flow.arrived for flow in self.flows)

    async def check(self) -> int:
        """Compare; bytes compared. Raises Corrupted."""
        flows, self.flows = self.flows, []
        for flow in flows:
            await flow.check()
            self._memory.give_back(flow.memory)
        return sum(flow.size for flow in flows)


async def run_ours(profile: str, congestion: str = "", numpy: bool = False) -> None:
    """Take orders, through minivpn_trio."""
    import trio

    from minivpn_trio import open_tun_dialer
    from minivpn_trio.netstack import scapy_wire, sums

    async def orders() -> AsyncIterator[dict[str, Any]]:
        while line := await trio.to_thread.run_sync(sys.stdin.readline):
            yield json.loads(line)

    # Imports are over before anything is timed, and what they made is not walked through by a collection in the midst
    # of a connection: what an application does that minds pauses.
    scapy_wire.preload()
    if not numpy:
        # Installed or not.
        sys.modules["numpy"] = None  # type: ignore[assignment]
    sums.load()
    gc.collect()
    gc.freeze()
    ours: Ours | None = None
    async with AsyncExitStack() as stack:
        async for order in orders():
            unchecked = ours is not None and bool(ours.flows)
            if (order["do"] == "check") != unchecked:
                raise SystemExit(f"{order['do']}: a transfer is checked once, before anything else")
            if order["do"] == "connect":
                await stack.aclose()
                start = wall_and_cpu()
                options: dict[str, Any] = {"congestion": congestion} if congestion else {}
                dialer = await stack.enter_async_context(open_tun_dialer(profile, **options))
                _answer_since(start)
                ours = Ours(dialer)
                continue
            assert ours is not None
            if order["do"] == "check":
                _answer(checked=await ours.check())
            else:
                before = ours.dialer.stack.stats().tcp_retransmissions
                ours.prepare(order["do"], order["bytes"], order.get("streams", 1))
                start = wall_and_cpu()
                count = await ours.transfer(order["host"])
                _answer_since(start, bytes=count,
                              retransmissions=ours.dialer.stack.stats().tcp_retransmissions - before)  # fmt: skip


def main() -> None:
    """Entry: ``plain``, or ``ours PROFILE``."""
    if sys.argv[1:2] == ["plain"]:
        run_plain(*sys.argv[2:3])
    else:
        import trio

        trio.run(run_ours, sys.argv[2], "".join(sys.argv[3:4]), sys.argv[4:5] == ["numpy"])


if __name__ == "__main__":
    main()
