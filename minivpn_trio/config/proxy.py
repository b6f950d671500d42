"""What stands between us and the server: a proxy, an obfuscating bridge, a scrambled wire.

All of it belongs to a ``Remote``, since a profile may say it for each
``<connection>``. Passwords, headers, certificates and masks never show in a
``repr``.
"""

from __future__ import annotations

import binascii
import ipaddress
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import unquote, urlsplit

from ..errors import ConfigError
from .credentials import Credentials

__all__ = ["HTTPProxy", "Obfs4Bridge", "Proxy", "Scramble", "ScrambleKind", "SocksProxy", "is_numeric"]

ScrambleKind = Literal["xormask", "xorptrpos", "reverse", "obfuscate"]

#: Bytes in an obfs4 ``cert``: the bridge's node id (20) and its Curve25519 key (32).
_OBFS4_CERT_SIZE = 52


def _place(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@dataclass(frozen=True, slots=True)
class HTTPProxy:
    """A proxy that is asked to CONNECT (RFC 9110, 9.3.6). Only for TCP.

    ``auth`` is ``auto`` (what the proxy asks for: digest if it can, else
    basic), ``basic`` (basic at once, before it asks) or ``digest`` (never a
    password in the clear).
    """

    host: str
    port: int
    credentials: Credentials | None = None
    auth: Literal["auto", "basic", "digest"] = "auto"
    user_agent: str | None = None
    #: Further header fields of the request. A ``Host`` here replaces ours.
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)

    def __str__(self) -> str:
        return f"the HTTP proxy {_place(self.host, self.port)}"


@dataclass(frozen=True, slots=True)
class SocksProxy:
    """A SOCKS 5 proxy (RFC 1928): CONNECT for TCP, UDP ASSOCIATE for UDP.

    User name and password are ASCII, at most 255 characters each.
    """

    host: str
    port: int = 1080
    credentials: Credentials | None = None

    def __str__(self) -> str:
        return f"the SOCKS proxy {_place(self.host, self.port)}"


@dataclass(frozen=True, slots=True)
class Obfs4Bridge:
    """An obfs4 bridge in front of the server, reached through a pluggable transport. Only for TCP.

    The bridge decides where its stream ends, so the remote's own host and port are not dialled.
    """

    host: str
    port: int
    cert: str = field(repr=False)
    iat_mode: Literal[0, 1, 2] = 0
    #: The program that speaks obfs4; None: ``obfs4proxy`` or ``lyrebird``, whichever is on PATH.
    program: str | None = None

    def __str__(self) -> str:
        return f"the obfs4 bridge {_place(self.host, self.port)}"

    @classmethod
    def from_url(cls, url: str) -> Obfs4Bridge:
        """From ``obfs4://HOST:PORT?cert=CERT&iat-mode=MODE``, as minivpn spells it.

        Raises ConfigError, which does not quote the URL.
        """
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError:
            raise ConfigError("this is no URL", directive="proxy-obfs4") from None
        if parts.scheme != "obfs4" or not host or not port or parts.path not in ("", "/") or parts.username:
            raise ConfigError("obfs4://HOST:PORT?cert=CERT&iat-mode=MODE is wanted", directive="proxy-obfs4")
        # Not parse_qs: base64 has plus signs, and people paste it as it is.
        values = {key: unquote(value) for key, _, value in (part.partition("=") for part in parts.query.split("&"))}
        cert, mode = values.get("cert", "").rstrip("="), values.get("iat-mode", "0")
        try:
            size = len(binascii.a2b_base64(cert + "=" * (-len(cert) % 4), strict_mode=True))
        except (binascii.Error, ValueError):
            size = 0
        if size != _OBFS4_CERT_SIZE:
            raise ConfigError("the bridge's cert is missing or damaged", directive="proxy-obfs4")
        if mode not in ("0", "1", "2"):
            raise ConfigError("iat-mode is 0, 1 or 2", directive="proxy-obfs4")
        return cls(host, port, cert, int(mode))  # type: ignore[arg-type]


Proxy = HTTPProxy | SocksProxy | Obfs4Bridge


@dataclass(frozen=True, slots=True)
class Scramble:
    """How each packet is disguised on the wire, as servers with Tunnelblick's "XOR patch" expect it.

    It hides the protocol from a careless filter and protects nothing.
    ``xormask`` and ``obfuscate`` need a ``mask`` of at least one byte.
    """

    kind: ScrambleKind
    mask: bytes = field(default=b"", repr=False)

    def __post_init__(self) -> None:
        if (self.kind in ("xormask", "obfuscate")) != bool(self.mask):
            raise ValueError(f"scramble {self.kind} takes {'no ' if self.mask else 'a '}mask")


def is_numeric(host: str) -> bool:
    """Whether ``host`` is an IP address."""
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True
