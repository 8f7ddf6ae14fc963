"""Tiles numbered one after the other, and indices worked out from numbers known only when the code runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from chainrule.compile.llvm.builder import Builder, Index, Value
from chainrule.compile.llvm.contraction.axes import Axis, product
from chainrule.compile.llvm.expressions import Emitter
from chainrule.compile.llvm.indices import index_divmod, index_sub, opaque


@dataclass(frozen=True)
class Kind:
    """Tiles of one size along an axis.

    first, count: the numbers of these tiles.
    size: how many positions of the axis a tile takes; start: the first of them.
    """

    first: int
    count: int
    size: int
    start: int


@dataclass(frozen=True)
class Grid:
    """The tiles along one axis, at each point of other axes: first all full tiles, then all remainders.

    start: where along the axis they begin.
    """

    others: tuple[Axis, ...]
    axis: Axis
    size: int
    start: int

    @property
    def kinds(self) -> list[Kind]:
        """The full tiles and the remainders, those that exist."""
        points, full, rest = product(self.others), *divmod(self.axis.extent, self.size)
        behind = self.start + full * self.size
        found = [Kind(0, points * full, self.size, self.start), Kind(points * full, points, rest, behind)]
        return [k for k in found if k.count and k.size]

    @property
    def count(self) -> int:
        """The number of tiles."""
        return sum(k.count for k in self.kinds)

    def point(self, b: Builder, kind: Kind, number: Index) -> tuple[dict[int, Index], Index]:
        """Where a tile of this kind is: the values of the other axes' variables, and its start along the axis."""
        rest: Index = index_sub(b, number, kind.first)
        values: dict[int, Index] = {}
        along = kind.count // max(product(self.others), 1)
        rest, tile = index_divmod(b, rest, along) if self.others else (0, rest)
        for n, axis in reversed(list(enumerate(self.others))):
            rest, digit = index_divmod(b, rest, axis.extent) if n else (0, rest)
            values |= axis.at(digit)
        return values, opaque(b, b.index_add(b.index_mul(tile, kind.size), kind.start))


def repeat(
    emitter: Emitter,
    start: Index,
    stop: Index,
    step: int,
    body: Callable[[Index, Sequence[Value]], Sequence[Value] | None],
    carry: Sequence[Value] = (),
) -> list[Value]:
    """`Builder.loop`, entered through the emitter: what does not change goes before it."""

    def inside(i: Index, carried: Sequence[Value], before: list[Any] | None) -> Sequence[Value] | None:
        with emitter.at({}, before):
            return body(i, carried)

    return emitter.builder.loop_with_hoist(start, stop, step, inside, carry)
