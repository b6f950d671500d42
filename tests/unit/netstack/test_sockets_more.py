"""The rest of what a socket has: peeking, recvmsg, ping sockets, options that ask about the path."""

from __future__ import annotations

import errno
import socket as stdlib
from collections import deque
from collections.abc import AsyncIterator
from struct import pack, unpack_from

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock
from two_stacks import FAR, FAR6, NEAR, Host, connect, fill, receive_exactly, two_stacks

from minivpn_trio.netstack.sockets import TunSocket
from minivpn_trio.netstack.tcp.receiver import Receiver


def raises(number: int) -> pytest.RaisesExc[OSError]:
    return pytest.RaisesExc(OSError, check=lambda exc: exc.errno == number)


@pytest.fixture
async def hosts() -> AsyncIterator[tuple[Host, Host]]:
    async with two_stacks() as pair:
        yield pair


def test_it_has_all_that_a_socket_of_trio_has() -> None:
    members = {name for name in dir(trio.socket.SocketType) if not name.startswith("__")}
    assert {name for name in members if getattr(TunSocket, name) is getattr(trio.socket.SocketType, name)} == set()


async def test_peeking_at_a_stream(autojump_clock: MockClock, hosts: tuple[Host, Host]) -> None:
    ours, theirs = await connect(*hosts)
    got: list[bytes] = []

    async def peek() -> None:
        got.append(await ours.recv(100, stdlib.MSG_PEEK))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(peek)
        await trio.sleep(1)
        await theirs.send(b"abc")
    await theirs.send(b"def")
    await trio.sleep(1)
    assert got == [b"abc"]
    assert await ours.recv(4, stdlib.MSG_PEEK) == b"abcd"
    assert await ours.recv(100, stdlib.MSG_PEEK | stdlib.MSG_DONTWAIT) == b"abcdef"
    assert await ours.recv(100, stdlib.MSG_WAITALL) == b"abcdef"
    theirs.close()
    assert await ours.recv(1, stdlib.MSG_PEEK) == await ours.recv(1) == b""


async def test_peeking_opens_no_window(autojump_clock: MockClock, hosts: tuple[Host, Host]) -> None:
    ours, theirs = await connect(*hosts)
    total = await fill(theirs)
    data = await ours.recv(1 << 20, stdlib.MSG_PEEK)
    assert data == await ours.recv(1 << 20, stdlib.MSG_PEEK)
    await trio.sleep(60)
    assert len(await receive_exactly(ours, total)) == total


@given(st.lists(st.binary(min_size=1, max_size=5)), st.integers(0, 20))
def test_what_is_peeked_is_what_is_read(chunks: list[bytes], most: int) -> None:
    receiver = Receiver.__new__(Receiver)
    receiver.chunks = deque(chunks)
    assert receiver.peek(most) == b"".join(chunks)[:most]
    assert list(receiver.chunks) == chunks


async def test_peeking_at_datagrams_and_recvmsg(autojump_clock: MockClock, hosts: tuple[Host, Host]) -> None:
    near, far = hosts
    with near.socket(type=stdlib.SOCK_DGRAM) as ours, far.socket(type=stdlib.SOCK_DGRAM) as theirs:
        await ours.bind(("", 9))
        await theirs.bind(("", 10))
        for payload in (b"first", b"second", b"third", b"", b"fifth"):
            await theirs.sendto(payload, (NEAR, 9))
        await trio.sleep(1)
        assert await ours.recvfrom(100, stdlib.MSG_PEEK) == (b"first", (FAR, 10))
        assert await ours.recv(2, stdlib.MSG_PEEK) == b"fi"
        assert await ours.recvmsg(3) == (b"fir", [], stdlib.MSG_TRUNC, (FAR, 10))
        pieces = [bytearray(4), bytearray(4)]
        assert await ours.recvmsg_into(pieces, 0, stdlib.MSG_PEEK) == (6, [], 0, (FAR, 10))
        assert pieces == [b"seco", b"nd\0\0"]
        assert await ours.recvmsg(100) == (b"second", [], 0, (FAR, 10))
        assert await ours.recv(100) == b"third"
        assert await ours.recv(100, stdlib.MSG_PEEK) == b""
        assert await ours.recv(100) == b""
        assert await ours.recv(100) == b"fifth"
        with raises(errno.EOPNOTSUPP):
            await ours.recvmsg(1, 0, stdlib.MSG_ERRQUEUE)


async def test_recvmsg_of_a_stream(autojump_clock: MockClock, hosts: tuple[Host, Host]) -> None:
    ours, theirs = await connect(*hosts)
    await theirs.send(b"abcdef")
    await trio.sleep(1)
    assert await ours.recvmsg(4) == (b"abcd", [], 0, None)
    pieces = [bytearray(1), bytearray(5)]
    assert await ours.recvmsg_into(pieces) == (2, [], 0, None)
    assert pieces == [b"e", b"f\0\0\0\0"]


