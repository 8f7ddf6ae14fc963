"""Which nodes are computed together: groups of nodes that become one kernel each, and what has to lie in memory.

A heavy node (a product of matrices, a reduction, a sort) starts a group, or joins one that runs over the same points.
What is computed from it entry by entry joins it too, as long as each value is read at the very point where it is
computed: a bias and an activation join the product, the shift and the exponential of a softmax join its maximum. Every
other elementwise node is free: it is computed where it is read, again for each reader, unless it has to be stored.

Then, from the results back, each group says which values of other groups it reads: those, and only those, are stored.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal

from chainrule.compile.access import Flat, Leaf, Lowering, MisfitError, Where, is_free, is_move, segments
from chainrule.compile.kernel import Affine, Expr, Number, row_major
from chainrule.compile.program import Program
from chainrule.core.family import Elementwise, Reduction
from chainrule.core.node import Node
from chainrule.ops import contraction, indexing, movement, source, windows

Kind = Literal["loops", "contract", "scatter", "scan", "sort", "random"]

_SPECIAL: dict[object, Kind] = {
    contraction.matmul: "contract",
    indexing.index_add: "scatter",
    indexing.scatter_add: "scatter",
    windows.overlap_add: "scatter",
    movement.embed: "scatter",
    movement.cumsum: "scan",
    indexing.argsort: "sort",
    source.rand: "random",
    source.randn: "random",
    source.randint: "random",
}
_FEW = 4  # operations that are rather done twice than their result stored
_SMALL = 64  # points: a group whose reductions leave a single row computes no more than this for others


@dataclass(eq=False)
class Group:
    """Nodes that one kernel computes.

    frame: the sizes of its loops. reduced: which of them its reductions run along.
    seeds: the heavy nodes. placed: nodes it writes to memory, in order. loads: nodes of others that it reads.
    """

    kind: Kind
    number: int
    frame: tuple[int, ...]
    reduced: frozenset[int] = frozenset()
    seeds: list[Node] = field(default_factory=list)
    placed: list[Node] = field(default_factory=list)
    loads: dict[int, Node] = field(default_factory=dict)
    before: set[int] = field(default_factory=set)  # numbers of groups that have to run earlier

    # Of a product: which dimensions of the frame are rows, which columns, and the sizes that are summed over.
    rows: tuple[int, ...] = ()
    columns: tuple[int, ...] = ()
    summed: tuple[int, ...] = ()

    @property
    def extents(self) -> dict[int, int]:
        """The rounds of each loop variable: one a dimension of the frame, then one a summed size."""
        return dict(enumerate((*self.frame, *self.summed)))

    @property
    def points(self) -> tuple[Affine, ...]:
        """The position along each dimension of the frame."""
        return points_of(self.frame)

    def holds(self, node: Node) -> bool:
        """Is the node one of the heavy ones here?"""
        return any(node is seed for seed in self.seeds)

    def place(self, shape: tuple[int, ...]) -> tuple[Affine, ...] | None:
        """Where a value of this shape stands at a point of the loops; None if it does not run along with them.

        A dimension of the value may be several of the loops' joined.
        """
        if shape == self.frame:
            return self.points
        if 0 in shape:
            return None
        full = [v for v, n in enumerate(self.frame) if n != 1]
        return self._along(shape, full) or self._along(shape, [v for v in full if v not in self.reduced])

    def everywhere(self, node: Node) -> tuple[Affine, ...]:
        """Where what is reduced stands: at every point; its dimensions of size 1 may be others than the frame's."""
        return self.place(node.aval.shape) or (Affine(),) * node.aval.ndim

    def _along(self, shape: tuple[int, ...], variables: list[int]) -> tuple[Affine, ...] | None:
        at, found = 0, []
        for n in shape:
            first, have = at, 1
            while have < n and at < len(variables):
                have *= self.frame[variables[at]]
                at += 1
            if have != n:
                return None
            found.append(self.joined(variables[first:at]))
        return tuple(found) if at == len(variables) else None

    def joined(self, variables: Sequence[int]) -> Affine:
        """One position for several loops, counted row by row."""
        sizes = tuple(self.extents[v] for v in variables)
        return Affine.total(
            (Affine.variable(v), s) for v, n, s in zip(variables, sizes, row_major(sizes), strict=True) if n != 1
        )

    def operands(self) -> tuple[tuple[Affine, ...], tuple[Affine, ...]]:
        """Of a product: where its two operands are read."""
        count = len(self.frame)
        summed = self.joined(range(count, count + len(self.summed)))
        batch = self.points[: count - len(self.rows) - len(self.columns)]
        return (*batch, self.joined(self.rows), summed), (*batch, summed, self.joined(self.columns))

    def is_full(self, shape: tuple[int, ...]) -> bool:
        """Does a value of this shape have an entry for every point, reduced dimensions included?"""
        return math.prod(shape) == math.prod(self.frame)


