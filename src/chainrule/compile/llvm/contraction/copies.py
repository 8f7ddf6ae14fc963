"""Which operands of a contraction are copied before they are used: where reading them as they lie takes longer.

A tile of registers reads, for each point of the sum, a vector or a few of one operand and an element a row of the
other, often a cache line away from those of the point before. Many tiles read the same again, so a copy in which all
that a tile reads lies together costs little, and the processor foresees what is read.
"""

from __future__ import annotations

from math import gcd

from chainrule.compile.caches import FIRST, LINE, PAGE, WAYS
from chainrule.compile.kernels.expression import Expr, Load
from chainrule.compile.kernels.kernel import Contract
from chainrule.compile.llvm.contraction.axes import Axes, Axis, contiguous, product
from chainrule.compile.llvm.contraction.sources import plain

ROWS = 48  # by so many a panel is used where it may pay to copy it
WIDE = 4  # tiles of a panel, from which on it may pay to copy their points


def panels_pay(kernel: Contract, axes: Axes, operand: Expr, lanes: Axis, points: int, many: bool) -> bool:
    """Is it better to copy the vectors' operand, panel by panel, than to read it where it is?

    points: rows by which a panel is used. many: are there 32 registers or more? With fewer, a tile is narrow, and reads
    a line or less of each row of the operand.
    """
    if not contiguous(operand, lanes):
        return True
    if not plain(operand, kernel.accumulate):
        return points >= 12
    assert isinstance(operand, Load)
    if not many:
        return points >= ROWS and product(axes.summed) >= 32
    # Steps of a page or more: each vector needs an address translation, and few sets of the caches are used.
    reach = max((abs(a.step(operand.offset)) * operand.dtype.itemsize for a in axes.summed), default=0)
    return points >= ROWS and reach >= PAGE and product(axes.summed) >= 128


def points_copied_along(kernel: Contract, axes: Axes, operand: Expr, row: Axis, wide: int, many: bool) -> Axis | None:
    """The axis along which the points' operand of a tile is copied, if it is. wide: tiles of registers of a panel."""
    if not plain(operand, kernel.accumulate):
        return longest_run(operand, axes) or row
    assert isinstance(operand, Load)
    return row if not many and wide >= WIDE and contiguous(operand, row) and _crowds(operand, axes) else None


def longest_run(operand: Expr, axes: Axes) -> Axis | None:
    """The summed axis along which an operand lies as in memory."""
    runs = (a for a in axes.summed if contiguous(operand, a) and a.extent > 1)
    return max(runs, key=lambda a: a.extent, default=None)


def _crowds(operand: Load, axes: Axes) -> bool:
    """Would the points of a tile, a line for each point of the sum, take more than a quarter of the first cache?

    Or of the part of it that they can be in: lines a power of two apart meet in few sets.
    """

    def room(step: int) -> int:
        return max(FIRST // max(gcd(step, PAGE), LINE), WAYS) // 4

    steps = ((a.extent, a.step(operand.offset) * operand.dtype.itemsize) for a in axes.summed)
    return any(extent > room(step) for extent, step in steps if step)
