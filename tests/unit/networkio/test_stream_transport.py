"""Frames over a stream: wherever it is cut, and wherever the socket is full."""

from __future__ import annotations

import socket

import pytest
import trio

from minivpn_trio.networkio.stream import StreamTransport
from minivpn_trio.networkio.transport import Transport


async def test_a_stream_carries_frames_cut_anywhere() -> None:
    near, far = trio.testing.memory_stream_pair()
    transport = StreamTransport(near, "192.0.2.1")
    assert isinstance(transport, Transport)
    await transport.send([b"one", b"twotwo"])
    assert await far.receive_some() == b"\x00\x03one\x00\x06twotwo"
    await far.send_all(b"\x00\x05he")
    with trio.move_on_after(0.01) as scope:
        await transport.receive()
    assert scope.cancelled_caught
    await far.send_all(b"llo\x00\x01!\x00")
    assert await transport.receive() == [b"hello", b"!"]
    await far.aclose()
    with pytest.raises(trio.EndOfChannel):
        await transport.receive()


async def test_what_a_stream_takes_at_once_is_followed_by_the_rest() -> None:
    """Nothing is lost, doubled or out of order, wherever in a frame the socket was full."""
    near, far = socket.socketpair()
    near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    transport = StreamTransport(trio.SocketStream(trio.socket.from_stdlib_socket(near)))
    received = StreamTransport(trio.SocketStream(trio.socket.from_stdlib_socket(far)))
    sent = [bytes([number]) * (1 + number * 37 % 1500) for number in range(250)]
    got: list[bytes] = []

    async def collect() -> None:
        while len(got) < len(sent):
            got.extend(await received.receive())

    partly = 0
    async with trio.open_nursery() as nursery:
        for start in range(0, len(sent), 10):
            burst = sent[start : start + 10]
            count = transport.send_some(burst)
            assert 0 <= count <= len(burst)
            partly += transport._begun > 0
            if count < len(burst):
                if not nursery.child_tasks:
                    nursery.start_soon(collect)
                await transport.send(burst[count:])
        if not nursery.child_tasks and len(got) < len(sent):
            nursery.start_soon(collect)
    assert got == sent
    assert partly, "the socket was never full in the middle of a frame"
    assert transport.stats().packets_out == len(sent)
    await transport.aclose()
    assert transport.send_some([b"x"]) == 0
    await received.aclose()
