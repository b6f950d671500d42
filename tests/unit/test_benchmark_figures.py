"""What the benchmarks make of their figures, applied to figures made up here; and that BBR's stage is what it says."""

from __future__ import annotations

import re
from typing import Any

import pytest

from benchmarks import echoes, latency, scale, startup
from benchmarks.figures import in_turn, quantiles
from benchmarks.micro import tcp_stages
from benchmarks.micro.calibration import BURST, SIZE
from benchmarks.processes import at_ready, run_seconds


def test_quantiles_are_by_nearest_rank() -> None:
    assert quantiles([float(n) for n in range(100, 0, -1)]) == {"p50": 50.5, "p99": 99.0}
    assert quantiles([3.0, 1.0, 2.0]) == {"p50": 2.0, "p99": 3.0}


def test_contestants_take_turns_and_the_first_round_is_thrown_away() -> None:
    called: list[str] = []

    def contestant(name: str) -> float:
        called.append(name)
        return float(len(called))

    figures = in_turn({"a": lambda: contestant("a"), "b": lambda: contestant("b")}, 2)
    assert called == ["a", "b"] * 3
    assert figures == {"a": [3.0, 5.0], "b": [4.0, 6.0]}


def test_a_process_that_fails_ends_the_benchmark() -> None:
    assert run_seconds("true") > 0
    with pytest.raises(SystemExit):
        run_seconds("false")


# latency


def test_the_c_client_is_ready_when_its_log_says_so() -> None:
    log = "1764316800.000001 1 net_addr_v4_add: 10.8.0.6/24 dev tun1\n"
    assert at_ready(log) is None
    assert at_ready(log + "1764316800.123456 1 Initialization Sequence Completed\n") == 1764316800.123456


def test_bytes_that_are_missing_end_a_download() -> None:
    assert echoes.body_size(b"HTTP/1.1 200 OK\r\nA: b\r\n") is None
    assert echoes.body_size(b"HTTP/1.1 200 OK\r\n\r\nbody") == 4
    with pytest.raises(SystemExit, match="9 of 10 bytes"):
        echoes.rate(10, 9, 0.0)
    assert len(echoes.message(7, 64)) == 64
    assert echoes.message(7, 64) != echoes.message(8, 64)


def test_the_table_of_latency_has_every_figure() -> None:
    figures = {
        what: {who: [base * factor for factor in (1e-6, 2e-6, 3e-6)] for who, base in by_whom.items()}
        for what, by_whom in {
            "quiet": {"ours": 10, "c": 20, "c blocking": 30},
            "busy": {"ours": 40, "c": 50, "c blocking": 60},
            "connect": {"ours": 70, "c": 80},
        }.items()
    }
    figures["bulk"] = {"ours": [100.0, 300.0, 200.0], "c": [400.0], "c blocking": [500.0]}
    lines = latency.table(latency.summarize(figures))
    numbers = [[int(number) for number in re.findall(r"\b\d+\b", line[20:])] for line in lines[2:]]
    assert numbers == [
        [20, 30, 40, 60, 60, 90], [80, 120, 100, 150, 120, 180], [140, 210, 160, 240], [200, 400, 500],
    ]  # fmt: skip


# micro


def test_the_stage_of_bbr_is_paced_at_what_the_path_takes() -> None:
    """Where its warm-up ends, the pipe is full, and the rate of departures is the model's."""
    path = tcp_stages.RatePath()
    acks: list[bytes] = []
    counts: list[int] = []
    for _ in range(tcp_stages.WARM_UP + 100):
        sent = path.send(acks)
        counts.append(len(sent))
        acks = path.answer(sent)
    assert sum(counts[tcp_stages.WARM_UP :]) == pytest.approx(100 * BURST, rel=0.1)
    rate = path.pacing_rate
    assert rate == pytest.approx(BURST * SIZE / tcp_stages.TICK, rel=0.3)


# startup


def test_imports_are_counted_beyond_the_interpreter_of_the_same_round() -> None:
    summary = startup.summarize_imports({
        startup.EMPTY: [0.01, 0.03, 0.02],
        startup.DIALER: [0.21, 0.43, 0.32],
        startup.HELP: [0.31, 0.31, 0.2],
    })
    assert summary[startup.DIALER]["beyond"]["p50"] == pytest.approx(0.3)
    assert summary[startup.DIALER]["whole"]["p50"] == pytest.approx(0.32)
    assert summary[startup.DIALER]["met"] is False
    assert summary[startup.HELP]["met"] is False, "the whole is what its user waits for"
    assert "bar" not in summary[startup.EMPTY]
    text = "\n".join(startup.imports_table(summary))
    assert text.count("MISSED") == 2


def test_a_cold_connection_is_the_sum_of_its_parts() -> None:
    parts = startup.parts(100.0, "100.02 100.3 100.31\n")
    assert parts == pytest.approx([0.02, 0.28, 0.01])
    assert len(parts) == len(startup.PARTS)
    names = (startup.COLD_OURS, startup.COLD_C, *startup.PARTS)
    lines = startup.cold_table({name: {"p50": 0.0123, "p99": 0.0456} for name in names})
    assert [line.split()[-2:] for line in lines[1:]] == [["12.3", "45.6"]] * 5


# scale


@pytest.mark.parametrize(("kibibytes", "word"), [(12.0, "met"), (12.1, "MISSED")])
def test_scale_holds_its_figures_against_the_bars(kibibytes: float, word: str) -> None:
    figures: dict[str, Any] = {"streams": 5, "KiB a stream": kibibytes, "pings out": 3, "pings in": 3}
    first, second = scale.lines("idle", figures)
    assert first.startswith("idle ") and "streams 5" in first
    assert second.endswith(f"bar 12, {word}")


def test_a_window_without_a_keepalive_says_nothing_of_what_is_idle() -> None:
    figures: dict[str, Any] = {"idle CPU %": 0.0, "pings out": 3, "pings in": 0}
    assert "too short" in scale.lines("idle", figures)[-1]
    assert len(scale.lines("idle", {**figures, "pings in": 1})) == 1
    assert len(scale.lines("active", {"streams": 1.0})) == 1
