"""The backward pass of one loss as a sequence of steps, each with all that a page shows of it. Knows no HTML."""

from __future__ import annotations

import linecache
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from chainrule.core.family import Contraction
from chainrule.core.node import Node, ancestors
from chainrule.core.provenance import Place, place, user_calls
from chainrule.explain import chain, latex, text
from chainrule.explain.derivation import Derivation, Link
from chainrule.explain.excerpt import Excerpt
from chainrule.explain.heat import LARGEST, Heat, heat
from chainrule.explain.reasons import gate_notes, reasons
from chainrule.explain.spelling import latex_gradient
from chainrule.explain.terms import terms_at
from chainrule.ops import elementwise, identities, reduction
from chainrule.ops.printing import constant

if TYPE_CHECKING:
    from chainrule.explain.explanation import Explanation

_ENTRIES = 8  # of a parameter's gradient, opened term by term
_BUDGET = 260_000  # bytes of packed cells on one page; pictures get coarser beyond it
_LONGEST_LABEL = 28
_LONGEST_FORWARD, _MOST_FORWARD = 60, 4
_DEEPEST = 6  # levels below the first that are looked into for more steps


@dataclass(frozen=True, kw_only=True)
class Operand:
    """One array in the picture of a formula.

    picture: its number in `Walkthrough.pictures`. sign: what joins it to the one before.
    joined: together with its neighbours it makes up the whole formula, up to a number.
    """

    name: str
    latex: str
    picture: int
    sign: str = ""
    joined: bool = True


@dataclass(frozen=True, kw_only=True)
class Step:
    """One link: how one value gets its gradient.

    wrt: how code asks for it. symbol: the gradient as LaTeX. rule: the user's functions that sent it.
    latex, written: its formula. to_the_loss: the same in values alone, as LaTeX.
    state: "ok", "differs" or "unchecked". forward: the steps that the gradient came back through, as the forward ran
        them. lines: (file, line, whether it is the call itself) in the program.
    entries: some entries of the gradient, term by term, by their index as text.
    """

    name: str
    wrt: str
    symbol: str
    rule: str
    latex: str
    written: str
    to_the_loss: str
    shapes: str
    norm: float
    gain: float | None
    state: str
    verdict: str
    notes: list[str]
    forward: list[str]
    reasons: list[dict[str, Any]]
    place: str
    statement: str
    lines: list[tuple[str, int, bool]]
    operands: list[Operand]
    gradient: int
    entries: dict[str, dict[str, Any]]
    code: str | None


@dataclass(frozen=True)
class View:
    """All steps, at one depth of folding."""

    depth: int
    steps: list[Step]


@dataclass(frozen=True)
class Source:
    """A file of the user's program, or the part of it that the steps touch, as (number, line)."""

    path: str
    lines: list[tuple[int, str]]

    @property
    def name(self) -> str:
        return Path(self.path).name


@dataclass(frozen=True)
class Walkthrough:
    """The steps of one backward pass, at one depth and at the next, with the arrays they show."""

    loss: str
    value: float
    views: list[View]
    pictures: list[Heat] = field(default_factory=list)
    sources: list[Source] = field(default_factory=list)


def walkthrough(explanations: Sequence[Explanation], depths: int = 2, program: str | Path | None = None) -> Walkthrough:
    """The backward pass that leads to all the gradients explained; they are of one loss.

    depths: how many depths of folding to show, from that of the first explanation on, where they differ.
    program: a file to show besides those that the steps touch.
    """
    first = explanations[0]
    wanted = [(e.wrt, e.at) for e in explanations]
    derivations = [first.derivation]
    for depth in range(first.depth + 1, first.depth + _DEEPEST):
        deeper = Derivation(first.run, depth)
        if len(derivations) < depths and len(deeper.steps) > len(derivations[-1].steps):
            derivations.append(deeper)
    gallery = _Gallery()
    views = [_View(d, wanted, gallery).view() for d in derivations]
    value = float(np.asarray(first.run.loss.array).reshape(-1)[0])
    return Walkthrough(
        first.derivation.name(first.run.loss), value, views, gallery.pictures(), _sources(views, program)
    )


