"""Why results of compiled calls have no graph: a reason that knows the trace, from which there can be one after all."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, final

from chainrule.core.node import Cut

if TYPE_CHECKING:
    from chainrule.compile.tracing.bound import Bound


@final
class NoGraph(Cut):
    """Why a result of a compiled call has no graph; it knows the trace it came from.

    source: the trace, while it lives. output: which of the program's outputs the result is.
    """

    source: weakref.ref[Bound]
    output: int


def no_graph(bound: Bound, output: int) -> NoGraph:
    """The reason that goes with an output of a trace."""
    cut = NoGraph("compile: a compiled function gives values without a graph; call backward() inside it", ())
    cut.source, cut.output = weakref.ref(bound), output
    return cut
