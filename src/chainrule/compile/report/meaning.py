"""What a kernel means to whoever wrote the step: the user's names for its values, its mathematics, and its lines.

A node that a pass made carries the trail of the traced node that it stands for; so each value of a schedule is found
again in the traced program, and there among the calls, lines and variables of the user's program.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from chainrule.compile.kernels.buffer import Buffer
from chainrule.compile.kernels.schedule import Schedule
from chainrule.compile.kernels.tasks import Task
from chainrule.compile.report.naming import Names, Role
from chainrule.compile.tracing.outcome import Outcome
from chainrule.core.node import Node, ancestors
from chainrule.core.provenance import Place, user_place
from chainrule.core.rewrite import again, rewrite
from chainrule.ops import elementwise, identities, movement, windows
from chainrule.ops.printing import write

_LONGEST = 64  # characters of a formula; a longer one is said in values with names, or else told
_LONGEST_IN_NAMES = 110  # of one in values with names; a longer one is told by the calls that it came from
# Ops that say more to a machine than to a person: a formula with them is told by the calls that it came from.
_MACHINERY = frozenset({movement.embed, windows.windows, windows.overlap_add})
_NAMED = 7  # values said of those that something is computed from
_LONG_NUMBER = re.compile(r"\d+\.\d{6,}(?:e-?\d+)?")
_REORDERED = (movement.reshape, movement.permute)
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
            for x in self._results(task):
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
                name = self._name_of(node) or (
                    self._result(buffer) if buffer.place == "output" else f"t{self._count()}"
                )
                copies = sum(name == other for other in self._named.values())
                name = f"{name} (copy {copies + 1})" if copies else name
            self._named[id(buffer)] = name
        return self._named[id(buffer)]

    def _result(self, buffer: Buffer) -> str:
        number = next((n for n, b in enumerate(self.schedule.outputs, 1) if b is buffer), 1)
        return f"result {number}" if len(self.schedule.outputs) > 1 else "result"

    def _count(self) -> int:
        self._numbers += 1
        return self._numbers

    def _name_of(self, node: Any) -> str | None:
        """The user's name for a node; what only lies in another order goes by the name of what it was made from."""
        count = node.aval.size
        while node.op is not None:
            traced = self._traced(node)
            name = None if traced is None else self.names.of(traced)
            if name is not None:
                return name
            if node.op is movement.embed:
                inner = self._name_of(node.inputs[0])
                return None if inner is None else f"{inner} padded"
            if node.op not in _REORDERED or node.inputs[0].aval.size != count:
                return None
            node = node.inputs[0]
        return node.symbol if node.constant is None else None

    def _traced(self, node: Any) -> Any:
        """The traced node that this one stands for, if it is not a part of the way there."""
        found = self._by_trail.get(id(node.trail))
        return None if found is None or id(node) in self._inner else found

    # --- a task

    def inside(self, task: Task) -> list[Any]:
        """The nodes that a task computes, each after what it is computed from."""
        found = {
            id(x): x for root in self._results(task) for x in self._behind(root, task)
            if x is root or not self._is_load(x, task)
        }  # fmt: skip
        return sorted(found.values(), key=lambda x: x.made)

    def _results(self, task: Task) -> list[Any]:
        written = {id(b) for b in task.writes}
        return [x for x in _unique(task.nodes) if id(self.schedule.memory.get(id(x))) in written]

    def lines(self, task: Task) -> list[Line]:
        """The lines of the user's program that a task works for, each once, in the order of the program."""
        found: dict[tuple[Role, str], Line] = {}
        goes_back = all(self._goes_back(x) for x in self._results(task))
        for x in self.inside(task):
            traced = self._by_trail.get(id(x.trail))
            if traced is None:
                continue
            role = self.names.role(traced)
            if role == "forward" and goes_back:  # a mask that is cheaper to make again than to keep
                continue
            source = self.names.behind.get(id(traced), traced)
            place = user_place(source.trail)
            if place is not None:
                found.setdefault((role, str(place)), Line(role, place))
        order = ("forward", "backward", "update")
        return sorted(found.values(), key=lambda line: order.index(line.role))

    def ops(self, task: Task) -> list[str]:
        """The ops that were fused, by name, in the order in which they are computed."""
        return list(dict.fromkeys(x.op.name for x in self.inside(task) if x.op is not None))

    def formulas(self, task: Task) -> list[str]:
        """What a task writes, as mathematics; where that would say little, the calls that it comes from.

        A value that is made on the way and has a name gets a line of its own, where a formula is too long without it.
        """
        results = self._results(task)
        if not results:
            return [f"{self._all(task.writes)} = {self._all(task.reads)}, copied"]
        found: dict[str, str] = {}
        told: list[Any] = []
        for x in results:
            name = self.name(self.schedule.memory[id(x)])
            text = self._formula(x, task, ())
            if text is not None:
                found[name] = text
            elif not self._in_names(x, name, task, found):
                told.append(x)
        updated = [x for x in told if self.schedule.memory[id(x)].place == "input"]
        told = [x for x in told if not any(x is y for y in updated)]
        if updated:
            self._define_gradients(updated, task, found)
        lines = [f"{name} = {text}" for name, text in found.items()]
        for x in reversed(updated):
            lines.insert(0, f"{self.name(self.schedule.memory[id(x)])} = {self._updated_by(x, task)}")
        for goes_back in (True, False):
            mine = [x for x in told if self._goes_back(x) is goes_back]
            if mine:
                names = ", ".join(self.name(self.schedule.memory[id(x)]) for x in mine)
                lines.insert(0, f"{names} = {self._told(mine, task)}")
        return lines

    def _in_names(self, root: Any, name: str, task: Task, found: dict[str, str]) -> bool:
        """Say a value by values with names that are made on the way; False if there are none, or it does not help."""
        named: dict[str, Any] = {}
        for x in self._behind(root, task):
            own = None if x is root or x.op is None else self._name_of(x)
            if own is not None and own != name and not self._is_load(_unordered(x), task):
                named[own] = x
        text = self._formula(root, task, tuple(named.items()), _LONGEST_IN_NAMES)
        if text is None:
            return False
        found[name] = text
        for own, x in reversed(named.items()):
            if own in text and own not in found:
                found[own] = self._formula(x, task, ()) or self._told([x], task)
        return True

    def _define_gradients(self, updated: Sequence[Any], task: Task, found: dict[str, str]) -> None:
        """Say the gradients that updates are made with, unless they have been said."""
        for x in (y for root in updated for y in self._behind(root, task)):
            name = self._name_of(x) if x.op is not None and not self._is_load(x, task) else None
            if name is not None and name.endswith(".g") and name.removesuffix(".g") in map(self.name, task.writes):
                found.setdefault(name, self._formula(x, task, ()) or self._told([x], task))

    def _updated_by(self, root: Any, task: Task) -> str:
        """An update whose formula is long: the line that asks for it, and what it reads."""
        where = user_place(root.trail)
        mine = self.name(self.schedule.memory[id(root)])
        gradient = f"{mine}.g"
        inside = {self._name_of(x) for x in self._behind(root, task) if x.op is not None}
        buffers = {id(b): b for x in self._behind(root, task) if (b := self._loaded(x, task)) is not None}
        others = sorted(
            name for b in buffers.values()
            if (name := self.name(b)) not in (mine, gradient) and b.place == "input" and b in task.reads
        )  # fmt: skip
        given = [mine, *([gradient] if gradient in inside else []), *others]
        return f"updated by {where.text if where is not None else 'the step'}, from {_some(given)}"

    def _loaded(self, x: Any, task: Task) -> Buffer | None:
        return self.schedule.memory[id(x)] if self._is_load(x, task) else None

    def _told(self, roots: Sequence[Any], task: Task) -> str:
        """The user's calls that values come from, and what they are computed from."""
        nodes = list({id(x): x for root in roots for x in self._behind(root, task)}.values())
        loads = {id(self.schedule.memory[id(x)]): x for x in nodes if self._is_load(x, task)}
        reads = sorted((b for b in task.reads if id(b) in loads), key=lambda b: (b.place != "arena", b.name))
        inside = [x for x in nodes if id(x) not in loads]
        forward, backward = self._steps_of(inside, "forward"), self._steps_of(inside, "backward")[::-1]
        given = _some([self.name(b) for b in reads])
        goes_back = any(map(self._goes_back, roots))
        if forward and not goes_back:
            part = "" if all(self._is_whole(x) for x in roots) else "part of "
            return f"{part}{', '.join(forward)}, from {given}"
        if backward:
            part = "" if all(self._is_whole(x) for x in roots) else "part of the "
            return f"{part}backward of {', '.join(backward)}, from {given}"
        return f"{', '.join(dict.fromkeys(x.op.name for x in inside if x.op is not None))} of {given}"

    def _is_whole(self, x: Any) -> bool:
        """Has a value a name, its own or that of what it updates?"""
        buffer = self.schedule.memory.get(id(x))
        return self._name_of(x) is not None or (buffer is not None and buffer.place == "input")

    def _goes_back(self, x: Any) -> bool:
        traced = self._by_trail.get(id(x.trail))
        return traced is not None and self.names.role(traced) != "forward"

    def _steps_of(self, nodes: Sequence[Any], role: Role) -> list[str]:
        """The user's functions and modules that nodes belong to, or go backward through, in the order they ran."""
        found: dict[int, str] = {}
        varies: set[int] = set()  # ids of what depends on a value that is loaded: the rest is known beforehand
        order = {id(step): n for n, step in enumerate(self.names.tree.children)}
        for x in sorted(nodes, key=lambda x: x.made):
            if any(id(y) in varies or (id(y) in self.schedule.memory and y.constant is None) for y in x.inputs):
                varies.add(id(x))
            traced = self._by_trail.get(id(x.trail))
            if traced is None or id(x) not in varies or self.names.role(traced) != role:
                continue
            source = self.names.behind.get(id(traced), traced)
            step = self.names.steps.get(id(source))
            if step is not None and x.op not in _MOVES and (step.kind != "statement" or source.op not in _MOVES):
                name = _spoken(step.name) if step.kind in ("function", "module") else source.op.name
                found.setdefault(order[id(step)], name)
        return [found[n] for n in sorted(found)]

    def _behind(self, root: Any, task: Task) -> list[Any]:
        """What a value is computed from inside a task, the values that it loads included."""
        return ancestors([root], lambda x: x is root or not self._is_load(x, task)) + [
            y for x in ancestors([root], lambda x: x is root or not self._is_load(x, task))
            for y in x.inputs if self._is_load(y, task)
        ]  # fmt: skip

    def _is_load(self, x: Any, task: Task) -> bool:
        buffer = self.schedule.memory.get(id(x))
        return buffer is not None and buffer in task.reads and (x.op is None or buffer not in task.writes)

    def _formula(self, root: Any, task: Task, named: Sequence[tuple[str, Any]], longest: int = _LONGEST) -> str | None:
        symbols: dict[int, Any] = {id(x): type(x).symbolic(name, x.aval) for name, x in named}
        for x in self._behind(root, task):
            if x is not root and x.constant is None and self._is_load(x, task):
                symbols[id(x)] = type(x).symbolic(self.name(self.schedule.memory[id(x)]), x.aval)
        if root.op is movement.embed and id(root.inputs[0]) in symbols:
            return f"{symbols[id(root.inputs[0])].symbol}, with zeros around it"
        written = rewrite(rewrite(root, identities.ALL, symbols), (_without_cast, _number_first))
        if any(x.op in _MACHINERY for x in ancestors([written])):
            return None
        text = write(written, "text", lambda x: None)
        text = _LONG_NUMBER.sub(lambda match: f"{float(match[0]):.6g}", text)
        return text if len(text) <= longest else None

    def _all(self, buffers: Iterable[Buffer]) -> str:
        return ", ".join(self.name(b) for b in sorted(buffers, key=lambda b: b.name))

    # --- what is worth saying

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


