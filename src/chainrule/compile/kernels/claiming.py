"""Memory that another core has read is claimed by a product, which has time for it, for the kernel that will fill it.

In training, threads read what others wrote in the step before: a line of memory then lies in two caches, and the next
write to it waits until the other cache has given it up. A product has arithmetic to do meanwhile; a short kernel behind
it, which computes a few numbers for each line, waits most of its time. So the product writes a zero to each line first.
The page's net is the case in point: the gradient of its hidden layer costs a third of what it did.

Knows tasks and what they touch row by row; the processor's own instruction for this (prefetch for writing) does nothing
to a line that the cache holds already, if only to read.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

from chainrule.compile.kernels.buffer import Buffer
from chainrule.compile.kernels.kernel import Contract, Loops
from chainrule.compile.kernels.points import Batch, by_point
from chainrule.compile.kernels.schedule import Schedule
from chainrule.compile.kernels.tasks import Task, stores, task_of

_LEAST, _MOST = 1 << 13, 1 << 18  # bytes: of less it does not matter, more does not stay in a cache of its own
_DEEP = 64  # multiply-adds for each number stored, at least


def claimed(schedule: Schedule) -> Schedule:
    """The schedule, where a product claims what the kernel just behind it fills."""
    tasks = list(schedule.tasks)
    written: set[Buffer] = set()
    for i, (task, following) in enumerate(zip(tasks, schedule.tasks[1:], strict=False)):
        written |= task.writes
        buffers = [b for b in _filled(following) if b not in written | task.reads and _claims(task, following, b)]
        if buffers:
            assert isinstance(task.kernel, Contract)
            tasks[i] = task_of(replace(task.kernel, claims=tuple(buffers)), task.nodes)
    return replace(schedule, tasks=tuple(tasks))


def _filled(task: Task) -> Iterator[Buffer]:
    """Temporaries, of a size that matters, that a short kernel fills and reads nothing of."""
    if isinstance(task.kernel, Loops):
        buffers = {id(s.buffer): s.buffer for s in stores(task.kernel)}.values()
        yield from (b for b in buffers if b.place == "arena" and _LEAST <= b.bytes <= _MOST and b not in task.reads)


def _claims(task: Task, following: Task, buffer: Buffer) -> bool:
    """Is this a product over the same rows, with enough to do, whose results lie as the buffer does?"""
    kernel = task.kernel
    if not isinstance(kernel, Contract) or kernel.batch or (kernel.rows, kernel.columns) != ((0,), (1,)):
        return False
    rows, columns = kernel.extents[0], kernel.extents[1]
    if buffer.shape != (rows, columns) or math.prod(kernel.extents[v] for v in kernel.summed) < _DEEP:
        return False
    batch, handed = Batch((rows,)), task.writes & following.reads
    return bool(handed) and all(
        by_point(b, t, batch) for b, t in [(buffer, following), *((b, t) for b in handed for t in (task, following))]
    )
