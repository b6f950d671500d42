"""``python -m benchmarks.micro [--rounds N] [--write]``: all stages, beside the kept baseline."""

from __future__ import annotations

import argparse
import json

from .calibration import BURST, SIZE
from .stages import BASELINE, KERNEL_STAGES, STAGES, measure


def main() -> None:
    """Measure and print; ``--write`` keeps the units as the baseline of the regression test."""
    parser = argparse.ArgumentParser(description="Microseconds a packet of each stage.")
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--write", action="store_true", help="keep the figures")
    arguments = parser.parse_args()
    kept: dict[str, float] = json.loads(BASELINE.read_text()) if BASELINE.exists() else {}
    print(f"bursts of {BURST} packets of {SIZE} bytes; a unit is the calibration's share of a packet")
    print(f"{'':40}{'us a packet':>12}{'units':>8}{'baseline':>10}")
    found: dict[str, float] = {}
    for name in (*STAGES, *KERNEL_STAGES):
        figure = measure(name, arguments.rounds)
        found[name] = figure.units
        baseline = f"{kept[name]:10.3f}" if name in kept else f"{'-':>10}"
        print(f"{name:40}{figure.microseconds:12.3f}{figure.units:8.3f}{baseline}", flush=True)
    if arguments.write:
        # The smallest are a hundredth: figures that count, rather than digits after the point.
        BASELINE.write_text(json.dumps({name: float(f"{found[name]:.3g}") for name in STAGES}, indent=1) + "\n")


if __name__ == "__main__":
    main()
