"""AEAD data packets in epochs: keys that replace themselves, 64-bit packet ids, the tag at the end.

::

    DATA_V2   op peer24 | epoch 2 | counter 6 | ciphertext | tag 16     associated data: the first 12 bytes

Each direction has a chain of secrets: the first is taken from the key's slot,
every other is derived from the one before, and there is no way back. A secret
gives one epoch's cipher key and 12 bytes that are xored with the packet id,
epoch included, to make the nonce (reference: crypto_epoch.c; RFC 8446, section
7.1 for the derivation, with another prefix).

::

                 retiring     current      future
    receiver        n-2          n       n+1 .. n+4     whichever opens a packet becomes current
    sender                       n                      moves on at its limits, or to follow the peer

A sender moves to the next epoch when the current one has carried all that its
cipher bears. The receiver has the keys of the next few epochs ready and moves
on when a packet of one of them authenticates; the epoch that was current
retires and still opens packets that come late. A sender is never behind what
its peer has used: by going ahead, either side makes both change keys. So a
cipher's limits cost no renegotiation any more; only when the epochs themselves
run out is a new key wanted.
"""

from __future__ import annotations

import hmac
import struct
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidTag

from ..errors import DropReason
from ..packet.replay import ReplayWindow
from .aead import AEAD_ALGORITHMS, TAG_SIZE
from .limits import BLOCK_SIZE, FAILURE_LIMIT, FAILURE_TRIGGER, KeyUsage

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

__all__ = [
    "COUNTER_MASK",
    "EPOCH_TRIGGER",
    "FUTURE_EPOCHS",
    "LAST_EPOCH",
    "LAST_SENT_EPOCH",
    "EpochKey",
    "EpochOpener",
    "EpochReplay",
    "EpochSealer",
    "EpochUsage",
    "expand_label",
    "hkdf_expand",
    "next_secret",
]

SECRET_SIZE = 32
IV_SIZE = 12
#: Bytes before the ciphertext: opcode and peer id, packet id.
HEAD_SIZE = 12
HEADER_SIZE = 4

#: Packet ids: the epoch in the upper 16 bits, a counter from 1 in the lower 48.
EPOCH_SHIFT = 48
COUNTER_MASK = (1 << EPOCH_SHIFT) - 1
LAST_EPOCH = 0xFFFF
#: The first epoch that asks for a renegotiation (reference: ssl.c, should_trigger_renegotiation).
EPOCH_TRIGGER = 0xF000
#: Epochs after the current one whose packets are opened (reference: ssl.c, init_epoch_keys).
FUTURE_EPOCHS = 4
#: The last epoch to send in: a receiver that moved any further could not prepare the future.
LAST_SENT_EPOCH = LAST_EPOCH - FUTURE_EPOCHS - 1


def hkdf_expand(secret: bytes, info: bytes, size: int) -> bytes:
    """HKDF-Expand of RFC 5869 with SHA-256."""
    output = b""
    step = b""
    number = 0
    while len(output) < size:
        number += 1
        step = hmac.digest(secret, step + info + bytes([number]), "sha256")
        output += step
    return output[:size]


def expand_label(secret: bytes, label: bytes, size: int) -> bytes:
    """HKDF-Expand-Label of RFC 8446, section 7.1, with the prefix ``ovpn `` and no context."""
    full = b"ovpn " + label
    return hkdf_expand(secret, size.to_bytes(2, "big") + bytes([len(full)]) + full + b"\0", size)


def next_secret(secret: bytes) -> bytes:
    """The secret of the epoch after that of ``secret``."""
    return expand_label(secret, b"datakey upd", SECRET_SIZE)


class EpochKey:
    """One direction's key of one epoch, and what it has carried."""

    __slots__ = ("blocks", "cipher", "epoch", "failures", "mask", "packets")

    def __init__(self, algorithm: str, epoch: int, secret: bytes) -> None:
        make, key_size, _ = AEAD_ALGORITHMS[algorithm]
        self.epoch: int = epoch
        self.cipher: AESGCM | ChaCha20Poly1305 = make(expand_label(secret, b"data_key", key_size))
        #: What the 64-bit packet id, followed by 4 zero bytes, is xored with.
        self.mask: int = int.from_bytes(expand_label(secret, b"data_iv", IV_SIZE), "big")
        self.blocks: int = 0
        self.packets: int = 0
        #: Packets that did not authenticate.
        self.failures: int = 0

    def count(self, packets: int, size: int) -> None:
        """It has carried ``packets`` more, of ``size`` bytes in all."""
        self.packets += packets
        self.blocks += size // BLOCK_SIZE + packets

    def reached(self, limit: int | None) -> bool:
        """Whether blocks and invocations together are at ``limit``."""
        return limit is not None and self.blocks + self.packets >= limit


