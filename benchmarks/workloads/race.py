"""The race: each contender in a process of its own, one at work while the others are stopped, in alternating rounds.

In one process, or side by side, their pools of threads would fight for the cores, and who waits least patiently wins.
A stopped process holds its memory and nothing else. POSIX only: Windows cannot stop a process.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from workloads.contenders import ALL, NAMED, Contender, surroundings
from workloads.problems import Problem, Task

BENCHMARKS = Path(__file__).resolve().parent.parent
PATIENCE = 900  # seconds for a contender's first calls: autotuning compiles dozens of candidates
TOLERANCE = 1e-3  # relative, of results among contenders after eight steps in float32
LIMIT = """\
import json, chainrule as cr
machine = cr.machine(refresh=True)
print(json.dumps({"cpu": machine.cpu, "target": machine.target, "gflops": machine["float32"].all}))
"""
SPIN = """\
import os
if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, {CORE})
while True:
    pass
"""


class ContenderError(Exception):
    """A contender's process ended, or took too long."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How the race is run; seconds: of one lap; batches: how many inputs take turns; busy: a core does other work."""

    contenders: tuple[Contender, ...]
    threads: tuple[int, ...]
    rounds: int
    seconds: float
    batches: int
    busy: bool


@dataclass(kw_only=True)
class Entry:
    """A contender with a number of threads: seconds a call in each round, or a note why there are none."""

    contender: Contender
    threads: int
    laps: list[float] = field(default_factory=list)
    note: str = ""

    @property
    def median(self) -> float:
        return statistics.median(self.laps) if self.laps else float("inf")


