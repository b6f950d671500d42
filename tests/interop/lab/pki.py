"""Certificates and static keys, made fresh for each test session."""

from __future__ import annotations

import datetime
import os
import textwrap
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

__all__ = ["Authority", "Identity", "static_key"]


@dataclass(frozen=True)
class Identity:
    """A certificate and its key, both PEM."""

    cert: str
    key: str

    @property
    def fingerprint(self) -> str:
        """SHA-256, as openssl prints it."""
        return x509.load_pem_x509_certificate(self.cert.encode()).fingerprint(hashes.SHA256()).hex(":").upper()


class Authority:
    """A certificate authority with P-256 keys."""

    def __init__(self, name: str = "Lab CA") -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        builder = self._builder(self._name, self._key.public_key())
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        builder = builder.add_extension(_usage(sign_certs=True), critical=True)
        self._cert = builder.sign(self._key, hashes.SHA256())

    @property
    def pem(self) -> str:
        """The authority's own certificate."""
        return self._cert.public_bytes(serialization.Encoding.PEM).decode()

    def server(self, name: str = "lab-server") -> Identity:
        """An identity that passes remote-cert-tls server."""
        return self.issue(name, ExtendedKeyUsageOID.SERVER_AUTH)

    def client(self, name: str = "lab-client") -> Identity:
        """An identity for a client."""
        return self.issue(name, ExtendedKeyUsageOID.CLIENT_AUTH)

    def issue(
        self,
        name: str | x509.Name,
        usage: x509.ObjectIdentifier | None,
        *,
        expired: bool = False,
        key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | None = None,
        key_usage: bool = True,
    ) -> Identity:
        """A certificate with one extended key usage, or none."""
        key = key or ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]) if isinstance(name, str) else name
        builder = self._builder(subject, key.public_key(), expired=expired)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        if key_usage:
            builder = builder.add_extension(_usage(), critical=True)
        if usage is not None:
            builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        if isinstance(name, str):
            builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        cert = builder.sign(self._key, hashes.SHA256())
        return Identity(
            cert.public_bytes(serialization.Encoding.PEM).decode(),
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            ).decode(),
        )

    def fingerprint(self, algorithm: hashes.HashAlgorithm) -> str:
        """The authority's own hash, as openssl prints it."""
        return self._cert.fingerprint(algorithm).hex(":").upper()

    def crl(self, *revoked: Identity, expired: bool = False) -> str:
        """A revocation list, PEM."""
        now = datetime.datetime.now(datetime.UTC)
        day = datetime.timedelta(days=1)
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self._name)
            .last_update(now - 5 * day)
            .next_update(now + (-1 if expired else 5) * day)
        )
        for identity in revoked:
            serial = x509.load_pem_x509_certificate(identity.cert.encode()).serial_number
            entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(now - day).build()
            builder = builder.add_revoked_certificate(entry)
        return builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()

    def _builder(
        self, subject: x509.Name, key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey, *, expired: bool = False
    ) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        day = datetime.timedelta(days=1)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - 10 * day)
            .not_valid_after(now - day if expired else now + 10 * day)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False
            )
        )


def _usage(*, sign_certs: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True, content_commitment=False, key_encipherment=False, data_encipherment=False,
        key_agreement=False, key_cert_sign=sign_certs, crl_sign=sign_certs, encipher_only=False, decipher_only=False,
    )  # fmt: skip


def static_key() -> str:
    """A key file for tls-auth and tls-crypt: 2048 random bits."""
    body = "\n".join(textwrap.wrap(os.urandom(256).hex(), 32))
    return f"-----BEGIN OpenVPN Static key V1-----\n{body}\n-----END OpenVPN Static key V1-----\n"
