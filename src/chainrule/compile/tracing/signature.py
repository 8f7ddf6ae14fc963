"""Signature: what of a call's arguments a trace depends on. Calls with equal signatures may share one program."""

from __future__ import annotations

import contextlib
import types
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from chainrule import dtypes
from chainrule.compile.tracing.places import Guard
from chainrule.core.node import Node, at_user_line
from chainrule.core.provenance import is_ours
from chainrule.errors import DTypeError, SymbolicValueError
from chainrule.tree import Spec


class Arguments(NamedTuple):
    """The arguments of a call as leaves, their tree, and the signature."""

    leaves: list[Any]
    spec: Spec
    key: tuple[Any, ...]


def is_dynamic(leaf: Any) -> bool:
    """Is this leaf an input of the program, rather than a part of it?"""
    return isinstance(leaf, Node | np.ndarray | np.generic)


def arguments_of(leaves: list[Any], spec: Spec) -> Arguments:
    """The arguments of a call, (args, kwargs) as leaves and a tree, with their signature.

    Raises: DTypeError: a leaf that is neither a tensor nor something that can be compared. SymbolicValueError: a tensor
        that was traced, and has no value.
    """
    first: dict[int, int] = {}
    entries = []
    for i, leaf in enumerate(leaves):
        try:
            entries.append(_entry(leaf, first.setdefault(id(leaf), i)))
        except (TypeError, DTypeError) as error:
            raise at_user_line(_unknown(leaf, path_of(spec, i), error)) from None
    return Arguments(leaves, spec, (spec, *entries))


def _entry(leaf: Any, first: int) -> tuple[Any, ...]:
    if isinstance(leaf, Node):
        if leaf.array is None:
            raise at_user_line(SymbolicValueError(
                f"compile: got a tensor without a value, {leaf!r}; it was made while a function was traced, and kept; "
                f"return it from that function instead"
            ))  # fmt: skip
        # A tensor that is trained is known by its identity: it matters which of them are the same one.
        return (type(leaf), leaf.aval, leaf.requires_grad, leaf.op is None and leaf.requires_grad and first)
    if isinstance(leaf, np.ndarray | np.generic):
        return (np.ndarray, leaf.shape, dtypes.as_dtype(leaf.dtype))
    if isinstance(leaf, float):
        return (float, leaf.hex())
    hash(leaf)
    return (type(leaf), leaf)


def _unknown(leaf: Any, path: str, error: Exception) -> DTypeError:
    kind = f"an array of {leaf.dtype}" if isinstance(leaf, np.ndarray | np.generic) else f"a {type(leaf).__name__}"
    why = "" if isinstance(error, DTypeError) else ", which has no hash to compare it by"
    return DTypeError(
        f"compile: {path} is {kind}{why}; pass tensors, arrays, numbers, strings, modules, or dicts, lists and tuples "
        f"of them"
    )


def path_of(spec: Spec, index: int, names: Sequence[str] = ()) -> str:
    """A leaf of the arguments as a person would write it: x, params['w'], batch[0]."""
    (which, first, *rest) = spec.paths()[index]
    if which == 0:
        root = names[first] if first < len(names) else f"argument {first}"
    else:
        root = str(first)
    return root + "".join(f"[{part!r}]" for part in rest)


def firsts(leaves: Sequence[Any]) -> list[int]:
    """For each leaf, where the same one stands first among them."""
    first: dict[int, int] = {}
    return [first.setdefault(id(leaf), i) for i, leaf in enumerate(leaves)]


def names_of(function: Callable[..., Any]) -> tuple[str, ...]:
    """The names of a function's positional parameters."""
    inner = getattr(function, "forward", function) if not isinstance(function, types.FunctionType) else function
    bound = isinstance(inner, types.MethodType)
    code = getattr(inner, "__code__", None)
    return () if code is None else code.co_varnames[bound : code.co_argcount]


# --- what a function reads by name


class Variable(NamedTuple):
    """A variable that a function reads, the namespace or cell that it is read from, and its value."""

    name: str
    place: Any
    value: Any

    def read(self) -> Any:
        return self.place[self.name] if isinstance(self.place, dict) else self.place.cell_contents

    def write(self, value: Any) -> None:
        if isinstance(self.place, dict):
            self.place[self.name] = value
        else:
            self.place.cell_contents = value


def named_values(*functions: Callable[..., Any]) -> Iterator[Variable]:
    """The globals and closed-over variables that functions and those they call read.

    Of code outside the library, as far as names lead: modules, classes and functions are followed or passed over, not
    given.
    """
    seen: set[int] = set()
    pending = list(functions)
    while pending:
        f: Any = pending.pop()
        f = getattr(f, "__func__", f)
        if not isinstance(f, types.FunctionType) or id(f) in seen or is_ours(f.__code__):
            continue
        seen.add(id(f))
        for variable in _variables(f):
            if isinstance(variable.value, types.FunctionType | types.MethodType):
                pending.append(variable.value)
            elif not isinstance(variable.value, _PASSED_OVER):
                yield variable


_PASSED_OVER = (types.ModuleType, type, types.BuiltinFunctionType)


def _variables(f: types.FunctionType) -> Iterator[Variable]:
    for name, cell in zip(f.__code__.co_freevars, f.__closure__ or (), strict=True):
        with contextlib.suppress(ValueError):  # the cell is empty
            yield Variable(name, cell, cell.cell_contents)
    for name in dict.fromkeys(name for code in _codes(f.__code__) for name in code.co_names):
        if name in f.__globals__:
            yield Variable(name, f.__globals__, f.__globals__[name])


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    """The code of a function, and of those written inside it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _codes(constant)


def name_guards(*functions: Callable[..., Any]) -> list[Guard]:
    """That the names that functions read still mean what they meant."""
    return [
        Guard(v.read, v.value, f"the variable {v.name}", v.place, v.name)
        for v in named_values(*functions)
        if isinstance(v.value, _GUARDED) or hasattr(v.value, "named_parameters") or hasattr(v.value, "param_groups")
    ]


_GUARDED = (Node, bool, int, float, str, bytes, type(None), np.dtype)


def what_changed(spec: Spec, old: tuple[Any, ...], new: tuple[Any, ...], names: Sequence[str]) -> str:
    """In words, the first difference of two signatures."""
    if old[0] != new[0]:
        return "the structure of the arguments changed"
    for i, (before, after) in enumerate(zip(old[1:], new[1:], strict=True)):
        if before != after:
            return f"{path_of(spec, i, names)} was {_said(before)}, is now {_said(after)}"
    return "nothing in the arguments changed"


def _said(entry: tuple[Any, ...]) -> str:
    kind, *rest = entry
    if kind is float:
        return repr(float.fromhex(rest[0]))
    if kind is np.ndarray:
        return f"an array of {rest[1]}{list(rest[0])}"
    if isinstance(kind, type) and issubclass(kind, Node):
        extra = "" if not rest[1] else ", requires_grad=True"
        return f"a tensor {rest[0]}{extra}"
    return repr(rest[0])
