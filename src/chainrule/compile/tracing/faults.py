"""Which index of a compiled call was out of range: machine code only notes that one was, and goes on.

The traced program is run again op by op, on the arrays as they are now, up to the op that refuses its index.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from chainrule.compile.program import Program
from chainrule.compile.tracing.trace import Pull
from chainrule.core.node import at_line_of, compute
from chainrule.core.provenance import calls, is_composite, is_ours
from chainrule.errors import OutOfRangeError
from chainrule.ops import comparison, elementwise, movement

_RAN = "the compiled function has run to its end, updates included"


def out_of_range(program: Program, arrays: Sequence[np.ndarray], pulls: Sequence[Pull]) -> OutOfRangeError:
    """The error for a call whose machine code has noted an index out of range.

    pulls: what backward passes went through: an op of theirs goes by the forward op that it is the gradient of.
    """
    values: dict[int, Any] = {id(x): array for x, array in zip(program.inputs, arrays, strict=True)}
    with np.errstate(all="ignore"):
        for node in program.nodes:
            if id(node) in values:
                continue
            if node.op is None:
                values[id(node)] = node.array
                continue
            try:
                values[id(node)] = compute(node.op, [values[id(x)] for x in node.inputs], node.params)
            except OutOfRangeError as error:
                says = _of_label(node, values) or str(error).partition(": ")[2]
                asked = next((p.node for p in pulls if any(x is node for x in p.sent)), node)
                return at_line_of(asked.trail, OutOfRangeError(f"{_called(asked)}: {says}; {_RAN}"))
    return OutOfRangeError(
        f"compile: an index or a label was out of range, and is not any more: it was updated meanwhile; {_RAN}"
    )


def _of_label(node: Any, values: dict[int, Any]) -> str | None:
    """Of labels, which do not count from the end: one below 0 was made too large, so that the op refuses it.

    So `none_below_zero` writes it: where(label < 0, size, label), for a number `size`.
    """
    for x in node.inputs:
        while x.op in (*movement.PLACING, movement.cast):
            (x,) = x.inputs
        if x.op is not elementwise.where or x.inputs[0].op is not comparison.lt:
            continue
        below, size, labels = x.inputs
        found, count = values[id(labels)], values[id(size)]
        if below.inputs[0] is not labels or not found.size or (count != count.flat[0]).any():
            continue
        worst, most = found.min() if found.min() < 0 else found.max(), count.flat[0]
        if not 0 <= worst < most:
            return f"{worst} is out of range; use 0 to {most - 1}"
    return None


def _called(node: Any) -> str:
    """The function of the library that the user called, or the op."""
    name: str = node.op.name
    for code, *_ in calls(node.trail):
        if not is_ours(code):
            break
        name = code.co_name if is_composite(code) and not code.co_name.startswith("_") else name
    return name
