"""A connected UDP socket, by bursts.

``UDPTransport`` drains its socket with plain non-blocking calls after one
``wait_readable`` (a trio ``recv`` costs five times a drained one), and hands
runs of equal-sized datagrams to the kernel in one call by UDP generic
segmentation offload where the kernel has it. Whether the host coalesces datagrams
on the way in (UDP_GRO) is tried out now and then, and kept while it does.

A datagram that is too long for the path goes in fragments, which the kernel
makes, as openvpn's go unless ``mtu-disc`` is set: it arrives, if slowly. What the
kernel knows of the path is looked at now and then (``PathWatcher``), so that
the tunnel can make its packets smaller.
"""

from __future__ import annotations

import errno
import socket
import struct
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import repeat

import trio

from ..errors import DropReason
from ..items import Burst
from ..stats import TransportStats
from .transport import MAX_BURST, RECEIVE_SIZE

__all__ = ["UDPTransport", "segmentation", "train_end"]

#: linux/udp.h; the socket module has no names for these.
SOL_UDP = 17
UDP_SEGMENT = 103
UDP_GRO = 104
#: The kernel takes at most 64 segments (UDP_MAX_SEGMENTS) and 65,507 bytes in one call.
MAX_TRAIN_SEGMENTS = 44
MAX_TRAIN_BYTES = 65507
#: What the kernel says of a socket whose peer, or path, is momentarily not there. UDP loses
#: packets anyway: after the handshake these are losses, not the end.
TRANSIENT_ERRNOS = frozenset(
    {errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ENETDOWN, errno.EHOSTDOWN, errno.EPERM}
)
#: Datagrams of a trial, and of each later look, of whether the host coalesces; and between two trials. Asking for it
#: costs 0.75 us a datagram where it does not, and saves 0.9 where it does, so the trials cost nothing that is seen.
COALESCING_TRIAL = 1024
COALESCING_PAUSE = 1 << 18
#: The ancillary message with the size of the datagrams that were coalesced, an int.
COALESCED_SPACE = socket.CMSG_SPACE(4) if hasattr(socket, "CMSG_SPACE") else 0
#: IP_MTU and IPV6_MTU, for which not every Python's socket module has names: what the kernel knows of a connected
#: socket's path, bytes of IP packet. And after how many datagrams sent to look.
PATH_MTU = {socket.AF_INET: (socket.IPPROTO_IP, 14), socket.AF_INET6: (socket.IPPROTO_IPV6, 24)}
PATH_LOOK = 64
#: IP and UDP around a datagram's payload.
HEADERS = {socket.AF_INET: 28, socket.AF_INET6: 48}
#: How many errors in a row a drain swallows before it yields to the scheduler.
MAX_ERRORS_IN_A_ROW = 16


