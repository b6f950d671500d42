"""Peer info: what this client can do, in the lines that servers look for.

Only what a server needs to talk to us is sent; whatever identifies the host
(hardware address, platform version, TLS library) is not. A list that differs
from every other client's would single this one out as much as those would,
so the lines, their order, the version and the bits of IV_PROTO are together
those of one real client: openvpn 2.7 on Linux, which can do what this one can.
"""

from __future__ import annotations

from enum import IntFlag

from ..config.framing import decompressors
from ..config.model import TunnelConfig
from ..errors import ConfigError
from .keymethod2 import MAX_STRING

__all__ = ["CLIENT_FEATURES", "SSO_METHODS", "ProtoFlag", "check_peer_info", "parse_peer_info", "peer_info"]

#: Servers parse this version to decide what they may push, and answer a name that they do not
#: know as if it were ancient. 2.7 is what we speak (epochs, PUSH_UPDATE, the second form of dns); a name of our
#: own would also tell everybody on the server's side which program is used, which is nobody's business.
VERSION = "2.7.0"
#: What IV_SSO says when somebody answers.
SSO_METHODS = ("webauth", "openurl", "crtext")
#: Largest tun-mtu that a server may push.
MAX_TUN_MTU = 1600
#: Lines of a client's peer info that a server looks at.
_MAX_LINES = 64


class ProtoFlag(IntFlag):
    """Bits of IV_PROTO (reference: ssl.h, IV_PROTO_*). Any of them requires DATA_V2."""

    DATA_V2 = 1 << 1
    REQUEST_PUSH = 1 << 2
    TLS_KEY_EXPORT = 1 << 3
    AUTH_PENDING_KW = 1 << 4
    NCP_P2P = 1 << 5
    DNS_OPTION = 1 << 6
    CC_EXIT_NOTIFY = 1 << 7
    AUTH_FAIL_TEMP = 1 << 8
    DYN_TLS_CRYPT = 1 << 9
    DATA_EPOCH = 1 << 10
    DNS_OPTION_V2 = 1 << 11
    PUSH_UPDATE = 1 << 12


#: What this client really does, and 2.7 announces: 8094. The first form of dns is understood too, but no client
#: announces both, and no server asks for the bit.
CLIENT_FEATURES = (
    ProtoFlag.DATA_V2
    | ProtoFlag.REQUEST_PUSH
    | ProtoFlag.TLS_KEY_EXPORT
    | ProtoFlag.AUTH_PENDING_KW
    | ProtoFlag.CC_EXIT_NOTIFY
    | ProtoFlag.AUTH_FAIL_TEMP
    | ProtoFlag.DYN_TLS_CRYPT
    | ProtoFlag.DATA_EPOCH
    | ProtoFlag.DNS_OPTION_V2
    | ProtoFlag.PUSH_UPDATE
)


def peer_info(
    config: TunnelConfig, features: ProtoFlag = CLIENT_FEATURES, *, sso: tuple[str, ...] = ()
) -> str:
    """The lines for key method 2, each ending with a line feed. ``sso``: what can be asked while a login is pending."""
    ciphers = config.data_ciphers
    lines = [("IV_VER", VERSION), ("IV_PLAT", "linux"), ("IV_TCPNL", "1"), ("IV_MTU", str(MAX_TUN_MTU))]
    if {"AES-128-GCM", "AES-256-GCM"} <= set(ciphers):
        lines.append(("IV_NCP", "2"))
    lines.append(("IV_CIPHERS", ":".join(ciphers)))
    if not config.pull:
        features &= ~(ProtoFlag.REQUEST_PUSH | ProtoFlag.PUSH_UPDATE)
    lines.append(("IV_PROTO", str(int(features))))
    lines += [(name, "1") for name in _framings(config)]
    if sso and not any(name == "IV_SSO" for name, _ in config.peer_info):
        lines.append(("IV_SSO", ",".join(sso)))
    lines += config.peer_info
    return "".join(f"{name}={value}\n" for name, value in lines)


def check_peer_info(config: TunnelConfig) -> None:
    """Raise ConfigError, which names ``setenv``, if the peer info is too long for key method 2 or cannot be sent."""
    size = len(peer_info(config, sso=SSO_METHODS).encode("utf-8", "surrogateescape"))
    if size >= MAX_STRING:
        raise ConfigError(
            f"what the server is told with push-peer-info has {size} bytes; at most {MAX_STRING - 1} can be sent",
            directive="setenv",
        )
    if any(not name.isprintable() or not value.isprintable() or "=" in name for name, value in config.peer_info):
        raise ConfigError("peer info holds something that is not printable", directive="setenv")


def _framings(config: TunnelConfig) -> list[str]:
    """The framings of compression that we can be switched to; we never compress in them.

    openvpn sends these whatever is configured, and a server that migrates away from compression
    pushes a framing only to clients that do.
    """
    can = decompressors() if config.receive_compressed else {"lzo": False, "lz4": False}
    names = ["IV_LZ4", "IV_LZ4v2"] if can["lz4"] else []
    return [*names, "IV_LZO" if can["lzo"] else "IV_LZO_STUB", "IV_COMP_STUB", "IV_COMP_STUBv2"]


def parse_peer_info(text: str) -> dict[str, str]:
    """The lines of a client's peer info; at most 64, the rest is ignored. Untrusted text."""
    found: dict[str, str] = {}
    for line in text.split("\n")[:_MAX_LINES]:
        name, equals, value = line.partition("=")
        if equals:
            found[name] = value
    return found
