"""A group: nodes that one kernel computes, the loops that they share, and where a value stands in those loops.

Knows which ops start a kernel, and of which kind. Refuses to know which node belongs to which group (`homes.py`), which
values are stored (`stores.py`), and how a group becomes a kernel (`building.py`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from chainrule.compile.kernels.buffer import row_major
from chainrule.core.affine import Affine
from chainrule.core.family import Reduction
from chainrule.core.node import Node
from chainrule.ops import contraction, indexing, movement, source, windows

# Where nodes stand in the loops of the groups that compute them, by id of the node.
Places = Mapping[int, tuple[Affine, ...]]

Kind = Literal["loops", "contract", "scatter", "scan", "sort", "random"]

_SPECIAL: dict[object, Kind] = {
    contraction.matmul: "contract",
    indexing.index_add: "scatter",
    indexing.scatter_add: "scatter",
    windows.overlap_add: "scatter",
    movement.embed: "scatter",
    movement.cumsum: "scan",
    indexing.argsort: "sort",
    source.rand: "random",
    source.randn: "random",
    source.randint: "random",
}
_SMALL = 64  # points: a group whose reductions leave a single row computes no more than this for others


def kind_of(node: Node) -> Kind | None:
    """The kind of kernel that a heavy node starts; None of a node that starts none."""
    if isinstance(node.op, Reduction):
        return "loops"
    if node.op is movement.embed and all(step == 1 for _, _, step in node.params["window"]):
        return None
    return _SPECIAL.get(node.op)


@dataclass(eq=False)
class Group:
    """Nodes that one kernel computes.

    frame: the sizes of its loops. reduced: which of them its reductions run along.
    seeds: the heavy nodes, in the program's order. before: numbers of groups that have to run earlier.
    placed: nodes it writes to memory, in order. loads: nodes of others that it reads. Both are for `stores.py` to find.
    rows, columns, summed: of a product, which dimensions of the frame are rows and which columns, and the sizes that
        are summed over.
    """

    kind: Kind
    number: int
    frame: tuple[int, ...]
    reduced: frozenset[int] = frozenset()
    rows: tuple[int, ...] = ()
    columns: tuple[int, ...] = ()
    summed: tuple[int, ...] = ()
    seeds: list[Node] = field(default_factory=list)
    before: set[int] = field(default_factory=set)
    placed: list[Node] = field(default_factory=list)
    loads: dict[int, Node] = field(default_factory=dict)

    @property
    def extents(self) -> dict[int, int]:
        """The rounds of each loop variable: one a dimension of the frame, then one a summed size."""
        return dict(enumerate((*self.frame, *self.summed)))

    @property
    def points(self) -> tuple[Affine, ...]:
        """The position along each dimension of the frame."""
        return points_of(self.frame)

    @property
    def is_single_row(self) -> bool:
        """Do its reductions leave one entry, of many?"""
        kept = math.prod(n for d, n in enumerate(self.frame) if d not in self.reduced)
        return bool(self.reduced) and kept == 1 and math.prod(self.frame) > _SMALL

    def holds(self, node: Node) -> bool:
        """Is the node one of the heavy ones here?"""
        return any(node is seed for seed in self.seeds)

    def place(self, shape: tuple[int, ...]) -> tuple[Affine, ...] | None:
        """Where a value of this shape stands at a point of the loops; None if it does not run along with them.

        A dimension of the value may be several of the loops' joined.
        """
        if shape == self.frame:
            return self.points
        if 0 in shape:
            return None
        full = [v for v, n in enumerate(self.frame) if n != 1]
        return self._along(shape, full) or self._along(shape, [v for v in full if v not in self.reduced])

    def everywhere(self, node: Node) -> tuple[Affine, ...]:
        """Where what is reduced stands: at every point; its dimensions of size 1 may be others than the frame's."""
        return self.place(node.aval.shape) or (Affine(),) * node.aval.ndim

    def _along(self, shape: tuple[int, ...], variables: list[int]) -> tuple[Affine, ...] | None:
        at, found = 0, []
        for n in shape:
            first, have = at, 1
            while have < n and at < len(variables):
                have *= self.frame[variables[at]]
                at += 1
            if have != n:
                return None
            found.append(self.joined(variables[first:at]))
        return tuple(found) if at == len(variables) else None

    def joined(self, variables: Sequence[int]) -> Affine:
        """One position for several loops, counted row by row."""
        sizes = tuple(self.extents[v] for v in variables)
        return Affine.total(
            (Affine.variable(v), s) for v, n, s in zip(variables, sizes, row_major(sizes), strict=True) if n != 1
        )

    def operands(self) -> tuple[tuple[Affine, ...], tuple[Affine, ...]]:
        """Of a product: where its two operands are read."""
        count = len(self.frame)
        summed = self.joined(range(count, count + len(self.summed)))
        batch = self.points[: count - len(self.rows) - len(self.columns)]
        return (*batch, self.joined(self.rows), summed), (*batch, summed, self.joined(self.columns))

    def is_full(self, shape: tuple[int, ...]) -> bool:
        """Does a value of this shape have an entry for every point, reduced dimensions included?"""
        return math.prod(shape) == math.prod(self.frame)


def points_of(shape: Sequence[int]) -> tuple[Affine, ...]:
    """The position along each dimension, of loops that run over a shape; along one of size 1, always 0."""
    return tuple(Affine.variable(v) if n != 1 else Affine() for v, n in enumerate(shape))
