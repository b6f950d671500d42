"""TLSContext: what all TLS sessions of a configuration share.

Certificates and keys are parsed once, and used for every key of every connection. ``look_at_settings`` tries the same
without using it, for whoever wants to know of everything that would fail.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Literal

from cryptography import x509
from OpenSSL import SSL, crypto

from ...config.model import TunnelConfig
from ...config.profile import Finding
from ...errors import ConfigError
from ...packet.ids import Role
from ..material import (
    CERTIFICATE,
    Identity,
    is_locked,
    load_certificates,
    load_identity,
    load_pkcs12,
)
from ..revocation import Revocations
from ..verify import CertificateChecks
from .engine import TLSEngine, last_word, on_certificate
from .settings import SETTINGS, configure, known_groups, left_out, set_groups

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.serialization.pkcs12 import PKCS12KeyAndCertificates

__all__ = ["TLSContext", "look_at_settings"]

ClientCertificate = Literal["require", "optional", "none"]

#: Seconds within which two moments judge certificates alike.
_SAME_TIME = 60.0


class TLSContext:
    """What all TLS sessions of a configuration share.

    Raises ConfigError for certificates and keys that cannot be used.
    ``client_certificate`` says what a server asks of its clients.
    """

    def __init__(
        self, config: TunnelConfig, role: Role, *, client_certificate: ClientCertificate = "require"
    ) -> None:
        self.role = role
        self._config = config
        #: What the user should hear of.
        self.warnings: list[str] = []
        self.checks: CertificateChecks = _checks(config, role)
        self.verify_hash: tuple[bytes, ...] = config.verify_hash
        bundle = load_pkcs12(config)
        self._identity = load_identity(config, bundle)
        self._authorities = _load_authorities(config, bundle)
        self.revocations: Revocations = Revocations(config, _takes_revocation)
        #: Without a CA the chain proves nothing, and a fingerprint must.
        self.has_ca: bool = bool(self._authorities)
        if not self.has_ca and not config.peer_fingerprints and client_certificate == "require":
            raise ConfigError("neither a CA nor a peer fingerprint: nobody could be verified", directive="ca")
        if role is Role.CLIENT and not self.checks.any:
            self.warnings.append(
                "any certificate of the CA is taken for the server's, a client's too: add remote-cert-tls server"
            )
        self._groups: list[str] = []
        if config.tls_groups is not None:
            self._groups, unknown = known_groups(config.tls_groups)
            if unknown:
                self.warnings.append(f"tls-groups: {left_out(unknown)}")
        mode = SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT
        if role is Role.SERVER:
            mode = {"require": mode, "optional": SSL.VERIFY_PEER, "none": SSL.VERIFY_NONE}[client_certificate]
        self._mode = mode
        self.verifies: bool = mode != SSL.VERIFY_NONE
        self.wants_certificate: bool = bool(mode & SSL.VERIFY_FAIL_IF_NO_PEER_CERT)
        self._context = self._build()
        self._as_of: float | None = None

    def open(self, unix_time: float | None = None) -> TLSEngine:
        """A new TLS session. Certificates are judged as of ``unix_time`` (None: the system's clock)."""
        judged = self._as_of
        if self.revocations.refresh() or (
            unix_time is not None and judged is not None and abs(unix_time - judged) > _SAME_TIME
        ):
            # A store keeps the first time that it is told, so another one is needed; half a
            # millisecond, since everything is parsed.
            self._context, self._as_of = self._build(), None
        if unix_time is not None and self._as_of is None:
            store = self._context.get_cert_store()
            assert store is not None
            store.set_time(datetime.datetime.fromtimestamp(unix_time, datetime.UTC).replace(tzinfo=None))
            self._as_of = unix_time
        return TLSEngine(self, SSL.Connection(self._context, None))

    def _build(self) -> SSL.Context:
        context = SSL.Context(SSL.TLS_METHOD)
        configure(context, self._config)
        if self._groups:
            set_groups(context, self._groups)
        if self._identity is not None:
            _use_identity(context, self._identity)
        store = context.get_cert_store()
        assert store is not None
        for authority in self._authorities:
            store.add_cert(authority)
        for revocation in self.revocations.lists:
            store.add_crl(revocation)
        if self.revocations.lists:
            store.set_flags(crypto.X509StoreFlags.CRL_CHECK | crypto.X509StoreFlags.CRL_CHECK_ALL)
        context.set_verify(self._mode, on_certificate)
        return context


def look_at_settings(config: TunnelConfig) -> Iterator[Finding]:
    """What a client's ``TLSContext`` would complain of, all of it, and only of what is there.

    A private key or PKCS #12 file that is locked, and what is missing, is left alone.
    """
    context = SSL.Context(SSL.TLS_METHOD)
    locked = is_locked(config)
    bundle: PKCS12KeyAndCertificates | None = None

    def identify() -> None:
        nonlocal bundle
        if not locked:
            bundle = load_pkcs12(config)
            identity = load_identity(config, bundle)
            if identity is not None:
                _use_identity(context, identity)
        elif config.cert is not None:
            load_certificates(config.cert, "cert")

    def authorize() -> None:
        if config.ca is not None or bundle is not None:
            found = _load_authorities(config, bundle)
            if not found and not config.peer_fingerprints:
                raise ConfigError("there is no CA in it, and none beside it", directive="pkcs12")

    def group() -> None:
        if config.tls_groups is not None:
            unknown.extend(known_groups(config.tls_groups)[1])

    unknown: list[str] = []
    steps: tuple[Callable[[], object], ...] = (
        *(partial(step, context, config) for step in SETTINGS),
        identify, authorize, group,
        partial(_checks, config, Role.CLIENT), partial(Revocations, config, _takes_revocation),
    )  # fmt: skip
    for step in steps:
        try:
            step()
        except ConfigError as error:
            yield "error", error.directive or "", error.message
    if unknown:
        yield "warning", "tls-groups", left_out(unknown)


def _checks(config: TunnelConfig, role: Role) -> CertificateChecks:
    try:
        return CertificateChecks.from_config(config, role)
    except ValueError:
        raise ConfigError("no name or number of a purpose", directive="remote-cert-eku") from None


def _takes_revocation(revocation: x509.CertificateRevocationList) -> bool:
    """Whether OpenSSL takes the list: not all that cryptography reads."""
    try:
        crypto.X509Store().add_crl(revocation)
    except crypto.Error:
        return False
    return True


def _use_identity(context: SSL.Context, identity: Identity) -> None:
    try:
        context.use_certificate(identity.certificate)
        for intermediate in identity.chain:
            context.add_extra_chain_cert(intermediate)
    except (SSL.Error, crypto.Error) as exc:  # the latter: cryptography reads some that OpenSSL does not
        raise ConfigError(
            f"the TLS library refuses it: {last_word(exc)} (tls-cert-profile insecure accepts weak ones)",
            directive=identity.directive,
        ) from None
    try:
        context.use_privatekey(identity.key)  # type: ignore[arg-type]  # one of the types that it takes
        context.check_privatekey()
    except (SSL.Error, crypto.Error, TypeError):
        raise ConfigError("the private key does not belong to the certificate", directive="key") from None


def _load_authorities(config: TunnelConfig, bundle: PKCS12KeyAndCertificates | None) -> list[crypto.X509]:
    if config.ca is None:
        # Reference: ssl_openssl.c, tls_ctx_load_pkcs12: its other certificates are the CA.
        others = [] if bundle is None else bundle.additional_certs
        try:
            return [crypto.X509.from_cryptography(entry.certificate) for entry in others]
        except crypto.Error:
            raise ConfigError("a certificate in it cannot be read", directive="pkcs12") from None
    authorities = []
    # Parsed by OpenSSL, which takes old CAs that stricter parsers refuse.
    for number, block in enumerate(CERTIFICATE.findall(config.ca), 1):
        try:
            authorities.append(crypto.load_certificate(crypto.FILETYPE_PEM, block))
        except crypto.Error:
            raise ConfigError(f"certificate number {number} cannot be read", directive="ca") from None
    if not authorities:
        raise ConfigError("no certificate in it", directive="ca")
    return authorities
