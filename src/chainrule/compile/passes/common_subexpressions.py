"""What is computed twice from the same values is computed once. Names the ops whose inputs may change places."""

from __future__ import annotations

import math
import operator
from typing import Any

import numpy as np

from chainrule.compile.passes.rewriting import walked
from chainrule.compile.program import Program
from chainrule.core.node import Node
from chainrule.core.rewrite import again
from chainrule.ops import comparison, elementwise

# x + y and y + x are one value, to the last bit.
_COMMUTE = frozenset(
    map(
        id,
        (
            elementwise.add,
            elementwise.mul,
            elementwise.maximum,
            elementwise.minimum,
            comparison.eq,
            comparison.ne,
            comparison.bitwise_and,
            comparison.bitwise_or,
            comparison.bitwise_xor,
        ),
    )
)
# Constants up to this many bytes are compared by content, larger ones by where they lie in memory.
_COMPARED = 1 << 16


def common_subexpressions(program: Program) -> Program:
    """One node for each value: same op, inputs and params, or constants that are alike."""
    known: dict[Any, Node] = {}

    def one_of_its_kind(node: Node, inputs: tuple[Node, ...]) -> Node:
        key = _key(node, inputs)
        found = known.get(key)
        if found is None:
            found = known[key] = node if all(map(operator.is_, inputs, node.inputs)) else again(node, inputs)
        return found

    return walked(program, one_of_its_kind)


def _key(node: Node, inputs: tuple[Node, ...]) -> Any:
    """Equal for nodes that stand for one value."""
    if node.op is None:
        return _constant_key(node.array) if node.array is not None else id(node)
    ids = [id(x) for x in inputs]
    if id(node.op) in _COMMUTE:
        ids.sort()
    return (id(node.op), *ids, *[(name, _frozen(node.params[name])) for name in sorted(node.params)])


def _constant_key(data: np.ndarray) -> Any:
    if not any(data.strides) and data.size:  # a fill: one number, stored once
        return (data.dtype, data.shape, data[(0,) * data.ndim].tobytes())
    if data.nbytes <= _COMPARED:
        return (data.dtype, data.shape, data.tobytes())
    return (data.dtype, data.shape, data.strides, data.__array_interface__["data"][0])


def _frozen(value: Any) -> Any:
    """A param in a form that can be compared: equal only where an op makes the same of it."""
    match value:
        case tuple() | list():
            return tuple([_frozen(v) for v in value])
        case dict():
            return tuple([(k, _frozen(v)) for k, v in sorted(value.items())])
        case np.ndarray():
            return (value.dtype, value.shape, value.tobytes())
        case float() if value == 0:
            return (float, math.copysign(1.0, value))
        case int() | float() | str() | np.dtype() | np.generic() | None:
            return (type(value), value)
        case _:
            return object()  # equal to nothing but itself
