"""Copies of operands into scratch memory, laid out as tiles read them.

A panel is the part of the vectors' operand that a column of tiles shares: for each point of the sum, the vectors beside
each other. What lies the other way round in memory is turned in registers, a square of lanes at a time. An operand
that is more than a load (a conversion, a gate) is worked out on the way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from chainrule.compile.llvm.builder import Index, Value
from chainrule.compile.llvm.contraction.axes import Axis
from chainrule.compile.llvm.contraction.grid import repeat
from chainrule.compile.llvm.contraction.sources import Memory, Source
from chainrule.compile.llvm.contraction.tile import Segment
from chainrule.compile.llvm.expressions import Emitter
from chainrule.compile.llvm.indices import index_min, index_sub
from chainrule.compile.llvm.squares import transposed

Loops = Sequence[tuple[Axis, Index]]  # axes with how many of their positions


def copy(
    emitter: Emitter,
    source: Source,
    target: Memory,
    loops: Loops,
    along: Axis,
    parts: Sequence[Segment],
    place: Callable[[int], int] = lambda offset: offset,
) -> None:
    """At each point of the loops, the given vectors along an axis; each to where `place` puts its offset."""
    if not loops:
        for s in parts:
            target.further(place(s.offset)).store(source.moved(along, s.offset).vector(along, s.lanes, s.active))
        return
    (axis, extent), *rest = loops

    def body(k: Index, _: object) -> None:
        copy(emitter, source.moved(axis, k), target.moved(axis, k), rest, along, parts, place)

    repeat(emitter, 0, extent, 1, body)


def copy_run(
    emitter: Emitter, source: Source, target: Memory, loops: Loops, along: tuple[Axis, Index], lanes: int
) -> None:
    """At each point of the loops, a whole run along an axis."""
    axis, extent = along
    if loops:
        (first, count), *rest = loops
        repeat(
            emitter,
            0,
            count,
            1,
            lambda k, _: copy_run(emitter, source.moved(first, k), target.moved(first, k), rest, along, lanes),
        )
        return

    def some(start: Index, width: int, active: int | None) -> None:
        copy(emitter, source.moved(axis, start), target.moved(axis, start), (), axis, [Segment(0, width, active)])

    if isinstance(extent, int):
        whole = extent // lanes * lanes
        repeat(emitter, 0, whole, lanes, lambda k, _: some(k, lanes, None))
        if extent > whole:
            some(whole, lanes, extent - whole)
        return
    b = emitter.builder
    main = index_sub(b, extent, b.and_(extent, b.like(lanes - 1, extent)))
    repeat(emitter, 0, main, lanes, lambda k, _: some(k, lanes, None))
    repeat(emitter, main, extent, 1, lambda k, _: some(k, 0, None))


def turn(
    emitter: Emitter,
    source: Source,
    target: Memory,
    loops: Loops,
    across: tuple[Axis, Index],
    along: tuple[Axis, int],
    lanes: int,
) -> None:
    """At each point of the loops, a rectangle: read along one axis (`across`), written along the other.

    Squares that would reach over an edge begin earlier and do some of it twice.
    They follow each other along what is read, so that the processor foresees it.
    """
    if loops:
        (first, count), *rest = loops
        repeat(
            emitter,
            0,
            count,
            1,
            lambda k, _: turn(emitter, source.moved(first, k), target.moved(first, k), rest, across, along, lanes),
        )
        return
    b = emitter.builder
    (inner, depth), (outer, size) = across, along
    active = depth if isinstance(depth, int) and depth < lanes else None
    rows = min(size, lanes)

    def square(k: Index, j: Index) -> None:
        k = 0 if active is not None else index_min(b, k, index_sub(b, depth, lanes))
        j = 0 if size < lanes else index_min(b, j, size - lanes)
        here, there = source.moved(inner, k).moved(outer, j), target.moved(inner, k).moved(outer, j)
        read = [here.moved(outer, i).vector(inner, lanes, active) for i in range(rows)]
        read += [Value("zeroinitializer", read[0].dtype, lanes)] * (lanes - rows)
        for i, vector in enumerate(transposed(b, read)[: active or lanes]):
            there.moved(inner, i).store(vector)

    repeat(emitter, 0, size, lanes, lambda j, _: repeat(emitter, 0, depth, lanes, lambda k, _: square(k, j)) and None)
