"""The data keys that are alive: which one sends, which ones receive, and when they go.

A rekey installs a new key beside the current one. The peer may not have the
new key yet, so for ``send_after`` seconds, or until the peer itself has used the
new key, or until the older one has carried an eighth more than it should, that
one goes on sending; both receive. From its replacement on an old key lives for
``transition_window`` seconds, as a lame duck, and is then forgotten.

::

    install(new)                 new.sends_at                old.expires_at
    -----+---------------------------+----------------------------+--------->
         | old sends, both receive   | new sends, both receive    | only new
"""

from __future__ import annotations

from collections.abc import Iterator

from ..errors import ConfigError
from ..items import DataChannelKey
from ..packet.ids import KeyID, RandomBytes
from .ciphers import Opener, Replay, Sealer, make_machinery
from .compress import Framing, make_framing
from .fragment import HEADER_SIZE
from .limits import FAILURE_LIMIT, KeyUsage
from .occ import OCC_MAGIC

__all__ = ["MAX_LIVE_KEYS", "KeySlot", "KeySlots"]

#: The current key, a new one that does not send yet, and a lame duck.
MAX_LIVE_KEYS = 3

#: A fragment holds at least one unit of data.
MIN_FRAGMENT_PLAINTEXT = HEADER_SIZE + 4


class KeySlot:
    """One live key: its ciphers, its replay window, what it has carried.

    The key's bytes are held by the cipher objects only, and go with them.
    ValueError: the key cannot be used. ConfigError: its ``fragment`` is too small.
    """

    __slots__ = (
        "expires_at",
        "fragment_limit",
        "frame_size",
        "framing",
        "key_id",
        "opener",
        "replay",
        "sealer",
        "sends_at",
        "usage",
    )

    opener: Opener
    replay: Replay
    sealer: Sealer
    usage: KeyUsage

    def __init__(
        self, key: DataChannelKey, *, rng: RandomBytes, replay_window: int, replay_time: float, sends_at: float
    ) -> None:
        self.key_id: KeyID = key.key_id
        self.sealer, self.opener, self.replay, self.usage = make_machinery(
            key, rng, replay_window=replay_window, replay_time=replay_time
        )
        self.framing: Framing | None = make_framing(key.compression, key.decompress)
        #: Longest plaintext with its fragment header; None: no fragment headers.
        self.fragment_limit: int | None = None
        if key.fragment is not None:
            self.fragment_limit = self.sealer.max_plaintext(key.fragment)
            if self.fragment_limit < MIN_FRAGMENT_PLAINTEXT:
                raise ConfigError(f"{key.fragment} leaves no room for data", directive="fragment")
        #: What framing adds to an OCC message: bytes before it, inside the encryption.
        self.frame_size: int = 0 if self.framing is None else len(self.framing.encode(OCC_MAGIC)) - len(OCC_MAGIC)
        if self.fragment_limit is not None:
            self.frame_size += HEADER_SIZE
        self.sends_at: float = sends_at
        self.expires_at: float | None = None

    def largest_message(self, datagram: int) -> int:
        """The longest OCC message that fits a datagram of ``datagram`` bytes in one piece; may be negative."""
        return self.sealer.max_plaintext(datagram) - self.frame_size

    def datagram_size(self, message: int) -> int:
        """How long the datagram is that carries an OCC message of ``message`` bytes in one piece."""
        size = message
        while self.largest_message(size) < message:
            size += 1
        return size

    @property
    def may_open(self) -> bool:
        """False: so many forged packets were tried on this key that it opens none any more."""
        return self.opener.failures < FAILURE_LIMIT

    def rekey_reason(self) -> str | None:
        """Why this key wants a successor."""
        return self.usage.rekey_reason(self.opener.failures)


class KeySlots:
    """The live keys, at most three, newest first."""

    __slots__ = ("_slots",)

    def __init__(self) -> None:
        self._slots: list[KeySlot] = []

    def __len__(self) -> int:
        return len(self._slots)

    def __iter__(self) -> Iterator[KeySlot]:
        return iter(self._slots)

    @property
    def newest(self) -> KeySlot | None:
        """The key that was installed last."""
        return self._slots[0] if self._slots else None

    def install(self, slot: KeySlot, now: float, transition_window: float) -> None:
        """``slot`` is the newest key from now on; the others are forgotten after ``transition_window``
        seconds, unless sooner. A key with the same id goes at once."""
        older = [old for old in self._slots if old.key_id != slot.key_id][: MAX_LIVE_KEYS - 1]
        if older:
            # The peer has the key before this one, or it would not have negotiated another; it may have
            # forgotten the one before that (reference: ssl.c keeps two).
            older[0].sends_at = min(older[0].sends_at, now)
        expires_at = now + transition_window
        for old in older:
            old.expires_at = expires_at if old.expires_at is None else min(old.expires_at, expires_at)
        self._slots = [slot, *older]

    def find(self, key_id: KeyID) -> KeySlot | None:
        """The live key that ``key_id`` names."""
        for slot in self._slots:
            if slot.key_id == key_id:
                return slot
        return None

    @property
    def newest_heard(self) -> tuple[KeySlot | None, int]:
        """The newest key that the peer was heard to use, and the highest packet id that came with it."""
        for slot in self._slots:
            if highest := slot.replay.highest:
                return slot, highest
        return None, 0

    def sender(self, now: float) -> KeySlot | None:
        """The key to send with: the newest whose time has come, otherwise the oldest there is.

        A key that can send no more hands over early: the peer takes any live key.
        """
        slots = self._slots
        for slot in slots:
            if slot.sends_at <= now:
                break
        else:
            if not slots:
                return None
            slot = slots[-1]
        if slot is not slots[0] and not slot.usage.room():
            return slots[0]
        return slot

    def next_sender_at(self, now: float) -> float:
        """When ``sender`` may choose another key; infinity: not by time."""
        return min((slot.sends_at for slot in self._slots if slot.sends_at > now), default=float("inf"))

    def expire(self, now: float) -> bool:
        """Forget the keys whose time is over; True if there were any."""
        before = len(self._slots)
        self._slots = [slot for slot in self._slots if slot.expires_at is None or slot.expires_at > now]
        return len(self._slots) != before

    def next_timeout(self) -> float | None:
        """When the next key is to be forgotten."""
        return min((slot.expires_at for slot in self._slots if slot.expires_at is not None), default=None)
