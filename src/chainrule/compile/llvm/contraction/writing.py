"""The code of a contraction: loops over panels and tiles, the sums of a tile, and what is done with them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from chainrule import dtypes
from chainrule.compile.caches import LINE
from chainrule.compile.llvm.builder import SCALAR, Index, Value
from chainrule.compile.llvm.contraction.axes import Axis
from chainrule.compile.llvm.contraction.forms import beside
from chainrule.compile.llvm.contraction.grid import Kind, repeat
from chainrule.compile.llvm.contraction.layout import Layout
from chainrule.compile.llvm.contraction.operands import ALL, Operands, Part, Pieces, Point, Run
from chainrule.compile.llvm.contraction.sources import Memory, Source
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
from chainrule.compile.llvm.indices import index_divmod, index_max, index_min, index_sub, opaque
from chainrule.compile.llvm.shares import Share
from chainrule.compile.llvm.squares import transposed


class Writing:
    """Writes the code of one layout."""

    def __init__(self, layout: Layout, emitter: Emitter, share: Share) -> None:
        self.layout = layout
        self.emitter = emitter
        panels = layout.panels
        self.epilogue = Epilogue(emitter, layout.kernel.epilogue, shared=panels.axis.extent > panels.size)
        b = emitter.builder
        self.operands = Operands(layout, emitter, share)
        _, points, _ = layout.stretches
        self.share = share
        self.sums = b.pointer(share.scratch, points, dtypes.uint8) if layout.block else share.scratch

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
            self.operands.panel = b.pointer(self.share.scratch, b.index_mul(number, each), dtypes.uint8)
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
        vectors = self.operands.vectors(columns, ALL, lo)

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
                vectors = self.operands.vectors(columns, here)

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

            nothing: Pieces = lambda _: Memory(b, self.operands.panel, layout.kernel.accumulate, {})  # noqa: E731
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
                body(rows, number, self.operands.points(rows, part))

            def some(number: Index, _: object, kind: Kind = kind, high: Index = high, count: int = count) -> None:
                # A run that would reach over the edge begins earlier.
                first = index_min(b, number, kind.first + kind.count - count)
                packed = self.operands.points_of_run(self._rows(columns, kind, first), count, part)

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

        self.operands.through(columns.size, piece)

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

    # --- tiles

    def _parts(self, columns: Run) -> list[Segment]:
        width = self.layout.width
        if not self.layout.results_turned:
            return segments(columns.size, width, self.operands.masks)
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
        loops = self.operands.loops(part)
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
        axes, extents = [a for a, _ in loops], [n for _, n in loops]
        found = Summation(self.emitter, axes, extents, width, sets, step).run(points, vectors, start)
        if kept is None:
            return found
        return [b.add(before, value) for before, value in zip(self._load(kept, start), found, strict=True)]

    def _limited(self, point: Point, part: Part) -> dict[Axis, tuple[Index, Index]]:
        """Of the summed axes whose terms are not all there at a point: the first of a part that is, and how many."""
        e, b, found = self.emitter, self.emitter.builder, dict[Axis, tuple[Index, Index]]()
        for axis, extent in self.operands.loops(part):
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
                for s in segments(count, width, self.operands.masks):
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
