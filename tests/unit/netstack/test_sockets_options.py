"""Options of stream sockets that do something, ports that bind chooses, and half of a socket shut down."""

from __future__ import annotations

import errno
import random
import socket as stdlib
import struct
from collections.abc import AsyncIterator
from dataclasses import replace
from itertools import pairwise

import pytest
import trio
import trio.testing
from trio.testing import MockClock
from two_stacks import FAR, FAR6, Host, connect, receive_exactly, send_all, two_stacks

from minivpn_trio.netstack.sockets import TunSocket
from minivpn_trio.netstack.tcp.congestion import ALGORITHMS
from minivpn_trio.netstack.tcp.settings import TcpSettings

CONGESTION = (stdlib.IPPROTO_TCP, getattr(stdlib, "TCP_CONGESTION", 13))
INFO = (stdlib.IPPROTO_TCP, getattr(stdlib, "TCP_INFO", 11))


def raises(number: int) -> pytest.RaisesExc[OSError]:
    return pytest.RaisesExc(OSError, check=lambda exc: exc.errno == number)


@pytest.fixture
async def hosts() -> AsyncIterator[tuple[Host, Host]]:
    async with two_stacks() as pair:
        yield pair


# --- congestion control ---


async def test_the_algorithm_is_asked_for_and_chosen(autojump_clock: MockClock, hosts: tuple[Host, Host]) -> None:
    near, far = hosts
    socket = near.socket()
    default = near.stack.settings.congestion
    assert socket.getsockopt(*CONGESTION, 16) == default.encode().ljust(16, b"\0")
    other = next(name for name in ALGORITHMS if name != default)
    socket.setsockopt(*CONGESTION, other.encode() + b"\0")
    assert socket.getsockopt(*CONGESTION, 100).rstrip(b"\0") == other.encode()
    assert socket.getsockopt(*CONGESTION, 3) == other.encode()[:3]
    for name in (b"vegas9000", b"", b"\xff"):
        with raises(errno.ENOENT):
            socket.setsockopt(*CONGESTION, name)
    with raises(errno.EINVAL):
        socket.setsockopt(*CONGESTION, 1)
    with raises(errno.ENOPROTOOPT):
        near.socket(type=stdlib.SOCK_DGRAM).setsockopt(*CONGESTION, other.encode())
    listener = await far.listen(80)
    await socket.connect((FAR, 80))
    connection = socket._connection
    assert connection is not None
    assert type(connection.sender.congestion) is type(ALGORITHMS[other](1000, 10))
    listener.close()


async def test_the_algorithm_of_a_live_connection_changes(autojump_clock: MockClock, hosts: tuple[Host, Host]) -> None:
    ours, theirs = await connect(*hosts)
    data = random.Random(1).randbytes(200_000)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(send_all, ours, data)
        got = b""
        connection = ours._connection
        assert connection is not None
        for name in [*ALGORITHMS] * 2:
            got += await receive_exactly(theirs, 20_000)
            before = connection.sender.congestion
            window = before.window
            ours.setsockopt(*CONGESTION, name.encode())
            assert type(connection.sender.congestion) is type(ALGORITHMS[name](1000, 10))
            assert connection.sender.congestion is not before
            assert connection.sender.congestion.window == window
        got += await receive_exactly(theirs, len(data) - len(got))
    assert got == data


@pytest.mark.parametrize("side", ["near", "far"])
async def test_control_by_rate_needs_sack_and_the_option_says_so(autojump_clock: MockClock, side: str) -> None:
    """The stack's default for accepted sockets, the option for those that dial."""
    async with two_stacks(settings=TcpSettings(congestion="bbr")) as (near, far):
        other = far if side == "near" else near
        other.stack.settings = replace(other.stack.settings, sack=False)
        listener = await far.listen(80)
        ours = near.socket()
        for socket in (listener, ours):
            assert socket.getsockopt(*CONGESTION, 16).rstrip(b"\0") == b"bbr"
        ours.setsockopt(*CONGESTION, b"bbr")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ours.connect, (FAR, 80))
            theirs, _ = await listener.accept()
        assert isinstance(theirs, TunSocket)
        for socket in (ours, theirs):
            connection = socket._connection
            assert connection is not None
            assert (connection.sender.sack, connection.sender.rate_based) == (False, False)
            assert socket.getsockopt(*CONGESTION, 16).rstrip(b"\0") == b"cubic"
            socket.setsockopt(*CONGESTION, b"newreno")
            socket.setsockopt(*CONGESTION, b"bbr")
            assert not connection.sender.rate_based
            assert socket.getsockopt(*CONGESTION, 16).rstrip(b"\0") == b"cubic"
        for socket in (ours, theirs, listener):
            socket.close()


RANGES = [("TCP_KEEPIDLE", 1, 32767), ("TCP_KEEPINTVL", 1, 32767), ("TCP_KEEPCNT", 1, 127)]


