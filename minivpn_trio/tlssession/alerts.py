"""Why TLS failed, in words: what the library says of it, or the alert that the peer sent, and what to do about it."""

from __future__ import annotations

import re

from ..errors import ConnectError, Stage, TLSVerificationError

__all__ = ["explain"]

_ALERT = re.compile(r"alert (.+)$")

#: What a TLS library or the peer says, and what can be done about it.
_REMEDIES = {
    "unknown ca": "the server does not know the CA of our certificate: check cert and key",
    "bad certificate": "the server does not accept our certificate: check cert and key",
    "certificate expired": "our certificate has expired: get a new one",
    "certificate revoked": "our certificate was revoked: get a new one",
    "certificate unknown": "the server does not accept our certificate: check cert and key",
    "certificate required": "the server wants a client certificate: set cert and key",
    "unsupported certificate": "the server does not accept our certificate: check cert and key",
    "access denied": "the server does not accept our certificate: check cert and key",
    "handshake failure": "no cipher suite or signature in common: check tls-cipher, tls-version-min and cert",
    "protocol version": "no TLS version in common: check tls-version-min and tls-version-max",
    "unsupported protocol": "no TLS version in common: check tls-version-min and tls-version-max",
    "insufficient security": "the server wants stronger ciphers: check tls-cipher",
    "wrong version number": "check that this is an OpenVPN server",
    "dh key too small": "the server uses weak parameters; tls-cert-profile insecure accepts them",
}
#: Alerts that are about a certificate of ours.
_CERTIFICATE_ALERTS = frozenset(
    {
        "access denied", "bad certificate", "certificate expired", "certificate required", "certificate revoked",
        "certificate unknown", "unknown ca", "unsupported certificate",
    }
)  # fmt: skip


def explain(reason: str) -> ConnectError:
    """The error for ``reason``, OpenSSL's last word, which holds no data of ours."""
    alert = _ALERT.search(reason)
    if alert is None:
        return ConnectError(f"TLS failed: {reason}", stage=Stage.TLS_HANDSHAKE, remedy=_REMEDIES.get(reason))
    name = alert[1]
    text = f"the peer ended TLS with the alert {name!r}"
    remedy = _REMEDIES.get(name)
    if name in _CERTIFICATE_ALERTS:
        return TLSVerificationError(text, remedy=remedy)
    return ConnectError(text, stage=Stage.TLS_HANDSHAKE, remedy=remedy)
