"""A position is never negative: what counts from the end where it is falls away."""

from __future__ import annotations

from typing import Any

from chainrule.compile.passes.positions import reach
from chainrule.compile.passes.rewriting import rewritten, stored
from chainrule.compile.program import Program
from chainrule.core.node import Node, Ratio
from chainrule.ops import comparison
from chainrule.ops.algebra import filled, is_number
from chainrule.ops.identities import ALWAYS


def known_signs(program: Program) -> Program:
    """(i < 0) = false, for a position i."""
    if not any(_below_zero(node) for node in program.nodes):
        return program
    return rewritten(program, (_false, *ALWAYS, stored))


def _below_zero(node: Node) -> bool:
    return node.op is comparison.lt and is_number(node.inputs[1], 0) and reach(node.inputs[0]) is not None


def _false(node: Any) -> Any:
    return filled(node, Ratio(0)) if _below_zero(node) else None
