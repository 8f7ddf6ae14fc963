"""What is known of an index by how it was made: that it counts from the start, and how far."""

from __future__ import annotations

import math

from chainrule.core.family import Reduction
from chainrule.core.node import Node
from chainrule.ops import indexing, movement, source


def reach(x: Node) -> int | None:
    """From how many positions `x` is one, counted from the start; None where that is not known.

    The place of an extreme or in an order is a position, and so is an entry of a range from 0 on.
    """
    while x.op in movement.PLACING:
        (x,) = x.inputs
    if isinstance(x.op, Reduction) and x.op.combine in ("argmax", "argmin"):
        return int(math.prod(x.inputs[0].aval.shape[d] for d in x.params["dim"]))
    if x.op is source.arange and x.params["start"] >= 0 and x.params["step"] > 0:
        return int(x.params["stop"])
    return int(x.inputs[0].aval.shape[x.params["dim"]]) if x.op is indexing.argsort else None
