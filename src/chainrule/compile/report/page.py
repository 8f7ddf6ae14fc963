"""A step's report as one offline page, and as the rich display of a notebook.

Fills the templates; whatever comes from the user's program goes through Jinja's autoescaping.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chainrule.compile.report import quantities, text
from chainrule.compile.report.facts import facts, memory_sentence

if TYPE_CHECKING:
    from chainrule.compile.report.kernels import KernelReport
    from chainrule.compile.report.memory_map import Stretch
    from chainrule.compile.report.report import Report

_HERE = Path(__file__).resolve().parent
_WIDTH, _HEIGHT = 900.0, 300.0  # of the picture of the memory plan, in its own units
_LABELLED = 15.0  # units of height from which a stretch carries its name
_LETTER = 7.2  # units of width that a letter takes
_COLOURS = 6
_CODE, _LEAST = 8000, 60  # lines of code on a page in all, and of a kernel at least


def page(r: Report) -> str:
    """One self-contained page."""
    most = max(_CODE // max(len(r.kernels), 1) // 2, _LEAST)
    codes = {k.number: (_cut(r.ir(k.number), most), _cut(r.assembly(k.number), most)) for k in r.kernels}
    return _rendered("page.html.j2", r, codes=codes, program=r.program, passes=r.passes())


def fragment(r: Report) -> str:
    """The rich display in a notebook: a fragment that brings its own styles, and no script."""
    return _rendered("notebook.html.j2", r, text=str(r))


def _rendered(template: str, r: Report, **more: Any) -> str:
    found: str = (
        _templates()
        .get_template(template)
        .render(
            r=r, t=text, q=quantities, facts=facts(r), memory=memory_sentence(r),
            kernels=[_row(k) for k in r.kernels], remarks=text.remarks(r),
            legend=text.legend(r, "a double line"), method=text.method(r),
            css=_read(template.replace(".html.j2", ".css")),
            boxes=_boxes(r.stretches, r.arena, len(r.kernels)), width=_WIDTH, height=_HEIGHT,
            ticks=_ticks(len(r.kernels)), **more,
        )
    )  # fmt: skip
    return found


def _row(k: KernelReport) -> dict[str, Any]:
    return {
        "k": k,
        "speed": text.speed(k),
        "timed": k.seconds >= text.SHORTEST,
        "rated": k.seconds >= text.RATED,
        "width": round(100 * min(k.share, 1.0), 1),
        "level": "good" if k.share >= text.GOOD else "fair" if k.share >= text.FAIR else "low",
        "sources": text.sources(k),
        "how": quantities.unbroken(text.how(k)),
    }


def _boxes(stretches: Sequence[Stretch], arena: int, kernels: int) -> list[dict[str, Any]]:
    """Where each temporary is drawn: kernels from left to right, bytes from top to bottom."""
    found = []
    colours = _coloured(stretches)
    for i, s in enumerate(stretches):
        x, width = _WIDTH * (s.first - 1) / kernels, _WIDTH * (s.last - s.first + 1) / kernels
        y, height = _HEIGHT * s.start / arena, max(_HEIGHT * s.size / arena, 1.5)
        when = f"kernel {s.first}" if s.first == s.last else f"kernels {s.first} to {s.last}"
        found.append({
            "x": round(x + 0.5, 2), "y": round(y, 2), "width": round(max(width - 1, 1), 2), "height": round(height, 2),
            "colour": colours[i], "title": f"{s.name}: {quantities.number(s.size, 'B')} from byte {s.start:,}, {when}",
            "name": s.name if height >= _LABELLED and width > _LETTER * len(s.name) + 8 else "",
        })  # fmt: skip
    return found


def _coloured(stretches: Sequence[Stretch]) -> list[int]:
    """A colour for each, another one than those around it have as long as there are enough."""
    found: list[int] = []
    for i, s in enumerate(stretches):
        around = {c for c, o in zip(found, stretches, strict=False) if o.first <= s.last + 1 and s.first <= o.last + 1}
        free = [c % _COLOURS for c in range(i, i + _COLOURS) if c % _COLOURS not in around]
        found.append(free[0] if free else i % _COLOURS)
    return found


def _ticks(kernels: int) -> list[tuple[float, int]]:
    """The kernels' numbers under the picture: about fifteen of them."""
    step = max(-(-kernels // 15), 1)
    return [(round(_WIDTH * (n - 0.5) / kernels, 1), n) for n in range(1, kernels + 1, step)]


def _cut(code: str, most: int) -> str:
    lines = code.splitlines()
    left = len(lines) - most
    return code if left <= 0 else "\n".join([*lines[:most], f"; ... {left:,} more lines"])


@functools.cache
def _templates() -> Any:
    """Jinja, loaded at first use: a step runs without it, and `import chainrule` need not wait for it twice."""
    jinja2 = importlib.import_module("jinja2")
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE / "templates"), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip


@functools.cache
def _read(name: str) -> str:
    return (_HERE / "templates" / name).read_text(encoding="utf-8")
