"""How much one data key may carry, and when it is time for the next one.

Three kinds of limit (reference: ssl.c, should_trigger_renegotiation):

- Packet ids are 32 bits and part of the nonce: none is ever used twice. Past
  ``ID_TRIGGER`` a new key is wanted, past the last id nothing is sent.
- AES-GCM loses strength with each block; past 7/8 of the limit a new key is
  wanted, past the limit nothing is sent.
- ``reneg-bytes`` and ``reneg-pkts`` are what the user chose.
"""

from __future__ import annotations

__all__ = ["BLOCK_SIZE", "FAILURE_LIMIT", "FAILURE_TRIGGER", "ID_TRIGGER", "LAST_ID", "KeyUsage"]

#: The first packet id that asks for a new key (reference: packet_id.h, PACKET_ID_WRAP_TRIGGER).
ID_TRIGGER = 0xFF000000
#: The last packet id there is.
LAST_ID = 0xFFFFFFFF

#: Forged packets after which a new key is wanted, and after which the key opens nothing more
#: (reference: crypto.h, cipher_decrypt_verify_fail_warn).
FAILURE_TRIGGER = 2**35
FAILURE_LIMIT = 2**36

BLOCK_SIZE = 16


class KeyUsage:
    """What one key has carried. Bytes are those of plaintexts, framing included."""

    __slots__ = (
        "_block_limit",
        "_block_trigger",
        "_reneg_bytes",
        "_reneg_packets",
        "bytes_in",
        "bytes_out",
        "packets_in",
        "packets_out",
    )

    def __init__(self, *, block_limit: int | None, reneg_bytes: int = 0, reneg_packets: int = 0) -> None:
        self._block_limit = block_limit
        self._block_trigger = None if block_limit is None else block_limit // 8 * 7
        self._reneg_bytes = reneg_bytes
        self._reneg_packets = reneg_packets
        self.bytes_in: int = 0
        self.bytes_out: int = 0
        self.packets_in: int = 0
        self.packets_out: int = 0

    @property
    def next_id(self) -> int:
        """The id of the next packet out. Ids begin with 1: 0 is invalid."""
        return self.packets_out + 1

    @property
    def blocks_out(self) -> int:
        """Blocks and invocations sent; a packet's last block counts as whole, whatever is in it."""
        return self.bytes_out // BLOCK_SIZE + 2 * self.packets_out

    @property
    def blocks_in(self) -> int:
        """Blocks and invocations received."""
        return self.bytes_in // BLOCK_SIZE + 2 * self.packets_in

    def room(self) -> int:
        """How many packets may still be sent with this key."""
        if self._block_limit is not None and self.blocks_out >= self._block_limit:
            return 0
        return LAST_ID - self.packets_out

    @property
    def is_overdue(self) -> bool:
        """Whether more was carried than the user's limits allow, by an eighth."""
        return bool(
            (self._reneg_bytes and self.bytes_in + self.bytes_out >= self._reneg_bytes * 9 // 8)
            or (self._reneg_packets and self.packets_in + self.packets_out >= self._reneg_packets * 9 // 8)
        )

    def rekey_reason(self, failures: int = 0) -> str | None:
        """Why a new key is wanted; None: it is not. ``failures``: packets that did not authenticate."""
        if self.packets_out >= ID_TRIGGER:
            return "packet ids are running out"
        trigger = self._block_trigger
        if trigger is not None and (self.blocks_out >= trigger or self.blocks_in >= trigger):
            return "the cipher's usage limit is near"
        if failures >= FAILURE_TRIGGER:
            return "too many forged packets"
        return self._chosen_reason() if self._reneg_bytes or self._reneg_packets else None

    def _chosen_reason(self) -> str | None:
        """What the user's own limits say."""
        if self._reneg_bytes and self.bytes_in + self.bytes_out >= self._reneg_bytes:
            return "reneg-bytes"
        if self._reneg_packets and self.packets_in + self.packets_out >= self._reneg_packets:
            return "reneg-pkts"
        return None
