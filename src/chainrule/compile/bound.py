"""Bound: a traced function with its executable, ready to be called. On the path of every step, so written for speed.

A call looks whether what the trace took for granted still holds, hands on arrays that are others than last time, runs,
and puts results where they belong. Whatever is as in the last call costs one comparison.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, final

import numpy as np

from chainrule.compile.executable import Executable
from chainrule.compile.outcome import Outcome
from chainrule.compile.places import Argument, Captured, Holder, OldGradient, Option, State, Stream
from chainrule.core.memory import note_change, note_owned
from chainrule.core.node import NO_PARAMS, RECORD, Cut, Node, make, recording_mode, tick
from chainrule.core.tracing import module_changes
from chainrule.tensor import Tensor
from chainrule.tree import rebuild


class _Miss:
    """The answer of a trace that does not fit the call."""


MISS: Any = _Miss()
_NO_GRAPH = Cut("compile: a compiled function gives values without a graph; call backward() inside it", ())


@final
class Bound:
    """One trace of a function, and the executable of its program.

    outcome: the trace.
    types: the class of each leaf of the arguments.
    flat: are they all tensors and arrays, and given by position?
    arity: how many there are.
    """

    def __init__(
        self, outcome: Outcome, executable: Executable, types: Sequence[type[Any]], *, flat: bool
    ) -> None:  # fmt: skip
        self.outcome, self.executable, self.flat, self.arity = outcome, executable, flat, len(types)
        program, places = outcome.program, outcome.places
        self._avals = [x.aval for x in program.inputs]
        self._updated = {id(x) for x, _ in program.updates}
        self._writes = [id(x) in self._updated for x in program.inputs]
        self._arrays: list[Any] = [None] * len(places)  # what each place held at the last call
        self._table: list[Any] = [None] * len(places)  # what the executable reads: the same, or a copy
        self._copied: list[int] = []  # places of which the executable reads a copy
        self._binding: Any = None
        numbers = [i for i, p in enumerate(places) if isinstance(p, Option)]
        counts = [i for i, p in enumerate(places) if isinstance(p, State) and p.counts]
        streams = [i for i, p in enumerate(places) if isinstance(p, Stream)]
        self._numbers, self._counts = np.zeros(len(numbers)), np.zeros(len(counts), np.int64)
        self._keys = np.zeros((len(streams), 2), np.int64)
        for cells, positions in ((self._numbers, numbers), (self._counts, counts)):
            for n, i in enumerate(positions):
                self._table[i] = cells[n : n + 1].reshape(())
        for n, i in enumerate(streams):
            self._table[i] = self._keys[n]
        self._number_places = [places[i] for i in numbers]
        self._option_names = list(outcome.option_names)
        self._options_seen: list[Any] = [MISS] * len(self._option_names)
        self._arguments = [
            (place.index, i, types[place.index], *self._expected(i), program.inputs[i].requires_grad, self._writes[i])
            for i, place in enumerate(places) if isinstance(place, Argument)
        ]  # fmt: skip
        self._captured = [
            (place.tensor, i, outcome.program.inputs[i].requires_grad)
            for i, place in enumerate(places) if isinstance(place, Captured)
        ]  # fmt: skip
        self._old = [(place.holder, i) for i, place in enumerate(places) if isinstance(place, OldGradient)]
        self._states = [(place, i) for i, place in enumerate(places) if isinstance(place, State) and not place.counts]
        self._state_places = [place for place in places if isinstance(place, State)]
        self._count_places: list[Any] = [places[i] for i in counts]
        self._counts_seen: list[Any] = [MISS] * len(counts)
        self._streams = [
            (p.generator, p.blocks[0], n) for n, i in enumerate(streams) if isinstance(p := places[i], Stream)
        ]
        self._optimizers = list({id(p.optimizer): p.optimizer for p in places if isinstance(p, State)}.values())
        self._entries: list[Any] = []  # dicts of optimisers' states, looked up once for each `optimizer.state`
        self._count_entries: list[Any] = []
        self._seen_states: list[Any] = [MISS] * len(self._optimizers)
        self._modules = [(module, _attributes(module)) for module in outcome.modules]
        self._modules_seen = module_changes[0]
        self._changed = [p.tensor for i, p in enumerate(places) if self._writes[i] and isinstance(p, Captured)]
        self._changed_arguments = [p.index for i, p in enumerate(places) if self._writes[i] and isinstance(p, Argument)]
        self._owners: list[int] = []  # ids of the memory of what `_changed` holds
        self._owners_set: set[int] = set()
        self._cleared = [
            g.holder.tensor for g in outcome.gradients
            if g.output is None and g.value is None and isinstance(g.holder, Captured)
        ]  # fmt: skip
        self._stored = [
            g for g in outcome.gradients
            if not (g.output is None and g.value is None and isinstance(g.holder, Captured))
        ]  # fmt: skip
        self._absent = [h.tensor for h in outcome.absent if isinstance(h, Captured)]
        self._absent_arguments = [h.index for h in outcome.absent if isinstance(h, Argument)]
        self._only = outcome.tree.is_leaf() and outcome.results[0].kind == "output"

    def _expected(self, position: int) -> tuple[Any, Any]:
        aval = self._avals[position]
        return aval.shape, aval.dtype

    # --- one call

    def call(self, leaves: Sequence[Any]) -> Any:
        """The function's result for these arguments, or MISS where the trace does not fit them."""
        if not self._holds(leaves) or (self._more and not self._rest_holds(leaves)):
            return MISS
        binding = self._binding
        if binding is None:
            binding = self._binding = bind(self.executable, self._table)
        outputs = binding.run()
        if self._noted:
            self._note(leaves)
        if self._count_places:
            self._counts_seen = self._counts.tolist()
            for entries, name, n in self._count_entries:
                entries[name] = self._counts_seen[n]
        for x in self._cleared:
            x._grad = None
        if self._stored:
            self._store(leaves, outputs)
        if self._only:
            value = make(Tensor, None, (), NO_PARAMS, outputs[0], None, False, None)
            value.cut = self._cut
            return value
        return self._result(leaves, outputs)

    def _holds(self, leaves: Sequence[Any]) -> bool:  # noqa: C901, PLR0911 - in one piece: it is on the path of every step
        """Does what nearly every function reads still fit? Arrays that are others than last time are handed on."""
        arrays = self._arrays
        for index, position, cls, shape, dtype, needs_grad, writes in self._arguments:
            x = leaves[index]
            if type(x) is not cls:
                return False
            data = x
            if cls.__flags__ & _HEAP:  # a tensor: NumPy's own classes are not made at run time
                if x.requires_grad is not needs_grad:
                    return False
                data = x.data
            if data is not arrays[position]:
                if data.shape != shape or data.dtype != dtype:
                    return False
                base = data.base if cls is not np.generic else None
                if (
                    writes or data.flags.num & _PLAIN_MEMORY != _PLAIN_MEMORY or self._copied
                    or (base is not None or id(data) in self._owned)
                ):  # fmt: skip
                    if not self._hand_on(position, data, x):
                        return False
                elif self._binding is not None:
                    arrays[position] = self._table[position] = data
                    self._binding.replace(position, data)
                else:
                    arrays[position] = self._table[position] = data
        return True
    # --- what has changed since the last call

    def _hand_on(self, position: int, data: np.ndarray, holder: Any) -> bool:
        """Another array is at a place. Where the executable cannot work on it as it is, it gets a copy."""
        flags = data.flags
        writes = self._writes[position]
        if flags.c_contiguous and flags.aligned and (flags.writeable or not writes):
            given = data
            if self._copied and position in self._copied:
                self._copied.remove(position)
        else:
            given = np.array(data, order="C")
            if writes and isinstance(holder, Node) and (not flags.writeable or 0 in data.strides):
                holder.data = data = given  # as an update in place does: memory of its own
            elif writes and not flags.writeable:
                return False
            elif position not in self._copied:
                self._copied.append(position)
        owner = data
        while owner.base is not None and isinstance(owner.base, np.ndarray):
            owner = owner.base
        if id(owner) in self._owners_set and not writes and self._shares(position, data):
            return False
        self._arrays[position] = data
        self._table[position] = given
        if self._binding is not None:
            self._binding.replace(position, given)
        return True

    def _shares(self, position: int, data: np.ndarray) -> bool:
        """Does this array, which is only read, share memory with one that is updated?"""
        return any(
            writes and i != position and self._arrays[i] is not None and np.may_share_memory(self._arrays[i], data)
            for i, writes in enumerate(self._writes)
        )

    def _captured_anew(self, x: Any, position: int, data: Any) -> bool:
        shape, dtype = self._expected(position)
        if data is None or data.shape != shape or data.dtype != dtype or not self._hand_on(position, data, x):
            return False
        if self._writes[position]:
            x.constant = None
            self._owners = [id(o) for y in self._changed if (o := _owner(y.data)) is not None]
            self._owners_set = {id(_base(y.data)) for y in self._changed}
        return True

    def _options_anew(self) -> bool:
        for guard in self.outcome.option_guards:
            if not guard.holds():
                self._options_seen = [MISS] * len(self._option_names)
                return False
        for n, place in enumerate(self._number_places):
            self._numbers[n] = place.read()  # type: ignore[union-attr]
        return True

    def _states_anew(self) -> bool:
        try:
            for place in self._state_places:  # in the order in which the rule sets them
                place.entries()
            self._entries = [place.entries() for place, _ in self._states]
            self._count_entries = [place.entries() for place in self._count_places]
        except KeyError:
            return False
        self._seen_states = [optimizer.state for optimizer in self._optimizers]
        self._counts_seen = [MISS] * len(self._counts_seen)
        return True

    def _modules_hold(self) -> bool:
        seen = module_changes[0]
        if any(_attributes(module) != attributes for module, attributes in self._modules):
            return False
        self._modules_seen = seen
        return True

    def _bind(self) -> bool:
        self._binding = self.executable.bind(list(self._table))
        return True

    def _copy_in(self) -> None:
        for position in self._copied:
            np.copyto(self._table[position], self._arrays[position])

    # --- after the run

    def _note(self, leaves: Sequence[Any]) -> None:
        """What was updated counts as changed in place, as after an update that was not compiled."""
        for position in self._copied:
            if self._writes[position]:
                np.copyto(self._arrays[position], self._table[position])
        when = tick()
        for x in self._changed:
            x.mutated = when
        if len(self._owners) != len(self._changed) or not note_owned(self._owners, when):
            for x in self._changed:
                note_change(x.data, when)
        for index in self._changed_arguments:
            x = leaves[index]
            if isinstance(x, Node):
                x.mutated = when
            note_change(x.data if isinstance(x, Node) else x, when)

    def _store(self, leaves: Sequence[Any], outputs: list[np.ndarray]) -> None:
        for holder, output, value in self._stored:
            owner = _held(holder, leaves)
            owner._grad = value if output is None else Tensor.leaf(outputs[output])
        for place, output in self.outcome.created:
            place.optimizer.state.setdefault(place.param, {})[place.name] = outputs[output]

    def _result(self, leaves: Sequence[Any], outputs: list[np.ndarray]) -> Any:
        cut = _NO_GRAPH if self.outcome.needs_grad and recording_mode() is RECORD else None
        made = []
        for kind, value in self.outcome.results:
            if kind == "output":
                tensor = make(Tensor, None, (), NO_PARAMS, outputs[value], None, False, None)
                tensor.cut = cut
                made.append(tensor)
            else:
                made.append(leaves[value] if kind == "argument" else value)
        return rebuild(self.outcome.tree, made)

    def why_not(self, leaves: Sequence[Any]) -> str:
        """In words, what of the trace no longer holds."""
        for guard in (*self.outcome.guards, *self.outcome.option_guards):
            if not guard.holds():
                return f"{guard.words} changed"
        for module, attributes in self._modules:
            now = _attributes(module)
            for name in {**attributes, **now}:
                if attributes.get(name) != now.get(name):
                    return f"{name} of a {type(module).__name__} changed"
        if any(x._grad is not None for x in self._absent):
            return "a tensor has a .grad where there was none"
        if any(len(found) != size for found, size in self.outcome.sizes):
            return "the parameters of an optimiser changed"
        if any(x.data is None or x.data.shape != self._avals[i].shape for x, i, _ in self._captured):
            return "a tensor that is closed over has another shape"
        return "a tensor that is closed over changed, or the state of an optimiser"


_SIGN = 2**63


def _held(holder: Holder, leaves: Sequence[Any]) -> Any:
    return leaves[holder.index] if isinstance(holder, Argument) else holder.tensor


def _owner(data: Any) -> Any:
    """The array, if it owns its memory."""
    return data if data is not None and not isinstance(data.base, np.ndarray) else None


def _base(data: np.ndarray) -> np.ndarray:
    while isinstance(data.base, np.ndarray):
        data = data.base
    return data


_PLAIN = (bool, int, float, str, type(None))


def _attributes(module: Any) -> dict[str, Any]:
    """What a forward may read of its module: plain values as they are, all else by identity."""
    found = {name: value if isinstance(value, _PLAIN) else id(value) for name, value in vars(module).items()}
    found.setdefault("training", module.training)
    return found

