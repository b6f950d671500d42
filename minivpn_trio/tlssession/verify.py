"""What must be true of the peer's certificate besides a chain to the CA.

OpenSSL checks the chain, the dates, the signatures and the CRL (openssl/);
here are the checks that a profile adds: ``remote-cert-tls`` and its parts,
``verify-x509-name``, ``peer-fingerprint`` and ``verify-hash``. No host name
is ever compared with the certificate: VPN certificates do not carry one.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

from ..config.model import TunnelConfig, X509NameType
from ..packet.ids import Role

__all__ = [
    "UNREADABLE",
    "CertificateChecks",
    "Rejected",
    "check_hash",
    "describe_verify_error",
    "displayed",
    "key_usage_bits",
    "subject_text",
]

#: What cryptography raises for a certificate that OpenSSL let pass; not all of it is a ValueError.
UNREADABLE = (ValueError, x509.InvalidVersion, x509.DuplicateExtension, x509.UnsupportedGeneralNameType)

#: Longest subject that is put into an error text, characters.
MAX_SUBJECT = 200

#: Short names of attributes as OpenSSL prints them.
_SHORT_NAMES = {
    NameOID.COMMON_NAME: "CN",
    NameOID.COUNTRY_NAME: "C",
    NameOID.STATE_OR_PROVINCE_NAME: "ST",
    NameOID.LOCALITY_NAME: "L",
    NameOID.ORGANIZATION_NAME: "O",
    NameOID.ORGANIZATIONAL_UNIT_NAME: "OU",
    NameOID.EMAIL_ADDRESS: "emailAddress",
    NameOID.SERIAL_NUMBER: "serialNumber",
    NameOID.STREET_ADDRESS: "street",
    NameOID.POSTAL_CODE: "postalCode",
    NameOID.SURNAME: "SN",
    NameOID.GIVEN_NAME: "GN",
    NameOID.TITLE: "title",
    NameOID.GENERATION_QUALIFIER: "generationQualifier",
    NameOID.X500_UNIQUE_IDENTIFIER: "x500UniqueIdentifier",
    NameOID.DN_QUALIFIER: "dnQualifier",
    NameOID.PSEUDONYM: "pseudonym",
    NameOID.USER_ID: "UID",
    NameOID.DOMAIN_COMPONENT: "DC",
    NameOID.BUSINESS_CATEGORY: "businessCategory",
    # easy-rsa puts it into every certificate that it makes.
    ObjectIdentifier("2.5.4.41"): "name",
    ObjectIdentifier("2.5.4.13"): "description",
    ObjectIdentifier("1.2.840.113549.1.9.2"): "unstructuredName",
}

#: Names that ``remote-cert-eku`` may use for a purpose, in lower case.
_PURPOSES = {
    "tls web server authentication": ExtendedKeyUsageOID.SERVER_AUTH,
    "serverauth": ExtendedKeyUsageOID.SERVER_AUTH,
    "tls web client authentication": ExtendedKeyUsageOID.CLIENT_AUTH,
    "clientauth": ExtendedKeyUsageOID.CLIENT_AUTH,
    "code signing": ExtendedKeyUsageOID.CODE_SIGNING,
    "codesigning": ExtendedKeyUsageOID.CODE_SIGNING,
    "e-mail protection": ExtendedKeyUsageOID.EMAIL_PROTECTION,
    "emailprotection": ExtendedKeyUsageOID.EMAIL_PROTECTION,
}

_WRONG_CA = "check that <ca> is the CA of this server"
_CLOCK = "check this machine's clock, or ask the server's operator for a new certificate"
_WEAK = "ask the server's operator for a stronger certificate, or accept it by tls-cert-profile insecure"
_CRL = "get a fresh crl-verify file"

#: OpenSSL's verification codes (x509_vfy.h): text and what to do.
_VERIFY_ERRORS: dict[int, tuple[str, str | None]] = {
    2: ("unable to get issuer certificate", _WRONG_CA),
    3: ("unable to get certificate CRL", _CRL),
    6: ("unable to decode issuer public key", None),
    7: ("certificate signature failure", _WRONG_CA),
    8: ("CRL signature failure", _CRL),
    9: ("certificate is not yet valid", _CLOCK),
    10: ("certificate has expired", _CLOCK),
    11: ("CRL is not yet valid", _CRL),
    12: ("CRL has expired", _CRL),
    18: ("self-signed certificate", _WRONG_CA),
    19: ("self-signed certificate in certificate chain", _WRONG_CA),
    20: ("unable to get local issuer certificate", _WRONG_CA),
    21: ("unable to verify the first certificate", _WRONG_CA),
    22: ("certificate chain too long", None),
    23: ("certificate revoked", "do not trust this server; ask its operator"),
    24: ("invalid CA certificate", _WRONG_CA),
    25: ("path length constraint exceeded", None),
    26: (
        "unsuitable certificate purpose",
        "the certificate is not one for servers: somebody may be posing as the server",
    ),
    27: ("certificate not trusted", _WRONG_CA),
    28: ("certificate rejected", None),
    32: ("key usage does not include certificate signing", None),
    34: ("unhandled critical extension", None),
    47: ("permitted subtree violation", None),
    48: ("excluded subtree violation", None),
    66: ("EE certificate key too weak", _WEAK),
    67: ("CA certificate key too weak", _WEAK),
    68: ("CA signature digest algorithm too weak", _WEAK),
    79: ("invalid CA certificate", _WRONG_CA),
}


def describe_verify_error(code: int) -> tuple[str, str | None]:
    """OpenSSL's text for a verification code, and what to do about it."""
    return _VERIFY_ERRORS.get(code, (f"verification error {code}", None))


