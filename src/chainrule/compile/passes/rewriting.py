"""What passes share: rebuilding a program from rewritten roots, by identities or by one walk."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

from chainrule import dtypes
from chainrule.compile.program import Program
from chainrule.core.node import Node, tick
from chainrule.core.rewrite import Identity, again, carry, rewrite_all
from chainrule.ops import reduction

Pass = Callable[[Program], Program]


def with_roots(program: Program, roots: Sequence[Node]) -> Program:
    """The program computing these instead of its roots, in their order; itself where nothing changed."""
    if all(new is old for new, old in zip(roots, program.roots, strict=True)):
        return program
    count = len(program.outputs)
    updates = tuple((x, value) for (x, _), value in zip(program.updates, roots[count:], strict=True))
    return Program(inputs=program.inputs, outputs=tuple(roots[:count]), updates=updates)


def rewritten(program: Program, identities: Sequence[Identity]) -> Program:
    """The program with every identity applied wherever it fits."""
    return with_roots(program, rewrite_all(program.roots, identities))


def walked(program: Program, change: Callable[[Node, tuple[Node, ...]], Node | None]) -> Program:
    """The program with some nodes changed, in one walk.

    change: (node of the program, what its inputs have become) -> what it becomes; None for the same op applied to them.
    """
    became: dict[int, Node] = {}
    for node in program.nodes:
        inputs = tuple([became[id(x)] for x in node.inputs])
        began = tick()
        new = change(node, inputs)
        if new is not None:
            carry(node, new, began)
        elif all(map(operator.is_, inputs, node.inputs)):
            new = node
        else:
            new = again(node, inputs)
        became[id(node)] = new
    return with_roots(program, [became[id(root)] for root in program.roots])


def is_divisible(node: Any) -> bool:
    """Is this a sum that may be taken part by part? 16-bit floats are rounded once."""
    dtype = node.aval.dtype
    return node.op is reduction.sum_ and dtypes.is_float(dtype) and dtypes.work_dtype(dtype) == dtype


def stored(node: Any) -> Any:
    """A number that an identity wrote is a constant, with its value: what every leaf of a program but an input is."""
    if node.op is None and node.constant is not None and node.array is None:
        return type(node).filled(node.aval, node.constant)
    return None
