"""CBC data packets: AES-CBC under an HMAC, encrypt-then-MAC.

::

    op [peer24] | HMAC | IV 16 | ciphertext of (packet id 4 | plaintext | PKCS #7 padding)

The HMAC covers IV and ciphertext, never the header (reference: crypto.c,
openvpn_encrypt_v1).

Setting up a cipher context costs more than encrypting a packet with it, and
CBC contexts cannot be given another IV. But they need not be: one context
encrypts for ever, and each packet is preceded by a block of 16 random bytes.
What that block encrypts to is, whatever came before it, a uniformly random
block that nobody can know in advance, and the packet is chained to it: it *is*
the packet's IV. Decrypting works alike: put through one long-lived context,
the IV decrypts to noise, which is cut off, and is the right predecessor for
what follows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from hmac import compare_digest

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.hmac import HMAC

from ..errors import DropReason
from ..packet.ids import RandomBytes

__all__ = ["BLOCK_SIZE", "CBC_KEY_SIZES", "DIGEST_ALGORITHMS", "CbcOpener", "CbcSealer"]

BLOCK_SIZE = 16
PACKET_ID_SIZE = 4

CBC_KEY_SIZES = {"AES-128-CBC": 16, "AES-192-CBC": 24, "AES-256-CBC": 32}

#: OpenVPN's name of ``auth`` -> digest. SHA-1 is sound inside HMAC and is the protocol's default.
DIGEST_ALGORITHMS: dict[str, type[hashes.HashAlgorithm]] = {
    "SHA1": hashes.SHA1,
    "SHA224": hashes.SHA224,
    "SHA256": hashes.SHA256,
    "SHA384": hashes.SHA384,
    "SHA512": hashes.SHA512,
}

#: The padding of n bytes, at index n.
PADDINGS = tuple(bytes([size]) * size for size in range(BLOCK_SIZE + 1))


def _context(cipher: str, cipher_slot: bytes) -> Cipher[modes.CBC]:
    # The first packet needs no IV either: its random block is xored with these zeros.
    return Cipher(algorithms.AES(cipher_slot[: CBC_KEY_SIZES[cipher]]), modes.CBC(bytes(BLOCK_SIZE)))


def _mac(auth: str, hmac_slot: bytes) -> HMAC:
    """An HMAC that is keyed once and copied for each packet."""
    try:
        algorithm = DIGEST_ALGORITHMS[auth]()
    except KeyError:
        raise ValueError(f"digest {auth} is not supported") from None
    # The HMAC key is as long as the digest, cut from its 64-byte slot.
    return HMAC(hmac_slot[: algorithm.digest_size], algorithm)


class CbcSealer:
    """Seals with an AES-CBC and an HMAC key. ``header`` is the packet's first 1 or 4 bytes."""

    __slots__ = ("_header", "_mac", "_rng", "_update")

    usage_limit: int | None = None

    def __init__(
        self, cipher: str, auth: str, cipher_slot: bytes, hmac_slot: bytes, header: bytes, rng: RandomBytes
    ) -> None:
        self._update = _context(cipher, cipher_slot).encryptor().update
        self._mac = _mac(auth, hmac_slot)
        self._header = header
        self._rng = rng

    def seal_burst(self, first_id: int, texts: Sequence[bytes | bytearray | memoryview]) -> list[bytes]:
        """See ciphers.Sealer."""
        update = self._update
        copy = self._mac.copy
        header = self._header
        noise = self._rng(BLOCK_SIZE * len(texts))
        sealed: list[bytes] = []
        offset = 0
        for packet_id, text in enumerate(texts, first_id):
            end = offset + BLOCK_SIZE
            padding = PADDINGS[BLOCK_SIZE - (PACKET_ID_SIZE + len(text)) % BLOCK_SIZE]
            box = update(b"".join((noise[offset:end], packet_id.to_bytes(4, "big"), text, padding)))
            mac = copy()
            mac.update(box)
            sealed.append(header + mac.finalize() + box)
            offset = end
        return sealed

    def max_plaintext(self, datagram: int) -> int:
        """See ciphers.Sealer. There is always at least one byte of padding."""
        room = datagram - len(self._header) - self._mac.algorithm.digest_size - BLOCK_SIZE
        return room - room % BLOCK_SIZE - 1 - PACKET_ID_SIZE


class CbcOpener:
    """Opens what the peer sealed with an AES-CBC and an HMAC key, in either format."""

    __slots__ = ("_mac", "_update", "failures")

    usage_limit: int | None = None

    def __init__(self, cipher: str, auth: str, cipher_slot: bytes, hmac_slot: bytes) -> None:
        self._update = _context(cipher, cipher_slot).decryptor().update
        self._mac = _mac(auth, hmac_slot)
        self.failures = 0

    def open_run_untrusted(
        self, packets: Sequence[bytes], header_size: int, drops: Counter[DropReason]
    ) -> tuple[tuple[int, ...], list[bytes]]:
        """See ciphers.Opener. Nothing is decrypted before its HMAC was found right."""
        update = self._update
        copy = self._mac.copy
        mac_end = header_size + self._mac.algorithm.digest_size
        ids: list[int] = []
        texts: list[bytes] = []
        for packet in packets:
            box = packet[mac_end:]
            if len(box) < 2 * BLOCK_SIZE:
                drops[DropReason.TOO_SHORT] += 1
                continue
            if len(box) % BLOCK_SIZE:
                drops[DropReason.MALFORMED] += 1
                continue
            mac = copy()
            mac.update(box)
            if not compare_digest(mac.finalize(), packet[header_size:mac_end]):
                self.failures += 1
                drops[DropReason.BAD_AUTHENTICATION] += 1
                continue
            padded = update(box)
            padding = padded[-1]
            size = len(padded) - padding
            if (
                not 0 < padding <= BLOCK_SIZE
                or size < BLOCK_SIZE + PACKET_ID_SIZE
                or padded[size:] != PADDINGS[padding]
            ):
                # Authentic, so this tells an attacker nothing: the peer's own mistake.
                drops[DropReason.MALFORMED] += 1
                continue
            ids.append(int.from_bytes(padded[16:20], "big"))
            texts.append(padded[20:size])
        return tuple(ids), texts
