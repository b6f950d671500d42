"""No stage of the hot path gets much slower unnoticed.

What is compared are units: how many times a packet's worth of a calibration, timed in turn with the stage, a packet
costs (benchmarks/micro/stages.py). The margin is generous, for other machines and loaded ones; what trips it is a
change of kind: an object per packet, a copy too many, a slow path taken by what should be fast. After a change that is
worth its price: ``python -m benchmarks.micro --write``.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable

import pytest

from benchmarks.micro import stages
from benchmarks.micro.stages import BASELINE, BURST, STAGES, measure

ROUNDS = 60
#: Times the baseline, and units on top.
FACTOR, SLACK = 1.6, 0.05
TRIES = 3


def within(name: str, baseline: float) -> tuple[bool, float]:
    """Whether the best of a few tries stays below the limit; and the figure."""
    best = float("inf")
    for _ in range(TRIES):
        best = min(best, measure(name, ROUNDS).units)
        if best <= baseline * FACTOR + SLACK:
            return True, best
    return False, best


def test_the_baseline_has_every_stage() -> None:
    assert set(json.loads(BASELINE.read_text())) == set(STAGES)


@pytest.mark.parametrize("name", STAGES)
def test_a_packet_costs_about_what_it_did(name: str) -> None:
    baseline: float = json.loads(BASELINE.read_text())[name]
    fine, units = within(name, baseline)
    assert fine, f"{name}: {units:.2f} units a packet, baseline {baseline:.2f}"


def test_a_stage_that_got_slower_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "datachannel.encrypt AES-256-GCM"
    make = STAGES[name]

    def slower(rounds: int) -> stages.Work:
        work: Callable[[], object] = make(rounds)

        def twice_and_more() -> None:
            start = time.perf_counter()
            work()
            spent = time.perf_counter() - start
            while time.perf_counter() - start < 2.2 * spent + BURST * 1e-6:
                pass

        return twice_and_more

    monkeypatch.setitem(stages.STAGES, name, slower)
    fine, _ = within(name, json.loads(BASELINE.read_text())[name])
    assert not fine
