"""The struct fast path between packets and numbers, for TCP segments of established connections.

    IPv4                                    IPv6
     0  version, IHL = 0x45, TOS             0  version, class, flow label
     2  total length                         4  payload length, next header, hop limit
     4  identification, DF, offset           8  source, destination
     8  TTL, protocol, checksum             40  ports
    12  source, destination                 44  sequence ... as below
    20  ports
    24  sequence, acknowledgement
    32  data offset and flags, window
    36  checksum, urgent
    40  NOP NOP timestamps(10): TSval, TSecr
    52  payload

Source, destination and ports are contiguous in both, so one slice of the packet names the connection.

Checksums are one division: 2**16 is 1 modulo 65535, so the ones'-complement
sum of 16-bit words is the big-endian number that they form, modulo 65535. A
number of odd length is shifted by one octet. Adding numbers is cheaper than
dividing them: a burst is verified by two divisions of sums, and what is sent is
folded in half before it is divided. Where numpy is installed it adds (``sums``).

What this file does not recognise goes to ``scapy_wire``, which also makes the
first packet of each connection; ``SegmentBuilder`` copies its header.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from struct import Struct
from typing import Any

from . import sums
from .sequence import MASK
from .tcp.options import TIMESTAMP_PREFIX

__all__ = [
    "IPV4_START",
    "KEY4",
    "KEY6",
    "SEQUENCE_AT4",
    "SEQUENCE_AT6",
    "TCP_FIELDS",
    "SegmentBuilder",
    "all_intact",
    "bare_fields",
    "intact",
]

#: First octet, total length, DF/MF/offset, protocol.
IPV4_START = Struct("!BxHxxHxB")
#: Sequence, acknowledgement, offset and flags, window; then, if timestamps are where they usually
#: are: NOP NOP kind length, TSval, TSecr.
TCP_FIELDS = Struct("!IIHHxxxxIII")
_BARE_FIELDS = Struct("!IIHH")
#: Where ``TCP_FIELDS`` starts in a packet without IP options or extension headers.
SEQUENCE_AT4, SEQUENCE_AT6 = 24, 44
#: Source, destination, ports.
KEY4, KEY6 = slice(12, 24), slice(8, 44)

_TCP = 6
_NUMBERS = Struct("!IIHHHH")
_NUMBERS_AND_TIMESTAMPS = Struct("!IIHHHHIII")
_LOW_5632, _LOW_2816 = (1 << 5632) - 1, (1 << 2816) - 1
_TIMESTAMP_SUM = (TIMESTAMP_PREFIX >> 16) + (TIMESTAMP_PREFIX & 0xFFFF)


def bare_fields(packet: bytes, offset: int) -> tuple[Any, ...]:
    """As ``TCP_FIELDS.unpack_from``, of a header without options: timestamps that never change."""
    return (*_BARE_FIELDS.unpack_from(packet, offset), TIMESTAMP_PREFIX, 0, 0)


def intact(packets: list[bytes]) -> list[bytes]:
    """Those of ``packets``, all of one connection and with the lengths that their IP headers
    say, whose checksums hold: almost always ``packets`` itself, for the price of two divisions."""
    if len(packets) == 1:
        return packets if _holds(packets[0]) else []
    first = packets[0]
    if first[0] >> 4 == 4:
        # Of the whole packet: the IPv4 header's own sum is 0. The pseudo header comes on top.
        if _hold(packets, int.from_bytes(first[12:20], "big") + _TCP - 20):
            return packets
    elif _hold([packet[8:] for packet in packets], _TCP - 40 + 8):
        # What the checksum covers starts at the source address.
        return packets
    return [packet for packet in packets if _holds(packet)]


def all_intact(packets: list[bytes]) -> bool:
    """The same of several connections: whether the checksums of all of them hold."""
    ipv4 = [packet[12:20] + packet for packet in packets if packet[0] >> 4 == 4]
    ipv6 = [packet[8:] for packet in packets if packet[0] >> 4 == 6]
    return _hold(ipv4, _TCP - 20 - 8) and _hold(ipv6, _TCP - 40 + 8)


def _hold(covered: list[bytes], constant: int) -> bool:
    """Whether each of ``covered`` makes 0 modulo 65535 with its length and ``constant``.

    If each does, their sum does. But two packets, each with the same bit flipped, one
    up and one down, would pass that. So the sum of the running sums, in which each packet has another
    weight, must be 0 as well.
    """
    if not covered:
        return True
    each = sums.hold(covered, constant)
    if each is not None:
        return each
    number_of, count = int.from_bytes, len(covered)
    numbers = list(accumulate([number_of(each) << 8 if len(each) & 1 else number_of(each) for each in covered]))
    lengths = list(accumulate(map(len, covered)))
    if _residue(numbers[-1] + lengths[-1] + count * constant):
        return False
    return not _residue(sum(numbers) + sum(lengths) + count * (count + 1) // 2 * constant)


def _holds(packet: bytes) -> bool:
    """``intact`` of one."""
    size = len(packet)
    if packet[0] >> 4 == 4:
        number = int.from_bytes(packet)
        constant = int.from_bytes(packet[12:20]) + _TCP - 20
    else:
        number = int.from_bytes(packet[8:])
        constant = _TCP - 40
    return not _residue((number << 8 if size & 1 else number) + size + constant)


def _residue(number: int) -> int:
    """``number`` modulo 65535. Folded first, at multiples of 16 bits that suit packets of 1400 bytes: a fifth less."""
    number = (number >> 5632) + (number & _LOW_5632)
    number = (number >> 2816) + (number & _LOW_2816)
    return number % 65535


class SegmentBuilder:
    """Builds the segments of one connection after the model of its first packet.

    With ``timestamps`` every segment carries them, in the usual layout.
    IPv4's identification is 0 in all of them: they are atomic, since DF is set (RFC 6864).
    """

    __slots__ = ("_head", "_head_for", "_header_size", "_ip", "_ip_size", "_ip_sum", "_ports", "_sum", "_timestamps")

    def __init__(self, model: bytes, *, timestamps: bool) -> None:
        ipv4 = model[0] >> 4 == 4
        self._timestamps = timestamps
        self._ip_size = 20 if ipv4 else 40
        self._header_size = 32 if timestamps else 20
        addresses = model[12:20] if ipv4 else model[8:40]
        self._ports = model[self._ip_size : self._ip_size + 4]
        #: The parts of the TCP checksum that never change.
        self._sum = (
            int.from_bytes(addresses, "big")
            + int.from_bytes(self._ports, "big")
            + _TCP
            + (_TIMESTAMP_SUM if timestamps else 0)
        ) % 65535
        if ipv4:
            # Length, identification and checksum zeroed.
            self._ip = bytes((0x45, 0, 0, 0, 0, 0)) + model[6:10] + b"\0\0" + addresses
            self._ip_sum = int.from_bytes(self._ip, "big") % 65535
        else:
            self._ip = model[:4] + b"\0\0" + model[6:40]
            self._ip_sum = 0
        self._head_for = -1
        self._head = b""

    @property
    def overhead(self) -> int:
        """Bytes of headers in each segment, IP included, SACK option excluded."""
        return self._ip_size + self._header_size

    def head(self, tcp_length: int) -> bytes:
        """IP header and ports for a segment of ``tcp_length`` bytes, TCP header included."""
        if tcp_length != self._head_for:
            ip = self._ip
            if self._ip_size == 20:
                total = 20 + tcp_length
                checksum = -(self._ip_sum + total) % 65535
                self._head = (
                    ip[:2] + total.to_bytes(2, "big") + ip[4:10] + checksum.to_bytes(2, "big") + ip[12:] + self._ports
                )
            else:
                self._head = ip[:4] + tcp_length.to_bytes(2, "big") + ip[6:] + self._ports
            self._head_for = tcp_length
        return self._head

    def build(
        self,
        seq: int,
        ack: int,
        flags: int,
        window: int,
        tsval: int,
        tsecr: int,
        payload: bytes = b"",
        options: bytes = b"",
    ) -> bytes:
        """One segment. Numbers as on the wire; ``options`` (a multiple of four octets) follow the timestamps."""
        body = options + payload
        size = len(body)
        offset_and_flags = self._header_size + len(options) << 10 | flags
        number = int.from_bytes(body, "big") << (size & 1) * 8
        total = self._sum + self._header_size + size + seq + ack + offset_and_flags + window + number
        head = self.head(self._header_size + size)
        if self._timestamps:
            checksum = -(total + tsval + tsecr) % 65535
            return (
                head
                + _NUMBERS_AND_TIMESTAMPS.pack(
                    seq, ack, offset_and_flags, window, checksum, 0, TIMESTAMP_PREFIX, tsval, tsecr
                )
                + body
            )
        return head + _NUMBERS.pack(seq, ack, offset_and_flags, window, -total % 65535, 0) + body

    def build_train(
        self,
        positions: Sequence[int],
        payloads: Sequence[bytes],
        ack: int,
        flags: int,
        window: int,
        tsval: int,
        tsecr: int,
    ) -> list[bytes]:
        """One segment for each payload, with everything else the same. ``positions`` need not be masked."""
        packets: list[bytes] = []
        append = packets.append
        header_size, timestamps = self._header_size, self._timestamps
        offset_and_flags = header_size << 10 | flags
        pack, pack_timestamps = _NUMBERS.pack, _NUMBERS_AND_TIMESTAMPS.pack
        common = self._sum + header_size + ack + offset_and_flags + window
        if timestamps:
            common += tsval + tsecr
        size_before, head, base = -1, b"", 0
        for position, payload, number in zip(positions, payloads, sums.totals(payloads), strict=True):
            seq = position & MASK
            size = len(payload)
            if size != size_before:
                size_before = size
                head = self.head(header_size + size)
                base = common + size
            checksum = -(number + base + seq) % 65535
            if timestamps:
                append(
                    head
                    + pack_timestamps(seq, ack, offset_and_flags, window, checksum, 0, TIMESTAMP_PREFIX, tsval, tsecr)
                    + payload
                )
            else:
                append(head + pack(seq, ack, offset_and_flags, window, checksum, 0) + payload)
        return packets
