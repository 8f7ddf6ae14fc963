"""What a backward pass asks of a value is asked of one that is kept anyway."""

from __future__ import annotations

from typing import Any

from chainrule.compile.passes.rewriting import rewritten
from chainrule.compile.program import Program
from chainrule.ops import comparison, elementwise
from chainrule.ops.algebra import is_number


def masks(program: Program) -> Program:
    """x > 0 = relu(x) > 0, where relu(x) is computed: then nothing reads x itself any more, nan included."""
    rectified = {id(node.inputs[0]) for node in program.nodes if node.op is elementwise.relu}

    def of_output(node: Any) -> Any:
        if node.op is comparison.gt and is_number(node.inputs[1], 0) and id(node.inputs[0]) in rectified:
            return comparison.gt(elementwise.relu(node.inputs[0]), node.inputs[1])
        return None

    return rewritten(program, (of_output,)) if rectified else program
