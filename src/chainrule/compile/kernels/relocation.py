"""Kernels that read and write other memory than they were made for, such as memory that a thread has to itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from chainrule.compile.kernels.buffer import Buffer
from chainrule.compile.kernels.expression import Expr, Reduced, Reduction, moved, walk
from chainrule.compile.kernels.kernel import Contract, Loops, Stage, Store
from chainrule.compile.kernels.tasks import values
from chainrule.core.affine import Affine

# For a buffer, by its id: the one that takes its place, and the offset there for one in the buffer.
Places = dict[int, tuple[Buffer, Callable[[Affine], Affine]]]


def relocated(kernel: Loops | Contract, places: Places) -> Loops | Contract:
    """The kernel on other buffers in place of some."""
    done: dict[int, Expr] = {}

    def expr(e: Expr) -> Expr:
        return moved(e, places, done)

    def store(s: Store) -> Store:
        buffer, offset = s.buffer, s.offset
        if id(buffer) in places:
            buffer, change = places[id(buffer)]
            offset = change(offset)
        return Store(buffer=buffer, offset=offset, value=expr(s.value))

    if isinstance(kernel, Contract):
        epilogue = tuple(store(s) for s in kernel.epilogue)
        return replace(kernel, left=expr(kernel.left), right=expr(kernel.right), epilogue=epilogue)
    stages = []
    for stage in kernel.stages:
        reductions = []
        for r in stage.reductions:
            new = Reduction(combine=r.combine, value=expr(r.value), dtype=r.dtype, position=r.position)
            reductions.append(new)
            for e in walk(*values(kernel)):  # later stages read the new one
                if isinstance(e, Reduced) and e.reduction is r:
                    done[id(e)] = Reduced(new)
        stores = tuple(store(s) for s in stage.stores)
        stages.append(Stage(inner=stage.inner, reductions=tuple(reductions), stores=stores))
    return replace(kernel, stages=tuple(stages))
