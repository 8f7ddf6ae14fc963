"""Identities that save work in a computation and hold for every value, but do not read better. See `identities`."""

from __future__ import annotations

import math
import operator
from typing import Any

from chainrule import dtypes
from chainrule.core.family import Elementwise, Reduction
from chainrule.core.node import Ratio
from chainrule.ops import comparison, elementwise, indexing, movement, reduction, source
from chainrule.ops.algebra import constant_of, filled, held, is_number, scalar

# --- arithmetic


def fill(node: Any) -> Any:
    """full(shape, a) is the number a, everywhere."""
    return held(node, node.params["value"]) if node.op is source.full else None


def negations(node: Any) -> Any:
    """-(-x) = x, x + (-y) = x - y, (-x) + y = y - x, x - (-y) = x + y, (-x) (-y) = x y, (-x)² = x²."""
    op, inputs = node.op, node.inputs
    if not any(x.op is elementwise.neg for x in inputs):
        return None
    x, y = inputs[0], inputs[-1]
    if op is elementwise.neg:
        return x.inputs[0]
    if op in (elementwise.square, elementwise.abs_):
        return op(x.inputs[0])
    if op is elementwise.add:
        return elementwise.sub(x, y.inputs[0]) if y.op is elementwise.neg else elementwise.sub(y, x.inputs[0])
    if op is elementwise.sub and y.op is elementwise.neg:
        return elementwise.add(x, y.inputs[0])
    if op in (elementwise.mul, elementwise.div) and x.op is elementwise.neg and y.op is elementwise.neg:
        return op(x.inputs[0], y.inputs[0])
    return None


_WHOLE_POWERS = (2, 3, 4)


def whole_power(node: Any) -> Any:
    """x · x = x² = pow(x, 2), pow(x, 3) = x² · x, pow(x, 4) = (x²)², pow(x, 1) = x, pow(x, -1) = 1 / x."""
    if node.op is elementwise.mul and node.inputs[0] is node.inputs[1]:
        return elementwise.square(node.inputs[0])
    if node.op is not elementwise.pow_scalar:
        return None
    (x,), exponent = node.inputs, node.params["exponent"]
    if exponent == 1:
        return x
    if exponent == -1 and dtypes.is_float(x.aval.dtype):
        return elementwise.reciprocal(x)
    if exponent not in _WHOLE_POWERS:
        return None
    squared = elementwise.square(x)
    if exponent == 2:
        return squared
    return elementwise.mul(squared, x) if exponent == 3 else elementwise.square(squared)


def quotient_by_number(node: Any) -> Any:
    """x / a = (1/a) x, where 1/a is an ordinary number; 1 / x by the op of that name."""
    dtype = node.aval.dtype
    if node.op is not elementwise.div or dtype not in (dtypes.float32, dtypes.float64):
        return None
    x, y = node.inputs
    if is_number(x, 1) and y.aval == node.aval and constant_of(y) is None:
        return elementwise.reciprocal(y)
    a = constant_of(y)
    if a is None or constant_of(x) is not None or not _ordinary(a.value, dtype):
        return None
    return elementwise.mul(x, scalar(y, Ratio(a.denominator, a.numerator)))


def _ordinary(a: float, dtype: Any) -> bool:
    """Is 1/a neither infinite nor so small that digits are lost?"""
    info = dtypes.finfo(dtype)
    return a != 0 and float(info.tiny) <= abs(1 / a) <= float(info.max)


# --- choices


def scalar_choice(node: Any) -> Any:
    """A filled array among the values of a `where` is the number it is filled with."""
    if node.op is not elementwise.where:
        return None
    condition, x, y = node.inputs
    shape = node.aval.shape
    fills = [constant_of(v) is not None and v.aval.shape != () for v in (x, y)]
    if not any(fills) or condition.aval.shape != shape:
        return None
    x, y = (scalar(v, v.constant) if is_fill else v for v, is_fill in zip((x, y), fills, strict=True))
    return elementwise.where(condition, x, y)


def gates(node: Any) -> Any:
    """where(c, x, 0) = [c] x, and [c] [c] x = [c] x."""
    op = node.op
    if op is elementwise.where and is_number(node.inputs[2], 0) and node.inputs[1].aval.shape == node.aval.shape:
        return elementwise.gate(node.inputs[0], node.inputs[1])
    if op is elementwise.gate and node.inputs[1].op is op and node.inputs[1].inputs[0] is node.inputs[0]:
        return node.inputs[1]
    return None


def not_not(node: Any) -> Any:
    """Not not x = x."""
    op = comparison.bitwise_not
    return node.inputs[0].inputs[0] if node.op is op and node.inputs[0].op is op else None


# --- movement


