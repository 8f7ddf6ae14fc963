"""The stages of loops: reductions and stores in the order in which what they read is there; what is dear is kept.

Knows reductions and stores as expressions of one kernel; refuses to know the nodes that they stand for.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from chainrule import dtypes
from chainrule.compile.caches import FIRST
from chainrule.compile.kernels.buffer import Buffer, row_major
from chainrule.compile.kernels.expression import (
    Compute,
    Expr,
    Load,
    Reduced,
    Reduction,
    Within,
    substituted,
    variables,
    walk,
)
from chainrule.compile.kernels.kernel import Stage, Store
from chainrule.core.affine import Affine


def staged(
    inner: tuple[int, ...],
    extents: Mapping[int, int],
    reductions: Sequence[Reduction],
    full: Sequence[Store],
    rows: Sequence[Store],
) -> tuple[Stage, ...]:
    """Stages over the variables `inner`. full: what is stored at each point of them; rows: once for all of them."""
    return _remembered(_in_order(inner, reductions, full, rows), inner, extents)


def _in_order(
    inner: tuple[int, ...], reductions: Sequence[Reduction], full: Sequence[Store], rows: Sequence[Store]
) -> list[Stage]:
    level: dict[int, int] = {}

    def depth(e: Expr) -> int:
        return max((level[id(x.reduction)] for x in walk(e) if isinstance(x, Reduced)), default=0)

    for r in reductions:
        level[id(r)] = depth(r.value) + 1
    stages = []
    for n in range(max(level.values(), default=0) + 1):
        reduced = tuple(r for r in reductions if level[id(r)] == n + 1)
        by_row, by_point = (tuple(s for s in stores if depth(s.value) == n) for stores in (rows, full))
        if by_row:
            stages.append(Stage(inner=(), stores=by_row))
        if reduced or by_point:
            stages.append(Stage(inner=inner, reductions=reduced, stores=by_point))
    return stages


def _remembered(stages: Sequence[Stage], inner: tuple[int, ...], extents: Mapping[int, int]) -> tuple[Stage, ...]:
    """What is dear and read by several stages is kept, for one row, in memory private to the thread."""
    found = list(stages)
    points = math.prod(extents[v] for v in inner)
    if not inner or max(extents) not in inner:
        return tuple(found)
    room = FIRST
    strides = row_major(tuple(extents[v] for v in inner))
    offset = Affine.total((Affine.variable(v), s) for v, s in zip(inner, strides, strict=True))
    for number, (n, e) in enumerate(_dear_again(stages, inner)):
        dtype = dtypes.work_dtype(e.dtype)
        room -= points * dtype.itemsize
        if room < 0:  # what is remembered stays in the first cache
            break
        buffer = Buffer(name=f"row{number}", shape=(points,), dtype=dtype, strides=(1,), place="private")
        keep = Store(buffer=buffer, offset=offset, value=e)
        found[n] = Stage(inner=inner, reductions=found[n].reductions, stores=(*found[n].stores, keep))
        done: dict[int, Expr] = {}
        by = {id(e): Load(buffer, offset)}
        for later in range(n + 1, len(found)):
            found[later] = _changed(found[later], by, done)
    return tuple(found)


def _dear_again(stages: Sequence[Stage], inner: tuple[int, ...]) -> list[tuple[int, Expr]]:
    """What is dear and asked for by a later stage too: the stage that asks first, and the expression.

    Not what counts only within bounds: kept, it would be computed beyond them too, of what may not be there.
    """
    roots = [e for s in stages for e in s.values]
    bounded = {id(x) for e in walk(*roots) if isinstance(e, Within) for x in walk(*e.parts)}
    first: dict[int, int] = {}
    again: dict[int, Expr] = {}
    for n, stage in enumerate(stages):
        reduced = {id(e) for e in walk(*(r.value for r in stage.reductions))}
        for e in walk(*stage.values):
            dear = isinstance(e, Compute) and e.op.dear and variables(e) & set(inner) and id(e) not in bounded
            if dear and first.setdefault(id(e), n) != n and id(e) not in reduced:
                again[id(e)] = e  # a reduction is known by its identity, and goes on computing it
    inside = {id(x) for e in again.values() for x in walk(e) if x is not e}
    return [(first[key], e) for key, e in again.items() if key not in inside]


def _changed(stage: Stage, by: Mapping[int, Expr], done: dict[int, Expr]) -> Stage:
    stores = tuple(Store(buffer=s.buffer, offset=s.offset, value=substituted(s.value, by, done)) for s in stage.stores)
    return Stage(inner=stage.inner, reductions=stage.reductions, stores=stores)
