"""The axes of a contraction: its loop variables, joined where they walk memory as one.

Two variables join when one step of the first is, at every position the kernel mentions, a whole run of the second:
the rows of a batch of contiguous matrices are rows of one matrix. The joined variable is the second, counting on; the
first stays 0, so no position has to be written anew.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from chainrule.compile.kernels.expression import Expr, Load, walk
from chainrule.compile.kernels.kernel import Contract
from chainrule.compile.llvm.builder import Index
from chainrule.core.affine import Affine


class Axis(NamedTuple):
    """Loop variables that count as one: the last of them runs over the extent, the others are 0."""

    variables: tuple[int, ...]
    extent: int

    @property
    def variable(self) -> int | None:
        """The variable that runs; None for an axis that stands for no variable."""
        return self.variables[-1] if self.variables else None

    def at(self, position: Index) -> dict[int, Index]:
        """What the variables are at a position of the axis."""
        values: dict[int, Index] = dict.fromkeys(self.variables, 0)
        if self.variables:
            values[self.variables[-1]] = position
        return values

    def step(self, affine: Affine) -> int:
        """How far one step of the axis moves a position in memory."""
        return 0 if self.variable is None else affine.coefficient(self.variable)


NONE = Axis((), 1)  # in the place of an axis where a role has no variable: one point


@dataclass(frozen=True)
class Axes:
    """The joined axes of each role, and the variables that are always 0 because they run over one point."""

    batch: tuple[Axis, ...]
    rows: tuple[Axis, ...]
    columns: tuple[Axis, ...]
    summed: tuple[Axis, ...]
    still: tuple[int, ...]

    @classmethod
    def of(cls, kernel: Contract) -> Axes:
        """Of a kernel, joined."""
        found = positions(kernel.left, kernel.right, *(s.value for s in kernel.epilogue))
        found += [s.offset for s in kernel.epilogue]
        operands = positions(kernel.left, kernel.right)

        def join(variables: tuple[int, ...]) -> tuple[Axis, ...]:
            return _joined(variables, kernel.extents, found)

        def reach(axis: Axis) -> int:
            return max((abs(axis.step(p)) for p in operands), default=0)

        everything = (*kernel.batch, *kernel.rows, *kernel.columns, *kernel.summed)
        return cls(
            join(kernel.batch),
            join(kernel.rows),
            join(kernel.columns),
            tuple(sorted(join(kernel.summed), key=reach, reverse=True)),  # the shortest steps innermost
            tuple(v for v in everything if kernel.extents[v] == 1),
        )


def positions(*roots: Expr) -> list[Affine]:
    """Every position that expressions mention."""
    return [p for e in walk(*roots) for p in e.positions()]


def _joined(variables: Iterable[int], extents: Mapping[int, int], found: Sequence[Affine]) -> tuple[Axis, ...]:
    axes = [Axis((v,), extents[v]) for v in variables if extents[v] != 1]
    again = True
    while again:
        again = False
        for first in axes:
            for second in axes:
                if first is second or 0 in (first.extent, second.extent):
                    continue
                if all(first.step(p) == second.step(p) * second.extent for p in found):
                    joint = Axis(first.variables + second.variables, first.extent * second.extent)
                    axes = [joint if a is second else a for a in axes if a is not first]
                    again = True
                    break
            if again:
                break
    return tuple(axes)


def steps(expr: Expr, axis: Axis) -> set[int]:
    """The distances in memory that one step of the axis moves the loads of an expression."""
    return {axis.step(p) for e in walk(expr) if isinstance(e, Load) for p in e.positions()}


def contiguous(expr: Expr, axis: Axis) -> bool:
    """Do all loads of an expression either stay or move on by one element? Then lanes along the axis are one load."""
    return axis.variable is not None and steps(expr, axis) <= {0, 1}


def product(axes: Iterable[Axis]) -> int:
    """The number of points of some axes."""
    total = 1
    for axis in axes:
        total *= axis.extent
    return total
