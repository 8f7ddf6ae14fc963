"""Reductions while their loops run: what is held of each from round to round, in one lane or in several.

Knows how two values become one, and when the lanes of a vector or the chains of a loop do; the loops themselves, and
where a value comes from, are for others to know. What a loop carries is one list for all reductions of a stage.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import ClassVar, final

import numpy as np

from chainrule import dtypes
from chainrule.compile.kernels.expression import Reduction
from chainrule.compile.llvm.builder import SCALAR, Builder, Value
from chainrule.compile.llvm.expressions import Emitter
from chainrule.core.family import Combine

Held = Sequence[Value]


class Accumulators:
    """The reductions of a stage side by side; size: how many values they hold in all.

    The largest value comes with its place, where that is asked for as well.
    """

    def __init__(self, reductions: Sequence[Reduction], emitter: Emitter) -> None:
        places = {(str(r.combine), id(r.value)): r for r in reductions if r.position is not None}
        self._beside: dict[int, list[Reduction]] = {}  # by id of a place's reduction: those of its value
        self.parts: list[Accumulator] = []
        for r in reductions:
            place = places.get((f"arg{r.combine}", id(r.value)))
            if place is not None and r.dtype == r.value.dtype:
                self._beside.setdefault(id(place), []).append(r)
            else:
                self.parts.append(Combined(r, emitter) if r.position is None else Extreme(r, emitter))
        self.size = sum(part.size for part in self.parts)

    def start(self, lanes: int) -> list[Value]:
        """What is held before the first round."""
        return [v for part in self.parts for v in part.start(lanes)]

    def taken(self, held: Held, active: int | None = None) -> list[Value]:
        """With the values at this point; of a vector, lanes from `active` on do not count."""
        return [v for part, mine in self._each(held) for v in part.taken(mine, active)]

    def joined(self, x: Held, y: Held) -> list[Value]:
        """What two chains came to, as one."""
        pairs = zip(self._each(x), self._each(y), strict=True)
        return [v for (part, mine), (_, other) in pairs for v in part.joined(mine, other)]

    def folded(self, held: Held) -> list[Value]:
        """The lanes of each combined: halves with halves."""
        return [v for part, mine in self._each(held) for v in part.folded(mine)]

    def results(self, held: Held) -> list[tuple[Reduction, Value]]:
        """What each reduction came to."""
        found = [(part.reduction, mine[-1]) for part, mine in self._each(held)]
        for part, mine in self._each(held):
            found += [(r, mine[0]) for r in self._beside.get(id(part.reduction), ())]
        return found

    def _each(self, held: Held) -> Iterator[tuple[Accumulator, Held]]:
        at = 0
        for part in self.parts:
            yield part, held[at : at + part.size]
            at += part.size


class Accumulator(ABC):
    """One reduction; size: how many values it holds, the last of which is what it comes to."""

    size: ClassVar[int]

    def __init__(self, reduction: Reduction, emitter: Emitter) -> None:
        self.reduction, self.emitter = reduction, emitter
        self.builder: Builder = emitter.builder

    @abstractmethod
    def start(self, lanes: int) -> list[Value]:
        """What is held before the first round."""

    @abstractmethod
    def taken(self, held: Held, active: int | None) -> list[Value]:
        """With the value at this point; lanes from `active` on do not count."""

    @abstractmethod
    def joined(self, x: Held, y: Held) -> list[Value]:
        """What two chains came to, as one."""

    @abstractmethod
    def folded(self, held: Held) -> list[Value]:
        """The lanes combined: halves with halves."""

    def _here(self) -> Value:
        emitter, value = self.emitter, self.reduction.value
        return emitter.spread(value) if emitter.lanes != SCALAR else emitter.value(value)

    @property
    def _identity(self) -> float | int | bool:
        return identity(self.reduction.combine, self.reduction.value.dtype)

    def _before(self, lanes: int) -> Value:
        return self.builder.constant(self._identity, self.reduction.value.dtype, lanes)

    def _counts(self, active: int) -> Value:
        lane = self.builder.iota(dtypes.int32, self.emitter.lanes)
        return self.builder.lt(lane, self.builder.like(active, lane))


@final
class Combined(Accumulator):
    """All values combined into one."""

    size = 1

    def start(self, lanes: int) -> list[Value]:
        return [self._before(lanes)]

    def taken(self, held: Held, active: int | None) -> list[Value]:
        b, value = self.builder, self._here()
        if active is not None:
            value = b.where(self._counts(active), value, b.like(self._identity, value))
        return [self._combine(held[0], value)]

    def joined(self, x: Held, y: Held) -> list[Value]:
        return [self._combine(x[0], y[0])]

    def folded(self, held: Held) -> list[Value]:
        return [self.builder.fold(held[0], self._combine)]

    def _combine(self, x: Value, y: Value) -> Value:
        return _ways(self.builder)[self.reduction.combine](x, y)


@final
class Extreme(Accumulator):
    """The largest or the smallest value, and the first position that has it. nan is the extreme.

    Before there is any, it is the lowest value there is, at position 0: if no value is larger, that is where it is.
    """

    size = 2

    def start(self, lanes: int) -> list[Value]:
        return [self._before(lanes), self.builder.constant(0, self.reduction.dtype, lanes)]

    def taken(self, held: Held, active: int | None) -> list[Value]:
        emitter, b, position = self.emitter, self.builder, self.reduction.position
        assert position is not None
        best, at = held
        value, place = self._here(), emitter.position(position, self.reduction.dtype)
        new = self._replaces(value, best)
        if emitter.vector is not None and position.coefficient(emitter.vector) and len(position.terms) > 1:
            # The lanes' loop is the innermost, whatever the order of positions: a later round may stand before.
            equal = b.eq(value, best)
            if dtypes.is_float(value.dtype):
                equal = b.or_(equal, b.and_(b.isnan(value), b.isnan(best)))
            before = b.lt(b.spread(place, value.lanes), at)
            new = b.or_(new, b.and_(equal, before))
        if active is not None:
            new = b.and_(new, self._counts(active))
        return [b.where(new, value, best), b.where(new, b.spread(place, value.lanes), at)]

    def joined(self, x: Held, y: Held) -> list[Value]:
        """Of two extremes with their positions: the better, and of equal ones the first."""
        b = self.builder
        y_better = self._better(y[0], x[0])
        same = b.eq(y[0], x[0])
        if dtypes.is_float(x[0].dtype):
            x_nan, y_nan = b.isnan(x[0]), b.isnan(y[0])
            y_better = b.or_(y_better, b.and_(y_nan, b.not_(x_nan)))
            same = b.or_(same, b.and_(x_nan, y_nan))
        earlier = b.lt(y[1], x[1])
        takes = b.or_(y_better, b.and_(same, earlier))
        return [b.where(takes, y[0], x[0]), b.where(takes, y[1], x[1])]

    def folded(self, held: Held) -> list[Value]:
        b, (value, place) = self.builder, held
        while value.lanes > 2:
            (v0, v1), (p0, p1) = b.halves(value), b.halves(place)
            value, place = self.joined((v0, p0), (v1, p1))
        if value.lanes:
            first, second = ((b.lane(value, i), b.lane(place, i)) for i in range(2))
            value, place = self.joined(first, second)
        return [value, place]

    def _better(self, x: Value, y: Value) -> Value:
        b = self.builder
        return b.gt(x, y) if self.reduction.combine == "argmax" else b.lt(x, y)

    def _replaces(self, value: Value, best: Value) -> Value:
        """Does a later value replace the extreme so far? A nan does, unless there is one already."""
        b = self.builder
        if not dtypes.is_float(value.dtype):
            return self._better(value, best)
        no_better = b.le(value, best) if self.reduction.combine == "argmax" else b.ge(value, best)
        return b.and_(b.not_(no_better), b.not_(b.isnan(best)))


def identity(how: Combine, dtype: np.dtype) -> float | int | bool:
    """What changes nothing when combined."""
    work = dtypes.work_dtype(dtype)
    if how == "add":
        return 0
    if how == "mul":
        return 1
    if how in ("and", "or"):
        return how == "and"
    lowest = how in ("max", "argmax")
    if work == dtypes.bool_:
        return not lowest
    if dtypes.is_float(work):
        return -math.inf if lowest else math.inf
    limits = np.iinfo(work)
    return int(limits.min if lowest else limits.max)


def _ways(b: Builder) -> dict[str, Callable[[Value, Value], Value]]:
    return {"add": b.add, "mul": b.mul, "max": b.maximum, "min": b.minimum, "and": b.and_, "or": b.or_}
