"""AEAD data packets with 32-bit packet ids: AES-GCM and ChaCha20-Poly1305.

::

    DATA_V2   op peer24 | packet id 4 | tag 16 | ciphertext     associated data: op .. packet id
    DATA_V1   op        | packet id 4 | tag 16 | ciphertext     associated data: packet id only

The nonce is the packet id followed by 8 secret bytes, the first of the key's
HMAC slot (reference: crypto.c, openvpn_encrypt_aead).

This is where most of a tunnel's time goes, and a third of it is the
interpreter's. So a burst takes each step as a whole, by loops that run inside
``map`` and ``struct``: an eighth less than one loop with all steps
for each packet. ``encrypt_into`` and ``decrypt_into`` on preallocated
buffers were measured too (benchmarks/micro/datachannel.py) and
are slower: the library wants the tag behind the ciphertext and OpenVPN puts it
before, so bytes must move either way, and a concatenation moves them for less
than memoryview slices and slice assignments do.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Callable, Sequence
from functools import lru_cache
from operator import add, itemgetter
from typing import Any, NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

from ..errors import DropReason

__all__ = [
    "AEAD_ALGORITHMS",
    "AES_GCM_LIMIT",
    "IMPLICIT_IV_SIZE",
    "PACKET_ID_SIZE",
    "TAG_SIZE",
    "AeadOpener",
    "AeadSealer",
]

PACKET_ID_SIZE = 4
TAG_SIZE = 16
IMPLICIT_IV_SIZE = 8
#: With fewer packets a loop in Python costs less than beginning several in C does.
SHORT_BURST = 9

#: The two parts of what the library makes.
take_tag: Callable[[bytes], bytes] = itemgetter(slice(-TAG_SIZE, None))
take_ciphertext: Callable[[bytes], bytes] = itemgetter(slice(None, -TAG_SIZE))

#: Blocks plus invocations of one AES-GCM key in one direction that keep an attacker's advantage
#: below 2^-57 (draft-irtf-cfrg-aead-limits; reference: crypto.c, cipher_get_aead_limits).
AES_GCM_LIMIT = 2**36 - 1

#: OpenVPN's name -> (constructor, key size, usage limit).
AEAD_ALGORITHMS: dict[str, tuple[type[AESGCM] | type[ChaCha20Poly1305], int, int | None]] = {
    "AES-128-GCM": (AESGCM, 16, AES_GCM_LIMIT),
    "AES-192-GCM": (AESGCM, 24, AES_GCM_LIMIT),
    "AES-256-GCM": (AESGCM, 32, AES_GCM_LIMIT),
    "CHACHA20-POLY1305": (ChaCha20Poly1305, 32, None),
}


@lru_cache(maxsize=192)
def cutter(record: str, count: int) -> Callable[[bytes], tuple[Any, ...]]:
    """What takes one field out of each of ``count`` records; ``record`` as in ``struct``, big endian.

    Kept for three fields and each length of a burst; ``struct.unpack`` keeps a hundred formats and then forgets all.
    """
    return struct.Struct(">" + record * count).unpack


class AeadSealer:
    """Seals with an AEAD key. ``header`` is the packet's first 1 or 4 bytes, by which it is DATA_V1 or DATA_V2."""

    __slots__ = ("_base", "_encrypt", "_header", "_implicit_iv", "_unauthenticated", "_width", "usage_limit")

    usage_limit: int | None

    def __init__(self, cipher: str, cipher_slot: bytes, hmac_slot: bytes, header: bytes) -> None:
        algorithm, key_size, self.usage_limit = AEAD_ALGORITHMS[cipher]
        self._encrypt = algorithm(cipher_slot[:key_size]).encrypt
        self._implicit_iv = hmac_slot[:IMPLICIT_IV_SIZE]
        self._header = header
        # The associated data are one number: the packet id, in DATA_V2 with the header before it.
        is_v1 = len(header) == 1
        self._unauthenticated = header if is_v1 else b""
        self._width = PACKET_ID_SIZE if is_v1 else len(header) + PACKET_ID_SIZE
        self._base = 0 if is_v1 else int.from_bytes(header, "big") << 32

    def seal_burst(self, first_id: int, texts: Sequence[bytes | bytearray | memoryview]) -> list[bytes]:
        """See ciphers.Sealer."""
        encrypt, implicit_iv, header, width = self._encrypt, self._implicit_iv, self._unauthenticated, self._width
        first, count = self._base + first_id, len(texts)
        if count < SHORT_BURST:
            sealed = []
            for number, text in enumerate(texts, first):
                ad = number.to_bytes(width, "big")
                box = encrypt(ad[-4:] + implicit_iv, text, ad)
                sealed.append(header + ad + box[-16:] + box[:-16])
            return sealed
        ads = [number.to_bytes(width, "big") for number in range(first, first + count)]
        nonces = cutter("4x12s" if width > PACKET_ID_SIZE else "12s", count)(implicit_iv.join([*ads, b""]))
        boxes = list(map(encrypt, nonces, texts, ads))
        heads = [header + ad for ad in ads] if header else ads
        return list(map(add, map(add, heads, map(take_tag, boxes)), map(take_ciphertext, boxes)))

    def max_plaintext(self, datagram: int) -> int:
        """See ciphers.Sealer."""
        return datagram - len(self._header) - PACKET_ID_SIZE - TAG_SIZE