def in_order(derivation: Derivation, wrt: Iterable[Node]) -> list[Link]:
    """The links on the ways from the loss to some values, in the order a backward pass completes them.

    A gradient is complete when the earliest step that used the value has sent its part back.
    """
    links = {id(link.node): link for node in wrt for link in derivation.path(node)}
    completed = {key: min((p.step.fold.nodes[0].made for p in link.parts), default=0) for key, link in links.items()}
    return sorted(links.values(), key=lambda x: (-completed[id(x.node)], x.node.op is not None, -x.node.made))


class _Gallery:
    """The arrays of a page, each kept once."""

    def __init__(self) -> None:
        self._arrays: list[np.ndarray] = []
        self._found: dict[tuple[Any, ...], int] = {}

    def add(self, array: np.ndarray) -> int:
        array = np.asarray(array)
        key = (array.shape, array.astype(np.float32).tobytes())
        if key not in self._found:
            self._found[key] = len(self._arrays)
            self._arrays.append(array)
        return self._found[key]

    def pictures(self) -> list[Heat]:
        """The pictures, as fine as the page's budget allows."""
        side = LARGEST
        while True:
            found = [heat(a, side) for a in self._arrays]
            if side <= 8 or sum(2 * h.cells.size for h in found) <= _BUDGET:
                return found
            side //= 2


class _View:
    """Makes the steps of one derivation."""

    def __init__(
        self, derivation: Derivation, wanted: Sequence[tuple[Node, tuple[int, ...] | None]], gallery: _Gallery
    ) -> None:
        self.derivation, self.gallery = derivation, gallery
        self.wanted = [node for node, _ in wanted]
        self.asked = {id(node): at for node, at in wanted if at is not None}
        self.links = in_order(derivation, self.wanted)
        self.excerpt = Excerpt(derivation, self.links)

    def view(self) -> View:
        return View(self.derivation.depth, [self._step(link) for link in self.links])

    def _step(self, link: Link) -> Step:
        d = self.derivation
        sent = link.parts
        places = [p.step.fold.place for p in sent if p.step.fold.place is not None]
        known = link.formula is not None
        return Step(
            name=link.name,
            wrt=self.excerpt.wrt(link),
            symbol=latex_gradient(link.name),
            rule=" + ".join(dict.fromkeys(p.step.fold.name for p in sent)),
            latex=f"{latex_gradient(link.name)} = {d.written(link.formula, 'latex')}"
            if known
            else latex_gradient(link.name),
            written=d.written(link.formula) if known else "its rule was not written in tensors",
            to_the_loss=self._to_the_loss(link),
            shapes=text.shapes(link),
            norm=link.norm,
            gain=None if link.node.op is None else chain.gain(d, link),
            state={True: "ok", False: "differs", None: "unchecked"}[link.agrees],
            verdict=text.verdict(link),
            notes=gate_notes(d, link),
            forward=_forward(d, sent),
            reasons=[{"title": r.title, "lines": list(r.lines)} for r in reasons(d, link)],
            place=str(places[0]) if places else "",
            statement=places[0].text if places else "",
            lines=_lines(sent, outer=d.depth > 1),
            operands=self._operands(link),
            gradient=self.gallery.add(link.gradient),
            entries=self._entries(link),
            code=self.excerpt.of(link),
        )

    def _to_the_loss(self, link: Link) -> str:
        if len(self.links) > text.LONGEST_COMBINED or not any(x is link.node for x in self.wanted):
            return ""
        formula = self.derivation.combined(link.node)
        if formula is None or not self.derivation.upstream(link.node):
            return ""
        written = self.derivation.written(formula, "latex")
        return f"{latex_gradient(link.name)} = {written} \\in {latex.space(link.gradient.shape)}"

    # --- the picture of a formula

    def _operands(self, link: Link) -> list[Operand]:
        if link.formula is None:
            return []
        ratio, x = identities.coefficient(link.formula)
        front = "" if ratio.value == 1 else constant(ratio, "text").text
        if isinstance(x.op, Contraction):
            return self._joined(x.inputs, front, "@")
        if x.op in (elementwise.gate, elementwise.mul) and all(i.constant is None for i in x.inputs):
            return self._joined(x.inputs, front, "×")
        if x.op is reduction.sum_ and x.inputs[0].constant is None:
            return [self._operand(x.inputs[0], f"{front} Σ".strip())]
        symbols = [n for n in ancestors([x]) if n.op is None and n.constant is None]
        return [self._operand(n, joined=False) for n in symbols[:4]]

    def _joined(self, inputs: Sequence[Any], front: str, sign: str) -> list[Operand]:
        return [self._operand(x, sign if position else front) for position, x in enumerate(inputs)]

    def _operand(self, x: Any, sign: str = "", *, joined: bool = True) -> Operand:
        name, written = self.derivation.written(x), self.derivation.written(x, "latex")
        if len(name) > _LONGEST_LABEL:
            name, written = "this factor", r"\cdots"
        return Operand(
            name=name, latex=written, picture=self.gallery.add(self.derivation.value(x)), sign=sign, joined=joined
        )

    # --- entries

    def _entries(self, link: Link) -> dict[str, dict[str, Any]]:
        if not any(x is link.node for x in self.wanted) or link.formula is None or not link.gradient.ndim:
            return {}
        size = np.where(np.isfinite(link.gradient), np.abs(link.gradient), np.inf).reshape(-1)
        largest = np.argsort(-size, kind="stable")[:_ENTRIES]
        chosen = [tuple(int(i) for i in np.unravel_index(p, link.gradient.shape)) for p in largest.tolist()]
        asked = self.asked.get(id(link.node))
        if asked is not None:
            chosen = [asked, *(at for at in chosen if at != asked)]
        found = {",".join(map(str, at)): terms_at(self.derivation, link.node, at) for at in chosen}
        return {index: text.terms_dict(terms) for index, terms in found.items() if terms is not None}


