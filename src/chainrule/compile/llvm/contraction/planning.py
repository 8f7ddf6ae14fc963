"""What a contraction offers to the step that it is part of: units of work, and their code."""

from __future__ import annotations

from dataclasses import dataclass

from chainrule.compile.kernel import Contract
from chainrule.compile.llvm.builder import Index
from chainrule.compile.llvm.contraction.axes import product
from chainrule.compile.llvm.contraction.layout import Layout, decide
from chainrule.compile.llvm.contraction.writing import Writing
from chainrule.compile.llvm.expressions import Emitter
from chainrule.compile.llvm.target import Target


@dataclass(frozen=True, kw_only=True)
class ContractPlan:
    """A contraction, decided: see `plan`.

    units: how many parts threads may share, each a contiguous range of them. Each writes its own part of the output,
        and what a part comes to does not depend on who does it.
    scratch: bytes of memory that one thread needs beside, 64-byte aligned.
    flops: multiplications and additions. work: about the cycles that one thread takes, as vector instructions.
    """

    layout: Layout
    units: int
    scratch: int
    flops: int
    work: float

    def emit(self, emitter: Emitter, lo: Index, hi: Index, scratch: str) -> None:
        """Code for the units from `lo` up to `hi`; `scratch` is a pointer register."""
        if self.units:
            Writing(self.layout, emitter, scratch).units(lo, hi)


def plan(kernel: Contract, target: Target) -> ContractPlan:
    """Decide how to do a contraction on a machine."""
    layout = decide(kernel, target)
    axes = layout.axes
    return ContractPlan(
        layout=layout,
        units=layout.panels.count * layout.tiles.count,
        scratch=layout.stretches[-1],
        flops=2 * product((*axes.batch, *axes.rows, *axes.columns, *axes.summed)),
        work=layout.form.cost,
    )
