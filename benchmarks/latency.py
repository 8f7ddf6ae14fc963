"""Inference at batch 1 and 64, against PyTorch and ONNX Runtime: `python benchmarks/latency.py [WORKLOAD …]`.

An MLP 784-512-512-10 and LeNet, with the same weights everywhere; `model(x)` is called in a Python loop with inputs
that take turns. Before anything is timed, the outputs must agree. How the race is run: workloads/race.py. Medians. A
ratio above 1 means that chainrule's compiled model is faster, each at its best number of threads. Needs the `bench`
extra, and g++ for torch.compile; who cannot run is listed. Options: `--help`.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from workloads.contenders import versions
from workloads.problems import INFERENCE, Problem
from workloads.race import Entry, add_options, chosen, plural, progress, race, settings_of


def rows(entries: list[Entry], threads: tuple[int, ...]) -> list[tuple[str, list[str], str]]:
    """Title, times and ratio of each contender."""
    best: dict[str, float] = {}
    times: dict[str, dict[int, float]] = {}
    for entry in entries:
        name = entry.contender.name
        best[name] = min(best.get(name, entry.median), entry.median)
        times.setdefault(name, {})[entry.threads] = entry.median
    titles = {entry.contender.name: entry.contender.title for entry in entries}
    ours = best.get("chainrule", float("inf"))
    microseconds = lambda seconds: f"{seconds * 1e6:.1f}" if seconds < float("inf") else "–"  # noqa: E731
    ratio = lambda name: f"{best[name] / ours:.2f}" if max(best[name], ours) < float("inf") else ""  # noqa: E731
    return [(titles[name], [microseconds(times[name][n]) for n in threads], ratio(name)) for name in times]


def show(found: dict[Problem, list[Entry]], threads: tuple[int, ...], console: Console) -> None:
    shown = Table("", *(plural(n) for n in threads), "this / ours", title="inference, µs a call")
    for column in shown.columns[1:]:
        column.justify = "right"
    for problem, entries in found.items():
        shown.add_row(f"[bold]{problem.title}[/]")
        for title, times, ratio in rows(entries, threads):
            shown.add_row(f"  {title}", *times, ratio)
        shown.add_section()
    console.print(shown)
    for problem, entries in found.items():
        for entry in entries:
            if entry.note:
                what = f"{problem.title}: {entry.contender.title}, {plural(entry.threads)}"
                console.print(f"{what}: [red]{entry.note}[/]", highlight=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser, "inference", INFERENCE, rounds=15)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what was found")
    given = parser.parse_args()
    settings, console = settings_of(parser, given, "inference"), Console()
    found = {}
    with progress(console) as bar:
        for problem in chosen(parser, given.workloads, INFERENCE):
            found[problem] = race("inference", problem, settings, bar)
    show(found, settings.threads, console)
    console.print(", ".join(f"{name} {version}" for name, version in versions(settings.contenders).items()))
    if given.json is not None:
        written: Any = {
            problem.name: [
                {"contender": e.contender.name, "threads": e.threads, "seconds": e.laps, "note": e.note}
                for e in entries
            ]
            for problem, entries in found.items()
        }
        given.json.write_text(json.dumps(written, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
