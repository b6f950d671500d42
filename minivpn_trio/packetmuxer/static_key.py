"""The 2048-bit static key of tls-auth and tls-crypt, and the file that holds it.

The key is two pairs of 64-byte slots, ``cipher | hmac | cipher | hmac``: one
pair for each direction. Which side sends with which pair is the direction
table of each wrap (reference: crypto.c, key_direction_state_init).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from ..errors import ConfigError

__all__ = ["SLOT_SIZE", "STATIC_KEY_SIZE", "StaticKey", "parse_static_key"]

STATIC_KEY_SIZE = 256
SLOT_SIZE = 64

#: Header and footer stand at the beginning of a line; what surrounds them is comment.
KEY_FILE = re.compile(
    rb"^-----BEGIN OpenVPN Static key V1-----[^\n]*\n(.*?)^-----END OpenVPN Static key V1-----",
    re.MULTILINE | re.DOTALL,
)
NOT_HEX = re.compile(rb"[^0-9A-Fa-f]")


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
    block = KEY_FILE.search(text.replace(b"\r", b"\n"))
    if block is None:
        raise ConfigError("this is not an OpenVPN static key (V1) file", directive=directive)
    digits = b"".join(block[1].split())
    if NOT_HEX.search(digits):
        raise ConfigError("the static key holds something other than hexadecimal digits", directive=directive)
    if len(digits) != 2 * STATIC_KEY_SIZE:
        raise ConfigError(
            f"the static key has {len(digits) * 4} bits instead of {STATIC_KEY_SIZE * 8}", directive=directive
        )
    return StaticKey(bytes.fromhex(digits.decode("ascii")))
