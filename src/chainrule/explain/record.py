"""What an explanation is made from: the graph of one loss, every gradient in it, and what the user calls each value.

The gradients are the engine's own: the same rules, run once more on the recorded values. Works before and after
`backward()`, for as long as the loss lives.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from chainrule.autodiff.broken import broken_link, no_gradient_reason
from chainrule.autodiff.reverse import needs_gradient, pull
from chainrule.core.fold import fold_tree
from chainrule.core.node import ENGINE_OFF, Node, ancestors, at_user_line, recording
from chainrule.core.provenance import user_calls
from chainrule.core.variables import assigned_to, variable_names
from chainrule.errors import ArgumentError, DisconnectedError, NoGradientError, NotScalarError
from chainrule.explain.spelling import python_name

Variables = Mapping[str, Any]


class Run:
    """One loss and everything behind it.

    nodes: the ops that lead to a leaf with a gradient, in the order they ran.
    leaves: the leaves that require a gradient, in the order they were made.
    tree: the ops as the user's functions, modules and statements group them.
    gradient: the cotangent of any node, as the engine computes it.
    name: what the user calls a node.
    users: the ops that read a value, by its id.
    asked: the values somebody asked about: each is the end of a step, however deep inside one it was made.
    held: the variable that holds each tensor where explain was called, by the tensor's id.
    variables: names that the functions use in which the ops stand: a value without a name gets another one.
    """

    def __init__(self, loss: Any, variables: Variables) -> None:
        if not isinstance(loss, Node):
            raise at_user_line(ArgumentError(f"explain: expected a loss tensor; got {type(loss).__name__}"))
        if not loss.requires_grad:
            raise at_user_line(NoGradientError(no_gradient_reason(loss).replace("backward:", "explain:", 1)))
        if loss.aval.size != 1:
            raise at_user_line(
                NotScalarError(f"explain: a loss is a scalar; got {loss.aval}; reduce it with .sum() or .mean()")
            )
        self.loss = loss
        self._build(ancestors([loss], needs_gradient), variables, np.ones(loss.aval.shape, loss.aval.dtype))

    def _build(self, order: Sequence[Node], variables: Variables, seed: np.ndarray) -> None:
        self.nodes = [x for x in order if x.op is not None]
        self.leaves = [x for x in order if x.op is None]
        self.asked: set[int] = set()
        self._users: dict[int, list[Node]] = {}
        for op in self.nodes:
            for x in {id(x): x for x in op.inputs}:
                self._users.setdefault(x, []).append(op)
        self.tree = fold_tree(self.nodes)
        self.held = variable_names(variables)
        self._computed = {next(user_calls(x.trail), None) for x in self.nodes}
        codes = {call[0] for call in self._computed if call is not None}
        self.variables = {name for x in codes for name in (*x.co_varnames, *x.co_cellvars, *x.co_freevars, *x.co_names)}
        self._gradients = recording(ENGINE_OFF, pull, [(self.loss, type(self.loss).leaf(seed))], order)
        self._names = name_values(self, self.held)

    def gradient(self, node: Node) -> np.ndarray | None:
        """The cotangent of a node, or None if the loss does not depend on it."""
        found = self._gradients.get(id(node))
        return None if found is None else np.asarray(found.array)

    def users(self, node: Node) -> list[Node]:
        """The ops that read a value, in the order they ran."""
        return self._users.get(id(node), [])

    def name(self, node: Node) -> str | None:
        """What the user calls this value, if anything."""
        known = self._names.get(id(node)) or self.held.get(id(node)) or node.symbol
        return known or (self.target(node) if node.op is None else None)

    def target(self, leaf: Node) -> str | None:
        """The variable that the line which made this leaf assigns it to.

        Not where the same call of the user's also computed a value of the graph: the leaf was then made on the way to
        it, as the positions of the largest entries are on the way to a pooling's result.
        """
        return None if next(user_calls(leaf.trail), None) in self._computed else assigned_to(leaf)

    def parameter(self, wrt: Any) -> Node:
        """The node meant by a tensor or by its name.

        Raises: ArgumentError: no value has that name. DisconnectedError: the loss does not depend on it, and why.
        """
        if isinstance(wrt, str):
            known = {self.name(x): x for x in (*self.nodes, *self.leaves)}
            if wrt not in known:
                names = sorted(n for n in (self.name(x) for x in self.leaves) if n)
                raise at_user_line(
                    ArgumentError(f"explain: no value is called {wrt!r}; the loss has gradients for {', '.join(names)}")
                )
            wrt = known[wrt]
        if not isinstance(wrt, Node):
            raise at_user_line(ArgumentError(f"explain: wrt must be a tensor or its name; got {type(wrt).__name__}"))
        if self.gradient(wrt) is None:
            name = self._names.get(id(wrt)) or wrt.symbol or self.held.get(id(wrt)) or assigned_to(wrt) or "that tensor"
            raise at_user_line(DisconnectedError(broken_link(self.loss, wrt, name)))
        return wrt


def name_values(run: Run, by_identity: Mapping[int, str]) -> dict[int, str]:
    """A name for every value a person has a name for, by id; where two values share one, they are numbered."""
    outputs = _fold_outputs(run)
    in_modules = _module_names(run.nodes)
    chosen: list[tuple[Node, str]] = []
    seen: set[int] = set()
    for node in (found for op in run.nodes for x in (*op.inputs, op) for found in _viewed(x)):
        if id(node) in seen:
            continue
        seen.add(id(node))
        # A computed value goes by what its line assigned it to. A leaf goes by the variable that holds it now: it was
        # often made inside a function, under a name that says nothing here.
        held_as = by_identity.get(id(node))
        name = node.symbol or in_modules.get(id(node))
        name = name or (held_as or run.target(node) if node.op is None else outputs.get(id(node)) or held_as)
        if name is not None:
            chosen.append((node, name))
    if not any(node is run.loss for node, _ in chosen):
        chosen.append((run.loss, "loss"))
    return _distinct(chosen)


def _viewed(node: Node) -> Iterator[Node]:
    """The value, and for a constant that is a view of another, that one: an explanation writes it as such."""
    yield node
    while node.op is None and node.origin is not None:
        node = node.origin[1]
        yield node


def _distinct(chosen: Sequence[tuple[Node, str]]) -> dict[int, str]:
    """One name a value, and one in code too, where `h.1` is spelled as `h_1` is, and `out.g` as `out_g`."""
    uses = Counter(name for _, name in chosen)
    counted: Counter[str] = Counter()
    names: dict[int, str] = {}
    taken: set[str] = set()
    for node, name in chosen:
        spelled: set[str] = set()
        while not spelled or spelled & taken:
            counted[name] += 1
            found = name if uses[name] == 1 == counted[name] else f"{name}.{counted[name]}"
            spelled = {python_name(found), python_name(f"{found}.g")}
        taken |= spelled
        names[id(node)] = found
    return names


def _fold_outputs(run: Run) -> dict[int, str]:
    """The variable each step's result is assigned to, by the id of its last op; the outermost name wins."""
    names: dict[int, str] = {}
    unfinished = _unfinished(run.nodes)
    for fold in reversed(list(run.tree.walk())):
        if fold.kind == "root" or fold.place is None or fold.place.target is None:
            continue
        outputs = outputs_of(fold.nodes, run)
        if len(outputs) == 1 and not (fold.kind == "op" and id(outputs[0]) in unfinished):
            names[id(outputs[0])] = fold.place.target
    return names


def _unfinished(nodes: Sequence[Node]) -> set[int]:
    """Ops that one expression of the user made on the way to another: the stretched operand of `a + b`."""
    return {id(x) for x, after in pairwise(nodes) if next(user_calls(x.trail), 0) == next(user_calls(after.trail), 1)}


def outputs_of(nodes: Sequence[Node], run: Run) -> list[Node]:
    """The values that a group of ops hands to the rest of the run."""
    inside = {id(x) for x in nodes}
    return [
        x for x in nodes if x is run.loss or id(x) in run.asked or any(id(user) not in inside for user in run.users(x))
    ]


def _module_names(nodes: Sequence[Node]) -> dict[int, str]:
    """Paths of module parameters and buffers, `0.weight`, by id, as the outermost module called names them."""
    names: dict[int, str] = {}
    asked: set[int] = set()
    for node in nodes:
        scope = node.scope
        while scope is not None and scope.outer is not None:
            scope = scope.outer
        if scope is None or id(scope.module) in asked:
            continue
        asked.add(id(scope.module))
        for name, held in (*scope.module.named_parameters(), *scope.module.named_buffers()):
            names.setdefault(id(held), name)
    return names
