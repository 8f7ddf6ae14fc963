"""Evaluating an expression on given values: with the ops' own kernels, in a chosen precision. Names no op."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from chainrule import dtypes
from chainrule.core.node import Node, ancestors, compute

Values = Mapping[int, np.ndarray]


def evaluate(root: Node, values: Values, dtype: np.dtype | None = None) -> np.ndarray:
    """The value of `root`, given those of some nodes by id; recorded values stand in for leaves that are not given.

    dtype: compute floats in this dtype instead of the one recorded.
    """
    return evaluate_all([root], values, dtype)[id(root)]


def evaluate_all(roots: list[Node], values: Values, dtype: np.dtype | None = None) -> dict[int, np.ndarray]:
    """The values of `roots` and of everything between them and the given values, by id."""
    known: dict[int, np.ndarray] = {}

    def of(node: Node) -> np.ndarray:
        key = id(node)
        if key not in known:  # a given value, put into the chosen precision only where it is met
            known[key] = in_dtype(values[key], dtype)
        return known[key]

    for node in ancestors(roots, lambda x: id(x) not in values):
        if node.op is None:
            known[id(node)] = leaf_value(node, dtype)
        else:
            arrays = [of(x) for x in node.inputs]
            known[id(node)] = compute(node.op, arrays, params_in(node, dtype))
    for root in roots:
        of(root)
    return known


def leaf_value(node: Node, dtype: np.dtype | None) -> np.ndarray:
    """What was recorded of a leaf.

    Raises: KeyError: it is a symbol.
    """
    if node.array is not None:
        return in_dtype(node.array, dtype)
    if node.constant is not None:
        return np.full(node.aval.shape, node.constant.value, dtype if dtype is not None else node.aval.dtype)
    raise KeyError(f"no value for the symbol {node.symbol}")


def in_dtype(array: np.ndarray, dtype: np.dtype | None) -> np.ndarray:
    """The array, in `dtype` if it is a float array and a dtype is given."""
    return array.astype(dtype) if dtype is not None and dtypes.is_float(array.dtype) else array


def params_in(node: Node, dtype: np.dtype | None) -> Mapping[str, Any]:
    """The op's params; a cast to a float goes to the chosen dtype instead."""
    wanted = node.params.get("dtype")
    if dtype is None or wanted is None or not dtypes.is_float(wanted):
        return node.params
    return {**node.params, "dtype": dtype}