@dataclass(eq=False)
class Grouping:
    """The groups of a program, and which node is computed where."""

    program: Program
    groups: list[Group] = field(default_factory=list)
    home: dict[int, Group] = field(default_factory=dict)  # of heavy and of joined nodes, by id
    places: dict[int, tuple[Affine, ...]] = field(default_factory=dict)  # where a node with a home stands in its loops
    required: dict[int, Node] = field(default_factory=dict)
    position: dict[int, int] = field(default_factory=dict)
    kept: dict[int, Node] | None = None  # what is worth storing, once that is known
    fixed: set[int] = field(default_factory=set)  # what has to be stored: results, operands

    def active(self) -> list[Group]:
        """Groups that write something."""
        return [g for g in self.groups if g.placed]

    # --- 1: homes

    def find_homes(self) -> None:
        """Give every heavy node a group, and every node that can be computed along with one its place there."""
        self._readers: dict[int, list[Node]] = {}
        for number, node in enumerate(self.program.nodes):
            self.position[id(node)] = number
            for x in node.inputs:
                self._readers.setdefault(id(x), []).append(node)
        self._sources: dict[int, frozenset[int]] = {}
        for node in self.program.nodes:
            if node.op is None:
                self._sources[id(node)] = frozenset()
            elif isinstance(node.op, Reduction):
                self._reduction(node)
            elif node.op is contraction.matmul:
                self._product(node)
            elif is_heavy(node):
                self._start(_SPECIAL[node.op], node.aval.shape, frozenset(), node)
            else:
                self._free(node)

    def _start(self, kind: Kind, frame: tuple[int, ...], reduced: frozenset[int], seed: Node | None) -> Group:
        group = Group(kind, len(self.groups), frame, reduced)
        self.groups.append(group)
        if seed is not None:
            self._seed(group, seed)
        return group

    def _product(self, node: Node) -> None:
        """A product's loops run over what its rows, columns and sums were joined from, and are taken apart into."""
        x, y = node.inputs
        lead = len(node.aval.shape) - 2
        rows = _refined(_origins(x, lead), self._destinations(node, lead))
        columns = _refined(_origins(y, lead + 1), self._destinations(node, lead + 1))
        summed = _refined(_origins(x, lead + 1), _origins(y, lead))
        group = Group(
            "contract", len(self.groups), (*node.aval.shape[:-2], *rows, *columns),
            rows=tuple(range(lead, lead + len(rows))),
            columns=tuple(range(lead + len(rows), lead + len(rows) + len(columns))),
            summed=summed,
        )  # fmt: skip
        self.groups.append(group)
        self._seed(group, node)

    def _destinations(self, node: Node, dim: int) -> tuple[int, ...]:
        """The sizes that a dimension of a product is taken apart into by those who read it."""
        shape = node.aval.shape
        found: tuple[int, ...] = (shape[dim],)
        for reader in self._readers.get(id(node), ()):
            if reader.op is movement.reshape:
                for held, made in segments(shape, reader.aval.shape):
                    if held == [dim]:
                        found = _refined(found, tuple(reader.aval.shape[d] for d in made))
        return found

    def _seed(self, group: Group, node: Node) -> None:
        group.seeds.append(node)
        if group.kind == "contract":
            (*batch, rows, _), (*_, columns) = group.operands()
            self.places[id(node)] = (*batch, rows, columns)
        elif (place := group.place(node.aval.shape)) is not None:
            self.places[id(node)] = place
        self.home[id(node)] = group
        group.before |= self._from(node.inputs) - {group.number}
        self._sources[id(node)] = frozenset({group.number})

    def _from(self, nodes: Iterable[Node]) -> frozenset[int]:
        """The groups that values come from, free nodes between looked through."""
        return frozenset().union(*(self._sources[id(x)] for x in nodes))

    def _reduction(self, node: Node) -> None:
        (x,) = node.inputs
        frame, reduced = x.aval.shape, frozenset(node.params["dim"])
        key = _key(frame, reduced)
        sources = self._sources[id(x)]
        for group in reversed(self.groups):
            if group.kind != "loops" or len(group.frame) != len(frame) or _key(group.frame, group.reduced) != key:
                continue
            if (group.number in sources or self._related(group, x)) and self._may_join(group, x, group.everywhere(x)):
                self._seed(group, node)
                return
        self._start("loops", frame, reduced, node)

    def _related(self, group: Group, x: Node) -> bool:
        """Do a group's reductions read something that `x` is computed from too?"""
        read = {id(leaf) for seed in group.seeds for leaf in self._stops(seed.inputs[0])}
        return any(id(leaf) in read for leaf in self._stops(x) if leaf.aval.shape)

    def _stops(self, node: Node) -> Iterator[Node]:
        """The heavy nodes and inputs that a value is computed from, free nodes between looked through."""
        seen: set[int] = set()
        todo = [node]
        while todo:
            x = todo.pop()
            if id(x) in seen:
                continue
            seen.add(id(x))
            if is_free(x):
                todo += x.inputs
            elif x.constant is None:
                yield x

    def _free(self, node: Node) -> None:
        sources = self._from(node.inputs)
        self._sources[id(node)] = sources
        if not sources:
            return
        if is_move(node):
            self._follow(node)
            return
        for number in sorted(sources, reverse=True)[:2]:
            group = self.groups[number]
            if group.kind in ("loops", "contract") and self._join(group, node, sources):
                return

    def _follow(self, node: Node) -> None:
        """A permutation or reshape of what is computed in a group can be stored by it, at other places."""
        (x,) = node.inputs[:1]
        group = self.home.get(id(x))
        if group is None or id(x) not in self.places or group.kind not in ("loops", "contract"):
            return
        place = Lowering(_nothing, group.extents).pushed(node, self.places[id(x)])
        if place is not None:
            self.home[id(node)], self.places[id(node)] = group, place

    def _join(self, group: Group, node: Node, sources: frozenset[int]) -> bool:
        for place in self._places(group, node):
            if self._may_join(group, node, place):
                self.home[id(node)], self.places[id(node)] = group, place
                group.before |= sources - {group.number}
                self._sources[id(node)] = frozenset({group.number})
                return True
        return False

    def _places(self, group: Group, node: Node) -> list[tuple[Affine, ...]]:
        """Where a node may stand in a group's loops: by its sizes, or where an operand of its shape stands."""
        shape = node.aval.shape
        if group.reduced and group.is_full(shape) and _single_row(group):
            return []
        by_size = group.place(shape)
        found = [] if by_size is None else [by_size]
        found += [
            self.places[id(x)]
            for x in node.inputs
            if self.home.get(id(x)) is group and x.aval.shape == shape and id(x) in self.places
        ]
        return list(dict.fromkeys(found))

    def _may_join(self, group: Group, node: Node, place: tuple[Affine, ...]) -> bool:
        """Can the node be computed at the points of a group, from what is computed there at the same points?"""
        try:
            others = self._reads(group, node, place)
        except MisfitError:
            return False
        if others is None:
            return False
        return not any(self._depends(self.groups[n], group.number) for n in others)

    def _reads(self, group: Group, node: Node, place: Where) -> set[int] | None:
        """The other groups that computing the node in `group` would read; None if it reads its own elsewhere."""
        found: set[int] = set()
        fits = True

        def leaf(x: Node, where: Where) -> Expr | None:
            nonlocal fits
            own = self.home.get(id(x))
            if x is node and is_free(x):
                return None
            if own is group:
                if group.holds(x):
                    fits = fits and _same(where, self.places.get(id(x)))
                    return Number(0, x.aval.dtype)
                return None
            if own is not None and not is_move(x):
                found.add(own.number)
                return Number(0, x.aval.dtype)
            if x.op is None:
                return Number(0, x.aval.dtype)
            return None

        Lowering(leaf, group.extents).lowered(node, place)
        return found if fits else None

    def _depends(self, group: Group, on: int) -> bool:
        """Does a group have to run after another?"""
        seen, todo = set(), [group.number]
        while todo:
            number = todo.pop()
            if number == on:
                return True
            if number not in seen:
                seen.add(number)
                todo += self.groups[number].before
        return False

    # --- 2: what is stored

    def find_stores(self) -> None:
        """From the results back: which nodes are written to memory, by which group.

        Done twice: what turns out to be cheap to compute from the rest of what is stored is not stored after all.
        """
        homes, before = dict(self.home), [set(g.before) for g in self.groups]
        self._stores()
        self.kept = self._worth_storing()
        if self.kept.keys() != self.required.keys():
            self.home = homes
            self.groups = [g for g in self.groups if g.seeds]
            self.required, self.fixed = {}, set()
            for group, known in zip(self.groups, before, strict=True):
                group.placed, group.loads, group.before = [], {}, known
            self._stores()

    def _worth_storing(self) -> dict[int, Node]:
        """What is stored, without what readers can as well compute from the rest with a few operations.

        Where storing one more node spares several, as the input of an activation whose derivative takes it apart, that
        one is stored instead.
        """
        stored, found = dict(self.required), dict[int, Node]()
        self._spare(stored, found)
        by_group: dict[int, list[Node]] = {}
        for node in stored.values():
            if self._sparable(node) and id(node) in self.home:
                by_group.setdefault(self.home[id(node)].number, []).append(node)
        for number, nodes in by_group.items():
            if len(nodes) < 2:
                continue
            between = self._between(number, nodes, stored)
            while between:
                trials = []
                for extra in between:
                    with_it, spared = {**stored, id(extra): extra}, dict[int, Node]()
                    self._spare(with_it, spared, keep=extra)
                    trials.append((len(spared) - len(found.keys() & spared.keys()), extra, with_it, spared))
                gain, extra, with_it, spared = max(trials, key=lambda t: (t[0], -self.position[id(t[1])]))
                if gain <= 1:
                    break
                stored, found = with_it, {**found, **spared}
                between = [n for n in between if n is not extra]
        return stored

    def _sparable(self, node: Node) -> bool:
        return id(node) not in self.fixed and is_free(node) and not is_move(node)

    def _spare(self, stored: dict[int, Node], found: dict[int, Node], keep: Node | None = None) -> None:
        """Move what is cheap to compute from the rest from `stored` to `found`, the last first."""
        for node in sorted(stored.values(), key=lambda n: -self.position[id(n)]):
            if node is keep or not self._sparable(node):
                continue
            del stored[id(node)]
            if self._is_cheap(node, stored):
                found[id(node)] = node
            else:
                stored[id(node)] = node

    def _between(self, number: int, nodes: Sequence[Node], stored: Mapping[int, Node]) -> list[Node]:
        """Full values of a group that are not stored, and that stored ones are computed from."""
        found: dict[int, Node] = {}
        todo = [x for n in nodes for x in n.inputs]
        while todo:
            x = todo.pop()
            own = self.home.get(id(x))
            if id(x) in found or own is None or own.number != number:
                continue
            if (
                id(x) not in stored
                and not is_move(x)
                and len(self._readers.get(id(x), ())) > 1
                and own.is_full(x.aval.shape)
            ):
                found[id(x)] = x
            if is_free(x):
                todo += x.inputs
        return list(found.values())

    def _is_cheap(self, node: Node, stored: Mapping[int, Node]) -> bool:
        ops, leaves, todo, seen = 0, 0, [node], set[int]()
        while todo:
            x = todo.pop()
            if id(x) in seen:
                continue
            seen.add(id(x))
            if x is not node and (id(x) in stored or x.op is None):
                leaves += x.aval.size * 4 > node.aval.size
            elif not is_free(x) or x.op in (indexing.gather, indexing.index) or getattr(x.op, "name", "") in DEAR:
                return False
            else:
                ops += not is_move(x)
                todo += x.inputs
        return ops <= _FEW and leaves <= 2

    def _stores(self) -> None:
        self._heap: list[tuple[int, Node]] = []
        self._asked: dict[int, list[Group]] = {}
        self._pushed: set[int] = set()
        self._internal: set[int] = set()
        for node in self.program.roots:
            self.fixed.add(id(node))
            self._require(node, None)
        while self._heap:
            _, node = heapq.heappop(self._heap)
            group = self.home.get(id(node))
            if group is None:
                group = self._adopted(node)
            for reader in self._asked.get(id(node), ()):
                reader.before |= {group.number} - {reader.number}
            if id(node) in self.required:
                group.placed.insert(0, node)
            self._demand(group, node)

    def _require(self, node: Node, reader: Group | None) -> None:
        if node.op is None:
            if reader is not None:
                reader.loads[id(node)] = node
            return
        self.required[id(node)] = node
        if reader is not None:
            reader.loads[id(node)] = node
            self._asked.setdefault(id(node), []).append(reader)
        self._push(node)

    def _push(self, node: Node) -> None:
        if id(node) not in self._pushed:
            self._pushed.add(id(node))
            heapq.heappush(self._heap, (-self.position[id(node)], node))

    def _adopted(self, node: Node) -> Group:
        """A home for a node that has none: with a group that reads it at its own points, or one of its own."""
        asked = self._asked.get(id(node), [])
        for reader in asked:
            if reader.kind != "loops" or not reader.is_full(node.aval.shape) or _single_row(reader):
                continue
            place = reader.place(node.aval.shape)
            if place is None or not self._read_in_place(reader, node, place):
                continue
            sources = self._from([node])
            if any(self._depends(self.groups[n], reader.number) for n in sources if n != reader.number):
                continue
            if any(self._depends(reader, other.number) for other in asked if other is not reader):
                continue
            self.home[id(node)], self.places[id(node)] = reader, place
            del reader.loads[id(node)]
            reader.before |= sources - {reader.number}
            return reader
        group = self._start("loops", node.aval.shape, frozenset(), None)
        group.before |= self._from([node])
        self.home[id(node)], self.places[id(node)] = group, group.points
        return group

    def _read_in_place(self, reader: Group, node: Node, place: Where) -> bool:
        fits = True

        def leaf(x: Node, where: Where) -> Expr | None:
            nonlocal fits
            if x is node:
                fits = fits and _same(where, place)  # type: ignore[arg-type]
                return Number(0, x.aval.dtype)
            if id(x) in reader.loads or (reader.holds(x) and isinstance(x.op, Reduction)) or x.op is None:
                return Number(0, x.aval.dtype)
            return None

        lowering = Lowering(leaf, reader.extents)
        roots = [(root, self.places[id(root)]) for root in reader.placed if not reader.holds(root)]
        roots += [(seed.inputs[0], reader.everywhere(seed.inputs[0])) for seed in reader.seeds]
        for root, at in roots:
            try:
                lowering.lowered(root, at)
            except MisfitError:
                return False
        return fits

    def _demand(self, group: Group, node: Node) -> None:
        """Require what the group reads from elsewhere to compute the node."""
        if group.holds(node):
            if isinstance(node.op, Reduction):
                self._demand_value(group, node.inputs[0], group.everywhere(node.inputs[0]))
            elif group.kind == "contract":
                for x, place in zip(node.inputs, group.operands(), strict=True):
                    self._demand_operand(group, x, place)
            else:
                for x in node.inputs:
                    self._demand_value(group, x, None)
            return
        self._demand_value(group, node, self.places[id(node)])

    def _demand_value(self, group: Group, node: Node, place: Where | None) -> None:
        extents = group.extents
        if place is None:  # loops of its own, over the dimensions of the value
            extents = dict(enumerate(node.aval.shape))
            place = points_of(node.aval.shape)
        while True:
            try:
                Lowering(self._demanding(group, node), extents).lowered(node, place)
            except MisfitError as misfit:
                self.fixed.add(id(misfit.node))
                self._require(misfit.node, group)
            else:
                return

    def _demand_operand(self, group: Group, node: Node, place: tuple[Affine, ...]) -> None:
        """An operand of a product is read as it lies in memory, through moves."""

        def leaf(x: Node, where: Where) -> Expr | None:
            if id(x) in group.loads:
                return Number(0, x.aval.dtype)
            if x.op is None or not is_move(x) or x.op in (movement.cat, movement.embed):
                self.fixed.add(id(x))
                self._require(x, group)
                return Number(0, x.aval.dtype)
            return None

        while True:
            try:
                Lowering(leaf, group.extents).lowered(node, place)
            except MisfitError as misfit:
                self.fixed.add(id(misfit.node))
                self._require(misfit.node, group)
            else:
                return

    def _demanding(self, group: Group, root: Node) -> Leaf:
        """Notes what a group reads: its own reductions are to be made, others' values to be stored."""

        def leaf(x: Node, where: Where) -> Expr | None:
            own, loaded = self.home.get(id(x)), id(x) in group.loads
            if not loaded and own is group:
                if not group.holds(x):
                    return None
                if isinstance(x.op, Reduction) or x is not root:
                    self._push(x)
            elif not loaded:
                if not self._is_read(x, root, own):
                    return None
                self._require(x, group)
            return Number(0, x.aval.dtype)

        return leaf

    def _is_read(self, x: Node, root: Node, own: Group | None) -> bool:
        """Is a value of elsewhere read from memory, and not computed where it is wanted?"""
        if x.op is None:
            return x.constant is None
        if not is_free(x):
            return True
        if (x is root and own is None) or (self.kept is not None and id(x) not in self.kept):
            return False
        return (own is not None and not is_move(x)) or self._dear(x)

    def _dear(self, node: Node) -> bool:
        """Is a free node better computed once than by each reader?"""
        return (
            isinstance(node.op, Elementwise)
            and len(self._readers.get(id(node), ())) > 1
            and node.op.name in DEAR
            and not self._from([node])
        )


