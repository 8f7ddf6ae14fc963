"""What the user calls the tensors that a traced function finds by itself, rather than among its arguments."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from types import FunctionType, MethodType
from typing import Any, final

from chainrule.compile.program import Program
from chainrule.compile.tracing.places import Captured, OldGradient, Place, State
from chainrule.compile.tracing.signature import named_values
from chainrule.core.provenance import Scope, path
from chainrule.core.variables import assigned_to, variable_names

_NAMELESS = "tensor"


@final
class InputNames:
    """Names for the inputs of one trace, looked up when somebody asks: most calls of most functions go without."""

    def __init__(self, function: Callable[..., Any], scopes: Mapping[int, Scope]) -> None:
        self._function, self._scopes = function, scopes
        self._given = False

    def give(self, program: Program, places: Sequence[Place]) -> None:
        """Write on each input what it is called."""
        if self._given:
            return
        self._given = True
        names = self._names([place.tensor for place in places if isinstance(place, Captured)])
        for symbol, place in zip(program.inputs, places, strict=True):
            match place:
                case Captured(tensor=tensor):
                    symbol.symbol = names[id(tensor)]
                case OldGradient(holder=Captured(tensor=tensor)):
                    symbol.symbol = f"{names.get(id(tensor), _NAMELESS)}.grad"
                case State(param=param, name=name):
                    symbol.symbol = f"{names.get(id(param), 'parameter')}.{name}"
                case _:
                    pass

    def _names(self, captured: Sequence[Any]) -> dict[int, str]:
        """Names by id, of the captured tensors all; those that would share one are numbered."""
        names = self._held()
        paths = self._paths()
        uses = Counter(paths.values())  # two modules called by themselves may both have a weight
        names |= {x: name for x, name in paths.items() if uses[name] == 1 or x not in names}
        unheld = {id(x): assigned_to(x) or _NAMELESS for x in captured if id(x) not in names}
        uses = Counter([*names.values(), *unheld.values()])
        counted: Counter[str] = Counter()
        for x, name in unheld.items():
            counted[name] += 1
            names[x] = name if uses[name] == 1 else f"{name}.{counted[name]}"
        return names

    def _held(self) -> dict[int, str]:
        """Of tensors that the variables hold which the function reads, and the modules in them."""
        variables: dict[str, Any] = {}
        if isinstance(self._function, MethodType):
            code = getattr(self._function.__func__, "__code__", None)
            variables[code.co_varnames[0] if code is not None and code.co_argcount else "self"] = (
                self._function.__self__
            )
        read = [(v.name, v.value) for v in named_values(self._function)]
        others = [(name, value) for name, value in read if variables.setdefault(name, value) is not value]
        names = variable_names(variables)
        for name, value in others:
            names = variable_names({name: value}) | names
        for name, value in (*variables.items(), *others):
            if isinstance(getattr(type(value), "named_parameters", None), FunctionType):
                for inner, tensor in (*value.named_parameters(), *value.named_buffers()):
                    names.setdefault(id(tensor), f"{name}.{inner}")
        return names

    def _paths(self) -> dict[int, str]:
        """Of the parameters and buffers of the modules that were called, by their paths from the outermost one."""
        found: dict[int, str] = {}
        for scope in self._scopes.values():
            prefix = path(scope)
            for name, tensor in (*scope.module.named_parameters(), *scope.module.named_buffers()):
                found.setdefault(id(tensor), f"{prefix}.{name}" if prefix else name)
        return found
