"""Identities of what is moved and chosen: reshapes, transposes, broadcasts, gates, one-hot rows. See `identities`."""

from __future__ import annotations

from typing import Any

from chainrule.core.aval import Aval
from chainrule.core.family import Elementwise
from chainrule.core.node import Ratio
from chainrule.ops import (
    comparison,
    contraction,
    elementwise,
    indexing,
    movement,
    normalisation,
    reduction,
    transcendental,
)
from chainrule.ops.algebra import UNIT, coefficient, constant_of, filled, is_number, scalar

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
    moved = [i if i.aval.shape != x.aval.shape else movement.reshape(i, shape=shape) for i in x.inputs]
    return x.op(*moved, **x.params)


_NODES = 60  # of an expression, how much is searched for a reshape to cancel


def _meets_shape(x: Any, shape: tuple[int, ...]) -> bool:
    """Does an elementwise expression hold a reshape from `shape`?"""
    pending, left = [x], _NODES
    while pending and left:
        node, left = pending.pop(), left - 1
        if node.op is movement.reshape:
            if node.inputs[0].aval.shape == shape:
                return True
        elif isinstance(node.op, Elementwise):
            pending += node.inputs
    return False


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
    shape = full[0].inputs[0].aval.shape
    inner = []
    for x in node.inputs:
        number = constant_of(x)
        if number is not None and x.aval.shape:
            inner.append(type(x).number(Aval(shape, x.aval.dtype), number))
        else:
            inner.append(x.inputs[0] if x.op is movement.expand and x.aval.shape == node.aval.shape else x)
    return movement.expand(node.op(*inner, **node.params), shape=node.aval.shape)


def sum_of_expand(node: Any) -> Any:
    """Σ over the n places that a value was copied to = n · the value; the mean there is the value."""
    if node.op not in (reduction.sum_, reduction.mean) or node.inputs[0].op is not movement.expand:
        return None
    copied, source = node.inputs[0], node.inputs[0].inputs[0]
    new, stretched = movement.expanded_dims(source.aval.shape, copied.aval.shape)
    if set(node.params["dim"]) != {*new, *stretched}:
        return None
    value = movement.reshape(source, shape=node.aval.shape)
    count = copied.aval.size // max(source.aval.size, 1) if node.op is reduction.sum_ else 1
    return elementwise.mul(scalar(node, Ratio(count)), value)


def sum_of_sum(node: Any) -> Any:
    """Σ over some dimensions of Σ over others is one sum over all of them."""
    if node.op is not reduction.sum_ or node.inputs[0].op is not reduction.sum_:
        return None
    inner = node.inputs[0]
    x, first = inner.inputs[0], set(inner.params["dim"])
    left = range(x.aval.ndim) if inner.params["keepdim"] else [d for d in range(x.aval.ndim) if d not in first]
    dims = tuple(sorted(first | {left[d] for d in node.params["dim"]}))
    kept = inner.params["keepdim"] and node.params["keepdim"]
    found = reduction.sum_(x, dim=dims, keepdim=kept)
    return found if found.aval == node.aval else movement.reshape(found, shape=node.aval.shape)


def product_with_constant(node: Any) -> Any:
    """A matrix of one number a times y = a · the sums of the columns of y, in every row; x times it likewise."""
    if node.op is not contraction.matmul:
        return None
    for position, x in enumerate(node.inputs):
        number, other = constant_of(x), node.inputs[1 - position]
        if number is not None and constant_of(other) is None:
            along = other.aval.ndim - (2 if position == 0 else 1)
            total = reduction.sum_(other, dim=(along,), keepdim=True)
            return elementwise.mul(scalar(node, number), movement.expand(total, shape=node.aval.shape))
    return None


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
    if node.op is elementwise.where and is_number(node.inputs[2], 0) and node.inputs[1].aval.shape == node.aval.shape:
        return elementwise.gate(node.inputs[0], node.inputs[1])
    return None


def gate_of_relu(node: Any) -> Any:
    """[x > 0] relu(x) = relu(x)."""
    if node.op is elementwise.gate and node.inputs[1].op is elementwise.relu:
        condition, value = node.inputs
        if (
            condition.op is comparison.gt
            and is_number(condition.inputs[1], 0)
            and condition.inputs[0] is value.inputs[0]
        ):
            return value
    return None


def gate_of_number(node: Any) -> Any:
    """[c] a = a · [c], for a number a."""
    if node.op is elementwise.gate and constant_of(node.inputs[1]) is not None:
        condition, number = node.inputs
        if condition.aval.shape == node.aval.shape:
            return elementwise.mul(scalar(node, number.constant), movement.cast(condition, dtype=node.aval.dtype))
    return None


def coefficient_out_of_gate(node: Any) -> Any:
    """[c] (a · x) = a · [c] x, [c] (-x) = -[c] x."""
    if node.op is elementwise.gate:
        condition, x = node.inputs
        if x.op is elementwise.neg:
            return elementwise.neg(elementwise.gate(condition, x.inputs[0]))
        a, inner = coefficient(x)
        if a != UNIT:
            return elementwise.mul(scalar(node, a), elementwise.gate(condition, inner))
    return None


# --- softmax, one-hot


def softmax_from_log(node: Any) -> Any:
    """exp(log_softmax(x)) = softmax(x), exp(x - logsumexp(x)) = softmax(x)."""
    if node.op is transcendental.exp and node.inputs[0].op is normalisation.log_softmax:
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
    return elementwise.mul(scalar(value, constant_of(value) or UNIT), hot)


def one_hot_sums_to_one(node: Any) -> Any:
    """Σ onehot = 1 along the classes."""
    if node.op is not reduction.sum_ or tuple(node.params["dim"]) != (node.inputs[0].aval.ndim - 1,):
        return None
    x = node.inputs[0]
    if x.op is movement.cast:
        x = x.inputs[0]
    return filled(node, UNIT) if x.op is indexing.one_hot else None
