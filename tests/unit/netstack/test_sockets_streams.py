"""TunSocket as a stream between two stacks: Trio's own conformance test, bytes, ends and failures."""

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
from two_stacks import Host, connect, fill, receive_exactly, send_all, two_stacks

from minivpn_trio.netstack.sockets import TunSocket
from minivpn_trio.testing.link import LinkConditions

PERFECT = LinkConditions()
DISTANT = LinkConditions(delay=0.02)
LOSSY = LinkConditions(loss=0.02, delay=0.02)
VERY_LOSSY = LinkConditions(loss=0.1, delay=0.02)
AWFUL = LinkConditions(loss=0.1, delay=0.02, jitter=0.01, duplication=0.05, corruption=0.02)
RESET = struct.pack("ii", 1, 0)


def raises(number: int) -> pytest.RaisesExc[OSError]:
    return pytest.RaisesExc(OSError, check=lambda exc: exc.errno == number)


@pytest.fixture
async def hosts() -> AsyncIterator[tuple[Host, Host]]:
    async with two_stacks() as pair:
        yield pair


@pytest.mark.parametrize("family", [stdlib.AF_INET, stdlib.AF_INET6])
@pytest.mark.parametrize("conditions", [PERFECT, DISTANT, LOSSY, VERY_LOSSY], ids=["near", "0 %", "2 %", "10 %"])
async def test_trio_calls_it_a_half_closeable_stream(
    autojump_clock: MockClock, conditions: LinkConditions, family: int
) -> None:
    ports = iter(range(1000, 9000))
    async with two_stacks(conditions) as (near, far), two_stacks(DISTANT, seed=7) as (calm_near, calm_far):

        async def make() -> tuple[trio.SocketStream, trio.SocketStream]:
            ours, theirs = await connect(near, far, family, next(ports))
            return trio.SocketStream(ours), trio.SocketStream(theirs)

        async def make_clogged() -> tuple[trio.SocketStream, trio.SocketStream]:
            # Both directions, since the test flips the pair; over a link that loses nothing, or it would not stay so.
            ours, theirs = await connect(calm_near, calm_far, family, next(ports))
            await fill(ours)
            await fill(theirs)
            return trio.SocketStream(ours), trio.SocketStream(theirs)

        await trio.testing.check_half_closeable_stream(make, make_clogged)


@pytest.mark.parametrize("conditions", [PERFECT, DISTANT, AWFUL], ids=["perfect", "distant", "awful"])
async def test_many_bytes_each_way_at_once(autojump_clock: MockClock, conditions: LinkConditions) -> None:
    up, down = random.Random(1).randbytes(300_000), random.Random(2).randbytes(300_000)
    got: dict[str, bytes] = {}

    async def read(name: str, socket: TunSocket) -> None:
        data = bytearray()
        while more := await socket.recv(65536):
            data += more
        got[name] = bytes(data)

    async def write(socket: TunSocket, data: bytes) -> None:
        await send_all(socket, data)
        socket.shutdown(stdlib.SHUT_WR)

    async with two_stacks(conditions) as (near, far):
        ours, theirs = await connect(near, far)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(write, ours, up)
            nursery.start_soon(write, theirs, down)
            nursery.start_soon(read, "up", theirs)
            nursery.start_soon(read, "down", ours)
    assert got == {"up": up, "down": down}


# --- connecting ------------------------------------------------------------------------------------------------------


async def test_a_closed_port_refuses_within_a_round_trip(autojump_clock: MockClock) -> None:
    async with two_stacks(LinkConditions(delay=0.05)) as (near, far):
        start = trio.current_time()
        with raises(errno.ECONNREFUSED):
            await near.socket().connect((far.address, 81))
        assert trio.current_time() - start == pytest.approx(0.1, abs=0.02)


async def test_a_silent_host_takes_127_seconds(autojump_clock: MockClock) -> None:
    async with two_stacks(LinkConditions(loss=1.0)) as (near, far):
        start = trio.current_time()
        with raises(errno.ETIMEDOUT):
            await near.socket().connect((far.address, 80))
        assert trio.current_time() - start == pytest.approx(127, abs=2)