def cores() -> list[int]:
    """The numbers of the cores that may be used."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


# --- options


def add_options(parser: argparse.ArgumentParser, task: Task, problems: Sequence[Problem], rounds: int) -> None:
    """The options that the benchmarks share."""
    able = able_to(task)
    every = sorted({1, len(cores())})
    numbers = lambda text: tuple(int(n) for n in text.split(","))  # noqa: E731
    parser.add_argument(
        "workloads", nargs="*", metavar="WORKLOAD", help=f"of {', '.join(p.name for p in problems)}; default: all"
    )
    parser.add_argument("--contenders", type=lambda text: text.split(","), default=able, help=f"of {','.join(able)}")
    parser.add_argument("--threads", type=numbers, default=tuple(every), help="numbers of threads, as in 1,2")
    parser.add_argument("--rounds", type=int, default=rounds, help=f"of each contender; default: {rounds}")
    parser.add_argument("--seconds", type=float, default=0.3, help="that a round lasts; default: 0.3")
    parser.add_argument("--batches", type=int, default=4, help="inputs that take turns; default: 4")
    parser.add_argument("--busy", action="store_true", help="keep one core busy with something else meanwhile")


def settings_of(parser: argparse.ArgumentParser, given: argparse.Namespace, task: Task) -> Settings:
    """The options, checked."""
    if not all(1 <= n <= len(cores()) for n in given.threads):
        parser.error(f"--threads: expected 1 to {len(cores())}, as many as there are cores")
    return Settings(
        contenders=tuple(named(parser, given.contenders, task)),
        threads=given.threads,
        rounds=given.rounds,
        seconds=given.seconds,
        batches=given.batches,
        busy=given.busy,
    )


def named(parser: argparse.ArgumentParser, names: Sequence[str], task: Task) -> list[Contender]:
    """The contenders of these names."""
    able = able_to(task)
    unknown = [name for name in names if name not in able]
    if unknown:
        parser.error(f"--contenders: there is no {', '.join(unknown)} for {task}; expected some of {', '.join(able)}")
    return [NAMED[name] for name in able if name in names]


def able_to(task: Task) -> list[str]:
    return [contender.name for contender in ALL if task in contender.tasks]


def chosen(parser: argparse.ArgumentParser, names: Sequence[str], problems: Sequence[Problem]) -> list[Problem]:
    """The problems of these names, or all."""
    known = {problem.name: problem for problem in problems}
    unknown = [name for name in names if name not in known]
    if unknown:
        parser.error(f"there is no workload {', '.join(unknown)}; expected some of {', '.join(known)}")
    return [known[name] for name in names] or list(problems)


def plural(threads: int) -> str:
    return "1 thread" if threads == 1 else f"{threads} threads"


def progress(console: Console) -> Progress:
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    return Progress(*columns, TimeElapsedColumn(), console=console, transient=True)


# --- one contender


class Racer:
    """A contender's process. It is stopped but while it starts and while it runs a lap.

    first: what it said when it was ready: results, seconds of the first call, memory before.
    """

    def __init__(
        self, contender: Contender, task: Task, problem: Problem, threads: int, batches: int, folder: Path
    ) -> None:
        command = [sys.executable, "-m", "workloads.process", task, contender.name, problem.name, str(batches)]
        self._errors = folder / f"{contender.name}-{problem.name}-{threads}.txt"
        with self._errors.open("wb") as errors:
            self._process = subprocess.Popen(
                [*command, *map(str, cores()[-threads:])],
                cwd=BENCHMARKS,
                env=surroundings(contender, threads, folder),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                encoding="utf-8",
                start_new_session=True,  # a group of its own, so that what it starts stops with it
            )
        try:
            self.first = self._answer()
        except BaseException:
            self.end()
            raise
        self._signal(signal.SIGSTOP)

    def lap(self, seconds: float) -> dict[str, float]:
        """Run for about so long: seconds and processor seconds of one call, and the most memory so far."""
        self._signal(signal.SIGCONT)
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(f"{seconds}\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise ContenderError(self._last_words()) from None
        answer = self._answer()
        self._signal(signal.SIGSTOP)
        return answer

    def end(self) -> None:
        """End it, and all that it started."""
        self._signal(signal.SIGKILL)
        self._process.wait()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        alarm = threading.Timer(PATIENCE, lambda: self._signal(signal.SIGKILL))
        alarm.daemon = True
        alarm.start()
        line = self._process.stdout.readline()
        late = not alarm.is_alive()
        alarm.cancel()
        if not line:
            raise ContenderError(f"it took more than {PATIENCE} s" if late else self._last_words())
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _last_words(self) -> str:
        lines = self._errors.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return next((line.strip() for line in reversed(lines) if line.strip()), "it ended without a word")

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)


# --- all of them


def race(task: Task, problem: Problem, settings: Settings, bar: Progress) -> list[Entry]:
    """Let the contenders compete in one problem."""
    entries = [
        Entry(contender=contender, threads=threads, note=contender.missing() or "")
        for contender in settings.contenders
        if contender.takes(problem, task)
        for threads in settings.threads
    ]
    running = [entry for entry in entries if not entry.note]
    shown = bar.add_task(problem.name, total=len(running) * (1 + settings.rounds))
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True)))
        if settings.busy:
            stack.enter_context(spinning(cores()[0]))
        racers: list[tuple[Entry, Racer]] = []
        results: list[tuple[Entry, list[list[float]]]] = []
        for entry in running:
            bar.update(shown, description=f"{problem.name}: {entry.contender.title} starts, {plural(entry.threads)}")
            with noting(entry):
                start = partial(Racer, entry.contender, task, threads=entry.threads, batches=settings.batches)
                racer = start(problem, folder=folder)
                stack.callback(racer.end)
                racers.append((entry, racer))
                checked = racer
                if problem.dropout:  # no two draw the same numbers
                    checked = start(problem.without_dropout, folder=folder)
                    checked.end()
                results.append((entry, checked.first["results"]))
            bar.advance(shown)
        compare(results)
        for number in range(settings.rounds):
            for entry, racer in racers[:: -1 if number % 2 else 1]:
                if not entry.note:
                    bar.update(shown, description=f"{problem.name}: {entry.contender.title}, {plural(entry.threads)}")
                    with noting(entry):
                        entry.laps.append(racer.lap(settings.seconds)["seconds"])
                bar.advance(shown)
    bar.remove_task(shown)
    return entries


@contextlib.contextmanager
def noting(entry: Entry) -> Iterator[None]:
    """A failure becomes the entry's note."""
    try:
        yield
    except ContenderError as error:
        entry.laps.clear()
        entry.note = f"failed: {error}"


def compare(results: Sequence[tuple[Entry, list[list[float]]]]) -> None:
    """Note of each whose results are not those of most others: it does not compute the same, or not right."""
    if not results:
        return
    arrays = [np.array(numbers) for _, numbers in results]
    expected = np.median(arrays, axis=0)
    for (entry, _), found in zip(results, arrays, strict=True):
        error = np.abs(found - expected).max() / np.abs(expected).max()
        if not error < TOLERANCE:
            entry.note = f"disagrees: {error:.1e} off what most others compute"


@contextlib.contextmanager
def spinning(core: int) -> Iterator[None]:
    """Keep a core busy."""
    process = subprocess.Popen([sys.executable, "-c", SPIN.replace("CORE", str(core))])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def limit(threads: int) -> dict[str, Any]:
    """The machine's limit with so many threads: GFLOP/s of multiply-adds in float32, and its CPU's name."""
    ours = NAMED["chainrule"]
    with tempfile.TemporaryDirectory() as folder:
        code = f"import os\nif hasattr(os, 'sched_setaffinity'):\n    os.sched_setaffinity(0, {cores()[-threads:]})\n"
        command = [sys.executable, "-c", code + LIMIT]
        environment = surroundings(ours, threads, Path(folder))
        ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    answer: dict[str, Any] = json.loads(ran.stdout)
    return answer
