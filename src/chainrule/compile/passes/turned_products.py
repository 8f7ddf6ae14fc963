"""A transposed product is a product: its sums are the same, and it is written where it is read."""

from __future__ import annotations

from collections import Counter

from chainrule.compile.passes.rewriting import walked
from chainrule.compile.program import Program
from chainrule.core.node import Node
from chainrule.ops import contraction, movement


def turned_products(program: Program) -> Program:
    """(x y)ᵀ = yᵀ xᵀ, where nothing else reads x y: the gradient of a weight that the forward pass transposes."""
    readers = Counter(id(x) for node in program.nodes for x in node.inputs)
    readers.update(map(id, program.roots))

    def turned(node: Node, inputs: tuple[Node, ...]) -> Node | None:
        if node.op is not movement.permute or not movement.swaps_last_two(node.params["dims"]):
            return None
        if inputs[0].op is not contraction.matmul or readers[id(node.inputs[0])] > 1:
            return None
        x, y = inputs[0].inputs
        return contraction.matmul(*(movement.permute(v, dims=node.params["dims"]) for v in (y, x)))

    return walked(program, turned)
