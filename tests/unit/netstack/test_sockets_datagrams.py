"""TunSocket as a UDP socket between two stacks."""

from __future__ import annotations

import errno
import random
import socket as stdlib
from collections.abc import AsyncIterator

import pytest
import trio
import trio.testing
from trio.testing import MockClock
from two_stacks import FAR, FAR6, NEAR, NEAR6, Host, two_stacks

from minivpn_trio.netstack.sockets import TunSocket
from minivpn_trio.testing.link import LinkConditions


def raises(number: int) -> pytest.RaisesExc[OSError]:
    return pytest.RaisesExc(OSError, check=lambda exc: exc.errno == number)


@pytest.fixture
async def hosts() -> AsyncIterator[tuple[Host, Host]]:
    async with two_stacks() as pair:
        yield pair


async def bound(host: Host, port: int, family: int = stdlib.AF_INET) -> TunSocket:
    socket = host.socket(family, stdlib.SOCK_DGRAM)
    await socket.bind(("", port))
    return socket


@pytest.mark.parametrize(
    ("family", "near", "far"), [(stdlib.AF_INET, (NEAR, 5000), (FAR, 53)), (stdlib.AF_INET6, (NEAR6, 5000), (FAR6, 53))]
)
async def test_there_and_back(
    autojump_clock: MockClock, hosts: tuple[Host, Host], family: int, near: tuple[str, int], far: tuple[str, int]
) -> None:
    ours, theirs = await bound(hosts[0], 5000, family), await bound(hosts[1], 53, family)
    zeros = (0, 0) if family == stdlib.AF_INET6 else ()
    for size in (0, 1, 1000, 1372, 5000, 40_000):
        data = random.Random(size).randbytes(size)
        assert await ours.sendto(data, far) == size
        assert await theirs.recvfrom(65535) == (data, near + zeros)
        await theirs.sendto(data, near + zeros)
        assert await ours.recvfrom(65535) == (data, far + zeros)
    assert ours.getsockname()[1] == 5000
    assert ours.type == stdlib.SOCK_DGRAM


async def test_a_connected_pair(autojump_clock: MockClock, hosts: tuple[Host, Host]) -> None:
    near, far = hosts
    theirs = await bound(far, 53)
    ours = near.socket(type=stdlib.SOCK_DGRAM)
    await ours.connect((FAR, 53))
    assert ours.getpeername() == (FAR, 53)
    assert ours.getsockname()[0] == NEAR
    assert await ours.send(b"question") == 8
    _, asker = await theirs.recvfrom(100)
    stranger = await bound(far, 54)
    await stranger.sendto(b"forged", asker)
    await theirs.sendto(b"answer", asker)
    assert await ours.recv(3) == b"ans", "a datagram is cut, its rest is gone"
    with trio.move_on_after(1) as scope:
        await ours.recv(100)
    assert scope.cancelled_caught


async def test_a_closed_port_refuses_a_connected_socket(autojump_clock: MockClock, hosts: tuple[Host, Host]) -> None:
    ours = hosts[0].socket(type=stdlib.SOCK_DGRAM)
    await ours.connect((FAR, 99))
    await ours.send(b"anybody?")
    with raises(errno.ECONNREFUSED):
        await ours.recv(100)
    await ours.send(b"anybody?")
    await trio.sleep(1)
    assert ours.is_readable()
    assert ours.getsockopt(stdlib.SOL_SOCKET, stdlib.SO_ERROR) == errno.ECONNREFUSED
    assert ours.getsockopt(stdlib.SOL_SOCKET, stdlib.SO_ERROR) == 0


async def test_what_cannot_be_sent(autojump_clock: MockClock, hosts: tuple[Host, Host]) -> None:
    ours = hosts[0].socket(type=stdlib.SOCK_DGRAM)
    with raises(errno.EDESTADDRREQ):
        await ours.send(b"x")
    with raises(errno.EMSGSIZE):
        await ours.sendto(bytes(65508), (FAR, 53))
    with raises(errno.EINVAL):
        await ours.sendto(b"x", (FAR, 0))
    with raises(errno.EAFNOSUPPORT):
        await ours.sendto(b"x", (FAR6, 53))
    with pytest.raises(TypeError):
        await ours.sendto(b"x")
    with raises(errno.ENOTCONN):
        ours.shutdown(stdlib.SHUT_WR)
    with raises(errno.EOPNOTSUPP):
        ours.listen()
    ours.close()
    with raises(errno.EBADF):
        await ours.sendto(b"x", (FAR, 53))
    with raises(errno.EBADF):
        await ours.recvfrom(1)


async def test_ports_are_taken_and_given_back(autojump_clock: MockClock, hosts: tuple[Host, Host]) -> None:
    first = await bound(hosts[0], 5000)
    with raises(errno.EADDRINUSE):
        await bound(hosts[0], 5000)
    first.close()
    await bound(hosts[0], 5000)


async def test_cancellation_and_closing(autojump_clock: MockClock, hosts: tuple[Host, Host]) -> None:
    ours, theirs = await bound(hosts[0], 5000), await bound(hosts[1], 53)
    await theirs.sendto(b"precious", (NEAR, 5000))
    await trio.sleep(1)
    with trio.CancelScope() as scope:
        scope.cancel()
        await ours.recvfrom(100)
    assert scope.cancelled_caught
    with trio.testing.assert_checkpoints():
        assert await ours.recvfrom(100) == (b"precious", (FAR, 53))
    async with trio.open_nursery() as nursery:

        async def blocked() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await ours.recvfrom(100)

        nursery.start_soon(blocked)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError):
            await ours.recv(1)
        ours.close()


async def test_a_fragment_lost_is_a_datagram_lost(autojump_clock: MockClock) -> None:
    async with two_stacks(LinkConditions(loss=0.2, jitter=0.01), seed=3) as hosts:
        ours, theirs = await bound(hosts[0], 5000), await bound(hosts[1], 53)
        sent = [random.Random(index).randbytes(4000) for index in range(40)]
        for data in sent:
            await ours.sendto(data, (FAR, 53))
            await trio.sleep(0.1)
        got = []
        while theirs.is_readable():
            got.append((await theirs.recvfrom(65535))[0])
        assert 0 < len(got) < len(sent)
        assert all(data in sent for data in got)


async def test_the_time_to_live(autojump_clock: MockClock, hosts: tuple[Host, Host]) -> None:
    ours = hosts[0].socket(type=stdlib.SOCK_DGRAM)
    ours.setsockopt(stdlib.IPPROTO_IP, stdlib.IP_TTL, 7)
    seen: list[bytes] = []
    send = hosts[0].link.send_nowait
    hosts[0].link.send_nowait = lambda burst: (seen.extend(burst), send(burst))[1]  # type: ignore[method-assign]
    await ours.sendto(b"x", (FAR, 53))
    ours.setsockopt(stdlib.IPPROTO_IP, stdlib.IP_TTL, 8)
    await ours.sendto(b"x", (FAR, 53))
    await trio.testing.wait_all_tasks_blocked()
    assert [packet[8] for packet in seen] == [7, 8]
