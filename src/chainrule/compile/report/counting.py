"""What a kernel has to do: its operations, and the bytes that it has to read and write at least."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from chainrule import dtypes
from chainrule.compile.kernels.buffer import Buffer
from chainrule.compile.kernels.expression import Accumulated, Compute, Expr, Load, Pick, Reduced, variables, walk
from chainrule.compile.kernels.kernel import Contract, Kernel, Loops, Nest, Scan, Scatter, Sort
from chainrule.compile.kernels.limits import terms
from chainrule.compile.kernels.tasks import Task, values
from chainrule.core.affine import Affine
from chainrule.ops import elementwise, movement

# What moves or chooses numbers, and computes none.
_NOT_COUNTED = frozenset({elementwise.where, elementwise.gate, movement.cast})


@dataclass(frozen=True, kw_only=True)
class Count:
    """Operations on numbers: those of products of matrices, and others.

    A multiplication and an addition count as two. An exponential, a logarithm or a division counts as one, like an
    addition; comparing and choosing count as none. doubles: those of all that are done in float64.
    """

    products: int
    others: int
    doubles: int

    @property
    def total(self) -> int:
        return self.products + self.others


def _sum(products: int, *others: tuple[int, int], doubles: int = 0) -> Count:
    """Of operations of products, and of pairs: others, and those of them in float64."""
    return Count(products=products, others=sum(n for n, _ in others), doubles=doubles + sum(d for _, d in others))


def counted(kernel: Kernel) -> Count:
    """The operations of a kernel."""
    match kernel:
        case Nest():
            points = _points(kernel.extents, kernel.variables)
            parts = [counted(k) for k in kernel.kernels]
            products, others, doubles = (
                points * sum(n) for n in zip(*((p.products, p.others, p.doubles) for p in parts), strict=True)
            )
            return Count(products=products, others=others, doubles=doubles)
        case Contract():
            every = (*kernel.batch, *kernel.rows, *kernel.columns)
            products = 2 * terms(kernel)
            operands = [_computed((e,), kernel.extents, tuple(variables(e))) for e in (kernel.left, kernel.right)]
            stored = _computed([s.value for s in kernel.epilogue], kernel.extents, every)
            return _sum(products, *operands, stored, doubles=products * (kernel.accumulate == dtypes.float64))
        case Loops():
            found: list[tuple[int, int]] = []
            for stage in kernel.stages:
                loops = (*kernel.outer, *stage.inner)
                found.append(_computed(stage.values, kernel.extents, loops, kernel.outer))
                points = _points(kernel.extents, loops)
                found += [(points, points * (r.value.dtype == dtypes.float64)) for r in stage.reductions]
            return _sum(0, *found)
        case Scatter() | Scan():
            loops = kernel.loops if isinstance(kernel, Scatter) else (*kernel.outer, kernel.along)
            points = _points(kernel.extents, loops)
            own = points, points * (kernel.value.dtype == dtypes.float64)
            return _sum(0, own, _computed(list(values(kernel)), kernel.extents, loops))
        case Sort():
            return _sum(0, _computed((kernel.value,), kernel.extents, (*kernel.outer, kernel.along)))


def _points(extents: Mapping[int, int], loops: Iterable[int]) -> int:
    return math.prod(extents[v] for v in loops)


def _computed(
    roots: Iterable[Expr], extents: Mapping[int, int], loops: tuple[int, ...], outer: tuple[int, ...] = ()
) -> tuple[int, int]:
    """Operations at all points of some loops, and those in float64; what does not change along a loop is done once.

    outer: the loops that a reduction's result changes along.
    """
    found = doubles = 0
    along: dict[int, frozenset[int]] = {}
    for e in walk(*roots):
        own = frozenset(v for p in e.positions() for v, _ in p.terms)
        if isinstance(e, Accumulated):
            own = frozenset(loops)
        elif isinstance(e, Reduced):
            own = frozenset(outer)
        along[id(e)] = own.union(*(along[id(x)] for x in e.parts))
        if isinstance(e, Compute) and e.op not in _NOT_COUNTED and e.dtype.kind == "f":
            points = _points(extents, along[id(e)] & set(loops))
            found += points
            doubles += points * (e.dtype == dtypes.float64)
    return found, doubles


def is_dear(task: Task) -> bool:
    """Are there operations in a kernel that take as long as ten others, such as exponentials?"""
    return any(isinstance(e, Compute) and e.op.dear for e in walk(*values(task.kernel)))


def read(task: Task) -> dict[int, int]:
    """The bytes read of each buffer, by its id; a buffer counts once, however often it is read."""
    found: Counter[int] = Counter()
    points, extents = _points_of(task.kernel), _extents_of(task.kernel)
    loaded: set[tuple[int, Affine]] = set()
    for e in walk(*values(task.kernel)):
        if isinstance(e, Load) and (id(e.buffer), e.offset) not in loaded:
            loaded.add((id(e.buffer), e.offset))
            found[id(e.buffer)] += math.prod(extents[v] for v, _ in e.offset.terms) * e.buffer.dtype.itemsize
        elif isinstance(e, Pick):
            found[id(e.buffer)] += points * e.buffer.dtype.itemsize
    return {id(b): min(found[id(b)] or b.used, b.used) for b in task.reads}


def written(task: Task) -> dict[int, int]:
    """The bytes written of each buffer, by its id; but what is claimed only, for a later kernel to write."""
    later = {id(b) for b in claimed(task)}
    return {id(b): b.used for b in task.writes if b.place != "private" and id(b) not in later}


def claimed(task: Task) -> tuple[Buffer, ...]:
    """The buffers of which lines are written to ahead of the kernel that fills them."""
    return task.kernel.claims if isinstance(task.kernel, Contract) else ()


def _extents_of(kernel: Kernel) -> dict[int, int]:
    inside = [_extents_of(k) for k in kernel.kernels] if isinstance(kernel, Nest) else []
    return {v: n for extents in (*inside, kernel.extents) for v, n in extents.items()}


def _points_of(kernel: Kernel) -> int:
    if isinstance(kernel, Nest):
        return _points(kernel.extents, kernel.variables) * max(_points_of(k) for k in kernel.kernels)
    return math.prod(kernel.extents.values())
