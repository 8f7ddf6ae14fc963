"""What a user's variables call tensors: `w1`, `params["w"]`, `layers[0][1]`, `trainer.w`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from types import BuiltinFunctionType, FunctionType, GetSetDescriptorType, MethodType, ModuleType
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


def tensors_in(variables: Mapping[str, Any]) -> Iterator[Node]:
    """The tensors that variables hold, themselves or in a dict, a list, a tuple or an object of the user's."""
    for name, value in variables.items():
        if isinstance(value, Node):
            yield value
        else:
            yield from (x for _, x in islice(_tensors(name, value, _DEPTH), _LARGEST_CONTAINER))


def assigned_to(leaf: Node) -> str | None:
    """The variable that the line which made this leaf assigns it to; what a function returns, its caller names."""
    for call in user_calls(leaf.trail):
        where = place(call)
        if where.target is not None or not where.text.startswith("return"):
            return where.target
    return None


def _tensors(name: str, value: Any, depth: int) -> Iterator[tuple[str, Node]]:
    """The tensors inside a container, and how one writes where they are."""
    for write, key, item in _items(value):
        if isinstance(item, Node):
            yield write(name, key), item
        elif depth > 1 and _is_container(item):
            yield from _tensors(write(name, key), item, depth - 1)


def _items(value: Any) -> Iterator[tuple[Callable[[str, Any], str], Any, Any]]:
    """What a dict with names for keys, a list, a tuple or an object of the user's holds, if that is not too much."""
    if isinstance(value, list | tuple):
        found: Any = enumerate(value) if len(value) <= _LARGEST_CONTAINER else ()
        yield from ((_index, key, item) for key, item in found)
        return
    is_dict = isinstance(value, dict)
    held = value if is_dict else _attributes(value)
    if len(held) > _LARGEST_CONTAINER:
        return
    for key, item in held.items():
        if is_dict and isinstance(key, str | int):
            yield _index, key, item
        elif not is_dict and isinstance(key, str) and not key.startswith("_"):
            yield _attribute, key, item


def _is_container(value: Any) -> bool:
    return isinstance(value, dict | list | tuple) or bool(_attributes(value))


def _attributes(value: Any) -> dict[Any, Any]:
    """What an object of the user's holds under names of its own, asked without running code of theirs."""
    cls = type(value)
    if issubclass(cls, _NOT_CONTAINERS) or str(vars(cls).get("__module__")).startswith("chainrule."):
        return {}
    for base in cls.__mro__:
        found = vars(base).get("__dict__")
        if isinstance(found, GetSetDescriptorType):
            held = found.__get__(value)
            return held if type(held) is dict else {}
        if found is not None:  # a stand-in for something else says what it holds in a way of its own
            return {}
    return {}


def _index(name: str, key: Any) -> str:
    return f"{name}[{key!r}]".replace("'", '"')


def _attribute(name: str, key: Any) -> str:
    return f"{name}.{key}"