async def test_a_failed_connect_can_be_tried_again(autojump_clock: MockClock, hosts: tuple[Host, Host]) -> None:
    near, far = hosts
    socket = near.socket()
    with raises(errno.ECONNREFUSED):
        await socket.connect((far.address, 80))
    with raises(errno.ENOTCONN):
        await socket.send(b"x")
    listener = await far.listen()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(socket.connect, (far.address, 80))
        await listener.accept()
    assert await socket.send(b"x") == 1


async def test_a_cancelled_connect_closes(autojump_clock: MockClock, hosts: tuple[Host, Host]) -> None:
    near, _ = hosts
    socket = near.socket()
    near.link._outgoing.conditions = LinkConditions(loss=1.0)
    with trio.move_on_after(5) as scope:
        await socket.connect(("10.8.0.1", 80))
    assert scope.cancelled_caught
    assert socket.fileno() == -1
    sent = near.link.stats().packets_out
    await trio.sleep(60)
    assert near.link.stats().packets_out == sent, "a connection that was given up says nothing more"


async def test_a_chosen_local_port(autojump_clock: MockClock, hosts: tuple[Host, Host]) -> None:
    near, far = hosts
    listener = await far.listen()
    socket = near.socket()
    await socket.bind((near.address, 5555))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(socket.connect, (far.address, 80))
        _, peer = await listener.accept()
    assert peer == (near.address, 5555)
    with raises(errno.EINVAL):
        await socket.bind((near.address, 5556))


async def test_names_are_asked_of_the_resolver(autojump_clock: MockClock, hosts: tuple[Host, Host]) -> None:
    near, far = hosts
    asked: list[tuple[object, ...]] = []

    async def resolve(host: object, port: int, family: int, kind: int) -> list[object]:
        asked.append((host, port, family, kind))
        return [(family, kind, 6, "", (far.address, port))]

    async with trio.open_nursery() as nursery:
        listener = await far.listen()
        nursery.start_soon(near.socket(resolve=resolve).connect, ("name.example", 80))
        await listener.accept()
    assert asked == [("name.example", 80, stdlib.AF_INET, stdlib.SOCK_STREAM)]
    with pytest.raises(stdlib.gaierror):
        await near.socket().connect(("name.example", 80))


# --- the end ---------------------------------------------------------------------------------------------------------


async def test_the_end_of_the_stream(autojump_clock: MockClock, hosts: tuple[Host, Host]) -> None:
    ours, theirs = await connect(*hosts)
    await ours.send(b"last")
    ours.shutdown(stdlib.SHUT_WR)
    assert ours.did_shutdown_SHUT_WR
    assert await theirs.recv(100) == b"last"
    for _ in range(3):
        assert await theirs.recv(100) == b""
    with raises(errno.EPIPE):
        await ours.send(b"more")
    await theirs.send(b"still open")
    assert await ours.recv(100) == b"still open"


async def test_shutting_down_the_reading_side(autojump_clock: MockClock, hosts: tuple[Host, Host]) -> None:
    ours, _ = await connect(*hosts)
    async with trio.open_nursery() as nursery:

        async def end() -> None:
            assert await ours.recv(1) == b""

        nursery.start_soon(end)
        await trio.testing.wait_all_tasks_blocked()
        ours.shutdown(stdlib.SHUT_RD)
    assert ours.is_readable()
    with raises(errno.EINVAL):
        ours.shutdown(17)


async def test_what_was_sent_before_closing_arrives(autojump_clock: MockClock) -> None:
    async with two_stacks(LOSSY) as (near, far):
        ours, theirs = await connect(near, far)
        data = random.Random(3).randbytes(12_000)
        await send_all(ours, data)
        ours.close()
        assert await receive_exactly(theirs, len(data)) == data
        assert await theirs.recv(1) == b""


async def test_closing_with_unread_data_resets(autojump_clock: MockClock, hosts: tuple[Host, Host]) -> None:
    ours, theirs = await connect(*hosts)
    await theirs.send(b"never read")
    await trio.sleep(1)
    ours.close()
    with raises(errno.ECONNRESET):
        await theirs.recv(1)


