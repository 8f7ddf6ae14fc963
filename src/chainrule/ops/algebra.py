"""Identities of arithmetic on expressions: numbers, coefficients, signs, powers and quotients.

Each is a function with its equation for a docstring: a node in, an equal node out, or None. See `identities`.
"""

from __future__ import annotations

import math
import operator
from typing import Any

import numpy as np

from chainrule import dtypes
from chainrule.core.aval import Aval
from chainrule.core.family import Elementwise
from chainrule.core.node import Ratio, compute
from chainrule.ops import comparison, contraction, elementwise, indexing, movement, reduction

UNIT = Ratio(1)
_EXACT = 2**53  # up to here a Python float holds every integer


def constant_of(x: Any) -> Ratio | None:
    """The number that every entry of `x` is, where that is known from how it was written."""
    ratio: Ratio | None = x.constant
    return ratio


def scalar(like: Any, value: Ratio) -> Any:
    """A scalar constant that stands for an array filled with it, as an operand of an elementwise op."""
    return type(like).number(Aval((), like.aval.dtype), value)


def filled(like: Any, value: Ratio) -> Any:
    """A constant with the shape of `like`."""
    return type(like).number(like.aval, value)


def held(like: Any, value: Any) -> Any:
    """A constant with the shape of `like`, of a number as its dtype holds it: 2.7 as an integer is 2."""
    dtype = like.aval.dtype
    if dtypes.is_float(dtype):
        return filled(like, Ratio(float(value)))
    number = int(np.asarray(value).astype(dtype))
    return filled(like, Ratio(number)) if abs(number) <= _EXACT else None


def _computed(like: Any, ratio: Ratio) -> Any:
    """A constant with the shape of `like`, where its dtype holds the number: integers wrap around, numbers do not."""
    dtype = like.aval.dtype
    if dtypes.is_float(dtype):
        return filled(like, ratio)
    if dtype == dtypes.bool_:
        return filled(like, Ratio(float(ratio.value != 0)))
    limits = np.iinfo(dtype)
    whole = math.isfinite(ratio.value) and ratio.value == int(ratio.value)
    fits = whole and limits.min <= ratio.value <= limits.max and abs(ratio.value) <= _EXACT
    return filled(like, ratio) if fits else None


def product(*ratios: Ratio) -> Ratio:
    """The product, reduced only where it is whole: 2/200 stays, 6/6 is 1."""
    numerator, denominator = 1.0, 1.0
    for ratio in ratios:
        numerator *= ratio.numerator
        denominator *= ratio.denominator
    if denominator not in (0, 1) and numerator % denominator == 0:
        return Ratio(numerator / denominator)
    return Ratio(numerator, denominator)


def is_number(x: Any, value: float) -> bool:
    """Is every entry of `x` known to be this number?"""
    ratio = constant_of(x)
    return ratio is not None and ratio.value == value


# --- constants


def known_leaf(node: Any) -> Any:
    """An array that holds one number everywhere is that number: what the rules made of numbers alone."""
    if node.op is not None or node.constant is not None or node.symbol or node.array is None:
        return None
    number = one_number(node.array)
    return None if number is None else filled(node, number)


def one_number(data: np.ndarray) -> Ratio | None:
    """The number that all entries of an array are, if they are one."""
    if not data.size or data.dtype.kind not in "fiub":
        return None
    first = data.flat[0]
    if data.flat[-1] != first or not (data == first).all():
        return None
    if first == 0 and data.dtype.kind == "f" and np.signbit(data).any():  # 1 / -0 is not 1 / 0
        return None
    return Ratio(float(first)) if abs(float(first)) <= _EXACT or data.dtype.kind == "f" else None


_COMPARED = {
    id(comparison.eq): operator.eq,
    id(comparison.ne): operator.ne,
    id(comparison.lt): operator.lt,
    id(comparison.le): operator.le,
    id(comparison.gt): operator.gt,
    id(comparison.ge): operator.ge,
}


