"""Where a tile takes the elements of an operand from: memory, or an expression worked out on the way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from chainrule.compile.kernels.expression import Expr, Load
from chainrule.compile.llvm.builder import SCALAR, Builder, Index, Value
from chainrule.compile.llvm.contraction.axes import Axis
from chainrule.compile.llvm.expressions import Emitter
from chainrule.compile.llvm.indices import opaque


@dataclass(frozen=True)
class Memory:
    """Elements of the type that is summed, at pointer[at + more].

    strides: how far a step along an axis moves.
    padded: lanes behind the last one that counts may be read.
    """

    builder: Builder
    pointer: str
    dtype: np.dtype
    strides: Mapping[Axis, int]
    at: Index = 0
    more: int = 0
    padded: bool = False

    def moved(self, axis: Axis, by: Index) -> Memory:
        """The same from a place further along an axis on."""
        stride = self.strides.get(axis, 0)
        if isinstance(by, int):  # apart: a constant belongs into the address itself
            return replace(self, more=self.more + by * stride)
        b = self.builder
        return replace(self, at=b.index_add(self.at, b.index_mul(by, stride)))

    def opaque(self) -> Memory:
        """The same, from a place of which LLVM knows nothing: see `indices.opaque`."""
        return replace(self, at=opaque(self.builder, self.at))

    def further(self, elements: int) -> Memory:
        """The same from some elements further on."""
        return replace(self, more=self.more + elements)

    def load(self, lanes: int) -> Value:
        """The elements from here on, those beside each other."""
        return self._load(lanes, None)

    def scalar(self) -> Value:
        """The element here."""
        return self._load(SCALAR, None)

    def vector(self, axis: Axis, lanes: int, active: int | None) -> Value:
        """The elements from here along an axis."""
        stride = self.strides.get(axis, 0)
        if lanes == SCALAR or stride == 1:
            return self._load(lanes, None if self.padded else active)
        b = self.builder
        if stride == 0:
            return b.spread(self.scalar(), lanes)
        found = Value("zeroinitializer", self.dtype, lanes)
        for i in range(lanes if active is None else active):
            found = b.insert(found, self.moved(axis, i).scalar(), i)
        return found

    def store(self, value: Value) -> None:
        """Write elements from here on, those beside each other."""
        self.builder.store(value, self.pointer, self.builder.index_add(self.at, self.more), self.dtype)

    def _load(self, lanes: int, active: int | None) -> Value:
        return self.builder.load(
            self.pointer, self.builder.index_add(self.at, self.more), self.dtype, lanes, active if lanes else None
        )


@dataclass(frozen=True)
class Computed:
    """What an expression comes to, as the type that is summed.

    point: the value of each variable it mentions.
    """

    emitter: Emitter
    expr: Expr
    dtype: np.dtype
    point: Mapping[int, Index]

    def moved(self, axis: Axis, by: Index) -> Computed:
        """The same from a place further along an axis on."""
        if axis.variable is None:
            return self
        here = self.emitter.builder.index_add(self.point[axis.variable], by)
        return replace(self, point={**self.point, axis.variable: here})

    def scalar(self) -> Value:
        """The element here."""
        with self.emitter.lanes_over(None, SCALAR), self.emitter.at(self.point):
            return self._cast(self.emitter.value(self.expr))

    def vector(self, axis: Axis, lanes: int, active: int | None) -> Value:
        """The elements from here along an axis."""
        if lanes == SCALAR:
            return self.scalar()
        with self.emitter.lanes_over(axis.variable, lanes, active), self.emitter.at(self.point):
            return self.emitter.builder.spread(self._cast(self.emitter.spread(self.expr)), lanes)

    def _cast(self, value: Value) -> Value:
        return self.emitter.builder.cast(value, self.dtype)


Source = Memory | Computed


def plain(expr: Expr, dtype: np.dtype) -> bool:
    """Does the expression only read, elements that need no conversion?"""
    return isinstance(expr, Load) and expr.buffer.dtype == dtype


def source(emitter: Emitter, expr: Expr, dtype: np.dtype, point: Mapping[int, Index], axes: tuple[Axis, ...]) -> Source:
    """An operand from a point on; along `axes` it will be moved."""
    for axis in axes:
        point = {**axis.at(0), **point}
    if not isinstance(expr, Load) or not plain(expr, dtype):
        return Computed(emitter, expr, dtype, point)
    with emitter.at(point):
        at = emitter.index(expr.offset)
    at = opaque(emitter.builder, at)
    strides = {axis: axis.step(expr.offset) for axis in axes}
    return Memory(emitter.builder, emitter.pointer(expr.buffer), dtype, strides, at)
