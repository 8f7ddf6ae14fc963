"""In which order groups run, and which updates are written straight into the memory of what they update.

That is possible if every other reader of the old value can run before, and the group that makes the new one reads the
old one only where it writes. Knows groups and what they read; refuses to know buffers and kernels.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from chainrule.compile.kernels.access import Flat, Lowering, Where
from chainrule.compile.kernels.buffer import row_major
from chainrule.compile.kernels.expression import Expr, Number
from chainrule.compile.kernels.group import Group
from chainrule.compile.kernels.grouping import Grouping
from chainrule.compile.program import Program
from chainrule.core.affine import Affine
from chainrule.core.node import Node


@dataclass(frozen=True, eq=False)
class Order:
    """Groups as they run, and the updates as (input, its new value).

    in_place: those written where the old value lies. late: those copied there at the end.
    """

    groups: Sequence[Group]
    in_place: Sequence[tuple[Node, Node]]
    late: Sequence[tuple[Node, Node]]


def ordered(program: Program, grouping: Grouping) -> Order:
    """An order that every read allows, with as many updates in place as it does, the first of the program first."""
    groups, overwriting = grouping.groups, _Overwriting(grouping)
    maker = {id(node): g for g in groups for node in g.placed}
    after = {g.number: {maker[key].number for key in g.loads if key in maker} - {g.number} for g in groups}
    results = (*program.outputs, *(value for _, value in program.updates))
    # What has memory of its own is not computed elsewhere; what is copied at the end is not overwritten before.
    elsewhere = {id(x) for x in (*program.inputs, *program.outputs)}
    copied = {id(x) for x in results if x.op is None}
    in_place, late = [], []
    for x, value in program.updates:
        by = maker.get(id(value))
        if by is not None and id(value) not in elsewhere and id(x) not in copied and overwriting.fits(by, x, value):
            readers = {g.number for g in groups if id(x) in g.loads} - {by.number}
            if by.number not in _all_before(readers, after):
                after[by.number] |= readers
                elsewhere.add(id(value))
                in_place.append((x, value))
                continue
        late.append((x, value))
    by_number = {g.number: g for g in groups}
    return Order([by_number[n] for n in _sorted(after)], in_place, late)


def _all_before(numbers: Iterable[int], after: Mapping[int, set[int]]) -> set[int]:
    """All that has to run before some groups can have run, themselves included."""
    found: set[int] = set()
    todo = list(numbers)
    while todo:
        number = todo.pop()
        if number not in found:
            found.add(number)
            todo += after[number]
    return found


def _sorted(after: Mapping[int, set[int]]) -> list[int]:
    """Each number after those it has to come after, the least first where there is a choice."""
    behind: dict[int, list[int]] = {number: [] for number in after}
    for number, before in after.items():
        for other in before:
            behind[other].append(number)
    missing = {number: len(before) for number, before in after.items()}
    ready = [number for number, count in missing.items() if not count]
    heapq.heapify(ready)
    order = []
    while ready:
        number = heapq.heappop(ready)
        order.append(number)
        for other in behind[number]:
            missing[other] -= 1
            if not missing[other]:
                heapq.heappush(ready, other)
    assert len(order) == len(after), "groups depend on each other in a circle"
    return order


# --- what a group reads of what it writes over

# By the id of a node, where a group reads it; None: all over, as a product reads its operands.
_Readings = dict[int, list[Where | None]]


class _Overwriting:
    """Which groups may write over what they read themselves."""

    def __init__(self, grouping: Grouping) -> None:
        self._places = grouping.places
        self._readings: dict[int, _Readings] = {}  # by the group's number

    def fits(self, group: Group, x: Node, value: Node) -> bool:
        """Does a group read the old value of `x` only where it writes the new one?"""
        if id(x) not in group.loads:
            return True
        place = self._places.get(id(value))
        if place is None or group.kind not in ("loops", "contract"):
            return False
        if group.number not in self._readings:
            self._readings[group.number] = self._read_by(group)
        shape = x.aval.shape
        want = Affine.total(zip(place, row_major(shape), strict=True))
        return all(_offset(where, shape) == want for where in self._readings[group.number].get(id(x), ()))

    def _read_by(self, group: Group) -> _Readings:
        found: _Readings = {}

        def leaf(node: Node, where: Where) -> Expr | None:
            if id(node) in group.loads:
                found.setdefault(id(node), []).append(where)
                return Number(0, node.aval.dtype)
            return Number(0, node.aval.dtype) if group.holds(node) else None

        lowering = Lowering(leaf, group.extents)
        for node in group.placed:
            if not group.holds(node):
                lowering.lowered(node, self._places[id(node)])
        for seed in group.seeds:
            if group.kind == "loops":
                lowering.lowered(seed.inputs[0], group.everywhere(seed.inputs[0]))
            else:
                for x in _loaded(seed.inputs, group):
                    found.setdefault(id(x), []).append(None)
        return found


def _loaded(nodes: Iterable[Node], group: Group) -> Iterator[Node]:
    """What a group reads from memory to compute some of its nodes."""
    for node in nodes:
        if id(node) in group.loads:
            yield node
        else:
            yield from _loaded(node.inputs, group)


def _offset(where: Where | None, shape: tuple[int, ...]) -> Affine | None:
    """A position counted row by row; None of one that was looked up, or is counted in another shape."""
    if where is None or isinstance(where, Flat):
        return None
    affine = [w for w in where if isinstance(w, Affine)]
    return Affine.total(zip(affine, row_major(shape), strict=True)) if len(affine) == len(where) else None