def known_condition(node: Any) -> Any:
    """[2 > 0] is true, c and true = c, c or true = true, not true = false."""
    values = [constant_of(x) for x in node.inputs]
    if node.aval.dtype.kind != "b" or not any(v is not None for v in values):
        return None
    compare = _COMPARED.get(id(node.op))
    if compare is not None and values[0] is not None and values[1] is not None:
        return filled(node, Ratio(float(compare(values[0].value, values[1].value))))
    if node.op is comparison.bitwise_not and values[0] is not None:
        return filled(node, Ratio(1.0 - values[0].value))
    if node.op in (comparison.bitwise_and, comparison.bitwise_or):
        absorbing = 0.0 if node.op is comparison.bitwise_and else 1.0
        for known, other in ((0, 1), (1, 0)):
            value = values[known]
            if value is not None and value.value == absorbing:
                return filled(node, Ratio(absorbing))
            if value is not None and node.inputs[other].aval.shape == node.aval.shape:
                return node.inputs[other]
    return None


def known_choice(node: Any) -> Any:
    """where(true, x, y) = x, [true] x = x, [false] x = 0."""
    if node.op not in (elementwise.where, elementwise.gate):
        return None
    condition = constant_of(node.inputs[0])
    if condition is None:
        return None
    if node.op is elementwise.gate and not condition.value:
        return filled(node, Ratio(0))
    chosen = node.inputs[1 if condition.value else 2]
    if chosen.aval.shape == node.aval.shape:
        return chosen
    return filled(node, chosen.constant) if chosen.constant is not None else None


def constant_arithmetic(node: Any) -> Any:
    """2 · 3 = 6, 1 / 200 stays a fraction."""
    if not node.inputs or any(constant_of(x) is None for x in node.inputs):
        return None
    values = [constant_of(x) for x in node.inputs]
    match node.op, values:
        case elementwise.mul, [Ratio() as a, Ratio() as b]:
            return _computed(node, product(a, b))
        case elementwise.div, [Ratio() as a, Ratio() as b]:
            return _computed(node, product(a, Ratio(b.denominator, b.numerator))) if b.numerator else None
        case elementwise.neg, [Ratio() as a]:
            return _computed(node, product(a, Ratio(-1)))
        case elementwise.add, [Ratio() as a, Ratio() as b] if a.denominator == b.denominator:
            return _computed(node, Ratio(a.numerator + b.numerator, a.denominator))
        case elementwise.sub, [Ratio() as a, Ratio() as b] if a.denominator == b.denominator:
            return _computed(node, Ratio(a.numerator - b.numerator, a.denominator))
        case (
            (movement.expand | movement.reshape | movement.permute | movement.flip | movement.cast | movement.slice_),
            [Ratio() as a],
        ):
            return _computed(node, a)
        case _:
            return None


def whole_number(node: Any) -> Any:
    """0² = 0, √4 = 2, e⁰ = 1: a function of numbers that is a whole number; log 2 stays log 2."""
    if not isinstance(node.op, Elementwise) or not node.inputs or node.aval.dtype.kind != "f":
        return None
    values = [constant_of(x) for x in node.inputs]
    arrays = [np.asarray(v.value, x.aval.dtype) for v, x in zip(values, node.inputs, strict=True) if v is not None]
    if len(arrays) < len(values):
        return None
    found = float(compute(node.op, [a.astype(np.float64) if a.dtype.kind == "f" else a for a in arrays], node.params))
    return filled(node, Ratio(found)) if found.is_integer() and abs(found) <= _EXACT else None


def sum_of_constant(node: Any) -> Any:
    """Σ a over n entries = n · a, and the mean of a number is that number."""
    if node.op in (reduction.sum_, reduction.mean) and constant_of(node.inputs[0]) is not None:
        count = node.inputs[0].aval.size // max(node.aval.size, 1)
        if count:  # the sum of nothing is 0 whatever a is, the mean of nothing nan
            return _computed(node, product(Ratio(count if node.op is reduction.sum_ else 1), node.inputs[0].constant))
    return None


def scalar_operand(node: Any) -> Any:
    """A filled array meets another array as the number it is filled with."""
    if not isinstance(node.op, Elementwise) or node.op is elementwise.where:
        return None
    shaped = [constant_of(x) is not None and x.aval.shape != () for x in node.inputs]
    others = [x for x in node.inputs if constant_of(x) is None]
    if not any(shaped) or all(x.aval.shape != node.aval.shape for x in others):
        return None
    inputs = [scalar(x, x.constant) if is_shaped else x for x, is_shaped in zip(node.inputs, shaped, strict=True)]
    return node.op(*inputs, **node.params)


