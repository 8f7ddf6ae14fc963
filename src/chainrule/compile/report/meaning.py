"""What a kernel means to whoever wrote the step: the user's names for its values, its mathematics, and its lines.

A node that a pass made carries the trail of the traced node that it stands for; so each value of a schedule is found
again in the traced program, and there among the calls, lines and variables of the user's program.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from chainrule.compile.kernels import access
from chainrule.compile.kernels.buffer import Buffer
from chainrule.compile.kernels.schedule import Schedule
from chainrule.compile.kernels.tasks import Task
from chainrule.compile.report import counting
from chainrule.compile.report.formulas import Formulas
from chainrule.compile.report.naming import Names, Role
from chainrule.compile.report.unmoved import REORDERINGS, is_move, unordered
from chainrule.compile.tracing.outcome import Outcome
from chainrule.core.node import Node, ancestors
from chainrule.core.provenance import Place, user_place
from chainrule.ops import contraction, movement, reduction

_TAKEN_IN_PARTS = (contraction.matmul, reduction.sum_)
_MOVES = frozenset({movement.expand, movement.reshape, movement.permute, movement.cast})


@dataclass(frozen=True)
class Line:
    """A line of the user's program, and the part of the step that is done for it."""

    role: Role
    place: Place

    def __str__(self) -> str:
        return f"backward of {self.place}" if self.role == "backward" else str(self.place)


