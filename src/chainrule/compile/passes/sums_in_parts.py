"""Long sums in two parts: so that each core reads what it wrote itself, and writes what nobody else has read.

Two cores share a batch by its rows, half and half. A gradient of a weight is a sum over the batch: shared by its
entries, each core would read all rows, half of them from the other; and what both have read, neither may write again
without asking. Shared by terms of the sum, each core reads its own rows. A weight with many more rows than columns, as
that of a first layer, is updated row by row: the product that reads it sums over those, and is done in parts likewise.
What then passes from core to core are the parts of the sums, which are small.

Knows products and sums by their sizes. There are two parts for any number of threads, so that a result has the same
digits; more threads share a part by its rows, as they would share the whole.
"""

from __future__ import annotations

import math
from typing import Any

from chainrule import dtypes
from chainrule.compile.passes.rewriting import is_divisible, rewritten, stored
from chainrule.compile.program import Program
from chainrule.ops import contraction, movement, reduction, windows

_PARTS = 2
_LONG = 2  # times as many terms as results along each dimension: with fewer, columns are shared and not rows
_ADDED = 1 << 19  # multiply-adds of a product, and
_SUMMED = 1 << 13  # terms of a sum, for which one wait more does not matter
_AROUND = 4  # points of the dimensions before the batch: of more, these are what is shared


def sums_in_parts(program: Program) -> Program:
    """X @ y = Σ over parts p of x[:, p] @ y[p], and Σ x = Σ over parts p of Σ x[p], of long sums and few results."""
    return rewritten(program, (_product, _sum, stored))


def _product(node: Any) -> Any:
    if node.op is not contraction.matmul or node.aval.ndim != 2:
        return None
    x, y = node.inputs
    (rows, terms), columns = x.aval.shape, y.aval.shape[1]
    if terms % _PARTS or terms < _LONG * max(rows, columns) or rows * columns * terms < _ADDED:
        return None
    if dtypes.work_dtype(node.aval.dtype) != node.aval.dtype or any(map(_slides, node.inputs)):
        return None  # 16-bit floats are rounded once; windows are shared by where they stand
    each = terms // _PARTS
    left = movement.permute(movement.reshape(x, shape=(rows, _PARTS, each)), dims=(1, 0, 2))
    right = movement.reshape(y, shape=(_PARTS, each, columns))
    parts = movement.permute(contraction.matmul(left, right), dims=(1, 2, 0))
    return reduction.sum_(parts, dim=(2,), keepdim=False)


def _sum(node: Any) -> Any:
    if not is_divisible(node):
        return None
    (x,), dims = node.inputs, sorted(node.params["dim"])
    shape = x.aval.shape
    if x.aval.size < _SUMMED or x.aval.size < _LONG * node.aval.size**2:
        return None
    batch = next(d for d in dims if shape[d] > 1)
    if shape[batch] % _PARTS or math.prod(shape[:batch]) > _AROUND or (batch and shape[0] == _PARTS):
        return None  # the last: it is in parts already
    split = (*shape[:batch], _PARTS, shape[batch] // _PARTS, *shape[batch + 1 :])
    rest = [d for d in range(len(split)) if d != batch]
    parts = movement.permute(movement.reshape(x, shape=split), dims=(batch, *rest))
    inside = tuple(1 + rest.index(d + (d >= batch)) for d in dims)
    sums = reduction.sum_(parts, dim=inside, keepdim=False)
    return movement.reshape(reduction.sum_(sums, dim=(0,), keepdim=False), shape=node.aval.shape)


def _slides(node: Any) -> bool:
    """Are the entries of an operand windows that slide over something?"""
    while node.op in (movement.permute, movement.reshape):
        (node,) = node.inputs
    return node.op is windows.windows