def times_one(node: Any) -> Any:
    """1 · x = x · 1 = x / 1 = x."""
    if node.op is elementwise.mul:
        for one, x in (node.inputs, node.inputs[::-1]):
            if is_number(one, 1) and x.aval == node.aval:
                return x
    if node.op is elementwise.div and is_number(node.inputs[1], 1) and node.inputs[0].aval == node.aval:
        return node.inputs[0]
    return None


def plus_zero(node: Any) -> Any:
    """0 + x = x + 0 = x - 0 = x."""
    if node.op is elementwise.add:
        for zero, x in (node.inputs, node.inputs[::-1]):
            if is_number(zero, 0) and x.aval == node.aval:
                return x
    if node.op is elementwise.sub and is_number(node.inputs[1], 0) and node.inputs[0].aval == node.aval:
        return node.inputs[0]
    return None


def times_zero(node: Any) -> Any:
    """0 · x = 0, for finite x."""
    if node.op is elementwise.mul and any(is_number(x, 0) for x in node.inputs):
        return filled(node, Ratio(0))
    if node.op in (reduction.sum_, reduction.mean) and is_number(node.inputs[0], 0):
        return filled(node, Ratio(0))
    return None


def coefficient_first(node: Any) -> Any:
    """x · 2 = 2 · x, x / 200 = (1/200) · x, and (1/9) / x = (1/9) · 1 / x."""
    if node.op is elementwise.mul and constant_of(node.inputs[1]) and not constant_of(node.inputs[0]):
        return elementwise.mul(node.inputs[1], node.inputs[0])
    if node.op is elementwise.div:
        x, y = node.inputs
        divisor = constant_of(y)
        if divisor and divisor.numerator and not constant_of(x):
            return elementwise.mul(scalar(y, Ratio(divisor.denominator, divisor.numerator)), x)
        above = constant_of(x)
        if above and above.denominator != 1 and divisor is None and y.aval.shape == node.aval.shape:
            over = elementwise.div(scalar(x, Ratio(above.numerator)), y)
            return elementwise.mul(scalar(x, Ratio(1, above.denominator)), over)
    return None


def coefficients_collect(node: Any) -> Any:
    """a · (b · x) = (a b) · x, and (a · x) · y = a · (x · y)."""
    if node.op is elementwise.mul:
        x, y = node.inputs
        a = constant_of(x)
        b, rest = coefficient(y)
        if a and b != UNIT:
            return elementwise.mul(scalar(x, product(a, b)), rest)
        if a and a.numerator != 1 and y.op is elementwise.div and y.inputs[1].aval.shape == y.aval.shape:
            above = constant_of(y.inputs[0])
            if above is not None and above.denominator == 1:
                over = elementwise.div(scalar(x, Ratio(a.numerator * above.numerator)), y.inputs[1])
                return over if a.denominator == 1 else elementwise.mul(scalar(x, Ratio(1, a.denominator)), over)
        if a is None:
            c, left = coefficient(x)
            if c != UNIT or b != UNIT:
                return elementwise.mul(scalar(x, product(c, b)), elementwise.mul(left, rest))
    if node.op is elementwise.div:
        (a, x), (b, y) = coefficient(node.inputs[0]), coefficient(node.inputs[1])
        if a != UNIT and constant_of(node.inputs[0]) is None and constant_of(y) is None:
            return elementwise.mul(scalar(x, a), elementwise.div(x, y))
        if b != UNIT and constant_of(y) is None:
            return elementwise.mul(scalar(y, Ratio(b.denominator, b.numerator)), elementwise.div(node.inputs[0], y))
    return None


def coefficient(x: Any) -> tuple[Ratio, Any]:
    """(a, y) where x = a · y."""
    if x.op is elementwise.mul:
        ratio = constant_of(x.inputs[0])
        if ratio is not None and constant_of(x.inputs[1]) is None:
            return ratio, x.inputs[1]
    return UNIT, x


_CARRY_A_FACTOR = (
    movement.expand,
    movement.reshape,
    movement.permute,
    movement.embed,
    movement.slice_,
    reduction.sum_,
    indexing.scatter_add,
    indexing.index_add,
)


