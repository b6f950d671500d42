"""Input of a stack: bursts of packets, and to whom each of them goes.

A burst goes in, is sorted by connection, each connection takes its share in
one loop (tcp/fastpath.py), and then each one touched flushes once: one ACK a
burst. What is not a plain segment of a known connection takes the slow path: scapy
parses it, and it goes on to a connection, a listener, a TIME-WAIT record, a
UDP port, an echo identifier, or nowhere and is counted.
"""

from __future__ import annotations

from struct import error as StructError

from ...errors import ProtocolError
from ...items import Burst
from .. import scapy_wire
from ..icmp import answer_echo_untrusted
from ..icmp_errors import protocol_unreachable, reassembly_time_exceeded, whole_packet
from ..packets import Fragment, IcmpMessage, IpPayload, TcpSegment, UdpDatagram
from ..udp import read_udp_untrusted
from ..wire import IPV4_START, KEY4, KEY6, all_intact
from .lookup import destination_of, source_of
from .udp_ports import UdpPorts

__all__ = ["Input"]

_TCP = 6
_FRAGMENTED = 0x3FFF
#: Connections in a burst whose checksums are verified by each; those of more are verified together.
_SEVERAL = 2


class Input(UdpPorts):
    """The layer that takes packets in."""

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
        touched = self._touched
        # With many flows there are few packets of each, and verifying costs something for each flow.
        verified = len(touched) > _SEVERAL and self._all_intact([packet for each in touched for packet in each.inbox])
        for connection in touched:
            packets, connection.inbox = connection.inbox, []
            if packets:
                try:
                    connection.handle_packets(packets, now, verified=verified)
                except Exception as fault:
                    self._contain(fault, connection, now)
                self._active.setdefault(connection)
        touched.clear()

    def _all_intact(self, packets: Burst) -> bool:
        try:
            return all_intact(packets)
        except Exception as fault:
            self._contain(fault, None, self._now)
            return False

    # --- one by one ---

    def _handle_singly(self, packet: bytes, now: float) -> None:
        try:
            parsed: TcpSegment | UdpDatagram | IcmpMessage | None = read_udp_untrusted(packet)
            if parsed is None and (answer := answer_echo_untrusted(packet)) is not None:
                self._check_addresses(source_of(packet), destination_of(packet))
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

    def _dispatch(self, parsed: TcpSegment | UdpDatagram | IcmpMessage, packet: bytes, now: float) -> None:
        self._check_addresses(parsed.src, parsed.dst)
        if isinstance(parsed, TcpSegment):
            self._handle_tcp(parsed, now)
        elif isinstance(parsed, UdpDatagram):
            self._handle_udp(parsed, packet, now)
        else:
            self._handle_icmp(parsed, now)

    # --- fragments ---

    def _reassemble(self, fragment: Fragment, now: float) -> IpPayload | None:
        self._check_addresses(fragment.src, fragment.dst)
        whole = self._fragments.handle_fragment(fragment, now)
        self._report_expired(now)
        return whole

    def _report_expired(self, now: float) -> None:
        expired = self._fragments.expired
        while expired:
            self._report(reassembly_time_exceeded(expired.popleft()), now)
