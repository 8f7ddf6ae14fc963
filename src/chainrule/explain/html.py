"""Explanations as one offline page, and as the rich display of a notebook.

Fills the templates with a `Walkthrough`. Whatever comes from the user's program goes through Jinja's autoescaping, or
into the JSON block that the page's script reads, where < is escaped.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
import markupsafe
import numpy as np

from chainrule.explain import text
from chainrule.explain.heat import Heat, heat
from chainrule.explain.walkthrough import View, Walkthrough, walkthrough
from chainrule.train.history import History
from chainrule.train.plot import loss_curve_svg

if TYPE_CHECKING:
    from chainrule.explain.explanation import Explanation

Curve = Sequence[float] | History

_HERE = Path(__file__).resolve().parent
_LONGEST_FORMULA = 90
_THUMBNAIL = 40  # pixels, in a notebook


@dataclass(frozen=True)
class Chapter:
    """One run on a page of several: gradients of one loss, and what is said beside them.

    loss_curve: the loss of each training step, or a Learner's history. facts: short facts, by name.
    program: the script's path, shown even where no link touches it.
    """

    title: str
    explanations: Sequence[Explanation]
    loss_curve: Curve | None = None
    facts: Mapping[str, str] = field(default_factory=dict)
    program: str | Path | None = None


def page(
    explanations: Sequence[Explanation],
    loss_curve: Curve | None = None,
    title: str | None = None,
    program: str | Path | None = None,
) -> str:
    """One self-contained page about gradients of one loss.

    Args:
        explanations: at least one; all of one loss.
        loss_curve: the loss of each training step, or a Learner's history.
        title: the page's; by default it names the gradients.
        program: the script's path, shown even where no link touches it.
    """
    names = ", ".join(e.name for e in explanations[:4]) + (", ..." if len(explanations) > 4 else "")
    heading = (
        title or f"Gradient of {explanations[0].derivation.name(explanations[0].run.loss)} with respect to {names}"
    )
    facts = {"Compiled": explanations[0].recomputed} if explanations[0].recomputed else {}
    return book([Chapter(heading, explanations, loss_curve, facts, program)], heading)


def book(chapters: Sequence[Chapter], title: str) -> str:
    """One self-contained page about several runs."""
    walks = [walkthrough(c.explanations, program=c.program) for c in chapters]
    shown = [_chapter(number, c, walk) for number, (c, walk) in enumerate(zip(chapters, walks, strict=True))]
    return (
        _templates()
        .get_template("page.html.j2")
        .render(
            title=title,
            chapters=shown,
            data=_embedded({"chapters": [_content(walk) for walk in walks]}),
            css=_read("templates/page.css"),
            js=_read("templates/page.js"),
            katex_css=_read("assets/katex.inline.css"),
            katex_js=_read("assets/katex.min.js"),
        )
    )


def explanation(e: Explanation) -> str:
    """The rich display of one explanation in a notebook: a fragment that brings its own styles and no script."""
    walk = walkthrough([e], depths=1)
    rows = [_row(step, heat(e.links[place].gradient, _THUMBNAIL)) for place, step in enumerate(_along(e, walk))]
    combined = e.combined
    return (
        _templates()
        .get_template("notebook.html.j2")
        .render(
            e=e,
            loss=walk.loss,
            value=walk.value,
            shape=text.shape_text(e.value.shape),
            combined=None if combined is None or len(e.links) < 2 else e.derivation.written(combined),
            terms=text.explanation(e) if e.at is not None else None,
            rows=rows,
            text=text.explanation(e),
            css=_read("templates/notebook.css"),
        )
    )


def write_page(path: Path, content: str) -> None:
    """Write a page whole or not at all; the folders above it are made."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(content)
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


# --- what the templates are given


