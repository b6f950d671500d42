"""Settings that every test shares: hypothesis' profiles, and how the workers are joined.

``HYPOTHESIS_PROFILE`` chooses: ``dev`` (the default), ``ci`` (chosen by ``CI=true``; the same
examples each time, so a red run is a change's doing) or ``fuzz`` (long, new examples each time,
what was found is kept in .hypothesis).

``--edges=channels`` makes every edge of the wiring table a channel; without it those that the table calls
direct are.
"""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, settings

from minivpn_trio import wiring
from minivpn_trio.netstack.stack import Stack

# A defect of the stack's is to be seen.
Stack.contains_faults = False

_COMMON = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}

settings.register_profile("dev", **_COMMON, max_examples=60)  # type: ignore[arg-type]
settings.register_profile("ci", **_COMMON, max_examples=100, derandomize=True, print_blob=True)  # type: ignore[arg-type]
settings.register_profile("fuzz", **_COMMON, max_examples=20_000, stateful_step_count=200)  # type: ignore[arg-type]
settings.load_profile(
    os.environ.get("HYPOTHESIS_PROFILE") or ("ci" if os.environ.get("CI", "").lower() in {"1", "true"} else "dev")
)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--edges", choices=("table", "channels"), default="table", help="how workers are joined")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--edges") == "channels":
        wiring.EDGES = tuple(edge._replace(direct=False) for edge in wiring.EDGES)
