"""Algebra over ops: x · 1 = x, reshapes that cancel, constants that collect. Read by explain and by compile.

Each identity is a function with its equation for a docstring: a node in, an equal node out, or None. Those in ALWAYS
hold for every value of the right dtype, up to rounding. Those in FOR_READING hold for finite values only (0 · ∞ is not
0) or put an expression into the form a person would write; they shape formulas, never computations.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from chainrule.core.aval import Aval
from chainrule.core.family import Elementwise
from chainrule.core.node import Ratio
from chainrule.ops import contraction, elementwise, indexing, movement, normalisation, reduction

_UNIT = Ratio(1)


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


def product(*ratios: Ratio) -> Ratio:
    """The product, not reduced."""
    numerator, denominator = 1.0, 1.0
    for ratio in ratios:
        numerator *= ratio.numerator
        denominator *= ratio.denominator
    return Ratio(numerator, denominator)


# --- constants


def constant_arithmetic(node: Any) -> Any:
    """2 · 3 = 6, 1 / 200 stays a fraction."""
    if not node.inputs or any(constant_of(x) is None for x in node.inputs):
        return None
    values = [constant_of(x) for x in node.inputs]
    match node.op, values:
        case elementwise.mul, [Ratio() as a, Ratio() as b]:
            return filled(node, product(a, b))
        case elementwise.div, [Ratio() as a, Ratio() as b]:
            return filled(node, product(a, Ratio(b.denominator, b.numerator))) if b.numerator else None
        case elementwise.neg, [Ratio() as a]:
            return filled(node, product(a, Ratio(-1)))
        case elementwise.add, [Ratio() as a, Ratio() as b] if a.denominator == b.denominator:
            return filled(node, Ratio(a.numerator + b.numerator, a.denominator))
        case elementwise.sub, [Ratio() as a, Ratio() as b] if a.denominator == b.denominator:
            return filled(node, Ratio(a.numerator - b.numerator, a.denominator))
        case (
            (movement.expand | movement.reshape | movement.permute | movement.flip | movement.cast | movement.slice_),
            [Ratio() as a],
        ):
            return filled(node, a)
        case _:
            return None


def sum_of_constant(node: Any) -> Any:
    """Σ a over n entries = n · a, and the mean of a number is that number."""
    if node.op in (reduction.sum_, reduction.mean) and constant_of(node.inputs[0]) is not None:
        count = node.inputs[0].aval.size // max(node.aval.size, 1) if node.op is reduction.sum_ else 1
        return filled(node, product(Ratio(count), node.inputs[0].constant))
    return None


def scalar_operand(node: Any) -> Any:
    """A filled array meets another array as the number it is filled with."""
    if not isinstance(node.op, Elementwise) or node.op is elementwise.where:
        return None
    shaped = [constant_of(x) is not None and x.aval.shape != () for x in node.inputs]
    if not any(shaped) or all(constant_of(x) is not None for x in node.inputs):
        return None
    inputs = [scalar(x, x.constant) if is_shaped else x for x, is_shaped in zip(node.inputs, shaped, strict=True)]
    return node.op(*inputs, **node.params)


def times_one(node: Any) -> Any:
    """1 · x = x · 1 = x / 1 = x."""
    if node.op is elementwise.mul:
        for one, x in (node.inputs, node.inputs[::-1]):
            if _is(one, 1) and x.aval == node.aval:
                return x
    if node.op is elementwise.div and _is(node.inputs[1], 1) and node.inputs[0].aval == node.aval:
        return node.inputs[0]
    return None


def plus_zero(node: Any) -> Any:
    """0 + x = x + 0 = x - 0 = x."""
    if node.op is elementwise.add:
        for zero, x in (node.inputs, node.inputs[::-1]):
            if _is(zero, 0) and x.aval == node.aval:
                return x
    if node.op is elementwise.sub and _is(node.inputs[1], 0) and node.inputs[0].aval == node.aval:
        return node.inputs[0]
    return None


def times_zero(node: Any) -> Any:
    """0 · x = 0, for finite x."""
    if node.op is elementwise.mul and any(_is(x, 0) for x in node.inputs):
        return filled(node, Ratio(0))
    if node.op in (reduction.sum_, reduction.mean) and _is(node.inputs[0], 0):
        return filled(node, Ratio(0))
    return None


def coefficient_first(node: Any) -> Any:
    """x · 2 = 2 · x, and x / 200 = (1/200) · x."""
    if node.op is elementwise.mul and constant_of(node.inputs[1]) and not constant_of(node.inputs[0]):
        return elementwise.mul(node.inputs[1], node.inputs[0])
    if node.op is elementwise.div:
        x, y = node.inputs
        divisor = constant_of(y)
        if divisor and divisor.numerator and not constant_of(x):
            return elementwise.mul(scalar(y, Ratio(divisor.denominator, divisor.numerator)), x)
    return None


def coefficients_collect(node: Any) -> Any:
    """a · (b · x) = (a b) · x, and (a · x) · y = a · (x · y)."""
    if node.op is elementwise.mul:
        x, y = node.inputs
        a = constant_of(x)
        b, rest = coefficient(y)
        if a and b != _UNIT:
            return elementwise.mul(scalar(x, product(a, b)), rest)
        if a is None:
            c, left = coefficient(x)
            if c != _UNIT or b != _UNIT:
                return elementwise.mul(scalar(x, product(c, b)), elementwise.mul(left, rest))
    if node.op is elementwise.div:
        (a, x), (b, y) = coefficient(node.inputs[0]), coefficient(node.inputs[1])
        if a != _UNIT and constant_of(node.inputs[0]) is None and constant_of(y) is None:
            return elementwise.mul(scalar(x, a), elementwise.div(x, y))
        if b != _UNIT and constant_of(y) is None:
            return elementwise.mul(scalar(y, Ratio(b.denominator, b.numerator)), elementwise.div(node.inputs[0], y))
    return None


def coefficient(x: Any) -> tuple[Ratio, Any]:
    """(a, y) where x = a · y."""
    if x.op is elementwise.mul:
        ratio = constant_of(x.inputs[0])
        if ratio is not None and constant_of(x.inputs[1]) is None:
            return ratio, x.inputs[1]
    return _UNIT, x


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
        if a != _UNIT:
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


# --- powers and quotients


def powers(node: Any) -> Any:
    """x · x = x², x · (1 / y) = x / y, x · (x / y) stays."""
    if node.op is elementwise.mul:
        x, y = node.inputs
        if x is y:
            return elementwise.square(x)
        for whole, part in ((x, y), (y, x)):
            below = _under_one(part)
            if below is not None and constant_of(whole) is None:
                return elementwise.div(whole, below)
    if node.op is elementwise.pow_scalar and node.params["exponent"] == 1:
        return node.inputs[0]
    if node.op is elementwise.pow_scalar and node.params["exponent"] == 2:
        return elementwise.square(node.inputs[0])
    return None


def _under_one(x: Any) -> Any:
    """y where x = 1 / y, perhaps stretched."""
    if x.op is movement.expand:
        below = _under_one(x.inputs[0])
        return None if below is None else movement.expand(below, **x.params)
    if x.op is elementwise.reciprocal:
        return x.inputs[0]
    if x.op is elementwise.div and _is(x.inputs[0], 1) and x.inputs[0].aval.shape == ():
        return x.inputs[1]
    return None


# --- movement


def movements_cancel(node: Any) -> Any:
    """reshape ∘ reshape is one reshape, permute ∘ permute one permute; those that change nothing vanish."""
    op = node.op
    if op in (movement.reshape, movement.expand) and node.inputs[0].aval.shape == node.aval.shape:
        return node.inputs[0]
    if op is movement.cast and node.inputs[0].aval.dtype == node.aval.dtype:
        return node.inputs[0]
    if op is movement.permute and tuple(node.params["dims"]) == tuple(range(node.aval.ndim)):
        return node.inputs[0]
    inner = node.inputs[0] if node.inputs else None
    if inner is not None and inner.op is op:
        if op in (movement.reshape, movement.expand):
            return op(inner.inputs[0], **node.params)
        if op is movement.permute:
            return movement.permute(inner.inputs[0], dims=tuple(inner.params["dims"][d] for d in node.params["dims"]))
        if op is movement.flip and inner.params["dims"] == node.params["dims"]:
            return inner.inputs[0]
    return None


def transpose_of_product(node: Any) -> Any:
    """(x y)^T = y^T x^T, where that lets a transpose inside cancel."""
    if (
        node.op is movement.permute
        and movement.swaps_last_two(node.params["dims"])
        and node.inputs[0].op is contraction.matmul
    ):
        x, y = node.inputs[0].inputs
        if x.op is movement.permute or y.op is movement.permute:
            return contraction.matmul(movement.permute(y, **node.params), movement.permute(x, **node.params))
    return None


def reshape_through_elementwise(node: Any) -> Any:
    """reshape(f(x, y)) = f(reshape x, reshape y), where that lets a reshape inside cancel; only unit sizes move."""
    if node.op is not movement.reshape:
        return None
    (x,) = node.inputs
    shape = node.aval.shape
    if not isinstance(x.op, Elementwise) or not movement.unit_dims_only(x.aval.shape, shape):
        return None
    if not _meets_shape(x, shape):
        return None
    moved = [i if i.aval.shape == () else movement.reshape(i, shape=shape) for i in x.inputs]
    return x.op(*moved, **x.params)


def _meets_shape(x: Any, shape: tuple[int, ...]) -> bool:
    """Does an elementwise expression hold a reshape from `shape`?"""
    if x.op is movement.reshape:
        return bool(x.inputs[0].aval.shape == shape)
    return isinstance(x.op, Elementwise) and any(_meets_shape(i, shape) for i in x.inputs)


def reshape_of_expand(node: Any) -> Any:
    """reshape(expand(x)) = expand(x), where the reshape only adds or drops dimensions of size 1 and x is a scalar."""
    if node.op is movement.reshape and node.inputs[0].op is movement.expand:
        x = node.inputs[0].inputs[0]
        if x.aval.size == 1 and x.aval.ndim == 0:
            return movement.expand(x, shape=node.aval.shape)
    return None


def expand_of_scalar(node: Any) -> Any:
    """expand(reshape(x)) = expand(x) for a scalar x."""
    if node.op is movement.expand and node.inputs[0].op is movement.reshape and node.inputs[0].inputs[0].aval.ndim == 0:
        return movement.expand(node.inputs[0].inputs[0], shape=node.aval.shape)
    return None


def expand_out_of_elementwise(node: Any) -> Any:
    """f(expand x, expand y) = expand f(x, y), where nothing else has the full shape."""
    factor = node.op is elementwise.neg or (node.op is elementwise.mul and constant_of(node.inputs[0]) is not None)
    if not isinstance(node.op, Elementwise) or factor:  # a sign or a number stays outside
        return None
    full = [x for x in node.inputs if x.aval.shape == node.aval.shape and constant_of(x) is None]
    if not full or any(x.op is not movement.expand for x in full):
        return None
    if len({x.inputs[0].aval.shape for x in full}) != 1:
        return None
    inner = [x.inputs[0] if x.op is movement.expand and x.aval.shape == node.aval.shape else x for x in node.inputs]
    return movement.expand(node.op(*inner, **node.params), shape=node.aval.shape)


# --- choices


def where_of_same(node: Any) -> Any:
    """where(c, x, x) = x."""
    if node.op is elementwise.where:
        _, x, y = node.inputs
        if x is y or (
            constant_of(x) is not None and constant_of(x) == constant_of(y) and x.aval.shape == node.aval.shape
        ):
            return x
    return None


def gate(node: Any) -> Any:
    """where(c, x, 0) = [c] x: a gate that lets x pass where the condition holds."""
    if node.op is elementwise.where and _is(node.inputs[2], 0) and node.inputs[1].aval.shape == node.aval.shape:
        return elementwise.gate(node.inputs[0], node.inputs[1])
    return None


def coefficient_out_of_gate(node: Any) -> Any:
    """[c] (a · x) = a · [c] x, [c] (-x) = -[c] x."""
    if node.op is elementwise.gate:
        condition, x = node.inputs
        if x.op is elementwise.neg:
            return elementwise.neg(elementwise.gate(condition, x.inputs[0]))
    return None


# --- softmax, one-hot


def softmax_from_log(node: Any) -> Any:
    """exp(log_softmax(x)) = softmax(x), exp(x - logsumexp(x)) = softmax(x)."""
    if node.op is elementwise.exp and node.inputs[0].op is normalisation.log_softmax:
        inner = node.inputs[0]
        return normalisation.softmax(inner.inputs[0], **inner.params)
    return None


def one_hot(node: Any) -> Any:
    """scatter_add of a number a along one dimension = a · onehot(index), for one index a row."""
    if node.op is not indexing.scatter_add or constant_of(node.inputs[0]) is None:
        return None
    value, index = node.inputs
    dim, shape = node.params["dim"], node.params["shape"]
    if dim != len(shape) - 1 or index.aval.shape != (*shape[:-1], 1):
        return None
    labels = movement.reshape(index, shape=tuple(shape[:-1]))
    hot = movement.cast(indexing.one_hot(labels, classes=shape[-1]), dtype=value.aval.dtype)
    return elementwise.mul(scalar(value, constant_of(value) or _UNIT), hot)


def one_hot_sums_to_one(node: Any) -> Any:
    """Σ onehot = 1 along the classes."""
    if node.op is not reduction.sum_ or tuple(node.params["dim"]) != (node.inputs[0].aval.ndim - 1,):
        return None
    x = node.inputs[0]
    if x.op is movement.cast:
        x = x.inputs[0]
    return filled(node, _UNIT) if x.op is indexing.one_hot else None


def softmax_common_factor(node: Any) -> Any:
    """a x - a y = a (x - y), a x + a y = a (x + y)."""
    if node.op in (elementwise.add, elementwise.sub):
        (a, x), (b, y) = (coefficient(i) for i in node.inputs)
        if a == b and a != _UNIT and x.aval.shape == y.aval.shape:
            return elementwise.mul(scalar(node, a), node.op(x, y))
    return None


def minus_first(node: Any) -> Any:
    """-x + y = y - x, -(x - y) = y - x, -x - y = -(x + y)."""
    if node.op is elementwise.neg and node.inputs[0].op is elementwise.sub:
        x, y = node.inputs[0].inputs
        return elementwise.sub(y, x)
    if node.op is elementwise.neg:
        a, x = coefficient(node.inputs[0])
        if a != _UNIT and x.op is elementwise.sub:
            return elementwise.mul(node.inputs[0].inputs[0], elementwise.sub(x.inputs[1], x.inputs[0]))
    if node.op is elementwise.sub and node.inputs[0].op is elementwise.neg:
        return elementwise.neg(elementwise.add(node.inputs[0].inputs[0], node.inputs[1]))
    return None


def _is(x: Any, value: float) -> bool:
    ratio = constant_of(x)
    return ratio is not None and ratio.value == value


Identities = tuple[Callable[[Any], Any], ...]

ALWAYS: Identities = (
    constant_arithmetic,
    sum_of_constant,
    scalar_operand,
    times_one,
    plus_zero,
    movements_cancel,
    where_of_same,
    softmax_from_log,
)
FOR_READING: Identities = (
    times_zero,
    gate,
    coefficient_out_of_gate,
    coefficient_first,
    coefficients_collect,
    coefficient_out_of_linear,
    signs,
    powers,
    transpose_of_product,
    reshape_through_elementwise,
    reshape_of_expand,
    expand_of_scalar,
    expand_out_of_elementwise,
    one_hot,
    one_hot_sums_to_one,
    softmax_common_factor,
    minus_first,
)
ALL: Identities = (*ALWAYS, *FOR_READING)
