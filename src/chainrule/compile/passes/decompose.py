"""Composites become what they are made of: a scheduler knows sums and maxima, not softmax and variance."""

from __future__ import annotations

from typing import Any

from chainrule import dtypes
from chainrule.compile.passes.rewriting import rewritten, stored
from chainrule.compile.program import Program
from chainrule.core.family import Fused, Reduction
from chainrule.core.node import Ratio
from chainrule.ops import comparison, movement


def decompose(program: Program) -> Program:
    """Ops that are made of others, a softmax or a mean, are taken apart into these."""
    return rewritten(program, (_expanded, _truth, stored))


def _expanded(node: Any) -> Any:
    """softmax(x) = e / Σ e with e = exp(x − max x), mean(x) = Σ x / n, …, as the op states it.

    16-bit floats are computed in float32 throughout and rounded once, as the ops' own kernels do.
    """
    op = node.op
    if not isinstance(op, Fused | Reduction) or op.expansion is None:
        return None
    dtype = node.aval.dtype
    work = dtypes.work_dtype(dtype)
    if work is dtype:
        return op.expansion(*node.inputs, **node.params)
    wide = [movement.cast(x, dtype=work) if x.aval.dtype == dtype else x for x in node.inputs]
    return movement.cast(op.expansion(*wide, **node.params), dtype=dtype)


def _truth(node: Any) -> Any:
    """any(x) = any(x ≠ 0), all(x) = all(x ≠ 0)."""
    op = node.op
    if isinstance(op, Reduction) and op.combine in ("and", "or") and node.inputs[0].aval.dtype != dtypes.bool_:
        (x,) = node.inputs
        return op(comparison.ne(x, type(x).number(x.aval._replace(shape=()), Ratio(0))), **node.params)
    return None
