"""Pairs of data keys, and channels that talk to each other, for the tests of the data channel."""

from __future__ import annotations

import random
from typing import Any

from minivpn_trio.config.model import AEAD_CIPHERS, CBC_CIPHERS, DIGESTS, SMALL_BLOCK_CIPHERS
from minivpn_trio.datachannel.channel import DataChannel
from minivpn_trio.items import DataChannelKey
from minivpn_trio.packet.ids import KeyID, Role

#: Every (cipher, auth) there is.
CIPHERS = [
    *((cipher, "SHA1") for cipher in AEAD_CIPHERS),
    *((cipher, auth) for cipher in (*CBC_CIPHERS, *SMALL_BLOCK_CIPHERS) for auth in DIGESTS),
]
COMPRESSIONS = ["none", "comp-lzo-no", "stub", "stub-v2"]


def ipv4(payload: bytes) -> bytes:
    """Something that begins like an IPv4 packet: the data channel looks no further."""
    return b"\x45" + payload


def make_keys(key_id: int = 0, seed: int = 1, **options: Any) -> tuple[DataChannelKey, DataChannelKey]:
    """The client's and the server's view of one key."""
    slots = [random.Random(seed * 100 + n).randbytes(64) for n in range(4)]
    fields: dict[str, Any] = {"cipher": "AES-256-GCM", "auth": "SHA256", "peer_id": 7, **options}
    views = (slots, slots[2:] + slots[:2])
    client, server = (
        DataChannelKey(
            key_id=KeyID(key_id),
            send_cipher=view[0],
            send_hmac=view[1],
            receive_cipher=view[2],
            receive_hmac=view[3],
            **fields,
        )
        for view in views
    )
    return client, server


def make_channel(role: Role = Role.CLIENT, seed: int = 1, **options: Any) -> DataChannel:
    """A channel with a seeded source of randomness and no key."""
    return DataChannel(role=role, rng=random.Random(seed).randbytes, **options)


def make_pair(now: float = 0.0, **options: Any) -> tuple[DataChannel, DataChannel]:
    """Client and server with one key installed."""
    client, server = make_channel(Role.CLIENT), make_channel(Role.SERVER, seed=2)
    for channel, key in zip((client, server), make_keys(**options), strict=True):
        channel.install_key(key, now)
    return client, server
