"""What tiles of a contraction read: an operand where it lies, or a copy of the part that is used many times.

Knows where copies lie and what they hold; which operands are copied, and how far, is decided in `layout.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from chainrule import dtypes
from chainrule.compile.llvm.builder import SCALAR, Index
from chainrule.compile.llvm.contraction.axes import Axis, contiguous
from chainrule.compile.llvm.contraction.grid import repeat
from chainrule.compile.llvm.contraction.layout import Layout
from chainrule.compile.llvm.contraction.packing import copy, copy_run, turn
from chainrule.compile.llvm.contraction.sources import Memory, Source, plain, source
from chainrule.compile.llvm.contraction.tile import Segment, segments
from chainrule.compile.llvm.expressions import Emitter
from chainrule.compile.llvm.shares import Share

Point = dict[int, Index]  # the values of variables
Pieces = Callable[[Index], Source]  # a panel: from what begins at a place along it on


@dataclass(frozen=True)
class Part:
    """Which points of the sum are done: of one axis those from `start` on, `extent` of them; of the others all."""

    axis: Axis | None
    start: Index
    extent: Index


ALL = Part(None, 0, 0)


@dataclass(frozen=True)
class Run:
    """A run of positions along an axis, at a point of the other axes (of rows: those of their panel too)."""

    point: Point
    axis: Axis
    start: Index
    size: int

    @property
    def first(self) -> Point:
        """Where it begins."""
        return {**self.point, **self.axis.at(self.start)}


class Operands:
    """Both operands of a layout, for a share of its tiles.

    panel, copied: where a panel of the vectors' operand is packed, and where points of the other are copied.
    masks: may the last lanes of a vector be left out?
    """

    def __init__(self, layout: Layout, emitter: Emitter, share: Share) -> None:
        self.layout, self.emitter, self.share = layout, emitter, share
        self.operands = layout.operands
        self.masks = layout.target.vector_bytes >= 32
        panel, points, _ = layout.stretches
        self.panel = share.scratch
        self.copied = emitter.builder.pointer(share.scratch, panel, dtypes.uint8) if points > panel else share.scratch

    def loops(self, part: Part) -> list[tuple[Axis, Index]]:
        """The summed axes, and how many of their positions are done."""
        return [(a, part.extent if a == part.axis else a.extent) for a in self.layout.axes.summed]

    def _source(self, which: int, run: Run, part: Part) -> Source:
        """An operand where it lies: 0, of the points; 1, of the vectors."""
        layout = self.layout
        axes = (*(layout.form.vectors if which else layout.form.points), *layout.axes.summed)
        found = source(self.emitter, self.operands[which], layout.kernel.accumulate, run.first, axes)
        return found if part.axis is None else found.moved(part.axis, part.start)

    def _strides(self, axes: Iterable[Axis], step: int = 1) -> tuple[dict[Axis, int], int]:
        """Of summed axes, the first of which moves by `step` elements; and the elements that they all take."""
        strides: dict[Axis, int] = {}
        block = self.layout.block
        for axis in axes:
            strides[axis] = step
            step *= block[1] if block is not None and axis == block[0] else axis.extent
        return strides, step

    def _strides_along(self, along: Axis) -> tuple[dict[Axis, int], int]:
        """The same, where the points of one axis stand beside each other."""
        return self._strides((along, *(a for a in reversed(self.layout.axes.summed) if a != along)))

    def vectors(self, columns: Run, part: Part, first: Index = 0) -> Pieces:
        """The vectors' operand of a panel, packed if that is better.

        first: the tile that comes first. Where a share goes on in the middle of a panel, that lies packed already.
        """
        b = self.emitter.builder
        if not self.layout.packed:
            given = self._source(1, columns, part)
            return lambda at: given.moved(columns.axis, at)
        if part.axis is not None or isinstance(first, int):
            return self._packed(columns, part)
        lies = b.and_(self.share.continues, b.gt(first, b.constant(0, dtypes.int64)))
        found: list[Pieces] = []
        self.emitter.when(b.not_(lies), lambda: found.append(self._packed(columns, part)))
        return found[0]

    def _packed(self, columns: Run, part: Part) -> Pieces:
        """A panel of the vectors' operand, copied."""
        layout, e = self.layout, self.emitter
        given = self._source(1, columns, part)
        loops, dtype = self.loops(part), layout.kernel.accumulate
        one_by_one = [Segment(0, SCALAR, None)]
        if layout.form.dot:
            strides, depth = self._strides_along(layout.form.lanes)
            packed = Memory(e.builder, self.panel, dtype, {**strides, columns.axis: depth})
            copy(e, given, packed, [*loops, (columns.axis, columns.size)], columns.axis, one_by_one)
            return lambda at: packed.moved(columns.axis, at)
        axis, operand = columns.axis, self.operands[1]
        runs = contiguous(operand, axis)
        if runs and plain(operand, dtype):
            # Row by row: what lies beside each other is read at once, and goes to all pieces.
            parts, apart = segments(columns.size, layout.width, self.masks), layout.piece_pitch
            place = lambda offset: offset // layout.span * apart + offset % layout.span  # noqa: E731
            copy(e, given, self._piece(axis, 0), loops, axis, parts, place)
            return lambda at: self._piece(axis, at)

        def piece(at: Index, size: int) -> None:
            here, there = given.moved(axis, at), self._piece(axis, at)
            if runs:
                copy(e, here, there, loops, axis, segments(size, layout.width, self.masks))
            elif layout.turned is None:
                copy(e, here, there, [*loops, (axis, size)], axis, one_by_one)
            else:
                others = [(a, n) for a, n in loops if a != layout.turned]
                across = next((a, n) for a, n in loops if a == layout.turned)
                turn(e, here, there, others, across, (axis, size), layout.width)

        self.through(columns.size, piece)
        return lambda at: self._piece(axis, at)

    def _piece(self, axis: Axis, at: Index) -> Memory:
        """The piece of a packed panel that begins at a place along its axis."""
        b, layout = self.emitter.builder, self.layout
        strides, _ = self._strides(reversed(layout.axes.summed), layout.span)
        start = b.index_mul(at, layout.depth + 1)
        return Memory(b, self.panel, layout.kernel.accumulate, {**strides, axis: 1}, start, padded=True)

    def points(self, rows: Run, part: Part) -> Source:
        """The other operand of a tile, worked out beforehand if it is more than a load."""
        layout, e = self.layout, self.emitter
        along = layout.points_along
        if along is not None and along not in layout.axes.summed and contiguous(self.operands[0], rows.axis):
            return self.points_of_run(rows, 1, part)
        given = self._source(0, rows, part)
        if along is None:
            return given
        loops, dtype = self.loops(part), layout.kernel.accumulate
        if along in layout.axes.summed:
            strides, depth = self._strides_along(along)
            packed = Memory(e.builder, self.copied, dtype, {**strides, rows.axis: depth}, padded=True)
            rest = [(rows.axis, rows.size), *((a, n) for a, n in loops if a != along)]
            run = next((a, n) for a, n in loops if a == along)
            copy_run(e, given, packed, rest, run, layout.width)
            return packed
        packed = self._copied_points(rows.axis)
        copy(e, given, packed, [*loops, (rows.axis, rows.size)], rows.axis, [Segment(0, SCALAR, None)])
        return packed

    def points_of_run(self, rows: Run, count: int, part: Part) -> Memory:
        """The points of so many tiles, of which the first has these rows."""
        layout = self.layout
        given, packed = self._source(0, rows, part), self._copied_points(rows.axis)
        tile = segments(rows.size, layout.width, self.masks)
        parts = []
        for i in range(count):
            for s in tile:
                # Lanes that do not count are those of the next tile, but of the last.
                active = s.active if i + 1 == count else None
                parts.append(s._replace(offset=i * rows.size + s.offset, active=active))
        place = lambda offset: offset // rows.size * layout.tile_pitch + offset % rows.size  # noqa: E731
        copy(self.emitter, given, packed, self.loops(part), rows.axis, parts, place)
        return packed

    def _copied_points(self, axis: Axis) -> Memory:
        """Where the points of a tile are copied along its rows."""
        layout = self.layout
        strides, _ = self._strides(reversed(layout.axes.summed), layout.points_pitch)
        return Memory(self.emitter.builder, self.copied, layout.kernel.accumulate, {**strides, axis: 1}, padded=True)

    def through(self, size: int, piece: Callable[[Index, int], None]) -> None:
        """Where in a panel each piece begins, and its size."""
        span = self.layout.span
        whole = size // span * span
        repeat(self.emitter, 0, whole, span, lambda at, _: piece(at, span))
        if whole < size:
            piece(whole, size - whole)
