"""What a backward pass multiplies a gradient by, entry by entry, as one factor: g a + g b = g (a + b).

The derivative of an activation comes as a sum of products with the gradient in each. Taken out, what is left is the
activation's slope: it is known in the forward pass, where the hyperbolic tangent or the exponential in it is computed
anyway, and it can be stored there instead of the value that all of it would else be computed from once more.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from chainrule import dtypes
from chainrule.compile.kernels.access import is_free, is_move
from chainrule.compile.passes.rewriting import walked
from chainrule.compile.program import Program
from chainrule.core.family import Elementwise
from chainrule.core.node import Node
from chainrule.ops import contraction, elementwise


@dataclass(frozen=True)
class Slope:
    """What a gradient is multiplied by: 1 where there is no part, else an op applied to parts.

    Of `mul` and `div` the second part is a node, without the gradient; of `add` and `sub` both are slopes.
    """

    op: Any = None
    parts: tuple[Any, ...] = ()

    def factors(self) -> Iterator[Node]:
        """The nodes in it."""
        for part in self.parts:
            if isinstance(part, Slope):
                yield from part.factors()
            else:
                yield part

    @property
    def is_number(self) -> bool:
        """Is it the same everywhere?"""
        return all(part.is_number if isinstance(part, Slope) else not part.aval.shape for part in self.parts)

    @property
    def is_sum(self) -> bool:
        """Does the gradient stand in it more than once?"""
        return self.op in _SUMS or any(isinstance(part, Slope) and part.is_sum for part in self.parts)

    def built(self, now: dict[int, Node]) -> Any:
        """Its node, None for 1. now: what the factors have become, by id."""
        parts = [part.built(now) if isinstance(part, Slope) else now[id(part)] for part in self.parts]
        if self.op is elementwise.mul and parts[0] is None:
            return parts[1]
        return None if self.op is None else self.op(*parts)


_SUMS = (elementwise.add, elementwise.sub)
_ONE = Slope()


def slopes(program: Program) -> Program:
    """g a b + g c d = g (a b + c d), for the result g of a product and factors among which a dear one is computed."""
    if not any(isinstance(node.op, Elementwise) and node.op.dear for node in program.nodes):
        return program
    found = _Finding(program).chosen()
    now: dict[int, Node] = {}

    def factored(node: Node, inputs: tuple[Node, ...]) -> Any:
        now.update(zip(map(id, node.inputs), inputs, strict=True))
        if id(node) not in found:
            return None
        gradient, slope = found[id(node)]
        return elementwise.mul(now[id(gradient)], slope.built(now))

    return walked(program, factored) if found else program


class _Finding:
    """Which nodes are a gradient times a slope."""

    def __init__(self, program: Program) -> None:
        self._program = program
        self._position = {id(node): number for number, node in enumerate(program.nodes)}
        self._slopes: dict[int, tuple[Node, Slope]] = {}

    def chosen(self) -> dict[int, tuple[Node, Slope]]:
        """Those that others read, of which the gradient is worth to be taken out: with it and its slope, by id."""
        whole = {id(root) for root in self._program.roots}
        for node in self._program.nodes:
            found = self._of(node)
            if found is not None:
                self._slopes[id(node)] = found
            for x in node.inputs:
                if found is None or self._slopes.get(id(x), (None,))[0] is not found[0]:
                    whole.add(id(x))
        return {
            key: (gradient, slope)
            for key, (gradient, slope) in self._slopes.items()
            if key in whole and slope.is_sum and any(_is_dear(x) for x in slope.factors())
        }

    def _of(self, node: Node) -> tuple[Node, Slope] | None:
        """The gradient and the slope of a node, if it is one times the other."""
        if node.op in _SUMS:
            one, two = (self._slopes.get(id(x)) for x in node.inputs)
            if one is None or two is None or one[0] is not two[0] or (one[1].is_number and two[1].is_number):
                return None
            return one[0], Slope(node.op, (one[1], two[1]))
        if node.op is elementwise.mul:
            first, second = node.inputs
            return self._times(node.op, first, second) or self._times(node.op, second, first)
        return self._times(node.op, *node.inputs) if node.op is elementwise.div else None

    def _times(self, op: Any, x: Node, factor: Node) -> tuple[Node, Slope] | None:
        gradient, slope = self._slopes.get(id(x), (x, _ONE))
        if (slope is _ONE and not _is_product(x)) or self._depends(factor, gradient):
            return None
        if slope is _ONE and op is elementwise.div:
            return None
        # A number is an operand of an op, and no op is applied to numbers alone.
        if slope is not _ONE and slope.is_number and not factor.aval.shape:
            return None
        return gradient, Slope(op, (slope, factor))

    def _depends(self, node: Node, on: Node) -> bool:
        """Is a node computed from another one?"""
        earliest, seen, todo = self._position[id(on)], set[int](), [node]
        while todo:
            x = todo.pop()
            if x is on:
                return True
            if id(x) not in seen and self._position[id(x)] > earliest:
                seen.add(id(x))
                todo += x.inputs
        return False


def _is_product(node: Node) -> bool:
    """Is it the result of a matrix product, in a dtype in which the order of factors is of no consequence?"""
    if not dtypes.is_float(node.aval.dtype) or node.aval.dtype.itemsize < 4:
        return False
    while is_move(node):
        node = node.inputs[0]
    return node.op is contraction.matmul


def _is_dear(node: Node) -> bool:
    """Is something dear computed for it, entry by entry?"""
    todo, seen = [node], set[int]()
    while todo:
        x = todo.pop()
        if id(x) in seen or not is_free(x):
            continue
        seen.add(id(x))
        if isinstance(x.op, Elementwise) and x.op.dear:
            return True
        todo += x.inputs
    return False