def coefficient_out_of_linear(node: Any) -> Any:
    """f(a · x) = a · f(x) for a linear f of one input: sums, reshapes, expands."""
    if node.op in _CARRY_A_FACTOR:
        a, x = coefficient(node.inputs[0])
        if a != UNIT:
            return elementwise.mul(scalar(node, a), node.op(x, *node.inputs[1:], **node.params))
    return None


# --- signs


def signs(node: Any) -> Any:
    """-(-x) = x, x + (-y) = x - y, x - (-y) = x + y, (-x) · y = -(x · y), -a · x = -(a · x) for a number a."""
    op, inputs = node.op, node.inputs
    if op is elementwise.neg and inputs[0].op is elementwise.neg:
        return inputs[0].inputs[0]
    if op is elementwise.add and inputs[1].op is elementwise.neg:
        return elementwise.sub(inputs[0], inputs[1].inputs[0])
    if op is elementwise.add and inputs[0].op is elementwise.neg:
        return elementwise.sub(inputs[1], inputs[0].inputs[0])
    if op is elementwise.sub and inputs[1].op is elementwise.neg:
        return elementwise.add(inputs[0], inputs[1].inputs[0])
    if op is elementwise.mul:
        ratio = constant_of(inputs[0])
        if ratio and ratio.numerator < 0 and constant_of(inputs[1]) is None:
            return elementwise.neg(elementwise.mul(scalar(inputs[0], product(ratio, Ratio(-1))), inputs[1]))
    if op in (elementwise.mul, elementwise.div, contraction.matmul):
        for i in (0, 1):
            if inputs[i].op is elementwise.neg:
                bare = [x.inputs[0] if j == i else x for j, x in enumerate(inputs)]
                return elementwise.neg(op(*bare, **node.params))
    if (op in _CARRY_A_FACTOR or op is movement.cast) and inputs[0].op is elementwise.neg:
        return elementwise.neg(op(inputs[0].inputs[0], *inputs[1:], **node.params))
    return None


def minus_first(node: Any) -> Any:
    """-x + y = y - x, -(x - y) = y - x, -x - y = -(x + y)."""
    if node.op is elementwise.neg and node.inputs[0].op is elementwise.sub:
        x, y = node.inputs[0].inputs
        return elementwise.sub(y, x)
    if node.op is elementwise.neg:
        a, x = coefficient(node.inputs[0])
        if a != UNIT and x.op is elementwise.sub:
            return elementwise.mul(node.inputs[0].inputs[0], elementwise.sub(x.inputs[1], x.inputs[0]))
    if node.op is elementwise.sub and node.inputs[0].op is elementwise.neg:
        return elementwise.neg(elementwise.add(node.inputs[0].inputs[0], node.inputs[1]))
    return None


# --- powers and quotients


def powers(node: Any) -> Any:
    """x · x = x², x · (2 / y) = 2 · x / y, x · (x / y) stays."""
    if node.op is elementwise.mul:
        x, y = node.inputs
        if x is y:
            return elementwise.square(x)
        for whole, part in ((x, y), (y, x)):
            above, below = _number_over(part)
            if below is not None and constant_of(whole) is None and whole.aval.shape == node.aval.shape:
                over = elementwise.div(whole, below)
                return over if above == UNIT else elementwise.mul(scalar(node, above), over)
    if node.op is elementwise.pow_scalar and node.params["exponent"] == 1:
        return node.inputs[0]
    if node.op is elementwise.pow_scalar and node.params["exponent"] == 2:
        return elementwise.square(node.inputs[0])
    return None


def _number_over(x: Any) -> tuple[Ratio, Any]:
    """(a, y) where x = a / y for a number a, perhaps stretched; y is None where it is not."""
    if x.op is movement.expand:
        above, below = _number_over(x.inputs[0])
        return above, None if below is None else movement.expand(below, **x.params)
    if x.op is elementwise.reciprocal:
        return UNIT, x.inputs[0]
    if x.op is elementwise.div and x.inputs[0].constant is not None and x.inputs[1].aval.shape == x.aval.shape:
        return x.inputs[0].constant, x.inputs[1]
    return UNIT, None