DEAR = frozenset({
    "exp", "exp2", "expm1", "log", "log2", "log10", "log1p", "sin", "cos", "tan", "asin", "acos", "atan", "atan2",
    "sinh", "cosh", "tanh", "asinh", "acosh", "atanh", "erf", "sigmoid", "logsigmoid", "softplus", "pow_tensor",
})  # fmt: skip


def points_of(shape: Sequence[int]) -> tuple[Affine, ...]:
    """The position along each dimension, of loops that run over a shape; along one of size 1, always 0."""
    return tuple(Affine.variable(v) if n != 1 else Affine() for v, n in enumerate(shape))


def is_heavy(node: Node) -> bool:
    """Does the node start a kernel of its own?"""
    if node.op is movement.embed:
        return any(step != 1 for _, _, step in node.params["window"])
    return isinstance(node.op, Reduction) or node.op in _SPECIAL


def grouped(program: Program) -> Grouping:
    """The groups of a program."""
    grouping = Grouping(program)
    grouping.find_homes()
    grouping.find_stores()
    return grouping


def _key(frame: tuple[int, ...], reduced: frozenset[int]) -> tuple[tuple[int, bool], ...]:
    return tuple((n, d in reduced) for d, n in enumerate(frame) if n != 1)


def _single_row(group: Group) -> bool:
    kept = points = 1
    for d, n in enumerate(group.frame):
        points *= n
        if d not in group.reduced:
            kept *= n
    return bool(group.reduced) and kept == 1 and points > _SMALL


