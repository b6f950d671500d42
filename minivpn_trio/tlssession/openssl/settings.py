"""What a profile asks of TLS, set in OpenSSL: versions, cipher suites, the security level, groups.

A setting that cannot be had is a ConfigError with its directive, and each can be tried without the others.
"""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric import ec
from OpenSSL import SSL
from OpenSSL._util import lib

from ...config.model import TunnelConfig
from ...config.tls_names import openssl_names
from ...errors import ConfigError

__all__ = ["SETTINGS", "configure", "known_groups", "left_out", "set_groups"]

_VERSIONS = {"1.0": SSL.TLS1_VERSION, "1.1": SSL.TLS1_1_VERSION, "1.2": SSL.TLS1_2_VERSION, "1.3": SSL.TLS1_3_VERSION}
#: tls-cert-profile as OpenSSL's security level (reference: ssl_openssl.c, tls_ctx_set_cert_profile).
_LEVELS = {"insecure": 0, "legacy": 1, "preferred": 2, "suiteb": 3}
#: No export, weak or anonymous suites, and none without forward secrecy.
_DEFAULT_CIPHERS = "DEFAULT:!EXP:!LOW:!MEDIUM:!kDH:!kECDH:!DSS:!PSK:!SRP:!kRSA"
#: OpenSSL's own word for these, SUITEB128, makes a TLS 1.3 handshake of it that servers reject.
_SUITE_B = "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384"

#: The curves that pyOpenSSL can set by itself, one at a time, by any of their names in lower case.
_CURVES: dict[str, ec.EllipticCurve] = {
    name: curve
    for names, curve in (
        ("p-256 secp256r1 prime256v1", ec.SECP256R1()),
        ("p-384 secp384r1", ec.SECP384R1()),
        ("p-521 secp521r1", ec.SECP521R1()),
    )
    for name in names.split()
}


def configure(context: SSL.Context, config: TunnelConfig) -> None:
    """Versions, cipher suites and the security level."""
    # Each key is a TLS session of its own: no resumption, no tickets, no renegotiation.
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.set_options(SSL.OP_NO_TICKET | SSL.OP_NO_COMPRESSION | SSL.OP_NO_RENEGOTIATION)
    for step in SETTINGS:
        step(context, config)


def _set_versions(context: SSL.Context, config: TunnelConfig) -> None:
    context.set_min_proto_version(max(_VERSIONS[config.tls_version_min], SSL.TLS1_2_VERSION))
    if config.tls_version_max is not None:
        highest = _VERSIONS[config.tls_version_max]
        if highest < SSL.TLS1_2_VERSION or highest < _VERSIONS[config.tls_version_min]:
            raise ConfigError(
                "below tls-version-min, or below 1.2, the oldest that is spoken", directive="tls-version-max"
            )
        context.set_max_proto_version(highest)


def _set_ciphers(context: SSL.Context, config: TunnelConfig) -> None:
    """The cipher suites of TLS 1.2, and the security level."""
    # The level is a property of the context that a cipher list sets in passing; it stays.
    level = _LEVELS[config.tls_cert_profile]
    context.set_cipher_list(f"DEFAULT:@SECLEVEL={level}".encode())
    ciphers = _DEFAULT_CIPHERS
    if config.tls_cert_profile == "suiteb":
        ciphers = _SUITE_B
    if config.tls_cipher is not None:
        ciphers = openssl_names(config.tls_cipher)
    try:
        context.set_cipher_list(ciphers.encode("ascii"))
    except (SSL.Error, UnicodeEncodeError):
        raise ConfigError("no cipher suite in it that this TLS library knows", directive="tls-cipher") from None


def _set_suites(context: SSL.Context, config: TunnelConfig) -> None:
    """The cipher suites of TLS 1.3."""
    if config.tls_ciphersuites is not None:
        try:
            context.set_tls13_ciphersuites(config.tls_ciphersuites.encode("ascii"))
        except (SSL.Error, UnicodeEncodeError):
            raise ConfigError(
                "a cipher suite in it is not known to this TLS library", directive="tls-ciphersuites"
            ) from None


#: The parts of ``configure`` that may fail, each by itself.
SETTINGS = (_set_versions, _set_ciphers, _set_suites)


def known_groups(text: str) -> tuple[list[str], list[str]]:
    """The groups of ``tls-groups`` that can be used, in its order, and the others, which openvpn leaves out too
    (reference: ssl_openssl.c, tls_ctx_set_tls_groups). Raises ConfigError if none is left."""
    known: list[str] = []
    unknown: list[str] = []
    for name in filter(None, text.split(":")):
        # OpenSSL 3.5 takes a question mark for "if you know it", and would be content with a list of unknown ones.
        bare = name.lstrip("?")
        (known if bare and set_groups(SSL.Context(SSL.TLS_METHOD), [*known, bare]) else unknown).append(bare)
    if not known:
        raise ConfigError("no group in it that this TLS library can use", directive="tls-groups")
    return known, unknown


def left_out(groups: list[str]) -> str:
    """The warning about groups that ``known_groups`` does not know."""
    return f"{len(groups)} of the names cannot be used with this TLS library and are left out"


def set_groups(context: SSL.Context, names: list[str]) -> bool:
    """Have ``context`` use these groups and no others; False: it cannot.

    pyOpenSSL has no method for it, but binds the function, under the old name that OpenSSL keeps for it.
    """
    set_list = getattr(lib, "SSL_CTX_set1_curves_list", None)
    if set_list is None:
        curve = _CURVES.get(names[0].lower())
        if len(names) > 1 or curve is None:
            return False
        context.set_tmp_ecdh(curve)
        return True
    try:
        done: bool = set_list(context._context, ":".join(names).encode("ascii")) == 1
    except UnicodeEncodeError:
        return False
    while lib.ERR_get_error():
        pass  # what it complains of would be taken for the next operation's error
    return done
