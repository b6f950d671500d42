"""ICMP errors: those that the stack reports, and those about our own fragments that it believes."""

from __future__ import annotations

import errno
import random
import struct

import pytest

from minivpn_trio.errors import DropReason, ProtocolError
from minivpn_trio.netstack import scapy_wire
from minivpn_trio.netstack.fragments import split
from minivpn_trio.netstack.icmp import Quote, quote_untrusted
from minivpn_trio.netstack.packets import IcmpMessage, UdpDatagram
from minivpn_trio.netstack.stack import Limits, Stack

A4, B4 = bytes((10, 8, 0, 2)), bytes((10, 8, 0, 1))
A6, B6 = bytes.fromhex("fd00" + "00" * 13 + "02"), bytes.fromhex("fd00" + "00" * 13 + "01")
ENDS = pytest.mark.parametrize(("ours", "theirs"), [(A4, B4), (A6, B6)])
NOW = 1000.0


def make(seed: int = 1, addresses: tuple[bytes, ...] = (A4, A6), limits: Limits | None = None) -> Stack:
    return Stack(addresses=addresses, mtu=1400, rng=random.Random(seed).randbytes, now=NOW, limits=limits)


def ip(src: bytes, dst: bytes, protocol: int, payload: bytes) -> bytes:
    """Any protocol in one IP packet."""
    if len(src) == 4:
        header = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(payload), 7, 0, 64, protocol, 0, src, dst)
        checksum = 65535 - int.from_bytes(header, "big") % 65535
        return header[:10] + checksum.to_bytes(2, "big") + header[12:] + payload
    return struct.pack("!IHBB16s16s", 6 << 28, len(payload), protocol, 64, src, dst) + payload


def reported(stack: Stack) -> list[IcmpMessage]:
    messages = [scapy_wire.parse_untrusted(packet) for packet in stack.take_output(1000)]
    assert all(isinstance(message, IcmpMessage) for message in messages)
    return messages  # type: ignore[return-value]


def kind(message: IcmpMessage) -> tuple[int, int]:
    return message.type, message.code


# --- believed ---


@ENDS
def test_an_error_about_the_first_of_our_fragments_is_believed(ours: bytes, theirs: bytes) -> None:
    stack = make()
    endpoint = stack.open_udp((None, 0), (theirs, 4444))
    endpoint.sendto(bytes(3000))
    first, second, *_ = stack.take_output()
    too_big, unreachable = ((3, 4), (3, 3)) if len(ours) == 4 else ((2, 0), (1, 4))

    def give(code: tuple[int, int], rest: int, quoted: bytes) -> None:
        stack.handle_packets([scapy_wire.build_icmp(IcmpMessage(theirs, ours, *code, rest, quoted))], NOW)

    give(too_big, 1300, second)
    assert stack.mtu_to(theirs) == 1400
    assert stack.drops[DropReason.FRAGMENT] == 1
    give(too_big, 1300, first)
    assert stack.mtu_to(theirs) == 1300
    give(unreachable, 0, first[: 28 if len(ours) == 4 else 56])
    assert endpoint.error is not None and endpoint.error.errno == errno.ECONNREFUSED


def test_a_quote_of_a_fragment_that_is_cut_short() -> None:
    packet = ip(A6, B6, 44, struct.pack("!BxHI", 17, 1, 5) + struct.pack("!HHHH", 4000, 53, 8, 0))
    assert quote_untrusted(IcmpMessage(B6, A6, 1, 0, 0, packet)) == Quote(17, A6, B6, 4000, 53, 0)
    with pytest.raises(ProtocolError) as caught:
        quote_untrusted(IcmpMessage(B6, A6, 1, 0, 0, packet[:-1]))
    assert caught.value.reason is DropReason.TOO_SHORT


# --- reported ---


@ENDS
def test_a_closed_port_is_reported_to_who_sent_fragments(ours: bytes, theirs: bytes) -> None:
    """The error quotes a whole datagram, so the sender's own stack finds the socket."""
    near, far = make(1), make(2, (B4, B6))
    endpoint = near.open_udp((None, 0), (theirs, 5))
    endpoint.sendto(bytes(3000))
    far.handle_packets(near.take_output(), NOW)
    answers = far.take_output()
    assert len(answers) == 1 and len(answers[0]) <= 1280
    near.handle_packets(answers, NOW)
    assert endpoint.error is not None and endpoint.error.errno == errno.ECONNREFUSED


