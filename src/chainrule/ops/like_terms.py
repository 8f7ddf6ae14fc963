"""Identities that bring sums and products together: 2 x + x, x / y · y, a x + a y. See `identities`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from chainrule.core.node import Ratio
from chainrule.ops import elementwise
from chainrule.ops.algebra import UNIT, coefficient, constant_of, filled, scalar

_LONGEST = 24  # terms or factors; a longer chain is left as it is
_NODES = 60  # how much of two expressions is compared before they count as different


def same(x: Any, y: Any) -> bool:
    """Are two expressions the same, op by op, over the same symbols?"""
    pending, left = [(x, y)], _NODES
    while pending:
        a, b = pending.pop()
        left -= 1
        if a is b:
            continue
        if left < 0 or a.op is not b.op or a.aval != b.aval:
            return False
        if a.op is None:
            if a.constant is None or a.constant != b.constant:
                return False
            continue
        if dict(a.params) != dict(b.params):
            return False
        pending += zip(a.inputs, b.inputs, strict=True)
    return True


def _terms(x: Any, sign: float, shape: tuple[int, ...]) -> Iterator[tuple[Ratio, Any]]:
    """(coefficient, term) of every term of a sum."""
    pending = [(x, sign)]
    while pending:
        x, sign = pending.pop()
        if x.op in (elementwise.add, elementwise.sub) and x.aval.shape == shape:
            a, b = x.inputs
            pending += [(b, sign if x.op is elementwise.add else -sign), (a, sign)]
        elif x.op is elementwise.neg:
            pending.append((x.inputs[0], -sign))
        else:
            a, term = coefficient(x)
            yield Ratio(sign * a.numerator, a.denominator), term


def like_terms(node: Any) -> Any:
    """A x + b x = (a + b) x, x - x = 0, wherever in a sum the two stand."""
    if node.op not in (elementwise.add, elementwise.sub):
        return None
    terms = list(_terms(node, 1.0, node.aval.shape))
    if len(terms) > _LONGEST:
        return None
    for i, (a, x) in enumerate(terms):
        for j in range(i + 1, len(terms)):
            b, y = terms[j]
            if constant_of(x) is None and x.aval == y.aval and same(x, y):
                kept = [*terms[:i], (_plus(a, b), x), *terms[i + 1 : j], *terms[j + 1 :]]
                return _sum([t for t in kept if t[0].numerator], node)
    return None


def _plus(a: Ratio, b: Ratio) -> Ratio:
    if a.denominator == b.denominator:
        return Ratio(a.numerator + b.numerator, a.denominator)
    return Ratio(a.numerator * b.denominator + b.numerator * a.denominator, a.denominator * b.denominator)


def _sum(terms: list[tuple[Ratio, Any]], node: Any) -> Any:
    total: Any = None
    for a, x in sorted(terms, key=lambda term: term[0].numerator < 0 and term is terms[0]):
        size = Ratio(abs(a.numerator), a.denominator)
        part = x if size.value == 1 else elementwise.mul(scalar(x, size), x)
        if total is None:
            total = elementwise.neg(part) if a.numerator < 0 else part
        else:
            total = elementwise.sub(total, part) if a.numerator < 0 else elementwise.add(total, part)
    if total is None:
        return filled(node, Ratio(0))
    return total if total.aval == node.aval else None


def _factors(x: Any, above: list[Any], below: list[Any]) -> None:
    """The factors of a product or quotient of arrays of one shape: those above the line, those below."""
    pending = [(x, False)]
    while pending:
        node, under = pending.pop()
        if node.op is elementwise.mul and all(i.aval.shape == x.aval.shape for i in node.inputs):
            pending += [(node.inputs[1], under), (node.inputs[0], under)]
        elif node.op is elementwise.div and node.inputs[1].aval.shape == x.aval.shape:
            pending += [(node.inputs[1], not under), (node.inputs[0], under)]
        else:
            (below if under else above).append(node)


def quotients_cancel(node: Any) -> Any:
    """X / y · y = x, x² / x = x, for finite x and y that are not 0."""
    if node.op not in (elementwise.mul, elementwise.div):
        return None
    above: list[Any] = []
    below: list[Any] = []
    _factors(node, above, below)
    if not below or len(above) + len(below) > _LONGEST:
        return None
    for i, x in enumerate(above):
        for j, y in enumerate(below):
            top, bottom = _cancelled(x, y)
            if top is not None or bottom is not None or same(x, y):
                above[i : i + 1] = [] if top is None else [top]
                below[j : j + 1] = [] if bottom is None else [bottom]
                return _quotient(above, below, node)
    return None


def _cancelled(x: Any, y: Any) -> tuple[Any, Any]:
    """What is left of x / y above and below the line, where one is the square of the other."""
    if x.op is elementwise.square and same(x.inputs[0], y):
        return y, None
    if y.op is elementwise.square and same(y.inputs[0], x):
        return None, x
    return None, None


def _quotient(above: list[Any], below: list[Any], node: Any) -> Any:
    if not above:
        if not below:
            return filled(node, UNIT)
        above = [scalar(node, UNIT)]
    product = above[0]
    for x in above[1:]:
        product = elementwise.mul(product, x)
    for y in below:
        product = elementwise.div(product, y)
    if product.constant is not None:
        return filled(node, product.constant)
    return product if product.aval == node.aval else None


def common_factor(node: Any) -> Any:
    """A x - a y = a (x - y), a x + a y = a (x + y), for a number a."""
    if node.op in (elementwise.add, elementwise.sub):
        (a, x), (b, y) = (coefficient(i) for i in node.inputs)
        if a == b and a != UNIT and x.aval.shape == y.aval.shape:
            return elementwise.mul(scalar(node, a), node.op(x, y))
    return None