class EpochOpener:
    """Opens what the peer sealed in any of the epochs that may be (ciphers.Opener).

    ``future`` is how many epochs ahead the peer may be.
    """

    __slots__ = ("_algorithm", "_future", "_keys", "_limit", "_secret", "_secret_epoch", "current", "retiring")

    usage_limit: int | None = None
    #: Forgeries count against the epoch that they name, not against them all.
    failures = 0

    def __init__(self, cipher: str, cipher_slot: bytes, *, future: int = FUTURE_EPOCHS) -> None:
        self._algorithm = cipher
        self._limit = AEAD_ALGORITHMS[cipher][2]
        self._future = future
        self._secret = cipher_slot[:SECRET_SIZE]
        #: The newest epoch that has a key.
        self._secret_epoch = 1
        #: The epoch of the newest packet that authenticated; 1 at first.
        self.current: EpochKey = EpochKey(cipher, 1, self._secret)
        #: The one before it that was in use.
        self.retiring: EpochKey | None = None
        self._keys = {1: self.current}
        self._prepare()

    def find(self, epoch: int) -> EpochKey | None:
        """The key of ``epoch``: the current one, the retiring one or one of the future; None: no such key.

        Near the last epoch the future ends early: what a move there would have to prepare does not exist.
        """
        if epoch > LAST_EPOCH - self._future - 1 and epoch > self.current.epoch:
            return None
        return self._keys.get(epoch)

    def move_to(self, epoch: int) -> None:
        """A packet of ``epoch``, one of the future, authenticated: it is the current one now."""
        self.retiring = self.current
        self.current = self._keys[epoch]
        live = self.retiring.epoch
        self._keys = {number: key for number, key in self._keys.items() if number >= epoch or number == live}
        self._prepare()

    def _prepare(self) -> None:
        """Make the keys of the future."""
        while self._secret_epoch < min(self.current.epoch + self._future, LAST_EPOCH):
            self._secret = next_secret(self._secret)
            self._secret_epoch += 1
            self._keys[self._secret_epoch] = EpochKey(self._algorithm, self._secret_epoch, self._secret)

    @property
    def is_worn(self) -> bool:
        """Whether the peer should move on: it has used the current epoch up, or others try to forge in it."""
        return self.current.reached(self._limit) or self.current.failures >= FAILURE_TRIGGER

    def open_run_untrusted(
        self, packets: Sequence[bytes], header_size: int, drops: Counter[DropReason]
    ) -> tuple[tuple[int, ...], list[bytes]]:
        """See ciphers.Opener. There is no DATA_V1 in epochs."""
        if header_size != HEADER_SIZE:
            drops[DropReason.UNEXPECTED_OPCODE] += len(packets)
            return (), []
        if min(map(len, packets)) <= HEAD_SIZE + TAG_SIZE:
            # The shortest legal packet has one byte to decrypt.
            whole = [packet for packet in packets if len(packet) > HEAD_SIZE + TAG_SIZE]
            drops[DropReason.TOO_SHORT] += len(packets) - len(whole)
            if not whole:
                return (), []
            packets = whole
        wanted = struct.unpack(f">{len(packets)}Q", b"".join([packet[4:12] for packet in packets]))
        key = self.current
        epoch, mask, decrypt = key.epoch, key.mask, key.cipher.decrypt
        if key.failures >= FAILURE_LIMIT:
            epoch = 0  # which no packet can have: all are looked up
        ids: list[int] = []
        texts: list[bytes] = []
        append, append_id = texts.append, ids.append
        for packet_id, packet in zip(wanted, packets, strict=True):
            if packet_id >> EPOCH_SHIFT != epoch:
                other = self.find(packet_id >> EPOCH_SHIFT)
                if other is None:
                    drops[DropReason.UNKNOWN_KEY] += 1
                    continue
                key = other
                epoch, mask, decrypt = key.epoch, key.mask, key.cipher.decrypt
            try:
                text = decrypt(
                    (packet_id << 32 ^ mask).to_bytes(IV_SIZE, "big"), packet[HEAD_SIZE:], packet[:HEAD_SIZE]
                )
            except InvalidTag:
                self._count_failure(key, drops)
                continue
            if epoch > self.current.epoch:
                self.move_to(epoch)
            append(text)
            append_id(packet_id)
        # A few of the retiring epoch count with the current one: that only makes it move on sooner.
        self.current.count(len(texts), sum(map(len, texts)))
        return tuple(ids), texts

    def _count_failure(self, key: EpochKey, drops: Counter[DropReason]) -> None:
        drops[DropReason.BAD_AUTHENTICATION] += 1
        key.failures += 1
        if key.failures >= FAILURE_LIMIT:
            # So many forgeries were tried on it that it opens none any more.
            self._keys.pop(key.epoch, None)


