"""What a kernel computes at one point of its loops: loads, ops of the catalogue applied to scalars, positions, numbers.

Knows the kinds of expression, and how to walk and change them. Knows no loops, only the variables that positions
mention, and no op: how one is computed of scalars is for `Elementwise.scalar` to say.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from chainrule.compile.kernels.buffer import Buffer
from chainrule.core.affine import Affine
from chainrule.core.family import Combine, Elementwise


class Expr:
    """A scalar at one point of the loops. Compared by identity: what is shared is computed once."""

    __slots__ = ()
    dtype: np.dtype

    @property
    def parts(self) -> tuple[Expr, ...]:
        """The expressions it is computed from."""
        return ()

    def positions(self) -> tuple[Affine, ...]:
        """The affine positions it mentions itself."""
        return ()

    def reads(self) -> tuple[Buffer, ...]:
        """The memory it reads itself."""
        return ()


@dataclass(frozen=True, eq=False, slots=True)
class Number(Expr):
    """A number known when the kernel is written."""

    value: float | int | bool
    dtype: np.dtype


@dataclass(frozen=True, eq=False, slots=True)
class Load(Expr):
    """The element of a buffer at an offset."""

    buffer: Buffer
    offset: Affine

    @property
    def dtype(self) -> np.dtype:  # type: ignore[override]
        return self.buffer.dtype

    def positions(self) -> tuple[Affine, ...]:
        return (self.offset,)

    def reads(self) -> tuple[Buffer, ...]:
        return (self.buffer,)


@dataclass(frozen=True, eq=False, slots=True)
class Pick(Expr):
    """The element of a buffer at an offset plus computed indices times strides.

    indices: (index, size, stride); an index below 0 counts from the end, one outside -size ≤ i < size reads element 0
        and is reported (see `Module.faults`).
    name: the op that asks, for the report.
    """

    buffer: Buffer
    offset: Affine
    indices: tuple[tuple[Expr, int, int], ...]
    name: str

    @property
    def dtype(self) -> np.dtype:  # type: ignore[override]
        return self.buffer.dtype

    @property
    def parts(self) -> tuple[Expr, ...]:
        return tuple(index for index, _, _ in self.indices)

    def positions(self) -> tuple[Affine, ...]:
        return (self.offset,)

    def reads(self) -> tuple[Buffer, ...]:
        return (self.buffer,)


@dataclass(frozen=True, eq=False, slots=True)
class Position(Expr):
    """A position as a number."""

    affine: Affine
    dtype: np.dtype

    def positions(self) -> tuple[Affine, ...]:
        return (self.affine,)


@dataclass(frozen=True, eq=False, slots=True)
class Compute(Expr):
    """An elementwise op applied to scalars."""

    op: Elementwise
    inputs: tuple[Expr, ...] = field()  # without a default: the base class's property would be taken for one
    params: Mapping[str, Any]
    dtype: np.dtype

    @property
    def parts(self) -> tuple[Expr, ...]:
        return self.inputs


@dataclass(frozen=True, eq=False, slots=True)
class Cast(Expr):
    """Another element type."""

    input: Expr
    dtype: np.dtype

    @property
    def parts(self) -> tuple[Expr, ...]:
        return (self.input,)


@dataclass(frozen=True, eq=False, slots=True)
class Within(Expr):
    """`inside` where every position lies in its bounds, low ≤ position < high; else `outside`.

    Where the bounds do not hold, `inside` is not read.
    """

    bounds: tuple[tuple[Affine, int, int], ...]
    inside: Expr
    outside: Expr

    @property
    def dtype(self) -> np.dtype:  # type: ignore[override]
        return self.inside.dtype

    @property
    def parts(self) -> tuple[Expr, ...]:
        return (self.inside, self.outside)

    def positions(self) -> tuple[Affine, ...]:
        return tuple(affine for affine, _, _ in self.bounds)


@dataclass(frozen=True, eq=False, slots=True)
class Random(Expr):
    """Entry `number` of a stream of random numbers: see ops/source.py.

    key: an int64 buffer of two: seed and counter.
    count: how many numbers the op draws in all (normal numbers come in pairs, half of `count` apart).
    """

    kind: Literal["rand", "randn", "randint"]
    key: Buffer
    offset: int  # added to the counter
    number: Affine
    count: int
    params: Mapping[str, Any]
    dtype: np.dtype

    def positions(self) -> tuple[Affine, ...]:
        return (self.number,)

    def reads(self) -> tuple[Buffer, ...]:
        return (self.key,)


@dataclass(frozen=True, eq=False, kw_only=True)
class Reduction:
    """All values along a stage's inner variables combined into one for each point of the outer ones.

    For argmax and argmin: the position (`position`) of the first extreme; nan counts as the extreme.
    """

    combine: Combine
    value: Expr
    dtype: np.dtype
    position: Affine | None = None


@dataclass(frozen=True, eq=False, slots=True)
class Reduced(Expr):
    """What a reduction of an earlier stage of the same kernel came to."""

    reduction: Reduction

    @property
    def dtype(self) -> np.dtype:  # type: ignore[override]
        return self.reduction.dtype


@dataclass(frozen=True, eq=False, slots=True)
class Accumulated(Expr):
    """In the epilogue of a contraction: the finished sum at this place."""

    dtype: np.dtype


# --- narrower numbers

_NARROW = np.iinfo(np.int32)


def narrowed(e: Expr, extents: Mapping[int, int]) -> Expr | None:
    """The same whole number as int32, where it is known to be one: of half the width, twice as many fit a vector."""
    match e:
        case Cast(input=inner) if inner.dtype == np.int32:
            return inner
        case Position(affine=affine):
            low, high = affine.range(extents)
            return Position(affine, np.dtype(np.int32)) if _NARROW.min <= low and high <= _NARROW.max else None
        case Number(value=value):
            return Number(value, np.dtype(np.int32)) if _NARROW.min <= value <= _NARROW.max else None
        case _:
            return None


# --- walks and changes


def moved(root: Expr, buffers: Mapping[int, tuple[Buffer, Callable[[Affine], Affine]]], done: dict[int, Expr]) -> Expr:
    """An expression that reads other buffers in place of some, at other offsets, one element a step as before."""
    by: dict[int, Expr] = {}
    for e in walk(root):
        if not isinstance(e, Load | Pick) or id(e.buffer) not in buffers or id(e) in done:
            continue
        buffer, offset = buffers[id(e.buffer)]
        if isinstance(e, Load):
            by[id(e)] = Load(buffer, offset(e.offset))
        else:
            indices = tuple((substituted(x, by, done), n, s) for x, n, s in e.indices)
            by[id(e)] = Pick(buffer, offset(e.offset), indices, e.name)
    return substituted(root, by, done)


def substituted(root: Expr, by: Mapping[int, Expr], done: dict[int, Expr]) -> Expr:
    """An expression with others in place of some of its parts, by id; `done` keeps what was shared shared."""
    for e in walk(root):
        if id(e) in done:
            continue
        if id(e) in by:
            done[id(e)] = by[id(e)]
            continue
        parts = [done[id(x)] for x in e.parts]
        if all(new is old for new, old in zip(parts, e.parts, strict=True)):
            done[id(e)] = e
            continue
        match e:
            case Compute():
                done[id(e)] = Compute(e.op, tuple(parts), e.params, e.dtype)
            case Cast():
                done[id(e)] = Cast(parts[0], e.dtype)
            case Within():
                done[id(e)] = Within(e.bounds, parts[0], parts[1])
            case Pick():
                indices = zip(parts, e.indices, strict=True)
                done[id(e)] = Pick(e.buffer, e.offset, tuple((x, n, s) for x, (_, n, s) in indices), e.name)
            case _:
                raise AssertionError(e)
    return done[id(root)]


def walk(*roots: Expr) -> Iterator[Expr]:
    """Every expression under the roots, once each, inputs first."""
    seen: set[int] = set()
    left = [(root, False) for root in reversed(roots)]
    while left:
        e, through = left.pop()
        if through:
            yield e
        elif id(e) not in seen:
            seen.add(id(e))
            left.append((e, True))
            left += [(x, False) for x in reversed(e.parts)]


def variables(*roots: Expr) -> frozenset[int]:
    """The loop variables that expressions mention."""
    return frozenset(v for e in walk(*roots) for p in e.positions() for v, _ in p.terms)
