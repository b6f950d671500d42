"""Throughput of one TCP stream between two of our stacks over a simulated path, by loss, delay and buffer.

    python -m benchmarks.netsim [--settings congestion=newreno] [--write]

Nothing here depends on the machine: time is virtual, chance comes from seeds. So the table is kept
(``netsim_table.json``), a test holds the code against it, and a change of TCP shows as a
change of numbers to be reviewed. ``--write`` makes the table anew.

Each cell is the median of several seeds, in Mbit/s of payload, connecting and closing not included.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from minivpn_trio.netstack.tcp.settings import TcpSettings
from tests.simulation.tcp_world import Link, Transfer, World

__all__ = ["CELLS", "SEEDS", "TABLE", "Cell", "measure"]

TABLE = Path(__file__).with_name("netsim_table.json")
SEEDS = (1, 2, 3)


@dataclass(frozen=True)
class Cell:
    """A path: round trip in ms, loss in percent, rate in Mbit/s, the bottleneck's queue in KiB, jitter in ms that
    30 % of the packets get."""

    rtt: float
    loss: float
    queue: int = 256
    rate: float = 100.0
    jitter: float = 0.0
    congestion: str = "cubic"

    @property
    def name(self) -> str:
        """As in the table."""
        text = f"rtt {self.rtt:g} ms, {self.rate:g} Mbit/s, queue {self.queue} KiB, loss {self.loss:g} %"
        text += f", jitter {self.jitter:g} ms" if self.jitter else ""
        return text + (f", {self.congestion}" if self.congestion != "cubic" else "")

    @property
    def size(self) -> int:
        """Bytes to send: enough to leave slow start behind, yet no more of what is slow."""
        return 8_000_000 if not self.loss or self.congestion == "bbr" else 4_000_000 if self.loss < 0.5 else 1_500_000


CELLS = [
    *(Cell(rtt, loss, queue) for rtt in (1, 20, 100) for loss in (0, 0.1, 1) for queue in (64, 256)),
    Cell(200, 0, 1024),
    Cell(20, 5),
    Cell(50, 0, jitter=5),
    Cell(50, 0),
    Cell(50, 0, 1024, jitter=5),
    Cell(50, 0, 1024),
    *(Cell(rtt, loss, 128, 600, 0, name) for rtt in (20, 100) for loss in (0, 1, 3) for name in ("cubic", "bbr")),
    Cell(20, 0, 64, 20, congestion="bbr"),
    Cell(50, 0, 1024, jitter=5, congestion="bbr"),
    Cell(200, 0, 1024, congestion="bbr"),
]


def measure(cell: Cell, seed: int, settings: TcpSettings | None = None) -> tuple[float, int, int]:
    """Mbit/s, retransmissions, timeouts. ``settings``: instead of the cell's congestion control."""
    settings = settings or TcpSettings(congestion=cell.congestion)
    up = Link(
        delay=cell.rtt / 2000, rate=cell.rate * 1e6, queue=cell.queue * 1024, loss=cell.loss / 100,
        jitter=cell.jitter / 1000, reorder=0.3 if cell.jitter else 0,
    )  # fmt: skip
    down = replace(up)
    world = World(seed=seed, up=up, down=down, settings_a=settings, settings_b=settings)
    ours, theirs = world.connect()
    start = world.now
    transfer = Transfer(world, ours, theirs, bytes(cell.size), chunk=1 << 18)
    world.run(transfer.pump)
    stats = world.a.stats()
    return cell.size * 8e-6 / (world.now - start), stats.tcp_retransmissions, stats.tcp_timeouts


def main() -> None:
    """Print the table; beside it the kept one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="keep this table")
    parser.add_argument("--settings", nargs="*", default=[], help="fields of TcpSettings: name=value")
    arguments = parser.parse_args()
    changes: dict[str, Any] = {}
    for item in arguments.settings:
        name, _, value = item.partition("=")
        changes[name] = None if value == "None" else json.loads(value) if value[:1].isdigit() else value
    settings = TcpSettings(**changes) if changes else None
    kept: dict[str, float] = json.loads(TABLE.read_text()) if TABLE.exists() else {}
    table: dict[str, float] = {}
    for cell in CELLS:
        runs = [measure(cell, seed, settings) for seed in SEEDS]
        table[cell.name] = round(median(run[0] for run in runs), 1)
        before = kept.get(cell.name)
        print(
            f"{cell.name:60} {table[cell.name]:6.1f}  (was {before}) "
            f"retransmissions {median(run[1] for run in runs):.0f}, timeouts {median(run[2] for run in runs):.0f}",
            flush=True,
        )
    if arguments.write:
        TABLE.write_text(json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    main()
