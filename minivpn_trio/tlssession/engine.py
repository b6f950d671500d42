"""TLS over memory BIOs: bytes in, bytes out, no socket.

``TLSContext`` parses certificates and keys once and is used for every key of
every connection. ``TLSEngine`` is one TLS session: feed it what the peer sent,
take what is to be sent, read and write the inside. This is the only module
that touches OpenSSL.

The chain is verified by OpenSSL against the profile's CA only; VerifyOptions
like X509_STRICT, which refuse what many VPN CAs issue, are off, and no host
name is compared. The checks of verify.py are made inside the handshake, so a
certificate that fails them gets an alert and never sees a password.
"""

from __future__ import annotations

import datetime
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from typing import Literal

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from OpenSSL import SSL, crypto
from OpenSSL._util import lib

from ..config.model import TunnelConfig
from ..config.profile import Finding
from ..config.tls_names import openssl_names
from ..errors import ConfigError, ConnectError, Stage, TLSVerificationError
from ..packet.ids import Role
from .alerts import explain
from .material import (
    CERTIFICATE,
    Identity,
    PKCS12KeyAndCertificates,
    is_locked,
    load_certificates,
    load_identity,
    load_pkcs12,
)
from .revocation import Revocations
from .verify import (
    MAX_SUBJECT,
    UNREADABLE,
    CertificateChecks,
    Rejected,
    check_hash,
    describe_verify_error,
    displayed,
    subject_text,
)

__all__ = ["MAX_HANDSHAKE", "TLSContext", "TLSEngine", "look_at_settings"]

ClientCertificate = Literal["require", "optional", "none"]

#: Bytes that a peer may send before its handshake is over.
MAX_HANDSHAKE = 64 * 1024
_READ_SIZE = 16 * 1024
#: Seconds within which two moments judge certificates alike.
_SAME_TIME = 60.0

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


def _reason(error: SSL.Error | crypto.Error) -> str:
    """OpenSSL's last word; it holds no data of ours."""
    queue = error.args[0] if error.args else ()
    return str(queue[-1][2]) if isinstance(queue, list) and queue else "TLS error"


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
            self._groups, unknown = _known_groups(config.tls_groups)
            if unknown:
                self.warnings.append(f"tls-groups: {_left_out(unknown)}")
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
        changed = self.revocations.refresh()
        if unix_time is None:
            if changed:
                self._context = self._build()
        elif changed or self._as_of is None or abs(unix_time - self._as_of) > _SAME_TIME:
            # A store keeps the first time that it is told, so another one is needed; half a
            # millisecond, since everything is parsed.
            self._context = self._build()
            store = self._context.get_cert_store()
            assert store is not None
            store.set_time(datetime.datetime.fromtimestamp(unix_time, datetime.UTC).replace(tzinfo=None))
            self._as_of = unix_time
        return TLSEngine(self, SSL.Connection(self._context, None))

    def _build(self) -> SSL.Context:
        context = SSL.Context(SSL.TLS_METHOD)
        _configure(context, self._config)
        if self._groups:
            _set_groups(context, self._groups)
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
        context.set_verify(self._mode, _on_certificate)
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
            unknown.extend(_known_groups(config.tls_groups)[1])

    unknown: list[str] = []
    steps: tuple[Callable[[], object], ...] = (
        *(partial(step, context, config) for step in _SETTINGS),
        identify, authorize, group,
        partial(_checks, config, Role.CLIENT), partial(Revocations, config, _takes_revocation),
    )  # fmt: skip
    for step in steps:
        try:
            step()
        except ConfigError as error:
            yield "error", error.directive or "", error.message
    if unknown:
        yield "warning", "tls-groups", _left_out(unknown)


def _checks(config: TunnelConfig, role: Role) -> CertificateChecks:
    try:
        return CertificateChecks.from_config(config, role)
    except ValueError:
        raise ConfigError("no name or number of a purpose", directive="remote-cert-eku") from None


def _left_out(groups: list[str]) -> str:
    return f"{len(groups)} of the names cannot be used with this TLS library and are left out"


