"""The bars of benchmarks/netsim_kernel, applied to figures made up here."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.netsim_kernel import Results, keep, missed, report


def rates(ours_down: float, ours_up: float, linux: float = 100.0) -> dict[str, list[float]]:
    """The median is what counts: one run in three is absurd."""
    return {
        "ours down": [ours_down, 1.0, 1000.0], "linux down": [linux, 1.0, 1000.0],
        "ours up": [ours_up, 1.0, 1000.0], "linux up": [linux, 1.0, 1000.0],
    }  # fmt: skip


def test_every_bar() -> None:
    good: Results = {"20/0": rates(95, 85), "50/0": rates(100, 100), "50/0/jitter": rates(60, 60, linux=60)}
    assert missed(good) == []
    report(good)
    (line,) = missed({**good, "20/0": rates(94, 85)})
    assert line.startswith("20/0 down: 0.94")
    (line,) = missed({**good, "20/0": rates(95, 84)})
    assert line.startswith("20/0 up: 0.84")
    down, up = missed({**good, "50/0/jitter": rates(59, 59, linux=59)})
    assert down.startswith("50/0/jitter down: 0.59")
    assert up.startswith("50/0/jitter up: 0.59")


def test_a_miss_is_an_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        report({"20/0": rates(10, 10)})
    assert left.value.code == 1
    assert "2 bars missed" in capsys.readouterr().out


def test_what_is_kept_stays_beside_what_comes(tmp_path: Path) -> None:
    path = tmp_path / "kept.json"
    keep(path, "cubic", {"20/0": rates(1.234, 2)})
    keep(path, "cubic", {"20/1": rates(3, 4)})
    keep(path, "bbr", {"20/0": rates(5, 6)})
    kept = json.loads(path.read_text())
    assert set(kept) == {"cubic", "bbr"}
    assert set(kept["cubic"]) == {"20/0", "20/1"}
    assert kept["cubic"]["20/0"]["ours down"][0] == 1.23
