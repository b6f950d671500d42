"""Receiving what a server compressed, and what pretends to be that."""

from __future__ import annotations

import random
import tracemalloc

import lz4.block
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lzallright import LZOCompressor

from minivpn_trio.datachannel import decompress
from minivpn_trio.datachannel.channel import DataChannel
from minivpn_trio.datachannel.decompress import MAX_TRANSIENT, inflate_lz4_untrusted, inflate_lzo_untrusted
from minivpn_trio.errors import DropReason, ProtocolError
from tests.unit.datachannel.data_keys import ipv4, make_pair

LIMIT = 15_000
#: As a browser's request might look: well compressible.
PACKET = ipv4(b"GET /index.html HTTP/1.1\r\nHost: example.com\r\nAccept: text/html, text/plain, text/css\r\n" * 8)


def lzo(data: bytes) -> bytes:
    return LZOCompressor().compress(data)


def lz4_block(data: bytes) -> bytes:
    return lz4.block.compress(data, store_size=False)


def swapped(data: bytes) -> bytes:
    return data[1:] + data[:1]


#: What the three compressing framings of openvpn make of a packet.
WIRES = {
    "comp-lzo-no": lambda packet: b"\x66" + lzo(packet),
    "stub": lambda packet: b"\x69" + swapped(lz4_block(packet)),
    "stub-v2": lambda packet: b"\x50\x01" + lz4_block(packet),
}


def receive(texts: list[bytes], **options: object) -> tuple[list[bytes], DataChannel]:
    """What a client makes of plaintexts that its peer framed itself."""
    plain, _ = make_pair(**{**options, "compression": "none"})
    _, receiver = make_pair(**options)
    return receiver.decrypt_burst(plain.encrypt_burst(texts, 0.0), 0.0), receiver


@pytest.mark.parametrize("framing", WIRES)
class TestFramings:
    def test_compressed_packets_are_opened(self, framing: str) -> None:
        texts = [WIRES[framing](PACKET)] * 3
        assert len(texts[0]) < len(PACKET) / 2
        packets, receiver = receive(texts, compression=framing, decompress=LIMIT)
        assert packets == [PACKET] * 3
        assert not receiver.drops

    def test_but_only_where_that_was_asked_for(self, framing: str) -> None:
        packets, receiver = receive([WIRES[framing](PACKET)], compression=framing)
        assert packets == []
        assert receiver.drops == {DropReason.COMPRESSED: 1}

    def test_ours_are_never_compressed(self, framing: str) -> None:
        client, server = make_pair(compression=framing, decompress=LIMIT)
        (wire,) = client.encrypt_burst([PACKET], 0.0)
        assert len(wire) >= len(PACKET) + 24
        assert server.decrypt_burst([wire], 0.0) == [PACKET]

    def test_a_missing_library_drops(self, framing: str, monkeypatch: pytest.MonkeyPatch) -> None:
        def missing() -> decompress.Inflate:
            raise ImportError

        monkeypatch.setattr(decompress, "_loaded", {})
        monkeypatch.setattr(decompress, "_LOADERS", {"lzo": missing, "lz4": missing})
        packets, receiver = receive([WIRES[framing](PACKET)] * 2, compression=framing, decompress=LIMIT)
        assert packets == []
        assert receiver.drops == {DropReason.COMPRESSED: 2}

    def test_one_byte_too_many(self, framing: str) -> None:
        packets, receiver = receive([WIRES[framing](PACKET)], compression=framing, decompress=len(PACKET))
        assert packets == [PACKET]
        packets, receiver = receive([WIRES[framing](PACKET)], compression=framing, decompress=len(PACKET) - 1)
        assert packets == []
        assert sum(receiver.drops.values()) == 1

    def test_a_bomb(self, framing: str) -> None:
        """4 MiB in 16 KiB, or as much as LZO and LZ4 get: nothing comes out and little is held meanwhile."""
        bomb = WIRES[framing](bytes(1 << 22))
        assert len(bomb) < 1 << 15
        receive([bomb], compression=framing, decompress=LIMIT)
        plain, _ = make_pair(compression="none")
        _, receiver = make_pair(compression=framing, decompress=LIMIT)
        wires = plain.encrypt_burst([bomb], 0.0)
        tracemalloc.start()
        try:
            assert receiver.decrypt_burst(wires, 0.0) == []
            assert tracemalloc.get_traced_memory()[1] < 4 * MAX_TRANSIENT
        finally:
            tracemalloc.stop()
        assert sum(receiver.drops.values()) == 1

    def test_uncompressed_packets_too(self, framing: str) -> None:
        client, server = make_pair(compression=framing, decompress=LIMIT)
        burst = [b"\x50" + bytes(20), ipv4(b""), ipv4(bytes(1400))]
        assert server.decrypt_burst(client.encrypt_burst(burst, 0.0), 0.0) == burst


def test_a_small_bomb_is_found_out_afterwards() -> None:
    """What could come of it is not too much to try."""
    bomb = lzo(bytes(100_000))
    assert len(bomb) < 1000
    with pytest.raises(ProtocolError) as caught:
        inflate_lzo_untrusted(bomb, LIMIT)
    assert caught.value.reason is DropReason.TOO_LONG


@pytest.mark.parametrize("text", [b"\x66", b"\x69", b"\x50\x01", b"\x66\x00", b"\x69\xff", b"\x50\x01\xff"])
@pytest.mark.parametrize("framing", WIRES)
def test_stumps(framing: str, text: bytes) -> None:
    packets, receiver = receive([text], compression=framing, decompress=LIMIT)
    # Under the other framing's rules it may be a packet as it is.
    assert packets in ([], [text])
    assert sum(receiver.drops.values()) == 1 - len(packets)


def test_lzo_regressions() -> None:
    """What miragevpn's LZO once got wrong (its lzo/tests.ml, before the fixes)."""
    with pytest.raises(ProtocolError):
        inflate_lzo_untrusted(b"\x00\x00\x11\x00\x00", LIMIT)
    assert inflate_lzo_untrusted(b"\x11\x00\x00", LIMIT) == b""


def test_what_follows_the_end_of_lzo_data_is_an_error() -> None:
    with pytest.raises(ProtocolError):
        inflate_lzo_untrusted(lzo(PACKET) + b"x", LIMIT)


@given(data=st.binary(max_size=2000))
@pytest.mark.parametrize("inflate", [inflate_lzo_untrusted, inflate_lz4_untrusted])
def test_junk_never_does_more_than_refuse(inflate: decompress.Inflate, data: bytes) -> None:
    try:
        packet = inflate(data, LIMIT)
    except ProtocolError:
        return
    assert len(packet) <= LIMIT


@given(
    seed=st.integers(), size=st.integers(min_value=1, max_value=1500), alphabet=st.integers(min_value=1, max_value=256)
)
def test_round_trips(seed: int, size: int, alphabet: int) -> None:
    source = random.Random(seed)
    packet = bytes(source.randrange(alphabet) for _ in range(size))
    compressed = lzo(packet)
    if len(compressed) < size:
        assert inflate_lzo_untrusted(compressed, 1500) == packet
    assert inflate_lz4_untrusted(lz4_block(packet), 1500) == packet
