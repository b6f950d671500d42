"""What Trio promises of a socket: checkpoints, cancellation, one task at a time, closing, options, names."""

from __future__ import annotations

import errno
import random
import socket as stdlib
import struct
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import trio
import trio.testing
from trio.testing import MockClock
from two_stacks import NEAR, Host, connect, fill, receive_exactly, send_all, two_stacks

from minivpn_trio.netstack.sockets import TunSocket
from minivpn_trio.testing.link import LinkConditions

Call = Callable[[TunSocket], Awaitable[object]]
BLOCKING: dict[str, Call] = {
    "recv": lambda socket: socket.recv(1),
    "send": lambda socket: socket.send(b"x"),
    "wait_writable": lambda socket: socket.wait_writable(),
}


def raises(number: int) -> pytest.RaisesExc[OSError]:
    return pytest.RaisesExc(OSError, check=lambda exc: exc.errno == number)


@pytest.fixture
async def hosts() -> AsyncIterator[tuple[Host, Host]]:
    async with two_stacks() as pair:
        yield pair


async def test_names(autojump_clock: MockClock, hosts: tuple[Host, Host]) -> None:
    ours, theirs = await connect(*hosts)
    assert ours.getpeername() == theirs.getsockname() == ("10.8.0.1", 80)
    assert ours.getsockname() == theirs.getpeername()
    assert ours.getsockname()[0] == NEAR
    six, _ = await connect(*hosts, stdlib.AF_INET6)
    assert six.getpeername() == ("fd00::1", 80, 0, 0)
    assert (six.family, six.type, six.proto) == (stdlib.AF_INET6, stdlib.SOCK_STREAM, 0)
    # anyio reads these from Trio's private attribute.
    assert six._sock.getpeername() == six.getpeername()
    fresh = hosts[0].socket()
    assert fresh.getsockname() == ("0.0.0.0", 0)
    with raises(errno.ENOTCONN):
        fresh.getpeername()


async def test_addresses_that_cannot_be(autojump_clock: MockClock, hosts: tuple[Host, Host]) -> None:
    near, far = hosts
    with raises(errno.EAFNOSUPPORT):
        await near.socket().connect((far.address6, 80))
    for bad in ("10.8.0.1", ("10.8.0.1",), ("10.8.0.1", 80, 0)):
        with pytest.raises(ValueError, match="tuple"):
            await near.socket().connect(bad)
    with pytest.raises(OverflowError):
        await near.socket().connect(("10.8.0.1", 65536))
    with raises(errno.EAFNOSUPPORT):
        near.socket(stdlib.AF_UNIX)
    with raises(errno.EPROTONOSUPPORT):
        near.socket(stdlib.AF_INET, stdlib.SOCK_RAW)
    with raises(errno.EPROTONOSUPPORT):
        near.socket(stdlib.AF_INET, stdlib.SOCK_STREAM, proto=17)
    with raises(errno.EADDRNOTAVAIL):
        await near.socket(type=stdlib.SOCK_DGRAM).bind(("192.0.2.1", 5))
    with pytest.raises(TypeError, match="abstract"):
        trio.socket.SocketType()


async def test_connecting_twice(autojump_clock: MockClock, hosts: tuple[Host, Host]) -> None:
    ours, _ = await connect(*hosts)
    with raises(errno.EISCONN):
        await ours.connect(("10.8.0.1", 80))


@pytest.mark.parametrize("call", BLOCKING.values(), ids=BLOCKING)
async def test_an_unconnected_socket(autojump_clock: MockClock, hosts: tuple[Host, Host], call: Call) -> None:
    socket = hosts[0].socket()
    with raises(errno.ENOTCONN):
        await call(socket)
    with raises(errno.ENOTCONN):
        socket.shutdown(stdlib.SHUT_WR)
    with raises(errno.EINVAL):
        await socket.accept()
    assert not socket.is_readable()


@pytest.mark.parametrize("call", BLOCKING.values(), ids=BLOCKING)
async def test_a_closed_socket(autojump_clock: MockClock, hosts: tuple[Host, Host], call: Call) -> None:
    ours, theirs = await connect(*hosts)
    assert ours.fileno() > 1 << 30, "no descriptor can have this number, and -1 would say closed"
    with ours:
        pass
    ours.close()
    assert ours.fileno() == -1
    assert "closed" in repr(ours)
    with trio.testing.assert_checkpoints(), raises(errno.EBADF):
        await call(ours)
    for name in ("getsockname", "getpeername"):
        with raises(errno.EBADF):
            getattr(ours, name)()
    with raises(errno.EBADF):
        ours.getsockopt(stdlib.SOL_SOCKET, stdlib.SO_TYPE)
    assert await theirs.recv(1) == b""