class Rejected(NamedTuple):
    """Why a certificate is not good enough, and what to do about it."""

    text: str
    remedy: str | None = None


def _escaped(value: str) -> str:
    """Control characters as OpenSSL's ASN1_STRFLGS_ESC_CTRL writes them."""
    return "".join(f"\\{ord(c):02X}" if ord(c) < 0x20 or ord(c) == 0x7F else c for c in value)


def displayed(text: str) -> str:
    """``text`` for a terminal: C1 controls, marks that turn the direction of writing and the like are escaped, which
    a comparison must not do."""
    return "".join(c if c.isprintable() else f"\\u{ord(c):04X}" for c in text)


def subject_text(name: x509.Name) -> str:
    """A subject as OpenVPN writes it: ``C=DE, O=Example, CN=server``, in the certificate's order."""
    parts = []
    for rdn in name.rdns:
        attributes = []
        for attribute in rdn:
            key = _SHORT_NAMES.get(attribute.oid, attribute.oid.dotted_string)
            value = attribute.value if isinstance(attribute.value, str) else attribute.value.hex()
            attributes.append(f"{key}={_escaped(value)}")
        parts.append(" + ".join(attributes))
    return ", ".join(parts)


def _common_name(name: x509.Name) -> str:
    """The last common name, as openvpn takes it; empty: none."""
    found = name.get_attributes_for_oid(NameOID.COMMON_NAME)
    if not found:
        return ""
    value = found[-1].value
    return _escaped(value) if isinstance(value, str) else ""


def key_usage_bits(usage: x509.KeyUsage) -> int:
    """Key usage as ``remote-cert-ku`` counts it: digitalSignature is 0x80, encipherOnly 0x01."""
    agreement = usage.key_agreement
    bits = (
        usage.digital_signature,
        usage.content_commitment,
        usage.key_encipherment,
        usage.data_encipherment,
        usage.key_agreement,
        usage.key_cert_sign,
        usage.crl_sign,
        agreement and usage.encipher_only,
    )
    return sum(0x80 >> place for place, used in enumerate(bits) if used)


def check_hash(certificate: x509.Certificate, expected: Iterable[bytes]) -> bool:
    """Whether the certificate's hash is among ``expected``: SHA-1 (20 bytes) or SHA-256 (32 bytes)."""
    return bool({certificate.fingerprint(hashes.SHA1()), certificate.fingerprint(hashes.SHA256())} & set(expected))