@ENDS
def test_an_unknown_protocol(ours: bytes, theirs: bytes) -> None:
    stack = make()
    packet = ip(theirs, ours, 132, bytes(2000))
    stack.handle_packets([packet], NOW)
    (message,) = reported(stack)
    assert kind(message) == ((3, 2) if len(ours) == 4 else (4, 1))
    assert (message.src, message.dst) == (ours, theirs)
    assert message.rest == (0 if len(ours) == 4 else 6)
    assert packet.startswith(message.payload) and len(message.payload) >= 548
    stack.handle_packets(split(packet, 1400, 9), NOW)
    (message,) = reported(stack)
    assert message.payload[40:] == bytes(len(message.payload) - 40)
    assert stack.drops[DropReason.NO_SOCKET] == 2


def test_the_pointer_is_where_the_unknown_header_was_announced() -> None:
    stack = make()
    options = bytes((60, 0, 1, 4, 0, 0, 0, 0)) + bytes((200, 1)) + b"\1\x0c" + bytes(12)
    stack.handle_packets([ip(B6, A6, 0, options + bytes(50)), ip(B6, A6, 0, options[:8] + b"\x3b" + options[9:])], NOW)
    (message,) = reported(stack)
    assert kind(message) == (4, 1)
    assert message.rest == 48


def test_what_nothing_is_reported_about() -> None:
    stack = make()
    elsewhere, multicast = bytes((10, 8, 0, 77)), bytes((224, 0, 0, 1))
    stack.handle_packets(
        [
            ip(B4, elsewhere, 132, bytes(20)), ip(B4, multicast, 132, bytes(20)), ip(multicast, A4, 132, bytes(20)),
            ip(A4, A4, 132, bytes(20)), ip(B6, b"\xff\x02" + bytes(13) + b"\1", 200, bytes(20)),
            ip(bytes(16), A6, 200, bytes(20)),
        ], NOW,
    )  # fmt: skip
    assert stack.take_output() == []
    # A piece that is not the first.
    stack.handle_packets(split(ip(B4, A4, 132, bytes(3000)), 1400, 1)[1:], NOW)
    stack.handle_packets(split(ip(B6, A6, 200, bytes(3000)), 1400, 1)[1:], NOW)
    stack.handle_timeout(NOW + 100)
    assert stack.take_output() == []
    assert stack.drops[DropReason.NO_SOCKET] == 6


@ENDS
def test_a_datagram_that_never_became_whole(ours: bytes, theirs: bytes) -> None:
    stack = make()
    datagram = scapy_wire.build_udp(UdpDatagram(theirs, ours, 53, 99, bytes(range(256)) * 12))
    first, *_ = split(datagram, 1400, 0x1234)
    stack.handle_packets([first], NOW)
    timeout = stack.next_timeout()
    assert timeout is not None
    stack.handle_timeout(timeout)
    (message,) = reported(stack)
    assert kind(message) == ((11, 1) if len(ours) == 4 else (3, 1))
    # The fragment as it came: only a time to live other than 64 would not be known any more.
    assert len(message.payload) >= 548
    assert first.startswith(message.payload)
    assert stack.stats().drops[DropReason.FRAGMENT] == 1


@ENDS
def test_not_if_it_was_an_error_itself(ours: bytes, theirs: bytes) -> None:
    stack = make()
    for code, expected in (((3, 1) if len(ours) == 4 else (1, 0), 0), ((8, 0) if len(ours) == 4 else (128, 0), 1)):
        message = IcmpMessage(theirs, ours, *code, 0, bytes(3000))
        stack.handle_packets(split(scapy_wire.build_icmp(message), 1400, 1)[:1], NOW)
        stack.handle_timeout(NOW + 100)
        assert len(reported(stack)) == expected


def test_errors_are_rationed() -> None:
    stack = make(limits=Limits(answers_per_second=5))
    stack.handle_packets([ip(B4, A4, 132, bytes(20))] * 20, NOW)
    assert len(reported(stack)) == 5
