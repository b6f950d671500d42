"""Answers of the stack to what is as large as can be, and to what cannot be answered: none of it costs more than
itself."""

from __future__ import annotations

import random
import struct
from types import SimpleNamespace

import pytest

from minivpn_trio.errors import DropReason, ProtocolError
from minivpn_trio.netstack import scapy_wire
from minivpn_trio.netstack.packets import ACK, SYN, Fragment, IcmpMessage, TcpSegment, UdpDatagram
from minivpn_trio.netstack.scapy_wire import building
from minivpn_trio.netstack.scapy_wire.headers import checksum, pseudo_header
from minivpn_trio.netstack.stack import Stack

A4, B4 = bytes((10, 8, 0, 2)), bytes((10, 8, 0, 1))
A6, B6 = bytes.fromhex("fd00" + "00" * 13 + "02"), bytes.fromhex("fd00" + "00" * 13 + "01")
ENDS = pytest.mark.parametrize(("ours", "theirs"), [(A4, B4), (A6, B6)], ids=["v4", "v6"])
NOW = 1000.0
ICMP, ICMPV6 = 1, 58
IP_FIELDS = struct.Struct("!BBHHHBBH4s4s")


def make() -> Stack:
    return Stack(addresses=(A4, A6), mtu=1400, rng=random.Random(1).randbytes, now=NOW)


def echo_request(ours: bytes, theirs: bytes, size: int) -> bytes:
    """The ICMP message, ``size`` bytes in all."""
    ipv4 = len(ours) == 4
    body = struct.pack("!BBHHH", 8 if ipv4 else 128, 0, 0, 77, 1) + random.Random(size).randbytes(size - 8)
    pseudo = b"" if ipv4 else pseudo_header(theirs, ours, ICMPV6, size)
    return body[:2] + checksum(pseudo + body).to_bytes(2, "big") + body[4:]


