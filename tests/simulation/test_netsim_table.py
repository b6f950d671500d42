"""The table of benchmarks/netsim is what the code does: a change of it is reviewed, not found by accident."""

from __future__ import annotations

import json
from statistics import median

import pytest

from benchmarks.netsim import CELLS, SEEDS, TABLE, Cell, measure

KEPT: dict[str, float] = json.loads(TABLE.read_text())


@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: cell.name)
def test_cell(cell: Cell) -> None:
    """Within a tenth: what is faster than that deserves a new table (``python -m benchmarks.netsim --write``)."""
    speed = median(measure(cell, seed)[0] for seed in SEEDS)
    assert speed == pytest.approx(KEPT[cell.name], rel=0.1, abs=0.1)


def test_jitter_costs_at_most_two_fifths() -> None:
    """5 ms of reordering on a path of 50 ms, beside the same path without."""
    for queue in (256, 1024):
        clean, jittered = Cell(50, 0, queue), Cell(50, 0, queue, jitter=5)
        assert KEPT[jittered.name] >= 0.6 * KEPT[clean.name]


def test_the_table_has_no_other_cells() -> None:
    assert KEPT.keys() == {cell.name for cell in CELLS}