def _digits(dtype: Any) -> tuple[int, int, bool]:
    """How large whole numbers a dtype holds exactly, in bits; its exponent's bits; whether it holds negative ones."""
    if dtype == dtypes.bool_:
        return 1, 0, False
    if dtypes.is_float(dtype):
        info = dtypes.finfo(dtype)
        return info.nmant + 1, info.bits - info.nmant - 1, True
    signed = dtype.kind == "i"
    return dtype.itemsize * 8 - signed, 0, signed


def _holds(wide: Any, dtype: Any) -> bool:
    """Does `wide` hold every value of `dtype`, exactly?"""
    (bits, exponent, signed), (most, reach, signs) = _digits(dtype), _digits(wide)
    if exponent:
        return most >= bits and reach >= exponent
    return most >= bits and signs >= signed and (not reach or bits < 1 << (reach - 1))


def casts(node: Any) -> Any:
    """A cast to a dtype that holds every value of the one before is not seen by the cast that follows it."""
    if node.op is movement.cast and node.inputs[0].op is movement.cast:
        (inner,) = node.inputs[0].inputs
        if _holds(node.inputs[0].aval.dtype, inner.aval.dtype):
            return movement.cast(inner, dtype=node.aval.dtype)
    return None


def permute_is_reshape(node: Any) -> Any:
    """A permute that only dimensions of size 1 take part in is a reshape."""
    if node.op is not movement.permute:
        return None
    shape = node.inputs[0].aval.shape
    moved = [d for d in node.params["dims"] if shape[d] != 1]
    return movement.reshape(node.inputs[0], shape=node.aval.shape) if moved == sorted(moved) else None


def expand_of_reshape(node: Any) -> Any:
    """An expand adds leading dimensions itself: a reshape that adds or drops leading ones before it is not needed."""
    if node.op is not movement.expand or node.inputs[0].op is not movement.reshape:
        return None
    reshaped, inner = node.inputs[0].aval.shape, node.inputs[0].inputs[0]
    if _without_leading_ones(reshaped) != _without_leading_ones(inner.aval.shape) or inner.aval.ndim > node.aval.ndim:
        return None
    return movement.expand(inner, **node.params)


def _without_leading_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    first = next((d for d, n in enumerate(shape) if n != 1), len(shape))
    return tuple(shape[first:])


def expand_last(node: Any) -> Any:
    """f(expand x, expand y) = expand f(x, y), where nothing else has the full shape."""
    if not isinstance(node.op, Elementwise):
        return None
    shape = node.aval.shape
    full = [x for x in node.inputs if x.aval.shape == shape]
    if not full or any(x.op is not movement.expand for x in full):
        return None
    inner = full[0].inputs[0].aval.shape
    if any(x.inputs[0].aval.shape != inner for x in full) or math.prod(inner) >= math.prod(shape):
        return None
    inputs = [x.inputs[0] if x.aval.shape == shape else x for x in node.inputs]
    return movement.expand(node.op(*inputs, **node.params), shape=shape)


Window = tuple[tuple[int, int, int], ...]


def _window(node: Any) -> Window:
    """The window of a slice or an embed, each stop right behind the last entry taken."""
    return tuple(
        (start, start + (count - 1) * step + 1 if count else start, step)
        for (start, stop, step) in node.params["window"]
        for count in (len(range(start, stop, step)),)
    )


def _inside(outer: Window, inner: Window) -> Window:
    """A window into what another window takes, as one into the whole; neither is empty."""
    return tuple(
        (first + start * step, first + (stop - 1) * step + 1, step * stride)
        for (first, _, step), (start, stop, stride) in zip(outer, inner, strict=True)
    )


def slices(node: Any) -> Any:
    """A slice of all is all; slices of slices are one; a slice of what was embedded there, or of one part of a cat."""
    if node.op is not movement.slice_:
        return None
    (x,) = node.inputs
    window: Window = node.params["window"]
    if x.aval.shape == node.aval.shape and all(step == 1 for _, _, step in window):
        return x
    if x.op is movement.slice_ and node.aval.size:
        return movement.slice_(x.inputs[0], window=_inside(_window(x), _window(node)))
    if x.op is movement.embed and _window(x) == _window(node):
        return x.inputs[0]
    if x.op is movement.cat:
        dim, first = x.params["dim"], 0
        start, stop, step = _window(node)[dim]
        for part in x.inputs:
            size = part.aval.shape[dim]
            if first <= start < stop <= first + size:
                moved = (start - first, stop - first, step)
                return movement.slice_(part, window=(*window[:dim], moved, *window[dim + 1 :]))
            first += size
    return None


def embeds(node: Any) -> Any:
    """What fills the whole is not embedded; embedded twice is embedded once."""
    if node.op is not movement.embed:
        return None
    (x,) = node.inputs
    if x.aval.shape == node.aval.shape:
        return x
    if x.op is movement.embed and x.inputs[0].aval.size:
        return movement.embed(x.inputs[0], shape=node.params["shape"], window=_inside(_window(node), _window(x)))
    return None


