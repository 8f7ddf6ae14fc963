"""In which buffer the value of each node lies, and how it is read and written there.

Knows inputs, outputs, temporaries and constants, which get their buffers when they are first read. Refuses to know who
reads or writes when; and where in the arena a temporary lies, which is decided later (`arena.py`).
"""

from __future__ import annotations

import itertools
from typing import Literal

import numpy as np

from chainrule.compile.kernels.access import Flat, Where
from chainrule.compile.kernels.buffer import Buffer, row_major
from chainrule.compile.kernels.expression import Expr, Load, Pick
from chainrule.compile.kernels.kernel import Store
from chainrule.core.affine import Affine
from chainrule.core.node import Node


class Buffers:
    """The buffer of each node that has one.

    by_node: by the node's id. flat: ids of nodes that are read somewhere as if they lay row by row.
    """

    def __init__(self) -> None:
        self.by_node: dict[int, Buffer] = {}
        self.flat: set[int] = set()
        self._numbers = itertools.count()  # of temporaries and constants

    def holds(self, node: Node) -> bool:
        """Has the node a buffer?"""
        return id(node) in self.by_node

    def of(self, node: Node) -> Buffer:
        """The buffer of a node; a constant gets it now."""
        if not self.holds(node):
            array = np.asarray(node.array, order="C")
            self.by_node[id(node)] = Buffer(
                name=f"c{next(self._numbers)}", shape=array.shape, dtype=array.dtype, strides=row_major(array.shape),
                place="constant", array=array,
            )  # fmt: skip
        return self.by_node[id(node)]

    def give(self, node: Node, buffer: Buffer) -> None:
        """The node's value lies in this buffer."""
        self.by_node[id(node)] = buffer

    def temporary(self, node: Node) -> Buffer:
        """A new buffer in the arena, for a value like the node's."""
        return buffer_like(node, "arena", f"t{next(self._numbers)}")

    def load(self, node: Node, where: Where) -> Expr:
        """The entry of a node at a position."""
        buffer = self.of(node)
        if isinstance(where, Flat):
            self.flat.add(id(node))
            return Load(buffer, where.offset)
        by_dimension = list(zip(where, buffer.shape, buffer.strides, strict=True))
        offset = Affine.total((w, s) for w, _, s in by_dimension if isinstance(w, Affine))
        indices = tuple((w, n, s) for w, n, s in by_dimension if not isinstance(w, Affine))
        return Pick(buffer, offset, indices, "index") if indices else Load(buffer, offset)

    def store(self, node: Node, place: tuple[Affine, ...], value: Expr) -> Store:
        """The entry of a node at a place gets this value."""
        buffer = self.of(node)
        return Store(buffer=buffer, offset=offset_in(buffer, place), value=value)


def buffer_like(node: Node, place: Literal["input", "arena", "output"], name: str) -> Buffer:
    """A buffer for a value like the node's, row by row."""
    shape = node.aval.shape
    return Buffer(name=name, shape=shape, dtype=node.aval.dtype, strides=row_major(shape), place=place)


def offset_in(buffer: Buffer, place: tuple[Affine, ...]) -> Affine:
    """Where in a buffer the entry at a place lies."""
    return Affine.total(zip(place, buffer.strides, strict=True))
