"""A contraction, decided: the sizes of its tiles, and which parts of the operands are copied where before use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from chainrule import dtypes
from chainrule.compile.caches import SECOND
from chainrule.compile.kernels.expression import Expr
from chainrule.compile.kernels.kernel import Contract
from chainrule.compile.kernels.limits import Limit, limits
from chainrule.compile.llvm.contraction.axes import NONE, Axes, Axis, contiguous, product
from chainrule.compile.llvm.contraction.copies import longest_run, panels_pay, points_copied_along
from chainrule.compile.llvm.contraction.forms import Form, beside, forms, turned_row
from chainrule.compile.llvm.contraction.grid import Grid
from chainrule.compile.llvm.contraction.sources import plain
from chainrule.compile.llvm.shares import Rows
from chainrule.compile.llvm.target import Target
from chainrule.core.alignment import aligned

PANEL = 256  # bytes of a line of a panel, at least
RUN = 8  # tiles whose points are copied at a time, at most
RUNS = 4  # runs of such tiles that one thread had better do one after the other
SHORTEST = 64  # points of a summed axis that are done at a time, at least


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How a contraction is done.

    The output is cut into tiles: a panel is a run of vectors (the lanes' axis) at one point of the batch, and its tiles
    go down the rows. Threads share the tiles panel by panel, or, with many rows and few columns, row by row.

    width: elements of a vector. span: elements along the panel's axis that one tile of registers takes; a panel may be
        several of them wide, so that the points of a tile are read from far away once for all of these.
    packed: is the vectors' operand copied, panel by panel? What one tile of registers reads then lies in one piece.
    turned: the summed axis along which it is read while it is copied, if not along the lanes.
    points_along: the axis along which the other operand is copied, some tiles at a time; None: it is read where it is.
    results_turned: is a tile of results turned, and stored along the points?
    block: a summed axis and how many of its positions are done at a time; the sums wait in memory meanwhile.
    limits: where the terms of a tile's sums begin and end, where not all are there: see `kernels/limits.py`.
    """

    kernel: Contract
    target: Target
    axes: Axes
    form: Form
    panels: Grid
    tiles: Grid
    width: int
    span: int
    packed: bool
    turned: Axis | None
    points_along: Axis | None
    results_turned: bool
    block: tuple[Axis, int] | None
    limits: tuple[Limit, ...]

    @property
    def operands(self) -> tuple[Expr, Expr]:
        """Of the points, and of the vectors; without what limits the sums says already."""
        return _operands(self.kernel, self.form, bool(self.limits))

    @property
    def units(self) -> int:
        """The number of tiles of all panels; or, row by row, of one."""
        return self.tiles.count if self.by_rows else self.panels.count * self.tiles.count

    @cached_property
    def by_rows(self) -> bool:
        """Is a unit a row of tiles, through all panels?

        Each core then reads its own rows of the points' operand only, which as a rule it has made itself, and all of
        the other operand, if that is small; else it reads all points, and its own part of the other.
        """
        if self.kernel.batch or self.form.swapped or self.block is not None or self.panels.count == 1:
            return False
        points, vectors = product(self.form.points), product(self.form.vectors)
        return points > vectors and vectors * self.depth * self.kernel.accumulate.itemsize <= SECOND

    @property
    def rows(self) -> Rows | None:
        """The rows that units stand for, if they run over the first dimension."""
        if self.kernel.batch or self.kernel.rows != (0,) or not (self.by_rows or self.panels.count == 1):
            return None
        if self.tiles.others or self.tiles.axis.variable != 0:
            return None
        return Rows(self.tiles.axis.extent, self.tiles.size)

    @property
    def grain(self) -> int:
        """Tiles better not taken apart: whose sums wait together; or some runs, of which the last is copied whole."""
        together = self.chunk if self.block is not None else 1
        return max(together, RUNS * self.run if self.run > 1 else 1)

    @cached_property
    def pieces(self) -> int:
        """How many tiles of registers a panel is wide."""
        return -(-self.panels.size // self.span)

    @cached_property
    def depth(self) -> int:
        """Points of the sum that are done at a time."""
        whole = product(self.axes.summed)
        return whole if self.block is None else whole // self.block[0].extent * self.block[1]

    @property
    def panels_kept(self) -> int:
        """How many packed panels are in scratch memory at a time."""
        return self.panels.count if self.by_rows else 1

    @property
    def piece_pitch(self) -> int:
        """Elements from one piece of a packed panel to the next: no power of two, which would meet in few sets."""
        return self.span * (self.depth + 1)

    @property
    def points_pitch(self) -> int:
        """Elements from one point of the sum to the next where a tile's points are copied along the rows."""
        return -(-self.tiles.size // self.width) * self.width

    @property
    def tile_pitch(self) -> int:
        """Elements from the copied points of one tile of a run to those of the next."""
        return self.points_pitch * (self.depth + 2)

    @cached_property
    def run(self) -> int:
        """Tiles whose points are copied at a time: where they lie beside each other, so that whole lines are read."""
        tiles = self.tiles
        if self.points_along is not tiles.axis or tiles.others or not contiguous(self.operands[0], tiles.axis):
            return 1
        if not plain(self.operands[0], self.kernel.accumulate):  # the code for all of them at once would be long
            return 1
        bytes_of_one = self.tile_pitch * self.kernel.accumulate.itemsize
        return max(min(tiles.axis.extent // tiles.size, RUN, SECOND // 2 // bytes_of_one), 1)

    @cached_property
    def waiting(self) -> int:
        """Elements for the sums of a tile that wait: the last columns may be several short vectors, each with room."""
        return self.tiles.size * (-(-self.panels.size // self.width) + 4) * self.width

    @cached_property
    def chunk(self) -> int:
        """Tiles whose sums wait in memory at a time."""
        each = self.waiting * self.kernel.accumulate.itemsize
        return max(min(self.tiles.count, SECOND // each), 1)

    @cached_property
    def stretches(self) -> tuple[int, int, int]:
        """Where the scratch memory of the panel, of the points and of the sums ends, in bytes."""
        size = self.kernel.accumulate.itemsize
        panel = self.panels.size * self.depth if self.form.dot else self.pieces * self.piece_pitch
        panel = aligned(panel * size) // size * self.panels_kept * self.packed
        points = 0
        if self.points_along is not None:
            points = max((self.tiles.size + self.width) * (self.depth + self.width), self.run * self.tile_pitch)
        sums = self.chunk * self.waiting if self.block is not None else 0
        ends, end = [], 0
        for elements in (panel, points, sums):
            end += aligned(elements * size)
            ends.append(end)
        return ends[0], ends[1], ends[2]


def decide(kernel: Contract, target: Target, axes: Axes, starts: Mapping[Axis, int], height: int = 0) -> Layout:
    """The layout that promises to take the fewest instructions.

    axes: of the kernel, or parts of them. starts: where parts begin that do not begin at 0. height: rows of a tile of
    another part; it is better to have so many, or a divisor.
    """
    size = 4 if kernel.accumulate == dtypes.bool_ else max(kernel.accumulate.itemsize, 4)
    width = target.vector_bytes // size
    form, many = min(forms(kernel, axes, width), key=lambda f: f.cost), target.registers >= 32
    row = max(form.points, key=lambda a: a.extent, default=NONE)
    stored_along = None if form.dot else turned_row(kernel, form.points, form.lanes)
    row = stored_along or row
    if form.dot:
        column = _dot_column(kernel, form)
        high, wide = _dot_size(row.extent, column.extent, many)
        alike = next(h for h in range(high, 0, -1) if height % h == 0)
        high = alike if 2 * alike > high and row in axes.rows else high
    else:
        column = form.lanes
        vectors = -(-column.extent // width)
        high, wide = _vector_size(row.extent, vectors, many)
        if row in starts and vectors > 1:  # all that is to be shared among threads
            wide = min(wide, -(-vectors // 2))
        if stored_along is not None:  # squares, or nearly: the fewest shuffles for a result
            high, wide = _high(row.extent, 16 if many else 12), 1
        wide *= width
    span = wide
    if not form.dot and stored_along is None:
        each = kernel.accumulate.itemsize
        wide *= max(_panel(axes, column.extent * each, many) // (wide * each), 1)
        wide = min(wide, -(-max(column.extent, 1) // width) * width)
    tiles = Grid(tuple(a for a in form.points if a is not row), row, high, starts.get(row, 0))
    found = () if form.dot else _limits(kernel, form, row, column)
    copies = _copies(kernel, axes, form, bool(found), (row, tiles.count * high), (column, wide // span), many)
    in_parts = not form.dot and (copies.packed or copies.points_along is not None)
    return Layout(
        kernel=kernel,
        target=target,
        axes=axes,
        form=form,
        panels=Grid((*axes.batch, *(a for a in form.vectors if a is not column)), column, wide, starts.get(column, 0)),
        tiles=tiles,
        width=width,
        span=span,
        packed=copies.packed,
        turned=copies.turned,
        points_along=copies.points_along,
        results_turned=stored_along is not None,
        block=_block(axes, wide * kernel.accumulate.itemsize) if in_parts else None,
        limits=found,
    )


class _Copies(NamedTuple):
    """Which operands are copied before they are used: see `Layout`."""

    packed: bool = False
    turned: Axis | None = None
    points_along: Axis | None = None


def _copies(
    kernel: Contract,
    axes: Axes,
    form: Form,
    limited: bool,
    down: tuple[Axis, int],
    along: tuple[Axis, int],
    many: bool,
) -> _Copies:
    """Of tiles over an axis of so many rows, in panels along an axis, each some tiles of registers wide."""
    points, vectors = _operands(kernel, form, limited)
    if form.dot:
        return _Copies(packed=not contiguous(vectors, form.lanes))
    if 0 in (a.extent for a in axes.summed):
        return _Copies()
    (row, rows), (column, tiles) = down, along
    all_points, all_vectors = _operands(kernel, form, False)  # of others a copy would reach beyond the edge
    return _Copies(
        packed=vectors is all_vectors and panels_pay(kernel, axes, vectors, column, rows, many),
        turned=None if contiguous(vectors, column) else longest_run(vectors, axes),
        points_along=points_copied_along(kernel, axes, points, row, tiles, many) if points is all_points else None,
    )


def _panel(axes: Axes, row: int, many: bool) -> int:
    """Bytes of a line of a panel, at least. row: bytes of all of them.

    With few registers, and narrow tiles, more; most if such a panel stays in the cache and threads have one each.
    """
    if many:
        return PANEL
    widest = 4 * PANEL
    return widest if product(axes.summed) * widest <= SECOND and row >= 2 * widest else 2 * PANEL


def _operands(kernel: Contract, form: Form, limited: bool) -> tuple[Expr, Expr]:
    """Of the points, and of the vectors. limited: are the sums, so that none is read where there is none?"""
    found = (kernel.right, kernel.left) if form.swapped else (kernel.left, kernel.right)
    if not limited:
        return found
    first, second = (e.inside if limits(e, kernel.summed) else e for e in found)  # type: ignore[attr-defined]
    return first, second


def _limits(kernel: Contract, form: Form, row: Axis, column: Axis) -> tuple[Limit, ...]:
    """The limits of a kernel's sums, if they are the same for all of a tile, and nothing has to be copied for it."""
    points, vectors = _operands(kernel, form, False)
    found = (*limits(points, kernel.summed), *limits(vectors, kernel.summed))
    inside = {*row.variables, *column.variables}
    if any(v in inside for x in found for v, _ in x.rest.terms):
        return ()
    copied = limits(vectors, kernel.summed) and not contiguous(vectors, column)
    return () if copied or not all(plain(e, kernel.accumulate) for e in _operands(kernel, form, True)) else found


def _vector_size(rows: int, vectors: int, many: bool) -> tuple[int, int]:
    """Rows and vectors of a tile: as many accumulators as registers allow, beside the operands."""
    if not many and rows % 6 and rows % 4 == 0 and vectors in {3, 6, 7}:  # as fast, and no row is left over
        return 4, 3
    most = 4 if many else 2
    if rows <= 2:  # few rows: more vectors of each
        most *= 2
    panels = max(-(-vectors // most), 1)
    wide = max(-(-vectors // panels), 1)
    high = {1: 14, 2: 12, 3: 8, 4: 6, 5: 4, 6: 4, 7: 3, 8: 3} if many else {1: 12, 2: 6, 3: 3, 4: 2}
    least = 8 if wide == 1 else high[wide] * (4 if many else 5) // 6
    return _high(rows, high[wide], least), wide


def _high(rows: int, most: int, least: int = 0) -> int:
    """Rows of a tile: if possible so many that none are left over, for then there is one tile less to write."""
    if rows <= most:
        return max(rows, 1)
    if rows <= 64:
        least = least or most * 2 // 3
        for high in range(most, max(least, 4) - 1, -1):
            if rows % high == 0:
                return high
    if rows <= 3 * most:
        return -(-rows // -(-rows // most))
    return most


def _dot_size(rows: int, columns: int, many: bool) -> tuple[int, int]:
    """Rows and columns of a tile of sums whose lanes are summed axes."""
    if columns == 1:
        return _high(rows, 16 if many else 8), 1
    if rows == 1:
        return 1, _high(columns, 16 if many else 8)
    wide = _high(columns, 5 if many else 3)
    return _high(rows, max((25 if many else 11) // (wide + many), 1)), wide


def _dot_column(kernel: Contract, form: Form) -> Axis:
    """The axis whose sums stand beside each other in the output, if there is one."""

    def worth(axis: Axis) -> tuple[bool, int]:
        return beside(kernel, axis) and axis.extent >= 3, axis.extent

    return max(form.vectors, key=worth, default=NONE)


def _block(axes: Axes, row_bytes: int) -> tuple[Axis, int] | None:
    """The summed axis to do in parts, where a panel of all would not stay in the cache."""
    whole, most = product(axes.summed), max(SECOND // row_bytes, 1)
    if whole <= 2 * most:
        return None
    axis = max(axes.summed, key=lambda a: a.extent)
    parts = -(-axis.extent // max(most * axis.extent // whole, SHORTEST))
    # The last part must not be shorter than a vector, for squares are turned that begin earlier.
    for each in range(-(-axis.extent // parts), SHORTEST // 2, -1):
        if axis.extent - (-(-axis.extent // each) - 1) * each >= SHORTEST // 2:
            return (axis, each) if each < axis.extent else None
    return None
