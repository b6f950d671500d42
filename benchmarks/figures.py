"""Measuring in turn, and what is said of many figures."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping

__all__ = ["in_turn", "quantiles"]


def quantiles(values: list[float]) -> dict[str, float]:
    """Median and p99, by nearest rank: of 100 values the 99th."""
    ordered = sorted(values)
    return {"p50": statistics.median(ordered), "p99": ordered[-(-len(ordered) * 99 // 100) - 1]}


def in_turn(contestants: Mapping[str, Callable[[], float]], runs: int) -> dict[str, list[float]]:
    """Each contestant ``runs`` times, one after the other in each round. A round before them is thrown away: it fills
    the caches of the disk and writes what Python compiled."""
    figures: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(runs + 1):
        for name, contestant in contestants.items():
            figure = contestant()
            if number:
                figures[name].append(figure)
    return figures
