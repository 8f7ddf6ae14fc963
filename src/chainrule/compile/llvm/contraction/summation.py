"""The loops over the summed axes: accumulators in registers, the innermost loops written out.

Each addition to a sum of many terms is rounded to the digits of that sum. So of a long sum, stretches of some hundred
terms are added up by themselves first: the error grows with the length of a stretch and their number, not with both.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from chainrule import dtypes
from chainrule.compile.llvm.builder import SCALAR, Index, Value
from chainrule.compile.llvm.contraction.axes import Axis
from chainrule.compile.llvm.contraction.grid import repeat
from chainrule.compile.llvm.contraction.sources import Source
from chainrule.compile.llvm.expressions import Emitter

WRITTEN_OUT = 5, 10  # loops of up to so many rounds are no loops: at least, and at most where rounds are short
STRETCH = 512, 2048  # terms that are added up by themselves: at least, of inner axes; so many of a single long axis
LONG = 2 * STRETCH[1]  # terms: sums of no more are one stretch
INSTRUCTIONS = 128  # multiply-adds that make a round of such loops long

# Adds the products at one point: (left, right, accumulators, how many of the lanes count) → accumulators.
Step = Callable[[Source, Source, list[Value], int | None], list[Value]]


@dataclass(frozen=True)
class Summation:
    """Σ over axes, the last one innermost.

    extents: of each axis; one that is known only when the code runs needs width 1.
    width: positions of the last axis that one step takes.
    sets: of accumulators, used in turn: a sum that waits for its predecessor waits less often.
    """

    emitter: Emitter
    axes: Sequence[Axis]
    extents: Sequence[Index]
    width: int
    sets: int
    step: Step

    def run(self, left: Source, right: Source, start: Sequence[Value]) -> list[Value]:
        """The sums, added to what the accumulators start from."""
        if not self.axes:
            return self.step(left, right, list(start), None)
        b, n = self.emitter.builder, len(start)
        zeros = [zero(v.dtype, v.lanes) for v in start]
        found = self._along(0, left, right, [*start, *zeros * (self.sets - 1)])
        total = found[:n]
        for i in range(1, self.sets):
            total = [b.add(x, y) for x, y in zip(total, found[n * i : n * (i + 1)], strict=True)]
        return total

    @cached_property
    def _cut(self) -> int | None:
        """The axis at each point of which the sum over those inside it is one stretch; None: all is one."""
        steps = [a.extent for a in self.axes]
        steps[-1] = -(-steps[-1] // self.width)
        if math.prod(steps) <= LONG:
            return None
        return next((d for d in reversed(range(len(steps) - 1)) if math.prod(steps[d + 1 :]) >= STRETCH[0]), None)

    def _added(self, accs: Sequence[Value], stretch: Callable[[list[Value]], list[Value]]) -> list[Value]:
        """The sums so far, and those of a stretch that begins at 0."""
        b = self.emitter.builder
        return [b.add(x, y) for x, y in zip(accs, stretch([zero(v.dtype, v.lanes) for v in accs]), strict=True)]

    def _in_stretches(self, left: Source, right: Source, accs: list[Value]) -> list[Value]:
        """Along the last axis, which is long: a loop over stretches of it, then the rest."""
        axis, extent, each = self.axes[-1], self.axes[-1].extent, STRETCH[1] * self.width

        def stretch(base: Index, size: int, accs: Sequence[Value]) -> list[Value]:
            part = replace(self, axes=(axis,), extents=(size,))
            here = left.moved(axis, base), right.moved(axis, base)
            return self._added(accs, lambda zeros: part._along(0, *here, zeros))

        whole = extent // each * each
        accs = repeat(self.emitter, 0, whole, each, lambda base, held: stretch(base, each, held), accs)
        return stretch(whole, extent - whole, accs) if extent > whole else accs

    def _along(self, depth: int, left: Source, right: Source, accs: list[Value]) -> list[Value]:
        axis, extent, last = self.axes[depth], self.extents[depth], depth == len(self.axes) - 1
        width = self.width if last else 1
        if last and isinstance(extent, int) and extent > LONG * width:
            return self._in_stretches(left, right, accs)

        def at(base: Index, by: int, accs: list[Value], turn: int, active: int | None = None) -> list[Value]:
            here = left.moved(axis, base).moved(axis, by), right.moved(axis, base).moved(axis, by)
            if depth == self._cut:
                return self._added(accs, lambda zeros: self._along(depth + 1, *here, zeros))
            if not last:
                return self._along(depth + 1, *here, accs)
            each = len(accs) // self.sets
            first = turn % self.sets * each
            accs[first : first + each] = self.step(*here, accs[first : first + each], active)
            return accs

        def rounds(base: Index, count: int, accs: Sequence[Value]) -> list[Value]:
            accs = list(accs)
            for turn in range(count):
                accs = at(base, turn * width, accs, turn)
            return accs

        if not isinstance(extent, int):
            unroll = unrolled(0) if last and axis.extent > WRITTEN_OUT[1] else 1
            main = self._whole(extent, unroll)
            accs = repeat(self.emitter, 0, main, unroll, lambda k, held: rounds(k, unroll, held), accs)
            if unroll == 1:
                return accs
            return repeat(self.emitter, main, extent, 1, lambda k, held: rounds(k, 1, held), accs)
        whole, rest = divmod(extent, width)
        unroll = unrolled(whole) if last else 1
        if whole * self._written_inside(depth) <= self._written_out(len(accs) // self.sets):
            accs = rounds(0, whole, accs)
        else:
            main = whole // unroll * unroll
            body = lambda k, held: rounds(k, unroll, held)  # noqa: E731
            accs = repeat(self.emitter, 0, main * width, unroll * width, body, accs)
            accs = rounds(main * width, whole - main, accs)
        return at(0, whole * width, accs, whole, rest) if rest else accs

    def _whole(self, extent: Value, unroll: int) -> Index:
        b = self.emitter.builder
        return b.and_(extent, b.constant(-unroll, dtypes.int64))

    @staticmethod
    def _written_out(accumulators: int) -> int:
        least, most = WRITTEN_OUT
        return max(least, min(INSTRUCTIONS // accumulators, most))

    def _written_inside(self, depth: int) -> int:
        """How many rounds are one loop body inside of this axis; too many, if there is a loop."""
        total = 1
        for d in range(depth + 1, len(self.axes)):
            extent, width = self.extents[d], self.width if d == len(self.axes) - 1 else 1
            total *= max(-(-extent // width), 1) if isinstance(extent, int) else WRITTEN_OUT[1] + 1
        return total


def zero(dtype: np.dtype, lanes: int) -> Value:
    """0 in every lane."""
    if lanes == SCALAR:
        return Value("0" if not dtypes.is_float(dtype) else "0.0", dtype)
    return Value("zeroinitializer", dtype, lanes)


def unrolled(rounds: int) -> int:
    """How many rounds of a loop are written one after the other: if possible so many that none are left over."""
    return next((n for n in (4, 5, 3) if rounds % n == 0), 4)


def sets_for(accumulators: int, rounds: int) -> int:
    """How many sets of accumulators keep the multiply-add units busy: they take 4 to 8 instructions at a time."""
    sets = 1
    while accumulators * sets < 8 and sets < 4 and sets * 2 <= rounds:
        sets *= 2
    return sets
