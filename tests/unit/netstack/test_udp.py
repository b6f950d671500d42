"""UdpEndpoint on a stack that only takes notes."""

from __future__ import annotations

import errno

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minivpn_trio.errors import DropReason
from minivpn_trio.netstack import scapy_wire
from minivpn_trio.netstack.packets import Address, Fragment, UdpDatagram
from minivpn_trio.netstack.udp import Remote, UdpEndpoint, build_udp

A4, B4, C4 = bytes([10, 8, 0, 6]), bytes([10, 8, 0, 1]), bytes([10, 8, 0, 9])
A6, B6 = bytes(15) + b"\6", bytes(15) + b"\1"


class NoteTaker:
    """A UdpStack."""

    def __init__(self, mtu: int = 1400) -> None:
        self.mtu = mtu
        self.reserved = 0
        self.sent: list[bytes] = []
        self.released: list[UdpEndpoint] = []

    def bind_udp(
        self, handler: UdpEndpoint, local: tuple[Address | None, int] | None = None, remote: Remote | None = None
    ) -> tuple[Address | None, int]:
        return local or (None, 4000)

    def release_udp(self, handler: UdpEndpoint) -> None:
        self.released.append(handler)

    def source_for(self, remote: Address) -> Address:
        return A4 if len(remote) == 4 else A6

    def is_own(self, address: Address) -> bool:
        return address in (A4, A6) or address[0] == 127

    def reserve(self, size: int) -> bool:
        self.reserved += size
        return self.reserved <= 1 << 20

    def mtu_to(self, remote: Address) -> int:
        return self.mtu

    def next_ident(self, remote: Address) -> int:
        return 99

    def send_ip(self, packet: bytes) -> bool:
        self.sent.append(packet)
        return True

    def has_room(self, credit: bool) -> bool:
        return True

    def wait_turn(self, waiter: UdpEndpoint) -> None:
        raise AssertionError("there is room")

    def leave_turn(self, waiter: UdpEndpoint) -> None:
        pass


@pytest.fixture
def stack() -> NoteTaker:
    return NoteTaker()


def arrive(endpoint: UdpEndpoint, payload: bytes, src: bytes = B4, sport: int = 53) -> None:
    endpoint.handle_datagram(UdpDatagram(src, A4, sport, 4000, payload))


def raises(number: int) -> pytest.RaisesExc[OSError]:
    return pytest.RaisesExc(OSError, check=lambda exc: exc.errno == number)


@given(
    st.sampled_from([(A4, B4), (A6, B6)]), st.integers(1, 65535), st.integers(1, 65535), st.binary(max_size=200),
    st.integers(0, 65535), st.integers(1, 255),
)  # fmt: skip
def test_the_fast_builder_builds_what_scapy_builds(
    ends: tuple[bytes, bytes], sport: int, dport: int, payload: bytes, ident: int, ttl: int
) -> None:
    datagram = UdpDatagram(*ends, sport, dport, payload)
    assert build_udp(datagram, ident=ident, ttl=ttl) == scapy_wire.build_udp(datagram, ident=ident, ttl=ttl)


def test_a_checksum_of_zero_is_sent_as_its_other_form() -> None:
    probe = build_udp(UdpDatagram(A4, B4, 1, 2, b"\0\0"))
    assert build_udp(UdpDatagram(A4, B4, 1, 2, probe[26:28]))[26:28] == b"\xff\xff"


def test_sending(stack: NoteTaker) -> None:
    endpoint = UdpEndpoint(stack)
    endpoint.ttl = 3
    assert endpoint.sendto(b"query", (B4, 53)) == 5
    assert scapy_wire.parse_untrusted(stack.sent[0]) == UdpDatagram(A4, B4, 4000, 53, b"query")
    assert stack.sent[0][8] == 3
    endpoint.connect((C4, 54))
    endpoint.sendto(b"x")
    assert scapy_wire.parse_untrusted(stack.sent[1]) == UdpDatagram(A4, C4, 4000, 54, b"x")


def test_what_does_not_fit_goes_in_fragments(stack: NoteTaker) -> None:
    endpoint = UdpEndpoint(stack)
    endpoint.sendto(bytes(1372), (B4, 53))
    assert len(stack.sent) == 1
    assert len(stack.sent[0]) == 1400
    endpoint.sendto(bytes(1373), (B4, 53))
    pieces = [scapy_wire.parse_untrusted(packet) for packet in stack.sent[1:]]
    assert [(piece.offset, piece.more) for piece in pieces if isinstance(piece, Fragment)] == [(0, True), (1376, False)]


