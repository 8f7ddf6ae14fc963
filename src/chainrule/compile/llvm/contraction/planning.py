"""What a contraction offers to the step that it is part of: units of work, and their code."""

from __future__ import annotations

from dataclasses import dataclass, replace

from chainrule import dtypes
from chainrule.compile.kernels.kernel import Contract
from chainrule.compile.kernels.limits import terms
from chainrule.compile.llvm.builder import Index
from chainrule.compile.llvm.contraction.axes import Axes, Axis, product
from chainrule.compile.llvm.contraction.layout import Layout, decide
from chainrule.compile.llvm.contraction.writing import Writing
from chainrule.compile.llvm.expressions import Emitter
from chainrule.compile.llvm.indices import index_divmod
from chainrule.compile.llvm.shares import Rows, Share
from chainrule.compile.llvm.target import Target

_WORTH = 0.95  # of the cost of a whole, which its parts must not exceed


@dataclass(frozen=True, kw_only=True)
class ContractPlan:
    """A contraction, decided: see `plan`.

    layouts: of its parts, which together make the whole output.
    units: how many parts threads may share, each a contiguous range of them. Each writes its own part of the output,
        and what a part comes to does not depend on who does it.
    rows: what units stand for. grain: how many are better not taken apart.
    scratch: bytes of memory that one thread needs beside, 64-byte aligned.
    flops: multiplications and additions. work: roughly the cycles that one thread takes.
    """

    layouts: tuple[Layout, ...]
    units: int
    rows: Rows | None
    grain: int
    scratch: int
    flops: int
    work: float

    @property
    def kernel(self) -> Contract:
        """What is contracted."""
        return self.layouts[0].kernel

    def emit(self, emitter: Emitter, share: Share) -> None:
        """Code for a share of the units."""
        if not self.units:
            return
        b = emitter.builder
        for layout in self.layouts:
            lo, hi = (self._tile(emitter, layout, unit) for unit in (share.lo, share.hi))
            continues = share.continues if len(self.layouts) == 1 else b.constant(False, dtypes.bool_)
            Writing(layout, emitter, share._replace(lo=lo, hi=hi, continues=continues)).write()

    def _tile(self, emitter: Emitter, layout: Layout, unit: Index) -> Index:
        """The tile of a part that stands where a unit stands in the whole."""
        if layout.units == self.units:
            return unit
        b = emitter.builder
        return index_divmod(b, b.index_mul(unit, layout.units), self.units)[0]


def plan(kernel: Contract, target: Target) -> ContractPlan:
    """Decide how to do a contraction on a machine."""
    axes = Axes.of(kernel)
    whole = decide(kernel, target, axes, {})
    added = terms(kernel)
    parts = _parts(whole)
    layouts = parts if 0 < sum(p.form.cost for p in parts) < _WORTH * whole.form.cost else (whole,)
    return ContractPlan(
        layouts=layouts,
        units=layouts[0].units,
        rows=layouts[0].rows if all(_alike(layouts[0], layout) for layout in layouts) else None,
        grain=max(-(-layout.grain * layouts[0].units // max(layout.units, 1)) for layout in layouts),
        scratch=max(layout.stretches[-1] for layout in layouts),
        flops=2 * added,
        work=2 * added / target.flops_a_cycle(kernel.accumulate),
    )


def _alike(first: Layout, other: Layout) -> bool:
    """Do the units of the first stand for rows, and those of the other, one or some at a time, for the same?"""
    if first.rows is None or other.rows is None:
        return False
    each, rest = divmod(first.rows.height, other.rows.height)
    return not rest and first.rows.number == other.rows.number and other.units == each * first.units


def _parts(whole: Layout) -> tuple[Layout, ...]:
    """Whole vectors along the lanes, and apart from them what is left: a few columns, which may be done another way.

    As the last vector of each row, 2 columns of 50 would cost as much as 8.
    """
    axes, lanes = whole.axes, whole.form.lanes
    full = lanes.extent // whole.width * whole.width
    if whole.form.dot or whole.results_turned or full in {0, lanes.extent} or lanes not in whole.form.vectors:
        return ()
    if len(whole.form.vectors) > 1 or not product((*axes.batch, *axes.rows, *axes.summed)):
        return ()
    found: list[Layout] = []
    for start, stop in ((0, full), (full, lanes.extent)):
        part = Axis(lanes.variables, stop - start)
        cut = replace(axes, rows=(part,)) if whole.form.swapped else replace(axes, columns=(part,))
        found.append(decide(whole.kernel, whole.target, cut, {part: start}, found[0].tiles.size if found else 0))
    return tuple(found)
