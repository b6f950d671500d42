"""Names of TLS cipher suites: what profiles write, in what OpenSSL understands.

``tls-cipher`` takes OpenSSL's names (``ECDHE-RSA-AES256-GCM-SHA384``) and
those of the IANA registry with hyphens (``TLS-ECDHE-RSA-WITH-AES-256-GCM-SHA384``).
The second are turned into the first by the rules by which OpenSSL named them.
Suites with pre-shared keys or passwords (PSK, SRP) follow other rules and are
of no use here, so they stay as they are.
"""

from __future__ import annotations

import re

__all__ = ["openssl_cipher_list", "openssl_cipher_name"]

_IANA = re.compile(r"TLS[-_](?P<exchange>.+?)[-_]WITH[-_](?P<cipher>.+)")
#: RSA key exchange is not named in OpenSSL's names.
_EXCHANGES = {"RSA": "", "DH-ANON": "ADH-", "ECDH-ANON": "AECDH-"}
_CIPHERS = {
    "3DES-EDE-CBC": "DES-CBC3",
    "CHACHA20-POLY1305-SHA256": "CHACHA20-POLY1305",
    "CCM-8": "CCM8",
}
_SIZED = re.compile(r"(AES|CAMELLIA|ARIA)-(\d+)")
_CBC = re.compile(r"(?<=\d)-CBC(?=-SHA)|(?<=SEED)-CBC")
#: Beginnings of TLS 1.3 suites, which OpenSSL keeps in a list of their own.
_TLS13 = re.compile(r"TLS[-_](AES[-_]\d+[-_](GCM|CCM)|CHACHA20[-_]POLY1305)")


def openssl_cipher_name(name: str) -> str:
    """OpenSSL's name of a suite; names and selectors in OpenSSL's own language come back as they are."""
    match = _IANA.fullmatch(name.upper())
    if match is None:
        return name
    exchange = match["exchange"].replace("_", "-")
    if "PSK" in exchange or "SRP" in exchange:
        return name
    cipher = match["cipher"].replace("_", "-")
    prefix = _EXCHANGES.get(exchange, f"{exchange}-")
    for iana, openssl in _CIPHERS.items():
        cipher = cipher.replace(iana, openssl)
    cipher = _CBC.sub("", _SIZED.sub(r"\1\2", cipher))
    if prefix == "ECDHE-RSA-" and cipher.startswith("ARIA"):
        prefix = "ECDHE-"
    return prefix + cipher


def openssl_cipher_list(names: str) -> str:
    """A whole ``tls-cipher`` list, without the suites of TLS 1.3."""
    kept = []
    for item in names.split(":"):
        selector, name = re.fullmatch(r"([!+-]?)(.*)", item.strip(), re.DOTALL).groups()  # type: ignore[union-attr]
        if name and not _TLS13.match(name.upper()):
            kept.append(selector + openssl_cipher_name(name))
    return ":".join(kept)