def test_what_cannot_be_sent(stack: NoteTaker) -> None:
    endpoint = UdpEndpoint(stack, (A4, 4000))
    with raises(errno.EDESTADDRREQ):
        endpoint.sendto(b"x")
    with raises(errno.EMSGSIZE):
        endpoint.sendto(bytes(65508), (B4, 53))
    with raises(errno.EAFNOSUPPORT):
        endpoint.sendto(b"x", (B6, 53))
    with raises(errno.EINVAL):
        endpoint.sendto(b"x", (B4, 0))
    assert not stack.sent


def test_datagrams_keep_their_boundaries_and_order(stack: NoteTaker) -> None:
    endpoint = UdpEndpoint(stack)
    woken: list[bool] = []
    endpoint.on_change = lambda: woken.append(endpoint.readable)
    assert not endpoint.readable
    assert endpoint.recvfrom() is None
    arrive(endpoint, b"one")
    arrive(endpoint, b"")
    assert woken == [True, True]
    assert endpoint.recvfrom() == (b"one", (B4, 53))
    assert endpoint.recvfrom() == (b"", (B4, 53))
    assert endpoint.recvfrom() is None


def test_a_connected_endpoint_hears_one_peer(stack: NoteTaker) -> None:
    endpoint = UdpEndpoint(stack)
    arrive(endpoint, b"early", src=C4)
    arrive(endpoint, b"kept")
    endpoint.connect((B4, 53))
    arrive(endpoint, b"wrong host", src=C4)
    arrive(endpoint, b"wrong port", sport=54)
    assert endpoint.recvfrom() == (b"kept", (B4, 53))
    assert endpoint.recvfrom() is None
    assert endpoint.drops == {DropReason.NO_SOCKET: 2}


def test_a_full_queue_drops_the_newest(stack: NoteTaker) -> None:
    endpoint = UdpEndpoint(stack, max_queued=2, max_queued_bytes=2000)
    arrive(endpoint, b"1")
    arrive(endpoint, b"2")
    arrive(endpoint, b"3")
    assert endpoint.recvfrom() == (b"1", (B4, 53))
    arrive(endpoint, bytes(1800))
    assert endpoint.drops == {DropReason.QUEUE_FULL: 2}
    assert endpoint.recvfrom() == (b"2", (B4, 53))
    # Everything was taken, so everything was given back.
    arrive(endpoint, bytes(1800))
    assert endpoint.recvfrom() == (bytes(1800), (B4, 53))


def test_an_icmp_error_is_reported_once_and_only_when_connected(stack: NoteTaker) -> None:
    endpoint = UdpEndpoint(stack)
    endpoint.handle_error(OSError(errno.ECONNREFUSED, "refused"))
    assert endpoint.recvfrom() is None
    endpoint.connect((B4, 53))
    endpoint.handle_error(OSError(errno.ECONNREFUSED, "refused"))
    assert endpoint.readable
    with raises(errno.ECONNREFUSED):
        endpoint.sendto(b"x")
    assert endpoint.sendto(b"x") == 1
    assert endpoint.error is None


def test_the_loss_of_the_tunnel_is_for_good(stack: NoteTaker) -> None:
    endpoint = UdpEndpoint(stack)
    arrive(endpoint, b"last words")
    endpoint.handle_error(OSError(errno.ENETDOWN, "down"))
    assert endpoint.recvfrom() == (b"last words", (B4, 53))
    for _ in range(2):
        with raises(errno.ENETDOWN):
            endpoint.recvfrom()
        with raises(errno.ENETDOWN):
            endpoint.sendto(b"x", (B4, 53))


def test_closing(stack: NoteTaker) -> None:
    endpoint = UdpEndpoint(stack)
    arrive(endpoint, b"unread")
    endpoint.close()
    endpoint.close()
    assert stack.released == [endpoint]
    arrive(endpoint, b"late")
    endpoint.handle_error(OSError(errno.ENETDOWN, "down"))
    with raises(errno.EBADF):
        endpoint.recvfrom()
    with raises(errno.EBADF):
        endpoint.sendto(b"x", (B4, 53))
