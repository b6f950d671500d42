"""The unit in which stages are compared, and how a stage is timed beside it.

A unit is what this machine needs, at this moment, for one packet's worth of the three things that the hot
path is made of: steps of the interpreter, one encryption by the library, one sum over a payload. So the ratio says
little about the machine and much about the code.

Unit and stage are timed in turn, burst by burst, and of both the fastest burst counts: whatever else the machine does
only adds. What a packet takes in microseconds, as shown, is the lower quartile.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from minivpn_trio.networkio.udp import MAX_TRAIN_SEGMENTS

__all__ = ["BURST", "SIZE", "Figure", "Work", "calibration", "compare", "packets"]

BURST = MAX_TRAIN_SEGMENTS
SIZE = 1400
#: Of the interpreter, in a unit.
STEPS = 40

#: One call handles a burst or more, and returns how many packets that were. Made for so many rounds, no packet comes
#: twice.
Work = Callable[[], int]


@dataclass(frozen=True, slots=True)
class Figure:
    """Of one stage: microseconds a packet here and now, and units."""

    microseconds: float
    units: float


def calibration() -> Work:
    """One burst's worth of units."""
    encrypt = AESGCM(bytes(32)).encrypt
    payload, nonce = random.Random(1).randbytes(SIZE), bytes(12)

    def work() -> int:
        for _ in range(BURST):
            total = int.from_bytes(payload, "big") % 65535
            for step in range(STEPS):
                total += step & 7
            encrypt(nonce, payload, None)
        return BURST

    return work


def packets() -> list[bytes]:
    """A burst of what looks like IP packets."""
    return [b"\x45" + random.Random(number).randbytes(SIZE - 1) for number in range(BURST)]


def compare(unit: Work, work: Work, rounds: int, clock: Callable[[], float] = time.perf_counter) -> Figure:
    """``work`` in units, from so many rounds; one before them is not counted. ``clock`` tells seconds."""
    unit(), work()
    units: list[float] = []
    works: list[float] = []
    for _ in range(rounds):
        start = clock()
        unit()
        middle = clock()
        count = work()
        end = clock()
        units.append((middle - start) / BURST)
        works.append((end - middle) / count)
    works.sort()
    return Figure(works[rounds // 4] * 1e6, works[0] / min(units))
