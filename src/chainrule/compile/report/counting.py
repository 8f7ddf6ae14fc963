"""What a kernel has to do: its operations, and the bytes that it has to read and write at least."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from chainrule import dtypes
from chainrule.compile.kernels.buffer import Buffer
from chainrule.compile.kernels.expression import Accumulated, Compute, Expr, Load, Pick, Reduced, variables, walk
from chainrule.compile.kernels.kernel import Contract, Kernel, Loops, Nest, Scan, Scatter, Sort
from chainrule.compile.kernels.limits import terms
from chainrule.compile.kernels.tasks import Task, values
from chainrule.ops import elementwise, movement

# What moves or chooses numbers, and computes none.
_NOT_COUNTED = frozenset({elementwise.where, elementwise.gate, movement.cast})


@dataclass(frozen=True, kw_only=True)
class Count:
    """Operations on numbers: those of products of matrices, and others.

    A multiplication and an addition count as two. An exponential, a logarithm or a division counts as one, like an
    addition; comparing and choosing count as none.
    """

    products: int
    others: int

    @property
    def total(self) -> int:
        return self.products + self.others


def counted(kernel: Kernel) -> Count:
    """The operations of a kernel."""
    match kernel:
        case Nest():
            points = _points(kernel.extents, kernel.variables)
            parts = [counted(k) for k in kernel.kernels]
            return Count(products=points * sum(p.products for p in parts), others=points * sum(p.others for p in parts))
        case Contract():
            every = (*kernel.batch, *kernel.rows, *kernel.columns)
            products = 2 * terms(kernel)
            operands = sum(_computed((e,), kernel.extents, tuple(variables(e))) for e in (kernel.left, kernel.right))
            stored = _computed([s.value for s in kernel.epilogue], kernel.extents, every)
            return Count(products=products, others=operands + stored)
        case Loops():
            others = 0
            for stage in kernel.stages:
                loops = (*kernel.outer, *stage.inner)
                roots = [*(r.value for r in stage.reductions), *(s.value for s in stage.stores)]
                others += _computed(roots, kernel.extents, loops, kernel.outer)
                others += len(stage.reductions) * _points(kernel.extents, loops)
            return Count(products=0, others=others)
        case Scatter() | Scan():
            loops = kernel.loops if isinstance(kernel, Scatter) else (*kernel.outer, kernel.along)
            roots = list(values(kernel))
            return Count(
                products=0, others=_points(kernel.extents, loops) + _computed(roots, kernel.extents, loops)
            )  # fmt: skip
        case Sort():
            return Count(products=0, others=_computed((kernel.value,), kernel.extents, (*kernel.outer, kernel.along)))


def _points(extents: Mapping[int, int], loops: Iterable[int]) -> int:
    return math.prod(extents[v] for v in loops)


def _computed(
    roots: Iterable[Expr], extents: Mapping[int, int], loops: tuple[int, ...], outer: tuple[int, ...] = ()
) -> int:
    """Operations of expressions at all points of some loops; what does not change along a loop is done once.

    outer: the loops that a reduction's result changes along.
    """
    found = 0
    along: dict[int, frozenset[int]] = {}
    for e in walk(*roots):
        own = frozenset(v for p in e.positions() for v, _ in p.terms)
        if isinstance(e, Accumulated):
            own = frozenset(loops)
        elif isinstance(e, Reduced):
            own = frozenset(outer)
        along[id(e)] = own.union(*(along[id(x)] for x in e.parts))
        if isinstance(e, Compute) and e.op not in _NOT_COUNTED and e.dtype.kind == "f":
            found += _points(extents, along[id(e)] & set(loops))
    return found


def is_dear(task: Task) -> bool:
    """Are there operations in a kernel that take as long as ten others, such as exponentials?"""
    return any(isinstance(e, Compute) and e.op.dear for e in walk(*values(task.kernel)))


def read(task: Task) -> dict[int, int]:
    """The bytes read of each buffer, by its id; a buffer counts once, however often it is read."""
    picked: dict[int, int] = {}
    loaded: set[int] = set()
    points = _points_of(task.kernel)
    for e in walk(*values(task.kernel)):
        if isinstance(e, Load):
            loaded.add(id(e.buffer))
        elif isinstance(e, Pick):
            picked[id(e.buffer)] = min(e.buffer.used, points * e.buffer.dtype.itemsize)
    return {id(b): picked[id(b)] if id(b) in picked and id(b) not in loaded else b.used for b in task.reads}


def written(task: Task) -> dict[int, int]:
    """The bytes written of each buffer, by its id; but what is claimed only, for a later kernel to write."""
    later = {id(b) for b in claimed(task)}
    return {id(b): b.used for b in task.writes if b.place != "private" and id(b) not in later}


def claimed(task: Task) -> tuple[Buffer, ...]:
    """The buffers of which lines are written to ahead of the kernel that fills them."""
    return task.kernel.claims if isinstance(task.kernel, Contract) else ()


def _points_of(kernel: Kernel) -> int:
    if isinstance(kernel, Nest):
        return _points(kernel.extents, kernel.variables) * max(_points_of(k) for k in kernel.kernels)
    return math.prod(kernel.extents.values())


def number_type(task: Task) -> np.dtype:
    """The element type that limits how fast a kernel can be: float64 where it computes in it, else float32."""
    found = {e.dtype for e in walk(*values(task.kernel)) if isinstance(e, Compute) and e.op not in _NOT_COUNTED}
    kernels = task.kernel.kernels if isinstance(task.kernel, Nest) else (task.kernel,)
    found |= {k.accumulate for k in kernels if isinstance(k, Contract)}
    return dtypes.float64 if dtypes.float64 in found else dtypes.float32
