"""Adding up stats snapshots over the connections of one client."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from .stats import TunnelStats

__all__ = ["add_stats"]


def add_stats(first: TunnelStats, second: TunnelStats, **overrides: Any) -> TunnelStats:
    """The sum of two snapshots, field by field; ``overrides`` replace fields of the result."""
    total: TunnelStats = _add(first, second)
    return replace(total, **overrides)


def _add(first: Any, second: Any) -> Any:
    if first is None or second is None:
        return first if second is None else second
    if isinstance(first, int):
        return first + second
    if isinstance(first, Mapping):
        return dict(Counter(first) + Counter(second))
    return type(first)(**{f.name: _add(getattr(first, f.name), getattr(second, f.name)) for f in fields(first)})
