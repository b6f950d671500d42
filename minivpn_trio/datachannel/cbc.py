"""CBC data packets: AES-CBC, or one of two ciphers of old, under an HMAC, encrypt-then-MAC.

::

    op [peer24] | HMAC | IV, a block | ciphertext of (packet id 4 | plaintext | PKCS #7 padding)

The HMAC covers IV and ciphertext, never the header (reference: crypto.c,
openvpn_encrypt_v1).

Setting up a cipher context costs more than encrypting a packet with it, and
CBC contexts cannot be given another IV. But they need not be: one context
encrypts for ever, and each packet is preceded by a block of random bytes.
What that block encrypts to is, whatever came before it, a uniformly random
block that nobody can know in advance, and the packet is chained to it: it *is*
the packet's IV. Decrypting works alike: put through one long-lived context,
the IV decrypts to noise, which is cut off, and is the right predecessor for
what follows.

Blowfish and triple DES have blocks of 64 bits, so that after some 2^32 of them
two are alike and say something about their plaintexts (SWEET32). They are here
for servers that have nothing else; keys are renewed soon (``reneg-bytes``), and
stop for good where that fails.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from hmac import compare_digest
from typing import NamedTuple

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers import BlockCipherAlgorithm, Cipher, CipherContext, modes
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.hmac import HMAC

from ..errors import ConfigError, DropReason
from ..packet.ids import RandomBytes

__all__ = ["CBC_ALGORITHMS", "DIGEST_ALGORITHMS", "SMALL_BLOCK_LIMIT", "CbcOpener", "CbcSealer"]

PACKET_ID_SIZE = 4
LARGEST_BLOCK = 16

#: What a key of a cipher with 64-bit blocks carries at most in one direction, in units of 16 bytes: 1 GiB. The
#: chance that two of its blocks are alike is 1 in 2000 by then.
SMALL_BLOCK_LIMIT = 2**26


def _blowfish(key: bytes) -> BlockCipherAlgorithm:
    # Imported only where it is wanted: it warns in some versions of the library, and is missing in later ones.
    from cryptography.hazmat.decrepit.ciphers.algorithms import Blowfish

    return Blowfish(key)


def _triple_des(key: bytes) -> BlockCipherAlgorithm:
    from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES

    return TripleDES(key)


class CbcAlgorithm(NamedTuple):
    """A block cipher. Sizes are bytes."""

    make: Callable[[bytes], BlockCipherAlgorithm]
    key_size: int
    block_size: int = 16
    usage_limit: int | None = None


#: By OpenVPN's name.
CBC_ALGORITHMS = {
    "AES-128-CBC": CbcAlgorithm(AES, 16),
    "AES-192-CBC": CbcAlgorithm(AES, 24),
    "AES-256-CBC": CbcAlgorithm(AES, 32),
    "BF-CBC": CbcAlgorithm(_blowfish, 16, 8, SMALL_BLOCK_LIMIT),
    "DES-EDE3-CBC": CbcAlgorithm(_triple_des, 24, 8, SMALL_BLOCK_LIMIT),
}

#: OpenVPN's name of ``auth`` -> digest. SHA-1 is sound inside HMAC and is the protocol's default.
DIGEST_ALGORITHMS: dict[str, type[hashes.HashAlgorithm]] = {
    "SHA1": hashes.SHA1,
    "SHA224": hashes.SHA224,
    "SHA256": hashes.SHA256,
    "SHA384": hashes.SHA384,
    "SHA512": hashes.SHA512,
}

#: The padding of n bytes, at index n.
PADDINGS = tuple(bytes([size]) * size for size in range(LARGEST_BLOCK + 1))


def _context(cipher: str, cipher_slot: bytes, *, encrypt: bool) -> CipherContext:
    algorithm = CBC_ALGORITHMS[cipher]
    try:
        # The first packet needs no IV either: its random block is xored with these zeros.
        made = Cipher(algorithm.make(cipher_slot[: algorithm.key_size]), modes.CBC(bytes(algorithm.block_size)))
        return made.encryptor() if encrypt else made.decryptor()
    except (ImportError, UnsupportedAlgorithm):
        raise ConfigError(f"the crypto library has no {cipher} any more", directive="data-ciphers") from None


def _mac(auth: str, hmac_slot: bytes) -> HMAC:
    """An HMAC that is keyed once and copied for each packet."""
    try:
        algorithm = DIGEST_ALGORITHMS[auth]()
    except KeyError:
        raise ValueError(f"digest {auth} is not supported") from None
    # The HMAC key is as long as the digest, cut from its 64-byte slot.
    return HMAC(hmac_slot[: algorithm.digest_size], algorithm)


class CbcSealer:
    """Seals with a block cipher's and an HMAC key. ``header`` is the packet's first 1 or 4 bytes."""

    __slots__ = ("_block", "_header", "_mac", "_rng", "_update", "usage_limit")

    def __init__(
        self, cipher: str, auth: str, cipher_slot: bytes, hmac_slot: bytes, header: bytes, rng: RandomBytes
    ) -> None:
        self._block = CBC_ALGORITHMS[cipher].block_size
        self.usage_limit: int | None = CBC_ALGORITHMS[cipher].usage_limit
        self._update = _context(cipher, cipher_slot, encrypt=True).update
        self._mac = _mac(auth, hmac_slot)
        self._header = header
        self._rng = rng

    def seal_burst(self, first_id: int, texts: Sequence[bytes | bytearray | memoryview]) -> list[bytes]:
        """See ciphers.Sealer."""
        update = self._update
        copy = self._mac.copy
        header = self._header
        block = self._block
        noise = self._rng(block * len(texts))
        sealed: list[bytes] = []
        offset = 0
        for packet_id, text in enumerate(texts, first_id):
            end = offset + block
            padding = PADDINGS[block - (PACKET_ID_SIZE + len(text)) % block]
            box = update(b"".join((noise[offset:end], packet_id.to_bytes(4, "big"), text, padding)))
            mac = copy()
            mac.update(box)
            sealed.append(header + mac.finalize() + box)
            offset = end
        return sealed

    def max_plaintext(self, datagram: int) -> int:
        """See ciphers.Sealer. There is always at least one byte of padding."""
        room = datagram - len(self._header) - self._mac.algorithm.digest_size - self._block
        return room - room % self._block - 1 - PACKET_ID_SIZE


class CbcOpener:
    """Opens what the peer sealed with a block cipher's and an HMAC key, in either format."""

    __slots__ = ("_block", "_mac", "_update", "failures", "usage_limit")

    def __init__(self, cipher: str, auth: str, cipher_slot: bytes, hmac_slot: bytes) -> None:
        self._block = CBC_ALGORITHMS[cipher].block_size
        self.usage_limit: int | None = CBC_ALGORITHMS[cipher].usage_limit
        self._update = _context(cipher, cipher_slot, encrypt=False).update
        self._mac = _mac(auth, hmac_slot)
        self.failures: int = 0

    def open_run_untrusted(
        self, packets: Sequence[bytes], header_size: int, drops: Counter[DropReason]
    ) -> tuple[tuple[int, ...], list[bytes]]:
        """See ciphers.Opener. Nothing is decrypted before its HMAC was found right."""
        update = self._update
        copy = self._mac.copy
        block = self._block
        text_at = block + PACKET_ID_SIZE
        mac_end = header_size + self._mac.algorithm.digest_size
        ids: list[int] = []
        texts: list[bytes] = []
        for packet in packets:
            box = packet[mac_end:]
            if len(box) < 2 * block:
                drops[DropReason.TOO_SHORT] += 1
                continue
            if len(box) % block:
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
            if not 0 < padding <= block or size < text_at or padded[size:] != PADDINGS[padding]:
                # Authentic, so this tells an attacker nothing: the peer's own mistake.
                drops[DropReason.MALFORMED] += 1
                continue
            ids.append(int.from_bytes(padded[block:text_at], "big"))
            texts.append(padded[text_at:size])
        return tuple(ids), texts
