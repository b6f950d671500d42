"""Profiles: reading a ``.ovpn`` file into a TunnelConfig.

``read_profile`` never fails: whatever is wrong is in its result, with line
numbers. ``load_config`` is for those who want a configuration or an error.
Whether certificates and keys can be used is seen above: ``minivpn_trio.profiles``.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from .directives import DIRECTIVES
from .draft import Draft
from .files import MAX_PROFILE, FileRefused, read_regular
from .grammar import parse_statements
from .interpret import finish, interpret
from .model import Credentials, TunnelConfig
from .profile import Diagnostic, Profile

__all__ = ["Diagnostic", "Profile", "load_config", "parse_profile", "read_profile"]


def read_profile(
    path: str | os.PathLike[str],
    *,
    credentials: Credentials | None = None,
    key_password: bytes | None = None,
    confine: str | os.PathLike[str] | None = None,
) -> Profile:
    """Read the profile at ``path`` and the files that it names, relative to its folder.

    ``credentials`` and ``key_password`` stand in for what ``auth-user-pass``
    and ``askpass`` ask for; the files of those two are then not looked at.
    With ``confine`` no file outside of that folder is read. Nothing is raised:
    see ``Profile.diagnostics``. Nothing is run, and nothing but regular files
    of at most 256 KiB (the profile) and 1 MiB (what it names) is read.
    """
    file = Path(path)
    try:
        data = read_regular(file, limit=MAX_PROFILE)
    except FileRefused as refused:
        return Profile(file=str(path), diagnostics=(Diagnostic("error", None, None, str(refused)),))
    return parse_profile(
        data,
        file=str(path),
        base=file.parent,
        credentials=credentials,
        key_password=key_password,
        confine=confine,
    )


def parse_profile(
    data: bytes,
    *,
    file: str = "(memory)",
    base: str | os.PathLike[str] = ".",
    credentials: Credentials | None = None,
    key_password: bytes | None = None,
    confine: str | os.PathLike[str] | None = None,
) -> Profile:
    """Like ``read_profile``, for a profile in memory; ``base`` is the folder of the files that it names."""
    if len(data) > MAX_PROFILE:
        message = f"the profile is larger than {MAX_PROFILE // 1024} KiB"
        return Profile(file=file, diagnostics=(Diagnostic("error", None, None, message),))
    draft = Draft(
        base=Path(base),
        confine=None if confine is None else Path(confine),
        credentials=credentials,
        key_password=key_password,
    )
    statements = parse_statements(data, draft.complain)
    if not statements and not draft.diagnostics:
        draft.complain("error", None, None, "the file is empty")
    if not statements and all(each.line is None for each in draft.diagnostics):
        # What is wrong with the file as a whole; that there is nothing in it needs no list.
        return Profile(file=file, diagnostics=tuple(draft.diagnostics))
    only = statements[0] if len(statements) == 1 else None
    if only is not None and only.name not in DIRECTIVES and len(data.strip().split(b"\n")) == 1:
        message = "the file only names another profile; it may be a symbolic link that got lost"
        return Profile(file=file, diagnostics=(Diagnostic("error", 1, None, message),))
    interpret(draft, statements)
    config = finish(draft)
    order = sorted(draft.diagnostics, key=lambda each: (each.line is None, each.line or 0))
    return Profile(
        file=file,
        diagnostics=tuple(order),
        needs=draft.needs,
        missing=tuple(draft.missing),
        lines=dict(draft.lines),
        partial=config,
    )


def load_config(
    source: str | os.PathLike[str] | TunnelConfig,
    *,
    credentials: Credentials | None = None,
    key_password: bytes | None = None,
) -> TunnelConfig:
    """A configuration: ``source`` itself, or the profile at that path.

    Raises ConfigError if the profile has errors or names files that do not
    exist. That credentials are still missing is not an error here; see
    ``TunnelConfig.validate``.
    """
    if isinstance(source, TunnelConfig):
        config = source
        if credentials is not None:
            config = replace(config, credentials=credentials)
        return config if key_password is None else replace(config, key_password=key_password)
    return read_profile(source, credentials=credentials, key_password=key_password).require()