@pytest.mark.parametrize("call", BLOCKING.values(), ids=BLOCKING)
async def test_closing_wakes_the_blocked(
    autojump_clock: MockClock, hosts: tuple[Host, Host], call: Call
) -> None:
    ours, _ = await connect(*hosts)
    await fill(ours)

    async def blocked() -> None:
        with pytest.raises(trio.ClosedResourceError):
            await call(ours)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(blocked)
        await trio.testing.wait_all_tasks_blocked()
        ours.close()


@pytest.mark.parametrize("call", BLOCKING.values(), ids=BLOCKING)
async def test_one_receiver_and_one_sender(
    autojump_clock: MockClock, hosts: tuple[Host, Host], call: Call
) -> None:
    ours, _ = await connect(*hosts)
    await fill(ours)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ours.recv, 1)
        nursery.start_soon(ours.send, b"x")
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError):
            await call(ours)
        nursery.cancel_scope.cancel()
    # Nobody is in the way any more.
    with trio.move_on_after(1) as scope:
        await call(ours)
    assert scope.cancelled_caught


async def test_a_cancelled_receive_takes_nothing(autojump_clock: MockClock, hosts: tuple[Host, Host]) -> None:
    ours, theirs = await connect(*hosts)
    await send_all(theirs, b"precious")
    await trio.sleep(1)
    for _ in range(3):
        with trio.CancelScope() as scope:
            scope.cancel()
            await ours.recv(100)
        assert scope.cancelled_caught
    assert await ours.recv(100) == b"precious"


async def test_cancelling_at_the_moment_of_arrival_loses_nothing(autojump_clock: MockClock) -> None:
    async with two_stacks(LinkConditions(delay=0.01)) as (near, far):
        ours, theirs = await connect(near, far)
        data = random.Random(5).randbytes(20_000)
        got = b""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send_all, theirs, data)
            while len(got) < len(data):
                # Deadline and arrival fall on the same tick of the virtual clock.
                with trio.move_on_after(0.01):
                    got += await ours.recv(3000)
        assert got == data


async def test_a_cancelled_send_sends_nothing(autojump_clock: MockClock, hosts: tuple[Host, Host]) -> None:
    ours, theirs = await connect(*hosts)
    with trio.CancelScope() as scope:
        scope.cancel()
        await ours.send(b"never")
    assert scope.cancelled_caught
    await ours.send(b"always")
    assert await theirs.recv(100) == b"always"


async def test_a_cancelled_accept_loses_no_connection(autojump_clock: MockClock, hosts: tuple[Host, Host]) -> None:
    near, far = hosts
    listener = await far.listen()
    await near.socket().connect((far.address, 80))
    await trio.sleep(1)
    with trio.CancelScope() as scope:
        scope.cancel()
        await listener.accept()
    assert scope.cancelled_caught
    assert listener.is_readable()
    with trio.testing.assert_checkpoints():
        await listener.accept()
    assert not listener.is_readable()


async def test_everything_checkpoints(autojump_clock: MockClock, hosts: tuple[Host, Host]) -> None:
    ours, theirs = await connect(*hosts)
    await theirs.send(b"abc")
    await trio.sleep(1)
    calls: list[Callable[[], Awaitable[object]]] = [
        lambda: ours.recv(1), lambda: ours.recv(0), lambda: ours.send(b""), lambda: ours.send(b"x"), ours.wait_writable,
        lambda: hosts[0].socket().bind(("", 0)), lambda: hosts[0].socket(type=stdlib.SOCK_DGRAM).bind(("", 0)),
    ]  # fmt: skip
    for call in calls:
        with trio.testing.assert_checkpoints():
            await call()


async def test_writable_is_one_level(autojump_clock: MockClock, hosts: tuple[Host, Host]) -> None:
    """Where wait_writable waits, send blocks for even a byte; where it returns, send takes some."""
    ours, theirs = await connect(*hosts)
    total = await fill(ours)
    with trio.move_on_after(60) as scope:
        await ours.wait_writable()
    assert scope.cancelled_caught
    with trio.move_on_after(60) as scope:
        await ours.send(b"x")
    assert scope.cancelled_caught
    async with trio.open_nursery() as nursery:
        nursery.start_soon(receive_exactly, theirs, total)
        await ours.wait_writable()
        assert await ours.send(bytes(5)) == 5