def _configure(context: SSL.Context, config: TunnelConfig) -> None:
    """Versions, cipher suites and the security level."""
    # Each key is a TLS session of its own: no resumption, no tickets, no renegotiation.
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.set_options(SSL.OP_NO_TICKET | SSL.OP_NO_COMPRESSION | SSL.OP_NO_RENEGOTIATION)
    for step in _SETTINGS:
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


#: The parts of ``_configure`` that may fail, each by itself.
_SETTINGS = (_set_versions, _set_ciphers, _set_suites)


def _known_groups(text: str) -> tuple[list[str], list[str]]:
    """The groups of ``tls-groups`` that can be used, in its order, and the others, which openvpn leaves out too
    (reference: ssl_openssl.c, tls_ctx_set_tls_groups). Raises ConfigError if none is left."""
    known: list[str] = []
    unknown: list[str] = []
    for name in filter(None, text.split(":")):
        # OpenSSL 3.5 takes a question mark for "if you know it", and would be content with a list of unknown ones.
        bare = name.lstrip("?")
        (known if bare and _set_groups(SSL.Context(SSL.TLS_METHOD), [*known, bare]) else unknown).append(bare)
    if not known:
        raise ConfigError("no group in it that this TLS library can use", directive="tls-groups")
    return known, unknown


def _set_groups(context: SSL.Context, names: list[str]) -> bool:
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
            f"the TLS library refuses it: {_reason(exc)} (tls-cert-profile insecure accepts weak ones)",
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


def _on_certificate(connection: SSL.Connection, certificate: crypto.X509, error: int, depth: int, good: int) -> bool:
    engine = connection.get_app_data()()
    return isinstance(engine, TLSEngine) and engine.judge(certificate, error, depth, bool(good))


