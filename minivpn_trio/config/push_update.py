"""PUSH_UPDATE: what a server changes of a tunnel that is up.

The options of the push are kept as they came; an update edits that list, and
all of it is parsed again. ``x`` replaces every option of its kind, the first
time that the kind comes in an update, and adds to it from then on; ``-x``
removes the kind. An update may only touch what a live tunnel can follow. An
option of any other kind ends the session, so that the next one begins with it,
unless a ``?`` says that it may be left out (reference: openvpn 2.7,
options_util.c and push.c).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from ..errors import ConnectError, Stage
from .model import TunnelConfig
from .pull_filter import action_for, rejected
from .pushed import MAX_OPTIONS, MAX_PUSH, parse_push

__all__ = ["UPDATABLE", "Updated", "apply_update"]

#: Kinds of options that an update may change, with the options that each replaces.
UPDATABLE: dict[str, frozenset[str]] = {
    **{
        name: frozenset({name})
        for name in (
            "block-ipv4", "block-ipv6", "block-outside-dns", "dhcp-option", "dns", "ifconfig", "ifconfig-ipv6",
            "route", "route-gateway", "route-ipv6", "route-ipv6-gateway", "route-metric", "topology", "tun-mtu",
        )
    },
    # Servers spell keepalive out when they push it first.
    "keepalive": frozenset({"keepalive", "ping", "ping-restart", "ping-exit"}),
    "redirect-gateway": frozenset({"redirect-gateway", "redirect-private"}),
    "redirect-private": frozenset({"redirect-gateway", "redirect-private"}),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Updated:
    """The options after an update, in the push grammar, and what was odd about it."""

    options: tuple[str, ...] = field(repr=False)
    warnings: tuple[str, ...] = ()


def apply_update(config: TunnelConfig, current: Sequence[str], update: Sequence[str]) -> Updated:
    """``current`` options with those of ``update`` applied, each with its ``-`` and ``?``.

    An option whose value makes no sense is left out with a warning and replaces nothing. Raises
    ConnectError if the tunnel has to be built anew instead: for an option that no live tunnel can
    follow, one that a ``pull-filter`` rejects, or more options than anybody needs.
    """
    options = list(current)
    warnings: dict[str, None] = {}
    replaced: set[frozenset[str]] = set()
    for text in update:
        option, remove, optional = _marks(text.strip())
        name = option.partition(" ")[0]
        action = action_for(config, option)
        if action == "reject":
            raise rejected()
        if action == "ignore":
            continue
        kind = UPDATABLE.get(name)
        if kind is None:
            if not optional:
                raise ConnectError("the server changes an option that only a new tunnel can have", stage=Stage.PUSH)
            warnings.setdefault("an update of an option that cannot change was ignored, as the server allows")
            continue
        if remove:
            options = _without(options, kind)
            replaced.add(kind)
            continue
        parsed = parse_push([option])
        if parsed.unusable:
            warnings.update(dict.fromkeys(parsed.warnings))
            continue
        if kind not in replaced:
            options = _without(options, kind)
            replaced.add(kind)
        options.append(option)
    if len(options) > MAX_OPTIONS or sum(map(len, options)) > 2 * MAX_PUSH:
        raise ConnectError("the server pushes more options than anybody needs", stage=Stage.PUSH)
    return Updated(tuple(options), tuple(warnings))


def _marks(text: str) -> tuple[str, bool, bool]:
    """The option without its marks, whether it is to be removed, and whether it may be left out."""
    remove = text.startswith("-")
    text = text[remove:]
    optional = text.startswith("?")
    return text[optional:], remove, optional


def _without(options: Sequence[str], kind: frozenset[str]) -> list[str]:
    return [option for option in options if option.lstrip().partition(" ")[0] not in kind]
