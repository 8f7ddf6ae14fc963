"""What is known when the program is compiled is computed then."""

from __future__ import annotations

from typing import Any

import numpy as np

from chainrule.compile.passes.rewriting import rewritten, stored
from chainrule.compile.program import Program
from chainrule.core.family import Elementwise
from chainrule.core.node import Node, compute
from chainrule.errors import ChainruleError
from chainrule.ops import movement, source
from chainrule.ops.algebra import held

# Entries of a result that is kept as a constant of the program; a larger one is computed anew, rather than read.
LARGEST = 4096


def fold_constants(program: Program) -> Program:
    """Nodes computed from constants alone are constants, if they are not large; what has no entries is known too.

    Ranges stay, and what only moves them or copies a constant: code makes them of the position, which costs no memory.
    """
    folding = _Folding()
    return rewritten(program, (folding.of, stored))


_MOVES = movement.PLACING | {movement.cast}


class _Folding:
    """One folding: the values of the ranges, and of what was moved of them, that it met, by id."""

    def __init__(self) -> None:
        self.left: dict[int, tuple[Node, np.ndarray]] = {}

    def of(self, node: Any) -> Any:  # noqa: PLR0911 - one case after the other
        op = node.op
        if op is None:
            return None
        if not node.aval.size:
            return type(node).leaf(np.zeros(node.aval.shape, node.aval.dtype))
        if not (node.inputs or op is source.arange):
            return None
        if isinstance(op, Elementwise) and all(x.constant is not None for x in node.inputs):
            return held(node, compute(op, [_number(x) for x in node.inputs], node.params))
        if node.aval.size > LARGEST:
            return None
        values = [self._value(x) for x in node.inputs]
        known = [v for v in values if v is not None]
        if len(known) < len(values):
            return None
        try:
            value = compute(op, known, node.params)
        except (ChainruleError, ValueError):
            return None  # whoever runs it says so
        if op in (source.arange, movement.expand) or (op in _MOVES and id(node.inputs[0]) in self.left):
            self.left[id(node)] = (node, value)
            return None
        return type(node).leaf(np.asarray(value, order="C"))

    def _value(self, x: Node) -> np.ndarray | None:
        if id(x) in self.left:
            return self.left[id(x)][1]
        if x.op is None and x.array is None and x.constant is not None:
            return np.broadcast_to(_number(x), x.aval.shape)
        return x.array


def _number(x: Node) -> np.ndarray:
    """The one number of a constant."""
    assert x.constant is not None
    numerator, denominator = x.constant
    return np.asarray(numerator if denominator == 1 else numerator / denominator, x.aval.dtype)
