"""What an optimiser's update rule is given while it is traced: a group's options, and what is kept for a parameter."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, MutableMapping
from typing import TYPE_CHECKING, Any, final

import numpy as np

from chainrule import dtypes
from chainrule.compile.tracing.cells import Cell, Number
from chainrule.compile.tracing.places import Guard, Option, State
from chainrule.core.aval import Aval

if TYPE_CHECKING:
    from chainrule.compile.tracing.trace import GraphTracer


@final
class Options(Mapping[str, Any]):
    """The options of a group: its floats are numbers read anew at each call, the rest is taken for granted."""

    def __init__(self, tracer: GraphTracer, group: dict[str, Any]) -> None:
        self._tracer, self._group = tracer, group

    def __getitem__(self, name: str) -> Any:
        value = self._group[name]
        if name == "params":
            return value
        self._tracer.refuse_set(self._group, name)
        key = (id(self._group), name)
        found = self._tracer.options_read.get(key)
        if found is None:
            found = self._tracer.options_read[key] = self._read(name, value)
        return found

    def _read(self, name: str, value: Any) -> Any:
        group = self._group
        if isinstance(value, tuple | list) and value and all(is_number(v) for v in value):
            self._watch(name, lambda: np.shape(group[name]), np.shape(value))
            return tuple(self._number(name, part) for part in range(len(value)))
        if is_number(value):
            return self._number(name, None)
        self._watch(name, lambda: group[name], value)
        return value

    def _watch(self, name: str, read: Callable[[], Any], value: Any) -> None:
        """What is read of an option holds for this trace."""
        self._tracer.options_watched.append((self._group, name))
        self._tracer.option_guards.append(Guard(read, value, f"the option {name} of an optimiser"))

    def _number(self, name: str, part: int | None) -> Number:
        place = Option(self._group, name, part)
        tracer = self._tracer
        guarded: list[bool] = []

        def truth() -> bool:
            is_set = bool(place.read())
            if not guarded:
                guarded.append(True)
                words = f"whether the option {name} of an optimiser is 0"
                tracer.options_watched.append((place.group, name))
                tracer.option_guards.append(Guard(lambda: bool(place.read()), is_set, words))
            return is_set

        said = name if part is None else f"{name}[{part}]"
        return Number(tracer, tracer.number(place, dtypes.float64, said), truth, place.read)

    def __iter__(self) -> Iterator[str]:
        return iter(self._group)

    def __len__(self) -> int:
        return len(self._group)


def is_number(value: Any) -> bool:
    """Is it an option that is read anew at each call?"""
    return isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)


@final
class Kept(MutableMapping[str, Any]):
    """What an optimiser keeps for a parameter: arrays and counts, read from its state at each call and written there.

    What a rule creates filled (zeros) exists before the first call, which then is like every other. Anything else that
    a rule creates belongs to a first step of its own.

    entries: what stands under each name now.
    created: the names of what a first step computes.
    """

    def __init__(self, tracer: GraphTracer, optimizer: Any, param: Any) -> None:
        self._tracer, self.optimizer, self.param = tracer, optimizer, param
        self.entries: dict[str, Any] = {}
        self.inputs: dict[str, Any] = {}  # the symbol of each that was there
        self.created: list[str] = []
        self._missed: list[str] = []  # the names of what was asked for and is not there
        self._there = dict(optimizer.state.get(param, {}))

    def __getitem__(self, name: str) -> Any:
        if name not in self.entries:
            if name not in self._there:
                self._missed.append(name)
                raise KeyError(name)
            self._input(name, self._there[name], None)
        return self.entries[name]

    def __setitem__(self, name: str, value: Any) -> None:
        if name in self.inputs or name in self.created:
            self._replace(name, value)
            return
        if name in self._there:
            self[name]
            self._replace(name, value)
            return
        initial = _initial(value)
        if initial is not None:
            self._input(name, initial(), initial)
            if isinstance(value, Cell):  # the rule goes on with the very array that it set
                value.begin(self.inputs[name])
                self.entries[name] = value
            return
        self._missed.append(name)
        self.created.append(name)
        self.entries[name] = value

    def _replace(self, name: str, value: Any) -> None:
        """An entry of the same kind takes the place of the one there is."""
        held = self.entries[name]
        if isinstance(held, Cell):
            if value is not held:
                held.assign(value)
        else:
            self.entries[name] = value

    def _input(self, name: str, value: Any, initial: Callable[[], Any] | None) -> None:
        counts = not isinstance(value, np.ndarray)
        place = State(self.optimizer, self.param, name, counts, initial)
        if counts:
            if not isinstance(value, int | np.integer):
                raise self._tracer.refuse(f"{name!r} of an optimiser's state, a {type(value).__name__},", _STATE)
            symbol = self._tracer.number(place, dtypes.int64, name)
            self.entries[name] = Number(self._tracer, symbol)
        else:
            aval = Aval(value.shape, value.dtype)
            symbol = self._tracer.kept_array(place, aval)
            self.entries[name] = Cell(self._tracer, aval, symbol)
        self.inputs[name] = symbol

    def guards(self) -> list[Guard]:
        """That what was missing, and is not created filled, is missing still."""
        optimizer, param = self.optimizer, self.param

        def guard(name: str) -> Guard:
            return Guard(lambda: name in optimizer.state.get(param, {}), False, f"whether an optimiser has {name!r}")

        return [guard(name) for name in dict.fromkeys(self._missed) if name not in self.inputs]

    def __delitem__(self, name: str) -> None:
        raise self._tracer.refuse("deleting from an optimiser's state", _STATE)

    def __contains__(self, name: object) -> bool:
        return name in self.entries or name in self._there

    def __iter__(self) -> Iterator[str]:
        return iter({**self._there, **self.entries})

    def __len__(self) -> int:
        return len({**self._there, **self.entries})


_STATE = "an update rule that is compiled keeps arrays and whole numbers"


def _initial(value: Any) -> Callable[[], Any] | None:
    """What makes an entry's first value, where that is a plain number or an array filled with one."""
    if isinstance(value, int | np.integer) and not isinstance(value, bool):
        return lambda: int(value)
    if not isinstance(value, Cell) or value.fill is None:
        return None
    aval, fill = value.aval, value.fill
    if not isinstance(fill, Number):
        return lambda: np.full(aval.shape, fill, aval.dtype)
    read = fill.value
    return None if read is None else lambda: np.full(aval.shape, read(), aval.dtype)
