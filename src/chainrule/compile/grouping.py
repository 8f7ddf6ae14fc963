"""Which nodes are computed together: groups of nodes that become one kernel each, and what has to lie in memory.

A heavy node (a product of matrices, a reduction, a sort) starts a group, or joins one that runs over the same points.
What is computed from it entry by entry joins it too, as long as each value is read at the very point where it is
computed: a bias and an activation join the product, the shift and the exponential of a softmax join its maximum. Every
other elementwise node is free: it is computed where it is read, again for each reader, unless it has to be stored.

Then, from the results back, each group says which values of other groups it reads: those, and only those, are stored.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from chainrule.compile.access import Flat, Lowering, MisfitError, Where, is_free, is_move
from chainrule.compile.kernel import Affine, Expr, Number
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

    @property
    def extents(self) -> dict[int, int]:
        """The rounds of each loop variable: one a dimension of the frame."""
        return dict(enumerate(self.frame))

    @property
    def points(self) -> tuple[Affine, ...]:
        """The position along each dimension of the frame."""
        return tuple(Affine.variable(v) if n != 1 else Affine() for v, n in enumerate(self.frame))

    def holds(self, node: Node) -> bool:
        """Is the node one of the heavy ones here?"""
        return any(node is seed for seed in self.seeds)

    def place(self, shape: tuple[int, ...]) -> tuple[Affine, ...] | None:
        """Where a value of this shape stands at a point of the loops; None if it does not run along with them."""
        sizes = [n for n in shape if n != 1]
        full = [v for v, n in enumerate(self.frame) if n != 1]
        rows = [v for v in full if v not in self.reduced]
        for variables in (full, rows):
            if sizes == [self.frame[v] for v in variables]:
                along = iter(variables)
                return tuple(Affine.variable(next(along)) if n != 1 else Affine() for n in shape)
        return None

    def is_full(self, shape: tuple[int, ...]) -> bool:
        """Does a value of this shape have an entry for every point, reduced dimensions included?"""
        return [n for n in shape if n != 1] == [n for n in self.frame if n != 1]


@dataclass(eq=False)
class Grouping:
    """The groups of a program, and which node is computed where."""

    program: Program
    groups: list[Group] = field(default_factory=list)
    home: dict[int, Group] = field(default_factory=dict)  # of heavy and of joined nodes, by id
    required: dict[int, Node] = field(default_factory=dict)
    position: dict[int, int] = field(default_factory=dict)
    again: dict[int, Node] = field(default_factory=dict)  # stored at first thought, but cheap to compute where it is read
    fixed: set[int] = field(default_factory=set)  # what has to be stored: results, operands
    users: dict[int, int] = field(default_factory=dict)

    def active(self) -> list[Group]:
        """Groups that write something."""
        return [g for g in self.groups if g.placed]

    # --- 1: homes

    def find_homes(self) -> None:
        """Give every heavy node a group, and every node that can be computed along with one its place there."""
        for number, node in enumerate(self.program.nodes):
            self.position[id(node)] = number
            for x in node.inputs:
                self.users[id(x)] = self.users.get(id(x), 0) + 1
        self._sources: dict[int, frozenset[int]] = {}
        for node in self.program.nodes:
            if node.op is None:
                self._sources[id(node)] = frozenset()
            elif isinstance(node.op, Reduction):
                self._reduction(node)
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

    def _seed(self, group: Group, node: Node) -> None:
        group.seeds.append(node)
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
            if group.kind != "loops" or _key(group.frame, group.reduced) != key:
                continue
            if (group.number in sources or self._related(group, x)) and self._may_join(group, x, full=True):
                self._seed(group, node)
                return
        self._start("loops", frame, reduced, node)

    def _related(self, group: Group, x: Node) -> bool:
        """Do a group's reductions read something that `x` is computed from too?"""
        read = {id(leaf) for seed in group.seeds for leaf in self._stops(seed.inputs[0])}
        return any(id(leaf) in read for leaf in self._stops(x) if leaf.aval.shape)

    def _stops(self, node: Node) -> Iterator[Node]:
        if is_free(node) and (id(node) not in self.home or is_move(node)):
            for x in node.inputs:
                yield from self._stops(x)
        elif node.constant is None:
            yield node

    def _free(self, node: Node) -> None:
        sources = self._from(node.inputs)
        self._sources[id(node)] = sources
        if not sources or is_move(node):
            return
        for number in sorted(sources, reverse=True)[:2]:
            group = self.groups[number]
            if group.kind not in ("loops", "contract"):
                continue
            if self._may_join(group, node, full=False):
                self.home[id(node)] = group
                group.before |= sources - {number}
                self._sources[id(node)] = frozenset({number})
                return

    def _may_join(self, group: Group, node: Node, *, full: bool) -> bool:
        """Can the node be computed at the points of a group, from what is computed there at the same points?"""
        shape = node.aval.shape
        place = group.place(shape)
        if place is None or (full and not group.is_full(shape)):
            return False
        if not full and group.reduced and group.is_full(shape) and _single_row(group):
            return False
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
                    fits = fits and _same(where, self._seed_place(group, x))
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

    def _seed_place(self, group: Group, seed: Node) -> tuple[Affine, ...] | None:
        return group.place(seed.aval.shape)

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
        homes = dict(self.home)
        self._stores()
        self.again = self._cheap_again()
        if self.again:
            self.home = homes
            self.groups = [g for g in self.groups if g.seeds]
            self.required, self.fixed = {}, set()
            for group in self.groups:
                group.placed, group.loads = [], {}
            self._stores()

    def _cheap_again(self) -> dict[int, Node]:
        """Stored nodes that readers can as well compute from other stored ones, with a few operations and no more loads."""
        stored = dict(self.required)
        found: dict[int, Node] = {}
        for node in sorted(self.required.values(), key=lambda n: -self.position[id(n)]):
            if id(node) in self.fixed or not is_free(node):
                continue
            del stored[id(node)]
            if self._is_cheap(node, stored):
                found[id(node)] = node
            else:
                stored[id(node)] = node
        return found

    def _is_cheap(self, node: Node, stored: Mapping[int, Node]) -> bool:
        ops, leaves, todo, seen = 0, 0, [node], set[int]()
        while todo:
            x = todo.pop()
            if id(x) in seen:
                continue
            seen.add(id(x))
            if x is not node and (id(x) in stored or x.op is None):
                leaves += x.aval.size * 4 > node.aval.size
            elif not is_free(x) or x.op in (indexing.gather, indexing.index) or getattr(x.op, "name", "") in _DEAR:
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
        for reader in self._asked.get(id(node), ()):
            if reader.kind != "loops" or not reader.is_full(node.aval.shape) or _single_row(reader):
                continue
            place = reader.place(node.aval.shape)
            if place is None or not self._read_in_place(reader, node, place):
                continue
            sources = self._from([node])
            if any(self._depends(self.groups[n], reader.number) for n in sources if n != reader.number):
                continue
            self.home[id(node)] = reader
            del reader.loads[id(node)]
            reader.before |= sources - {reader.number}
            return reader
        group = self._start("loops", node.aval.shape, frozenset(), None)
        group.before |= self._from([node])
        self.home[id(node)] = group
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
        for root in (*reader.placed, *(s.inputs[0] for s in reader.seeds)):
            at = reader.place(root.aval.shape)
            if at is None or reader.holds(root):
                continue
            try:
                lowering.lowered(root, at)
            except MisfitError:
                return False
        return fits

    def _demand(self, group: Group, node: Node) -> None:
        """Require what the group reads from elsewhere to compute the node."""
        if group.holds(node):
            if isinstance(node.op, Reduction):
                self._demand_value(group, node.inputs[0], group.points)
            elif group.kind == "contract":
                for x in node.inputs:
                    self._demand_operand(group, x)
            else:
                for x in node.inputs:
                    self._demand_value(group, x, None)
            return
        place = group.place(node.aval.shape)
        assert place is not None
        self._demand_value(group, node, place)

    def _demand_value(self, group: Group, node: Node, place: Where | None) -> None:
        extents = group.extents
        if place is None:  # loops of its own, over the dimensions of the value
            extents = dict(enumerate(node.aval.shape))
            place = tuple(Affine.variable(v) if n != 1 else Affine() for v, n in extents.items())
        while True:
            try:
                Lowering(self._demanding(group, node), extents).lowered(node, place)
            except MisfitError as misfit:
                self.fixed.add(id(misfit.node))
                self._require(misfit.node, group)
            else:
                return

    def _demand_operand(self, group: Group, node: Node) -> None:
        """An operand of a product is read as it lies in memory, through moves."""
        extents = dict(enumerate(node.aval.shape))
        place = tuple(Affine.variable(v) if n != 1 else Affine() for v, n in extents.items())

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
                Lowering(leaf, extents).lowered(node, place)
            except MisfitError as misfit:
                self.fixed.add(id(misfit.node))
                self._require(misfit.node, group)
            else:
                return

    def _demanding(self, group: Group, root: Node):  # type: ignore[no-untyped-def]
        def leaf(x: Node, where: Where) -> Expr | None:
            nothing = Number(0, x.aval.dtype)
            if id(x) in group.loads:
                return nothing
            own = self.home.get(id(x))
            if own is group:
                if not group.holds(x):
                    return None
                if isinstance(x.op, Reduction) or x is not root:
                    self._push(x)
                return nothing
            if x is root and own is None and is_free(x):
                return None
            if x.op is None:
                if x.constant is None:
                    self._require(x, group)
                    return nothing
                return None
            if id(x) in self.again:
                return None
            if not is_free(x) or (own is not None and not is_move(x)) or self._dear(x):
                self._require(x, group)
                return nothing
            return None

        return leaf

    def _dear(self, node: Node) -> bool:
        """Is a free node better computed once than by each reader?"""
        return (
            isinstance(node.op, Elementwise)
            and self.users.get(id(node), 0) > 1
            and node.op.name in _DEAR
            and not self._from([node])
        )


_DEAR = frozenset({
    "exp", "exp2", "expm1", "log", "log2", "log10", "log1p", "sin", "cos", "tan", "asin", "acos", "atan", "atan2", "sinh",
    "cosh", "tanh", "asinh", "acosh", "atanh", "erf", "sigmoid", "logsigmoid", "softplus", "pow_tensor",
})  # fmt: skip


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


def _same(where: Where, place: Sequence[Affine] | None) -> bool:
    return place is not None and not isinstance(where, Flat) and tuple(where) == tuple(place)
