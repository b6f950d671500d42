"""The measured transfers of benchmarks/end_to_end, over loopback: what they count, and that they look at every byte."""

from __future__ import annotations

import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, cast

import pytest
import trio

from benchmarks import kernel_sockets, payload, traffic
from benchmarks.kernel_sockets import Transfer
from benchmarks.payload import PATTERN, Corrupted, check_body, check_crc, crc, piece_at
from tests.interop.lab import services

#: More than a pattern and than a slab of the sink, and no multiple of anything.
SIZE = 2_345_678


@contextmanager
def serving(server: services.TCPServer | services.HTTPServer) -> Iterator[int]:
    """The port."""
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def ports() -> Iterator[dict[str, int]]:
    with ExitStack() as stack:
        yield {
            "download": stack.enter_context(serving(services.HTTPServer(("::", 0), services.Handler))),
            "upload": stack.enter_context(serving(services.TCPServer(("::", 0), services.Keep))),
        }


def forever(size: int) -> bytes:
    return (PATTERN * (size // len(PATTERN) + 1))[:size]


def test_both_ends_have_the_same_pattern() -> None:
    assert payload.PATTERN == services.PATTERN
    assert len(PATTERN) % 4 == 0
    assert all(len(PATTERN) // 4 % n for n in range(2, 256)), "a prime number of words"


def test_a_body_in_pieces_of_any_size() -> None:
    body = forever(SIZE)
    for size in (1460, len(PATTERN), 1 << 18, SIZE):
        check_body([body[at : at + size] for at in range(0, SIZE, size)], SIZE)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda body: body[:1_000_000] + b"\xff" + body[1_000_001:], "byte 1000000 of a download is 0xff, not 0x"),
        (lambda body: body[:-1], f"{SIZE - 1} bytes"),
        (lambda body: body + body[:1], "byte 2345678|2345679 bytes"),
        (lambda body: body[1 << 18 : 2 << 18] + body[: 1 << 18] + body[2 << 18 :], "byte [0-3] of"),
        (lambda body: body[1 << 20 :], "byte [0-3] of"),
    ],
    ids=["one byte", "one too few", "one too many", "two reads swapped", "a slab lost"],
)
def test_a_spoilt_body(spoil: Callable[[bytes], bytes], words: str) -> None:
    with pytest.raises(Corrupted, match=words):
        check_body([spoil(forever(SIZE))], SIZE)


def test_crc_of_the_pattern_for_ever() -> None:
    for size in (0, 1, len(PATTERN), SIZE):
        assert crc(size) == zlib.crc32(forever(size))
    check_crc(b"%08x\n" % zlib.crc32(forever(SIZE)), SIZE)
    for wrong in (b"", b"%08x\n" % zlib.crc32(forever(SIZE - 1)), b"%08x" % crc(SIZE)):
        with pytest.raises(Corrupted):
            check_crc(wrong, SIZE)


def test_pieces_make_up_the_pattern_wherever_they_begin() -> None:
    sent = bytearray()
    while len(sent) < SIZE:
        # Half of what is offered is taken, as a full socket does.
        piece = piece_at(len(sent), SIZE - len(sent))
        sent += piece[: len(piece) // 2 + 1]
    assert sent == forever(SIZE)


@pytest.mark.parametrize("do", ["download", "upload"])
@pytest.mark.parametrize("streams", [1, 30])
def test_kernel_transfers(ports: dict[str, int], do: Any, streams: int) -> None:
    size = SIZE // streams
    for _ in range(2):
        with Transfer(do, "127.0.0.1", size, streams, port=ports[do]) as transfer:
            assert transfer.run() == size * streams
            assert transfer.check() == size * streams


def test_kernel_memory_is_used_again(ports: dict[str, int]) -> None:
    memory = payload.Memory()
    first = memory.take(SIZE)
    memory.give_back(first)
    for _ in range(2):
        first[:] = bytes(SIZE)
        with Transfer("download", "127.0.0.1", SIZE, port=ports["download"], memory=memory) as transfer:
            assert transfer.run() == SIZE
            transfer.check()
        assert bytes(first) == forever(SIZE)
    assert memory.take(SIZE) is first
    memory.give_back(first)
    assert len(memory.take(SIZE + 1)) == SIZE + 1


def test_kernel_download_of_other_bytes(ports: dict[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services, "PATTERN", PATTERN[:5000] + b"\xaa" + PATTERN[5001:])
    with Transfer("download", "127.0.0.1", SIZE, port=ports["download"]) as transfer:
        assert transfer.run() == SIZE
        with pytest.raises(Corrupted, match="byte 5000 "):
            transfer.check()


def test_kernel_upload_of_other_bytes(ports: dict[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel_sockets, "piece_at", lambda position, most: piece_at(position + 4, most))
    with Transfer("upload", "127.0.0.1", SIZE, port=ports["upload"]) as transfer:
        assert transfer.run() == SIZE
        with pytest.raises(Corrupted, match="the sink says"):
            transfer.check()


def test_a_refused_connection_is_an_error(ports: dict[str, int]) -> None:
    with serving(services.TCPServer(("::", 0), services.Keep)) as port:
        pass
    with Transfer("upload", "127.0.0.1", SIZE, port=port) as transfer, pytest.raises(ConnectionRefusedError):
        transfer.run()


class KernelDialer:
    """What ``traffic.Ours`` needs of a TunDialer, without a tunnel."""

    async def open_tcp_stream(self, host: str, port: int) -> trio.SocketStream:
        return await trio.open_tcp_stream(host, port)


@pytest.fixture
def ours(ports: dict[str, int], monkeypatch: pytest.MonkeyPatch) -> traffic.Ours:
    monkeypatch.setattr(traffic, "HTTP_PORT", ports["download"])
    monkeypatch.setattr(traffic, "KEEP_PORT", ports["upload"])
    return traffic.Ours(cast("Any", KernelDialer()))


@pytest.mark.parametrize("do", ["download", "upload"])
async def test_our_transfers(ours: traffic.Ours, do: str) -> None:
    for streams in (1, 10):
        size = SIZE // streams
        ours.prepare(do, size, streams)
        assert await ours.transfer("127.0.0.1") == size * streams
        assert await ours.check() == size * streams
        assert ours.flows == []


async def test_our_transfers_of_other_bytes(ours: traffic.Ours, monkeypatch: pytest.MonkeyPatch) -> None:
    other = PATTERN[:5000] + b"\xaa" + PATTERN[5001:]
    with monkeypatch.context() as patch:
        patch.setattr(services, "PATTERN", other)
        ours.prepare("download", SIZE, 1)
        await ours.transfer("127.0.0.1")
        with pytest.raises(Corrupted, match="byte 5000 "):
            await ours.check()
    monkeypatch.setattr(traffic, "PATTERN", other)
    ours.prepare("upload", SIZE, 1)
    await ours.transfer("127.0.0.1")
    with pytest.raises(Corrupted, match="the sink says"):
        await ours.check()


async def test_the_sink_gives_no_answer_to_more_than_it_was_promised(ports: dict[str, int]) -> None:
    async with await trio.open_tcp_stream("127.0.0.1", ports["upload"]) as stream:
        await stream.send_all(payload.upload_head(10) + forever(10) + b"12")
        assert b"".join([data async for data in stream]) == b"10\n"
