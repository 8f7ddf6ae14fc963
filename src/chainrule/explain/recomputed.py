"""A loss that a compiled function gave has no graph: to explain it, the call is computed again, op by op."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from chainrule.compile.tracing.replay import replayed
from chainrule.core.node import Node


class Recomputed(NamedTuple):
    """A loss to explain; what there is to say about where it comes from; names of tensors behind it."""

    loss: Any
    says: str
    names: dict[str, Any]


def recomputed(loss: Any, wrt: Any) -> Recomputed:
    """The loss itself; or, where a compiled function or a result of one is given, its last call computed again.

    Args:
        loss: a loss; or a compiled function, or what it returned.
        wrt: what the explanation is about; it stays itself where it was an argument of the call.
    Raises: TraceError: the function was not called yet. ArgumentError: it returns no loss, or several.
    """
    found = replayed(loss, [wrt])
    if found is None:
        return Recomputed(loss, "", {})
    value, compiled = _number(found.value.array), _number(found.compiled)
    apart = abs(value - compiled) / max(abs(value), abs(compiled), np.finfo(np.float64).tiny)
    how = (
        "computed again op by op, since a compiled step keeps no graph: its last arguments, its parameters as they are"
    )
    same = "the compiled code gives the same" if not apart else f"the compiled code differs by {apart:.0e} of it"
    says = f"{how}; {value:.6g}, and {same}"
    if found.updates and isinstance(loss, Node):
        says += f"; the loss it returned, {_number(loss.array):.6g}, is from before its update"
    return Recomputed(found.value, says, found.names)


def _number(array: Any) -> float:
    flat = np.asarray(array).reshape(-1)
    return float(flat[0]) if flat.size == 1 else float("nan")
