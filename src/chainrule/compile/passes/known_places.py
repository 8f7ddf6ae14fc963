"""Picking and adding at computed places, where a comparison of positions or a slice does the same."""

from __future__ import annotations

from typing import Any

import numpy as np

from chainrule import dtypes
from chainrule.compile.passes.rewriting import rewritten, stored
from chainrule.compile.program import Program
from chainrule.core.node import Ratio
from chainrule.ops import comparison, elementwise, indexing, movement, source


def known_places(program: Program) -> Program:
    """Indexing that needs no memory to be written or read at a computed place is none any more."""
    return rewritten(program, (_one_place_a_row, _one_hot, _gathered_slice, _indexed_slice, stored))


# --- adding to places


def _one_place_a_row(node: Any) -> Any:
    """scatter_add(g, i)[…, j] = [i = j] g, where each row has one place."""
    if node.op is not indexing.scatter_add:
        return None
    value, index = node.inputs
    dim, shape = node.params["dim"], tuple(node.params["shape"])
    if index.aval.shape != (*shape[:dim], 1, *shape[dim + 1 :]):
        return None
    there = _is_at(_from_start(index, shape[dim]), dim, shape)
    return elementwise.gate(there, movement.expand(value, shape=shape))


def _one_hot(node: Any) -> Any:
    """one_hot(label)[…, j] = [label = j]."""
    if node.op is not indexing.one_hot:
        return None
    (labels,) = node.inputs
    shape = node.aval.shape
    last = len(shape) - 1
    labels = movement.reshape(_wide_enough(labels, shape[last]), shape=(*labels.aval.shape, 1))
    return movement.cast(_is_at(labels, last, shape), dtype=node.aval.dtype)


def _wide_enough(index: Any, size: int) -> Any:
    """The index in a dtype that holds every position."""
    return index if np.iinfo(index.aval.dtype).max >= size else movement.cast(index, dtype=dtypes.int64)


def _from_start(index: Any, size: int) -> Any:
    """The index counted from the start, where it counted from the end."""
    index = _wide_enough(index, size)
    dtype = index.aval.dtype
    if dtype.kind == "u":
        return index
    count, zero = (type(index).number(index.aval._replace(shape=()), Ratio(n)) for n in (size, 0))
    return elementwise.where(comparison.lt(index, zero), elementwise.add(index, count), index)


def _is_at(index: Any, dim: int, shape: tuple[int, ...]) -> Any:
    """For each entry of `shape`: is `index`, which has size 1 along `dim`, its position there?"""
    params = {"start": 0, "stop": shape[dim], "step": 1, "dtype": index.aval.dtype}
    place = type(index).applied(source.arange, (), params, source.arange.infer(**params))
    place = movement.reshape(place, shape=(shape[dim], *(1 for _ in shape[dim + 1 :])))
    return comparison.eq(movement.expand(index, shape=shape), movement.expand(place, shape=shape))


# --- picking from places that are known


def _gathered_slice(node: Any) -> Any:
    """gather(x, i) is a slice where i is known, and the same progression in every row."""
    if node.op is not indexing.gather:
        return None
    x, index = node.inputs
    dim, shape = node.params["dim"], x.aval.shape
    if index.data is None or not index.data.size:
        return None
    along = np.moveaxis(index.data, dim, -1)
    first = along[(0,) * (along.ndim - 1)]
    run = _progression(first, shape[dim])
    if run is None or (along != first).any():
        return None
    window = [(0, n, 1) for n in index.aval.shape]
    window[dim] = run
    return movement.slice_(x, window=tuple(window))


def _indexed_slice(node: Any) -> Any:
    """x[i] is a slice where i is known, and a progression."""
    if node.op is not indexing.index or len(node.inputs) != 2:
        return None
    x, index = node.inputs
    if index.data is None or index.aval.ndim > 1 or not index.data.size:
        return None
    run = _progression(index.data.reshape(-1), x.aval.shape[0])
    if run is None:
        return None
    taken = movement.slice_(x, window=(run, *((0, n, 1) for n in x.aval.shape[1:])))
    return movement.reshape(taken, shape=node.aval.shape)


def _progression(places: np.ndarray, size: int) -> tuple[int, int, int] | None:
    """(start, stop, step) of known places, where the step is constant and positive, and all lie inside."""
    if places.min() < -size or places.max() >= size:
        return None  # whoever runs it says so
    from_start = np.where(places < 0, places + size, places).astype(np.int64)
    steps = np.diff(from_start)
    step = int(steps[0]) if steps.size else 1
    if step <= 0 or (steps != step).any():
        return None
    return int(from_start[0]), int(from_start[-1]) + 1, step
