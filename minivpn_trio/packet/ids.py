"""The identifiers that travel in OpenVPN packets, each a type of its own."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import NewType

__all__ = [
    "FIRST_REKEY_ID",
    "MAX_KEY_ID",
    "KeyID",
    "PacketID",
    "RandomBytes",
    "Role",
    "SessionID",
    "next_key_id",
]

#: 8 random bytes that name one side of a session; all zeros is never valid.
SessionID = NewType("SessionID", bytes)
#: A message id of the reliability layer, 32 bits, counted from 0 for each key.
PacketID = NewType("PacketID", int)
#: Which data key, and which TLS session, a packet belongs to: 0 to 7.
KeyID = NewType("KeyID", int)
#: A source of random bytes: ``os.urandom`` in life, a seeded one in simulations.
RandomBytes = Callable[[int], bytes]

MAX_KEY_ID = 7
FIRST_REKEY_ID = KeyID(1)


class Role(Enum):
    """Which end of the protocol a core plays. Only ``minivpn_trio.testing`` plays SERVER."""

    CLIENT = "client"
    SERVER = "server"


def next_key_id(key_id: KeyID) -> KeyID:
    """The id of the key after ``key_id``: 7 is followed by 1, since 0 belongs to the first
    key of a session (reference: ssl.c, key_state_init)."""
    return FIRST_REKEY_ID if key_id >= MAX_KEY_ID else KeyID(key_id + 1)
