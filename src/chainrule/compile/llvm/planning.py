"""How each kind of kernel is written for a target: its plan, in units that threads share."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

from chainrule.compile.kernels.kernel import Contract, Kernel, Loops, Nest, Scan, Scatter, Sort
from chainrule.compile.llvm import contraction, loops, sequential
from chainrule.compile.llvm.expressions import Emitter
from chainrule.compile.llvm.shares import Rows, Share
from chainrule.compile.llvm.target import Target


class Plan(Protocol):
    """How one kernel is written; each kind of kernel has its own."""

    @property
    def kernel(self) -> Kernel:
        """The kernel as it is written: what it remembers of a row may lie otherwise than was asked for."""
        ...

    @property
    def units(self) -> int:
        """Parts that threads share."""
        ...

    @property
    def rows(self) -> Rows | None:
        """What they stand for, if for rows of the first dimension."""
        ...

    @property
    def grain(self) -> int:
        """How many are better not taken apart."""
        ...

    @property
    def scratch(self) -> int:
        """Bytes of memory that a thread needs to itself."""
        ...

    @property
    def work(self) -> float:
        """Roughly the cycles that one thread takes for it all."""
        ...

    def emit(self, emitter: Emitter, share: Share) -> None:
        """Code for a share of the units."""
        ...


@dataclass(frozen=True, eq=False)
class NestPlan:
    """How a `Nest` is written: its kernels in turn, at each point of the batch; threads share the points."""

    kernel: Nest
    parts: tuple[Plan, ...]
    grain: int = 1
    rows: Rows | None = None

    @property
    def units(self) -> int:
        """Parts that threads share."""
        return math.prod(self.kernel.extents[v] for v in self.kernel.variables)

    @property
    def scratch(self) -> int:
        """Bytes of memory that a thread needs to itself, without what is handed on."""
        return max(p.scratch for p in self.parts)

    @property
    def work(self) -> float:
        """Roughly the cycles that one thread takes for it all."""
        return self.units * sum(p.work for p in self.parts)


def plan(kernel: Kernel, target: Target) -> Plan | NestPlan:
    """How a kernel is written for a target."""
    match kernel:
        case Loops():
            return loops.plan(kernel, target)
        case Contract():
            return contraction.plan(kernel, target)
        case Scatter():
            return sequential.plan_scatter(kernel)
        case Scan():
            return sequential.ScanPlan(kernel)
        case Sort():
            return sequential.SortPlan(kernel)
        case Nest():
            parts = tuple(plan(k, target) for k in kernel.kernels)
            return NestPlan(kernel, parts)  # type: ignore[arg-type]
