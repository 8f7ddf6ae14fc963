"""Kernels: loop nests over memory, the form between a program of ops and machine code.

A kernel is one of a few kinds of loop nest. What it computes at one point of its loops is an expression: loads at
affine positions, ops of the catalogue applied to scalars, positions, numbers. A backend turns kernels into code; it
knows these classes and no op but through `Elementwise.scalar`.

Loop variables are numbered; an `Affine` is a constant plus variables times coefficients. Offsets and coefficients count
elements, never bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np

from chainrule.core.family import Elementwise

# --- positions


class Affine(NamedTuple):
    """constant + Σ coefficient · variable; terms sorted by variable, no coefficient 0.

    >>> str(Affine.of(3) + Affine.variable(0) * 10)
    '10 v0 + 3'
    """

    constant: int = 0
    terms: tuple[tuple[int, int], ...] = ()

    @classmethod
    def of(cls, constant: int) -> Affine:
        """A number."""
        return cls(constant, ())

    @classmethod
    def variable(cls, number: int) -> Affine:
        """One loop variable."""
        return cls(0, ((number, 1),))

    @classmethod
    def total(cls, parts: Iterable[tuple[Affine, int]]) -> Affine:
        """Σ affine · factor."""
        constant, terms = 0, {}  # type: int, dict[int, int]
        for affine, factor in parts:
            constant += affine.constant * factor
            for v, c in affine.terms:
                terms[v] = terms.get(v, 0) + c * factor
        return cls(constant, tuple(sorted((v, c) for v, c in terms.items() if c)))

    def __add__(self, other: Affine | int) -> Affine:  # type: ignore[override]
        if isinstance(other, int):
            return Affine(self.constant + other, self.terms)
        return Affine.total(((self, 1), (other, 1)))

    def __sub__(self, other: Affine) -> Affine:
        return Affine.total(((self, 1), (other, -1)))

    def __mul__(self, factor: int) -> Affine:  # type: ignore[override]
        return Affine.total(((self, factor),))

    def coefficient(self, variable: int) -> int:
        """How much one step of the variable moves this position."""
        return next((c for v, c in self.terms if v == variable), 0)

    def replaced(self, by: Mapping[int, Affine]) -> Affine:
        """With other positions in place of some variables."""
        if not any(v in by for v, _ in self.terms):
            return self
        moved = [(by.get(v, Affine.variable(v)), c) for v, c in self.terms]
        return Affine.total([(Affine.of(self.constant), 1), *moved])

    def range(self, extents: Mapping[int, int]) -> tuple[int, int]:
        """The least and the greatest value while each variable runs over 0 … extent - 1."""
        low = high = self.constant
        for v, c in self.terms:
            reach = c * (extents[v] - 1)
            low, high = low + min(reach, 0), high + max(reach, 0)
        return low, high

    def __str__(self) -> str:
        parts = [f"{c} v{v}" if c != 1 else f"v{v}" for v, c in self.terms]
        if self.constant or not parts:
            parts.append(str(self.constant))
        return " + ".join(parts)


# --- memory

Place = Literal["input", "constant", "arena", "output", "private"]


@dataclass(frozen=True, eq=False, kw_only=True)
class Buffer:
    """Memory that kernels read or write: an array with strides, counted in elements.

    place: an input of the program (also what is updated in place), a constant of it, a stretch of the arena, an output
        that the caller allocates, or memory private to one thread inside one kernel.
    array: for a constant, its value.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype
    strides: tuple[int, ...]
    place: Place
    array: np.ndarray | None = None

    @property
    def span(self) -> int:
        """Elements from the first to just behind the last."""
        if 0 in self.shape:
            return 0
        return 1 + sum((n - 1) * s for n, s in zip(self.shape, self.strides, strict=True))

    @property
    def bytes(self) -> int:
        """Memory it takes."""
        return self.span * self.dtype.itemsize


