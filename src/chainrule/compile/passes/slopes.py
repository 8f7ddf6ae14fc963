"""What a backward pass multiplies a gradient by, entry by entry, as one factor: g a + g b = g (a + b).

The derivative of an activation comes as a sum of products with the gradient in each. Taken out, what is left is the
activation's slope: it is known in the forward pass, where the hyperbolic tangent or the exponential in it is computed
anyway, and it can be stored there instead of the value that all of it would else be computed from once more.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from chainrule import dtypes
from chainrule.compile.kernels.access import is_free, is_move
from chainrule.compile.passes.rewriting import walked
from chainrule.compile.program import Program
from chainrule.core.family import Elementwise
from chainrule.core.node import Node, tick
from chainrule.core.rewrite import carry
from chainrule.ops import contraction, elementwise


class Slope(NamedTuple):
    """That a node is a gradient times something, and what.

    gradient: the result of a product. op, parts: how the slope is made: of `mul` and `div`, the slope of the first part
        and the second part itself; of `add` and `sub`, the slopes of both. The slope of the gradient is 1.
    is_number: is it the same everywhere? is_sum: does the gradient stand in it more than once? is_dear: is something
        dear computed for it?
    """

    gradient: Node
    op: Any
    parts: tuple[Node, ...]
    is_number: bool
    is_sum: bool
    is_dear: bool


_SUMS = (elementwise.add, elementwise.sub)


def slopes(program: Program) -> Program:
    """g a b + g c d = g (a b + c d), for the result g of a product and factors among which a dear one is computed."""
    if not any(isinstance(node.op, Elementwise) and node.op.dear for node in program.nodes):
        return program
    finding = _Finding(program)
    chosen = finding.chosen()
    needed = finding.needed(chosen)
    now: dict[int, Node] = {}  # what nodes have become, and what slopes have, by the id of the node as it was
    built: dict[int, Any] = {}

    def factored(node: Node, inputs: tuple[Node, ...]) -> Any:
        now.update(zip(map(id, node.inputs), inputs, strict=True))
        if id(node) not in needed:
            return None
        found, began = finding.found[id(node)], tick()
        first, second = found.parts
        if found.op in _SUMS:
            slope: Any = found.op(built[id(first)], built[id(second)])
        else:
            before = built.get(id(first))
            slope = now[id(second)] if before is None else found.op(before, now[id(second)])
        carry(node, slope, began)
        built[id(node)] = slope
        return elementwise.mul(now[id(found.gradient)], slope) if id(node) in chosen else None

    return walked(program, factored) if chosen else program


class _Finding:
    """Which nodes are a gradient times a slope.

    found: their slopes, by the id of the node.
    """

    def __init__(self, program: Program) -> None:
        self._program = program
        self.found: dict[int, Slope] = {}
        self._dear: set[int] = set()  # for what something dear is computed, entry by entry
        self._position = {id(node): i for i, node in enumerate(program.nodes)}
        self._behind: dict[int, dict[int, bool]] = {}  # by id of a gradient: is a node computed from it?
        for node in program.nodes:
            self._add(node)

    def chosen(self) -> set[int]:
        """Those that others read, of which the gradient is worth to be taken out."""
        whole = {id(root) for root in self._program.roots}
        for node in self._program.nodes:
            own = self.found.get(id(node))
            for x in node.inputs:
                slope = self.found.get(id(x))
                if slope is not None and (own is None or own.gradient is not slope.gradient):
                    whole.add(id(x))
        return {key for key in whole if key in self.found and self.found[key].is_sum and self.found[key].is_dear}

    def needed(self, chosen: set[int]) -> set[int]:
        """Those whose slopes it takes."""
        wanted = set(chosen)
        for node in reversed(self._program.nodes):
            if id(node) in wanted:
                slope = self.found[id(node)]
                parts = slope.parts if slope.op in _SUMS else slope.parts[:1]
                wanted.update(id(x) for x in parts if id(x) in self.found)
        return wanted

    def _add(self, node: Node) -> None:
        if is_free(node):
            own = isinstance(node.op, Elementwise) and node.op.dear
            if own or any(id(x) in self._dear for x in node.inputs):
                self._dear.add(id(node))
        if node.op in _SUMS:
            slope = self._sum(node, *node.inputs)
        elif node.op is elementwise.mul:
            first, second = node.inputs
            slope = self._times(node, first, second) or self._times(node, second, first)
        else:
            slope = self._times(node, *node.inputs) if node.op is elementwise.div else None
        if slope is not None:
            self.found[id(node)] = slope

    def _sum(self, node: Node, first: Node, second: Node) -> Slope | None:
        one, two = self.found.get(id(first)), self.found.get(id(second))
        if one is None or two is None or one.gradient is not two.gradient or (one.is_number and two.is_number):
            return None
        return Slope(one.gradient, node.op, (first, second), False, True, one.is_dear or two.is_dear)

    def _times(self, node: Node, x: Node, factor: Node) -> Slope | None:
        before = self.found.get(id(x))
        if before is None and (node.op is elementwise.div or not _is_product(x)):
            return None
        gradient = x if before is None else before.gradient
        is_number = not factor.aval.shape and (before is None or before.is_number)
        # A number is an operand of an op, and no op is applied to numbers alone.
        if (is_number and before is not None) or self._is_from(factor, gradient):
            return None
        is_sum, is_dear = (False, False) if before is None else (before.is_sum, before.is_dear)
        return Slope(gradient, node.op, (x, factor), is_number, is_sum, is_dear or id(factor) in self._dear)

    def _is_from(self, node: Node, gradient: Node) -> bool:
        """Is a node computed from a gradient, or the gradient itself? What comes before it in the program is not."""
        known = self._behind.setdefault(id(gradient), {id(gradient): True})
        first, pending = self._position[id(gradient)], [node]
        while pending:
            last = pending[-1]
            later = [x for x in last.inputs if self._position[id(x)] > first and id(x) not in known]
            if id(last) in known or not later:
                pending.pop()
                known.setdefault(id(last), any(known.get(id(x), False) for x in last.inputs))
            else:
                pending += later
        return known[id(node)]


def _is_product(node: Node) -> bool:
    """Is it the result of a matrix product, in a dtype in which the order of factors is of no consequence?"""
    if not dtypes.is_float(node.aval.dtype) or node.aval.dtype.itemsize < 4:
        return False
    while is_move(node):
        node = node.inputs[0]
    return node.op is contraction.matmul
