"""The TCP/IP stack: which packet belongs to whom, addresses, ports, timers, budgets. Sans-IO.

Packets to our own addresses, 127.0.0.1 and ::1 among them, never leave: they
wait in a queue and are taken in again at the next ``handle_timeout``, which is
due at once. What arrives from the tunnel in the name of one of our own addresses is dropped,
so nobody out there takes part in what is local.

A burst goes in, is sorted by connection, each connection takes its share in
one loop (tcp/fastpath.py), and then each one touched flushes once: one ACK a
burst. What is not a plain segment of a known connection takes the slow path: scapy
parses it, and it goes on to a connection, a listener, a TIME-WAIT record, a
UDP port, an echo identifier, or nowhere and is counted.

Output is a bounded queue. Data waits for room in it (``room``), and is let in
by turns (turns.py), so that no connection keeps the others out; everything
else is dropped when it is full, since whoever waits there could wait for ever.

Everything an attacker may cause has a bound: connections, half-open ones,
TIME-WAIT records, fragments, path MTUs, RSTs and ICMP errors a second.
"""

from __future__ import annotations

import errno
from collections import Counter, deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from math import inf
from struct import error as StructError
from typing import ClassVar, ParamSpec, TypeVar

from ..config.tunnel_info import TunnelInfo
from ..errors import DropReason, ProtocolError
from ..items import Burst
from ..packet.ids import RandomBytes
from ..stats import NetstackStats
from . import scapy_wire
from .fragments import FragmentTable, split
from .icmp import IcmpEndpoint, Quote, answer_echo_untrusted, echo_reply, error_of, is_error, mtu_of, quote_untrusted
from .icmp_errors import port_unreachable, protocol_unreachable, reassembly_time_exceeded, whole_packet
from .inbound import Inbound
from .memory import MemoryBudget
from .numbering import Numbering
from .packets import ACK, FIN, RST, SYN, Address, Fragment, IcmpMessage, IpPayload, TcpSegment, UdpDatagram
from .pmtu import PathMtus
from .sequence import MASK
from .tcp.connection import TcpConnection
from .tcp.listener import TcpListener
from .tcp.network import os_error
from .tcp.settings import TcpSettings
from .tcp.timewait import TimeWait, TimeWaitTable
from .templates import SegmentTemplates
from .timers import TimerHeap
from .turns import Turns, Waiter
from .udp import UdpEndpoint, read_udp_untrusted
from .wire import IPV4_START, KEY4, KEY6

__all__ = ["Limits", "Stack", "is_loopback"]

_TCP, _UDP = 6, 17
_FRAGMENTED = 0x3FFF
_HEADERS4, _HEADERS6 = 40, 60

_LOOPBACK = {4: bytes((127, 0, 0, 1)), 16: bytes(15) + b"\1"}
#: Looped packets taken in at a time, so that a local transfer holds nobody up.
_LOOP_BURST = 64

Endpoint = tuple[Address, int]
P = ParamSpec("P")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The stack's budgets. Sizes are bytes."""

    connections: int = 16384
    #: Connections in the handshake that others began; the oldest gives way to another.
    half_open: int = 1024
    endpoints: int = 4096
    time_wait: int = 4096
    #: Packets in the output queue: of all kinds, and when data starts to wait.
    output: int = 4096
    output_data: int = 192
    #: What all TCP connections together hold of bytes to be read, early ones and those not acknowledged. At the limit
    #: windows stay as they are and writers wait, but for 16 KiB a connection in each direction.
    tcp_memory: int = 64 * 1024 * 1024
    #: What all UDP sockets together may have queued.
    datagrams: int = 16 * 1024 * 1024
    #: RSTs and ICMP errors a second, each kind on its own.
    answers_per_second: int = 100
    echoes_per_second: int = 2000


class _Allowance:
    """So many answers a second, and no more at once."""

    __slots__ = ("_left", "_rate", "_since")

    def __init__(self, rate: int, now: float) -> None:
        self._rate = rate
        self._left = float(rate)
        self._since = now

    def take(self, now: float) -> bool:
        self._left = min(self._left + (now - self._since) * self._rate, float(self._rate))
        self._since = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


