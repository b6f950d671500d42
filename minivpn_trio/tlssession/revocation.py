"""``crl-verify``: which certificates were revoked, as of now rather than as of the program's start.

A list comes from the profile, and anew from its file whenever that changed: a
list holds for days and a tunnel for months. Only lists that the TLS library takes,
too, replace others. A folder (``crl-verify DIR dir``)
has a file for each revoked certificate, named by its serial number in decimal
(reference: ssl_verify.c, verify_check_crl_dir).

This is the one part of the session that reads files while it lives: a glance
at one name on a local disk, at each handshake.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable
from pathlib import Path

from cryptography import x509

from ..config.files import MAX_REFERENCED, FileRefused, read_regular
from ..config.model import TunnelConfig
from ..errors import ConfigError
from .verify import UNREADABLE, Rejected

__all__ = ["Revocations"]

_BEGIN = b"-----BEGIN X509 CRL-----"
_CRL = re.compile(rb"-----BEGIN X509 CRL-----.*?-----END X509 CRL-----", re.DOTALL)


class Revocations:
    """The revoked certificates of one configuration. Raises ConfigError for a list that cannot be read.

    ``takes`` says whether the TLS library can use a list.
    """

    def __init__(self, config: TunnelConfig, takes: Callable[[x509.CertificateRevocationList], bool]) -> None:
        self._takes = takes
        self._read = config.crl_read
        self._file = None if config.crl_file is None else Path(config.crl_file)
        self._folder = None if config.crl_folder is None else Path(config.crl_folder)
        self._seen: tuple[int, ...] | None = None
        #: The lists as they are now; empty: there are none, and none is asked for.
        self.lists: list[x509.CertificateRevocationList] = []
        #: Why the file's present contents do not count; None: they do.
        self.warning: str | None = None
        if config.crl is not None:
            self.lists = self._parse(config.crl)
        self.refresh()
        if not self.lists and (config.crl is not None or self._file is not None):
            raise ConfigError("no revocation list in it that can be read", directive="crl-verify")

    def refresh(self) -> bool:
        """Look whether the file was exchanged, and read it if so; True: ``lists`` changed.

        A file that is gone, or holds no list, changes nothing: the last list goes on to hold, and
        ends by itself.
        """
        if self._file is None:
            return False
        try:
            state = os.stat(self._file)
            seen = (state.st_mtime_ns, state.st_size, state.st_ino)
            if seen == self._seen:
                return False
            data = read_regular(self._file, limit=MAX_REFERENCED)
            found = self._parse(data)
        except (OSError, FileRefused):
            found = []
        if not found:
            # Looked at again next time: it may just be being written.
            self._seen = None
            self.warning = "the file of crl-verify holds no list that can be read now; the last one goes on to hold"
            return False
        self._seen, self.warning = seen, None
        if self._read is not None and self.lists:
            known, self._read = self._read, None
            if hashlib.sha256(data).digest() == known:
                # Nothing new since the profile was read, but somebody may have given another list.
                return False
        self.lists = found
        return True

    def check(self, serial: int) -> Rejected | None:
        """Whether the folder has a file for this serial number. None: no, or there is no folder."""
        if self._folder is None:
            return None
        try:
            # Of whatever kind it is, and wherever it points.
            os.lstat(self._folder / str(serial))
        except FileNotFoundError:
            # Only a folder that is there, and can be looked into, says something by what it has not.
            if os.path.isdir(self._folder):
                return None
        except OSError:
            pass
        else:
            return Rejected(
                "it was revoked: the folder of crl-verify has a file of its serial number",
                "do not trust this server; ask its operator",
            )
        return Rejected("the folder of crl-verify cannot be looked into", "check the folder that crl-verify names")

    def _parse(self, pem: bytes) -> list[x509.CertificateRevocationList]:
        """The lists in ``pem``; empty if one of them cannot be used, or was cut off."""
        blocks = _CRL.findall(pem)
        if len(blocks) != pem.count(_BEGIN):
            return []
        try:
            lists = [x509.load_pem_x509_crl(block) for block in blocks]
        except UNREADABLE:
            return []
        return lists if all(map(self._takes, lists)) else []
