"""Picking and adding at computed places, where a comparison of positions or a slice does the same."""

from __future__ import annotations

from typing import Any

import numpy as np

from chainrule import dtypes
from chainrule.compile.passes.positions import reach
from chainrule.compile.passes.rewriting import rewritten, stored, walked
from chainrule.compile.program import Program
from chainrule.core.node import Node, Ratio
from chainrule.ops import comparison, elementwise, indexing, movement, source


def known_places(program: Program) -> Program:
    """Lookups at places that are known beforehand are slices, and what adds to one place a row is a comparison."""
    checked = _checked(program)

    def compared(node: Node, inputs: tuple[Node, ...]) -> Any:
        if node.op is indexing.scatter_add:
            return _one_place_a_row(node, id(node) in checked, *inputs)
        return _one_hot(node, *inputs) if node.op is indexing.one_hot else None

    return rewritten(walked(program, compared), (_gathered_slice, _indexed_slice, stored))


# --- adding to places


def _checked(program: Program) -> set[int]:
    """The ids of nodes that add at places which are also picked from, in as many: that reports those out of range."""
    picked = {(id(n.inputs[1]), n.inputs[0].aval.shape[n.params["dim"]]) for n in program.nodes if _is_gather(n)}
    adding = (n for n in program.nodes if n.op is indexing.scatter_add and n.aval.shape)
    return {id(n) for n in adding if (id(n.inputs[1]), n.aval.shape[n.params["dim"]]) in picked}


def _is_gather(node: Node) -> bool:
    return node.op is indexing.gather and bool(node.aval.shape)


def _one_place_a_row(node: Any, is_checked: bool, value: Any, index: Any) -> Any:
    """scatter_add(g, i)[…, j] = [i = j] g, where each row has one place."""
    dim, shape = node.params["dim"], tuple(node.params["shape"])
    if index.aval.shape != (*shape[:dim], 1, *shape[dim + 1 :]):
        return None
    place = (_from_start if is_checked else _looked_up)(index, shape[dim])
    return elementwise.gate(_is_at(place, dim, shape), movement.expand(value, shape=shape))


def _one_hot(node: Any, labels: Any) -> Any:
    """one_hot(label)[…, j] = [label = j]."""
    shape = node.aval.shape
    last = len(shape) - 1
    labels = movement.reshape(_looked_up(labels, shape[last]), shape=(*labels.aval.shape, 1))
    return movement.cast(_is_at(labels, last, shape), dtype=node.aval.dtype)


def _looked_up(index: Any, size: int) -> Any:
    """The index, counted from the start, picked from all there are: that reports one out of range."""
    index = _wide_enough(index, size)
    found = reach(index)
    if found is not None and found <= size:
        return index
    if index.array is not None or not size:  # known, or nothing to be picked from
        return _from_start(index, size)
    return indexing.index(type(index).leaf(np.arange(size, dtype=index.aval.dtype)), index)


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
    if index.array is None or not index.array.size:
        return None
    along = np.moveaxis(index.array, dim, -1)
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
    if index.array is None or index.aval.ndim > 1 or not index.array.size:
        return None
    run = _progression(index.array.reshape(-1), x.aval.shape[0])
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
