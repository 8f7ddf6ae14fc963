"""Places: where the array of each input of a program comes from, at each call. Knows what holds it, no more.

Each is known by its identity. They are plain classes since a step that is on the disk needs them before it runs, in 20
milliseconds in all, of which a dataclass takes half a one to be made.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, NamedTuple, final

import numpy as np


@final
class Argument:
    """Leaf number `index` of the arguments."""

    __slots__ = ("index",)

    def __init__(self, index: int) -> None:
        self.index = index


@final
class Captured:
    """A tensor that the function closes over: what its `.array` is then."""

    __slots__ = ("tensor",)

    def __init__(self, tensor: Any) -> None:
        self.tensor = tensor


# What holds a gradient: a tensor given as an argument, or one closed over.
Holder = Argument | Captured


@final
class OldGradient:
    """The `.grad` that a tensor has when the step begins."""

    __slots__ = ("holder",)

    def __init__(self, holder: Holder) -> None:
        self.holder = holder


@final
class Option:
    """A number among the options of an optimiser's group; entry `part` of it where it is a tuple."""

    __slots__ = ("group", "name", "part")

    def __init__(self, group: dict[str, Any], name: str, part: int | None) -> None:
        self.group = group
        self.name = name
        self.part = part

    def read(self) -> Any:
        """What is there now; None where there is no such entry."""
        value = self.group[self.name]
        if self.part is None:
            return value
        return value[self.part] if isinstance(value, tuple | list) and self.part < len(value) else None


@final
class State:
    """What an optimiser keeps for a parameter under a name: an array, or a whole number (`counts`).

    initial: makes what is kept where nothing is yet; None: there must be something already.
    """

    __slots__ = ("counts", "initial", "name", "optimizer", "param")

    def __init__(self, optimizer: Any, param: Any, name: str, counts: bool, initial: Callable[[], Any] | None) -> None:
        self.optimizer = optimizer
        self.param = param
        self.name = name
        self.counts = counts
        self.initial = initial

    def entries(self) -> dict[str, Any]:
        """The dict that holds it, with the initial value where there was none.

        Raises: KeyError: there is none, and nothing to begin with.
        """
        if self.initial is None:
            found: dict[str, Any] = self.optimizer.state[self.param]
            if self.name not in found:
                raise KeyError(self.name)
            return found
        found = self.optimizer.state.setdefault(self.param, {})
        if self.name not in found:
            found[self.name] = self.initial()
        return found


@final
class Stream:
    """Seed and position of a stream of random numbers, of which a call takes `blocks[0]` blocks."""

    __slots__ = ("blocks", "generator")

    def __init__(self, generator: Any, blocks: list[int]) -> None:
        self.generator = generator
        self.blocks = blocks


Place = Argument | Captured | OldGradient | Option | State | Stream


class Guard(NamedTuple):
    """What a trace took for granted: `read()` gave `expected`; a call where it gives something else traces anew.

    place: for a variable, the namespace (a dict) or the cell it is read from, for whoever is in a hurry; name: in it.
    """

    read: Callable[[], Any]
    expected: Any
    words: str
    place: Any = None
    name: str = ""

    def holds(self) -> bool:
        try:
            now = self.read()
        except (AttributeError, KeyError, IndexError, ValueError):  # an empty cell of a closure is a ValueError
            return False
        return is_same(now, self.expected)


def is_same(now: Any, before: Any) -> bool:
    """Is it the same object, or as good as that? 1 is not 1.0, which gives another dtype, nor 0.0 -0.0."""
    return now is before or _known_by(now) == _known_by(before)


def _known_by(value: Any) -> Hashable:
    """What tells a value from others: a plain one its type and what it is, all else its identity."""
    if type(value) is tuple:
        return tuple(map(_known_by, value))
    if isinstance(value, float | complex):
        return type(value), repr(value)
    return (type(value), value) if isinstance(value, int | str | bytes | None | np.dtype) else id(value)
