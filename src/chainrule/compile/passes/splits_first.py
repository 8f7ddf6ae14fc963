"""A reshape that takes dimensions apart stands before what is computed entry by entry, not after it.

Then loops run over the separate dimensions, and what is computed is at the same point as what reads it. How it is done:
from the results back, each reader asks for the shape it wants; a node is computed in the shape that all who care want.
"""

from __future__ import annotations

import operator
from typing import Any

from chainrule.compile.kernels.access import segments, splits
from chainrule.compile.passes.rewriting import with_roots
from chainrule.compile.program import Program
from chainrule.core.family import Elementwise, Reduction
from chainrule.core.node import Node, tick
from chainrule.core.rewrite import again, carry
from chainrule.ops import contraction, movement

Shape = tuple[int, ...]


def splits_first(program: Program) -> Program:
    """reshape(f(x, y)) = f(reshape x, reshape y), where dimensions are taken apart and everybody reads it so."""
    if not any(_is_split(node) for node in program.nodes):
        return program
    asked = _asked(program)
    if not asked:
        return program
    rebuilding = _Rebuilding(asked)
    for node in program.nodes:
        rebuilding.add(node)
    return with_roots(program, [rebuilding.plain(root) for root in program.roots])


def _is_split(node: Node) -> bool:
    return node.op is movement.reshape and splits(node.inputs[0].aval.shape, node.aval.shape)


def _entry_by_entry(node: Node) -> bool:
    return isinstance(node.op, Elementwise) or node.op is movement.cast


def _before_expand(x: Node, node: Node, shape: Shape) -> Shape:
    """The shape that `x` is needed in, if `node`, which expands it, is wanted in `shape`."""
    before = (1,) * (node.aval.ndim - x.aval.ndim) + x.aval.shape
    found = [1] * len(shape)
    for (d,), parts in segments(node.aval.shape, shape):
        if before[d] != 1:
            for part in parts:
                found[part] = shape[part]
    return tuple(found)


# --- from the results back: what is asked for


def _asked(program: Program) -> dict[int, Shape]:
    """For nodes that are better computed in another shape, which one, by id."""
    asking = _Asking()
    for root in program.roots:
        asking.ask(root, root.aval.shape)
    for node in reversed(program.nodes):
        if node.op is not None:
            asking.of(node)
    return asking.found


class _Asking:
    """Which shapes nodes are read in.

    asks: those shapes, by id. lenient: nodes that somebody reads who takes any split of them.
    found: the shapes that nodes are better computed in.
    """

    def __init__(self) -> None:
        self.asks: dict[int, set[Shape]] = {}
        self.lenient: set[int] = set()
        self.found: dict[int, Shape] = {}

    def ask(self, x: Node, shape: Shape) -> None:
        """Somebody reads `x` in this shape."""
        while x.op is movement.expand and shape != x.aval.shape and splits(x.aval.shape, shape):
            (inner,) = x.inputs
            x, shape = inner, _before_expand(inner, x, shape)
        if x.op is not None and x.aval.shape:
            self.asks.setdefault(id(x), set()).add(shape if splits(x.aval.shape, shape) else x.aval.shape)

    def wanted(self, node: Node) -> Shape:
        """The shape that everybody reads a node in; its own, if they differ."""
        own = node.aval.shape
        shapes = self.asks.get(id(node), set())
        if len(shapes) != 1:
            return own
        (shape,) = shapes
        return own if id(node) in self.lenient and movement.unit_dims_only(own, shape) else shape

    def of(self, node: Node) -> None:
        """Ask for what a node reads, if it is still read itself."""
        if id(node) not in self.asks and id(node) not in self.lenient:
            return
        wanted = self.wanted(node)
        computed = _entry_by_entry(node)
        if (computed or node.op is movement.reshape) and wanted != node.aval.shape:
            self.found[id(node)] = wanted
        if node.op is movement.reshape:
            self.ask(node.inputs[0], wanted)
        elif self._is_lenient(node):
            self.lenient.update(map(id, node.inputs))
        else:
            for x in node.inputs:
                self.ask(x, wanted if computed and x.aval.shape else x.aval.shape)

    def _is_lenient(self, node: Node) -> bool:
        """Is it all the same to a reader which dimensions are apart in what it reads, since that can be told later?"""
        if isinstance(node.op, Reduction) or node.op is contraction.matmul:
            return True
        moves = node.op is movement.permute or node.op is movement.expand
        return (moves or _entry_by_entry(node)) and id(node) not in self.asks


# --- from the inputs on: rebuilding


def _applied(node: Node, inputs: list[Node]) -> Node:
    """The node, over these inputs."""
    return node if all(map(operator.is_, inputs, node.inputs)) else again(node, tuple(inputs))


class _Rebuilding:
    """What each node has become, by id: in the shape that was asked for."""

    def __init__(self, asked: dict[int, Shape]) -> None:
        self.asked = asked
        self.became: dict[int, Node] = {}
        self.known: dict[tuple[int, Shape], Any] = {}

    def add(self, node: Node) -> None:
        began = tick()
        self.became[id(node)] = new = self._of(node)
        if node.op is not None:
            carry(node, new, began)

    def _of(self, node: Node) -> Any:
        wanted = self.asked.get(id(node))
        if node.op is movement.reshape:
            (x,) = node.inputs
            shape = node.aval.shape if wanted is None else wanted
            if wanted is None and self.became[id(x)] is x:
                return node
            return self.shaped(x, shape)
        if wanted is not None:
            inputs = [self.shaped(x, wanted if x.aval.shape else ()) for x in node.inputs]
            return _applied(node, inputs)
        return _applied(node, [self.plain(x) for x in node.inputs])

    def plain(self, x: Node) -> Any:
        """A value in the shape it had."""
        return self.shaped(x, x.aval.shape)

    def shaped(self, x: Node, shape: Shape) -> Any:
        """A value in another shape; a reshape only where it comes in neither."""
        became: Any = self.became[id(x)]
        if became.aval.shape == shape:
            return became
        key = (id(x), shape)
        if key not in self.known:
            self.known[key] = self._shaped(x, became, shape)
        return self.known[key]

    def _shaped(self, x: Node, became: Any, shape: Shape) -> Any:
        if x.op is movement.expand and splits(x.aval.shape, shape):
            (inner,) = x.inputs
            return movement.expand(self.shaped(inner, _before_expand(inner, x, shape)), shape=shape)
        if x.constant is not None:
            return type(x).filled(x.aval._replace(shape=shape), x.constant)
        while became.op is movement.reshape:
            (became,) = became.inputs
        return became if became.aval.shape == shape else movement.reshape(became, shape=shape)
