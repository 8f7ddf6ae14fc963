"""The chain rule of one run, link by link, in symbols: the rules that ran, run again on symbols, then simplified.

A `Link` says how one value gets its gradient from the gradients of the values made from it. Nothing here states a
derivative: `pull` walks the user's graph with every value replaced by its name, and the algebra in `ops.identities`
makes what comes out readable. Each formula is evaluated on the recorded values and held against the engine's gradient.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from chainrule import dtypes
from chainrule.autodiff.evaluate import evaluate
from chainrule.autodiff.reverse import pull
from chainrule.core.family import Opaque
from chainrule.core.fold import Fold
from chainrule.core.node import RECORD, Node, Ratio, ancestors, recording
from chainrule.core.notation import Style
from chainrule.core.rewrite import rewrite
from chainrule.explain.record import Run, outputs_of
from chainrule.explain.spelling import latex_gradient, latex_name, python_name
from chainrule.ops import comparison, identities
from chainrule.ops.printing import size, write

# A formula agrees with the engine when it is within this relative error; float32 rounding over sums of thousands of
# terms in another order stays a hundred times below it.
AGREES = {"float16": 2e-2, "bfloat16": 1e-1, "float32": 1e-4, "float64": 1e-10}


_EPSILON = 1e-7
_LONGEST = 4000  # ops and values; a longer formula says nothing to a reader


@dataclass(eq=False)
class Step:
    """One fold as a function of the values that enter it.

    outputs: the values it hands on. twins: every value in it, by the id of its node, as an expression of the values
        that enter; inside too, a value that is handed on is written by its name.
    """

    fold: Fold
    outputs: list[Node]
    twins: dict[int, Any]


@dataclass(eq=False)
class Part:
    """What one step sends back to a value: a formula, or None where the rule cannot be written in symbols.

    as_sent: the formula as the rules wrote it, before it was put into the form a person would write.
    through: the step's results that the value is part of, and whose gradients come back to it.
    """

    step: Step
    formula: Any | None
    why_not: str | None = None
    as_sent: Any | None = None
    through: tuple[Node, ...] = ()


@dataclass(eq=False)
class Link:
    """How one value gets its gradient.

    node: the value. parts: one for each step that used it; the gradient is their sum.
    formula: that sum, simplified; None where a part has none.
    error: how far the formula, evaluated on the recorded values, is from the engine's gradient, relative to its size.
    """

    node: Node
    name: str
    parts: list[Part]
    formula: Any | None
    gradient: np.ndarray
    error: float | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def norm(self) -> float:
        return float(np.linalg.norm(self.gradient.astype(np.float64)))

    @property
    def agrees(self) -> bool | None:
        """Does the formula give the engine's gradient? None: it was not checked."""
        return None if self.error is None else self.error <= AGREES[str(self.gradient.dtype)]


