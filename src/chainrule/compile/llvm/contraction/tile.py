"""Register tiles: the sums of a few rows by a few vectors of columns, and the epilogue on them.

Two kinds. With lanes along an axis of the output, an element of the one operand, spread to all lanes, meets a vector of
the other ("vector" tiles: the multiply-adds of a matrix product as it is usually written). With lanes along a summed
axis, a vector of the one meets a vector of the other, and the lanes are added up at the end ("dot" tiles).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from chainrule.compile.caches import LINE, SECOND
from chainrule.compile.kernels.expression import Accumulated, Load, walk
from chainrule.compile.kernels.kernel import Store
from chainrule.compile.llvm.builder import SCALAR, Builder, Index, Value
from chainrule.compile.llvm.contraction.axes import NONE, Axis
from chainrule.compile.llvm.contraction.sources import Source
from chainrule.compile.llvm.contraction.summation import Step
from chainrule.compile.llvm.expressions import Emitter


class Segment(NamedTuple):
    """One vector of a tile: from `offset` on, of so many lanes; those from `active` on do not count."""

    offset: int
    lanes: int
    active: int | None


def segments(size: int, lanes: int, masks: bool) -> list[Segment]:
    """A run of elements as vectors: full ones, then what is left as one masked vector, or as ever shorter ones."""
    found = [Segment(i, lanes, None) for i in range(0, size - lanes + 1, lanes)]
    at, rest = size // lanes * lanes, size % lanes
    while rest:
        width = 1 << (rest.bit_length() - 1)  # the longest vector that fits
        if masks and rest not in {1, 2, 4, 8, 16, 32}:
            width *= 2
        taken = min(width, rest)
        found.append(Segment(at, SCALAR if width == 1 else width, None if taken == width else taken))
        at, rest = at + taken, rest - taken
    return found


def vector_step(b: Builder, rows: Axis, count: int, along: Axis, parts: Sequence[Segment]) -> Step:
    """The multiply-adds of a vector tile: accumulators row by row."""

    def step(points: Source, vectors: Source, accs: list[Value], _active: int | None) -> list[Value]:
        held = [vectors.moved(along, s.offset).vector(along, s.lanes, s.active) for s in parts]
        for i in range(count):
            element = points.moved(rows, i).scalar()
            spread = {lanes: b.spread(element, lanes) for lanes in {s.lanes for s in parts}}
            for j, s in enumerate(parts):
                n = i * len(parts) + j
                accs[n] = b.fma(spread[s.lanes], held[j], accs[n])
        return accs

    return step


def dot_step(b: Builder, first: tuple[Axis, int], second: tuple[Axis, int], along: Axis, lanes: int) -> Step:
    """The multiply-adds of a dot tile: accumulators by points of the first axis, then of the second."""

    def step(left: Source, right: Source, accs: list[Value], active: int | None) -> list[Value]:
        held = [right.moved(second[0], j).vector(along, lanes, active) for j in range(second[1])]
        for i in range(first[1]):
            mine = left.moved(first[0], i).vector(along, lanes, active)
            for j, other in enumerate(held):
                n = i * len(held) + j
                accs[n] = b.fma(mine, other, accs[n])
        return accs

    return step


def lane_sums(b: Builder, vectors: Sequence[Value]) -> Value:
    """The sum of the lanes of each vector, one a lane; as many lanes as vectors, up to a power of two.

    In each round two vectors become one: half of the lanes of each added to the other half.
    """
    lanes, width = vectors[0].lanes, 1
    held = list(vectors)
    while len(held) > 1:
        held += held[-1:] * (len(held) % 2)
        groups = range(0, lanes, 2 * width)
        low = [n for g in groups for n in (*range(g, g + width), *range(lanes + g, lanes + g + width))]
        high = [n + width for n in low]
        held = [b.add(b.shuffle(x, y, low), b.shuffle(x, y, high)) for x, y in zip(held[::2], held[1::2], strict=True)]
        width *= 2
    total = held[0]
    while total.lanes > max(width, 2):
        total = b.add(*b.halves(total))
    return total if width > 1 else b.add(b.lane(total, 0), b.lane(total, 1))


class Epilogue:
    """What is done with the finished sums.

    shared: do several panels share the rows of the results?
    """

    def __init__(self, emitter: Emitter, stores: Sequence[Store], *, shared: bool) -> None:
        self.emitter = emitter
        self.stores = stores
        loads = [e for e in walk(*(s.value for s in stores)) if isinstance(e, Load)]
        touched = [(e.buffer, e.offset) for e in loads]
        if shared:
            touched += [(s.buffer, s.offset) for s in stores if all(e.buffer is not s.buffer for e in loads)]
        self.far = [(buffer, offset) for buffer, offset in touched if buffer.bytes >= SECOND]
        self.sums = [e for e in walk(*(s.value for s in stores)) if isinstance(e, Accumulated)]

    def ahead(
        self, point: Mapping[int, Index], rows: tuple[Axis, Index, int], along: tuple[Axis, Index], size: int
    ) -> None:
        """Have what the epilogue of a tile will touch brought near, while the sums are being made.

        Each tile reads a few short pieces of rows far apart: no pattern that the processor would foresee. What is
        written is taken from the other cores at once: where panels share rows, a core that fills its part of one
        fetches some lines beyond, of the part that another core will fill.
        """
        b, e = self.emitter.builder, self.emitter
        for buffer, offset in self.far:
            if rows[0].step(offset) == 0 or along[0].step(offset) != 1:
                continue
            pointer, line = e.pointer(buffer), LINE // buffer.dtype.itemsize
            written = any(s.buffer is buffer for s in self.stores)
            for i in range(rows[2]):
                with e.at({**point, **rows[0].at(b.index_add(rows[1], i)), **along[0].at(along[1])}):
                    at = e.index(offset)
                for further in range(0, size, line):
                    b.prefetch(b.pointer(pointer, b.index_add(at, further), buffer.dtype), for_writing=written)

    def vectors(
        self,
        point: Mapping[int, Index],
        rows: tuple[Axis, Index, int],
        along: tuple[Axis, Index],
        parts: Sequence[Segment],
        sums: Sequence[Value],
    ) -> None:
        """At a tile of vectors: (axis, start, count) of the rows, (axis, start) of the lanes."""
        e, b = self.emitter, self.emitter.builder
        row, top, count = rows
        axis, start = along
        with e.at(point):
            for j, s in enumerate(parts):
                lanes_axis = axis.variable if s.lanes != SCALAR else None
                with e.lanes_over(lanes_axis, s.lanes, s.active), e.at(axis.at(b.index_add(start, s.offset))):
                    for i in range(count):
                        with e.at(row.at(b.index_add(top, i))):
                            self._store(sums[i * len(parts) + j])

    def scalars(
        self,
        point: Mapping[int, Index],
        first: tuple[Axis, Index, int],
        second: tuple[Axis, Index, int],
        sums: Sequence[Value],
    ) -> None:
        """At single points: (axis, start, count) of the one and the other axis."""
        b = self.emitter.builder
        axis, start, count = second
        for i, value in enumerate(sums):
            here = {**point, **axis.at(b.index_add(start, i % count))}
            self.vectors(
                here, (first[0], b.index_add(first[1], i // count), 1), (NONE, 0), [Segment(0, SCALAR, None)], [value]
            )

    def _store(self, total: Value) -> None:
        e = self.emitter
        for accumulated in self.sums:
            e.define(accumulated, total)
        # All values first: none of them sees what another store of this point has written.
        values = []
        for s in self.stores:
            moves = e.vector is not None and s.offset.coefficient(e.vector) != 0
            values.append(e.spread(s.value) if moves else e.value(s.value))
        for s, value in zip(self.stores, values, strict=True):
            e.store(s, value)
