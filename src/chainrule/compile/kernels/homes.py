"""Which node is computed in which group: heavy nodes start groups or join them, and what fits their loops joins too.

Knows where each node stands in the loops of its group, and which groups wait for which. Refuses to know what is stored:
a node without a home is computed where it is read, and gets a home only if it has to be stored (`stores.py`).
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace

from chainrule.compile.kernels.access import Flat, Lowering, MisfitError, Where, is_free, is_move
from chainrule.compile.kernels.expression import Expr, Number
from chainrule.compile.kernels.group import Group, Kind, kind_of
from chainrule.compile.kernels.products import product_group
from chainrule.compile.kernels.uses import Uses
from chainrule.compile.program import Program
from chainrule.core.affine import Affine
from chainrule.core.node import Node

# Reductions beside each other in one kernel, for what they have in common. Through its residuals each layer of a deep
# net has something in common with the next, and all of theirs would meet in one.
_BESIDE = 8


@dataclass(eq=False)
class Homes:
    """Groups, and for each node with a home its group and where it stands in the loops there.

    home, places, sources: by id of the node; sources are the numbers of the groups that a value comes from, free nodes
        between looked through.
    earlier: for each group, as bits by number, itself and the groups that have to run before it.
    """

    groups: list[Group] = field(default_factory=list)
    home: dict[int, Group] = field(default_factory=dict)
    places: dict[int, tuple[Affine, ...]] = field(default_factory=dict)
    sources: dict[int, frozenset[int]] = field(default_factory=dict)
    earlier: list[int] = field(default_factory=list)

    def of(self, node: Node) -> Group | None:
        """The group in which a node is computed."""
        return self.home.get(id(node))

    def start(self, kind: Kind, frame: tuple[int, ...], reduced: frozenset[int] = frozenset()) -> Group:
        """A new group."""
        return self.begin(Group(kind, len(self.groups), frame, reduced))

    def begin(self, group: Group) -> Group:
        """Take a new group up, as the last."""
        self.groups.append(group)
        self.earlier.append(1 << group.number)
        return group

    def settle(self, node: Node, group: Group, place: tuple[Affine, ...]) -> None:
        """Give a node its home."""
        self.home[id(node)], self.places[id(node)] = group, place

    def sources_of(self, nodes: Iterable[Node]) -> frozenset[int]:
        """The numbers of the groups that values come from."""
        return frozenset().union(*(self.sources[id(x)] for x in nodes))

    def waits(self, group: Group, on: Group) -> bool:
        """Does a group have to run after another, or is it that one?"""
        return bool(self.earlier[group.number] >> on.number & 1)

    def let_wait(self, group: Group, on: Collection[int]) -> None:
        """A group has to run after those of these numbers, and all that run after it too."""
        added = set(on) - group.before - {group.number}
        group.before |= added
        found = functools.reduce(operator.or_, (self.earlier[n] for n in added), 0)
        if found & ~self.earlier[group.number]:
            self.earlier = [e | found if e >> group.number & 1 else e for e in self.earlier]

    def copied(self) -> Homes:
        """The same homes, in groups of their own."""
        groups = [replace(g, seeds=list(g.seeds), before=set(g.before), placed=[], loads={}) for g in self.groups]
        home = {key: groups[group.number] for key, group in self.home.items()}
        return Homes(groups, home, dict(self.places), self.sources, list(self.earlier))


def find_homes(program: Program, uses: Uses, often: Collection[int], cuts: Collection[int]) -> Homes:
    """A group for every heavy node of a program, and a place there for what can be computed along with one.

    often: ids of what would be computed too often, see `repeated.py`. cuts: of those, what has a group of its own.
    """
    finding = _Finding(uses, often, cuts)
    for node in program.nodes:
        finding.add(node)
    return finding.homes


def is_same(where: Where, place: Sequence[Affine] | None) -> bool:
    """Is a position at which something is read that at which it is computed?"""
    return place is not None and not isinstance(where, Flat) and tuple(where) == tuple(place)


class _Finding:
    """Homes, node after node in the program's order."""

    def __init__(self, uses: Uses, often: Collection[int], cuts: Collection[int]) -> None:
        self.homes = Homes()
        self._uses, self._often, self._cuts = uses, often, cuts
        self._behind: dict[int, frozenset[int]] = {}  # what was said by `_stops`, by id of the node

    def add(self, node: Node) -> None:
        match kind_of(node):
            case None:
                self._light(node)
            case "loops":
                self._reduction(node)
            case "contract":
                group = product_group(len(self.homes.groups), node, self._uses.readers(node))
                self.homes.begin(group)
                (*batch, rows, _), (*_, columns) = group.operands()
                self._seed(group, node, (*batch, rows, columns))
            case kind:
                group = self.homes.start(kind, node.aval.shape)
                self._seed(group, node, group.points)

    def _seed(self, group: Group, node: Node, place: tuple[Affine, ...] | None) -> None:
        homes = self.homes
        group.seeds.append(node)
        homes.let_wait(group, homes.sources_of(node.inputs))
        homes.home[id(node)], homes.sources[id(node)] = group, frozenset({group.number})
        if place is not None:
            homes.places[id(node)] = place

    # --- reductions

    def _reduction(self, node: Node) -> None:
        """With an earlier one over the same points that it has something to do with, or in a group of its own.

        What is computed from inputs alone waits for nothing, and no other makes it wait: the number of labels that
        count is known before the loss is.
        """
        (x,) = node.inputs
        frame, reduced = x.aval.shape, frozenset(node.params["dim"])
        sources = self.homes.sources[id(x)]
        for group in reversed(self.homes.groups):
            if (
                group.kind == "loops"
                and len(group.frame) == len(frame)
                and _key(group.frame, group.reduced) == _key(frame, reduced)
                and (group.number in sources or self._belongs(group, x, sources))
                and self._may_join(group, x, group.everywhere(x))
            ):
                break
        else:
            group = self.homes.start("loops", frame, reduced)
        self._seed(group, node, group.place(node.aval.shape))

    def _belongs(self, group: Group, x: Node, sources: frozenset[int]) -> bool:
        """Do a group's reductions, not too many, read something that `x` is computed from too?"""
        if len(group.seeds) >= _BESIDE or (sources and not group.before):
            return False
        return any(not self._stops(seed.inputs[0]).isdisjoint(self._stops(x)) for seed in group.seeds)

    def _stops(self, node: Node) -> frozenset[int]:
        found = self._behind.get(id(node))
        if found is None:
            found = self._behind[id(node)] = _stops(node)
        return found

    # --- what is computed entry by entry, or only moved

    def _light(self, node: Node) -> None:
        sources = self.homes.sources_of(node.inputs)
        self.homes.sources[id(node)] = sources
        if id(node) in self._cuts:
            return
        if is_move(node):
            self._follow(node)
            return
        for number in sorted(sources, reverse=True)[:2]:
            group = self.homes.groups[number]
            if group.kind in ("loops", "contract") and self._join(group, node, sources):
                return

    def _follow(self, node: Node) -> None:
        """A permutation or reshape of what is computed in a group can be stored by it, at other places."""
        x = node.inputs[0]
        group, at = self.homes.of(x), self.homes.places.get(id(x))
        if group is None or at is None or group.kind not in ("loops", "contract"):
            return
        place = Lowering(_nothing, group.extents).pushed(node, at)
        if place is not None:
            self.homes.settle(node, group, place)

    def _join(self, group: Group, node: Node, sources: frozenset[int]) -> bool:
        for place in self._places(group, node):
            if self._may_join(group, node, place):
                self.homes.settle(node, group, place)
                self.homes.sources[id(node)] = frozenset({group.number})
                self.homes.let_wait(group, sources)
                return True
        return False

    def _places(self, group: Group, node: Node) -> list[tuple[Affine, ...]]:
        """Where a node may stand in a group's loops: by its sizes, or where an operand of its shape stands."""
        shape, places = node.aval.shape, self.homes.places
        if group.is_single_row and group.is_full(shape):
            return []
        by_size = group.place(shape)
        found = [] if by_size is None else [by_size]
        found += [
            places[id(x)]
            for x in node.inputs
            if self.homes.of(x) is group and x.aval.shape == shape and id(x) in places
        ]
        return list(dict.fromkeys(found))

    # --- may a node be computed in a group's loops?

    def _may_join(self, group: Group, node: Node, place: tuple[Affine, ...]) -> bool:
        """Can the node be computed at the points of a group, from what is computed there at the same points?"""
        try:
            others = self._reads(group, node, place)
        except MisfitError:
            return False
        return others is not None and not any(self.homes.waits(self.homes.groups[n], group) for n in others)

    def _reads(self, group: Group, node: Node, place: Where) -> set[int] | None:
        """The other groups that computing the node in `group` would read; None if it reads its own elsewhere."""
        homes = self.homes
        found: set[int] = set()
        fits = True

        def leaf(x: Node, where: Where) -> Expr | None:
            nonlocal fits
            own = homes.of(x)
            if x is node and is_free(x):
                return None
            if id(x) in self._often and not (own is group and is_same(where, homes.places.get(id(x)))):
                found.update(homes.sources[id(x)])  # it lies in memory, and what it is computed from has run
                return Number(0, x.aval.dtype)
            if own is group:
                same = is_same(where, homes.places.get(id(x)))
                if group.holds(x):
                    fits = fits and same
                return Number(0, x.aval.dtype) if same or group.holds(x) else None  # it was asked when it came here
            if own is not None and not is_move(x):
                found.add(own.number)
                return Number(0, x.aval.dtype)
            if x.op is None:
                return Number(0, x.aval.dtype)
            return None

        Lowering(leaf, group.extents).lowered(node, place)
        return found if fits else None


def _stops(node: Node) -> frozenset[int]:
    """The ids of the heavy nodes and inputs that a value is computed from, free nodes between looked through.

    A single number is left out: what two values have in common in it is worth nothing.
    """
    seen: set[int] = set()
    found, todo = [], [node]
    while todo:
        x = todo.pop()
        if id(x) in seen:
            continue
        seen.add(id(x))
        if is_free(x):
            todo += x.inputs
        elif x.constant is None and x.aval.shape:
            found.append(id(x))
    return frozenset(found)


def _key(frame: tuple[int, ...], reduced: frozenset[int]) -> tuple[tuple[int, bool], ...]:
    """What loops have to agree in to be the same, sizes of 1 left out."""
    return tuple((n, d in reduced) for d, n in enumerate(frame) if n != 1)


def _nothing(node: Node, where: Where) -> Expr | None:
    return None