async def test_lingering_for_no_time_resets(autojump_clock: MockClock, hosts: tuple[Host, Host]) -> None:
    ours, theirs = await connect(*hosts)
    ours.setsockopt(stdlib.SOL_SOCKET, stdlib.SO_LINGER, RESET)
    assert ours.getsockopt(stdlib.SOL_SOCKET, stdlib.SO_LINGER, 8) == RESET
    ours.close()
    stream = trio.SocketStream(theirs)
    errors = []
    for _ in range(2):
        with pytest.raises(trio.BrokenResourceError) as caught:
            await stream.receive_some(1)
        errors.append(caught.value.__cause__)
    assert [getattr(error, "errno", None) for error in errors] == [errno.ECONNRESET] * 2
    # One object raised again and again would drag a growing traceback along.
    assert errors[0] is not errors[1]
    assert theirs.getsockopt(stdlib.SOL_SOCKET, stdlib.SO_ERROR) == errno.ECONNRESET


async def test_the_loss_of_the_tunnel_fails_everything_at_once(
    autojump_clock: MockClock, hosts: tuple[Host, Host]
) -> None:
    near, far = hosts
    # Theirs, too, are held: who is forgotten is closed.
    reading, theirs = await connect(near, far, port=80)
    writing, clogged = await connect(near, far, port=81)
    await fill(writing)
    listener = await near.listen(90)
    datagrams = near.socket(type=stdlib.SOCK_DGRAM)
    failed: list[str] = []

    async def expect(name: str, call: Callable[[], Awaitable[object]]) -> None:
        # trio.SocketListener would take ENETDOWN for one lost connection, and accept again, and again.
        with raises(errno.ENETRESET if name == "accept" else errno.ENETDOWN):
            await call()
        failed.append(name)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(expect, "recv", lambda: reading.recv(1))
        nursery.start_soon(expect, "send", lambda: writing.send(b"x"))
        nursery.start_soon(expect, "accept", listener.accept)
        nursery.start_soon(expect, "recvfrom", lambda: datagrams.recvfrom(1))
        near.link._outgoing.conditions = LinkConditions(loss=1.0)
        nursery.start_soon(expect, "connect", lambda: near.socket().connect(("10.8.0.77", 80)))
        await trio.testing.wait_all_tasks_blocked()
        before = trio.current_time()
        await near.link.aclose()
    assert sorted(failed) == ["accept", "connect", "recv", "recvfrom", "send"]
    assert trio.current_time() == before
    theirs.close()
    clogged.close()
    with pytest.raises(trio.BrokenResourceError) as caught:
        await trio.SocketStream(reading).send_all(b"x")
    assert isinstance(caught.value.__cause__, OSError)
    assert caught.value.__cause__.errno == errno.ENETDOWN
    with raises(errno.ENETDOWN):
        await near.socket().connect((far.address, 80))


async def test_keepalive_notices_a_peer_that_is_gone(autojump_clock: MockClock) -> None:
    async with two_stacks(DISTANT) as (near, far):
        ours, _ = await connect(near, far)
        ours.setsockopt(stdlib.SOL_SOCKET, stdlib.SO_KEEPALIVE, 1)
        ours.setsockopt(stdlib.IPPROTO_TCP, stdlib.TCP_KEEPIDLE, 30)
        near.link._outgoing.conditions = LinkConditions(loss=1.0)
        start = trio.current_time()
        with raises(errno.ETIMEDOUT):
            await ours.recv(1)
        assert 30 < trio.current_time() - start < 30 + 75 * 10


async def test_user_timeout_and_keepalive_pace(autojump_clock: MockClock) -> None:
    async with two_stacks(DISTANT) as (near, far):
        ours, _ = await connect(near, far)
        ours.setsockopt(stdlib.SOL_SOCKET, stdlib.SO_KEEPALIVE, 1)
        for option, value in ((stdlib.TCP_KEEPIDLE, 5), (stdlib.TCP_KEEPINTVL, 2), (stdlib.TCP_KEEPCNT, 2)):
            ours.setsockopt(stdlib.IPPROTO_TCP, option, value)
        near.link._outgoing.conditions = LinkConditions(loss=1.0)
        start = trio.current_time()
        with raises(errno.ETIMEDOUT):
            await ours.recv(1)
        assert 8.9 <= trio.current_time() - start < 9.2
    async with two_stacks(DISTANT) as (near, far):
        ours, _ = await connect(near, far)
        ours.setsockopt(stdlib.IPPROTO_TCP, stdlib.TCP_USER_TIMEOUT, 3000)
        near.link._outgoing.conditions = LinkConditions(loss=1.0)
        await ours.send(b"x")
        start = trio.current_time()
        with raises(errno.ETIMEDOUT):
            await ours.recv(1)
        assert 2.9 <= trio.current_time() - start < 3.1


