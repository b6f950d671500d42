"""What benchmarks/end_to_end makes of its runs: medians, ratios run by run, microseconds and ACKs a packet, turns."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks import cells
from benchmarks.cells import CELLS, cell_load, table_of_cells
from benchmarks.contenders import MIB, NetworkPath, Plan, Run, in_turn
from benchmarks.end_to_end import parser
from benchmarks.report import head, ratios, report, spread, summarize
from tests.interop.lab.openvpn import ServerOptions

SIZE = 64 * MIB


def run(do: str, rate: float, *, cpu: float = 0.5, data: int | None = 50_000, back: int = 10_000) -> dict[str, Any]:
    packets = {"packets_down": None, "packets_up": None}
    if data is not None:
        packets = {"packets_down": data, "packets_up": back}
        if do == "upload":
            packets = {"packets_down": back, "packets_up": data}
    return Run(do=do, mbit_per_second=rate, seconds=1.0, client_cpu=cpu, server_cpu=0.1, busy=[0.9, 0.5], **packets,
               retransmissions=3).as_data()  # fmt: skip


def results(*, bare: bool = True) -> dict[str, Any]:
    """Ours is twice, three times and as fast as the C client, whose median comes from another round than ours."""
    rows: dict[str, Any] = {}
    for do in ("download", "upload"):
        rows[do] = {
            "c": [run(do, rate, cpu=1.0, back=20_000) for rate in (100, 300, 200)],
            "ours": [run(do, rate) for rate in (200, 900, 200)],
        }
        if bare:
            rows[do]["bare"] = [run(do, 20_000, data=None) for _ in range(3)]
    return rows


def test_microseconds_and_acks_are_of_packets_that_carry_data() -> None:
    for do in ("download", "upload"):
        assert run(do, 1, cpu=0.5)["us_per_packet"] == 10
        assert run(do, 1, back=10_000)["acks_per_packet"] == 0.2
        # Behind a hole there may be more of them than of data.
        assert run(do, 1, data=100, back=150)["acks_per_packet"] == 1.5
        assert run(do, 1, cpu=0.001, data=100, back=150)["us_per_packet"] == 10
        assert run(do, 1, data=None)["us_per_packet"] is None


def test_ratios_are_of_runs_that_belong_together() -> None:
    quotients = ratios(results(), "download")
    assert quotients == {"each": [2, 3, 1], "median": 2, "min": 1, "max": 3}
    assert spread(quotients) == "2.00 (1.00..3.00)"
    assert ratios({"download": {"ours": []}}, "download") is None
    assert spread({"each": [2], "median": 2, "min": 2, "max": 2}) == "2.00"


def test_summary() -> None:
    row = summarize(results(), SIZE)["upload"]
    assert (row["ours"], row["c"], row["bare"], row["ratio"]) == (200, 200, 20_000, 1.0)
    assert row["us a packet, ours"] == 10
    assert row["us a packet, c"] == 20
    assert row["acks a packet, c"] == 0.4
    assert row["s/GB, c"] == pytest.approx(1e9 / SIZE)
    assert row["us a packet, bare"] is None


@pytest.mark.parametrize("bare", [True, False])
def test_table(capsys: pytest.CaptureFixture[str], bare: bool) -> None:
    report(results(bare=bare), SIZE)
    lines = capsys.readouterr().out.splitlines()
    assert "200 Mbit/s, 7.5 s/GB, 10.0 us/packet" in lines[1]
    assert ("20000 Mbit/s, 7.5 s/GB" in lines[1]) == bare
    assert ("bare path" in lines[0]) == bare
    assert "download  ours / C, run by run: 2.00 (1.00..3.00)" in lines
    assert "download   ours: 50000 packets with data, 0.200 packets back for each, processors busy 90 %, 50 %, " \
        "sent again 3" in lines


def test_one_side_alone(capsys: pytest.CaptureFixture[str]) -> None:
    alone = results(bare=False)
    for what in alone.values():
        del what["c"]
    assert report(alone, SIZE)["download"]["ratio"] is None
    assert "run by run" not in capsys.readouterr().out


def about(**changes: Any) -> dict[str, Any]:
    return {
        "our_congestion": "bbr", "kernel_congestion": {"server": "cubic", "c": "reno"},
        "buffers": {"ours": 4194304, "c": None}, "numpy": False, "net_core": {"net.core.rmem_max": 212992},
        "affinity": [0, 1], "cpus": 2, **changes,
    }  # fmt: skip


def test_head() -> None:
    text = "\n".join(head(about()))
    assert "ours bbr; the kernels' cubic at the server, reno beside the C client" in text
    assert "4194304 bytes by ours, nothing (the system's default) by the C client" in text
    assert "net.core.rmem_max 212992" in text
    assert "2 processors, nothing is pinned" in text
    assert "2 processors, all processes confined to 1;" in "\n".join(head(about(affinity=[1])))


def test_clients_take_turns_and_the_bare_path_is_last() -> None:
    assert [in_turn(["c", "ours", "bare"], number) for number in range(3)] == [
        ["c", "ours", "bare"], ["ours", "c", "bare"], ["c", "ours", "bare"],
    ]  # fmt: skip
    assert in_turn(["ours"], 1) == ["ours"]


def test_paths_from_the_command_line() -> None:
    assert parser().parse_args(["--cells", "20/1", "0/0.1", "20/0/5"]).cells == [
        NetworkPath(20, 1), NetworkPath(0, 0.1), NetworkPath(20, 0, 5),
    ]  # fmt: skip
    assert parser().parse_args(["--cells", "--runs", "1"]).cells == []
    assert parser().parse_args([]).cells is None
    for wrong in ("20", "a/b", "1/2/3/4", "-1/0"):
        with pytest.raises(ValueError):
            NetworkPath.parse(wrong)


def test_cells_keep_every_run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    plans: list[Plan] = []

    def measure(lab: object, options: object, plan: Plan) -> dict[str, Any]:
        plans.append(plan)
        return results(bare=False)

    monkeypatch.setattr(cells, "measure", measure)
    rows = table_of_cells(None, ServerOptions(), 3, CELLS, buffers=1 << 20)  # type: ignore[arg-type]
    assert [(row["rtt"], row["loss"], row["jitter"]) for row in rows] == [(p.rtt, p.loss, p.jitter) for p in CELLS]
    assert all(len(row["results"]["upload"]["c"]) == 3 for row in rows)
    assert rows[0]["results"]["upload"]["ours"][0]["us_per_packet"] == 10
    assert rows[0]["download"]["ratios"]["median"] == 2
    assert all(plan.path and plan.buffers == 1 << 20 for plan in plans), "the relay is in the way of all"
    assert [(plan.size, plan.streams) for plan in plans] == list(map(cell_load, CELLS))
    assert "200.0 / 200.0 = 2.00 (1.00..3.00)" in capsys.readouterr().out
