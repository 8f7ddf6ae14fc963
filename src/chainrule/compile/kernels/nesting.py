"""Kernels that walk the same batch are run together, batch point by batch point, so that what they hand on stays near.

The scores of attention are the case in point: a product, a softmax and another product over the same heads. One after
the other over the whole batch, each would write and read the full matrix of scores; nested, a thread has the scores of
one head at a time in memory of its own.

Knows tasks and what they touch at each point of a batch; refuses to know which nodes they compute.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace

from chainrule.compile.caches import SECOND
from chainrule.compile.kernels.buffer import Buffer
from chainrule.compile.kernels.expression import walk
from chainrule.compile.kernels.kernel import Contract, Kernel, Loops, Nest, Stage
from chainrule.compile.kernels.points import Batch, by_point
from chainrule.compile.kernels.relocation import Places, relocated
from chainrule.compile.kernels.schedule import Schedule
from chainrule.compile.kernels.tasks import Task, stores, task_of, values

_HUGE = 1 << 24  # bytes: from here on it is made again, point by point, by each nest that reads it, and never stored
_POINTS = 4  # of the batch at least: threads share them


def nested(schedule: Schedule) -> Schedule:
    """The schedule with its nests."""
    line = _Line(schedule.tasks)
    for buffer in _candidates(line.tasks):
        line = _nested_around(buffer, line)
    tasks = line.tasks
    for buffer in _candidates(tasks):
        if buffer.bytes >= _HUGE:
            tasks = _made_again(buffer, tasks)
    return replace(schedule, tasks=tuple(tasks))


def _candidates(tasks: Sequence[Task]) -> list[Buffer]:
    found: dict[int, Buffer] = {}
    for task in tasks:
        for b in sorted(task.writes, key=lambda b: b.name):
            if b.place == "arena" and b.bytes >= SECOND and len(b.shape) > 2:
                found.setdefault(id(b), b)
    return list(found.values())


class _Line:
    """Tasks in their order, and who has to come after whom. Sets of tasks are bits by position.

    after: for each task the earlier ones that write what it touches, or read what it writes.
    readers, writers: for each buffer that is touched.
    """

    def __init__(self, tasks: Sequence[Task]) -> None:
        self.tasks = list(tasks)
        self.after: list[int] = []
        self.readers: dict[Buffer, int] = {}
        self.writers: dict[Buffer, int] = {}
        for number, task in enumerate(tasks):
            before = 0
            for b in task.reads | task.writes:
                before |= self.writers.get(b, 0)
            for b in task.writes:
                before |= self.readers.get(b, 0)
            self.after.append(before)
            for touching, buffers in ((self.readers, task.reads), (self.writers, task.writes)):
                for b in buffers:
                    touching[b] = touching.get(b, 0) | 1 << number

    def touching(self, buffer: Buffer) -> int:
        """The tasks that read or write a buffer."""
        return self.readers.get(buffer, 0) | self.writers.get(buffer, 0)

    def picked(self, members: int) -> list[Task]:
        """The tasks of a set, in order."""
        return [task for number, task in enumerate(self.tasks) if members >> number & 1]


def _nested_around(buffer: Buffer, line: _Line) -> _Line:
    """With a nest of the tasks that write and read a buffer, and of those that go on from what they write."""
    tasks = line.tasks
    start = next((number for number, t in enumerate(tasks) if buffer in t.writes), None)
    kernel = None if start is None else tasks[start].kernel
    if start is None or not isinstance(kernel, Contract) or not kernel.batch:
        return line
    batch = Batch(tuple(kernel.extents[v] for v in kernel.batch))
    if kernel.batch != batch.variables or math.prod(batch.sizes) < _POINTS or not _walks(kernel, batch):
        return line
    chosen, last = [tasks[start]], start
    members, late = 1 << start, 0  # late: what has to come after a member, and is none
    for number, task in enumerate(tasks[start + 1 :], start + 1):
        before = line.after[number]
        if not before & late and _fits(task, chosen, batch) and _near(task, chosen, batch):
            chosen.append(task)
            members, last = members | 1 << number, number
        elif before & (members | late):
            late |= 1 << number
    if len(chosen) < 2:
        return line
    made = _nest(chosen, batch, [b for b in _written(chosen) if not line.touching(b) & ~members])
    done = (1 << last) - 1
    return _Line([
        *line.picked(done & ~members & ~late), made, *line.picked(done & late), *tasks[last + 1 :]
    ])  # fmt: skip


def _walks(kernel: Kernel, batch: Batch) -> bool:
    """Does a kernel begin with the loops of the batch?"""
    count = len(batch.sizes)
    if isinstance(kernel, Contract):
        first = kernel.batch[:count]
    elif isinstance(kernel, Loops):
        first = kernel.outer[:count]
    else:
        return False
    return first == batch.variables and tuple(kernel.extents[v] for v in first) == batch.sizes


def _fits(task: Task, chosen: Sequence[Task], batch: Batch) -> bool:
    """Does a task read what the chosen ones write only at the batch point at which they do?"""
    if not _walks(task.kernel, batch):
        return False
    for earlier in chosen:
        if not all(by_point(b, t, batch) for b in earlier.writes & task.reads for t in (earlier, task)):
            return False
        if earlier.writes & task.writes or earlier.reads & task.writes:
            return False
    return True


def _near(task: Task, chosen: Sequence[Task], batch: Batch) -> bool:
    """Does a task read, point by point, what a chosen one has just written, or large things that it read?"""
    for earlier in chosen:
        shared = [b for b in earlier.reads & task.reads if b.place == "arena" and b.bytes >= SECOND]
        if earlier.writes & task.reads or any(all(by_point(b, t, batch) for t in (earlier, task)) for b in shared):
            return True
    return False


def _written(tasks: Iterable[Task]) -> list[Buffer]:
    """What tasks write into the arena."""
    found: dict[int, Buffer] = {}
    for task in tasks:
        found.update({id(b): b for b in sorted(task.writes, key=lambda b: b.name) if b.place == "arena"})
    return list(found.values())


def _nest(chosen: Sequence[Task], batch: Batch, handed_on: Iterable[Buffer]) -> Task:
    """A nest of tasks. handed_on: what they write into the arena for each other only."""
    private: Places = {
        id(b): (_own_copy(b, len(batch.sizes)), batch.inside)
        for b in handed_on
        if all(by_point(b, t, batch) for t in chosen if b in t.reads or b in t.writes)
    }
    count = len(batch.sizes)
    kernels = tuple(_inside(relocated(task.kernel, private), count) for task in chosen)  # type: ignore[arg-type]
    nest = Nest(
        name="_".join(dict.fromkeys(k.name for k in kernels)),
        extents=dict(enumerate(batch.sizes)),
        variables=batch.variables,
        kernels=kernels,
        private=tuple(b for b, _ in private.values()),
    )
    return task_of(nest, tuple(n for t in chosen for n in t.nodes))


def _inside(kernel: Loops | Contract, count: int) -> Loops | Contract:
    """What is done at one point of the first loops, so many of them."""
    if isinstance(kernel, Contract):
        return replace(kernel, batch=kernel.batch[count:])
    return replace(kernel, outer=kernel.outer[count:])


# --- what is made again rather than stored


def _made_again(buffer: Buffer, tasks: list[Task]) -> list[Task]:
    """The tasks without a buffer that only nests over one batch touch: each makes its own part of it when it is due."""
    maker = next((t for t in tasks if buffer in t.writes), None)
    readers = [t for t in tasks if buffer in t.reads and t is not maker]
    touching = [t for t in (maker, *readers) if t is not None]
    if maker is None or not readers or not all(isinstance(t.kernel, Nest) for t in touching):
        return tasks
    nest: Nest = maker.kernel  # type: ignore[assignment]
    batch = Batch(tuple(nest.extents.values()))
    if any(tuple(t.kernel.extents.values()) != batch.sizes for t in readers):
        return tasks
    if not all(_nest_by_point(buffer, t.kernel, batch) for t in touching):  # type: ignore[arg-type]
        return tasks
    made = _makers(buffer, nest)
    sources = {b for k in made for b in _read(k) if b.place != "private"}
    if any(b in t.writes for b in sources for t in tasks[tasks.index(maker) :]):
        return tasks  # what it is made from is not there any more
    changed = {id(t): _with_private(buffer, t, made if t is not maker else (), batch) for t in touching}
    return [changed.get(id(t), t) for t in tasks]


def _nest_by_point(buffer: Buffer, nest: Nest, batch: Batch) -> bool:
    parts = [task_of(k, ()) for k in nest.kernels]
    return all(by_point(buffer, t, batch) for t in parts if buffer in t.reads or buffer in t.writes)


def _read(kernel: Loops | Contract) -> list[Buffer]:
    return [b for e in walk(*values(kernel)) for b in e.reads()]


def _makers(buffer: Buffer, nest: Nest) -> tuple[Loops | Contract, ...]:
    """The kernels of a nest that a buffer takes to be made, in order."""
    wanted, found = {id(buffer)}, []
    for kernel in reversed(nest.kernels):
        if any(id(s.buffer) in wanted for s in stores(kernel)):
            found.append(kernel)
            wanted |= {id(b) for b in _read(kernel)}
    return tuple(reversed(found))


def _with_private(buffer: Buffer, task: Task, before: Sequence[Loops | Contract], batch: Batch) -> Task:
    """A nest that has a buffer to itself, made by kernels of its own."""
    nest: Nest = task.kernel  # type: ignore[assignment]
    private: Places = {id(buffer): (_own_copy(buffer, len(batch.sizes)), batch.inside)}
    for kernel in before:
        for s in stores(kernel):
            if s.buffer.place == "private" and id(s.buffer) not in private:
                private[id(s.buffer)] = _own_copy(s.buffer), lambda offset: offset
    # What else those kernels write is written already.
    needed = {id(b) for k in (*before, *nest.kernels) for b in _read(k)} | {id(buffer)}
    again = tuple(relocated(_only(k, needed), private) for k in before)
    kernels = (*again, *(relocated(k, private) for k in nest.kernels))
    kept = tuple(b for b, _ in private.values())
    changed = replace(nest, kernels=kernels, private=(*nest.private, *kept))
    return task_of(changed, task.nodes)


def _own_copy(buffer: Buffer, leading: int = 0) -> Buffer:
    """Memory of a thread like a buffer's, at one point of so many leading dimensions."""
    return replace(buffer, shape=buffer.shape[leading:], strides=buffer.strides[leading:], place="private")


def _only(kernel: Loops | Contract, needed: set[int]) -> Loops | Contract:
    """A kernel without the stores that nothing here reads."""
    if isinstance(kernel, Contract):
        return replace(kernel, epilogue=tuple(s for s in kernel.epilogue if id(s.buffer) in needed))
    stages = tuple(
        Stage(inner=t.inner, reductions=t.reductions, stores=tuple(s for s in t.stores if id(s.buffer) in needed))
        for t in kernel.stages
    )
    return replace(kernel, stages=stages)
