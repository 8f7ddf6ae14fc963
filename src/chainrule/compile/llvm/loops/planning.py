"""What a loop nest offers to the step that it is part of: units of work, and their code.

Knows that there is a layout and somebody who writes it; neither how it is chosen nor what the code looks like.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from chainrule.compile.kernels.kernel import Loops
from chainrule.compile.llvm.expressions import Emitter
from chainrule.compile.llvm.loops.layout import Layout, decide
from chainrule.compile.llvm.loops.writing import Writing
from chainrule.compile.llvm.shares import Rows, Share
from chainrule.compile.llvm.target import Target


@final
@dataclass(frozen=True, eq=False, kw_only=True)
class LoopsPlan:
    """A loop nest, decided: see `plan`.

    units: parts that threads share, contiguous ranges of them; each writes its own part of the output.
    rows: what units stand for. grain: how many are better not taken apart.
    work: roughly the cycles that one thread takes for it all.
    """

    layout: Layout
    units: int
    rows: Rows | None
    work: float
    scratch: int = 0
    grain: int = 1

    @property
    def kernel(self) -> Loops:
        """The nest as it is written."""
        return self.layout.kernel

    def emit(self, emitter: Emitter, share: Share) -> None:
        """Code for a share of the units."""
        if not self.layout.is_empty:
            Writing(self.layout, emitter).units(share.lo, share.hi)


def plan(kernel: Loops, target: Target) -> LoopsPlan:
    """Decide how a loop nest is written for a target."""
    layout = decide(kernel, target)
    return LoopsPlan(layout=layout, units=layout.units, rows=layout.rows, work=layout.work)