# --- many ------------------------------------------------------------------------------------------------------------


async def test_trio_serves_on_it(autojump_clock: MockClock, hosts: tuple[Host, Host]) -> None:
    """trio.SocketListener and trio.serve_listeners need family, getsockopt(SO_ACCEPTCONN), accept."""
    near, far = hosts

    async def echo(stream: trio.SocketStream) -> None:
        async for chunk in stream:
            await stream.send_all(chunk)

    listener = trio.SocketListener(await far.listen())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, echo, [listener])
        for text in (b"one", b"two"):
            socket = near.socket()
            await socket.connect((far.address, 80))
            async with trio.SocketStream(socket) as stream:
                await stream.send_all(text)
                assert await stream.receive_some() == text
        nursery.cancel_scope.cancel()


async def test_trio_stops_serving_when_the_tunnel_is_gone(
    autojump_clock: MockClock, hosts: tuple[Host, Host]
) -> None:
    near, _ = hosts
    with trio.fail_after(5), pytest.RaisesGroup(raises(errno.ENETRESET), flatten_subgroups=True):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.serve_listeners, trio.aclose_forcefully, [trio.SocketListener(await near.listen())])
            await trio.testing.wait_all_tasks_blocked()
            await near.link.aclose()


async def test_closing_a_listener_wakes_its_acceptor(autojump_clock: MockClock, hosts: tuple[Host, Host]) -> None:
    listener = await hosts[1].listen()
    async with trio.open_nursery() as nursery:

        async def wait() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await listener.accept()

        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError):
            await listener.accept()
        listener.close()
    with raises(errno.ECONNREFUSED):
        await hosts[0].socket().connect((hosts[1].address, 80))


async def test_a_write_is_on_the_link_when_send_returns(autojump_clock: MockClock, hosts: tuple[Host, Host]) -> None:
    """No task switch in between."""
    ours, _ = await connect(*hosts)
    await trio.sleep(1)
    before = hosts[0].link.stats().packets_out
    await ours.send(b"x")
    assert hosts[0].link.stats().packets_out == before + 1


async def test_fifty_streams_leave_nothing_behind(autojump_clock: MockClock) -> None:
    async with two_stacks(LinkConditions(delay=0.01, loss=0.01)) as (near, far):

        async def echo(stream: trio.SocketStream) -> None:
            async with stream:
                async for chunk in stream:
                    await stream.send_all(chunk)

        async def one(index: int) -> None:
            socket = near.socket()
            await socket.connect((far.address, 80))
            async with trio.SocketStream(socket) as stream:
                text = random.Random(index).randbytes(5000)
                await stream.send_all(text)
                await stream.send_eof()
                assert b"".join([chunk async for chunk in stream]) == text

        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.serve_listeners, echo, [trio.SocketListener(await far.listen())])
            async with trio.open_nursery() as clients:
                for index in range(50):
                    clients.start_soon(one, index)
            nursery.cancel_scope.cancel()
        await trio.sleep(200)
        assert near.stack.stats().tcp_connections == far.stack.stats().tcp_connections == 0


@pytest.mark.parametrize(("nodelay", "packets"), [(None, 5), (1, 5), (0, 1)])
async def test_nodelay(autojump_clock: MockClock, nodelay: int | None, packets: int) -> None:
    async with two_stacks(DISTANT) as (near, far):
        ours, theirs = await connect(near, far)
        if nodelay is not None:
            ours.setsockopt(stdlib.IPPROTO_TCP, stdlib.TCP_NODELAY, nodelay)
        before = near.stack.stats().packets_out
        for _ in range(5):
            await ours.send(b"x")
        assert near.stack.stats().packets_out - before == packets
        assert await receive_exactly(theirs, 5) == b"xxxxx"