class Derivation:
    """Every link of a run at one depth of folding."""

    def __init__(self, run: Run, depth: int) -> None:
        self.run, self.depth = run, depth
        self.steps: list[Step] = []
        self._symbols: dict[int, Any] = {}
        self._cotangents: dict[int, Any] = {}
        self._auto: dict[int, str] = {}
        self._values: dict[int, np.ndarray] = {}
        self._meaning: dict[int, Node] = {}
        self.names_used: set[str] = {n for x in (*run.nodes, *run.leaves) if (n := run.name(x))} | run.variables
        self._links: dict[int, Link] = {}
        self._combined: dict[int, Any | None] = {}
        self._consumers: dict[int, list[Step]] = {}
        self._producer: dict[int, Step] = {}
        for fold in run.tree.opened(depth):
            self._step(fold)

    # --- names and symbols

    def name(self, node: Node) -> str:
        """What a value is called: the user's name, else one made from the step that gives it."""
        given = self.run.name(node)
        if given is not None:
            return given
        if id(node) not in self._auto:
            self._auto[id(node)] = self._invented(node)
        return self._auto[id(node)]

    def made_up(self) -> list[tuple[str, Node]]:
        """The names that were made here, and what they stand for."""
        meant = {id(node): node for node in self._meaning.values()}
        return [(name, meant[key]) for key, name in self._auto.items() if key in meant]

    def _invented(self, node: Node) -> str:
        if node.op is None:
            base = "c"
        else:
            step = self.producer(node)
            called = step is not None and step.fold.kind in ("function", "module")
            named = step.fold.name.replace(": ", "_") if step is not None and called else node.op.name[0]
            base = named if named.isidentifier() else "_".join(reversed(named.split("_", 1))) if "_" in named else "h"
        name, count = base, 1
        while name in self.names_used:
            count += 1
            name = f"{base}{count}" if len(base) == 1 else f"{base}.{count}"
        self.names_used.add(name)
        return name

    def symbol(self, node: Node) -> Any:
        """The symbol a value is written as; a known number stays a number."""
        if id(node) not in self._symbols:
            if node.constant is not None and node.op is None and self.run.name(node) is None:
                found = type(node).number(node.aval, node.constant)
            elif node.origin is not None and node.op is None and self.run.name(node) is None:
                op, source, params = node.origin
                found = type(node).applied(op, (self.symbol(source),), params, node.aval)
            else:
                found = type(node).symbolic(self.name(node), node.aval, requires_grad=node.requires_grad)
                if node.array is not None:
                    self._values[id(found)] = node.array
            self._symbols[id(node)] = found
            self._meaning.setdefault(id(found), node)
        return self._symbols[id(node)]

    def cotangent(self, node: Node) -> Any:
        """The symbol of a value's gradient, `out.g`; the loss's own is the number 1."""
        if id(node) not in self._cotangents:
            if node is self.run.loss and node.aval.size == 1:
                found = type(node).number(node.aval, Ratio(1))
            else:
                found = type(node).symbolic(f"{self.name(node)}.g", node.aval)
                gradient = self.run.gradient(node)
                if gradient is not None:
                    self._values[id(found)] = gradient
            self._cotangents[id(node)] = found
            self._meaning[id(found)] = node
        return self._cotangents[id(node)]

    def meaning(self, symbol: Node) -> Node | None:
        """The recorded node that a symbol stands for, or whose gradient it is."""
        return self._meaning.get(id(symbol))

    def is_cotangent(self, symbol: Node) -> bool:
        """Is this symbol a value's gradient, rather than a value?"""
        node = self._meaning.get(id(symbol))
        return node is not None and self._cotangents.get(id(node)) is symbol

    def value(self, expression: Any, dtype: np.dtype | None = None) -> np.ndarray:
        """An expression of symbols, evaluated on the recorded values."""
        return evaluate(expression, self._values, dtype)

    def exact(self, expression: Any) -> np.ndarray:
        """The same in float64; but in the precision of the run where something computed is asked for equality.

        Which entry is the largest is a matter of the digits that there were.
        """
        asks = any(x.op is comparison.eq and any(y.op is not None for y in x.inputs) for x in ancestors([expression]))
        return self.value(expression, None if asks else np.dtype(np.float64))

    # --- steps and links

    def _step(self, fold: Fold) -> None:
        """The fold's ops on symbols: the values that enter become symbols, those inside stay expressions of them.

        A value that is handed on and read inside as well is a symbol there too: its gradient, which is asked for by
        name, already holds what comes back through those readers.
        """
        twins: dict[int, Any] = {}
        step = Step(fold, outputs_of(fold.nodes, self.run), twins)
        self._adopt(step)
        handed_on = {id(x) for x in step.outputs}
        for node in fold.nodes:
            for x in node.inputs:
                if id(x) not in twins:
                    twins[id(x)] = self.symbol(x)
            assert node.op is not None
            inputs = tuple(self.symbol(x) if id(x) in handed_on else twins[id(x)] for x in node.inputs)
            twins[id(node)] = type(node).applied(node.op, inputs, node.params, node.aval)
        for out in step.outputs:
            self._meaning[id(twins[id(out)])] = out

    def _adopt(self, step: Step) -> None:
        """Take a step into the derivation, so that its results can be named after it."""
        self.steps.append(step)
        for out in step.outputs:
            self._producer[id(out)] = step
        for x in {id(x) for op in step.fold.nodes for x in op.inputs}:
            self._consumers.setdefault(x, []).append(step)

    def consumers(self, node: Node) -> list[Step]:
        """The steps that read a value: those it enters, and the one that hands it on if it reads it as well."""
        return self._consumers.get(id(node), [])

    def producer(self, node: Node) -> Step | None:
        """The step that a value comes out of."""
        return self._producer.get(id(node))

    def link(self, node: Node) -> Link:
        """How this value gets its gradient, at this depth."""
        if id(node) not in self._links:
            self._links[id(node)] = self._derive(node)
        return self._links[id(node)]

    def _derive(self, node: Node) -> Link:
        gradient = self.run.gradient(node)
        assert gradient is not None, "a link is asked for a value that the loss depends on"
        parts = [self._part(step, node) for step in self.consumers(node)]
        parts = [p for p in parts if p.formula is not None or p.why_not]
        link = Link(node, self.name(node), parts, None, gradient)
        if not parts or any(p.formula is None for p in parts):
            return link
        # Identities for reading hold for finite numbers; where this run has others, the formula stays as it came.
        for terms, known in (
            ([p.formula for p in parts], identities.ALL),
            ([p.as_sent for p in parts], identities.ALWAYS),
        ):
            formula: Any = terms[0]
            for term in terms[1:]:
                formula = formula + term
            link.formula = rewrite(formula, known)
            link.error = self._error(link.formula, gradient)
            if link.agrees:
                break
        return link

    def _error(self, formula: Any, gradient: np.ndarray) -> float:
        """How far a formula is from a gradient, relative to its size, or to that of terms that cancel in it."""
        found = self.exact(formula)
        error = relative_error(found, gradient)
        if error <= AGREES[str(gradient.dtype)] or not np.isfinite(error):
            return error
        # Values that move by one rounding error move the formula by its rounding error: that is the size of the terms.
        rng = np.random.default_rng(0)
        moved = {
            key: v * (1.0 + _EPSILON * rng.choice((-1.0, 1.0), v.shape)) if v.dtype.kind == "f" else v
            for key, v in ((key, np.asarray(v)) for key, v in self._values.items())
        }
        terms = float(np.max(np.abs(evaluate(formula, moved, np.dtype(np.float64)) - found), initial=0.0)) / _EPSILON
        size = size_of(gradient)
        return error * size / max(size, terms)

    def _part(self, step: Step, node: Node) -> Part:
        """What a step sends back to one value that enters it: `pull`, on symbols."""
        target = self.symbol(node)
        through = tuple(
            x for x in step.outputs if self.run.gradient(x) is not None and _holds(step.twins[id(x)], target)
        )
        roots = [(step.twins[id(x)], self.cotangent(x)) for x in through]
        try:
            found = recording(RECORD, pull, roots, [target]).get(id(target))
        except Exception as error:
            if not any(isinstance(x.op, Opaque) for x in step.fold.nodes):
                raise
            return Part(step, None, f"a backward written outside tensors: {error}", through=through)
        if found is None:
            return Part(step, None)
        # What the rules mention of the step's own results is written by name, as a value the reader knows.
        outputs = {id(step.twins[id(out)]): self.symbol(out) for out in step.outputs}
        sent = rewrite(found, (), outputs)
        return Part(step, self.simplified(sent), as_sent=sent, through=through)

    def simplified(self, expression: Any) -> Any:
        """The expression in the form a person would write."""
        return rewrite(expression, identities.ALL)

    def combined(self, node: Node) -> Any | None:
        """The gradient of a value in values alone: each `.g` replaced by its own formula, back to the loss."""
        # From the loss down, on a list: a chain may be longer than Python's stack is deep.
        pending = [node]
        while pending:
            last = pending[-1]
            if id(last) in self._combined:
                pending.pop()
                continue
            missing = [x for x in self.upstream(last) if id(x) not in self._combined]
            if missing:
                pending += missing
            else:
                self._combined[id(last)] = self._combine(last)
        return self._combined[id(node)]

    def upstream(self, node: Node) -> list[Node]:
        """The values whose gradients the formula of a link reads."""
        formula = self.link(node).formula
        symbols = [] if formula is None else ancestors([formula])
        found = [self.meaning(s) for s in symbols if s.op is None and s.constant is None and self.is_cotangent(s)]
        return [x for x in found if x is not None]

    def _combine(self, node: Node) -> Any | None:
        formula = self.link(node).formula
        above = {id(self.cotangent(x)): self._combined[id(x)] for x in self.upstream(node)}
        if formula is None or any(inner is None for inner in above.values()):
            return None
        return self.simplified(rewrite(formula, (), above))

    def substituted(self, expression: Any, symbol: Node, inner: Any) -> Any:
        """The expression with a symbol replaced by what it stands for."""
        return self.simplified(rewrite(expression, (), {id(symbol): inner}))

    def path(self, wrt: Node) -> list[Link]:
        """The links from the loss back to `wrt`: every value between steps on a way from it to the loss."""
        depends = {id(wrt)}
        for node in self.run.nodes:
            if any(id(x) in depends for x in node.inputs):
                depends.add(id(node))
        between = [
            out for step in self.steps for out in step.outputs if id(out) in depends and out is not self.run.loss
        ]
        between = [x for x in between if self.consumers(x) and self.run.gradient(x) is not None and x is not wrt]
        between.sort(key=lambda x: x.made, reverse=True)
        return [self.link(x) for x in (*between, wrt)]

    def written(self, expression: Any, style: Style | Literal["spoken"] = "text") -> str:
        """An expression of symbols as text; "spoken" is code with the names as a person says them, out.g.

        Raises: LookupError: an op has no form in this style, or the formula is too long for code.
        """
        plain: Style = "code" if style == "spoken" else style

        def named(x: Node) -> str | None:
            if x.op is not None or x.constant is not None or x.symbol is None:
                return None
            return x.symbol if style == "spoken" else self._styled(x, plain)

        count = size(expression, named)
        if count > _LONGEST:
            if plain in ("code", "numpy"):
                raise LookupError(f"a formula of {count:,} ops and values is too long to be written as code")
            return r"\cdots" if plain == "latex" else f"(a formula of {count:,} ops and values)"
        return write(expression, plain, named)

    def _styled(self, x: Node, style: Style) -> str:
        """A value's name in a style: `w1` is w with index 1 in LaTeX, `out.g` is out_g in code."""
        symbol = str(x.symbol)
        if style == "latex":
            node = self.meaning(x)
            if node is not None and self.is_cotangent(x):
                return latex_gradient(self.name(node), self.name(self.run.loss))
            return latex_name(symbol)
        return python_name(symbol) if style in ("code", "numpy") else symbol


def _holds(expression: Any, symbol: Any) -> bool:
    """Does an expression mention a symbol?"""
    return any(x is symbol for x in ancestors([expression]))


def size_of(values: np.ndarray) -> float:
    """The largest finite size, or the smallest number of full precision: below it a float loses its digits."""
    smallest = float(dtypes.finfo(values.dtype).smallest_normal) if dtypes.is_float(values.dtype) else 0.0
    values = values.astype(np.float64)
    return float(np.max(np.abs(values[np.isfinite(values)]), initial=smallest))


def relative_error(found: np.ndarray, wanted: np.ndarray) -> float:
    """The largest deviation, relative to the largest entry wanted; nan and inf must agree in place."""
    size = size_of(wanted)
    found, wanted = found.astype(np.float64), wanted.astype(np.float64)
    if found.shape != wanted.shape:
        return float("inf")
    finite = np.isfinite(wanted)
    if not np.array_equal(finite, np.isfinite(found)) or not np.array_equal(
        wanted[~finite], found[~finite], equal_nan=True
    ):
        return float("inf")
    if not finite.any():
        return 0.0
    off = np.max(np.abs(found[finite] - wanted[finite]))
    return float(off / size) if size else float(off)
