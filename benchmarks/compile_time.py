"""What compiling costs, against JAX and PyTorch: `python benchmarks/compile_time.py [WORKLOAD …]`; see `--help`.

For each workload, in fresh processes: the first call of the training step with no cache on the disk; the first call
with the cache that this left; and the most memory of the second process after steps, as a whole, and beyond what it
had when its imports were made. A first call begins with the tensors and the decorator, and ends when its loss is there;
what is imported by the way counts. Before, the time of each library's import, beyond that of Python with NumPy.
Medians. Needs the `bench` extra, and g++ for torch.compile.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from workloads.contenders import Contender, versions
from workloads.problems import TRAINING, Problem
from workloads.race import ContenderError, Racer, able_to, chosen, cores, named, progress

MEGABYTE = 1 << 20
STEPS = 0.3  # seconds of steps before the memory is asked for
IMPORTS = {"chainrule": "chainrule", "PyTorch": "torch", "JAX": "jax", "tinygrad": "tinygrad"}  # name, module


def import_times(rounds: int) -> dict[str, float | None]:
    """Seconds of each import beyond NumPy's, which all of them make or would; None: not installed."""
    compiled_once = os.environ | {"PYTHONDONTWRITEBYTECODE": ""}  # as it is for a user

    def seconds(module: str) -> float | None:
        start = time.perf_counter()
        command = [sys.executable, "-c", f"import numpy, {module}"]
        ran = subprocess.run(command, capture_output=True, check=False, env=compiled_once)
        return time.perf_counter() - start if ran.returncode == 0 else None

    modules = {"NumPy": "numpy", **IMPORTS}
    found: dict[str, list[float | None]] = {name: [] for name in modules}
    for number in range(rounds + 1):
        for name, module in modules.items():
            taken = seconds(module)
            if number:  # the first brings files into memory
                found[name].append(taken)
    medians = {name: None if None in times else statistics.median(times) for name, times in found.items()}
    base = medians.pop("NumPy")
    return {name: None if taken is None else taken - base for name, taken in medians.items()}


def costs(contender: Contender, problem: Problem, threads: int) -> dict[str, float]:
    """Seconds of the two first calls, and bytes at the peak, in processes and a cache of their own."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder = Path(name)
        cold = Racer(contender, "training", problem, threads, 1, folder)
        cold.end()
        warm = Racer(contender, "training", problem, threads, 1, folder)
        try:
            peak = warm.lap(STEPS)["peak"]
        finally:
            warm.end()
    return {
        "first": cold.first["first"],
        "cached": warm.first["first"],
        "peak": peak,
        "added": peak - warm.first["peak_before"],
    }


def measured(problems: list[Problem], contenders: list[Contender], threads: int, rounds: int, console: Console) -> Any:
    """By workload and contender, the medians, or a note why there are none."""
    found: dict[str, dict[str, Any]] = {problem.name: {} for problem in problems}
    with progress(console) as bar:
        shown = bar.add_task("", total=rounds * len(problems) * len(contenders))
        for problem in problems:
            for contender in contenders:
                bar.update(shown, description=f"{problem.name}: {contender.title}")
                note, each = contender.missing(), []
                for _ in range(0 if note else rounds):
                    try:
                        each.append(costs(contender, problem, threads))
                    except ContenderError as error:
                        note = f"failed: {error}"
                        break
                    bar.advance(shown)
                medians = {key: statistics.median(x[key] for x in each) for key in each[0]} if each else {}
                found[problem.name][contender.name] = {"title": contender.title, "note": note, **medians}
    return found


def show(found: dict[str, Any], imports: dict[str, float | None], console: Console) -> None:
    shown = Table("import", "ms", title="beyond Python with NumPy")
    for name, seconds in imports.items():
        shown.add_row(name, "[red]not installed[/]" if seconds is None else f"{seconds * 1e3:.0f}")
    console.print(shown)
    columns = ("first call, s", "cached, s", "peak, MB", "of it after imports, MB")
    shown = Table("", *columns, title="a training step")
    for column in shown.columns[1:]:
        column.justify = "right"
    for name, contenders in found.items():
        for entry in contenders.values():
            if entry["note"]:
                shown.add_row(f"{name}: {entry['title']}", f"[red]{entry['note']}[/]")
                continue
            cells = [f"{entry[key]:.3f}" for key in ("first", "cached")]
            cells += [f"{entry[key] / MEGABYTE:.0f}" for key in ("peak", "added")]
            shown.add_row(f"{name}: {entry['title']}", *cells, style="bold" if "chainrule" in entry["title"] else "")
        shown.add_section()
    console.print(shown)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    able = ",".join(able_to("training"))
    parser.add_argument("workloads", nargs="*", metavar="WORKLOAD", help="of a to h; default: all")
    parser.add_argument("--contenders", default="chainrule,jax,torch-compile", help=f"of {able}")
    parser.add_argument("--threads", type=int, default=len(cores()), help="default: one a core")
    parser.add_argument("--rounds", type=int, default=3, help="default: 3")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what was found")
    given = parser.parse_args()
    problems, contenders = (
        chosen(parser, given.workloads, TRAINING),
        named(parser, given.contenders.split(","), "training"),
    )
    console = Console()
    with console.status("importing …"):
        imports = import_times(given.rounds)
    found = measured(problems, contenders, given.threads, given.rounds, console)
    show(found, imports, console)
    console.print(", ".join(f"{name} {version}" for name, version in versions(contenders).items()))
    if given.json is not None:
        written = {"imports": imports, "threads": given.threads, "rounds": given.rounds, "workloads": found}
        given.json.write_text(json.dumps(written, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
