"""The ways to do a contraction: which axis the lanes run along, which operand is spread; and what each would cost."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from chainrule.compile.kernels.expression import Expr
from chainrule.compile.kernels.kernel import Contract
from chainrule.compile.llvm.contraction.axes import NONE, Axes, Axis, contiguous, positions, product
from chainrule.compile.llvm.contraction.tile import segments

TURNED = 6.0  # instructions for a vector that is turned while it is packed: loads, shuffles, stores
COPIED = 2.0  # for a single element that is copied
LONGEST = 8192  # points of a sum for which a column is copied so that it lies along them
NARROW = 1.15  # times as long for a multiply-add where tiles of results are turned: one vector wide, they read more
FOLDED = 6.0  # for the sum of a vector's lanes, and what follows for a single number


@dataclass(frozen=True, kw_only=True)
class Form:
    """One way to do a contraction.

    points, vectors: the axes of the two operands that the output has, rows and columns or, `swapped`, the other way
        round. Tiles go down the points; panels are cut from the vectors' axes.
    lanes: the axis that lanes run along, one of `vectors`, or for a dot form one of the summed axes.
    cost: about how many vector instructions it takes.
    """

    swapped: bool
    dot: bool
    points: tuple[Axis, ...]
    vectors: tuple[Axis, ...]
    lanes: Axis
    cost: float


def forms(kernel: Contract, axes: Axes, width: int) -> Iterator[Form]:
    """Every way; `width` is how many elements a vector has."""
    rows, columns = (axes.rows, kernel.left), (axes.columns, kernel.right)
    for swapped, (points, spread), (vectors, operand) in ((False, rows, columns), (True, columns, rows)):
        for lanes in vectors or (NONE,):
            cost = _vector_cost(kernel, axes, points, vectors, lanes, operand, width)
            cost *= 1.1 if swapped else 1  # of forms that are alike, the one that is written as the kernel is
            yield Form(swapped=swapped, dot=False, points=points, vectors=vectors, lanes=lanes, cost=cost)
        for lanes in axes.summed:
            copied = not contiguous(operand, lanes)
            if contiguous(spread, lanes) and not (copied and product(axes.summed) > LONGEST):
                cost = _dot_cost(axes, lanes, width)
                if copied:
                    cost += COPIED * product(vectors) * product(axes.batch) * product(axes.summed)
                yield Form(swapped=swapped, dot=True, points=points, vectors=vectors, lanes=lanes, cost=cost)


def _vector_cost(
    kernel: Contract,
    axes: Axes,
    points: tuple[Axis, ...],
    vectors: tuple[Axis, ...],
    lanes: Axis,
    operand: Expr,
    width: int,
) -> float:
    summed, others = product(axes.summed), product(axes.batch) * product(a for a in vectors if a is not lanes)
    parts = segments(lanes.extent, width, masks=True)
    # Where vectors have 64 bytes, one of half the length takes half of the multiply-add unit, or leaves it to others.
    short = 0.5 if width * kernel.accumulate.itemsize > 32 else 1.0
    turned = turned_row(kernel, points, lanes) is not None
    cost = others * product(points) * summed * sum(1.0 if 2 * s.lanes > width else short for s in parts)
    cost *= NARROW if turned else 1.0
    wide = others * len(parts)
    if not contiguous(operand, lanes):
        turns = any(contiguous(operand, a) for a in axes.summed)
        cost += wide * summed * (TURNED if turns else 2.0 * width)
    touched = [s.offset for s in kernel.epilogue] + positions(*(s.value for s in kernel.epilogue))
    for position in touched:
        cost += wide * product(points) * (1 if turned or lanes.step(position) in {0, 1} else 2 * width)
    return cost + wide * product(points) * TURNED * turned


def turned_row(kernel: Contract, points: tuple[Axis, ...], lanes: Axis) -> Axis | None:
    """The axis along which results are stored, where they lie beside each other along it but not along the lanes.

    A tile of results is turned in registers, then; None: it is stored along the lanes.
    """
    if beside(kernel, lanes):
        return None
    return max((a for a in points if beside(kernel, a)), key=lambda a: a.extent, default=None)


def beside(kernel: Contract, axis: Axis) -> bool:
    """Do the results along an axis stand beside each other in memory?"""
    return all(axis.step(s.offset) == 1 for s in kernel.epilogue)


def _dot_cost(axes: Axes, lanes: Axis, width: int) -> float:
    results = product(axes.batch) * product(axes.rows) * product(axes.columns)
    rounds = -(-lanes.extent // width) * product(a for a in axes.summed if a is not lanes)
    return results * (rounds + FOLDED)
