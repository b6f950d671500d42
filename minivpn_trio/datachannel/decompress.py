"""Decompression of what a server compressed, for tunnels that were told to (``allow-compression asym``).

LZO1X and LZ4 blocks, by the libraries of the extra ``compression``
(``lzallright`` and ``lz4``), which are imported when the first compressed
packet comes. Without them such packets are dropped.

The output has a bound. LZ4's decoder stops there by itself. lzallright's makes
room for whatever comes out, so what could come out is estimated first: a match
of LZO1X takes at least 4 bytes and yields at most 288, plus 255 for each zero
byte that prolongs it.
"""

from __future__ import annotations

from collections.abc import Callable

from ..errors import DropReason, ProtocolError

__all__ = ["inflate_lz4_untrusted", "inflate_lzo_untrusted"]

#: What LZO may make of one packet before it is found too long, bytes.
MAX_TRANSIENT = 1 << 20
_LZO_MATCH = 72
_LZO_EXTENSION = 255

Inflate = Callable[[bytes, int], bytes]

_loaded: dict[str, Inflate | None] = {}


def _load_lzo() -> Inflate:
    from lzallright import LZOCompressor, LZOError

    def inflate(data: bytes, limit: int) -> bytes:
        try:
            return LZOCompressor.decompress(data, limit)
        except LZOError as exc:
            raise ProtocolError(DropReason.MALFORMED, "broken LZO data") from exc

    return inflate


def _load_lz4() -> Inflate:
    from lz4.block import LZ4BlockError, decompress

    def inflate(data: bytes, limit: int) -> bytes:
        try:
            return bytes(decompress(data, uncompressed_size=limit))
        except LZ4BlockError as exc:
            raise ProtocolError(DropReason.MALFORMED, "broken or too long LZ4 data") from exc

    return inflate


_LOADERS = {"lzo": _load_lzo, "lz4": _load_lz4}


def _library(name: str) -> Inflate:
    if name not in _loaded:
        try:
            _loaded[name] = _LOADERS[name]()
        except ImportError:
            _loaded[name] = None
    inflate = _loaded[name]
    if inflate is None:
        raise ProtocolError(DropReason.COMPRESSED, "its decompressor is not installed")
    return inflate


def inflate_lzo_untrusted(data: bytes, limit: int) -> bytes:
    """What was compressed by LZO1X, at most ``limit`` bytes. Raises ProtocolError."""
    inflate = _library("lzo")
    # Compressing never makes a packet longer: then it is sent as it is.
    estimate = _LZO_MATCH * len(data) + _LZO_EXTENSION * data.count(0)
    if len(data) > limit or estimate > MAX_TRANSIENT:
        raise ProtocolError(DropReason.TOO_LONG, "it might decompress to too much")
    packet = inflate(data, limit)
    if len(packet) > limit:
        raise ProtocolError(DropReason.TOO_LONG, "it decompresses to too much")
    return packet


def inflate_lz4_untrusted(data: bytes, limit: int) -> bytes:
    """What was compressed as an LZ4 block, at most ``limit`` bytes. Raises ProtocolError."""
    return _library("lz4")(data, limit)
