"""From a group to its kernel: what is computed, as expressions over what lies in memory, in loops of its kind.

Knows what each kind of group becomes, given which values it stores and reads. Refuses to decide any of that, or in
which order kernels run; what the stages of loops are is told in `stages.py`.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from chainrule import dtypes
from chainrule.compile.kernels.access import Leaf, Lowering, Where, is_free, rounded
from chainrule.compile.kernels.buffer import Buffer, row_major
from chainrule.compile.kernels.expression import Accumulated, Cast, Expr, Load, Random, Reduced, Reduction
from chainrule.compile.kernels.group import Group, Places, points_of
from chainrule.compile.kernels.kernel import Contract, Kernel, Loops, Scan, Scatter, Sort, Stage, Store
from chainrule.compile.kernels.stages import staged
from chainrule.compile.kernels.storage import Buffers, offset_in
from chainrule.core.affine import Affine
from chainrule.core.node import Node
from chainrule.ops import indexing, movement, windows


def kernel_of(group: Group, places: Places, buffers: Buffers) -> Kernel:
    """The kernel of a group. Constants that it reads get their buffers."""
    match group.kind:
        case "loops":
            return _loops(group, places, buffers)
        case "contract":
            return _contract(group, places, buffers)
        case "scatter":
            return _scatter(group, buffers)
        case "scan" | "sort":
            return _along(group, buffers)
        case "random":
            return _random(group, buffers)


def copy_of(source: Buffer, target: Buffer) -> Loops:
    """A kernel that copies a buffer into another one."""
    points = points_of(target.shape)
    value = Load(source, offset_in(source, points))
    store = Store(buffer=target, offset=offset_in(target, points), value=value)
    return _entry_by_entry("copy", target.shape, store)


def _entry_by_entry(name: str, shape: tuple[int, ...], store: Store) -> Loops:
    extents = dict(enumerate(shape))
    return Loops(name=name, extents=extents, outer=tuple(extents), stages=(Stage(inner=(), stores=(store,)),))


def _reading(group: Group, buffers: Buffers, own: Leaf | None = None) -> Leaf:
    """How a group reads what it does not compute: as loads. own: how it reads what it does."""

    def leaf(node: Node, where: Where) -> Expr | None:
        if id(node) in group.loads or (node.op is None and node.constant is None):
            return buffers.load(node, where)
        return None if own is None else own(node, where)

    return leaf


def _lowering(group: Group, buffers: Buffers, own: Leaf | None = None) -> Lowering:
    return Lowering(_reading(group, buffers, own), group.extents)


def _name(group: Group) -> str:
    """Op names in the order they are computed, for reports."""
    found = [n.op.name for n in (*group.seeds, *group.placed) if n.op is not None]
    return "_".join(list(dict.fromkeys(found))[:4])


# --- loops and reductions


def _loops(group: Group, places: Places, buffers: Buffers) -> Loops:
    reductions: dict[int, Reduction] = {}

    def own(node: Node, where: Where) -> Expr | None:
        if not group.holds(node):
            return None
        if id(node) not in reductions:
            raise AssertionError(f"{node.op.name if node.op else node} is read before it is reduced")
        return _reduced(reductions[id(node)], node)

    lowering = _lowering(group, buffers, own)
    wanted = _wanted(group)
    for seed in group.seeds:
        if id(seed) in wanted:
            reductions[id(seed)] = _reduction(group, seed, lowering)
    full: list[Store] = []
    rows: list[Store] = []
    for node in group.placed:
        place = places[id(node)]
        value = _reduced(reductions[id(node)], node) if group.holds(node) else lowering.lowered(node, place)
        (full if group.is_full(node.aval.shape) else rows).append(buffers.store(node, place, value))
    inner = tuple(sorted(group.reduced))
    stages = staged(inner, group.extents, list(reductions.values()), full, rows)
    outer = tuple(v for v in range(len(group.frame)) if v not in group.reduced)
    return Loops(name=_name(group), extents=group.extents, outer=outer, stages=stages)


def _wanted(group: Group) -> set[int]:
    """The reductions that something written depends on."""
    found: set[int] = set()
    seen: set[int] = set()
    todo = list(group.placed)
    while todo:
        node = todo.pop()
        if id(node) in seen or id(node) in group.loads:
            continue
        seen.add(id(node))
        if group.holds(node):
            found.add(id(node))
            todo += node.inputs
        elif is_free(node):
            todo += node.inputs
    return found


def _reduction(group: Group, seed: Node, lowering: Lowering) -> Reduction:
    (x,) = seed.inputs
    op: Any = seed.op
    place = group.everywhere(x)
    value = lowering.lowered(x, place)
    if op.combine not in ("argmax", "argmin"):
        return Reduction(combine=op.combine, value=value, dtype=seed.aval.dtype)
    value = rounded(value)
    dims = sorted(seed.params["dim"])
    sizes = row_major(tuple(x.aval.shape[d] for d in dims))
    position = Affine.total((place[d], s) for d, s in zip(dims, sizes, strict=True))
    # As wide as the values, if it can be: beside each other, both then fill vectors of as many lanes.
    count = math.prod(x.aval.shape[d] for d in dims)
    is_narrow = dtypes.work_dtype(value.dtype).itemsize <= 4 and count <= np.iinfo(np.int32).max
    dtype = dtypes.int32 if is_narrow else seed.aval.dtype
    return Reduction(combine=op.combine, value=value, dtype=dtype, position=position)


def _reduced(reduction: Reduction, seed: Node) -> Expr:
    """What a reduction came to, as the type that its op gives."""
    found, dtype = Reduced(reduction), seed.aval.dtype
    return found if reduction.dtype == dtype else Cast(found, dtype)


# --- products


def _contract(group: Group, places: Places, buffers: Buffers) -> Contract:
    (seed,) = group.seeds
    operands = _lowering(group, buffers)
    left, right = (operands.lowered(x, at) for x, at in zip(seed.inputs, group.operands(), strict=True))
    accumulated = Accumulated(seed.aval.dtype)
    epilogue = _lowering(group, buffers, lambda node, where: accumulated if node is seed else None)
    stores = []
    for node in group.placed:
        place = places[id(node)]
        stores.append(buffers.store(node, place, epilogue.lowered(node, place)))
    count = len(group.frame)
    return Contract(
        name=_name(group),
        extents=group.extents,
        batch=tuple(range(count - len(group.rows) - len(group.columns))),
        rows=group.rows,
        columns=group.columns,
        summed=tuple(range(count, count + len(group.summed))),
        left=left,
        right=right,
        accumulate=dtypes.work_dtype(seed.aval.dtype),
        epilogue=tuple(stores),
    )


# --- what is a kernel by itself


def _scatter(group: Group, buffers: Buffers) -> Scatter:
    (seed,) = group.seeds
    x, *given = seed.inputs
    params = seed.params
    extents = dict(enumerate(x.aval.shape))
    points = points_of(x.aval.shape)
    lowering = Lowering(_reading(group, buffers), extents)
    value = lowering.lowered(x, points)
    buffer = buffers.of(seed)
    strides, shape = buffer.strides, buffer.shape
    indices: list[tuple[Expr, int, int]] = []
    if seed.op is indexing.index_add:
        count = given[0].aval.ndim
        indices = [(lowering.lowered(i, points[:count]), n, s) for i, n, s in zip(given, shape, strides, strict=False)]
        offset = _dot(points[count:], strides[len(given) :])
    elif seed.op is indexing.scatter_add:
        dim = params["dim"]
        indices = [(lowering.lowered(given[0], points), shape[dim], strides[dim])]
        offset = _dot(points[:dim] + points[dim + 1 :], strides[:dim] + strides[dim + 1 :])
    elif seed.op is movement.embed:
        at = [p * step + start for p, (start, _, step) in zip(points, params["window"], strict=True)]
        offset = _dot(tuple(at), strides)
    else:
        assert seed.op is windows.overlap_add, seed.op
        count = len(params["size"])
        lead = x.aval.ndim - 2 * count
        out, inside = points[lead : lead + count], points[lead + count :]
        at = [o * s + i * d for o, i, s, d in zip(out, inside, params["stride"], params["dilation"], strict=True)]
        offset = _dot((*points[:lead], *at), strides)
    return Scatter(
        name=seed.op.name, extents=extents, loops=tuple(extents), buffer=buffer, offset=offset,
        indices=tuple(indices), value=value,
    )  # fmt: skip


def _along(group: Group, buffers: Buffers) -> Scan | Sort:
    """A running sum or a sort along one dimension."""
    (seed,) = group.seeds
    along = seed.params["dim"]
    value = _lowering(group, buffers).lowered(seed.inputs[0], group.points)
    target = buffers.store(seed, group.points, value)
    outer = tuple(v for v in range(len(group.frame)) if v != along)
    name, extents = _name(group), group.extents
    if group.kind == "scan":
        return Scan(name=name, extents=extents, outer=outer, along=along, value=value, target=target)
    return Sort(
        name=name, extents=extents, outer=outer, along=along, value=rounded(value),
        descending=seed.params["descending"], target=target,
    )  # fmt: skip


def _random(group: Group, buffers: Buffers) -> Loops:
    (seed,) = group.seeds
    op: Any = seed.op
    (key,) = seed.inputs
    load = buffers.load(key, (Affine(),))
    assert isinstance(load, Load)

    def value(number: Affine) -> Random:
        params, aval = dict(seed.params), seed.aval
        offset = params.pop("offset")
        return Random(op.name, load.buffer, offset, number, aval.size, params, aval.dtype)

    buffer, frame = buffers.of(seed), group.frame
    if len(frame) > 2 and buffer.strides == row_major(frame):  # one loop along all that lies side by side
        shape = frame[0], math.prod(frame[1:])
        number = Affine.total(zip(points_of(shape), row_major(shape), strict=True))
        return _entry_by_entry(op.name, shape, Store(buffer=buffer, offset=number, value=value(number)))
    # Counted row by row, as eagerly, wherever the entries lie in memory.
    number = Affine.total(zip(group.points, row_major(frame), strict=True))
    return _entry_by_entry(op.name, frame, buffers.store(seed, group.points, value(number)))


def _dot(place: tuple[Affine, ...], strides: tuple[int, ...]) -> Affine:
    return Affine.total(zip(place, strides, strict=True))
