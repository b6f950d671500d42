"""Echo, and reading errors about our own packets."""

from __future__ import annotations

import errno
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minivpn_trio.errors import DropReason, ProtocolError
from minivpn_trio.netstack import scapy_wire
from minivpn_trio.netstack.icmp import (
    EchoReply,
    IcmpEndpoint,
    Quote,
    echo_reply,
    error_of,
    is_error,
    mtu_of,
    quote_untrusted,
)
from minivpn_trio.netstack.packets import SYN, Address, IcmpMessage, TcpSegment, UdpDatagram

A4, B4, R4 = bytes([10, 8, 0, 6]), bytes([10, 8, 0, 1]), bytes([192, 0, 2, 1])
A6, B6, R6 = bytes(15) + b"\6", bytes(15) + b"\1", bytes(15) + b"\7"


class NoteTaker:
    """An IcmpStack."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.released = 0

    def bind_icmp(self, handler: IcmpEndpoint, identifier: int | None = None) -> int:
        return 0xABCD if identifier is None else identifier

    def release_icmp(self, handler: IcmpEndpoint) -> None:
        self.released += 1

    def source_for(self, remote: Address) -> Address:
        return A4 if len(remote) == 4 else A6

    def mtu_to(self, remote: Address) -> int:
        return 1400

    def send_ip(self, packet: bytes) -> bool:
        self.sent.append(packet)
        return True


def raises(number: int) -> pytest.RaisesExc[OSError]:
    return pytest.RaisesExc(OSError, check=lambda exc: exc.errno == number)


@pytest.mark.parametrize(("own", "peer", "request_type", "reply_type"), [(A4, B4, 8, 0), (A6, B6, 128, 129)])
def test_echo_there_and_back(own: bytes, peer: bytes, request_type: int, reply_type: int) -> None:
    stack = NoteTaker()
    endpoint = IcmpEndpoint(stack)
    woken: list[bool] = []
    endpoint.on_change = lambda: woken.append(True)
    endpoint.send_echo(peer, 0x10007, b"data")
    request = scapy_wire.parse_untrusted(stack.sent[0])
    assert request == IcmpMessage(own, peer, request_type, 0, 0xABCD0007, b"data")
    assert isinstance(request, IcmpMessage)
    reply = echo_reply(request)
    assert reply == IcmpMessage(peer, own, reply_type, 0, 0xABCD0007, b"data")
    assert echo_reply(reply) is None
    endpoint.handle_message(reply)
    assert woken
    assert endpoint.take_reply() == EchoReply(peer, 7, b"data")
    assert endpoint.take_reply() is None


def test_replies_that_are_not_ours() -> None:
    endpoint = IcmpEndpoint(NoteTaker(), 5)
    for message in (
        IcmpMessage(B4, A4, 0, 0, 6 << 16 | 1), IcmpMessage(B4, A4, 0, 1, 5 << 16 | 1),
        IcmpMessage(B4, A4, 8, 0, 5 << 16),
        IcmpMessage(B4, A4, 5, 0, 0, bytes(28)), IcmpMessage(B6, A6, 0, 0, 5 << 16),
    ):  # fmt: skip
        endpoint.handle_message(message)
        assert not endpoint.readable


def test_queues_are_bounded_and_keep_the_newest() -> None:
    endpoint = IcmpEndpoint(NoteTaker(), 5, max_queued=2)
    for sequence in range(5):
        endpoint.handle_message(IcmpMessage(B4, A4, 0, 0, 5 << 16 | sequence))
    replies = [endpoint.take_reply(), endpoint.take_reply(), endpoint.take_reply()]
    assert [reply.sequence for reply in replies if reply] == [3, 4]


def test_what_cannot_be_sent() -> None:
    stack = NoteTaker()
    endpoint = IcmpEndpoint(stack)
    endpoint.send_echo(B4, 1, bytes(1372))
    with raises(errno.EMSGSIZE):
        endpoint.send_echo(B4, 1, bytes(1373))
    with raises(errno.EMSGSIZE):
        endpoint.send_echo(B6, 1, bytes(1353))
    endpoint.handle_error(OSError(errno.ENETDOWN, "down"))
    assert endpoint.readable
    with raises(errno.ENETDOWN):
        endpoint.send_echo(B4, 1, b"")
    endpoint.close()
    endpoint.close()
    assert stack.released == 1
    with raises(errno.EBADF):
        endpoint.send_echo(B4, 1, b"")


def unreachable(quoted: bytes, code: int = 1, kind: int = 3, rest: int = 0) -> IcmpMessage:
    return IcmpMessage(R4, A4, kind, code, rest, quoted)


def test_quotes_name_the_socket() -> None:
    """Also where no more than the IP header and 8 bytes are quoted, the least a router may."""
    syn = scapy_wire.build_tcp(TcpSegment(A4, B4, 4000, 80, 0xFFFFFFF0, 0, SYN, 5, mss=1460))
    assert quote_untrusted(unreachable(syn[:28])) == Quote(6, A4, B4, 4000, 80, 0xFFFFFFF0)
    assert quote_untrusted(unreachable(syn)).flow == (6, A4, 4000, B4, 80)
    udp = scapy_wire.build_udp(UdpDatagram(A4, B4, 4000, 53, b""))
    assert quote_untrusted(unreachable(udp)) == Quote(17, A4, B4, 4000, 53, 0)
    echo = scapy_wire.build_icmp(IcmpMessage(A4, B4, 8, 0, 5 << 16 | 9, b""))
    assert quote_untrusted(unreachable(echo)) == Quote(1, A4, B4, 5, 0, 9)
    syn6 = scapy_wire.build_tcp(TcpSegment(A6, B6, 4000, 80, 7, 0, SYN, 5))
    assert quote_untrusted(IcmpMessage(R6, A6, 1, 0, 0, syn6)) == Quote(6, A6, B6, 4000, 80, 7)
    echo6 = scapy_wire.build_icmp(IcmpMessage(A6, B6, 128, 0, 5 << 16 | 9, b""))
    assert quote_untrusted(IcmpMessage(R6, A6, 1, 0, 0, echo6)) == Quote(58, A6, B6, 5, 0, 9)


def test_quotes_that_prove_nothing() -> None:
    def reason(message: IcmpMessage) -> DropReason:
        with pytest.raises(ProtocolError) as caught:
            quote_untrusted(message)
        return caught.value.reason

    syn = scapy_wire.build_tcp(TcpSegment(A4, B4, 4000, 80, 1, 0, SYN, 5))
    assert reason(unreachable(syn[:27])) is DropReason.TOO_SHORT
    assert reason(unreachable(b"\x46" + syn[1:28])) is DropReason.TOO_SHORT
    # Not our packet: its source is not who the error is for.
    assert reason(IcmpMessage(R4, B4, 3, 1, 0, syn)) is DropReason.BAD_ADDRESS
    # A later fragment has no ports.
    assert reason(unreachable(syn[:6] + b"\x00\x05" + syn[8:])) is DropReason.FRAGMENT
    reply = scapy_wire.build_icmp(IcmpMessage(A4, B4, 0, 0, 1, b""))
    assert reason(unreachable(reply)) is DropReason.NO_SOCKET


@pytest.mark.parametrize(("message", "number"), [
    (unreachable(b"", 0), errno.ENETUNREACH),
    (unreachable(b"", 1), errno.EHOSTUNREACH),
    (unreachable(b"", 3), errno.ECONNREFUSED),
    (unreachable(b"", 4), errno.EMSGSIZE),
    (unreachable(b"", 13), errno.EHOSTUNREACH),
    (unreachable(b"", 0, kind=11), errno.EHOSTUNREACH),
    (IcmpMessage(R6, A6, 1, 4, 0), errno.ECONNREFUSED),
    (IcmpMessage(R6, A6, 1, 0, 0), errno.ENETUNREACH),
    (IcmpMessage(R6, A6, 2, 0, 1280), errno.EMSGSIZE),
])  # fmt: skip
def test_errno(message: IcmpMessage, number: int) -> None:
    """As Linux has them: icmp_err_convert in net/ipv4/icmp.c, tab_unreach in net/ipv6/icmp.c."""
    error = error_of(message)
    assert error is not None
    assert error.errno == number
    assert is_error(message)


def test_what_is_no_error() -> None:
    for message in (IcmpMessage(B4, A4, 0, 0, 0), IcmpMessage(B4, A4, 8, 0, 0), IcmpMessage(B6, A6, 128, 0, 0)):
        assert not is_error(message)
        assert error_of(message) is None
        assert mtu_of(message) is None


def test_packet_too_big() -> None:
    assert mtu_of(unreachable(b"", 4, rest=0xFFFF0514)) == 1300
    assert mtu_of(unreachable(b"", 1, rest=1300)) is None
    assert mtu_of(IcmpMessage(R6, A6, 2, 0, 1280)) == 1280


def test_an_error_about_our_request_reaches_the_endpoint() -> None:
    stack = NoteTaker()
    endpoint = IcmpEndpoint(stack)
    endpoint.send_echo(B4, 3, b"")
    endpoint.handle_message(unreachable(stack.sent[0], 1))
    error = endpoint.take_error()
    assert error is not None
    assert (error.src, error.dst, error.sequence, error.error.errno) == (R4, B4, 3, errno.EHOSTUNREACH)
    other = scapy_wire.build_icmp(IcmpMessage(A4, B4, 8, 0, 5 << 16 | 9, b""))
    endpoint.handle_message(unreachable(other, 1))
    assert endpoint.take_error() is None


@given(st.sampled_from([(R4, A4), (R6, A6)]), st.integers(0, 255), st.integers(0, 255), st.binary(max_size=80))
def test_hostile_messages_never_raise(ends: tuple[bytes, bytes], kind: int, code: int, payload: bytes) -> None:
    message = IcmpMessage(*ends, kind, code, 0, payload)
    error_of(message), mtu_of(message), echo_reply(message)
    IcmpEndpoint(NoteTaker(), 0).handle_message(message)
    with suppress(ProtocolError):
        quote_untrusted(message)
