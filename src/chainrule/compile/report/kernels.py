"""One kernel's row in a report, and the words for what kind of loops it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, final

import numpy as np

from chainrule.compile.kernels.kernel import Contract, Kernel, Loops, Nest, Scan, Scatter, Sort
from chainrule.compile.kernels.limits import limits
from chainrule.compile.report.meaning import Line

LimitedBy = Literal["arithmetic", "memory"]


@final
@dataclass(frozen=True, kw_only=True, repr=False)
class KernelReport:
    """One kernel of a step.

    number: in the order they run, from 1. function: its name in the module. formulas: what it writes, as mathematics.
    words: what kind of loops it is. ops: the ops fused into it. lines: the user's lines it works for. updated: what it
        updates in place. unstored: values whose gradient it makes and uses up, without storing it.
    claimed: values whose memory it touches, so that its core has it at hand when a later kernel writes them.
    units: the parts that threads share. threads: how many share it. waits: do all threads wait for each other before?
    products, operations: those of products of matrices, and all, in floating point; doubles: those of all in float64.
    dear: are there among them some that take as long as ten, such as exponentials?
    read, written: bytes, by name; each buffer once.
    seconds: the shortest of the runs. limit: the least seconds that the machine's limits allow. limited_by: which one.
    """

    number: int
    function: str
    kind: str
    formulas: tuple[str, ...]
    words: str
    ops: tuple[str, ...]
    lines: tuple[Line, ...]
    updated: tuple[str, ...]
    unstored: tuple[str, ...]
    claimed: tuple[str, ...]
    units: int
    threads: int
    waits: bool
    products: int
    operations: int
    doubles: int
    dear: bool
    read: tuple[tuple[str, int], ...]
    written: tuple[tuple[str, int], ...]
    seconds: float
    limit: float
    limited_by: LimitedBy

    def __repr__(self) -> str:
        return f"<kernel {self.number}: {'; '.join(self.formulas)}; {self.seconds * 1e6:.3g} us>"

    @property
    def bytes(self) -> int:
        """What it has to read and to write."""
        return sum(n for _, n in (*self.read, *self.written))

    @property
    def gflops(self) -> float:
        """Operations a second, in 10⁹."""
        return self.operations / self.seconds / 1e9 if self.seconds else 0.0

    @property
    def gbytes(self) -> float:
        """Bytes a second, in 10⁹."""
        return self.bytes / self.seconds / 1e9 if self.seconds else 0.0

    @property
    def share(self) -> float:
        """Of the machine's limit: 1 is as fast as it can be. More than 1: its data came from a cache."""
        return self.limit / self.seconds if self.seconds else 0.0


def kind_of(kernel: Kernel) -> str:
    """The kind of a kernel in a word or two."""
    match kernel:
        case Contract():
            return "product"
        case Loops(stages=stages):
            return "sum" if any(s.reductions for s in stages) else "entry by entry"
        case Nest():
            return "nest"
        case Scatter():
            return "scatter"
        case Scan():
            return "running sum"
        case Sort():
            return "sort"


_COMBINED = {
    "add": "sums", "mul": "products", "max": "largest", "min": "smallest", "and": "all", "or": "any",
    "argmax": "place of the largest", "argmin": "place of the smallest",
}  # fmt: skip


def words_for(kernel: Kernel, ops: Sequence[str], *, updates: bool = False) -> str:
    """What kind of loops a kernel is, for somebody who has not seen one.

    ops: that are fused, by name, in their order. updates: are there parameters that it updates?
    """
    match kernel:
        case Contract():
            batch, rows, columns, summed = (
                int(np.prod([kernel.extents[v] for v in axes], dtype=np.int64))
                for axes in (kernel.batch, kernel.rows, kernel.columns, kernel.summed)
            )
            at = f"{batch:,} times " if batch > 1 else ""
            after = dict.fromkeys(ops[ops.index("matmul") + 1 :] if "matmul" in ops else ())
            spoken = ["update"] if updates else [word for name in after if (word := _SPOKEN.get(name, name))]
            fused = f"; {_joined(spoken)} in the same loops" if spoken else ""
            most = "at most " if any(limits(e, kernel.summed) for e in (kernel.left, kernel.right)) else ""
            return f"matrix product, {at}{rows:,} x {columns:,} entries of {most}{summed:,} terms{fused}"
        case Loops():
            outer = _times(kernel.extents[v] for v in kernel.outer)
            reduced = [
                (_COMBINED[r.combine], int(np.prod([kernel.extents[v] for v in stage.inner], dtype=np.int64)))
                for stage in kernel.stages for r in stage.reductions
            ]  # fmt: skip
            if not reduced:
                return f"entry by entry, {outer} entries" if outer else "one number"
            what = _joined(list(dict.fromkeys(name for name, _ in reduced)))
            return f"{what} over {max(n for _, n in reduced):,} entries{f', for each of {outer}' if outer else ''}"
        case Nest():
            inside = "; ".join(words_for(k, ops, updates=updates) for k in kernel.kernels)
            return f"for each of {_times(kernel.extents[v] for v in kernel.variables)}: {inside}"
        case Scatter():
            return f"adds {_times(kernel.extents[v] for v in kernel.loops)} entries up where they belong"
        case Scan():
            return f"running sums over {kernel.extents[kernel.along]:,} entries"
        case Sort():
            return f"sorts rows of {kernel.extents[kernel.along]:,} entries"


# Ops in the words of a sentence; what only moves or compares is not said.
_SPOKEN = {
    "add": "addition", "sub": "subtraction", "mul": "multiplication", "div": "division", "gate": "mask",
    "where": "choice",
    **dict.fromkeys(("expand", "reshape", "permute", "cast", "windows", "flip"), ""),
    **dict.fromkeys(("gt", "ge", "lt", "le", "eq", "ne"), ""),
}  # fmt: skip


def _times(sizes: Any) -> str:
    return " x ".join(f"{n:,}" for n in sizes if n != 1)


def _joined(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
