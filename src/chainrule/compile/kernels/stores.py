"""What is written to memory, and by which group: from the results back, each group says what of others it reads.

Knows homes, and gives one to what has to be stored and has none: with a group that reads it where it stands in its
loops, or in a group of its own. Refuses to know whether storing pays (`sparing.py` says what is rather computed again),
and where in memory anything lies.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection
from dataclasses import dataclass, field

from chainrule.compile.kernels.access import Flat, Leaf, Lowering, MisfitError, Where, is_free, is_move, splits
from chainrule.compile.kernels.expression import Expr, Number, Within
from chainrule.compile.kernels.group import Group, points_of
from chainrule.compile.kernels.homes import Homes, is_same
from chainrule.compile.kernels.layout import BATCH
from chainrule.compile.kernels.limits import limit
from chainrule.compile.kernels.uses import Uses
from chainrule.compile.program import Program
from chainrule.core.affine import Affine
from chainrule.core.family import Elementwise, Reduction
from chainrule.core.node import Node
from chainrule.ops import movement

_MANY = 4  # joined arrays: of fewer, an entry is soon found


@dataclass(frozen=True, eq=False)
class Stores:
    """homes: with what each group writes and reads. required: what is stored, by id. fixed: ids of what has to be."""

    homes: Homes
    required: dict[int, Node] = field(default_factory=dict)
    fixed: set[int] = field(default_factory=set)


def find_stores(
    program: Program,
    homes: Homes,
    uses: Uses,
    often: Collection[int],
    cuts: Collection[int],
    kept: Collection[int] | None = None,
) -> Stores:
    """What is stored of a program whose nodes have these homes, which stay as they are.

    often: ids of what would be computed too often, see `repeated.py`. cuts: of those, what has a group of its own.
    kept: ids of what is worth storing, once that is known; else whatever is computed in one group and read in another.
    """
    stores = Stores(homes.copied())
    demand = _Demand(stores, uses, often, cuts, kept)
    for node in program.roots:
        stores.fixed.add(id(node))
        demand.require(node, None)
    demand.meet()
    return stores


class _Demand:
    """What is asked for and not yet seen to, the last of the program first; so all who read a node come before it."""

    def __init__(
        self,
        stores: Stores,
        uses: Uses,
        often: Collection[int],
        cuts: Collection[int],
        kept: Collection[int] | None,
    ) -> None:
        self._stores, self._homes = stores, stores.homes
        self._uses, self._often, self._cuts, self._kept = uses, often, cuts, kept
        self._heap: list[tuple[int, Node]] = []
        self._pushed: set[int] = set()
        self._asked: dict[int, list[Group]] = {}  # who reads a node from memory, by the node's id

    def meet(self) -> None:
        """See to all that was required, and to what that requires."""
        while self._heap:
            _, node = heapq.heappop(self._heap)
            group = self._homes.of(node) or self._adopted(node)
            for reader in self._asked.get(id(node), ()):
                self._homes.let_wait(reader, {group.number})
            if id(node) in self._stores.required:
                group.placed.insert(0, node)
            self._read_for(group, node)

    def require(self, node: Node, reader: Group | None) -> None:
        """A value is to lie in memory, for a group to read it or, without one, as a result."""
        if reader is not None:
            reader.loads[id(node)] = node
        if node.op is None:
            return
        self._stores.required[id(node)] = node
        if reader is not None:
            self._asked.setdefault(id(node), []).append(reader)
        self._push(node)

    def _push(self, node: Node) -> None:
        if id(node) not in self._pushed:
            self._pushed.add(id(node))
            heapq.heappush(self._heap, (-self._uses.position[id(node)], node))

    # --- homes for what has none

    def _adopted(self, node: Node) -> Group:
        """With a group that reads the node at its own points, or one of its own."""
        asked = self._asked.get(id(node), [])
        for reader in asked if id(node) not in self._cuts else ():
            place = self._place_with(reader, node, asked)
            if place is not None:
                self._homes.settle(node, reader, place)
                del reader.loads[id(node)]
                self._homes.let_wait(reader, self._homes.sources_of([node]))
                return reader
        frame = _before_joining(node).aval.shape
        group = self._homes.start("loops", frame)
        self._homes.let_wait(group, self._homes.sources_of([node]))
        place = group.place(node.aval.shape)
        assert place is not None
        self._homes.settle(node, group, place)
        return group

    def _place_with(self, reader: Group, node: Node, asked: Collection[Group]) -> tuple[Affine, ...] | None:
        """Where the node stands with one of those who asked for it, if it can be computed there."""
        homes = self._homes
        if reader.kind != "loops" or not reader.is_full(node.aval.shape) or reader.is_single_row:
            return None
        place = reader.place(node.aval.shape)
        if place is None or _is_mixed(node, place) or not self._read_in_place(reader, node, place):
            return None
        before = (homes.groups[n] for n in homes.sources_of([node]) if n != reader.number)
        if any(homes.waits(group, reader) for group in before):
            return None
        if any(homes.waits(reader, other) for other in asked if other is not reader):
            return None
        return place

    def _read_in_place(self, reader: Group, node: Node, place: Where) -> bool:
        """Does a group read a value only where it would compute it?"""
        fits = True

        def leaf(x: Node, where: Where) -> Expr | None:
            nonlocal fits
            if x is node:
                fits = fits and is_same(where, place)  # type: ignore[arg-type]
                return Number(0, x.aval.dtype)
            if id(x) in reader.loads or (reader.holds(x) and isinstance(x.op, Reduction)) or x.op is None:
                return Number(0, x.aval.dtype)
            return None

        lowering = Lowering(leaf, reader.extents)
        roots = [(root, self._homes.places[id(root)]) for root in reader.placed if not reader.holds(root)]
        roots += [(seed.inputs[0], reader.everywhere(seed.inputs[0])) for seed in reader.seeds]
        for root, at in roots:
            try:
                lowering.lowered(root, at)
            except MisfitError:
                return False
        return fits

    # --- what a group reads from elsewhere to compute a node

    def _read_for(self, group: Group, node: Node) -> None:
        if not group.holds(node):
            self._read_value(group, node, group.extents, self._homes.places[id(node)])
        elif isinstance(node.op, Reduction):
            self._read_value(group, node.inputs[0], group.extents, group.everywhere(node.inputs[0]))
        elif group.kind == "contract":
            for x, place in zip(node.inputs, group.operands(), strict=True):
                self._lowered(group, self._operand(group), x, group.extents, place)
        else:  # each in loops of its own, over its dimensions
            for x in node.inputs:
                self._read_value(group, x, dict(enumerate(x.aval.shape)), points_of(x.aval.shape))

    def _read_value(self, group: Group, node: Node, extents: dict[int, int], place: Where) -> None:
        self._lowered(group, self._value(group, node), node, extents, place)

    def _lowered(self, group: Group, leaf: Leaf, node: Node, extents: dict[int, int], place: Where) -> None:
        """Let `leaf` note what a group reads; what does not fit its loops has to be stored, and is read too."""
        while True:
            try:
                Lowering(leaf, extents).lowered(node, place)
            except MisfitError as misfit:
                self._stores.fixed.add(id(misfit.node))
                self.require(misfit.node, group)
            else:
                return

    def _operand(self, group: Group) -> Leaf:
        """An operand of a product is read as it lies in memory, through moves."""

        def leaf(x: Node, where: Where) -> Expr | None:
            if id(x) in group.loads:
                return Number(0, x.aval.dtype)
            if x.op is movement.embed and _is_edge(x, where, group):
                if _is_flat(x, where, group):
                    self._stores.fixed.add(id(x.inputs[0]))
                    self.require(x.inputs[0], group)
                return None
            if x.op is None or not is_move(x) or x.op in (movement.cat, movement.embed):
                self._stores.fixed.add(id(x))
                self.require(x, group)
                return Number(0, x.aval.dtype)
            return None

        return leaf

    def _value(self, group: Group, root: Node) -> Leaf:
        """A group's own reductions are to be made, others' values to be stored."""

        def leaf(x: Node, where: Where) -> Expr | None:
            own, loaded = self._homes.of(x), id(x) in group.loads
            if not loaded and own is group:
                if not group.holds(x):
                    return None
                if isinstance(x.op, Reduction) or x is not root:
                    self._push(x)
            elif not loaded:
                if not self._is_read(group, x, where, root, own):
                    return None
                self.require(x, group)
            return Number(0, x.aval.dtype)

        return leaf

    def _is_read(self, group: Group, x: Node, where: Where, root: Node, own: Group | None) -> bool:
        """Is a value of elsewhere read from memory, and not computed where it is wanted?"""
        if x.op is None:
            return x.constant is None
        if not is_free(x):
            return True
        if x is not root and (id(x) in self._often or _is_mixed(x, where)) and not self._waits(x, group):
            self._stores.fixed.add(id(x))
            return True
        if self._kept is not None:
            if id(x) not in self._kept:
                return False
            if (not is_move(x) or x.op is movement.cat) and not self._waits(x, group):
                return True  # stored, if only for others: nor is asked again of which part an entry is
        if x is root and own is None:
            return False
        return (own is not None and not is_move(x)) or (self._is_once(x) and not self._waits(x, group))

    def _waits(self, node: Node, group: Group) -> bool:
        """Is what a node is computed from known only after a group has run?"""
        homes = self._homes
        return any(homes.waits(homes.groups[n], group) for n in homes.sources_of([node]))

    def _is_once(self, node: Node) -> bool:
        """Is a free node better computed once than by each reader?"""
        return isinstance(node.op, Elementwise) and node.op.dear and len(self._uses.readers(node)) > 1


def _is_mixed(node: Node, where: Where) -> bool:
    """Is this a join of many, read where no loop can be cut at its edges, so that each entry is asked for its side?"""
    if node.op is not movement.cat or len(node.inputs) < _MANY:
        return False
    position = Flat if isinstance(where, Flat) else where[node.params["dim"]]
    return not isinstance(position, Affine) or len(position.terms) > 1


def _before_joining(node: Node) -> Node:
    """What reshapes join dimensions of: loops that run over those before know each position without a division."""
    while node.op is movement.reshape and splits(node.aval.shape, node.inputs[0].aval.shape):
        (node,) = node.inputs
    return node


def _is_edge(node: Node, where: Where, group: Group) -> bool:
    """Are the zeros around what a convolution reads better left out of its sums than stored?

    So they are if lanes run over a batch, at the same place of each example; and if what they surround is computed, for
    then that is stored with the batch innermost.
    """
    (x,) = node.inputs
    batch, lead = x.aval.shape[:1], len(group.frame)
    if x.op is None or x.aval.ndim <= 2 or batch < (BATCH,) or isinstance(where, Flat):
        return False
    first, found = where[0], Lowering(_zero_behind(node), group.extents).lowered(node, where)
    if not isinstance(first, Affine) or not isinstance(found, Within):
        return False
    along = [v for v, _ in first.terms]
    if len(along) != 1 or along[0] >= lead or first.range(group.extents) != (0, batch[0] - 1):
        return False
    found_limits = [limit(bound, range(lead, lead + len(group.summed))) for bound in found.bounds]
    return all(x is not None and x.rest.coefficient(along[0]) == 0 for x in found_limits)


def _zero_behind(node: Node) -> Leaf:
    """A leaf that sees no further than the inputs of a node."""
    return lambda x, where: None if x is node else Number(0, x.aval.dtype)


def _is_flat(node: Node, where: Where, group: Group) -> bool:
    """Is what a move moves read as if it lay row by row, since its dimensions cannot be told apart there?"""
    found = False

    def leaf(x: Node, at: Where) -> Expr | None:
        nonlocal found
        found = found or isinstance(at, Flat)
        return None if is_move(x) and x.op is not movement.cat and not found else Number(0, x.aval.dtype)

    Lowering(leaf, group.extents).lowered(node, where)
    return found