class Layout(NamedTuple):
    """Where things are in a datagram, and in a record of its associated data and the implicit IV."""

    #: Where the ciphertext begins.
    start: int
    take_ad: Callable[[bytes], bytes]
    take_ciphertext: Callable[[bytes], bytes]
    take_tag: Callable[[bytes], bytes]
    id_record: str
    nonce_record: str


#: By the size of the header.
LAYOUTS = {
    1: Layout(21, itemgetter(slice(1, 5)), itemgetter(slice(21, None)), itemgetter(slice(5, 21)), "I8x", "12s"),
    4: Layout(24, itemgetter(slice(8)), itemgetter(slice(24, None)), itemgetter(slice(8, 24)), "4xI8x", "4x12s"),
}


class AeadOpener:
    """Opens what the peer sealed with an AEAD key, in either format."""

    __slots__ = ("_decrypt", "_implicit_iv", "failures", "usage_limit")

    usage_limit: int | None

    def __init__(self, cipher: str, cipher_slot: bytes, hmac_slot: bytes) -> None:
        algorithm, key_size, self.usage_limit = AEAD_ALGORITHMS[cipher]
        self._decrypt = algorithm(cipher_slot[:key_size]).decrypt
        self._implicit_iv = hmac_slot[:IMPLICIT_IV_SIZE]
        self.failures: int = 0

    def open_run_untrusted(
        self, packets: Sequence[bytes], header_size: int, drops: Counter[DropReason]
    ) -> tuple[tuple[int, ...], list[bytes]]:
        """See ciphers.Opener. The associated data are the bytes that arrived, whatever peer id they hold."""
        start, take_ad, take_ciphertext, take_tag, id_record, nonce_record = LAYOUTS[header_size]
        ads = list(map(take_ad, packets))
        records = self._implicit_iv.join([*ads, b""])
        try:
            ids = cutter(id_record, len(packets))(records)
        except struct.error:
            # Some are too short even for a packet id; the shortest legal packet has one byte to decrypt.
            whole = [packet for packet in packets if len(packet) > start]
            drops[DropReason.TOO_SHORT] += len(packets) - len(whole)
            return self.open_run_untrusted(whole, header_size, drops)
        nonces = cutter(nonce_record, len(packets))(records)
        boxes = list(map(add, map(take_ciphertext, packets), map(take_tag, packets)))
        opened = map(self._decrypt, nonces, boxes, ads)
        texts: list[bytes] = []
        failed: list[int] = []
        while True:
            try:
                texts.extend(opened)
            except InvalidTag:
                # What came before it is in the list, and the iterator goes on behind it.
                failed.append(len(texts) + len(failed))
            else:
                break
        if failed:
            self._count_failed(failed, packets, start, drops)
            bad = set(failed)
            ids = tuple(packet_id for index, packet_id in enumerate(ids) if index not in bad)
        return ids, texts

    def _count_failed(
        self, failed: list[int], packets: Sequence[bytes], start: int, drops: Counter[DropReason]
    ) -> None:
        """Tell forged packets from stumps, whose tag cannot even be there."""
        short = sum(len(packets[index]) <= start for index in failed)
        if short:
            drops[DropReason.TOO_SHORT] += short
        if short < len(failed):
            self.failures += len(failed) - short
            drops[DropReason.BAD_AUTHENTICATION] += len(failed) - short
