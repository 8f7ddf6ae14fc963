"""Memory that another core has read is claimed by a product, which has time for it, for the kernel that will fill it.

In training, threads read what others wrote in the step before: a line of memory then lies in two caches, and the next
write to it waits until the other cache has given it up. A product has arithmetic to do meanwhile; a short kernel soon
after it, which computes a few numbers for each line, waits most of its time. So the product writes a zero to each line
first: the gradient of a hidden layer of 200 × 50 then costs a third of what it did. Where sums over the batch are in
parts (`passes/sums_in_parts.py`), each thread reads what it wrote itself, and nothing is claimed.

Knows tasks and what they touch row by row; the processor's own instruction for this (prefetch for writing) does nothing
to a line that the cache holds already, if only to read.
"""

from __future__ import annotations

import math
from dataclasses import replace

from chainrule.compile.caches import SECOND
from chainrule.compile.kernels.buffer import Buffer
from chainrule.compile.kernels.kernel import Contract, Loops
from chainrule.compile.kernels.points import Batch, by_point
from chainrule.compile.kernels.schedule import Schedule
from chainrule.compile.kernels.tasks import Task, stores, task_of

_LEAST = 1 << 13  # bytes: of less it does not matter
_DEEP = 64  # multiply-adds for each number stored: from here on there is time for it
_NEAR = 6  # tasks: further on, the lines may be gone again


def claimed(schedule: Schedule, threads: int) -> Schedule:
    """The schedule, where products claim what short kernels soon after them fill."""
    tasks = list(schedule.tasks)
    written: set[Buffer] = set()
    for i, task in enumerate(schedule.tasks):
        for buffer in _filled(task, SECOND * threads):
            if buffer not in written:
                _claim(tasks, i, buffer)
        written |= task.writes
    return replace(schedule, tasks=tuple(tasks))


def _claim(tasks: list[Task], filling: int, buffer: Buffer) -> None:
    """Have the last product before a task claim what that fills, if there is one that can."""
    for i in range(filling - 1, max(filling - 1 - _NEAR, -1), -1):
        task = tasks[i]
        kernel = task.kernel
        if isinstance(kernel, Contract) and _claims(task, kernel, tasks[filling], buffer):
            tasks[i] = task_of(replace(kernel, claims=(*kernel.claims, buffer)), task.nodes)
            return
        if any(b.bytes >= buffer.bytes for b in task.writes):
            return


def _filled(task: Task, most: int) -> list[Buffer]:
    """Temporaries, of a size that matters, that a short kernel fills and reads nothing of."""
    kernel = task.kernel
    if not isinstance(kernel, Loops) and not (isinstance(kernel, Contract) and _depth(kernel) < _DEEP):
        return []
    buffers = {id(s.buffer): s.buffer for s in stores(kernel)}.values()
    return [b for b in buffers if b.place == "arena" and _LEAST <= b.bytes <= most and b not in task.reads]


def _depth(kernel: Contract) -> int:
    return math.prod(kernel.extents[v] for v in kernel.summed)


def _claims(task: Task, kernel: Contract, following: Task, buffer: Buffer) -> bool:
    """Is this a product over the same rows, with enough to do, whose results lie as the buffer does?"""
    if kernel.batch or (kernel.rows, kernel.columns) != ((0,), (1,)) or _depth(kernel) < _DEEP:
        return False
    rows, columns = kernel.extents[0], kernel.extents[1]
    if buffer.shape != (rows, columns):
        return False
    batch, handed = Batch((rows,)), task.writes & following.reads
    return bool(handed) and all(
        by_point(b, t, batch) for b, t in [(buffer, following), *((b, t) for b in handed for t in (task, following))]
    )
