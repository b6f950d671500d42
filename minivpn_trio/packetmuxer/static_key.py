"""The 2048-bit static key of tls-auth and tls-crypt, and the file that holds it.

The key is two pairs of 64-byte slots, ``cipher | hmac | cipher | hmac``: one
pair for each direction. Which side sends with which pair is the direction
table of each wrap (reference: crypto.c, key_direction_state_init).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ..config.static_key import STATIC_KEY_SIZE, parse_static_key_text
from ..errors import ConfigError

__all__ = ["SLOT_SIZE", "STATIC_KEY_SIZE", "StaticKey", "parse_static_key"]

SLOT_SIZE = 64


@dataclass(frozen=True, slots=True)
class StaticKey:
    """256 bytes of shared secret. Never shown by ``repr``."""

    material: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if len(self.material) != STATIC_KEY_SIZE:
            raise ValueError(f"a static key has {STATIC_KEY_SIZE} bytes")

    def __xor__(self, other: StaticKey) -> StaticKey:
        """The exclusive-or of both, byte by byte."""
        return StaticKey(bytes(a ^ b for a, b in zip(self.material, other.material, strict=True)))

    def cipher(self, pair: int) -> bytes:
        """The 64-byte cipher slot of pair 0 or 1."""
        return self._slot(2 * pair)

    def hmac(self, pair: int) -> bytes:
        """The 64-byte HMAC slot of pair 0 or 1."""
        return self._slot(2 * pair + 1)

    def _slot(self, index: int) -> bytes:
        return self.material[index * SLOT_SIZE : (index + 1) * SLOT_SIZE]


def parse_static_key(text: bytes, *, directive: str = "tls-auth") -> StaticKey:
    """The key in ``text``, the contents of a key file as ``openvpn --genkey secret`` writes it.

    White space between the digits and text around the block do not matter.
    Raises ConfigError, naming ``directive`` and quoting nothing.
    """
    try:
        return StaticKey(parse_static_key_text(text))
    except ValueError as error:
        raise ConfigError(str(error), directive=directive) from None
