"""Kernels whose rounds depend on each other: scattering, running sums, sorting. Scalar code; outer loops are shared.

Knows for each which rounds are free of each other, and its code. Nothing here is vectorised, so there is no layout to
choose, and plan and code of a kind stand together.

A sort is a merge sort from the bottom up: stable, n log n, with two rows of positions as scratch memory.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from chainrule import dtypes
from chainrule.compile.kernels.kernel import Scan, Scatter, Sort
from chainrule.compile.llvm.builder import Builder, Index, Value
from chainrule.compile.llvm.expressions import Emitter
from chainrule.compile.llvm.shares import Rows, Share
from chainrule.core.affine import Affine


def _free_loops(kernel: Scatter) -> tuple[int, ...]:
    """Variables whose points write to places that no other point writes to: a dimension of the target of its own."""
    moved = dict(kernel.offset.terms)
    found = []
    for v in kernel.loops:
        step, n = abs(moved.get(v, 0)), kernel.extents[v]
        if not step:
            continue
        others = [(abs(c), kernel.extents[w]) for w, c in moved.items() if w != v]
        reach_below = sum(c * (m - 1) for c, m in others if c < step)
        reach_below += sum(abs(s) * (size - 1) for _, size, s in kernel.indices if abs(s) < step)
        clear_above = all(c >= step * n for c, _ in others if c >= step)
        clear_above = clear_above and all(abs(s) >= step * n for _, _, s in kernel.indices if abs(s) >= step)
        if reach_below < step and clear_above:
            found.append(v)
    return tuple(found)


@dataclass(frozen=True, eq=False)
class ScatterPlan:
    """How a `Scatter` is written: threads share a loop whose points write to different places, if there is one."""

    kernel: Scatter
    shared: int | None
    scratch: int = 0
    grain: int = 1
    rows: Rows | None = None

    @property
    def units(self) -> int:
        """Parts that threads share."""
        return 1 if self.shared is None else self.kernel.extents[self.shared]

    @property
    def work(self) -> float:
        """Roughly the cycles that one thread takes for it all."""
        return 4.0 * math.prod(self.kernel.extents.values()) + self.kernel.buffer.span / 8

    def emit(self, emitter: Emitter, share: Share) -> None:
        """Code for a share of the units."""
        kernel, b, shared = self.kernel, emitter.builder, self.shared
        if shared is None:

            def all_of_it() -> None:
                self._clear(emitter)
                self._added(emitter, kernel.loops)

            emitter.when(b.lt(b.index_value(share.lo), b.index_value(share.hi)), all_of_it)
            return
        rest = tuple(v for v in kernel.loops if v != shared)

        def row(_: Sequence[Value]) -> None:
            self._clear_stretch(emitter, shared)
            self._added(emitter, rest)

        emitter.loop(shared, share.lo, share.hi, 1, row)

    def _clear(self, emitter: Emitter) -> None:
        """All of the target: one unit owns it."""
        b, buffer = emitter.builder, self.kernel.buffer
        lanes = b.lanes(buffer.dtype)
        whole = buffer.span // lanes * lanes
        pointer = emitter.pointer(buffer)
        zero = b.constant(0, buffer.dtype, lanes)

        def write(i: Index, _: Sequence[Value]) -> None:
            b.store(zero, pointer, i, buffer.dtype)

        b.loop(0, whole, lanes, write)
        for i in range(whole, buffer.span):
            b.store(b.constant(0, buffer.dtype), pointer, i, buffer.dtype)

    def _clear_stretch(self, emitter: Emitter, shared: int) -> None:
        """What the present point of the shared loop owns, just before it is added to."""
        b, buffer, offset = emitter.builder, self.kernel.buffer, self.kernel.offset
        assert offset.constant == 0
        step = offset.coefficient(shared)
        pointer = emitter.pointer(buffer)
        start = emitter.index(Affine.variable(shared) * step)

        def write(i: Index, _: Sequence[Value]) -> None:
            b.store(b.constant(0, buffer.dtype), pointer, b.index_add(start, i), buffer.dtype)

        b.loop(0, step, 1, write)

    def _added(self, emitter: Emitter, order: Sequence[int]) -> None:
        if order:
            emitter.loop(order[0], 0, self.kernel.extents[order[0]], 1, lambda _: self._added(emitter, order[1:]))
            return
        kernel, b = self.kernel, emitter.builder
        at = emitter.picked_offset(kernel.offset, kernel.indices, kernel.name)
        pointer, dtype = emitter.pointer(kernel.buffer), kernel.buffer.dtype
        before = b.load(pointer, at, dtype)
        b.store(b.add(before, emitter.value(kernel.value)), pointer, at, dtype)


def plan_scatter(kernel: Scatter) -> ScatterPlan:
    """Which loop threads share: one over the target's outermost stretches, each cleared by whoever adds to it."""
    best = None
    for v in _free_loops(kernel):
        step = kernel.offset.coefficient(v)
        tiles = step * kernel.extents[v] == kernel.buffer.span and kernel.offset.constant == 0 and step > 0
        if tiles and kernel.extents[v] > 1:
            best = v
    return ScatterPlan(kernel, best)


