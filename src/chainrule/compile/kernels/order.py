"""In which order groups run, and which updates are written straight into the memory of what they update.

That is possible if every other reader of the old value can run before, and the group that makes the new one reads the
old one only where it writes. Knows groups and what they read; refuses to know buffers and kernels.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

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
    loaded: dict[int, set[int]] = {}  # by id of a value: the numbers of the groups that read it
    for g in groups:
        for key in g.loads:
            loaded.setdefault(key, set()).add(g.number)
    results = (*program.outputs, *(value for _, value in program.updates))
    # What has memory of its own is not computed elsewhere; what is copied at the end is not overwritten before.
    elsewhere = {id(x) for x in (*program.inputs, *program.outputs)}
    copied = {id(x) for x in results if x.op is None}
    in_place, late = [], []
    for x, value in program.updates:
        by = maker.get(id(value))
        if by is not None and id(value) not in elsewhere and id(x) not in copied and overwriting.fits(by, x, value):
            readers = loaded.get(id(x), set()) - {by.number}
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


class _Reading(NamedTuple):
    """Where a group reads a value, None: all over, as a product reads its operands; and at which turn."""

    where: Where | None
    turn: int


_Readings = dict[int, list[_Reading]]  # by the id of the node that is read


class _Overwriting:
    """Which groups may write over what they read themselves."""

    def __init__(self, grouping: Grouping) -> None:
        self._places = grouping.places
        self._readings: dict[int, _Readings] = {}  # by the group's number

    def fits(self, group: Group, x: Node, value: Node) -> bool:
        """Does a group read the old value of `x` only where it writes the new one, and not after that?"""
        if id(x) not in group.loads:
            return True
        place = self._places.get(id(value))
        if place is None or group.kind not in ("loops", "contract"):
            return False
        if group.number not in self._readings:
            self._readings[group.number] = self._read_by(group)
        shape, written = x.aval.shape, _turn(group, value)
        want = Affine.total(zip(place, row_major(shape), strict=True))
        readings = self._readings[group.number].get(id(x), ())
        return all(_offset(r.where, shape) == want and r.turn <= written for r in readings)

    def _read_by(self, group: Group) -> _Readings:
        found: _Readings = {}

        def read(root: Node, place: Where, turn: int) -> None:
            def leaf(node: Node, where: Where) -> Expr | None:
                if id(node) in group.loads:
                    found.setdefault(id(node), []).append(_Reading(where, turn))
                    return Number(0, node.aval.dtype)
                return Number(0, node.aval.dtype) if group.holds(node) else None

            Lowering(leaf, group.extents).lowered(root, place)  # each anew: what two turns read, is read at both

        for node in group.placed:
            if not group.holds(node):
                read(node, self._places[id(node)], _turn(group, node))
        for seed in group.seeds:
            if group.kind == "loops":
                (x,) = seed.inputs
                read(x, group.everywhere(x), 2 * _depth(group, x) + 1)
            else:
                for x in _loaded(seed.inputs, group):
                    found.setdefault(id(x), []).append(_Reading(None, 0))
        return found


def _turn(group: Group, node: Node) -> int:
    """When a group stores a node: stage by stage, in each the rows, then the points, as `stages.py` orders them."""
    return 2 * _depth(group, node) + group.is_full(node.aval.shape) if group.kind == "loops" else 0


def _depth(group: Group, node: Node) -> int:
    """How many of a group's reductions one after the other it takes to know a node."""
    found: dict[int, int] = {}
    todo = [node]
    while todo:
        x = todo[-1]
        inputs = () if x.op is None or id(x) in group.loads else x.inputs
        missing = [i for i in inputs if id(i) not in found]
        if missing:
            todo += missing
            continue
        found[id(x)] = max((found[id(i)] for i in inputs), default=0) + (group.holds(x) and group.kind == "loops")
        todo.pop()
    return found[id(node)]


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
