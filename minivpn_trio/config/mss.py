"""How long a TCP segment inside the tunnel may be so that the outer packet stays whole.

A pure function of what was negotiated (reference: openvpn 2.6, mss.c and
mtu.c). A datagram carries, around the inner packet::

    outer IP and UDP/TCP | length (TCP) | opcode [peer-id] | packet id, tag or HMAC, IV | framing | packet

With CBC the packet id is encrypted too and the ciphertext is a whole number
of blocks with at least one byte of padding.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from .model import AEAD_CIPHERS, SMALL_BLOCK_CIPHERS, TunnelConfig
from .tunnel_info import TunnelInfo

__all__ = [
    "DEFAULT_MSSFIX",
    "DEFAULT_TUN_MTU",
    "Encapsulation",
    "follows_path",
    "fragment_limit",
    "mss_limits",
    "within_path",
]

DEFAULT_TUN_MTU = 1500
#: Outer packet that most paths carry, PPPoE included.
DEFAULT_MSSFIX = 1492
#: Below this a limit does more harm than good; a smaller one is not believed.
SMALLEST_MSS = 88

_DIGEST_SIZES = {"SHA1": 20, "SHA224": 28, "SHA256": 32, "SHA384": 48, "SHA512": 64}
_PACKET_ID = 4
_TAG = 16
_TCP_AND_IPV4 = 40
_IPV6_MORE = 20


class Encapsulation(NamedTuple):
    """What surrounds an inner packet on its way."""

    cipher: str
    auth: str = "SHA1"
    #: ``udp`` or ``tcp``.
    transport: str = "udp"
    outer_ipv6: bool = False
    has_peer_id: bool = True
    compression: str = "none"
    has_fragment: bool = False
    epoch: bool = False

    @property
    def is_aead(self) -> bool:
        """Whether the cipher authenticates by itself."""
        return self.cipher in AEAD_CIPHERS

    @property
    def block(self) -> int:
        """Bytes of a CBC cipher's block, and of its IV."""
        return 8 if self.cipher in SMALL_BLOCK_CIPHERS else 16

    @property
    def outer_headers(self) -> int:
        """Bytes of the outer IP and transport headers, without options."""
        return (40 if self.outer_ipv6 else 20) + (8 if self.transport == "udp" else 20)

    @property
    def header(self) -> int:
        """Bytes of OpenVPN's own that come before or after the ciphertext."""
        size = (0 if self.transport == "udp" else 2) + (4 if self.has_peer_id else 1)
        if self.is_aead:
            return size + _PACKET_ID + _TAG + (4 if self.epoch else 0)
        return size + self.block + _DIGEST_SIZES.get(self.auth, 64)

    @property
    def inner_header(self) -> int:
        """Bytes that are encrypted together with the inner packet."""
        size = 4 if self.has_fragment else 0
        if self.compression in ("comp-lzo-no", "stub"):
            size += 1
        return size if self.is_aead else size + _PACKET_ID

    def largest_plaintext(self, room: int) -> int:
        """Largest plaintext whose ciphertext takes no more than ``room`` bytes."""
        return room if self.is_aead else room - room % self.block - 1


def mss_limits(config: TunnelConfig, around: Encapsulation, *, tun_mtu: int) -> tuple[int | None, int | None]:
    """The largest TCP payload for IPv4 and for IPv6 inside the tunnel, options not counted.

    None: mssfix is off, only the MTU limits. The three forms of ``mssfix``
    count differently: with ``mtu`` the outer headers too, with ``fixed`` only
    the inner packet, with neither the datagram's payload. Unset, ``fragment``'s
    value is taken, always with ``mtu`` (which openvpn may not have meant, but
    both ends should agree), or 1492 with ``mtu`` for the default MTU, or the MTU itself.
    """
    size, outer, fixed = _mssfix(config)
    if size == 0:
        return None, None
    if fixed:
        ipv4 = size - _TCP_AND_IPV4
    else:
        room = size - around.header - (around.outer_headers if outer else 0)
        ipv4 = around.largest_plaintext(room) - around.inner_header - _TCP_AND_IPV4
    # What fits into no packet of the tunnel helps nobody, however small its MTU is.
    room = tun_mtu - _TCP_AND_IPV4
    ipv6 = min(max(min(ipv4, room) - _IPV6_MORE, SMALLEST_MSS), max(room - _IPV6_MORE, 1))
    return min(max(ipv4, SMALLEST_MSS), room), ipv6


def _mssfix(config: TunnelConfig) -> tuple[int, bool, bool]:
    """Its value, and whether it is with ``mtu``, with ``fixed``."""
    if config.mssfix is not None:
        return config.mssfix, config.mssfix_mtu, config.mssfix_fixed
    if config.fragment is not None:
        return config.fragment, True, config.mssfix_fixed
    if config.tun_mtu == DEFAULT_TUN_MTU:
        return DEFAULT_MSSFIX, True, config.mssfix_fixed
    return config.tun_mtu, config.mssfix_mtu, True


def follows_path(config: TunnelConfig) -> bool:
    """Whether ``mssfix`` is about the outer packet, and so about the path that this takes."""
    size, _, fixed = _mssfix(config)
    return size > 0 and not fixed


def within_path(info: TunnelInfo, around: Encapsulation, path_mtu: int) -> TunnelInfo:
    """``info`` with its MSS limits lowered so far that the outer packet stays whole on a path of ``path_mtu`` bytes.

    As openvpn does when it learns a path's MTU (reference: init.c,
    frame_adjust_path_mtu): not with ``mssfix 0``, and never below 88. Whoever
    has ``follows_path`` say no wants the kernel to make fragments.
    """
    if info.mss_ipv4 is None or info.mss_ipv6 is None:
        return info
    room = path_mtu - around.header - around.outer_headers
    ipv4 = around.largest_plaintext(room) - around.inner_header - _TCP_AND_IPV4
    return replace(
        info,
        mss_ipv4=min(info.mss_ipv4, max(ipv4, SMALLEST_MSS)),
        mss_ipv6=min(info.mss_ipv6, max(ipv4 - _IPV6_MORE, SMALLEST_MSS)),
    )


def fragment_limit(config: TunnelConfig, around: Encapsulation) -> int | None:
    """Largest datagram payload for ``fragment``; None: no fragmentation in this tunnel."""
    if config.fragment is None:
        return None
    return config.fragment - (around.outer_headers if config.fragment_mtu else 0)
