"""Outcome: what a traced function came to. The program, where its inputs are found, and what becomes of its results."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, final

import numpy as np
from numpy.lib.array_utils import byte_bounds

from chainrule.compile.program import Program
from chainrule.compile.tracing.cells import Cell, Number, Traced
from chainrule.compile.tracing.input_names import InputNames
from chainrule.compile.tracing.places import (
    Argument,
    Captured,
    Guard,
    Holder,
    OldGradient,
    Option,
    Place,
    State,
    Stream,
)
from chainrule.compile.tracing.signature import (
    Arguments,
    Variable,
    firsts,
    is_dynamic,
    name_guards,
    named_values,
    path_of,
)
from chainrule.compile.tracing.trace import Asked, GraphTracer, Pull
from chainrule.core.aval import Aval
from chainrule.core.memory import share_memory
from chainrule.core.node import Node, ancestors, at_user_line, make
from chainrule.core.tracing import current, running
from chainrule.core.variables import tensors_in
from chainrule.errors import TraceError
from chainrule.tensor import Tensor
from chainrule.tree import Spec, flatten, rebuild


class Result(NamedTuple):
    """A leaf of what the function returns: output or argument number `value`, or `value` itself."""

    kind: Literal["output", "argument", "itself"]
    value: Any


class Gradient(NamedTuple):
    """What `.grad` of a tensor is after the call: output number `output`, or `value` itself (None, or a tensor).

    used_up: there is one, but the function itself has used it: it is not kept unless somebody asks for that.
    """

    holder: Holder
    output: int | None
    value: Any
    used_up: bool = False


@final
class Outcome(NamedTuple):
    """A traced function.

    places: one an input of the program.
    results, tree: what it returns. gradients: what it leaves in `.grad`. created: what a first step adds to an
        optimiser's state, and the number of the output that is its value.
    option_guards: those that only a change of an option can break.
    sizes: lists that it went through, and how long they were. groups: optimisers, with their list of groups and those.
    absent: tensors whose `.grad` was None when the function first looked.
    twice: arguments that are an earlier one again, and which that is.
    modules: modules whose attributes the function may have read. asked: tensors whose `requires_grad` it set.
    needs_grad: whether a result would require a gradient where it ran eagerly.
    pulls: what the backward passes went through, for whoever tells about the program. input_names: likewise.
    """

    program: Program
    places: tuple[Place, ...]
    results: tuple[Result, ...]
    tree: Spec
    gradients: tuple[Gradient, ...]
    created: tuple[tuple[State, int], ...]
    guards: tuple[Guard, ...]
    option_guards: tuple[Guard, ...]
    option_names: tuple[tuple[dict[str, Any], str], ...]
    sizes: tuple[tuple[list[Any], int], ...]
    groups: tuple[tuple[Any, list[Any], tuple[Any, ...]], ...]
    absent: tuple[Holder, ...]
    by_identity: tuple[tuple[int, Any], ...]
    twice: tuple[tuple[int, int], ...]
    modules: tuple[Any, ...]
    asked: tuple[Asked, ...]
    needs_grad: bool
    pulls: tuple[Pull, ...]
    input_names: InputNames

    def name_inputs(self) -> None:
        """Name the program's inputs as the user does, for whoever tells about them."""
        self.input_names.give(self.program, self.places)


def trace(
    function: Callable[..., Any], given: Arguments, names: Sequence[str] = (), *, keep_grads: bool = False
) -> Outcome:
    """Run a function once on symbols for its arguments.

    Args:
        function: any function of trees of tensors.
        given: the arguments, see `arguments_of`.
        names: of the positional arguments, for error messages and reports.
        keep_grads: whether gradients are kept that the function itself has used up.
    Raises: TraceError, SymbolicValueError: the function does what depends on values, or what cannot be undone.
    """
    tracer = GraphTracer()
    stand_ins: list[Any] = []
    for i, (leaf, first) in enumerate(zip(given.leaves, firsts(given.leaves), strict=True)):
        if first < i:
            stand_ins.append(stand_ins[first])
        else:
            stand_ins.append(tracer.argument(leaf, i, path_of(given.spec, i, names)) if is_dynamic(leaf) else leaf)
    args, kwargs = rebuild(given.spec, stand_ins)
    variables = list(named_values(function))
    for module in (*given.leaves, *(v.value for v in variables)):
        if hasattr(module, "named_modules"):
            tracer.called(module)  # or its parameters may be read, and used in another way
    before = [v for v in variables if isinstance(v.value, Node)]
    outer = current.get()
    try:
        running.append(tracer)
        try:
            current.set(tracer)
            try:
                returned = function(*args, **kwargs)
            finally:
                rebound = _put_back(tracer, before)
            if rebound:
                raise tracer.refuse(
                    f"setting the variable {rebound[0]}, which the function reads, to another tensor",
                    f"update the one that is there: {rebound[0]}.copy_(…) under no_grad(); or return it",
                )
            for setting in tracer.settings.values():
                if setting.stays:
                    raise setting.error
            return _Finish(tracer, function, given, stand_ins, keep_grads).outcome(returned)
        finally:
            current.set(outer)
            tracer.undo()
    finally:
        running.remove(tracer)


