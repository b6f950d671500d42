"""The options string of key method 2, as openvpn 2.6 writes it.

Each side tells the other how it is configured so that a mismatch can be
warned about. openvpn only compares; SoftEther insists on finding it, and old
servers without cipher negotiation are understood by it. ``link-mtu`` is a
fiction kept for that comparison: the tunnel's MTU plus the overhead that a
packet of 2.0 had (reference: options.c, options_string; mtu.c,
calc_options_string_link_mtu).
"""

from __future__ import annotations

from ..config.model import TunnelConfig
from ..packet.ids import Role

__all__ = ["cipher_in_options", "fragment_in_options", "link_mtu", "options_string"]

_OPCODE = 1
_PACKET_ID = 4
_STREAM_LENGTH = 2
_FRAGMENT = 4
_COMPRESSION = {"none": 0, "comp-lzo-no": 1, "stub": 1, "stub-v2": 0}
_DIGEST_SIZES = {"SHA1": 20, "SHA224": 28, "SHA256": 32, "SHA384": 48, "SHA512": 64}
_IV_AND_BLOCK_CBC = 16 + 16
_IV_BLOCK_TAG_GCM = 12 + 16 + 16
#: A stream cipher has blocks of one byte.
_IV_BLOCK_TAG_CHACHA = 12 + 1 + 16
#: What is assumed when no cipher is configured: Blowfish, with blocks and IV of 8 bytes.
_IV_AND_BLOCK_UNSET = 8 + 8


#: Blowfish and triple DES: blocks and IV of 8 bytes; and their keys, bits.
_SMALL_BLOCKS = {"BF-CBC": 128, "DES-EDE3-CBC": 192}


def _is_aead(cipher: str | None) -> bool:
    return cipher is not None and (cipher.endswith("-GCM") or cipher == "CHACHA20-POLY1305")


def _key_bits(cipher: str | None) -> int:
    if cipher is None:
        return 128
    if cipher in _SMALL_BLOCKS:
        return _SMALL_BLOCKS[cipher]
    return 256 if cipher == "CHACHA20-POLY1305" else int(cipher.split("-")[1])


def _crypto_overhead(cipher: str | None, auth: str) -> int:
    if cipher == "CHACHA20-POLY1305":
        return _IV_BLOCK_TAG_CHACHA
    if _is_aead(cipher):
        return _IV_BLOCK_TAG_GCM
    return _DIGEST_SIZES[auth] + (
        _IV_AND_BLOCK_UNSET if cipher is None or cipher in _SMALL_BLOCKS else _IV_AND_BLOCK_CBC
    )


def link_mtu(config: TunnelConfig, *, stream: bool) -> int:
    """``link-mtu`` in bytes; ``stream``: the transport is TCP."""
    return (
        config.tun_mtu
        + _OPCODE
        + _PACKET_ID
        + _crypto_overhead(_cipher(config), config.auth)
        + _COMPRESSION.get(config.compression, 0)
        + (_FRAGMENT if config.fragment else 0)
        + (_STREAM_LENGTH if stream else 0)
    )


def _cipher(config: TunnelConfig) -> str | None:
    return config.data_ciphers_fallback or config.cipher


def options_string(config: TunnelConfig, role: Role, *, stream: bool) -> str:
    """What ``role`` announces. ``proto`` names IPv4 whatever the address family is."""
    cipher = _cipher(config)
    proto = f"TCPv4_{role.name}" if stream else "UDPv4"
    items = ["V4", "dev-type tun", f"link-mtu {link_mtu(config, stream=stream)}", f"tun-mtu {config.tun_mtu}"]
    items.append(f"proto {proto}")
    if config.compression != "none":
        # The word for any framing, whatever its name.
        items.append("comp-lzo")
    if config.fragment:
        items.append("mtu-dynamic")
    if cipher is not None and cipher in config.data_ciphers:
        items.append(f"cipher {cipher}")
    items.append(f"auth {'[null-digest]' if _is_aead(cipher) else config.auth}")
    items.append(f"keysize {_key_bits(cipher)}")
    items.append("key-method 2")
    items.append(f"tls-{role.value}")
    return ",".join(items)


def cipher_in_options(options: str) -> str | None:
    """The cipher that the peer's options string names, upper case; the choice of peers without negotiation."""
    for item in options.split(","):
        name, _, value = item.strip().partition(" ")
        if name == "cipher" and value and len(value) <= 64 and value.isascii() and value.isprintable():
            return value.upper()
    return None


def fragment_in_options(options: str) -> bool:
    """Whether the peer puts fragment headers into its packets."""
    return "mtu-dynamic" in options.split(",")
