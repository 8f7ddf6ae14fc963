"""How a loop nest is laid out: over which variable lanes run, in which order loops stand, how much is done at once.

Knows what a kernel's expressions weigh and how they step through memory, and nothing of code. Lanes over an outer
variable are points of the outer loops, and reductions along inner loops then sums of whole vectors; lanes over an inner
one are combined at the end of the loop. The choice is made by counting what the loads and stores of the innermost loops
cost; it depends on the shape and the target alone, and so does the order of every sum.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from types import MappingProxyType
from typing import final

import numpy as np

from chainrule import dtypes
from chainrule.compile.kernels.buffer import Buffer
from chainrule.compile.kernels.expression import (
    Cast,
    Compute,
    Expr,
    Load,
    Pick,
    Random,
    Reduced,
    Within,
    variables,
    walk,
)
from chainrule.compile.kernels.kernel import Loops, Stage
from chainrule.compile.kernels.relocation import Places, relocated
from chainrule.compile.llvm.random import TOGETHER, are_quads
from chainrule.compile.llvm.shares import Rows
from chainrule.compile.llvm.squares import is_across
from chainrule.compile.llvm.target import Target
from chainrule.compile.llvm.values import SCALAR
from chainrule.core.affine import Affine

Reach = Mapping[int, tuple[int, int]]  # by variable, its first and its last value

_STRIDED = 1.5  # what an element costs that is not next to the last, against a whole vector of neighbours
_TURNED = 1.0  # what an element of a square that is turned costs, for each of the doublings that make up its side
_CHAINS = 4  # additions in flight: a sum waits four cycles for the last one
_LARGE = 24  # ops; what is larger finds no registers for so many chains, and has two
_OTHERS = 4  # registers for what is added up: sums take no more than the rest
_ROWS = 1 << 13  # bytes: so much may be remembered of rows side by side
_FEW = 8  # rounds: fewer are not easily shared
_DEAR = 16  # instructions that a dear op is, as exp
_FEW_OF_ALL = 8  # times: work that is so much smaller than all there is decides nothing
_RANDOM = 40.0  # what a random number costs, against an op
_WRITTEN = 400  # expressions that a body may be, with all its copies, for loops to be cut at edges
_HALF = 12  # expressions that it counts as to read or round a 16-bit float, which is done bit by bit


@final
@dataclass(frozen=True, eq=False, kw_only=True)
class Layout:
    """How a `Loops` kernel is laid out in code.

    order: the outer variables that have more than one round, outermost first; threads share the first, see `shared`.
    vector: the outer variable that lanes run over, or None: then each stage has one of its own, see `inner`.
    across: an outer variable along which lies what lanes read far apart: with as many points of it as there are lanes
        they are worked on as squares, read along one side and turned; or None.
    inner: of each stage, by number, the inner variable that lanes may run over.
    lanes: of a vector, or SCALAR. pieces: vectors that are worked on at once.
    base: a variable that stands for the first point of those; None where nothing mentions it.
    edges: of variables, where what is read changes, as from one of arrays that are joined to the next: loops are cut
        there, so that no entry is asked for its side.
    work: roughly the cycles that one thread takes for it all.
    """

    kernel: Loops
    order: tuple[int, ...]
    vector: int | None
    across: int | None
    inner: Mapping[int, int | None]
    lanes: int
    pieces: int
    base: int | None
    edges: Mapping[int, Sequence[int]]
    work: float

    @property
    def is_empty(self) -> bool:
        """Is there no point to be computed?"""
        return any(self.kernel.extents[v] == 0 for v in self.kernel.outer)

    @property
    def block(self) -> int:
        """Points of the vector variable that are worked on at once."""
        return max(self.lanes, 1) * self.pieces

    @property
    def shared(self) -> tuple[int, ...]:
        """The variables whose rounds, taken as one loop, threads share: the first, or both of rows in parts."""
        return self.order[: 2 if _in_parts(self.kernel.extents, self.order, self.vector) else 1]

    @property
    def units(self) -> int:
        """Parts that threads share: rounds of the first loop or loops."""
        return math.prod(map(self.rounds, self.shared))

    @property
    def rows(self) -> Rows | None:
        """The rows that units stand for, if they run over the first dimension, or over the first ones."""
        if not self.order or self.shared != tuple(range(len(self.shared))) or self.is_empty:
            return None
        return Rows(math.prod(self.kernel.extents[v] for v in self.shared), self.block if self.vector == 0 else 1)

    def rounds(self, variable: int) -> int:
        """How often the loop over an outer variable goes round: of the vector's, once for each block."""
        extent = self.kernel.extents[variable]
        return extent if variable != self.vector else -(-extent // self.block)


def decide(kernel: Loops, target: Target) -> Layout:
    """Which variable lanes run over, how many lanes, how many vectors at once."""
    full = target.vector_bytes // _width_of_most(kernel)
    inner = {
        i: min(stage.inner, key=partial(_inner_cost, kernel, stage, full), default=None)
        for i, stage in enumerate(kernel.stages)
    }
    cost_along = _cost_along(kernel, inner, full)
    vector, work = _best_outer(kernel, full)
    if work < cost_along:
        extent = kernel.extents[vector] if vector is not None else 1
    else:
        vector, work = None, cost_along
        extent = max((kernel.extents[v] for v in inner.values() if v is not None), default=1)
    lanes = min(full, 1 << max(extent - 1, 0).bit_length())
    pieces, base = _pieces(kernel, extent, lanes, target.registers), None
    if any(_in_quads(e, vector, lanes) for stage in kernel.stages for e in walk(*stage.values)):
        pieces = TOGETHER
    across = None if vector is None else _across(kernel, vector, lanes)
    along = {vector} if vector is not None else set(inner.values())
    if vector is not None and (kept := _remembered(kernel)):
        pieces, base = 1, max(kernel.extents) + 1
        kernel = _side_by_side(kernel, kept, lanes, Affine.variable(vector) - Affine.variable(base))
    return Layout(
        kernel=kernel,
        order=_order(kernel, vector),
        vector=vector,
        across=across,
        inner=inner,
        lanes=lanes if lanes > 1 else SCALAR,
        pieces=pieces,
        base=base,
        edges=_edges(kernel, dict.fromkeys(along, max(lanes, 1) * pieces), 1 if across is None else lanes),
        work=work,
    )


def _order(kernel: Loops, vector: int | None) -> tuple[int, ...]:
    """The outer variables, as they are written, but that the first has enough rounds for threads to share.

    A variable of one round is mentioned nowhere. The vector's stays the innermost.
    """
    order = [v for v in kernel.outer if v != vector and kernel.extents[v] != 1]
    if order and kernel.extents[order[0]] < _FEW and not _in_parts(kernel.extents, order, vector):
        most = max(order, key=lambda v: min(kernel.extents[v], _FEW))
        order.insert(0, order.pop(order.index(most)))
    return tuple(order) if vector is None else (*order, vector)


def _in_parts(extents: Mapping[int, int], order: Sequence[int], vector: int | None) -> bool:
    """Are rows in a few parts, as 2 × 512? They fall to the threads as 1,024 do elsewhere, not half of each to each."""
    return tuple(order[:2]) == (0, 1) and vector != 1 and extents[0] < _FEW <= extents[1]


def _pieces(kernel: Loops, extent: int, lanes: int, registers: int) -> int:
    """Vectors at once: several only where a reduction would else wait for its own last result, and not too many."""
    most_sums = max(len(stage.reductions) for stage in kernel.stages)
    if most_sums == 0:
        return 1
    size = sum(_weight(e) for e in walk(*(e for stage in kernel.stages for e in stage.values)))
    most = -(-extent // max(lanes, 1))
    return max(1, min(_CHAINS if size <= _LARGE else 2, most, (registers - _OTHERS) // most_sums))


def _across(kernel: Loops, vector: int, lanes: int) -> int | None:
    """The side of squares: see `Layout`. Only of values that are computed and stored point by point."""
    (stage, *others), extents = kernel.stages, kernel.extents
    if others or stage.inner or lanes == 1 or extents[vector] < lanes:
        return None
    if _length([stage]) * lanes > _WRITTEN:
        return None
    loads = [e.offset for e in walk(*stage.values) if isinstance(e, Load)]
    possible = [v for v in kernel.outer if extents[v] >= lanes and any(is_across(x, vector, v) for x in loads)]
    return possible[0] if possible else None


def _edges(kernel: Loops, blocks: Mapping[int | None, int], rows: int) -> dict[int, Sequence[int]]:
    """Where loops are cut, as long as all copies of the body are short; rows: of a square.

    blocks: the variables that lanes run over, and the points of one that are worked on at once. They come first: of a
    vector that lies across an edge each lane is asked, in a copy of the body of its own.
    """
    found = defaultdict[int, set[int]](set)
    for e in walk(*(e for stage in kernel.stages for e in stage.values)):
        for position, low, high in e.bounds if isinstance(e, Within) else ():
            if len(position.terms) == 1 and abs(position.terms[0][1]) == 1:
                ((v, c),) = position.terms
                found[v] |= {c * (at - position.constant) + (c < 0) for at in (low, high)}
    edges: dict[int, Sequence[int]] = {}
    copies: list[dict[int, tuple[int, int]]] = [{}]
    for v in sorted(found, key=lambda v: (v not in blocks, v)):
        inside = sorted(x for x in found[v] if 0 < x < kernel.extents[v])
        parts = cut(kernel.extents[v], inside, blocks.get(v, 1))
        copies = [reach | {v: (first, stop - 1)} for reach in copies for first, stop in parts]
        if len(copies) > _WRITTEN or sum(_length(kernel.stages, reach) for reach in copies) * rows > _WRITTEN:
            break
        if inside:
            edges[v] = inside
    return edges


def cut(extent: int, edges: Sequence[int], step: int) -> list[tuple[int, int]]:
    """Where the parts of a loop in steps begin and end that is cut at edges; a step across an edge is its own part."""
    stop = -(-extent // step) * step
    return list(pairwise(sorted({0, stop, *(x // step * step for x in edges), *(-(-x // step) * step for x in edges)})))


def _length(stages: Sequence[Stage], reach: Reach = MappingProxyType({})) -> int:
    """How long the code of a body is, in expressions, where some variables reach from here to there, both included."""
    expressions = list(_walk_within(reach, [e for stage in stages for e in stage.values]))
    read = [e.dtype for e in expressions if isinstance(e, Load | Pick | Cast)]
    written = [s.buffer.dtype for stage in stages for s in stage.stores]
    return len(expressions) + _HALF * sum(dtypes.work_dtype(x) != x for x in (*read, *written))


def _walk_within(reach: Reach, roots: Sequence[Expr]) -> Iterator[Expr]:
    """What is left of expressions where that side of each choice which is not taken is not written."""
    seen: set[int] = set()
    left = list(roots)
    while left:
        e = left.pop()
        if id(e) in seen:
            continue
        seen.add(id(e))
        side = _side(e, reach) if isinstance(e, Within) else None
        if side is not None:
            left.append(side)
        else:
            yield e
            left += e.parts


def _side(e: Within, reach: Reach) -> Expr | None:
    """The part that counts wherever the variables reach; None if both do."""
    always = True
    for position, low, high in e.bounds:
        if any(v not in reach for v, _ in position.terms):
            always = False
            continue
        first, last = position.between(reach[v] for v, _ in position.terms)
        if last < low or first >= high:
            return e.outside
        always = always and low <= first and last < high
    return e.inside if always else None


def _in_quads(e: Expr, vector: int | None, lanes: int) -> bool:
    return isinstance(e, Random) and are_quads(e.kind, e.dtype, e.number, vector, lanes)


# --- element types


def _width_of_most(kernel: Loops) -> int:
    """Bytes of the elements that lanes are counted in: of the widest, unless nearly all of the work is in others.

    A vector of wider elements is two, then: labels are int64, and a softmax compares with them once. What is the same
    at many points, as a learning rate or which row of a table is read, is computed once for these.
    """
    work = defaultdict[int, float](float)
    mentioned: dict[int, frozenset[int]] = {}

    def points(e: Expr) -> int:
        return math.prod(kernel.extents[v] for v in mentioned[id(e)])

    for stage in kernel.stages:
        for e in walk(*stage.values):
            own = {v for p in e.positions() for v, _ in p.terms}
            own |= set(kernel.outer) if isinstance(e, Reduced) else set()
            mentioned[id(e)] = frozenset(own).union(*(mentioned[id(x)] for x in e.parts))
            if mentioned[id(e)] and e.dtype != dtypes.bool_:
                work[_width(e.dtype)] += max(_weight(e), 1.0) * points(e)
        for s in stage.stores:
            work[_width(s.buffer.dtype)] += math.prod(kernel.extents[v] for v, _ in s.offset.terms)
    if not work:
        return 4
    widest = max(work)
    return widest if work[widest] * _FEW_OF_ALL > sum(work.values()) else min(work)


def _width(dtype: np.dtype) -> int:
    return max(dtypes.work_dtype(dtype).itemsize, 4)


# --- what is remembered of a row


def _remembered(kernel: Loops) -> list[Buffer]:
    """Memory of a thread that is filled anew for each point of the outer variables."""
    stores = [s for stage in kernel.stages for s in stage.stores if s.buffer.place == "private"]
    return [s.buffer for s in stores if not any(s.offset.coefficient(v) for v in kernel.outer)]


def _side_by_side(kernel: Loops, kept: Sequence[Buffer], lanes: int, lane: Affine) -> Loops:
    """The kernel with room for as many rows as there are lanes in what is remembered of one, entry by entry."""
    wide: Places = {}
    for b in kept:
        strides = (*(s * lanes for s in b.strides), 1)
        buffer = Buffer(name=b.name, shape=(*b.shape, lanes), dtype=b.dtype, strides=strides, place="private")
        wide[id(b)] = buffer, lambda offset: offset * lanes + lane
    changed = relocated(kernel, wide)
    assert isinstance(changed, Loops)
    return changed


# --- costs


def _best_outer(kernel: Loops, full: int) -> tuple[int | None, float]:
    """The outer variable that lanes best run over, and what it all costs then; None and infinite if none may be."""
    # What is remembered of a row is remembered of as many rows as there are lanes, if they are short.
    if sum(b.bytes for b in _remembered(kernel)) * full > _ROWS:
        return None, math.inf
    costs = [(v, _outer_cost(kernel, v, full)) for v in kernel.outer if kernel.extents[v] > 1]
    return min(costs, key=lambda pair: pair[1], default=(None, math.inf))


def _outer_cost(kernel: Loops, vector: int, full: int) -> float:
    points, across = math.prod(kernel.extents[v] for v in kernel.outer), _across(kernel, vector, full)
    stages = sum(_stage_cost(kernel, stage, vector, full, across) for stage in kernel.stages)
    return points * stages * _vectors(kernel.extents[vector], full)


def _cost_along(kernel: Loops, inner: Mapping[int, int | None], full: int) -> float:
    """Of it all, where lanes run over inner variables."""
    stages = sum(
        _inner_cost(kernel, stage, full, v) if (v := inner[i]) is not None else _stage_cost(kernel, stage, None, 1)
        for i, stage in enumerate(kernel.stages)
    )
    return stages * math.prod(kernel.extents[v] for v in kernel.outer)


def _inner_cost(kernel: Loops, stage: Stage, full: int, vector: int) -> float:
    fold = 3.0 * math.log2(full) * len(stage.reductions)
    return _stage_cost(kernel, stage, vector, full) * _vectors(max(kernel.extents[vector], 1), full) + fold


def _stage_cost(kernel: Loops, stage: Stage, vector: int | None, lanes: int, across: int | None = None) -> float:
    """Of one run of the stage's loops: vectors of work, and what each access takes."""
    rounds = math.prod(kernel.extents[v] for v in stage.inner)
    arithmetic = sum(_weight(e) for e in walk(*stage.values))
    accesses = 0.0
    for affine in _accesses(stage):
        step = 0 if vector is None else affine.coefficient(vector)
        accesses += 1.0 if step in (0, 1) else _STRIDED * lanes
    if across is not None:
        loads = [e.offset for e in walk(*stage.values) if isinstance(e, Load)]
        turned = sum(is_across(x, vector, across) for x in loads) if vector is not None else 0
        accesses -= turned * (_STRIDED * lanes - _TURNED * math.log2(lanes))
    picks = sum(_pick_cost(e, vector, lanes) for e in walk(*stage.values) if isinstance(e, Pick))
    return rounds * (arithmetic + accesses + picks)


def _pick_cost(e: Pick, vector: int | None, lanes: int) -> float:
    """Of looking up in each lane; or once for all of them, which then read what lies side by side."""
    alike = e.offset.coefficient(vector) == 1 if vector is not None else False
    return 2.0 if alike and vector not in variables(*(x for x, _, _ in e.indices)) else lanes * 2.0


def _accesses(stage: Stage) -> list[Affine]:
    loads = [e.offset for e in walk(*stage.values) if isinstance(e, Load)]
    return loads + [s.offset for s in stage.stores]


def _weight(e: Expr) -> float:
    if isinstance(e, Random):
        return _RANDOM
    return (_DEAR if e.op.dear else 1.0) if isinstance(e, Compute) else 0.0


def _vectors(extent: int, lanes: int) -> float:
    return -(-extent // lanes) / extent
