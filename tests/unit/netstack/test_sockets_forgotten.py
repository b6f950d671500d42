"""Sockets that nobody closed and nobody has any more: closed then, with a warning, as the kernel's are."""

from __future__ import annotations

import errno
import gc
import socket as stdlib
import struct
import threading
import warnings
import weakref
from collections.abc import AsyncIterator

import pytest
import trio
import trio.testing
from trio.testing import MockClock
from two_stacks import FAR, Host, connect, two_stacks

from minivpn_trio.errors import DropReason
from minivpn_trio.netstack.sockets import TunSocket
from minivpn_trio.netstack.stack import Stack
from minivpn_trio.netstack.tcp.connection import TcpConnection

RESET = struct.pack("ii", 1, 0)


@pytest.fixture
async def hosts() -> AsyncIterator[tuple[Host, Host]]:
    async with two_stacks() as pair:
        yield pair


def counts(host: Host) -> tuple[int, int, int]:
    return len(host.stack._connections), len(host.stack._listeners), len(host.stack._udp)


async def test_a_forgotten_stream_ends(autojump_clock: MockClock, hosts: tuple[Host, Host]) -> None:
    ours, theirs = await connect(*hosts)
    await ours.send(b"the last words")
    stream = trio.SocketStream(ours)
    with pytest.warns(ResourceWarning, match=r"unclosed <minivpn_trio.TunSocket AF_INET SOCK_STREAM connected>"):
        del ours, stream
    # What was sent is delivered, and then comes the end.
    assert await theirs.recv(100) == b"the last words"
    assert await theirs.recv(100) == b""
    theirs.close()
    await trio.sleep(120)
    assert counts(hosts[0]) == counts(hosts[1]) == (0, 0, 0)


async def test_an_accepted_one_too(autojump_clock: MockClock, hosts: tuple[Host, Host]) -> None:
    ours, theirs = await connect(*hosts)
    with pytest.warns(ResourceWarning, match="unclosed"):
        del theirs
    assert await ours.recv(100) == b""
    ours.close()


async def test_a_defect_in_closing_it_is_no_end_of_the_program(
    autojump_clock: MockClock, hosts: tuple[Host, Host], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trio ends a run for what such a callback raises."""
    ours, theirs = await connect(*hosts)

    def close(connection: TcpConnection, now: float) -> None:
        raise ZeroDivisionError

    with monkeypatch.context() as patch:
        patch.setattr(Stack, "contains_faults", True)
        patch.setattr(TcpConnection, "close", close)
        with pytest.warns(ResourceWarning, match="unclosed"):
            del ours
        await trio.testing.wait_all_tasks_blocked()
    assert hosts[0].stack.stats().drops == {DropReason.FAULT: 1}
    theirs.close()


async def test_one_that_lingers_for_no_time_resets(autojump_clock: MockClock, hosts: tuple[Host, Host]) -> None:
    ours, theirs = await connect(*hosts)
    ours.setsockopt(stdlib.SOL_SOCKET, stdlib.SO_LINGER, RESET)
    with pytest.warns(ResourceWarning, match="unclosed"):
        del ours
    with pytest.raises(ConnectionResetError):
        await theirs.recv(1)
    theirs.close()


@pytest.mark.parametrize("kind", ["bound", "listening", "datagrams", "opening"])
async def test_ports_are_given_back(autojump_clock: MockClock, hosts: tuple[Host, Host], kind: str) -> None:
    near, _ = hosts
    socket = near.socket(type=stdlib.SOCK_DGRAM if kind == "datagrams" else stdlib.SOCK_STREAM)
    if kind == "opening":
        # Whoever was connecting is gone, and the socket with him; nobody answers.
        with trio.move_on_after(0.1):
            await socket.connect(("10.8.0.77", 80))
        assert socket.fileno() == -1
        socket = near.socket()
    await socket.bind(("", 0))
    port = socket.getsockname()[1]
    if kind == "listening":
        socket.listen()
    with pytest.warns(ResourceWarning, match="unclosed"):
        del socket
    await trio.testing.wait_all_tasks_blocked()
    assert counts(near) == (0, 0, 0) and not near.stack._reserved
    again = near.socket(type=stdlib.SOCK_DGRAM if kind == "datagrams" else stdlib.SOCK_STREAM)
    await again.bind(("", port))
    again.close()


async def test_a_cycle_of_the_application_s_is_found_in_any_thread(
    autojump_clock: MockClock, hosts: tuple[Host, Host]
) -> None:
    """The collector runs where it likes: the stack is touched in its own thread only."""
    ours, theirs = await connect(*hosts)
    holder: list[object] = [ours]
    holder.append(holder)
    reference = weakref.ref(ours)
    stack, where = hosts[0].stack, []
    flush = hosts[0].pump.flush

    def watched() -> None:
        where.append(threading.current_thread())
        flush()

    hosts[0].pump.flush = watched  # type: ignore[method-assign]
    assert stack.stats().tcp_connections == 1
    del ours, holder
    collector = threading.Thread(target=gc.collect)
    collector.start()
    with pytest.warns(ResourceWarning, match="unclosed"):
        collector.join()
    assert reference() is None
    assert not where
    assert await theirs.recv(1) == b""
    assert set(where) == {threading.current_thread()}
    theirs.close()


async def test_who_waits_is_not_forgotten(autojump_clock: MockClock, hosts: tuple[Host, Host]) -> None:
    ours, theirs = await connect(*hosts)
    received: list[bytes] = []

    async def receive(socket: TunSocket) -> None:
        received.append(await socket.recv(10))
        socket.close()

    with warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive, ours)
            del ours
            await trio.testing.wait_all_tasks_blocked()
            gc.collect()
            await theirs.send(b"still here")
        assert received == [b"still here"]
        assert await theirs.recv(1) == b""
        theirs.close()
        del theirs
        gc.collect()


async def test_nothing_is_said_of_those_that_had_nothing(autojump_clock: MockClock, hosts: tuple[Host, Host]) -> None:
    near, _ = hosts
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        near.socket()
        with near.socket() as closed:
            await closed.bind(("", 0))
        del closed
        with pytest.raises(OSError) as failure:
            near.socket(type=stdlib.SOCK_RAW)
        assert failure.value.errno == errno.EPROTONOSUPPORT
        del failure
        gc.collect()
    assert caught == []


def test_after_the_run_there_is_nothing_left_to_close() -> None:
    kept: list[TunSocket] = []

    async def main() -> None:
        async with two_stacks() as (near, far):
            kept.append(await far.listen(80))
            ours = near.socket()
            await ours.connect((FAR, 80))
            kept.append(ours)

    trio.run(main, clock=MockClock(autojump_threshold=0))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        kept.clear()
        gc.collect()
    assert [str(each.message) for each in caught] == []
