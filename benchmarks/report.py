"""What ``end_to_end.py`` prints of its runs, and the summary that goes into the JSON file. Nothing but figures.

``results`` is what ``contenders.measure`` returns: "download" and "upload" by contender, a list of runs each (one
dictionary a run, in the order in which they were made).
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["head", "median", "ratios", "report", "summarize", "transfers"]

DIRECTIONS = ("download", "upload")
CONTENDERS = ("ours", "c", "bare")
#: Widths of the first column, of a contender's and of the ratio's.
FIRST, CELL, RATIO = 10, 40, 10


def median(results: Mapping[str, Any], what: str, who: str, field: str) -> float | None:
    """The median of one field, None where it was not measured."""
    values = [run[field] for run in results[what].get(who, []) if run[field] is not None]
    return statistics.median(values) if values else None


def ratios(results: Mapping[str, Any], what: str) -> dict[str, Any] | None:
    """Ours to the C client's rate, round by round: all, their median, least and most. None where one is missing."""
    ours, c = ([run["mbit_per_second"] for run in results[what].get(who, [])] for who in ("ours", "c"))
    if not ours or not c:
        return None
    each = [mine / theirs for mine, theirs in zip(ours, c, strict=True)]
    return {"each": each, "median": statistics.median(each), "min": min(each), "max": max(each)}


def summarize(results: Mapping[str, Any], size: int) -> dict[str, Any]:
    """By direction: medians of each contender, and the ratio of ours to the C client's."""
    summary: dict[str, Any] = {}
    for what in DIRECTIONS:
        rates = {who: median(results, what, who, "mbit_per_second") for who in CONTENDERS}
        row: dict[str, Any] = {**rates, "ratio": _quotient(rates["ours"], rates["c"]), "ratios": ratios(results, what)}
        for who in CONTENDERS:
            if rates[who] is not None:
                cpu = median(results, what, who, "client_cpu")
                row[f"s/GB, {who}"] = None if cpu is None else cpu / size * 1e9
                row[f"us a packet, {who}"] = median(results, what, who, "us_per_packet")
                row[f"acks a packet, {who}"] = median(results, what, who, "acks_per_packet")
        summary[what] = row
    return summary


def _quotient(ours: float | None, c: float | None) -> float | None:
    return ours / c if ours and c else None


def report(results: Mapping[str, Any], size: int) -> dict[str, Any]:
    """Print the table; return the summary."""
    summary = summarize(results, size)
    bare = any("bare" in results[what] for what in DIRECTIONS)
    _print_row("", {"ours": "ours", "c": "C client", "bare": "bare path"}, "ours / C", bare)
    for what in DIRECTIONS:
        row = summary[what]
        cells = {who: _cell(row, who) for who in CONTENDERS}
        _print_row(what, cells, _text(row["ratio"]), bare)
    for what in DIRECTIONS:
        print(*transfers(results, what), sep="\n")
    return summary


def _cell(row: Mapping[str, Any], who: str) -> str:
    if row[who] is None:
        return "-"
    parts = [f"{row[who]:.0f} Mbit/s", f"{row[f's/GB, {who}']:.1f} s/GB"]
    if row[f"us a packet, {who}"] is not None:
        parts.append(f"{row[f'us a packet, {who}']:.1f} us/packet")
    return ", ".join(parts)


def _text(ratio: float | None) -> str:
    return "-" if ratio is None else format(ratio, ".2f")


def _print_row(what: str, cells: Mapping[str, str], ratio: str, bare: bool) -> None:
    row = f"{what:{FIRST}}{cells['ours']:>{CELL}}{cells['c']:>{CELL}}{ratio:>{RATIO}}"
    print(row + f"{cells['bare']:>{CELL}}" if bare else row)


def transfers(results: Mapping[str, Any], what: str) -> list[str]:
    """A line for each contender, and one for the ratio round by round."""
    lines = []
    for who, runs in results[what].items():
        data, acks = (median(results, what, who, field) for field in ("data_packets", "acks_per_packet"))
        line = f"{what:{FIRST}}{who:>5}: "
        if data is not None and acks is not None:
            line += f"{data:.0f} packets with data, {acks:.3f} packets back for each, "
        busy = [statistics.median(column) for column in zip(*(run["busy"] for run in runs), strict=True)]
        line += "processors busy " + ", ".join(f"{share * 100:.0f} %" for share in busy)
        again = median(results, what, who, "retransmissions")
        lines.append(line if again is None else f"{line}, sent again {again:.0f}")
    quotients = ratios(results, what)
    if quotients is not None and len(quotients["each"]) > 1:
        lines.append(f"{what:{FIRST}}ours / C, run by run: {spread(quotients)}")
    return lines


def spread(quotients: Mapping[str, Any]) -> str:
    """Of ``ratios``: the median, and the range where there is more than one."""
    text = f"{quotients['median']:.2f}"
    if len(quotients["each"]) > 1:
        text += f" ({quotients['min']:.2f}..{quotients['max']:.2f})"
    return text


def head(about: Mapping[str, Any]) -> list[str]:
    """The conditions of a table, for people: what ``end_to_end.conditions`` found."""
    kernels, asked = about["kernel_congestion"], about["buffers"]
    limits = ", ".join(f"{name} {value}" for name, value in about["net_core"].items())
    return [
        f"congestion control: ours {about['our_congestion']}; the kernels' {kernels['server']} at the server, "
        f"{kernels['c']} beside the C client",
        f"checksums of ours: by {'numpy (the extra `fast`)' if about['numpy'] else 'integers (numpy is not used)'}",
        f"socket buffers asked for: {_asked(asked['ours'])} by ours, {_asked(asked['c'])} by the C client",
        f"this machine's: {limits}",
        f"{_pinned(about['affinity'], about['cpus'])}; who goes first alternates; every byte was compared",
    ]


def _asked(size: int | None) -> str:
    return "nothing (the system's default)" if size is None else f"{size} bytes"


def _pinned(affinity: Sequence[int], cpus: int) -> str:
    if len(affinity) == cpus:
        return f"{cpus} processors, nothing is pinned"
    return f"{cpus} processors, all processes confined to " + ", ".join(map(str, affinity))
