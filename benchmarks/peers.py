"""A training step against the peers, each at its best: `python benchmarks/peers.py [WORKLOAD …]`; `--help` for more.

Forward, loss, backward and update (SGD; AdamW in f and h, Adam in g), from the same first values; `step(x, y)` is
called in a Python loop, as a user would, with inputs that take turns, and the loss is read at the end of the loop.
Before anything is timed, the losses of the first eight steps must agree, in f those of the same step without dropout.
How the race is run: workloads/race.py. Times are medians; "of the limit" is the share of the time that the products'
multiply-adds alone would take at what `cr.machine()` measures in the same run, before each workload, the best of them;
"this / ours" compares each at its best number of threads, and "best peer / ours" leaves out our own eager steps.

NumPy by hand takes part in a, b and c, tinygrad not in g. Needs the `bench` extra, g++ for torch.compile and clang for
tinygrad; whoever cannot run is listed. `--json` and `--picture` write what was found; `--read` shows such a JSON again.
"""

from __future__ import annotations

import argparse
import json
import platform
from datetime import UTC, datetime
from pathlib import Path
from statistics import quantiles
from typing import Any

from rich.console import Console
from rich.table import Table

from workloads.contenders import versions
from workloads.picture import picture
from workloads.problems import TRAINING, Problem, operations
from workloads.race import Entry, Settings, add_options, chosen, limit, plural, progress, race, settings_of

ROOT = Path(__file__).resolve().parent.parent
PICTURE = ROOT / "docs" / "images" / "peers.svg"


def measured(problems: list[Problem], settings: Settings, console: Console) -> dict[str, Any]:
    """All that is found, as it is written to JSON."""
    machine: dict[str, Any] = {}
    speed = dict.fromkeys(settings.threads, 0.0)  # multiply-adds a second, each counted as two
    raced = {}
    with progress(console) as bar:
        for problem in problems:
            for threads in settings.threads:
                machine = limit(threads)
                speed[threads] = max(speed[threads], machine["gflops"] * 1e9)
            raced[problem] = race("training", problem, settings, bar)
    limits = {problem: {threads: operations(problem) / speed[threads] for threads in speed} for problem in problems}
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "cpu": machine["cpu"],
        "target": machine["target"],
        "system": platform.system(),
        "python": platform.python_version(),
        "versions": versions(settings.contenders),
        "threads": list(settings.threads),
        "rounds": settings.rounds,
        "seconds": settings.seconds,
        "batches": settings.batches,
        "busy": settings.busy,
        "workloads": {x.name: workload(x, entries, limits[x]) for x, entries in raced.items()},
    }


def workload(problem: Problem, entries: list[Entry], limits: dict[int, float]) -> dict[str, Any]:
    """What was found of one workload; times in seconds, by number of threads."""
    contenders: dict[str, Any] = {}
    for entry in entries:
        contender = entry.contender
        known = contenders.setdefault(
            contender.name,
            {"title": contender.title, "ours": contender.ours, "best": None, "times": {}, "notes": {}},
        )
        if not entry.laps:
            known["notes"][str(entry.threads)] = entry.note
            continue
        low, _, high = quantiles(entry.laps, n=4) if len(entry.laps) > 1 else entry.laps * 3
        known["times"][str(entry.threads)] = {"median": entry.median, "low": low, "high": high}
        known["best"] = min(known["best"] or entry.median, entry.median)
    peers = [c["best"] for c in contenders.values() if c["best"] is not None and not c["ours"]]
    ours = contenders.get("chainrule", {}).get("best")
    return {
        "title": problem.title,
        "operations": operations(problem),
        "limit": min(limits.values()),
        "limits": {str(threads): seconds for threads, seconds in limits.items()},
        "ratio": min(peers) / ours if peers and ours else None,
        "contenders": contenders,
        "absent": {c["title"]: next(iter(c["notes"].values())) for c in contenders.values() if not c["times"]},
    }


def table(found: dict[str, Any]) -> Table:
    """A row for each contender in each workload."""
    threads = [str(n) for n in found["threads"]]
    columns = [plural(n) for n in found["threads"]]
    shown = Table("", *columns, "of the limit", "this / ours", title="a training step, ms")
    for column in shown.columns[1:]:
        column.justify = "right"
    for name, workload in found["workloads"].items():
        limits = [f"{workload['limits'][n] * 1e3:.4f}" for n in threads]
        shown.add_row(f"[bold]{name}: {workload['title']}[/]", style="default")
        shown.add_row("  the machine's limit", *limits, "", "", style="dim")
        ours = workload["contenders"].get("chainrule", {}).get("best")
        for key, entry in workload["contenders"].items():
            times = entry["times"]
            if not times:
                continue
            cells = [f"{times[n]['median'] * 1e3:.4f}" if n in times else "–" for n in threads]
            share = max(workload["limits"][n] / times[n]["median"] for n in times)
            ratio = f"{entry['best'] / ours:.2f}" if ours else ""
            style = "bold" if key == "chainrule" else ""
            shown.add_row(f"  {entry['title']}", *cells, f"{share:.0%}", ratio, style=style)
        if workload["ratio"] is not None:
            blanks = [""] * (len(threads) + 1)
            shown.add_row("  best peer / ours", *blanks, f"{workload['ratio']:.2f}", style="bold green")
        shown.add_section()
    return shown


def show(found: dict[str, Any], console: Console) -> None:
    """The table, who did not take part and why, and the surroundings."""
    console.print(table(found))
    for name, workload in found["workloads"].items():
        for entry in workload["contenders"].values():
            for threads, note in entry["notes"].items():
                console.print(f"{name}: {entry['title']}, {plural(int(threads))}: [red]{note}[/]", highlight=False)
    names = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    busy = "; one core was busy with something else" if found["busy"] else ""
    console.print(f"{found['date']}, {found['cpu']}, {found['target']}, Python {found['python']}, {names}{busy}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser, "training", TRAINING, rounds=15)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what was found")
    parser.add_argument(
        "--picture", type=Path, metavar="FILE", nargs="?", const=PICTURE, help="draw it; default: docs/images/peers.svg"
    )
    parser.add_argument("--read", type=Path, metavar="FILE", help="show what an earlier race has written, and run none")
    given = parser.parse_args()
    console = Console()
    if given.read is not None:
        found = json.loads(given.read.read_text(encoding="utf-8"))
    else:
        found = measured(chosen(parser, given.workloads, TRAINING), settings_of(parser, given, "training"), console)
    show(found, console)
    if given.json is not None:
        given.json.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    if given.picture is not None:
        given.picture.write_text(picture(found), encoding="utf-8")


if __name__ == "__main__":
    main()
