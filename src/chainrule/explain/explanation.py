"""`cr.explain`: why a gradient is what it is, as a value that prints, and that can be asked for more."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from chainrule.autodiff.check import CheckReport, check_rules
from chainrule.core.node import Node, at_user_line
from chainrule.core.provenance import is_ours
from chainrule.errors import ArgumentError, OutOfRangeError
from chainrule.explain import html, latex, text
from chainrule.explain.derivation import Derivation, Link
from chainrule.explain.measured import NumberCheck, measure
from chainrule.explain.reasons import Reason, gate_notes, reasons
from chainrule.explain.recomputed import recomputed
from chainrule.explain.record import Run
from chainrule.explain.terms import Terms, terms_at

ChainNotation = Literal["leibniz", "composition"]


class Explanation:
    """Why the gradient of a loss with respect to one value is what it is.

    Printing it shows the chain rule of this run: each link with its rule, its shapes and numbers, re-evaluated; the
    combined formula; the reasons for sums and transposes; a check against finite differences.

    Attributes:
        value: the gradient, as a NumPy array. links: from the loss back to the value. terms: one entry, term by term.
        recomputed: of a compiled function's loss, how it was computed again; else empty.
    """

    def __init__(
        self, run: Run, wrt: Node, at: tuple[int, ...] | None, depth: int, lines: int, notation: ChainNotation,
        recomputed: str = "",
    ) -> None:  # fmt: skip
        self.run, self.wrt, self.at, self.depth, self.lines, self.notation = run, wrt, at, depth, lines, notation
        self.recomputed = recomputed
        run.asked.add(id(wrt))
        self.derivation = Derivation(run, depth)
        self.links: list[Link] = self.derivation.path(wrt)
        self.name = self.derivation.name(wrt)
        self.loss_name = self.derivation.name(run.loss)
        self.value = self.links[-1].gradient
        self.terms: Terms | None = terms_at(self.derivation, wrt, at) if at is not None else None
        self.reasons: list[Reason] = [r for link in reversed(self.links) for r in reasons(self.derivation, link)]
        for link in self.links:
            link.notes = gate_notes(self.derivation, link)

    @property
    def combined(self) -> Any | None:
        """The gradient in values alone, as an expression; None for a chain too long to be read in one line."""
        if not hasattr(self, "_combined"):
            self._combined = self.derivation.combined(self.wrt) if len(self.links) <= text.LONGEST_COMBINED else None
        return self._combined

    @property
    def checked(self) -> NumberCheck | str:
        """The gradient against finite differences of the loss; or, in words, why it was not measured."""
        if not hasattr(self, "_checked"):
            self._checked = measure(
                self.run, self.wrt, self.name, self.at, self.value, max(link.norm for link in self.links)
            )
        return self._checked

    def check(self) -> CheckReport:
        """Every rule that ran, held against central differences on its own recorded values."""
        return check_rules(self.run.loss)

    def unfold(self, n: int = 1) -> Explanation:
        """The same gradient with the steps opened `n` levels further: functions into ops."""
        return Explanation(
            self.run, self.wrt, self.at, self.depth + n, self.lines, self.notation, self.recomputed
        )  # fmt: skip

    def __str__(self) -> str:
        return text.explanation(self, text.terminal_width())

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return html.explanation(self)

    def latex(self) -> str:
        """The combined formula in LaTeX, with the space it lives in; the last link's where it is too long."""
        return latex.explanation(self)

    def json(self) -> str:
        """The whole explanation as JSON: names, formulas in three styles, shapes, norms, errors, reasons."""
        return json.dumps(self.as_dict(), indent=2)

    def as_dict(self) -> dict[str, Any]:
        """The whole explanation as plain Python values."""
        d = self.derivation
        combined = self.combined
        return {
            "wrt": self.name,
            "shape": list(self.value.shape),
            "dtype": str(self.value.dtype),
            "loss": {"name": d.name(self.run.loss), "value": float(np.asarray(self.run.loss.array).reshape(-1)[0])},
            "at": list(self.at) if self.at is not None else None,
            "norm": self.links[-1].norm,
            "links": [self._link_dict(link) for link in self.links],
            "combined": self._in_styles(combined),
            "reasons": [{"title": r.title, "lines": list(r.lines)} for r in self.reasons],
            "checked": self._checked_dict(),
            **({"recomputed": self.recomputed} if self.recomputed else {}),
            "entry": None if self.terms is None else text.terms_dict(self.terms),
        }

    def _checked_dict(self) -> dict[str, Any]:
        c = self.checked
        if isinstance(c, str):
            return {"not_measured": c}
        return {"what": c.what, "stated": c.stated, "measured": c.measured, "error": c.error, "agrees": c.agrees}

    def _in_styles(self, formula: Any | None) -> dict[str, str | None] | None:
        """A formula as text, LaTeX and code; None for a form that it does not have."""
        if formula is None:
            return None
        found: dict[str, str | None] = {}
        for style in ("text", "latex", "code"):
            try:
                found[style] = self.derivation.written(formula, style)
            except LookupError:
                found[style] = None
        return found

    def _link_dict(self, link: Link) -> dict[str, Any]:
        return {
            "name": link.name,
            "steps": [
                {"name": p.step.fold.name, "kind": p.step.fold.kind, "place": str(p.step.fold.place or "")}
                for p in link.parts
            ],
            "formula": self._in_styles(link.formula),
            "shape": list(link.gradient.shape),
            "norm": link.norm,
            "error": link.error,
            "agrees": link.agrees,
            "notes": list(link.notes),
        }

    def save(self, path: str | Path) -> Path:
        """Write the explanation as one self-contained HTML page, and say where it is."""
        target = Path(path)
        if target.suffix.lower() not in (".html", ".htm"):
            raise at_user_line(ArgumentError(f"save: expected a path that ends in .html; got {str(path)!r}"))
        html.write_page(target, html.page([self]))
        return target


