"""What a user's variables call tensors: `w1`, `params["w"]`, `layers[0][1]`, `trainer.w`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import islice
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

from chainrule.core.node import Node
from chainrule.core.provenance import place, user_calls

_LARGEST_CONTAINER = 1000  # a longer one is data, and naming its items would take longer than explaining
_DEPTH = 2  # of containers in each other
_NOT_CONTAINERS = (ModuleType, type, FunctionType, MethodType, BuiltinFunctionType)


def variable_names(variables: Mapping[str, Any]) -> dict[int, str]:
    """The variable that holds each tensor, by the tensor's id; the first one where there are several.

    A tensor in a dict, a list, a tuple or an object of the user's goes by its place there, `params["w"]`, unless a
    variable holds it, or the line that made it gave it a name that no other one there has.
    """
    plain = {k: v for k, v in variables.items() if not k.startswith(("_", "."))}
    names: dict[int, str] = {}
    for name, value in plain.items():
        if isinstance(value, Node):
            names.setdefault(id(value), name)
    for depth in range(1, _DEPTH + 1):  # the shortest way to a tensor first
        for name, value in plain.items():
            inside = list(islice(_tensors(name, value, depth), _LARGEST_CONTAINER))
            targets = [assigned_to(x) for _, x in inside]
            uses = Counter(targets)
            for (where, x), target in zip(inside, targets, strict=True):
                if target in (None, name) or uses[target] > 1:
                    names.setdefault(id(x), where)
    return names


def assigned_to(leaf: Node) -> str | None:
    """The variable that the line which made this leaf assigns it to; what a function returns, its caller names."""
    for call in user_calls(leaf.trail):
        where = place(call)
        if where.target is not None or not where.text.startswith("return"):
            return where.target
    return None


def _tensors(name: str, value: Any, depth: int) -> Iterator[tuple[str, Node]]:
    """The tensors inside a container, and how one writes where they are."""
    for where, item in _items(name, value):
        if isinstance(item, Node):
            yield where, item
        elif depth > 1:
            yield from _tensors(where, item, depth - 1)


def _items(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """What a dict with names for keys, a list, a tuple or an object of the user's holds."""
    if isinstance(value, dict):
        if len(value) <= _LARGEST_CONTAINER:
            for key, item in value.items():
                if isinstance(key, str | int):
                    yield f"{name}[{key!r}]".replace("'", '"'), item
    elif isinstance(value, list | tuple):
        if len(value) <= _LARGEST_CONTAINER:
            yield from ((f"{name}[{i}]", item) for i, item in enumerate(value))
    elif not isinstance(value, _NOT_CONTAINERS) and not type(value).__module__.startswith("chainrule."):
        attributes = getattr(value, "__dict__", {})
        yield from ((f"{name}.{key}", item) for key, item in attributes.items() if not key.startswith("_"))
