"""Where the entries of a value come from: ops that only move entries become arithmetic on positions.

`lowered` writes the value of a node at a position as an expression of a kernel, going back through elementwise ops and
moves until it comes to nodes that somebody else says how to read: what lies in memory, or is computed in these loops.
Knows how positions are put into each other, split and joined; which entry an op copies is its own to say, as `origin`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from chainrule import dtypes
from chainrule.compile.kernels.buffer import row_major
from chainrule.compile.kernels.expression import (
    Cast,
    Compute,
    Expr,
    Load,
    Number,
    Pick,
    Position,
    Within,
    narrowed,
)
from chainrule.core.affine import Affine
from chainrule.core.family import Elementwise, Linear
from chainrule.core.node import Node
from chainrule.core.origin import ROW_BY_ROW, Bound, Copies, rearranged
from chainrule.ops import elementwise, indexing, movement, source

# A position along each dimension: affine in the loop variables, or computed (an index that was looked up).
Index = tuple[Affine | Expr, ...]


@dataclass(frozen=True)
class Flat:
    """A position in a value counted as if it lay in memory row by row."""

    offset: Affine


Where = Index | Flat

# How to read a node that is not computed here: its expression, or None to go on behind it.
Leaf = Callable[[Node, Where], Expr | None]


class MisfitError(Exception):
    """The value cannot be computed at that position; it has to be put into memory first: `node`."""

    def __init__(self, node: Node) -> None:
        super().__init__(node.op.name if node.op else "leaf")
        self.node = node


_PICKS = frozenset({indexing.gather, indexing.index})
_MADE = frozenset({source.full, source.arange})


def is_free(node: Node) -> bool:
    """Can the value be computed wherever it is read, from its inputs at one position each?"""
    op = node.op
    computed = isinstance(op, Elementwise) or op is movement.cast or op in _PICKS or op in _MADE
    return op is not None and (computed or is_move(node))


def rounded(x: Expr) -> Expr:
    """As it would be read from memory, where 16-bit floats are rounded: for what jumps, and for positions of values."""
    is_wide = dtypes.work_dtype(x.dtype) != x.dtype and not isinstance(x, Load | Pick | Number | Cast)
    return Cast(x, x.dtype) if is_wide else x


def is_picked(node: Node) -> bool:
    """Is each entry looked up at a computed index?"""
    return node.op in _PICKS


def is_move(node: Node) -> bool:
    """Does the op only move entries?"""
    return isinstance(node.op, Linear) and node.op.origin is not None


@dataclass
class Lowering:
    """Expressions of one kernel; what is asked for twice is written once.

    extents: the rounds of each loop variable.
    """

    leaf: Leaf
    extents: dict[int, int]
    done: dict[Any, tuple[Node, Expr]] = field(default_factory=dict)

    def lowered(self, node: Node, where: Where) -> Expr:
        """The value of a node at a position."""
        key = (id(node), where.offset if isinstance(where, Flat) else _key(where))
        found = self.done.get(key)
        if found is None:
            found = self.done[key] = node, self._lowered(node, where)
        return found[1]

    def _lowered(self, node: Node, where: Where) -> Expr:
        read = self.leaf(node, where)
        if read is not None:
            return read
        if node.constant is not None:
            return Number(_number(node), node.aval.dtype)
        op = node.op
        if op is None or not is_free(node):
            raise MisfitError(node)
        if isinstance(where, Flat):
            where = self._unflattened(node, where)
        if isinstance(op, Elementwise):
            return self._elementwise(op, node, where)
        if op is movement.cast:
            x = self.lowered(node.inputs[0], where)
            return Cast(x if dtypes.is_float(node.aval.dtype) else rounded(x), node.aval.dtype)
        if op in _MADE:
            return self._made(node, where)
        if op in _PICKS:
            return self._picked(node, where)
        return self._moved(node, where)

    def _elementwise(self, op: Elementwise, node: Node, where: Index) -> Expr:
        inputs = tuple([self.lowered(x, where if x.aval.shape else ()) for x in node.inputs])
        if op.jumps or node.aval.dtype == dtypes.bool_:  # an entry is the largest one even if only that was stored
            inputs = tuple([rounded(x) for x in inputs])
        if node.aval.dtype == dtypes.bool_ and all(x.dtype == dtypes.int64 for x in inputs):
            narrow = tuple([n for x in inputs if (n := narrowed(x, self.extents)) is not None])
            inputs = narrow if len(narrow) == len(inputs) else inputs
        return Compute(op, inputs, node.params, node.aval.dtype)

    def _made(self, node: Node, where: Index) -> Expr:
        params, dtype = node.params, node.aval.dtype
        if node.op is source.full:
            return Number(params["value"], dtype)
        (at,) = where
        if not isinstance(at, Affine):
            raise MisfitError(node)
        start, step = params["start"], params["step"]
        if dtypes.is_integer(dtype) and isinstance(start, int | np.integer) and isinstance(step, int | np.integer):
            return Position(at * int(step) + int(start), dtype)
        counted = Position(at, dtypes.float64)
        scaled = Compute(elementwise.mul, (counted, Number(float(step), dtypes.float64)), {}, np.dtype(np.float64))
        moved = Compute(elementwise.add, (scaled, Number(float(start), dtypes.float64)), {}, np.dtype(np.float64))
        return Cast(moved, dtype)

    def _picked(self, node: Node, where: Index) -> Expr:
        x, *indices = node.inputs
        if node.op is indexing.gather:
            dim = node.params["dim"]
            found = self.lowered(indices[0], where)
            return self.lowered(x, (*where[:dim], found, *where[dim + 1 :]))
        given = indices[0].aval.ndim
        looked_up = tuple(self.lowered(i, where[:given] if i.aval.shape else ()) for i in indices)
        return self.lowered(x, (*looked_up, *where[given:]))

    def _moved(self, node: Node, where: Index) -> Expr:
        copies = _copies(node)
        if copies is ROW_BY_ROW:
            return self.lowered(node.inputs[0], self._reshaped(node, where))
        if copies is None:
            raise MisfitError(node)  # put into memory by stores, not by looking back
        positions = [w for w in where if isinstance(w, Affine)]
        if len(positions) < len(where):
            return self.lowered(node.inputs[0], _rearranged(node, where))
        at = dict(enumerate(positions))
        found: Expr = Number(0, node.aval.dtype)
        for copy in reversed(copies):
            part = self.lowered(node.inputs[copy.input], tuple([p.replaced(at) for p in copy.at]))
            bounds = self._open([(p.replaced(at), start, stop) for p, start, stop in copy.within])
            found = Within(bounds, part, found) if bounds else part
        return found

    def _open(self, bounds: Sequence[Bound]) -> tuple[Bound, ...]:
        """Those that do not hold everywhere."""
        spans = [(bound, bound[0].range(self.extents)) for bound in bounds]
        return tuple([(p, start, stop) for (p, start, stop), (low, high) in spans if low < start or high >= stop])

    # --- reshaping: dimensions split and join

    def _reshaped(self, node: Node, where: Index) -> Where:
        """The position before a reshape, given the one after it."""
        before, after = node.inputs[0].aval.shape, node.aval.shape
        found: list[Affine | Expr] = [Affine()] * len(before)
        for held, made in segments(before, after):
            part = self._segment([before[d] for d in held], [after[d] for d in made], [where[d] for d in made])
            if part is None:
                return Flat(Affine.total(zip(_affine(node, where), row_major(after), strict=True)))
            for d, w in zip(held, part, strict=True):
                found[d] = w
        return tuple(found)

    def pushed(self, node: Node, where: tuple[Affine, ...]) -> tuple[Affine, ...] | None:
        """Where an entry goes: the position after a permutation or a reshape, given the one before."""
        copies = _copies(node)
        before, after = node.inputs[0].aval.shape, node.aval.shape
        if copies is not ROW_BY_ROW:
            order = rearranged(copies, before, after)
            if order is None or None in order or len(order) != len(after):
                return None
            return tuple(where[order.index(d)] for d in range(len(after)))
        found: list[Affine] = [Affine()] * len(after)
        for held, made in segments(before, after):
            part = self._segment([after[d] for d in made], [before[d] for d in held], [where[d] for d in held])
            if part is None:
                return None
            for d, w in zip(made, part, strict=True):
                found[d] = w  # type: ignore[assignment]
        return tuple(found)

    def _segment(
        self, before: Sequence[int], after: Sequence[int], where: Sequence[Affine | Expr]
    ) -> list[Affine | Expr] | None:
        if len(before) == 1 == len(after):
            return [where[0]]
        if not all(isinstance(w, Affine) for w in where):
            return None
        flat = Affine.total(zip(where, row_major(tuple(after)), strict=True))  # type: ignore[arg-type]
        return self._split(flat, before)

    def _split(self, flat: Affine, sizes: Sequence[int]) -> list[Affine | Expr] | None:
        """A flat position taken apart into dimensions, where that needs no division by anything that varies."""
        found: list[Affine | Expr] = []
        for stride in row_major(tuple(sizes)):
            high = Affine(0, tuple((v, c // stride) for v, c in flat.terms if c % stride == 0))
            whole, constant = divmod(flat.constant, stride)
            rest = Affine(constant, tuple((v, c) for v, c in flat.terms if c % stride))
            low, most = rest.range(self.extents)
            if low < 0 or most >= stride:
                return None
            found.append(high + whole)
            flat = rest
        return found

    def _unflattened(self, node: Node, where: Flat) -> Index:
        """A flat position in the dimensions of a node that is computed, not read."""
        found = self._split(where.offset, node.aval.shape)
        if found is None:
            raise MisfitError(node)
        return tuple(found)


def segments(before: Sequence[int], after: Sequence[int]) -> Iterator[tuple[list[int], list[int]]]:
    """The dimensions before and after a reshape that hold the same entries, as few as possible; sizes of 1 left out."""
    i = j = 0
    while True:
        while i < len(before) and before[i] == 1:
            i += 1
        while j < len(after) and after[j] == 1:
            j += 1
        if i == len(before) or j == len(after):
            return
        held, made, have, want = [i], [j], before[i], after[j]
        i, j = i + 1, j + 1
        while have != want:
            if have < want:
                have *= before[i]
                held.append(i)
                i += 1
            else:
                want *= after[j]
                made.append(j)
                j += 1
        yield held, made


def splits(before: Sequence[int], after: Sequence[int]) -> bool:
    """Does a reshape only take dimensions apart, and add or drop some of size 1?"""
    return 0 not in before and all(len(held) == 1 for held, _ in segments(before, after))


def _copies(node: Node) -> Copies | None:
    return node.op.copies(node) if isinstance(node.op, Linear) else None


def _rearranged(node: Node, where: Index) -> Index:
    """The position in the one input, where some positions are looked up: they can be handed on, not computed with."""
    order = rearranged(_copies(node), node.inputs[0].aval.shape, node.aval.shape)
    if order is None:
        raise MisfitError(node)
    return tuple(Affine() if d is None else where[d] for d in order)


def _affine(node: Node, where: Index) -> tuple[Affine, ...]:
    if not all(isinstance(w, Affine) for w in where):
        raise MisfitError(node)
    return where  # type: ignore[return-value]


def _number(node: Node) -> float | int | bool:
    assert node.constant is not None
    numerator, denominator = node.constant
    return numerator if denominator == 1 else numerator / denominator


def _key(where: Index) -> tuple[Any, ...]:
    return tuple(w if isinstance(w, Affine) else id(w) for w in where)
