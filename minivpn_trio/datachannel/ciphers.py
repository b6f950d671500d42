"""Data packets on the wire: what seals them and what opens them.

A *sealer* turns plaintexts into datagrams and an *opener* turns datagrams
back, one direction of one key each, a burst at a time. ``aead.py`` and
``cbc.py`` hold the two families; this module says what they have in common and
makes the right pair for a key.

Layouts (reference: crypto.c; ``op`` is opcode and key id, ``peer24`` only in
DATA_V2)::

    AEAD   op [peer24] | packet id 4 | tag 16 | ciphertext
    CBC    op [peer24] | HMAC | IV 16 | ciphertext of (packet id 4 | plaintext | PKCS #7 padding)

A plaintext is what framing made of an IP packet: ``fragment.py`` outside,
``compress.py`` inside.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Protocol

from ..errors import DropReason
from ..items import DataChannelKey
from ..packet.ids import RandomBytes
from ..packet.opcodes import OPCODE_SHIFT, Opcode
from .aead import AEAD_ALGORITHMS, AeadOpener, AeadSealer
from .cbc import CBC_KEY_SIZES, CbcOpener, CbcSealer

__all__ = ["V1_HEADER_SIZE", "V2_HEADER_SIZE", "Buffer", "Opener", "Sealer", "make_opener", "make_sealer"]

#: A plaintext: an IP packet as its maker holds it.
Buffer = bytes | bytearray | memoryview

#: Bytes before the part that the cipher's family lays out.
V1_HEADER_SIZE = 1
V2_HEADER_SIZE = 4


class Sealer(Protocol):
    """Encrypts and authenticates with one key."""

    @property
    def usage_limit(self) -> int | None:
        """How many blocks and invocations the key may see in all; None: any number."""
        ...

    def seal_burst(self, first_id: int, texts: Sequence[Buffer]) -> list[bytes]:
        """One datagram for each of ``texts``, with the packet ids ``first_id``, ``first_id + 1``, ...

        The caller guarantees that no id is ever given twice and that all fit 32 bits.
        """
        ...

    def max_plaintext(self, datagram: int) -> int:
        """The longest plaintext whose datagram has at most ``datagram`` bytes; may be negative."""
        ...


class Opener(Protocol):
    """Authenticates and decrypts with one key."""

    @property
    def usage_limit(self) -> int | None:
        """As in Sealer."""
        ...

    @property
    def failures(self) -> int:
        """How many packets did not authenticate."""
        ...

    def open_run_untrusted(
        self, packets: Sequence[bytes], header_size: int, drops: Counter[DropReason]
    ) -> tuple[tuple[int, ...], list[bytes]]:
        """The packet ids and plaintexts of those of ``packets`` that authenticate, in order.

        All ``packets`` begin with the same byte, so they have the same ``header_size`` (1 or 4).
        The others are counted in ``drops``. Never raises. Replays are not looked for: that is the
        caller's next step.
        """
        ...


def make_sealer(key: DataChannelKey, rng: RandomBytes) -> Sealer:
    """What sends with ``key``; ``rng`` gives CBC its IVs. ValueError: no such cipher or digest."""
    if key.peer_id is None:
        header = bytes([Opcode.DATA_V1 << OPCODE_SHIFT | key.key_id])
    else:
        header = bytes([Opcode.DATA_V2 << OPCODE_SHIFT | key.key_id]) + key.peer_id.to_bytes(3, "big")
    _check(key)
    if key.cipher in AEAD_ALGORITHMS:
        return AeadSealer(key.cipher, key.send_cipher, key.send_hmac, header)
    return CbcSealer(key.cipher, key.auth, key.send_cipher, key.send_hmac, header, rng)


def make_opener(key: DataChannelKey) -> Opener:
    """What receives with ``key``. ValueError: no such cipher or digest."""
    _check(key)
    if key.cipher in AEAD_ALGORITHMS:
        return AeadOpener(key.cipher, key.receive_cipher, key.receive_hmac)
    return CbcOpener(key.cipher, key.auth, key.receive_cipher, key.receive_hmac)


def _check(key: DataChannelKey) -> None:
    if key.epoch:
        raise ValueError("epoch data packets are not supported")
    if key.cipher not in AEAD_ALGORITHMS and key.cipher not in CBC_KEY_SIZES:
        raise ValueError(f"cipher {key.cipher} is not supported")