def piece(ours: bytes, theirs: bytes, offset: int, part: bytes, more: bool, *, options: bytes = b"") -> bytes:
    """A fragment to us."""
    if len(ours) == 16:
        chain = options + struct.pack("!BxHI", ICMPV6, offset | more, 7)
        first = 60 if options else 44
        return struct.pack("!IHBB", 6 << 28, len(chain) + len(part), first, 64) + theirs + ours + chain + part
    words = 5 + len(options) // 4
    fields = (0x40 | words, 0, words * 4 + len(part), 7, offset // 8 | more << 13, 64, ICMP)
    head = IP_FIELDS.pack(*fields, 0, theirs, ours) + options
    return head[:10] + checksum(head).to_bytes(2, "big") + head[12:] + part


def pieces(ours: bytes, theirs: bytes, message: bytes, *, options: bytes = b"") -> list[bytes]:
    """A kilobyte each; the last one is as long as it must be, since no offset says more than 65,528."""
    size, last = 1024, 65_535 // 1024 * 1024
    sent = [piece(ours, theirs, at, message[at : at + size], True, options=options) for at in range(0, last, size)]
    return [*sent, piece(ours, theirs, last, message[last:], False, options=options)]


def answers(stack: Stack) -> list[bytes]:
    return stack.take_output(1000, NOW)


def put_together(packets: list[bytes]) -> IcmpMessage:
    """The echo reply that these fragments are."""
    stack = Stack(addresses=(B4, B6), mtu=1400, rng=random.Random(2).randbytes, now=NOW)
    whole = None
    for packet in packets:
        parsed = scapy_wire.parse_untrusted(packet)
        assert isinstance(parsed, Fragment)
        whole = stack._fragments.handle_fragment(parsed, NOW)
    assert whole is not None
    message = scapy_wire.parse_transport_untrusted(whole)
    assert isinstance(message, IcmpMessage)
    return message


# --- as large as can be ---


@pytest.mark.parametrize(("ours", "theirs", "size"), [(A4, B4, 65_515), (A6, B6, 65_535)], ids=["v4", "v6"])
def test_the_largest_echo_is_answered(ours: bytes, theirs: bytes, size: int) -> None:
    stack = make()
    request = echo_request(ours, theirs, size)
    stack.handle_packets(pieces(ours, theirs, request), NOW)
    assert not stack.drops
    reply = put_together(answers(stack))
    assert (reply.src, reply.dst, reply.payload) == (ours, theirs, request[8:])
    assert reply.type == (0 if len(ours) == 4 else 129)


@pytest.mark.parametrize("excess", [1, 8, 20, 1000])
@pytest.mark.parametrize(("ours", "theirs", "most"), [(A4, B4, 65_515), (A6, B6, 65_535)], ids=["v4", "v6"])
def test_what_no_datagram_can_be_is_not_put_together(ours: bytes, theirs: bytes, most: int, excess: int) -> None:
    """The "ping of death": what the pieces make is longer than any length field can say."""
    stack = make()
    sent = pieces(ours, theirs, echo_request(ours, theirs, most + excess))
    stack.handle_packets(sent, NOW)
    assert not answers(stack)
    assert stack.drops == {DropReason.FRAGMENT: 1}
    # Nor is it waited for: who asks next is answered.
    small = IcmpMessage(theirs, ours, 8 if len(ours) == 4 else 128, 0, 5, b"x")
    stack.handle_packets([scapy_wire.build_icmp(small)], NOW)
    assert len(answers(stack)) == 1


@ENDS
def test_what_stands_before_the_pieces_counts(ours: bytes, theirs: bytes) -> None:
    """IPv4 options, and IPv6 extension headers before the fragment header, are in the length of the whole."""
    options, most = (bytes(8), 65_507) if len(ours) == 4 else (bytes((44, 0)) + bytes((1, 4)) + bytes(4), 65_527)
    for size, fits in ((most, True), (most + 1, False)):
        stack = make()
        stack.handle_packets(pieces(ours, theirs, echo_request(ours, theirs, size), options=options), NOW)
        assert bool(answers(stack)) is fits
        assert not stack.drops if fits else stack.drops == {DropReason.FRAGMENT: 1}


# --- a scapy that fails ---


def raises(*args: object, **options: object) -> object:
    raise struct.error("'H' format requires 0 <= number <= 65535")


def is_no_packet(*args: object, **options: object) -> object:
    return "no packet"


def asks_for_an_answer(ours: bytes, theirs: bytes) -> dict[str, bytes]:
    """Each is answered by way of scapy."""
    echo = echo_request(ours, theirs, 100)
    unknown = piece(ours, theirs, 0, echo, False)
    protocol_at = 9 if len(ours) == 4 else 40
    unknown = unknown[:protocol_at] + bytes((123,)) + unknown[protocol_at + 1 :]
    if len(ours) == 4:
        head = unknown[:10] + b"\0\0" + unknown[12:20]
        unknown = head[:10] + checksum(head).to_bytes(2, "big") + head[12:] + unknown[20:]
    return {
        "an echo request in a form that is rare": piece(
            ours, theirs, 0, echo, False, options=bytes(4) if len(ours) == 4 else b""
        ),
        "a closed UDP port": scapy_wire.build_udp(UdpDatagram(theirs, ours, 4000, 4001, b"x")),
        "an unknown protocol": unknown,
        "a closed TCP port": scapy_wire.build_tcp(TcpSegment(theirs, ours, 4000, 4001, 1, 0, SYN, 1000)),
        "a segment of no connection": scapy_wire.build_tcp(TcpSegment(theirs, ours, 4000, 4001, 1, 9, ACK, 1000)),
    }


KINDS = list(asks_for_an_answer(A4, B4))


@ENDS
@pytest.mark.parametrize("kind", KINDS)
def test_each_of_them_is_answered(ours: bytes, theirs: bytes, kind: str) -> None:
    stack = make()
    stack.handle_packets([asks_for_an_answer(ours, theirs)[kind]], NOW)
    assert len(answers(stack)) == 1


@ENDS
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("failure", [raises, is_no_packet])
def test_an_answer_that_cannot_be_built_is_none(
    ours: bytes, theirs: bytes, kind: str, failure: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of another version of scapy, say. (A defect of ours would be raised here: conftest.py.)"""
    stack = make()
    packet = asks_for_an_answer(ours, theirs)[kind]
    if failure is raises:
        monkeypatch.setattr(building, "load", lambda: SimpleNamespace(ip=raises, ipv6=raises))
    else:
        for name in ("_icmp_packet", "_tcp_packet"):
            monkeypatch.setattr(building, name, failure)
    stack.handle_packets([packet], NOW)
    assert not answers(stack)
    assert stack.drops[DropReason.MALFORMED] == 1
    assert not stack.drops[DropReason.FAULT]
    # The next one is none the worse.
    monkeypatch.undo()
    stack.handle_packets([packet], NOW)
    assert len(answers(stack)) == 1


def test_a_message_that_is_too_long_for_ip() -> None:
    for ours, theirs, most in ((A4, B4, 65_507), (A6, B6, 65_527)):
        kind = 0 if len(ours) == 4 else 129
        assert scapy_wire.build_icmp(IcmpMessage(ours, theirs, kind, 0, 0, bytes(most)))
        with pytest.raises(ProtocolError) as caught:
            scapy_wire.build_icmp(IcmpMessage(ours, theirs, kind, 0, 0, bytes(most + 1)))
        assert caught.value.reason is DropReason.MALFORMED


def test_the_checksum_of_the_request_is_right() -> None:
    """So that the tests above test what they say."""
    request = echo_request(A6, B6, 100)
    assert checksum(pseudo_header(B6, A6, ICMPV6, 100) + request) in (0, 65535)