def _put_back(tracer: GraphTracer, variables: Sequence[Variable]) -> list[str]:
    """The names of globals and closed-over variables that were set to what was computed, and are what they were now.

    They would be set once, for all calls.
    """
    rebound = [v for v in variables if tracer.replaces(v.value, v.read())]
    for v in rebound:
        v.write(v.value)
    return [v.name for v in rebound]


class _Finish:
    """From a tracer to the outcome."""

    def __init__(
        self, tracer: GraphTracer, function: Any, given: Arguments, stand_ins: list[Any], keep_grads: bool
    ) -> None:
        self.tracer, self.function, self.keep_grads = tracer, function, keep_grads
        self.given = given
        self.stand_ins = {id(x): i for i, x in enumerate(stand_ins) if is_dynamic(x)}
        self.outputs: list[Any] = []
        self._names = InputNames(function, tracer.scopes)

    def outcome(self, returned: Any) -> Outcome:
        leaves, tree = flatten(returned)
        results = tuple(self._result(leaf) for leaf in leaves)
        needs_grad = any(self.outputs[r.value].requires_grad for r in results if r.kind == "output")
        updates = self._updates()
        created = self._created()
        gradients = self._gradients(updates)
        program, places = self._program(updates)
        self._refuse_overlaps(program, places)
        t, modules = self.tracer, self._modules()
        forwards = [type(module).forward for module in modules]
        options = [p for p in places if isinstance(p, Option)]
        watched = {(id(g), n): (g, n) for g, n in [*((p.group, p.name) for p in options), *t.options_watched]}
        return Outcome(
            program=program,
            places=places,
            results=results,
            tree=tree,
            gradients=gradients,
            created=created,
            guards=(*t.guards, *name_guards(self.function, *forwards), *self._state_guards()),
            option_guards=tuple(t.option_guards),
            option_names=tuple(watched.values()),
            sizes=tuple({id(found): (found, n) for found, n in t.sizes}.values()),
            groups=tuple((x, x.param_groups, tuple(x.param_groups)) for x in t.optimizers.values()),
            absent=tuple(t.holder(x) for x in t.absent),
            by_identity=tuple((t.by_identity | self._reached()).items()),
            twice=self._twice(),
            modules=modules,
            asked=tuple(t.asked()),
            needs_grad=needs_grad,
            pulls=tuple(t.pulls),
            input_names=self._names,
        )

    # --- what comes out

    def _output(self, node: Any) -> int:
        for i, known in enumerate(self.outputs):
            if known is node:
                return i
        self.outputs.append(node)
        return len(self.outputs) - 1

    def _result(self, leaf: Any) -> Result:
        if isinstance(leaf, Traced):
            raise self.tracer.refuse("returning what an update rule works on", "return tensors")
        if not isinstance(leaf, Node):
            return Result("itself", leaf)
        index = self.stand_ins.get(id(leaf))
        if index is not None:
            return Result("argument", index)
        if leaf.array is not None and leaf.made < self.tracer.started:
            return Result("itself", leaf)
        return Result("output", self._output(self.tracer.read(leaf)))

    def _updates(self) -> list[tuple[Any, Any]]:
        """(input, new value) of all that was updated in place or counted."""
        t = self.tracer
        found = []
        for symbol, place in zip(t.inputs, t.places, strict=True):
            match place:
                case State(name=name, optimizer=optimizer, param=param):
                    now = _value(t.states[id(optimizer), id(param)].entries[name])
                case Argument() | Captured() | OldGradient():
                    now = t.value_of_input(symbol)
                case Option() | Stream():
                    continue
            if now is not symbol:
                found.append((symbol, now))
        return found

    def _created(self) -> tuple[tuple[State, int], ...]:
        found = []
        for kept in self.tracer.states.values():
            for name in kept.created:
                place = State(kept.optimizer, kept.param, name, counts=False, initial=None)
                found.append((place, self._output(_value(kept.entries[name]))))
        return tuple(found)

    def _gradients(self, updates: Sequence[tuple[Any, Any]]) -> tuple[Gradient, ...]:
        t = self.tracer
        created = [_value(kept.entries[name]) for kept in t.states.values() for name in kept.created]
        used = {id(x) for x in ancestors([value for _, value in updates] + created)}
        found = []
        for owner, grad in t.grads.values():
            if owner.made > t.started and id(owner) not in self.stand_ins:
                continue  # made in the function, and gone with it
            holder = t.holder(owner)
            if grad is None or not isinstance(grad, Node) or (grad.array is not None and grad.made < t.started):
                old = owner._grad
                if grad is not old or grad is None:
                    found.append(Gradient(holder, None, grad))
                continue
            now = t.read(grad)
            if t.is_input(grad):
                continue  # the one that was there; what became of it is an update
            if (id(now) in used or id(grad) in used) and id(owner) not in t.first_reads and not self.keep_grads:
                found.append(Gradient(holder, None, None, used_up=True))
            else:
                found.append(Gradient(holder, self._output(now), None))
        return tuple(found)

    # --- the program

    def _program(self, updates: list[tuple[Any, Any]]) -> tuple[Program, tuple[Place, ...]]:
        t = self.tracer
        roots = [*self.outputs, *(value for _, value in updates)]
        if t.opaques:
            roots = _without_opaques(roots, t.opaques)
        outputs, values = roots[: len(self.outputs)], roots[len(self.outputs) :]
        used = {id(x) for x in ancestors(roots)} | {id(x) for x, _ in updates}
        pairs = [(x, p) for x, p in zip(t.inputs, t.places, strict=True) if id(x) in used]
        program = Program(
            inputs=tuple(x for x, _ in pairs),
            outputs=tuple(outputs),
            updates=tuple((x, value) for (x, _), value in zip(updates, values, strict=True)),
        )
        return program, tuple(p for _, p in pairs)

    def _refuse_overlaps(self, program: Program, places: Sequence[Place]) -> None:
        """What is updated shares no memory with anything else that is read."""
        arrays = [self._array(place) for place in places]
        spans = np.array([byte_bounds(a) if a is not None and a.size else (0, 0) for a in arrays]).reshape(-1, 2)
        updated = {id(x) for x, _ in program.updates}
        for i, x in enumerate(program.inputs):
            if id(x) not in updated or arrays[i] is None:
                continue
            first, behind = spans[i]
            for j in np.flatnonzero((spans[:, 0] < behind) & (first < spans[:, 1])):
                if j != i and share_memory(arrays[i], arrays[j]):
                    y = program.inputs[j]
                    self._names.give(program, places)
                    raise at_user_line(TraceError(
                        f"compile: {x.symbol} {x.aval} is updated in place and shares memory with {y.symbol} {y.aval}; "
                        f"give one of them memory of its own with .clone(), or use the tensor itself in both places"
                    ))  # fmt: skip

    def _array(self, place: Place) -> Any:
        match place:
            case Argument(index=index):
                leaf = self.given.leaves[index]
                return leaf.array if isinstance(leaf, Node) else leaf
            case Captured(tensor=tensor):
                return tensor.array
            case OldGradient(holder=holder):
                owner = self.given.leaves[holder.index] if isinstance(holder, Argument) else holder.tensor
                return owner._grad.array
            case State():
                return place.optimizer.state.get(place.param, {}).get(place.name) if not place.counts else None
            case _:
                return None

    # --- for guards

    def _state_guards(self) -> list[Guard]:
        return [guard for kept in self.tracer.states.values() for guard in kept.guards()]

    def _reached(self) -> dict[int, Any]:
        """Trained arguments, by position, that the function may reach in another way too, of which this was found out.

        Given another tensor there, it would still mean this one wherever it reached it in the other way.
        """
        leaves = {id(x): i for i, x in enumerate(self.given.leaves) if isinstance(x, Node) and id(x) in self.stand_ins}
        if not leaves:
            return {}
        t = self.tracer
        variables = {v.name: v.value for v in named_values(self.function)}
        variables["self"] = getattr(self.function, "__self__", None)
        members = (x for m in t.modules.values() for x in (*m.parameters(), *m.buffers()))
        trained = (x for o in t.optimizers.values() for group in o.param_groups for x in group["params"])
        return {leaves[id(x)]: x for x in (*tensors_in(variables), *members, *trained) if id(x) in leaves}

    def _twice(self) -> tuple[tuple[int, int], ...]:
        leaves = self.given.leaves
        return tuple((i, first) for i, first in enumerate(firsts(leaves)) if first < i and is_dynamic(leaves[i]))

    def _modules(self) -> tuple[Any, ...]:
        found: dict[int, Any] = {}
        for called in self.tracer.modules.values():
            if id(called) not in found:  # else all that it holds is there too
                found |= {id(module): module for _, module in called.named_modules()}
        return tuple(found.values())


def _value(entry: Any) -> Any:
    """The node of what a state holds under a name."""
    if isinstance(entry, Cell | Number):
        return entry.node
    return Tensor.filled(Aval((), np.dtype(np.int64)), entry)


def _without_opaques(roots: list[Any], computed: dict[int, Any]) -> list[Any]:
    """The roots with each value whose backward is a user's own replaced by how its forward computed it."""
    new: dict[int, Any] = {}
    for node in ancestors([*roots, *computed.values()]):
        if id(node) in computed:
            value = computed[id(node)]
            new[id(node)] = new.get(id(value), value)
        elif any(id(x) in new for x in node.inputs):
            inputs = tuple(new.get(id(x), x) for x in node.inputs)
            again = make(
                type(node), node.op, inputs, node.params, None, node.aval, node.requires_grad, node.trail
            )  # fmt: skip
            again.scope = node.scope
            new[id(node)] = again
    return [new.get(id(root), root) for root in roots]