def _inner(nodes: Sequence[Node]) -> set[int]:
    """Nodes that are on the way to another one with the same trail, other than to the same in another order."""
    return {
        id(x) for node in nodes if node.op not in _REORDERED
        for x in node.inputs if x.trail is not None and x.trail is node.trail
    }  # fmt: skip


def _some(names: Sequence[str]) -> str:
    """a, b, c; of many, the first."""
    if len(names) <= _NAMED:
        return ", ".join(names)
    return f"{', '.join(names[: _NAMED - 1])} and {len(names) - _NAMED + 1} more"


def _unordered(x: Any) -> Any:
    """What a value is only another order of."""
    while x.op in _REORDERED:
        x = x.inputs[0]
    return x


def _unique(nodes: Sequence[Node]) -> Iterator[Any]:
    seen: set[int] = set()
    for x in nodes:
        if id(x) not in seen:
            seen.add(id(x))
            yield x


def _without_cast(x: Any) -> Any:
    """cast(x) = x: element types are said in the program's text."""
    if x.op is not movement.cast:
        return None
    inner = x.inputs[0]
    return type(inner).symbolic(inner.symbol, x.aval) if inner.op is None and inner.symbol else None


def _number_first(x: Any) -> Any:
    """a · s = s · a for a number s, such as a learning rate."""
    if x.op is not elementwise.mul:
        return None
    a, s = x.inputs
    return again(x, (s, a)) if _is_number(s) and not _is_number(a) else None


def _is_number(x: Any) -> bool:
    return x.aval.size == 1 or (x.op is movement.expand and x.inputs[0].aval.size == 1)


def _spoken(fold: str) -> str:
    """`3: Conv2d` as Conv2d 3."""
    where, _, kind = fold.rpartition(": ")
    return f"{kind} {where}" if where else kind
