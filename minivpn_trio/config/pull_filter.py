"""``pull-filter``: what of a push a profile lets through."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import ConnectError, Stage
from .model import TunnelConfig

__all__ = ["action_for", "filter_push", "rejected"]


def action_for(config: TunnelConfig, option: str) -> str:
    """``accept``, ``ignore`` or ``reject``: the first rule whose text ``option`` begins with counts."""
    text = option.lstrip()
    return next((action for action, prefix in config.pull_filters if text.startswith(prefix)), "accept")


def rejected() -> ConnectError:
    """The error for an option that a rule rejects. It does not show the option, which may hold a token."""
    return ConnectError(
        "the server pushed an option that a pull-filter of the profile rejects",
        stage=Stage.PUSH,
        remedy="change the pull-filter, or ask the server's operator",
    )


def filter_push(config: TunnelConfig, options: Sequence[str]) -> list[str]:
    """The options that the profile's rules accept. Raises ConnectError for one that a rule rejects."""
    kept = []
    for option in options:
        action = action_for(config, option)
        if action == "reject":
            raise rejected()
        if action == "accept":
            kept.append(option)
    return kept