def row_major(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The strides of a contiguous array."""
    strides, step = [], 1
    for n in reversed(shape):
        strides.append(step)
        step *= max(n, 1)
    return tuple(reversed(strides))


# --- expressions: what is computed at one point of the loops


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


@dataclass(frozen=True, eq=False, slots=True)
class Pick(Expr):
    """The element of a buffer at an offset plus computed indices times strides.

    indices: (index, size, stride); an index below 0 counts from the end, one outside -size ≤ i < size reads element 0
        and is reported (see `Step.faults`).
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


# --- loop nests

Combine = Literal["add", "mul", "max", "min", "and", "or", "argmax", "argmin"]


@dataclass(frozen=True, eq=False, kw_only=True)
class Store:
    """buffer[offset] = value."""

    buffer: Buffer
    offset: Affine
    value: Expr


@dataclass(frozen=True, eq=False, kw_only=True)
class Reduction:
    """All values along a stage's inner variables combined into one for each point of the outer ones.

    For argmax and argmin: the position (`position`, int64) of the first extreme; nan counts as the extreme.
    """

    combine: Combine
    value: Expr
    dtype: np.dtype
    position: Affine | None = None


@dataclass(frozen=True, eq=False, kw_only=True)
class Stage:
    """Loops over `inner` variables, inside the outer ones of the kernel: reductions and stores at each point.

    With no inner variables the stores happen once for each point of the outer ones.
    """

    inner: tuple[int, ...]
    reductions: tuple[Reduction, ...] = ()
    stores: tuple[Store, ...] = ()


@dataclass(frozen=True, eq=False, kw_only=True)
class Loops:
    """Stages one after the other at each point of the outer variables; a stage may read what earlier ones reduced.

    extents: the number of rounds of each variable, by number.
    outer: variables whose points do not depend on each other; threads share the first.
    """

    name: str
    extents: Mapping[int, int]
    outer: tuple[int, ...]
    stages: tuple[Stage, ...]


@dataclass(frozen=True, eq=False, kw_only=True)
class Contract:
    """out[batch, rows, columns] = Σ over `summed` of left · right; then the epilogue at each point of out.

    left mentions batch, row and summed variables only, right batch, column and summed variables only; both are loads
    (a cast or a gate around one is allowed, and is done while packing).
    accumulate: the dtype of the sum: float32 for the 16-bit floats, else that of the operands.
    epilogue: stores whose values mention `Accumulated` and loads at batch, row and column variables.
    """

    name: str
    extents: Mapping[int, int]
    batch: tuple[int, ...]
    rows: tuple[int, ...]
    columns: tuple[int, ...]
    summed: tuple[int, ...]
    left: Expr
    right: Expr
    accumulate: np.dtype
    epilogue: tuple[Store, ...]


@dataclass(frozen=True, eq=False, kw_only=True)
class Scatter:
    """buffer = 0; then, in order, buffer[offset + Σ index · stride] += value at each point of the variables."""

    name: str
    extents: Mapping[int, int]
    loops: tuple[int, ...]
    buffer: Buffer
    offset: Affine
    indices: tuple[tuple[Expr, int, int], ...]
    value: Expr


@dataclass(frozen=True, eq=False, kw_only=True)
class Scan:
    """Running sums along one variable, at each point of the others: target[offset] = Σ of value up to here."""

    name: str
    extents: Mapping[int, int]
    outer: tuple[int, ...]
    along: int
    value: Expr
    target: Store


@dataclass(frozen=True, eq=False, kw_only=True)
class Sort:
    """Positions that sort `value` along one variable, stably, at each point of the others; nan last."""

    name: str
    extents: Mapping[int, int]
    outer: tuple[int, ...]
    along: int
    value: Expr
    descending: bool
    target: Store  # of the position that belongs at this place
    scratch: tuple[Buffer, ...] = field(default=())


@dataclass(frozen=True, eq=False, kw_only=True)
class Nest:
    """Kernels one after the other at each point of shared variables, what they hand on kept in memory of the thread.

    The scores of attention, of one head of one example, are made, normalised and used up before the next one's: the
    full matrix of scores is never stored.

    variables: the shared ones, which the kernels mention and do not loop over; extents: their rounds.
    private: what is handed on and needed nowhere else.
    """

    name: str
    extents: Mapping[int, int]
    variables: tuple[int, ...]
    kernels: tuple[Loops | Contract, ...]
    private: tuple[Buffer, ...]


Kernel = Loops | Contract | Scatter | Scan | Sort | Nest


# --- walks and changes


def moved(root: Expr, buffers: Mapping[int, tuple[Buffer, Callable[[Affine], Affine]]], done: dict[int, Expr]) -> Expr:
    """An expression that reads other buffers in place of some, at other offsets."""
    loads: dict[int, Expr] = {}
    for e in walk(root):
        if isinstance(e, Load) and id(e.buffer) in buffers and id(e) not in done:
            buffer, offset = buffers[id(e.buffer)]
            loads[id(e)] = Load(buffer, offset(e.offset))
    return substituted(root, loads, done)


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

    def visit(e: Expr) -> Iterator[Expr]:
        if id(e) in seen:
            return
        seen.add(id(e))
        for x in e.parts:
            yield from visit(x)
        yield e

    for root in roots:
        yield from visit(root)


def variables(*roots: Expr) -> frozenset[int]:
    """The loop variables that expressions mention."""
    return frozenset(v for e in walk(*roots) for p in e.positions() for v, _ in p.terms)
