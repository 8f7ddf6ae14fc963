"""What joins parts end to end is written part by part, by those who make the parts; no kernel copies them together.

The gradients of queries, keys and values are the case in point: three products make them, and one array of all three is
what the product before them reads. Knows tasks, and memory as stretches of it; not which op joins.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial

from chainrule.compile.kernels.buffer import Buffer, row_major
from chainrule.compile.kernels.expression import Expr, Load, Within
from chainrule.compile.kernels.kernel import Contract, Kernel, Loops, Nest
from chainrule.compile.kernels.nesting import Private, inside
from chainrule.compile.kernels.points import Batch
from chainrule.compile.kernels.schedule import Schedule
from chainrule.compile.kernels.tasks import Task, task_of
from chainrule.core.affine import Affine
from chainrule.core.node import Node

_Parts = dict[Buffer, int]  # where in the whole each part begins, in elements


def joined(schedule: Schedule) -> Schedule:
    """The schedule without tasks that only join what lies in the arena."""
    tasks = list(schedule.tasks)
    for task in schedule.tasks:
        parts = _parts_of(task)
        if parts:
            tasks = _without(task, parts, tasks)
    return replace(schedule, tasks=tuple(tasks))


def _parts_of(task: Task) -> _Parts:
    """The parts that a task joins, each a whole temporary, where it does nothing else; else none."""
    kernel = task.kernel
    if not isinstance(kernel, Loops) or len(kernel.stages) != 1 or kernel.stages[0].reductions:
        return {}
    if len(kernel.stages[0].stores) != 1:
        return {}
    (store,) = kernel.stages[0].stores
    whole, parts = store.buffer, _Parts()
    for load, point in _alternatives(store.value, kernel.extents, {}):
        if load is None or load.buffer in parts:
            return {}
        shift = (store.offset - load.offset).replaced(point)
        if shift.terms:
            return {}
        parts[load.buffer] = shift.constant
    stretches = sorted((start, start + b.span) for b, start in parts.items())
    ends = [0, *(end for _, end in stretches)]
    fits = all(start == end for (start, _), end in zip(stretches, ends, strict=False)) and ends[-1] == whole.span
    alike = all(b.place == "arena" and b.dtype == whole.dtype and _is_plain(b) for b in (whole, *parts))
    return parts if fits and alike and len(parts) > 1 else {}


def _alternatives(
    value: Expr, extents: Mapping[int, int], left: Mapping[int, tuple[int, int]]
) -> Iterator[tuple[Load | None, dict[int, Affine]]]:
    """What a value is a load of, here or there, with the variables that are the same wherever it is.

    None in place of a load if it is anything else. left: where a variable begins and ends, for those of which not all
    points are left.
    """
    if isinstance(value, Load):
        yield value, {v: Affine.of(low) for v, (low, high) in left.items() if high - low == 1}
        return
    if not isinstance(value, Within) or len(value.bounds) != 1:
        yield None, {}
        return
    ((position, low, high),) = value.bounds
    if len(position.terms) != 1 or position != Affine.variable(position.terms[0][0]):
        yield None, {}
        return
    ((v, _),) = position.terms
    first, last = left.get(v, (0, extents[v]))
    yield from _alternatives(value.inside, extents, {**left, v: (max(first, low), min(last, high))})
    rest = (high, last) if low <= first else (first, low) if high >= last else (first, last)
    yield from _alternatives(value.outside, extents, {**left, v: rest})


def _is_plain(buffer: Buffer) -> bool:
    return buffer.strides == row_major(buffer.shape)


def _without(joining: Task, parts: _Parts, tasks: Sequence[Task]) -> list[Task]:
    """The tasks, where those that touch the parts touch the whole instead; as they are, if one of them cannot."""
    (whole,) = joining.writes
    touching = [t for t in tasks if t is not joining and not (t.reads | t.writes).isdisjoint(parts)]
    place = tasks.index(joining)
    if any(whole in t.writes for t in tasks if t is not joining):
        return list(tasks)
    if any(not t.writes.isdisjoint(parts) for t in tasks[place:]):  # a part is used again for something else
        return list(tasks)
    if not all(isinstance(t.kernel, Loops | Contract | Nest) for t in touching):
        return list(tasks)
    moved: Private = {id(b): (whole, partial(Affine.__add__, Affine.of(start))) for b, start in parts.items()}
    last = [t for t in touching if not t.writes.isdisjoint(parts)][-1]
    changed = {id(t): _moved(t, moved, joining.nodes if t is last else ()) for t in touching}
    return [changed.get(id(t), t) for t in tasks if t is not joining]


def _moved(task: Task, parts: Private, nodes: tuple[Node, ...]) -> Task:
    kernel = task.kernel
    assert isinstance(kernel, Loops | Contract | Nest)
    if isinstance(kernel, Nest):
        changed: Kernel = replace(kernel, kernels=tuple(inside(k, Batch(()), parts) for k in kernel.kernels))
    else:
        changed = inside(kernel, Batch(()), parts)
    return task_of(changed, (*task.nodes, *nodes))
