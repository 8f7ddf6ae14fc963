"""One entry of a gradient in the run's numbers: the sum it is, term by term, and where its largest terms come from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from chainrule.core.family import Contraction, Reduction
from chainrule.core.node import Node, ancestors
from chainrule.explain.derivation import Derivation
from chainrule.explain.entries import ELLIPSIS, Entry, Index, indexed, source_index
from chainrule.ops import elementwise, identities, movement, reduction


@dataclass(frozen=True)
class Term:
    """One term of a sum: its factors as (what, value), its value, and how its gradient factor came about."""

    index: tuple[int, ...]
    factors: tuple[tuple[str, float], ...]
    value: float
    opened: str | None = None


@dataclass(frozen=True)
class Terms:
    """One entry of a gradient as the sum it is.

    over: what the sum runs over, in words. terms: the largest ones. rest: the sum of the others.
    """

    value: float
    formula: str
    over: str
    count: int
    nonzero: int
    terms: tuple[Term, ...]
    rest: float


def terms_at(derivation: Derivation, node: Node, at: tuple[int, ...], largest: int = 3) -> Terms | None:
    """The entry `at` of a gradient, term by term; None where its formula is not a sum or product of arrays."""
    link = derivation.link(node)
    if link.formula is None:
        return None
    return _Opened(derivation).at(link.formula, at, float(link.gradient[at]), f"{link.name}.grad", largest)


class _Opened:
    """Opens one entry of an expression of a derivation into numbers."""

    def __init__(self, derivation: Derivation) -> None:
        self.derivation = derivation

    def at(self, expression: Any, at: tuple[int, ...], value: float, name: str, largest: int) -> Terms:
        sign, inner = _peeled(expression)
        index = tuple(str(i) for i in at)
        if not isinstance(inner.op, Contraction | Reduction) or (
            isinstance(inner.op, Reduction) and inner.op is not reduction.sum_
        ):
            text = Entry(self._valued, self._total).write(expression, index)
            return Terms(value, text, "", 1, int(value != 0), (), 0.0)
        factors, over = self._factor_arrays(inner, at)
        product = sign * np.prod([array for _, array, _ in factors], axis=0)
        flat = product.reshape(-1)
        order = np.argsort(-np.abs(flat), kind="stable")[:largest]
        shape = product.shape
        chosen = []
        for position in order.tolist():
            where = tuple(int(i) for i in np.unravel_index(position, shape)) if shape else ()
            named = []
            opened = None
            for operand, array, full_index in factors:
                entry = full_index(where)
                named.append((self._label(operand, entry), float(array[where])))
                opened = opened or self._story(operand, entry)
            chosen.append(Term(where, tuple(named), float(flat[position]), opened))
        formula = Entry(indexed).write(expression, index)
        rest = float(flat.sum() - flat[order].sum())
        return Terms(value, formula, over, flat.size, int(np.count_nonzero(flat)), tuple(chosen), rest)

    def _factor_arrays(self, x: Any, at: tuple[int, ...]) -> tuple[list[Any], str]:
        """The factors of each term as arrays over the summed dimensions, with the way back to their own indices."""
        if isinstance(x.op, Contraction):
            a, b = x.inputs
            a_letters, b_letters, out = x.op.subscripts(a.aval, b.aval, **x.params)
            fixed = dict(zip(out, at, strict=True))
            summed = [c for c in dict.fromkeys(a_letters + b_letters) if c not in fixed]
            sizes = {
                **dict(zip(a_letters, a.aval.shape, strict=True)),
                **dict(zip(b_letters, b.aval.shape, strict=True)),
            }
            factors = []
            for operand, own in ((a, a_letters), (b, b_letters)):
                array = self._array(operand)
                picked = array[tuple(fixed.get(c, slice(None)) for c in own)]
                present = [c for c in own if c in summed]
                picked = np.transpose(picked, [present.index(c) for c in summed if c in present])
                picked = picked.reshape([sizes[c] if c in present else 1 for c in summed])
                picked = np.broadcast_to(picked, [sizes[c] for c in summed])

                def back(where: tuple[int, ...], own: str = own) -> tuple[int, ...]:
                    return tuple(fixed[c] if c in fixed else where[summed.index(c)] for c in own)

                factors.append((operand, picked, back))
            return factors, _counted([sizes[c] for c in summed], self._dimension_word(x))
        (inner,) = x.inputs
        dims, keep = x.params["dim"], x.params["keepdim"]
        rest = iter([i for d, i in enumerate(at) if not (keep and d in dims)])
        picks = tuple(slice(None) if d in dims else next(rest) for d in range(inner.aval.ndim))
        picked = self._array(inner)[picks]

        def back_sum(where: tuple[int, ...]) -> tuple[int, ...]:
            place = iter(where)
            return tuple(next(place) if isinstance(p, slice) else p for p in picks)

        return [(inner, picked, back_sum)], _counted(
            [inner.aval.shape[d] for d in dims], "rows" if tuple(dims) == (0,) else "entries"
        )

    def _dimension_word(self, x: Any) -> str:
        """Rows, where the sum runs over the first dimension of what a transpose turned."""
        a = x.inputs[0]
        return "rows" if a.op is movement.permute and a.aval.ndim == 2 else "terms"

    def _array(self, operand: Any) -> np.ndarray:
        return self.derivation.exact(operand)

    def _label(self, operand: Any, at: tuple[int, ...]) -> str:
        return Entry(indexed).write(operand, tuple(str(i) for i in at))

    def _story(self, operand: Any, at: tuple[int, ...]) -> str | None:
        """How a gradient that is a factor came about: its own formula, one entry of it, in numbers."""
        symbol, index = _leaf_behind(operand, tuple(str(i) for i in at))
        if symbol is None or not self.derivation.is_cotangent(symbol):
            return None
        node = self.derivation.meaning(symbol)
        assert node is not None
        formula = self.derivation.link(node).formula
        for _ in range(8):  # through elementwise steps, to where numbers of different places meet
            if formula is None or _mixes(formula):
                break
            inner = [s for s in _symbols(formula) if self.derivation.is_cotangent(s)]
            source = self.derivation.meaning(inner[0]) if len(inner) == 1 else None
            deeper = self.derivation.link(source).formula if source is not None else None
            if deeper is None:
                break
            formula = self.derivation.substituted(formula, inner[0], deeper)
        if formula is None:
            return None
        written = Entry(self._valued, self._total).write(formula, index)
        return None if written == ELLIPSIS else f"{indexed(symbol, index)} = {written}"

    def _valued(self, symbol: Node, index: Index) -> str:
        value = self.derivation.value(symbol)[tuple(int(i) for i in index)]
        return f"{float(value):.6g} ({indexed(symbol, index)})"

    def _total(self, x: Any, index: Index) -> str:
        value = self._array(x)[tuple(int(i) for i in index)]
        return f"{float(value):.6g} ({Entry(indexed).write(x, index)})"


def _peeled(x: Any) -> tuple[float, Any]:
    """(a, y) where x = a · y for a number a: signs and coefficients taken off."""
    factor = 1.0
    while True:
        if x.op is elementwise.neg:
            factor, x = -factor, x.inputs[0]
            continue
        ratio, inner = identities.coefficient(x)
        if inner is x:
            return factor, x
        factor, x = factor * ratio.value, inner


def _leaf_behind(x: Any, index: Index) -> tuple[Any, Index]:
    """The symbol, and its index, that an entry of a moved array is an entry of."""
    while x.op is not None:
        moved = source_index(x, index)
        if moved is None:
            return None, index
        x, index = x.inputs[0], moved
    return (None, index) if x.constant is not None else (x, index)


def _mixes(x: Any) -> bool:
    return any(isinstance(n.op, Contraction | Reduction) for n in _everything(x))


def _symbols(x: Any) -> list[Any]:
    return [n for n in _everything(x) if n.op is None and n.constant is None]


def _everything(x: Any) -> list[Any]:
    return ancestors([x])


def _counted(sizes: list[int], word: str) -> str:
    count = int(np.prod(sizes)) if sizes else 1
    return f"{count:,} {word}"