def _forward(derivation: Derivation, parts: Sequence[Any]) -> list[str]:
    """The steps as the forward ran them: s = r - y. Of what is folded or long, the line of the program."""
    found: dict[str, None] = {}
    for part in parts:
        step = part.step
        called = step.fold.place
        for out in step.outputs:
            name = derivation.name(out)
            formula = derivation.written(derivation.simplified(step.twins[id(out)]))
            if derivation.depth > 1 and len(formula) <= _LONGEST_FORWARD:
                found[f"{name} = {formula}"] = None
            elif called is not None and called.text:
                found[called.text] = None
    return list(found)[:_MOST_FORWARD]


def _lines(parts: Sequence[Any], outer: bool) -> list[tuple[str, int, bool]]:
    """Where a link's steps were called, where inside them its ops stand and, if `outer`, what called the caller."""
    found: dict[tuple[str, int], bool] = {}
    for part in parts:
        called: Place | None = part.step.fold.place
        if called is not None:
            found[called.file, called.line] = True
        for node in part.step.fold.nodes:
            for near in _around(node, called, outer):
                found.setdefault((near.file, near.line), False)
    return [(file, line, here) for (file, line), here in found.items()]


def _around(node: Node, called: Place | None, outer: bool) -> list[Place]:
    """The user's calls from an op out to the call of its step, and one further if `outer`."""
    places = [place(call) for call in user_calls(node.trail)]
    if called is None or called not in places:
        return places[:1]
    return places[: places.index(called) + 1 + outer]


# --- the program

_WHOLE = 400  # lines; of a longer file, what lies around the lines touched
_AROUND = 8


def _sources(views: Sequence[View], program: str | Path | None) -> list[Source]:
    touched: dict[str, set[int]] = {} if program is None else {str(program): set()}
    for file, line, _ in (x for view in views for step in view.steps for x in step.lines):
        touched.setdefault(file, set()).add(line)
    sources = []
    for file, numbers in touched.items():
        lines = [line.rstrip("\n") for line in linecache.getlines(file)]
        if not lines:
            continue
        shown = range(1, len(lines) + 1)
        kept = [n for n in shown if len(lines) <= _WHOLE or any(abs(n - t) <= _AROUND for t in numbers)]
        sources.append(Source(file, [(n, lines[n - 1]) for n in kept]))
    return sources