@dataclass(frozen=True, eq=False)
class ScanPlan:
    """How a `Scan` is written."""

    kernel: Scan
    scratch: int = 0
    grain: int = 1
    rows: Rows | None = None

    @property
    def units(self) -> int:
        """Parts that threads share."""
        return self.kernel.extents[self.kernel.outer[0]] if self.kernel.outer else 1

    @property
    def work(self) -> float:
        """Roughly the cycles that one thread takes for it all."""
        return 5.0 * math.prod(self.kernel.extents.values())

    def emit(self, emitter: Emitter, share: Share) -> None:
        """Code for a share of the units."""
        kernel, b = self.kernel, emitter.builder
        work = dtypes.work_dtype(kernel.value.dtype)

        def along() -> None:
            def step(carried: Sequence[Value]) -> list[Value]:
                total = b.add(carried[0], emitter.value(kernel.value))
                emitter.store(kernel.target, total)
                return [total]

            emitter.loop(kernel.along, 0, kernel.extents[kernel.along], 1, step, [b.constant(0, work)])

        _shared_loops(emitter, kernel, share, along)


def _shared_loops(emitter: Emitter, kernel: Scan | Sort, share: Share, body: Callable[[], None]) -> None:
    """The outer loops, a share of the first; without any, the body if there is something to do."""
    b = emitter.builder

    def deeper(order: Sequence[int]) -> None:
        if not order:
            body()
        else:
            emitter.loop(order[0], 0, kernel.extents[order[0]], 1, lambda _: deeper(order[1:]))

    if kernel.outer:
        emitter.loop(kernel.outer[0], share.lo, share.hi, 1, lambda _: deeper(kernel.outer[1:]))
    else:
        emitter.when(b.lt(b.index_value(share.lo), b.index_value(share.hi)), body)


@dataclass(frozen=True, eq=False)
class SortPlan:
    """How a `Sort` is written: keys and positions of a row in scratch memory, merged in runs of 1, 2, 4 and so on."""

    kernel: Sort
    grain: int = 1
    rows: Rows | None = None

    @property
    def units(self) -> int:
        """Parts that threads share."""
        return self.kernel.extents[self.kernel.outer[0]] if self.kernel.outer else 1

    @property
    def scratch(self) -> int:
        """Bytes: two rows of positions, one of keys."""
        return 3 * 8 * self.kernel.extents[self.kernel.along] + 64

    @property
    def work(self) -> float:
        """Roughly the cycles that one thread takes for it all."""
        n = max(self.kernel.extents[self.kernel.along], 2)
        return 12.0 * math.prod(self.kernel.extents.values()) * math.log2(n)

    def emit(self, emitter: Emitter, share: Share) -> None:
        """Code for a share of the units."""
        _shared_loops(emitter, self.kernel, share, lambda: self._row(emitter, share.scratch))

    def _row(self, emitter: Emitter, scratch: str) -> None:
        kernel, b = self.kernel, emitter.builder
        n = kernel.extents[kernel.along]
        dtype = dtypes.work_dtype(kernel.value.dtype)
        keys = scratch
        one = b.pointer(scratch, n, dtypes.int64)
        two = b.pointer(scratch, 2 * n, dtypes.int64)

        def fill(_: Sequence[Value]) -> None:
            i = emitter.index(Affine.variable(kernel.along))
            b.store(emitter.value(kernel.value), b.pointer(keys, i, dtypes.int64), 0, dtype)
            b.store(b.index_value(i), one, i, dtypes.int64)

        emitter.loop(kernel.along, 0, n, 1, fill)
        width, source, target = 1, one, two
        while width < n:
            self._merge_all(b, source, target, keys, dtype, width)
            width, source, target = 2 * width, target, source

        def write(_: Sequence[Value]) -> None:
            i = emitter.index(Affine.variable(kernel.along))
            emitter.store(kernel.target, b.load(source, i, dtypes.int64))

        emitter.loop(kernel.along, 0, n, 1, write)

    def _merge_all(self, b: Builder, source: str, target: str, keys: str, dtype: np.dtype, width: int) -> None:
        """Pairs of sorted runs of `width` become runs of twice that, entry by entry, without a branch."""
        n = self.kernel.extents[self.kernel.along]
        limit = b.constant(n, dtypes.int64)

        def pair(start: Index, _: Sequence[Value]) -> None:
            middle = b.minimum(b.index_value(b.index_add(start, width)), limit)
            stop = b.minimum(b.index_value(b.index_add(start, 2 * width)), limit)

            def entry(k: Index, carried: Sequence[Value]) -> list[Value]:
                left, right = carried
                has_left, has_right = b.lt(left, middle), b.lt(right, stop)
                last = b.constant(n - 1, dtypes.int64)
                at_left = b.load(source, b.minimum(left, last), dtypes.int64)
                at_right = b.load(source, b.minimum(right, last), dtypes.int64)
                x = b.load(b.pointer(keys, at_left, dtypes.int64), 0, dtype)
                y = b.load(b.pointer(keys, at_right, dtypes.int64), 0, dtype)
                right_first = b.and_(has_right, b.or_(b.not_(has_left), self._before(b, y, x)))
                b.store(b.where(right_first, at_right, at_left), target, k, dtypes.int64)
                one = b.constant(1, dtypes.int64)
                return [
                    b.where(right_first, left, b.add(left, one)),
                    b.where(right_first, b.add(right, one), right),
                ]

            b.loop(start, stop, 1, entry, [b.index_value(start), middle])

        b.loop(0, n, 2 * width, pair)

    def _before(self, b: Builder, x: Value, y: Value) -> Value:
        """Does x stand strictly before y? nan stands last (going down: first)."""
        floats = dtypes.is_float(x.dtype)
        if self.kernel.descending:
            better = b.gt(x, y)
            return b.or_(better, b.and_(b.isnan(x), b.not_(b.isnan(y)))) if floats else better
        better = b.lt(x, y)
        return b.or_(better, b.and_(b.isnan(y), b.not_(b.isnan(x)))) if floats else better
