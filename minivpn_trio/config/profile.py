"""What reading a profile results in: a configuration, complaints, and what is still missing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from ..errors import ConfigError
from .model import TunnelConfig

__all__ = ["Diagnostic", "Finding", "MissingFile", "Profile", "Severity"]

Severity = Literal["warning", "error"]
#: A complaint by whoever knows no lines: severity, directive, message.
Finding = tuple[Severity, str, str]


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """One complaint about a profile. The message never quotes the file.

    ``line`` counts from 1; None: it is about the profile as a whole.
    """

    severity: Severity
    line: int | None
    directive: str | None
    message: str


@dataclass(frozen=True, slots=True)
class MissingFile:
    """A file that a profile names and that does not exist; ``name`` as the profile has it."""

    line: int
    directive: str
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """A profile as it was read.

    ``needs`` says what the profile leaves to be supplied, in its own order:
    ``auth-user-pass`` (a user name and password), ``askpass`` (the pass
    phrase of an encrypted key), ``static-challenge`` (the answer to a question
    of its own), ``http-proxy`` and ``socks-proxy`` (user name and password for
    the proxy), ``file:NAME`` (a file that it names and that does not exist).
    That alone does not make it a bad profile.
    """

    #: The path as it was given.
    file: str
    diagnostics: tuple[Diagnostic, ...] = ()
    needs: tuple[str, ...] = ()
    missing: tuple[MissingFile, ...] = ()
    #: The line of each directive that was found, the last one's where it stands several times.
    lines: Mapping[str, int] = field(default_factory=dict, repr=False)
    #: What could be understood, even where there are errors; fit for showing, not for connecting.
    partial: TunnelConfig = field(default_factory=lambda: TunnelConfig(remotes=()))

    @property
    def ok(self) -> bool:
        """Whether there are no errors."""
        return not self.errors

    @property
    def config(self) -> TunnelConfig | None:
        """The configuration; None where there are errors."""
        return self.partial if self.ok else None

    @property
    def absent(self) -> tuple[MissingFile, ...]:
        """The missing files whose contents cannot be supplied in another way: without them nothing is connected."""
        return tuple(each for each in self.missing if each.directive not in ("auth-user-pass", "askpass"))

    @property
    def errors(self) -> tuple[Diagnostic, ...]:
        """The complaints that make the profile unusable."""
        return tuple(d for d in self.diagnostics if d.severity == "error")

    @property
    def warnings(self) -> tuple[Diagnostic, ...]:
        """The complaints that do not."""
        return tuple(d for d in self.diagnostics if d.severity == "warning")

    def raise_for_errors(self) -> None:
        """Raise ConfigError for the first error, if there is one."""
        errors = self.errors
        if errors:
            first = errors[0]
            more = f" (and {len(errors) - 1} more, see 'minivpn-trio check')" if len(errors) > 1 else ""
            raise ConfigError(first.message + more, file=self.file, line=first.line, directive=first.directive)

    def require(self) -> TunnelConfig:
        """The configuration. Raises ConfigError where there are errors, or a file that is ``absent``."""
        self.raise_for_errors()
        for missing in self.absent:
            raise ConfigError(
                f"the file {missing.name} does not exist",
                file=self.file,
                line=missing.line,
                directive=missing.directive,
            )
        return self.partial
