"""Kernels that are the same but for the memory they work on: the layers of a net have one code, which is written once.

Knows how a kernel is spelled out, whatever it is made of; not what any of it means.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from chainrule.compile.kernels.buffer import Buffer
from chainrule.compile.kernels.expression import Random
from chainrule.compile.kernels.kernel import Kernel
from chainrule.core.affine import Affine
from chainrule.core.family import Op

_ATOMS = (int, str, type(None), Affine, np.dtype, Op)  # equal if they are the same


class Likeness(NamedTuple):
    """What a kernel has in common with others that are written alike, and what it has of its own.

    form: equal for those. buffers: the memory it works on; draws: its random numbers, each from a place of its own in
    the stream; both in the order in which they stand in the form.
    """

    form: Hashable
    buffers: tuple[Buffer, ...]
    draws: tuple[Random, ...]


def alike(kernels: Sequence[Kernel]) -> list[list[tuple[int, Likeness]]]:
    """The numbers of kernels that are written alike, with what each has of its own; none of those that are alone."""
    first: dict[Hashable, list[int]] = {}
    for number, kernel in enumerate(kernels):
        first.setdefault((type(kernel), kernel.name, tuple(sorted(kernel.extents.items()))), []).append(number)
    found: dict[Hashable, list[tuple[int, Likeness]]] = {}
    for numbers in first.values():
        for number in numbers if len(numbers) > 1 else ():
            likeness = likeness_of(kernels[number])
            found.setdefault(likeness.form, []).append((number, likeness))
    return [same for same in found.values() if len(same) > 1]


def likeness_of(kernel: Kernel) -> Likeness:
    """What a kernel has in common with others."""
    spelling = _Spelling()
    form = spelling.of(kernel)
    return Likeness(form, tuple(spelling.buffers), tuple(spelling.draws))


class _Spelling:
    """A kernel as nested tuples of plain values; what has been met before is told by its number."""

    def __init__(self) -> None:
        self.buffers: list[Buffer] = []
        self.draws: list[Random] = []
        self._numbers: dict[int, int] = {}

    def of(self, x: Any) -> Hashable:
        if isinstance(x, float):
            return (float, repr(x))  # -0.0 is not 0.0, and nan is nan
        if isinstance(x, np.generic):
            return (x.dtype, x.tobytes())
        if isinstance(x, _ATOMS):
            return x
        if isinstance(x, tuple | list):
            return tuple([self.of(y) for y in x])
        if isinstance(x, Mapping):
            return tuple([(k, self.of(x[k])) for k in sorted(x)])
        return self._object(x)

    def _object(self, x: Any) -> Hashable:
        number = self._numbers.get(id(x))
        if number is not None:
            return ("again", number)
        self._numbers[id(x)] = len(self._numbers)
        kind: Any = type(x)
        if isinstance(x, Buffer):
            self.buffers.append(x)
            return (kind, x.shape, x.dtype, x.strides, x.place == "private")
        if not is_dataclass(x):
            return (kind, id(x))
        if isinstance(x, Random):
            self.draws.append(x)
        return (kind, *[self.of(getattr(x, name)) for name in _names(kind)])


@cache
def _names(kind: Any) -> tuple[str, ...]:
    """The fields that say what is done; which numbers of a stream are drawn is each kernel's own."""
    return tuple([f.name for f in fields(kind) if (kind, f.name) != (Random, "offset")])
