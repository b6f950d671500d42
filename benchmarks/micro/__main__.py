"""``python -m benchmarks.micro [--rounds N] [--write]``: all stages, beside the kept baseline."""

from __future__ import annotations

import argparse
import json

from .stages import BASELINE, BURST, SIZE, STAGES, measure


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
    for name in STAGES:
        figure = measure(name, arguments.rounds)
        found[name] = round(figure.units, 3)
        print(f"{name:40}{figure.microseconds:12.2f}{figure.units:8.2f}{kept.get(name, 0):10.2f}", flush=True)
    if arguments.write:
        BASELINE.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
