"""Data packets on the wire: what seals them and what opens them.

A *sealer* turns plaintexts into datagrams and an *opener* turns datagrams
back, one direction of one key each, a burst at a time. ``aead.py``,
``epoch.py`` and ``cbc.py`` hold the three families; this module says what they
have in common and makes what a key needs.

Layouts (reference: crypto.c; ``op`` is opcode and key id, ``peer24`` only in
DATA_V2)::

    AEAD   op [peer24] | packet id 4 | tag 16 | ciphertext
    epoch  op peer24   | packet id 8 | ciphertext | tag 16
    CBC    op [peer24] | HMAC | IV | ciphertext of (packet id 4 | plaintext | PKCS #7 padding)

A plaintext is what framing made of an IP packet: ``fragment.py`` outside,
``compress.py`` inside.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from ..config.model import CBC_CIPHERS, SMALL_BLOCK_CIPHERS
from ..errors import DropReason
from ..items import DataChannelKey
from ..packet.ids import RandomBytes
from ..packet.opcodes import OPCODE_SHIFT, Opcode
from ..packet.replay import ReplayWindow
from .aead import AEAD_ALGORITHMS, AeadOpener, AeadSealer
from .epoch import EpochOpener, EpochReplay, EpochSealer, EpochUsage
from .limits import KeyUsage

__all__ = [
    "V1_HEADER_SIZE",
    "V2_HEADER_SIZE",
    "Buffer",
    "KeyMachinery",
    "Opener",
    "Replay",
    "Sealer",
    "make_machinery",
]

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


class Replay(Protocol):
    """Remembers which packet ids came (packet/replay.py)."""

    @property
    def highest(self) -> int:
        """The highest id that came; 0: none yet."""
        ...

    def check_and_update(self, packet_id: int, now: float) -> bool:
        """Whether ``packet_id`` comes for the first time; it is remembered."""
        ...

    def accept_run(self, first: int, count: int, now: float) -> bool:
        """Take ``count`` ids at once, if they are just the next ones in order. False: nothing was changed."""
        ...


class KeyMachinery(NamedTuple):
    """All that one key works with."""

    sealer: Sealer
    opener: Opener
    replay: Replay
    usage: KeyUsage


def make_machinery(key: DataChannelKey, rng: RandomBytes, *, replay_window: int, replay_time: float) -> KeyMachinery:
    """What sends and receives with ``key``; ``rng`` gives CBC its IVs.

    ValueError: there is no such cipher or digest, or not in epochs. ConfigError: the crypto library lacks it.
    """
    if key.peer_id is None:
        header = bytes([Opcode.DATA_V1 << OPCODE_SHIFT | key.key_id])
    else:
        header = bytes([Opcode.DATA_V2 << OPCODE_SHIFT | key.key_id]) + key.peer_id.to_bytes(3, "big")
    if key.epoch:
        if key.cipher not in AEAD_ALGORITHMS or key.peer_id is None:
            raise ValueError("epochs need an AEAD cipher and a peer id")
        epoch_opener = EpochOpener(key.cipher, key.receive_cipher)
        epoch_sealer = EpochSealer(key.cipher, key.send_cipher, header, epoch_opener)
        epoch_usage = EpochUsage(epoch_sealer, reneg_bytes=key.reneg_bytes, reneg_packets=key.reneg_packets)
        return KeyMachinery(epoch_sealer, epoch_opener, EpochReplay(replay_window, replay_time), epoch_usage)
    sealer: Sealer
    opener: Opener
    if key.cipher in AEAD_ALGORITHMS:
        sealer = AeadSealer(key.cipher, key.send_cipher, key.send_hmac, header)
        opener = AeadOpener(key.cipher, key.receive_cipher, key.receive_hmac)
    elif key.cipher in (*CBC_CIPHERS, *SMALL_BLOCK_CIPHERS):
        from .cbc import CbcOpener, CbcSealer  # servers of old only

        sealer = CbcSealer(key.cipher, key.auth, key.send_cipher, key.send_hmac, header, rng)
        opener = CbcOpener(key.cipher, key.auth, key.receive_cipher, key.receive_hmac)
    else:
        raise ValueError(f"cipher {key.cipher} is not supported")
    usage = KeyUsage(block_limit=sealer.usage_limit, reneg_bytes=key.reneg_bytes, reneg_packets=key.reneg_packets)
    return KeyMachinery(sealer, opener, ReplayWindow(replay_window, replay_time), usage)
