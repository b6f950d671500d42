"""A configuration in the making: what the handlers of directives work on."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from .files import MAX_REFERENCED, FileMissing, FileRefused, read_regular, readable_folder, resolve
from .grammar import Statement
from .model import ControlWrapKind, Credentials, Proto
from .profile import Diagnostic, MissingFile, Severity

if TYPE_CHECKING:
    from .honour_proxy import ProxyDraft

__all__ = ["BadValue", "Draft", "Handler", "RemoteDraft", "WrapDraft", "number", "shown"]

_Found = TypeVar("_Found")

#: Complaints about one profile; a file of garbage has no use for thousands.
MAX_DIAGNOSTICS = 200


class BadValue(ValueError):
    """A directive's value is of no use. The text says what is wanted, not what was there."""


@dataclass(slots=True)
class RemoteDraft:
    """A server, perhaps without port and protocol, which then come from the defaults."""

    host: str
    port: int | None = None
    proto: Proto | None = None
    line: int | None = None
    #: What was said of proxies; None: nothing.
    proxy: ProxyDraft | None = None
    #: Fields of TunnelConfig that a ``<connection>`` sets for itself.
    values: dict[str, Any] = field(default_factory=dict)
    #: Its own wrapping of the control channel; the last one counts.
    wraps: list[WrapDraft] = field(default_factory=list)
    #: Directives that stood in it.
    names: set[str] = field(default_factory=set)


@dataclass(slots=True)
class WrapDraft:
    """How the control channel is wrapped: one of tls-auth, tls-crypt, tls-crypt-v2."""

    kind: ControlWrapKind
    line: int
    #: None: the key is in a file that does not exist.
    key: bytes | None = field(default=None, repr=False)


