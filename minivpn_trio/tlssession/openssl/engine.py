"""TLSEngine: one TLS session.

Feed it what the peer sent, take what is to be sent, read and write the inside. OpenSSL asks it about each certificate.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from typing import TYPE_CHECKING

from cryptography import x509
from OpenSSL import SSL, crypto

from ...errors import ConnectError, Stage, TLSVerificationError
from ...packet.ids import Role
from ..alerts import explain
from ..verify import (
    MAX_SUBJECT,
    UNREADABLE,
    CertificateChecks,
    Rejected,
    check_hash,
    describe_verify_error,
    displayed,
    subject_text,
)

if TYPE_CHECKING:
    from .context import TLSContext

__all__ = ["MAX_HANDSHAKE", "TLSEngine", "last_word", "on_certificate"]

#: Bytes that a peer may send before its handshake is over.
MAX_HANDSHAKE = 64 * 1024
_READ_SIZE = 16 * 1024
_X509_UNABLE_TO_GET_CRL = 3


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
        return explain(last_word(error) if not isinstance(error, SSL.SysCallError) else "the stream ended")


def on_certificate(connection: SSL.Connection, certificate: crypto.X509, error: int, depth: int, good: int) -> bool:
    """OpenSSL's callback: ask the engine that the connection belongs to."""
    engine = connection.get_app_data()()
    return isinstance(engine, TLSEngine) and engine.judge(certificate, error, depth, bool(good))


def last_word(error: SSL.Error | crypto.Error) -> str:
    """OpenSSL's last word; it holds no data of ours."""
    queue = error.args[0] if error.args else ()
    return str(queue[-1][2]) if isinstance(queue, list) and queue else "TLS error"


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