def explain(
    loss: Any, wrt: Any, at: Any = None, depth: int = 1, lines: int = 40, notation: ChainNotation = "leibniz"
) -> Explanation:
    """Why the gradient of `loss` with respect to `wrt` is what it is.

    Args:
        loss: a scalar tensor; before or after `backward()`. Or what a compiled function returned, or the function: its
            last call is then computed again, op by op, on copies.
        wrt: a leaf or any value in between, or its name as a string.
        at: an index into `wrt`, to explain one entry term by term.
        depth: how far steps are opened: 1 shows the user's functions and modules, 2 and more open them into ops.
        lines: about how many lines to print at most; what is least worth showing folds first.
        notation: "leibniz" writes dy/dx = dy/du . du/dx, "composition" writes (g o f)'(x) = g'(f(x)) f'(x).
    Returns: an `Explanation`: print it, or ask it for `.unfold()`, `.latex()`, `.json()`, `.check()`,
        `.save("x.html")`.
    Raises:
        NoGradientError: the loss depends on nothing that requires a gradient. NotScalarError: it is not a scalar.
        DisconnectedError: the loss does not depend on `wrt`; the message says where the link is broken.
        OutOfRangeError: `at` is no index of `wrt`. StaleValueError: a value was changed in place since.
    """
    found = recomputed(loss, wrt)
    run = Run(found.loss, {**found.names, **caller_variables()})
    node = run.parameter(wrt)
    if depth < 1:
        raise at_user_line(ArgumentError(f"explain: depth must be 1 or more; got {depth}"))
    if notation not in ("leibniz", "composition"):
        raise at_user_line(ArgumentError(f"explain: notation must be 'leibniz' or 'composition'; got {notation!r}"))
    return Explanation(run, node, index_of(at, node, run), depth, lines, notation, found.says)


def index_of(at: Any, node: Node, run: Run) -> tuple[int, ...] | None:
    """An index into a value, each part from 0 up; None if none was asked for.

    Raises: OutOfRangeError: it is no index of the value.
    """
    if at is None:
        return None
    index = (at,) if isinstance(at, int) else tuple(at)
    shape = node.aval.shape
    name = run.name(node) or "the tensor"
    if len(index) != len(shape):
        raise at_user_line(
            OutOfRangeError(
                f"explain: at={index} has {len(index)} indices; {name} is {node.aval} and needs {len(shape)}"
            )
        )
    for d, (i, n) in enumerate(zip(index, shape, strict=True)):
        if not -n <= i < n:
            raise at_user_line(
                OutOfRangeError(
                    f"explain: at={index} is out of range: dimension {d} of {name} has size {n}; use 0 to {n - 1}"
                )
            )
    return tuple(i % n for i, n in zip(index, shape, strict=True))


def caller_variables() -> Mapping[str, Any]:
    """The variables of the user's code that called into the library: its own, then its module's."""
    frame: Any = sys._getframe(1)
    while frame is not None and is_ours(frame.f_code):
        frame = frame.f_back
    return {} if frame is None else {**frame.f_globals, **frame.f_locals}


def check(loss: Any) -> CheckReport:
    """Check every rule behind a loss against central differences in float64, on the values it ran on.

    Returns: a report that prints; `.passed`, `.wrong`, `.unchecked`, `.raise_for_errors()`.
    """
    return check_rules(Run(loss, {}).loss)
