"""Names of TLS cipher suites: a profile has IANA's with hyphens, OpenSSL wants its own.

``TLS-ECDHE-RSA-WITH-AES-256-GCM-SHA384`` is ``ECDHE-RSA-AES256-GCM-SHA384``.
The two schemes differ by rule, so this is a rule and not a table; a test holds
it against the names that OpenSSL itself gives.
"""

from __future__ import annotations

__all__ = ["openssl_name", "openssl_names"]

_KEY_EXCHANGES = {"RSA": "", "DH-ANON": "ADH-", "ECDH-ANON": "AECDH-"}
#: Names of ciphers with their mode, which OpenSSL leaves out for CBC.
_CIPHERS = {
    "AES-128-CBC": "AES128",
    "AES-256-CBC": "AES256",
    "AES-128-GCM": "AES128-GCM",
    "AES-256-GCM": "AES256-GCM",
    "AES-128-CCM": "AES128-CCM",
    "AES-256-CCM": "AES256-CCM",
    "AES-128-CCM-8": "AES128-CCM8",
    "AES-256-CCM-8": "AES256-CCM8",
    "ARIA-128-GCM": "ARIA128-GCM",
    "ARIA-256-GCM": "ARIA256-GCM",
    "CAMELLIA-128-CBC": "CAMELLIA128",
    "CAMELLIA-256-CBC": "CAMELLIA256",
    "3DES-EDE-CBC": "DES-CBC3",
    "DES-CBC": "DES-CBC",
    "RC4-128": "RC4",
    "SEED-CBC": "SEED",
    "NULL": "NULL",
}
_DIGESTS = ("SHA384", "SHA256", "SHA", "MD5")


def openssl_names(text: str) -> str:
    """A ``tls-cipher`` list for OpenSSL; what is not in IANA's form is taken to be OpenSSL's own."""
    return ":".join(openssl_name(name) for name in text.split(":") if name)


def openssl_name(name: str) -> str:
    """One suite's OpenSSL name. A leading ``!``, ``-`` or ``+`` stays."""
    sign = name[0] if name[:1] in "!-+" else ""
    exchange, joint, rest = name[len(sign) :].removeprefix("TLS-").partition("-WITH-")
    if not joint or not name[len(sign) :].startswith("TLS-"):
        return name
    cipher, digest = rest, ""
    for candidate in _DIGESTS:
        if rest.endswith("-" + candidate):
            cipher, digest = rest[: -len(candidate) - 1], "-" + candidate
            break
    if cipher == "CHACHA20-POLY1305":
        translated, digest = cipher, ""
    elif cipher in _CIPHERS:
        translated = _CIPHERS[cipher]
        if "-CCM" in cipher:
            digest = ""
        elif exchange != "RSA" and cipher.startswith("ARIA-"):
            # OpenSSL writes ECDHE-ARIA..., without the kind of certificate, for RSA ones.
            exchange = exchange.replace("ECDHE-RSA", "ECDHE")
    else:
        return name
    prefix = _KEY_EXCHANGES.get(exchange.upper(), exchange + "-")
    return f"{sign}{prefix}{translated}{digest}"