class TLSEngine:
    """One TLS session. Made by ``TLSContext.open``.

    Errors are ConnectError or TLSVerificationError. After one, ``take_output``
    still has the alert that tells the peer.
    """

    __slots__ = (
        "__weakref__", "_connection", "_context", "_handshake_bytes", "_hash_passed", "_leaf_passed", "_rejected",
        "established", "peer_left",
    )  # fmt: skip

    def __init__(self, context: TLSContext, connection: SSL.Connection) -> None:
        self._context = context
        self._connection = connection
        self._handshake_bytes = 0
        self._leaf_passed = False
        self._hash_passed = not context.verify_hash
        self._rejected: TLSVerificationError | None = None
        #: The handshake is over.
        self.established: bool = False
        #: The peer closed its side.
        self.peer_left: bool = False
        # Weakly: what refers to itself in a circle stays until a collection of the cyclic kind frees it, keys and all.
        connection.set_app_data(weakref.ref(self))
        if context.role is Role.CLIENT:
            connection.set_connect_state()
        else:
            connection.set_accept_state()

    # input

    def feed(self, data: bytes) -> None:
        """Take bytes from the peer; then call ``handshake`` or ``read``."""
        if not self.established:
            self._handshake_bytes += len(data)
            if self._handshake_bytes > MAX_HANDSHAKE:
                raise ConnectError("the peer's TLS handshake never ends", stage=Stage.TLS_HANDSHAKE)
        view = memoryview(data)
        while view:
            view = view[self._connection.bio_write(bytes(view)) :]

    def handshake(self) -> bool:
        """Go on with the handshake as far as it goes; True once it is over."""
        if self.established:
            return True
        try:
            self._connection.do_handshake()
        except (SSL.WantReadError, SSL.WantWriteError):
            return False
        except SSL.Error as exc:
            raise self._failure(exc) from None
        # Fail closed: whatever OpenSSL made of the chain, our own checks must have seen the certificate.
        certificate = self._connection.get_peer_certificate()
        needed = self._context.wants_certificate or (certificate is not None and self._context.verifies)
        if needed and not self._leaf_passed:
            raise TLSVerificationError("the peer's certificate was never checked")
        if needed and not self._hash_passed:
            raise TLSVerificationError("no CA stands above the peer's certificate, and verify-hash asks for one")
        self.established = True
        return True

    # output

    def take_output(self) -> bytes:
        """What is to be sent to the peer; may be empty."""
        pieces = []
        while True:
            try:
                pieces.append(self._connection.bio_read(65536))
            except SSL.WantReadError:
                return b"".join(pieces)

    def read(self) -> Iterator[bytes]:
        """What the peer wrote, one piece a record. What came before an error comes before it."""
        while not self.peer_left:
            try:
                piece = self._connection.recv(_READ_SIZE)
            except (SSL.WantReadError, SSL.WantWriteError):
                break
            except SSL.ZeroReturnError:
                self.peer_left = True
            except SSL.Error as exc:
                raise self._failure(exc) from None
            else:
                yield piece

    def write(self, data: bytes) -> None:
        """Send ``data`` inside TLS, in one record if it is not longer than 16 KiB."""
        view = memoryview(data)
        try:
            while view:
                view = view[self._connection.send(bytes(view)) :]
        except SSL.Error as exc:
            raise self._failure(exc) from None

    def export(self, label: bytes, size: int) -> bytes:
        """Keying material of RFC 5705 and RFC 8446, without a context value."""
        return self._connection.export_keying_material(label, size, None)

    @property
    def version(self) -> str:
        """As in ``TLSv1.3``."""
        return self._connection.get_protocol_version_name()

    @property
    def cipher(self) -> str:
        """The suite in OpenSSL's name."""
        return self._connection.get_cipher_name() or ""

    @property
    def peer_certificate(self) -> x509.Certificate | None:
        """The peer's certificate, verified; None: it showed none."""
        return self._connection.get_peer_certificate(as_cryptography=True)

    # verification

    def judge(self, certificate: crypto.X509, error: int, depth: int, good: bool) -> bool:
        """OpenSSL's question about one certificate of the chain; depth 0 is the peer's own."""
        context = self._context
        if not good and not self._overlooked(error, depth):
            text, remedy = describe_verify_error(error)
            self._reject(certificate, depth, Rejected(text, remedy))
            return False
        revoked = context.revocations.check(certificate.get_serial_number())
        if revoked is not None:
            self._reject(certificate, depth, revoked)
            return False
        if depth == 0:
            rejected = _check_leaf(context.checks, certificate)
            if rejected is not None:
                self._reject(certificate, depth, rejected)
                return False
            self._leaf_passed = True
        elif depth == 1 and context.verify_hash:
            try:
                matches = check_hash(certificate.to_cryptography(), context.verify_hash)
            except UNREADABLE:
                matches = False
            if not matches:
                self._reject(certificate, depth, Rejected("its hash is not one of verify-hash", "check verify-hash"))
                return False
            self._hash_passed = True
        return True

    def _overlooked(self, error: int, depth: int) -> bool:
        """Errors that do not count.

        Without a CA the fingerprint is the proof and the chain none. A revocation list that is
        missing for an intermediate CA is overlooked, as openvpn does; one for the peer is not.
        """
        if not self._context.has_ca and self._context.checks.fingerprints:
            return True
        return error == _X509_UNABLE_TO_GET_CRL and depth > 0

    def _reject(self, certificate: crypto.X509, depth: int, why: Rejected) -> None:
        if self._rejected is not None:
            return
        peer = "server" if self._context.role is Role.CLIENT else "client"
        whose = f"the {peer}'s certificate" if depth == 0 else f"a CA certificate of the {peer}"
        self._rejected = TLSVerificationError(
            f"{whose} ({_subject_of(certificate)}) was not accepted: {why.text}", remedy=why.remedy
        )

    def _failure(self, error: SSL.Error) -> ConnectError:
        """What a failed TLS operation means."""
        if self._rejected is not None:
            return self._rejected
        return explain(_reason(error) if not isinstance(error, SSL.SysCallError) else "the stream ended")


_X509_UNABLE_TO_GET_CRL = 3


def _check_leaf(checks: CertificateChecks, certificate: crypto.X509) -> Rejected | None:
    try:
        return checks.check(certificate.to_cryptography())
    except UNREADABLE:
        return Rejected("it cannot be read") if checks.any else None


def _subject_of(certificate: crypto.X509) -> str:
    try:
        text = subject_text(certificate.to_cryptography().subject)
    except UNREADABLE:
        text = "no readable subject"
    text = displayed(text)
    return text if len(text) <= MAX_SUBJECT else text[:MAX_SUBJECT] + "..."
