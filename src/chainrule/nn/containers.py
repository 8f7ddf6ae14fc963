"""Modules that hold modules."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, overload

from chainrule.core.node import at_user_line
from chainrule.errors import ArgumentError, DTypeError, OutOfRangeError
from chainrule.nn.module import Module


def _checked(owner: str, module: Any) -> Module:
    if not isinstance(module, Module):
        hint = "; make an instance: add ()" if isinstance(module, type) and issubclass(module, Module) else ""
        raise at_user_line(DTypeError(f"{owner}: expected modules; got {module!r}{hint}"))
    return module


class _Row(Module):
    """Modules in a row, set as the attributes `0`, `1` and so on."""

    def _items(self) -> list[Module]:
        return [module for module in vars(self).values() if isinstance(module, Module)]

    def __len__(self) -> int:
        return len(self._items())

    def __iter__(self) -> Iterator[Module]:
        return iter(self._items())

    def _at(self, index: int) -> Module:
        items = self._items()
        if not -len(items) <= operator.index(index) < len(items):
            raise at_user_line(OutOfRangeError(f"{type(self).__name__}: no module {index}; it holds {len(items)}"))
        return items[index]

    def __setitem__(self, index: int, module: Module) -> None:
        held = self._at(index)
        name = next(name for name, value in vars(self).items() if value is held)
        setattr(self, name, _checked(type(self).__name__, module))

    def append(self, module: Module) -> Any:
        """Add a module at the end."""
        setattr(self, str(len(self)), _checked(type(self).__name__, module))
        return self

    def extend(self, modules: Iterable[Module]) -> Any:
        """Add modules at the end."""
        for module in modules:
            self.append(module)
        return self


class Sequential(_Row):
    """Modules one after the other, each fed with the output of the one before.

    Args:
        modules: modules, named `0`, `1`, …; or one dict of names and modules.
    Raises: DTypeError: something that is no module.

    >>> import chainrule as cr
    >>> cr.nn.Sequential(cr.nn.Linear(10, 50), cr.nn.ReLU(), cr.nn.Linear(50, 1))
    Sequential(
      (0): Linear(in_features=10, out_features=50, bias=True)
      (1): ReLU()
      (2): Linear(in_features=50, out_features=1, bias=True)
    )
    """

    def __init__(self, *modules: Module | Mapping[str, Module]) -> None:
        super().__init__()
        if len(modules) == 1 and isinstance(modules[0], Mapping):
            for name, module in modules[0].items():
                self.add_module(name, _checked("Sequential", module))
            return
        for item in modules:
            self.append(_checked("Sequential", item))

    @overload
    def __getitem__(self, index: int) -> Module: ...
    @overload
    def __getitem__(self, index: slice) -> Sequential: ...
    def __getitem__(self, index: int | slice) -> Module:
        return Sequential(*self._items()[index]) if isinstance(index, slice) else self._at(index)

    def forward(self, input: Any) -> Any:
        """The last module's output."""
        for module in self._items():
            input = module(input)
        return input


class ModuleList(_Row):
    """A list of modules whose parameters count; a plain list's do not. It computes nothing itself.

    Args:
        modules: an iterable of modules.
    Raises: DTypeError: something that is no module.

    >>> import chainrule as cr
    >>> layers = cr.nn.ModuleList(cr.nn.Linear(4, 4) for _ in range(3))
    >>> len(layers), len(list(layers.parameters()))
    (3, 6)
    """

    def __init__(self, modules: Iterable[Module] = ()) -> None:
        super().__init__()
        self.extend(modules)

    @overload
    def __getitem__(self, index: int) -> Module: ...
    @overload
    def __getitem__(self, index: slice) -> ModuleList: ...
    def __getitem__(self, index: int | slice) -> Module:
        return ModuleList(self._items()[index]) if isinstance(index, slice) else self._at(index)

    def insert(self, index: int, module: Module) -> None:
        """Add a module before position `index`."""
        items = self._items()
        items.insert(index, _checked("ModuleList", module))
        for name, item in enumerate(items):
            setattr(self, str(name), item)


class ModuleDict(Module):
    """Modules by name, whose parameters count. It computes nothing itself.

    Args:
        modules: a mapping of names to modules, or pairs.
    Raises: DTypeError: something that is no module. ArgumentError: a name that is empty, has a dot, or is a method's.

    >>> import chainrule as cr
    >>> heads = cr.nn.ModuleDict({"mean": cr.nn.Linear(4, 1), "spread": cr.nn.Linear(4, 1)})
    >>> list(heads)
    ['mean', 'spread']
    """

    def __init__(self, modules: Mapping[str, Module] | Iterable[tuple[str, Module]] = ()) -> None:
        super().__init__()
        self.update(modules)

    def __getitem__(self, name: str) -> Module:
        found = vars(self).get(name)
        if not isinstance(found, Module):
            raise at_user_line(ArgumentError(f"ModuleDict: no module {name!r}; it holds {', '.join(self) or 'none'}"))
        return found

    def __setitem__(self, name: str, module: Module) -> None:
        self.add_module(name, _checked("ModuleDict", module))

    def __delitem__(self, name: str) -> None:
        self[name]
        delattr(self, name)

    def __len__(self) -> int:
        return len(list(self.keys()))

    def __iter__(self) -> Iterator[str]:
        return self.keys()

    def __contains__(self, name: object) -> bool:
        return name in list(self.keys())

    def keys(self) -> Iterator[str]:
        """The names."""
        return (name for name, value in vars(self).items() if isinstance(value, Module))

    def values(self) -> Iterator[Module]:
        """The modules."""
        return (value for value in vars(self).values() if isinstance(value, Module))

    def items(self) -> Iterator[tuple[str, Module]]:
        """(name, module) pairs."""
        return ((name, value) for name, value in vars(self).items() if isinstance(value, Module))

    def update(self, modules: Mapping[str, Module] | Iterable[tuple[str, Module]]) -> None:
        """Set several modules."""
        for name, module in modules.items() if isinstance(modules, Mapping) else modules:
            self[name] = module
