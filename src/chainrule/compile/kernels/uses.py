"""Who reads the values of a program, and what comes before what: the edges of its graph seen from below.

For all who decide where values are computed and kept. Knows nodes and no op.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from chainrule.compile.program import Program
from chainrule.core.node import Node


@dataclass(frozen=True, eq=False)
class Uses:
    """position: the place of each node in the program's order, by its id. by_node: who reads each, once an input."""

    position: Mapping[int, int]
    by_node: Mapping[int, Sequence[Node]]

    def readers(self, node: Node) -> Sequence[Node]:
        """The nodes that read one; one that reads it as two of its inputs stands there twice."""
        return self.by_node.get(id(node), ())


def uses_of(program: Program) -> Uses:
    """The uses of a program's values by its nodes; being an output or an update is none."""
    readers: dict[int, list[Node]] = {}
    for node in program.nodes:
        for x in node.inputs:
            readers.setdefault(id(x), []).append(node)
    return Uses({id(node): number for number, node in enumerate(program.nodes)}, readers)