@pytest.mark.parametrize(("option", "least", "most"), [*RANGES, ("TCP_USER_TIMEOUT", 0, 2**31 - 1)])
async def test_numbers_that_the_kernel_refuses(
    autojump_clock: MockClock, hosts: tuple[Host, Host], option: str, least: int, most: int
) -> None:
    socket, number = hosts[0].socket(), getattr(stdlib, option)
    with stdlib.socket() as kernels:
        for each in (socket, kernels):
            for value in (least, most, 60):
                each.setsockopt(stdlib.IPPROTO_TCP, number, value)
                assert each.getsockopt(stdlib.IPPROTO_TCP, number) == value
            beyond = [-1, -(2**31), least - 1] + [most + 1] * (most < 2**31 - 1)
            for value in beyond:
                for form in (value, struct.pack("i", value)):
                    with raises(errno.EINVAL):
                        each.setsockopt(stdlib.IPPROTO_TCP, number, form)
            assert each.getsockopt(stdlib.IPPROTO_TCP, number) == 60


async def test_tcp_info(autojump_clock: MockClock, hosts: tuple[Host, Host]) -> None:
    with raises(errno.ENOTCONN):
        hosts[0].socket().getsockopt(*INFO, 104)
    ours, theirs = await connect(*hosts)
    await send_all(ours, bytes(5000))
    await receive_exactly(theirs, 5000)
    await trio.sleep(1)
    info = ours.getsockopt(*INFO, 104)
    assert len(info) == 104 and len(ours.getsockopt(*INFO, 8)) == 8
    state, _, retransmits = info[:3]
    rto, _, mss = struct.unpack_from("=3I", info, 8)
    (pmtu,) = struct.unpack_from("=I", info, 60)
    (window,) = struct.unpack_from("=I", info, 80)
    assert (state, retransmits, mss, pmtu) == (1, 0, 1348, 1400)
    assert rto >= 200_000 and window >= 10


# --- what an accepted socket begins with ---


async def test_an_accepted_socket_has_its_listeners_options(
    autojump_clock: MockClock, hosts: tuple[Host, Host]
) -> None:
    near, far = hosts
    listener = await far.listen(80)
    listener.setsockopt(stdlib.SOL_SOCKET, stdlib.SO_KEEPALIVE, 1)
    listener.setsockopt(stdlib.IPPROTO_TCP, getattr(stdlib, "TCP_KEEPIDLE", 4), 33)
    listener.setsockopt(stdlib.SOL_SOCKET, stdlib.SO_LINGER, struct.pack("ii", 1, 0))
    listener.setsockopt(*CONGESTION, b"newreno")
    ours = near.socket()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ours.connect, (FAR, 80))
        accepted, _ = await listener.accept()
    assert isinstance(accepted, TunSocket)
    assert accepted._connection is not None
    assert accepted._connection.keepalive == 33
    assert accepted.getsockopt(*CONGESTION, 16).rstrip(b"\0") == b"newreno"
    # Its own from now on.
    listener.setsockopt(stdlib.SOL_SOCKET, stdlib.SO_KEEPALIVE, 0)
    assert accepted.getsockopt(stdlib.SOL_SOCKET, stdlib.SO_KEEPALIVE) == 1
    accepted.close()
    with raises(errno.ECONNRESET):
        await ours.recv(1)


# --- bind ---


@pytest.mark.parametrize(("family", "host"), [(stdlib.AF_INET, FAR), (stdlib.AF_INET6, FAR6)])
async def test_bind_chooses_a_port_and_keeps_it(
    autojump_clock: MockClock, hosts: tuple[Host, Host], family: int, host: str
) -> None:
    near, far = hosts
    bound = far.socket(family)
    await bound.bind(("", 0))
    port = bound.getsockname()[1]
    assert port
    rival = far.socket(family)
    await rival.bind(("", port))
    with raises(errno.EADDRINUSE):
        rival.listen()
    bound.listen()
    assert bound.getsockname()[1] == port
    ours = near.socket(family)
    await ours.bind(("", 0))
    own = ours.getsockname()[1]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ours.connect, (host, port))
        _, peer = await bound.accept()
    assert peer[1] == own == ours.getsockname()[1]
    unused = near.socket(family)
    await unused.bind(("", 0))
    kept = unused.getsockname()[1]
    unused.close()
    again = near.socket(family)
    await again.bind(("", kept))
    again.listen()


async def test_ports_that_bind_chooses_differ(autojump_clock: MockClock, hosts: tuple[Host, Host]) -> None:
    sockets = [hosts[0].socket() for _ in range(50)]
    for socket in sockets:
        await socket.bind(("", 0))
    assert len({socket.getsockname()[1] for socket in sockets}) == 50
    for one, other in pairwise(sockets):
        one.listen()
        assert one.getsockname() != other.getsockname()


# --- shutdown ---


async def test_what_had_arrived_is_received_after_shut_rd(autojump_clock: MockClock, hosts: tuple[Host, Host]) -> None:
    ours, theirs = await connect(*hosts)
    await theirs.send(b"arrived")
    await trio.sleep(1)
    ours.shutdown(stdlib.SHUT_RD)
    assert await ours.recv(3) == b"arr"
    assert await ours.recv(100) == b"ived"
    assert await ours.recv(100) == b""
    assert await ours.send(b"the other half") == 14
