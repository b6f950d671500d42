"""Directives about the data channel: ciphers, digest, framing, sizes, and what kind of tunnel."""

from __future__ import annotations

import re

from .draft import BadValue, Draft, Handler, number, shown
from .framing import decompressors, framing_of
from .grammar import Statement
from .model import AEAD_CIPHERS, CBC_CIPHERS, DEFAULT_DATA_CIPHERS, DIGESTS, SMALL_BLOCK_CIPHERS

__all__ = ["HANDLERS", "supported_cipher"]

_SUPPORTED = frozenset((*AEAD_CIPHERS, *CBC_CIPHERS, *SMALL_BLOCK_CIPHERS))
#: OpenSSL's other names, upper case, for what we have.
_CIPHER_ALIASES = {
    "AES128": "AES-128-CBC",
    "AES192": "AES-192-CBC",
    "AES256": "AES-256-CBC",
    "ID-AES128-GCM": "AES-128-GCM",
    "ID-AES192-GCM": "AES-192-GCM",
    "ID-AES256-GCM": "AES-256-GCM",
    "CHACHA20POLY1305": "CHACHA20-POLY1305",
    "BF": "BF-CBC",
    "BLOWFISH": "BF-CBC",
    "DES3": "DES-EDE3-CBC",
}
_DIGEST_ALIAS = re.compile(r"(?:RSA-)?SHA(?:2-|-)?(1|224|256|384|512)")


def supported_cipher(name: str) -> str | None:
    """OpenVPN's name of a cipher that the data channel has; None: it has not."""
    upper = name.upper()
    upper = _CIPHER_ALIASES.get(upper, upper)
    return upper if upper in _SUPPORTED else None


def _cipher(draft: Draft, statement: Statement) -> None:
    name = statement.values[0]
    supported = supported_cipher(name)
    if supported is None:
        what = shown(name) or "the cipher"
        if name.lower() == "none":
            what = "no encryption at all"
        draft.warn(
            statement,
            f"{what} is not supported; the tunnel works if the server negotiates one of data-ciphers, as most do",
        )
    draft.cipher = supported


def _data_ciphers(draft: Draft, statement: Statement) -> None:
    offered: list[str] = []
    for token in statement.values[0].split(":"):
        name = token.removeprefix("?")
        if name == "DEFAULT":
            offered.extend(DEFAULT_DATA_CIPHERS)
            continue
        supported = supported_cipher(name)
        if supported is not None:
            offered.append(supported)
        elif name and not token.startswith("?"):
            draft.warn(statement, f"{shown(name) or 'a cipher'} is not supported and not offered")
    if not offered:
        raise BadValue("none of these ciphers is supported")
    draft.data_ciphers = list(dict.fromkeys(offered))


def _data_ciphers_fallback(draft: Draft, statement: Statement) -> None:
    name = statement.values[0]
    draft.fallback = supported_cipher(name)
    if draft.fallback is None:
        draft.warn(
            statement,
            f"{shown(name) or 'the cipher'} is not supported: a server that negotiates nothing cannot be used",
        )


def _auth(draft: Draft, statement: Statement) -> None:
    name = statement.values[0].upper()
    if name == "NONE":
        draft.authenticates = False
        draft.values.pop("auth", None)
        return
    alias = _DIGEST_ALIAS.fullmatch(name)
    digest = f"SHA{alias[1]}" if alias else name
    if digest not in DIGESTS:
        raise BadValue(f"the digest is not supported; these are: {', '.join(DIGESTS)}")
    draft.authenticates = True
    draft.values["auth"] = digest


def _allow_compression(draft: Draft, statement: Statement) -> None:
    """``asym``: what comes compressed is accepted. ``yes`` means no more here: ours is never compressed."""
    mode = statement.values[0]
    if mode not in ("no", "asym", "yes", "stub-only"):
        raise BadValue("asym or no is wanted")
    accepts = draft.values["receive_compressed"] = mode in ("asym", "yes")
    if not accepts:
        return
    draft.warn(
        statement,
        "packets that the server compresses are accepted: whoever can make it send chosen data may guess from "
        "packet sizes what else is in them; ours are never compressed",
    )
    lacking = [name for name, there in decompressors().items() if not there]
    if lacking:
        draft.warn(
            statement,
            f"no library for {' and '.join(lacking)}: such packets will be dropped; "
            "pip install minivpn-trio[compression]",
        )


def _compression(draft: Draft, statement: Statement) -> None:
    framing = framing_of(statement.name, statement.values)
    if framing is None:
        raise BadValue("this kind of compression is not known")
    draft.values["compression"] = framing.name
    draft.compresses = statement.name if framing.compresses else None


def _fragment(draft: Draft, statement: Statement) -> None:
    draft.values["fragment"] = number(statement.values, 0, 68, 65535)
    draft.values["fragment_mtu"] = _suffix(statement, "mtu") == "mtu"


def _mssfix(draft: Draft, statement: Statement) -> None:
    size = number(statement.values, 0, 0, 65535) if statement.values else None
    form = _suffix(statement, "mtu", "fixed")
    draft.values.update(mssfix=size, mssfix_mtu=form == "mtu", mssfix_fixed=form == "fixed")


def _suffix(statement: Statement, *allowed: str) -> str | None:
    if len(statement.values) < 2:
        return None
    if statement.values[1] not in allowed:
        raise BadValue(f"only {' or '.join(allowed)} may follow the number")
    return statement.values[1]


def _tun_mtu(draft: Draft, statement: Statement) -> None:
    draft.values["tun_mtu"] = number(statement.values, 0, 68, 65535)
    if len(statement.values) > 1:
        number(statement.values, 1, 0, 65535)


def _link_mtu(draft: Draft, statement: Statement) -> None:
    number(statement.values, 0, 68, 65535)
    draft.warn(statement, "the size of outer packets is not set directly any more: use tun-mtu or mssfix")


def _dev(draft: Draft, statement: Statement) -> None:
    kind = statement.values[0]
    if kind.startswith("tap") and "dev-type" not in draft.lines:
        raise BadValue("an Ethernet tunnel (tap) is not supported, only IP (tun)")


def _dev_type(draft: Draft, statement: Statement) -> None:
    if statement.values[0] != "tun":
        raise BadValue("only tun is supported")


def _mode(draft: Draft, statement: Statement) -> None:
    if statement.values[0] != "p2p":
        raise BadValue("this is a client; the profile is one of a server")


HANDLERS: dict[str, Handler] = {
    "cipher": _cipher,
    "data-ciphers": _data_ciphers,
    "ncp-ciphers": _data_ciphers,
    "data-ciphers-fallback": _data_ciphers_fallback,
    "auth": _auth,
    "allow-compression": _allow_compression,
    "compress": _compression,
    "comp-lzo": _compression,
    "fragment": _fragment,
    "mssfix": _mssfix,
    "tun-mtu": _tun_mtu,
    "link-mtu": _link_mtu,
    "udp-mtu": _link_mtu,
    "dev": _dev,
    "dev-type": _dev_type,
    "mode": _mode,
}
