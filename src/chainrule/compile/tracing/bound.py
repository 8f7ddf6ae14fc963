"""Bound: a traced function with its executable, ready to be called. On the path of every step, so written for speed.

A call looks whether what the trace took for granted still holds, hands on arrays that are others than last time, runs,
and puts results where they belong. Whatever is as it was in the last call costs one comparison.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, final

import numpy as np

from chainrule.compile.executable import Executable
from chainrule.compile.tracing.faults import out_of_range
from chainrule.compile.tracing.no_graph import no_graph
from chainrule.compile.tracing.optimizing import is_number
from chainrule.compile.tracing.outcome import Outcome
from chainrule.compile.tracing.places import Argument, Captured, Holder, OldGradient, Option, State, Stream, is_same
from chainrule.compile.tracing.signature import Arguments, is_dynamic
from chainrule.compile.tracing.straight import MISS, Call, Straight
from chainrule.compile.tracing.table import PLAIN_MEMORY, Table
from chainrule.core.group import Group
from chainrule.core.group import changes as group_changes
from chainrule.core.memory import Record, latest_change, note_change, owner_of, record_of
from chainrule.core.node import NO_PARAMS, Node, make, tick
from chainrule.core.tracing import module_changes
from chainrule.errors import OutOfRangeError
from chainrule.tensor import Tensor
from chainrule.tree import Spec, rebuild

_SIGN = 2**63


@final
class Bound:
    """One trace of a function, and the executable of its program.

    outcome: the trace.
    flat: are all arguments tensors and arrays, given by position?
    arity: how many there are.
    """

    def __init__(self, outcome: Outcome, executable: Executable, given: Arguments, *, flat: bool) -> None:
        self.outcome, self.executable, self.flat = outcome, executable, flat
        places, leaves = outcome.places, given.leaves
        self.arity, self.spec = len(leaves), given.spec
        self.statics = [(i, x) for i, x in enumerate(leaves) if not is_dynamic(x)]
        self._trained = [i for i, x in enumerate(leaves) if isinstance(x, Node) and x.requires_grad and x.op is None]
        self._same = _firsts(self._trained, leaves)
        self.table = table = Table(outcome.program, places)
        self.run = self._first_run
        self._arguments = [
            (p.index, i, type(leaves[p.index]), getattr(leaves[p.index], "requires_grad", None))
            for i, p in enumerate(places) if isinstance(p, Argument)
        ]  # fmt: skip
        self._captured = [
            (p.tensor, i, p.tensor.requires_grad) for i, p in enumerate(places) if isinstance(p, Captured)
        ]
        self._modules = [(module, _attributes(module)) for module in outcome.modules]
        self._modules_seen = module_changes[0]
        self._set_optimizers()
        self._old = [(p.holder, i) for i, p in enumerate(places) if isinstance(p, OldGradient)]
        self._absent = [h.tensor for h in outcome.absent if isinstance(h, Captured)]
        self._absent_arguments = [h.index for h in outcome.absent if isinstance(h, Argument)]
        streams = [p for p in places if isinstance(p, Stream)]
        self._streams = [(p.generator, p.blocks[0], key) for p, key in zip(streams, table.keys, strict=True)]
        self._more = bool(
            self._states or self._old or self._absent_arguments or outcome.by_identity or streams
            or len(self._trained) > 1
        )  # fmt: skip
        # after the run
        self._changed = [p.tensor for i, p in enumerate(places) if table.writes[i] and isinstance(p, Captured)]
        self._changed_arguments = [p.index for i, p in enumerate(places) if table.writes[i] and isinstance(p, Argument)]
        self._records: list[Record] | None = None  # of the memory of what `_changed` holds, once looked up
        forgotten = [
            g.holder for g in outcome.gradients
            if g.output is None and g.value is None and isinstance(g.holder, Captured)
        ]  # fmt: skip
        self._cleared = [h.tensor for h in forgotten]
        self._stored = [g for g in outcome.gradients if g.holder not in forgotten]
        self._stores = bool(self._stored or outcome.created)
        self._only = outcome.tree.is_leaf() and outcome.results[0].kind == "output"
        self._cuts = [no_graph(self, i) if outcome.needs_grad else None for i in range(len(outcome.program.outputs))]
        self._cut = self._cuts[0] if self._only else None
        self.call = self._straight()

    def _set_optimizers(self) -> None:
        places = self.outcome.places
        self._options = list(self.outcome.option_names)
        self._options_seen: list[Any] = [MISS] * len(self._options)
        self._groups_seen: object = None
        self._numbers = [p for p in places if isinstance(p, Option)]
        self._states = [(i, p) for i, p in enumerate(places) if isinstance(p, State)]
        self._optimizers = list({id(p.optimizer): p.optimizer for _, p in self._states}.values())
        self._seen_states: list[tuple[Any, int]] = [(MISS, 0)] * len(self._optimizers)
        self._entries: list[tuple[dict[str, Any], str, int]] = []  # where the arrays are, for each `optimizer.state`
        self._count_entries: list[tuple[dict[str, Any], str, int]] = []
        self._counts_seen: list[Any] = []

    def takes(self, leaves: Sequence[Any], spec: Spec) -> bool:
        """Do arguments of this tree hold the very numbers, modules and so on that the trace was made with?"""
        return spec == self.spec and all(leaves[index] is value for index, value in self.statics)

    # --- one call

    def _first_run(self) -> list[np.ndarray]:
        self.run = self.table.bind(self.executable).run
        return self.run()

    def out_of_range(self) -> OutOfRangeError:
        """The error for a call in which an index was out of range."""
        return out_of_range(self.outcome.program, self.table.given, self.outcome.pulls)

    def _straight(self) -> Call:
        """The code of a call: the function's result for some arguments, or MISS where the trace does not fit them."""
        code = Straight()
        self._write_checks(code)
        code.line(f"if {code.name(self.table.copied)}: bound.table.copy_in()")
        code.line("fault = None")
        code.line("try: outputs = bound.run()")
        code.line(f"except {code.name(OutOfRangeError)}: fault = bound.out_of_range()")
        self._write_notes(code)
        if self._only:
            tensor, no_params, cut = code.name(Tensor), code.name(NO_PARAMS), code.name(self._cut)
            code.line(f"value = {code.name(make)}({tensor}, None, (), {no_params}, outputs[0], None, False, None)")
            code.line(f"value.cut = {cut}")
            code.line("return value")
        else:
            code.line("return bound._result(leaves, outputs)")
        return code.written()

    def _write_checks(self, code: Straight) -> None:
        """Does what was taken for granted still hold? Arrays that are others than last time are handed on."""
        self._write_arguments(code)
        for index, earlier in self.outcome.twice:
            code.unless(f"leaves[{index}] is not leaves[{earlier}]")
        arrays = code.name(self.table.arrays)
        for tensor, position, needs_grad in self._captured:
            x = code.name(tensor)
            code.unless(f"{x}._requires_grad is not {needs_grad}")
            code.unless(f"{x}.array is not {arrays}[{position}]", f"bound._captured_anew({x}, {position})")
        self._write_others(code)
        for holder, before, _ in self.outcome.asked:
            x = code.name(holder.tensor) if isinstance(holder, Captured) else f"leaves[{holder.index}]"
            code.unless(f"{x}._requires_grad is not {before}")
        for tensor in self._absent:
            code.unless(f"{code.name(tensor)}._grad is not None")
        self._write_options(code)
        for guard in self.outcome.guards:
            if isinstance(guard.place, dict):
                other = f"{code.name(guard.place)}.get({guard.name!r}) is not {code.name(guard.expected)}"
            elif guard.place is not None:
                other = f"{code.name(guard.place)}.cell_contents is not {code.name(guard.expected)}"
            else:
                other = "True"
            code.unless(other, f"{code.name(guard.holds)}()")
        code.unless(f"{code.name(module_changes)}[0] != bound._modules_seen", "bound._modules_hold()")
        if self._more:
            code.unless("not bound._rest_holds(leaves)")

    def _write_others(self, code: Straight) -> None:
        """Is an argument now a tensor that was another one while tracing, where that matters to gradients?"""
        known = {*self.outcome.twice, *((i, j) for j, i in self.outcome.twice)}
        captured = frozenset(id(x) for x, _, needs_grad in self._captured if needs_grad)
        for index in self._trained if captured else ():
            code.unless(f"id(leaves[{index}]) in {code.name(captured)}")
        for holder, _, _ in self.outcome.asked:
            for index, *_ in self._arguments:
                if isinstance(holder, Captured):
                    code.unless(f"leaves[{index}] is {code.name(holder.tensor)}")
                elif index != holder.index and (index, holder.index) not in known:
                    code.unless(f"leaves[{index}] is leaves[{holder.index}]")

    def _write_options(self, code: Straight) -> None:
        if all(isinstance(group, Group) for group, _ in self._options):
            if self._options:
                code.unless(f"{code.name(group_changes)}[0] is not bound._groups_seen", "bound._options_anew()")
        else:  # dicts that somebody put in their place
            seen = code.name(self._options_seen)
            for n, (group, name) in enumerate(self._options):
                code.unless(f"{code.name(group)}[{name!r}] is not {seen}[{n}]", "bound._options_anew()")
        for listed, size in self.outcome.sizes:
            code.unless(f"len({code.name(listed)}) != {size}")
        for optimizer, groups, members in self.outcome.groups:
            own_list = code.name(groups)
            code.unless(f"{code.name(optimizer)}.param_groups is not {own_list} or len({own_list}) != {len(members)}")
            for n, group in enumerate(members):
                own, params = code.name(group), code.name(group["params"])
                code.unless(f"{own_list}[{n}] is not {own} or {own}['params'] is not {params}")

    def _write_arguments(self, code: Straight) -> None:
        table = self.table
        t, arrays, hand_on = code.name(table), code.name(table.arrays), code.name(table.hand_on)
        ndarray = code.name(np.ndarray)
        for index, position, cls, needs_grad in self._arguments:
            code.line(f"x = leaves[{index}]")
            if needs_grad is None:  # an array, or a NumPy scalar
                code.unless(f"type(x) is not {code.name(cls)}")
                code.line(f"data = {code.name(np.asarray)}(x)")
            else:
                code.unless(f"type(x) is not {code.name(cls)} or x._requires_grad is not {needs_grad}")
                code.line("data = x.array")
            other = f"data is not {arrays}[{position}]"
            if not table.writes[position]:
                (shape, dtype), seen = table.avals[position], code.name(table.seen[position])
                given = f"{code.name(table.given)}[{position}]"
                fits = f"data.shape == {shape} and data.dtype is {code.name(dtype)}"
                code.line(f"if {other} and {fits} and not {code.name(table.copied)}:")
                code.line(f"    known = {seen}.get(id(data))")
                code.line("    if known is not None and known[0]() is data:")
                code.line(f"        {arrays}[{position}] = {given} = data")
                code.line(f"        {t}.addresses[{position}] = known[1]")
                code.line(
                    f"    elif data.flags.num & {PLAIN_MEMORY} == {PLAIN_MEMORY}"
                    f" and not isinstance(data.base, {ndarray}) and id(data) not in {t}.owned:"
                )  # as a batch is that was just made: nothing else can share its memory
                code.line(f"        {arrays}[{position}] = None")  # until it is handed on: that may be interrupted
                code.line(f"        {given} = data")
                code.line(f"        {t}.remember({position}, data)")
                code.line(f"        {arrays}[{position}] = data")
            code.unless(other, f"{hand_on}({position}, data, x)")

    def _write_notes(self, code: Straight) -> None:
        """What was updated counts as changed in place, as after an update that was not compiled."""
        code.line(f"if {code.name(self.table.copied)}: bound.table.copy_back()")
        if self._changed:
            changed = "".join(f"{code.name(x)}.mutated = " for x in self._changed)
            code.line(f"{changed}when = {code.name(tick)}()")
            code.line("if bound._records is None: bound._note_anew(when)")
            code.line("else:")
            code.line("    for record in bound._records: record.whole = when")
            code.line(f"    {code.name(latest_change)}[0] = when")
        for index in self._changed_arguments:
            code.line(f"bound._note_argument(leaves[{index}])")
        if self._states:
            code.line("if bound._count_entries: bound._note_counts()")
        for x in self._cleared:
            code.line(f"{code.name(x)}._grad = None")
        for holder, before, after in self.outcome.asked:
            if before != after:
                x = code.name(holder.tensor) if isinstance(holder, Captured) else f"leaves[{holder.index}]"
                code.line(f"{x}._requires_grad = {after}")
        code.line("if fault is not None: raise fault from None")  # the updates have been made
        if self._stores:
            code.line("bound._store(leaves, outputs)")

    def _rest_holds(self, leaves: Sequence[Any]) -> bool:
        """Does what fewer functions read fit: optimisers' states, old gradients, random streams?"""
        for index, x in self.outcome.by_identity:
            if leaves[index] is not x:
                return False
        for index in self._absent_arguments:
            if leaves[index]._grad is not None:
                return False
        if len(self._trained) > 1 and _firsts(self._trained, leaves) != self._same:
            return False
        arrays = self.table.arrays
        for holder, position in self._old:
            grad = _held(holder, leaves)._grad
            if grad is None or grad.array is None:
                return False
            if grad.array is not arrays[position] and not self.table.hand_on(position, grad.array, grad):
                return False
        if self._states and not self._states_hold():
            return False
        for generator, blocks, key in self._streams:
            seed, counter = generator.take(blocks)
            key[0], key[1] = seed if seed < _SIGN else seed - 2 * _SIGN, counter
        return True

    def _states_hold(self) -> bool:
        arrays = self.table.arrays
        for optimizer, (seen, size) in zip(self._optimizers, self._seen_states, strict=True):
            if (optimizer.state is not seen or len(seen) != size) and not self._states_anew():
                return False
        try:
            for entries, name, position in self._entries:
                data = entries[name]
                if data is not arrays[position] and not self.table.hand_on(position, data, None):
                    return False
            for entries, name, n in self._count_entries:
                value = entries[name]
                if value is not self._counts_seen[n]:
                    self.table.counts[n] = value
        except (KeyError, AttributeError):  # an entry was deleted, or is of another kind: looked up anew next time
            self._seen_states = [(MISS, 0)] * len(self._optimizers)
            return False
        return True

    # --- what has changed since the last call

    def _captured_anew(self, x: Any, position: int) -> bool:
        if x.array is None or not self.table.hand_on(position, x.array, x):
            return False
        if self.table.writes[position]:
            x.constant = None
            self._records = None
        return True

    def _options_anew(self) -> bool:
        seen = group_changes[0]
        if not all(guard.holds() for guard in self.outcome.option_guards):
            return False
        for n, place in enumerate(self._numbers):
            value = place.read()
            if not is_number(value):
                return False  # traced anew, the rule says what it thinks of that
            self.table.numbers[n] = value
        self._options_seen[:] = [group[name] for group, name in self._options]
        self._groups_seen = seen
        return True

    def _states_anew(self) -> bool:
        try:
            found = [(place.entries(), place.name, i, place.counts) for i, place in self._states]
        except KeyError:
            return False
        self._entries = [(entries, name, i) for entries, name, i, counts in found if not counts]
        counted = [(entries, name) for entries, name, _, counts in found if counts]
        self._count_entries = [(entries, name, n) for n, (entries, name) in enumerate(counted)]
        self._counts_seen = [MISS] * len(counted)
        self._seen_states = [(optimizer.state, len(optimizer.state)) for optimizer in self._optimizers]
        return True

    def _modules_hold(self) -> bool:
        seen = module_changes[0]
        if any(_other(_attributes(module), before) for module, before in self._modules):
            return False
        self._modules_seen = seen
        return True

    # --- after the run

    def _note_anew(self, when: int) -> None:
        for x in self._changed:
            note_change(x.array, when)
        whole = all(owner_of(x.array) is x.array for x in self._changed)
        self._records = [record_of(x.array) for x in self._changed] if whole else None

    def _note_argument(self, leaf: Any) -> None:
        if isinstance(leaf, Node):
            leaf.changed()
        else:
            note_change(leaf, tick())

    def _note_counts(self) -> None:
        self._counts_seen = counts = self.table.counts.tolist()
        for entries, name, n in self._count_entries:
            entries[name] = counts[n]

    def _store(self, leaves: Sequence[Any], outputs: list[np.ndarray]) -> None:
        for holder, output, value, _ in self._stored:
            _held(holder, leaves)._grad = value if output is None else Tensor.leaf(outputs[output])
        for place, output in self.outcome.created:
            place.optimizer.state.setdefault(place.param, {})[place.name] = outputs[output]

    def _result(self, leaves: Sequence[Any], outputs: list[np.ndarray]) -> Any:
        made: list[Any] = []
        for kind, value in self.outcome.results:
            if kind == "output":
                tensor = make(Tensor, None, (), NO_PARAMS, outputs[value], None, False, None)
                tensor.cut = self._cuts[value]
                made.append(tensor)
            else:
                made.append(leaves[value] if kind == "argument" else value)
        return rebuild(self.outcome.tree, made)

    def why_not(self, leaves: Sequence[Any]) -> str:
        """In words, what of the trace no longer holds."""
        for guard in (*self.outcome.guards, *self.outcome.option_guards):
            if not guard.holds():
                return f"{guard.words} changed"
        for module, before in self._modules:
            for name in _other(_attributes(module), before):
                return f"{name} of a {type(module).__name__} changed"
        if any(x._grad is not None for x in self._absent):
            return "a tensor has a .grad where there was none"
        listed = [(x.param_groups, groups, members) for x, groups, members in self.outcome.groups]
        if any(len(found) != size for found, size in self.outcome.sizes) or any(
            now is not groups or not _are_same(now, members) for now, groups, members in listed
        ):
            return "the parameters of an optimiser changed"
        if any(leaves[index] is not x for index, x in self.outcome.by_identity):
            return "another tensor is given, for which the optimiser keeps nothing"
        for x, i, needs_grad in self._captured:
            if x.requires_grad is not needs_grad or x.array is None or x.aval != self.table.avals[i]:
                self.outcome.name_inputs()
                return f"{self.outcome.program.inputs[i].symbol} was {self.table.avals[i]}, is now {x.aval}"
        return "which tensors share memory changed, or the state of an optimiser"


def _firsts(trained: Sequence[int], leaves: Sequence[Any]) -> list[int]:
    """For each tensor that is trained, where it stands first among the arguments."""
    first: dict[int, int] = {}
    return [first.setdefault(id(leaves[i]), i) for i in trained]


def _held(holder: Holder, leaves: Sequence[Any]) -> Any:
    return leaves[holder.index] if isinstance(holder, Argument) else holder.tensor


def _attributes(module: Any) -> dict[str, Any]:
    """What a forward may read of its module."""
    return {"training": module.training, **vars(module)}


def _are_same(now: Sequence[Any], before: Sequence[Any]) -> bool:
    return len(now) == len(before) and all(x is y for x, y in zip(now, before, strict=True))


def _other(now: dict[str, Any], before: dict[str, Any]) -> list[str]:
    """The names of attributes that are others than before."""
    return [name for name in {**before, **now} if not is_same(now.get(name, MISS), before.get(name, MISS))]
