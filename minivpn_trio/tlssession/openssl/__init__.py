"""TLS over memory BIOs: bytes in, bytes out, no socket. Nothing else in the package touches OpenSSL.

    settings.py  versions, cipher suites, groups: what a profile asks for, made OpenSSL's
    context.py   what all TLS sessions of a configuration share, certificates and keys parsed once
    engine.py    one TLS session

The chain is verified by OpenSSL against the profile's CA only; VerifyOptions
like X509_STRICT, which refuse what many VPN CAs issue, are off, and no host
name is compared. The checks of verify.py are made inside the handshake, so a
certificate that fails them gets an alert and never sees a password.
"""

from __future__ import annotations

from .context import TLSContext, look_at_settings
from .engine import MAX_HANDSHAKE, TLSEngine

__all__ = ["MAX_HANDSHAKE", "TLSContext", "TLSEngine", "look_at_settings"]
