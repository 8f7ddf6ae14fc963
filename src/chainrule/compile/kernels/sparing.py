"""What is worth storing, of all that could be: without what readers can as well compute from the rest, in a few steps.

Where storing one more node spares several, as the input of an activation whose derivative takes it apart, that one is
stored instead. Knows what was found to be stored when nothing was spared; changes no group.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from chainrule.compile.kernels.access import is_free, is_move, is_picked
from chainrule.compile.kernels.stores import Stores
from chainrule.compile.kernels.uses import Uses
from chainrule.core.family import Elementwise
from chainrule.core.node import Node

_FEW = 4  # operations that are rather done twice than their result stored
_LARGE = 1 << 21  # bytes: from here on a value comes from far away again, and costs as much as more operations
_FEW_FOR_LARGE = 16
_DEAR = 8  # operations that are done in the time of a dear one, as tanh: some nine cycles, where memory takes twenty
_SOURCES = 2  # full values that are rather read instead of one
_SMALLER = 4  # times: a value so much smaller than what is computed from it costs nothing to read

Nodes = dict[int, Node]  # by id


def worth_storing(stores: Stores, uses: Uses) -> Nodes:
    """What is worth storing of what was found to be stored, or instead of it."""
    sparing = _Sparing(stores, uses)
    stored, spared = sparing.without_cheap(stores.required)
    for number, nodes in sparing.by_group(stored).items():
        between = sparing.between(number, nodes, stored) if len(nodes) > 1 else []
        while between:
            best = max((sparing.trial(x, stored, spared) for x in between), key=lambda t: (t.gain, -t.position))
            if best.gain <= 1:
                break
            stored, spared = best.stored, {**spared, **best.spared}
            between = [x for x in between if x is not best.extra]
    return stored


class _Trial(NamedTuple):
    """What is stored, and what spared, where one more node is stored; gain: how many are spared by that."""

    extra: Node
    position: int
    stored: Nodes
    spared: Nodes
    gain: int


class _Sparing:
    """What can be spared, given the homes that nodes have."""

    def __init__(self, stores: Stores, uses: Uses) -> None:
        self._homes, self._fixed, self._uses = stores.homes, stores.fixed, uses

    def without_cheap(self, stored: Mapping[int, Node], keep: Node | None = None) -> tuple[Nodes, Nodes]:
        """What is left to store, and what is cheap to compute from that; the last is spared first."""
        left, spared = dict(stored), Nodes()
        for node in sorted(stored.values(), key=lambda n: -self._uses.position[id(n)]):
            if node is keep or not self._is_sparable(node):
                continue
            del left[id(node)]
            if self._is_cheap(node, left):
                spared[id(node)] = node
            else:
                left[id(node)] = node
        return left, spared

    def by_group(self, stored: Mapping[int, Node]) -> dict[int, list[Node]]:
        """What may be spared, by the number of the group that computes it."""
        found: dict[int, list[Node]] = {}
        for node in stored.values():
            group = self._homes.of(node)
            if group is not None and self._is_sparable(node):
                found.setdefault(group.number, []).append(node)
        return found

    def between(self, number: int, nodes: Sequence[Node], stored: Mapping[int, Node]) -> list[Node]:
        """Full values of a group that are not stored, and that stored ones are computed from."""
        found: Nodes = {}
        todo = [x for n in nodes for x in n.inputs]
        while todo:
            x = todo.pop()
            own = self._homes.of(x)
            if id(x) in found or own is None or own.number != number:
                continue
            if id(x) not in stored and not is_move(x) and len(self._uses.readers(x)) > 1 and own.is_full(x.aval.shape):
                found[id(x)] = x
            if is_free(x):
                todo += x.inputs
        return list(found.values())

    def trial(self, extra: Node, stored: Nodes, spared: Nodes) -> _Trial:
        """What becomes of it if one more node is stored."""
        left, newly = self.without_cheap({**stored, id(extra): extra}, keep=extra)
        gain = len(newly) - len(spared.keys() & newly.keys())
        return _Trial(extra, self._uses.position[id(extra)], left, newly, gain)

    def _is_sparable(self, node: Node) -> bool:
        return id(node) not in self._fixed and is_free(node) and not is_move(node)

    def _is_cheap(self, node: Node, stored: Mapping[int, Node]) -> bool:
        """Is the node computed from what is stored by few operations and few reads? A dear one counts for several."""
        operations, reads = 0, 0
        few = _FEW_FOR_LARGE if node.aval.size * node.aval.dtype.itemsize >= _LARGE else _FEW
        todo, seen = [node], set[int]()
        while todo:
            x = todo.pop()
            if id(x) in seen:
                continue
            seen.add(id(x))
            if x is not node and (id(x) in stored or x.op is None):
                reads += x.aval.size * _SMALLER > node.aval.size
            elif not is_free(x) or is_picked(x):
                return False
            else:
                operations += _DEAR if _is_dear(x) else not is_move(x)
                todo += x.inputs
        return operations <= few and reads <= _SOURCES


def _is_dear(node: Node) -> bool:
    return isinstance(node.op, Elementwise) and node.op.dear
