"""A profile described for programs: the object that ``minivpn-trio check --json`` prints."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .model import Remote
from .profile import Diagnostic, Profile

__all__ = ["describe"]


def describe(profile: Profile) -> dict[str, Any]:
    """``profile`` as an object that JSON can hold.

    Keys: ``file``; ``ok``, true where there are no errors (what is only left
    to be supplied is none); ``complete``, false where a file is missing without which nothing can be
    connected; ``remotes``, a list of ``host``, ``port``,
    ``proto`` with all defaults filled in, and where there is one ``proxy``,
    such as "the SOCKS proxy 192.0.2.1:1080", and ``scramble``, its kind; ``data_ciphers``, in the order in
    which they are offered; ``fallback_cipher``, for servers that negotiate
    nothing; ``auth``; ``control_wrap``; ``key_direction`` (0, 1 or null);
    ``needs``; ``compression``, the framing; ``fragment``; ``warnings`` and
    ``errors``, lists of ``line``, ``directive``, ``message``, the first two
    null where a complaint is about the whole.
    """
    config = profile.partial
    return {
        "file": profile.file,
        "ok": profile.ok,
        "complete": not profile.absent,
        "remotes": [_remote(remote) for remote in config.remotes],
        "data_ciphers": list(config.data_ciphers),
        "fallback_cipher": config.data_ciphers_fallback,
        "auth": config.auth,
        "control_wrap": config.control_wrap,
        "key_direction": config.key_direction,
        "needs": list(profile.needs),
        "compression": config.compression,
        "fragment": config.fragment,
        "warnings": _complaints(profile.warnings),
        "errors": _complaints(profile.errors),
    }


def _remote(remote: Remote) -> dict[str, Any]:
    described: dict[str, Any] = {"host": remote.host, "port": remote.port, "proto": remote.proto}
    if remote.proxy is not None:
        described["proxy"] = str(remote.proxy)
    if remote.scramble is not None:
        described["scramble"] = remote.scramble.kind
    return described


def _complaints(diagnostics: Iterable[Diagnostic]) -> list[dict[str, Any]]:
    return [{"line": each.line, "directive": each.directive, "message": each.message} for each in diagnostics]
