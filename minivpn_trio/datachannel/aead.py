"""AEAD data packets with 32-bit packet ids: AES-GCM and ChaCha20-Poly1305.

::

    DATA_V2   op peer24 | packet id 4 | tag 16 | ciphertext     associated data: op .. packet id
    DATA_V1   op        | packet id 4 | tag 16 | ciphertext     associated data: packet id only

The nonce is the packet id followed by 8 secret bytes, the first of the key's
HMAC slot (reference: crypto.c, openvpn_encrypt_aead).

This is where most of a tunnel's time goes, so the loops are bare: slices and
concatenations of ``bytes``. ``encrypt_into`` and ``decrypt_into`` on
preallocated buffers were measured too (benchmarks/micro/datachannel.py) and
are slower: the library wants the tag behind the ciphertext and OpenVPN puts it
before, so bytes must move either way, and a concatenation moves them for less
than memoryview slices and slice assignments do.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Sequence

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


class AeadSealer:
    """Seals with an AEAD key. ``header`` is the packet's first 1 or 4 bytes, by which it is DATA_V1 or DATA_V2."""

    __slots__ = ("_base", "_encrypt", "_header", "_implicit_iv", "usage_limit")

    usage_limit: int | None

    def __init__(self, cipher: str, cipher_slot: bytes, hmac_slot: bytes, header: bytes) -> None:
        algorithm, key_size, self.usage_limit = AEAD_ALGORITHMS[cipher]
        self._encrypt = algorithm(cipher_slot[:key_size]).encrypt
        self._implicit_iv = hmac_slot[:IMPLICIT_IV_SIZE]
        self._header = header
        # DATA_V2: header and packet id are one 64-bit number.
        self._base = int.from_bytes(header, "big") << 32

    def seal_burst(self, first_id: int, texts: Sequence[bytes | bytearray | memoryview]) -> list[bytes]:
        """See ciphers.Sealer."""
        encrypt = self._encrypt
        implicit_iv = self._implicit_iv
        header = self._header
        sealed: list[bytes] = []
        append = sealed.append
        if len(header) == 1:
            for packet_id, text in enumerate(texts, first_id):
                ad = packet_id.to_bytes(4, "big")
                box = encrypt(ad + implicit_iv, text, ad)
                append(header + ad + box[-16:] + box[:-16])
        else:
            for number, text in enumerate(texts, self._base + first_id):
                ad = number.to_bytes(8, "big")
                box = encrypt(ad[4:] + implicit_iv, text, ad)
                append(ad + box[-16:] + box[:-16])
        return sealed

    def max_plaintext(self, datagram: int) -> int:
        """See ciphers.Sealer."""
        return datagram - len(self._header) - PACKET_ID_SIZE - TAG_SIZE


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
        id_end = header_size + PACKET_ID_SIZE
        tag_end = id_end + TAG_SIZE
        id_bytes = [packet[header_size:id_end] for packet in packets]
        try:
            ids = struct.unpack(f">{len(packets)}I", b"".join(id_bytes))
        except struct.error:
            # Some are too short even for a packet id; the shortest legal packet has one byte to decrypt.
            whole = [packet for packet in packets if len(packet) > tag_end]
            drops[DropReason.TOO_SHORT] += len(packets) - len(whole)
            return self.open_run_untrusted(whole, header_size, drops)
        heads = [packet[:id_end] for packet in packets] if header_size > 1 else id_bytes
        decrypt = self._decrypt
        implicit_iv = self._implicit_iv
        failed: list[int] = []
        texts: list[bytes] = []
        append = texts.append
        for id_, ad, packet in zip(id_bytes, heads, packets, strict=True):
            try:
                append(decrypt(id_ + implicit_iv, packet[tag_end:] + packet[id_end:tag_end], ad))
            except InvalidTag:
                failed.append(len(texts) + len(failed))
        if failed:
            self._count_failed(failed, packets, tag_end, drops)
            bad = set(failed)
            ids = tuple(packet_id for index, packet_id in enumerate(ids) if index not in bad)
        return ids, texts

    def _count_failed(
        self, failed: list[int], packets: Sequence[bytes], tag_end: int, drops: Counter[DropReason]
    ) -> None:
        """Tell forged packets from stumps, whose tag cannot even be there."""
        short = sum(len(packets[index]) <= tag_end for index in failed)
        if short:
            drops[DropReason.TOO_SHORT] += short
        if short < len(failed):
            self.failures += len(failed) - short
            drops[DropReason.BAD_AUTHENTICATION] += len(failed) - short
