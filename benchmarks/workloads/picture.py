"""Bars of what `peers.py` measured, as an SVG that reads on a light page and on a dark one."""

from __future__ import annotations

import html
import math
from typing import Any

# Text, quiet text, our bars, the peers', and the line of the limit. Contrast to the page is at least 4.5 to 1 for text.
LIGHT = {
    "text": "#1f2328",
    "quiet": "#59636e",
    "ours": "#0969da",
    "eager": "#80b3f0",
    "peer": "#b1bac4",
    "limit": "#cf222e",
}
DARK = {
    "text": "#e6edf3",
    "quiet": "#9198a1",
    "ours": "#4493f8",
    "eager": "#28528c",
    "peer": "#59636e",
    "limit": "#ff7b72",
}
FONT = "system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif"
WIDE, ROW, BAR, TITLE, GAP = 470, 19, 12, 26, 18  # of a panel, in user units
MARGIN, HEAD, LINE = 10, 30, 17  # of the picture, of its first line, of each of its last lines
NAMES, ROOM = 158, 230  # where the bars begin, and how long one may be
LONGEST = 5.0  # times our compiled step; what takes longer is cut off


def picture(found: dict[str, Any]) -> str:
    """The SVG of `found`, as `peers.py` writes it to JSON."""
    columns: list[list[str]] = [[], []]
    heights = [HEAD, HEAD]
    for name, workload in found["workloads"].items():
        side = 0 if heights[0] <= heights[1] else 1
        lines, height = panel(name, workload)
        columns[side].append(group(lines, side * (WIDE + GAP), heights[side]))
        heights[side] += height + GAP
    bottom = max(heights)
    drawn = [text(0, 14, "Time of a training step; shorter is better", "quiet"), *columns[0], *columns[1]]
    for number, line in enumerate(footer(found)):
        drawn.append(text(0, bottom + 14 + LINE * number, line, "quiet small"))
    size = f"{2 * WIDE + GAP + 2 * MARGIN} {bottom + 14 + LINE * len(footer(found)) + 2 * MARGIN}"
    view = f'viewBox="{-MARGIN} {-MARGIN} {size}"'
    colours = lambda theme: " ".join(f".{name} {{ fill: {colour}; }}" for name, colour in theme.items())  # noqa: E731
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" {view} role="img" aria-label="{label(found)}">',
        "<style>",
        f"text {{ font: 13px {FONT}; }} .bold {{ font-weight: 600; }} .small {{ font-size: 12px; }}",
        colours(LIGHT),
        f"@media (prefers-color-scheme: dark) {{ {colours(DARK)} }}",
        "</style>",
        *drawn,
        "</svg>",
        "",
    ])  # fmt: skip


def label(found: dict[str, Any]) -> str:
    ratios = [f"{name} {w['ratio']:.1f}" for name, w in found["workloads"].items() if w["ratio"] is not None]
    return f"Time of a training step; how many times as long the best peer takes: {', '.join(ratios)}"


def footer(found: dict[str, Any]) -> list[str]:
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    busy = ", one core busy with something else" if found["busy"] else ""
    threads = " or ".join(map(str, found["threads"]))
    how = f"medians of {found['rounds']} alternating rounds, each contender at its best of {threads} threads{busy}"
    return [
        f"{found['date']}, {found['cpu']}, {found['target']}; {how}",
        f"Python {found['python']}, {versions}",
        "The red line is the time that the products' multiply-adds alone take at the machine's limit.",
    ]


def panel(name: str, workload: dict[str, Any]) -> tuple[list[str], int]:
    """A workload's bars, the shortest first, and their height."""
    best = {key: entry["best"] for key, entry in workload["contenders"].items() if entry["best"] is not None}
    ordered = sorted(best, key=lambda key: best[key])
    ours = best.get("chainrule", min(best.values(), default=1.0))
    longest = min(max(best.values(), default=1.0), LONGEST * ours)
    unit, factor = ("ms", 1e3) if ours >= 1e-3 else ("µs", 1e6)
    lines = [text(0, 14, f"{name}: {workload['title']}", "text bold")]
    for row, key in enumerate(ordered):
        entry, y = workload["contenders"][key], TITLE + ROW * row
        kind = "peer" if not entry["ours"] else "ours" if key == "chainrule" else "eager"
        cut = best[key] > longest
        width = ROOM * min(best[key] / longest, 1.0)
        lines.append(text(0, y + 11, entry["title"], "text bold" if kind == "ours" else "text"))
        lines.append(bar(NAMES, y, width, kind, cut=cut))
        value = f"{significant(best[key] * factor)} {unit}"
        lines.append(text(NAMES + width + 6, y + 11, value, "quiet"))
    for row, (title, note) in enumerate(workload["absent"].items(), len(ordered)):
        y = TITLE + ROW * row
        lines += [text(0, y + 11, title, "quiet"), text(NAMES, y + 11, note[:40], "quiet small")]
    height = TITLE + ROW * (len(ordered) + len(workload["absent"]))
    if workload["limit"] is not None:
        x = NAMES + ROOM * workload["limit"] / longest
        lines.append(rectangle(x - 0.75, TITLE - 4, 1.5, ROW * len(ordered), "limit"))
    return lines, height


def significant(value: float) -> str:
    """Three digits or more, as in 10.0."""
    return f"{value:.{max(2 - math.floor(math.log10(value)), 0)}f}"


def bar(x: float, y: float, width: float, kind: str, *, cut: bool) -> str:
    """A bar; one that is cut off has a gap before its end."""
    if not cut:
        return rectangle(x, y, width, BAR, kind)
    return rectangle(x, y, width - 22, BAR, kind) + rectangle(x + width - 16, y, 16, BAR, kind)


def group(lines: list[str], x: float, y: float) -> str:
    return "\n".join([f'<g transform="translate({x:g}, {y:g})">', *lines, "</g>"])


def rectangle(x: float, y: float, width: float, height: float, kind: str) -> str:
    return f'<rect class="{kind}" x="{x:.1f}" y="{y:.1f}" width="{max(width, 1):.1f}" height="{height:.1f}"/>'


def text(x: float, y: float, words: str, kind: str) -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}">{html.escape(words)}</text>'
