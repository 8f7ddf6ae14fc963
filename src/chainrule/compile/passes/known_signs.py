"""A position is never negative: what counts from the end where it is falls away."""

from __future__ import annotations

from typing import Any

from chainrule.compile.passes.rewriting import rewritten, stored
from chainrule.compile.program import Program
from chainrule.core.family import Reduction
from chainrule.core.node import Node, Ratio
from chainrule.ops import comparison, indexing, movement, source
from chainrule.ops.algebra import filled, is_number
from chainrule.ops.identities import ALWAYS


def known_signs(program: Program) -> Program:
    """(i < 0) = false, for a position i."""
    if not any(_below_zero(node) for node in program.nodes):
        return program
    return rewritten(program, (_false, *ALWAYS, stored))


def _below_zero(node: Node) -> bool:
    return node.op is comparison.lt and is_number(node.inputs[1], 0) and _is_position(node.inputs[0])


def _false(node: Any) -> Any:
    return filled(node, Ratio(0)) if _below_zero(node) else None


def _is_position(x: Node) -> bool:
    """Is it counted from the start: the place of an extreme or in an order, or a range from 0 on?"""
    while x.op in movement.VIEWS:
        (x,) = x.inputs
    if isinstance(x.op, Reduction):
        return x.op.combine in ("argmax", "argmin")
    if x.op is source.arange:
        return bool(x.params["start"] >= 0 and x.params["step"] > 0)
    return x.op is indexing.argsort
