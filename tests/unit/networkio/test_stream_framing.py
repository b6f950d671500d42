"""Length prefixes in a TCP stream."""

from __future__ import annotations

import pytest

from minivpn_trio.errors import DropReason, ProtocolError
from minivpn_trio.networkio.framing import DEFAULT_MAX_FRAME, MAX_FRAME, FrameReader, frame_burst

# Provenance: sizes of the datagrams of a handshake with openvpn 2.6.14, as captured.
HANDSHAKE = [bytes([size & 0xFF]) * size for size in (14, 26, 309, 1222, 1222, 1222, 207)]


def test_the_prefix_is_big_endian_and_does_not_count_itself() -> None:
    assert frame_burst([b"abc", bytes(258)]) == b"\x00\x03abc\x01\x02" + bytes(258)


@pytest.mark.parametrize("step", [1, 2, 3, 13, 14, 15, 16, 17, 1000, 10_000])
def test_any_cut_gives_the_same_packets(step: int) -> None:
    stream = frame_burst(HANDSHAKE)
    reader = FrameReader()
    packets = []
    for start in range(0, len(stream), step):
        packets += reader.feed_untrusted(stream[start : start + step])
        assert reader.pending <= DEFAULT_MAX_FRAME + 1
    assert packets == HANDSHAKE
    assert reader.pending == 0


def test_an_incomplete_packet_waits() -> None:
    reader = FrameReader()
    assert reader.feed_untrusted(b"\x00") == []
    assert reader.feed_untrusted(b"\x03ab") == []
    assert reader.pending == 4
    assert reader.feed_untrusted(b"") == []
    assert reader.feed_untrusted(b"c\x00") == [b"abc"]
    assert reader.pending == 1


@pytest.mark.parametrize(
    ("prefix", "reason"),
    [
        (b"\x00\x00", DropReason.TOO_SHORT),
        (b"\x08\x01", DropReason.TOO_LONG),
        (b"\xff\xff", DropReason.TOO_LONG),
        (b"HTTP/1.1 400 Bad Request", DropReason.TOO_LONG),
    ],
)
def test_lengths_that_no_packet_has(prefix: bytes, reason: DropReason) -> None:
    reader = FrameReader()
    with pytest.raises(ProtocolError) as caught:
        reader.feed_untrusted(prefix)
    assert caught.value.reason is reason
    # There is no way back.
    with pytest.raises(ProtocolError):
        reader.feed_untrusted(b"\x00\x01a")
    assert reader.pending == 0


def test_packets_before_a_bad_length_are_delivered() -> None:
    reader = FrameReader()
    assert reader.feed_untrusted(b"\x00\x01a\x00\x00\x00\x01b") == [b"a"]
    with pytest.raises(ProtocolError):
        reader.feed_untrusted(b"")


@pytest.mark.parametrize("size", [1, DEFAULT_MAX_FRAME])
def test_the_shortest_and_the_longest(size: int) -> None:
    assert FrameReader().feed_untrusted(frame_burst([bytes(size)])) == [bytes(size)]


def test_a_longer_frame_where_it_is_allowed() -> None:
    packet = bytes(MAX_FRAME)
    assert FrameReader(MAX_FRAME).feed_untrusted(frame_burst([packet])) == [packet]


def test_packets_are_bytes_whatever_the_stream_delivers() -> None:
    reader = FrameReader()
    packets = reader.feed_untrusted(bytearray(b"\x00\x01a\x00\x02b"))  # type: ignore[arg-type]
    packets += reader.feed_untrusted(bytearray(b"c"))  # type: ignore[arg-type]
    assert [(type(packet), packet) for packet in packets] == [(bytes, b"a"), (bytes, b"bc")]


@pytest.mark.parametrize("packet", [b"", bytes(MAX_FRAME + 1)])
def test_what_cannot_be_framed(packet: bytes) -> None:
    with pytest.raises(ValueError, match="65535"):
        frame_burst([b"a", packet])


@pytest.mark.parametrize("size", [0, -1, MAX_FRAME + 1])
def test_impossible_limits(size: int) -> None:
    with pytest.raises(ValueError, match="65535"):
        FrameReader(size)
