"""Names for what a traced function computes: the user's variables, the paths of modules, gradients as X.g."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from itertools import pairwise
from typing import Any, Literal

from chainrule.compile.tracing.outcome import Outcome
from chainrule.compile.tracing.trace import Pull
from chainrule.core.fold import Fold, fold_tree
from chainrule.core.provenance import user_calls
from chainrule.ops import movement
from chainrule.ops.printing import write

_SHORT = 24  # characters of a formula that stands for a name

Role = Literal["forward", "backward", "update"]


class Names:
    """Which part of a step each traced node belongs to, and what the user would call it.

    behind: for each node of a backward pass, by id, the forward node whose rule made it.
    tree: the forward part as the user wrote it. steps: the step of it that each forward node is shown in.
    """

    def __init__(self, outcome: Outcome) -> None:
        outcome.name_inputs()
        self.outcome = outcome
        self.traced = [x for x in outcome.program.nodes if x.op is not None]
        self._find_roles()
        self._names = self._forward_names()
        self._name_gradients()

    def of(self, traced: Any) -> str | None:
        """What the user calls a traced value, if anything."""
        return self._names.get(id(traced))

    # --- which part of the step each traced node belongs to

    def _find_roles(self) -> None:
        """For each node of a backward pass, the forward node whose rule made it."""
        self.behind: dict[int, Any] = {}
        pulls = self.outcome.pulls
        known = 0  # when the latest node was made that the passes up to here are known to have made
        for node, g, sent in pulls:
            known = max(known, g.made)
            todo = [x for x in sent if x is not None and x.made > known]
            while todo:
                x = todo.pop()
                if id(x) not in self.behind and x.op is not None:
                    self.behind[id(x)] = node
                    todo += [y for y in x.inputs if y.made > known]
            known = max([known, *(x.made for x in sent if x is not None)])
        self._roles = self._found_roles(_passes(pulls))

    def _found_roles(self, passes: list[tuple[int, int]]) -> dict[int, Role]:
        """The part of the step that each traced node belongs to, given when each backward pass began and ended."""
        roles: dict[int, Role] = {}
        for x in self.traced:
            if id(x) in self.behind or any(begins <= x.made <= ends for begins, ends in passes):
                roles[id(x)] = "backward"
                continue
            # What is made of gradients outside of a pass is an update; what is made of what was updated, as by a second
            # net, is forward again.
            after = any(roles.get(id(y), "forward") != "forward" for y in x.inputs)
            trained = x.requires_grad and not _is_renamed(x)
            roles[id(x)] = "update" if after and not trained else "forward"
        users: dict[int, list[Any]] = {}
        for x in reversed(self.traced):  # a rate that is scaled before it is used belongs to the update too
            mine = users.get(id(x), [])
            late = roles[id(x)] == "forward" and passes and x.made > passes[0][0]
            if late and mine and all(roles[id(y)] == "update" for y in mine):
                roles[id(x)] = "update"
            for y in x.inputs:
                users.setdefault(id(y), []).append(x)
        return roles

    def role(self, traced: Any) -> Role:
        """Forward, backward, or what follows."""
        return self._roles.get(id(traced), "forward")

    # --- names

    @cached_property
    def tree(self) -> Fold:
        """The forward part as the user wrote it: functions, modules, statements."""
        forward = [x for x in self.traced if self.role(x) == "forward"]
        return fold_tree(forward) if forward else Fold("root", "")

    @cached_property
    def steps(self) -> dict[int, Fold]:
        """The step that each forward node is shown in: a function or a module, else a statement."""
        return {id(x): step for step in self.tree.children for x in step.nodes}

    def _forward_names(self) -> dict[int, str]:
        users: dict[int, list[Any]] = {}
        forward = self.tree.nodes
        for x in forward:
            for y in x.inputs:
                users.setdefault(id(y), []).append(x)
        results = {id(x) for x in self.outcome.program.outputs}
        unfinished = {
            id(x) for x, after in pairwise(forward) if next(user_calls(x.trail), 0) == next(user_calls(after.trail), 1)
        }
        found: dict[int, tuple[Any, str]] = {}
        for fold in reversed(list(self.tree.walk())):
            inside = {id(x) for x in fold.nodes}
            outputs = [
                x for x in fold.nodes
                if id(x) in results or not users.get(id(x)) or any(id(u) not in inside for u in users[id(x)])
            ]  # fmt: skip
            if len(outputs) != 1:
                continue
            target = None if fold.place is None else fold.place.target
            if target is not None and not (fold.kind == "op" and id(outputs[0]) in unfinished):
                found[id(outputs[0])] = outputs[0], target
            elif fold.kind == "module" and id(outputs[0]) not in found:
                found[id(outputs[0])] = outputs[0], _as_name(fold.name)
        given = [x.symbol for x in self.outcome.program.inputs if x.symbol]
        uses = Counter([*given, *(name for _, name in found.values())])
        counted = Counter(given)
        names: dict[int, str] = {}
        for x in forward:
            if id(x) in found:
                name = found[id(x)][1]
                counted[name] += 1
                names[id(x)] = name if uses[name] == 1 else f"{name}.{counted[name]}"
        for x in reversed(forward):
            if id(x) in names and x.op is movement.reshape:
                names.setdefault(id(x.inputs[0]), names[id(x)])
        return names

    def _name_gradients(self) -> None:
        for node, g, _ in self.outcome.pulls:
            name = node.symbol if node.op is None else self._names.get(id(node))
            if name and g.op is not None and id(g) not in self._names:
                self._names[id(g)] = f"{name}.g"
        for node, g, _ in self.outcome.pulls:
            step = self.steps.get(id(node))
            if step is not None and step.kind == "statement" and g.op is not None and id(g) not in self._names:
                self._names[id(g)] = f"{self._before(node, step)}.g"

    def _before(self, node: Any, step: Fold) -> str:
        """A name for a value inside a step: h before relu, where relu(…) is h."""
        last: Any = next((x for x in reversed(step.nodes) if id(x) in self._names), None)
        if last is not None and any(x is node for x in last.inputs):
            return f"({self._names[id(last)]} before {last.op.name})"
        written = write(node, "text", lambda x: self._names.get(id(x)) if x is not node else None)
        if len(written) <= _SHORT:
            return f"({written})"
        return f"({node.op.name} in {step.name if last is None else self._names[id(last)]})"


def _passes(pulls: Sequence[Pull]) -> list[tuple[int, int]]:
    """When each backward pass began and ended: it goes from what was made last to what was made first."""
    found: list[tuple[int, int]] = []
    last: int | None = None
    for node, g, sent in pulls:
        made = [g.made, *(x.made for x in sent if x is not None)]
        if last is None or (node.op is not None and node.made >= last):
            found.append((min(made), max(made)))
        else:
            begins, ends = found[-1]
            found[-1] = begins, max(ends, *made)
        last = node.made if node.op is not None else last
    return found


def _is_renamed(x: Any) -> bool:
    """Is it a tensor after an update, told apart from the value that was put there?"""
    return x.op is movement.reshape and x.aval.shape == x.inputs[0].aval.shape


def _as_name(fold: str) -> str:
    """`3: Conv2d` as Conv2d_3."""
    where, _, kind = fold.rpartition(": ")
    return f"{kind}_{where.replace('.', '_')}" if where else kind
