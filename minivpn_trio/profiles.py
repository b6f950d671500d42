"""Profiles that are known to work, as far as that shows before anything is dialled.

``config`` reads what a profile says and looks at the outside of what it holds.
Here certificates, keys and lists of TLS names are put to use as a connection
would: what it would stumble over becomes a complaint with the line that it is
about. Above the stages, since they know what they can use.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import replace

from .config import ovpn
from .config.model import Credentials, TunnelConfig
from .config.profile import Diagnostic, Finding, Profile
from .errors import ConfigError
from .packet.ids import Role
from .packetmuxer.control_wrap import make_control_wrap
from .tlssession.openssl import TLSContext, look_at_settings
from .tlssession.peer_info import check_peer_info

__all__ = ["examine", "load_config", "load_for_client", "read_profile"]


def read_profile(
    path: str | os.PathLike[str],
    *,
    credentials: Credentials | None = None,
    key_password: bytes | None = None,
    confine: str | os.PathLike[str] | None = None,
) -> Profile:
    """Like ``config.ovpn.read_profile``, and ``examine`` what it holds."""
    return examine(
        ovpn.read_profile(path, credentials=credentials, key_password=key_password, confine=confine)
    )


def examine(profile: Profile) -> Profile:
    """``profile`` with complaints about certificates, keys and settings that could not be used.

    What is locked by a pass phrase that is not known, or in a file that is not there, is left alone.
    """
    return _with(profile, (*look_at_settings(profile.partial), *_look_at_rest(profile.partial)))


def _with(profile: Profile, findings: Iterable[Finding]) -> Profile:
    known = {each.directive for each in profile.errors} | {each.directive for each in profile.missing}
    found = [
        Diagnostic(severity, profile.lines.get(directive), directive, message)
        for severity, directive, message in findings
        if directive not in known
    ]
    order = sorted((*profile.diagnostics, *found), key=lambda each: (each.line is None, each.line or 0))
    return replace(profile, diagnostics=tuple(dict.fromkeys(order)))


def _look_at_rest(config: TunnelConfig) -> Iterator[Finding]:
    seen = set()
    for remote in config.remotes:
        own = config.for_remote(remote)
        wrap = (own.control_wrap, own.control_wrap_key, own.key_direction, own.auth)
        if own.control_wrap_key is None or wrap in seen:
            continue
        seen.add(wrap)
        try:
            make_control_wrap(own, Role.CLIENT, unix_time=lambda: 0.0)
        except ConfigError as error:
            yield "error", error.directive or own.control_wrap, error.message
    for contradiction in config.contradictions():
        yield "error", contradiction.directive or "", contradiction.message
    try:
        check_peer_info(config)
    except ConfigError as error:
        yield "error", error.directive or "setenv", error.message


def load_config(
    source: str | os.PathLike[str] | TunnelConfig,
    *,
    credentials: Credentials | None = None,
    key_password: bytes | None = None,
) -> TunnelConfig:
    """A configuration: ``source`` itself, or the profile at that path.

    Raises ConfigError, which names the line, if the profile has errors, names files that do not exist,
    or holds certificates, keys or settings that cannot be used. That credentials are still missing is
    not an error here; see ``TunnelConfig.validate``.
    """
    if isinstance(source, TunnelConfig):
        return ovpn.load_config(source, credentials=credentials, key_password=key_password)
    return read_profile(source, credentials=credentials, key_password=key_password).require()


def load_for_client(
    source: str | os.PathLike[str] | TunnelConfig, *, credentials: Credentials | None = None
) -> tuple[TunnelConfig, TLSContext | None]:
    """Like ``load_config``, for who connects at once: with the TLS context of a profile, whose making is the proof that
    its certificates and keys can be used. None: ``source`` is no profile, or its key is locked."""
    if isinstance(source, TunnelConfig):
        return ovpn.load_config(source, credentials=credentials), None
    profile = ovpn.read_profile(source, credentials=credentials)
    try:
        context = TLSContext(profile.partial, Role.CLIENT) if profile.ok else None
    except ConfigError:
        context = None  # examined for all that is wrong, with its lines
    examined = examine(profile) if context is None else _with(profile, _look_at_rest(profile.partial))
    return examined.require(), context
