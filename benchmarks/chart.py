"""A chart of runs as SVG: a dot for each run, a bar for the median. Nothing but strings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median

__all__ = ["chart"]

WIDTH, ROW, LEFT, TOP, BAR = 720, 34, 220, 56, 18
COLOURS = {"ours": "#2a6f97", "c": "#9a8c98"}
LABELS = {"ours": "minivpn_trio", "c": "openvpn (C)"}


def chart(title: str, groups: Mapping[str, Mapping[str, Sequence[float]]]) -> str:
    """``groups``: what was measured -> whose -> one figure a run. Rows from top to bottom, the scale from 0."""
    rows = [(what, who, values) for what, by_whom in groups.items() for who, values in sorted(by_whom.items())]
    top = max((value for _, _, values in rows for value in values), default=1.0) * 1.05
    height = TOP + ROW * len(rows) + 40

    def x(value: float) -> float:
        return LEFT + (WIDTH - LEFT - 70) * value / top

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" '
        f'font-size="13"><title>{title}</title><rect width="100%" height="100%" fill="white"/>',
        f'<text x="20" y="28" font-size="16">{title}</text>',
    ]
    step = next(step for step in (10, 20, 50, 100, 200, 500, 1000, 2000, 10**9) if top / step <= 8)
    for mark in range(0, int(top) + 1, step):
        parts.append(f'<line x1="{x(mark):.1f}" y1="{TOP - 8}" x2="{x(mark):.1f}" y2="{height - 34}" stroke="#ddd"/>')
        parts.append(f'<text x="{x(mark):.1f}" y="{height - 16}" text-anchor="middle" fill="#555">{mark}</text>')
    for index, (what, who, values) in enumerate(rows):
        y = TOP + ROW * index
        middle = median(values)
        colour = COLOURS.get(who, "#555")
        parts.append(f'<text x="20" y="{y + 14}">{what}, {LABELS.get(who, who)}</text>')
        parts.append(f'<rect x="{LEFT}" y="{y}" width="{x(middle) - LEFT:.1f}" height="{BAR}" fill="{colour}"/>')
        parts += [f'<circle cx="{x(v):.1f}" cy="{y + BAR / 2}" r="2.5" fill="black" opacity="0.5"/>' for v in values]
        parts.append(f'<text x="{x(max(values)) + 8:.1f}" y="{y + 14}">{middle:.0f}</text>')
    return "\n".join([*parts, "</svg>\n"])
