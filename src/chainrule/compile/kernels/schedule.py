"""A schedule: tasks in the order they run, over buffers that hold what the program is given, computes and gives back.

Knows where results go: an update that cannot be written in place (`order.py`) is computed into memory of its own, and
copied at the end. Refuses to know how kernels are made (`building.py`) and how buffers are laid out (`layout.py`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from chainrule.compile.kernels.buffer import Buffer
from chainrule.compile.kernels.building import copy_of, kernel_of
from chainrule.compile.kernels.group import Group, Places
from chainrule.compile.kernels.grouping import grouped
from chainrule.compile.kernels.layout import batch_innermost, better_turned, rows_spread
from chainrule.compile.kernels.order import ordered
from chainrule.compile.kernels.storage import Buffers, buffer_like
from chainrule.compile.kernels.tasks import Task, task_of
from chainrule.compile.program import Program
from chainrule.core.node import Node


@dataclass(frozen=True, eq=False, kw_only=True)
class Schedule:
    """Tasks in the order they run, over buffers.

    memory: the buffer of each input, constant and stored node, by the node's id.
    """

    program: Program
    tasks: tuple[Task, ...]
    inputs: tuple[Buffer, ...]
    outputs: tuple[Buffer, ...]
    memory: Mapping[int, Buffer] = field(default_factory=dict)

    def buffers(self) -> list[Buffer]:
        """Every buffer, once, in the order of first use."""
        found: dict[int, Buffer] = {}
        for b in (*self.inputs, *self.outputs):
            found.setdefault(id(b), b)
        for task in self.tasks:
            for b in sorted(task.reads | task.writes, key=lambda b: b.name):
                found.setdefault(id(b), b)
        return list(found.values())


def scheduled(program: Program) -> Schedule:
    """The kernels of a program: buffers, then an order, then kernels."""
    grouping, buffers = grouped(program), Buffers()
    inputs = tuple(buffer_like(x, "input", f"in{i}") for i, x in enumerate(program.inputs))
    outputs = tuple(buffer_like(x, "output", f"out{i}") for i, x in enumerate(program.outputs))
    for x, buffer in zip(program.inputs, inputs, strict=True):
        buffers.give(x, buffer)
    copies = list(_given_back(program, outputs, buffers, better_turned(grouping.groups, grouping.places)))
    order = ordered(program, grouping)
    for x, value in order.in_place:
        buffers.give(value, buffers.of(x))
    copies += _updated(order.late, program, buffers)
    for group in order.groups:
        for node in group.placed:
            if not buffers.holds(node):
                buffers.give(node, buffers.temporary(node))
    tasks = _tasks(order.groups, grouping.places, buffers)
    tasks += [task_of(copy_of(c.origin or buffers.of(c.node), c.target), (c.node,)) for c in copies]
    return Schedule(program=program, tasks=tuple(tasks), inputs=inputs, outputs=outputs, memory=buffers.by_node)


def _tasks(groups: Sequence[Group], places: Places, buffers: Buffers) -> list[Task]:
    """A task for each group. The layout follows from how values are read; what it changes is built once more."""

    def built(group: Group) -> Task:
        return task_of(kernel_of(group, places, buffers), (*group.seeds, *group.placed))

    tasks = [built(group) for group in groups]
    changed = batch_innermost(groups, buffers.by_node, buffers.flat)
    buffers.by_node.update(changed)
    changed |= rows_spread(groups, buffers.by_node, buffers.flat)
    buffers.by_node.update(changed)
    return [
        built(g) if any(id(x) in changed for x in (*g.loads.values(), *g.placed)) else task
        for g, task in zip(groups, tasks, strict=True)
    ]


# --- copies


class _Copy(NamedTuple):
    """A value that already has memory, copied to where it is also wanted.

    origin: where it is copied from, if not from its own memory.
    """

    node: Node
    target: Buffer
    origin: Buffer | None = None


def _given_back(
    program: Program, outputs: Iterable[Buffer], buffers: Buffers, elsewhere: Collection[int]
) -> Iterator[_Copy]:
    """Outputs are computed where they are wanted; copied is what lies elsewhere: a leaf, an output given back twice.

    elsewhere: ids of what is better computed elsewhere, and copied.
    """
    for node, buffer in zip(program.outputs, outputs, strict=True):
        if node.op is None or buffers.holds(node) or id(node) in elsewhere:
            yield _Copy(node, buffer)
        else:
            buffers.give(node, buffer)


def _updated(late: Iterable[tuple[Node, Node]], program: Program, buffers: Buffers) -> list[_Copy]:
    """The copies of updates that are late.

    Inputs that others become, and that change themselves, as in a swap, are put aside before either is written.
    """
    changed = {id(x) for x, _ in program.updates}
    aside: dict[int, _Copy] = {}
    copies = []
    for x, value in late:
        origin = None
        if id(value) in changed and value is not x:
            if id(value) not in aside:
                aside[id(value)] = _Copy(value, buffers.temporary(value))
            origin = aside[id(value)].target
        copies.append(_Copy(value, buffers.of(x), origin))
    return [*aside.values(), *copies]