def _origins(node: Node, dim: int) -> tuple[int, ...]:
    """The sizes that a dimension was joined from by reshapes, as far as nothing is computed between."""
    while node.op is not None and is_move(node) and node.op is not movement.cat:
        if node.op is movement.permute:
            dim = node.params["dims"][dim]
        elif node.op is movement.reshape:
            before, after = node.inputs[0].aval.shape, node.aval.shape
            held = next((held for held, made in segments(before, after) if made == [dim]), None)
            if held is None:
                break
            if len(held) > 1:
                return tuple(size for d in held for size in _origins(node.inputs[0], d))
            dim = held[0]
        else:
            break
        node = node.inputs[0]
    return (node.aval.shape[dim],)


def _refined(first: tuple[int, ...], second: tuple[int, ...]) -> tuple[int, ...]:
    """Sizes that both ways of joining one dimension can be joined from; the dimension itself if there are none."""
    cuts = {math.prod(sizes[i:]) for sizes in (first, second) for i in range(len(sizes) + 1)}
    ordered = sorted(cuts, reverse=True)
    if any(big % small for big, small in pairwise(ordered)):
        return (math.prod(first),)
    return tuple(big // small for big, small in pairwise(ordered)) or (1,)


def _nothing(node: Node, where: Where) -> Expr | None:
    return None


def _same(where: Where, place: Sequence[Affine] | None) -> bool:
    return place is not None and not isinstance(where, Flat) and tuple(where) == tuple(place)
