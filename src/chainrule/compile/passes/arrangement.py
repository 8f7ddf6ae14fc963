"""What reshapes and permutes make of a value: which parts of its dimensions stand where. Shared by passes.

Along a dimension that is joined from several, positions have to be divided to find the entries of the value before:
this is where a pass sees that.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, final

from chainrule.core.node import Node
from chainrule.ops import movement

Shape = tuple[int, ...]


class Part(NamedTuple):
    """Positions of a dimension of the source: those that are multiples of `step`, `size` of them."""

    dim: int
    step: int
    size: int


Parts = tuple[Part, ...]


@final
@dataclass(frozen=True, eq=False)
class Arrangement:
    """A value as parts of a source: what each of its dimensions is joined from, row by row.

    Every entry of the source stands in it once. Dimensions of size 1 are joined from nothing.
    """

    source: Node
    dims: tuple[Parts, ...]

    @property
    def shape(self) -> Shape:
        return tuple([math.prod([part.size for part in parts]) for parts in self.dims])

    def is_joined(self) -> bool:
        """Is any dimension joined from several?"""
        return any(len(parts) > 1 for parts in self.dims)

    def in_order(self) -> bool:
        """Do the parts follow each other as in the source?"""
        flat = [part for parts in self.dims for part in parts]
        return flat == sorted(flat, key=_place)

    def reshaped(self, shape: Shape) -> Arrangement | None:
        """After a reshape; None where it cuts a part into what is no part."""
        found = regrouped([part for parts in self.dims for part in parts], shape)
        return None if found is None else Arrangement(self.source, found)

    def permuted(self, dims: Sequence[int]) -> Arrangement:
        """After a permutation."""
        return Arrangement(self.source, tuple([self.dims[d] for d in dims]))

    def built(self) -> Any:
        """The value: the source, reshaped and permuted as little as it takes."""
        source: Any = self.source
        shape = self.shape
        if self.in_order():
            return source if source.aval.shape == shape else movement.reshape(source, shape=shape)
        dims = self._as_permutation()
        if dims is not None:
            return movement.permute(source, dims=dims)
        flat = [part for parts in self.dims for part in parts]
        before = sorted(flat, key=_place)
        apart = tuple([part.size for part in before])
        if source.aval.shape != apart:
            source = movement.reshape(source, shape=apart)
        moved = movement.permute(source, dims=tuple([before.index(part) for part in flat]))
        return moved if moved.aval.shape == shape else movement.reshape(moved, shape=shape)

    def _as_permutation(self) -> Shape | None:
        """The dimensions of the source in the order in which they stand here, if each is whole."""
        shape = self.source.aval.shape
        if len(shape) != len(self.dims) or any(len(p) > 1 or (p and p[0].size != shape[p[0].dim]) for p in self.dims):
            return None
        units = iter([d for d, n in enumerate(shape) if n == 1])
        return tuple([parts[0].dim if parts else next(units) for parts in self.dims])


def _place(part: Part) -> tuple[int, int]:
    return part.dim, -part.step


def whole(node: Node) -> Arrangement:
    """A value as it is."""
    return Arrangement(node, tuple([(Part(d, 1, n),) if n != 1 else () for d, n in enumerate(node.aval.shape)]))


def arrangement(node: Node) -> Arrangement:
    """A value as parts of what it was reshaped and permuted from, as far back as that can be said."""
    moves: list[Node] = []
    while node.aval.size and (node.op is movement.reshape or node.op is movement.permute):
        moves.append(node)
        (node,) = node.inputs
    found = whole(node)
    for move in reversed(moves):
        if move.op is movement.permute:
            found = found.permuted(move.params["dims"])
        else:
            found = found.reshaped(move.aval.shape) or whole(move)
    return found


def regrouped(flat: Sequence[Part], shape: Shape) -> tuple[Parts, ...] | None:
    """Parts in a row, taken together for the dimensions of a shape; None where a part would have to be cut unevenly."""
    left = list(reversed(flat))
    dims: list[Parts] = []
    for n in shape:
        taken: list[Part] = []
        while n > 1:
            if not left:
                return None
            dim, step, size = left.pop()
            if size > n:
                if size % n:
                    return None
                left.append(Part(dim, step, size // n))
                step, size = step * (size // n), n
            elif n % size:
                return None
            n //= size
            if taken and taken[-1].dim == dim and taken[-1].step == step * size:
                size *= taken.pop().size
            taken.append(Part(dim, step, size))
        dims.append(tuple(taken))
    return tuple(dims)
