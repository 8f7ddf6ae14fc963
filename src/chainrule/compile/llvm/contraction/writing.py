"""The code of a contraction: loops over panels and tiles, what is packed for them, and the tiles."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from chainrule import dtypes
from chainrule.compile.caches import LINE
from chainrule.compile.llvm.builder import SCALAR, Index, Value
from chainrule.compile.llvm.contraction.axes import Axis, contiguous
from chainrule.compile.llvm.contraction.forms import beside
from chainrule.compile.llvm.contraction.grid import Kind, index_divmod, index_max, index_min, index_sub, opaque, repeat
from chainrule.compile.llvm.contraction.layout import Layout
from chainrule.compile.llvm.contraction.packing import copy, copy_run, transposed, turn
from chainrule.compile.llvm.contraction.sources import Memory, Source, plain, source
from chainrule.compile.llvm.contraction.summation import Summation, sets_for, zero
from chainrule.compile.llvm.contraction.tile import (
    Epilogue,
    Segment,
    dot_step,
    lane_sums,
    segments,
    vector_step,
)
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


class Writing:
    """Writes the code of one layout."""

    def __init__(self, layout: Layout, emitter: Emitter, share: Share) -> None:
        self.layout = layout
        self.emitter = emitter
        self.epilogue = Epilogue(emitter, layout.kernel.epilogue)
        b = emitter.builder
        self.operands = layout.operands
        self.masks = layout.target.vector_bytes >= 32
        panel, points, _ = layout.stretches
        self.share = share
        self.panel = scratch = share.scratch
        self.points = b.pointer(scratch, panel, dtypes.uint8) if points > panel else scratch
        self.sums = b.pointer(scratch, points, dtypes.uint8) if layout.block else scratch

    # --- loops

    def write(self) -> None:
        """The tiles of the share."""
        layout = self.layout
        with self.emitter.at(dict.fromkeys(layout.axes.still, 0)):
            for kind in layout.panels.kinds:
                if layout.by_rows:
                    self._all_panels(kind)
                else:
                    self._panels_of_share(kind)

    def _all_panels(self, kind: Kind) -> None:
        """The rows of tiles of the share, through all panels of a kind."""
        b, each = self.emitter.builder, self.layout.stretches[0] // self.layout.panels_kept

        def panel(number: Index, _: object) -> None:
            self.panel = b.pointer(self.share.scratch, b.index_mul(number, each), dtypes.uint8)
            self._panel(self._columns(kind, number), self.share.lo, self.share.hi)

        repeat(self.emitter, kind.first, kind.first + kind.count, 1, panel)

    def _panels_of_share(self, kind: Kind) -> None:
        """The tiles of the share that are in panels of a kind, panel by panel."""
        b, tiles, (lo, hi) = self.emitter.builder, self.layout.tiles.count, self.share[:2]

        def panel(number: Index, _: object) -> None:
            behind = b.index_mul(number, tiles)
            start = index_max(b, index_sub(b, lo, behind), 0)
            self._panel(self._columns(kind, number), start, index_min(b, index_sub(b, hi, behind), tiles))

        first, _ = index_divmod(b, lo, tiles)
        last, _ = index_divmod(b, b.index_add(hi, tiles - 1), tiles)
        low, high = index_max(b, first, kind.first), index_min(b, last, kind.first + kind.count)
        repeat(self.emitter, low, high, 1, panel)

    def _columns(self, kind: Kind, number: Index) -> Run:
        """Those of a panel."""
        point, start = self.layout.panels.point(self.emitter.builder, kind, number)
        return Run(point, self.layout.panels.axis, start, kind.size)

    def _panel(self, columns: Run, lo: Index, hi: Index) -> None:
        if self.layout.block is not None:
            self._panel_in_parts(columns, lo, hi)
            return
        vectors = self._vectors(columns, ALL, lo)

        def tile(rows: Run, _: Index, points: Source) -> None:
            def piece(run: Run, source: Source, _: Index) -> None:
                self._claim(rows, run)
                self._ahead(rows, run)
                self._finish(rows, run, self._sums(rows, run, points, source, ALL, None))

            self._pieces(columns, vectors, piece)

        self._tiles_with_points(columns, lo, hi, ALL, tile)

    def _panel_in_parts(self, columns: Run, lo: Index, hi: Index) -> None:
        """A part of the summed axis after the other; the sums of some tiles wait in memory meanwhile."""
        b, layout = self.emitter.builder, self.layout
        assert layout.block is not None
        axis, each = layout.block

        def some(first: Index, _: object) -> None:
            last = index_min(b, b.index_add(first, layout.chunk), hi)

            def part(start: Index, _: object) -> None:
                here = Part(axis, start, index_min(b, index_sub(b, axis.extent, start), each))
                vectors = self._vectors(columns, here)

                def tile(rows: Run, number: Index, points: Source) -> None:
                    def piece(run: Run, source: Source, at: Index) -> None:
                        kept = self._kept(index_sub(b, number, first), at)
                        self._keep(kept, self._sums(rows, run, points, source, here, kept))

                    self._pieces(columns, vectors, piece)

                self._tiles_with_points(columns, first, last, here, tile)

            def clear(rows: Run, number: Index) -> None:
                def piece(run: Run, _: Source, at: Index) -> None:
                    self._keep(self._kept(index_sub(b, number, first), at), self._zeros(rows, run))

                self._pieces(columns, nothing, piece)

            def finish(rows: Run, number: Index) -> None:
                def piece(run: Run, _: Source, at: Index) -> None:
                    kept = self._kept(index_sub(b, number, first), at)
                    self._finish(rows, run, self._load(kept, self._zeros(rows, run)))

                self._pieces(columns, nothing, piece)

            nothing: Pieces = lambda _: Memory(b, self.panel, layout.kernel.accumulate, {})  # noqa: E731
            self._tiles(columns, first, last, clear)
            repeat(self.emitter, 0, axis.extent, each, part)
            self._tiles(columns, first, last, finish)

        repeat(self.emitter, lo, hi, layout.chunk, some)

    def _tiles(self, columns: Run, lo: Index, hi: Index, body: Callable[[Run, Index], None]) -> None:
        """The tiles lo … hi - 1 of a panel; the body is given the rows and the number of each."""
        b = self.emitter.builder
        for kind in self.layout.tiles.kinds:

            def tile(number: Index, _: object, kind: Kind = kind) -> None:
                body(self._rows(columns, kind, number), number)

            low, high = index_max(b, lo, kind.first), index_min(b, hi, kind.first + kind.count)
            repeat(self.emitter, low, high, 1, tile)

    def _tiles_with_points(
        self, columns: Run, lo: Index, hi: Index, part: Part, body: Callable[[Run, Index, Source], None]
    ) -> None:
        """The same; the body is also given the points' operand, copied for a run of tiles if that is better."""
        b, layout = self.emitter.builder, self.layout
        for kind in layout.tiles.kinds:
            low, high = index_max(b, lo, kind.first), index_min(b, hi, kind.first + kind.count)
            count = min(layout.run, kind.count)

            def one(number: Index, _: object, kind: Kind = kind) -> None:
                rows = self._rows(columns, kind, number)
                body(rows, number, self._packed_points(rows, part))

            def some(number: Index, _: object, kind: Kind = kind, high: Index = high, count: int = count) -> None:
                # A run that would reach over the edge begins earlier.
                first = index_min(b, number, kind.first + kind.count - count)
                packed = self._packed_run(self._rows(columns, kind, first), count, part)

                def tile(number: Index, _: object) -> None:
                    behind = b.index_mul(index_sub(b, number, first), layout.tile_pitch)
                    body(self._rows(columns, kind, number), number, replace(packed, at=behind).opaque())

                repeat(self.emitter, number, index_min(b, b.index_add(number, count), high), 1, tile)

            repeat(self.emitter, low, high, count, one if count == 1 else some)

    def _rows(self, columns: Run, kind: Kind, number: Index) -> Run:
        """Those of a tile."""
        point, row = self.layout.tiles.point(self.emitter.builder, kind, number)
        return Run({**columns.point, **point}, self.layout.tiles.axis, row, kind.size)

    def _pieces(self, columns: Run, vectors: Pieces, body: Callable[[Run, Source, Index], None]) -> None:
        """The parts of a panel that a tile of registers takes; the body is also given where in it each begins."""
        b = self.emitter.builder

        def piece(at: Index, size: int) -> None:
            at = opaque(b, at)
            body(Run(columns.point, columns.axis, b.index_add(columns.start, at), size), vectors(at), at)

        self._through(columns.size, piece)

    def _through(self, size: int, piece: Callable[[Index, int], None]) -> None:
        """Where in a panel each piece begins, and its size."""
        span = self.layout.span
        whole = size // span * span
        repeat(self.emitter, 0, whole, span, lambda at, _: piece(at, span))
        if whole < size:
            piece(whole, size - whole)

    # --- sums that wait

    def _kept(self, number: Index, at: Index) -> Memory:
        """Where the sums of a tile wait: that of a number, at a place in its panel."""
        layout, b = self.layout, self.emitter.builder
        start = b.index_add(b.index_mul(number, layout.waiting), b.index_mul(at, layout.tiles.size))
        return Memory(b, self.sums, layout.kernel.accumulate, {}, start)

    def _keep(self, kept: Memory, sums: Sequence[Value]) -> None:
        for i, value in enumerate(sums):
            kept.further(i * self.layout.width).store(value)

    def _load(self, kept: Memory, like: Sequence[Value]) -> list[Value]:
        width = self.layout.width
        return [kept.further(i * width).load(v.lanes) for i, v in enumerate(like)]

    # --- operands

    def _loops(self, part: Part) -> list[tuple[Axis, Index]]:
        return [(a, part.extent if a == part.axis else a.extent) for a in self.layout.axes.summed]

    def _source(self, which: int, run: Run, part: Part) -> Source:
        layout = self.layout
        axes = (*(layout.form.vectors if which else layout.form.points), *layout.axes.summed)
        found = source(self.emitter, self.operands[which], layout.kernel.accumulate, run.first, axes)
        return found if part.axis is None else found.moved(part.axis, part.start)

    def _strides(self, step: int) -> dict[Axis, int]:
        """Of the summed axes, where a point of the sum takes `step` elements."""
        strides: dict[Axis, int] = {}
        block = self.layout.block
        for axis in reversed(self.layout.axes.summed):
            strides[axis] = step
            step *= block[1] if block is not None and axis == block[0] else axis.extent
        return strides

    def _strides_along(self, along: Axis) -> tuple[dict[Axis, int], int]:
        """Of the summed axes, where this one's points stand beside each other; and the elements they all take."""
        strides: dict[Axis, int] = {}
        step, block = 1, self.layout.block
        for axis in (along, *(a for a in reversed(self.layout.axes.summed) if a != along)):
            strides[axis] = step
            step *= block[1] if block is not None and axis == block[0] else axis.extent
        return strides, step

    def _vectors(self, columns: Run, part: Part, first: Index = 0) -> Pieces:
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
        loops, dtype = self._loops(part), layout.kernel.accumulate
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

        self._through(columns.size, piece)
        return lambda at: self._piece(axis, at)

    def _piece(self, axis: Axis, at: Index) -> Memory:
        """The piece of a packed panel that begins at a place along its axis."""
        b, layout = self.emitter.builder, self.layout
        strides = {**self._strides(layout.span), axis: 1}
        start = b.index_mul(at, layout.depth + 1)
        return Memory(b, self.panel, layout.kernel.accumulate, strides, start, padded=True)

    def _packed_points(self, rows: Run, part: Part) -> Source:
        """The other operand of a tile, worked out beforehand if it is more than a load."""
        layout, e = self.layout, self.emitter
        along = layout.points_along
        if along is not None and along not in layout.axes.summed and contiguous(self.operands[0], rows.axis):
            return self._packed_run(rows, 1, part)
        given = self._source(0, rows, part)
        if along is None:
            return given
        loops, dtype = self._loops(part), layout.kernel.accumulate
        if along in layout.axes.summed:
            strides, depth = self._strides_along(along)
            packed = Memory(e.builder, self.points, dtype, {**strides, rows.axis: depth}, padded=True)
            rest = [(rows.axis, rows.size), *((a, n) for a, n in loops if a != along)]
            run = next((a, n) for a, n in loops if a == along)
            copy_run(e, given, packed, rest, run, layout.width)
            return packed
        packed = self._copied_points(rows.axis)
        copy(e, given, packed, [*loops, (rows.axis, rows.size)], rows.axis, [Segment(0, SCALAR, None)])
        return packed

    def _packed_run(self, rows: Run, count: int, part: Part) -> Memory:
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
        copy(self.emitter, given, packed, self._loops(part), rows.axis, parts, place)
        return packed

    def _copied_points(self, axis: Axis) -> Memory:
        """Where the points of a tile are copied along its rows."""
        strides = {**self._strides(self.layout.points_pitch), axis: 1}
        return Memory(self.emitter.builder, self.points, self.layout.kernel.accumulate, strides, padded=True)

    # --- tiles

    def _parts(self, columns: Run) -> list[Segment]:
        width = self.layout.width
        if not self.layout.results_turned:
            return segments(columns.size, width, self.masks)
        # Squares of results are turned: whole vectors only.
        return [Segment(at, width, min(width, columns.size - at)) for at in range(0, columns.size, width)]

    def _zeros(self, rows: Run, columns: Run) -> list[Value]:
        dtype = self.layout.kernel.accumulate
        if self.layout.form.dot:
            return [zero(dtype, self.layout.width)] * (rows.size * columns.size)
        return [zero(dtype, s.lanes) for _ in range(rows.size) for s in self._parts(columns)]

    def _sums(
        self, rows: Run, columns: Run, points: Source, vectors: Source, part: Part, kept: Memory | None
    ) -> list[Value]:
        """The sums of a tile over a part of the summed axes, added to those kept from earlier parts."""
        layout, b = self.layout, self.emitter.builder
        loops = self._loops(part)
        if layout.limits:
            limited = self._limited(rows.point, part)
            for axis, (first, _) in limited.items():
                points, vectors = points.moved(axis, first), vectors.moved(axis, first)
            loops = [(a, limited[a][1] if a in limited else n) for a, n in loops]
        if layout.form.dot:
            lanes, width = layout.form.lanes, layout.width
            step = dot_step(b, (rows.axis, rows.size), (columns.axis, columns.size), lanes, width)
            loops = [*(x for x in loops if x[0] != lanes), *(x for x in loops if x[0] == lanes)]
        else:
            width = 1
            step = vector_step(b, rows.axis, rows.size, columns.axis, self._parts(columns))
        start = self._zeros(rows, columns)
        sets = sets_for(len(start), loops[-1][0].extent // width if loops else 1)
        if kept is not None:
            start = self._load(kept, start)
        axes, extents = [a for a, _ in loops], [n for _, n in loops]
        return Summation(self.emitter, axes, extents, width, sets, step).run(points, vectors, start)

    def _limited(self, point: Point, part: Part) -> dict[Axis, tuple[Index, Index]]:
        """Of the summed axes whose terms are not all there at a point: the first of a part that is, and how many."""
        e, b, found = self.emitter, self.emitter.builder, dict[Axis, tuple[Index, Index]]()
        for axis, extent in self._loops(part):
            mine = [x for x in self.layout.limits if x.variable == axis.variable]
            start: Index = 0
            stop = extent
            for x in mine:
                with e.at(point):
                    rest = e.index(x.rest)
                if axis == part.axis:
                    rest = b.index_add(rest, part.start)
                start = index_max(b, start, index_sub(b, x.start, rest))
                stop = index_min(b, stop, index_sub(b, x.stop, rest))
            if mine:
                found[axis] = opaque(b, start), opaque(b, index_max(b, index_sub(b, stop, start), 0))
        return found

    def _claim(self, rows: Run, columns: Run) -> None:
        """Write to each line of what a tile claims."""
        b = self.emitter.builder
        down, along = (columns, rows) if self.layout.form.swapped else (rows, columns)
        for buffer in self.layout.kernel.claims:
            for i in range(down.size):
                row = b.index_mul(b.index_add(down.start, i), buffer.strides[0])
                first = b.pointer(self.emitter.pointer(buffer), b.index_add(row, along.start), buffer.dtype)
                for at in range(0, along.size, LINE // buffer.dtype.itemsize):
                    b.store(b.constant(0, buffer.dtype), first, at, buffer.dtype)

    def _ahead(self, rows: Run, columns: Run) -> None:
        if not self.layout.form.dot and not self.layout.results_turned:
            row = (rows.axis, rows.start, rows.size)
            self.epilogue.ahead(rows.point, row, (columns.axis, columns.start), columns.size)

    def _finish(self, rows: Run, columns: Run, sums: Sequence[Value]) -> None:
        """The epilogue of a tile."""
        if self.layout.form.dot:
            self._finish_dot(rows, columns, sums)
            return
        if self.layout.results_turned:
            self._finish_turned(rows, columns, sums)
            return
        row, column = (rows.axis, rows.start, rows.size), (columns.axis, columns.start)
        self.epilogue.vectors(rows.point, row, column, self._parts(columns), sums)

    def _finish_turned(self, rows: Run, columns: Run, sums: Sequence[Value]) -> None:
        b, width, parts = self.emitter.builder, self.layout.width, self._parts(columns)
        for first in range(0, rows.size, width):
            count = min(width, rows.size - first)
            along = (rows.axis, b.index_add(rows.start, first))
            for j, part in enumerate(parts):
                square = [sums[(first + i) * len(parts) + j] for i in range(count)]
                square += [zero(square[0].dtype, width)] * (width - count)
                lines = transposed(b, square)[: part.active]
                across = (columns.axis, b.index_add(columns.start, part.offset), len(lines))
                for s in segments(count, width, self.masks):
                    cut = [self._lanes(line, s) for line in lines]
                    moved = (along[0], b.index_add(along[1], s.offset))
                    self.epilogue.vectors(rows.point, across, moved, [s._replace(offset=0)], cut)

    def _lanes(self, x: Value, part: Segment) -> Value:
        """Some lanes of a vector."""
        b = self.emitter.builder
        if part.lanes == SCALAR:
            return b.lane(x, part.offset)
        if part.lanes == x.lanes:
            return x
        return b.shuffle(x, x, range(part.offset, part.offset + part.lanes))

    def _finish_dot(self, rows: Run, columns: Run, sums: Sequence[Value]) -> None:
        point = rows.point
        b, kernel, most = self.emitter.builder, self.layout.kernel, self.layout.width
        height, wide = rows.size, columns.size
        if 1 < wide <= most and beside(kernel, columns.axis):
            lines = [sums[i * wide : (i + 1) * wide] for i in range(height)]
            across, along = rows, columns
        elif 1 < height <= most and beside(kernel, rows.axis):
            lines = [sums[j::wide] for j in range(wide)]
            across, along = columns, rows
        else:
            found = [lane_sums(b, [v]) for v in sums]
            first, second = (rows.axis, rows.start, height), (columns.axis, columns.start, wide)
            self.epilogue.scalars(point, first, second, found)
            return
        parts = segments(along.size, 1 << (along.size - 1).bit_length(), masks=True)
        for n, line in enumerate(lines):
            at = b.index_add(across.start, n)
            self.epilogue.vectors(point, (across.axis, at, 1), (along.axis, along.start), parts, [lane_sums(b, line)])