class CertificateChecks(NamedTuple):
    """A profile's checks of the peer's own certificate."""

    #: The extended key usage that must be there; None: not checked.
    purpose: ObjectIdentifier | None = None
    #: Key usages of which one must be there in full; empty: any will do; None: not checked.
    key_usages: tuple[int, ...] | None = None
    name: tuple[str, X509NameType] | None = None
    #: SHA-256 hashes of certificates, of which the peer's must be one; empty: not checked.
    fingerprints: tuple[bytes, ...] = ()

    @classmethod
    def from_config(cls, config: TunnelConfig, role: Role) -> CertificateChecks:
        """The checks that ``role`` makes of its peer. ValueError: remote-cert-eku names no purpose."""
        purpose: ObjectIdentifier | None = None
        key_usages = config.remote_cert_ku
        if config.remote_cert_tls:
            peer_is_server = role is Role.CLIENT
            purpose = ExtendedKeyUsageOID.SERVER_AUTH if peer_is_server else ExtendedKeyUsageOID.CLIENT_AUTH
            key_usages = key_usages or ()
        if config.remote_cert_eku is not None:
            purpose = _PURPOSES.get(config.remote_cert_eku.lower()) or ObjectIdentifier(config.remote_cert_eku)
        return cls(purpose, key_usages, config.verify_x509_name, config.peer_fingerprints)

    @property
    def any(self) -> bool:
        """Whether another certificate of the same CA would be told apart from the server's."""
        return bool(self.purpose or self.key_usages is not None or self.name or self.fingerprints)

    def check(self, certificate: x509.Certificate) -> Rejected | None:
        """None: good. Never raises: what cannot be parsed is rejected."""
        try:
            return (
                self._check_fingerprint(certificate)
                or self._check_key_usage(certificate)
                or self._check_purpose(certificate)
                or self._check_name(certificate)
            )
        except UNREADABLE:
            return Rejected("an extension of the certificate cannot be read")

    def _check_fingerprint(self, certificate: x509.Certificate) -> Rejected | None:
        if not self.fingerprints or certificate.fingerprint(hashes.SHA256()) in self.fingerprints:
            return None
        return Rejected("its fingerprint is not one of peer-fingerprint", "check peer-fingerprint")

    def _check_key_usage(self, certificate: x509.Certificate) -> Rejected | None:
        if self.key_usages is None:
            return None
        try:
            extension = certificate.extensions.get_extension_for_class(x509.KeyUsage)
        except x509.ExtensionNotFound:
            return Rejected(
                "it has no key usage, which remote-cert-tls or remote-cert-ku asks for",
                "ask the server's operator for a certificate with one",
            )
        bits = key_usage_bits(extension.value)
        # A usage of nothing is in every certificate and matches none (ssl_verify_openssl.c, x509_verify_cert_ku).
        if not self.key_usages or any(wanted and bits & wanted == wanted for wanted in self.key_usages):
            return None
        return Rejected("its key usage is not one of remote-cert-ku", "check remote-cert-ku")

    def _check_purpose(self, certificate: x509.Certificate) -> Rejected | None:
        if self.purpose is None:
            return None
        try:
            purposes = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        except x509.ExtensionNotFound:
            return Rejected(
                "it has no extended key usage, which remote-cert-tls or remote-cert-eku asks for",
                "ask the server's operator for a certificate with one",
            )
        if self.purpose in purposes:
            return None
        return Rejected(
            "its extended key usage does not name the purpose that is asked for",
            "the certificate is not one for this role: somebody may be posing as the peer",
        )

    def _check_name(self, certificate: x509.Certificate) -> Rejected | None:
        if self.name is None:
            return None
        # Compared as it is: the "*.hide.me" of profiles is the common name that these servers have,
        # not a pattern (reference: ssl_verify.c, verify_peer_cert).
        wanted, kind = self.name
        common_name = _common_name(certificate.subject)
        if kind == "subject":
            good = subject_text(certificate.subject) == wanted
        elif kind == "name":
            good = common_name == wanted
        else:
            good = common_name.startswith(wanted)
        if good:
            return None
        return Rejected(
            f"verify-x509-name wants the {kind} {wanted!r}",
            "check verify-x509-name, or do not trust this server",
        )