class Meaning:
    """Names, lines and formulas for the tasks of a schedule."""

    def __init__(self, outcome: Outcome, schedule: Schedule) -> None:
        self.outcome, self.schedule = outcome, schedule
        self.program = schedule.program  # after its passes
        self.names = Names(outcome)
        self._by_trail = {id(x.trail): x for x in self.names.traced if x.trail is not None}
        self._node_of = {id(b): x for x in reversed(self.program.nodes) if (b := schedule.memory.get(id(x)))}
        self._inner = _inner(self.program.nodes)
        self._named: dict[int, str] = {}  # by id of a buffer
        self._numbers = 0
        for task in schedule.tasks:  # in the order they run
            for x in self.results(task):
                self.name(schedule.memory[id(x)])

    def node(self, buffer: Buffer) -> Any:
        """What a buffer holds; an input where it is updated in place."""
        return self._node_of.get(id(buffer))

    def name(self, buffer: Buffer) -> str:
        """What the user calls what a buffer holds; t1, t2 and so on where there is no name."""
        if id(buffer) not in self._named:
            node = self.node(buffer)
            if node is None:
                name = self._result(buffer)
            elif node.op is None:
                name = node.symbol or ("a constant" if buffer.place == "constant" else "an input")
            else:
                name = self.name_of(node) or (self._result(buffer) if buffer.place == "output" else f"t{self._count()}")
                if name in self._named.values() or _reorders_input(node):
                    name = self._again(name, node)
            self._named[id(buffer)] = name
        return self._named[id(buffer)]

    def _again(self, name: str, node: Any) -> str:
        """A name for what is stored a second time."""
        other = f"{name} reordered" if unordered(node) is not node else f"{name} (copy 2)"
        if other in self._named.values():
            other = f"{name} (copy {2 + sum(n.startswith(f'{name} (copy ') for n in self._named.values())})"
        return other

    def _result(self, buffer: Buffer) -> str:
        returned = list(dict.fromkeys(r.value for r in self.outcome.results if r.kind == "output"))
        number = next((n for n, i in enumerate(returned, 1) if self.schedule.outputs[i] is buffer), None)
        if number is None:
            return f"t{self._count()}"
        return f"result {number}" if len(returned) > 1 else "result"

    def _count(self) -> int:
        self._numbers += 1
        return self._numbers

    def name_of(self, node: Any) -> str | None:
        """The user's name for a node; what only lies in another order goes by the name of what it was made from."""
        count = node.aval.size
        while node.op is not None:
            traced = self._traced(node)
            name = None if traced is None else self.names.of(traced)
            if name is not None:
                return name
            if node.op is movement.embed:
                inner = self.name_of(node.inputs[0])
                return None if inner is None else f"{inner} padded"
            if node.op not in REORDERINGS or node.inputs[0].aval.size != count:
                return None
            node = node.inputs[0]
        return node.symbol if node.constant is None else None

    def _traced(self, node: Any) -> Any:
        """The traced node that this one stands for, if it is not a part of the way there."""
        found = self._by_trail.get(id(node.trail))
        return None if found is None or id(node) in self._inner else found

    def is_in_parts(self, node: Any) -> bool:
        """Are these the parts of a value that a later kernel puts together? Sums of whole rows are said as such."""
        if id(node) not in self._inner or node.op not in _TAKEN_IN_PARTS:
            return False
        whole = self._by_trail.get(id(node.trail))
        return whole is None or whole.op is not node.op or whole.inputs[0].aval.shape != node.inputs[0].aval.shape

    def shape_of(self, node: Any) -> tuple[int, ...]:
        """The shape of what a node stands for in the user's program; its own where there is no such value."""
        traced = self._traced(node)
        shape: tuple[int, ...] = (node if traced is None else traced).aval.shape
        return shape if math.prod(shape) == node.aval.size else node.aval.shape

    @cached_property
    def leaves_out_moves(self) -> bool:
        """Are there reshapes or reorderings that formulas do not write?"""
        return any(is_move(x) for x in self.program.nodes)

    # --- a task

    def inside(self, task: Task) -> list[Any]:
        """The nodes that a task computes, each after what it is computed from."""
        found = {id(x): x for root in self.results(task) for x in self.made_for(root, task)}
        return sorted(found.values(), key=lambda x: x.made)

    def results(self, task: Task) -> list[Any]:
        written = {id(b) for b in task.writes}
        return [x for x in _unique(task.nodes) if id(self.schedule.memory.get(id(x))) in written]

    def lines(self, task: Task) -> list[Line]:
        """The lines of the user's program that a task works for, each once, in the order in which they ran."""
        found: dict[tuple[Role, str], tuple[Line, int]] = {}  # each with when it ran
        goes_back = all(self.goes_back(x) for x in self.results(task))
        inside = self.inside(task)
        varying = self._varying(inside)
        for x in inside:
            traced = self._by_trail.get(id(x.trail))
            if traced is None or id(x) not in varying:
                continue
            role = self.names.role(traced)
            if role == "backward" and id(traced) not in self.names.behind:  # it adds up gradients: no line's alone
                continue
            if role == "forward" and goes_back:  # a mask that is cheaper to make again than to keep
                continue
            source = self.names.behind.get(id(traced), traced)
            place = user_place(source.trail)
            if place is not None:
                found.setdefault((role, str(place)), (Line(role, place), source.made))
        order = ("forward", "backward", "update")
        return [line for line, _ in sorted(found.values(), key=lambda each: (order.index(each[0].role), each[1]))]

    def ops(self, task: Task) -> list[str]:
        """The ops that were fused, by name, in the order in which they are computed."""
        return [x.op.name for x in self.inside(task) if x.op is not None]

    def formulas(self, task: Task) -> list[str]:
        """What a task writes, as mathematics: see `formulas.py`."""
        return Formulas(self, task).lines()

    def goes_back(self, x: Any) -> bool:
        traced = self._by_trail.get(id(x.trail))
        return traced is not None and self.names.role(traced) != "forward"

    def steps_of(self, nodes: Sequence[Any], role: Role) -> list[str]:
        """The user's functions and modules that nodes belong to, or go backward through, in the order they ran."""
        found: dict[int, str] = {}
        order = {id(step): n for n, step in enumerate(self.names.tree.children)}
        varying = self._varying(nodes)
        for x in sorted(nodes, key=lambda x: x.made):
            traced = self._by_trail.get(id(x.trail))
            if traced is None or id(x) not in varying or self.names.role(traced) != role:
                continue
            source = self.names.behind.get(id(traced), traced)
            step = self.names.steps.get(id(source))
            if step is not None and x.op not in _MOVES and (step.kind != "statement" or source.op not in _MOVES):
                name = _spoken(step.name) if step.kind in ("function", "module") else source.op.name
                found.setdefault(order[id(step)], name)
        return [found[n] for n in sorted(found)]

    def _varying(self, nodes: Sequence[Any]) -> set[int]:
        """Ids of what depends on a value that is loaded: the rest is known beforehand."""
        found: set[int] = set()
        for x in sorted(nodes, key=lambda x: x.made):
            if any(id(y) in found or (id(y) in self.schedule.memory and y.constant is None) for y in x.inputs):
                found.add(id(x))
        return found

    def behind(self, root: Any, task: Task) -> list[Any]:
        """What a value is computed from inside a task, the values that it loads included."""
        made = self.made_for(root, task)
        return made + [y for x in made for y in x.inputs if self.is_load(y, task)]

    def made_for(self, root: Any, task: Task, stops: Collection[int] = ()) -> list[Any]:
        """What is computed for a value inside a task; not what it loads, nor, by id, some others and what is behind."""
        return ancestors([root], lambda x: x is root or not (id(x) in stops or self.is_load(x, task)))

    def is_load(self, x: Any, task: Task) -> bool:
        buffer = self.schedule.memory.get(id(x))
        return buffer is not None and buffer in task.reads and (x.op is None or buffer not in task.writes)

    # --- what is worth saying

    def claimed(self, task: Task) -> list[str]:
        """Of which values a task touches the memory, for a later one to write them: see `kernels/claiming.py`."""
        return [self.name(b) for b in counting.claimed(task)]

    def updated(self, task: Task) -> list[str]:
        """What a task updates in place."""
        return sorted(self.name(b) for b in task.writes if b.place == "input")

    def unstored(self, task: Task) -> list[str]:
        """Of which inputs a task makes the gradient and uses it up, without storing it."""
        stored = {id(self._traced(x)) for x in self.program.nodes if id(x) in self.schedule.memory and x.op is not None}
        inside = {id(t) for x in self.inside(task) if (t := self._by_trail.get(id(x.trail))) is not None}
        return [
            node.symbol for node, g, _ in self.outcome.pulls
            if node.op is None and node.symbol and id(g) in inside and id(g) not in stored
        ]  # fmt: skip


def _reorders_input(node: Any) -> bool:
    inner = unordered(node)
    return inner is not node and inner.op is None


def _inner(nodes: Sequence[Node]) -> set[int]:
    """Nodes that are on the way to another one with the same trail, other than to the same in another order.

    What only moves values, with whatever trail, does not interrupt the way.
    """
    found: set[int] = set()
    ahead: dict[int, set[int]] = {}  # by id of a node, those of the trails that it leads to
    for node in reversed(nodes):
        trails = ahead.get(id(node), set())
        if id(node.trail) in trails:
            found.add(id(node))
        on = set(trails) if access.is_move(node) else set()
        if node.trail is not None and (node.op not in REORDERINGS or id(node) in found):
            on.add(id(node.trail))
        for x in node.inputs:
            ahead.setdefault(id(x), set()).update(on)
    return found


def _unique(nodes: Sequence[Node]) -> Iterator[Any]:
    seen: set[int] = set()
    for x in nodes:
        if id(x) not in seen:
            seen.add(id(x))
            yield x


def _spoken(fold: str) -> str:
    """`3: Conv2d` as Conv2d 3."""
    where, _, kind = fold.rpartition(": ")
    return f"{kind} {where}" if where else kind
