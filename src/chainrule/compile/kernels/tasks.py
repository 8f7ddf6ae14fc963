"""Tasks: kernels with what they read and write, the steps of a schedule.

Knows how to find the expressions, the stores and the buffers of a kernel of any kind; not how kernels are made, and not
in which order they run.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import assert_never

from chainrule.compile.kernels.buffer import Buffer
from chainrule.compile.kernels.expression import Expr, walk
from chainrule.compile.kernels.kernel import Contract, Kernel, Loops, Nest, Scan, Scatter, Sort, Store
from chainrule.core.node import Node


@dataclass(frozen=True, eq=False, kw_only=True)
class Task:
    """A kernel with what it reads and writes, and the nodes it computes (for reports)."""

    kernel: Kernel
    reads: frozenset[Buffer]
    writes: frozenset[Buffer]
    nodes: tuple[Node, ...]


def task_of(kernel: Kernel, nodes: tuple[Node, ...]) -> Task:
    """A kernel with what it reads and writes; memory private to a thread is neither."""
    reads = {b for e in walk(*values(kernel)) for b in e.reads()}
    read, written = (frozenset(b for b in found if b.place != "private") for found in (reads, _targets(kernel)))
    return Task(kernel=kernel, reads=read, writes=written, nodes=nodes)


def values(kernel: Kernel) -> Iterator[Expr]:
    """The expressions of a kernel."""
    match kernel:
        case Loops():
            for stage in kernel.stages:
                yield from stage.values
        case Contract():
            yield kernel.left
            yield kernel.right
            yield from (s.value for s in kernel.epilogue)
        case Scatter():
            yield kernel.value
            yield from (i for i, _, _ in kernel.indices)
        case Scan() | Sort():
            yield kernel.value
        case Nest():
            for part in kernel.kernels:
                yield from values(part)
        case _:
            assert_never(kernel)


def stores(kernel: Loops | Contract) -> Iterator[Store]:
    """What a kernel stores at the points of its loops."""
    if isinstance(kernel, Contract):
        yield from kernel.epilogue
    else:
        for stage in kernel.stages:
            yield from stage.stores


def _targets(kernel: Kernel) -> Iterator[Buffer]:
    """What a kernel writes."""
    match kernel:
        case Loops():
            yield from (s.buffer for s in stores(kernel))
        case Contract():
            yield from (s.buffer for s in stores(kernel))
            yield from kernel.claims
        case Scatter():
            yield kernel.buffer
        case Scan() | Sort():
            yield kernel.target.buffer
        case Nest():
            for part in kernel.kernels:
                yield from _targets(part)
        case _:
            assert_never(kernel)