class Draft:
    """Collects values, complaints and needs while a profile is read."""

    def __init__(
        self, *, base: Path, confine: Path | None, credentials: Credentials | None, key_password: bytes | None
    ) -> None:
        self._base = base
        self._confine = confine
        #: Fields of TunnelConfig.
        self.values: dict[str, Any] = {}
        if credentials is not None:
            self.values["credentials"] = credentials
        if key_password is not None:
            self.values["key_password"] = key_password
        #: Line of the last mention of each directive.
        self.lines: dict[str, int] = {}
        self.diagnostics: list[Diagnostic] = []
        #: What is needed besides files: by name, with the line that says so.
        self._needs: dict[str, int] = {}
        self.missing: list[MissingFile] = []

        self.default_remote: RemoteDraft = RemoteDraft("")
        self.remotes: list[RemoteDraft] = []
        #: What ``<connection>`` blocks came to.
        self.connections: list[RemoteDraft] = []
        #: The one that is being read.
        self.connection: RemoteDraft | None = None
        self.wraps: list[WrapDraft] = []
        #: None: not set. OpenVPN's names, upper case.
        self.data_ciphers: list[str] | None = None
        self.fallback: str | None = None
        self.cipher: str | None = None
        self.authenticates: bool = True
        #: The directive that asks for more than a framing of compression.
        self.compresses: str | None = None
        self.forced_transport: str | None = None
        self.local_options: list[tuple[str, ...]] = []
        self.pull_filters: list[tuple[str, str]] = []
        self.peer_info: dict[str, str] = {}
        self.fingerprints: list[bytes] = []
        self.forward_compatible = False
        self.tolerated: set[str] = set()

    # -- complaints ---------------------------------------------------------------------------

    def complain(self, severity: str, line: int | None, directive: str | None, message: str) -> None:
        """Note a complaint; after 200 no more."""
        known: Severity = "error" if severity == "error" else "warning"
        if len(self.diagnostics) < MAX_DIAGNOSTICS:
            self.diagnostics.append(Diagnostic(known, line, directive, message))
        elif len(self.diagnostics) == MAX_DIAGNOSTICS:
            self.diagnostics.append(Diagnostic("error", line, None, "too many complaints: the rest is not shown"))

    def error(self, statement: Statement, message: str) -> None:
        """Note that ``statement`` makes the profile unusable."""
        self.complain("error", statement.line, statement.name, message)

    def warn(self, statement: Statement, message: str) -> None:
        """Note that ``statement`` does not do what somebody may expect."""
        self.complain("warning", statement.line, statement.name, message)

    def overall(self, severity: str, directive: str | None, message: str) -> None:
        """Note a complaint about the whole; its line is that of ``directive``, where there is one."""
        self.complain(severity, self.lines.get(directive or ""), directive, message)

    def need(self, what: str, line: int) -> None:
        """Note that ``what`` has to be supplied."""
        self._needs[what] = line

    def satisfied(self, what: str) -> None:
        """Note that ``what`` need not be supplied any more."""
        self._needs.pop(what, None)

    @property
    def needs(self) -> tuple[str, ...]:
        """All that has to be supplied, in the profile's order, files first."""
        # A file of credentials that is not there is no need besides that of the credentials.
        files = [
            (each.line, 0, f"file:{each.name}") for each in self.missing if each.directive not in self._needs
        ]
        others = [(line, 1, what) for what, line in self._needs.items()]
        return tuple(dict.fromkeys(text for _, _, text in sorted(files + others)))

    # -- material -----------------------------------------------------------------------------

    def material(self, statement: Statement) -> bytes | None:
        """The inline block of ``statement``, or the file that it names.

        None: there is no such file, which is noted as a need, or it was
        refused, which is noted as an error, or the value is the old way to
        announce a block.
        """
        if statement.block is not None:
            self._not_missed(statement)
            return statement.block.encode()
        if statement.values[0] == "[inline]":
            self._not_missed(statement)
            return None
        return self._found(statement, lambda path: read_regular(path, limit=MAX_REFERENCED))

    def lasting_path(self, statement: Statement) -> str | None:
        """Where the file that ``statement`` names will be found later; None: a block, or refused. ``material`` or
        ``folder`` complains."""
        if statement.block is not None or statement.values[0] == "[inline]":
            return None
        try:
            path = resolve(statement.values[0], self._base, self._confine)
            # What lies inside stays inside: a symbolic link that is exchanged later leads nowhere else.
            return os.path.abspath(path) if self._confine is None else os.path.realpath(path)
        except (FileRefused, ValueError):
            return None

    def is_folder(self, statement: Statement) -> bool:
        """Whether a folder is at the name that ``statement`` gives, rather than a file. No complaint."""
        path = self.lasting_path(statement)
        return path is not None and os.path.isdir(path)

    def folder(self, statement: Statement) -> bool:
        """Whether ``statement`` names a folder that can be looked into; otherwise as ``material``."""
        return self._found(statement, readable_folder) is not None

    def _found(self, statement: Statement, read: Callable[[Path], _Found]) -> _Found | None:
        self._not_missed(statement)
        name = statement.values[0]
        try:
            return read(resolve(name, self._base, self._confine))
        except FileMissing:
            self.missing.append(MissingFile(statement.line, statement.name, name))
        except FileRefused as refused:
            self.error(statement, str(refused))
        return None

    def _not_missed(self, statement: Statement) -> None:
        """The last mention counts, so a file that an earlier one named is not missed."""
        if self.connection is None:
            self.missing = [each for each in self.missing if each.directive != statement.name]


Handler = Callable[[Draft, Statement], None]


def number(values: Sequence[str], index: int, low: int, high: int) -> int:
    """The number at ``index``. Raises BadValue."""
    text = values[index] if index < len(values) else ""
    if text.isascii() and text.isdigit() and len(text) <= 19 and low <= int(text) <= high:
        return int(text)
    raise BadValue(f"a number from {low} to {high} is wanted")


def shown(value: str, *, longest: int = 40) -> str | None:
    """``value`` if it may be repeated in a message: a plain name that can hardly be a secret."""
    plain = value.isascii() and value.replace("-", "").replace("_", "").isalnum() and len(value) <= longest
    return value if plain and not value.isdigit() else None