class EpochSealer:
    """Seals in the newest epoch (ciphers.Sealer). ``header`` is the packet's first 4 bytes; ``peer`` opens
    what the other side sends and says how far that is."""

    __slots__ = ("_algorithm", "_base", "_header", "_peer", "_secret", "_spent", "key", "limit")

    usage_limit: int | None = None

    def __init__(self, cipher: str, cipher_slot: bytes, header: bytes, peer: EpochOpener) -> None:
        self._algorithm = cipher
        #: Blocks and invocations after which an epoch ends.
        self.limit: int | None = AEAD_ALGORITHMS[cipher][2]
        self._secret = cipher_slot[:SECRET_SIZE]
        self._header = int.from_bytes(header, "big") << 64
        self._peer = peer
        self.key: EpochKey = EpochKey(cipher, 1, self._secret)
        # What was sent in earlier epochs, and in all.
        self._base = 0
        self._spent = 0

    @property
    def epoch(self) -> int:
        """The epoch of the next packet, unless the peer goes ahead or a limit is reached."""
        return self.key.epoch

    @property
    def is_exhausted(self) -> bool:
        """Whether nothing more may be sent: the last epoch has reached its limits."""
        return self.key.epoch >= LAST_SENT_EPOCH and (
            self.key.reached(self.limit) or self._spent - self._base >= COUNTER_MASK
        )

    def advance(self, epoch: int) -> None:
        """Go on in ``epoch``, a later one."""
        number = self.key.epoch
        while number < epoch:
            self._secret = next_secret(self._secret)
            number += 1
        self.key = EpochKey(self._algorithm, number, self._secret)
        self._base = self._spent

    def _choose_epoch(self, count: int) -> None:
        """Follow the peer, or lead, before ``count`` packets are sealed."""
        key, peer = self.key, self._peer
        if peer.current.epoch > key.epoch:
            self.advance(peer.current.epoch)
        elif key.epoch < LAST_SENT_EPOCH and (
            key.reached(self.limit)
            or self._spent - self._base + count > COUNTER_MASK
            # The peer will follow us: that is how it is told that its own key has done enough.
            or (peer.current.epoch == key.epoch and peer.is_worn)
        ):
            self.advance(key.epoch + 1)

    def seal_burst(self, first_id: int, texts: Sequence[bytes | bytearray | memoryview]) -> list[bytes]:
        """See ciphers.Sealer. ``first_id`` numbers the packets of all epochs; each epoch counts from 1."""
        count = len(texts)
        self._spent = first_id - 1
        self._choose_epoch(count)
        key = self.key
        first = key.epoch << EPOCH_SHIFT | first_id - self._base
        self._spent += count
        key.count(count, sum(map(len, texts)))
        encrypt = key.cipher.encrypt
        mask = key.mask
        header = self._header
        sealed: list[bytes] = []
        append = sealed.append
        for packet_id, text in enumerate(texts, first):
            ad = (header | packet_id).to_bytes(HEAD_SIZE, "big")
            append(ad + encrypt((packet_id << 32 ^ mask).to_bytes(IV_SIZE, "big"), text, ad))
        return sealed

    def max_plaintext(self, datagram: int) -> int:
        """See ciphers.Sealer."""
        return datagram - HEAD_SIZE - TAG_SIZE


class EpochUsage(KeyUsage):
    """What a key in epochs has carried: its ciphers' limits are the epochs' affair."""

    __slots__ = ("_sealer",)

    def __init__(self, sealer: EpochSealer, *, reneg_bytes: int = 0, reneg_packets: int = 0) -> None:
        super().__init__(block_limit=None, reneg_bytes=reneg_bytes, reneg_packets=reneg_packets)
        self._sealer = sealer

    def room(self) -> int:
        """How many packets may be sent at once."""
        return 0 if self._sealer.is_exhausted else COUNTER_MASK

    def rekey_reason(self, failures: int = 0) -> str | None:
        """Why a new key is wanted; None: it is not."""
        if self._sealer.epoch >= EPOCH_TRIGGER:
            return "epochs are running out"
        return self._chosen_reason()


class EpochReplay:
    """The replay windows of the current and of the retiring epoch, of ``size`` counters and ``time`` seconds."""

    __slots__ = ("_epoch", "_retired_epoch", "_retired_window", "_size", "_time", "_window")

    def __init__(self, size: int, time: float) -> None:
        self._size = size
        self._time = time
        self._epoch = 1
        self._window = ReplayWindow(size, time)
        self._retired_epoch = 0
        self._retired_window = self._window

    @property
    def highest(self) -> int:
        """The highest id that came, epoch included; 0: none yet."""
        counter = self._window.highest
        return self._epoch << EPOCH_SHIFT | counter if counter else 0

    def check_and_update(self, packet_id: int, now: float) -> bool:
        """As ReplayWindow's. A later epoch begins a window of its own."""
        epoch, counter = packet_id >> EPOCH_SHIFT, packet_id & COUNTER_MASK
        if epoch == self._epoch:
            return self._window.check_and_update(counter, now)
        if epoch == self._retired_epoch:
            return self._retired_window.check_and_update(counter, now)
        if epoch < self._epoch or not counter:
            return False
        self._retired_epoch, self._retired_window = self._epoch, self._window
        self._epoch, self._window = epoch, ReplayWindow(self._size, self._time)
        return self._window.check_and_update(counter, now)

    def accept_run(self, first: int, count: int, now: float) -> bool:
        """As ReplayWindow's."""
        if first >> EPOCH_SHIFT != self._epoch or (first & COUNTER_MASK) + count > COUNTER_MASK:
            return False
        return self._window.accept_run(first & COUNTER_MASK, count, now)