class Stack:
    """A TCP/IP stack with one interface, the tunnel.

    ``addresses`` are ours, packed; ``mtu`` is the tunnel's; ``mss_ipv4`` and
    ``mss_ipv6`` are the largest TCP payloads, before options, that keep the outer
    datagram whole (None: only the MTU limits). Times are seconds of one monotonic clock.
    """

    #: Whether an unexpected exception ends only the connection where it happened, and is counted (DropReason.FAULT).
    #: Tests turn it off.
    contains_faults: ClassVar[bool] = True

    def __init__(
        self,
        *,
        addresses: Iterable[Address],
        mtu: int,
        rng: RandomBytes,
        now: float,
        mss_ipv4: int | None = None,
        mss_ipv6: int | None = None,
        settings: TcpSettings | None = None,
        limits: Limits | None = None,
    ) -> None:
        #: Called when output appeared or ``next_timeout`` moved earlier, from whatever method.
        self.on_work: Callable[[], None] | None = None
        self.drops: Counter[DropReason] = Counter()
        self.mtu: int = mtu
        self.settings: TcpSettings = settings or TcpSettings()
        self.limits: Limits = limits or Limits()
        self._addresses = tuple(addresses)
        self._mss = {4: mss_ipv4, 16: mss_ipv6}
        self._rng = rng
        self._now = now
        self._numbering = Numbering(rng)
        self._templates = SegmentTemplates()
        self._failure: OSError | None = None

        #: All connections, and those that the fast path knows, by source, destination and ports of arriving packets.
        self._connections: dict[bytes, TcpConnection] = {}
        self._fast: dict[bytes, TcpConnection] = {}
        self._touched: list[TcpConnection] = []
        self._listeners: dict[tuple[Address | None, int], TcpListener] = {}
        #: Ports that somebody chose and does not use yet.
        self._reserved: dict[tuple[Address | None, int], tuple[Address | None, int]] = {}
        self._embryos: dict[TcpConnection, TcpListener] = {}
        self._time_wait = TimeWaitTable(duration=self.settings.time_wait, most=self.limits.time_wait)
        self._udp: dict[tuple[Address | None, int], UdpEndpoint] = {}
        self._icmp: dict[int, IcmpEndpoint] = {}
        self._fragments = FragmentTable()
        self._path_mtus = PathMtus()
        self._timers: TimerHeap[TcpConnection] = TimerHeap()

        self._output: deque[bytes] = deque()
        #: Packets from us to us, and the connections between our own addresses that the fast path knows.
        self._looped: deque[bytes] = deque()
        self._fast_local: dict[bytes, TcpConnection] = {}
        self._looping = False
        #: Connections to flush, and to tell, at the end of this burst or timeout.
        self._active: dict[TcpConnection, None] = {}
        #: Those that a defect of ours ended and whose owners were not told yet.
        self._broken: list[TcpConnection] = []
        #: Who has data to send and found no room in ``_output``, or others waiting for it.
        self._turns = Turns()
        self.memory: MemoryBudget = MemoryBudget(self.limits.tcp_memory, self._on_relief)
        self.inbound: Inbound = Inbound()
        self._queued_datagrams = 0
        rate = self.limits.answers_per_second
        self._resets, self._errors = (_Allowance(rate, now) for _ in range(2))
        self._echoes = _Allowance(self.limits.echoes_per_second, now)

        self._packets_in = self._packets_out = self._slow = 0
        self._retransmissions = self._tail_probes = self._timeouts = 0

    # --- the worker's side: in ---

    def handle_packets(self, burst: Burst, now: float) -> None:
        """Take a burst of IP packets. Never raises for what is in them."""
        self._now = now
        self._packets_in += len(burst)
        find, start = (self._fast_local if self._looping else self._fast).get, IPV4_START.unpack_from
        touched = self._touched
        for packet in burst:
            connection = None
            try:
                version, length, fragment, protocol = start(packet)
                if version == 0x45:
                    if protocol == _TCP and length == len(packet) and not fragment & _FRAGMENTED:
                        connection = find(packet[KEY4])
                elif version >> 4 == 6 and packet[6] == _TCP and len(packet) - 40 == packet[4] << 8 | packet[5]:
                    connection = find(packet[KEY6])
            except (StructError, IndexError):
                pass
            if connection is not None:
                if not connection.inbox:
                    touched.append(connection)
                connection.inbox.append(packet)
                continue
            if touched:
                # Keep the order of what one connection gets.
                self._feed(now)
            self._fence(self._handle_singly, packet, now)
        self._feed(now)
        self._finish(now)

    def _feed(self, now: float) -> None:
        for connection in self._touched:
            packets, connection.inbox = connection.inbox, []
            if packets:
                try:
                    connection.handle_packets(packets, now)
                except Exception as fault:
                    self._contain(fault, connection, now)
                self._active.setdefault(connection)
        self._touched.clear()

    def _flush(self, waiter: Waiter, now: float) -> None:
        try:
            waiter.flush(now)
        except Exception as fault:
            self._contain(fault, waiter if isinstance(waiter, TcpConnection) else None, now)

    def _contain(self, fault: Exception, connection: TcpConnection | None, now: float) -> None:
        """``fault`` is a defect of ours: it ends one connection, not the tunnel."""
        if not self.contains_faults:
            raise fault
        self.drops[DropReason.FAULT] += 1
        if connection is None:
            return
        # Whatever state it is in, let go of it.
        connection.inbox = []
        error = os_error(errno.ECONNABORTED)
        try:
            connection.break_off(error, now)
        except Exception:
            # Perhaps it was the RST.
            with suppress(Exception):
                connection.fail(error)
            if self._connections.get(connection.key) is connection:
                self.forget(connection)
            connection.write_off(error)
        # Its owner hears of it in any case, also where this was its turn, and no packet or timer of it.
        self._broken.append(connection)
        if self.on_work is not None:
            self.on_work()

    def _finish(self, now: float) -> None:
        """Flush and tell all that something happened to, and serve those that wait for room."""
        active, self._active = self._active, {}
        for connection in active:
            self._flush(connection, now)
        if self._turns:
            self._serve(now)
        for connection in active:
            connection.notify()
        if self._broken:
            broken, self._broken = self._broken, []
            for connection in broken:
                connection.notify()

    def _serve(self, now: float) -> None:
        """Fill the output queue, if it is half empty, by turns."""
        turns, most = self._turns, self.limits.output_data
        queued = self._queued
        if queued > most // 2:
            return
        # Whole trains only: a turn that is cut short would be a smaller share, again and again.
        train = max(1, min(self.settings.train_max_segments, most // 2))
        stop = most - train
        while turns and queued <= stop:
            # Those with few segments go first as long as that leaves another a turn, or until they had as much as that.
            few = queued <= stop - train or turns.few_in_a_row < train
            turns.serve(now, few=few, flush=self._flush)
            queued = self._queued

    @property
    def _queued(self) -> int:
        return len(self._output) + len(self._looped)

    def _fence(self, step: Callable[P, None], *args: P.args, **kwargs: P.kwargs) -> None:
        """A step that is no connection's: a defect in it costs what it would have done, and nothing else."""
        try:
            step(*args, **kwargs)
        except Exception as fault:
            self._contain(fault, None, self._now)

    def _handle_singly(self, packet: bytes, now: float) -> None:
        try:
            parsed: TcpSegment | UdpDatagram | IcmpMessage | None = read_udp_untrusted(packet)
            if parsed is None and (answer := answer_echo_untrusted(packet)) is not None:
                self._check_addresses(_source(packet), _destination(packet))
                self._echo(answer, now)
                return
            if parsed is None:
                self._slow += 1
                found = scapy_wire.parse_untrusted(packet)
                if isinstance(found, Fragment):
                    whole = self._reassemble(found, now)
                    if whole is None:
                        return
                    packet = whole_packet(whole)
                    found = scapy_wire.parse_transport_untrusted(whole)
                parsed = found
            self._dispatch(parsed, packet, now)
        except ProtocolError as exc:
            self.drops[exc.reason] += 1
            if isinstance(exc, scapy_wire.UnknownProtocolError):
                self._report(protocol_unreachable(packet), now)

    def _reassemble(self, fragment: Fragment, now: float) -> IpPayload | None:
        self._check_addresses(fragment.src, fragment.dst)
        whole = self._fragments.handle_fragment(fragment, now)
        self._report_expired(now)
        return whole

    def _report_expired(self, now: float) -> None:
        expired = self._fragments.expired
        while expired:
            self._report(reassembly_time_exceeded(expired.popleft()), now)

    def _report(self, error: IcmpMessage | None, now: float) -> None:
        """Send an ICMP error, if it is one from us to another host (or here) and not one too many."""
        if error is None:
            return
        try:
            self._check_addresses(error.dst, error.src)
        except ProtocolError:
            return
        if self._errors.take(now):
            self.send_ip(scapy_wire.build_icmp(error))

    def _dispatch(self, parsed: TcpSegment | UdpDatagram | IcmpMessage, packet: bytes, now: float) -> None:
        self._check_addresses(parsed.src, parsed.dst)
        if isinstance(parsed, TcpSegment):
            self._handle_tcp(parsed, now)
        elif isinstance(parsed, UdpDatagram):
            self._handle_udp(parsed, packet, now)
        else:
            self._handle_icmp(parsed, now)

    def _check_addresses(self, src: Address, dst: Address) -> None:
        """Drop what is not to us, or cannot be from there."""
        if self._looping:
            return
        if dst not in self._addresses or not _is_host(src) or src in self._addresses:
            raise ProtocolError(DropReason.BAD_ADDRESS)

    # --- TCP ---

    def _handle_tcp(self, segment: TcpSegment, now: float) -> None:
        key = segment.src + segment.dst + segment.sport.to_bytes(2, "big") + segment.dport.to_bytes(2, "big")
        connection = self._connections.get(key)
        if connection is not None:
            try:
                connection.handle_segment(segment, now)
            except Exception as fault:
                self._contain(fault, connection, now)
            self._active.setdefault(connection)
            return
        listener = _bound_to(self._listeners, segment.dst, segment.dport)
        opens = segment.flags & (SYN | ACK | RST) == SYN
        if key in self._time_wait:
            if not (listener is not None and opens and self._time_wait.gives_way(key, segment)):
                answer = self._time_wait.handle_segment(key, segment, now)
                if answer is not None and self._resets.take(now):
                    self.emit(self.build(answer))
                return
            self._open_passively(listener, key, segment, now)
            self._time_wait.discard(key)
            return
        if listener is None or (not opens and not segment.flags & RST):
            self._refuse(segment, now)
        elif opens:
            self._open_passively(listener, key, segment, now)

    def _open_passively(self, listener: TcpListener, key: bytes, syn: TcpSegment, now: float) -> None:
        if not listener.has_room or len(self._connections) >= self.limits.connections or not syn.sport:
            raise ProtocolError(DropReason.LIMIT, "backlog")
        if len(self._embryos) >= self.limits.half_open:
            self.drops[DropReason.LIMIT] += 1
            next(iter(self._embryos)).fail(os_error(errno.ECONNABORTED))
        connection = self._make_connection((syn.dst, syn.dport), (syn.src, syn.sport), now)
        self._connections[key] = connection
        self._embryos[connection] = listener
        listener.half_open.add(connection)
        connection.accept(syn, now)

    def _refuse(self, segment: TcpSegment, now: float) -> None:
        """RST for a segment that belongs to nobody (RFC 9293, 3.10.7.1); never for an RST."""
        self.drops[DropReason.NO_SOCKET] += 1
        if segment.flags & RST or not self._resets.take(now):
            return
        reset = TcpSegment(segment.dst, segment.src, segment.dport, segment.sport, 0, 0, RST, 0)
        if segment.flags & ACK:
            reset.seq = segment.ack
        else:
            size = len(segment.payload) + bool(segment.flags & SYN) + bool(segment.flags & FIN)
            reset.ack, reset.flags = (segment.seq + size) & MASK, RST | ACK
        self.emit(self.build(reset))

    def connect_tcp(self, remote: Endpoint, now: float, local: Endpoint | None = None) -> TcpConnection:
        """SYN now; ``connected`` or ``error`` follow, told by ``on_change``. A local port of 0 is chosen, and an
        address of zeros.

        Raises OSError: ENETUNREACH (no address of that family), EADDRNOTAVAIL, EADDRINUSE, EINVAL, ENOBUFS, or what
        ``fail`` said.
        """
        self._check_up()
        self._now = now
        address, port = remote
        if not 0 < port <= 0xFFFF or not (_is_host(address) or self.is_own(address)):
            raise os_error(errno.EINVAL)
        own, own_port = local if local is not None else (b"", 0)
        if not any(own):
            own = self.source_for(address)
        if not self.is_own(own) or len(own) != len(address):
            raise os_error(errno.EADDRNOTAVAIL)
        if is_loopback(own) and not self.is_own(address):
            raise os_error(errno.EINVAL)
        if len(self._connections) >= self.limits.connections:
            raise os_error(errno.ENOBUFS)

        def usable(candidate: int) -> bool:
            key = address + own + port.to_bytes(2, "big") + candidate.to_bytes(2, "big")
            return not (
                key in self._connections
                or key in self._time_wait
                or _bound_to(self._listeners, own, candidate) is not None
                or _bound_to(self._reserved, own, candidate) is not None
            )

        if not own_port:
            own_port = self._numbering.port(own, address, port, usable) or 0
            if not own_port:
                raise os_error(errno.EADDRNOTAVAIL)
        elif not usable(own_port):
            raise os_error(errno.EADDRINUSE)
        connection = self._make_connection((own, own_port), remote, now)
        self._connections[connection.key] = connection
        connection.connect(now)
        return connection

    def listen_tcp(self, local: tuple[Address | None, int], now: float, backlog: int = 128) -> TcpListener:
        """Passive open at ``local``: an address of ours, zeros for all of that family, None for all, and a port,
        0 to have one chosen.

        Raises OSError: EADDRINUSE, EADDRNOTAVAIL, or what ``fail`` said.
        """
        self._check_up()
        address, port = local
        self._check_bindable(address)
        port = self._free_port(address, port)
        listener = TcpListener((address, port), backlog=backlog, on_close=self._close_listener)
        self._listeners[address, port] = listener
        return listener

    def _free_port(self, address: Address | None, port: int) -> int:
        """``port`` if nobody listens there or has reserved it; for 0, one like that. Raises OSError(EADDRINUSE)."""

        def free(candidate: int) -> bool:
            return not (_taken(self._listeners, address, candidate) or _taken(self._reserved, address, candidate))

        chosen = port or self._numbering.port(address or b"", b"", 0, free)
        if chosen is None or not free(chosen):
            raise os_error(errno.EADDRINUSE)
        return chosen

    def reserve_tcp(self, local: tuple[Address | None, int]) -> tuple[Address | None, int]:
        """Keep a port, 0 to have one chosen, from others until ``release_tcp``; what is kept. Addresses are as for
        ``listen_tcp``.

        Raises OSError: EADDRINUSE, EADDRNOTAVAIL, ENOBUFS, or what ``fail`` said.
        """
        self._check_up()
        self._check_bindable(local[0])
        if len(self._reserved) >= self.limits.endpoints:
            raise os_error(errno.ENOBUFS)
        kept = local[0], self._free_port(*local)
        self._reserved[kept] = kept
        return kept

    def release_tcp(self, kept: tuple[Address | None, int]) -> None:
        """Undo ``reserve_tcp``."""
        if self._reserved.get(kept) is kept:
            del self._reserved[kept]

    def _close_listener(self, listener: TcpListener, now: float) -> None:
        self._now = now
        # After ``fail`` somebody else may listen there.
        if self._listeners.get(listener.local) is listener:
            del self._listeners[listener.local]

    def _make_connection(self, local: Endpoint, remote: Endpoint, now: float) -> TcpConnection:
        key = remote[0] + local[0] + remote[1].to_bytes(2, "big") + local[1].to_bytes(2, "big")
        return TcpConnection(
            self,
            local=local,
            remote=remote,
            iss=self._numbering.initial_sequence(key, now),
            mss=self.mss_to(remote[0]),
            ts_offset=self._numbering.timestamp_offset(key),
            settings=self.settings,
            now=now,
        )

    def mss_to(self, remote: Address) -> int:
        """Largest TCP payload, before options, for ``remote``."""
        return self._mss_of(self.mtu_to(remote), remote)

    def _mss_of(self, mtu: int, remote: Address) -> int:
        mss = mtu - (_HEADERS4 if len(remote) == 4 else _HEADERS6)
        fixed = self._mss[len(remote)]
        return mss if fixed is None else min(mss, fixed)

    # --- the connections' side (tcp.network.Network) ---

    def emit(self, packet: bytes) -> bool:
        """Queue a packet; False, counted, when there is no room."""
        output = self._looped if self.is_own(_destination(packet)) else self._output
        if len(output) >= self.limits.output:
            self.drops[DropReason.QUEUE_FULL] += 1
            return False
        output.append(packet)
        if len(output) == 1 and self.on_work is not None:
            self.on_work()
        return True

    def emit_train(self, packets: list[bytes]) -> None:
        """Queue packets of one connection, for which there is ``room``."""
        output = self._looped if self.is_own(_destination(packets[0])) else self._output
        idle = not output
        output.extend(packets)
        if idle and self.on_work is not None:
            self.on_work()

    def room(self, connection: TcpConnection) -> int:
        """How many packets of data may be queued, as one train; if none, or if others wait for room, it waits its
        turn, and is flushed again then."""
        room = self.limits.output_data - len(self._output) - len(self._looped)
        turns = self._turns
        sender = connection.sender
        if room > 0:
            if turns.take(connection):
                sender.pacer.held_back = True
                return room
            if not turns:
                return room
        turns.join(connection, few=sender.buffered <= 2 * sender.mss)
        return 0

    def build(self, segment: TcpSegment) -> bytes:
        """A packet by scapy, or after its model."""
        return self._templates.build(segment)

    def parse(self, packet: bytes) -> TcpSegment | None:
        """A segment by scapy; None: malformed, counted."""
        self._slow += 1
        try:
            parsed = scapy_wire.parse_untrusted(packet)
        except ProtocolError as exc:
            self.drops[exc.reason] += 1
            return None
        return parsed if isinstance(parsed, TcpSegment) else None

    def may_reset(self, now: float) -> bool:
        """Whether one more answer to a segment that fits nowhere may go out."""
        return self._resets.take(now)

    def arm(self, connection: TcpConnection) -> None:
        """``connection.deadline`` may have moved."""
        if self._timers.arm(connection) and self.on_work is not None:
            self.on_work()

    def drop(self, reason: DropReason) -> None:
        """Count a packet that was not used."""
        self.drops[reason] += 1

    def established(self, connection: TcpConnection) -> None:
        """The fast path may be taken; whoever listens hears of it."""
        fast = self._fast_local if self.is_own(connection.remote[0]) else self._fast
        fast[connection.key] = connection
        listener = self._embryos.pop(connection, None)
        if listener is not None:
            listener.handle_established(connection)

    def forget(self, connection: TcpConnection) -> None:
        """``connection`` is over."""
        self._connections.pop(connection.key, None)
        self._fast.pop(connection.key, None)
        self._fast_local.pop(connection.key, None)
        listener = self._embryos.pop(connection, None)
        if listener is not None:
            listener.half_open.discard(connection)
        self._retransmissions += connection.sender.retransmissions
        self._tail_probes += connection.sender.tail_probes
        self._timeouts += connection.sender.timeouts
        self._timers.retire(connection)
        self._turns.leave(connection)

    def time_wait(self, connection: TcpConnection) -> None:
        """``connection`` ended in order: its four-tuple rests."""
        self.forget(connection)
        receiver = connection.receiver
        window = min((receiver.edge - receiver.nxt) >> receiver.scale, 0xFFFF)
        self._time_wait.add(
            connection.key,
            TimeWait(
                connection.sender.nxt & MASK,
                receiver.nxt & MASK,
                window,
                connection.timestamp_offset,
                connection.timestamp_recent,
                self._now + self.settings.time_wait,
            ),
        )

    def learn_mss(self, connection: TcpConnection, mss: int) -> None:
        """TCP found out itself what gets through to its destination."""
        remote = connection.remote[0]
        mtu = mss + (_HEADERS4 if len(remote) == 4 else _HEADERS6)
        self._path_mtus.correct(remote, mtu, self.mtu, self._now)

    def link_mss(self, connection: TcpConnection) -> int:
        """What the link takes, whatever is known of the path."""
        return self._mss_of(self.mtu, connection.remote[0])

    def _on_relief(self) -> None:
        """There is memory again. Who waited for it is told at the next ``handle_timeout``, which is due at once."""
        if self.on_work is not None:
            self.on_work()

    # --- UDP ---

    def open_udp(self, local: tuple[Address | None, int] | None = None, remote: Endpoint | None = None) -> UdpEndpoint:
        """A UDP port, connected to ``remote`` if given. Raises OSError as ``bind_udp`` does."""
        return UdpEndpoint(self, local, remote)

    def bind_udp(
        self, handler: UdpEndpoint, local: tuple[Address | None, int] | None = None, remote: Endpoint | None = None
    ) -> tuple[Address | None, int]:
        """Register ``handler`` at an address of ours (zeros: all of that family; None: all) and a port (0: chosen);
        what it was bound to.

        Raises OSError: EADDRINUSE, EADDRNOTAVAIL, ENETUNREACH (no address that reaches ``remote``), ENOBUFS, or
        what ``fail`` said.
        """
        self._check_up()
        address, port = local or (None, 0)
        self._check_bindable(address)
        if len(self._udp) >= self.limits.endpoints:
            raise os_error(errno.ENOBUFS)
        if remote is not None:
            source = self.source_for(remote[0])
            if address is None or not any(address):
                # As connect() of a kernel: bound to the address that reaches the remote.
                address = source
        if not port:
            port = self._numbering.random_port(lambda p: not _taken(self._udp, address, p)) or 0
        if not port or _taken(self._udp, address, port):
            raise os_error(errno.EADDRINUSE)
        self._udp[address, port] = handler
        return address, port

    def release_udp(self, handler: UdpEndpoint) -> None:
        """Undo ``bind_udp``."""
        if self._udp.get(handler.local) is handler:
            del self._udp[handler.local]

    def reserve(self, size: int) -> bool:
        """Whether ``size`` more bytes of datagrams may be queued; a negative ``size`` gives them back."""
        if size > 0 and self._queued_datagrams + size > self.limits.datagrams:
            return False
        self._queued_datagrams += size
        return True

    def _handle_udp(self, datagram: UdpDatagram, packet: bytes, now: float) -> None:
        endpoint = _bound_to(self._udp, datagram.dst, datagram.dport)
        if endpoint is not None:
            endpoint.handle_datagram(datagram)
        else:
            self.drops[DropReason.NO_SOCKET] += 1
            self._report(port_unreachable(packet), now)

    # --- ICMP ---

    def open_icmp(self) -> IcmpEndpoint:
        """An identifier for echo requests. Raises OSError as ``bind_icmp`` does."""
        return IcmpEndpoint(self)

    def bind_icmp(self, handler: IcmpEndpoint, identifier: int | None = None) -> int:
        """Register ``handler`` under an echo identifier (None: a random one), which is returned.

        Raises OSError: EADDRINUSE, ENOBUFS, or what ``fail`` said.
        """
        self._check_up()
        if len(self._icmp) >= self.limits.endpoints:
            raise os_error(errno.ENOBUFS)
        while identifier is None or identifier in self._icmp:
            if identifier is not None:
                raise os_error(errno.EADDRINUSE)
            candidate = int.from_bytes(self._rng(2), "big")
            if candidate not in self._icmp:
                identifier = candidate
        self._icmp[identifier] = handler
        return identifier

    def release_icmp(self, handler: IcmpEndpoint) -> None:
        """Undo ``bind_icmp``."""
        if self._icmp.get(handler.identifier) is handler:
            del self._icmp[handler.identifier]

    def _handle_icmp(self, message: IcmpMessage, now: float) -> None:
        if is_error(message):
            self._handle_icmp_error(message, now)
            return
        answer = echo_reply(message)
        if answer is not None:
            self._echo(scapy_wire.build_icmp(answer), now)
            return
        endpoint = self._icmp.get(message.rest >> 16)
        if endpoint is None:
            raise ProtocolError(DropReason.NO_SOCKET)
        endpoint.handle_message(message)

    def _echo(self, answer: bytes, now: float) -> None:
        """Send an echo reply: as large as the request, so perhaps in fragments."""
        if not self._echoes.take(now):
            return
        remote = _destination(answer)
        mtu = self.mtu_to(remote)
        for piece in [answer] if len(answer) <= mtu else split(answer, mtu, self.next_ident(remote)):
            self.send_ip(piece)

    def _handle_icmp_error(self, message: IcmpMessage, now: float) -> None:
        """Believed only if the packet that it quotes may be one of ours (RFC 5927)."""
        self._handle_quoted(message, quote_untrusted(message), now)

    def handle_too_big(self, packet: bytes, mtu: int, now: float) -> None:
        """``packet``, which this stack sent, is too large for the tunnel, which takes ``mtu`` bytes: as if a router had
        said so. TCP sends shorter segments, and again what is in flight; a datagram socket sends fragments from now on,
        or hears of it if it forbids them."""
        self._now = now
        self._refuse_too_big(packet, mtu, now)
        self._finish(now)

    def _refuse_too_big(self, packet: bytes, mtu: int, now: float) -> None:
        if len(packet) < 40:
            return
        ipv4 = packet[0] >> 4 == 4
        src = _source(packet)
        message = IcmpMessage(src, src, 3 if ipv4 else 2, 4 if ipv4 else 0, mtu, packet)
        try:
            self._handle_quoted(message, quote_untrusted(message), now)
        except ProtocolError as exc:
            self.drops[exc.reason] += 1

    def _handle_quoted(self, message: IcmpMessage, quote: Quote, now: float) -> None:
        if not self._looping and self.is_own(quote.dst):
            raise ProtocolError(DropReason.BAD_ADDRESS)
        error, mtu = error_of(message), mtu_of(message)
        if quote.protocol == _TCP:
            key = quote.dst + quote.src + quote.dport.to_bytes(2, "big") + quote.sport.to_bytes(2, "big")
            connection = self._connections.get(key)
            if connection is None or not connection.is_in_flight(quote.sequence):
                raise ProtocolError(DropReason.NO_SOCKET)
            self._active.setdefault(connection)
            if mtu is not None:
                self._learn_mtu(quote.dst, mtu, now)
                connection.handle_path_mss(self.mss_to(quote.dst), now)
            elif error is not None:
                connection.handle_icmp_error(error)
            return
        if quote.protocol == _UDP:
            endpoint = _bound_to(self._udp, quote.src, quote.sport)
            if endpoint is None or endpoint.remote not in (None, (quote.dst, quote.dport)):
                raise ProtocolError(DropReason.NO_SOCKET)
            if mtu is not None:
                # The next datagram of that size goes in fragments.
                self._learn_mtu(quote.dst, mtu, now)
                if endpoint.dont_fragment and error is not None:
                    endpoint.handle_error(error)
            elif error is not None:
                endpoint.handle_error(error)
            return
        pinger = self._icmp.get(quote.sport)
        if pinger is None:
            raise ProtocolError(DropReason.NO_SOCKET)
        if mtu is not None:
            self._learn_mtu(quote.dst, mtu, now)
        pinger.handle_message(message)

    def _learn_mtu(self, remote: Address, mtu: int, now: float) -> None:
        if mtu < self.mtu:
            self._path_mtus.learn(remote, mtu, now)

    # --- the worker's side: out, and time ---

    @property
    def has_output(self) -> bool:
        """Whether ``take_output`` has something."""
        return bool(self._output)

    def take_output(self, max_packets: int = 64, now: float | None = None) -> Burst:
        """The next packets to send, at most ``max_packets``; [] if there are none.

        The room that this makes is for those that wait for it: they send as of ``now`` (None: the time of what
        happened last, which is too early after a pause).
        """
        if now is not None and now > self._now:
            self._now = now
        output = self._output
        if len(output) <= max_packets:
            burst = list(output)
            output.clear()
        else:
            pop = output.popleft
            burst = [pop() for _ in range(max_packets)]
        self._packets_out += len(burst)
        if self._turns:
            self._serve(self._now)
        return burst

    def next_timeout(self) -> float | None:
        """When ``handle_timeout`` is due; None: not before something happens."""
        if self._looped or self.memory.relief_due or self._broken:
            return self._now
        earliest = self._timers.next_timeout()
        for other in (self._time_wait.next_timeout(), self._fragments.next_timeout()):
            if other is not None and other < earliest:
                earliest = other
        return None if earliest == inf else earliest

    def handle_timeout(self, now: float) -> None:
        """Do what is due. Calling it too early does nothing."""
        self._now = now
        if self._looped:
            self._take_looped(now)
        if self.memory.relief_due:
            self.memory.relief_due = False
            for connection in self._connections.values():
                connection.relieve()
                self._active.setdefault(connection)
        for connection in self._timers.take_due(now):
            try:
                connection.handle_timeout(now)
            except Exception as fault:
                self._contain(fault, connection, now)
            # Also where the timeout changed nothing: every deadline must be in the heap.
            self._timers.arm(connection)
            self._active.setdefault(connection)
        for step in (self._time_wait.handle_timeout, self._fragments.handle_timeout, self._report_expired):
            self._fence(step, now)
        self._finish(now)

    def _take_looped(self, now: float) -> None:
        looped = self._looped
        burst = [looped.popleft() for _ in range(min(len(looped), _LOOP_BURST))]
        self._looping = True
        try:
            self.handle_packets(burst, now)
        finally:
            self._looping = False

    # --- the tunnel ---

    def reconfigure(self, info: TunnelInfo, now: float) -> None:
        """The tunnel is up (again), perhaps with other addresses or another MTU. What was bound to an address that
        is gone fails."""
        self._now = now
        self._failure = None
        self._addresses = tuple(interface.ip.packed for interface in (info.ipv4, info.ipv6) if interface is not None)
        self.mtu = info.mtu
        self._mss = {4: info.mss_ipv4, 16: info.mss_ipv6}
        self._path_mtus.clear()
        self.inbound.clear()
        self._sift_output(now)
        gone = os_error(errno.EADDRNOTAVAIL)
        for connection in list(self._connections.values()):
            if not self.is_own(connection.local[0]):
                connection.fail(gone)
                self._active.setdefault(connection)
            else:
                connection.set_path_mss(self.mss_to(connection.remote[0]))
                connection.resume(now)
        for endpoint in list(self._udp.values()):
            address = endpoint.local[0]
            if address is not None and any(address) and not self.is_own(address):
                endpoint.handle_error(os_error(errno.ENETDOWN))
        self._finish(now)

    def _sift_output(self, now: float) -> None:
        """What still waits and no longer fits the tunnel is not sent, but told to who said it."""
        large = [packet for packet in self._output if len(packet) > self.mtu]
        if large:
            self._output = deque(packet for packet in self._output if len(packet) <= self.mtu)
            for packet in large:
                self._refuse_too_big(packet, self.mtu, now)

    def fail(self, error: OSError) -> None:
        """The tunnel is gone: every connection, listener and endpoint gets ``error``, and new ones are refused
        with it until ``reconfigure``."""
        self._failure = error
        for connection in list(self._connections.values()):
            connection.fail(error)
            self._active.setdefault(connection)
        for listener in list(self._listeners.values()):
            listener.fail(error)
        self._listeners.clear()
        self._reserved.clear()
        endpoints: list[UdpEndpoint | IcmpEndpoint] = [*self._udp.values(), *self._icmp.values()]
        for endpoint in endpoints:
            endpoint.handle_error(error)
        self._udp.clear()
        self._icmp.clear()
        self._time_wait.clear()
        self._output.clear()
        self._looped.clear()
        self._turns.clear()
        self._finish(self._now)

    def _check_up(self) -> None:
        if self._failure is not None:
            raise os_error(self._failure.errno or errno.ENETDOWN)

    # --- addresses ---

    @property
    def addresses(self) -> tuple[Address, ...]:
        """Ours, packed; without the loopback ones."""
        return self._addresses

    def is_own(self, address: Address) -> bool:
        """Whether packets to ``address`` stay here."""
        return address in self._addresses or is_loopback(address)

    def _check_bindable(self, address: Address | None) -> None:
        if address is not None and any(address) and not self.is_own(address):
            raise os_error(errno.EADDRNOTAVAIL)

    def source_for(self, remote: Address) -> Address:
        """Our address for talking to ``remote``. Raises OSError(ENETUNREACH) if there is none of that family."""
        if remote in self._addresses:
            return remote
        if is_loopback(remote):
            return _LOOPBACK[len(remote)]
        for address in self._addresses:
            if len(address) == len(remote):
                return address
        raise os_error(errno.ENETUNREACH)

    def mtu_to(self, remote: Address) -> int:
        """Path MTU to ``remote`` as far as it is known, bytes of IP packet."""
        return self._path_mtus.to(remote, self.mtu, self._now)

    def next_ident(self, remote: Address) -> int:
        """An identification for fragments to ``remote``, 32 bits."""
        return self._numbering.identification(remote)

    def send_ip(self, packet: bytes) -> bool:
        """Queue a complete IP packet that is not TCP's; False, counted, when the output queue is full, but for what
        is kept for TCP's handshakes and acknowledgements."""
        if self._queued >= self.limits.output * 7 // 8:
            self.drops[DropReason.QUEUE_FULL] += 1
            return False
        return self.emit(packet)

    def has_room(self, credit: bool) -> bool:
        """Whether a datagram may be queued now: there is room for data and nobody waits for it, or, with ``credit``,
        at least not twice as much as there should be."""
        queued, most = self._queued, self.limits.output_data
        return (queued < most and not self._turns) or (credit and queued < 2 * most)

    def wait_turn(self, waiter: UdpEndpoint) -> None:
        """Have ``waiter.flush`` called when it may send: in line with the connections."""
        self._turns.join(waiter, few=False)

    def leave_turn(self, waiter: UdpEndpoint) -> None:
        """Undo ``wait_turn``."""
        self._turns.leave(waiter)

    @property
    def undelivered(self) -> bool:
        """Whether a connection holds data, or the end of a stream, that its peer, who is not ourselves, has not
        acknowledged."""
        senders = (
            connection.sender
            for connection in self._connections.values()
            if connection.connected and not self.is_own(connection.remote[0])
        )
        return any(sender.unacknowledged or (sender.fin and not sender.done) for sender in senders)

    def stats(self) -> NetstackStats:
        """A snapshot of the counters."""
        senders = [connection.sender for connection in self._connections.values()]
        return NetstackStats(
            packets_in=self._packets_in,
            packets_out=self._packets_out,
            fast_path=self._packets_in - self._slow,
            slow_path=self._slow,
            tcp_retransmissions=self._retransmissions + sum(sender.retransmissions for sender in senders),
            tcp_tail_probes=self._tail_probes + sum(sender.tail_probes for sender in senders),
            tcp_timeouts=self._timeouts + sum(sender.timeouts for sender in senders),
            tcp_connections=len(self._connections),
            drops=dict(self.drops + self._fragments.drops),
        )


def _is_host(address: Address) -> bool:
    """Whether a packet may come from ``address``: not unspecified, loopback, multicast or broadcast."""
    if len(address) == 4:
        return 0 < address[0] < 224 and address[0] != 127
    return address[0] != 0xFF and any(address[:15])


def is_loopback(address: Address) -> bool:
    """127.0.0.0/8 and ::1."""
    return address[0] == 127 if len(address) == 4 else address == _LOOPBACK[16]


def _source(packet: bytes) -> Address:
    return packet[12:16] if packet[0] >> 4 == 4 else packet[8:24]


def _destination(packet: bytes) -> Address:
    return packet[16:20] if packet[0] >> 4 == 4 else packet[24:40]


T = TypeVar("T")
Ports = dict[tuple[Address | None, int], T]


def _bound_to(ports: Ports[T], address: Address, port: int) -> T | None:
    """Who gets what arrives for ``address`` and ``port``: the most specific one."""
    return ports.get((address, port)) or ports.get((bytes(len(address)), port)) or ports.get((None, port))


def _taken(ports: Ports[T], address: Address | None, port: int) -> bool:
    """Whether somebody has ``port`` at an address that overlaps with ``address``."""
    if (address, port) in ports or (None, port) in ports:
        return True
    if address is None:
        return any(port == taken for _, taken in ports)
    if any(address):
        return (bytes(len(address)), port) in ports
    return any(port == taken and other is not None and len(other) == len(address) for other, taken in ports)
