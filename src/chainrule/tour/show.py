"""`chainrule tour`: train two nets, measure them, explain their last backward pass, write the page.

The nets are programs as a user writes them. Each is copied into the tour's folder and run from there, unedited, by what
`chainrule explain` runs a script with; so all that is said about them can be had for any other script.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from chainrule.autodiff.check import check_rules
from chainrule.core.node import Node
from chainrule.errors import ArgumentError
from chainrule.explain import html
from chainrule.explain.explanation import Explanation
from chainrule.explain.narrow import fitted
from chainrule.explain.record import Run
from chainrule.explain.script import run_script
from chainrule.tour import scores

_PROGRAMS = Path(__file__).resolve().parent / "programs"


@dataclass(frozen=True, kw_only=True)
class Stop:
    """One stop of the tour.

    score: measures the trained net. answers, losses: found among the script's variables when it ended.
    shown: the gradients to print, as (name, whether to open its largest entry).
    """

    program: str
    title: str
    about: str
    score: Callable[[Any, Callable[[Any], Any]], scores.Scores]
    answers: Callable[[Mapping[str, Any]], Callable[[Any], Any]]
    losses: Callable[[Mapping[str, Any]], Any]
    shown: tuple[tuple[str, bool], ...]


STOPS = (
    Stop(
        program="diabetes.py",
        title="Two linear layers, a ReLU, a mean squared error",
        about="442 patients, 10 measurements each; how far did their diabetes go in a year?",
        score=scores.diabetes,
        answers=lambda variables: variables["predict"],
        losses=lambda variables: variables["losses"],
        shown=(("b2", False), ("w1", False), ("w1", True)),
    ),
    Stop(
        program="digits.py",
        title="A classifier of digits",
        about="1,797 handwritten digits of 8 × 8 pixels; which digit is it?",
        score=scores.digits,
        answers=lambda variables: variables["learner"].predict,
        losses=lambda variables: variables["learner"].history,
        shown=(("0.weight", False),),
    ),
)


def run(out: Path, *, epochs: int | None, seed: int, console: Console) -> Path:
    """The whole tour.

    Args:
        out: the folder to write into; it is made.
        epochs: for each net; None: what its program says.
        seed: of the weights, the split and the batches.
        console: where to tell it.
    Returns: the page's path.
    Raises: MissingExtraError: scikit-learn is not installed. ArgumentError: a program there would be overwritten.
    """
    scores.check_installed()
    started = time.perf_counter()
    _copy_programs(out)
    told = Teller(console)
    chapters = [_visit(stop, out, epochs, seed, told) for stop in STOPS]
    page = (out / "index.html").resolve()
    html.write_page(page, html.book(chapters, "The backward pass of two nets"))
    told.heading("The page")
    told.say("Every link with its formula, its arrays as heat-maps, and the program beside it; it needs no network.")
    told.say(f"\n  open        {page}", whole=True)
    told.say(f"  programs    {', '.join(str(out / stop.program) for stop in STOPS)}", whole=True)
    told.say(f"  your own    chainrule explain {out / STOPS[0].program} --wrt w1 --at 3,7", whole=True)
    told.say(f"\n{time.perf_counter() - started:.1f} s in all.")
    return page


def _copy_programs(out: Path) -> None:
    """Copy the programs out, but not over one that was changed there."""
    out.mkdir(parents=True, exist_ok=True)
    for stop in STOPS:
        source, target = _PROGRAMS / stop.program, out / stop.program
        if target.exists() and target.read_bytes() != source.read_bytes():
            raise ArgumentError(
                f"tour: {target} is not the tour's own program (was it edited?) and would be overwritten; "
                f"move it, or give another folder: chainrule tour --out DIR; to explain it: chainrule explain {target}"
            )
        shutil.copyfile(source, target)


def _visit(stop: Stop, out: Path, epochs: int | None, seed: int, told: Teller) -> html.Chapter:
    script = out / stop.program
    told.heading(stop.title)
    told.say(f"{stop.about} The program is {script}.\n")
    last = run_script(script, ["--seed", str(seed), *([] if epochs is None else ["--epochs", str(epochs)])])
    measured = stop.score(last.results["data"], stop.answers(last.results))
    losses = stop.losses(last.results)
    told.scores(measured)
    told.say(f"\n{measured.verdict}")
    run = last.run()  # from here on the weights are those of the last backward pass, not those after it
    told.say(f"\nThe last of {last.count:,} backward passes, explained:")
    by_name = {run.name(leaf): leaf for leaf in run.leaves}
    opened: dict[str, tuple[int, ...]] = {}
    for name, one_entry in stop.shown:
        explained = _explained(run, by_name[name])
        if one_entry:
            opened[name] = _largest(explained)
            explained = _explained(run, by_name[name], opened[name])
        told.explanation(explained)
    told.say(f"\ncr.check(loss): {check_rules(run.loss)}")
    pages = [_explained(run, leaf, opened.get(str(name))) for name, leaf in by_name.items()]
    return html.Chapter(stop.title, _deepest_first(pages), losses, measured.facts(), script)


def _explained(run: Run, node: Node, at: tuple[int, ...] | None = None) -> Explanation:
    return Explanation(run, node, at, 1, 40, "leibniz")


def _largest(explained: Explanation) -> tuple[int, ...]:
    return tuple(int(i) for i in np.unravel_index(np.abs(explained.value).argmax(), explained.value.shape))


def _deepest_first(explanations: Sequence[Explanation]) -> list[Explanation]:
    return sorted(explanations, key=lambda e: -len(e.links))


class Teller:
    """Tells the tour to a terminal, or to a pipe as plain text."""

    def __init__(self, console: Console) -> None:
        self.console = console

    def heading(self, text: str) -> None:
        self.console.print()
        self.console.print(Text(text, style="bold"))
        self.console.print(Text("─" * min(len(text), self.console.width), style="dim"))

    def say(self, text: str, *, whole: bool = False) -> None:
        """A paragraph; `whole`: a line to be copied, never broken."""
        self.console.print(Text(text), soft_wrap=whole or not self.console.is_terminal)

    def explanation(self, explained: Explanation) -> None:
        lines = (fitted(str(explained), self.console.width) if self.console.is_terminal else str(explained)).split("\n")
        self.console.print()
        self.console.print(Text(lines[0], style="bold"), soft_wrap=True)
        self.console.print(Text("\n".join(lines[1:])), soft_wrap=True)

    def scores(self, measured: scores.Scores) -> None:
        table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="dim")
        table.add_column(measured.measured_on)
        for column in measured.columns:
            table.add_column(column, justify="right")
        for row in measured.rows:
            table.add_row(row.what, *row.numbers)
        self.console.print()
        self.console.print(table)