def _chapter(number: int, chapter: Chapter, walk: Walkthrough) -> dict[str, Any]:
    return {
        "number": number,
        "title": chapter.title,
        "sentence": _sentence(walk),
        "facts": list(chapter.facts.items()),
        "walk": walk,
        "curve": _curve(chapter.loss_curve),
        "texts": [(_label(e, walk), str(e)) for e in chapter.explanations],
    }


def _curve(given: Curve | None) -> str:
    history = given if isinstance(given, History) else History(losses=list(map(float, given or ())))
    return markupsafe.Markup(loss_curve_svg(history, 760, 260)) if history.losses else ""


def _label(e: Explanation, walk: Walkthrough) -> str:
    at = "" if e.at is None else f"[{','.join(map(str, e.at))}]"
    return f"d{walk.loss}/d{e.name}{at}"


def _sentence(walk: Walkthrough) -> str:
    """What the page shows, and how far it can be trusted."""
    steps = walk.views[0].steps
    count = f"{len(steps)} links" if len(steps) != 1 else "one link"
    differing = [s.name for s in steps if s.state == "differs"]
    unchecked = [s.name for s in steps if s.state == "unchecked"]
    trust = (
        "Each formula was evaluated again on the values of this run, and gives the gradient that the engine computed."
    )
    if differing:
        trust = f"DIFFERS from the engine's gradient: {', '.join(differing)}."
    elif unchecked:
        trust = (
            f"Unchecked, because no formula could be written: {', '.join(unchecked)}; the others agree with the engine."
        )
    return f"The backward pass of {walk.loss} = {walk.value:.6g}, from the loss to the weights, in {count}. {trust}"


def _content(walk: Walkthrough) -> dict[str, Any]:
    return {
        "loss": walk.loss if walk.loss.isidentifier() else "loss",
        "views": [_view(view) for view in walk.views],
        "pictures": [_picture(h) for h in walk.pictures],
    }


def _view(view: View) -> dict[str, Any]:
    return {"depth": view.depth, "steps": [dataclasses.asdict(step) for step in view.steps]}


def _picture(h: Heat) -> dict[str, Any]:
    down, across = h.cells.shape
    return {
        "shape": list(h.shape),
        "rows": h.rows,
        "columns": h.columns,
        "down": down,
        "across": across,
        "block": list(h.block),
        "largest": h.largest,
        "pooling": h.pooling(),
        "described": h.described(),
        "packed": h.packed(),
        "offsets": h.packed_offsets(),
    }


def _along(e: Explanation, walk: Walkthrough) -> list[Any]:
    """The steps in the order of the explanation's own links."""
    by_name = {step.name: step for step in walk.views[0].steps}
    return [by_name[link.name] for link in e.links]


def _row(step: Any, picture: Heat) -> dict[str, Any]:
    scale = min(_THUMBNAIL / picture.columns, _THUMBNAIL / picture.rows, 14)
    return {
        "step": step,
        "png": picture.png(),
        "described": f"heat-map of {step.name}.g: {picture.described()}",
        "width": max(6, round(picture.columns * scale)),
        "height": max(6, round(picture.rows * scale)),
    }


def _embedded(value: Any) -> str:
    """JSON that cannot end the script element it stands in; a number that is not finite becomes text."""
    written = json.dumps(_plain(value), ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return written.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _plain(value: Any) -> Any:
    match value:
        case dict():
            return {str(k): _plain(v) for k, v in value.items()}
        case list() | tuple():
            return [_plain(v) for v in value]
        case float() | np.floating():
            return float(value) if math.isfinite(value) else str(float(value))
        case np.integer():
            return int(value)
        case _:
            return value


# --- the files


@cache
def _templates() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE / "templates"), autoescape=True, undefined=jinja2.StrictUndefined
    )
    environment.filters["shortened"] = _shortened
    return environment


def _shortened(formula: str) -> str:
    return formula if len(formula) <= _LONGEST_FORMULA else formula[: _LONGEST_FORMULA - 4] + " ..."


@cache
def _read(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8")
