"""Which bar of benchmarks/httpx_tls applies, and what is said of it; with figures made up here."""

from __future__ import annotations

import pytest

from benchmarks.httpx_tls import verdict


@pytest.mark.parametrize(("ours", "linux", "good", "said"), [
    (110.0, 150.0, True, "110 Mbit/s reached"),
    (111.0, 90.0, True, "110 Mbit/s reached, which the kernel's client does not reach"),
    (109.9, 110.0, False, "missed: 110 Mbit/s, which the kernel's client reaches"),
    (38.0, 40.0, True, "0.95 of the kernel's rate, which is below 110 Mbit/s itself: reached"),
    (37.9, 40.0, False, "missed: 0.95 of the kernel's rate, which is below 110 Mbit/s itself"),
    (105.0, 109.9, True, "0.95 of the kernel's rate, which is below 110 Mbit/s itself: reached"),
])  # fmt: skip
def test_which_bar_held(ours: float, linux: float, good: bool, said: str) -> None:
    assert verdict(ours, linux) == (good, said)
