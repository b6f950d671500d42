"""Certificates and keys out of the profile's PEM and PKCS #12.

Errors say which directive is at fault and never what it holds.
"""

from __future__ import annotations

import re

from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key, pkcs12
from cryptography.hazmat.primitives.serialization.pkcs12 import PKCS12KeyAndCertificates

from ..config.model import TunnelConfig
from ..errors import ConfigError

__all__ = ["CERTIFICATE", "PKCS12KeyAndCertificates", "load_certificates", "load_key", "load_pkcs12"]

#: One certificate in a PEM file that may hold other things, such as openssl's text form.
CERTIFICATE = re.compile(
    rb"-----BEGIN (?:X509 |TRUSTED )?CERTIFICATE-----.*?-----END (?:X509 |TRUSTED )?CERTIFICATE-----", re.DOTALL
)


def load_certificates(pem: bytes, directive: str) -> list[x509.Certificate]:
    """The certificates in ``pem``, at least one. Raises ConfigError."""
    try:
        found = [x509.load_pem_x509_certificate(block) for block in CERTIFICATE.findall(pem)]
    except ValueError:
        found = []
    if not found:
        raise ConfigError("no certificate in it that can be read", directive=directive)
    return found


def load_key(config: TunnelConfig) -> object:
    """The private key, opened by ``key_password`` where it is encrypted. Raises ConfigError."""
    assert config.key is not None
    try:
        return load_pem_private_key(config.key, None)
    except TypeError:
        pass  # It is encrypted.
    except ValueError:
        raise ConfigError("the private key cannot be read", directive="key") from None
    if not config.key_password:
        raise ConfigError("the private key is encrypted and there is no password for it", directive="askpass")
    try:
        return load_pem_private_key(config.key, config.key_password)
    except ValueError:
        raise ConfigError("the password does not open the private key", directive="askpass") from None


def load_pkcs12(config: TunnelConfig) -> PKCS12KeyAndCertificates | None:
    """The bundle, if the profile has one. Raises ConfigError."""
    if config.pkcs12 is None:
        return None
    try:
        return pkcs12.load_pkcs12(config.pkcs12, config.key_password)
    except ValueError:
        raise ConfigError("it cannot be read, or its password is wrong or missing", directive="pkcs12") from None
