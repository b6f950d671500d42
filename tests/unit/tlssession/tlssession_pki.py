"""Certificates for the tests of TLS: good ones, and each way in which one can be bad."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from functools import cached_property

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import pkcs12
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

#: The moment as of which all certificates are judged: 2026-01-02, in the middle of their lives.
UNIX_TIME = 1767312000.0
_NOW = datetime.datetime.fromtimestamp(UNIX_TIME, datetime.UTC)
_DAY = datetime.timedelta(days=1)

SERVER = ExtendedKeyUsageOID.SERVER_AUTH
CLIENT = ExtendedKeyUsageOID.CLIENT_AUTH
_ALL = object()


@dataclass
class Issued:
    certificate: x509.Certificate
    private_key: ec.EllipticCurvePrivateKey

    @cached_property
    def cert(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @cached_property
    def key(self) -> bytes:
        return self.encrypted_key(None)

    def encrypted_key(self, password: bytes | None) -> bytes:
        protection = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
        return self.private_key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, protection
        )

    @property
    def fingerprint(self) -> bytes:
        return self.certificate.fingerprint(hashes.SHA256())


def name(*attributes: tuple[ObjectIdentifier, str]) -> x509.Name:
    return x509.Name([x509.NameAttribute(oid, value) for oid, value in attributes])


class Authority:
    """A CA, at the root or below another one."""

    def __init__(self, common_name: str = "test CA", parent: Authority | None = None) -> None:
        self.subject = name((NameOID.COMMON_NAME, common_name))
        self.issued = self._make(self.subject, parent=parent, ca=True)

    @property
    def cert(self) -> bytes:
        return self.issued.cert

    def issue(
        self,
        subject: str | x509.Name = "server",
        *,
        eku: ObjectIdentifier | None = SERVER,
        key_usage: bool = True,
        from_day: int = -10,
        to_day: int = 10,
    ) -> Issued:
        full = name((NameOID.COMMON_NAME, subject)) if isinstance(subject, str) else subject
        return self._make(full, parent=self, eku=eku, key_usage=key_usage, days=(from_day, to_day))

    def _make(
        self,
        subject: x509.Name,
        *,
        parent: Authority | None,
        ca: bool = False,
        eku: ObjectIdentifier | None = None,
        key_usage: bool = True,
        days: tuple[int, int] = (-10, 10),
    ) -> Issued:
        key = ec.generate_private_key(ec.SECP256R1())
        issuer = subject if parent is None else parent.subject
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(_NOW + days[0] * _DAY)
            .not_valid_after(_NOW + days[1] * _DAY)
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        )
        if key_usage:
            usage = x509.KeyUsage(not ca, False, False, False, not ca, ca, ca, False, False)
            builder = builder.add_extension(usage, critical=True)
        if eku is not None:
            builder = builder.add_extension(x509.ExtendedKeyUsage([eku]), critical=False)
        signer = key if parent is None else parent.issued.private_key
        return Issued(builder.sign(signer, hashes.SHA256()), key)

    def crl(self, *revoked: Issued, from_day: int = -5, to_day: int = 5) -> bytes:
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.subject)
            .last_update(_NOW + from_day * _DAY)
            .next_update(_NOW + to_day * _DAY)
        )
        for issued in revoked:
            builder = builder.add_revoked_certificate(
                x509.RevokedCertificateBuilder()
                .serial_number(issued.certificate.serial_number)
                .revocation_date(_NOW - _DAY)
                .build()
            )
        return builder.sign(self.issued.private_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    def pkcs12(self, issued: Issued, password: bytes | None) -> bytes:
        protection = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
        return pkcs12.serialize_key_and_certificates(
            b"x", issued.private_key, issued.certificate, [self.issued.certificate], protection
        )


#: Made once: what most tests use.
CA = Authority()
OTHER_CA = Authority("another CA")
SERVER_CERT = CA.issue("server")
CLIENT_CERT = CA.issue("client", eku=CLIENT)
