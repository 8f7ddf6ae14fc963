"""Long sums in two parts: so that of a weight with many more rows than columns each core reads what it wrote itself.

In training, the first layer's weight is updated row by row, half by each of two cores. Shared by rows of the batch, the
next product reads all of it, and half of that from the other core; and what both have read, neither may write without
asking. Shared by terms of the sum, each core reads its own rows of the weight and its own columns of the batch. What
then passes from core to core are the parts of the sums, which are small.

Knows products by their sizes. There are two parts for any number of threads, so that a result has the same digits; more
threads share a part by its rows, as they would share the whole.
"""

from __future__ import annotations

from typing import Any

from chainrule import dtypes
from chainrule.compile.passes.rewriting import rewritten, stored
from chainrule.compile.program import Program
from chainrule.ops import contraction, movement, reduction, windows

_PARTS = 2
_LONG = 10  # times as many terms as rows or columns: so the parts of the sums are a tenth of the operands at most
_LEAST = 1 << 20  # multiply-adds, for which one wait more does not matter


def sums_in_parts(program: Program) -> Program:
    """X @ y = Σ over parts p of x[:, p] @ y[p], where sums are long and results few."""
    return rewritten(program, (_in_parts, stored))


def _in_parts(node: Any) -> Any:
    if node.op is not contraction.matmul or node.aval.ndim != 2:
        return None
    x, y = node.inputs
    (rows, terms), columns = x.aval.shape, y.aval.shape[1]
    if terms % _PARTS or terms < _LONG * max(rows, columns) or rows * columns * terms < _LEAST:
        return None
    if dtypes.work_dtype(node.aval.dtype) != node.aval.dtype or any(map(_slides, node.inputs)):
        return None  # 16-bit floats are rounded once; windows are shared by where they stand
    each = terms // _PARTS
    left = movement.permute(movement.reshape(x, shape=(rows, _PARTS, each)), dims=(1, 0, 2))
    right = movement.reshape(y, shape=(_PARTS, each, columns))
    parts = movement.permute(contraction.matmul(left, right), dims=(1, 2, 0))
    return reduction.sum_(parts, dim=(2,), keepdim=False)


def _slides(node: Any) -> bool:
    """Are the entries of an operand windows that slide over something?"""
    while node.op in (movement.permute, movement.reshape):
        (node,) = node.inputs
    return node.op is windows.windows
