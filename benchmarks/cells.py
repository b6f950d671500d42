"""``end_to_end.py --cells``: one table of paths, by round trip, loss and jitter, ours beside the C client."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tests.interop.lab.lab import Lab
from tests.interop.lab.openvpn import ServerOptions

from .contenders import MIB, NetworkPath, Plan, measure
from .report import DIRECTIONS, spread, summarize

__all__ = ["CELLS", "cell_load", "table_of_cells"]

CELLS = [
    *(NetworkPath(rtt, loss) for rtt in (0, 20, 100) for loss in (0, 0.1, 1, 3)),
    NetworkPath(200, 0),
    *(NetworkPath(rtt, loss, 5) for rtt, loss in ((20, 0), (100, 0), (20, 1))),
]


def cell_load(path: NetworkPath) -> tuple[int, int]:
    """Bytes to move over ``path`` in one run, and streams that share them: enough to leave slow start behind, and not
    for ever where it is slow. Where a stream lives by chance, several say more than one: none fills the path."""
    if not path.rtt or not path.loss:
        return (64 * MIB if path.rtt >= 100 else 32 * MIB), 1
    each = MIB if path.rtt < 50 else MIB // 2
    return 8 * each * (4 if path.loss < 0.5 else 1), 8


def table_of_cells(
    lab: Lab, options: ServerOptions, runs: int, paths: Sequence[NetworkPath] = CELLS, *,
    ours: str = "", buffers: int | None = None, numpy: bool = False,
) -> list[dict[str, Any]]:  # fmt: skip
    """Every cell, ours beside the C client over the kernel's TCP; printed as it comes. Ratios are the medians of the
    rounds' ratios, with their range."""
    rows: list[dict[str, Any]] = []
    width = 40 if runs > 1 else 28
    print(f"{'path':28}{'download, Mbit/s':>{width}}{'upload, Mbit/s':>{width}}")
    for path in paths:
        # The relay is in the way of all cells, of the good one too.
        over = path or NetworkPath(0.02)
        size, streams = cell_load(path)
        plan = Plan(runs=runs, size=size, streams=streams, path=over, ours=ours, buffers=buffers, numpy=numpy)
        results = measure(lab, options, plan)
        row = {
            "path": str(path), "rtt": path.rtt, "loss": path.loss, "jitter": path.jitter,
            "streams": streams, "bytes": size, **summarize(results, size), "results": results,
        }  # fmt: skip
        rows.append(row)
        cells = [f"{row[do]['ours']:.1f} / {row[do]['c']:.1f} = {spread(row[do]['ratios'])}" for do in DIRECTIONS]
        print(f"{path!s:28}{cells[0]:>{width}}{cells[1]:>{width}}", flush=True)
    return rows
