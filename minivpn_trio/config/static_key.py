"""The text form of a 2048-bit static key, as ``openvpn --genkey secret`` writes it."""

from __future__ import annotations

import re

__all__ = ["STATIC_KEY_SIZE", "parse_static_key_text"]

STATIC_KEY_SIZE = 256

#: First and last line begin at the beginning of a line; what surrounds them is comment, and so is the rest of
#: the first one (reference: crypto.c, read_key_file; found out by what 2.6.14 takes).
_BLOCK = re.compile(
    rb"^-----BEGIN OpenVPN Static key V1-----[^\n]*\n(.*?)^-----END OpenVPN Static key V1-----",
    re.MULTILINE | re.DOTALL,
)
_ANYWHERE = re.compile(
    rb"-----BEGIN OpenVPN Static key V1-----.*?-----END OpenVPN Static key V1-----", re.DOTALL
)
_NOT_HEX = re.compile(rb"[^0-9A-Fa-f]")


def parse_static_key_text(text: bytes) -> bytes:
    """The 256 bytes of the key in ``text``. White space between the digits does not matter.

    Raises ValueError, whose text quotes nothing. It begins with "there is no" if nothing looks like a key.
    """
    text = text.replace(b"\r", b"\n")
    block = _BLOCK.search(text)
    if block is None:
        if _ANYWHERE.search(text):
            raise ValueError("the first and the last line of the static key must each begin a line, without blanks")
        raise ValueError("there is no OpenVPN static key in it")
    digits = b"".join(block[1].split())
    if _NOT_HEX.search(digits):
        raise ValueError("the static key is damaged: it is no hexadecimal number")
    if len(digits) % 2:
        raise ValueError(f"the static key is damaged: {len(digits)} digits instead of {2 * STATIC_KEY_SIZE}")
    if len(digits) != 2 * STATIC_KEY_SIZE:
        raise ValueError(f"the static key has {len(digits) * 4} bits instead of {STATIC_KEY_SIZE * 8}")
    return bytes.fromhex(digits.decode("ascii"))
