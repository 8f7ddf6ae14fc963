"""Loop nests of elementwise work and reductions, as vector code.

Lanes run over one variable. If it is an outer one, each lane is a point of the outer loops, and reductions along inner
loops are sums of whole vectors; if it is an inner one, lanes are combined at the end of the loop. The choice is made by
counting what the loads and stores of the innermost loops cost. Several vectors are worked on at once where a reduction
would else wait for its own last result; the order of every sum is fixed by the shape and the target alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np

from chainrule import dtypes
from chainrule.compile.kernel import (
    Affine,
    Compute,
    Expr,
    Load,
    Loops,
    Pick,
    Random,
    Reduction,
    Stage,
    walk,
)
from chainrule.compile.llvm.builder import SCALAR, Builder, Index, Value
from chainrule.compile.llvm.expressions import Emitter

_STRIDED = 1.5  # what an element costs that is not next to the last, against a whole vector of neighbours
_CHAINS = 4  # additions in flight: a sum waits four cycles for the last one


class Piece(NamedTuple):
    """One vector's worth of the vector variable: where it starts, and how many of its lanes count."""

    offset: int
    active: int


@dataclass(frozen=True, eq=False)
class LoopsPlan:
    """How a `Loops` kernel is written.

    units: parts that threads share, contiguous ranges of them; each writes its own part of the output.
    vector: the outer variable that lanes run over, or None: then each stage has one of its own (`inner`).
    work: roughly the cycles that one thread takes for it all.
    """

    kernel: Loops
    order: tuple[int, ...]
    vector: int | None
    inner: Mapping[int, int | None]
    lanes: int
    pieces: int
    work: float
    scratch: int = 0

    @property
    def units(self) -> int:
        """Parts that threads share."""
        if not self.order:
            return 1
        first = self.order[0]
        extent = self.kernel.extents[first]
        return extent if first != self.vector else -(-extent // (self.lanes * self.pieces))

    def emit(self, emitter: Emitter, lo: Index, hi: Index, scratch: str) -> None:
        """Code for the units from `lo` to `hi`."""
        if any(self.kernel.extents[v] == 0 for v in self.kernel.outer):
            return
        _Writer(self, emitter).outer(self.order, lo, hi)


def plan(kernel: Loops, vector_bytes: int) -> LoopsPlan:
    """Which variable lanes run over, how many lanes, how many vectors at once."""
    size = max((_width(d) for d in _element_types(kernel)), default=4)
    full = vector_bytes // size
    # What is remembered of a row is of one row: lanes then run along it.
    remembers = any(s.buffer.place == "private" for stage in kernel.stages for s in stage.stores)
    outer = [(v, _outer_cost(kernel, v, full)) for v in kernel.outer if kernel.extents[v] > 1 and not remembers]
    inner = {
        i: min(stage.inner, key=partial(_inner_cost, kernel, stage, full), default=None)
        for i, stage in enumerate(kernel.stages)
    }
    inner_cost = sum(
        _inner_cost(kernel, stage, full, v) if (v := inner[i]) is not None else _stage_cost(kernel, stage, None, 1)
        for i, stage in enumerate(kernel.stages)
    ) * math.prod(kernel.extents[v] for v in kernel.outer)
    best = min(outer, key=lambda pair: pair[1], default=(None, math.inf))
    if best[1] < inner_cost:
        chosen: int | None = best[0]
        extent = kernel.extents[best[0]]  # type: ignore[index]
    else:
        chosen = None
        extent = max((kernel.extents[v] for v in inner.values() if v is not None), default=1)
    lanes = min(full, 1 << max(extent - 1, 0).bit_length())
    # A variable of one round is mentioned nowhere; threads share the first of the others.
    order = tuple(v for v in kernel.outer if v != chosen and kernel.extents[v] != 1)
    order += (chosen,) if chosen is not None else ()
    return LoopsPlan(
        kernel,
        order,
        chosen,
        inner,
        lanes if lanes > 1 else SCALAR,
        _pieces(kernel, chosen, extent, lanes),
        min(best[1], inner_cost),
    )


def _element_types(kernel: Loops) -> set[np.dtype]:
    found = {s.buffer.dtype for stage in kernel.stages for s in stage.stores}
    return found | {e.dtype for e in walk(*_roots(kernel))} - {dtypes.bool_}


def _width(dtype: np.dtype) -> int:
    return max(dtypes.work_dtype(dtype).itemsize, 4)


def _roots(kernel: Loops) -> list[Expr]:
    return [e for stage in kernel.stages for e in _stage_roots(stage)]


def _stage_roots(stage: Stage) -> list[Expr]:
    return [r.value for r in stage.reductions] + [s.value for s in stage.stores]


def _accesses(stage: Stage) -> list[Affine]:
    loads = [e.offset for e in walk(*_stage_roots(stage)) if isinstance(e, Load)]
    return loads + [s.offset for s in stage.stores]


def _stage_cost(kernel: Loops, stage: Stage, vector: int | None, lanes: int) -> float:
    """Of one run of the stage's loops: vectors of work, and what each access takes."""
    rounds = math.prod(kernel.extents[v] for v in stage.inner)
    arithmetic = sum(_weight(e) for e in walk(*_stage_roots(stage)))
    accesses = 0.0
    for affine in _accesses(stage):
        step = 0 if vector is None else affine.coefficient(vector)
        accesses += 1.0 if step in (0, 1) else _STRIDED * lanes
    picks = sum(lanes * 2.0 for e in walk(*_stage_roots(stage)) if isinstance(e, Pick))
    return rounds * (arithmetic + accesses + picks)


def _weight(e: Expr) -> float:
    if isinstance(e, Random):
        return 40.0
    return 1.0 if isinstance(e, Compute) else 0.0


def _vectors(extent: int, lanes: int) -> float:
    return -(-extent // lanes) / extent


def _outer_cost(kernel: Loops, vector: int, full: int) -> float:
    points = math.prod(kernel.extents[v] for v in kernel.outer)
    stages = sum(_stage_cost(kernel, stage, vector, full) for stage in kernel.stages)
    return points * stages * _vectors(kernel.extents[vector], full)


def _inner_cost(kernel: Loops, stage: Stage, full: int, vector: int) -> float:
    fold = 3.0 * math.log2(full) * len(stage.reductions)
    return _stage_cost(kernel, stage, vector, full) * _vectors(max(kernel.extents[vector], 1), full) + fold


def _pieces(kernel: Loops, vector: int | None, extent: int, lanes: int) -> int:
    reduces = any(stage.reductions for stage in kernel.stages)
    size = sum(_weight(e) for e in walk(*_roots(kernel)))
    if not reduces:
        return 1
    most = -(-extent // max(lanes, 1))
    return max(1, min(_CHAINS if size <= 24 else 2, most))


class _Writer:
    """Writes one kernel."""

    def __init__(self, plan: LoopsPlan, emitter: Emitter) -> None:
        self.plan, self.kernel, self.emitter = plan, plan.kernel, emitter
        self.builder: Builder = emitter.builder

    # --- outer loops

    def outer(self, order: Sequence[int], lo: Index, hi: Index) -> None:
        """The loops over the outer variables: the first one shared among threads."""
        if not order:
            # One unit: whoever has it does it all.
            self._if(lo, hi, lambda: self.point([Piece(0, 1)], None))
            return
        first, rest = order[0], order[1:]
        if first == self.plan.vector:
            self._vector_blocks(first, lo, hi)
        else:
            self.emitter.loop(first, lo, hi, 1, lambda _: self._deeper(rest))

    def _if(self, lo: Index, hi: Index, body: object) -> None:
        condition = self.builder.lt(self.builder.index_value(lo), self.builder.index_value(hi))
        self.emitter.when(condition, body)  # type: ignore[arg-type]

    def _deeper(self, order: Sequence[int]) -> None:
        if not order:
            self.point([Piece(0, 1)], None)
            return
        first, rest = order[0], order[1:]
        extent = self.kernel.extents[first]
        if first == self.plan.vector:
            self._vector_blocks(first, 0, -(-extent // self._block))
        else:
            self.emitter.loop(first, 0, extent, 1, lambda _: self._deeper(rest))

    @property
    def _block(self) -> int:
        return max(self.plan.lanes, 1) * self.plan.pieces

    def _vector_blocks(self, variable: int, lo: Index, hi: Index) -> None:
        """Blocks of whole vectors, then the rest of the extent as one shorter block."""
        extent, b = self.kernel.extents[variable], self.builder
        whole, rest = divmod(extent, self._block)
        lanes = max(self.plan.lanes, 1)
        pieces = [Piece(i * lanes, lanes) for i in range(self.plan.pieces)]
        known = isinstance(lo, int) and isinstance(hi, int)
        if known or not rest:
            stop: Index = whole if known else hi
        else:
            limit = b.constant(whole, dtypes.int64)
            stop = b.where(b.lt(b.index_value(hi), limit), b.index_value(hi), limit)
        start = self.builder.index_mul(lo, self._block)
        # The loop counts elements, so that the variable is the counter itself.
        self.emitter.loop(
            variable, start, b.index_mul(stop, self._block), self._block, lambda _: self.point(pieces, variable)
        )
        if rest:
            last = self._rest_pieces(rest)

            def tail() -> None:
                with self.emitter.at({variable: whole * self._block}):
                    self.point(last, variable)

            if known:
                tail()
            else:
                reached = b.and_(
                    b.ge(b.index_value(hi), b.constant(whole + 1, dtypes.int64)),
                    b.le(b.index_value(lo), b.constant(whole, dtypes.int64)),
                )
                self.emitter.when(reached, tail)

    def _rest_pieces(self, rest: int) -> list[Piece]:
        lanes = max(self.plan.lanes, 1)
        return [Piece(at, min(lanes, rest - at)) for at in range(0, rest, lanes)]

    # --- one point (or one block of points) of the outer loops

    def point(self, pieces: Sequence[Piece], vector: int | None) -> None:
        """All stages at the present point, or for all the pieces of a block of points."""
        reduced: list[dict[int, tuple[Reduction, Value]]] = [{} for _ in pieces]
        for number, stage in enumerate(self.kernel.stages):
            if vector is not None:
                self._stage_across_points(stage, pieces, vector, reduced)
            else:
                self._stage_at_point(stage, self.plan.inner[number])

    # lanes over an outer variable ------------------------------------------------------------------------------------

    def _stage_across_points(
        self,
        stage: Stage,
        pieces: Sequence[Piece],
        vector: int,
        reduced: list[dict[int, tuple[Reduction, Value]]],
    ) -> None:
        emitter = self.emitter
        base = next(f.values[vector] for f in reversed(emitter.frames) if vector in f.values)
        lanes = self.plan.lanes

        def at_piece(number: int, body: object) -> None:
            piece = pieces[number]
            with (
                emitter.at({vector: self.builder.index_add(base, piece.offset)}),
                emitter.lanes_over(vector, lanes, piece.active),
            ):
                for reduction, value in reduced[number].values():
                    emitter.define(reduction, value)
                body()  # type: ignore[operator]

        def combined(carried: Sequence[Value]) -> list[Value]:
            after: list[Value] = []
            each = len(carried) // len(pieces) if pieces else 0

            def one(number: int) -> None:
                held = list(carried[number * each : (number + 1) * each])
                after.extend(self._accumulate(stage.reductions, held, None))
                self._stores(stage)

            for number in range(len(pieces)):
                at_piece(number, partial(one, number))
            return after

        start = [v for _ in pieces for v in self._identities(stage.reductions, lanes)]
        final = self._nest(stage.inner, combined, start)
        each = len(final) // len(pieces) if pieces else 0
        for number in range(len(pieces)):
            found = self._results(stage.reductions, final[number * each : (number + 1) * each])
            for reduction, value in zip(stage.reductions, found, strict=True):
                reduced[number][id(reduction)] = reduction, value

    # lanes over an inner variable ------------------------------------------------------------------------------------

    def _stage_at_point(self, stage: Stage, vector: int | None) -> None:
        lanes = SCALAR
        if vector is not None:
            lanes = min(self.plan.lanes, 1 << max(self.kernel.extents[vector] - 1, 0).bit_length())
        if vector is None or lanes <= 1:
            final = self._scalar_stage(stage)
        else:
            final = self._vector_stage(stage, vector, lanes)
        for reduction, value in zip(stage.reductions, self._results(stage.reductions, final), strict=True):
            self.emitter.define(reduction, value)

    def _scalar_stage(self, stage: Stage) -> list[Value]:
        def scalar(carried: Sequence[Value]) -> list[Value]:
            after = self._accumulate(stage.reductions, list(carried), None)
            self._stores(stage)
            return after

        return self._nest(stage.inner, scalar, self._identities(stage.reductions, SCALAR))

    def _vector_stage(self, stage: Stage, vector: int, lanes: int) -> list[Value]:
        emitter, b = self.emitter, self.builder
        extent = self.kernel.extents[vector]
        pieces = min(self.plan.pieces if stage.reductions else 1, max(extent // lanes, 1))
        block = lanes * pieces
        whole = extent // block * block
        outside = tuple(v for v in stage.inner if v != vector)
        each = len(self._identities(stage.reductions, lanes))

        def work(base: Index, parts: Sequence[Piece], carried: Sequence[Value]) -> list[Value]:
            after = list(carried)
            for number, piece in enumerate(parts):
                chain = number % pieces
                with (
                    emitter.at({vector: b.index_add(base, piece.offset)}),
                    emitter.lanes_over(vector, lanes, piece.active),
                ):
                    held = after[chain * each : (chain + 1) * each]
                    active = piece.active if piece.active != lanes else None
                    after[chain * each : (chain + 1) * each] = self._accumulate(stage.reductions, held, active)
                    self._stores(stage)
            return after

        def body(carried: Sequence[Value]) -> list[Value]:
            parts = [Piece(i * lanes, lanes) for i in range(pieces)]

            def one(inner: Sequence[Value]) -> list[Value]:
                base = next(f.values[vector] for f in reversed(emitter.frames) if vector in f.values)
                return work(base, parts, inner)

            after = emitter.loop(vector, 0, whole, block, one, carried) if whole else list(carried)
            if whole < extent:
                rest = [Piece(at, min(lanes, extent - whole - at)) for at in range(0, extent - whole, lanes)]
                after = work(whole, rest, after)
            return after

        start = [v for _ in range(pieces) for v in self._identities(stage.reductions, lanes)]
        final = self._nest(outside, body, start)
        chains = [final[i * each : (i + 1) * each] for i in range(pieces)]
        while len(chains) > 1:
            joined = [self._joined(stage.reductions, x, y) for x, y in zip(chains[::2], chains[1::2], strict=False)]
            chains = joined + ([chains[-1]] if len(chains) % 2 else [])
        return self._folded(stage.reductions, chains[0] if chains else [])

    def _nest(self, variables: Sequence[int], body: object, carry: Sequence[Value]) -> list[Value]:
        if not variables:
            return list(body(carry))  # type: ignore[operator]
        first, rest = variables[0], variables[1:]
        return self.emitter.loop(
            first, 0, self.kernel.extents[first], 1, lambda inner: self._nest(rest, body, inner), carry
        )

    def _stores(self, stage: Stage) -> None:
        # Every value before the first store: what is updated in place may be read by several of them.
        emitter = self.emitter
        values = [
            emitter.spread(s.value)
            if emitter.vector is not None and s.offset.coefficient(emitter.vector)
            else emitter.value(s.value)
            for s in stage.stores
        ]
        for store, value in zip(stage.stores, values, strict=True):
            emitter.store(store, value)

    # --- reductions: each holds one value, or for positions two

    def _identities(self, reductions: Sequence[Reduction], lanes: int) -> list[Value]:
        found = []
        for r in reductions:
            dtype = r.value.dtype
            found.append(self.builder.constant(identity(r.combine, dtype), dtype, lanes))
            if r.position is not None:
                found.append(self.builder.constant(-1, dtypes.int64, lanes))
        return found

    def _accumulate(self, reductions: Sequence[Reduction], held: list[Value], active: int | None) -> list[Value]:
        emitter, b = self.emitter, self.builder
        after = []
        at = 0
        for r in reductions:
            value = emitter.spread(r.value) if emitter.lanes != SCALAR else emitter.value(r.value)
            if r.position is None:
                if active is not None:
                    value = b.where(self._counts(active), value, b.like(identity(r.combine, r.value.dtype), value))
                after.append(combine(b, r.combine, held[at], value))
                at += 1
                continue
            place = emitter.position(r.position)
            new = self._beats(r, value, held[at], held[at + 1])
            if emitter.vector is not None and r.position.coefficient(emitter.vector) and len(r.position.terms) > 1:
                # The lanes' loop is the innermost, whatever the order of positions: a later round may stand before.
                equal = b.eq(value, held[at])
                if dtypes.is_float(value.dtype):
                    equal = b.or_(equal, b.and_(b.isnan(value), b.isnan(held[at])))
                before = b.lt(b.spread(place, value.lanes), held[at + 1])
                new = b.or_(new, b.and_(equal, before))
            if active is not None:
                new = b.and_(new, self._counts(active))
            after += [b.where(new, value, held[at]), b.where(new, b.spread(place, value.lanes), held[at + 1])]
            at += 2
        return after

    def _counts(self, active: int) -> Value:
        lane = self.builder.iota(dtypes.int32, self.emitter.lanes)
        return self.builder.lt(lane, self.builder.like(active, lane))

    def _beats(self, r: Reduction, value: Value, best: Value, position: Value) -> Value:
        """Does a later value replace the extreme so far? The first does; a nan does, unless there is one already."""
        b = self.builder
        better = b.gt(value, best) if r.combine == "argmax" else b.lt(value, best)
        if dtypes.is_float(value.dtype):
            better = b.or_(better, b.and_(b.isnan(value), b.not_(b.isnan(best))))
            better = b.and_(better, b.not_(b.isnan(best)))
        return b.or_(better, b.lt(position, b.like(0, position)))

    def _joined(self, reductions: Sequence[Reduction], x: Sequence[Value], y: Sequence[Value]) -> list[Value]:
        b = self.builder
        after, at = [], 0
        for r in reductions:
            if r.position is None:
                after.append(combine(b, r.combine, x[at], y[at]))
                at += 1
                continue
            after += self._first_extreme(r, (x[at], x[at + 1]), (y[at], y[at + 1]))
            at += 2
        return after

    def _first_extreme(self, r: Reduction, x: tuple[Value, Value], y: tuple[Value, Value]) -> list[Value]:
        """Of two extremes with their positions: the better, and of equal ones the first."""
        b = self.builder
        y_better = b.gt(y[0], x[0]) if r.combine == "argmax" else b.lt(y[0], x[0])
        same = b.eq(y[0], x[0])
        if dtypes.is_float(x[0].dtype):
            x_nan, y_nan = b.isnan(x[0]), b.isnan(y[0])
            y_better = b.or_(y_better, b.and_(y_nan, b.not_(x_nan)))
            same = b.or_(same, b.and_(x_nan, y_nan))
        earlier = b.lt(y[1], x[1])
        takes = b.or_(y_better, b.and_(same, earlier))
        takes = b.and_(takes, b.ge(y[1], b.like(0, y[1])))
        takes = b.or_(takes, b.lt(x[1], b.like(0, x[1])))
        return [b.where(takes, y[0], x[0]), b.where(takes, y[1], x[1])]

    def _folded(self, reductions: Sequence[Reduction], held: Sequence[Value]) -> list[Value]:
        """The lanes of each combined: halves with halves."""
        b = self.builder
        after, at = [], 0
        for r in reductions:
            if r.position is None:
                after.append(b.fold(held[at], partial(combine, b, r.combine)))
                at += 1
                continue
            value, place = held[at], held[at + 1]
            while value.lanes > 2:
                (v0, v1), (p0, p1) = b.halves(value), b.halves(place)
                value, place = self._first_extreme(r, (v0, p0), (v1, p1))
            if value.lanes:
                value, place = self._first_extreme(
                    r, (b.lane(value, 0), b.lane(place, 0)), (b.lane(value, 1), b.lane(place, 1))
                )
            after += [value, place]
            at += 2
        return after

    def _results(self, reductions: Sequence[Reduction], held: Sequence[Value]) -> list[Value]:
        found, at = [], 0
        for r in reductions:
            found.append(held[at] if r.position is None else held[at + 1])
            at += 1 if r.position is None else 2
        return found


def identity(how: str, dtype: np.dtype) -> float | int | bool:
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


def combine(b: Builder, how: str, x: Value, y: Value) -> Value:
    """Two values into one."""
    ways = {"add": b.add, "mul": b.mul, "max": b.maximum, "min": b.minimum, "and": b.and_, "or": b.or_}
    return ways[how](x, y)
