"""Certificates and keys out of the profile's PEM and PKCS #12.

Errors say which directive is at fault and never what it holds. What reads private keys is imported where there is one:
it brings SSH's formats along.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm

from ..config.model import TunnelConfig
from ..errors import ConfigError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.serialization.pkcs12 import PKCS12KeyAndCertificates

__all__ = [
    "CERTIFICATE", "Identity", "is_locked", "load_certificates", "load_identity", "load_pkcs12",
]  # fmt: skip

#: One certificate in a PEM file that may hold other things, such as openssl's text form.
CERTIFICATE = re.compile(
    rb"-----BEGIN (?:X509 |TRUSTED )?CERTIFICATE-----.*?-----END (?:X509 |TRUSTED )?CERTIFICATE-----", re.DOTALL
)


@dataclass(frozen=True, slots=True)
class Identity:
    """Who we are: a certificate, what leads from it to the CA, and its key."""

    certificate: x509.Certificate
    chain: tuple[x509.Certificate, ...]
    key: object = field(repr=False)
    #: Where it came from, for errors.
    directive: str


def load_identity(config: TunnelConfig, bundle: PKCS12KeyAndCertificates | None) -> Identity | None:
    """Our certificate and key, if the profile has any. Raises ConfigError."""
    if bundle is not None:
        if bundle.cert is None or bundle.key is None:
            raise ConfigError("no certificate with its key in it", directive="pkcs12")
        directive, certificate = "pkcs12", bundle.cert.certificate
        key: object = bundle.key
        chain = [entry.certificate for entry in bundle.additional_certs]
    elif config.cert is not None and config.key is not None:
        directive, key = "cert", load_key(config)
        certificate, *chain = load_certificates(config.cert, directive)
    else:
        return None
    if config.extra_certs is not None:
        chain += load_certificates(config.extra_certs, "extra-certs")
    return Identity(certificate, tuple(chain), key, directive)


def load_certificates(pem: bytes, directive: str) -> list[x509.Certificate]:
    """The certificates in ``pem``, at least one. Raises ConfigError."""
    try:
        found = [x509.load_pem_x509_certificate(block) for block in CERTIFICATE.findall(pem)]
    except (ValueError, x509.InvalidVersion):
        found = []
    if not found:
        raise ConfigError("no certificate in it that can be read", directive=directive)
    return found


def load_key(config: TunnelConfig) -> object:
    """The private key, opened by ``key_password`` where it is encrypted. Raises ConfigError."""
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    assert config.key is not None
    try:
        return load_pem_private_key(config.key, None)
    except TypeError:
        pass  # It is encrypted.
    except (ValueError, UnsupportedAlgorithm):
        raise ConfigError("the private key cannot be read", directive="key") from None
    if not config.key_password:
        raise ConfigError("the private key is encrypted and there is no password for it", directive="askpass")
    try:
        return load_pem_private_key(config.key, config.key_password)
    except (ValueError, UnsupportedAlgorithm):
        raise ConfigError("the password does not open the private key", directive="askpass") from None


def load_pkcs12(config: TunnelConfig) -> PKCS12KeyAndCertificates | None:
    """The bundle, if the profile has one. Raises ConfigError."""
    if config.pkcs12 is None:
        return None
    from cryptography.hazmat.primitives.serialization import pkcs12

    try:
        return pkcs12.load_pkcs12(config.pkcs12, config.key_password)
    except (ValueError, UnsupportedAlgorithm):
        raise ConfigError("it cannot be read, or its password is wrong or missing", directive="pkcs12") from None


def is_locked(config: TunnelConfig) -> bool:
    """Whether ``key_password`` is missing or wrong for the private key or the PKCS #12 file."""
    try:
        if config.pkcs12 is not None:
            load_pkcs12(config)
        elif config.key is not None:
            load_key(config)
    except ConfigError as exc:
        # A PKCS #12 file does not say whether it is damaged or its password is another one.
        return exc.directive == "askpass" or (config.pkcs12 is not None and config.pkcs12[:1] == b"\x30")
    return False
