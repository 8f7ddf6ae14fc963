"""A sum over rows and columns, of what was computed row by row: first along each row, where its entries are at hand.

The loss of a softmax held against probabilities is a sum of all entries; but each row has a largest entry and a sum of
its own before, which loops over rows come to. Summed by rows, all of it is one kernel, and no entry is stored for it.
"""

from __future__ import annotations

from typing import Any

from chainrule.compile.passes.rewriting import is_divisible, rewritten, stored
from chainrule.compile.program import Program
from chainrule.core.family import Elementwise, Reduction
from chainrule.core.node import Node
from chainrule.ops import movement, reduction


def rows_first(program: Program) -> Program:
    """Σ x = Σ over rows of Σ over columns, where x is made of what was reduced along its columns."""
    return rewritten(program, (_sum, stored))


def _sum(node: Any) -> Any:
    if not is_divisible(node):
        return None
    (x,), dims = node.inputs, node.params["dim"]
    long = {d for d in dims if x.aval.shape[d] > 1}
    columns = _columns(x)
    if not columns or not columns < long:
        return None
    rows = reduction.sum_(x, dim=tuple(sorted(columns)), keepdim=True)
    return reduction.sum_(rows, **node.params)


def _columns(x: Node) -> set[int]:
    """The dimensions along which something was reduced that each entry is computed from; none if nothing was."""
    shape, seen, todo = x.aval.shape, set[int](), [(x, x.aval.shape)]
    while todo:
        node, stretched = todo.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node.op, Reduction) and node.inputs[0].aval.shape == shape:
            columns = {d for d in node.params["dim"] if shape[d] > 1}
            if stretched == tuple(1 if d in columns else n for d, n in enumerate(shape)):  # along these very columns
                return columns
        elif isinstance(node.op, Elementwise) or node.op is movement.reshape:
            todo += [(y, stretched) for y in node.inputs]
        elif node.op is movement.expand:
            todo += [(y, y.aval.shape) for y in node.inputs]
    return set()
