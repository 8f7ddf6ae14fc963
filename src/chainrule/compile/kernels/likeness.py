"""Kernels that are the same but for the memory they work on: the layers of a net have one code, which is written once.

Knows how a kernel is spelled out, whatever it is made of; not what any of it means.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from functools import cache, partial
from typing import Any, NamedTuple

import numpy as np

from chainrule.compile.kernels.buffer import Buffer
from chainrule.compile.kernels.expression import Load, Pick, Random, walk
from chainrule.compile.kernels.kernel import Contract, Kernel, Loops
from chainrule.compile.kernels.relocation import Places, relocated
from chainrule.compile.kernels.tasks import stores, values
from chainrule.core.affine import Affine
from chainrule.core.family import Op

_ATOMS = (int, str, type(None), Affine, np.dtype, Op)  # equal if they are the same


class Own(NamedTuple):
    """Memory of a kernel that is written like others: which buffer of what is written, and where that begins.

    start: elements into `memory`: the piece of a series that is this kernel's, of which the others have another.
    """

    buffer: Buffer
    memory: Buffer
    start: int


class Likeness(NamedTuple):
    """What a kernel has in common with others that are written alike, and what it has of its own.

    form: equal for those. kernel: as it is written. memory: what it works on; draws: its random numbers, each from a
    place of its own in the stream; both in the order in which they stand in the form.
    """

    form: Hashable
    kernel: Kernel
    memory: tuple[Own, ...]
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
    """What a kernel has in common with others: which piece of a buffer it works on is its own."""
    starts = _starts(kernel) if isinstance(kernel, Loops | Contract) else {}
    own = {id(b): Own(replace(b), b, start) for b, start in starts.items()}
    if own and isinstance(kernel, Loops | Contract):
        places: Places = {key: (x.buffer, partial(_from_start, start=x.start)) for key, x in own.items()}
        kernel = relocated(kernel, places)
    spelling = _Spelling()
    form = spelling.of(kernel)
    by_new = {id(x.buffer): x for x in own.values()}
    memory = tuple(by_new.get(id(b), Own(b, b, 0)) for b in spelling.buffers if b.place != "private")
    return Likeness(form, kernel, memory, tuple(spelling.draws))


def _starts(kernel: Loops | Contract) -> dict[Buffer, int]:
    """Of the buffers of which not the first element is used, the first place that an access can come to.

    It is inside the buffer: what no lane wants is read from there (see `Emitter`).
    """
    if 0 in kernel.extents.values():
        return {}
    found: dict[Buffer, int] = {}
    accesses = [(e.buffer, e.offset) for e in walk(*values(kernel)) if isinstance(e, Load | Pick)]
    for buffer, offset in (*accesses, *((s.buffer, s.offset) for s in stores(kernel))):
        least, _ = offset.range(kernel.extents)
        found[buffer] = min(found.get(buffer, least), least)
    return {b: start for b, start in found.items() if 0 < start < b.span and b.place != "private"}


def _from_start(offset: Affine, *, start: int) -> Affine:
    return offset + -start


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