async def test_is_readable(autojump_clock: MockClock, hosts: tuple[Host, Host]) -> None:
    """What httpcore asks before it uses a kept connection again."""
    ours, theirs = await connect(*hosts)
    assert not ours.is_readable()
    await theirs.send(b"x")
    await trio.sleep(1)
    assert ours.is_readable()
    await ours.recv(1)
    assert not ours.is_readable()
    theirs.close()
    await trio.sleep(1)
    assert ours.is_readable()


async def test_options(autojump_clock: MockClock, hosts: tuple[Host, Host]) -> None:
    socket = hosts[0].socket()
    stream = trio.SocketStream(socket)
    stream.setsockopt(stdlib.IPPROTO_TCP, stdlib.TCP_NODELAY, 1)
    assert stream.getsockopt(stdlib.IPPROTO_TCP, stdlib.TCP_NODELAY) == 1
    socket.setsockopt(stdlib.SOL_SOCKET, stdlib.SO_KEEPALIVE, struct.pack("i", 1))
    assert socket.getsockopt(stdlib.SOL_SOCKET, stdlib.SO_KEEPALIVE) == 1
    assert socket.getsockopt(stdlib.SOL_SOCKET, stdlib.SO_KEEPALIVE, 4) == struct.pack("i", 1)
    assert socket.getsockopt(stdlib.SOL_SOCKET, stdlib.SO_TYPE) == stdlib.SOCK_STREAM
    assert socket.getsockopt(stdlib.SOL_SOCKET, stdlib.SO_DOMAIN) == stdlib.AF_INET
    assert socket.getsockopt(stdlib.SOL_SOCKET, stdlib.SO_PROTOCOL) == stdlib.IPPROTO_TCP
    assert socket.getsockopt(stdlib.SOL_SOCKET, stdlib.SO_ACCEPTCONN) == 0
    assert socket.getsockopt(stdlib.SOL_SOCKET, stdlib.SO_ERROR) == 0
    listener = await hosts[1].listen()
    assert listener.getsockopt(stdlib.SOL_SOCKET, stdlib.SO_ACCEPTCONN) == 1
    with raises(errno.ENOPROTOOPT):
        socket.setsockopt(stdlib.SOL_SOCKET, 9999, 1)
    with raises(errno.ENOPROTOOPT):
        socket.getsockopt(stdlib.SOL_SOCKET, 9999)
    with raises(errno.EINVAL):
        socket.setsockopt(stdlib.SOL_SOCKET, stdlib.SO_LINGER, 1)
    with pytest.raises(TypeError):
        socket.setsockopt(stdlib.SOL_SOCKET, stdlib.SO_KEEPALIVE, None, 4)


async def test_what_needs_a_descriptor(autojump_clock: MockClock, hosts: tuple[Host, Host]) -> None:
    socket = hosts[0].socket()
    for unsupported in (socket.dup, socket.detach, lambda: socket.set_inheritable(True)):
        with raises(errno.EOPNOTSUPP):
            unsupported()
    assert not socket.get_inheritable()


async def test_other_ways_to_receive_and_send(autojump_clock: MockClock, hosts: tuple[Host, Host]) -> None:
    ours, theirs = await connect(*hosts)
    assert await ours.sendmsg([b"ab", memoryview(b"cd")]) == 4
    assert await ours.sendto(b"ef", ("10.8.0.1", 80)) == 2
    buffer = bytearray(10)
    await trio.sleep(1)
    assert await theirs.recv_into(buffer) == 6
    assert buffer[:6] == b"abcdef"
    await ours.send(b"gh")
    assert await theirs.recvfrom(1) == (b"g", None)
    assert await theirs.recvfrom_into(buffer) == (1, None)
    assert await theirs.recv(0) == b""
    with pytest.raises(ValueError, match="negative"):
        await theirs.recv(-1)
    with pytest.raises(TypeError):
        await theirs.recv(1.5)  # type: ignore[arg-type]
    with raises(errno.EOPNOTSUPP):
        await theirs.recv(1, stdlib.MSG_OOB)
    with raises(errno.EOPNOTSUPP):
        await ours.send(b"", stdlib.MSG_OOB)
    with raises(errno.EOPNOTSUPP):
        await ours.sendmsg([b"x"], [(0, 0, b"")])
