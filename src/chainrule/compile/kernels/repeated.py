"""What would be computed many times over if it was computed wherever it is read: at many places for one result.

A product of halves with halves, these again such products, is as many multiplications as there are entries; but the
gradient of each entry, computed from the entries themselves, would be as many again. Values that are moved by slices,
joins and the like are counted at each place that they are asked for.
"""

from __future__ import annotations

from collections.abc import Iterable

from chainrule.compile.kernels.access import is_free, is_move
from chainrule.compile.program import Program
from chainrule.core.family import Elementwise
from chainrule.core.node import Node
from chainrule.ops import movement

_MOST = 8  # computations of what has been computed at another place already, for one result
_DEEP = 64  # free ops after one another in one expression
_MANY = 8  # moves from place to place: a program of fewer cannot ask so often

# A value at a place, as a number that tells it from others.
Asked = frozenset[tuple[int, int]]


def repeated(program: Program) -> set[int]:
    """The ids of values that are better stored, so that none is computed too often."""
    nodes = program.nodes
    if sum(_goes_elsewhere(x) for x in nodes) < _MANY:
        return set()
    found: set[int] = set()
    asked: dict[int, Asked] = {}
    for node in nodes:
        asked[id(node)] = mine = _asked(node, asked)
        computed = [x for x, _ in mine]
        if len(computed) - len(set(computed)) > _MOST and isinstance(node.op, Elementwise):
            found.add(id(node))
            asked[id(node)] = frozenset()
    return found


def far(nodes: Iterable[Node]) -> set[int]:
    """The ids of some in a long chain of free ops, to be stored each, so that no expression is too deep."""
    found: set[int] = set()
    depth: dict[int, int] = {}
    for node in nodes:
        depth[id(node)] = 1 + max((depth[id(x)] for x in node.inputs), default=0) if is_free(node) else 0
        if depth[id(node)] >= _DEEP and isinstance(node.op, Elementwise):
            found.add(id(node))
            depth[id(node)] = 0
    return found


def _asked(node: Node, asked: dict[int, Asked]) -> Asked:
    """What is computed for one entry of a value: elementwise ops, each with the place of its entry."""
    if node.op is None or not is_free(node):
        return frozenset()
    if _goes_elsewhere(node):
        place = _place(node)
        return frozenset((x, hash((at, place, n))) for n, y in enumerate(node.inputs) for x, at in asked[id(y)])
    inside: Asked = frozenset().union(*(asked[id(x)] for x in node.inputs))
    return inside | {(id(node), 0)} if isinstance(node.op, Elementwise) else inside


def _goes_elsewhere(node: Node) -> bool:
    """Is an entry asked for at another place than its own, and not only in another shape?"""
    return is_move(node) and node.op not in (movement.expand, movement.reshape, movement.permute)


def _place(node: Node) -> int:
    return hash((node.op.name if node.op else "", tuple(sorted((k, repr(v)) for k, v in node.params.items()))))