def neighbours_join(node: Any) -> Any:
    """Two values embedded side by side in zeros and added are joined: the gradients of the parts of one value."""
    if node.op is not elementwise.add or any(x.op is not movement.embed for x in node.inputs):
        return None
    windows = [_window(x) for x in node.inputs]
    apart = [d for d, (a, b) in enumerate(zip(*windows, strict=True)) if a != b]
    if len(apart) != 1 or any(w[apart[0]][2] != 1 for w in windows):
        return None
    (d,) = apart
    (first, low), (second, high) = sorted(zip(node.inputs, windows, strict=True), key=lambda pair: pair[1][d])
    if low[d][1] != high[d][0]:
        return None
    joined = movement.cat(first.inputs[0], second.inputs[0], dim=d)
    window = (*low[:d], (low[d][0], high[d][1], 1), *low[d + 1 :])
    return movement.embed(joined, shape=node.aval.shape, window=window)


def cats(node: Any) -> Any:
    """What is joined with nothing is itself; joined and joined again is joined once."""
    if node.op is not movement.cat:
        return None
    dim = node.params["dim"]
    if len(node.inputs) == 1:
        return node.inputs[0]
    parts: list[Any] = []
    for x in node.inputs:
        if x.op is movement.cat and x.params["dim"] == dim:
            parts += x.inputs
        elif x.aval.shape[dim]:
            parts.append(x)
    if not parts or (len(parts) == len(node.inputs) and all(map(operator.is_, parts, node.inputs))):
        return None
    return movement.cat(*parts, dim=dim)


# --- reductions


def reduction_of_one(node: Any) -> Any:
    """Σ, max and min over a single entry are that entry; the position of the extreme is 0."""
    op = node.op
    if not isinstance(op, Reduction) or op.combine is None or any(
        node.inputs[0].aval.shape[d] != 1 for d in node.params["dim"]
    ):  # fmt: skip
        return None
    if op.combine in ("argmax", "argmin"):
        return filled(node, Ratio(0)) if node.params["dim"] else None
    (x,) = node.inputs
    return movement.reshape(x, shape=node.aval.shape) if x.aval.dtype == node.aval.dtype else None


def reduction_of_copies(node: Any) -> Any:
    """Σ over n copies of a value = n · the value; the largest of the copies is the value."""
    op = node.op
    if not isinstance(op, Reduction) or op.combine in (None, "mul", "argmax", "argmin"):
        return None
    (x,) = node.inputs
    if x.op is not movement.expand or x.aval.dtype != node.aval.dtype or not x.aval.size:
        return None
    shape, inner, dim = x.aval.shape, x.inputs[0], node.params["dim"]
    new, stretched = movement.expanded_dims(inner.aval.shape, shape)
    copied = [d for d in dim if d in new or d in stretched]
    count = math.prod(shape[d] for d in copied)
    if not copied or (op.combine == "add" and not _exact(count, node.aval.dtype)):
        return None
    value = movement.reshape(inner, shape=(*(1 for _ in new), *inner.aval.shape))
    rest = tuple(d for d in dim if d not in copied)
    if rest:
        value = op(value, dim=rest, keepdim=True)
    if op.combine == "add":
        value = elementwise.mul(value, scalar(value, Ratio(count)))
    value = movement.expand(value, shape=tuple(1 if d in dim else n for d, n in enumerate(shape)))
    return movement.reshape(value, shape=node.aval.shape)


def _exact(count: int, dtype: Any) -> bool:
    """Does the dtype hold this count?"""
    return count < 1 << _digits(dtype)[0]


def sum_of_scattered(node: Any) -> Any:
    """Σ over what was added to one place each = Σ over what was added: no need to know where."""
    if node.op is not reduction.sum_ or node.inputs[0].op is not indexing.scatter_add:
        return None
    scattered, value = node.inputs[0], node.inputs[0].inputs[0]
    dim, shape = scattered.params["dim"], value.aval.shape
    same = all(n == m for d, (n, m) in enumerate(zip(shape, scattered.aval.shape, strict=True)) if d != dim)
    if not same or node.params["dim"] != (dim,) or shape[dim] != 1:
        return None
    return reduction.sum_(value, **node.params)


def extreme_at_its_place(node: Any) -> Any:
    """The entry at the place of the largest is the largest."""
    if node.op is not indexing.gather:
        return None
    x, place = node.inputs
    if not isinstance(place.op, Reduction) or place.op.combine not in ("argmax", "argmin"):
        return None
    if place.inputs[0] is not x or not place.params["keepdim"] or place.params["dim"] != (node.params["dim"],):
        return None
    extreme = reduction.amax if place.op.combine == "argmax" else reduction.amin
    return extreme(x, **place.params)
