"""Expressions of kernels as code, at the point that the loops entered so far stand at, in one lane or in several.

Knows each kind of expression, and how memory is read and written where lanes, bounds or computed indices are involved.
At which level of the loops the code of a part goes, and what is known there, is for `levels.py` to know.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, final

import numpy as np

from chainrule import dtypes
from chainrule.compile.kernels.buffer import Buffer
from chainrule.compile.kernels.expression import (
    Accumulated,
    Cast,
    Compute,
    Expr,
    Load,
    Number,
    Pick,
    Position,
    Random,
    Reduced,
    Within,
    walk,
)
from chainrule.compile.kernels.kernel import Store
from chainrule.compile.llvm.builder import SCALAR, Builder, Index, Value
from chainrule.compile.llvm.levels import Levels
from chainrule.compile.llvm.random import are_quads, drawn, drawn_together
from chainrule.compile.llvm.squares import is_across, transposed
from chainrule.core.affine import Affine


class Across(NamedTuple):
    """A square of points being written: `row` of `variable`, of as many as there are lanes over another one.

    read: vectors along the square's rows, by id of the load.
    """

    variable: int
    row: int
    read: dict[int, list[Value]]


@final
class Emitter(Levels):
    """Writes expressions at the point that the loops entered so far stand at.

    pointer: the register that holds a buffer's address.
    fault: called with a scalar bool that is true where an index is out of range, and the name of the op that asks.
    start: where in the stream, behind its counter, random numbers begin, if not where they say.
    """

    def __init__(
        self,
        builder: Builder,
        pointer: Callable[[Buffer], str],
        fault: Callable[[Value, str], None],
        start: Callable[[Random], Value] | None = None,
    ) -> None:
        super().__init__(builder)
        self.pointer, self.fault = pointer, fault
        self.start = start or (lambda expr: builder.constant(expr.offset, dtypes.int64))
        self.vector: int | None = None  # the variable that lanes run over, from its value on
        self.lanes = SCALAR
        self.active: int | None = None
        self.mask: Value | None = None
        self.quarter: int | None = None  # which of four whole vectors of neighbours, worked on at once, this is
        self._quads: dict[int, list[Value]] = {}
        self.across: Across | None = None
        self._mentioned: dict[int, tuple[Expr, frozenset[Any]]] = {}

    @contextmanager
    def lanes_over(self, variable: int | None, lanes: int, active: int | None = None) -> Iterator[None]:
        """Each value is one a lane: lane i stands at `variable` + i. `active`: lanes from there on are not stored."""
        before = self.vector, self.lanes, self.active
        self.vector, self.lanes, self.active = variable, lanes, active
        yield
        self.vector, self.lanes, self.active = before

    # --- values

    def value(self, expr: Expr) -> Value:
        """The expression here: a vector where it differs from lane to lane, else a scalar."""
        if isinstance(expr, Number):
            return self.builder.constant(expr.value, expr.dtype)
        key = (id(expr), self.lanes if self._varies(expr) else SCALAR, id(self.mask) if self.mask else 0)
        value: Value = self._once(self._depth_of(expr), key, lambda: (expr, self._computed(expr)))[1]
        return value

    def spread(self, expr: Expr) -> Value:
        """The expression in every lane."""
        value = self.value(expr)
        if value.lanes == self.lanes:
            return value
        if value.text[0] != "%":
            return self.builder.spread(value, self.lanes)
        key = (id(expr), "spread", self.lanes, id(self.mask) if self.mask else 0)
        spread: Value = self._once(self._depth_of(expr), key, lambda: (expr, self.builder.spread(value, self.lanes)))[1]
        return spread

    def store(self, store: Store, value: Value | None = None) -> None:
        """Write a store's value, or the given one, to its place."""
        buffer, b = store.buffer, self.builder
        step = 0 if self.vector is None else store.offset.coefficient(self.vector)
        if value is None:
            value = self.spread(store.value) if step else self.value(store.value)
        offset = self.index(store.offset)
        pointer = self.pointer(buffer)
        if value.lanes == SCALAR:
            b.store(value, pointer, offset, buffer.dtype)
        elif step == 1:
            b.store(value, pointer, offset, buffer.dtype, self.active)
        else:
            for i in range(value.lanes if self.active is None else self.active):
                b.store(b.lane(value, i), pointer, b.index_add(offset, i * step), buffer.dtype)

    # --- inside

    def _mentions(self, expr: Expr) -> frozenset[Any]:
        """The variables, and the ids of the reductions and sums, that an expression depends on."""
        found = self._mentioned.get(id(expr))
        if found is None:
            for e in walk(expr):
                if id(e) not in self._mentioned:
                    own: set[Any] = {v for p in e.positions() for v, _ in p.terms}
                    if isinstance(e, Reduced):
                        own.add(("defined", id(e.reduction)))
                    elif isinstance(e, Accumulated):
                        own.add(("defined", id(e)))
                    for x in e.parts:
                        own |= self._mentioned[id(x)][1]
                    self._mentioned[id(e)] = e, frozenset(own)
            found = self._mentioned[id(expr)]
        return found[1]

    def _depth_of(self, expr: Expr) -> int:
        """The level where an expression is computed: what a mask covers stays at the level of that mask."""
        return self._depth(self._mentions(expr)) if self.mask is None else len(self._levels) - 1

    def _varies(self, expr: Expr) -> bool:
        if self.vector is None:
            return False
        mentioned = self._mentions(expr)
        if self.vector in mentioned:
            return True
        return any(v.lanes != SCALAR and ("defined", key) in mentioned for key, v in self._definitions())

    def _computed(self, expr: Expr) -> Value:
        b = self.builder
        value: Value
        match expr:
            case Load():
                value = self._turned(expr) if self._is_turned(expr) else self._loaded(expr.buffer, expr.offset)
            case Compute():
                value = expr.op.scalar(b, *[self.value(x) for x in expr.inputs], **expr.params)
            case Cast():
                value = b.cast(self.value(expr.input), expr.dtype)
            case Position():
                value = self.position(expr.affine, expr.dtype)
            case Within():
                value = self._within(expr)
            case Pick():
                value = self._picked(expr)
            case Reduced():
                value = self._defined(expr.reduction)
            case Accumulated():
                value = self._defined(expr)
            case Random():
                value = self._random(expr)
            case _:
                raise AssertionError(expr)
        return value

    def _loaded(self, buffer: Buffer, offset: Affine) -> Value:
        b, step = self.builder, 0 if self.vector is None else offset.coefficient(self.vector)
        pointer, at = self.pointer(buffer), self.index(offset)
        if step == 0 or self.lanes == SCALAR:
            return self._loaded_scalar(pointer, at, buffer)
        if step == 1:
            return self._loaded_neighbours(pointer, at, buffer)
        gathered = b.undefined(dtypes.work_dtype(buffer.dtype), self.lanes)
        for i in range(self.lanes if self.active is None else self.active):
            where = b.index_add(at, i * step)
            if self.mask is not None:
                # Outside the bounds, the address of the buffer itself is read instead, and not used.
                inside = b.lane(self.mask, i) if self.mask.lanes else self.mask
                where = b.where(inside, b.index_value(where), b.constant(0, dtypes.int64))
            gathered = b.insert(gathered, b.load(pointer, where, buffer.dtype), i)
        return gathered

    def _loaded_neighbours(self, pointer: str, at: Index, buffer: Buffer) -> Value:
        """What lies side by side, in each lane the next."""
        b = self.builder
        if self.mask is not None and (self.mask.lanes != SCALAR or buffer.span < self.lanes):
            return b.load_masked(pointer, at, buffer.dtype, self._whole_mask())
        if self.mask is not None:
            # All lanes or none: the first elements are read instead. A masked load that reaches into a page that is
            # not there, though no lane counts, takes the processor a hundred times as long as this choice.
            at = b.where(self.mask, b.index_value(at), b.constant(0, dtypes.int64))
        return b.load(pointer, at, buffer.dtype, self.lanes, self.active)

    def _is_turned(self, expr: Load) -> bool:
        """Does what lanes read lie far apart, and next to it what they read at the other rows of the square?"""
        if self.across is None or self.vector is None or self.mask is not None or self.active not in (None, self.lanes):
            return False
        return is_across(expr.offset, self.vector, self.across.variable)

    def _turned(self, expr: Load) -> Value:
        """A row of the square, which is read along its columns, each a vector, at the first one."""
        assert self.across is not None
        assert self.vector is not None
        b, read = self.builder, self.across.read
        if id(expr) not in read:
            assert self.across.row == 0
            pointer, at, step = self.pointer(expr.buffer), self.index(expr.offset), expr.offset.coefficient(self.vector)
            places = [b.index_add(at, i * step) for i in range(self.lanes)]
            read[id(expr)] = transposed(b, [b.load(pointer, x, expr.buffer.dtype, self.lanes) for x in places])
        return read[id(expr)][self.across.row]

    def _loaded_scalar(self, pointer: str, at: Index, buffer: Buffer) -> Value:
        b = self.builder
        if self.mask is not None:
            at = b.where(self._wanted(), b.index_value(at), b.constant(0, dtypes.int64))
        return b.load(pointer, at, buffer.dtype)

    def _wanted(self) -> Value:
        """Does any lane want what is masked?"""
        assert self.mask is not None
        return self.mask if self.mask.lanes == SCALAR else self.builder.fold(self.mask, self.builder.or_)

    def _whole_mask(self) -> Value:
        assert self.mask is not None
        mask = self.builder.spread(self.mask, self.lanes)
        if self.active is not None and self.active != self.lanes:
            lane = self.builder.iota(dtypes.int32, self.lanes)
            mask = self.builder.and_(mask, self.builder.lt(lane, self.builder.like(self.active, lane)))
        return mask

    def position(self, affine: Affine, dtype: np.dtype = dtypes.int64) -> Value:
        """A position as a number: one a lane where it differs from lane to lane."""
        b = self.builder
        here = b.cast(b.index_value(self.index(affine)), dtype)
        step = 0 if self.vector is None else affine.coefficient(self.vector)
        if step == 0 or self.lanes == SCALAR:
            return here
        return b.add(here, b.iota(dtypes.work_dtype(dtype), self.lanes, step))

    def _within(self, expr: Within) -> Value:
        b = self.builder
        inside: Value | None = None
        for affine, low, high in expr.bounds:
            reach = self.reach(affine)
            if reach is not None and (reach[1] < low or reach[0] >= high):
                return self.value(expr.outside)
            if reach is not None and low <= reach[0] and reach[1] < high:
                continue
            at = self.position(affine)
            holds = b.and_(b.ge(at, b.like(low, at)), b.lt(at, b.like(high, at)))
            inside = holds if inside is None else b.and_(inside, holds)
        if inside is None:
            return self.value(expr.inside)
        # Neither part is read where the other one counts: of arrays joined, each has an end.
        value = self._masked(expr.inside, inside)
        return b.where(inside, value, self._masked(expr.outside, b.not_(inside)))

    def _masked(self, expr: Expr, mask: Value) -> Value:
        """The expression, which is not read but where the mask holds, and the one that it stands in."""
        if isinstance(expr, Number):
            return self.value(expr)
        outer = self.mask
        self.mask = mask if outer is None else self.builder.and_(outer, mask)
        with self.at({}):  # masked values are not known outside
            value = self.value(expr)
        self.mask = outer
        return value

    def picked_offset(
        self, offset: Affine, indices: Sequence[tuple[Expr, int, int]], name: str, *, first: bool = False
    ) -> Value:
        """An offset plus computed indices times strides: see `Pick`. first: that of the first lane alone."""
        b = self.builder
        at: Value = b.index_value(self.index(offset)) if first else self.position(offset)
        if indices:
            looked_up = [x for x, _, _ in indices]
            mentioned = frozenset[Any]().union(*map(self._mentions, looked_up))
            depth = self._depth(mentioned) if self.mask is None else len(self._levels) - 1
            lanes = self.lanes if any(map(self._varies, looked_up)) else SCALAR
            key = ("picked", tuple([(id(x), size, stride) for x, size, stride in indices]), lanes, id(self.mask))
            found: Value = self._once(depth, key, lambda: (indices, self._looked_up(indices, name)))[1]
            at = b.add(at, found)
        if self.mask is None:
            return at
        # Outside the bounds the position may be one that is not there: the first element is read instead.
        wanted = self._wanted() if at.lanes == SCALAR else b.spread(self.mask, at.lanes)
        return b.where(wanted, at, b.like(0, at))

    def _looked_up(self, indices: Sequence[tuple[Expr, int, int]], name: str) -> Value:
        """Indices times strides, once for all that are read there; those out of range are noted, and 0."""
        b = self.builder
        bad: Value | None = None
        at: Value | None = None
        for index, size, stride in indices:
            given = b.cast(self.value(index), dtypes.int64)
            wrapped = b.where(b.lt(given, b.like(0, given)), b.add(given, b.like(size, given)), given)
            inside = b.and_(b.ge(wrapped, b.like(0, given)), b.lt(wrapped, b.like(size, given)))
            if self.mask is not None:
                mask = self._wanted() if inside.lanes == SCALAR else self.mask
                inside = b.or_(inside, b.not_(mask))
            outside = b.not_(inside)
            bad = outside if bad is None else b.or_(bad, outside)
            wrapped = b.where(inside, wrapped, b.like(0, wrapped))
            scaled = b.mul(wrapped, b.like(stride, wrapped))
            at = scaled if at is None else b.add(at, scaled)
        assert bad is not None
        assert at is not None
        if bad.lanes != SCALAR:
            if self.active is not None and self.active != bad.lanes:
                lane = b.iota(dtypes.int32, bad.lanes)
                bad = b.and_(bad, b.lt(lane, b.like(self.active, lane)))
            bad = b.fold(bad, b.or_)
        self.fault(bad, name)
        return at

    def _picked(self, expr: Pick) -> Value:
        b = self.builder
        pointer = self.pointer(expr.buffer)
        if self._picks_neighbours(expr):
            at = self.picked_offset(expr.offset, expr.indices, expr.name, first=True)
            return self._loaded_neighbours(pointer, at, expr.buffer)
        at = self.picked_offset(expr.offset, expr.indices, expr.name)
        if at.lanes == SCALAR:
            return b.load(pointer, at, expr.buffer.dtype)
        picked = b.undefined(dtypes.work_dtype(expr.buffer.dtype), at.lanes)
        for i in range(at.lanes if self.active is None else self.active):
            picked = b.insert(picked, b.load(pointer, b.lane(at, i), expr.buffer.dtype), i)
        return picked

    def _picks_neighbours(self, expr: Pick) -> bool:
        """Do all lanes look up the same index, and read what lies side by side there, as of a row of a table?"""
        if self.vector is None or self.lanes == SCALAR:
            return False
        return expr.offset.coefficient(self.vector) == 1 and not any(self._varies(x) for x, _, _ in expr.indices)

    def _random(self, expr: Random) -> Value:
        b, pointer = self.builder, self.pointer(expr.key)
        seed = b.load(pointer, 0, dtypes.int64)
        counter = b.add(b.load(pointer, 1, dtypes.int64), self.start(expr))
        if self.quarter is not None and are_quads(expr.kind, expr.dtype, expr.number, self.vector, self.lanes):
            if self.quarter == 0:
                first = b.index_value(self.index(expr.number))
                self._quads[id(expr)] = drawn_together(b, (seed, counter), first, self.lanes, expr.dtype)
            return self._quads[id(expr)][self.quarter]
        number = self.position(expr.number)
        return drawn(b, expr.kind, (seed, counter), number, expr.count, expr.params, expr.dtype)