class UDPTransport:
    """A connected UDP socket. Owns it. The kernel drops datagrams from other sources."""

    is_stream = False

    packets_in: int
    packets_out: int
    bytes_in: int
    bytes_out: int
    bursts_in: int
    bursts_out: int

    def __init__(self, sock: socket.socket, peer: str | None = None) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._peer = peer
        self._established = False
        self._segmentation = hasattr(socket, "SOCK_NONBLOCK")
        #: Called when ``path_mtu`` changed.
        self.on_path_mtu: Callable[[], None] | None = None
        self._family = sock.family
        self._path_mtu: int | None = None
        #: Longest datagram that goes whole, as far as is known; when, in ``packets_out``, to look again.
        self._longest = RECEIVE_SIZE
        self._path_look_at = 0
        #: Whether the kernel may hand over several datagrams as one; until when, in ``packets_in``, that holds;
        #: how many came that way since.
        self._coalescing = False
        self._look_at = 0
        self._coalesced = 0
        #: Received, and more than a burst holds.
        self._unread: Burst = []
        self.packets_in = self.packets_out = self.bytes_in = self.bytes_out = 0
        self.bursts_in = self.bursts_out = 0
        self.drops: Counter[DropReason] = Counter()

    @property
    def peer(self) -> str | None:
        """The server's numeric address."""
        return self._peer

    def established(self) -> None:
        """From now on an ICMP error (ECONNREFUSED and such) is a lost packet, as in openvpn."""
        self._established = True

    async def receive(self) -> Burst:
        """1 to 64 datagrams. Cancel-safe: datagrams are taken only after the last checkpoint.

        Raises OSError: before ``established()``, what the network said of our packets.
        """
        while True:
            if self._unread:
                await trio.lowlevel.checkpoint()
                burst, self._unread = self._unread[:MAX_BURST], self._unread[MAX_BURST:]
            else:
                await trio.lowlevel.wait_readable(self._sock)
                burst = self._drain()
                if len(burst) > MAX_BURST:
                    burst, self._unread = burst[:MAX_BURST], burst[MAX_BURST:]
            if burst:
                self.packets_in += len(burst)
                self.bursts_in += 1
                self.bytes_in += sum(map(len, burst))
                # Only a burst can have been coalesced, so only one says something about the host. And what was
                # coalesced must be read as such, so the queue has to be empty.
                if self.packets_in >= self._look_at and 1 < len(burst) < MAX_BURST:
                    self._try_coalescing()
                return burst

    def _try_coalescing(self) -> None:
        """Begin a trial of UDP_GRO; or end it, or go on, by what the last one brought."""
        wanted = not self._coalescing or 2 * self._coalesced >= COALESCING_TRIAL
        try:
            self._sock.setsockopt(SOL_UDP, UDP_GRO, wanted)
        except OSError:
            self._look_at = sys.maxsize  # not a kernel that knows it
            return
        self._coalescing = wanted
        self._look_at = self.packets_in + (COALESCING_TRIAL if wanted else COALESCING_PAUSE)
        self._coalesced = 0

    def _receive_coalesced(self) -> list[bytes]:
        """The datagrams that the kernel had joined, or one that came alone."""
        data, ancillary, _, _ = self._sock.recvmsg(RECEIVE_SIZE, COALESCED_SPACE)
        step = int.from_bytes(ancillary[0][2][:4], sys.byteorder) if ancillary else 0
        if not 0 < step < len(data):
            return [data]
        datagrams = [data[start : start + step] for start in range(0, len(data), step)]
        self._coalesced += len(datagrams)
        return datagrams

    def _drain(self) -> Burst:
        """Read until the socket is empty or 64 datagrams are there; those that the kernel had joined may be more."""
        burst: Burst = []
        errors = 0
        try:
            while len(burst) < MAX_BURST and errors < MAX_ERRORS_IN_A_ROW:
                try:
                    if self._coalescing:
                        burst += self._receive_coalesced()
                    else:
                        # A loop that runs in C. What it received before it met an error is in the list.
                        burst.extend(map(self._sock.recv, repeat(RECEIVE_SIZE, MAX_BURST - len(burst))))
                except BlockingIOError:
                    break
                except OSError as exc:
                    if not self._established or exc.errno not in TRANSIENT_ERRNOS:
                        raise
                    self.drops[DropReason.NOT_READY] += 1
                    errors += 1
        except OSError:
            if not burst:
                raise
            # What came before the error comes first; the socket keeps no memory of the error,
            # but the next packet that is refused brings another.
        return burst

    async def send(self, burst: Burst) -> None:
        """Send every datagram, runs of equal sizes in one system call. Checkpoints only when the
        kernel's buffer is full; the caller's channel checkpoints for it.

        Cancelled: some of the burst may have been sent. Raises OSError as ``receive`` does.
        """
        while (sent := self.send_some(burst)) < len(burst):
            burst = burst[sent:]
            await trio.lowlevel.wait_writable(self._sock)

    def send_some(self, burst: Burst) -> int:
        """Send what the kernel takes at once; how many datagrams that was, those that were lost included."""
        sent = self._send_from(burst, 0)
        if sent:
            self.bursts_out += 1
        return sent

    def send_nowait(self, burst: Burst) -> None:
        """Send what the kernel takes at once."""
        try:
            self._send_from(burst, 0)
        except OSError:
            self.drops[DropReason.QUEUE_FULL] += len(burst)

    def _send_from(self, burst: Sequence[bytes], start: int) -> int:
        """Send from index ``start`` on; the index of the first datagram that found no room."""
        total = len(burst)
        if self.packets_out >= self._path_look_at:
            self._look_at_path()
        while start < total:
            # The kernel cuts trains, or fragments single datagrams, not both.
            train = self._segmentation and len(burst[start]) <= self._longest
            end = train_end(burst, start) if train else start + 1
            try:
                if end - start > 1:
                    sent = self._sock.sendmsg(burst[start:end], [segmentation(len(burst[start]))])
                else:
                    sent = self._sock.send(burst[start])
            except BlockingIOError:
                return start
            except OSError as exc:
                if end - start > 1 and exc.errno in (errno.EINVAL, errno.EIO, errno.EMSGSIZE, errno.ENOPROTOOPT):
                    # The path's MTU: one by one, those that are as long. Or the kernel or the device cannot do it.
                    self._look_at_path()
                    self._segmentation = len(burst[start]) > self._longest
                    continue
                if exc.errno == errno.EMSGSIZE:
                    self._look_at_path()
                self._lost(exc, end - start)
            else:
                self.packets_out += end - start
                self.bytes_out += sent
            start = end
        return total

    @property
    def path_mtu(self) -> int | None:
        """What the kernel knows of the path, bytes of IP packet; None: nothing."""
        return self._path_mtu

    def _look_at_path(self) -> None:
        """Ask the kernel, which hears from routers, what the path takes."""
        self._path_look_at = self.packets_out + PATH_LOOK
        family = self._family
        try:
            mtu = self._sock.getsockopt(*PATH_MTU[family]) if sys.platform == "linux" else 0
        except (OSError, KeyError):
            mtu = 0
        if mtu and mtu != self._path_mtu:
            self._path_mtu = mtu
            self._longest = mtu - HEADERS[family]
            if self.on_path_mtu is not None:
                self.on_path_mtu()

    def _lost(self, exc: OSError, count: int) -> None:
        if exc.errno == errno.EMSGSIZE:
            self.drops[DropReason.TOO_LONG] += count
        elif exc.errno == errno.ENOBUFS:
            self.drops[DropReason.QUEUE_FULL] += count
        elif self._established and exc.errno in TRANSIENT_ERRNOS:
            self.drops[DropReason.NOT_READY] += count
        else:
            raise exc

    def stats(self) -> TransportStats:
        """Counters so far."""
        return TransportStats(
            packets_in=self.packets_in,
            packets_out=self.packets_out,
            bytes_in=self.bytes_in,
            bytes_out=self.bytes_out,
            bursts_in=self.bursts_in,
            bursts_out=self.bursts_out,
            drops=dict(self.drops),
        )

    async def aclose(self) -> None:
        """Close the socket, waking whoever waits on it. Idempotent, checkpoints."""
        if self._sock.fileno() >= 0:
            trio.lowlevel.notify_closing(self._sock)
            self._sock.close()
        await trio.lowlevel.checkpoint()


def train_end(burst: Sequence[bytes], start: int) -> int:
    """End of the run from ``start`` on that one call can carry: equal sizes, the last may be shorter."""
    size = len(burst[start])
    if size == 0:
        return start + 1
    limit = min(len(burst), start + min(MAX_TRAIN_SEGMENTS, MAX_TRAIN_BYTES // size))
    end = start + 1
    while end < limit and len(burst[end]) == size:
        end += 1
    if end < limit and 0 < len(burst[end]) < size:
        end += 1
    return end


def segmentation(size: int) -> tuple[int, int, bytes]:
    """The ancillary message that makes the kernel cut what is sent into datagrams of ``size`` bytes."""
    return SOL_UDP, UDP_SEGMENT, struct.pack("=H", size)