async def test_a_small_buffer_for_datagrams(autojump_clock: MockClock, hosts: tuple[Host, Host]) -> None:
    near, far = hosts
    with near.socket(type=stdlib.SOCK_DGRAM) as ours, far.socket(type=stdlib.SOCK_DGRAM) as theirs:
        ours.setsockopt(stdlib.SOL_SOCKET, stdlib.SO_RCVBUF, 2400)
        await ours.bind(("", 9))
        for _ in range(10):
            await theirs.sendto(bytes(1000), (NEAR, 9))
        await trio.sleep(1)
        count = 0
        while ours.is_readable():
            await ours.recv(2000)
            count += 1
        assert count == 4


# --- ping sockets ----------------------------------------------------------------------------------------------------

V4 = pytest.param(stdlib.AF_INET, stdlib.IPPROTO_ICMP, FAR, 8, 0, id="v4")
V6 = pytest.param(stdlib.AF_INET6, stdlib.IPPROTO_ICMPV6, FAR6, 128, 129, id="v6")


@pytest.mark.parametrize(("family", "proto", "peer", "request_type", "reply_type"), [V4, V6])
async def test_a_ping_socket(
    autojump_clock: MockClock, hosts: tuple[Host, Host], family: int, proto: int, peer: str, request_type: int,
    reply_type: int,
) -> None:  # fmt: skip
    near, _ = hosts
    with near.socket(family, stdlib.SOCK_DGRAM, proto=proto) as ours:
        assert ours.getsockopt(stdlib.SOL_SOCKET, stdlib.SO_PROTOCOL) == proto
        request = pack("!BBHHH", request_type, 0, 0xDEAD, 0xBEEF, 7) + b"payload"
        assert await ours.sendto(request, (peer, 0)) == len(request)
        identifier = ours.getsockname()[1]
        assert identifier != 0
        peeked = await ours.recvfrom(100, stdlib.MSG_PEEK)
        reply, sender = await ours.recvfrom(100)
        assert (reply, sender) == peeked
        assert sender[:2] == (peer, 0)
        assert (reply[:2], unpack_from("!HH", reply, 4)) == (bytes((reply_type, 0)), (identifier, 7))
        assert reply[8:] == b"payload"
        if family == stdlib.AF_INET:
            assert int.from_bytes(reply + b"\0", "big") % 65535 == 0
        for bad in (b"", request[:7], bytes((reply_type,)) + request[1:], request[:1] + b"\1" + request[2:]):
            with raises(errno.EINVAL):
                await ours.sendto(bad, (peer, 0))
        with raises(errno.EDESTADDRREQ):
            await ours.send(request)
        with raises(errno.EMSGSIZE):
            await ours.sendto(request + bytes(1400), (peer, 0))
        other = near.socket(family, stdlib.SOCK_DGRAM, proto=proto)
        with raises(errno.EADDRINUSE):
            await other.bind(("", identifier))
        with trio.move_on_after(1) as scope:
            await ours.recv(1)
        assert scope.cancelled_caught


async def test_a_connected_ping_socket_hears_of_errors(autojump_clock: MockClock, hosts: tuple[Host, Host]) -> None:
    near, _ = hosts
    with near.socket(type=stdlib.SOCK_DGRAM, proto=stdlib.IPPROTO_ICMP) as ours:
        await ours.connect((FAR, 0))
        assert ours.getpeername() == (FAR, 0)
        await ours.send(pack("!BBHHH", 8, 0, 0, 0, 1))
        assert (await ours.recv(100))[:1] == b"\0"
        near.pump.fail()
        with raises(errno.ENETDOWN):
            await ours.recv(1)
    with raises(errno.EPROTONOSUPPORT):
        near.socket(type=stdlib.SOCK_DGRAM, proto=stdlib.IPPROTO_ICMPV6)


async def test_options_about_the_path(autojump_clock: MockClock, hosts: tuple[Host, Host]) -> None:
    near, far = hosts
    ours, _ = await connect(near, far)
    assert ours.getsockopt(stdlib.IPPROTO_IP, 14) == 1400
    assert ours.getsockopt(stdlib.IPPROTO_TCP, stdlib.TCP_MAXSEG) == 1360
    with near.socket(type=stdlib.SOCK_DGRAM) as datagrams:
        with raises(errno.ENOTCONN):
            datagrams.getsockopt(stdlib.IPPROTO_IP, 14)
        await datagrams.connect((FAR, 9))
        assert datagrams.getsockopt(stdlib.IPPROTO_IP, 14) == 1400
